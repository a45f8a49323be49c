/* See trail.h.
 *
 * It is taken in the stop of a collection, when the mark is done: from then on mark bits tell objects from garbage, and nobody writes.
 * Marking itself is a race through memory in no order; this goes by address, span after span, which is several times faster, and on all
 * processors. Each worker writes records
 *
 *     number of a slot, how many follow, slots that it refers to ...
 *
 * into pieces of memory of its own. A slot's number is that of its span's first one plus its index, so a word becomes a number by the tables
 * that marking uses and one more. Spans' records are copied as they are; roots are walked once more by one worker, who keeps those that lead to an
 * object. That is all that happens in the stop: counting, sorting, names and whatever is asked of it come afterwards (trail_finish, graph.c), on a
 * copy.
 *
 * Memory for the pieces is made before the stop, by what the last mark found, and touched, since a page fault costs as much as fifty references.
 * Should it not suffice, more is mapped in the stop. What an object refers to depends on its shape exactly as in mark.c. */
#include "gc/trail.h"
#include <errno.h>
#include <string.h>
#include "gc/mark.h"
#include "gc/pacer.h"
#include "gc/roots.h"
#include "gc/sample.h"
#include "gc/type.h"
#include "os/clock.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define PIECE_WORDS ((uint32_t)((PIECE_BYTES - 16) / 4))
#define SPANS_AT_ONCE 32u

struct piece { struct piece *next; uint32_t n, pad; uint32_t w[]; };

struct trail_taken {
    bool fields, nomem, toobig;
    const void *asks;
    uint64_t cycle, heap_bytes;
    int64_t look_ns;
    /* of the spans */
    struct span *span;
    uint32_t *page, *slot; /* slot: the number of the first one */
    uint32_t nspans, nslots;
    size_t span_bytes, page_bytes;
    uint32_t *slot_at;     /* by page of the heap; only those where a span begins are set. For the stop */
    size_t slot_at_bytes;
    /* records */
    struct lock lock;      /* the next two and nomem, while workers run */
    struct piece *unused, *full;
    w_u32 next;            /* span; rlx: a ticket */
    /* the rest: by one */
    struct trail_root *root;
    size_t nroots, root_room;
    struct trail_sample *sample;
    size_t nsamples;
};

/* ---- pieces ----------------------------------------------------------------------------------------------- */

static struct piece *piece_new(void) { return off_map(OFF_PROF, PIECE_BYTES, HEAP_PAGE); }

static void pieces_drop(struct piece *p)
{
    for (struct piece *next; p != NULL; p = next) {
        next = p->next;
        off_unmap(OFF_PROF, p, PIECE_BYTES);
    }
}

/* By the last mark: half of the words may be references. */
static void pieces_prepare(struct trail_taken *k)
{
    uint64_t words = pacer.last.scan_bytes / 8; /* plain: a hint */
    uint64_t bytes = words / 2 * (k->fields ? 8 : 4) + words / 4 * 8;
    for (uint64_t n = bytes / PIECE_BYTES + heap.host.procs() + 1; n > 0; n--) {
        struct piece *p = piece_new();
        if (p == NULL)
            return;
        for (uint32_t i = 0; i < PIECE_WORDS; i += 1024)
            p->w[i] = 0;
        p->next = k->unused;
        k->unused = p;
    }
}

struct writer {
    struct trail_taken *k;
    struct piece *p;
    uint32_t *count; /* of the record being written; NULL: none */
    bool failed;     /* no more memory */
    uint32_t slot;
    const char *obj; /* the object it is of */
};

static void piece_done(struct writer *w)
{
    if (w->p == NULL)
        return;
    lock_take(&w->k->lock);
    w->p->next = w->k->full;
    w->k->full = w->p;
    lock_drop(&w->k->lock);
    w->p = NULL;
    w->count = NULL;
}

static w_noinline bool piece_next(struct writer *w)
{
    piece_done(w);
    lock_take(&w->k->lock);
    struct piece *p = w->k->unused;
    if (p != NULL)
        w->k->unused = p->next;
    else if ((p = piece_new()) == NULL)
        w->k->nomem = true;
    lock_drop(&w->k->lock);
    w->failed = p == NULL; /* the world stands still: it does not ask for each reference again */
    if (p == NULL)
        return false;
    p->n = 0;
    w->p = p;
    return true;
}

/* ---- references, in the stop ------------------------------------------------------------------------------ */

/* The slot that a word leads to, of an object that lives. */
static inline w_no_sanitize uint32_t slot_of(const struct trail_taken *k, uintptr_t word)
{
    uint64_t off = word - (uintptr_t)heap.base;
    if (off >= load_rlx(&heap.committed)) /* rlx, here and below: in a stop */
        return TRAIL_NONE;
    uint32_t map = load_rlx(&heap.pagemap[off >> PAGE_SHIFT]);
    if ((map & 127) == 0)
        return TRAIL_NONE;
    size_t first = (off >> PAGE_SHIFT) - PAGE_BACK(map);
    const struct class_info *ci = &class_info[map & 127];
    size_t i = (off - (first << PAGE_SHIFT)) * ci->magic >> 32;
    if (i >= ci->nobj || (heap.bits[first].w[i / 64] >> i % 64 & 1) == 0)
        return TRAIL_NONE;
    return k->slot_at[first] + (uint32_t)i;
}

static inline void reference(struct writer *w, uint32_t to, const char *at)
{
    if (unlikely(w->failed))
        return;
    if (w->p == NULL || w->p->n + 4 > PIECE_WORDS) {
        if (!piece_next(w))
            return;
    }
    struct piece *p = w->p;
    if (w->count == NULL) {
        p->w[p->n++] = w->slot;
        w->count = &p->w[p->n++];
        *w->count = 0;
    }
    p->w[p->n++] = to;
    if (w->k->fields)
        p->w[p->n++] = (uint32_t)((at - w->obj) / 8);
    ++*w->count;
}

static inline w_no_sanitize void look_at(struct writer *w, const char *at)
{
    uint32_t to = slot_of(w->k, *(const uintptr_t *)at);
    if (to != TRAIL_NONE)
        reference(w, to, at);
}

static w_no_sanitize void object(struct writer *w, const struct span *s, uint32_t slot, const char *p)
{
    size_t bytes = span_elem(s);
    w->slot = slot;
    w->obj = p;
    w->count = NULL;
    if (s->shape == SHAPE_CONS) {
        for (const char *end = p + bytes; p + 8 <= end; p += 8)
            look_at(w, p);
        return;
    }
    const struct shape *sh = shape_get(s->shape);
    size_t elem = (size_t)sh->words * 8;
    for (const char *end = p + bytes; p + elem <= end; p += elem)
        for (uint32_t i = 0; i < sh->nptrs; i++)
            look_at(w, p + 8 * (size_t)sh->ptrs[i]);
}

static void references_worker(void *arg, unsigned worker, unsigned nworkers)
{
    struct trail_taken *k = arg;
    struct writer w = { .k = k };
    (void)worker, (void)nworkers;
    for (uint32_t from; (from = add_rlx(&k->next, SPANS_AT_ONCE)) < k->nspans;) /* rlx: only a ticket */
        for (uint32_t j = from; j < w_min(from + SPANS_AT_ONCE, k->nspans); j++) {
            struct span *s = &heap.spans[k->page[j]];
            if (s->shape == SHAPE_NOSCAN)
                continue;
            for (size_t i = bits_next(span_marks(s), s->nobj, 0); i < s->nobj; i = bits_next(span_marks(s), s->nobj, i + 1))
                object(&w, s, k->slot[j] + (uint32_t)i, span_object(s, i));
        }
    piece_done(&w);
}

/* ---- spans, roots, samples, in the stop ---------------------------------------------------------------------- */

/* A copied record has the marks in the place of its own allocation bits: there is no heap.bits for it. */
static uint64_t *copied_marks(struct span *copy) { return copy->allocs; }

static bool spans_copy(struct trail_taken *k)
{
    size_t most = load_rlx(&heap.nspans), pages = load_rlx(&heap.committed) >> PAGE_SHIFT; /* rlx: in a stop */
    k->span_bytes = w_align_up(w_max(most, (size_t)1) * sizeof *k->span, HEAP_PAGE);
    k->page_bytes = w_align_up(w_max(most, (size_t)1) * 2 * sizeof *k->page, HEAP_PAGE);
    k->slot_at_bytes = w_align_up(w_max(pages, (size_t)1) * sizeof *k->slot_at, HEAP_PAGE);
    k->span = off_map(OFF_PROF, k->span_bytes, HEAP_PAGE);
    k->page = off_map(OFF_PROF, k->page_bytes, HEAP_PAGE);
    k->slot_at = off_map(OFF_PROF, k->slot_at_bytes, HEAP_PAGE);
    if (k->span == NULL || k->page == NULL || k->slot_at == NULL)
        return false;
    k->slot = k->page + most;
    uint64_t slots = 0;
    for (struct span *s = span_next(0); s != NULL && k->nspans < most; s = span_next(span_page(s) + s->npages)) {
        uint32_t j = k->nspans++;
        k->span[j] = *s;
        memcpy(copied_marks(&k->span[j]), span_marks(s), sizeof s->allocs);
        k->page[j] = (uint32_t)span_page(s);
        k->slot[j] = (uint32_t)slots;
        k->slot_at[span_page(s)] = (uint32_t)slots;
        slots += s->nobj;
    }
    k->nslots = (uint32_t)slots;
    k->toobig = slots >= TRAIL_NONE;
    return !k->toobig;
}

static struct trail_root *root_new(struct trail_taken *k)
{
    if (k->nroots == k->root_room) {
        size_t room = k->root_room != 0 ? 2 * k->root_room : 1024;
        struct trail_root *more = k->nomem ? NULL : off_realloc(OFF_PROF, k->root, room * sizeof *more);
        if (more == NULL) {
            k->nomem = true;
            return NULL;
        }
        k->root = more;
        k->root_room = room;
    }
    return &k->root[k->nroots++];
}

static void root_word(void *arg, enum gc_root_kind kind, uint64_t owner, uintptr_t at, uintptr_t word)
{
    uint32_t slot = slot_of(arg, word);
    struct trail_root *r = slot != TRAIL_NONE ? root_new(arg) : NULL;
    if (r != NULL)
        *r = (struct trail_root){ .node = slot, .kind = (uint8_t)kind, .owner = owner, .at = at };
}

static w_no_sanitize void owned_range(void *arg, const struct gc_owner *o, const void *lo, const void *hi)
{
    struct trail_taken *k = arg;
    const char *from = (const char *)w_align_up((uintptr_t)lo, 8);
    for (const char *p = from; p + 8 <= (const char *)hi; p += 8) {
        uint32_t slot = slot_of(k, *(const uintptr_t *)p);
        struct trail_root *r = slot != TRAIL_NONE ? root_new(k) : NULL;
        if (r != NULL)
            *r = (struct trail_root){ .node = slot, .kind = (uint8_t)o->kind, .caller = o->caller, .thread = o->thread, .owner = o->fiber,
                                      .at = o->kind == GC_ROOT_STACK ? (uint64_t)(p - from) / 8 : 0 };
    }
}

static void unowned_range(void *arg, const void *lo, const void *hi)
{
    owned_range(arg, &(struct gc_owner){ .kind = GC_ROOT_STACK }, lo, hi);
}

static void sampled(void *arg, void *obj, uintptr_t word)
{
    struct trail_taken *k = arg;
    uint32_t slot = slot_of(k, (uintptr_t)obj);
    if (slot != TRAIL_NONE)
        k->sample[k->nsamples++] = (struct trail_sample){ slot, word };
}

static void look_stw(void *arg)
{
    struct trail_taken *k = arg;
    int64_t from = os_now_ns();
    k->cycle = gc_cycles_begun();
    k->heap_bytes = load_rlx(&heap.committed); /* rlx: in a stop */
    if (!spans_copy(k)) {
        k->nomem = !k->toobig;
        return;
    }
    heap.host.parallel(k->nspans > 4 * SPANS_AT_ONCE ? heap.host.procs() : 1, references_worker, k);
    roots_each_stw(root_word, k);
    if (heap.host.scan_owned != NULL)
        heap.host.scan_owned(owned_range, k, k->asks);
    else
        heap.host.scan_stacks(0, 1, unowned_range, k);
    k->sample = off_alloc(OFF_PROF, (samples_most_stw() + 1) * sizeof *k->sample);
    if (k->sample != NULL)
        samples_each_stw(sampled, k);
    k->nomem |= k->sample == NULL;
    k->look_ns = os_now_ns() - from;
}

int trail_take(bool fields, const void *asks, struct trail_taken **out)
{
    struct trail_taken *k = off_zalloc(OFF_PROF, sizeof *k);
    *out = k;
    if (k == NULL)
        return -ENOMEM;
    k->fields = fields;
    k->asks = asks;
    lock_init(&k->lock, RANK_LEAF);
    pieces_prepare(k);
    bool done = gc_collect_look(&(struct gc_look){ look_stw, k });
    pieces_drop(k->unused);
    k->unused = NULL;
    if (k->slot_at != NULL)
        off_unmap(OFF_PROF, k->slot_at, k->slot_at_bytes);
    k->slot_at = NULL;
    return !done || k->nomem ? -ENOMEM : k->toobig ? -E2BIG : 0;
}

void trail_drop(struct trail_taken *k)
{
    if (k == NULL)
        return;
    pieces_drop(k->full);
    if (k->span != NULL)
        off_unmap(OFF_PROF, k->span, k->span_bytes);
    if (k->page != NULL)
        off_unmap(OFF_PROF, k->page, k->page_bytes);
    off_free(OFF_PROF, k->root);
    off_free(OFF_PROF, k->sample);
    off_free(OFF_PROF, k);
}

/* ---- afterwards ------------------------------------------------------------------------------------------- */

/* Numbers of objects: those of slots without the free ones. By slot, TRAIL_NONE: free. */
static uint32_t *number(const struct trail_taken *k, struct trail *t)
{
    uint32_t *node = trail_array(k->nslots, sizeof *node), n = 0;
    if (node == NULL)
        return NULL;
    for (uint32_t j = 0; j < k->nspans; j++) {
        struct span *s = &t->span[j];
        t->page[j] = k->page[j];
        t->first[j] = n;
        for (uint32_t i = 0; i < s->nobj; i++)
            node[k->slot[j] + i] = bits_get(copied_marks(s), i) ? n++ : TRAIL_NONE;
        t->bytes += (n - t->first[j]) * (uint64_t)span_elem(s);
    }
    t->first[k->nspans] = t->n = n;
    return node;
}

static uint64_t count_references(const struct trail_taken *k, const uint32_t *node, uint32_t *off)
{
    uint32_t step = k->fields ? 2 : 1;
    uint64_t all = 0;
    for (const struct piece *p = k->full; p != NULL; p = p->next)
        for (uint32_t i = 0; i < p->n; i += 2 + step * p->w[i + 1]) {
            off[node[p->w[i]]] += p->w[i + 1];
            all += p->w[i + 1];
        }
    return all;
}

/* off[i] is where the references of i go, and moves on as they come; in the end it is where those of i end. Records of one object may lie in two
 * pieces, which come in any order: whoever needs references by rising address sorts them (fields). */
static void place_references(const struct trail_taken *k, const uint32_t *node, struct trail *t)
{
    for (const struct piece *p = k->full; p != NULL; p = p->next)
        for (uint32_t i = 0, m; i < p->n; i += 2 + (k->fields ? 2 : 1) * m) {
            uint32_t from = node[p->w[i]];
            m = p->w[i + 1];
            for (uint32_t e = 0; e < m; e++) {
                uint32_t to = t->off[from]++;
                t->to[to] = node[p->w[i + 2 + (k->fields ? 2 * e : e)]];
                if (k->fields)
                    t->at[to] = p->w[i + 3 + 2 * e];
            }
        }
}

int trail_finish(struct trail_taken *k, struct trail *t)
{
    *t = (struct trail){ .cycle = k->cycle, .heap_bytes = k->heap_bytes, .look_ns = k->look_ns, .nspans = k->nspans };
    t->span = trail_array(k->nspans, sizeof *t->span);
    t->page = trail_array(k->nspans, sizeof *t->page);
    t->first = trail_array(k->nspans, sizeof *t->first);
    if (t->span == NULL || t->page == NULL || t->first == NULL || k->nroots >= TRAIL_MOST)
        return -ENOMEM;
    memcpy(t->span, k->span, k->nspans * sizeof *t->span);
    uint32_t *node = number(k, t);
    t->off = node != NULL && t->n < TRAIL_MOST ? off_zalloc(OFF_PROF, ((size_t)t->n + 2) * sizeof *t->off) : NULL;
    uint64_t all = t->off != NULL ? count_references(k, node, t->off) : 0;
    if (t->off != NULL && all < TRAIL_MOST) {
        t->to = trail_array(all, sizeof *t->to);
        t->at = k->fields ? trail_array(all, sizeof *t->at) : NULL;
        t->root = trail_array(k->nroots, sizeof *t->root);
        t->sample = trail_array(k->nsamples, sizeof *t->sample);
    }
    if (t->to == NULL || t->root == NULL || t->sample == NULL || (k->fields && t->at == NULL)) {
        off_free(OFF_PROF, node);
        return t->n >= TRAIL_MOST || all >= TRAIL_MOST ? -E2BIG : -ENOMEM;
    }
    for (uint32_t i = 0, at = 0; i <= t->n; i++) {
        uint32_t m = t->off[i];
        t->off[i] = at;
        at += m;
    }
    place_references(k, node, t);
    memmove(t->off + 1, t->off, (size_t)t->n * sizeof *t->off); /* from where they end to where they begin */
    t->off[0] = 0;
    for (size_t i = 0; i < k->nroots; i++) {
        t->root[i] = k->root[i];
        t->root[i].node = node[k->root[i].node];
    }
    for (size_t i = 0; i < k->nsamples; i++)
        t->sample[i] = (struct trail_sample){ node[k->sample[i].node], k->sample[i].word };
    t->nroots = (uint32_t)k->nroots;
    t->nsamples = (uint32_t)k->nsamples;
    off_free(OFF_PROF, node);
    return 0;
}

void trail_free(struct trail *t)
{
    void *all[] = { t->span, t->page, t->first, t->off, t->to, t->at, t->root, t->sample };
    for (size_t i = 0; i < w_countof(all); i++)
        off_free(OFF_PROF, all[i]);
    *t = (struct trail){ 0 };
}

/* ---- numbers and addresses -------------------------------------------------------------------------------- */

/* The last of v[0..n) that is not above x; n > 0, v[0] <= x. */
static uint32_t last_not_above(const uint32_t *v, uint32_t n, uint32_t x)
{
    uint32_t lo = 0, hi = n;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (v[mid] <= x)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

uint32_t trail_find(const struct trail *t, const void *p)
{
    if (t->nspans == 0 || !gc_in_heap(p) || page_of(p) < t->page[0])
        return TRAIL_NONE;
    uint32_t j = last_not_above(t->page, t->nspans, (uint32_t)page_of(p));
    struct span *s = &t->span[j];
    size_t off = (size_t)((const char *)p - heap.base) - ((size_t)t->page[j] << PAGE_SHIFT);
    size_t i = off * class_info[s->cls].magic >> 32;
    if (off >= span_bytes(s) || i >= s->nobj || !bits_get(copied_marks(s), i))
        return TRAIL_NONE;
    uint32_t n = t->first[j];
    for (size_t w = 0; w < i / 64; w++)
        n += bits_count(copied_marks(s)[w]);
    return n + bits_count(copied_marks(s)[i / 64] & bits_mask(i % 64));
}

const struct span *trail_span(const struct trail *t, uint32_t i) { return &t->span[last_not_above(t->first, t->nspans, i)]; }

char *trail_address(const struct trail *t, uint32_t i)
{
    uint32_t j = last_not_above(t->first, t->nspans, i), k = i - t->first[j];
    struct span *s = &t->span[j];
    size_t at = bits_next(copied_marks(s), s->nobj, 0);
    for (; k > 0; k--)
        at = bits_next(copied_marks(s), s->nobj, at + 1);
    return heap.base + ((size_t)t->page[j] << PAGE_SHIFT) + at * span_elem(s);
}
