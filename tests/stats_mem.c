/* weft_read_mem_stats, weft_read_stop_stats, weft_free_os_memory and the memory limit, by the public calls and with fibers at work: every field,
 * every invariant of the contract. */
#include "heap_test.h"
#include "metrics_test.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include "base/offheap.h"
#include "gc/pages.h"

static uint64_t wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- what holds at any time ------------------------------------------------------------------------------------------- */

static void check_sums(const weft_mem_stats *s)
{
    cr_assert_eq(s->sys, s->heap_sys + s->stack_sys + s->mspan_sys + s->mcache_sys + s->buck_hash_sys + s->gc_sys + s->other_sys);
    cr_assert_eq(s->heap_sys, s->heap_idle + s->heap_inuse);
    cr_assert(s->heap_idle >= s->heap_released);
    cr_assert(s->heap_inuse >= s->heap_alloc, "in use %lu, objects %lu", s->heap_inuse, s->heap_alloc);
    cr_assert_eq(s->alloc, s->heap_alloc);
    cr_assert_eq(s->mallocs - s->frees, s->heap_objects);
    cr_assert(s->total_alloc >= s->heap_alloc);
    cr_assert(s->stack_inuse <= s->stack_sys && s->mspan_inuse <= s->mspan_sys && s->mcache_inuse <= s->mcache_sys);
    cr_assert(s->stack_inuse > 0 && s->mcache_inuse > 0 && s->gc_sys > 0 && s->other_sys > 0);
    cr_assert(s->mallocs == s->frees || s->mspan_inuse > 0);
    cr_assert(s->enable_gc && s->gc_cpu_fraction >= 0 && s->gc_cpu_fraction <= 1);
}

static void check_sizes(const weft_mem_stats *s)
{
    uint64_t mallocs = 0, frees = 0, bytes = 0;
    cr_assert_eq(s->by_size[0].size, 0);
    for (int i = 0; i < WEFT_SIZE_CLASSES; i++) {
        cr_assert(i == 0 || s->by_size[i].size > s->by_size[i - 1].size);
        cr_assert(s->by_size[i].mallocs >= s->by_size[i].frees);
        mallocs += s->by_size[i].mallocs;
        frees += s->by_size[i].frees;
        bytes += s->by_size[i].mallocs * s->by_size[i].size;
    }
    cr_assert_eq(s->mallocs, mallocs);
    cr_assert_eq(s->frees, frees);
    cr_assert(s->total_alloc >= bytes && (s->by_size[0].mallocs != 0 || s->total_alloc == bytes)); /* the rest is large objects */
}

static void check_history(const weft_mem_stats *s)
{
    uint64_t pauses = 0, end = 0;
    for (uint32_t i = 0; i < 256; i++) { /* from the oldest on */
        uint32_t slot = (s->num_gc + i) % 256;
        pauses += s->pause_ns[slot];
        if (s->num_gc + i < 256) {
            cr_assert(s->pause_ns[slot] == 0 && s->pause_end[slot] == 0, "slot %u was never used", slot);
            continue;
        }
        cr_assert(s->pause_ns[slot] > 0 && s->pause_end[slot] >= end, "slot %u", slot);
        end = s->pause_end[slot];
    }
    cr_assert(s->num_gc < 256 ? pauses == s->pause_total_ns : pauses <= s->pause_total_ns);
    cr_assert_eq(s->last_gc, s->pause_end[(s->num_gc + 255) % 256]);
    cr_assert(s->last_gc <= wall_ns());
    cr_assert(s->num_forced_gc <= s->num_gc);
}

static void check_growth(const weft_mem_stats *was, const weft_mem_stats *is)
{
    cr_assert(is->total_alloc >= was->total_alloc && is->mallocs >= was->mallocs && is->frees >= was->frees);
    cr_assert(is->num_gc >= was->num_gc && is->num_forced_gc >= was->num_forced_gc && is->pause_total_ns >= was->pause_total_ns);
    for (int i = 0; i < WEFT_SIZE_CLASSES; i++)
        cr_assert(is->by_size[i].mallocs >= was->by_size[i].mallocs && is->by_size[i].frees >= was->by_size[i].frees);
}

/* Too large for a fiber's stack. */
static weft_mem_stats now, before;
static const weft_mem_stats *read_stats(void)
{
    before = now;
    now.size = sizeof now;
    cr_assert_eq(weft_read_mem_stats(&now), 0);
    check_sums(&now);
    check_sizes(&now);
    check_history(&now);
    if (before.size != 0)
        check_growth(&before, &now);
    return &now;
}

Test(stats_mem, arguments)
{
    static weft_mem_stats s;
    cr_assert_eq(weft_read_mem_stats(NULL), -EINVAL);
    cr_assert_eq(weft_read_mem_stats(&s), -EINVAL);
    s.size = sizeof s - 8;
    cr_assert_eq(weft_read_mem_stats(&s), -EINVAL);
    s.size = sizeof s;
    cr_assert_eq(weft_read_mem_stats(&s), -ESRCH);
    weft_stop_stats st;
    cr_assert_eq(weft_read_stop_stats(-1, &st), -EINVAL);
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_REASONS, &st), -EINVAL);
    cr_assert_eq(weft_read_stop_stats(0, NULL), -EINVAL);
}

/* Whatever the environment says, no collection but those that the test counts. */
static void run_exactly(int procs, weft_fn *fn) { test_run_debug(procs, "gcstress=0", fn, NULL); }

/* ---- a busy program -------------------------------------------------------------------------------------------------------- */

static void busy(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    busy_begin(busy_alloc, 5);
    for (int i = 0; i < 200; i++) {
        read_stats();
        if (i % 20 == 5)
            weft_gc();
        if (i % 20 == 10)
            weft_maxprocs(1 + i % 4);
        if (i % 50 == 30)
            weft_free_os_memory();
        weft_yield();
    }
    busy_end();
    cr_assert(read_stats()->num_gc >= 10 && now.by_size[0].frees > 0 && now.heap_released <= now.heap_idle);
}

Test(stats_mem, invariants_hold_in_a_busy_program)
{
    test_run_each(busy, NULL);
}

/* ---- exact counts -------------------------------------------------------------------------------------------------------------- */

static void exact(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    read_stats();
    for (int i = 0; i < 1000; i++)
        weft_alloc(100);
    for (int i = 0; i < 500; i++)
        weft_alloc_noscan(33000);
    read_stats();
    cr_assert_eq(now.mallocs - before.mallocs, 1500);
    uint64_t small = 0;
    for (int i = 1; i < WEFT_SIZE_CLASSES; i++)
        if (now.by_size[i].mallocs != before.by_size[i].mallocs) {
            cr_assert(now.by_size[i].size >= 100 && now.by_size[i].size <= 112);
            cr_assert_eq(now.by_size[i].mallocs - before.by_size[i].mallocs, 1000);
            small = now.by_size[i].size;
        }
    cr_assert_eq(now.by_size[0].mallocs - before.by_size[0].mallocs, 500);
    uint64_t bytes = now.total_alloc - before.total_alloc;
    cr_assert(bytes >= 1000 * small + 500 * 33000 && bytes <= 1000 * small + 500 * 40960, "%lu", bytes);
    test_wipe_stack();
    weft_gc();
    read_stats();
    cr_assert_eq(now.mallocs, before.mallocs);
    cr_assert_eq(now.total_alloc, before.total_alloc);
    cr_assert(now.frees >= 1490 && now.heap_objects <= 20, "%lu freed, %lu left", now.frees, now.heap_objects);
}

Test(stats_mem, counts_are_exact) { run_exactly(1, exact); }

struct pair { void *a, *b; uint64_t n[3]; };

/* Off-heap memory and the heap's tables, each byte under one name. */
static void once(void *arg)
{
    (void)arg;
    weft_maxprocs(weft_maxprocs(0) + 2);
    for (int i = 0; i < 20; i++)
        weft_alloc_typed(WEFT_TYPE(struct pair, a, b));
    memset(&now, 0, sizeof now);
    read_stats();
    uint64_t mapped = 0;
    for (int i = 0; i < OFF_PURPOSES; i++) {
        struct off_stats s;
        off_stats((enum off_purpose)i, &s);
        mapped += s.mapped_bytes;
    }
    struct pages_stats pg;
    pages_stats(&pg);
    cr_assert_eq(now.mcache_sys + now.gc_sys + now.buck_hash_sys + now.other_sys, mapped + pg.tables_sys_bytes);
    cr_assert_eq(now.mspan_sys, pg.spans_sys_bytes);
}

Test(stats_mem, every_byte_is_counted_once) { run_exactly(2, once); }

struct two { void *a, *b; };
static void impossible(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    uint32_t cycles = read_stats()->num_gc;
    cr_assert_null(weft_alloc((size_t)1 << 50));
    cr_assert_null(weft_alloc_noscan(SIZE_MAX));
    cr_assert_null(weft_alloc_array(WEFT_TYPE(struct two, a, b), SIZE_MAX / 2));
    cr_assert_null(weft_alloc_array(WEFT_TYPE(struct two, a, b), (size_t)1 << 50));
    cr_assert_null(weft_realloc(weft_alloc(10), (size_t)1 << 50));
    cr_assert_eq(read_stats()->num_gc, cycles, "no collection makes room for them");
}

Test(stats_mem, an_impossible_size_costs_no_collection) { run_exactly(1, impossible); }

static void many_cycles(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    uint32_t gc0 = read_stats()->num_gc, forced0 = now.num_forced_gc;
    for (int i = 0; i < 300; i++) {
        weft_gc();
        read_stats();
        cr_assert_eq(now.num_forced_gc, forced0 + (uint32_t)i + 1);
        cr_assert(now.num_gc >= gc0 + (uint32_t)i + 1);
        cr_assert(now.last_gc > before.last_gc);
    }
    weft_stop_stats st;
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_GC, &st), 0);
    cr_assert_eq(st.count, now.num_gc + metric_beside());
    cr_assert_eq(st.stopped_total_ns, now.pause_total_ns, "both say how long the program stood still");
}

/* Findings of the doctor would load libraries, and a stop that is in vain for that is counted, but is no cycle. */
Test(stats_mem, history_of_cycles_goes_around) { test_run_debug(0, "gcstress=0,doctor=off", many_cycles, NULL); }

/* ---- stacks ------------------------------------------------------------------------------------------------------------------------ */

static weft_chan *gate;
static int parked;
static void park(void *arg)
{
    (void)arg;
    count_up(&parked);
    weft_chan_recv(gate, NULL);
    __atomic_fetch_sub(&parked, 1, __ATOMIC_ACQ_REL);
}

static void stacks(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    gate = weft_chan_make(0, 0);
    enum { N = 2000 };
    uint64_t in0 = read_stats()->stack_inuse;
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_go(park, NULL), 0);
    test_until(count_now(&parked) == N);
    read_stats();
    cr_assert(now.stack_inuse - in0 >= N * 4096u && now.stack_inuse - in0 <= N * 4096u + 200 * 4096u, "%lu bytes for %d fibers", now.stack_inuse - in0, N);
    uint64_t full = now.stack_sys;
    weft_chan_close(gate);
    test_until(count_now(&parked) == 0);
    test_until(weft_num_fibers() == 1);
    read_stats();
    cr_assert(now.stack_inuse - in0 <= 4096u * 4u, "%lu bytes are said to be in use when all have ended", now.stack_inuse - in0);
    cr_assert(now.stack_sys <= full, "less if they were not needed for a cycle or two");
}

Test(stats_mem, stacks_of_fibers)
{
    test_run_procs(1, stacks, NULL);
    test_run_procs(3, stacks, NULL);
}

/* ---- stops by reason ------------------------------------------------------------------------------------------------------------------- */

static weft_stop_stats stop_stats[2][WEFT_STOP_REASONS];

static void read_stops(int which)
{
    for (int r = 0; r < WEFT_STOP_REASONS; r++) {
        weft_stop_stats *s = &stop_stats[which][r];
        cr_assert_eq(weft_read_stop_stats(r, s), 0);
        cr_assert(s->reason != NULL && s->reason[0] != 0);
        uint64_t stopping = 0, stopped = 0;
        for (int b = 0; b < WEFT_STOP_BUCKETS; b++) {
            stopping += s->stopping[b];
            stopped += s->stopped[b];
        }
        cr_assert_eq(stopping, s->count);
        cr_assert_eq(stopped, s->count);
        cr_assert(s->stopped_total_ns >= s->stopping_total_ns && s->stopped_max_ns >= s->stopping_max_ns);
        cr_assert(s->stopped_max_ns <= s->stopped_total_ns && s->stopping_max_ns <= s->stopping_total_ns);
        if (s->count != 0) {
            int top = 63 - __builtin_clzll(s->stopped_max_ns | 1);
            cr_assert(s->stopped[top < WEFT_STOP_BUCKETS ? top : WEFT_STOP_BUCKETS - 1] > 0, "the longest is in its bucket");
        }
    }
}

static uint64_t more_stops(int reason) { return stop_stats[1][reason].count - stop_stats[0][reason].count; }

static void reasons(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    int procs = weft_maxprocs(0);
    uint64_t beside = metric_beside();
    read_stops(0);
    for (int i = 0; i < 7; i++)
        weft_gc();
    for (int i = 0; i < 5; i++)
        read_stats();
    weft_maxprocs(procs + 1);
    weft_maxprocs(procs + 2);
    weft_maxprocs(procs);
    weft_maxprocs(procs); /* as it is: no stop */
    weft_maxprocs(0);
    read_stops(1);
    cr_assert_eq(more_stops(WEFT_STOP_GC), 7 + metric_beside() - beside);
    cr_assert_eq(more_stops(WEFT_STOP_MEM_STATS), 5);
    cr_assert_eq(more_stops(WEFT_STOP_MAXPROCS), 3);
    cr_assert_eq(more_stops(WEFT_STOP_DUMP) + more_stops(WEFT_STOP_FORK) + more_stops(WEFT_STOP_END), 0);
}

Test(stats_mem, stops_are_counted_by_reason) { run_exactly(0, reasons); }

/* ---- memory goes back ---------------------------------------------------------------------------------------------------------------------- */

#define MIB (1 << 20)

static long rollup_kib(const char *key)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    char line[256];
    long v = -1;
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
            v = strtol(line + strlen(key) + 1, NULL, 10);
    if (f != NULL)
        fclose(f);
    return v;
}

static __attribute__((noinline)) void fill(void **to, int n, size_t bytes)
{
    for (int i = 0; i < n; i++)
        memset(to[i] = weft_alloc_noscan(bytes), 0x5a, bytes);
}

/* A stale pointer to the list would keep all of it: so it is emptied. */
static __attribute__((noinline)) void release_some(size_t bytes)
{
    int n = (int)(80 * MIB / bytes);
    void **keep = weft_alloc((size_t)n * sizeof *keep);
    fill(keep, n, bytes);
    memset(keep, 0, (size_t)n * sizeof *keep);
    weft_keep_alive(keep);
}

static void free_os_memory(void *arg)
{
    bool lazy = *(bool *)arg;
    size_t sizes[] = { 100, 4000, MIB };
    for (int i = 0; i < 3; i++) {
        memset(&now, 0, sizeof now);
        release_some(sizes[i]);
        test_wipe_stack();
        long full = test_rss_kib(), lazy0 = rollup_kib("LazyFree");
        cr_assert(full > 80 * 1024);
        weft_free_os_memory();
        read_stats();
        cr_assert(now.heap_released >= 76u * MIB && now.heap_released <= now.heap_idle, "released: %lu", now.heap_released);
        long fell = full - test_rss_kib(), waiting = rollup_kib("LazyFree") - lazy0;
        cr_assert(lazy ? fell + waiting > 70 * 1024 && waiting > 60 * 1024 : fell > 70 * 1024, "resident memory fell by %ld KiB, %ld KiB can be taken", fell, waiting);
        char *again = weft_alloc(40 * MIB);
        for (size_t k = 0; k < 40 * MIB; k += 64)
            cr_assert_eq(again[k], 0);
        weft_keep_alive(again);
        again = NULL;
        test_wipe_stack();
        weft_free_os_memory();
    }
}

Test(stats_mem, free_os_memory)
{
    test_needs_a_kernel();
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "gcstress=0";
    test_run_config(&cfg, free_os_memory, &(bool){ false });
    cfg.debug = "gcstress=0,madvdontneed=0";
    if (rollup_kib("LazyFree") >= 0)
        test_run_config(&cfg, free_os_memory, &(bool){ true });
}

/* ---- percent and limit ------------------------------------------------------------------------------------------------------------------------ */

static void churn_bytes(size_t total)
{
    for (size_t done = 0; done < total; done += 4096)
        memset(weft_alloc_noscan(4096), 1, 4096);
}

static void limit_alone(void *arg)
{
    (void)arg;
    memset(&now, 0, sizeof now);
    cr_assert_eq(weft_set_gc_percent(-1), -1);
    cr_assert_eq(weft_set_memory_limit(-1), 64 * MIB);
    int64_t worst = 0;
    for (int i = 0; i < 40; i++) {
        churn_bytes(16 * MIB);
        read_stats();
        int64_t held = (int64_t)(now.heap_sys - now.heap_released);
        worst = held > worst ? held : worst;
    }
    cr_assert(now.num_gc >= 3 && now.num_forced_gc == 0, "%u cycles", now.num_gc);
    /* Soft: where a cycle takes long for want of a processor, the next one waits as long. Without a limit it would be 640 MiB. */
    cr_assert(worst < 160 * MIB, "%ld MiB held under a limit of 64", worst >> 20);
    cr_assert_eq(weft_set_memory_limit(INT64_MAX), 64 * MIB);
    weft_gc(); /* one may be under way that the limit had begun */
    uint32_t cycles = read_stats()->num_gc;
    cr_assert_eq(now.next_gc, UINT64_MAX);
    churn_bytes(200 * MIB);
    cr_assert_eq(read_stats()->num_gc, cycles, "neither percent nor limit: only by hand");
    weft_gc();
    cr_assert_eq(read_stats()->num_gc, cycles + 1);
    cr_assert_eq(weft_set_gc_percent(50), -1);
    cr_assert(read_stats()->next_gc < 200u * MIB);
    churn_bytes(100 * MIB);
    cr_assert(read_stats()->num_gc > cycles + 1);
}

Test(stats_mem, memory_limit_with_percent_off)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.gc_percent = WEFT_GC_OFF;
    cfg.memory_limit = 64 * MIB;
    cfg.debug = "gcstress=0";
    test_run_config(&cfg, limit_alone, NULL);
}
