/* A deadlock is reported although somebody has waited, with a deadline or for a descriptor, shortly before: the machine that sleeps in epoll for that must not hide it. */
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

static void child(void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = *(int *)arg;
    printf("%d\n", weft_run(stuck, NULL, &cfg) == -EDEADLK);
}

Test(wait_deadlock, is_not_hidden_by_a_wait_that_is_over)
{
    test_needs_a_kernel();
    static struct test_output out;
    for (int k = 0; k < 10; k++)
        for (int procs = 1; procs <= 4; procs *= 2) {
            test_fork(&out, child, &procs);
            cr_assert_eq(out.term_signal, 0, "%d processors: no end", procs);
            cr_assert_not_null(strstr(out.text, "\n1\n"), "%s", out.text);
        }
}
