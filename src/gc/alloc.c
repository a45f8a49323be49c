/* Processor caches and the slow path of allocation.
 *
 * A cache holds one span per shape and class, and in it a run of free slots: their allocation bits are set, their memory is
 * zeroed while it is near, and they are counted as allocated; the fast path (gc.h) only moves bump. A refill takes the next run of clear
 * bits, at most RUN_BYTES, so that what is zeroed is still in the first-level cache when the program gets it. What remains of the runs is given back,
 * bits and counts, when the world stops for a cycle or for statistics. */
#include <errno.h>
#include <string.h>
#include "base/probe.h"
#include "gc/cache.h"
#include "gc/central.h"
#include "gc/pacer.h"
#include "gc/poison.h"
#include "gc/sweep.h"
#include "gc/type.h"

#define RUN_BYTES 8192u

/* ---- caches ------------------------------------------------------------------------------------------------ */

int gc_cache_init(struct gc_cache *c)
{
    memset(c, 0, sizeof *c);
    struct gc_cache_priv *pv = off_zalloc(OFF_GC, sizeof *pv);
    if (pv == NULL)
        return -ENOMEM;
    pv->cache = c;
    sample_cache_init(&pv->sample);
    c->priv = pv;
    lock_take(&heap.caches_lock);
    pv->next = heap.caches;
    heap.caches = pv;
    lock_drop(&heap.caches_lock);
    return 0;
}

static void count_mallocs(struct gc_cache *c, unsigned cls, int64_t n)
{
    w_u64 *m = &c->priv->mallocs[cls];
    store_rlx(m, load_rlx(m) + (uint64_t)n); /* rlx: one writer */
    m = &c->priv->malloc_bytes;
    store_rlx(m, load_rlx(m) + (uint64_t)n * gc_class_size[cls]);
}

/* rlx: see [BITS]. The span is in the caller's hand, so nobody else writes. */
static void fill_allocs(uint64_t *allocs, size_t from, size_t to, bool on)
{
    for (size_t k; from < to; from += k) {
        k = w_min(64 - from % 64, to - from);
        uint64_t m = bits_mask((unsigned)k) << from % 64, *w = &allocs[from / 64];
        __atomic_store_n(w, on ? *w | m : *w & ~m, __ATOMIC_RELAXED);
    }
}

/* rlx: see [COUNT]. limit: as far as the fast path may go. */
static inline void set_run(struct gc_shape_cache *sc, unsigned cls, char *bump, char *limit, char *end)
{
    __atomic_store_n(&sc->run[cls].bump, bump, __ATOMIC_RELAXED);
    sc->run[cls].limit = limit;
    __atomic_store_n(&sc->end[cls], end, __ATOMIC_RELAXED);
    uint64_t *used = &sc->used[cls / 64], bit = 1ull << cls % 64;
    if (unlikely((*used & bit) == 0))
        __atomic_store_n(used, *used | bit, __ATOMIC_RELAXED);
}

static void unborn_stw(struct span *s, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        bits_clear(span_marks(s), i);
    sub_rlx(&heap.born_bytes, (to - from) * span_elem(s)); /* rlx: counter */
}

/* Takes back what is left of the run; the span stays the cache's. In a stop. */
static void drop_run(struct gc_cache *c, struct gc_shape_cache *sc, unsigned cls)
{
    struct gc_run *r = &sc->run[cls];
    if (r->bump != sc->end[cls]) {
        struct span *s = sc->span[cls];
        size_t from = span_index(s, r->bump), n = (size_t)(sc->end[cls] - r->bump) / gc_class_size[cls];
        uint64_t *allocs = span_allocs(s);
        fill_allocs(allocs, from, from + n, false);
        if (gc_marking())
            unborn_stw(s, from, from + n);
        s->nfree += (uint16_t)n;
        s->scan = (uint16_t)w_min((size_t)s->scan, from);
        if (heap.poison)
            poison_fill(r->bump, (size_t)(sc->end[cls] - r->bump));
        count_mallocs(c, cls, -(int64_t)n);
    }
    set_run(sc, cls, NULL, NULL, NULL);
}

static void flush_shape(struct gc_cache *c, struct gc_shape_cache *sc, uint32_t shape)
{
    for (unsigned cls = 1; cls < GC_CLASSES; cls++) {
        struct span *s = sc->span[cls];
        if (s == NULL)
            continue;
        drop_run(c, sc, cls);
        sub_rlx(&heap.live, (uint64_t)s->nfree * gc_class_size[cls]); /* rlx: counter */
        sc->span[cls] = NULL;
        central_put(&shape_get(shape)->central[cls], s);
    }
    memset(sc->used, 0, sizeof sc->used);
}

static void flush(struct gc_cache *c)
{
    flush_shape(c, &c->basic[SHAPE_NOSCAN], SHAPE_NOSCAN);
    flush_shape(c, &c->basic[SHAPE_CONS], SHAPE_CONS);
    for (uint32_t i = SHAPE_TYPED; i < c->nshapes; i++)
        if (c->shapes[i] != NULL)
            flush_shape(c, c->shapes[i], i);
}

void caches_flush_stw(void)
{
    for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next) {
        flush(pv->cache);
        pv->debt = 0;
    }
}

void gc_cache_fini(struct gc_cache *c)
{
    if (c->priv == NULL)
        return;
    flush(c);
    lock_take(&heap.caches_lock);
    for (struct gc_cache_priv **at = &heap.caches; *at != NULL; at = &(*at)->next)
        if (*at == c->priv) {
            *at = c->priv->next;
            break;
        }
    for (unsigned cls = 0; cls < GC_CLASSES; cls++)
        add_rlx(&heap.gone[cls].mallocs, load_rlx(&c->priv->mallocs[cls])); /* rlx: counters */
    add_rlx(&heap.gone_bytes, load_rlx(&c->priv->malloc_bytes));
    lock_drop(&heap.caches_lock);
    for (uint32_t i = SHAPE_TYPED; i < c->nshapes; i++)
        off_free(OFF_GC, c->shapes[i]);
    off_free(OFF_GC, c->shapes);
    off_free(OFF_GC, c->priv);
    memset(c, 0, sizeof *c);
}

static void count_table(struct gc_cache *c, size_t bytes)
{
    w_u64 *t = &c->priv->table_bytes;
    store_rlx(t, load_rlx(t) + bytes); /* rlx: one writer */
}

/* The cache's place for a typed shape, which it does not have yet. NULL: out of memory. */
static w_noinline struct gc_shape_cache *typed_cache_new(struct gc_cache *c, uint32_t shape)
{
    if (shape >= c->nshapes) {
        uint32_t n = w_max(2 * c->nshapes, w_max(shape + 1, 8u));
        struct gc_shape_cache **at = off_realloc(OFF_GC, c->shapes, n * sizeof *at);
        if (at == NULL)
            return NULL;
        memset(at + c->nshapes, 0, (n - c->nshapes) * sizeof *at);
        count_table(c, (n - c->nshapes) * sizeof *at);
        c->shapes = at;
        c->nshapes = n;
    }
    struct gc_shape_cache *sc = off_zalloc(OFF_GC, sizeof *sc);
    if (sc != NULL) {
        sc->next = load_rlx(&c->priv->typed); /* rlx: one writer */
        store_rel(&c->priv->typed, sc);       /* rel: publishes *sc; acq in stats.c */
        count_table(c, sizeof *sc);
    }
    return c->shapes[shape] = sc;
}

/* ---- refill --------------------------------------------------------------------------------------------------- */

/* Finds the next free slots of s and makes them a run: [*from, *from + n). 0: none. */
static size_t take_run(struct span *s, size_t most, size_t *from)
{
    uint64_t *allocs = span_allocs(s);
    size_t i = s->scan, w = i / 64, nobj = s->nobj;
    if (i >= nobj)
        return 0;
    uint64_t x = ~allocs[w] & ~bits_mask(i % 64);
    while (x == 0) {
        if (++w * 64 >= nobj)
            return 0;
        x = ~allocs[w];
    }
    i = w * 64 + bits_ctz(x);
    if (i >= nobj)
        return 0;
    size_t end = w_min(nobj, i + most), to = bits_next(allocs, end, i);
    if (unlikely(gc_marking()))
        span_born(s, i, to);
    fill_allocs(allocs, i, to, true);
    *from = i;
    s->scan = (uint16_t)to;
    s->nfree -= (uint16_t)(to - i);
    return to - i;
}

static void prepare(struct span *s, char *p, size_t bytes, size_t elem)
{
    if (unlikely(heap.poison))
        poison_check(p, bytes, elem);
    if (s->needzero)
        memset(p, 0, bytes);
}

/* p, the next object of a run up to end, is handed out. Returns how far the fast path may go behind it. found: p is to be sampled, as was found when
 * the run was cut before it. */
static char *run_limit(struct gc_cache *c, char *p, char *end, size_t size, bool found, bool *sampled)
{
    struct gc_sample_cache *sa = &c->priv->sample;
    char *to = unlikely(heap.stress != 0) ? p + size : end;
    char *at = found ? p : sample_next(sa, p, to, size);
    *sampled = at == p;
    return likely(at != p) ? at : sample_next(sa, p + size, to, size);
}

/* So much more has been allocated: is an assist due? */
static inline bool owes(struct gc_cache *c, size_t bytes)
{
    if (likely(!gc_mark_work()))
        return false;
    if (!gc_marking())
        return heap.stress == 0; /* under stress a collection would be made of it */
    c->priv->debt += (int64_t)bytes;
    return (c->priv->debt > 0 && !pacer_capped()) || gc_mark_hurries();
}

#define ASSIST_LEAST ((uint64_t)64 << 10) /* bytes to scan: so much is worth the way, and paid in advance */
#define ASSIST_MOST ((uint64_t)1 << 20)   /* a millisecond */
#define ASSIST_SLICE ((uint64_t)128 << 10)
#define STEP_WORTH ((uint64_t)16 << 10)   /* of what is not scanning */

int64_t gc_debt(const struct gc_cache *c) { return c->priv->debt; }
void gc_paid(struct gc_cache *c, int64_t worth) { c->priv->debt -= worth; }

bool gc_assist(int64_t debt, int64_t *worth)
{
    uint64_t owed = pacer_work(debt), work = w_min(w_max(owed, ASSIST_LEAST), ASSIST_MOST), left = pacer_spend_credit(work);
    while (left != 0 && gc_marking()) {
        uint64_t scanned = 0;
        if (!gc_mark_some(GC_CPU_ASSIST, true, w_min(left, ASSIST_SLICE), &scanned)) {
            *worth = pacer_worth(work - left);
            return false;
        }
        left -= w_min(left, w_max(scanned, STEP_WORTH));
    }
    *worth = pacer_worth(work);
    return true;
}

static void *small(struct gc_cache *c, struct gc_shape_cache *sc, uint32_t shape, unsigned cls, bool *want_gc, bool *sampled)
{
    size_t size = gc_class_size[cls], n, from;
    struct gc_run *r = &sc->run[cls];
    if (r->bump != sc->end[cls]) { /* the run was cut short */
        char *p = r->bump, *end = sc->end[cls];
        bool found = heap.stress == 0 && p == r->limit && sample_holds(&c->priv->sample);
        set_run(sc, cls, p + size, run_limit(c, p, end, size, found, sampled), end);
        return p;
    }
    struct span *s = sc->span[cls];
    while (s == NULL || (n = take_run(s, w_max(RUN_BYTES / size, (size_t)1), &from)) == 0) {
        if (s != NULL)
            central_put(&shape_get(shape)->central[cls], s);
        sc->span[cls] = s = central_get(shape, cls);
        if (s == NULL) {
            seq_begin(&c->priv->seq);
            set_run(sc, cls, NULL, NULL, NULL);
            seq_end(&c->priv->seq);
            return NULL;
        }
        add_rlx(&heap.live, (uint64_t)s->nfree * size); /* rlx: counter */
        PROBE(heap_live, load_rlx(&heap.live), 0, 0);
        *want_gc |= gc_due();
        sweep_share((uint64_t)s->nfree * size);
    }
    char *p = span_base(s) + from * size;
    *want_gc |= owes(c, n * size);
    prepare(s, p, n * size, size);
    char *end = p + n * size, *limit = run_limit(c, p, end, size, false, sampled);
    seq_begin(&c->priv->seq);
    count_mallocs(c, cls, (int64_t)n);
    set_run(sc, cls, p + size, limit, end);
    seq_end(&c->priv->seq);
    return p;
}

static void *large(struct gc_cache *c, uint32_t shape, size_t bytes, bool *want_gc, bool *sampled)
{
    struct span *s = central_large(shape, bytes);
    if (s == NULL)
        return NULL;
    add_rlx(&heap.live, span_bytes(s)); /* rlx: counters */
    PROBE(heap_live, load_rlx(&heap.live), 0, 0);
    add_rlx(&heap.large_mallocs, 1);
    add_acq_rel(&heap.large_malloc_bytes, span_bytes(s)); /* rel: who counts it sees that pages changed hands; acq in stats.c */
    *want_gc |= gc_due();
    sweep_share(span_bytes(s));
    *want_gc |= owes(c, span_bytes(s));
    char *p = span_base(s), *end = p + span_bytes(s);
    *sampled = sample_next(&c->priv->sample, p, end, span_bytes(s)) == p;
    return p;
}

bool gc_alloc_possible(size_t bytes) { return bytes <= w_min(heap.reserved, LARGE_MAX_PAGES << PAGE_SHIFT); }

void *gc_alloc_slow(struct gc_cache *c, size_t bytes, unsigned shape, bool *want_gc)
{
    if (unlikely(heap.stress != 0) && ++c->priv->stress_count >= heap.stress) {
        c->priv->stress_count = 0;
        *want_gc = true;
    }
    bool sampled = false;
    if (unlikely(bytes > GC_MAX_SMALL)) {
        void *p = large(c, shape, bytes, want_gc, &sampled);
        if (unlikely(sampled))
            sample_tell(&c->priv->sample, p, w_align_up(bytes, HEAP_PAGE));
        if (unlikely(heap.poison) && p != NULL && heap.stress != 0)
            PROBE(alloc_checked, p, bytes, 0);
        return p;
    }
    struct gc_shape_cache *sc = shape < SHAPE_TYPED ? &c->basic[shape] : shape < c->nshapes ? c->shapes[shape] : NULL;
    if (unlikely(sc == NULL) && (sc = typed_cache_new(c, shape)) == NULL)
        return NULL;
    unsigned cls = gc_class_of(bytes);
    void *p = small(c, sc, shape, cls, want_gc, &sampled);
    if (unlikely(sampled))
        sample_tell(&c->priv->sample, p, gc_class_size[cls]);
    if (unlikely(heap.poison) && p != NULL && heap.stress != 0)
        PROBE(alloc_checked, p, bytes, 0);
    return p;
}
