/* Started and stopped a thousand times in one process: no thread, mapping or descriptor stays behind, whatever state fibers and threads of the host
 * are left in. */
#include "base/rng.h"
#include "sched/sched.h"
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIVES (test_is_emulated() ? 100 : 1000)
#define WARM 100
#ifdef W_TSAN
#define MAPS INT16_MAX /* it maps something for each thread and each stack, and keeps it */
#else
#define MAPS 48 /* libc keeps stacks of ended threads, two mappings each, as many as ever ran at once */
#endif

static struct rng rng;
static int silent; /* a socket that nobody writes to; -1: taken */

/* ---- fibers in every state ----------------------------------------------------------------------------------- */

static void park(void *arg) { weft_chan_recv(arg, NULL); }
static void sleep_long(void *arg) { (void)arg; weft_sleep(3600 * WEFT_SECOND); }
static void yield_on(void *arg) { (void)arg; for (;;) weft_yield(); }
static void end_at_once(void *arg) { (void)arg; }
static void deferred(void *arg) { (void)arg; cr_assert_fail("a deferred call of a fiber that was left behind"); }

static void park_locked(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    weft_chan_recv(arg, NULL);
}

static void park_deferred(void *arg)
{
    cr_assert_eq(weft_defer(deferred, NULL), 0);
    weft_chan_recv(arg, NULL);
}

static void end_locked(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
}

static void compute(void *arg)
{
    (void)arg;
    for (int64_t until = weft_now() + 300000; weft_now() < until;)
        ;
}

static void block(void *arg)
{
    (void)arg;
    weft_blocking_begin();
    usleep(300);
    weft_blocking_end();
}

static void allocate(void *arg)
{
    (void)arg;
    for (int i = 0; i < 2000; i++)
        weft_alloc(64);
    weft_gc();
}


/* The descriptor is given to weft, and not closed: it stays open, in no epoll. */
static void wait_readable(void *arg)
{
    weft_fd *f;
    char c;
    (void)arg;
    int fd = __atomic_exchange_n(&silent, -1, __ATOMIC_RELAXED);
    if (fd < 0)
        return;
    cr_assert_eq(weft_fd_open(fd, &f), 0);
    weft_read(f, &c, 1);
}

static weft_fn *const kinds[] = { park, sleep_long, yield_on, end_at_once, park_locked, park_deferred, end_locked, compute, block, allocate, wait_readable };

static void main_fiber(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 0);
    unsigned n = 1 + rng_below(&rng, 12);
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(weft_go(kinds[rng_below(&rng, sizeof kinds / sizeof kinds[0])], c), 0);
    for (unsigned i = rng_below(&rng, 5); i > 0; i--)
        weft_yield();
    if (rng_below(&rng, 8) == 0)
        weft_maxprocs(1 + (int)rng_below(&rng, 4));
    if (rng_below(&rng, 4) == 0)
        weft_sleep(rng_below(&rng, 300000));
}

/* ---- lives ---------------------------------------------------------------------------------------------------------- */

static void life_by_run(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 1 + (int)rng_below(&rng, 4);
    cfg.stop_timeout_ms = 30000;
    test_run_config(&cfg, main_fiber, NULL);
}

static void *host_thread(void *arg)
{
    weft_chan *c = arg;
    weft_alloc(100);
    if (c != NULL)
        weft_chan_send(c, NULL);
    return NULL;
}

/* A host with threads: attached by a call, by hand, detached or not. */
static void life_by_start(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 1 + (int)rng_below(&rng, 4);
    cfg.stop_timeout_ms = 30000;
    cr_assert_eq(weft_start(&cfg), 0);
    weft_chan *c = weft_chan_make(0, 0);
    pthread_t t[3];
    unsigned n = rng_below(&rng, 4);
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, host_thread, c), 0);
    cr_assert_eq(weft_go(park, weft_chan_make(0, 0)), 0);
    for (unsigned i = 0; i < n; i++)
        cr_assert_eq(weft_chan_recv(c, NULL), 1);
    main_fiber(NULL);
    for (unsigned i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(weft_stop(), 0);
}

struct held { int threads, maps, fds; };

static struct held held(void)
{
    return (struct held){ test_threads(), test_maps(), test_fds() };
}

static void lives(void (*one)(void), int n, int threads)
{
    for (int i = 0; i < n; i++) {
        int fds[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        silent = fds[0];
        one();
        close(fds[0]);
        close(fds[1]);
    }
    test_until(test_threads() <= threads); /* a detached thread may still be on its last instructions */
}

/* Records of threads of the host outlive the runtime. */
static int machines(void)
{
    int n = 0;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        n++;
    return n;
}

static void many(void (*one)(void), int n)
{
    uint64_t seed = test_seed();
    rng_seed(&rng, seed);
    cr_assert_geq(test_threads(), 1); /* Criterion's own threads and sockets come with the first check */
    struct held before = held();
    lives(one, WARM, before.threads);
    struct held warm = held();
    lives(one, n, before.threads);
    struct held after = held();
    cr_expect_eq(after.fds, before.fds);
    cr_expect_leq(after.maps, warm.maps + MAPS, "%d mappings before, %d after the first lives, %d after all", before.maps, warm.maps, after.maps);
    cr_expect_leq(machines(), 8);
}

Test(life_many, run)
{
    many(life_by_run, LIVES);
}

Test(life_many, start_and_stop)
{
    many(life_by_start, LIVES / 4);
}

static void either(void)
{
    if (rng_below(&rng, 2) == 0)
        life_by_run();
    else
        life_by_start();
}

static void *be_attached(void *arg)
{
    pthread_barrier_t *b = arg;
    for (int i = 0; i < 2; i++) {
        pthread_barrier_wait(b);
        weft_alloc(16);
        pthread_barrier_wait(b);
    }
    return NULL;
}

/* A thread stays attached over the end of a life, and comes back in the next one, or ends between them. */
static void life_with_a_stranger(void)
{
    pthread_barrier_t b;
    pthread_t t;
    unsigned rounds = 1 + rng_below(&rng, 2);
    pthread_barrier_init(&b, NULL, 2);
    cr_assert_eq(pthread_create(&t, NULL, be_attached, &b), 0);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(weft_start(NULL), 0);
        pthread_barrier_wait(&b);
        pthread_barrier_wait(&b);
        if (i + 1 == 2 && rounds == 2)
            pthread_join(t, NULL);
        cr_assert_eq(weft_stop(), 0);
        if (rng_below(&rng, 2) == 0)
            test_run(main_fiber, NULL);
    }
    if (rounds != 2)
        pthread_join(t, NULL);
    pthread_barrier_destroy(&b);
}

Test(life_many, either_with_threads_that_stay_attached)
{
    many(either, LIVES / 4);
    lives(life_with_a_stranger, 50, test_threads());
    cr_expect_leq(machines(), 8);
}

/* ---- a thread of the host ends, and the runtime does too ---------------------------------------------------------------- */

static int going;

static void *attach_and_end(void *arg)
{
    (void)arg;
    weft_alloc(16);
    __atomic_fetch_add(&going, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&going, __ATOMIC_ACQUIRE) < 4)
        ;
    return NULL;
}

static void collect_till_the_end(void *arg)
{
    (void)arg;
    for (;;) {
        weft_gc();
        weft_yield();
    }
}

static pthread_t ends[3];

static void end_together(void *arg)
{
    (void)arg;
    going = 0;
    if (rng_below(&rng, 2) == 0)
        cr_assert_eq(weft_go(collect_till_the_end, NULL), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&ends[i], NULL, attach_and_end, NULL), 0);
    while (__atomic_load_n(&going, __ATOMIC_ACQUIRE) < 3)
        weft_yield();
    __atomic_fetch_add(&going, 1, __ATOMIC_ACQ_REL);
}

Test(life_many, threads_of_the_host_end_while_the_runtime_does)
{
    uint64_t seed = test_seed();
    rng_seed(&rng, seed);
    for (int i = 0; i < 60; i++) {
        if (i % 2 == 0) {
            test_run_procs(1 + i % 3, end_together, NULL);
        } else {
            cr_assert_eq(weft_start(NULL), 0);
            end_together(NULL);
            cr_assert_eq(weft_stop(), 0);
        }
        for (int k = 0; k < 3; k++)
            pthread_join(ends[k], NULL);
    }
    cr_expect_leq(machines(), 8);
}
