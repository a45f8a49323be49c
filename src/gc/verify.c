/* See verify.h.
 *
 * Deliberately plain: a bit per 8 bytes of heap, a stack of object addresses in one mapping, no prefetch, no workers. It goes through
 * the same roots by their own jobs (roots.c calls back through struct marker), so what the two share is the list of
 * roots and the tables of spans; a root that both forget is not found out. */
#include "gc/verify.h"
#include <string.h>
#include "gc/heap.h"
#include "gc/mark.h"
#include "gc/roots.h"
#include "gc/type.h"
#include "os/vm.h"

static struct {
    uint64_t *seen;      /* a bit per 8 bytes of the heap */
    uintptr_t *stack;    /* objects to scan; room for all objects there can be */
    size_t n, seen_bytes, stack_bytes;
    uintptr_t from;      /* the object being scanned; 0: a root */
    const char *root;
} verify;

static w_cold w_noreturn void missed(uintptr_t obj, struct span *s, uintptr_t at, uintptr_t word)
{
    const char *kind = s->shape == SHAPE_NOSCAN ? "noscan" : s->shape == SHAPE_CONS ? "conservative" : "typed";
    if (verify.from != 0)
        w_fatal("gcverify: object %p (%zu bytes, %s) is reachable and was not marked: word %p in object %p points to it%s",
                (void *)obj, span_elem(s), kind, (void *)word, (void *)verify.from,
                heap_span_of((void *)verify.from)->carded ? ", which is of a carded type: was it stored by weft_store?" : "");
    w_fatal("gcverify: object %p (%zu bytes, %s) is reachable and was not marked: word %p at %p, a root (%s), points to it",
            (void *)obj, span_elem(s), kind, (void *)word, (void *)at, verify.root);
}

/* By the word that lies at `at`; 0: in no memory. */
static void reach(uintptr_t at, uintptr_t word)
{
    struct span *s = heap_span_of((void *)word);
    if (s == NULL)
        return;
    size_t i = (word - (uintptr_t)span_base(s)) / span_elem(s);
    if (i >= s->nobj || !bits_get(span_allocs(s), i))
        return;
    uintptr_t obj = (uintptr_t)span_base(s) + i * span_elem(s);
    if (!bits_get(span_marks(s), i))
        missed(obj, s, at, word);
    size_t bit = (obj - (uintptr_t)heap.base) / 8;
    if (bits_get(verify.seen, bit))
        return;
    bits_set(verify.seen, bit);
    if (s->shape != SHAPE_NOSCAN)
        verify.stack[verify.n++] = obj;
}

static w_no_sanitize void look_at(uintptr_t p) { reach(p, *(const uintptr_t *)p); }

static void scan_object(uintptr_t obj)
{
    struct span *s = heap_span_of((void *)obj);
    uintptr_t end = obj + span_elem(s);
    verify.from = obj;
    if (s->shape == SHAPE_CONS) {
        for (; obj < end; obj += 8)
            look_at(obj);
        return;
    }
    const struct shape *sh = shape_get(s->shape);
    for (; obj + sh->words * 8ul <= end; obj += sh->words * 8ul)
        for (uint32_t k = 0; k < sh->nptrs; k++)
            look_at(obj + sh->ptrs[k] * 8ul);
}

static void drain(void)
{
    while (verify.n != 0)
        scan_object(verify.stack[--verify.n]);
    verify.from = 0;
}

void verify_range(const void *lo, const void *hi)
{
    for (uintptr_t p = w_align_up((uintptr_t)lo, 8); p + 8 <= (uintptr_t)hi; p += 8)
        look_at(p);
    drain();
}

void verify_word(uintptr_t word)
{
    reach(0, word);
    drain();
}

void verify_contents(struct span *s, size_t index)
{
    if (s->shape != SHAPE_NOSCAN)
        scan_object((uintptr_t)span_object(s, index));
    drain();
}

static void scan_stack(void *arg, const void *lo, const void *hi)
{
    (void)arg;
    verify_range(lo, hi);
}

static void *take(size_t bytes)
{
    void *p = os_vm_reserve(bytes, os_page_bytes());
    if (p != NULL && os_vm_commit(p, bytes) != 0) {
        os_vm_free(p, bytes);
        p = NULL;
    }
    return p;
}

void verify_stw(void)
{
    size_t used = load_rlx(&heap.committed); /* rlx: in a stop */
    memset(&verify, 0, sizeof verify);
    verify.seen_bytes = w_align_up(used / 64, os_page_bytes());
    verify.stack_bytes = w_align_up(used / 2, os_page_bytes()); /* an object has 16 bytes, an entry 8 */
    if (used == 0)
        return;
    verify.seen = take(verify.seen_bytes);
    verify.stack = take(verify.stack_bytes);
    if (verify.seen != NULL && verify.stack != NULL) {
        struct marker *m = NULL; /* roots.c then calls us */
        verify.root = "data, handle or finalizer";
        for (size_t i = 0, n = roots_jobs_stw(); i < n; i++)
            roots_job_stw(i, m);
        verify.root = "stack, register or thread-local variable";
        heap.host.scan_stacks(0, 1, scan_stack, NULL);
    }
    os_vm_free(verify.seen, verify.seen_bytes);
    os_vm_free(verify.stack, verify.stack_bytes);
}
