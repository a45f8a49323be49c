/* See pages.h.
 *
 * Per chunk of 512 pages three bitmaps: used, dirty (may hold old bytes), released (free and without memory behind it), and a
 * summary: the number of free pages at its start, at its end, and the longest free run inside. start and end are exact;
 * longest is an upper bound, made exact when a search believed it and found nothing. A search walks the summaries, eight bytes a chunk,
 * from the first chunk that may have room; runs that cross chunks are found by adding end and start.
 *
 * [DENSE] To release a page that is used again soon costs twice, and breaks the huge page around it. So each chunk remembers the most pages it had in
 * use in this generation, from one end of a sweep to the next, and in the last one; above DENSE_PAGES in either, the background leaves it alone. As
 * first fit fills the heap from its start, these are the chunks that the program lives in. The record is brought up to date when the chunk is
 * touched. */
#include "gc/pages.h"
#include <errno.h>
#include <string.h>
#include "base/backoff.h"
#include "base/fail.h"
#include "base/seqcount.h"
#include "gc/cards.h"
#include "os/dirty.h"
#include "os/vm.h"

struct chunk {
    uint64_t used[8], dirty[8], released[8];
    uint32_t generation;               /* [DENSE] of the next three */
    uint16_t in_use, peak, last_peak;
};
struct summary { uint16_t start, longest, end, pad; };

#if defined(WEFT_RESERVE_GIB) /* an emulator keeps a table of all that is reserved: tools/aarch64.sh */
#define RESERVE_DEFAULT ((size_t)WEFT_RESERVE_GIB << 30)
#elif defined(W_ASAN) || defined(W_TSAN)
#define RESERVE_DEFAULT ((size_t)64 << 30) /* their shadow has to fit as well */
#else
#define RESERVE_DEFAULT HEAP_MAX_BYTES
#endif
#define RESERVE_MIN ((size_t)16 << 20)
#define HUGE_FROM_CHUNK 1u       /* the first chunk stays in small pages: programs that need no more stay small */
#define HUGE_TABLES_FROM 16u     /* heaps of more chunks have their tables in huge pages */
#define DENSE_PAGES 496u         /* 96.875 % */
#define HALF_PAGES (OS_HUGE_PAGE / HEAP_PAGE) /* a chunk is two huge pages */

/* What to release, in this order. */
enum level { WHOLE_HUGE_PAGES, ANY_PAGES, LEVELS };

static struct {
    struct lock lock; /* all below */
    struct chunk *chunks;
    struct summary *sums;
    size_t nchunks, max_chunks;
    size_t hint;                 /* no free page in a chunk below */
    size_t free_pages, released_pages;
    size_t release_from[LEVELS]; /* nothing to release in this and higher chunks */
    size_t generation_from[LEVELS]; /* the same for the background, in this generation */
    uint32_t generation;
    unsigned in_flight;          /* runs on their way to the system, marked as used meanwhile */
    /* copies for who counts, without the lock: [SHOWN] */
    struct seqcount shown_seq;
    w_u64 shown_chunks, shown_free, shown_retained; /* pages */
} pages = { .lock = LOCK_INIT(RANK_HEAP) };

/* ---- tables ------------------------------------------------------------------------------------------- */

/* Bytes of each table for n chunks. */
static size_t map_bytes(size_t n) { return n * CHUNK_PAGES * sizeof(w_u32); }
static size_t kinds_bytes(size_t n) { return n * CHUNK_PAGES / 64 * sizeof(struct page_kinds); }
static size_t span_table_bytes(size_t n) { return n * CHUNK_PAGES * sizeof(struct span); }
static size_t bits_bytes(size_t n) { return n * CHUNK_PAGES * sizeof(struct span_bits); }
static size_t chunk_bytes(size_t n) { return n * sizeof(struct chunk); }
static size_t sum_bytes(size_t n) { return n * sizeof(struct summary); }

static void *table_reserve(size_t bytes) { return os_vm_reserve(w_align_up(bytes, OS_HUGE_PAGE), OS_HUGE_PAGE); }
static void table_free(void *p, size_t bytes) { os_vm_free(p, w_align_up(bytes, OS_HUGE_PAGE)); }

static void unreserve(void)
{
    size_t n = pages.max_chunks;
    cards_stop();
    os_vm_free(heap.base, heap.reserved);
    table_free(heap.pagemap, map_bytes(n));
    table_free(heap.kinds, kinds_bytes(n));
    table_free(heap.shapes, map_bytes(n));
    table_free(heap.spans, span_table_bytes(n));
    table_free(heap.bits, bits_bytes(n));
    table_free(pages.chunks, chunk_bytes(n));
    table_free(pages.sums, sum_bytes(n));
    heap.base = NULL;
    heap.pagemap = NULL;
    heap.kinds = NULL;
    heap.shapes = NULL;
    heap.spans = NULL;
    heap.bits = NULL;
    pages.chunks = NULL;
    pages.sums = NULL;
}

static bool reserve(size_t bytes)
{
    size_t n = pages.max_chunks = bytes / CHUNK_BYTES;
    heap.reserved = bytes;
    heap.base = os_vm_reserve(bytes, CHUNK_BYTES);
    if (heap.base != NULL) {
        heap.pagemap = table_reserve(map_bytes(n));
        heap.kinds = table_reserve(kinds_bytes(n));
        heap.shapes = table_reserve(map_bytes(n));
        heap.spans = table_reserve(span_table_bytes(n));
        heap.bits = table_reserve(bits_bytes(n));
        pages.chunks = table_reserve(chunk_bytes(n));
        pages.sums = table_reserve(sum_bytes(n));
    }
    if (heap.base != NULL && heap.pagemap != NULL && heap.kinds != NULL && heap.shapes != NULL && heap.spans != NULL && heap.bits != NULL &&
        pages.chunks != NULL && pages.sums != NULL && cards_start() == 0)
        return true;
    unreserve();
    return false;
}

/* [SHOWN] The copies change together. By the owner of the lock, before he lets others have what he changed: so who has counted an object in a new
 * span, and looks at shown_seq after, finds it moved. */
static void show_locked(void)
{
    seq_begin(&pages.shown_seq);
    store_rlx(&pages.shown_chunks, pages.nchunks); /* rlx, here and below: see seqcount.h */
    store_rlx(&pages.shown_free, pages.free_pages);
    store_rlx(&pages.shown_retained, pages.nchunks * CHUNK_PAGES - pages.released_pages);
    seq_end(&pages.shown_seq);
}

int pages_start(size_t want)
{
    size_t bytes = want == 0 ? RESERVE_DEFAULT : w_align_up(w_min(w_max(want, RESERVE_MIN), HEAP_MAX_BYTES), CHUNK_BYTES);
    size_t limit = os_vm_limit_bytes();
    if (limit != SIZE_MAX) /* the rest of the process needs room too */
        while (bytes > limit / 2 && bytes > RESERVE_MIN)
            bytes /= 2;
    bytes = w_align_down(bytes, CHUNK_BYTES);
    while (bytes >= RESERVE_MIN && !reserve(bytes))
        bytes = w_align_down(bytes / 2, CHUNK_BYTES);
    if (bytes < RESERVE_MIN)
        return -ENOMEM;
    pages.nchunks = pages.hint = pages.free_pages = pages.released_pages = 0;
    memset(pages.release_from, 0, sizeof pages.release_from);
    memset(pages.generation_from, 0, sizeof pages.generation_from);
    pages.generation = pages.in_flight = 0;
    show_locked();
    store_rlx(&heap.committed, 0); /* rlx: nobody else yet */
    os_vm_name(heap.base, heap.reserved, "weft: heap");
    os_vm_name(heap.spans, w_align_up(span_table_bytes(pages.max_chunks), OS_HUGE_PAGE), "weft: spans");
    os_vm_name(heap.bits, w_align_up(bits_bytes(pages.max_chunks), OS_HUGE_PAGE), "weft: bits");
    return 0;
}

void pages_stop(void)
{
    unreserve();
    pages.nchunks = pages.max_chunks = 0;
}

void pages_ranges(void (*fn)(void *arg, bool table, uintptr_t lo, uintptr_t hi), void *arg)
{
    size_t n = pages.max_chunks;
    const struct { const void *at; size_t bytes; } all[] = {
        { heap.base, heap.reserved }, { heap.pagemap, map_bytes(n) }, { heap.kinds, kinds_bytes(n) }, { heap.shapes, map_bytes(n) },
        { heap.spans, span_table_bytes(n) }, { heap.bits, bits_bytes(n) }, { pages.chunks, chunk_bytes(n) }, { pages.sums, sum_bytes(n) },
        { weft_card_table_.table, cards_bytes(heap.reserved) },
    };
    for (unsigned i = 0; i < w_countof(all); i++)
        fn(arg, i != 0, (uintptr_t)all[i].at, (uintptr_t)all[i].at + w_align_up(all[i].bytes, OS_HUGE_PAGE));
}

/* ---- growth --------------------------------------------------------------------------------------------- */

/* Makes [table, table + to) usable where it was up to from; whole system pages. */
static int table_grow(void *table, size_t from, size_t to)
{
    size_t page = os_page_bytes();
    from = w_align_up(from, page);
    to = w_align_up(to, page);
    return from < to ? os_vm_commit((char *)table + from, to - from) : 0;
}

/* Of a table that marking reads, what belongs to a huge page is made usable together, or it could not be one. */
static int table_grow_huge(void *table, size_t from, size_t to, size_t new)
{
    return table_grow(table, from, new > HUGE_TABLES_FROM ? w_align_up(to, OS_HUGE_PAGE) : to);
}

static void table_hint(void *table, size_t from, size_t to, size_t old)
{
    bool first = old <= HUGE_TABLES_FROM;
    from = first ? 0 : w_align_up(from, OS_HUGE_PAGE);
    to = w_align_up(to, OS_HUGE_PAGE);
    if (from < to)
        os_vm_huge((char *)table + from, to - from);
    if (first)
        os_vm_collapse(table, OS_HUGE_PAGE);
}

/* Asks for huge pages for what is new, and moves the first chunk and tables into such when the heap has proved large. */
static void grow_hints(size_t old, size_t new)
{
    size_t first = w_max(old, (size_t)HUGE_FROM_CHUNK);
    if (first < new)
        os_vm_huge(heap.base + first * CHUNK_BYTES, (new - first) * CHUNK_BYTES);
    if (new <= HUGE_TABLES_FROM)
        return;
    if (old <= HUGE_TABLES_FROM) {
        os_vm_huge(heap.base, CHUNK_BYTES);
        os_vm_collapse(heap.base, CHUNK_BYTES);
    }
    table_hint(heap.spans, span_table_bytes(old), span_table_bytes(new), old);
    table_hint(heap.bits, bits_bytes(old), bits_bytes(new), old);
    table_hint(heap.pagemap, map_bytes(old), map_bytes(new), old);
    table_hint(heap.shapes, map_bytes(old), map_bytes(new), old);
}

static bool grow_locked(size_t n)
{
    size_t old = pages.nchunks, new = old + n;
    if (n > pages.max_chunks - old)
        return false;
    if (table_grow_huge(heap.pagemap, map_bytes(old), map_bytes(new), new) != 0 ||
        table_grow_huge(heap.shapes, map_bytes(old), map_bytes(new), new) != 0 ||
        table_grow_huge(heap.spans, span_table_bytes(old), span_table_bytes(new), new) != 0 ||
        table_grow_huge(heap.bits, bits_bytes(old), bits_bytes(new), new) != 0 ||
        table_grow(heap.kinds, kinds_bytes(old), kinds_bytes(new)) != 0 ||
        table_grow(pages.chunks, chunk_bytes(old), chunk_bytes(new)) != 0 ||
        table_grow(pages.sums, sum_bytes(old), sum_bytes(new)) != 0 ||
        cards_commit(old * CHUNK_BYTES, new * CHUNK_BYTES) != 0 ||
        os_vm_commit(heap.base + old * CHUNK_BYTES, n * CHUNK_BYTES) != 0)
        return false;
    dirty_committed((uintptr_t)heap.base + old * CHUNK_BYTES, (uintptr_t)heap.base + new * CHUNK_BYTES); /* refused: so is arming, then */
    grow_hints(old, new);
    for (size_t c = old; c < new; c++) {
        memset(pages.chunks[c].released, 0xff, sizeof pages.chunks[c].released);
        pages.sums[c] = (struct summary){ CHUNK_PAGES, CHUNK_PAGES, CHUNK_PAGES, 0 };
    }
    pages.nchunks = new;
    pages.free_pages += n * CHUNK_PAGES;
    pages.released_pages += n * CHUNK_PAGES;
    store_rlx(&heap.committed, new * CHUNK_BYTES); /* rlx: see heap.h */
    return true;
}

/* ---- bitmaps ---------------------------------------------------------------------------------------------- */

/* Index of the first run of n free pages, or CHUNK_PAGES; *longest gets the length of the longest run seen. */
static size_t find_run(const uint64_t *used, size_t n, size_t *longest)
{
    size_t i = 0, best = 0;
    while (i < CHUNK_PAGES) {
        uint64_t w = ~used[i / 64] & ~bits_mask(i % 64);
        if (w == 0) {
            i = (i / 64 + 1) * 64;
            continue;
        }
        size_t from = i / 64 * 64 + bits_ctz(w);
        size_t to = bits_next(used, CHUNK_PAGES, from);
        if (to - from >= n)
            return from;
        best = w_max(best, to - from);
        i = to;
    }
    *longest = best;
    return CHUNK_PAGES;
}

static size_t free_at_end(const uint64_t *used)
{
    for (size_t w = 8; w-- > 0;)
        if (used[w] != 0)
            return (7 - w) * 64 + (size_t)__builtin_clzll(used[w]);
    return CHUNK_PAGES;
}

static size_t count_bits(const uint64_t *map, size_t from, size_t n)
{
    size_t sum = 0;
    for (size_t i = from; i < from + n;) {
        size_t k = w_min(64 - i % 64, from + n - i);
        sum += bits_count(map[i / 64] & bits_mask((unsigned)k) << i % 64);
        i += k;
    }
    return sum;
}

static void fill_bits(uint64_t *map, size_t from, size_t n, bool on)
{
    for (size_t i = from; i < from + n;) {
        size_t k = w_min(64 - i % 64, from + n - i);
        uint64_t m = bits_mask((unsigned)k) << i % 64;
        map[i / 64] = on ? map[i / 64] | m : map[i / 64] & ~m;
        i += k;
    }
}

static void update_ends(struct summary *sum, const struct chunk *c)
{
    sum->start = (uint16_t)bits_next(c->used, CHUNK_PAGES, 0);
    sum->end = (uint16_t)free_at_end(c->used);
}

/* Splits [first, first + n) at chunk borders: c, at, k say chunk, index in it, pages. */
#define each_piece(first, n)                                                                                         \
    for (size_t p_ = (first), e_ = (first) + (n), c = p_ / CHUNK_PAGES, at = p_ % CHUNK_PAGES,                         \
                k = w_min((size_t)CHUNK_PAGES - at, e_ - p_);                                                         \
         p_ < e_; p_ += k, c = p_ / CHUNK_PAGES, at = 0, k = w_min((size_t)CHUNK_PAGES, e_ - p_))

/* [DENSE] */
static void chunk_now_locked(struct chunk *ch)
{
    if (ch->generation == pages.generation)
        return;
    ch->last_peak = ch->generation + 1 == pages.generation ? ch->peak : ch->in_use;
    ch->peak = ch->in_use;
    ch->generation = pages.generation;
}

static bool chunk_dense_locked(struct chunk *ch)
{
    chunk_now_locked(ch);
    return ch->peak > DENSE_PAGES || ch->last_peak > DENSE_PAGES;
}

static bool half_free(const struct chunk *ch, unsigned half)
{
    const uint64_t *w = &ch->used[half * 4];
    return (w[0] | w[1] | w[2] | w[3]) == 0;
}

/* ---- allocation --------------------------------------------------------------------------------------------- */

static size_t find_locked(size_t n, size_t *grown)
{
    size_t run = 0, run_at = pages.hint * CHUNK_PAGES;
    bool seen_free = false;
    for (size_t c = pages.hint; c < pages.nchunks; c++) {
        struct summary *sum = &pages.sums[c];
        if (!seen_free && sum->longest == 0)
            pages.hint = c + 1;
        else
            seen_free = true;
        if (run != 0 && run + sum->start >= n)
            return run_at;
        if (sum->longest >= n) {
            size_t longest = 0, at = find_run(pages.chunks[c].used, n, &longest);
            if (at < CHUNK_PAGES)
                return c * CHUNK_PAGES + at;
            sum->longest = (uint16_t)longest;
        }
        if (sum->start == CHUNK_PAGES && run != 0)
            run += CHUNK_PAGES;
        else {
            run = sum->end;
            run_at = (c + 1) * CHUNK_PAGES - run;
        }
    }
    if (run == 0)
        run_at = pages.nchunks * CHUNK_PAGES;
    size_t more = (n - run + CHUNK_PAGES - 1) / CHUNK_PAGES;
    if (!grow_locked(more))
        return NO_PAGE;
    *grown = more * CHUNK_BYTES;
    return run_at;
}

/* There may be room when the runs in flight have come back. */
static size_t find_wait_locked(size_t n, size_t *grown)
{
    size_t first;
    while ((first = find_locked(n, grown)) == NO_PAGE && pages.in_flight != 0) {
        lock_drop(&pages.lock);
        nap(); /* the other one is in madvise(2) */
        lock_take(&pages.lock);
    }
    return first;
}

size_t pages_alloc(size_t n, bool *needzero, size_t *grown)
{
    *grown = 0;
    if (n > heap.reserved >> PAGE_SHIFT || fail_now(FAIL_MEM))
        return NO_PAGE;
    lock_take(&pages.lock);
    size_t first = find_wait_locked(n, grown), dirty = 0;
    if (first != NO_PAGE) {
        each_piece(first, n) {
            struct chunk *ch = &pages.chunks[c];
            dirty += count_bits(ch->dirty, at, k);
            pages.released_pages -= count_bits(ch->released, at, k);
            fill_bits(ch->used, at, k, true);
            fill_bits(ch->released, at, k, false);
            fill_bits(ch->dirty, at, k, true); /* they will be */
            if (k == CHUNK_PAGES)
                pages.sums[c].longest = 0;
            update_ends(&pages.sums[c], ch);
            chunk_now_locked(ch);
            ch->in_use += (uint16_t)k;
            ch->peak = w_max(ch->peak, ch->in_use);
        }
        pages.free_pages -= n;
    }
    show_locked();
    lock_drop(&pages.lock);
    *needzero = dirty != 0;
    return first;
}

/* [at, at + k) of chunk c is free again. */
static void free_piece_locked(size_t c, size_t at, size_t k)
{
    struct chunk *ch = &pages.chunks[c];
    struct summary *sum = &pages.sums[c];
    w_debug_assert(count_bits(ch->used, at, k) == k);
    fill_bits(ch->used, at, k, false);
    update_ends(sum, ch);
    /* the free run around the piece */
    size_t to = bits_next(ch->used, CHUNK_PAGES, at + k - 1), from = at;
    while (from > 0 && !bits_get(ch->used, from - 1))
        from = from % 64 == 0 && ch->used[from / 64 - 1] == 0 ? from - 64 : from - 1;
    sum->longest = (uint16_t)w_max((size_t)sum->longest, to - from);
    pages.hint = w_min(pages.hint, c);
}

void pages_free(size_t first, size_t n)
{
    lock_take(&pages.lock);
    each_piece(first, n) {
        struct chunk *ch = &pages.chunks[c];
        free_piece_locked(c, at, k);
        chunk_now_locked(ch);
        ch->in_use -= (uint16_t)k;
        pages.release_from[ANY_PAGES] = w_max(pages.release_from[ANY_PAGES], c + 1);
        if (half_free(ch, 0) || half_free(ch, 1))
            pages.release_from[WHOLE_HUGE_PAGES] = w_max(pages.release_from[WHOLE_HUGE_PAGES], c + 1);
    }
    pages.free_pages += n;
    show_locked();
    lock_drop(&pages.lock);
}

/* ---- back to the system -------------------------------------------------------------------------------------- */

/* The last run of free pages that have memory; false: none. */
static bool last_run(const struct chunk *ch, size_t *at, size_t *k)
{
    for (size_t w = 8; w-- > 0;) {
        uint64_t x = ~(ch->used[w] | ch->released[w]);
        if (x == 0)
            continue;
        size_t to = w * 64 + 64 - (size_t)__builtin_clzll(x), from = to - 1;
        while (from > 0 && !bits_get(ch->used, from - 1) && !bits_get(ch->released, from - 1))
            from--;
        *at = from;
        *k = to - from;
        return true;
    }
    return false;
}

/* Of the half, pages are released that were released before: one call for all. */
static bool last_half(const struct chunk *ch, size_t *at, size_t *k)
{
    for (unsigned half = 2; half-- > 0;)
        if (half_free(ch, half) && count_bits(ch->released, half * HALF_PAGES, HALF_PAGES) < HALF_PAGES) {
            *at = half * HALF_PAGES;
            *k = HALF_PAGES;
            return true;
        }
    return false;
}

/* The last piece to release at this level, in a chunk below *below, which moves down to what was looked at. */
static bool find_release_locked(enum level level, bool force, size_t *below, size_t *c, size_t *at, size_t *k)
{
    for (*below = w_min(*below, pages.nchunks); *below > 0; --*below) {
        struct chunk *ch = &pages.chunks[*below - 1];
        *c = *below - 1;
        if ((force || !chunk_dense_locked(ch)) && (level == WHOLE_HUGE_PAGES ? last_half : last_run)(ch, at, k))
            return true;
    }
    return false;
}

/* Without the lock over the system call: so nobody waits for that, and nobody gets a page on its way out, since those are marked as used. Returns how
 * many pages had not been released before; 0: the system refuses, as for memory that is locked. */
static size_t release_piece_locked(size_t c, size_t at, size_t k)
{
    struct chunk *ch = &pages.chunks[c];
    fill_bits(ch->used, at, k, true);
    update_ends(&pages.sums[c], ch);
    pages.in_flight++;
    lock_drop(&pages.lock);
    bool ok = os_vm_release(heap.base + c * CHUNK_BYTES + at * HEAP_PAGE, k * HEAP_PAGE, !heap.madv_free) == 0;
    lock_take(&pages.lock);
    pages.in_flight--;
    free_piece_locked(c, at, k);
    if (!ok)
        return 0;
    size_t got = k - count_bits(ch->released, at, k);
    pages.released_pages += got;
    fill_bits(ch->released, at, k, true);
    if (!heap.madv_free)
        fill_bits(ch->dirty, at, k, false);
    show_locked();
    return got;
}

size_t pages_release_some(bool force)
{
    size_t *from = force ? pages.release_from : pages.generation_from, c, at, k, got = 0;
    lock_take(&pages.lock);
    for (int level = 0; level < LEVELS && got == 0; level++)
        while (got == 0 && find_release_locked((enum level)level, force, &from[level], &c, &at, &k)) {
            got = release_piece_locked(c, at, k);
            if (got == 0)
                from[level] = w_min(from[level], c);
        }
    lock_drop(&pages.lock);
    return got << PAGE_SHIFT;
}

size_t pages_release(size_t bytes, bool force)
{
    size_t done = 0, got;
    while (done < bytes && (got = pages_release_some(force)) != 0)
        done += got;
    return done;
}

/* bytes: of the table, for a chunk. */
static void release_table(void *table, size_t bytes)
{
    size_t n = OS_HUGE_PAGE / bytes;
    for (size_t c = 0;; c += n) {
        lock_take(&pages.lock);
        bool there = c + n <= pages.nchunks, empty = there;
        for (size_t i = c; empty && i < c + n; i++)
            empty = pages.chunks[i].in_use == 0;
        if (empty) /* under the lock: nobody makes a span there meanwhile */
            os_vm_release((char *)table + c * bytes, OS_HUGE_PAGE, true);
        lock_drop(&pages.lock);
        if (!there)
            return;
    }
}

void pages_release_tables(void)
{
    release_table(heap.spans, span_table_bytes(1));
    release_table(heap.bits, bits_bytes(1));
}

void pages_generation(void)
{
    lock_take(&pages.lock);
    pages.generation++;
    for (int level = 0; level < LEVELS; level++)
        pages.generation_from[level] = pages.release_from[level];
    lock_drop(&pages.lock);
}

uint64_t pages_retained_bytes(void) { return load_rlx(&pages.shown_retained) << PAGE_SHIFT; } /* rlx: a figure */

void pages_stats(struct pages_stats *out)
{
    uint64_t chunks, retained;
    for (unsigned looks = 0;; backoff(looks++)) {
        out->changes = seq_read(&pages.shown_seq);
        chunks = load_rlx(&pages.shown_chunks); /* rlx, here and below: void if shown_seq moves */
        retained = load_rlx(&pages.shown_retained);
        out->free_bytes = load_rlx(&pages.shown_free) << PAGE_SHIFT;
        if (!seq_moved(&pages.shown_seq, out->changes))
            break;
    }
    out->sys_bytes = chunks * CHUNK_BYTES;
    out->released_bytes = out->sys_bytes - (retained << PAGE_SHIFT);
    out->spans_sys_bytes = span_table_bytes(chunks) + bits_bytes(chunks);
    out->tables_sys_bytes = 2 * map_bytes(chunks) + kinds_bytes(chunks) + chunk_bytes(chunks) + sum_bytes(chunks) + cards_bytes(out->sys_bytes);
}

bool pages_same(const struct pages_stats *as) { return !seq_moved(&pages.shown_seq, as->changes); }
