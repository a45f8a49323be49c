/* Percentage, limit, memory given back, as a program under weft_run meets them. */
#include "heap_test.h"
#include <regex.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "gc/gc.h"
#include "sched/stack.h"

#define MIB ((size_t)1 << 20)

static weft_mem_stats *stats(void)
{
    static weft_mem_stats s;
    s.size = sizeof s;
    cr_assert_eq(weft_read_mem_stats(&s), 0);
    return &s;
}

static void run(int procs, const char *debug, weft_fn *fn, void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.gc_percent = 100; /* whatever the environment says */
    cfg.debug = debug;
    test_run_config(&cfg, fn, arg);
}

/* ---- the limit ---------------------------------------------------------------------------------------------------------- */

enum { UNIT = 8000 };
static int64_t target; /* bytes that are to live; INT64_MAX: end */
static int rounds, ended;

static void keeper(void *arg)
{
    (void)arg;
    char **sink = NULL;
    size_t n = 0;
    for (int64_t t; (t = __atomic_load_n(&target, __ATOMIC_ACQUIRE)) != INT64_MAX;) {
        if (n != (size_t)t / UNIT)
            sink = weft_alloc((n = (size_t)t / UNIT) * sizeof *sink);
        for (size_t i = 0; i < n; i++)
            memset(sink[i] = weft_alloc_noscan(UNIT), 9, UNIT);
        count_up(&rounds);
        weft_yield();
    }
    count_up(&ended);
}

/* What lives grows to 70 % of the limit; the whole never goes beyond it, but for what a stop or two of the test may see under way. */
static void limited(void *arg)
{
    const int64_t limit = 256 << 20;
    weft_set_gc_percent(*(int *)arg);
    cr_assert_eq(weft_set_memory_limit(-1), INT64_MAX);
    cr_assert_eq(weft_set_memory_limit(limit), INT64_MAX);
    cr_assert_eq(weft_set_memory_limit(-1), limit);
    target = limit / 10;
    rounds = ended = 0;
    cr_assert_eq(weft_go(keeper, NULL), 0);
    for (int64_t t = limit / 10; t < limit / 10 * 8; t += limit / 10) {
        __atomic_store_n(&target, t, __ATOMIC_RELEASE);
        for (int until = count_now(&rounds) + 6; count_now(&rounds) < until; weft_sleep(100 * WEFT_MICROSECOND)) {
            weft_mem_stats *s = stats();
            int64_t have = (int64_t)(s->heap_sys - s->heap_released);
            cr_assert(have <= limit + (int64_t)(16 * MIB), "%ld MiB of heap with %ld alive", have >> 20, t >> 20);
        }
    }
    __atomic_store_n(&target, INT64_MAX, __ATOMIC_RELEASE);
    test_until(count_now(&ended) == 1);
    cr_assert_eq(weft_set_memory_limit(INT64_MAX), limit);
}

Test(heap_limit, the_limit_is_kept)
{
    run(2, "gcstress=0", limited, &(int){ 100 });
}

Test(heap_limit, the_limit_is_kept_with_percent_off)
{
    run(2, "gcstress=0", limited, &(int){ -1 });
}

/* More lives than the limit allows: the program goes on, and each collection lets it have at least 64 KiB. */
static void over_limit(void *arg)
{
    (void)arg;
    weft_set_gc_percent(-1);
    char *live = weft_alloc_noscan(20 * MIB);
    weft_set_memory_limit(10 * MIB);
    uint32_t before = stats()->num_gc;
    for (size_t i = 0; i < 24 * MIB / 512; i++)
        memset(weft_alloc_noscan(512), 1, 512);
    uint32_t cycles = stats()->num_gc - before;
    cr_assert(cycles >= 1 && cycles <= 24 * MIB / (64 << 10) * 2, "%u", cycles);
    weft_keep_alive(live);
}

Test(heap_limit, a_limit_below_what_lives_stops_nobody)
{
    run(1, "gcstress=0", over_limit, NULL);
    run(3, "gcstress=0", over_limit, NULL);
}

/* ---- the percentage ------------------------------------------------------------------------------------------------------- */

static uint32_t cycles_of_churn(size_t bytes)
{
    uint32_t before = stats()->num_gc;
    for (size_t done = 0; done < bytes; done += 8192)
        memset(weft_alloc_noscan(8000), 1, 8000);
    return stats()->num_gc - before;
}

static void percents(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_set_gc_percent(50), 100);
    cr_assert_eq(weft_set_gc_percent(-7), 50);
    cr_assert_eq(weft_set_gc_percent(100), -1, "all that is off is -1");
    char *live = weft_alloc_noscan(32 * MIB);
    weft_gc();
    uint64_t goal = stats()->next_gc;
    weft_set_gc_percent(200);
    cr_assert(stats()->next_gc > goal + 31 * MIB && stats()->next_gc < goal * 2);
    weft_set_gc_percent(100);
    cr_assert_eq(stats()->next_gc, goal, "it takes effect at once");
    /* A heap beyond the new goal is collected by the call itself. */
    weft_set_gc_percent(-1);
    cycles_of_churn(50 * MIB);
    uint32_t before = stats()->num_gc;
    weft_set_gc_percent(10);
    test_until(stats()->num_gc == before + 1);
    uint32_t rare = cycles_of_churn(64 * MIB), often;
    weft_set_gc_percent(0);
    often = cycles_of_churn(64 * MIB);
    cr_assert(rare >= 4 && often >= 32 && often <= 80, "%u at 10 %%, %u at 0 %%: each leaves a megabyte at least", rare, often);
    weft_set_gc_percent(-1);
    weft_gc(); /* none is under way any more */
    cr_assert_eq(cycles_of_churn(64 * MIB), 0);
    weft_keep_alive(live);
}

Test(heap_limit, percent)
{
    run(1, "gcstress=0", percents, NULL);
}

/* The one fiber does not leave its processor to the collector's. */
Test(heap_limit, percent_where_collections_mark_beside_the_program)
{
    if (test_marks_beside())
        run(1, "gcstress=0,gc=uffd", percents, NULL);
}

/* ---- given back ------------------------------------------------------------------------------------------------------------ */

static __attribute__((noinline)) void peak(size_t bytes, size_t each)
{
    size_t n = bytes / each;
    char **all = weft_alloc(n * sizeof *all);
    for (size_t i = 0; i < n; i++)
        memset(all[i] = weft_alloc_noscan(each), 1, each);
    memset(all, 0, n * sizeof *all); /* a pointer to it that is left somewhere keeps nothing else */
    weft_keep_alive(all);
}

static __attribute__((unused)) void free_os_memory(void *arg)
{
    (void)arg;
    for (size_t each = 1000; each <= MIB; each *= 32) {
        weft_set_gc_percent(-1);
        weft_free_os_memory();
        long before = test_rss_kib();
        peak(256 * MIB, each);
        test_wipe_stack();
        cr_assert(test_rss_kib() >= before + 250 * 1024);
        weft_free_os_memory();
        weft_mem_stats *s = stats();
        cr_assert_eq(s->heap_released, s->heap_idle);
        cr_assert(test_rss_kib() <= before + 12 * 1024, "%ld KiB more than before, with objects of %zu bytes", test_rss_kib() - before, each);
    }
}

/* Of sanitizers the shadow stays resident. */
#if !defined(W_ASAN) && !defined(W_TSAN)
Test(heap_limit, all_is_given_back_on_request)
{
    test_needs_a_kernel();
    run(1, "gcstress=0", free_os_memory, NULL);
}
#endif

/* With gcpoison what was freed stays, as evidence. */
#define BACKGROUND "gcstress=0,gcpoison=0"

/* After a peak, as the program goes on at its usual size. */
static void background(void *arg)
{
    (void)arg;
    char *live = weft_alloc_noscan(8 * MIB);
    peak(100 * MIB, 8000);
    struct gc_scavenge_stats st;
    gc_scavenge_stats(&st);
    uint64_t before = st.background_bytes, left = 0;
    test_until((cycles_of_churn(4 * MIB), gc_scavenge_stats(&st), st.background_bytes - before >= 30 * MIB));
    test_until((cycles_of_churn(4 * MIB), left = stats()->heap_sys - stats()->heap_released, left <= stats()->next_gc * 3 / 2 + 16 * MIB));
    weft_keep_alive(live);
}

Test(heap_limit, in_the_background_after_a_peak)
{
    for (int procs = 1; procs <= 2; procs++) {
        run(procs, BACKGROUND, background, NULL);
        run(procs, BACKGROUND ",madvdontneed=0", background, NULL);
    }
}

/* The child of a fork has no fibers of the runtime but those it makes anew. */
static void background_in_child(void *arg)
{
    (void)arg;
    background(NULL);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        struct gc_scavenge_stats st;
        gc_scavenge_stats(&st);
        uint64_t before = st.background_bytes;
        peak(100 * MIB, 8000);
        for (int64_t until = weft_now() + 10 * WEFT_SECOND; weft_now() < until && st.background_bytes - before < 30 * MIB; gc_scavenge_stats(&st))
            cycles_of_churn(4 * MIB);
        _exit(st.background_bytes - before < 30 * MIB);
    }
    int status = -1;
    cr_assert(waitpid(pid, &status, 0) == pid && status == 0, "%d", status);
}

Test(heap_limit, in_the_background_of_a_child, CHILD_GOES_ON)
{
    test_needs_a_kernel(); /* the child of an emulator's fork comes to an end of its own */
    run(2, BACKGROUND, background_in_child, NULL);
}

/* ---- stacks -------------------------------------------------------------------------------------------------------------------- */

static weft_chan *gate;
static int deep;
static w_noinline void use_stack(void)
{
    char pages[24 * 1024];
    memset(pages, 1, sizeof pages);
    __asm__ volatile("" : : "r"(pages) : "memory");
}

static void deep_fiber(void *arg)
{
    (void)arg;
    use_stack();
    count_up(&deep);
    weft_chan_recv(gate, NULL);
}

static __attribute__((unused)) void stacks(void *arg)
{
    (void)arg;
    enum { N = 2000 };
    gate = weft_chan_make(0, 0);
    long before = test_rss_kib();
    deep = 0;
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_go(deep_fiber, NULL), 0);
    test_until(count_now(&deep) == N);
    cr_assert(test_rss_kib() >= before + N * 24);
    weft_chan_close(gate);
    test_until(weft_num_fibers() == 1);
    cr_assert(test_rss_kib() >= before + N * 20);
    weft_gc();
    weft_gc(); /* between the two nobody needed them */
    test_until(test_rss_kib() <= before + N * 8);
    /* They are as good as before. */
    gate = weft_chan_make(0, 0);
    deep = 0;
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_go(deep_fiber, NULL), 0);
    test_until(count_now(&deep) == N);
    weft_chan_close(gate);
    test_until(weft_num_fibers() == 1);
}

#if !defined(W_ASAN) && !defined(W_TSAN)
Test(heap_limit, stacks_that_nobody_needs_are_given_back)
{
    test_needs_a_kernel();
    run(1, "gcstress=0", stacks, NULL);
    run(2, "gcstress=0", stacks, NULL);
}
#endif

/* ---- two minutes ------------------------------------------------------------------------------------------------------------------ */

static void idle(void *arg)
{
    int cycles = *(int *)arg;
    weft_gc(); /* it counts from the first on */
    uint32_t from = stats()->num_gc;
    for (int i = 0; i < cycles; i++)
        test_until(stats()->num_gc > from + (uint32_t)i);
    weft_set_gc_percent(-1);
    from = stats()->num_gc;
    weft_sleep(50 * WEFT_MILLISECOND);
    cr_assert(stats()->num_gc <= from + 2, "one was under way perhaps, and one asked for already; else there were fifty");
}

Test(heap_limit, an_idle_program_is_collected_from_time_to_time)
{
    gc_period_ns = 1000000;
    run(1, "gcstress=0", idle, &(int){ 5 });
    run(2, "gcstress=0", idle, &(int){ 5 });
}

/* Nobody runs but one who sleeps for long: the monitor, which then sleeps itself, has to come back for it. Whoever wakes also wakes the monitor, so
 * one cycle, or two, for each time would tell nothing. */
static void asleep(void *arg)
{
    (void)arg;
    weft_gc();
    uint32_t most = 0;
    for (int i = 0; i < 20 && most < 4; i++) {
        uint32_t from = stats()->num_gc;
        weft_sleep(500 * WEFT_MILLISECOND);
        uint32_t n = stats()->num_gc - from;
        most = n > most ? n : most;
    }
    cr_assert(most >= 4, "%u", most);
}

Test(heap_limit, so_is_one_that_sleeps)
{
    gc_period_ns = 50000000;
    run(2, "gcstress=0", asleep, NULL);
}

/* ---- schedtrace, scavtrace ---------------------------------------------------------------------------------------------------------- */

#define LINES 8192 /* on a busy machine a hundred come before the memory is free */
static char lines[LINES][400];
static int nlines;
static void remember(void *arg, const char *line)
{
    (void)arg;
    int i = __atomic_fetch_add(&nlines, 1, __ATOMIC_ACQ_REL);
    if (i < LINES)
        snprintf(lines[i], sizeof lines[i], "%s", line);
}

static void some_work(void *arg)
{
    (void)arg;
    test_until(count_now(&nlines) >= 5);
    weft_free_os_memory();
    test_until(count_now(&nlines) >= 10);
}

static int lines_like(const char *expr)
{
    regex_t re;
    int n = 0;
    cr_assert_eq(regcomp(&re, expr, REG_EXTENDED | REG_NOSUB), 0);
    for (int i = 0; i < nlines && i < LINES; i++)
        n += regexec(&re, lines[i], 0, NULL, 0) == 0;
    regfree(&re);
    return n;
}

Test(heap_limit, schedtrace_and_scavtrace_are_gos_lines)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 3;
    cfg.debug = "schedtrace=5,scavtrace=1,gcstress=0";
    cfg.log = remember;
    test_run_config(&cfg, some_work, NULL);
    int n = nlines;
    int sched = lines_like("^SCHED [0-9]+ms: gomaxprocs=3 idleprocs=[0-3] threads=[0-9]+ spinningthreads=[0-3] needspinning=0 idlethreads=[0-9]+ runqueue=[0-9]+ "
                           "\\[ [0-9]+ [0-9]+ [0-9]+ \\] schedticks=\\[ [0-9]+ [0-9]+ [0-9]+ \\]$");
    int scav = lines_like("^scav [0-9]+ KiB work \\(bg\\), [0-9]+ KiB work \\(eager\\), [0-9]+ KiB now, [0-9]+% util( \\(forced\\))?$");
    int late = lines_like("^weft: stop of the world \\([A-Za-z ]+\\) took [0-9]+ us; "); /* a thread had no CPU for 10 ms */
    cr_assert(sched >= 5 && scav == 2 && sched + scav + late == n, "%d, %d and %d of %d lines; one: %s", sched, scav, late, n, lines[0]);
}
