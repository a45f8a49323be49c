/* What weft_run, weft_start, weft_stop and the calls about a fiber's own life return, and in which order things happen. */
#include "base/rng.h"
#include "os/clock.h"
#include "sched/sched.h"
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Not inlined: the address of errno is that of a thread, and a fiber may change it. */
static w_noinline int errno_get(void) { return errno; }
static w_noinline void errno_set(int e) { errno = e; }

static void nothing(void *arg) { (void)arg; }
static void set_flag(void *arg) { __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE); }
static int flag(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* What the runtime said. */
static char said[8192];
static size_t said_len;
static void say(void *arg, const char *line)
{
    (void)arg;
    size_t n = strlen(line), room = sizeof said - 2 - said_len;
    n = n < room ? n : room;
    memcpy(said + said_len, line, n);
    said_len += n;
    said[said_len++] = '\n';
}

/* ---- results ---------------------------------------------------------------------------------------------- */

static void run_results(void *arg)
{
    (void)arg;
    cr_expect(weft_running());
    cr_expect_eq(weft_run(nothing, NULL, NULL), -EALREADY);
    cr_expect_eq(weft_start(NULL), -EALREADY);
    cr_expect_eq(weft_stop(), -EPERM);
    cr_expect_eq(weft_attach(), 0);
    cr_expect_eq(weft_detach(), -EPERM);
}

static void *thread_results(void *arg)
{
    (void)arg;
    cr_expect(weft_running());
    cr_expect_eq(weft_run(nothing, NULL, NULL), -EALREADY);
    cr_expect_eq(weft_start(NULL), -EALREADY);
    cr_expect_eq(weft_detach(), 0);
    return NULL;
}

static void with_thread(void *arg)
{
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, arg, NULL), 0);
    pthread_join(t, NULL);
}

static void *thread_stop(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_stop(), -EPERM, "weft_run ends with its main fiber only");
    return NULL;
}

Test(life_run, results_of_run)
{
    cr_expect_not(weft_running());
    test_run(run_results, NULL);
    cr_expect_not(weft_running());
    test_run(with_thread, (void *)(uintptr_t)thread_results);
    test_run(with_thread, (void *)(uintptr_t)thread_stop);
    cr_expect_eq(weft_run(NULL, NULL, NULL), -EINVAL);
}

static void on_calling_thread(void *arg)
{
    cr_assert_eq(gettid(), *(pid_t *)arg);
}

Test(life_run, the_main_fiber_begins_on_the_calling_thread)
{
    pid_t mine = gettid();
    for (int i = 0; i < 300; i++)
        test_run_procs(4, on_calling_thread, &mine);
}

static void stop_from_fiber(void *arg)
{
    cr_expect_eq(weft_stop(), -EPERM);
    cr_expect_eq(weft_start(NULL), -EALREADY);
    set_flag(arg);
}

Test(life_run, results_of_start)
{
    int done = 0;
    cr_assert_eq(weft_start(NULL), 0);
    cr_expect(weft_running());
    cr_expect_eq(weft_fiber_id(), 0);
    cr_expect_eq(weft_start(NULL), -EALREADY);
    cr_expect_eq(weft_run(nothing, NULL, NULL), -EALREADY);
    cr_assert_eq(weft_go(stop_from_fiber, &done), 0);
    test_until(flag(&done));
    thread_results(NULL);
    cr_expect_eq(weft_attach(), 0);
    cr_expect_eq(weft_attach(), 0);
    cr_expect_eq(weft_detach(), 0);
    cr_expect_eq(weft_detach(), 0);
    cr_expect_eq(weft_stop(), 0);
    cr_expect_not(weft_running());
    cr_expect_eq(weft_stop(), -ESRCH);
}

Test(life_run, bad_settings_are_named)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.log = say;
    cfg.maxprocs = -3;
    cr_expect_eq(weft_run(nothing, NULL, &cfg), -EINVAL);
    cr_expect_not_null(strstr(said, "maxprocs"), "%s", said);
    cfg.maxprocs = 0;
    cfg.debug = "gcstres=1";
    said_len = 0;
    cr_expect_eq(weft_start(&cfg), -EINVAL);
    cr_expect_not_null(strstr(said, "gcstres"), "%s", said);
    cfg.debug = NULL;
    cfg.size = 3;
    cr_expect_eq(weft_start(&cfg), -EINVAL);
    cr_expect_not(weft_running());
    cfg.size = sizeof cfg;
    cr_expect_eq(weft_run(nothing, NULL, &cfg), 0, "a start that failed leaves nothing behind");
}

Test(life_run, before_the_start_and_after_the_end)
{
    for (int i = 0; i < 2; i++) {
        cr_expect_not(weft_running());
        cr_expect_eq(weft_go(nothing, NULL), -ESRCH);
        cr_expect_eq(weft_go_opts_run(nothing, NULL, NULL), -ESRCH);
        cr_expect_eq(weft_attach(), -ESRCH);
        cr_expect_eq(weft_detach(), 0);
        cr_expect_eq(weft_stop(), -ESRCH);
        cr_expect_eq(weft_fiber_id(), 0);
        cr_expect_eq(weft_life(), (uint64_t)i);
        cr_expect_geq(weft_num_cpu(), 1);
        weft_mem_stats st = { .size = sizeof st };
        cr_expect_eq(weft_read_mem_stats(&st), -ESRCH);
        test_run(nothing, NULL);
    }
}

static void call_alloc(void *arg) { (void)arg; weft_alloc(16); }
static void call_yield(void *arg) { (void)arg; weft_yield(); }
static void call_exit(void *arg) { (void)arg; weft_exit(); }

static void exit_on_thread(void *arg)
{
    (void)arg;
    if (weft_start(NULL) == 0)
        weft_exit();
}

static void expect_fatal(void (*fn)(void *), const char *text)
{
    static struct test_output out;
    test_fork(&out, fn, NULL);
    cr_expect_eq(out.term_signal, SIGABRT, "%s", out.text);
    cr_expect_not_null(strstr(out.text, text), "no \"%s\" in: %s", text, out.text);
}

Test(life_run, calls_with_no_error_to_return_end_the_program_clearly)
{
    expect_fatal(call_alloc, "weft: fatal: a weft function was called while the runtime does not run");
    expect_fatal(call_yield, "weft: fatal: a weft function was called while the runtime does not run");
    expect_fatal(call_exit, "weft: fatal: a weft function was called while the runtime does not run");
    expect_fatal(exit_on_thread, "weft: fatal: weft_exit called on a thread of the host");
}

/* ---- fibers in user code at the end --------------------------------------------------------------------------- */

static int inside, release;
static void spin_outside(void *arg)
{
    (void)arg;
    set_flag(&inside);
    while (!flag(&release))
        ;
}

static void leave_spinner(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_go(spin_outside, NULL), 0);
    while (!flag(&inside))
        weft_yield();
}

/* The spinner is on another thread than that which called weft_run. */
static void leave_spinner_elsewhere(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    leave_spinner(arg);
}

Test(life_run, a_fiber_that_does_not_come_back_makes_it_busy)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.log = say;
    cfg.maxprocs = 2;
    cfg.stop_timeout_ms = 20;
    cr_expect_eq(weft_run(leave_spinner_elsewhere, NULL, &cfg), -EBUSY);
    cr_expect_not_null(strstr(said, "stop time-out"), "%s", said);
    cr_expect_not(weft_running());
    cr_expect_eq(weft_run(nothing, NULL, NULL), -EBUSY);
    cr_expect_eq(weft_start(NULL), -EBUSY);
    cr_expect_eq(weft_go(nothing, NULL), -ESRCH);
    cr_expect_eq(weft_stop(), -ESRCH);
    /* It still may come back: its thread ends then. */
    int threads = test_threads();
    set_flag(&release);
    test_until(test_threads() < threads);
}

/* In user code till the process has stood still, and then a bit longer. */
static void over_a_standstill(void *arg)
{
    (void)arg;
    set_flag(&inside);
    for (int64_t last = os_now_ns(), now = last; now - last < 300 * WEFT_MILLISECOND; now = os_now_ns()) {
        last = now;
        usleep(1000);
    }
    usleep(20000);
}

static void leave_before_a_standstill(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    cr_assert_eq(weft_go(over_a_standstill, NULL), 0);
    while (!flag(&inside))
        weft_yield();
    cr_assert_eq(write(*(int *)arg, "", 1), 1);
}

Test(life_run, a_process_that_stood_still_has_not_waited)
{
    int go[2];
    char c;
    cr_assert_eq(pipe(go), 0);
    pid_t self = getpid(), pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        if (read(go[0], &c, 1) != 1)
            _exit(1);
        usleep(20000); /* the end waits by now; if not, what is tested is less */
        kill(self, SIGSTOP);
        usleep(2500000);
        kill(self, SIGCONT);
        _exit(0);
    }
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    cfg.stop_timeout_ms = 2000;
    cr_expect_eq(weft_run(leave_before_a_standstill, &go[1], &cfg), 0);
    cr_expect_eq(waitpid(pid, NULL, 0), pid);
}

static void *release_late(void *arg)
{
    usleep(30000);
    set_flag(arg);
    return NULL;
}

static void leave_late(void *arg)
{
    leave_spinner(NULL);
    cr_assert_eq(pthread_create(arg, NULL, release_late, &release), 0);
}

Test(life_run, a_negative_timeout_waits_for_it)
{
    pthread_t t;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    cfg.stop_timeout_ms = -1;
    test_run_config(&cfg, leave_late, &t);
    cr_expect(flag(&release), "the end did not wait for the fiber");
    pthread_join(t, NULL);
}

static bool told_to_end(void) { return (load_acq(&m_self()->poll) & POLL_END) != 0; }

static void left_behind(void *arg)
{
    (void)arg;
    set_flag(&inside);
    while (!told_to_end())
        ;
    cr_expect_eq(weft_stop(), -EPERM);
    cr_expect_eq(weft_run(nothing, NULL, NULL), -EALREADY);
    cr_expect_eq(weft_start(NULL), -EALREADY);
    set_flag(&release);
    weft_yield();
    cr_assert_fail("a fiber went on after the end of the main one");
}

static void leave_caller(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_go(left_behind, NULL), 0);
    while (!flag(&inside))
        weft_yield();
}

Test(life_run, a_fiber_may_ask_for_start_and_stop_while_the_runtime_ends)
{
    test_run_procs(2, leave_caller, NULL);
    cr_expect(flag(&release));
}

static void collect_late(void *arg)
{
    (void)arg;
    set_flag(&inside);
    while (load_acq(&sched.nthreads) > 1 || !told_to_end()) /* all others have left */
        ;
    for (int i = 0; i < 3; i++)
        weft_gc();
    cr_assert_fail("a fiber went on after the end of the main one");
}

static void leave_collector(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2; i++)
        cr_assert_eq(weft_go(spin_outside, NULL), 0);
    cr_assert_eq(weft_go(collect_late, NULL), 0);
    weft_sleep(WEFT_MILLISECOND);
    while (!flag(&inside))
        weft_yield();
    set_flag(&release);
}

Test(life_run, a_fiber_may_collect_while_the_runtime_ends)
{
    test_run_procs(4, leave_collector, NULL);
}

/* ---- the main fiber exits ----------------------------------------------------------------------------------------- */

static int steps;
static void step(void *arg) { (void)arg; __atomic_fetch_add(&steps, 1, __ATOMIC_RELAXED); }

static void slow_step(void *arg)
{
    for (int i = 0; i < 50; i++)
        weft_yield();
    weft_sleep(WEFT_MILLISECOND);
    step(arg);
}

static void exit_main(void *arg)
{
    for (int i = 0; i < 20; i++)
        cr_assert_eq(weft_go(slow_step, arg), 0);
    weft_exit();
}

Test(life_run, weft_exit_from_main_lets_the_others_end)
{
    test_run(exit_main, NULL);
    cr_expect_eq(steps, 20);
    test_run_procs(1, exit_main, NULL);
    cr_expect_eq(steps, 40);
}

static void exit_locked_main(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    exit_main(arg);
}

Test(life_run, weft_exit_from_a_locked_main_parks_its_thread_and_the_others_end)
{
    test_run(exit_locked_main, NULL);
    cr_expect_eq(steps, 20);
}

static void exit_alone(void *arg) { (void)arg; weft_exit(); }

Test(life_run, weft_exit_from_main_alone)
{
    test_run(exit_alone, NULL);
    test_run_procs(1, exit_alone, NULL);
}

static void wait_for_ever(void *arg) { weft_chan_recv(arg, NULL); }

static void exit_and_leave_a_sleeper(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_go(wait_for_ever, weft_chan_make(0, 0)), 0);
    weft_exit();
}

static void deadlock_without_main(void *arg)
{
    (void)arg;
    _exit(weft_run(exit_and_leave_a_sleeper, NULL, NULL) == -EDEADLK ? 0 : 1);
}

Test(life_run, weft_exit_from_main_and_one_sleeps_for_ever)
{
    test_needs_a_kernel();
    static struct test_output out;
    cr_expect_eq(test_fork(&out, deadlock_without_main, NULL), 0); /* of Criterion's threads one might wake it */
    cr_expect_not_null(strstr(out.text, "deadlock"), "%s", out.text);
}

static void (*volatile exit_here)(void) = weft_exit; /* volatile: or the compiler calls it an endless recursion */
static void exit_nested(void *arg)
{
    if ((intptr_t)arg > 0)
        exit_nested((void *)((intptr_t)arg - 1));
    exit_here();
}

static void run_exit_deep(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, exit_nested, (void *)(intptr_t)(i % 50)), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(weft_num_fibers(), 1);
}

Test(life_run, weft_exit_ends_only_the_caller_however_deep)
{
    test_run(run_exit_deep, NULL);
}

/* ---- deferred calls ---------------------------------------------------------------------------------------------- */

static char trail[64];
static void leave_mark(void *arg)
{
    size_t n = strlen(trail);
    cr_assert_lt(n, sizeof trail - 1);
    trail[n] = (char)(intptr_t)arg;
}
static void mark(char c) { leave_mark((void *)(intptr_t)c); }
static void defer_mark(char c) { cr_assert_eq(weft_defer(leave_mark, (void *)(intptr_t)c), 0); }

static void deferred_defers(void *arg)
{
    mark('[');
    defer_mark((char)(intptr_t)arg);
    defer_mark(']');
}

static void deferred_exits(void *arg)
{
    leave_mark(arg);
    weft_exit();
}

static void by_return(void *arg) { (void)arg; defer_mark('1'); defer_mark('2'); defer_mark('3'); }
static void by_exit(void *arg) { by_return(arg); weft_exit(); }
static void by_yielding(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_defer(call_yield, NULL), 0);
    defer_mark('a');
    cr_assert_eq(weft_defer(call_yield, NULL), 0);
    defer_mark('b');
}
static void by_defer_inside(void *arg)
{
    (void)arg;
    defer_mark('z');
    cr_assert_eq(weft_defer(deferred_defers, (void *)(intptr_t)'i'), 0);
    defer_mark('a');
}
static void by_exit_inside(void *arg)
{
    (void)arg;
    defer_mark('z');
    cr_assert_eq(weft_defer(deferred_exits, (void *)(intptr_t)'x'), 0);
    cr_assert_eq(weft_defer(deferred_exits, (void *)(intptr_t)'y'), 0);
    defer_mark('a');
    weft_exit();
}

static void expect_trail(weft_fn *fn, const char *want)
{
    weft_waitgroup wg = { 0 };
    memset(trail, 0, sizeof trail);
    cr_assert_eq(weft_waitgroup_go(&wg, fn, NULL), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_str_eq(trail, want);
}

static void run_defers_of_fibers(void *arg)
{
    (void)arg;
    expect_trail(by_return, "321");
    expect_trail(by_exit, "321");
    expect_trail(by_yielding, "ba");
    expect_trail(by_defer_inside, "a[]iz");
    expect_trail(by_exit_inside, "ayxz");
    cr_expect_eq(weft_defer(NULL, NULL), -EINVAL);
    memset(trail, 0, sizeof trail);
    defer_mark('m');
}

static void *thread_defers(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_defer(nothing, NULL), -EPERM);
    return NULL;
}

static void run_thread_defers(void *arg)
{
    (void)arg;
    with_thread((void *)(uintptr_t)thread_defers);
}

Test(life_run, deferred_calls)
{
    test_run(run_defers_of_fibers, NULL);
    cr_expect_str_eq(trail, "m", "those of the main fiber run too");
    test_run(run_thread_defers, NULL);
}

/* The deferred call of a fiber is the only one that knows the object. */
static void use_object(void *arg) { step(NULL); cr_expect_eq(*(int *)arg, 4711); }

static w_noinline void defer_object(void)
{
    int *obj = weft_alloc(64);
    *obj = 4711;
    cr_assert_eq(weft_defer(use_object, obj), 0);
}

static void defer_and_wait(void *arg)
{
    defer_object();
    weft_chan_recv(arg, NULL);
}

static void run_defer_roots(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, defer_and_wait, c), 0);
    test_until(weft_num_fibers() == 101);
    for (int i = 0; i < 3; i++) {
        weft_gc();
        for (int k = 0; k < 1000; k++)
            *(int *)weft_alloc(64) = -1;
    }
    weft_chan_close(c);
    weft_waitgroup_wait(&wg);
}

Test(life_run, the_argument_of_a_deferred_call_is_a_root)
{
    test_run_debug(0, "gcpoison=1", run_defer_roots, NULL);
    cr_expect_eq(steps, 100);
}

/* Fibers left behind do not run theirs. */
static void defer_and_block(void *arg)
{
    cr_assert_eq(weft_defer(step, NULL), 0);
    weft_chan_recv(arg, NULL);
}

static void leave_deferred(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(weft_go(defer_and_block, c), 0);
    weft_sleep(WEFT_MILLISECOND);
    weft_yield();
}

Test(life_run, fibers_that_are_left_behind_run_no_deferred_calls)
{
    test_run(leave_deferred, NULL);
    cr_expect_eq(steps, 0);
}

/* ---- ids, names, numbers ------------------------------------------------------------------------------------------ */

#define IDS 5000
static uint64_t ids[IDS];
static void note_id(void *arg) { __atomic_store_n((uint64_t *)arg, weft_fiber_id(), __ATOMIC_RELEASE); }
static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void run_ids(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    cr_expect_eq(weft_fiber_id(), 1);
    for (int i = 0; i < IDS; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, note_id, &ids[i]), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(weft_fiber_id(), 1);
    qsort(ids, IDS, sizeof ids[0], by_value);
    cr_expect_gt(ids[0], 1);
    for (int i = 1; i < IDS; i++)
        cr_assert_neq(ids[i], ids[i - 1]);
}

Test(life_run, ids_are_never_reused_and_main_is_1)
{
    test_run_procs(4, run_ids, NULL);
    test_run_procs(1, run_ids, NULL);
}

Test(life_run, without_a_main_fiber_nobody_is_1)
{
    uint64_t id = 0;
    cr_assert_eq(weft_start(NULL), 0);
    cr_assert_eq(weft_go(note_id, &id), 0);
    test_until(__atomic_load_n(&id, __ATOMIC_ACQUIRE) != 0);
    cr_expect_gt(id, 1);
    cr_assert_eq(weft_stop(), 0);
}

static void run_opts(void *arg)
{
    (void)arg;
    uint64_t id = 0, seen = 0;
    weft_go_opts o = WEFT_GO_OPTS_INIT;
    cr_expect_eq(weft_go(NULL, NULL), -EINVAL);
    cr_expect_eq(weft_go_opts_run(NULL, NULL, &o), -EINVAL);
    o.stack_size = (size_t)2 << 30;
    cr_expect_eq(weft_go_opts_run(nothing, NULL, &o), -EINVAL);
    o.stack_size = SIZE_MAX;
    cr_expect_eq(weft_go_opts_run(nothing, NULL, &o), -EINVAL);
    o.size = 0;
    o.stack_size = 0;
    cr_expect_eq(weft_go_opts_run(nothing, NULL, &o), -EINVAL);
    cr_expect_eq(weft_num_fibers(), 1, "what failed made no fiber");
    o = (weft_go_opts)WEFT_GO_OPTS_INIT;
    o.id = &id;
    o.name = "named";
    o.stack_size = 1;
    cr_expect_eq(weft_go_opts_run(note_id, &seen, &o), 0);
    cr_expect_gt(id, 1);
    test_until(__atomic_load_n(&seen, __ATOMIC_ACQUIRE) != 0);
    cr_expect_eq(seen, id);
}

Test(life_run, options_of_a_fiber)
{
    test_run(run_opts, NULL);
}

/* Each size gives what it says, but for guard and descriptor. */
static void use_stack(void *arg)
{
    size_t n = (size_t)(uintptr_t)arg;
    volatile char *p = __builtin_alloca(n);
    for (size_t i = 0; i < n; i += 512)
        p[n - 1 - i] = 1;
    step(NULL);
}

static void run_sizes(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    int n = 0;
    for (size_t size = 16 << 10; size <= (16 << 20); size *= 2, n++) {
        weft_go_opts o = WEFT_GO_OPTS_INIT;
        o.stack_size = size - 1;
        cr_assert_eq(weft_go_opts_run(use_stack, (void *)(uintptr_t)(size / 2), &o), 0);
        test_until(weft_num_fibers() == 1);
    }
    weft_waitgroup_wait(&wg);
    cr_expect_eq(__atomic_load_n(&steps, __ATOMIC_RELAXED), n);
}

Test(life_run, sizes_of_stacks)
{
    test_run(run_sizes, NULL);
}

static void name_and_wait(void *arg)
{
    weft_set_name("renamed");
    weft_chan_recv(arg, NULL);
}

static void run_names(void *arg)
{
    (void)arg;
    static char text[16384];
    weft_chan *c = weft_chan_make(0, 0);
    weft_go_opts o = WEFT_GO_OPTS_INIT;
    o.name = "given";
    cr_assert_eq(weft_go_opts_run(wait_for_ever, c, &o), 0);
    cr_assert_eq(weft_go_opts_run(name_and_wait, c, &o), 0);
    weft_set_name("first");
    test_until((weft_stack(text, sizeof text, true), strstr(text, "renamed") != NULL && strstr(text, "given") != NULL));
    cr_expect_not_null(strstr(text, "first"), "%s", text);
    weft_chan_close(c);
}

Test(life_run, names_show_in_dumps)
{
    test_run(run_names, NULL);
}

static void run_numbers(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 0);
    cr_expect_eq(weft_num_fibers(), 1);
    for (int i = 1; i <= 100; i++) {
        cr_assert_eq(weft_go(wait_for_ever, c), 0);
        cr_expect_eq(weft_num_fibers(), i + 1, "those that have not started count");
    }
    weft_sleep(WEFT_MILLISECOND);
    cr_expect_eq(weft_num_fibers(), 101);
    weft_gc(); /* the runtime's own do not */
    cr_expect_eq(weft_num_fibers(), 101);
    weft_chan_close(c);
    test_until(weft_num_fibers() == 1);
}

Test(life_run, number_of_fibers)
{
    test_run(run_numbers, NULL);
    test_run_procs(1, run_numbers, NULL);
}

/* ---- errno --------------------------------------------------------------------------------------------------------- */

static void keeps_errno(void *arg)
{
    int mine = 1000 + (int)(intptr_t)arg;
    if (mine % 3 == 0)
        cr_assert_eq(weft_lock_os_thread(), 0);
    errno_set(mine);
    for (int i = 0; i < 100; i++) {
        weft_yield();
        cr_assert_eq(errno_get(), mine);
        if (i % 10 == 0)
            weft_sleep(1000 * (i % 3));
        cr_assert_eq(errno_get(), mine);
    }
    if (mine % 3 == 0)
        weft_unlock_os_thread();
}

static void run_errno(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 60; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, keeps_errno, (void *)(intptr_t)i), 0);
    weft_waitgroup_wait(&wg);
}

Test(life_run, errno_is_the_fibers_own)
{
    test_run_procs(4, run_errno, NULL);
    test_run_procs(1, run_errno, NULL);
}

static void expect_errno_kept(void *arg)
{
    (void)arg;
    weft_mem_stats st = { .size = sizeof st };
    errno_set(77);
#define KEEPS(call) do { (void)(call); cr_expect_eq(errno_get(), 77, "%s changed errno", #call); errno_set(77); } while (0)
    KEEPS(weft_alloc(100));
    KEEPS(weft_alloc(100 << 20));
    KEEPS(weft_gc());
    KEEPS(weft_read_mem_stats(&st));
    KEEPS(weft_free_os_memory());
    KEEPS(weft_maxprocs(3));
    KEEPS(weft_maxprocs(1));
    KEEPS(weft_maxprocs(2));
    KEEPS(weft_go(nothing, NULL));
    KEEPS(weft_yield());
    KEEPS(weft_sleep(1000));
    KEEPS(weft_num_fibers());
    KEEPS(weft_detach());
    KEEPS(weft_attach());
    weft_blocking_begin();
    errno_set(78);
    weft_blocking_end();
    cr_expect_eq(errno_get(), 78);
}

static void *thread_errno(void *arg)
{
    expect_errno_kept(arg);
    return NULL;
}

static void run_errno_calls(void *arg)
{
    expect_errno_kept(arg);
    with_thread((void *)(uintptr_t)thread_errno);
}

Test(life_run, no_call_sets_errno)
{
    test_run(run_errno_calls, NULL);
    cr_assert_eq(weft_start(NULL), 0);
    expect_errno_kept(NULL);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- a host with large thread-local variables ------------------------------------------------------------------------ */

static __thread char large[1 << 20];

static void run_large_tls(void *arg)
{
    large[0] = 1;
    exit_main(arg);
}

Test(life_run, thread_local_variables_larger_than_a_threads_stack)
{
    test_run_procs(4, run_large_tls, NULL);
    cr_expect_eq(steps, 20);
}
