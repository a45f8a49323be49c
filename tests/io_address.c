/* Addresses: every form, and what is none. */
#include "io_test.h"
#include <arpa/inet.h>
#include <netinet/in.h>

static void pair_up(const char *listen_at, const char *dial_at)
{
    weft_fd *l, *a, *b;
    char addr[128];
    int r = weft_listen(listen_at, 0, &l);
    cr_assert_eq(r, 0, "%s: %s", listen_at, weft_strerror(r));
    guard(l);
    snprintf(addr, sizeof addr, dial_at, weft_fd_port(l));
    r = weft_dial(addr, soon(), &a);
    cr_assert_eq(r, 0, "%s: %s", addr, weft_strerror(r));
    OK(weft_accept(l, &b, NULL, NULL));
    OK(weft_write(a, "x", 1));
    guard(b);
    char c;
    cr_expect_eq(weft_read(b, &c, 1), 1);
    if (strncmp(addr, "unix:", 5) != 0) {
        cr_expect_eq(weft_fd_port(b), weft_fd_port(l));
        cr_expect_gt(weft_fd_port(a), 0);
        int on = 0;
        socklen_t len = sizeof on;
        cr_expect_eq(getsockopt(weft_fd_number(b), 6, 1 /* TCP_NODELAY */, &on, &len), 0);
        cr_expect_neq(on, 0);
    } else
        cr_expect_eq(weft_fd_port(l), -EAFNOSUPPORT);
    OK(weft_fd_close(a));
    OK(weft_fd_close(b));
    OK(weft_fd_close(l));
}

static bool have_in6(void)
{
    weft_fd *l;
    if (weft_listen("[::1]:0", 1, &l) != 0)
        return false;
    OK(weft_fd_close(l));
    return true;
}

static void run_forms(void *arg)
{
    (void)arg;
    char a[64];
    pair_up("127.0.0.1:0", "127.0.0.1:%d");
    pair_up(":0", ":%d");
    pair_up(":0", "127.0.0.1:%d");
    pair_up("localhost:0", "localhost:%d");
    if (have_in6()) {
        pair_up("[::1]:0", "[::1]:%d");
        pair_up(":0", "[::1]:%d");
        pair_up("[::1%lo]:0", "[::1]:%d");
    }
    snprintf(a, sizeof a, "unix:@weft-addr-%d", (int)getpid());
    pair_up(a, a);
    snprintf(a, sizeof a, "unix:/tmp/weft-addr-%d", (int)getpid());
    pair_up(a, a);
    weft_fd *f;
    cr_expect_eq(weft_listen(a, 1, &f), -EADDRINUSE);
    cr_expect_eq(weft_dial(a, 0, &f), -ECONNREFUSED);
    unlink(a + 5);
    cr_expect_eq(weft_dial(a, 0, &f), -ENOENT);
}

Test(io_address, forms) { test_run(run_forms, NULL); }

static void run_none(void *arg)
{
    (void)arg;
    static const char *const bad[] = {
        "", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:99999999999", "127.0.0.1:-1", "127.0.0.1: 1",
        "::1:80", "[::1]", "[::1:80", "[]:80", "[127.0.0.1]:80", "[::1]x:80", "a]b:80", "unix:", "unix:@", "[::1%]:80",
    };
    weft_fd *f = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_eq(weft_listen(bad[i], 1, &f), -EINVAL, "\"%s\"", bad[i]);
        cr_expect_eq(weft_dial(bad[i], 0, &f), -EINVAL, "\"%s\"", bad[i]);
    }
    char longer[300];
    memset(longer, 'a', sizeof longer);
    memcpy(longer, "unix:/", 6);
    longer[sizeof longer - 1] = 0;
    cr_expect_eq(weft_dial(longer, 0, &f), -ENAMETOOLONG);
    cr_expect_lt(weft_dial("no-such-host.invalid:80", weft_now() + 5 * WEFT_SECOND, &f), 0);
    cr_expect_null(f);
}

Test(io_address, what_is_none) { test_run(run_none, NULL); }

/* A port of which others hold a part, one family of addresses, is in use. */
static void run_in_use(void *arg)
{
    (void)arg;
    weft_fd *f = NULL, *l;
    char addr[40];
    struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_addr = in6addr_any };
    socklen_t len = sizeof a;
    int on = 1, s = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (have_in6()) {
        cr_assert_eq(setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
        cr_assert_eq(bind(s, (struct sockaddr *)&a, sizeof a), 0);
        cr_assert_eq(listen(s, 1), 0);
        cr_assert_eq(getsockname(s, (struct sockaddr *)&a, &len), 0);
        snprintf(addr, sizeof addr, ":%d", ntohs(a.sin6_port));
        cr_expect_eq(weft_listen(addr, 1, &f), -EADDRINUSE);
    }
    close(s);
    OK(weft_listen("127.0.0.1:0", 1, &l));
    snprintf(addr, sizeof addr, "localhost:%d", weft_fd_port(l));
    cr_expect_eq(weft_listen(addr, 1, &f), -EADDRINUSE);
    snprintf(addr, sizeof addr, ":%d", weft_fd_port(l));
    cr_expect_eq(weft_listen(addr, 1, &f), -EADDRINUSE);
    OK(weft_fd_close(l));
}

Test(io_address, a_port_half_taken_is_in_use) { test_run(run_in_use, NULL); }

/* Nobody accepts, the queue is full: the attempt ends at its deadline. */
static void run_full(void *arg)
{
    (void)arg;
    weft_fd *l, *f[10];
    char addr[32];
    OK(weft_listen("127.0.0.1:0", 1, &l));
    snprintf(addr, sizeof addr, "127.0.0.1:%d", weft_fd_port(l));
    int r = 0, n = 0;
    int64_t d = 0;
    while (n < 10 && r == 0) {
        d = weft_now() + 50 * WEFT_MILLISECOND;
        r = weft_dial(addr, d, &f[n++]);
    }
    cr_expect_eq(r, -ETIMEDOUT);
    cr_expect_geq(weft_now(), d);
    snprintf(addr, sizeof addr, "unix:@weft-full-%d", (int)getpid());
    OK(weft_listen(addr, 1, &l));
    for (r = 0, n = 0; n < 10 && r == 0; n++) {
        d = weft_now() + 20 * WEFT_MILLISECOND;
        r = weft_dial(addr, d, &f[n]);
    }
    cr_expect_eq(r, -ETIMEDOUT);
    cr_expect_geq(weft_now(), d);
    OK(weft_listen("127.0.0.1:0", 1, &l));
    snprintf(addr, sizeof addr, "127.0.0.1:%d", weft_fd_port(l));
    OK(weft_fd_close(l));
    cr_expect_eq(weft_dial(addr, 0, &f[0]), -ECONNREFUSED);
}

Test(io_address, deadline_of_dial) { test_run(run_full, NULL); }

/* weft_connect on a socket of one's own. */
static void run_connect(void *arg)
{
    (void)arg;
    weft_fd *l, *a, *b;
    OK(weft_listen("127.0.0.1:0", 1, &l));
    a = opened(socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)weft_fd_port(l)), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    OK(weft_connect(a, (struct sockaddr *)&to, sizeof to));
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    OK(weft_accept(l, &b, (struct sockaddr *)&peer, &len));
    cr_expect_eq(len, sizeof peer);
    cr_expect_eq(ntohs(peer.sin_port), weft_fd_port(a));
    guard(b);
    char buf[8];
    OK(weft_write(a, "hi", 2));
    cr_expect_eq(weft_read(b, buf, 8), 2);
    int r = weft_connect(a, (struct sockaddr *)&to, sizeof to); /* Linux says 0 once after a connect that took time */
    cr_expect(r == 0 || r == -EISCONN, "%d", r);
    cr_expect_eq(weft_connect(a, (struct sockaddr *)&to, sizeof to), -EISCONN);
}

Test(io_address, connect) { test_run(run_connect, NULL); }
