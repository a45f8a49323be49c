/* Metrics of fibers, threads, CPU time, stops, latencies and locks. */
#include "heap_test.h"
#include "metrics_test.h"
#include "waiting.h"
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static weft_waitgroup wg;

static void run_exactly(int procs, weft_fn *fn) { test_run_debug(procs, "gcstress=0", fn, NULL); }

static uint64_t fibers(void) { return metric_u64("/sched/goroutines:goroutines"); }

/* ---- what fibers are doing ------------------------------------------------------------------------------------------------------- */

static weft_chan *gate;
static int there, leave;

static void wait_at_gate(void *arg)
{
    (void)arg;
    count_up(&there);
    weft_chan_recv(gate, NULL);
}

static void block(void *arg)
{
    (void)arg;
    weft_blocking_begin();
    count_up(&there);
    while (count_now(&leave) == 0)
        usleep(100);
    weft_blocking_end();
}

static void nothing(void *arg) { (void)arg; }

static void states(void *arg)
{
    (void)arg;
    enum { WAIT = 100, READY = 50, BLOCK = 7 };
    there = leave = 0;
    gate = weft_chan_make(0, 0);
    uint64_t made = metric_u64("/sched/goroutines-created:goroutines");
    cr_assert_eq(metric_u64("/sched/goroutines/running:goroutines"), 1, "who asks");
    cr_assert_eq(fibers(), 1);
    for (int i = 0; i < WAIT; i++)
        cr_assert_eq(weft_go(wait_at_gate, NULL), 0);
    for (int i = 0; i < BLOCK; i++)
        cr_assert_eq(weft_go(block, NULL), 0);
    test_until(count_now(&there) == WAIT + BLOCK && receivers(gate) == WAIT);
    uint64_t taken = metric_u64("/weft/sched/hand-offs:processors");
    for (int i = 0; i < READY; i++)
        cr_assert_eq(weft_go(nothing, NULL), 0);
    weft_metric m[] = {
        { .name = "/sched/goroutines:goroutines" }, { .name = "/sched/goroutines/waiting:goroutines" },
        { .name = "/sched/goroutines/runnable:goroutines" }, { .name = "/sched/goroutines/not-in-go:goroutines" },
        { .name = "/sched/goroutines/running:goroutines" }, { .name = "/sched/goroutines-created:goroutines" },
    };
    cr_assert_eq(weft_metrics_read(m, 6), 0);
    /* One processor, and it is ours; should it have been taken from us meanwhile, those who were ready by then may have run. */
    taken = metric_u64("/weft/sched/hand-offs:processors") - taken;
    cr_assert(m[2].u64 == READY || (taken != 0 && m[2].u64 < READY), "%lu", m[2].u64);
    cr_assert_eq(m[0].u64, 1 + WAIT + BLOCK + m[2].u64);
    cr_assert_eq(m[1].u64, WAIT);
    cr_assert_eq(m[3].u64, BLOCK);
    cr_assert_eq(m[4].u64, 1);
    cr_assert_eq(m[5].u64 - made, WAIT + BLOCK + READY);
    count_up(&leave);
    weft_chan_close(gate);
    test_until(fibers() == 1);
    cr_assert_eq(metric_u64("/sched/goroutines-created:goroutines") - made, WAIT + BLOCK + READY);
}

Test(metrics_sched, states_of_fibers) { run_exactly(1, states); }

/* Fibers of the runtime count here, and not in weft_num_fibers. */
static void system_fibers(void *arg)
{
    (void)arg;
    cr_assert_eq((int64_t)fibers(), weft_num_fibers());
    for (int i = 0; i < 100000; i++)
        weft_alloc(100);
    weft_gc(); /* makes the sweeper */
    test_until((int64_t)fibers() > weft_num_fibers());
}

Test(metrics_sched, fibers_of_the_runtime_count) { run_exactly(2, system_fibers); }

static void spin(void *arg)
{
    (void)arg;
    count_up(&there);
    while (count_now(&leave) == 0)
        ;
}

/* One processor: those who spin lose it, and go on without. */
static void taken(void *arg)
{
    (void)arg;
    enum { N = 3 };
    there = leave = 0;
    uint64_t threads = metric_u64("/sched/threads/total:threads"), made = metric_u64("/weft/sched/threads/created:threads");
    cr_assert_eq(metric_u64("/weft/sched/hand-offs:processors"), 0);
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_go(spin, NULL), 0);
    test_until(count_now(&there) == N);
    test_until(metric_u64("/sched/goroutines/not-in-go:goroutines") == N);
    cr_assert(metric_u64("/weft/sched/hand-offs:processors") >= N);
    cr_assert(metric_u64("/weft/sched/threads/created:threads") >= made + N);
    cr_assert(metric_u64("/sched/threads/total:threads") >= threads + N);
    count_up(&leave);
    test_until(metric_u64("/sched/goroutines/not-in-go:goroutines") == 0);
}

Test(metrics_sched, fibers_without_a_processor, SIGNALS_AT_ONCE) { run_exactly(1, taken); }

static void lock_and_end(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
}

static void threads_end(void *arg)
{
    (void)arg;
    uint64_t ended = metric_u64("/weft/sched/threads/ended:threads");
    for (int i = 0; i < 5; i++) {
        weft_waitgroup_go(&wg, lock_and_end, NULL);
        weft_waitgroup_wait(&wg);
    }
    test_until(metric_u64("/weft/sched/threads/ended:threads") >= ended + 4); /* one may have been on the main thread, which stays */
    uint64_t total = metric_u64("/sched/threads/total:threads");
    cr_assert(total >= 2 && total <= 30, "%lu", total);
}

Test(metrics_sched, threads_end_with_their_fibers) { run_exactly(2, threads_end); }

/* ---- CPU time: as of the end of the last cycle ----------------------------------------------------------------------------------------- */

struct cpu { double total, idle, user, pause; };
static int cpu_read(struct cpu *to)
{
    weft_metric m[] = { { .name = "/cpu/classes/total:cpu-seconds" }, { .name = "/cpu/classes/idle:cpu-seconds" },
                        { .name = "/cpu/classes/user:cpu-seconds" }, { .name = "/cpu/classes/gc/pause:cpu-seconds" } };
    int err = weft_metrics_read(m, 4);
    *to = (struct cpu){ m[0].f64, m[1].f64, m[2].f64, m[3].f64 };
    return err;
}

static struct cpu cpu_now(void)
{
    struct cpu c;
    cr_assert_eq(cpu_read(&c), 0);
    return c;
}

static struct cpu cpu_between(struct cpu a, struct cpu b) { return (struct cpu){ b.total - a.total, b.idle - a.idle, b.user - a.user, b.pause - a.pause }; }

static void cpu_time(void *arg)
{
    (void)arg;
    enum { PROCS = 2 };
    struct cpu c = cpu_now();
    cr_assert(c.total == 0 && c.idle == 0 && c.user == 0 && c.pause == 0, "before the first cycle nothing is known");
    int64_t outside = weft_now();
    weft_gc();
    struct cpu before = cpu_now();
    int64_t t0 = weft_now();
    cr_assert(before.total > 0 && before.pause > 0);
    weft_sleep(100 * WEFT_MILLISECOND);
    struct cpu still = cpu_now();
    cr_assert_eq(still.total, before.total, "nothing changes between cycles");
    int64_t slept = weft_now() - t0;
    weft_gc();
    outside = weft_now() - outside;
    struct cpu d = cpu_between(before, cpu_now());
    cr_assert(d.total >= PROCS * (double)slept / 1e9 && d.total <= PROCS * (double)outside / 1e9, "%g in %ld ns", d.total, (long)outside);
    /* Both are idle while we sleep; who is woken may be long on his way. */
    cr_assert(d.idle >= (double)slept / 1e9 && d.idle <= d.total, "idle for %g of %g", d.idle, d.total);
    before = cpu_now();
    for (t0 = weft_now(); weft_now() - t0 < 100 * WEFT_MILLISECOND;)
        ;
    double busy = (double)(weft_now() - t0) / 1e9;
    weft_gc();
    d = cpu_between(before, cpu_now());
    cr_assert(d.user >= busy * 0.9, "the program had %g of %g, and worked for %g", d.user, d.total, busy);
    cr_assert(d.user + d.idle + d.pause <= d.total * 1.001, "%g and %g and %g are more than %g", d.user, d.idle, d.pause, d.total);
}

Test(metrics_sched, cpu_time_by_class) { run_exactly(2, cpu_time); }

/* A processor that is withdrawn is none that idles. */
static void cpu_of_fewer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3; i++) {
        weft_maxprocs(4);
        weft_sleep(5 * WEFT_MILLISECOND);
        weft_maxprocs(1);
        int64_t t0 = weft_now();
        weft_gc();
        struct cpu before = cpu_now();
        weft_sleep(20 * WEFT_MILLISECOND);
        weft_gc();
        double all = (double)(weft_now() - t0) / 1e9;
        struct cpu d = cpu_between(before, cpu_now());
        cr_assert(d.total <= all && d.idle <= d.total && d.idle > 0, "%g idle of %g in %g s", d.idle, d.total, all);
    }
}

Test(metrics_sched, cpu_time_of_fewer_processors) { run_exactly(4, cpu_of_fewer); }

static double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct childs { int err; double slept; struct cpu cpu; };
static void child_sleeps(int to)
{
    struct childs c;
    double t0 = clock_seconds();
    usleep(100000);
    c.slept = clock_seconds() - t0;
    weft_gc();
    c.err = cpu_read(&c.cpu);
    _exit(write(to, &c, sizeof c) != sizeof c);
}

/* Before the child first calls weft, the fiber that forked is at work there as far as anybody knows; no other is, whatever ran in the parent. */
static void cpu_of_child(void *arg)
{
    enum { PROCS = 4 };
    int p[2];
    struct childs c;
    (void)arg;
    cr_assert_eq(weft_waitgroup_go(&wg, spin, NULL), 0);
    test_until(count_now(&there) == 1);
    weft_gc();
    struct cpu before = cpu_now();
    cr_assert_eq(pipe(p), 0);
    pid_t pid = fork();
    if (pid == 0)
        child_sleeps(p[1]);
    cr_assert(pid > 0);
    close(p[1]);
    weft_blocking_begin();
    ssize_t got = read(p[0], &c, sizeof c);
    waitpid(pid, NULL, 0);
    weft_blocking_end();
    close(p[0]);
    count_up(&leave);
    weft_waitgroup_wait(&wg);
    cr_assert(got == sizeof c && c.err == 0);
    struct cpu d = cpu_between(before, c.cpu);
    cr_assert(d.idle >= (PROCS - 1) * c.slept && d.user >= c.slept * 0.999, "%g idle and %g the program's of %g in %g s", d.idle, d.user, d.total,
              c.slept);
}

Test(metrics_sched, cpu_time_in_the_child_of_a_fork, CHILD_GOES_ON)
{
    test_needs_a_kernel(); /* the child of an emulator's fork comes to an end of its own */
    run_exactly(4, cpu_of_child);
}

/* ---- stops --------------------------------------------------------------------------------------------------------------------------------- */

struct stops { uint64_t stopping_gc, stopping_other, total_gc, total_other, pauses, beside; };
static struct stops stops_now(void)
{
    struct stops s = { metric_hist("/sched/pauses/stopping/gc:seconds", NULL), metric_hist("/sched/pauses/stopping/other:seconds", NULL),
                       metric_hist("/sched/pauses/total/gc:seconds", NULL), metric_hist("/sched/pauses/total/other:seconds", NULL),
                       metric_hist("/gc/pauses:seconds", NULL), metric_beside() };
    cr_assert_eq(s.stopping_gc, s.total_gc);
    cr_assert_eq(s.stopping_other, s.total_other);
    cr_assert_eq(s.pauses, s.total_gc);
    return s;
}

static void check_stops(struct stops *before, uint64_t cycles, uint64_t other)
{
    struct stops now = stops_now();
    cr_assert_eq(now.total_gc - before->total_gc, cycles + now.beside - before->beside);
    cr_assert_eq(now.total_other - before->total_other, other);
    *before = now;
}

static void pauses(void *arg)
{
    (void)arg;
    weft_mem_stats *st = weft_alloc_noscan(sizeof *st);
    st->size = sizeof *st;
    struct stops s = stops_now();
    check_stops(&s, 0, 0); /* reading stops nothing */
    for (int i = 0; i < 5; i++)
        weft_gc();
    check_stops(&s, 5, 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_read_mem_stats(st), 0);
    check_stops(&s, 0, 3);
    weft_maxprocs(weft_maxprocs(0) + 1);
    check_stops(&s, 0, 1);
    cr_assert_eq(metric_hist("/weft/sched/pauses/total/mem-stats:seconds", NULL), 3);
    cr_assert_eq(metric_hist("/weft/sched/pauses/stopping/maxprocs:seconds", NULL), 1);
    cr_assert_eq(metric_hist("/weft/sched/pauses/total/dump:seconds", NULL), 0);
    /* The same stops as weft_read_stop_stats has: the longest one is in the last bucket that is not empty. */
    static weft_stop_stats stats;
    uint64_t counts[WEFT_METRIC_BUCKETS];
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_GC, &stats), 0);
    weft_metric m = metric_read("/gc/pauses:seconds", WEFT_METRIC_HIST, counts);
    cr_assert_eq(metric_sum(&m), stats.count);
    uint32_t top = m.buckets - 1;
    while (counts[top] == 0)
        top--;
    double longest = (double)stats.stopped_max_ns / 1e9;
    cr_assert(longest >= m.bounds[top] && longest < m.bounds[top + 1], "%g is not in [%g, %g)", longest, m.bounds[top], m.bounds[top + 1]);
}

Test(metrics_sched, stops_by_class_and_reason) { run_exactly(2, pauses); }

/* ---- from runnable to running ----------------------------------------------------------------------------------------------------------------- */

static void yielder(void *arg)
{
    for (long n = *(long *)arg; n > 0; n--)
        weft_yield();
}

/* One in eight, however fast they come. */
static void latencies(void *arg)
{
    (void)arg;
    long each = 200000;
    uint64_t before = metric_hist("/sched/latencies:seconds", NULL);
    for (int i = 0; i < 3; i++)
        weft_waitgroup_go(&wg, yielder, &each);
    weft_waitgroup_wait(&wg);
    uint64_t counted = metric_hist("/sched/latencies:seconds", NULL) - before, want = (uint64_t)each * 3 / 8;
    cr_assert(counted > want * 7 / 10 && counted < want * 14 / 10, "%lu counted, %lu expected", counted, want);
}

Test(metrics_sched, one_wakeup_in_eight_is_counted) { run_exactly(1, latencies); }

static int64_t first_ran_ns;
static void note_time(void *arg)
{
    int64_t never = 0;
    (void)arg;
    __atomic_compare_exchange_n(&first_ran_ns, &never, weft_now(), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Those who became ready before somebody spun have waited for about as long, seen from outside. */
static void long_wait(void *arg)
{
    (void)arg;
    enum { N = 1000 };
    uint64_t before[WEFT_METRIC_BUCKETS], counts[WEFT_METRIC_BUCKETS];
    metric_hist("/sched/latencies:seconds", before);
    first_ran_ns = 0;
    int64_t began = weft_now();
    for (int i = 0; i < N; i++)
        weft_waitgroup_go(&wg, note_time, NULL);
    int64_t made = weft_now();
    while (weft_now() - made < 5 * WEFT_MILLISECOND)
        ;
    weft_waitgroup_wait(&wg);
    double least = (double)(first_ran_ns - made) / 1e9, most = (double)(weft_now() - began) / 1e9;
    weft_metric m = metric_read("/sched/latencies:seconds", WEFT_METRIC_HIST, counts);
    uint64_t longer = 0, all = 0;
    for (uint32_t i = 0; i < m.buckets; i++) {
        uint64_t n = counts[i] - before[i];
        all += n;
        longer += m.bounds[i + 1] > least / 2 ? n : 0;
        cr_assert(n == 0 || m.bounds[i] <= most, "%lu are said to have waited for %g s", n, m.bounds[i]);
    }
    cr_assert(longer >= N / 8 / 3, "%lu of %lu waited for %g s", longer, all, least / 2);
}

Test(metrics_sched, latencies_tell_how_long) { run_exactly(1, long_wait); }

/* ---- locks ----------------------------------------------------------------------------------------------------------------------------- */

static weft_mutex mutex;
static weft_rwmutex rw;
static int64_t waited_ns;

static void lock_mutex(void) { weft_mutex_lock(&mutex), weft_mutex_unlock(&mutex); }
static void lock_timed(void) { cr_assert_eq(weft_mutex_lock_until(&mutex, weft_now() + 10 * WEFT_MILLISECOND), -ETIMEDOUT); }
static void lock_read(void) { weft_rwmutex_rlock(&rw), weft_rwmutex_runlock(&rw); }
static void lock_write(void) { weft_rwmutex_lock(&rw), weft_rwmutex_unlock(&rw); }

/* Clocks of the outside around what is measured. */
static void waiter(void *arg)
{
    int64_t since = weft_now();
    ((void (*)(void))arg)();
    __atomic_fetch_add(&waited_ns, weft_now() - since, __ATOMIC_ACQ_REL);
}

static size_t parked(void) { return parked_on(&mutex) + parked_as(&rw, LOT_READER) + parked_as(&rw, LOT_WRITER); }

static void locks(void *arg)
{
    void (*const how[])(void) = { lock_mutex, lock_timed, lock_read, lock_write };
    (void)arg;
    enum { N = 10 };
    for (int k = 0; k < 4; k++) {
        double before = metric_f64("/sync/mutex/wait/total:seconds");
        waited_ns = 0;
        weft_mutex_lock(&mutex);
        weft_rwmutex_lock(&rw);
        for (int i = 0; i < N; i++)
            weft_waitgroup_go(&wg, waiter, (void *)how[k]);
        if (how[k] != lock_timed)
            test_until(parked() == N);
        int64_t since = weft_now();
        weft_sleep(20 * WEFT_MILLISECOND);
        double held = N * (double)(weft_now() - since) / 1e9;
        if (how[k] == lock_timed)
            weft_waitgroup_wait(&wg);
        weft_mutex_unlock(&mutex);
        weft_rwmutex_unlock(&rw);
        weft_waitgroup_wait(&wg);
        double wait = metric_f64("/sync/mutex/wait/total:seconds") - before, outside = (double)waited_ns / 1e9;
        /* Threads that slept for locks of the runtime count, too. */
        double inside = metric_f64("/weft/sync/runtime-locks/wait/total:seconds");
        cr_assert(wait <= outside + inside, "%d: %g s, seen from outside %g", k, wait, outside);
        cr_assert(wait >= (how[k] == lock_timed ? N * 0.009 : held * 0.99), "%d: %g s, they were held off for %g", k, wait, held);
    }
}

Test(metrics_sched, time_on_mutexes_and_read_write_locks)
{
    run_exactly(1, locks);
    run_exactly(2, locks);
}

/* Held until somebody sleeps for it. */
static struct lock inner = LOCK_INIT(RANK_LEAF);
static void *hold_inner(void *arg)
{
    lock_take(&inner);
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 100000 && load_rlx(&inner.word) != 2; i++) /* [LOCK]; rlx: looked at again */
        usleep(100);
    usleep(1000);
    lock_drop(&inner);
    return NULL;
}

static void inner_locks(void *arg)
{
    (void)arg;
    pthread_t t;
    int held = 0;
    double slept = -metric_f64("/weft/sync/runtime-locks/wait/total:seconds"), before = metric_f64("/sync/mutex/wait/total:seconds");
    cr_assert_eq(pthread_create(&t, NULL, hold_inner, &held), 0);
    while (__atomic_load_n(&held, __ATOMIC_ACQUIRE) == 0)
        usleep(10);
    lock_take(&inner);
    lock_drop(&inner);
    pthread_join(t, NULL);
    slept += metric_f64("/weft/sync/runtime-locks/wait/total:seconds");
    cr_assert(slept > 0);
    cr_assert(metric_f64("/sync/mutex/wait/total:seconds") - before >= slept * 0.99);
}

Test(metrics_sched, time_on_locks_of_the_runtime) { run_exactly(1, inner_locks); }

/* ---- descriptors, off-heap memory ------------------------------------------------------------------------------------------------------ */

static weft_fd *reader;
static void read_one(void *arg)
{
    char c;
    (void)arg;
    cr_assert_eq(weft_read(reader, &c, 1), 1);
}

static void descriptors(void *arg)
{
    (void)arg;
    int ends[2];
    weft_fd *w;
    cr_assert_eq(metric_u64("/weft/io/descriptors:descriptors"), 0);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(weft_fd_open(ends[0], &reader), 0);
    cr_assert_eq(weft_fd_open(ends[1], &w), 0);
    cr_assert_eq(metric_u64("/weft/io/descriptors:descriptors"), 2);
    weft_waitgroup_go(&wg, read_one, NULL);
    test_until(metric_u64("/weft/io/waiting:fibers") == 1);
    cr_assert_eq(weft_write(w, "x", 1), 1);
    weft_waitgroup_wait(&wg);
    cr_assert_eq(metric_u64("/weft/io/waiting:fibers"), 0);
    weft_fd_close(reader);
    weft_fd_close(w);
    test_until(metric_u64("/weft/io/descriptors:descriptors") == 0);
    cr_assert(metric_u64("/weft/memory/off-heap/sched:bytes") > 0 && metric_u64("/weft/memory/off-heap/gc:bytes") > 0);
}

Test(metrics_sched, descriptors_and_who_waits_for_them) { run_exactly(2, descriptors); }

/* ---- who may read, and when ------------------------------------------------------------------------------------------------------------ */

static void *read_outside(void *arg)
{
    (void)arg;
    weft_metric m = { .name = "/sched/gomaxprocs:threads" };
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(weft_metrics_read(&m, 1), 0);
        cr_assert_eq(m.u64, 2);
    }
    return NULL;
}

Test(metrics_sched, a_thread_of_the_host_reads)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    weft_metric m = { .name = "/sched/goroutines/running:goroutines" };
    for (int life = 0; life < 3; life++) {
        cr_assert_eq(weft_metrics_read(&m, 1), -ESRCH);
        cr_assert_eq(weft_start(&cfg), 0);
        pthread_t t;
        cr_assert_eq(pthread_create(&t, NULL, read_outside, NULL), 0);
        read_outside(NULL);
        pthread_join(t, NULL);
        cr_assert_eq(metric_u64("/sched/goroutines/running:goroutines"), 0, "who asks is no fiber");
        cr_assert_eq(metric_u64("/sched/goroutines-created:goroutines"), 0, "counts begin anew");
        cr_assert_eq(metric_hist("/gc/pauses:seconds", NULL), 0);
        cr_assert_eq(weft_go(nothing, NULL), 0);
        weft_gc();
        cr_assert_eq(weft_stop(), 0);
    }
}

static struct metric_all shared[8];
static void read_all(void *arg)
{
    struct metric_all *a = arg;
    metric_all_init(a);
    for (int i = 0; i < 300; i++) {
        metric_all_read(a);
        if (i % 3 == 0)
            weft_yield();
    }
}

static void concurrent(void *arg)
{
    (void)arg;
    for (int i = 0; i < 8; i++) { /* on the smallest stacks there are */
        weft_go_opts opts = { .size = sizeof opts, .stack_size = 16 << 10 };
        cr_assert_eq(weft_go_opts_run(read_all, &shared[i], &opts), 0);
    }
    test_until(weft_num_fibers() == 1);
    for (int i = 0; i < 8; i++)
        cr_assert(metric_of(&shared[i], "/sched/goroutines-created:goroutines")->u64 >= (uint64_t)i + 2, "itself and those before");
}

Test(metrics_sched, reads_overlap) { run_exactly(4, concurrent); }
