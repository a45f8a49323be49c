/* Free pages go back to the system: which, when, by whom. */
#include "gc_host.h"
#include <regex.h>
#include <sys/mman.h>
#include <unistd.h>
#include "gc/pacer.h"
#include "gc/pages.h"
#include "gc/scavenge.h"
#include "gc/stats.h"

#define MIB ((size_t)1 << 20)
#define KIB ((size_t)1 << 10)
#define BEGIN() th_begin(th_settings(), __builtin_frame_address(0))

static uint64_t released(void)
{
    struct pages_stats pg;
    pages_stats(&pg);
    cr_assert(pg.released_bytes <= pg.free_bytes);
    cr_assert_eq(pages_retained_bytes(), pg.sys_bytes - pg.released_bytes);
    return pg.released_bytes;
}

static bool dirty;
static size_t grown;

static size_t take(size_t pages)
{
    size_t first = pages_alloc(pages, &dirty, &grown);
    cr_assert_neq(first, NO_PAGE);
    memset(heap.base + first * HEAP_PAGE, 0x5a, pages * HEAP_PAGE);
    return first;
}

static bool zero(size_t first, size_t pages)
{
    const uint64_t *w = (const uint64_t *)(const void *)(heap.base + first * HEAP_PAGE);
    for (size_t i = 0; i < pages * HEAP_PAGE / sizeof *w; i++)
        if (w[i] != 0)
            return false;
    return true;
}

/* ---- which ------------------------------------------------------------------------------------------------------------- */

/* Chunk 0 is full up to `used` of its 512 pages, which are single ones from its start. */
static void fill_chunk(size_t used)
{
    for (size_t i = 0; i < used; i++)
        cr_assert_eq(take(1), i);
}

Test(gc_scavenge, chunks_that_fill_up_are_left_alone)
{
    BEGIN();
    fill_chunk(512);
    take(1); /* the second chunk is hardly used */
    for (size_t i = 100; i < 200; i++)
        pages_free(i, 1);
    uint64_t before = released();
    cr_assert_eq(pages_release_some(false), 0, "what was freed in this cycle");
    pages_generation();
    cr_assert_eq(pages_release_some(false), 0, "the chunk was full in the last cycle");
    pages_generation();
    cr_assert_eq(pages_release_some(false), 100 * HEAP_PAGE, "it was not for a whole cycle");
    cr_assert_eq(released(), before + 100 * HEAP_PAGE);
    for (size_t i = 0; i < 90; i++)
        take(1); /* 502 in use */
    pages_generation();
    pages_generation();
    cr_assert_eq(pages_release_some(false), 0, "98 %% are in use");
    cr_assert_eq(pages_release_some(true), 0, "the ten that are free have been released");
    pages_free(7, 1);
    pages_generation();
    pages_generation();
    cr_assert_eq(pages_release_some(false), 0, "still more than 496");
    cr_assert_eq(pages_release_some(true), HEAP_PAGE, "but the limit and the request take all");
    th_end();
}

/* As many as are allowed to be in use, and one more. */
Test(gc_scavenge, the_border_is_at_496_of_512_pages)
{
    for (size_t used = 496; used <= 497; used++) {
        BEGIN();
        fill_chunk(used);
        pages_free(0, 1);
        fill_chunk(1);
        pages_free(3, 1); /* 495 or 496 now; the most were `used` */
        pages_generation();
        cr_assert_eq(pages_release_some(false), used == 496 ? HEAP_PAGE : 0);
        pages_generation();
        cr_assert_eq(pages_release_some(false), used == 496 ? 0 : HEAP_PAGE, "and of the cycle after it no more than 496");
        th_end();
    }
}

/* A huge page is broken only when no whole ones are left. */
Test(gc_scavenge, whole_huge_pages_go_first)
{
    BEGIN();
    size_t first = take(5 * 512);
    pages_free(first + 10, 30);          /* chunk 0: a hole */
    pages_free(first + 512 + 256, 256);  /* chunk 1: its second half */
    pages_free(first + 1024 + 100, 200); /* chunk 2: a hole over the border */
    pages_free(first + 1536, 512);       /* chunk 3: all */
    size_t got[8], n = 0, sum = 0;
    while ((got[n] = pages_release_some(true)) != 0)
        sum += got[n++];
    cr_assert_eq(n, 5);
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(got[i], 2 * MIB, "%zu: %zu bytes", i, got[i]);
    cr_assert_eq(got[3], 200 * HEAP_PAGE, "from the end of the heap");
    cr_assert_eq(got[4], 30 * HEAP_PAGE);
    cr_assert_eq(sum, (30 + 256 + 200 + 512) * HEAP_PAGE);
    cr_assert(zero(first + 10, 30) && zero(first + 1536, 512) && !zero(first, 10));
    th_end();
}

Test(gc_scavenge, what_was_released_comes_back_as_zeroes)
{
    for (int lazy = 0; lazy <= 1; lazy++) {
        struct gc_settings set = th_settings();
        set.madv_free = lazy;
        th_begin(set, __builtin_frame_address(0));
        size_t first = take(1024);
        cr_assert(!dirty);
        pages_free(first, 1024);
        cr_assert_eq(pages_release(SIZE_MAX, true), 1024 * HEAP_PAGE);
        cr_assert_eq(pages_alloc(1024, &dirty, &grown), first);
        cr_assert_eq(grown, 0);
        cr_assert_eq(dirty, lazy, "with MADV_FREE the old bytes may be there still, or not");
        cr_assert(lazy || zero(first, 1024));
        pages_free(first, 1024);
        cr_assert_eq(pages_release(3 * MIB, true), 4 * MIB, "in whole huge pages");
        th_end();
    }
}

static void fill_mib(char **to, int n)
{
    for (int i = 0; i < n; i++)
        memset(to[i] = th_alloc(MIB, SHAPE_NOSCAN), 1, MIB);
}

static char *keep[512];

static size_t resident_pages(const void *p, size_t bytes)
{
    static unsigned char there[65536];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
    cr_assert(bytes / page <= sizeof there && mincore((void *)(uintptr_t)p, bytes, there) == 0);
    for (size_t i = 0; i < bytes / page; i++)
        n += there[i] & 1;
    return n;
}

Test(gc_scavenge, records_of_spans_that_are_no_more_go_too)
{
    test_needs_a_kernel();
    BEGIN();
    enum { CHUNKS = 192, N = CHUNKS * 256 }; /* in spans of two pages */
    const struct { const void *at; size_t bytes; const char *name; } table[] = {
        { heap.spans, 2 * N * sizeof(struct span), "records" }, { heap.bits, 2 * N * sizeof(struct span_bits), "bits" } };
    static struct span *s[N];
    for (int i = 0; i < N; i++)
        cr_assert_not_null(s[i] = span_new(SHAPE_NOSCAN, CLASS_LARGE, 2));
    for (int i = 0; i < N; i++)
        if (i != 100)
            span_free(s[i]);
    size_t before[2];
    for (int k = 0; k < 2; k++)
        before[k] = resident_pages(table[k].at, table[k].bytes);
    gc_release_free();
    for (int k = 0; k < 2; k++) {
        size_t after = resident_pages(table[k].at, table[k].bytes);
        cr_assert(before[k] >= table[k].bytes / 4096 && after <= before[k] / 3, "%s: %zu pages were resident, %zu are: one huge page is in use",
                  table[k].name, before[k], after);
    }
    cr_assert_eq(s[100]->npages, 2);
    span_free(s[100]);
    th_end();
}

/* ---- in the background --------------------------------------------------------------------------------------------------------- */

static weft_mem_stats mem;
static uint32_t cycles_finished(void)
{
    mem.size = sizeof mem;
    gc_fill_stats(&mem);
    return mem.num_gc;
}

static int woken;
static void th_scavenge(void) { woken++; }

/* Runs what a fiber would till it has nothing to do; the time it asks to sleep. */
static int64_t scavenge_to_the_end(void)
{
    int64_t slept = 0, ns;
    while ((ns = gc_scavenge_some()) >= 0)
        slept += ns;
    return slept;
}

Test(gc_scavenge, in_the_background_a_tenth_more_than_the_goal_stays)
{
    BEGIN();
    heap.host.scavenge_ready = th_scavenge;
    fill_mib(keep, 200);
    th_collect(GC_WHY_FORCED);
    memset(keep + 20, 0, 180 * sizeof *keep);
    th_collect(GC_WHY_FORCED); /* 200 MiB were in use when it marked, and the heap is to be a tenth: so are the pages */
    uint64_t goal = load_rlx(&pacer.goal), retain = pace_retain(pacer.last.in_use_bytes, goal, pacer.last_goal);
    cr_assert(retain < 60 * MIB && retain > 15 * MIB, "%lu MiB may stay", retain / MIB);
    cr_assert(woken > 0);
    uint64_t kept = pages_retained_bytes();
    scavenge_to_the_end();
    cr_assert(pages_retained_bytes() + 8 * MIB > kept, "chunks were full, but for the last: %lu MiB of %lu stayed", pages_retained_bytes() / MIB, kept / MIB);
    kept = pages_retained_bytes();
    th_collect(GC_WHY_FORCED);
    retain = pace_retain(pacer.last.in_use_bytes, load_rlx(&pacer.goal), pacer.last_goal);
    cr_assert(retain < 60 * MIB);
    struct gc_scavenge_stats st[2];
    gc_scavenge_stats(&st[0]);
    int64_t slept = scavenge_to_the_end();
    gc_scavenge_stats(&st[1]);
    cr_assert(pages_retained_bytes() <= retain && pages_retained_bytes() + 4 * MIB > retain, "%lu MiB stayed of %lu", pages_retained_bytes() / MIB, retain / MIB);
    cr_assert_eq(st[1].background_bytes - st[0].background_bytes, kept - pages_retained_bytes());
    int64_t worked = (int64_t)(st[1].background_ns - st[0].background_ns);
    cr_assert(slept >= worked * 90, "of one processor a hundredth: it worked %ld ns and slept %ld", worked, slept);
    cr_assert_eq(gc_scavenge_some(), -1);
    th_end();
}

/* Its pages come and go, and none of them goes back. */
Test(gc_scavenge, a_heap_at_its_goal_keeps_all)
{
    BEGIN();
    heap.host.scavenge_ready = th_scavenge;
    fill_mib(keep, 20);
    struct gc_scavenge_stats st[2] = { 0 };
    uint32_t cycles = 0;
    for (int i = 0; cycles < 20; i++) {
        keep[100 + i % 4] = th_alloc(i % 3 == 0 ? MIB / 2 : MIB / 8, SHAPE_NOSCAN);
        if (woken != 0) {
            woken = 0;
            scavenge_to_the_end();
        }
        if (i % 50 == 0 && (cycles = cycles_finished()) <= 10)
            gc_scavenge_stats(&st[0]);
    }
    gc_scavenge_stats(&st[1]);
    cr_assert_eq(st[1].background_bytes + st[1].eager_bytes, st[0].background_bytes + st[0].eager_bytes);
    th_end();
}

Test(gc_scavenge, the_limit_drives_it_to_95_percent)
{
    BEGIN();
    heap.host.scavenge_ready = th_scavenge;
    gc_set_percent(-1);
    fill_mib(keep, 100);
    memset(keep + 10, 0, 90 * sizeof *keep);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    cr_assert_eq(gc_scavenge_some(), -1);
    woken = 0;
    uint64_t all = pages_retained_bytes() + stats_overhead_bytes(), limit = 80 * MIB;
    cr_assert(all > 100 * MIB);
    gc_set_limit((int64_t)limit);
    cr_assert(woken > 0);
    scavenge_to_the_end();
    all = pages_retained_bytes() + stats_overhead_bytes();
    cr_assert(all <= limit / 100 * 95 && all > limit / 100 * 95 - 4 * MIB, "%lu MiB", all / MIB);
    gc_set_limit((int64_t)(limit / 95 * 100)); /* 95 % of this are used */
    cr_assert_eq(gc_scavenge_some(), -1);
    th_end();
}

static size_t host_has = 10 * MIB;
static bool th_release_wanted(void) { return host_has != 0; }
static size_t th_release_some(void)
{
    size_t piece = host_has < 3 * MIB ? host_has : 3 * MIB;
    host_has -= piece;
    return piece;
}

Test(gc_scavenge, the_hosts_memory_follows)
{
    BEGIN();
    heap.host.scavenge_ready = th_scavenge;
    heap.host.release_wanted = th_release_wanted;
    heap.host.release_some = th_release_some;
    th_collect(GC_WHY_FORCED);
    cr_assert(woken > 0);
    scavenge_to_the_end();
    cr_assert_eq(host_has, 0);
    woken = 0;
    th_collect(GC_WHY_FORCED);
    cr_assert_eq(woken, 0, "there is nothing more");
    th_end();
}

/* ---- in an allocation ----------------------------------------------------------------------------------------------------------- */

Test(gc_scavenge, an_allocation_does_not_exceed_the_limit)
{
    BEGIN();
    gc_set_percent(-1);
    fill_mib(keep, 60);
    for (int i = 0; i < 60; i += 2)
        keep[i] = NULL; /* free pages in pieces of 1 MiB */
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    gc_set_limit(80 << 20);
    for (int i = 0; i < 4; i++) { /* no piece is large enough */
        keep[100 + i] = th_alloc(9 * MIB, SHAPE_NOSCAN);
        uint64_t all = pages_retained_bytes() + stats_overhead_bytes();
        cr_assert(all <= 80 * MIB, "%lu MiB", all / MIB);
    }
    struct gc_scavenge_stats st;
    gc_scavenge_stats(&st);
    cr_assert(st.eager_bytes >= 15 * MIB && st.background_bytes == 0 && st.assist_ns > 0, "%lu MiB", st.eager_bytes / MIB);
    cr_assert(load_rlx(&pacer.assist_ns) > 0 || pacer.bucket.fill > 0, "the time counts as the collector's");
    th_end();
}

/* When the collector has all the time it may have, the limit does not make allocations slow as well. */
Test(gc_scavenge, at_the_cap_the_limit_gives_way)
{
    BEGIN();
    gc_set_percent(-1);
    fill_mib(keep, 40);
    memset(keep, 0, sizeof keep);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    gc_set_limit(20 << 20);
    pacer_cycle_took(INT64_C(5000000000), os_now_ns() + INT64_C(3600000000000), 1);
    uint64_t before = pages_retained_bytes();
    bool want = false;
    cr_assert_not_null(gc_alloc_slow(&th.cache, MIB, SHAPE_NOSCAN, &want));
    cr_assert(!want && pages_retained_bytes() >= before);
    th_end();
}

Test(gc_scavenge, a_heap_that_grows_gives_back_what_it_could_not_use)
{
    BEGIN();
    fill_mib(keep, 100);
    for (int i = 0; i < 100; i++)
        if (i % 10 != 0)
            keep[i] = NULL; /* pieces of 9 MiB */
    test_wipe_stack();
    for (int i = 0; i < 4; i++)
        th_collect(GC_WHY_FORCED); /* the goal comes down; no chunk is dense */
    uint64_t before = pages_retained_bytes();
    struct gc_scavenge_stats st;
    struct pages_stats pg[2];
    gc_scavenge_stats(&st);
    pages_stats(&pg[0]);
    cr_assert(st.eager_bytes == 0 && before > 95 * MIB);
    keep[200] = th_alloc(30 * MIB, SHAPE_NOSCAN);
    gc_scavenge_stats(&st);
    pages_stats(&pg[1]);
    uint64_t more = pg[1].sys_bytes - pg[0].sys_bytes;
    cr_assert(more >= 20 * MIB && st.eager_bytes >= more && st.eager_bytes <= more + 4 * MIB, "%lu MiB, given back %lu", more / MIB, st.eager_bytes / MIB);
    cr_assert(pages_retained_bytes() <= before + 10 * MIB);
    th_end();
}

/* ---- scavtrace -------------------------------------------------------------------------------------------------------------------------- */

static void check_line(const char *tail)
{
    regex_t re;
    char expr[200];
    snprintf(expr, sizeof expr, "^scav [0-9]+ KiB work \\(bg\\), [0-9]+ KiB work \\(eager\\), [0-9]+ KiB now, [0-9]{1,3}%% util%s$", tail);
    cr_assert_eq(regcomp(&re, expr, REG_EXTENDED | REG_NOSUB), 0);
    cr_assert_eq(regexec(&re, th.last_log, 0, NULL, 0), 0, "%s", th.last_log);
    regfree(&re);
}

Test(gc_scavenge, trace_line_is_gos)
{
    struct gc_settings set = th_settings();
    set.trace = false;
    set.scavtrace = true;
    th_begin(set, __builtin_frame_address(0));
    fill_mib(keep, 50);
    memset(keep, 0, sizeof keep);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    check_line("");
    gc_release_free();
    check_line(" \\(forced\\)");
    unsigned long background, eager, now, util;
    cr_assert_eq(sscanf(th.last_log, "scav %lu KiB work (bg), %lu KiB work (eager), %lu KiB now, %lu%% util", &background, &eager, &now, &util), 4);
    cr_assert(background == 0 && eager >= 48 * KIB && now >= eager && util <= 100, "%s", th.last_log);
    th_end();
}
