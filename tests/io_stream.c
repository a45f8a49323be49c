/* Bytes arrive whole and in order: pipes, pairs, TCP and unix sockets, with chunks of every size, slow readers, many connections. */
#include "io_test.h"
#include <sys/resource.h>

static weft_waitgroup wg;

/* ---- one direction ------------------------------------------------------------------------------------------ */

struct flow { weft_fd *from, *to; uint64_t seed, bytes; bool vectors, slow; };

static int make_iov(struct rng *r, struct iovec *iov, uint8_t *buf, size_t n)
{
    int k = 0;
    while (n > 0 && k < 20) {
        size_t part = k == 19 ? n : rng_below(r, (uint32_t)n + 1);
        iov[k++] = (struct iovec){ buf, part };
        buf += part;
        n -= part;
    }
    return k;
}

static void sender(void *arg)
{
    struct flow *w = arg;
    struct rng r;
    rng_seed(&r, w->seed);
    uint8_t *buf = weft_alloc_noscan(300000);
    struct iovec iov[20];
    for (uint64_t at = 0; at < w->bytes;) {
        size_t n = 1 + rng_below(&r, 1u << (1 + rng_below(&r, 18)));
        n = n > w->bytes - at ? w->bytes - at : n;
        stream_fill(buf, n, w->seed, at);
        int k = make_iov(&r, iov, buf, n);
        ssize_t got = w->vectors ? weft_writev(w->to, iov, k) : weft_write(w->to, buf, n);
        cr_assert_eq(got, (ssize_t)n, "%zd of %zu", got, n);
        at += n;
    }
    OK(weft_fd_close(w->to));
}

static void receiver(void *arg)
{
    struct flow *w = arg;
    struct rng r;
    rng_seed(&r, w->seed + 1);
    uint8_t *buf = weft_alloc_noscan(300000);
    struct iovec iov[20];
    uint64_t at = 0;
    for (;;) {
        size_t n = 1 + rng_below(&r, 1u << (1 + rng_below(&r, 18)));
        int k = make_iov(&r, iov, buf, n);
        ssize_t got = w->vectors ? weft_readv(w->from, iov, k) : rng_below(&r, 4) == 0 ? weft_read_full(w->from, buf, n) : weft_read(w->from, buf, n);
        OK(got);
        if (got == 0)
            break;
        stream_check(buf, (size_t)got, w->seed, at);
        at += (uint64_t)got;
        if (w->slow && rng_below(&r, 4) == 0)
            weft_sleep(rng_below(&r, 300000));
    }
    cr_assert_eq(at, w->bytes);
    OK(weft_fd_close(w->from));
}

static void flow(struct flow w)
{
    guard(w.from);
    guard(w.to);
    GO(wg, sender, &w);
    GO(wg, receiver, &w);
    weft_waitgroup_wait(&wg);
}

static void run_flows(void *arg)
{
    uint64_t seed = *(uint64_t *)arg, n = test_is_slow() ? 300000 : 4000000;
    for (int k = 0; k < 4; k++) {
        weft_fd *r, *w;
        pipe_new(&r, &w);
        flow((struct flow){ r, w, seed++, n, k & 1, k & 2 });
        pair_new(SOCK_STREAM, &r, &w);
        flow((struct flow){ r, w, seed++, n, k & 1, k & 2 });
        tcp_new(&r, &w);
        flow((struct flow){ r, w, seed++, n, k & 1, k & 2 });
    }
}

Test(io_stream, whole_and_in_order)
{
    uint64_t seed = test_seed();
    test_run_procs(2, run_flows, &seed);
}

Test(io_stream, whole_and_in_order_on_one_processor)
{
    uint64_t seed = test_seed();
    test_run_procs(1, run_flows, &seed);
}

/* ---- echo with many connections --------------------------------------------------------------------------------- */

static const char *address;
static char bound[128];
static int rounds;

static void echo(void *arg)
{
    weft_fd *f = arg;
    uint8_t *buf = weft_alloc_noscan(4096);
    ssize_t n;
    while ((n = weft_read(f, buf, 4096)) > 0)
        cr_assert_eq(weft_write(f, buf, (size_t)n), n);
    cr_assert_eq(n, 0, "%s", weft_strerror((int)n));
    OK(weft_fd_close(f));
}

static void acceptor(void *arg)
{
    weft_fd *f;
    int r;
    while ((r = weft_accept(arg, &f, NULL, NULL)) == 0) {
        guard(f);
        GO(wg, echo, f);
    }
    cr_assert_eq(r, -ECANCELED);
}

static void client(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    weft_fd *f;
    OK(weft_dial(bound, soon(), &f));
    guard(f);
    uint8_t out[3000], in[3000];
    uint64_t at = 0;
    for (int k = 0; k < rounds; k++) {
        size_t n = 1 + rng_below(&r, sizeof out);
        stream_fill(out, n, (uintptr_t)arg, at);
        cr_assert_eq(weft_write(f, out, n), (ssize_t)n);
        cr_assert_eq(weft_read_full(f, in, n), (ssize_t)n);
        stream_check(in, n, (uintptr_t)arg, at);
        at += n;
        if (rng_below(&r, 8) == 0)
            weft_sleep(rng_below(&r, 200000));
    }
    OK(weft_fd_close(f));
}

static void run_echo(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    struct rlimit lim;
    getrlimit(RLIMIT_NOFILE, &lim);
    int clients = lim.rlim_cur >= 1100 ? 500 : (int)lim.rlim_cur / 2 - 50;
    rounds = test_is_slow() ? 3 : 20;
    weft_fd *l;
    OK(weft_listen(address, 0, &l));
    if (strncmp(address, "unix:", 5) == 0)
        snprintf(bound, sizeof bound, "%s", address);
    else
        snprintf(bound, sizeof bound, "127.0.0.1:%d", weft_fd_port(l));
    static weft_waitgroup clients_wg;
    for (int i = 0; i < 3; i++)
        GO(wg, acceptor, l);
    for (int i = 0; i < clients; i++)
        GO(clients_wg, client, seed + (uint64_t)i);
    weft_waitgroup_wait(&clients_wg);
    OK(weft_fd_close(l));
    weft_waitgroup_wait(&wg);
}

static void echo_at(const char *a, int procs)
{
    uint64_t seed = test_seed();
    address = a;
    int before = test_fds();
    test_run_procs(procs, run_echo, &seed);
    cr_expect_eq(test_fds(), before, "descriptors are left open");
}

Test(io_stream, echo_tcp) { echo_at("127.0.0.1:0", 4); }
Test(io_stream, echo_tcp_all_addresses_one_processor) { echo_at(":0", 1); }
Test(io_stream, echo_unix_abstract)
{
    char a[64];
    snprintf(a, sizeof a, "unix:@weft-test-%d", (int)getpid());
    echo_at(a, 4);
}

Test(io_stream, echo_unix_path)
{
    char a[64];
    snprintf(a, sizeof a, "unix:/tmp/weft-test-%d", (int)getpid());
    echo_at(a, 2);
    cr_expect_eq(unlink(a + 5), 0);
}

/* ---- the end right behind the data, and urgent data: a read that got little must not wait for more in vain ------------- */

static void run_end(void *arg)
{
    struct rng r;
    rng_seed(&r, *(uint64_t *)arg);
    char buf[4096];
    for (int k = 0; k < 500; k++) {
        weft_fd *a, *b;
        tcp_new(&a, &b);
        guard(b);
        OK(weft_write(a, "ping", 4));
        if (rng_below(&r, 2))
            weft_sleep(rng_below(&r, 50000));
        OK(weft_fd_close(a));
        if (rng_below(&r, 2))
            weft_sleep(rng_below(&r, 50000));
        cr_assert_eq(weft_read(b, buf, sizeof buf), 4);
        ssize_t n = weft_read(b, buf, sizeof buf);
        cr_assert_eq(n, 0, "round %d: %s", k, weft_strerror((int)n));
        OK(weft_fd_close(b));
    }
}

Test(io_stream, end_right_behind_the_data)
{
    uint64_t seed = test_seed();
    test_run_procs(2, run_end, &seed);
}

static void run_urgent(void *arg)
{
    (void)arg;
    weft_fd *a, *b;
    char buf[100];
    tcp_new(&a, &b);
    guard(b);
    OK(weft_write(a, "before", 6));
    OK(weft_sendto(a, "!", 1, MSG_OOB, NULL, 0));
    OK(weft_write(a, "behind", 6));
    weft_sleep(5 * WEFT_MILLISECOND);
    int got = 0;
    while (got < 12)
        got += (int)OK(weft_read(b, buf + got, sizeof buf - (size_t)got));
    cr_expect_eq(got, 12);
    cr_expect_eq(memcmp(buf, "beforebehind", 12), 0);
}

Test(io_stream, urgent_data_does_not_hide_what_follows) { test_run(run_urgent, NULL); }

/* A trickle: one write at a time, read with room for more. */
static void trickle(void *arg)
{
    struct rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < 2000; i++) {
        char c = (char)i;
        OK(weft_write(arg, &c, 1));
        if (rng_below(&r, 3) == 0)
            weft_sleep(rng_below(&r, 20000));
    }
    OK(weft_fd_close(arg));
}

static void run_trickle(void *arg)
{
    (void)arg;
    weft_fd *a, *b;
    char buf[64];
    tcp_new(&a, &b);
    guard(b);
    GO(wg, trickle, a);
    int at = 0;
    for (ssize_t n; (n = OK(weft_read(b, buf, sizeof buf))) > 0;)
        for (ssize_t i = 0; i < n; i++)
            cr_assert_eq(buf[i], (char)at++);
    cr_expect_eq(at, 2000);
    weft_waitgroup_wait(&wg);
}

Test(io_stream, trickle) { test_run_procs(2, run_trickle, NULL); }

/* Who asks for nothing gets it at once, though there is nothing: the body of an empty message, say. */
static void read_nothing(weft_fd *r, weft_fd *w)
{
    char c;
    struct iovec none[2] = { { &c, 0 }, { &c, 0 } };
    OK(weft_fd_set_deadline(r, weft_now() + 5 * WEFT_SECOND, 0));
    cr_expect_eq(weft_read(r, &c, 0), 0);
    cr_expect_eq(weft_read_full(r, &c, 0), 0);
    cr_expect_eq(weft_readv(r, NULL, 0), 0);
    cr_expect_eq(weft_readv(r, none, 2), 0);
    OK(weft_write(w, "x", 1));
    cr_expect_eq(weft_read(r, &c, 0), 0);
    cr_expect_eq(weft_read(r, &c, 1), 1, "and takes nothing away");
    OK(weft_fd_set_deadline(r, 1, 0));
    cr_expect_eq(weft_read(r, &c, 0), -ETIMEDOUT);
    OK(weft_fd_close(r));
    cr_expect_eq(weft_read_full(r, &c, 0), -ECANCELED);
    OK(weft_fd_close(w));
}

static void run_nothing(void *arg)
{
    (void)arg;
    weft_fd *r, *w;
    pipe_new(&r, &w);
    read_nothing(r, w);
    pair_new(SOCK_STREAM, &r, &w);
    read_nothing(r, w);
    tcp_new(&r, &w);
    read_nothing(r, w);
}

Test(io_stream, a_read_of_no_bytes_does_not_wait) { test_run(run_nothing, NULL); }

/* ---- turns ------------------------------------------------------------------------------------------------------------ */

static weft_fd *shared_r, *shared_w;
static int turn[20];

static void reader(void *arg)
{
    char c;
    cr_assert_eq(weft_read(shared_r, &c, 1), 1);
    turn[(intptr_t)arg] = c;
}

static void run_turns(void *arg)
{
    (void)arg;
    char bytes[20];
    pipe_new(&shared_r, &shared_w);
    guard(shared_r);
    for (int i = 0; i < 20; i++) {
        GO(wg, reader, (intptr_t)i);
        test_until(waits(shared_r, FD_READ) && in_line(shared_r, FD_READ) == (size_t)i);
        bytes[i] = (char)(i + 1);
    }
    cr_assert_eq(weft_write(shared_w, bytes, 20), 20);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < 20; i++)
        cr_expect_eq(turn[i], i + 1, "reader %d got byte %d", i, turn[i]);
}

Test(io_stream, readers_are_served_in_order) { test_run_procs(1, run_turns, NULL); }

/* Blocks written by many at once do not mix, though each is larger than the pipe. */
#define BLOCK 100000
static void block_writer(void *arg)
{
    char *b = weft_alloc_noscan(BLOCK);
    memset(b, (int)(intptr_t)arg, BLOCK);
    cr_assert_eq(weft_write(shared_w, b, BLOCK), BLOCK);
}

static void run_blocks(void *arg)
{
    (void)arg;
    pipe_new(&shared_r, &shared_w);
    guard(shared_r);
    guard(shared_w);
    for (int i = 1; i <= 10; i++)
        GO(wg, block_writer, (intptr_t)i);
    char *b = weft_alloc_noscan(BLOCK);
    for (int i = 1; i <= 10; i++) {
        cr_assert_eq(weft_read_full(shared_r, b, BLOCK), BLOCK);
        for (int k = 1; k < BLOCK; k++)
            cr_assert_eq(b[k], b[0]);
    }
    weft_waitgroup_wait(&wg);
}

Test(io_stream, writes_are_whole) { test_run_procs(4, run_blocks, NULL); }

/* ---- datagrams, errors after bytes, errno ------------------------------------------------------------------------------- */

static void run_datagrams(void *arg)
{
    (void)arg;
    weft_fd *a, *b;
    char buf[100];
    pair_new(SOCK_DGRAM, &a, &b);
    guard(a);
    guard(b);
    cr_expect_eq(weft_write(a, "one", 3), 3);
    cr_expect_eq(weft_write(a, "", 0), 0);
    cr_expect_eq(weft_sendto(a, "three", 5, 0, NULL, 0), 5);
    cr_expect_eq(weft_recvfrom(b, buf, sizeof buf, MSG_PEEK, NULL, NULL), 3);
    cr_expect_eq(weft_read(b, buf, sizeof buf), 3);
    cr_expect_eq(weft_read(b, buf, sizeof buf), 0);
    cr_expect_eq(weft_recvfrom(b, buf, sizeof buf, 0, NULL, NULL), 5);
    OK(weft_fd_close(a));
    OK(weft_fd_close(b));
}

Test(io_stream, datagrams) { test_run(run_datagrams, NULL); }

static void drain_some(void *arg)
{
    weft_sleep(2 * WEFT_MILLISECOND);
    char buf[5000];
    OK(weft_read_full(arg, buf, sizeof buf));
    OK(weft_fd_close(arg));
}

/* Not inlined: the address of errno is that of a thread, and the fiber may change it. */
static w_noinline int errno_get(void) { return errno; }
static w_noinline void errno_set(int e) { errno = e; }

static void run_broken(void *arg)
{
    (void)arg;
    weft_fd *a, *b;
    char *big = weft_alloc_noscan(4000000);
    pair_new(SOCK_STREAM, &a, &b);
    guard(a);
    GO(wg, drain_some, b);
    errno_set(99);
    ssize_t n = weft_write(a, big, 4000000);
    cr_expect_gt(n, 0);
    cr_expect_lt(n, 4000000);
    n = weft_write(a, big, 1);
    cr_expect_eq(n, -EPIPE, "%zd", n);
    cr_expect_eq(weft_write(a, big, 1), -EPIPE, "no SIGPIPE");
    weft_waitgroup_wait(&wg);
    cr_expect_eq(weft_fd_open(-1, &b), -EBADF);
    cr_expect_eq(weft_listen("nonsense", 1, &b), -EINVAL);
    cr_expect_eq(errno_get(), 99);
}

Test(io_stream, error_after_some_bytes) { test_run(run_broken, NULL); }
