/* Opening, closing, deadlines, limits: what waits is woken, what is closed is closed, nothing is left over. */
#include "io_test.h"
#include <pthread.h>
#include <sys/resource.h>

static weft_waitgroup wg;

/* ---- closing ------------------------------------------------------------------------------------------------ */

static int canceled, others;

static void read_one(void *arg)
{
    char c;
    ssize_t n = weft_read(arg, &c, 1);
    if (n == -ECANCELED)
        __atomic_add_fetch(&canceled, 1, __ATOMIC_SEQ_CST);
    else
        __atomic_add_fetch(&others, 1, __ATOMIC_SEQ_CST);
}

static void fill(void *arg)
{
    char *big = weft_alloc_noscan(1 << 20);
    ssize_t n = weft_write(arg, big, 1 << 20);
    cr_expect_gt(n, 0, "what went through before the close is told: %zd", n);
    cr_expect_lt(n, 1 << 20);
    cr_expect_eq(weft_write(arg, big, 1), -ECANCELED);
}

static void run_close(void *arg)
{
    (void)arg;
    weft_fd *a, *b, *l;
    pair_new(SOCK_STREAM, &a, &b);
    int number = weft_fd_number(a);
    for (int i = 0; i < 10; i++)
        GO(wg, read_one, a);
    GO(wg, fill, a);
    test_until(waits(a, FD_READ) && in_line(a, FD_READ) == 9 && waits(a, FD_WRITE));
    OK(weft_fd_close(a));
    cr_expect_eq(weft_fd_number(a), -1);
    cr_expect_eq(weft_fd_close(a), -ECANCELED);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(canceled, 10);
    cr_expect_eq(others, 0);
    cr_expect_eq(fcntl(number, F_GETFD), -1, "the descriptor is closed");
    char *buf = weft_alloc_noscan(1 << 20);
    while (OK(weft_read(b, buf, 1 << 20)) > 0) {
    }
    OK(weft_fd_close(b));
    cr_expect_eq(weft_read(b, buf, 1), -ECANCELED);
    cr_expect_eq(weft_fd_set_deadline(b, 1, 1), -ECANCELED);
    cr_expect_eq(weft_fd_port(b), -ECANCELED);
    OK(weft_listen("127.0.0.1:0", 1, &l));
    cr_expect_geq(weft_fd_number(l), 0);
}

Test(io_life, close_wakes_all_who_wait) { test_run_procs(2, run_close, NULL); }

/* Closing against reading, at every moment; the numbers are used again at once. */
static void close_soon(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    for (int until = (int)rng_below(&r, 300); until > 0; until--)
        __asm__ volatile("");
    OK(weft_fd_close(arg));
}

static void read_till_closed(void *arg)
{
    char buf[16];
    ssize_t n;
    while ((n = weft_read(arg, buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < n; i++)
            cr_assert_eq(buf[i], 'x', "a byte of another descriptor");
    cr_assert(n == -ECANCELED || n == 0, "%zd", n);
}

/* A weft_fd may be freed once it is closed, so each round waits for its own. */
static void close_rounds(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    for (int k = 0; k < 300; k++) {
        weft_waitgroup mine = { 0 };
        weft_fd *a, *b;
        pair_new(SOCK_STREAM, &a, &b);
        GO(mine, read_till_closed, a);
        GO(mine, read_till_closed, a);
        if (rng_below(&r, 2))
            weft_yield();
        cr_assert_eq(weft_write(b, "xxxx", 4), 4);
        GO(mine, close_soon, a);
        weft_waitgroup_wait(&mine);
        OK(weft_fd_close(b));
    }
}

static void run_close_race(void *arg)
{
    for (uint64_t i = 0; i < 8; i++)
        GO(wg, close_rounds, *(uint64_t *)arg + i);
    weft_waitgroup_wait(&wg);
}

Test(io_life, close_against_read)
{
    uint64_t seed = test_seed();
    int before = test_fds();
    test_run_procs(4, run_close_race, &seed);
    cr_expect_eq(test_fds(), before);
}

/* In no order but that of the kernel, which gives the first free number: a race to ThreadSanitizer, if it has not seen the other's close. */
static int number_is_free;

static void *opens_the_next(void *arg)
{
    int p[2];
    while (__atomic_load_n(&number_is_free, __ATOMIC_RELAXED) == 0)
        usleep(100);
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    close(p[0]);
    close(p[1]);
    return arg;
}

static void run_number_again(void *arg)
{
    (void)arg;
    pthread_t t;
    weft_fd *r, *w;
    cr_assert_eq(pthread_create(&t, NULL, opens_the_next, NULL), 0);
    pipe_new(&r, &w);
    OK(weft_fd_close(r));
    OK(weft_fd_close(w));
    __atomic_store_n(&number_is_free, 1, __ATOMIC_RELAXED);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(io_life, a_number_that_was_closed_is_anybodys) { test_run_procs(1, run_number_again, NULL); }

/* ---- deadlines ------------------------------------------------------------------------------------------------ */

static weft_fd *dr, *dw;

/* Sets another deadline while somebody waits to read. Perhaps too late for the one there was: then the test does not tell anything, and is made again
 * with more time. */
struct change { int64_t from, to; bool write, in_time; };

static void change(void *arg)
{
    struct change *c = arg;
    test_until(waits(dr, FD_READ) || weft_now() >= c->from);
    OK(weft_fd_set_deadline(dr, c->to, 0));
    c->in_time = weft_now() < c->from;
    if (!c->in_time)
        OK(weft_fd_set_deadline(dr, -1, 0)); /* it may have been in time all the same, and then nobody would end the wait */
    if (!c->write || !c->in_time)
        return;
    weft_sleep(c->from + 5 * WEFT_MILLISECOND - weft_now());
    OK(weft_write(dw, "x", 1));
}

static void wait_and_change(int64_t ns, int64_t to_ns, ssize_t result, const char *why)
{
    char x;
    for (;; ns *= 2) {
        struct change c = { weft_now() + ns, to_ns == 0 ? 0 : weft_now() + to_ns, result == 1, false };
        OK(weft_fd_set_deadline(dr, c.from, 0));
        GO(wg, change, &c);
        ssize_t n = weft_read(dr, &x, 1);
        int64_t at = weft_now();
        weft_waitgroup_wait(&wg);
        if (!c.in_time)
            continue;
        cr_expect_eq(n, result, "%s: %zd", why, n);
        cr_expect(n == 1 || at >= c.to, "%s: too early", why);
        return;
    }
}

/* The result of a call that begins before its deadline, set by d, and does not end by itself. */
#define BEFORE(d, call) ({ ssize_t n_; int64_t ns_ = 5 * WEFT_MILLISECOND; do { int64_t at_ = weft_now() + (ns_ *= 2); OK(d); n_ = (call); } while (n_ == -ETIMEDOUT); n_; })

static void run_deadlines(void *arg)
{
    (void)arg;
    char c, buf[10];
    pipe_new(&dr, &dw);
    int64_t d = weft_now() + 5 * WEFT_MILLISECOND;
    OK(weft_fd_set_deadline(dr, d, 0));
    cr_expect_eq(weft_read(dr, &c, 1), -ETIMEDOUT);
    cr_expect_geq(weft_now(), d);
    OK(weft_write(dw, "abc", 3));
    cr_expect_eq(weft_read(dr, &c, 1), -ETIMEDOUT, "past, though there is something to read");
    OK(weft_fd_set_deadline(dr, soon(), 0));
    cr_expect_eq(weft_read(dr, &c, 1), 1, "renewed");
    cr_expect_eq(BEFORE(weft_fd_set_deadline(dr, at_, 0), weft_read_full(dr, buf, 10)), 2, "what was there before the deadline");
    cr_expect_eq(weft_read_full(dr, buf, 10), -ETIMEDOUT);

    wait_and_change(1000 * WEFT_SECOND, 5 * WEFT_MILLISECOND, -ETIMEDOUT, "an earlier one");
    wait_and_change(10 * WEFT_MILLISECOND, 30 * WEFT_MILLISECOND, -ETIMEDOUT, "a later one");
    wait_and_change(10 * WEFT_MILLISECOND, 0, 1, "none any more");
    wait_and_change(1000 * WEFT_SECOND, -1, -ETIMEDOUT, "one in the past: at once");
    wait_and_change(INT64_MAX / 4, 5 * WEFT_MILLISECOND, -ETIMEDOUT, "from hardly any");
    for (int64_t far = INT64_MAX; far > INT64_MAX - 3; far--) {
        OK(weft_fd_set_deadline(dr, far, far));
        OK(weft_write(dw, "x", 1));
        cr_expect_eq(weft_read(dr, &c, 1), 1, "for ever is not over");
    }
    OK(weft_fd_set_deadline(dr, INT64_MIN, 0));
    cr_expect_eq(weft_read(dr, &c, 1), -ETIMEDOUT, "before all times");

    /* writing */
    char *big = weft_alloc_noscan(1 << 20);
    ssize_t n = BEFORE(weft_fd_set_deadline(dw, 0, at_), weft_write(dw, big, 1 << 20));
    cr_expect(n > 0 && n < 1 << 20, "%zd", n);
    cr_expect_eq(weft_write(dw, big, 1), -ETIMEDOUT);
    OK(weft_fd_close(dr));
    OK(weft_fd_close(dw));

    weft_fd *l, *f;
    OK(weft_listen("127.0.0.1:0", 1, &l));
    OK(weft_fd_set_deadline(l, weft_now() + 3 * WEFT_MILLISECOND, 0));
    cr_expect_eq(weft_accept(l, &f, NULL, NULL), -ETIMEDOUT);
    OK(weft_fd_close(l));
}

Test(io_life, deadlines) { test_run_procs(2, run_deadlines, NULL); }
Test(io_life, deadlines_on_one_processor) { test_run_procs(1, run_deadlines, NULL); }

/* Deadlines set anew for each of many requests, some of which run out. */
static void requests(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    weft_fd *a, *b;
    pair_new(SOCK_STREAM, &a, &b);
    for (int k = 0; k < 300; k++) {
        char c;
        int64_t d = weft_now() + rng_below(&r, 300000);
        bool answer = rng_below(&r, 2);
        OK(weft_fd_set_deadline(a, d, 0));
        if (answer)
            OK(weft_write(b, "x", 1));
        ssize_t n = weft_read(a, &c, 1);
        if (n == -ETIMEDOUT) {
            cr_assert_geq(weft_now(), d);
            if (answer) {
                OK(weft_fd_set_deadline(a, soon(), 0));
                cr_assert_eq(weft_read(a, &c, 1), 1);
            }
        } else
            cr_assert(n == 1 && answer, "%zd", n);
    }
    OK(weft_fd_close(a));
    OK(weft_fd_close(b));
}

static void run_requests(void *arg)
{
    for (uint64_t i = 0; i < 40; i++)
        GO(wg, requests, *(uint64_t *)arg + i);
    weft_waitgroup_wait(&wg);
}

Test(io_life, a_deadline_per_request)
{
    uint64_t seed = test_seed();
    test_run_procs(4, run_requests, &seed);
}

/* ---- descriptors run out ------------------------------------------------------------------------------------------ */

static bool dialed;

static void dial_and_wait(void *arg)
{
    weft_fd *f;
    char c;
    OK(weft_dial(arg, soon(), &f));
    __atomic_store_n(&dialed, true, __ATOMIC_RELEASE);
    guard(f);
    cr_assert_eq(weft_read(f, &c, 1), 1, "somebody has accepted us after all");
    OK(weft_fd_close(f));
}

static void run_emfile(void *arg)
{
    (void)arg;
    weft_fd *l, *f = NULL;
    char addr[32];
    int spare[64], n = 0;
    OK(weft_listen("127.0.0.1:0", 8, &l));
    guard(l);
    snprintf(addr, sizeof addr, "127.0.0.1:%d", weft_fd_port(l));
    GO(wg, dial_and_wait, addr);
    test_until(__atomic_load_n(&dialed, __ATOMIC_ACQUIRE));
    struct rlimit lim, low;
    getrlimit(RLIMIT_NOFILE, &lim);
    while (n < 64 && (spare[n] = dup(0)) >= 0 && spare[n] < 100)
        n++;
    low = lim;
    low.rlim_cur = (rlim_t)dup(0);
    close((int)low.rlim_cur);
    setrlimit(RLIMIT_NOFILE, &low);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(weft_accept(l, &f, NULL, NULL), -EMFILE);
        weft_fd *x;
        cr_expect_eq(weft_dial(addr, soon(), &x), -EMFILE);
        cr_expect_eq(weft_listen("127.0.0.1:0", 1, &x), -EMFILE);
    }
    setrlimit(RLIMIT_NOFILE, &lim);
    OK(weft_accept(l, &f, NULL, NULL));
    OK(weft_write(f, "x", 1));
    weft_waitgroup_wait(&wg);
    OK(weft_fd_close(f));
    OK(weft_fd_close(l));
    while (n > 0)
        close(spare[--n]);
}

Test(io_life, no_descriptor_left_loses_no_connection) { test_run(run_emfile, NULL); }

/* ---- storms of connections ------------------------------------------------------------------------------------------ */

static char storm_addr[64];
static int accepted;

static void storm_acceptor(void *arg)
{
    weft_fd *f;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    int r;
    while ((r = weft_accept(arg, &f, (struct sockaddr *)&peer, &len)) == 0) {
        __atomic_add_fetch(&accepted, 1, __ATOMIC_SEQ_CST);
        cr_assert_leq(len, sizeof peer);
        OK(weft_write(f, "hello", 5));
        OK(weft_fd_close(f));
        len = sizeof peer;
    }
    cr_assert_eq(r, -ECANCELED);
}

static void storm_dialer(void *arg)
{
    (void)arg;
    for (int k = 0; k < 10; k++) {
        weft_fd *f;
        char buf[10];
        OK(weft_dial(storm_addr, soon(), &f));
        guard(f);
        ssize_t n = weft_read_full(f, buf, 10);
        cr_assert_eq(n, 5, "%zd", n);
        OK(weft_fd_close(f));
    }
}

static void run_storm(void *arg)
{
    weft_fd *l;
    /* a short queue: unix dialers have to try again. (TCP would drop connections silently.) */
    OK(weft_listen(arg, strncmp(arg, "unix:", 5) == 0 ? 16 : 0, &l));
    if (strncmp(arg, "unix:", 5) == 0)
        snprintf(storm_addr, sizeof storm_addr, "%s", (char *)arg);
    else
        snprintf(storm_addr, sizeof storm_addr, "127.0.0.1:%d", weft_fd_port(l));
    static weft_waitgroup dialers;
    GO(wg, storm_acceptor, l);
    GO(wg, storm_acceptor, l);
    for (int i = 0; i < 100; i++)
        GO(dialers, storm_dialer, NULL);
    weft_waitgroup_wait(&dialers);
    OK(weft_fd_close(l));
    weft_waitgroup_wait(&wg);
    cr_expect_eq(accepted, 1000);
}

Test(io_life, storm_tcp)
{
    int before = test_fds();
    test_run_procs(4, run_storm, "127.0.0.1:0");
    cr_expect_eq(test_fds(), before);
}

Test(io_life, storm_unix)
{
    char a[64];
    snprintf(a, sizeof a, "unix:@weft-storm-%d", (int)getpid());
    test_run_procs(4, run_storm, a);
}

/* ---- what is taken over, and what is not -------------------------------------------------------------------------------- */

static void run_open(void *arg)
{
    (void)arg;
    weft_fd *f = NULL;
    char path[] = "/tmp/weft-test-XXXXXX", buf[4];
    int fd = mkstemp(path);
    unlink(path);
    int flags = fcntl(fd, F_GETFL);
    OK(weft_fd_open(fd, &f));
    cr_expect_eq(fcntl(fd, F_GETFL), flags, "a regular file is as it was");
    OK(weft_fd_close(f));
    cr_expect_eq(fcntl(fd, F_GETFL), -1, "and it was taken over");
    cr_expect_eq(weft_fd_open(fd, &f), -EBADF);
    int p[2];
    cr_assert_eq(pipe(p), 0);
    f = opened(p[0]);
    cr_expect_eq(weft_fd_number(f), p[0]);
    cr_expect(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    cr_expect_eq(weft_fd_open(p[0], &f), -EEXIST, "twice");
    cr_expect_eq(write(p[1], "abc", 3), 3);
    cr_expect_eq(weft_read(f, buf, 4), 3);
    cr_expect_eq(weft_fd_port(f), -ENOTSOCK);
    OK(weft_fd_close(f));
    close(p[1]);
}

Test(io_life, open) { test_run(run_open, NULL); }

/* Open ones go with the runtime. */
static void run_left_open(void *arg)
{
    (void)arg;
    weft_fd *a, *b, *l;
    OK(weft_listen("127.0.0.1:0", 8, &l));
    for (int i = 0; i < 20; i++) {
        pair_new(SOCK_STREAM, &a, &b);
        cr_assert_eq(weft_go(read_one, a), 0);
        cr_assert_eq(weft_go(read_one, a), 0);
    }
    weft_sleep(3 * WEFT_MILLISECOND);
}

Test(io_life, nothing_is_left_after_the_end)
{
    int threads = test_threads();
    test_run(run_left_open, NULL); /* what libc opens once */
    int before = test_fds();
    for (int i = 0; i < 20; i++)
        test_run(run_left_open, NULL);
    cr_expect_eq(test_fds(), before);
    test_until(test_threads() == threads);
}

/* ---- threads of the host --------------------------------------------------------------------------------------------------- */

static void *host_reader(void *arg)
{
    char buf[6] = "";
    cr_expect_eq(weft_read_full(arg, buf, 5), 5);
    cr_expect_str_eq(buf, "hello");
    return NULL;
}

static void hello(void *arg)
{
    for (int i = 0; i < 5; i++) {
        weft_sleep(WEFT_MILLISECOND);
        OK(weft_write(arg, &"hello"[i], 1));
    }
}

Test(io_life, host_threads_wait_too)
{
    cr_assert_eq(weft_start(NULL), 0);
    weft_fd *a, *b;
    pthread_t t;
    pair_new(SOCK_STREAM, &a, &b);
    cr_assert_eq(pthread_create(&t, NULL, host_reader, a), 0);
    cr_assert_eq(weft_go(hello, b), 0);
    pthread_join(t, NULL);
    cr_assert_eq(weft_go(hello, b), 0);
    host_reader(a);
    cr_assert_eq(weft_stop(), 0);
}

/* A name of what was closed stays what it is, though its memory is used anew at once. */
static void run_stale(void *arg)
{
    (void)arg;
    weft_fd *a, *b, *old[200];
    char c;
    for (int k = 0; k < 200; k++) {
        pair_new(SOCK_STREAM, &a, &b);
        OK(weft_write(b, "x", 1));
        for (int i = 0; i < k; i++) {
            cr_assert_eq(weft_read(old[i], &c, 1), -ECANCELED);
            cr_assert_eq(weft_fd_close(old[i]), -ECANCELED);
            cr_assert_eq(weft_fd_number(old[i]), -1);
        }
        cr_assert_eq(weft_read(a, &c, 1), 1);
        OK(weft_fd_close(a));
        OK(weft_fd_close(b));
        old[k] = k & 1 ? a : b;
    }
}

Test(io_life, a_closed_one_stays_closed) { test_run(run_stale, NULL); }
