/* Allocation and what can be asked of an object; a world of one thread. */
#include "gc_host.h"
#include "gc/heap.h"
#include "gc/pages.h"

#define BEGIN() th_begin(th_settings(), __builtin_frame_address(0))

static bool all_zero(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

Test(gc_alloc, zeroed_aligned_distinct)
{
    BEGIN();
    char *last = NULL;
    for (size_t n = 0; n < 70000; n += n < 600 ? 1 : 777) {
        char *p = th_alloc(n, n % 2 ? SHAPE_CONS : SHAPE_NOSCAN);
        cr_assert_not_null(p);
        cr_assert_neq(p, last);
        cr_assert((uintptr_t)p % (n % 16 == 0 && n != 0 ? 16 : 8) == 0, "%zu bytes at %p", n, (void *)p);
        cr_assert(gc_object_size(p) >= n);
        cr_assert(all_zero(p, gc_object_size(p)));
        memset(p, 0xee, n);
        last = p;
    }
    th_end();
}

Test(gc_alloc, memory_that_was_used_comes_back_zeroed)
{
    BEGIN();
    gc_set_percent(-1);
    for (int round = 0; round < 4; round++) {
        for (size_t n = 8; n < 100000; n = n * 5 / 4 + 8)
            for (int i = 0; i < 40; i++) {
                char *p = th_alloc(n, SHAPE_NOSCAN);
                cr_assert(all_zero(p, n), "%zu bytes in round %d", n, round);
                memset(p, 0xee, gc_object_size(p));
            }
        test_wipe_stack();
        th_collect(GC_WHY_FORCED);
    }
    th_end();
}

Test(gc_alloc, base_and_size_of_interior_pointers)
{
    BEGIN();
    for (size_t n = 1; n < 200000; n = n * 3 / 2 + 1) {
        char *p = th_alloc(n, SHAPE_CONS);
        size_t size = gc_object_size(p);
        for (size_t at = 0; at < size; at += size / 7 + 1)
            cr_assert_eq(gc_object_base(p + at), p);
        cr_assert_eq(gc_object_base(p + size - 1), p);
        cr_assert_neq(gc_object_base(p + size), p);
    }
    int local;
    cr_assert_null(gc_object_base(&local));
    cr_assert_null(gc_object_base(NULL));
    cr_assert_null(gc_object_base(heap.base + heap.reserved - 1));
    cr_assert_eq(gc_object_size(&local), 0);
    th_end();
}

Test(gc_alloc, too_large_is_null_and_the_heap_lives_on)
{
    struct gc_settings set = th_settings();
    set.heap_reserve = 64u << 20;
    th_begin(set, __builtin_frame_address(0));
    cr_assert_null(th_alloc(SIZE_MAX, SHAPE_CONS));
    cr_assert_null(th_alloc((size_t)1 << 46, SHAPE_CONS));
    cr_assert_null(th_alloc(65u << 20, SHAPE_NOSCAN));
    gc_set_percent(-1);
    static void *held[1000]; /* fill it to the brim with live objects; no list, of which a stale word would keep the rest */
    int n = 0;
    for (void *p; n < 1000 && (p = th_alloc(100000, SHAPE_CONS)) != NULL; n++)
        held[n] = p;
    cr_assert(n > 500 && n < 700, "%d", n);
    while (th_alloc(16, SHAPE_NOSCAN) != NULL)
        ;
    memset(held, 0, sizeof held);
    test_wipe_stack();
    th_collect(GC_WHY_NOMEM);
    cr_assert_not_null(th_alloc(100000, SHAPE_CONS));
    cr_assert_not_null(th_alloc(16, SHAPE_NOSCAN));
    cr_assert_not_null(th_alloc(20u << 20, SHAPE_NOSCAN));
    th_end();
}

Test(gc_alloc, a_tiny_reservation_is_made_large_enough)
{
    struct gc_settings set = th_settings();
    set.heap_reserve = 1u << 20;
    th_begin(set, __builtin_frame_address(0));
    cr_assert_eq(heap.reserved, 16u << 20);
    cr_assert_not_null(th_alloc(4u << 20, SHAPE_NOSCAN));
    th_end();
}

/* The page allocator against a model: runs never overlap, everything comes back, released pages read as zero. */
Test(gc_alloc, pages_against_a_model)
{
    struct gc_settings set = th_settings();
    set.heap_reserve = 256u << 20;
    th_begin(set, __builtin_frame_address(0));
    enum { MAX = 32768 };
    static uint8_t owner[MAX];
    struct { size_t first, n; } run[256];
    unsigned nruns = 0;
    uint64_t r = 12345;
    for (int step = 0; step < 60000; step++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        size_t n = r >> 60 < 12 ? 1 + (r >> 40) % 12 : 1 + (r >> 40) % 1500;
        if (nruns < 256 && r >> 33 & 1) {
            bool dirty;
            size_t grown, first = pages_alloc(n, &dirty, &grown);
            if (first == NO_PAGE)
                continue;
            for (size_t i = first; i < first + n; i++) {
                cr_assert(i < MAX && owner[i] == 0, "page %zu is in use", i);
                owner[i] = 1;
                uint64_t *mem = (uint64_t *)(heap.base + i * HEAP_PAGE);
                cr_assert(dirty || (mem[0] == 0 && mem[1023] == 0));
                mem[0] = mem[1023] = step + 1;
            }
            run[nruns].first = first;
            run[nruns++].n = n;
        } else if (nruns != 0) {
            unsigned k = (unsigned)(r >> 35) % nruns;
            memset(owner + run[k].first, 0, run[k].n);
            pages_free(run[k].first, run[k].n);
            run[k] = run[--nruns];
        }
        if (step % 100 == 99)
            pages_release_some(step % 200 == 99);
        if (step % 500 == 499)
            pages_generation();
        if (step % 1000 == 999) {
            struct pages_stats st;
            pages_stats(&st);
            size_t used = 0;
            for (size_t i = 0; i < MAX; i++)
                used += owner[i];
            cr_assert_eq(st.sys_bytes - st.free_bytes, used * HEAP_PAGE);
            cr_assert(st.released_bytes <= st.free_bytes);
            if (step % 3000 == 2999) {
                pages_release(SIZE_MAX, true);
                pages_stats(&st);
                cr_assert_eq(st.released_bytes, st.free_bytes);
            }
        }
    }
    while (nruns != 0) {
        nruns--;
        pages_free(run[nruns].first, run[nruns].n);
    }
    bool dirty;
    size_t grown;
    cr_assert_eq(pages_alloc(MAX, &dirty, &grown), 0, "all free pages are one run again");
    pages_free(0, MAX);
    th_end();
}

#define MIB (1u << 20)
static char *held[64];
static void hold_mib(void)
{
    for (int i = 0; i < 64; i++)
        held[i] = th_alloc(MIB, SHAPE_NOSCAN);
}

Test(gc_alloc, dead_large_objects_make_room_for_new_ones)
{
    BEGIN();
    gc_set_percent(-1);
    hold_mib();
    struct pages_stats before, after;
    pages_stats(&before);
    for (int round = 0; round < 5; round++) {
        memset(held, 0, sizeof held);
        test_wipe_stack();
        th_collect(GC_WHY_PERIODIC); /* leaves all to be swept */
        hold_mib();
    }
    pages_stats(&after);
    cr_assert(after.sys_bytes <= before.sys_bytes + 4 * MIB, "%lu MiB became %lu", before.sys_bytes / MIB, after.sys_bytes / MIB);
    th_end();
}

/* What heap.kinds says of each page against the record of the span that it belongs to. How many have a bit, by kind. */
static void kinds_are_true(size_t have[PAGE_KINDS])
{
    memset(have, 0, PAGE_KINDS * sizeof have[0]);
    for (size_t page = 0; page < load_rlx(&heap.committed) >> PAGE_SHIFT; page++) {
        struct span *s = heap_span_of(heap.base + (page << PAGE_SHIFT));
        int its = s == NULL ? PAGE_KINDS : s->shape == SHAPE_NOSCAN ? NOSCAN_PAGES : s->carded ? CARDED_PAGES : ARMED_PAGES;
        for (int kind = 0; kind < PAGE_KINDS; kind++) {
            bool is = load_rlx(&heap.kinds[page / 64].of[kind]) >> page % 64 & 1;
            cr_assert_eq(is, kind == its, "page %zu, kind %d", page, kind);
            have[kind] += is;
        }
    }
}

Test(gc_alloc, pages_are_found_by_kind)
{
    enum { N = 300, NLARGE = 8, LARGE = 512 << 10, LARGE_PAGES = NLARGE * LARGE / HEAP_PAGE };
    BEGIN();
    gc_set_percent(-1);
    static void *held[N];
    static const size_t at_8[] = { 8 };
    const weft_type *carded = gc_type_carded(gc_type_make(64, at_8, 1));
    size_t have[PAGE_KINDS], before[PAGE_KINDS], none[PAGE_KINDS];
    kinds_are_true(before);
    for (int i = 0; i < N; i++)
        held[i] = i % 3 == 2 ? th_typed(carded, 1 + (size_t)(i % 40)) : th_alloc((size_t)(100 + i * 77), i % 3 == 0 ? SHAPE_CONS : SHAPE_NOSCAN);
    for (int i = 0; i < 3 * NLARGE; i++)
        held[i] = i % 3 == 2 ? th_typed(carded, LARGE / 64) : th_alloc(LARGE, i % 3 == 0 ? SHAPE_CONS : SHAPE_NOSCAN);
    kinds_are_true(have);
    for (int kind = 0; kind < PAGE_KINDS; kind++)
        cr_assert_gt(have[kind], before[kind] + LARGE_PAGES, "kind %d", kind);
    memset(held, 0, sizeof held);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    kinds_are_true(none);
    for (int kind = 0; kind < PAGE_KINDS; kind++)
        cr_assert_lt(none[kind], have[kind] - LARGE_PAGES / 2, "kind %d: what is freed has no bit; a few may still be held by what lies on the stack", kind);
    th_end();
}

Test(gc_alloc, types_are_shared_and_checked)
{
    BEGIN();
    size_t a[] = { 0, 16 }, b[] = { 16, 0, 16 }, all[] = { 0, 8, 16 }, bad[] = { 4 }, out[] = { 24 };
    const weft_type *t = gc_type_make(24, a, 2);
    cr_assert_not_null(t);
    cr_assert_eq(gc_type_make(24, b, 3), t);
    cr_assert_neq(gc_type_make(32, a, 2), t);
    cr_assert_null(gc_type_make(24, bad, 1));
    cr_assert_null(gc_type_make(24, out, 1));
    cr_assert_null(gc_type_make(0, NULL, 0));
    cr_assert_null(gc_type_make((1u << 20) + 1, NULL, 0));
    cr_assert_eq(gc_object_shape(th_typed(gc_type_make(24, all, 3), 1)), SHAPE_CONS);
    cr_assert_eq(gc_object_shape(th_typed(gc_type_make(24, NULL, 0), 1)), SHAPE_NOSCAN);
    cr_assert(gc_object_shape(th_typed(t, 1)) >= SHAPE_TYPED);
    cr_assert_null(th_typed(t, SIZE_MAX / 8));
    char *p = th_typed(t, 100000);
    cr_assert(gc_object_size(p) >= 2400000);
    th_end();
    BEGIN(); /* a type of an earlier run is still good */
    cr_assert(gc_object_shape(th_typed(t, 3)) >= SHAPE_TYPED);
    th_end();
}

static void nothing(void *obj, void *ctx) { (void)obj, (void)ctx; }

Test(gc_alloc, start_and_stop_leave_nothing)
{
    int before = 0;
    for (int i = 0; i < 300; i++) {
        BEGIN();
        void *volatile keep = th_alloc(100, SHAPE_CONS);
        gc_finalizer_set(keep, nothing, NULL, NULL);
        gc_handle_new(keep);
        gc_root_add((void *)&keep, 8);
        th_alloc(5u << 20, SHAPE_CONS);
        th_collect(GC_WHY_FORCED);
        th_end();
        int lines = 0;
        FILE *f = fopen("/proc/self/maps", "r");
        for (int c; (c = getc(f)) != EOF;)
            lines += c == '\n';
        fclose(f);
        if (i == 20)
            before = lines;
        if (i > 20)
            cr_assert(lines <= before, "round %d: %d mappings, were %d", i, lines, before);
    }
}
