/* Metrics of the heap and the memory map: equal to weft_read_mem_stats to the byte when nothing runs, consistent when all runs, never falling. */
#include "heap_test.h"
#include "metrics_test.h"
#include "sched/runq.h"
#include <stdio.h>

static struct metric_all all, last; /* too large for a fiber's stack */
static weft_mem_stats stats;

static void read_stats(void)
{
    stats.size = sizeof stats;
    cr_assert_eq(weft_read_mem_stats(&stats), 0);
}

static uint64_t value(const char *name) { return metric_of(&all, name)->u64; }

static void run_exactly(int procs, weft_fn *fn)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.gc_percent = 100;
    cfg.debug = "gcstress=0";
    cfg.doctor = "off"; /* who reads statistics all the time is told so, and what tells takes memory */
    test_run_config(&cfg, fn, NULL);
}

/* ---- the same as weft_read_mem_stats --------------------------------------------------------------------------------------------- */

static void check_same(void)
{
    const weft_mem_stats *s = &stats;
    cr_expect_eq(value("/gc/heap/allocs:bytes"), s->total_alloc);
    cr_expect_eq(value("/gc/heap/frees:bytes"), s->total_alloc - s->alloc);
    cr_expect_eq(value("/gc/heap/allocs:objects"), s->mallocs);
    cr_expect_eq(value("/gc/heap/frees:objects"), s->frees);
    cr_expect_eq(value("/gc/heap/objects:objects"), s->heap_objects);
    cr_expect_eq(value("/gc/heap/goal:bytes"), s->next_gc);
    cr_expect_eq(value("/gc/cycles/total:gc-cycles"), s->num_gc);
    cr_expect_eq(value("/gc/cycles/forced:gc-cycles"), s->num_forced_gc);
    cr_expect_eq(value("/gc/cycles/automatic:gc-cycles"), s->num_gc - s->num_forced_gc);
    cr_expect_eq(value("/memory/classes/heap/free:bytes"), s->heap_idle - s->heap_released);
    cr_expect_eq(value("/memory/classes/heap/objects:bytes"), s->heap_alloc);
    cr_expect_eq(value("/memory/classes/heap/released:bytes"), s->heap_released);
    cr_expect_eq(value("/memory/classes/heap/stacks:bytes"), s->stack_inuse);
    cr_expect_eq(value("/memory/classes/heap/unused:bytes"), s->heap_inuse - s->heap_alloc);
    cr_expect_eq(value("/memory/classes/metadata/mcache/free:bytes"), s->mcache_sys - s->mcache_inuse);
    cr_expect_eq(value("/memory/classes/metadata/mcache/inuse:bytes"), s->mcache_inuse);
    cr_expect_eq(value("/memory/classes/metadata/mspan/free:bytes"), s->mspan_sys - s->mspan_inuse);
    cr_expect_eq(value("/memory/classes/metadata/mspan/inuse:bytes"), s->mspan_inuse);
    cr_expect_eq(value("/memory/classes/metadata/other:bytes"), s->gc_sys);
    cr_expect_eq(value("/memory/classes/os-stacks:bytes"), s->stack_sys - s->stack_inuse);
    cr_expect_eq(value("/memory/classes/other:bytes"), s->other_sys);
    cr_expect_eq(value("/memory/classes/profiling/buckets:bytes"), s->buck_hash_sys);
    cr_expect_eq(value("/memory/classes/total:bytes"), s->sys);
    const weft_metric *mallocs = metric_of(&all, "/gc/heap/allocs-by-size:bytes"), *frees = metric_of(&all, "/gc/heap/frees-by-size:bytes");
    for (int c = 0; c < WEFT_SIZE_CLASSES; c++) {
        int i = c == 0 ? WEFT_SIZE_CLASSES - 1 : c - 1;
        cr_expect_eq(mallocs->counts[i], s->by_size[c].mallocs, "size %u", s->by_size[c].size);
        cr_expect_eq(frees->counts[i], s->by_size[c].frees, "size %u", s->by_size[c].size);
        if (c != 0)
            cr_expect_eq(mallocs->bounds[i + 1], s->by_size[c].size + 1);
    }
}

struct pair { void *a, *b; uint64_t n[5]; };
struct node { struct node *next; char text[40]; };

/* Runs of all kinds are left half used, on whatever processor. */
static void allocate(void *arg)
{
    for (unsigned i = 0; i < 300; i++) {
        weft_alloc(i * 7 % 3000);
        weft_alloc_noscan(i * 11 % 5000);
        weft_alloc_typed(WEFT_TYPE(struct pair, a, b));
        weft_alloc_array(WEFT_TYPE(struct node, next), i % 20 + 1);
        if (i % 50 == 0)
            weft_alloc_noscan(40000 + i);
        weft_yield();
    }
    weft_waitgroup_done(arg);
}

/* Nobody but us, nor is anybody about to. */
static bool nothing_runs(void)
{
    struct m *m = rt_enter();
    /* rlx: who could change it does not run */
    bool alone = load_seq(&sched.nidle_p) == nprocs() - 1 && runq_empty(m->p) && load_rlx(&sched.global_len) == 0;
    rt_leave(m);
    return alone;
}

/* Both, at a moment when nothing happens: the scavenger may come at any time, and a fiber's stack goes back a moment after it has ended, so what these
 * change must be as it was. */
static void read_alone(void)
{
    uint64_t released, stacks, used;
    do {
        read_stats();
        released = stats.heap_released;
        stacks = stats.stack_sys;
        used = stats.stack_inuse;
        metric_all_read(&all);
        read_stats();
    } while (stats.heap_released != released || stats.stack_sys != stacks || stats.stack_inuse != used);
}

static void same(void *arg)
{
    (void)arg;
    static weft_waitgroup wg;
    metric_all_init(&all);
    for (int round = 0; round < 20; round++) {
        weft_waitgroup_add(&wg, 6);
        for (int i = 0; i < 6; i++)
            cr_assert_eq(weft_go(allocate, &wg), 0);
        weft_waitgroup_wait(&wg);
        if (round % 5 == 4)
            weft_gc();
        if (round == 10)
            weft_maxprocs(round % 3 + 1); /* a cache goes, its counts stay */
        test_until(nothing_runs());
        read_alone();
        check_same();
        for (int i = 0; i < 37; i++)
            weft_alloc((size_t)(round * 16 + i)); /* in the middle of a run */
        read_alone();
        check_same();
        weft_mem_stats before = stats;
        read_alone();
        cr_expect_eq(stats.mallocs, before.mallocs);
        check_same();
    }
}

Test(metrics_heap, the_same_as_mem_stats_to_the_byte)
{
    run_exactly(1, same);
    run_exactly(3, same);
}

static void settings(void *arg)
{
    (void)arg;
    cr_assert_eq(metric_u64("/gc/gogc:percent"), 100);
    cr_assert_eq(metric_u64("/gc/gomemlimit:bytes"), INT64_MAX);
    weft_set_gc_percent(-1);
    weft_set_memory_limit(INT64_C(1) << 40);
    cr_assert_eq(metric_u64("/gc/gogc:percent"), UINT64_MAX);
    cr_assert_eq(metric_u64("/gc/gomemlimit:bytes"), UINT64_C(1) << 40);
    weft_set_gc_percent(70);
    cr_assert_eq(metric_u64("/gc/gogc:percent"), 70);
    cr_assert_eq(metric_u64("/gc/stack/starting-size:bytes"), 64 << 10);
    cr_assert_eq(metric_u64("/gc/heap/tiny/allocs:objects"), 0);
    cr_assert_eq(metric_u64("/gc/limiter/last-enabled:gc-cycle"), 0);
}

Test(metrics_heap, settings) { run_exactly(1, settings); }

/* What a cycle finds: live bytes, and the part of them that may hold pointers. */
static void marked(void *arg)
{
    (void)arg;
    enum { N = 1000, SCAN = 4000, NOSCAN = 9000 };
    void **keep = weft_alloc(N * sizeof *keep);
    for (int i = 0; i < N; i++)
        keep[i] = i % 2 ? weft_alloc(SCAN) : weft_alloc_noscan(NOSCAN);
    weft_gc();
    uint64_t live = metric_u64("/gc/heap/live:bytes"), heap = metric_u64("/gc/scan/heap:bytes");
    uint64_t scan = N / 2 * weft_object_size(keep[1]), noscan = N / 2 * weft_object_size(keep[0]);
    cr_assert(live >= scan + noscan && live < scan + noscan + 200000, "%lu live", live);
    cr_assert(heap >= scan && heap < scan + 200000, "%lu of %lu", heap, live);
    cr_assert(metric_u64("/gc/scan/stack:bytes") > 0 && metric_u64("/gc/scan/globals:bytes") > 0);
    metric_all_init(&all);
    metric_all_read(&all);
    cr_assert_eq(value("/gc/scan/total:bytes"), value("/gc/scan/heap:bytes") + value("/gc/scan/stack:bytes") + value("/gc/scan/globals:bytes"));
    uint64_t stacks = value("/weft/gc/scanned/stacks:bytes");
    weft_gc();
    metric_all_read(&all);
    cr_assert_eq(value("/weft/gc/scanned/stacks:bytes"), stacks + value("/gc/scan/stack:bytes"));
    weft_keep_alive(keep);
}

Test(metrics_heap, what_a_cycle_scanned) { run_exactly(2, marked); }

/* ---- a busy program -------------------------------------------------------------------------------------------------------------- */

static double cpu(const char *class) 
{
    char name[80];
    snprintf(name, sizeof name, "/cpu/classes/%s:cpu-seconds", class);
    return metric_of(&all, name)->f64;
}

static void check_near(double sum, double total) { cr_assert(sum >= total * 0.999 && sum <= total * 1.001, "%g is not %g", sum, total); }

/* One read belongs together. */
static void check_consistent(void)
{
    uint64_t total = 0;
    for (size_t i = 0; i < all.n; i++)
        if (strncmp(all.desc[i].name, "/memory/classes/", 16) == 0 && strcmp(all.desc[i].name, "/memory/classes/total:bytes") != 0) {
            cr_assert(all.m[i].u64 < UINT64_C(1) << 40, "%s: %lu", all.desc[i].name, all.m[i].u64);
            total += all.m[i].u64;
        }
    cr_assert_eq(value("/memory/classes/total:bytes"), total);
    cr_assert_eq(value("/gc/heap/allocs:bytes") - value("/gc/heap/frees:bytes"), value("/memory/classes/heap/objects:bytes"));
    cr_assert_eq(value("/gc/heap/allocs:objects") - value("/gc/heap/frees:objects"), value("/gc/heap/objects:objects"));
    cr_assert(value("/gc/heap/objects:objects") < UINT64_C(1) << 40);
    const weft_metric *mallocs = metric_of(&all, "/gc/heap/allocs-by-size:bytes"), *frees = metric_of(&all, "/gc/heap/frees-by-size:bytes");
    cr_assert_eq(metric_sum(mallocs), value("/gc/heap/allocs:objects"));
    cr_assert_eq(metric_sum(frees), value("/gc/heap/frees:objects"));
    for (uint32_t i = 0; i < mallocs->buckets; i++)
        cr_assert(mallocs->counts[i] >= frees->counts[i]);
    cr_assert_eq(value("/gc/cycles/total:gc-cycles"), value("/gc/cycles/automatic:gc-cycles") + value("/gc/cycles/forced:gc-cycles"));
    check_near(cpu("gc/mark/assist") + cpu("gc/mark/dedicated") + cpu("gc/mark/idle") + cpu("gc/pause"), cpu("gc/total"));
    check_near(cpu("scavenge/assist") + cpu("scavenge/background"), cpu("scavenge/total"));
    check_near(cpu("gc/total") + cpu("scavenge/total") + cpu("user") + cpu("idle"), cpu("total"));
    cr_assert(value("/gc/finalizers/queued:finalizers") >= value("/gc/finalizers/executed:finalizers"));
    cr_assert(value("/gc/cleanups/queued:cleanups") >= value("/gc/cleanups/executed:cleanups"));
    cr_assert(value("/sched/goroutines/running:goroutines") <= value("/sched/gomaxprocs:threads"));
    cr_assert(value("/sched/goroutines-created:goroutines") >= value("/sched/goroutines:goroutines"));
}

/* What is said to be cumulative does not fall, bucket by bucket. */
static void check_growth(void)
{
    for (size_t i = 0; i < all.n; i++) {
        if (!all.desc[i].cumulative)
            continue;
        const weft_metric *is = &all.m[i], *was = &last.m[i];
        const char *name = all.desc[i].name;
        if (is->kind == WEFT_METRIC_U64)
            cr_assert(is->u64 >= was->u64, "%s fell from %lu to %lu", name, was->u64, is->u64);
        else if (is->kind == WEFT_METRIC_F64)
            cr_assert(is->f64 >= was->f64, "%s fell from %g to %g", name, was->f64, is->f64);
        else
            for (uint32_t b = 0; b < is->buckets; b++)
                cr_assert(is->counts[b] >= was->counts[b], "%s: bucket %u fell", name, b);
    }
}

static void keep_last(void)
{
    for (size_t i = 0; i < all.n; i++) {
        uint64_t *counts = last.m[i].counts;
        last.m[i] = all.m[i];
        last.m[i].counts = counts;
        if (counts != NULL)
            memcpy(counts, all.m[i].counts, all.m[i].buckets * sizeof *counts);
    }
}

static void busy(void *arg)
{
    (void)arg;
    metric_all_init(&all);
    metric_all_init(&last);
    busy_begin(busy_alloc, 5);
    for (int i = 0; i < 3000; i++) {
        metric_all_read(&all);
        check_consistent();
        check_growth();
        keep_last();
        if (i % 300 == 5)
            weft_gc();
        if (i % 300 == 10)
            weft_maxprocs(1 + i % 4);
        if (i % 500 == 30)
            weft_free_os_memory();
        if (i % 8 == 0)
            weft_yield();
    }
    busy_end();
    cr_assert(value("/gc/cycles/total:gc-cycles") >= 10 && value("/gc/heap/frees:objects") > 0);
}

Test(metrics_heap, consistent_and_never_falling_in_a_busy_program, .timeout = 180)
{
    test_may_take(180);
    test_run_each(busy, NULL);
}

/* Large objects come and go by their pages, which are counted apart from the objects: what is unused must not come out below nothing. */
static void large(void *arg)
{
    (void)arg;
    while (busy_on()) {
        for (int i = 0; i < 20; i++)
            weft_alloc_noscan(1 << 20);
        weft_gc();
    }
    busy_done();
}

static void unused(void *arg)
{
    (void)arg;
    busy_begin(large, 3);
    weft_metric m[] = { { .name = "/memory/classes/heap/unused:bytes" }, { .name = "/memory/classes/total:bytes" } };
    for (int i = 0; i < 20000; i++) {
        cr_assert_eq(weft_metrics_read(m, 2), 0);
        cr_assert(m[0].u64 <= m[1].u64 && m[1].u64 < UINT64_C(1) << 40, "%lu unused of %lu", m[0].u64, m[1].u64);
        if (i % 16 == 0)
            weft_yield();
    }
    busy_end();
}

Test(metrics_heap, large_objects_do_not_overflow_unused) { test_run_procs(3, unused, NULL); }

/* ---- finalizers ------------------------------------------------------------------------------------------------------------------ */

static int ran;
static void finalizer(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    if (__atomic_add_fetch(&ran, 1, __ATOMIC_ACQ_REL) % 10 == 0)
        weft_exit(); /* counts as well */
}

static __attribute__((noinline)) void make_finalized(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_set_finalizer(weft_alloc(100), finalizer, NULL), 0);
}

static void finalizers(void *arg)
{
    (void)arg;
    enum { N = 1000 };
    ran = 0;
    make_finalized(N);
    cr_assert_eq(metric_u64("/gc/finalizers/executed:finalizers"), 0);
    test_wipe_stack();
    weft_gc();
    uint64_t queued = metric_u64("/gc/finalizers/queued:finalizers");
    cr_assert(queued >= N * 9 / 10 && queued <= N, "%lu queued", queued);
    test_until(metric_u64("/gc/finalizers/executed:finalizers") == queued);
    cr_assert_eq((uint64_t)count_now(&ran), queued);
    cr_assert_eq(metric_u64("/gc/finalizers/queued:finalizers"), queued);
}

Test(metrics_heap, finalizers) { run_exactly(2, finalizers); }

static void cleanup(void *arg)
{
    (void)arg;
    if (__atomic_add_fetch(&ran, 1, __ATOMIC_ACQ_REL) % 10 == 0)
        weft_exit();
}

static __attribute__((noinline)) void make_cleanups(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_add_cleanup(weft_alloc(100), cleanup, NULL, NULL), 0);
}

static void cleanups(void *arg)
{
    (void)arg;
    enum { N = 1000 };
    ran = 0;
    make_cleanups(N);
    cr_assert_eq(metric_u64("/gc/cleanups/executed:cleanups"), 0);
    test_wipe_stack();
    weft_gc();
    uint64_t queued = metric_u64("/gc/cleanups/queued:cleanups");
    cr_assert(queued >= N * 9 / 10 && queued <= N, "%lu queued", queued);
    test_until(metric_u64("/gc/cleanups/executed:cleanups") == queued);
    cr_assert_eq((uint64_t)count_now(&ran), queued);
    cr_assert_eq(metric_u64("/gc/finalizers/queued:finalizers"), 0);
}

Test(metrics_heap, cleanups) { run_exactly(8, cleanups); }
