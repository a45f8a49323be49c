/* See retain.h. The way is that of a profile (prof/profile.c): a collection on the caller's account, everything that takes time on a helper while the
 * caller waits as in a system call, the user's writer on the caller's own stack. */
#include "debug/retain.h"
#include <errno.h>
#include <stdlib.h>
#include "base/fmt.h"
#include "gc/type.h"
#include "os/clock.h"
#include "prof/heap.h"
#include "prof/helper.h"
#include "prof/pseudo.h"
#include "sched/mutator.h"
#include "sched/report.h"
#include "sched/sched.h"

static w_u32 symbols_kept; /* something has been looked up in this life of the runtime */

static int by_node(const void *a, const void *b)
{
    uint32_t x = ((const struct trail_sample *)a)->node, y = ((const struct trail_sample *)b)->node;
    return x < y ? -1 : x > y;
}

static void work(void *arg)
{
    struct retain *r = arg;
    r->err = trail_finish(r->taken, &r->t);
    trail_drop(r->taken);
    r->taken = NULL;
    if (r->err == 0) {
        qsort(r->t.sample, r->t.nsamples, sizeof *r->t.sample, by_node);
        r->maps = maps_begin(symbols_gone);
        if (r->maps == NULL) {
            r->err = -ENOMEM;
            return;
        }
        r->err = r->make(r);
        maps_end();
    }
    if (r->err == 0 && r->text.nomem)
        r->err = -ENOMEM;
}

static int work_outside(void *arg)
{
    struct retain *r = arg;
    int err = helper_run(work, r);
    return err != 0 ? err : r->err;
}

/* Without a runtime there is no stop that would wait for who holds a lock of the memory's. */
static void drop(struct retain *r)
{
    struct m *m = rt_enter_try();
    trail_drop(r->taken);
    trail_free(&r->t);
    text_free(&r->text);
    if (m != NULL)
        rt_leave(m);
}

static int take(struct retain *r)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    int err = mutator_trail(r->fields, &r->taken);
    m = m_self();
    r->wall_ns = os_wall_ns();
    store_rlx(&symbols_kept, 1); /* rlx: read when nobody asks any more */
    if (err == 0)
        return helper_outside(m, work_outside, r);
    rt_leave(m);
    return err;
}

int retain_run(struct retain *r, weft_writer *w, void *ctx)
{
    int saved = errno, err = take(r);
    if (err == 0)
        err = text_write(&r->text, w, ctx);
    drop(r);
    errno = saved;
    return err;
}

/* ---- texts ------------------------------------------------------------------------------------------------- */

void retain_address(struct text *t, uintptr_t at) { text_putf(t, "\"0x%lx\"", (unsigned long)at); }

const char *retain_kind(uint32_t shape) { return shape >= SHAPE_TYPED ? "typed" : shape == SHAPE_CONS ? "conservative" : "noscan"; }

const char *retain_root_kind(unsigned kind)
{
    static const char *const text[GC_ROOT_KINDS + 1] = {
        [GC_ROOT_HANDLE] = "handle", [GC_ROOT_RANGE] = "root range", [GC_ROOT_QUEUED] = "call that is due", [GC_ROOT_CTX] = "finalizer's ctx",
        [GC_ROOT_CLEANUP] = "cleanup's arg", [GC_ROOT_FINALIZABLE] = "object with a finalizer", [GC_ROOT_WEAK] = "weak pointer",
        [GC_ROOT_POOL] = "pool", [GC_ROOT_TIMER] = "timer", [GC_ROOT_ARGUMENT] = "argument", [GC_ROOT_DATA] = "data",
        [GC_ROOT_TLS] = "thread-local storage", [GC_ROOT_STACK] = "stack", [GC_ROOT_REGISTERS] = "registers", [GC_ROOT_KINDS] = "caller's stack",
    };
    return text[kind];
}

struct names { char *to; size_t n, at; };

static void add_name(void *arg, const char *name)
{
    struct names *a = arg;
    if (a->at < a->n)
        a->at += w_fmt(a->to + a->at, a->n - a->at, "%s%s", a->at > 0 ? " | " : "", name);
}

static size_t layout(char *to, size_t n, uint32_t shape)
{
    const struct shape *sh = shape_get(shape);
    size_t at = w_fmt(to, n, "%u bytes, pointers at", sh->words * 8);
    for (uint32_t i = 0; i < w_min(sh->nptrs, 8u) && at < n; i++)
        at += w_fmt(to + at, n - at, " %u", sh->ptrs[i] * 8);
    if (sh->nptrs > 8 && at < n)
        at += w_fmt(to + at, n - at, " ...");
    return at;
}

size_t retain_type(char *to, size_t n, uint32_t shape)
{
    struct names a = { to, n, 0 };
    if (shape < SHAPE_TYPED)
        return w_fmt(to, n, "%s", retain_kind(shape));
    types_each_name(shape, add_name, &a);
    return w_min(a.at > 0 ? a.at : layout(to, n, shape), n - 1);
}

void retain_place(struct retain *r, uintptr_t pc, char *to)
{
    const char *pseudo = pseudo_name(pc);
    if (pseudo != NULL) {
        w_fmt(to, RETAIN_PLACE_BYTES, "%s", pseudo);
        return;
    }
    symbols_at(r->maps, pc, r->scratch);
    const struct symbol *s = &r->scratch[0];
    if (s->func == NULL)
        w_fmt(to, RETAIN_PLACE_BYTES, "0x%lx", (unsigned long)pc);
    else if (s->file == NULL || s->line == 0)
        w_fmt(to, RETAIN_PLACE_BYTES, "%.200s", s->func);
    else
        w_fmt(to, RETAIN_PLACE_BYTES, "%.160s at %.60s:%u", s->func, symbols_base_name(s->file), s->line);
}

/* The word of object i's sample; 0: it was not sampled. */
static uintptr_t sample_of(const struct retain *r, uint32_t i)
{
    struct trail_sample key = { .node = i };
    const struct trail_sample *s = r->t.nsamples > 0 ? bsearch(&key, r->t.sample, r->t.nsamples, sizeof key, by_node) : NULL;
    return s != NULL ? s->word : 0;
}

void retain_site(struct retain *r, uint32_t i, char *to)
{
    const uintptr_t *pc;
    uintptr_t word = sample_of(r, i);
    to[0] = 0;
    if (word != 0 && heap_site(r->maps, word, &pc) > 0)
        retain_place(r, pc[0], to);
}

/* ---- the runtime's end ------------------------------------------------------------------------------------- */

static void retain_end(void) { symbols_end(&symbols_kept); }

static struct sched_guest guest = { .end = retain_end };

static void __attribute__((constructor)) retain_init(void) { sched_guest_add(&guest); }
