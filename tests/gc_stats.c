/* Statistics, the pacer, giving memory back. */
#include "gc_host.h"
#include "gc/pacer.h"

static weft_mem_stats st;
static weft_mem_stats *stats(void)
{
    st.size = sizeof st;
    gc_fill_stats(&st);
    uint64_t m = 0, f = 0;
    for (int i = 0; i < WEFT_SIZE_CLASSES; i++) {
        m += st.by_size[i].mallocs;
        f += st.by_size[i].frees;
    }
    cr_assert_eq(st.mallocs, m);
    cr_assert_eq(st.frees, f);
    cr_assert_eq(st.mallocs - st.frees, st.heap_objects);
    cr_assert_eq(st.heap_sys, st.heap_idle + st.heap_inuse);
    cr_assert(st.heap_idle >= st.heap_released);
    cr_assert(st.heap_inuse >= st.heap_alloc, "in use %lu, objects %lu", st.heap_inuse, st.heap_alloc);
    cr_assert(st.mspan_inuse <= st.mspan_sys && st.mcache_inuse <= st.mcache_sys);
    cr_assert_eq(st.alloc, st.heap_alloc);
    cr_assert(st.num_forced_gc <= st.num_gc);
    cr_assert(st.gc_cpu_fraction >= 0 && st.gc_cpu_fraction <= 1);
    return &st;
}

#define BEGIN() th_begin(th_settings(), __builtin_frame_address(0))

Test(gc_stats, counts_are_exact)
{
    BEGIN();
    gc_set_percent(-1);
    uint64_t bytes = 0, n = 0;
    for (size_t size = 1; size < 100000; size = size * 5 / 4 + 1)
        for (int i = 0; i < 37; i++) {
            void *p = th_alloc(size, i % 2 ? SHAPE_CONS : SHAPE_NOSCAN);
            bytes += gc_object_size(p);
            n++;
            if (i == 17) { /* at any moment, in the middle of runs */
                cr_assert_eq(stats()->heap_alloc, bytes);
                cr_assert_eq(st.mallocs, n);
            }
        }
    cr_assert_eq(stats()->total_alloc, bytes);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    cr_assert_eq(stats()->total_alloc, bytes);
    cr_assert_eq(st.mallocs, n);
    cr_assert(st.heap_objects <= 5);
    cr_assert_eq(st.num_gc, 1);
    cr_assert_eq(st.num_forced_gc, 1);
    cr_assert_eq(st.last_gc, st.pause_end[0]);
    cr_assert_eq(st.pause_total_ns, st.pause_ns[0]);
    th_end();
}

Test(gc_stats, a_cache_that_goes_keeps_its_counts)
{
    BEGIN();
    struct gc_cache c;
    bool want = false;
    cr_assert_eq(gc_cache_init(&c), 0);
    for (int i = 0; i < 10; i++)
        cr_assert_not_null(gc_alloc_slow(&c, 64, SHAPE_CONS, &want)); /* every call takes a run */
    cr_assert_eq(stats()->mallocs, 10 * 1 + (st.mallocs - 10));
    uint64_t before = st.mallocs;
    gc_cache_fini(&c);
    cr_assert_eq(stats()->mallocs, before);
    th_end();
}

static void *keep[64];
Test(gc_stats, free_memory_goes_back)
{
    BEGIN();
    gc_set_percent(-1);
    for (int i = 0; i < 64; i++)
        memset(keep[i] = th_alloc(1u << 20, SHAPE_NOSCAN), 1, 1u << 20);
    uint64_t full = stats()->heap_inuse;
    cr_assert(full >= 64u << 20);
    memset(keep, 0, sizeof keep);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    cr_assert(stats()->heap_idle >= 62u << 20);
    gc_release_free();
    cr_assert_eq(stats()->heap_released, st.heap_idle);
    char *p = th_alloc(30u << 20, SHAPE_NOSCAN); /* and is zero when it comes again */
    for (size_t i = 0; i < 30u << 20; i += 512)
        cr_assert_eq(p[i], 0);
    th_end();
}

Test(gc_stats, goal_follows_percent)
{
    BEGIN();
    cr_assert_eq(stats()->next_gc, 4u << 20);
    cr_assert_eq(gc_set_percent(50), 100);
    cr_assert_eq(stats()->next_gc, 2u << 20);
    gc_set_percent(100);
    void *volatile big = th_alloc(40u << 20, SHAPE_NOSCAN);
    th_collect(GC_WHY_FORCED);
    uint64_t live = gc_live_bytes(), roots = pacer.last.stack_bytes + pacer.last.global_bytes;
    cr_assert(live >= 40u << 20);
    cr_assert_eq(stats()->next_gc, 2 * live + roots);
    cr_assert_eq(gc_set_percent(-5), 100);
    cr_assert_eq(stats()->next_gc, UINT64_MAX);
    cr_assert_eq(gc_set_percent(100), -1);
    /* a limit that leaves less */
    cr_assert_eq(gc_set_limit(60 << 20), INT64_MAX);
    cr_assert(stats()->next_gc <= 60u << 20 && st.next_gc >= live);
    cr_assert_eq(gc_set_limit(-1), 60 << 20);
    gc_set_limit(10 << 20); /* less than lives: never below that */
    cr_assert_eq(stats()->next_gc, live);
    weft_keep_alive(big);
    th_end();
}

static void fill(unsigned mib)
{
    for (unsigned i = 0; i < mib; i++)
        keep[i % 64] = th_alloc(1u << 20, SHAPE_NOSCAN);
    memset(keep, 0, sizeof keep);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
}

/* Free pages are there for objects: they do not count against the limit, which by itself would then start one cycle after another. */
Test(gc_stats, free_pages_do_not_use_up_the_limit)
{
    BEGIN();
    gc_set_percent(-1);
    gc_set_limit(120 << 20);
    fill(64);
    fill(1);
    cr_assert(stats()->heap_idle - st.heap_released >= 60u << 20);
    cr_assert(st.next_gc >= 100u << 20, "goal %lu", st.next_gc);
    th_end();
}

Test(gc_stats, what_exceeds_the_limit_goes_back)
{
    BEGIN();
    gc_set_percent(-1);
    fill(64);
    cr_assert(stats()->heap_sys - st.heap_released >= 64u << 20);
    gc_set_limit(40 << 20);
    fill(1);
    cr_assert(stats()->heap_sys - st.heap_released <= 40u << 20);
    cr_assert(st.next_gc >= 30u << 20, "goal %lu", st.next_gc);
    th_end();
}

Test(gc_stats, growth_starts_cycles)
{
    BEGIN();
    for (int i = 0; i < 1000000; i++)
        th_alloc(64, SHAPE_CONS);
    /* a goal of 4 MiB, or of as much as the roots have */
    uint64_t goal = stats()->next_gc, want = (64u << 20) / goal;
    cr_assert(st.num_gc >= want * 5 / 8 && st.num_gc <= want * 5 / 4 + 1, "%u cycles for 64 MB at a goal of %lu", st.num_gc, goal);
    cr_assert_eq(st.num_forced_gc, 0);
    cr_assert(st.heap_sys <= 2 * goal + (4u << 20));
    th_end();
}

Test(gc_stats, trace_line_is_gos)
{
    BEGIN();
    th_collect(GC_WHY_FORCED);
    unsigned n, p, ms;
    unsigned x, y, z, goal, procs;
    double s, t[3], cpu[5], mb[2];
    char tail[16] = "";
    int got = sscanf(th.last_log, "gc %u @%lfs %u%%: %lf+%lf+%lf ms clock, %lf+%lf/%lf/%lf+%lf ms cpu, %u->%u->%u MB, %u MB goal, "
                     "%lf MB stacks, %lf MB globals, %u P %15s", &n, &s, &p, &t[0], &t[1], &t[2], &cpu[0], &cpu[1], &cpu[2], &cpu[3],
                     &cpu[4], &x, &y, &z, &goal, &mb[0], &mb[1], &procs, tail);
    (void)ms;
    cr_assert_eq(got, 19, "%d fields of: %s", got, th.last_log);
    cr_assert_str_eq(tail, "(forced)");
    cr_assert_eq(n, 1);
    th_end();
}

/* In a stop the table of modules turns out to be old: the world is started, the table read again, the world stopped anew. */
static int stops_seen;
static void change_modules(void)
{
    extern int th_dl_change(int);
    if (stops_seen++ == 0)
        th_dl_change(1);
}
int th_dl_change(int on);
#include <dlfcn.h>
int th_dl_change(int on)
{
    static void *h;
    if (on)
        h = dlopen("libBrokenLocale.so.1", RTLD_NOW);
    else if (h != NULL)
        dlclose(h);
    return h != NULL;
}

Test(gc_stats, a_module_loaded_meanwhile_is_noticed)
{
    BEGIN();
    th.in_stop = change_modules; /* as if another thread had just loaded it */
    th_collect(GC_WHY_FORCED);
    cr_assert_eq(th.stops, 2);
    cr_assert_eq(stats()->pause_total_ns, (uint64_t)th.stopped_ns, "the stop that was in vain is part of the pause");
    th_collect(GC_WHY_FORCED);
    cr_assert_eq(th.stops, 3);
    th_end();
}
