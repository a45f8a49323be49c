/* Names are looked up without holding up anybody else: here getaddrinfo is ours, and takes as long as we like. */
#include "io_test.h"
#include "base/atomic.h"
#include "os/futex.h"
#include <netdb.h>
#include <netinet/in.h>

static w_u32 inside, released;
static struct sockaddr_in loopback = { .sin_family = AF_INET, .sin_addr = { __builtin_bswap32(INADDR_LOOPBACK) } };
static struct addrinfo answer = { .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&loopback, .ai_addrlen = sizeof loopback };

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    (void)service, (void)hints;
    add_seq(&inside, 1);
    while (load_seq(&released) == 0)
        os_futex_wait(&released, 0, -1);
    add_seq(&inside, -1);
    if (strcmp(name, "nobody.example") == 0)
        return EAI_NONAME;
    *list = &answer;
    return 0;
}

void freeaddrinfo(struct addrinfo *list) { (void)list; }

static void release(void)
{
    store_seq(&released, 1);
    os_futex_wake(&released, INT32_MAX);
}

static char address[64];
static int connected;

static void dial(void *arg)
{
    weft_fd *f;
    int r = weft_dial(arg, 0, &f);
    if (r == 0) {
        __atomic_fetch_add(&connected, 1, __ATOMIC_RELAXED);
        OK(weft_fd_close(f));
    } else {
        cr_expect_eq(r, -ENOENT, "%s", weft_strerror(r));
    }
}

static void ping(void *arg)
{
    weft_chan **c = arg;
    int x;
    while (weft_chan_recv(c[0], &x) == 1)
        weft_chan_send(c[1], &x);
}

static void run_lookup(void *arg)
{
    enum { DIALS = 20 };
    weft_fd *listener, *f;
    weft_waitgroup wg = { 0 }, pinging = { 0 };
    (void)arg;
    OK(weft_listen("127.0.0.1:0", DIALS, &listener));
    snprintf(address, sizeof address, "somebody.example:%d", weft_fd_port(listener));
    for (int i = 0; i < DIALS; i++)
        GO(wg, dial, i % 2 == 0 ? address : "nobody.example:1");
    test_until(load_seq(&inside) == DIALS);

    /* All of them block a thread now. Fibers, collections and timers go on, on the one processor there is. */
    weft_chan *c[2] = { weft_chan_make(sizeof(int), 0), weft_chan_make(sizeof(int), 0) };
    GO(pinging, ping, c);
    for (int i = 0, x; i < 10000; i++) {
        weft_chan_send(c[0], &i);
        weft_chan_recv(c[1], &x);
        cr_assert_eq(x, i);
        if (i % 1000 == 0)
            weft_gc();
    }
    weft_chan_close(c[0]);
    weft_waitgroup_wait(&pinging);
    cr_expect_eq(weft_dial("late.example:1", weft_now() + 5 * WEFT_MILLISECOND, &f), -ETIMEDOUT, "the deadline holds");
    cr_expect_geq(load_seq(&inside), DIALS);
    cr_expect_eq(connected, 0);
    release();
    weft_waitgroup_wait(&wg);
    cr_expect_eq(connected, DIALS / 2);
    test_until(weft_num_fibers() == 1);
    OK(weft_fd_close(listener));
}

Test(io_lookup, a_slow_lookup_holds_up_its_fiber_only)
{
    test_run_procs(1, run_lookup, NULL);
    store_seq(&released, 0);
    connected = 0;
    test_run_procs(4, run_lookup, NULL);
}
