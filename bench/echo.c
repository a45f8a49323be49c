/* echo [connections] [requests] - how many requests a second does a TCP server answer, a fiber per connection?
 *
 * Server and clients are one process: each connection has a fiber that sends back what it reads, and one that sends 64 bytes and waits for them, so many
 * times. Counted: one request (ns_per_op over all; rps), and how long each took (p50 to max).
 * Peers: Go does the same. Two processors. */
#include "bench_weft.h"
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

enum { BYTES = 64 };
static long connections, requests;
static int64_t *took;
static atomic_long next_took;
static weft_fd *listener;
static char address[64];

static void serve(void *arg)
{
    weft_fd *fd = arg;
    char buf[BYTES];
    ssize_t n;
    while ((n = weft_read(fd, buf, sizeof buf)) > 0)
        if (weft_write(fd, buf, (size_t)n) != n)
            break;
    weft_fd_close(fd);
}

static void accept_all(void *arg)
{
    (void)arg;
    for (long i = 0; i < connections; i++) {
        weft_fd *fd;
        bench_must(weft_accept(listener, &fd, NULL, NULL), "weft_accept");
        bench_must(weft_go(serve, fd), "weft_go");
    }
}

static void client(void *arg)
{
    weft_fd *fd = arg;
    char buf[BYTES] = { 1 };
    for (long i = 0; i < requests; i++) {
        int64_t since = bench_clock_ns(CLOCK_MONOTONIC);
        if (weft_write(fd, buf, sizeof buf) != BYTES)
            abort();
        for (ssize_t got = 0, n; got < BYTES; got += n)
            if ((n = weft_read(fd, buf + got, sizeof buf - (size_t)got)) <= 0)
                abort();
        took[atomic_fetch_add_explicit(&next_took, 1, memory_order_relaxed)] = bench_clock_ns(CLOCK_MONOTONIC) - since;
    }
    weft_fd_close(fd);
}

static void run(void *arg)
{
    static weft_waitgroup wg;
    (void)arg;
    took = calloc((size_t)(connections * requests), sizeof *took);
    weft_fd **fd = weft_alloc((size_t)connections * sizeof *fd);
    bench_must(weft_listen("127.0.0.1:0", 4096, &listener), "weft_listen");
    snprintf(address, sizeof address, "127.0.0.1:%d", weft_fd_port(listener));
    bench_must(weft_go(accept_all, NULL), "weft_go");
    for (long i = 0; i < connections; i++)
        bench_must(weft_dial(address, 0, &fd[i]), "weft_dial");
    bench_span t = bench_begin();
    for (long i = 0; i < connections; i++)
        bench_must(weft_waitgroup_go(&wg, client, fd[i]), "weft_waitgroup_go");
    weft_waitgroup_wait(&wg);
    t = bench_end(t);
    double n = (double)(connections * requests);
    bench_open("echo", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / n);
    bench_num("rps", n * 1e9 / (double)t.wall_ns);
    bench_num("cpu_s", (double)t.cpu_ns / 1e9);
    bench_latencies(took, (size_t)(connections * requests));
    bench_close();
}

int main(int argc, char **argv)
{
    connections = bench_arg(argc, argv, 1, 1000);
    requests = bench_arg(argc, argv, 2, 300);
    return bench_run(run);
}
