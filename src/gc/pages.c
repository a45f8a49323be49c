/* See pages.h.
 *
 * Per chunk of 512 pages three bitmaps: used, dirty (may hold old bytes), released (free and without memory behind it), and a
 * summary: the number of free pages at its start, at its end, and the longest free run inside. start and end are exact;
 * longest is an upper bound, made exact when a search believed it and found nothing. A search walks the summaries, eight bytes a chunk,
 * from the first chunk that may have room; runs that cross chunks are found by adding end and start. */
#include "gc/pages.h"
#include <errno.h>
#include <string.h>
#include "os/vm.h"

struct chunk { uint64_t used[8], dirty[8], released[8]; };
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
#define SPAN_HUGE_CHUNKS 16u     /* chunks whose span records fill a huge page */
#define HUGE_TABLES_FROM SPAN_HUGE_CHUNKS /* heaps of more chunks have their tables in huge pages */

static struct {
    struct lock lock; /* all below */
    struct chunk *chunks;
    struct summary *sums;
    size_t nchunks, max_chunks;
    size_t hint;                 /* no free page in a chunk below */
    size_t free_pages, released_pages;
} pages = { .lock = LOCK_INIT(RANK_HEAP) };

/* ---- tables ------------------------------------------------------------------------------------------- */

/* Bytes of each table for n chunks. */
static size_t map_bytes(size_t n) { return n * CHUNK_PAGES * sizeof(w_u32); }
static size_t span_table_bytes(size_t n) { return n * CHUNK_PAGES * sizeof(struct span); }
static size_t chunk_bytes(size_t n) { return n * sizeof(struct chunk); }
static size_t sum_bytes(size_t n) { return n * sizeof(struct summary); }

static void *table_reserve(size_t bytes) { return os_vm_reserve(w_align_up(bytes, OS_HUGE_PAGE), OS_HUGE_PAGE); }
static void table_free(void *p, size_t bytes) { os_vm_free(p, w_align_up(bytes, OS_HUGE_PAGE)); }

static void unreserve(void)
{
    size_t n = pages.max_chunks;
    os_vm_free(heap.base, heap.reserved);
    table_free(heap.pagemap, map_bytes(n));
    table_free(heap.spans, span_table_bytes(n));
    table_free(pages.chunks, chunk_bytes(n));
    table_free(pages.sums, sum_bytes(n));
    heap.base = NULL;
    heap.pagemap = NULL;
    heap.spans = NULL;
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
        heap.spans = table_reserve(span_table_bytes(n));
        pages.chunks = table_reserve(chunk_bytes(n));
        pages.sums = table_reserve(sum_bytes(n));
    }
    if (heap.base != NULL && heap.pagemap != NULL && heap.spans != NULL && pages.chunks != NULL && pages.sums != NULL)
        return true;
    unreserve();
    return false;
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
    store_rlx(&heap.committed, 0); /* rlx: nobody else yet */
    os_vm_name(heap.base, heap.reserved, "weft: heap");
    os_vm_name(heap.spans, w_align_up(span_table_bytes(pages.max_chunks), OS_HUGE_PAGE), "weft: spans");
    return 0;
}

void pages_stop(void)
{
    unreserve();
    pages.nchunks = pages.max_chunks = 0;
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

/* Asks for huge pages for what is new, and moves the first chunk and tables into such when the heap has proved large. */
static void grow_hints(size_t old, size_t new)
{
    size_t first = w_max(old, (size_t)HUGE_FROM_CHUNK);
    if (first < new)
        os_vm_huge(heap.base + first * CHUNK_BYTES, (new - first) * CHUNK_BYTES);
    if (new <= HUGE_TABLES_FROM)
        return;
    size_t a = w_align_up(span_table_bytes(old), OS_HUGE_PAGE), b = w_align_up(span_table_bytes(new), OS_HUGE_PAGE);
    size_t m = w_align_up(map_bytes(new), OS_HUGE_PAGE);
    if (old <= HUGE_TABLES_FROM) {
        os_vm_huge(heap.base, CHUNK_BYTES);
        os_vm_collapse(heap.base, CHUNK_BYTES);
        os_vm_huge(heap.spans, b);
        os_vm_collapse(heap.spans, OS_HUGE_PAGE);
        os_vm_huge(heap.pagemap, m);
        os_vm_collapse(heap.pagemap, OS_HUGE_PAGE);
    } else {
        if (a < b)
            os_vm_huge((char *)heap.spans + a, b - a);
        if (w_align_up(map_bytes(old), OS_HUGE_PAGE) < m)
            os_vm_huge(heap.pagemap, m);
    }
}

static bool grow_locked(size_t n)
{
    size_t old = pages.nchunks, new = old + n;
    if (n > pages.max_chunks - old)
        return false;
    /* The records of a huge page are committed together, or it could not be one. */
    size_t unit = old + n > HUGE_TABLES_FROM ? SPAN_HUGE_CHUNKS : 1;
    size_t span_to = w_min(w_align_up(new, unit), pages.max_chunks);
    size_t map_to = new > HUGE_TABLES_FROM ? w_align_up(map_bytes(new), OS_HUGE_PAGE) : map_bytes(new);
    if (table_grow(heap.pagemap, map_bytes(old), map_to) != 0 ||
        table_grow(heap.spans, span_table_bytes(old), span_table_bytes(span_to)) != 0 ||
        table_grow(pages.chunks, chunk_bytes(old), chunk_bytes(new)) != 0 ||
        table_grow(pages.sums, sum_bytes(old), sum_bytes(new)) != 0 ||
        os_vm_commit(heap.base + old * CHUNK_BYTES, n * CHUNK_BYTES) != 0)
        return false;
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

/* ---- allocation --------------------------------------------------------------------------------------------- */

static size_t find_locked(size_t n)
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
    return grow_locked((n - run + CHUNK_PAGES - 1) / CHUNK_PAGES) ? run_at : NO_PAGE;
}

size_t pages_alloc(size_t n, bool *needzero)
{
    if (n > heap.reserved >> PAGE_SHIFT)
        return NO_PAGE;
    lock_take(&pages.lock);
    size_t first = find_locked(n), dirty = 0;
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
        }
        pages.free_pages -= n;
    }
    lock_drop(&pages.lock);
    *needzero = dirty != 0;
    return first;
}

void pages_free(size_t first, size_t n)
{
    lock_take(&pages.lock);
    each_piece(first, n) {
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
    }
    pages.hint = w_min(pages.hint, first / CHUNK_PAGES);
    pages.free_pages += n;
    lock_drop(&pages.lock);
}

/* ---- back to the system -------------------------------------------------------------------------------------- */

/* The lock is held over the madvise, so that nobody gets a page on its way out. */
static size_t release_chunk_locked(struct chunk *ch, char *mem, size_t most)
{
    size_t done = 0;
    for (size_t i = 0; i < CHUNK_PAGES && done < most;) {
        size_t from = i;
        while (from < CHUNK_PAGES && (bits_get(ch->used, from) || bits_get(ch->released, from)))
            from++;
        size_t to = from;
        while (to < CHUNK_PAGES && !bits_get(ch->used, to) && !bits_get(ch->released, to))
            to++;
        i = to;
        if (from == to || os_vm_release(mem + from * HEAP_PAGE, (to - from) * HEAP_PAGE, !heap.madv_free) != 0)
            continue;
        fill_bits(ch->released, from, to - from, true);
        if (!heap.madv_free)
            fill_bits(ch->dirty, from, to - from, false);
        done += to - from;
    }
    pages.released_pages += done;
    return done;
}

size_t pages_release(size_t bytes)
{
    size_t want = bytes == SIZE_MAX ? SIZE_MAX : (bytes + HEAP_PAGE - 1) >> PAGE_SHIFT, done = 0;
    for (size_t i = SIZE_MAX; done < want;) { /* from the end: the start is used first */
        lock_take(&pages.lock);
        i = w_min(i, pages.nchunks);
        if (i-- == 0) {
            lock_drop(&pages.lock);
            break;
        }
        if (pages.free_pages > pages.released_pages)
            done += release_chunk_locked(&pages.chunks[i], heap.base + i * CHUNK_BYTES, want - done);
        else
            i = 0;
        lock_drop(&pages.lock);
    }
    return done << PAGE_SHIFT;
}

void pages_stats(struct pages_stats *out)
{
    lock_take(&pages.lock);
    out->sys_bytes = pages.nchunks * CHUNK_BYTES;
    out->free_bytes = (uint64_t)pages.free_pages << PAGE_SHIFT;
    out->released_bytes = (uint64_t)pages.released_pages << PAGE_SHIFT;
    out->spans_sys_bytes = span_table_bytes(pages.nchunks);
    out->tables_sys_bytes = map_bytes(pages.nchunks) + chunk_bytes(pages.nchunks) + sum_bytes(pages.nchunks);
    lock_drop(&pages.lock);
}
