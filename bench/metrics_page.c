/* metrics_page [fibers] [scrapes] - what does it cost to be watched: a scrape of /metrics over HTTP, and the documents that the live page asks for?
 *
 * fibers (1000) wait. Counted: one GET of /metrics on a connection that stays open, from the request to the last byte (ns_per_op, and CPU time of the
 * whole process, cpu_ns: the server's thread, the worker's and the client's); beside it, medians of weft_debug_json for each document. No peers. Two
 * processors. */
#include "bench_weft.h"
#include <arpa/inet.h>
#include <errno.h>
#include <weft/debug.h>
#include <weft/serve.h>

static long fibers, scrapes;
static size_t bytes;

static int count(void *ctx, const void *data, size_t n)
{
    (void)ctx, (void)data;
    bytes += n;
    return 0;
}

static int connected(int port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bench_must(fd < 0 ? -errno : 0, "socket");
    bench_must(connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ? -errno : 0, "connect");
    return fd;
}

/* The answer comes in chunks; the last one is empty. */
static void scrape(int fd)
{
    static const char get[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static char buf[1 << 17];
    size_t n = 0;
    bench_must(write(fd, get, sizeof get - 1) < 0 ? -errno : 0, "write");
    do {
        ssize_t got = read(fd, buf + n, sizeof buf - n);
        bench_must(got <= 0 ? -EPIPE : 0, "read");
        n += (size_t)got;
    } while (n < 7 || memcmp(buf + n - 7, "\r\n0\r\n\r\n", 7) != 0);
    bytes = n;
}

static double document(const char *what)
{
    double ns[21];
    for (int i = 0; i < 21; i++) {
        bench_span t = bench_begin();
        bench_must(weft_debug_json(what, count, NULL), what);
        ns[i] = (double)bench_end(t).wall_ns;
    }
    return bench_median(ns, 21);
}

static void run(void *arg)
{
    (void)arg;
    weft_debug_server *server;
    weft_chan *gate = bench_wait_at_gate(fibers);
    bench_must(weft_debug_serve(NULL, &server), "weft_debug_serve");
    weft_blocking_begin();
    int fd = connected(weft_debug_port(server));
    for (long i = 0; i < scrapes / 10 + 1; i++)
        scrape(fd);
    bench_span t = bench_begin();
    for (long i = 0; i < scrapes; i++)
        scrape(fd);
    t = bench_end(t);
    close(fd);
    weft_blocking_end();
    size_t page = bytes;
    bench_open("metrics_page", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / (double)scrapes);
    bench_num("cpu_ns", (double)t.cpu_ns / (double)scrapes);
    bench_num("bytes", (double)page);
    const char *what;
    for (unsigned i = 0; (what = weft_debug_what(i)) != NULL; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s_ns", what);
        bench_num(name, document(what));
    }
    bench_close();
    weft_debug_serve_stop(server);
    weft_chan_close(gate);
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 1000);
    scrapes = bench_arg(argc, argv, 2, 1000);
    return bench_run(run);
}
