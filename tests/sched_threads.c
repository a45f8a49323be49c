/* Fibers locked to their threads: which thread runs what, when a thread ends, and what a new one inherits. */
#include "base/base.h"
#include "sched/sched.h"
#include "sched/world.h"
#include "test.h"
#include "waiting.h"
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static w_noinline int tid(void) { return (int)syscall(SYS_gettid); }
static bool thread_exists(int t) { return syscall(SYS_tgkill, getpid(), t, 0) == 0; }
static void lock_thread(void) { cr_assert_eq(weft_lock_os_thread(), 0); }
static uint32_t depth(void) { return m_self()->cur->lock_depth; }

/* ---- wired ---------------------------------------------------------------------------------------------------------- */

static void answer(void *arg)
{
    weft_chan *c = arg;
    int x;
    while (weft_chan_recv(c, &x) == 1)
        weft_yield();
}

/* Everything that parks, and everything that may move. */
static void stays(void *arg)
{
    weft_chan *c = arg;
    static weft_mutex mutex;
    lock_thread();
    int mine = tid();
    for (int i = 0; i < 50; i++) {
        weft_yield();
        cr_assert_eq(tid(), mine);
        weft_chan_send(c, &i);
        cr_assert_eq(tid(), mine);
        weft_sleep(1000 * (i % 5));
        cr_assert_eq(tid(), mine);
        weft_mutex_lock(&mutex);
        weft_yield();
        cr_assert_eq(tid(), mine);
        weft_mutex_unlock(&mutex);
        weft_blocking_begin();
        weft_blocking_end();
        cr_assert_eq(tid(), mine);
        if (i % 10 == 0)
            weft_gc();
        if (i % 25 == 0)
            weft_maxprocs(1 + i / 25);
        cr_assert_eq(tid(), mine);
    }
    weft_unlock_os_thread();
}

static void run_stays(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    weft_chan *c = weft_chan_make(sizeof(int), 0);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_go(answer, c), 0);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, stays, c), 0);
    weft_waitgroup_wait(&wg);
    weft_chan_close(c);
}

Test(sched_threads, a_locked_fiber_keeps_its_thread)
{
    test_run_procs(1, run_stays, NULL);
    test_run_procs(4, run_stays, NULL);
}

static int wired; /* thread of the locked fiber; 0: none */
static int over;
static void never_there(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        cr_assert_neq(tid(), __atomic_load_n(&wired, __ATOMIC_ACQUIRE));
        weft_yield();
    }
}

static void run_alone(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 20; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, never_there, NULL), 0);
    for (int i = 0; i < 20; i++) {
        lock_thread();
        __atomic_store_n(&wired, tid(), __ATOMIC_RELEASE);
        for (int k = 0; k < 20; k++)
            k % 5 == 0 ? weft_sleep(20000) : weft_yield();
        __atomic_store_n(&wired, 0, __ATOMIC_RELEASE);
        weft_unlock_os_thread();
        weft_yield();
    }
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&wg);
}

Test(sched_threads, nothing_else_runs_on_its_thread)
{
    test_run_procs(4, run_alone, NULL);
    over = 0;
    test_run_procs(1, run_alone, NULL);
}

static void run_nesting(void *arg)
{
    (void)arg;
    weft_unlock_os_thread();
    cr_expect_eq(depth(), 0);
    for (int i = 0; i < 5; i++)
        lock_thread();
    for (int i = 0; i < 4; i++)
        weft_unlock_os_thread();
    cr_expect_eq(depth(), 1);
    cr_expect_not_null(m_self()->cur->bound, "still wired");
    weft_unlock_os_thread();
    cr_expect_null(m_self()->cur->bound);
    weft_unlock_os_thread();
    cr_expect_eq(depth(), 0);
    lock_thread();
    m_self()->cur->lock_depth = UINT32_MAX - 1;
    lock_thread();
    cr_expect_eq(weft_lock_os_thread(), -EOVERFLOW);
    cr_expect_eq(depth(), UINT32_MAX, "what failed is not counted");
    m_self()->cur->lock_depth = 1;
    weft_unlock_os_thread();
}

static void *thread_nesting(void *arg)
{
    lock_thread();
    lock_thread();
    weft_yield();
    weft_unlock_os_thread();
    weft_unlock_os_thread();
    weft_unlock_os_thread();
    weft_yield();
    return arg;
}

static void run_thread_nesting(void *arg)
{
    pthread_t t;
    (void)arg;
    cr_assert_eq(pthread_create(&t, NULL, thread_nesting, NULL), 0);
    weft_sleep(WEFT_MILLISECOND);
    pthread_join(t, NULL);
}

Test(sched_threads, locking_nests)
{
    test_run(run_nesting, NULL);
    test_run_procs(1, run_thread_nesting, NULL);
}

/* A locked fiber that yields all the time lets others run, and is let run itself (Go: TestYieldLockedProgress). */
static int steps[2];
static void step(void *arg)
{
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED);
        weft_yield();
    }
}

static void step_locked(void *arg)
{
    lock_thread();
    step(arg);
    weft_unlock_os_thread();
}

static void run_steps(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    steps[0] = steps[1] = 0;
    __atomic_store_n(&over, 0, __ATOMIC_RELEASE);
    cr_assert_eq(weft_waitgroup_go(&wg, step_locked, &steps[0]), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, step, &steps[1]), 0);
    test_until(__atomic_load_n(&steps[0], __ATOMIC_RELAXED) >= 1000 && __atomic_load_n(&steps[1], __ATOMIC_RELAXED) >= 1000);
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&wg);
}

Test(sched_threads, a_locked_fiber_that_yields_lets_others_run)
{
    test_run_procs(1, run_steps, NULL);
    test_run_procs(4, run_steps, NULL);
}

/* ---- the end of a locked fiber --------------------------------------------------------------------------------------- */

static void end_locked(void *arg)
{
    lock_thread();
    __atomic_store_n((int *)arg, tid(), __ATOMIC_RELEASE);
    weft_yield();
}

static void exit_locked(void *arg)
{
    for (int i = 0; i < 3; i++)
        lock_thread();
    weft_unlock_os_thread();
    __atomic_store_n((int *)arg, tid(), __ATOMIC_RELEASE);
    weft_exit();
}

static void end_unlocked(void *arg)
{
    lock_thread();
    weft_unlock_os_thread();
    __atomic_store_n((int *)arg, tid(), __ATOMIC_RELEASE);
}

static int started(int *t)
{
    test_until(__atomic_load_n(t, __ATOMIC_ACQUIRE) != 0);
    return *t;
}

static void run_ends(void *arg)
{
    (void)arg;
    lock_thread(); /* so that none of them gets the main thread */
    for (int i = 0; i < 20; i++) {
        int a = 0, b = 0, c = 0;
        cr_assert_eq(weft_go(end_locked, &a), 0);
        cr_assert_eq(weft_go(exit_locked, &b), 0);
        test_until(!thread_exists(started(&a)));
        test_until(!thread_exists(started(&b)));
        cr_assert_eq(weft_go(end_unlocked, &c), 0);
        cr_expect(thread_exists(started(&c)));
    }
    test_until(weft_num_fibers() == 1);
}

Test(sched_threads, a_fiber_that_ends_locked_takes_its_thread_along)
{
    test_run_procs(1, run_ends, NULL);
    test_run_procs(4, run_ends, NULL);
}

static void burn(void *arg)
{
    (void)arg;
    lock_thread();
}

static void run_burns(void *arg)
{
    (void)arg;
    lock_thread();
    for (int i = 0; i < 500; i++) {
        cr_assert_eq(weft_go(burn, NULL), 0);
        test_until(weft_num_fibers() == 1);
    }
    test_until(test_threads() < 20);
}

Test(sched_threads, five_hundred_threads_burnt_one_after_the_other)
{
    test_run_procs(2, run_burns, NULL);
}

/* The main thread cannot end: it is parked, and weft_run returns on it. */
static int there;
static void on_main_thread(void *arg)
{
    lock_thread();
    there = tid() == *(int *)arg;
}

static void run_main_thread(void *arg)
{
    for (int i = 0; i < 1000 && !there; i++) {
        cr_assert_eq(weft_go(on_main_thread, arg), 0);
        while (weft_num_fibers() != 1)
            weft_yield();
    }
    cr_expect(there);
    for (int i = 0; i < 100; i++) {
        weft_yield();
        weft_sleep(1000);
        cr_assert_neq(tid(), *(int *)arg);
    }
    cr_expect(thread_exists(*(int *)arg));
}

Test(sched_threads, the_main_thread_is_parked_and_weft_run_returns_on_it)
{
    int mine = tid();
    test_run_procs(1, run_main_thread, &mine);
    cr_expect_eq(tid(), mine);
    there = 0;
    test_run_procs(1, run_main_thread, &mine);
}

/* ---- new threads -------------------------------------------------------------------------------------------------------- */

#define SLACK 123457

static long slack_of(int t)
{
    char path[64];
    long v = -1;
    snprintf(path, sizeof path, "/proc/%d/timerslack_ns", t);
    FILE *f = fopen(path, "r");
    if (f != NULL) {
        if (fscanf(f, "%ld", &v) != 1)
            v = -1;
        fclose(f);
    }
    return v;
}

/* Threads that have the slack which only a tainted one was given. */
static int tainted(int *all)
{
    int n = 0;
    *all = 0;
    DIR *d = opendir("/proc/self/task");
    cr_assert_not_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            ++*all;
            n += slack_of(atoi(e->d_name)) == SLACK;
        }
    closedir(d);
    return n;
}

static void wait_locked(void *arg)
{
    lock_thread();
    weft_chan_recv(arg, NULL);
    weft_unlock_os_thread();
}

/* Makes threads by every way there is. */
static void need_threads(weft_waitgroup *wg, weft_chan *c, int threads)
{
    int all;
    for (int i = 0; i < 10; i++)
        cr_assert_eq(weft_waitgroup_go(wg, wait_locked, c), 0);
    for (int i = 0; i < 10; i++) {
        weft_gc(); /* helpers */
        weft_yield();
        weft_blocking_begin();
        weft_blocking_end();
    }
    test_until(world_helpers() != 0 && receivers(c) == 10 && (tainted(&all), all >= threads));
}

static void taint(void *arg)
{
    weft_waitgroup wg = { 0 };
    weft_chan *c = weft_chan_make(0, 0);
    int all, before;
    lock_thread();
    cr_assert_eq(prctl(PR_SET_TIMERSLACK, SLACK), 0);
    tainted(&before);
    need_threads(&wg, c, before + 10);
    cr_expect_eq(tainted(&all), 1, "new threads have what a locked fiber did to its own");
    cr_expect_geq(all, before + 10);
    weft_chan_close(c);
    weft_waitgroup_wait(&wg);
    cr_assert_eq(prctl(PR_SET_TIMERSLACK, 0), 0);
    weft_unlock_os_thread();
    (void)arg;
}

static void *taint_thread(void *arg)
{
    taint(arg);
    return NULL;
}

Test(sched_threads, a_new_thread_inherits_nothing_from_a_locked_one)
{
    cr_assert_eq(prctl(PR_SET_TIMERSLACK, SLACK), 0);
    if (slack_of(tid()) != SLACK)
        cr_skip_test("no timerslack_ns here");
    cr_assert_eq(prctl(PR_SET_TIMERSLACK, 0), 0);
    test_run_procs(4, taint, NULL);
}

Test(sched_threads, nor_from_one_of_the_host)
{
    pthread_t t;
    cr_assert_eq(prctl(PR_SET_TIMERSLACK, SLACK), 0);
    if (slack_of(tid()) != SLACK)
        cr_skip_test("no timerslack_ns here");
    cr_assert_eq(prctl(PR_SET_TIMERSLACK, 0), 0);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 4;
    cr_assert_eq(weft_start(&cfg), 0);
    cr_assert_eq(pthread_create(&t, NULL, taint_thread, NULL), 0);
    pthread_join(t, NULL);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- a thread of the host is given back as it was ---------------------------------------------------------------------------- */

static void expect_as_before(const sigset_t *mask, const stack_t *alt)
{
    sigset_t now_mask;
    stack_t now_alt;
    cr_assert_eq(pthread_sigmask(SIG_SETMASK, NULL, &now_mask), 0);
    cr_assert_eq(sigaltstack(NULL, &now_alt), 0);
    for (int s = 1; s < 64; s++)
        cr_expect_eq(sigismember(&now_mask, s), sigismember(mask, s), "signal %d", s);
    cr_expect_eq(now_alt.ss_flags, alt->ss_flags);
    if (!(alt->ss_flags & SS_DISABLE))
        cr_expect_eq(now_alt.ss_sp, alt->ss_sp);
}

static void *come_and_go(void *arg)
{
    static char stack[65536];
    sigset_t mask, got;
    stack_t alt = { .ss_sp = stack, .ss_size = sizeof stack }, none = { .ss_flags = SS_DISABLE };
    sigemptyset(&mask);
    sigaddset(&mask, SIGURG);
    sigaddset(&mask, SIGUSR1);
    cr_assert_eq(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
    cr_assert_eq(sigaltstack(&none, NULL), 0);
    cr_assert_eq(weft_attach(), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &got);
    cr_expect_eq(sigismember(&got, SIGURG), 0, "it could not be stopped");
    cr_expect_eq(weft_detach(), 0);
    expect_as_before(&mask, &none);
    cr_assert_eq(weft_attach(), 0); /* the host puts in its own stack in between */
    cr_assert_eq(sigaltstack(&alt, NULL), 0);
    cr_expect_eq(weft_detach(), 0);
    expect_as_before(&mask, &alt);
    cr_assert_eq(weft_attach(), 0);
    cr_expect_eq(weft_detach(), 0);
    expect_as_before(&mask, &alt);
    sigaltstack(&none, NULL);
    return arg;
}

Test(sched_threads, a_thread_of_the_host_is_left_as_it_was)
{
    pthread_t t;
    cr_assert_eq(weft_start(NULL), 0);
    cr_assert_eq(pthread_create(&t, NULL, come_and_go, NULL), 0);
    pthread_join(t, NULL);
    cr_assert_eq(weft_stop(), 0);
}
