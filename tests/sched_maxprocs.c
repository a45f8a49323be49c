/* The default number of processors: from CPUs and quota, followed as they change, until a number is asked for. Runs in control groups that are made
 * of files, on machines of as many CPUs as a debug key says, and in a real group where one can be made. */
#include "cgroup_test.h"
#include "metrics_test.h"
#include "sched/maxprocs.h"
#include <sched.h>
#include <sys/syscall.h>
#include "base/fmt.h"
#include <dirent.h>

static void make(void)
{
    make_root();
    root_for_weft();
}
TestSuite(sched_maxprocs, .init = make, .fini = remove_root);

static void read_procs(void *arg) { *(int *)arg = weft_maxprocs(0); }

/* What is asked for is asked for here. */
static __attribute__((constructor)) void nothing_is_asked(void) { unsetenv("WEFT_MAXPROCS"); }

/* What a start gives. */
static int procs(const char *debug, int asked)
{
    int n = -1;
    test_run_debug(asked, debug, read_procs, &n);
    return n;
}

static uint64_t resizes(void)
{
    weft_stop_stats s;
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_MAXPROCS, &s), 0);
    return s.count;
}

/* ---- at the start ------------------------------------------------------------------------------------------ */

Test(sched_maxprocs, without_a_limit_it_is_the_number_of_cpus)
{
    cr_expect_eq(procs("cpus=8", 0), 8, "no group");
    v2("max 100000\n");
    cr_expect_eq(procs("cpus=8", 0), 8);
    v1("-1\n", "100000\n");
    cr_expect_eq(procs("cpus=8", 0), 8);
    cr_expect_eq(procs(NULL, 0), weft_num_cpu());
}

Test(sched_maxprocs, a_limit_is_rounded_up_and_is_never_below_two)
{
    static const struct { const char *max; int procs; } cases[] = {
        { "300000 100000\n", 3 }, { "200001 100000\n", 3 }, { "250000 100000\n", 3 }, { "150000 100000\n", 2 }, { "100000 100000\n", 2 },
        { "50000 100000\n", 2 }, { "1000 100000\n", 2 }, { "90000000 100000\n", 8 }, { "junk\n", 8 }, { "12000 4000\n", 3 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        v2(cases[i].max);
        cr_expect_eq(procs("cpus=8", 0), cases[i].procs, "%s", cases[i].max);
    }
    cr_expect_eq(procs("cpus=1", 0), 1, "of one CPU");
    v1("420000\n", "100000\n");
    cr_expect_eq(procs("cpus=8", 0), 5);
}

Test(sched_maxprocs, a_number_that_is_asked_for_wins)
{
    v2("300000 100000\n");
    cr_expect_eq(procs("cpus=8", 6), 6);
    setenv("WEFT_MAXPROCS", "7", 1);
    cr_expect_eq(procs("cpus=8", 0), 7);
    setenv("WEFT_MAXPROCS", "1500", 1);
    cr_expect_eq(procs("cpus=8", 0), 1024, "so many at most");
}

Test(sched_maxprocs, the_group_can_be_left_aside)
{
    v2("300000 100000\n");
    cr_expect_eq(procs("cpus=8,containermaxprocs=0", 0), 8);
    cr_expect_eq(procs("cpus=8,cpuquota=450", 0), 5, "another quota");
}

/* All threads of the process. */
static void bind_all(const cpu_set_t *set)
{
    DIR *d = opendir("/proc/self/task");
    cr_assert_not_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            sched_setaffinity(atoi(e->d_name), sizeof *set, set);
    closedir(d);
}

static void one_cpu(cpu_set_t *one)
{
    cpu_set_t all;
    int cpu = 0;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(one);
    CPU_SET(cpu, one);
}

Test(sched_maxprocs, one_cpu_in_the_mask_is_one_processor)
{
    cpu_set_t one;
    v2("300000 100000\n");
    one_cpu(&one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_expect_eq(procs(NULL, 0), 1);
}

/* ---- while it runs -------------------------------------------------------------------------------------------- */

static void run_follows(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_maxprocs(0), 3);
    v2("420000 100000\n");
    test_until(weft_maxprocs(0) == 5);
    v2("max 100000\n");
    test_until(weft_maxprocs(0) == 8);
    v2("1 100000\n");
    test_until(weft_maxprocs(0) == 2);
    cr_expect_eq(weft_num_fibers(), 1);
}

static void run_debug(const char *debug, weft_fn *fn) { test_run_debug(0, debug, fn, NULL); }

Test(sched_maxprocs, changes_of_the_quota_are_followed)
{
    int fds = test_fds();
    v2("300000 100000\n");
    run_debug("cpus=8", run_follows);
    cr_expect_eq(test_fds(), fds);
}

static void run_follows_affinity(void *arg)
{
    cpu_set_t all, one;
    (void)arg;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    one_cpu(&one);
    int before = weft_maxprocs(0), cpus = weft_num_cpu();
    cr_expect_eq(before, CPU_COUNT(&all));
    bind_all(&one);
    test_until(weft_maxprocs(0) == 1);
    cr_expect_eq(weft_num_cpu(), cpus, "that is the number of the start");
    bind_all(&all);
    test_until(weft_maxprocs(0) == before);
}

Test(sched_maxprocs, changes_of_the_mask_are_followed) { run_debug(NULL, run_follows_affinity); }

/* As the monitor does it, but that it is not inside the runtime. */
static void look(int64_t now_ns)
{
    rt_enter();
    maxprocs_look(now_ns);
    rt_leave(m_self());
}

/* The monitor's looks, and some more as if a minute had passed; what they start has run. */
static void look_again(void)
{
    for (int i = 1; i <= 5; i++) {
        look(weft_now() + i * 60 * WEFT_SECOND);
        for (int k = 0; k < 100; k++)
            weft_yield();
    }
}

static void run_custom(void *arg)
{
    (void)arg;
    v2("500000 100000\n");
    look(weft_now() + 60 * WEFT_SECOND);
    test_until(weft_maxprocs(0) == 5); /* this is what a look does */
    uint64_t stops = resizes();
    cr_expect_eq(weft_maxprocs(5), 5);
    cr_expect_eq(resizes(), stops, "it is 5 already");
    v2("300000 100000\n");
    look_again();
    cr_expect_eq(weft_maxprocs(0), 5, "asked for, though it was the default");
    cr_expect_eq(weft_maxprocs(7), 5);
    look_again();
    cr_expect_eq(weft_maxprocs(0), 7);
    cr_expect_eq(resizes(), stops + 1);
    cr_expect_eq(weft_maxprocs_default(), 7);
    cr_expect_eq(weft_maxprocs(0), 3);
    cr_expect_eq(resizes(), stops + 2);
    cr_expect_eq(weft_maxprocs_default(), 3);
    cr_expect_eq(resizes(), stops + 2, "it is so already");
    v2("600000 100000\n");
    look(weft_now() + 600 * WEFT_SECOND);
    test_until(weft_maxprocs(0) == 6); /* and is followed again */
}

Test(sched_maxprocs, a_number_that_is_asked_for_stays_until_the_default_is)
{
    v2("300000 100000\n");
    run_debug("cpus=8", run_custom);
}

static void run_start_custom(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_maxprocs(0), 4);
    look_again();
    cr_expect_eq(weft_maxprocs(0), 4);
    cr_expect_eq(weft_maxprocs_default(), 4);
    cr_expect_eq(weft_maxprocs(0), 3, "whatever the variable says");
}

Test(sched_maxprocs, the_variable_is_not_followed_and_can_be_left)
{
    v2("300000 100000\n");
    setenv("WEFT_MAXPROCS", "4", 1);
    run_debug("cpus=8", run_start_custom);
}

static void run_not_followed(void *arg)
{
    (void)arg;
    v2("500000 100000\n");
    look_again();
    cr_expect_eq(weft_maxprocs(0), 3);
}

Test(sched_maxprocs, following_can_be_switched_off)
{
    v2("300000 100000\n");
    run_debug("cpus=8,updatemaxprocs=0", run_not_followed);
}

/* Once a second, however often the monitor asks. */
static void run_rate(void *arg)
{
    (void)arg;
    v2("500000 100000\n");
    int64_t now = weft_now() + 60 * WEFT_SECOND; /* ahead of the monitor's own looks */
    look(now);
    test_until(weft_maxprocs(0) == 5);
    v2("400000 100000\n");
    for (int i = 0; i < 1000; i++) {
        look(now + WEFT_SECOND - 1);
        weft_yield();
    }
    cr_expect_eq(weft_maxprocs(0), 5);
    test_until((look(now += WEFT_SECOND), weft_maxprocs(0) == 4)); /* again, as the fiber that made the change before may not have ended */
}

Test(sched_maxprocs, files_are_read_once_a_second_at_most)
{
    v2("300000 100000\n");
    run_debug("cpus=8", run_rate);
}

/* Asked for at the same time as a change is followed: what was asked for remains. */
static void ask(void *arg)
{
    for (int i = 0; i < 200; i++) {
        int n = 1 + (i & 7);
        weft_maxprocs(n);
        *(int *)arg += weft_maxprocs(0) != n;
        weft_maxprocs_default();
    }
}

static void change_and_look(void *stop)
{
    for (int i = 0; !__atomic_load_n((int *)stop, __ATOMIC_RELAXED); i++) {
        v2(i & 1 ? "300000 100000\n" : "500000 100000\n");
        look(weft_now() + (i + 1) * 2 * WEFT_SECOND);
        weft_yield();
    }
}

static void run_race(void *arg)
{
    static int stop;
    int wrong = 0;
    (void)arg;
    weft_waitgroup asking = { 0 }, changing = { 0 };
    cr_assert_eq(weft_waitgroup_go(&changing, change_and_look, &stop), 0);
    cr_assert_eq(weft_waitgroup_go(&asking, ask, &wrong), 0);
    weft_waitgroup_wait(&asking);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    weft_waitgroup_wait(&changing);
    cr_expect_eq(wrong, 0);
}

Test(sched_maxprocs, what_is_asked_for_meanwhile_remains)
{
    v2("300000 100000\n");
    run_debug("cpus=8", run_race);
}

/* With a seed there is one processor, whatever is asked. */
static void run_seeded(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_maxprocs(4), 1);
    cr_expect_eq(weft_maxprocs_default(), 1);
    look_again();
    cr_expect_eq(weft_maxprocs(0), 1);
}

Test(sched_maxprocs, a_seed_keeps_it_at_one)
{
    v2("300000 100000\n");
    run_debug("cpus=8,schedseed=7", run_seeded);
}

/* ---- throttling, and a real group ------------------------------------------------------------------------------- */

static void run_throttled(void *arg)
{
    struct cgroup_throttled t;
    (void)arg;
    cr_expect(maxprocs_throttled(&t));
    cr_expect_eq(t.throttled, 7);
    cr_expect_eq(metric_u64("/weft/cpu/throttled/periods:periods"), 7);
    cr_expect_float_eq(metric_f64("/weft/cpu/throttled/time:cpu-seconds"), 0.123456, 1e-9);
}

Test(sched_maxprocs, throttled_periods_can_be_read)
{
    v2("300000 100000\n");
    put("/sys/fs/cgroup/app.slice/one/cpu.stat", "nr_periods 50\nnr_throttled 7\nthrottled_usec 123456\n");
    run_debug(NULL, run_throttled);
}

static int spun_enough;
static void spin(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&spun_enough, __ATOMIC_RELAXED))
        ;
}

static void run_in_group(void *arg)
{
    struct cgroup_throttled t;
    (void)arg;
    printf("%d", weft_maxprocs(0));
    real_quota("420000");
    test_until(weft_maxprocs(0) == 5);
    real_quota("5000"); /* a twentieth of one CPU, which we get on a busy machine too */
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 4; i++)
        weft_waitgroup_go(&wg, spin, NULL);
    test_until(maxprocs_throttled(&t) && t.periods > 0 && t.throttled > 0);
    __atomic_store_n(&spun_enough, 1, __ATOMIC_RELAXED);
    real_quota("max");
    weft_waitgroup_wait(&wg);
    printf(" 1\n");
}

static void in_group(void *arg)
{
    (void)arg;
    unsetenv("WEFT_DEBUG");
    real_enter("250000");
    run_debug("cpus=8", run_in_group);
}

Test(sched_maxprocs, a_real_group) { in_real_group(in_group, "3 1\n"); }

/* ---- without memory ----------------------------------------------------------------------------------------------- */

static bool refused;
static char told[200]; /* by the log; and how often */
static int ntold;

static void remember_refusal(void *arg, const char *line)
{
    (void)arg;
    if (strstr(line, "no memory for") == NULL)
        return;
    snprintf(told, sizeof told, "%s", line);
    ntold++;
}

static int run_failing(unsigned nth, int procs, const char *more, weft_fn *fn)
{
    char debug[100];
    w_fmt(debug, sizeof debug, "failmem=%u,gcstress=0%s", nth, more);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    cfg.log = remember_refusal;
    ntold = 0;
    return weft_run(fn, NULL, &cfg);
}

static void allocates(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++) {
        cr_assert_not_null(weft_alloc(64));
        for (volatile int k = 0; k < 10000; k++) {} /* so that others take part */
    }
}

static void grows_twice(void *arg)
{
    (void)arg;
    weft_mem_stats st = { .size = sizeof st };
    refused = (weft_maxprocs(16), weft_maxprocs(0) != 16);
    weft_maxprocs(16);
    cr_expect_eq(weft_maxprocs(0), 16, "only one request was refused");
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 64; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, allocates, NULL), 0);
    weft_waitgroup_wait(&wg);
    cr_assert_eq(weft_read_mem_stats(&st), 0);
    cr_expect(st.mallocs >= 6400 && st.heap_objects < 1000000 && st.heap_alloc <= st.heap_inuse, "%lu, %lu objects, %lu bytes in %lu",
              (unsigned long)st.mallocs, (unsigned long)st.heap_objects, (unsigned long)st.heap_alloc, (unsigned long)st.heap_inuse);
    weft_maxprocs(2);
}

/* Each request for memory that more processors make is refused once: then there are as many as before, the log says so, and they can be had later. */
Test(sched_maxprocs, refused_processors_leave_nothing)
{
    int times = 0;
    for (unsigned nth = 1; nth < 120; nth++) {
        refused = false;
        if (run_failing(nth, 2, "", grows_twice) != 0)
            continue;
        times += refused;
        cr_expect_eq(ntold, refused, "%d lines, the last: %s", ntold, told);
        cr_expect(!refused || strcmp(told, "weft: no memory for 16 processors: there remain 2") == 0, "%s", told);
    }
    cr_expect(times > 14, "%d refusals hit", times);
}

static void follows_at_last(void *arg)
{
    (void)arg;
    if (weft_maxprocs(0) != 3) /* the search for the group was refused */
        return;
    v2("1600000 100000\n");
    int64_t now = weft_now();
    test_until((look(now += 60 * WEFT_SECOND), weft_maxprocs(0) == 16));
}

/* With the next look. */
Test(sched_maxprocs, a_refused_default_is_tried_again)
{
    int times = 0;
    for (unsigned nth = 1; nth < 120; nth++) {
        v2("300000 100000\n");
        if (run_failing(nth, 0, ",cpus=32", follows_at_last) != 0)
            continue;
        times += ntold;
        cr_expect_leq(ntold, 1);
        cr_expect(ntold == 0 || strcmp(told, "weft: no memory for 16 processors: there remain 3; it is tried again") == 0, "%s", told);
    }
    cr_expect(times > 10, "%d refusals hit", times);
}
