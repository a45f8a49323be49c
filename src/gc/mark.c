/* Marking.
 *
 * The work is bound by memory: every object, and the record of its span, is a cache miss, and on a virtual machine a miss of the
 * address translation too. A prefetch hides the first, but it does not retire before the second is resolved; so what
 * overlaps is what fits into the processor's window, some 200 instructions. Hence everything goes in batches, in loops as short as can be:
 *
 *     1. take up to BATCH entries from the stack and prefetch their objects
 *     2. scan these: a word in the heap's range, for which the pagemap (dense, stays in cache) knows a span, is a candidate
 *     3. prefetch the span records of the candidates
 *     4. settle them: slot allocated and not yet marked? mark it and, unless noscan, push it
 *
 * The stack is last in first out, so that it stays short. An entry says all that scanning needs in one word: offset in the
 * heap, class, shape; the span is not looked at again.
 *
 * Tried and slower, 8.4 million nodes of 64 bytes in a random tree, one worker: a ring of candidates and a ring of prefetched objects, first
 * in first out, between these steps (0.65 s; sizes from 8 to 32 made no difference; without the second ring 1.4 s).
 *
 * Workers share by chunks of the stack. A full chunk goes to the common list when the worker has one more; and when
 * somebody is idle, a worker gives away the older half of what it has, which is where the large subtrees are. A worker without work
 * counts itself idle and waits for a chunk; when all are idle the mark is done.
 *
 * When there is no memory for a chunk, the entry is dropped: its object is marked but not scanned. That is noted, and after the
 * workers are through, all marked objects of the heap are scanned again, until nothing has been dropped.
 *
 * Everything here that reads the program's memory is hidden from the sanitizers: stacks and data belong to others. */
#include "gc/mark.h"
#include <string.h>
#include "base/syscall.h"
#include "gc/held.h"
#include "gc/roots.h"
#include "gc/special.h"
#include "gc/type.h"
#include "gc/verify.h"

#define BATCH 32u
#define CANDIDATES 512u
#define CHUNK_ENTRIES 510u
#define CLASS_PIECE 126u /* a part of a large object, from the offset of the entry on */
#define CLASS_REST 125u  /* all of a large object from the offset of the entry on: to be cut into pieces */
#define PIECE_BYTES ((size_t)128 << 10)
#define PIECES_AT_ONCE 32u
#define FREE_CHUNKS_KEPT 16u

/* offset:40 class:7 shape:17 */
typedef uint64_t entry;
#define ENTRY(off, cls, shape) ((entry)(off) | (entry)(cls) << 40 | (entry)(shape) << 47)
#define ENTRY_OFF(e) ((e) & (((entry)1 << 40) - 1))
#define ENTRY_CLASS(e) ((unsigned)((e) >> 40) & 127u)
#define ENTRY_SHAPE(e) ((uint32_t)((e) >> 47))

struct chunk {
    struct chunk *next;
    uint64_t n;
    entry e[CHUNK_ENTRIES];
};

/* A word that points into a span: offset:40, and the low 24 bits of the pagemap entry, which are all but for the far pages of
 * objects above 512 MiB; those do not wait. */
typedef uint64_t candidate;
#define CANDIDATE_FAR (1u << 24)

struct marker {
    /* fixed */
    char *base;
    uintptr_t limit;
    const w_u32 *pagemap;
    struct span *spans;
    bool alone; /* the only worker, and nobody is told: marks need no atomics */
    unsigned worker;
    const struct gc_late *late; /* NULL: nobody is told of what is marked */
    /* work */
    uint32_t ncand;
    candidate cand[CANDIDATES];
    struct chunk *top;   /* never NULL */
    struct chunk *spare; /* a full one */
    bool dropped;
    uint64_t live_bytes, scan_bytes, stack_bytes, global_bytes;
    struct chunk first;
};

size_t mark_max_chunks = SIZE_MAX;

static struct {
    struct lock lock;     /* chunks */
    struct chunk *full;   /* to be taken by anyone */
    struct chunk *unused;
    size_t nunused, made;
    w_u32 nfull;          /* written under lock, read relaxed as a hint */
    w_u32 idle;           /* the same */
    w_u32 done;           /* rel: all work is done; acq in wait_for_work */
    w_u64 next_job;
    uint64_t njobs;
    struct pacer_marked sum; /* under lock */
    bool dropped;            /* under lock */
} work = { .lock = LOCK_INIT(RANK_LEAF) };

/* ---- chunks -------------------------------------------------------------------------------------------------- */

static struct chunk *chunk_get(void)
{
    lock_take(&work.lock);
    struct chunk *c = work.unused;
    if (c != NULL) {
        work.unused = c->next;
        work.nunused--;
    } else if (work.made < mark_max_chunks && (c = off_alloc(OFF_GC, sizeof *c)) != NULL)
        work.made++;
    lock_drop(&work.lock);
    if (c != NULL)
        c->n = 0;
    return c;
}

static void chunk_put(struct chunk *c)
{
    lock_take(&work.lock);
    c->next = work.unused;
    work.unused = c;
    work.nunused++;
    lock_drop(&work.lock);
}

static void chunk_share(struct chunk *c)
{
    lock_take(&work.lock);
    c->next = work.full;
    work.full = c;
    store_rlx(&work.nfull, load_rlx(&work.nfull) + 1); /* rlx: under the lock */
    lock_drop(&work.lock);
}

static struct chunk *chunk_take_locked(void)
{
    struct chunk *c = work.full;
    if (c != NULL) {
        work.full = c->next;
        store_rlx(&work.nfull, load_rlx(&work.nfull) - 1); /* rlx: under the lock */
    }
    return c;
}

/* ---- the stack ------------------------------------------------------------------------------------------------- */

/* Makes top a chunk with room. false: no memory. */
static w_noinline bool push_chunk(struct marker *m)
{
    struct chunk *c = chunk_get();
    if (c == NULL)
        return false;
    if (m->top == &m->first) { /* the embedded one cannot be given away: its entries move */
        memcpy(c->e, m->first.e, sizeof c->e);
        c->n = m->first.n;
        m->first.n = 0;
    } else {
        struct chunk *full = m->top;
        m->top = c;
        c = full;
    }
    if (m->spare != NULL)
        chunk_share(m->spare);
    m->spare = c;
    return true;
}

static inline void push(struct marker *m, entry e)
{
    if (unlikely(m->top->n == CHUNK_ENTRIES) && !push_chunk(m)) {
        m->dropped = true;
        return;
    }
    m->top->e[m->top->n++] = e;
}

/* Makes top a chunk with entries, from the worker's own spare one. */
static w_noinline bool pop_chunk(struct marker *m)
{
    struct chunk *c = m->spare;
    if (c == NULL)
        return false;
    m->spare = NULL;
    if (m->top != &m->first)
        chunk_put(m->top);
    m->top = c;
    return true;
}

/* Gives the older half away, if it is worth it. */
static w_noinline void share(struct marker *m)
{
    struct chunk *c = m->spare;
    if (c != NULL) {
        m->spare = NULL;
        chunk_share(c);
        return;
    }
    uint64_t half = m->top->n / 2;
    if (half < 2 || (c = chunk_get()) == NULL)
        return;
    memcpy(c->e, m->top->e, half * sizeof(entry));
    c->n = half;
    m->top->n -= half;
    memmove(m->top->e, m->top->e + half, m->top->n * sizeof(entry));
    chunk_share(c);
}

/* ---- a word's way ---------------------------------------------------------------------------------------------- */

/* Bytes of a piece: whole elements. */
static size_t piece_bytes(uint32_t shape)
{
    size_t elem = shape >= SHAPE_TYPED ? (size_t)shape_get(shape)->words * 8 : 8;
    return w_max(PIECE_BYTES / elem, (size_t)1) * elem;
}

/* The end of the large object around off. */
static size_t large_end(struct marker *m, size_t off)
{
    size_t page = off >> PAGE_SHIFT, first = page - (m->pagemap[page].v >> 8);
    return (first << PAGE_SHIFT) + span_bytes(&m->spans[first]);
}

/* Large objects are scanned in pieces, which different workers may take. Only some are on the stack at a time, and the rest as one entry: so an
 * object of any size fits into an empty chunk, and rescan ends also when there is no memory for a second one. */
static w_noinline void push_large(struct marker *m, size_t off, uint32_t shape)
{
    size_t end = large_end(m, off), piece = piece_bytes(shape);
    if ((end - off) / piece > PIECES_AT_ONCE) {
        end = off + PIECES_AT_ONCE * piece;
        push(m, ENTRY(end, CLASS_REST, shape));
    }
    for (; off < end; off += piece)
        push(m, ENTRY(off, CLASS_PIECE, shape));
}

static w_cold void tell_late(const struct marker *m, size_t off) { m->late->reached_stw(m->late->arg, m->worker, m->base + off); }

static inline w_no_sanitize void settle(struct marker *m, uint64_t at, uint32_t map)
{
    size_t first = (at >> PAGE_SHIFT) - (map >> 8);
    unsigned cls = map & 127;
    const struct class_info *ci = &class_info[cls];
    struct span *s = &m->spans[first];
    size_t i = (at - (first << PAGE_SHIFT)) * ci->magic >> 32;
    if (i >= ci->nobj)
        return;
    uint64_t *mark = &s->bits[i / 64], bit = 1ull << i % 64;
    if ((mark[ci->nwords] & bit) == 0)
        return;
    if (m->alone) {
        if (*mark & bit)
            return;
        *mark |= bit;
    } else {
        /* rlx: a bit that others set too decides only who scans; the scans' results meet in the end of the workers */
        if ((__atomic_load_n(mark, __ATOMIC_RELAXED) & bit) || (__atomic_fetch_or(mark, bit, __ATOMIC_RELAXED) & bit))
            return;
        if (unlikely(m->late != NULL))
            tell_late(m, (first << PAGE_SHIFT) + i * ci->size);
    }
    size_t off = (first << PAGE_SHIFT) + i * ci->size;
    if (unlikely(cls == CLASS_LARGE)) {
        m->live_bytes += span_bytes(s);
        if ((map & PAGE_NOSCAN) == 0) {
            m->scan_bytes += span_bytes(s);
            push_large(m, off, s->shape);
        }
        return;
    }
    m->live_bytes += ci->size;
    if ((map & PAGE_NOSCAN) == 0) {
        m->scan_bytes += ci->size;
        push(m, ENTRY(off, cls, s->shape));
    }
}

/* Steps 3 and 4. */
static w_noinline w_no_sanitize void settle_all(struct marker *m)
{
    struct span *spans = m->spans;
    uint32_t n = m->ncand;
    for (uint32_t k = 0; k < n; k++) {
        candidate c = m->cand[k];
        __builtin_prefetch(&spans[(ENTRY_OFF(c) >> PAGE_SHIFT) - (c >> 48)], 1);
    }
    for (uint32_t k = 0; k < n; k++)
        settle(m, ENTRY_OFF(m->cand[k]), (uint32_t)(m->cand[k] >> 40));
    m->ncand = 0;
}

static inline w_no_sanitize void visit(struct marker *m, uintptr_t word)
{
    uint64_t off = word - (uintptr_t)m->base;
    if (off >= m->limit)
        return;
    uint32_t map = m->pagemap[off >> PAGE_SHIFT].v; /* plain: the world is stopped */
    if ((map & 127) == 0)
        return;
    if (unlikely(map >= CANDIDATE_FAR)) {
        settle(m, off, map);
        return;
    }
    if (unlikely(m->ncand == CANDIDATES))
        settle_all(m);
    m->cand[m->ncand++] = off | (candidate)map << 40;
}

static inline w_no_sanitize void scan_words(struct marker *m, const char *p, size_t bytes)
{
    const uintptr_t *w = (const uintptr_t *)p, *end = (const uintptr_t *)(p + bytes);
    for (; w < end; w++)
        visit(m, *w);
}

static w_no_sanitize void scan_typed(struct marker *m, const char *p, size_t bytes, uint32_t shape)
{
    const struct shape *sh = shape_get(shape);
    const uint32_t *ptrs = sh->ptrs;
    size_t elem = (size_t)sh->words * 8;
    for (const char *end = p + bytes; p + elem <= end; p += elem)
        for (uint32_t k = 0; k < sh->nptrs; k++)
            visit(m, ((const uintptr_t *)p)[ptrs[k]]);
}

static inline w_no_sanitize void scan(struct marker *m, entry e)
{
    size_t off = ENTRY_OFF(e);
    uint32_t shape = ENTRY_SHAPE(e);
    size_t bytes = class_info[ENTRY_CLASS(e)].size;
    if (unlikely(bytes == 0)) {
        if (ENTRY_CLASS(e) == CLASS_REST) {
            push_large(m, off, shape);
            return;
        }
        bytes = w_min(piece_bytes(shape), large_end(m, off) - off);
    }
    if (likely(shape == SHAPE_CONS))
        scan_words(m, m->base + off, bytes);
    else
        scan_typed(m, m->base + off, bytes, shape);
}

/* always_inline: gcc takes a function that only prefetches for one without effect and drops the call. */
static inline __attribute__((always_inline)) void prefetch_object(struct marker *m, entry e)
{
    const char *p = m->base + ENTRY_OFF(e);
    size_t size = class_info[ENTRY_CLASS(e)].size;
    __builtin_prefetch(p);
    if (size > 64) {
        __builtin_prefetch(p + 64);
        if (size > 128)
            __builtin_prefetch(p + 128);
    } else if (((uintptr_t)p & 63) + size > 64)
        __builtin_prefetch(p + 64);
}

/* Until the worker itself has nothing left. */
static void drain(struct marker *m)
{
    entry batch[BATCH];
    for (;;) {
        settle_all(m);
        struct chunk *top = m->top;
        unsigned n = (unsigned)w_min(top->n, (uint64_t)BATCH);
        if (n == 0) {
            if (pop_chunk(m))
                continue;
            return;
        }
        top->n -= n;
        for (unsigned k = 0; k < n; k++) {
            batch[k] = top->e[top->n + k];
            prefetch_object(m, batch[k]);
        }
        for (unsigned k = 0; k < n; k++)
            scan(m, batch[k]);
        /* rlx: hints; the list is looked at under its lock */
        if (unlikely(load_rlx(&work.idle) != 0) && load_rlx(&work.nfull) == 0)
            share(m);
    }
}

/* ---- roots --------------------------------------------------------------------------------------------------------- */

/* The second mark (verify.c) goes through the same roots, without a marker. */
void mark_word(struct marker *m, uintptr_t word)
{
    if (m == NULL)
        verify_word(word);
    else
        visit(m, word);
}

static w_no_sanitize size_t scan_root(struct marker *m, const void *lo, const void *hi)
{
    uintptr_t a = w_align_up((uintptr_t)lo, 8), b = w_align_down((uintptr_t)hi, 8);
    if (a >= b)
        return 0;
    scan_words(m, (const char *)a, b - a);
    if (m->spare != NULL) /* keep it short */
        drain(m);
    return b - a;
}

void mark_range(struct marker *m, const void *lo, const void *hi)
{
    if (m == NULL)
        verify_range(lo, hi);
    else
        m->global_bytes += scan_root(m, lo, hi);
}

static void mark_stack(void *marker, const void *lo, const void *hi)
{
    struct marker *m = marker;
    m->stack_bytes += scan_root(m, lo, hi);
}

void mark_contents(struct marker *m, struct span *s, size_t index)
{
    if (m == NULL) {
        verify_contents(s, index);
        return;
    }
    size_t off = (size_t)(span_object(s, index) - m->base);
    if (s->shape == SHAPE_NOSCAN)
        return;
    if (s->cls == CLASS_LARGE)
        push_large(m, off, s->shape);
    else
        push(m, ENTRY(off, s->cls, s->shape));
}

/* ---- workers -------------------------------------------------------------------------------------------------------- */

bool mark_is_late(const struct marker *m) { return m != NULL && m->late != NULL; }

static void marker_init(struct marker *m, unsigned worker, unsigned nworkers, const struct gc_late *late)
{
    memset(m, 0, offsetof(struct marker, first));
    m->base = heap.base;
    m->limit = load_rlx(&heap.committed); /* rlx: in a stop */
    m->pagemap = heap.pagemap;
    m->spans = heap.spans;
    m->alone = nworkers == 1 && late == NULL;
    m->worker = worker;
    m->late = late;
    m->top = &m->first;
    m->first.n = 0;
}

static void marker_end(struct marker *m)
{
    if (m->top != &m->first)
        chunk_put(m->top);
    lock_take(&work.lock);
    work.sum.live_bytes += m->live_bytes;
    work.sum.scan_bytes += m->scan_bytes;
    work.sum.stack_bytes += m->stack_bytes;
    work.sum.global_bytes += m->global_bytes;
    work.dropped |= m->dropped;
    lock_drop(&work.lock);
}

/* Spins a little, for work comes soon or never; then lets others have the processor. */
static void wait_a_bit(unsigned round)
{
    if (round % 64 != 63)
        cpu_relax();
    else
        sys_call0(SYS_sched_yield);
}

/* A chunk of somebody else's work becomes the worker's. false: the mark is done. */
static bool get_work(struct marker *m, unsigned nworkers)
{
    bool counted = false;
    for (unsigned round = 0;; round++) {
        lock_take(&work.lock);
        struct chunk *c = chunk_take_locked();
        uint32_t idle = load_rlx(&work.idle); /* rlx: under the lock */
        if (c != NULL) {
            if (counted)
                store_rlx(&work.idle, idle - 1);
        } else if (!counted) {
            counted = true;
            store_rlx(&work.idle, idle + 1);
            if (idle + 1 == nworkers)
                store_rel(&work.done, 1); /* rel: acq below */
        }
        lock_drop(&work.lock);
        if (c != NULL) {
            if (m->top != &m->first)
                chunk_put(m->top);
            m->top = c;
            return true;
        }
        while (load_rlx(&work.nfull) == 0) { /* rlx: a hint */
            if (load_acq(&work.done)) /* acq: rel above */
                return false;
            wait_a_bit(round++);
        }
    }
}

/* [LATE] Scans a stack that is due. */
static bool late_next(struct marker *m)
{
    return m->late != NULL && m->late->next_stw(m->late->arg, m->worker, mark_stack, m);
}

/* A worker gives away chunks, but not the stacks that are due by it: while it has one it is not idle. */
static void drain_all(struct marker *m, unsigned nworkers)
{
    do
        drain(m);
    while (late_next(m) || get_work(m, nworkers));
}

static void worker(void *late, unsigned i, unsigned n)
{
    struct marker m;
    marker_init(&m, i, n, late);
    for (uint64_t j; (j = add_rlx(&work.next_job, 1)) < work.njobs;) { /* rlx: only a ticket */
        roots_job_stw(j, &m);
        drain(&m);
    }
    heap.host.scan_stacks(i, n, mark_stack, &m);
    drain_all(&m, n);
    marker_end(&m);
}

/* [LATE] What nothing else leads to. */
static void rest_worker(void *arg, unsigned i, unsigned n)
{
    const struct gc_late *late = arg;
    struct marker m;
    marker_init(&m, i, n, NULL);
    late->rest_stw(late->arg, i, n, mark_stack, &m);
    drain_all(&m, n);
    marker_end(&m);
}

/* [HELD] The second step. */
static void finalizers_worker(void *none, unsigned i, unsigned n)
{
    struct marker m;
    (void)none;
    marker_init(&m, i, n, NULL);
    for (uint64_t j; (j = add_rlx(&work.next_job, 1)) < work.njobs;) { /* rlx: only a ticket */
        specials_finalizers_stw(j, &m);
        drain(&m);
    }
    drain_all(&m, n);
    marker_end(&m);
}

/* Scans all that is marked, once more. */
static void rescan(const struct gc_late *late)
{
    struct marker m;
    work.dropped = false;
    store_rlx(&work.idle, 0); /* rlx: alone */
    marker_init(&m, 0, 1, late);
    for (struct span *s = span_next(0); s != NULL; s = span_next(span_page(s) + s->npages)) {
        if (s->shape == SHAPE_NOSCAN)
            continue;
        for (size_t i = bits_next(span_marks(s), s->nobj, 0); i < s->nobj; i = bits_next(span_marks(s), s->nobj, i + 1)) {
            mark_contents(&m, s, i);
            do
                drain(&m);
            while (late_next(&m));
        }
    }
    marker_end(&m);
}

static void run_workers(unsigned nworkers, void (*fn)(void *, unsigned, unsigned), const struct gc_late *late)
{
    work.dropped = false;
    store_rlx(&work.next_job, 0); /* rlx: the workers start after */
    store_rlx(&work.idle, 0);
    store_rlx(&work.done, 0);
    heap.host.parallel(nworkers, fn, (void *)late);
}

void mark_stw(unsigned nworkers, const struct gc_late *late, struct pacer_marked *out)
{
    memset(&work.sum, 0, sizeof work.sum);
    work.njobs = roots_jobs_stw();
    bool looks = late == NULL && held_due_stw();
    specials_finalizers_later_stw(looks);
    if (late != NULL)
        late->begin_stw(late->arg);
    run_workers(nworkers, worker, late);
    while (work.dropped)
        rescan(late);
    if (looks) {
        held_look_stw();
        specials_finalizers_later_stw(false);
        work.njobs = specials_jobs_stw();
        run_workers(nworkers, finalizers_worker, NULL);
        while (work.dropped)
            rescan(NULL);
    }
    if (late != NULL) {
        run_workers(nworkers, rest_worker, late);
        while (work.dropped)
            rescan(NULL);
        late->end_stw(late->arg);
    }
    *out = work.sum;
    while (work.nunused > FREE_CHUNKS_KEPT) {
        struct chunk *c = work.unused;
        work.unused = c->next;
        work.nunused--;
        work.made--;
        off_free(OFF_GC, c);
    }
}

void mark_free_memory(void)
{
    for (struct chunk *c = work.unused, *next; c != NULL; c = next) {
        next = c->next;
        off_free(OFF_GC, c);
    }
    work.unused = NULL;
    work.nunused = work.made = 0;
}
