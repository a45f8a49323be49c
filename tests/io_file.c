/* Descriptors that epoll refuses: files, devices, directories. And weft_fd_shutdown. */
#include "io_test.h"
#include "metrics_test.h"

static weft_fd *file_new(void)
{
    char path[] = "/tmp/weft-test-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    return opened(fd);
}

static weft_fd *device(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    return opened(fd);
}

/* ---- files ------------------------------------------------------------------------------------------------- */

static void rewind_to(weft_fd *f, off_t at) { cr_assert_eq(lseek(weft_fd_number(f), at, SEEK_SET), at); }

static void run_stream(void *arg)
{
    enum { BYTES = 1 << 20, PART = 60000 };
    static uint8_t buf[BYTES], got[BYTES + 1];
    (void)arg;
    weft_fd *f = file_new();
    stream_fill(buf, BYTES, 7, 0);
    cr_expect_eq(weft_write(f, buf, BYTES - 2 * PART), BYTES - 2 * PART);
    struct iovec out[2] = { { buf + BYTES - 2 * PART, PART }, { buf + BYTES - PART, PART } };
    cr_expect_eq(weft_writev(f, out, 2), 2 * PART);
    cr_expect_eq(weft_read(f, got, 10), 0, "at the end");
    rewind_to(f, 0);
    cr_expect_eq(weft_read(f, got, 1000), 1000);
    struct iovec in[2] = { { got + 1000, 500 }, { got + 1500, 500 } };
    cr_expect_eq(weft_readv(f, in, 2), 1000);
    cr_expect_eq(weft_read_full(f, got + 2000, sizeof got - 2000), BYTES - 2000, "fewer at the end of the file");
    stream_check(got, BYTES, 7, 0);
    cr_expect_eq(weft_read_full(f, got, 1), 0);
    cr_expect_eq(weft_fd_port(f), -ENOTSOCK);
    cr_expect_eq(weft_fd_shutdown(f, SHUT_RDWR), -ENOTSOCK);
    OK(weft_fd_set_deadline(f, 1, 0));
    cr_expect_eq(weft_read(f, got, 1), -ETIMEDOUT, "a deadline in the past");
    OK(weft_fd_close(f));
    cr_expect_eq(weft_read(f, got, 1), -ECANCELED);
}

Test(io_file, what_is_written_is_read) { test_run(run_stream, NULL); }

static void run_devices(void *arg)
{
    char buf[4096] = "x";
    static const char zero[4096];
    (void)arg;
    weft_fd *f = device("/dev/null");
    cr_expect_eq(weft_write(f, buf, sizeof buf), sizeof buf);
    cr_expect_eq(weft_read(f, buf, sizeof buf), 0);
    OK(weft_fd_close(f));
    f = device("/dev/zero");
    cr_expect_eq(weft_read_full(f, buf, sizeof buf), sizeof buf);
    cr_expect_eq(memcmp(buf, zero, sizeof buf), 0);
    OK(weft_fd_close(f));
    f = device("/dev/full");
    cr_expect_eq(weft_write(f, buf, 1), -ENOSPC);
    OK(weft_fd_close(f));
    f = opened(open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    cr_expect_eq(weft_read(f, buf, 1), -EISDIR);
    cr_expect_eq(weft_write(f, buf, 1), -EBADF);
    OK(weft_fd_close(f));
}

Test(io_file, devices_and_directories_give_what_the_kernel_says) { test_run(run_devices, NULL); }

/* On one processor: reads give it to the other fiber, which has turns although the monitor took it from nobody. How soon somebody comes for it is the
 * machine's business: so many reads of many have to do. They are a few at a time, of which those count in which the monitor did not come. */
static int turns, done;
static void other(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        __atomic_fetch_add(&turns, 1, __ATOMIC_RELAXED);
        weft_yield();
    }
}

static void run_without(void *arg)
{
    enum { READS = 1000, ROUND = 50 };
    char c;
    int had = 0;
    (void)arg;
    weft_waitgroup wg = { 0 };
    weft_fd *f = device("/dev/zero");
    GO(wg, other, NULL);
    int reads = 0;
    for (int64_t until = weft_now() + 10 * WEFT_SECOND; had < READS / 10 && weft_now() < until;) {
        if (reads == READS)
            reads = had = 0;
        uint64_t taken = metric_u64("/weft/sched/hand-offs:processors");
        int before = __atomic_load_n(&turns, __ATOMIC_RELAXED);
        for (int i = 0; i < ROUND; i++)
            cr_assert_eq(weft_read(f, &c, 1), 1);
        int more = __atomic_load_n(&turns, __ATOMIC_RELAXED) - before;
        if (metric_u64("/weft/sched/hand-offs:processors") == taken) {
            reads += ROUND;
            had += more;
        }
    }
    cr_expect_geq(had, READS / 10, "the other fiber had %d turns", had);
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    weft_waitgroup_wait(&wg);
    OK(weft_fd_close(f));
}

Test(io_file, a_call_holds_no_processor) { test_run_procs(1, run_without, NULL); }

/* Many at a time, and collections, whose stops they do not hold up: the bytes come to where they belong. */
static weft_fd *shared;
static void copy(void *arg)
{
    enum { BYTES = 20000 };
    uint64_t seed = (uintptr_t)arg;
    weft_fd *f = file_new();
    for (int i = 0; i < 20; i++) {
        uint8_t *buf = weft_alloc_noscan(BYTES), *got = weft_alloc_noscan(BYTES);
        stream_fill(buf, BYTES, seed, (uint64_t)i * BYTES);
        cr_assert_eq(weft_write(f, buf, BYTES), BYTES);
        rewind_to(f, (off_t)i * BYTES);
        cr_assert_eq(weft_read_full(f, got, BYTES), BYTES);
        stream_check(got, BYTES, seed, (uint64_t)i * BYTES);
        char c = 0;
        cr_assert_eq(weft_read(shared, &c, 1), 1, "one file, many readers");
        if (i % 5 == 0)
            weft_gc();
    }
    OK(weft_fd_close(f));
}

static void run_many(void *arg)
{
    weft_waitgroup wg = { 0 };
    char bytes[40 * 20];
    (void)arg;
    memset(bytes, 'x', sizeof bytes);
    shared = file_new();
    cr_assert_eq(weft_write(shared, bytes, sizeof bytes), sizeof bytes);
    rewind_to(shared, 0);
    for (uintptr_t i = 0; i < 40; i++)
        GO(wg, copy, i);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(weft_read(shared, bytes, 1), 0, "each byte was read once");
    OK(weft_fd_close(shared));
}

Test(io_file, many_at_a_time) { test_run_procs(4, run_many, NULL); }

/* Left open when the runtime ends. */
static void run_left(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++)
        file_new();
}

Test(io_file, open_files_go_with_the_runtime)
{
    int fds = test_fds();
    test_run(run_left, NULL);
    cr_expect_eq(test_fds(), fds);
}

/* ---- shutdown ------------------------------------------------------------------------------------------------- */

struct end { weft_fd *f; ssize_t got; };
static void read_one(void *arg)
{
    struct end *e = arg;
    char c;
    e->got = weft_read(e->f, &c, 1);
}

static void write_much(void *arg)
{
    struct end *e = arg;
    static char buf[1 << 16];
    while ((e->got = weft_write(e->f, buf, sizeof buf)) == (ssize_t)sizeof buf)
        ;
    if (e->got >= 0) /* some bytes, and then the error */
        e->got = weft_write(e->f, buf, sizeof buf);
}

static void shut(void (*pair)(weft_fd **, weft_fd **))
{
    weft_fd *a, *b;
    char c = 'x';
    weft_waitgroup wg = { 0 };
    pair(&a, &b);
    guard(a);
    guard(b);
    struct end e = { b, -1 };
    GO(wg, read_one, &e);
    test_until(waits(b, FD_READ));
    cr_expect_eq(weft_fd_shutdown(a, SHUT_WR), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(e.got, 0, "the peer's reader gets the end of file");
    cr_expect_eq(weft_write(a, &c, 1), -EPIPE);
    cr_expect_eq(weft_write(b, &c, 1), 1, "the other direction is open");
    cr_expect_eq(weft_read(a, &c, 1), 1);

    e = (struct end){ a, -1 };
    GO(wg, read_one, &e);
    test_until(waits(a, FD_READ));
    cr_expect_eq(weft_fd_shutdown(a, SHUT_RD), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(e.got, 0, "so does one's own");
    cr_expect_geq(weft_fd_number(a), 0, "it is still open");
    OK(weft_fd_close(a));
    cr_expect_eq(weft_fd_shutdown(a, SHUT_RDWR), -ECANCELED);
    OK(weft_fd_close(b));

    pair(&a, &b);
    guard(a);
    e = (struct end){ a, -1 };
    GO(wg, write_much, &e);
    test_until(waits(a, FD_WRITE));
    cr_expect_eq(weft_fd_shutdown(a, SHUT_RDWR), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(e.got, -EPIPE, "who waits to write: %zd", e.got);
    OK(weft_fd_close(a));
    OK(weft_fd_close(b));
}

static void unix_new(weft_fd **a, weft_fd **b) { pair_new(SOCK_STREAM, a, b); }

static void run_shutdown(void *arg)
{
    weft_fd *r, *w;
    (void)arg;
    shut(tcp_new);
    shut(unix_new);
    pipe_new(&r, &w);
    cr_expect_eq(weft_fd_shutdown(r, SHUT_RD), -ENOTSOCK);
    OK(weft_fd_close(r));
    OK(weft_fd_close(w));
    pair_new(SOCK_STREAM, &r, &w);
    cr_expect_eq(weft_fd_shutdown(r, 17), -EINVAL);
    OK(weft_fd_close(r));
    OK(weft_fd_close(w));
    r = opened(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    cr_expect_eq(weft_fd_shutdown(r, SHUT_WR), -ENOTCONN);
    OK(weft_fd_close(r));
}

Test(io_file, shutdown_wakes_who_waits)
{
    test_run_procs(1, run_shutdown, NULL);
    test_run_procs(4, run_shutdown, NULL);
}
