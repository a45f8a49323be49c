/* What one may ask for, how much of it, how slowly, and in what form: whatever comes, the server goes on and takes no more than it may. */
#include "base/rng.h"
#include "debug/serve/server.h"
#include "serve_test.h"
#include <fcntl.h>
#include <ifaddrs.h>
#include <sys/resource.h>

/* A request whose answer is not read yet. */
static int begin_asking(int port, const char *path)
{
    char text[400];
    int fd = connect_to(port);
    cr_assert(fd >= 0);
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    send_text(fd, text);
    return fd;
}

static void one_heavy(void *arg)
{
    static const char *const heavy[] = { "/debug/pprof/trace?seconds=1", "/debug/pprof/profile?seconds=1", "/debug/fgprof?seconds=1", "/debug/pprof/heap?gc=1",
                                         "/debug/pprof/goroutineleak", "/debug/pprof/goroutineleak?seconds=1", "/debug/pprof/goroutine?debug=2" };
    static const char *const light[] = { "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/", "/debug/pprof/allocs?seconds=1" };
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    (void)arg;
    int fd = begin_asking(port, "/debug/pprof/profile?seconds=200");
    test_until(log_has("/debug/pprof/profile?seconds=200 for 127.0.0.1:") == 1);
    for (size_t i = 0; i < w_countof(heavy); i++) {
        struct answer a = get(port, heavy[i]);
        cr_assert_eq(a.status, 409, "%s: %d", heavy[i], a.status);
        cr_assert(strstr(a.body, "/debug/pprof/profile?seconds=200, asked for by 127.0.0.1:") != NULL, "%s", a.body);
        cr_assert_str_eq(header(&a, "Retry-After"), "5");
        free(a.body);
    }
    for (size_t i = 0; i < w_countof(light); i++)
        cr_assert_eq(status_of(port, light[i]), 200, "%s", light[i]);
    cr_assert_eq(log_has("profile?seconds=200 for "), 1, "it still runs");
    shutdown(fd, SHUT_WR); /* who asked goes away: it ends at once. A close would refuse what is on its way to us, and that might be seen first */
    test_until(log_has("early") == 1);
    close(fd);
    for (size_t i = 0; i < w_countof(heavy); i++)
        cr_assert_eq(status_of(port, heavy[i]), 200, "%s", heavy[i]);
    weft_debug_serve_stop(s);
    for (size_t i = 0; i < w_countof(heavy); i++) {
        char line[200];
        snprintf(line, sizeof line, "%s for 127.0.0.1:", heavy[i]);
        cr_assert_eq(log_has(line), 2, "%s: its begin and its end are in the log, once", heavy[i]);
    }
}

Test(serve_limits, one_heavy_job_at_a_time) { test_run_procs(2, one_heavy, NULL); }

static void few_windows(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s), fd[8];
    (void)arg;
    for (int i = 0; i < 8; i++)
        fd[i] = begin_asking(port, "/debug/pprof/heap?seconds=200");
    test_until(log_has("heap?seconds=200 for ") == 8);
    struct answer a = get(port, "/debug/pprof/mutex?seconds=1");
    cr_assert_eq(a.status, 409);
    cr_assert(strstr(a.body, "8 profiles of a time") != NULL, "%s", a.body);
    free(a.body);
    cr_assert_eq(status_of(port, "/debug/pprof/profile?seconds=1"), 200, "they are in nobody's way");
    shutdown(fd[0], SHUT_WR); /* as above */
    test_until(log_has("early") == 1);
    close(fd[0]);
    cr_assert_eq(status_of(port, "/debug/pprof/mutex?seconds=1"), 200);
    for (int i = 1; i < 8; i++)
        close(fd[i]);
    weft_debug_serve_stop(s);
}

Test(serve_limits, few_windows_at_a_time) { test_run_procs(2, few_windows, NULL); }

static void seconds(void *arg)
{
    weft_serve_opts o = serve_opts();
    (void)arg;
    o.max_seconds = 1;
    weft_debug_server *s = serve_begin(o);
    static const char *const paths[] = { "/debug/pprof/profile?seconds=2", "/debug/pprof/trace?seconds=1.01", "/debug/pprof/heap?seconds=2", "/debug/fgprof?seconds=9223372036854775807" };
    for (size_t i = 0; i < w_countof(paths); i++) {
        struct answer a = get(weft_debug_port(s), paths[i]);
        cr_assert_eq(a.status, 400, "%s: %d", paths[i], a.status);
        cr_assert(strstr(a.body, "at most 1 ") != NULL && strstr(a.body, "max_seconds") != NULL, "%s", a.body);
        free(a.body);
    }
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/profile"), 200, "the default is within what is allowed");
    weft_debug_serve_stop(s);
}

Test(serve_limits, seconds) { test_run_procs(2, seconds, NULL); }

/* ---- size ------------------------------------------------------------------------------------------------------------------ */

static int raw_status(int port, const char *text, size_t n)
{
    int fd = connect_to(port);
    for (size_t at = 0; at < n;) {
        ssize_t k = send(fd, text + at, n - at, MSG_NOSIGNAL);
        if (k <= 0)
            break;
        at += (size_t)k;
    }
    struct answer a = read_answer(fd);
    free(a.body);
    close(fd);
    return a.status;
}

Test(serve_limits, size_of_a_request)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    static char text[3 << 20];
    size_t n = (size_t)sprintf(text, "GET /debug/pprof/?");
    memset(text + n, 'x', 200000);
    cr_assert(raw_status(port, text, n + 200000) >= 0); /* refused, or cut off, as long as it is not kept */
    n = (size_t)sprintf(text, "GET /debug/pprof/ HTTP/1.1\r\nHost: localhost\r\nX: ");
    memset(text + n, 'x', 200000);
    int status = raw_status(port, text, n + 200000);
    cr_assert(status == 0 || status >= 400, "%d", status);
    n = (size_t)sprintf(text, "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n");
    memset(text + n, '1', 2000000);
    status = raw_status(port, text, n + 2000000);
    cr_assert(status == 413 || status == 0, "%d", status);
    static const char *const lengths[] = { "99999999999999999999", "-1", "1x", "4294967296" };
    for (size_t i = 0; i < w_countof(lengths); i++) {
        n = (size_t)sprintf(text, "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\nx", lengths[i]);
        status = raw_status(port, text, n);
        cr_assert(status == 0 || status >= 400, "%s: %d", lengths[i], status);
    }
    n = (size_t)sprintf(text, "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 40; i++) {
        n += (size_t)sprintf(text + n, "10000\r\n");
        memset(text + n, '1', 0x10000);
        n += 0x10000;
        n += (size_t)sprintf(text + n, "\r\n");
    }
    status = raw_status(port, text, n);
    cr_assert(status == 0 || status >= 400, "%d", status);
    cr_assert_eq(status_of(port, "/debug/pprof/"), 200);
    weft_debug_serve_stop(s);
}

/* ---- slowly ------------------------------------------------------------------------------------------------------------------ */

#define SLOW 1000

static void more_descriptors(void)
{
    struct rlimit r;
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max < 4096 ? r.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < SLOW + 300)
        cr_skip_test("a process may have only %lu descriptors here", (unsigned long)r.rlim_cur);
}

static void slow(void *arg)
{
    static int fd[SLOW];
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    long warm = 0;
    (void)arg;
    int before = test_fds();
    for (int i = 0; i < SLOW; i++) {
        fd[i] = connect_to(port);
        cr_assert(fd[i] >= 0);
        send_text(fd[i], "GET /debug/pprof/heap HTTP/1.1\r\nHost: local");
        if (i % 100 == 99) {
            cr_assert_eq(status_of(port, "/debug/pprof/goroutine"), 200, "beside %d", i + 1);
            warm = i == 199 ? test_rss_kib() : warm;
        }
    }
    long full = test_rss_kib();
    for (int round = 0; round < 5; round++) { /* each sends a byte from time to time */
        for (int i = 0; i < SLOW; i++)
            (void)!send(fd[i], "h", 1, MSG_NOSIGNAL);
        cr_assert_eq(status_of(port, "/debug/pprof/goroutine"), 200);
    }
    cr_assert(full - warm < (test_is_slow() ? 16384 : 1024), "%ld KiB more memory", full - warm);
    cr_assert(test_fds() - before - SLOW <= 64 + 1 + 32, "%d descriptors", test_fds() - before - SLOW);
    for (int i = 0; i < SLOW; i++)
        close(fd[i]);
    test_until(test_fds() <= before);
    weft_debug_serve_stop(s);
}

Test(serve_limits, a_thousand_slow_connections)
{
    more_descriptors();
    test_run_procs(2, slow, NULL);
}

/* A byte now and then does not keep it open, neither in the header nor in the body. */
Test(serve_limits, time_for_a_request)
{
    static const char *const begins[] = { "GET /debug/pprof/ HTTP/1.1\r\nX: ", "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", "", "G" };
    weft_serve_opts o = serve_opts();
    o.header_ms = 300;
    weft_debug_server *s = serve_begin(o);
    for (size_t i = 0; i < w_countof(begins); i++) {
        int64_t began = weft_now();
        int fd = connect_to(weft_debug_port(s)), rounds = 0;
        char c;
        send_text(fd, begins[i]);
        for (; recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN; rounds++) {
            cr_assert(rounds < 1000, "still open");
            if (*begins[i] != 0)
                (void)!send(fd, "x", 1, MSG_NOSIGNAL);
            usleep(20000);
        }
        cr_assert(weft_now() - began >= 300 * WEFT_MILLISECOND, "closed too early");
        close(fd);
    }
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/"), 200);
    weft_debug_serve_stop(s);
}

/* ---- many ------------------------------------------------------------------------------------------------------------------- */

static void all_busy(void *arg)
{
    weft_serve_opts o = serve_opts();
    (void)arg;
    o.max_connections = 4;
    weft_debug_server *s = serve_begin(o);
    int port = weft_debug_port(s), fd[4];
    for (int i = 0; i < 4; i++)
        fd[i] = begin_asking(port, "/debug/pprof/heap?seconds=200");
    test_until(log_has("heap?seconds=200 for ") == 4);
    struct answer a = get(port, "/debug/pprof/");
    cr_assert_eq(a.status, 503, "%d", a.status);
    cr_assert_str_eq(a.body, "too many are being served\n");
    free(a.body);
    close(fd[0]);
    test_until(status_of(port, "/debug/pprof/") == 200);
    for (int i = 1; i < 4; i++)
        close(fd[i]);
    weft_debug_serve_stop(s);
}

Test(serve_limits, all_connections_at_work) { test_run_procs(2, all_busy, NULL); }

/* An address of this machine that is not loopback counts as one of another machine. */
static bool other_address(struct sockaddr_in *out, char *text)
{
    struct ifaddrs *all, *i;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (i = all; i != NULL && !found; i = i->ifa_next)
        if (i->ifa_addr != NULL && i->ifa_addr->sa_family == AF_INET) {
            memcpy(out, i->ifa_addr, sizeof *out);
            found = ntohl(out->sin_addr.s_addr) >> 24 != 127;
            uint32_t a = ntohl(out->sin_addr.s_addr);
            sprintf(text, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
        }
    freeifaddrs(all);
    return found;
}

Test(serve_limits, connections_of_one_address)
{
    struct sockaddr_in a;
    char text[32];
    int fd[3];
    if (!other_address(&a, text))
        cr_skip_test("this machine has no address but loopback");
    weft_serve_opts o = serve_opts();
    o.address = text;
    o.token = "0123456789abcdef";
    o.max_per_address = 2;
    weft_debug_server *s = serve_begin(o);
    a.sin_port = htons((uint16_t)weft_debug_port(s));
    for (int i = 0; i < 3; i++) { /* the third closes the one that has waited longest */
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        cr_assert_eq(connect(fd[i], (struct sockaddr *)&a, sizeof a), 0, "%s", strerror(errno));
        send_text(fd[i], "GET /debug/pprof/symbol HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\nConnection: close\r\nHo");
    }
    char c;
    cr_assert_eq(recv(fd[0], &c, 1, 0), 0, "it is still open");
    for (int i = 1; i < 3; i++) {
        send_text(fd[i], "st: x\r\n\r\n");
        struct answer r = read_answer(fd[i]);
        cr_assert_eq(r.status, 200);
        free(r.body);
        close(fd[i]);
    }
    close(fd[0]);
    weft_debug_serve_stop(s);
}

static void *accepts_nothing(void *arg)
{
    (void)arg;
    return NULL;
}

/* Whether an epoll descriptor, of which info is open in /proc/self/fdinfo, watches fd. */
static bool watches(int info, int fd)
{
    char text[4096];
    ssize_t n = pread(info, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    for (const char *at = text; (at = strstr(at, "tfd:")) != NULL; at++)
        if (atoi(at + 4) == fd)
            return true;
    cr_assert(n > 0);
    return false;
}

/* No descriptor is left for a connection: it waits, and is served when there is one. */
Test(serve_limits, without_descriptors)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s), last = -1, n = 0, all[400], before = test_fds();
    char name[64];
    struct rlimit r;
    pthread_t t;
    pthread_create(&t, NULL, accepts_nothing, NULL); /* libc has what it needs for threads */
    pthread_join(t, NULL);
    cr_assert_eq(status_of(port, "/debug/pprof/"), 200);
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = 200;
    setrlimit(RLIMIT_NOFILE, &r);
    test_until(test_fds() <= before); /* the server has closed its side, too */
    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", s->poll_fd);
    int fd = socket(AF_INET, SOCK_STREAM, 0), info = open(name, O_RDONLY | O_CLOEXEC);
    cr_assert(watches(info, s->listener.fd));
    while ((last = dup(0)) >= 0)
        all[n++] = last;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0); /* the kernel has it; nobody has accepted it */
    send_text(fd, "GET /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    char c;
    usleep(100000);
    cr_assert(recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN);
    for (int i = 0; i < n; i++)
        close(all[i]);
    struct answer got = read_answer(fd);
    cr_assert_eq(got.status, 200);
    close(fd);
    close(info);
    weft_debug_serve_stop(s);
}

/* ---- malformed ----------------------------------------------------------------------------------------------------------------- */

#define MALFORMED 10000

static const char *const seeds[] = {
    "GET /debug/pprof/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /debug/pprof/heap?debug=1&seconds=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n",
    "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n0x10+0x20+1",
    "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0x10+\r\n0\r\n\r\n",
    "HEAD /debug/pprof/%68eap?x=%41&debug=-1 HTTP/1.0\r\nAuthorization: Basic YTowMTIzNDU2Nzg5YWJjZGVm\r\nSec-Fetch-Site: none\r\n\r\n",
    "GET http://localhost/debug/pprof/goroutine?debug=2 HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: keep-alive, close\r\n\r\n",
};

static size_t mutate(struct rng *rng, char *out, size_t room)
{
    const char *seed = seeds[rng_below(rng, (uint32_t)w_countof(seeds))];
    size_t n = strlen(seed);
    memcpy(out, seed, n);
    for (uint32_t k = 1 + rng_below(rng, 6); k > 0 && n > 0; k--) {
        size_t at = rng_below(rng, (uint32_t)n), len = 1 + rng_below(rng, 8);
        len = len < n - at ? len : n - at;
        switch (rng_below(rng, 5)) {
        case 0: out[at] = (char)rng_below(rng, 256); break;
        case 1: memmove(out + at, out + at + len, n - at - len); n -= len; break;
        case 2: out[at] ^= (char)(1 << rng_below(rng, 8)); break;
        case 3:
            if (n + len < room) {
                memmove(out + at + len, out + at, n - at);
                memset(out + at, "\r\n\0 %&=:/?"[rng_below(rng, 10)], len);
                n += len;
            }
            break;
        default: n = at; /* cut off */
        }
    }
    return n;
}

static void malformed(void *arg)
{
    char text[4096], buf[4096];
    weft_serve_opts o = serve_opts();
    struct rng rng;
    long warm = 0;
    (void)arg;
    rng_seed(&rng, test_seed());
    o.max_seconds = 1;
    o.token = "0123456789abcdef";
    weft_debug_server *s = serve_begin(o);
    int port = weft_debug_port(s), fds = test_fds(), threads = test_threads();
    for (int i = 0; i < MALFORMED; i++) {
        int fd = connect_to(port);
        cr_assert(fd >= 0, "after %d", i);
        size_t n = mutate(&rng, text, sizeof text);
        (void)!send(fd, text, n, MSG_NOSIGNAL);
        if (rng_below(&rng, 4) != 0) { /* or it just goes away */
            shutdown(fd, SHUT_WR);
            ssize_t k;
            while ((k = recv(fd, buf, sizeof buf, 0)) > 0 || (k < 0 && errno == EINTR))
                ;
        }
        close(fd);
        if (i == MALFORMED / 5)
            warm = test_rss_kib();
    }
    long full = test_rss_kib();
    struct answer a = ask_with(port, "GET", "/debug/pprof/heap", "Authorization: Bearer 0123456789abcdef\r\n", NULL);
    cr_assert_eq(a.status, 200);
    free(a.body);
    cr_assert(full - warm < (test_is_slow() ? 320 << 10 : 2048), "%ld KiB more memory", full - warm); /* a sanitizer keeps 256 MiB of what is freed */
    test_until(test_fds() <= fds && test_threads() <= threads + 4); /* the runtime may have some more; of 10 000 requests none has */
    weft_debug_serve_stop(s);
}

Test(serve_limits, ten_thousand_malformed_requests, .timeout = 120)
{
    test_may_take(120);
    test_run_procs(2, malformed, NULL);
}
