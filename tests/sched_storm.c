/* Threads of the host and processors that come and go, under load: nothing is lost, and nothing is left behind. */
#include "base/base.h"
#include "base/rng.h"
#include "sched/sched.h"
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int over;
static bool is_over(void) { return __atomic_load_n(&over, __ATOMIC_ACQUIRE); }

/* Records of machines: they stay, and are used again. */
static int machines(void)
{
    int n = 0;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        n++;
    return n;
}

/* A list that only its owner's stack knows; a lost one shows by its sum. */
struct node { struct node *next; uint64_t value; };

static uint64_t sum_of_list(unsigned n)
{
    struct node *list = NULL;
    for (unsigned i = 1; i <= n; i++) {
        struct node *new = weft_alloc(sizeof *new);
        cr_assert_not_null(new);
        new->next = list;
        new->value = i;
        list = new;
        if (i % 32 == 0)
            weft_yield();
    }
    uint64_t sum = 0;
    for (; list != NULL; list = list->next)
        sum += list->value;
    return sum;
}

#define SUM(n) ((uint64_t)(n) * ((n) + 1) / 2)

/* ---- items, through fibers on all processors --------------------------------------------------------------------------- */

static weft_chan *in, *out;
static uint64_t sent, received;

static void worker(void *arg)
{
    (void)arg;
    uint64_t *item;
    while (weft_chan_recv(in, &item) == 1) {
        cr_assert_eq(weft_chan_send(out, &item), 0);
        if (*item % 64 == 0)
            cr_assert_eq(sum_of_list(100), SUM(100));
    }
}

static void collector(void *arg)
{
    (void)arg;
    uint64_t *item;
    while (weft_chan_recv(out, &item) == 1)
        received += *item;
}

static void send_item(uint64_t x)
{
    uint64_t *item = weft_alloc(sizeof *item);
    cr_assert_not_null(item);
    *item = x;
    cr_assert_eq(weft_chan_send(in, &item), 0);
    __atomic_fetch_add(&sent, x, __ATOMIC_RELAXED);
}

static weft_waitgroup workers, collectors;

static void pipeline_start(int n)
{
    in = weft_chan_make(sizeof(void *), 8);
    out = weft_chan_make(sizeof(void *), 0);
    weft_root_add(&in, sizeof in);
    weft_root_add(&out, sizeof out);
    sent = received = 0;
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_waitgroup_go(&workers, worker, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&collectors, collector, NULL), 0);
}

static void pipeline_end(void)
{
    weft_chan_close(in);
    weft_waitgroup_wait(&workers);
    weft_chan_close(out);
    weft_waitgroup_wait(&collectors);
    cr_expect_eq(received, sent);
    weft_root_remove(&in);
    weft_root_remove(&out);
}

/* ---- short-lived threads of the host ------------------------------------------------------------------------------------- */

static int made; /* fibers that threads started, and that have ended */
static void count(void *arg) { __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED); }

static int wanted_fibers;

static void *visit(void *arg)
{
    unsigned how = (unsigned)(uintptr_t)arg;
    if (how % 3 == 0)
        cr_assert_eq(weft_attach(), 0);
    if (how % 4 != 0)
        cr_assert_eq(sum_of_list(50 + how % 50), SUM(50 + how % 50));
    for (unsigned i = 0; i < how % 5; i++)
        send_item(how);
    if (how % 2 == 0) {
        cr_assert_eq(weft_go(count, &made), 0);
        __atomic_fetch_add(&wanted_fibers, 1, __ATOMIC_RELAXED);
    }
    if (how % 7 == 0)
        weft_sleep(100000);
    if (how % 5 == 0)
        cr_assert_eq(weft_detach(), 0);
    if (how % 10 == 0)
        weft_yield(); /* attaches again */
    return NULL;
}

struct visits { int n; uint64_t seed; };

/* One after another: each host is a thread itself. */
static void *host(void *arg)
{
    const struct visits *v = arg;
    struct rng r;
    rng_seed(&r, v->seed);
    for (int i = 0; i < v->n; i++) {
        pthread_t t[3];
        unsigned n = 1 + rng_below(&r, 3);
        for (unsigned k = 0; k < n; k++)
            cr_assert_eq(pthread_create(&t[k], NULL, visit, (void *)(uintptr_t)rng_below(&r, 1000)), 0);
        for (unsigned k = 0; k < n; k++)
            pthread_join(t[k], NULL);
    }
    return NULL;
}

static void collect_on(void *arg)
{
    (void)arg;
    while (!is_over()) {
        weft_gc();
        weft_sleep(200 * WEFT_MICROSECOND);
    }
}

static void resize_on(void *arg)
{
    struct rng r;
    rng_seed(&r, (uintptr_t)arg);
    while (!is_over()) {
        int n = 1 + (int)rng_below(&r, 8);
        cr_assert_geq(weft_maxprocs(n), 1);
        cr_assert_leq(load_rlx(&sched.nidle_p), 8); /* rlx: a look */
        weft_sleep(100 * WEFT_MICROSECOND);
    }
}

#define HOSTS 4

static void storm(uint64_t seed, int visits)
{
    pthread_t h[HOSTS];
    struct visits v[HOSTS];
    weft_waitgroup wg = { 0 };
    over = made = wanted_fibers = 0;
    pipeline_start(6);
    cr_assert_eq(weft_waitgroup_go(&wg, collect_on, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, resize_on, (void *)(uintptr_t)seed), 0);
    for (int i = 0; i < HOSTS; i++) {
        v[i] = (struct visits){ visits, seed + (uint64_t)i };
        cr_assert_eq(pthread_create(&h[i], NULL, host, &v[i]), 0);
    }
    weft_blocking_begin();
    for (int i = 0; i < HOSTS; i++)
        pthread_join(h[i], NULL);
    weft_blocking_end();
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&wg);
    pipeline_end();
    test_until(__atomic_load_n(&made, __ATOMIC_RELAXED) == wanted_fibers);
}

static void run_storm(void *arg)
{
    int visits = test_is_slow() ? 30 : 100;
    storm(*(uint64_t *)arg, visits); /* the first one makes what stays */
    int threads = test_threads(), maps = test_maps(), fds = test_fds(), ms = machines();
    storm(*(uint64_t *)arg + 100, visits);
    test_until(test_threads() <= threads + 8); /* no more than fibers that were in user code or blocked at once */
    int more = w_max(machines() - ms, 0);
    cr_expect_leq(more, 12, "%d records of machines, %d before", ms + more, ms);
    /* Each machine that there is for good has two stacks, and a sanitizer's parts. What each visit left would come to hundreds. */
    cr_expect_leq(test_maps(), maps + 32 + 10 * more, "%d mappings, %d before, and %d more machines", test_maps(), maps, more);
    cr_expect_eq(test_fds(), fds);
}

/* It forces collections all the time, and says so; what the doctor loads to tell where would count as mappings that were left. */
static weft_config storm_config(int procs, const char *debug)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    cfg.doctor = "w04=off";
    return cfg;
}

static void run_storms(const char *debug)
{
    uint64_t seed = test_seed();
    weft_config cfg = storm_config(4, debug);
    test_run_config(&cfg, run_storm, &seed);
}

Test(sched_storm, threads_of_the_host_come_and_go) { run_storms(NULL); }

/* Who ends a mark, because he has to pay for what he allocates, may have no processor any more when he may stop the world. */
Test(sched_storm, threads_of_the_host_come_and_go_and_pay_for_what_they_allocate)
{
    if (test_marks_beside())
        run_storms("gc=uffd");
}

/* What lies on the stack of a thread that attaches during the stop is of a thread before it, and keeps nothing. */
Test(sched_storm, threads_of_the_host_come_and_go_and_marks_are_verified) { run_storms("gcstress=500,gcverify=1"); }

Test(sched_storm, threads_of_the_host_come_and_go_under_weft_start)
{
    uint64_t seed = test_seed();
    weft_config cfg = storm_config(2, NULL);
    cr_assert_eq(weft_start(&cfg), 0);
    run_storm(&seed);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- processors ---------------------------------------------------------------------------------------------------------------- */

static uint64_t slept;

static void sleeper(void *arg)
{
    struct rng r;
    rng_seed(&r, (uintptr_t)arg);
    while (!is_over()) {
        int64_t ns = (int64_t)rng_below(&r, 300000), from = weft_now();
        weft_sleep(ns);
        cr_assert_geq(weft_now() - from, ns);
        __atomic_fetch_add(&slept, 1, __ATOMIC_RELAXED);
    }
}

static void timed(void *arg) { __atomic_fetch_add((uint64_t *)arg, 1, __ATOMIC_RELAXED); }

static void spawner(void *arg)
{
    while (!is_over()) {
        weft_waitgroup wg = { 0 };
        int n = 0;
        for (int i = 0; i < 20; i++)
            cr_assert_eq(weft_waitgroup_go(&wg, count, &n), 0);
        weft_waitgroup_wait(&wg);
        cr_assert_eq(__atomic_load_n(&n, __ATOMIC_ACQUIRE), 20);
    }
    (void)arg;
}

static void computes(void *arg)
{
    (void)arg;
    while (!is_over()) {
        for (int64_t until = weft_now() + 300000; weft_now() < until;)
            ;
        weft_yield();
    }
}

static void blocks(void *arg)
{
    (void)arg;
    while (!is_over()) {
        weft_blocking_begin();
        usleep(100);
        weft_blocking_end();
    }
}

static void locked(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    sleeper(arg);
    weft_unlock_os_thread();
}

static void run_resizes(void *arg)
{
    struct rng r;
    rng_seed(&r, *(uint64_t *)arg);
    weft_waitgroup wg = { 0 };
    uint64_t fired = 0, once = 0;
    weft_fn *const kinds[] = { sleeper, sleeper, sleeper, spawner, spawner, computes, blocks, locked, collect_on };
    pipeline_start(8);
    over = 0;
    for (size_t i = 0; i < w_countof(kinds); i++)
        cr_assert_eq(weft_waitgroup_go(&wg, kinds[i], (void *)(uintptr_t)(i + 1)), 0);
    weft_timer *ticker = weft_timer_func(100000, 100000, timed, &fired);
    int resizes = test_is_slow() ? 100 : 400, now = weft_maxprocs(0);
    for (int i = 1; i <= resizes; i++) {
        int n = 1 + (int)rng_below(&r, 8);
        cr_assert_eq(weft_maxprocs(n), now);
        cr_assert_eq(weft_maxprocs(0), n);
        now = n;
        cr_assert_not_null(weft_timer_func(i * 1000, 0, timed, &once));
        for (int k = 0; k < 10; k++)
            send_item((uint64_t)i);
        if (i % 100 == 0)
            weft_sleep(WEFT_MILLISECOND);
    }
    test_until(__atomic_load_n(&once, __ATOMIC_RELAXED) == (uint64_t)resizes);
    weft_timer_stop(ticker);
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&wg);
    pipeline_end();
    cr_expect_gt(fired, 0);
    cr_expect_gt(slept, 0);
    test_until(weft_num_fibers() == 1);
}

Test(sched_storm, processors_come_and_go)
{
    uint64_t seed = test_seed();
    test_run_procs(4, run_resizes, &seed);
}

static void run_many_procs(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_maxprocs(0), 3);
    cr_expect_eq(weft_maxprocs(-1), 3);
    cr_expect_eq(weft_maxprocs(3), 3);
    cr_expect_eq(weft_maxprocs(1000), 3);
    cr_expect_eq(weft_maxprocs(1), 1000);
    cr_expect_eq(weft_maxprocs(0), 1);
    int n = 0;
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, count, &n), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(n, 1000);
}

Test(sched_storm, a_thousand_processors_and_back)
{
    test_run_procs(3, run_many_procs, NULL);
}
