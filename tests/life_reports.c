/* What is said when all sleep, when a stack is used up, when there are too many threads. Each program is a forked child: of Criterion's own threads
 * one might wake somebody, and the last two end the program. */
#include "base/base.h"
#include "sched/sched.h"
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct test_output out;

static void expect_said(const char *what)
{
    cr_expect_not_null(strstr(out.text, what), "no \"%s\" in:\n%s", what, out.text);
}

/* ---- all asleep --------------------------------------------------------------------------------------------------- */

static void receive(void *arg) { weft_chan_recv(arg, NULL); }

static void receive_locked(void *arg)
{
    if (weft_lock_os_thread() == 0)
        weft_chan_recv(arg, NULL);
}

static void lock_twice(void *arg)
{
    weft_mutex *m = arg;
    weft_mutex_lock(m);
    weft_mutex_lock(m);
}

static weft_mutex never;
static w_noinline void start_named(weft_fn *fn, void *arg, const char *name)
{
    weft_go_opts o = WEFT_GO_OPTS_INIT;
    o.name = name;
    if (weft_go_opts_run(fn, arg, &o) != 0)
        abort();
}

static void all_asleep(void *arg)
{
    weft_chan *c = weft_chan_make(0, 0);
    start_named(receive, c, "the receiver");
    start_named(receive_locked, c, "the locked one");
    start_named(lock_twice, &never, "the second lock");
    ((weft_fn *)arg)(c);
}

static void main_sends_on_nil(void *arg) { (void)arg; weft_chan_send(NULL, NULL); }
static void main_locked_selects(void *arg)
{
    (void)arg;
    if (weft_lock_os_thread() == 0)
        weft_select(NULL, 0);
}
static void main_has_exited(void *arg) { (void)arg; weft_exit(); }

/* Exit code: minus the result. */
static void run_asleep(void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    _exit(-weft_run(all_asleep, arg, &cfg));
}

static void expect_deadlock(weft_fn *main_does, const char *main_waits)
{
    cr_expect_eq(test_fork(&out, run_asleep, (void *)(uintptr_t)main_does), EDEADLK, "%s", out.text);
    expect_said("all fibers are asleep - deadlock");
    expect_said("[chan receive]");
    expect_said("[chan receive, locked to thread]");
    expect_said("[sync.Mutex.Lock]");
    expect_said("the receiver");
    expect_said("the locked one");
    expect_said("the second lock");
    expect_said("start_named");
    if (main_waits != NULL)
        expect_said(main_waits);
}

Test(life_reports, a_deadlock_lists_all_fibers)
{
    test_needs_a_kernel();
    expect_deadlock(main_sends_on_nil, "[chan send (nil chan)]");
    expect_deadlock(main_locked_selects, "[select (no cases)");
    expect_deadlock(main_has_exited, NULL);
}

/* The log function gets it, and the runtime can be started again. */
static int lines;
static char first[256];
static void log_line(void *arg, const char *line)
{
    (void)arg;
    if (lines++ == 0)
        snprintf(first, sizeof first, "%s", line);
}

static void run_logged(void *arg)
{
    (void)arg;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.log = log_line;
    for (int i = 0; i < 3; i++)
        if (weft_run(all_asleep, (void *)(uintptr_t)main_sends_on_nil, &cfg) != -EDEADLK)
            _exit(1);
    printf("%s: %d lines\n", first, lines);
    fflush(stdout);
    _exit(lines > 20 ? 0 : 2);
}

Test(life_reports, a_deadlock_goes_to_the_log_and_leaves_a_clean_house)
{
    test_needs_a_kernel();
    cr_expect_eq(test_fork(&out, run_logged, NULL), 0, "%s", out.text);
    expect_said("weft: all fibers are asleep - deadlock: 4 wait");
}

/* ---- exceptions: somebody may still wake them -------------------------------------------------------------------------- */

static weft_chan *bell;

static void ring_late(void *arg)
{
    (void)arg;
    weft_sleep(5 * WEFT_MILLISECOND);
    weft_chan_send(bell, NULL);
}
static void by_sleeper(void *arg) { start_named(ring_late, arg, "sleeper"); }

static void ring(void *arg)
{
    (void)arg;
    weft_chan_send(bell, NULL);
}
static weft_timer *timer;
static void by_timer(void *arg) { (void)arg; timer = weft_timer_func(5 * WEFT_MILLISECOND, 0, ring, NULL); }

static int pair[2];
static void ring_when_readable(void *arg)
{
    weft_fd *f;
    char c;
    if (weft_fd_open(pair[0], &f) == 0 && weft_read(f, &c, 1) == 1)
        ring(arg);
}
static void *write_late(void *arg)
{
    usleep(5000);
    if (write(pair[1], "x", 1) != 1)
        abort();
    return arg;
}
static void start_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    if (pthread_create(&t, NULL, fn, arg) != 0)
        abort();
    pthread_detach(t);
}
static void by_descriptor(void *arg)
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        abort();
    start_named(ring_when_readable, arg, "reader");
    start_thread(write_late, NULL);
}
/* The writer is no thread that could call in: it is a child process. */
static void by_descriptor_only(void *arg)
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        abort();
    start_named(ring_when_readable, arg, "reader");
    if (fork() == 0) {
        write_late(NULL);
        _exit(0);
    }
}

static void *ring_from_thread(void *arg)
{
    if (arg != NULL && weft_attach() != 0)
        abort();
    usleep(5000);
    ring(NULL);
    return NULL;
}
static void by_thread(void *arg) { (void)arg; start_thread(ring_from_thread, NULL); }
static void by_attached_thread(void *arg) { (void)arg; start_thread(ring_from_thread, &bell); }

static void block_and_ring(void *arg)
{
    weft_blocking_begin();
    usleep(5000);
    weft_blocking_end();
    ring(arg);
}
static void by_blocking(void *arg) { start_named(block_and_ring, arg, "blocking"); }
static void sleep_and_ring(void *arg)
{
    usleep(5000);
    ring(arg);
}
static void by_fiber_in_user_code(void *arg) { start_named(sleep_and_ring, arg, "in user code"); }

static void wait_for_bell(void *arg)
{
    bell = weft_chan_make(0, 0);
    ((weft_fn *)arg)(NULL);
    weft_chan_recv(bell, NULL);
}

static void run_waiting(void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    _exit(-weft_run(wait_for_bell, arg, &cfg));
}

static void no_deadlock(weft_fn *wake)
{
    cr_expect_eq(test_fork(&out, run_waiting, (void *)(uintptr_t)wake), 0, "%s", out.text);
    cr_expect_eq(out.len, 0, "%s", out.text);
}

Test(life_reports, no_deadlock_while_woken_by_sleeper) { no_deadlock(by_sleeper); }
Test(life_reports, no_deadlock_while_woken_by_timer) { no_deadlock(by_timer); }
Test(life_reports, no_deadlock_while_woken_by_descriptor) { no_deadlock(by_descriptor); }
Test(life_reports, no_deadlock_while_woken_by_descriptor_only) { no_deadlock(by_descriptor_only); }
Test(life_reports, no_deadlock_while_woken_by_thread) { no_deadlock(by_thread); }
Test(life_reports, no_deadlock_while_woken_by_attached_thread) { no_deadlock(by_attached_thread); }
Test(life_reports, no_deadlock_while_woken_by_blocking) { no_deadlock(by_blocking); }
Test(life_reports, no_deadlock_while_woken_by_fiber_in_user_code) { no_deadlock(by_fiber_in_user_code); }

/* A host's own main may wake any fiber. */
static void run_started(void *arg)
{
    (void)arg;
    if (weft_start(NULL) != 0)
        _exit(1);
    bell = weft_chan_make(0, 0);
    start_named(receive, bell, NULL);
    usleep(250000); /* the monitor looks every 100 ms */
    if (weft_chan_send(bell, NULL) != 0)
        _exit(2);
    _exit(-weft_stop());
}

Test(life_reports, no_deadlock_after_weft_start)
{
    cr_expect_eq(test_fork(&out, run_started, NULL), 0, "%s", out.text);
    cr_expect_eq(out.len, 0, "%s", out.text);
}

/* The thread that might have woken somebody ends: it is found out late, but it is. */
static void *end_late(void *arg)
{
    usleep(20000);
    return arg;
}
static void by_nobody(void *arg) { (void)arg; start_thread(end_late, NULL); }

Test(life_reports, a_deadlock_is_found_when_the_last_stranger_has_gone)
{
    test_needs_a_kernel();
    cr_expect_eq(test_fork(&out, run_waiting, (void *)(uintptr_t)by_nobody), EDEADLK, "%s", out.text);
}

/* ---- overflow --------------------------------------------------------------------------------------------------------------- */

struct deep { const char *name; size_t stack; unsigned guard; bool main; }; /* guard: 0: of frames as they are; n: into the n-th guard at once */

static volatile char sink;
static w_noinline void descend(int n)
{
    volatile char here[200];
    here[0] = (char)n;
    if (n > 0)
        descend(n - 1);
    sink = here[0];
}

/* Touches the far end of its frame first, which is at `end`, but for some bytes. */
static w_noinline void jump(const char *end)
{
    volatile char *far = __builtin_alloca((size_t)((const char *)__builtin_frame_address(0) - end));
    far[0] = 1;
    sink = far[0];
}

/* Where a fiber's stack begins varies by 2 KiB, and a small guard has 4: so a frame of a fixed size would meet it on some stacks and not on
 * others. */
static const char *in_guard(unsigned n)
{
    const struct fiber *f = m_self()->cur;
    return f->stack_lo - 2048 - ((size_t)(n - 1) << f->stack_log2);
}

static int told;
static void go_deep(void *arg)
{
    const struct deep *d = arg;
    while (!d->main && __atomic_load_n(&told, __ATOMIC_ACQUIRE) == 0) /* its number comes first, whoever has the processor */
        weft_yield();
    if (d->guard != 0)
        jump(in_guard(d->guard));
    descend(100000000);
}

static void quiet(void *arg) { weft_chan_recv(arg, NULL); }

static uint64_t culprit;
static w_noinline void creation_site(const struct deep *d)
{
    weft_go_opts o = WEFT_GO_OPTS_INIT;
    o.name = d->name;
    o.stack_size = d->stack;
    o.id = &culprit;
    if (weft_go_opts_run(go_deep, (void *)(uintptr_t)d, &o) != 0)
        abort();
}

static void overflow_main(void *arg)
{
    const struct deep *d = arg;
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 20; i++) { /* neighbours */
        weft_go_opts o = WEFT_GO_OPTS_INIT;
        o.stack_size = d->stack;
        if (weft_go_opts_run(quiet, c, &o) != 0)
            abort();
    }
    weft_sleep(WEFT_MILLISECOND);
    if (d->main)
        go_deep(arg);
    creation_site(d);
    printf("fiber %lu,", (unsigned long)culprit);
    fflush(stdout);
    __atomic_store_n(&told, 1, __ATOMIC_RELEASE);
    weft_yield();
    weft_select(NULL, 0);
}

static void run_overflow(void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 1;
    _exit(weft_run(overflow_main, arg, &cfg) == 0 ? 0 : 1);
}

static void expect_overflow(const struct deep *d, size_t kib)
{
    char text[128];
    test_fork(&out, run_overflow, (void *)(uintptr_t)d);
    cr_expect_eq(out.term_signal, SIGABRT, "signal %d, exit %d: %s", out.term_signal, out.exit_code, out.text);
    unsigned long id = 1;
    if (!d->main)
        cr_expect_eq(sscanf(out.text, "fiber %lu,", &id), 1);
    snprintf(text, sizeof text, "weft: fatal: stack overflow: fiber %lu%s%s used all of its stack of %zu KiB", id, d->name ? " " : "", d->name ? d->name : "", kib);
    expect_said(text);
    expect_said(d->guard != 0 ? "jump at " : "descend at ");
    if (!d->main)
        expect_said("creation_site at ");
}

Test(life_reports, overflow_names_the_fiber)
{
    expect_overflow(&(struct deep){ "a deep one", 0, 0, false }, 64);
    expect_overflow(&(struct deep){ NULL, 0, 0, false }, 64);
    expect_overflow(&(struct deep){ "small", 16 << 10, 0, false }, 16);
    expect_overflow(&(struct deep){ "large", 8 << 20, 0, false }, 8192);
    expect_overflow(&(struct deep){ NULL, 0, 0, true }, 1024);
}

/* The far end of the frame falls into its own guard, and into that of a neighbour. */
Test(life_reports, overflow_by_a_frame_that_jumps)
{
    expect_overflow(&(struct deep){ "jumps", 1 << 20, 1, false }, 1024);
    expect_overflow(&(struct deep){ "jumps", 64 << 10, 1, false }, 64);
    expect_overflow(&(struct deep){ "jumps far", 64 << 10, 2, false }, 64);
    expect_overflow(&(struct deep){ "jumps further", 64 << 10, 6, false }, 64);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they have handlers of their own, which say more */
/* A fault that is none of ours goes where it went before. */
static void segv(void *arg)
{
    *(volatile int *)arg = 1;
}
static void run_segv(void *arg)
{
    (void)arg;
    _exit(weft_run(segv, (void *)16, NULL));
}

Test(life_reports, other_faults_are_not_ours)
{
    test_fork(&out, run_segv, NULL);
    cr_expect_eq(out.term_signal, SIGSEGV);
    cr_expect_null(strstr(out.text, "weft:"), "%s", out.text);
}
#endif

/* ---- threads --------------------------------------------------------------------------------------------------------------------- */

static void lock_and_wait(void *arg)
{
    if (weft_lock_os_thread() == 0)
        weft_chan_recv(arg, NULL);
}

static void too_many_threads(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 40; i++) {
        if (weft_go(lock_and_wait, c) != 0)
            abort();
        weft_yield();
    }
    weft_sleep(10 * WEFT_MILLISECOND);
    printf("went on\n");
}

static void run_limited(void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.max_threads = (int)(intptr_t)arg;
    _exit(-weft_run(too_many_threads, NULL, &cfg));
}

Test(life_reports, a_thread_too_many)
{
    test_fork(&out, run_limited, (void *)10);
    cr_expect_eq(out.term_signal, SIGABRT, "%s", out.text);
    expect_said("weft: fatal: thread limit: 11 threads exist or are wanted and the limit is 10");
    cr_expect_eq(test_fork(&out, run_limited, (void *)100), 0, "%s", out.text);
}

static void lower_the_limit(void *arg)
{
    weft_chan *c = weft_chan_make(0, 0);
    cr_expect_eq(weft_set_max_threads(0), 10000);
    cr_expect_eq(weft_set_max_threads(-1), 10000, "that only reads");
    cr_expect_eq(weft_set_max_threads(INT32_MAX), 10000);
    for (int i = 0; i < 20; i++)
        if (weft_go(lock_and_wait, c) != 0)
            abort();
    test_until(load_acq(&sched.nthreads) >= 20);
    printf("%d\n", weft_set_max_threads(1000));
    fflush(stdout);
    weft_set_max_threads((int)(intptr_t)arg);
    printf("went on\n");
    fflush(stdout);
    weft_chan_close(c);
}

static void run_lowered(void *arg) { _exit(-weft_run(lower_the_limit, arg, NULL)); }

Test(life_reports, a_limit_below_what_there_is)
{
    test_fork(&out, run_lowered, (void *)10);
    cr_expect_eq(out.term_signal, SIGABRT, "%s", out.text);
    expect_said("2147483647\n");
    unsigned n = 0, limit = 0;
    const char *line = strstr(out.text, "weft: fatal: thread limit: ");
    cr_assert_not_null(line, "%s", out.text);
    cr_expect_eq(sscanf(line, "weft: fatal: thread limit: %u threads exist or are wanted and the limit is %u", &n, &limit), 2, "%s", out.text);
    cr_expect(n >= 20 && limit == 10, "twenty fibers are locked, each to its thread: %s", out.text);
    cr_expect_eq(test_fork(&out, run_lowered, (void *)100), 0, "%s", out.text);
    expect_said("went on");
}

/* Forty threads of the host, and a limit of ten. */
static void *attach_and_wait(void *arg)
{
    if (weft_attach() != 0)
        abort();
    weft_chan_recv(arg, NULL);
    return NULL;
}

static void run_hosts(void *arg)
{
    pthread_t t[40];
    weft_config cfg = WEFT_CONFIG_INIT;
    (void)arg;
    cfg.max_threads = 10;
    if (weft_start(&cfg) != 0)
        _exit(1);
    weft_chan *c = weft_chan_make(0, 0);
    for (int i = 0; i < 40; i++)
        if (pthread_create(&t[i], NULL, attach_and_wait, c) != 0)
            abort();
    test_until(weft_set_max_threads(10) == 10 && test_threads() > 40);
    weft_chan_close(c);
    for (int i = 0; i < 40; i++)
        pthread_join(t[i], NULL);
    _exit(-weft_stop());
}

Test(life_reports, threads_of_the_host_do_not_count_in_the_limit)
{
    cr_expect_eq(test_fork(&out, run_hosts, NULL), 0, "%s", out.text);
}
