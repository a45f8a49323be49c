/* A deadlock is reported although somebody has waited, with a deadline or for a descriptor, shortly before: the machine that sleeps in epoll for that
 * must not hide it. */
#include "io_test.h"

static weft_fd *a, *b;
static weft_chan *c;
static weft_mutex m;

static void recv_till(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_chan_recv_until(c, NULL, weft_now() + 3600 * WEFT_SECOND), 1);
}

static void lock_till(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_mutex_lock_until(&m, weft_now() + 3600 * WEFT_SECOND), 0);
}

static void read_till(void *arg)
{
    (void)arg;
    char x;
    cr_assert_eq(weft_read(a, &x, 1), -ECANCELED);
}

static void stuck(void *arg)
{
    (void)arg;
    c = weft_chan_make(0, 0);
    weft_mutex_lock(&m);
    pair_new(SOCK_STREAM, &a, &b);
    cr_assert_eq(weft_go(recv_till, NULL), 0);
    cr_assert_eq(weft_go(lock_till, NULL), 0);
    cr_assert_eq(weft_go(read_till, NULL), 0);
    weft_sleep(20 * WEFT_MILLISECOND); /* time for them to wait, and for a machine to sleep in epoll */
    OK(weft_fd_close(a));
    cr_assert_eq(weft_chan_send(c, NULL), 0);
    weft_mutex_unlock(&m);
    weft_chan_recv(c, NULL);
}

/* It has a thread that keeps tables for exact walks. */
static void profiled(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_set_mem_profile_rate(1000), 524288);
    weft_chan_recv(weft_chan_make(0, 0), NULL);
}

struct program { weft_fn *fn; int procs; };

static void child(void *arg)
{
    const struct program *p = arg;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = p->procs;
    printf("%d\n", weft_run(p->fn, NULL, &cfg) == -EDEADLK);
}

static void expect_deadlock(weft_fn *fn, int times)
{
    static struct test_output out;
    for (int k = 0; k < times; k++)
        for (int procs = 1; procs <= 4; procs *= 2) {
            struct program p = { fn, procs };
            test_fork(&out, child, &p);
            cr_assert_eq(out.term_signal, 0, "%d processors: no end", procs);
            cr_assert_not_null(strstr(out.text, "\n1\n"), "%s", out.text);
        }
}

Test(wait_deadlock, is_not_hidden_by_a_wait_that_is_over)
{
    test_needs_a_kernel();
    expect_deadlock(stuck, 10);
}

Test(wait_deadlock, is_not_hidden_by_threads_of_profiles)
{
    test_needs_a_kernel();
    expect_deadlock(profiled, 5);
}

/* ---- nor by what could have woken somebody and will not any more ---------------------------------------- */

static void never(void *arg) { (void)arg; }

static void timer_stopped(void *arg)
{
    (void)arg;
    weft_timer *t = weft_timer_func(3600 * WEFT_SECOND, 0, never, NULL);
    weft_sleep(WEFT_MILLISECOND);
    cr_assert(weft_timer_stop(t));
    weft_select(NULL, 0);
}

/* A listener that nobody accepts from, a connection that nobody reads from (Go: TestNetpollDeadlock). */
static void connection_idle(void *arg)
{
    (void)arg;
    char addr[32], c = 'x';
    weft_fd *l, *there, *here;
    OK(weft_listen("127.0.0.1:0", 8, &l));
    snprintf(addr, sizeof addr, "127.0.0.1:%d", weft_fd_port(l));
    OK(weft_dial(addr, soon(), &there));
    OK(weft_accept(l, &here, NULL, NULL));
    OK(weft_write(there, &c, 1));
    cr_assert_eq(weft_read(here, &c, 1), 1);
    weft_select(NULL, 0);
}

/* A fiber that holds its thread, and main, locked to its own, wait for each other (Go: TestLockedDeadlock, TestLockedDeadlock2). */
static void wait_locked(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    weft_chan_recv(arg, NULL);
}

static void locked(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    cr_assert_eq(weft_go(wait_locked, weft_chan_make(0, 0)), 0);
    weft_select(NULL, 0);
}

/* Deferred calls run, then there is nobody left to wake who waits (Go: TestGoexitDeadlock). */
static void wait_for(void *arg) { weft_chan_recv(arg, NULL); }
static void exits(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_go(wait_for, weft_chan_make(0, 0)), 0);
    cr_assert_eq(weft_defer(never, NULL), 0);
    weft_exit();
}

/* Fibers of the runtime, made by finalizers and a sweep, do not count. */
static void finalize(void *obj, void *ctx) { (void)obj, (void)ctx; }
static void runtime_fibers(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        weft_set_finalizer(weft_alloc(32), finalize, NULL);
    weft_gc();
    weft_gc();
    weft_select(NULL, 0);
}

static void found(weft_fn *fn)
{
    test_needs_a_kernel();
    expect_deadlock(fn, 2);
}

Test(wait_deadlock, is_found_timer_stopped) { found(timer_stopped); }
Test(wait_deadlock, is_found_connection_idle) { found(connection_idle); }
Test(wait_deadlock, is_found_locked) { found(locked); }
Test(wait_deadlock, is_found_exits) { found(exits); }
Test(wait_deadlock, is_found_runtime_fibers) { found(runtime_fibers); }
