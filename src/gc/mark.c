/* Marking.
 *
 * The work is bound by memory: every object, and the bits of its span, is a cache miss, and on a virtual machine a miss of the
 * address translation too. A prefetch hides the first, but it does not retire before the second is resolved; so what
 * overlaps is what fits into the processor's window, some 200 instructions, and a burst of prefetches stands still when no more misses can be
 * under way. Hence everything goes in small batches, in loops as short as can be, and without branches that nobody can foretell:
 *
 *     1. take up to BATCH entries from the stack and prefetch their objects
 *     2. search those of the batch before for words in the heap's range, eight at once where the processor can
 *     3. such a word for which the pagemap (dense, stays in cache) knows a span is a candidate: prefetch the line of the span's bits
 *     4. settle the candidates: not yet marked, and allocated? mark it and, unless noscan, push it
 *
 * Step 4 comes in two forms, and which it will be the candidates before say. In a graph a third of them is new, at random, so these are picked first,
 * by arithmetic; in a tree all are new, a branch is foretold, and picking would be work for nothing.
 *
 * The stack is last in first out, so that it stays short. An entry says all that scanning needs in one word: offset in the
 * heap, class, shape; the span is not looked at again. Its record is only for what is large, or smaller than 32 bytes.
 *
 * Tried, with 8.4 million nodes of 64 bytes in a random tree, one worker, 1 MiB of second-level cache. As it is: 0.245 s; with AVX2 0.26 s,
 * with the plain search 0.285 s. (Seconds of CPU, the least of several runs, since others used the machine.)
 *   - each word in turn through steps 2 and 3, and each candidate through 4, with branches: a third of the words are no pointers and a third of
 *     the candidates is new, at random. 0.49 s; without the branches, and with the wide search, 0.32 s
 *   - marks, allocation bits and head of the span's record in one line, one line in 256 bytes: uses a fourth of the cache's sets. 0.32 s, and
 *     0.30 with the bits in a dense table. Marks in a dense table, but shape and allocation bits in the record: 0.35 s, since each new object
 *     then costs one miss more
 *   - a batch of 32 that is searched as soon as it is prefetched: 0.30 s, as with two batches of 32 or 64 in turn; in turn 8: 0.29 s, 12: 0.26 s,
 *     16 and 20: 0.245 s. The prefetch of an object just before another is searched, instead of a batch at a time: 0.25 to 0.27 s, sizes 8 to 32
 *   - the reckoning of a candidate's slot in step 3, so that step 4 has only its bit to look at: 0.28 s. It is better done while the lines come
 *   - candidates whose bits share a word marked by one operation: 0.26 s, and nothing for trees either
 *   - the shape of what is typed in the record: 0.49 s for such nodes, a miss each; in a dense table, and searched without a call: 0.27 s
 *   - candidates settled a batch later, so that the lines of their bits have more time to come: 4 % faster here and 1 % with trees; not worth what
 *     it asks of everybody who wants a marker without work on its way
 *   - before all that, when the loops took 0.55 s: a ring of candidates and a ring of prefetched objects, first in first out, between the steps,
 *     0.65 s
 * With trees of nodes of 16 bytes in a heap of 31 MiB (bench/binary_trees 18), where 13 ns an object are 10 now:
 *   - a masked load of eight words for objects of fewer: it touches the line behind, and waits for it. 4 % of all slower than a word at a time; four
 *     such objects in one register: 5 % faster
 *   - batches of 40: 2 % slower. Tables in huge pages for such a heap, too: nothing, and 5 MiB more
 *   - no look at the allocation bit, to see what that costs: 5 %. A prefetch of its line, which for these is in the record: 4 % slower
 *   - steps 3 and 4 in one loop, without a prefetch, while all candidates are new: 6 % faster, but a tree in random order 3 % slower in 64 MiB and
 *     25 % in 512 MiB
 *
 * Workers share by chunks of the stack. A full chunk goes to the common list when the worker has one more; and when
 * somebody is idle, a worker gives away the older half of what it has, which is where the large subtrees are. A worker without work
 * counts itself idle and waits for a chunk, awake at first and then asleep; when all are idle the mark is done.
 *
 * When there is no memory for a chunk, the entry is dropped: its object is marked but not scanned. That is noted, and after the
 * workers are through, all marked objects of the heap are scanned again, until nothing has been dropped.
 *
 * Everything here that reads the program's memory is hidden from the sanitizers: stacks and data belong to others. */
#include "gc/mark.h"
#include <limits.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "gc/held.h"
#include "gc/roots.h"
#include "gc/special.h"
#include "gc/type.h"
#include "gc/verify.h"
#include "os/futex.h"

#define BATCH 20u
#define CANDIDATES 512u
#define WAIT_PAUSES 1000u /* 5 to 50 us: what it takes to be woken */
#define AT_ONCE 8u /* words that a search looks at */
#define CHUNK_ENTRIES 510u
#define CLASS_PIECE 126u /* a part of a large object, from the offset of the entry on */
#define CLASS_REST 125u  /* all of a large object from the offset of the entry on: to be cut into pieces */
#define PIECE_BYTES ((size_t)128 << 10)
#define PIECES_AT_ONCE 32u
#define FREE_CHUNKS_KEPT 16u
#define MARK_ALL UINT64_MAX /* of `most` */
#define ALWAYS_INLINE inline __attribute__((always_inline))

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

/* A slot that a word points into: page and index as the number of its bit in heap.bits, 512 a page; and from bit 36 on, class, PAGE_NOSCAN and
 * PAGE_TYPED of the pagemap. */
typedef uint64_t candidate;
#define CANDIDATE(bit, map) ((candidate)(bit) | (candidate)((map) & 511u) << 36)
#define CANDIDATE_WORD(c) ((c) >> 6 & ((1u << 30) - 1))
#define CANDIDATE_BIT(c) (1ull << (c) % 64)
#define CANDIDATE_PAGE(c) ((c) >> 9 & ((1u << 27) - 1))
#define CANDIDATE_MAP(c) ((uint32_t)((c) >> 36))

struct marker {
    /* fixed */
    char *base;
    uintptr_t limit;
    const w_u32 *pagemap;
    struct span *spans;
    uint64_t *bits; /* heap.bits, as words */
    bool alone; /* the only worker, nobody is told, and the world stands still: marks need no atomics */
    unsigned worker;
    const struct gc_late *late; /* NULL: nobody is told of what is marked */
    /* work */
    uint64_t scanned, most; /* bytes of objects and roots; beside the program a worker stops for others when it has scanned so many */
    bool sure;              /* of the last candidates nearly all were new */
    uint32_t ncand, nfound; /* cand: so many candidates, and up to nfound offsets of words in the heap's range */
    candidate cand[CANDIDATES + AT_ONCE];
    uint32_t map[CANDIDATES + AT_ONCE];
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
    w_u32 done;           /* rel: all work is done; acq in get_work */
    w_u32 event;          /* futex: written under lock, for each chunk, and for done, while somebody is asleep */
    uint32_t asleep;      /* under lock */
    w_u64 next_job;
    uint64_t njobs;
    struct pacer_marked sum; /* under lock */
    bool dropped;            /* under lock */
    uint32_t slices;         /* under lock: workers beside the program that may hold work of their own */
    bool looks;              /* [HELD] the same; written in its first one */
    const struct mark_rest *rest; /* of a cycle whose mark was made beside the program; in its stop */
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

/* Something has come for who is asleep. true: somebody is, and has to be woken. */
static bool event_locked(void)
{
    if (work.asleep == 0)
        return false;
    store_rlx(&work.event, load_rlx(&work.event) + 1); /* rlx: under the lock */
    return true;
}

static void chunk_share(struct chunk *c)
{
    lock_take(&work.lock);
    c->next = work.full;
    work.full = c;
    store_rlx(&work.nfull, load_rlx(&work.nfull) + 1); /* rlx: under the lock */
    bool wakes = event_locked();
    lock_drop(&work.lock);
    if (wakes)
        os_futex_wake(&work.event, 1);
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
    size_t page = off >> PAGE_SHIFT, first = page - PAGE_BACK(m->pagemap[page].v);
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

static w_cold void reached_large(struct marker *m, candidate c)
{
    struct span *s = &m->spans[CANDIDATE_PAGE(c)];
    m->live_bytes += span_bytes(s);
    if ((CANDIDATE_MAP(c) & PAGE_NOSCAN) == 0) {
        m->scan_bytes += span_bytes(s);
        push_large(m, CANDIDATE_PAGE(c) << PAGE_SHIFT, s->shape);
    }
}

/* What settle has at hand of the marker, which the stores of marks could change, for all that the compiler knows. */
struct settling {
    uint64_t *bits, live, scan;
    struct span *spans;
    struct chunk *top; /* with its n here */
    uint64_t n;
    bool alone, late;
};

static ALWAYS_INLINE struct settling settle_begin(struct marker *m)
{
    return (struct settling){ m->bits, 0, 0, m->spans, m->top, m->top->n, m->alone, m->late != NULL };
}

static ALWAYS_INLINE void settle_end(struct marker *m, const struct settling *se)
{
    se->top->n = se->n;
    m->live_bytes += se->live;
    m->scan_bytes += se->scan;
}

static ALWAYS_INLINE w_no_sanitize candidate slot_of(uint64_t off, uint32_t map)
{
    return CANDIDATE(heap_slot_bit(off, map), map);
}

static ALWAYS_INLINE w_no_sanitize bool is_marked(const uint64_t *bits, candidate c)
{
    return __atomic_load_n(&bits[CANDIDATE_WORD(c)], __ATOMIC_RELAXED) >> c % 64 & 1; /* rlx: as in set_mark */
}

/* Marks the slot of c, if it is allocated. false: it was not, or it was marked meanwhile. */
static ALWAYS_INLINE w_no_sanitize bool set_mark(const struct settling *se, candidate c, unsigned nwords)
{
    uint64_t *mark = &se->bits[CANDIDATE_WORD(c)], bit = CANDIDATE_BIT(c);
    const uint64_t *alloc = likely(2 * nwords <= SPAN_WORDS) ? mark + nwords : &se->spans[CANDIDATE_PAGE(c)].allocs[c % 512 / 64];
    if (unlikely((__atomic_load_n(alloc, __ATOMIC_RELAXED) & bit) == 0)) /* rlx: [BITS]. Behind the last slot none is set */
        return false;
    if (se->alone) {
        if (*mark & bit) /* by another of these candidates */
            return false;
        *mark |= bit;
        return true;
    }
    /* rlx: a bit that others set too decides only who scans; the scans' results meet in the end of the workers */
    return (__atomic_fetch_or(mark, bit, __ATOMIC_RELAXED) & bit) == 0;
}

/* What does not happen to each object, with the marker as it is. */
static w_noinline void reached_rare(struct marker *m, struct settling *se, candidate c, size_t off, entry e)
{
    se->top->n = se->n;
    if (se->late)
        tell_late(m, off);
    if (CANDIDATE_MAP(c) % 128 == CLASS_LARGE)
        reached_large(m, c);
    else if (e != 0)
        push(m, e);
    se->top = m->top;
    se->n = m->top->n;
}

/* A slot that was not marked a moment ago. */
static ALWAYS_INLINE w_no_sanitize void reach(struct marker *m, struct settling *se, candidate c)
{
    uint32_t map = CANDIDATE_MAP(c);
    const struct class_info *ci = &class_info[map & 127];
    if (!set_mark(se, c, ci->nwords))
        return;
    size_t off = (CANDIDATE_PAGE(c) << PAGE_SHIFT) + c % 512 * ci->size;
    entry e = 0;
    se->live += ci->size;
    if ((map & PAGE_NOSCAN) == 0) {
        se->scan += ci->size;
        e = ENTRY(off, map & 127, likely((map & PAGE_TYPED) == 0) ? SHAPE_CONS : heap.shapes[CANDIDATE_PAGE(c)]);
    }
    if (unlikely(se->late || ci->size == 0 || se->n == CHUNK_ENTRIES)) {
        reached_rare(m, se, c, off, e);
        return;
    }
    if (e != 0)
        se->top->e[se->n++] = e;
}

/* Step 4. In a graph one candidate in three may be new, and nothing tells which: so first those are picked, without a branch. In a tree, that would
 * be work for nothing. */
static w_noinline w_no_sanitize void settle(struct marker *m)
{
    uint32_t n = m->ncand, fresh = 0;
    struct settling se = settle_begin(m);
    m->ncand = m->nfound = 0;
    if (m->sure) {
        for (uint32_t k = 0; k < n; k++) {
            candidate c = slot_of(m->cand[k], m->map[k]);
            if (is_marked(se.bits, c))
                continue;
            fresh++;
            reach(m, &se, c);
        }
    } else {
        for (uint32_t k = 0; k < n; k++) {
            candidate c = slot_of(m->cand[k], m->map[k]);
            m->cand[fresh] = c;
            fresh += !is_marked(se.bits, c);
        }
        for (uint32_t k = 0; k < fresh; k++)
            reach(m, &se, m->cand[k]);
    }
    m->sure = fresh + n / 8 >= n;
    settle_end(m, &se);
}

/* Step 3. */
static w_noinline w_no_sanitize void resolve(struct marker *m)
{
    const w_u32 *pagemap = m->pagemap;
    uint64_t *bits = m->bits;
    uint32_t to = m->ncand;
    for (uint32_t k = to, n = m->nfound; k < n; k++) {
        uint64_t off = m->cand[k];
        /* rlx: what is found by a word that is no pointer may be a span that is being made: all its objects are born marked, and its bits are
         * there before its map, which the loads below depend on */
        uint32_t map = load_rlx(&pagemap[off >> PAGE_SHIFT]);
        __builtin_prefetch(&bits[((off >> PAGE_SHIFT) - PAGE_BACK(map)) * SPAN_WORDS], 1);
        m->cand[to] = off;
        m->map[to] = map;
        to += (map & 127) != 0;
    }
    m->ncand = m->nfound = to;
}

static void settle_all(struct marker *m)
{
    resolve(m);
    settle(m);
}

/* For AT_ONCE words. */
static inline void make_room(struct marker *m)
{
    if (unlikely(m->nfound > CANDIDATES - AT_ONCE))
        settle_all(m);
}

/* There is room. */
static inline void visit(struct marker *m, uintptr_t word)
{
    uint64_t off = word - (uintptr_t)m->base;
    m->cand[m->nfound] = off;
    m->nfound += off < m->limit;
}

/* Step 2, for n <= AT_ONCE words: the offsets of those that lie in [base, base + limit) go to to[0...], anything behind them. How many. */
typedef uint32_t find_fn(uint64_t *to, const uintptr_t *w, size_t n, uintptr_t base, uintptr_t limit);

static ALWAYS_INLINE w_no_sanitize uint32_t find_plain(uint64_t *to, const uintptr_t *w, size_t n, uintptr_t base, uintptr_t limit)
{
    uint32_t found = 0;
    for (size_t k = 0; k < n; k++) {
        uint64_t off = w[k] - base;
        to[found] = off;
        found += off < limit;
    }
    return found;
}

/* The same for four objects of two words. */
typedef uint32_t find_pairs_fn(uint64_t *to, const char *base, const entry *e, uintptr_t limit);

static ALWAYS_INLINE w_no_sanitize uint32_t find_pairs_plain(uint64_t *to, const char *base, const entry *e, uintptr_t limit)
{
    uint32_t found = 0;
    for (unsigned k = 0; k < 4; k++)
        found += find_plain(to + found, (const uintptr_t *)(base + ENTRY_OFF(e[k])), 2, (uintptr_t)base, limit);
    return found;
}

/* The same by a layout. */
static ALWAYS_INLINE w_no_sanitize uint32_t find_typed(uint64_t *to, const uintptr_t *w, size_t n, const struct shape *sh, uintptr_t base,
                                                       uintptr_t limit)
{
    uint32_t found = 0, nptrs = sh->nptrs;
    const uint32_t *ptrs = sh->ptrs;
    for (const uintptr_t *end = w + n; w + sh->words <= end; w += sh->words)
        for (uint32_t k = 0; k < nptrs; k++) {
            uint64_t off = w[ptrs[k]] - base;
            to[found] = off;
            found += off < limit;
        }
    return found;
}

static ALWAYS_INLINE w_no_sanitize void scan_words(struct marker *m, const char *p, size_t bytes, find_fn *find)
{
    const uintptr_t *w = (const uintptr_t *)p;
    size_t n = bytes / 8;
    for (; n > AT_ONCE; n -= AT_ONCE, w += AT_ONCE) {
        make_room(m);
        m->nfound += find(m->cand + m->nfound, w, AT_ONCE, (uintptr_t)m->base, m->limit);
    }
    make_room(m);
    m->nfound += find(m->cand + m->nfound, w, n, (uintptr_t)m->base, m->limit);
}

static w_noinline w_no_sanitize void scan_typed(struct marker *m, const char *p, size_t bytes, uint32_t shape)
{
    const struct shape *sh = shape_get(shape);
    const uint32_t *ptrs = sh->ptrs;
    size_t elem = (size_t)sh->words * 8;
    for (const char *end = p + bytes; p + elem <= end; p += elem)
        for (uint32_t k = 0; k < sh->nptrs; k++) {
            if (k % AT_ONCE == 0)
                make_room(m);
            visit(m, ((const uintptr_t *)p)[ptrs[k]]);
        }
}

/* What has more words. */
static w_noinline w_no_sanitize void scan_other(struct marker *m, entry e, void (*range)(struct marker *, const void *, size_t))
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
    m->scanned += bytes;
    if (shape == SHAPE_CONS)
        range(m, m->base + off, bytes);
    else
        scan_typed(m, m->base + off, bytes, shape);
}

static inline bool is_pair(entry e) { return e >> 40 == ENTRY(0, 1, SHAPE_CONS) >> 40; }

/* For a batch of objects of up to AT_ONCE words there is always room, unless others have come before. */
static ALWAYS_INLINE w_no_sanitize void scan_entries(struct marker *m, const entry *e, unsigned n, find_fn *find, find_pairs_fn *pairs,
                                                     void (*range)(struct marker *, const void *, size_t))
{
    const char *base = m->base;
    uintptr_t limit = m->limit;
    uint32_t found = m->nfound;
    uint64_t words = 0;
    for (const entry *end = e + n; e < end; e++) {
        if (is_pair(e[0]) && end - e >= 4 && is_pair(e[1]) && is_pair(e[2]) && is_pair(e[3])) {
            found += pairs(m->cand + found, base, e, limit);
            words += 8;
            e += 3;
            continue;
        }
        size_t w = class_info[ENTRY_CLASS(*e)].size / 8;
        if (likely(w - 1 < AT_ONCE)) {
            const uintptr_t *p = (const uintptr_t *)(base + ENTRY_OFF(*e));
            found += ENTRY_SHAPE(*e) == SHAPE_CONS ? find(m->cand + found, p, w, (uintptr_t)base, limit)
                                                   : find_typed(m->cand + found, p, w, shape_get(ENTRY_SHAPE(*e)), (uintptr_t)base, limit);
            words += w;
            continue;
        }
        m->nfound = found;
        scan_other(m, *e, range);
        if (m->nfound > CANDIDATES - BATCH * AT_ONCE)
            settle_all(m);
        found = m->nfound;
    }
    m->nfound = found;
    m->scanned += words * 8;
}

/* The loops around a find_fn, compiled for the processor that it needs. */
struct search {
    void (*range)(struct marker *m, const void *p, size_t bytes);
    void (*entries)(struct marker *m, const entry *e, unsigned n);
};
#define SEARCH(name, target)                                                                                          \
    static target w_noinline w_no_sanitize void range_##name(struct marker *m, const void *p, size_t bytes)            \
    {                                                                                                                 \
        scan_words(m, p, bytes, find_##name);                                                                         \
    }                                                                                                                 \
    static target w_noinline w_no_sanitize void entries_##name(struct marker *m, const entry *e, unsigned n)           \
    {                                                                                                                 \
        scan_entries(m, e, n, find_##name, find_pairs_##name, range_##name);                                          \
    }                                                                                                                 \
    static const struct search search_##name = { range_##name, entries_##name };

SEARCH(plain, )
static const struct search *search = &search_plain; /* written when the library is loaded, and by tests */

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,popcnt")))
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512dq,popcnt")))
/* By the mask of four words: which halves of words go to the front. */
static const int32_t front4[16][8] w_aligned(32) = {
#define W(k) 2 * (k), 2 * (k) + 1
    { 0 },                      { W(0) },             { W(1) },             { W(0), W(1) },
    { W(2) },                   { W(0), W(2) },       { W(1), W(2) },       { W(0), W(1), W(2) },
    { W(3) },                   { W(0), W(3) },       { W(1), W(3) },       { W(0), W(1), W(3) },
    { W(2), W(3) },             { W(0), W(2), W(3) }, { W(1), W(2), W(3) }, { W(0), W(1), W(2), W(3) },
#undef W
};

/* Of four offsets those below limit. It compares signed numbers only: both sides are moved by half the range. */
static AVX2 ALWAYS_INLINE uint32_t keep_avx2(uint64_t *to, __m256i off, uintptr_t limit)
{
    const __m256i half = _mm256_set1_epi64x((long long)(1ull << 63));
    __m256i in = _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)(limit ^ 1ull << 63)), _mm256_xor_si256(off, half));
    unsigned mask = (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(in));
    _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(off, _mm256_load_si256((const __m256i *)front4[mask])));
    return (uint32_t)__builtin_popcount(mask);
}

static AVX2 ALWAYS_INLINE w_no_sanitize uint32_t find_avx2(uint64_t *to, const uintptr_t *w, size_t n, uintptr_t base, uintptr_t limit)
{
    uint32_t found = 0;
    for (; n >= 4; w += 4, n -= 4) {
        __m256i off = _mm256_sub_epi64(_mm256_loadu_si256((const __m256i *)w), _mm256_set1_epi64x((long long)base));
        found += keep_avx2(to + found, off, limit);
    }
    return found + find_plain(to + found, w, n, base, limit);
}

static AVX2 ALWAYS_INLINE w_no_sanitize uint32_t find_pairs_avx2(uint64_t *to, const char *base, const entry *e, uintptr_t limit)
{
    uint32_t found = 0;
    for (unsigned k = 0; k < 4; k += 2) {
        __m256i w = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(base + ENTRY_OFF(e[k]))));
        w = _mm256_inserti128_si256(w, _mm_loadu_si128((const __m128i *)(base + ENTRY_OFF(e[k + 1]))), 1);
        found += keep_avx2(to + found, _mm256_sub_epi64(w, _mm256_set1_epi64x((long long)(uintptr_t)base)), limit);
    }
    return found;
}
SEARCH(avx2, AVX2)

/* The same of eight. Not straight into memory, which is slow on some. */
static AVX512 ALWAYS_INLINE uint32_t keep_avx512(uint64_t *to, __m512i off, uintptr_t limit)
{
    __mmask8 in = _mm512_cmplt_epu64_mask(off, _mm512_set1_epi64((long long)limit));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi64(in, off));
    return (uint32_t)__builtin_popcount(in);
}

/* No masked load for what is shorter: it would touch the next line. */
static AVX512 ALWAYS_INLINE w_no_sanitize uint32_t find_avx512(uint64_t *to, const uintptr_t *w, size_t n, uintptr_t base, uintptr_t limit)
{
    uint32_t found = 0;
    if (n == AT_ONCE)
        return keep_avx512(to, _mm512_sub_epi64(_mm512_loadu_si512(w), _mm512_set1_epi64((long long)base)), limit);
    if (n >= 4) {
        __m256i off = _mm256_sub_epi64(_mm256_loadu_si256((const __m256i *)w), _mm256_set1_epi64x((long long)base));
        __mmask8 in = _mm256_cmplt_epu64_mask(off, _mm256_set1_epi64x((long long)limit));
        _mm256_storeu_si256((__m256i *)to, _mm256_maskz_compress_epi64(in, off));
        found = (uint32_t)__builtin_popcount(in);
        w += 4;
        n -= 4;
    }
    return found + find_plain(to + found, w, n, base, limit);
}

static AVX512 ALWAYS_INLINE w_no_sanitize uint32_t find_pairs_avx512(uint64_t *to, const char *base, const entry *e, uintptr_t limit)
{
    __m512i w = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(base + ENTRY_OFF(e[0]))));
    w = _mm512_inserti64x2(w, _mm_loadu_si128((const __m128i *)(base + ENTRY_OFF(e[1]))), 1);
    w = _mm512_inserti64x2(w, _mm_loadu_si128((const __m128i *)(base + ENTRY_OFF(e[2]))), 2);
    w = _mm512_inserti64x2(w, _mm_loadu_si128((const __m128i *)(base + ENTRY_OFF(e[3]))), 3);
    return keep_avx512(to, _mm512_sub_epi64(w, _mm512_set1_epi64((long long)(uintptr_t)base)), limit);
}
SEARCH(avx512, AVX512)
#endif

unsigned mark_searches(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("popcnt"))
        return 1;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") ? 3 : 2;
#else
    return 1;
#endif
}

void mark_use_search(unsigned k)
{
#if defined(__x86_64__)
    search = k == 0 ? &search_plain : k == 1 ? &search_avx2 : &search_avx512;
#else
    (void)k;
#endif
}

static w_startup __attribute__((constructor)) void widest(void) { mark_use_search(mark_searches() - 1); }

/* always_inline: gcc takes a function that only prefetches for one without effect and drops the call. */
static ALWAYS_INLINE void prefetch_object(struct marker *m, entry e)
{
    const char *p = m->base + ENTRY_OFF(e);
    size_t size = class_info[ENTRY_CLASS(e)].size;
    __builtin_prefetch(p);
    if (size > 16) {
        __builtin_prefetch(p + w_min(size - 1, (size_t)64));
        if (size > 128)
            __builtin_prefetch(p + 128);
    }
}

struct batch {
    unsigned n;
    entry e[BATCH];
};

/* Step 1. */
static void pop_batch(struct marker *m, struct batch *b)
{
    struct chunk *top = m->top;
    b->n = (unsigned)w_min(top->n, (uint64_t)BATCH);
    top->n -= b->n;
    for (unsigned k = 0; k < b->n; k++) {
        b->e[k] = top->e[top->n + k];
        prefetch_object(m, b->e[k]);
    }
}

static void push_batch(struct marker *m, const struct batch *b)
{
    for (unsigned k = 0; k < b->n; k++)
        push(m, b->e[k]);
}

/* Until the worker itself has nothing left, or, beside the program, has done enough. One batch is on its way to the cache while the other is searched. */
static void drain(struct marker *m)
{
    struct batch batch[2], *now = &batch[0], *next = &batch[1];
    now->n = 0;
    for (;;) {
        settle_all(m);
        if (m->most != MARK_ALL && (m->scanned >= m->most || heap_stop_wanted())) {
            push_batch(m, now);
            return;
        }
        pop_batch(m, next);
        if (now->n + next->n == 0) {
            if (pop_chunk(m))
                continue;
            return;
        }
        search->entries(m, now->e, now->n);
        now->n = 0;
        struct batch *was = now;
        now = next;
        next = was;
        /* rlx: hints; the list is looked at under its lock */
        if (unlikely(load_rlx(&work.idle) != 0) && load_rlx(&work.nfull) == 0)
            share(m);
        else if (m->most != MARK_ALL && load_rlx(&work.nfull) == 0 && m->top->n > 2 * BATCH) /* rlx: a hint. For a processor that idles */
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
        make_room(m), visit(m, word);
}

/* Roots may lead to much. Beside the program that goes to the common list; the caller may hold a lock. */
static void keep_short(struct marker *m)
{
    if (m->spare != NULL && m->most == MARK_ALL)
        drain(m);
}

static w_no_sanitize size_t scan_root(struct marker *m, const void *lo, const void *hi)
{
    uintptr_t a = w_align_up((uintptr_t)lo, 8), b = w_align_down((uintptr_t)hi, 8);
    if (a >= b)
        return 0;
    search->range(m, (const void *)a, b - a);
    m->scanned += b - a;
    keep_short(m);
    return b - a;
}

void mark_range(struct marker *m, const void *lo, const void *hi)
{
    if (m == NULL)
        verify_range(lo, hi);
    else
        m->global_bytes += scan_root(m, lo, hi);
}

void mark_stack(void *marker, const void *lo, const void *hi)
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
    memset(m, 0, offsetof(struct marker, cand));
    m->spare = NULL;
    m->dropped = false;
    m->live_bytes = m->scan_bytes = m->stack_bytes = m->global_bytes = 0;
    m->base = heap.base;
    m->limit = load_rlx(&heap.committed); /* rlx: what is newer is born marked */
    m->pagemap = heap.pagemap;
    m->spans = heap.spans;
    m->bits = (uint64_t *)heap.bits;
    m->alone = nworkers == 1 && late == NULL;
    m->worker = worker;
    m->most = MARK_ALL;
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

/* Spins a little, for work comes soon or never; then sleeps, so that who has work and no CPU gets ours. Back when there is work, or the mark is done,
 * or for nothing. */
static void wait_for_work(void)
{
    for (unsigned i = 0; i < WAIT_PAUSES; i++, cpu_relax())
        if (load_rlx(&work.nfull) != 0 || load_rlx(&work.done) != 0) /* rlx: hints */
            return;
    lock_take(&work.lock);
    uint32_t event = load_rlx(&work.event); /* rlx, and below: under the lock. What comes after we have dropped it changes event */
    bool sleeps = work.full == NULL && load_rlx(&work.done) == 0;
    work.asleep += sleeps;
    lock_drop(&work.lock);
    if (!sleeps)
        return;
    os_futex_wait(&work.event, event, -1); /* any result: it is looked again */
    lock_take(&work.lock);
    work.asleep--;
    lock_drop(&work.lock);
}

/* A chunk of somebody else's work becomes the worker's. false: the mark is done. */
static bool get_work(struct marker *m, unsigned nworkers)
{
    bool counted = false;
    for (;;) {
        bool wakes = false;
        lock_take(&work.lock);
        struct chunk *c = chunk_take_locked();
        uint32_t idle = load_rlx(&work.idle); /* rlx: under the lock */
        if (c != NULL) {
            if (counted)
                store_rlx(&work.idle, idle - 1);
        } else if (!counted) {
            counted = true;
            store_rlx(&work.idle, idle + 1);
            if (idle + 1 == nworkers) {
                store_rel(&work.done, 1); /* rel: acq below */
                wakes = event_locked();
            }
        }
        lock_drop(&work.lock);
        if (wakes)
            os_futex_wake(&work.event, INT_MAX);
        if (c != NULL) {
            if (m->top != &m->first)
                chunk_put(m->top);
            m->top = c;
            return true;
        }
        if (load_acq(&work.done) != 0) /* acq: rel above */
            return false;
        wait_for_work();
    }
}

/* The same, if there is one at once. */
static bool next_chunk(struct marker *m)
{
    lock_take(&work.lock);
    struct chunk *c = chunk_take_locked();
    lock_drop(&work.lock);
    if (c == NULL)
        return false;
    if (m->top != &m->first)
        chunk_put(m->top);
    m->top = c;
    return true;
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
    uint64_t roots = work.njobs - (work.rest != NULL ? work.rest->njobs : 0);
    for (uint64_t j; (j = add_rlx(&work.next_job, 1)) < work.njobs;) { /* rlx: only a ticket */
        if (j < roots)
            roots_job_stw(j, &m);
        else
            work.rest->job_stw(j - roots, &m);
        drain(&m);
    }
    if (work.rest != NULL)
        work.rest->scan_stw(i, n, &m);
    else
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

/* What a mark that was given up has left. */
static void drop_chunks(void)
{
    for (struct chunk *c; (c = chunk_take_locked()) != NULL;) {
        c->next = work.unused;
        work.unused = c;
        work.nunused++;
    }
    work.slices = 0;
}

static void run_workers(unsigned nworkers, void (*fn)(void *, unsigned, unsigned), const struct gc_late *late)
{
    w_assert(work.asleep == 0);
    work.dropped = false;
    store_rlx(&work.next_job, 0); /* rlx: the workers start after */
    store_rlx(&work.idle, 0);
    store_rlx(&work.done, 0);
    heap.host.parallel(nworkers, fn, (void *)late);
}

void mark_stw(unsigned nworkers, const struct gc_late *late, const struct mark_rest *rest, struct pacer_marked *out)
{
    bool dropped = rest != NULL && work.dropped;
    uint64_t stack_before = rest != NULL ? work.sum.stack_bytes : 0;
    if (rest == NULL) {
        memset(&work.sum, 0, sizeof work.sum);
        drop_chunks();
    }
    work.sum.global_bytes = 0; /* all of them are scanned now */
    work.rest = rest;
    work.njobs = roots_jobs_stw() + (rest != NULL ? rest->njobs : 0);
    bool looks = rest != NULL ? work.looks : late == NULL && held_due_stw();
    specials_finalizers_later_stw(looks);
    if (late != NULL)
        late->begin_stw(late->arg);
    run_workers(nworkers, worker, late);
    work.dropped |= dropped;
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
    out->stop_stack_bytes = out->stack_bytes - stack_before;
    work.rest = NULL;
}

void mark_trim(void)
{
    struct chunk *list = NULL, *next;
    lock_take(&work.lock);
    for (; work.nunused > FREE_CHUNKS_KEPT; work.nunused--, work.made--) {
        struct chunk *c = work.unused;
        work.unused = c->next;
        c->next = list;
        list = c;
    }
    lock_drop(&work.lock);
    for (; list != NULL; list = next) {
        next = list->next;
        off_free(OFF_GC, list);
    }
}

/* ---- beside the program --------------------------------------------------------------------------------------------- */

void mark_begin_stw(void)
{
    memset(&work.sum, 0, sizeof work.sum);
    drop_chunks();
    work.dropped = false;
    store_rlx(&work.idle, 0); /* rlx: in a stop */
    work.looks = held_due_stw();
    specials_finalizers_later_stw(work.looks);
}

/* What a worker has left goes to the common list. */
static void give_all(struct marker *m)
{
    settle_all(m);
    if (m->spare != NULL)
        chunk_share(m->spare);
    m->spare = NULL;
    if (m->top == &m->first) {
        struct chunk *c = m->first.n != 0 ? chunk_get() : NULL;
        if (c == NULL) {
            m->dropped |= m->first.n != 0;
            return;
        }
        c->n = m->first.n;
        memcpy(c->e, m->first.e, c->n * sizeof(entry));
        chunk_share(c);
        m->first.n = 0;
    } else if (m->top->n != 0) {
        chunk_share(m->top);
        m->top = &m->first;
        m->first.n = 0;
    }
}

static bool slice_begin(struct marker *m, bool has_part)
{
    lock_take(&work.lock);
    struct chunk *c = has_part ? NULL : chunk_take_locked();
    work.slices += has_part || c != NULL;
    lock_drop(&work.lock);
    if (c != NULL)
        m->top = c;
    return has_part || c != NULL;
}

bool mark_slice(mark_part *part, void *arg, uint64_t most, uint64_t *scanned)
{
    struct marker m;
    marker_init(&m, 0, 2, NULL);
    m.most = most;
    if (!slice_begin(&m, part != NULL))
        return false;
    if (part != NULL)
        part(arg, &m);
    do
        drain(&m);
    while (part == NULL && m.scanned < m.most && !heap_stop_wanted() && next_chunk(&m));
    give_all(&m);
    marker_end(&m);
    lock_take(&work.lock);
    work.slices--;
    lock_drop(&work.lock);
    *scanned += m.scanned;
    return true;
}

bool mark_idle(void)
{
    lock_take(&work.lock);
    bool idle = work.slices == 0 && work.full == NULL;
    lock_drop(&work.lock);
    return idle;
}

static bool marked_now(const uint64_t *marks, size_t i)
{
    return __atomic_load_n(&marks[i / 64], __ATOMIC_RELAXED) >> i % 64 & 1; /* rlx: see [BORN] in conc.c */
}

static void rescan_typed(struct marker *m, const struct span *s, size_t from, size_t to, size_t lo, size_t hi)
{
    size_t each = (size_t)shape_get(s->shape)->words * 8; /* whole elements */
    size_t a = from + (w_max(from, lo) - from) / each * each, b = w_min(to, from + (w_min(to, hi) - from + each - 1) / each * each);
    scan_typed(m, m->base + a, b - a, s->shape);
    m->scanned += b - a;
}

/* Marked objects, as far as they lie in [lo, hi): the rest was not written to. Neighbours at once. */
static void rescan_span(struct marker *m, struct span *s, size_t lo, size_t hi)
{
    size_t base = span_page(s) << PAGE_SHIFT, elem = span_elem(s), i = (lo - base) / elem, end = w_min((size_t)s->nobj, (hi - base + elem - 1) / elem);
    const uint64_t *marks = span_marks(s);
    while (i < end) {
        size_t first = i;
        while (i < end && marked_now(marks, i))
            i++;
        if (s->shape >= SHAPE_TYPED) {
            for (; first < i; first++)
                rescan_typed(m, s, base + first * elem, base + (first + 1) * elem, lo, hi);
        } else if (first < i) {
            size_t a = w_max(base + first * elem, lo), b = w_min(base + i * elem, hi);
            search->range(m, m->base + a, b - a);
            m->scanned += b - a;
        }
        i++;
    }
}

void mark_pages(struct marker *m, uintptr_t lo, uintptr_t hi)
{
    size_t from = lo - (uintptr_t)m->base, to = hi - (uintptr_t)m->base;
    for (size_t at = from; at < to;) {
        uint32_t map = load_acq(&m->pagemap[at >> PAGE_SHIFT]); /* acq: rel in map_pages */
        if ((map & 127) == 0) {
            at = ((at >> PAGE_SHIFT) + 1) << PAGE_SHIFT;
            continue;
        }
        size_t first = (at >> PAGE_SHIFT) - PAGE_BACK(map);
        struct span *s = &m->spans[first];
        size_t end = w_min(to, (first << PAGE_SHIFT) + span_bytes(s));
        if ((map & PAGE_NOSCAN) == 0)
            rescan_span(m, s, at, end);
        keep_short(m);
        at = end;
    }
}

void mark_cancel_stw(void)
{
    for (struct span *s = span_next(0); s != NULL; s = span_next(span_page(s) + s->npages))
        memset(span_marks(s), 0, span_words(s) * sizeof(uint64_t));
    specials_finalizers_later_stw(false);
    drop_chunks();
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
