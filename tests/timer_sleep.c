/* weft_sleep: never too early, from fibers and threads, many at once. */
#include "base/rng.h"
#include "test.h"
#include <errno.h>
#include <pthread.h>

/* Not inlined: the address of errno is that of a thread, and the fiber may change it. */
static w_noinline int errno_get(void) { return errno; }
static w_noinline void errno_set(int e) { errno = e; }

static void run_not_before(void *arg)
{
    struct rng r;
    rng_seed(&r, *(uint64_t *)arg);
    for (int i = 0; i < 300; i++) {
        int64_t ns = (int64_t)rng_below(&r, 500000), from = weft_now();
        weft_sleep(ns);
        cr_assert_geq(weft_now() - from, ns);
    }
    errno_set(77);
    weft_sleep(1000);
    cr_expect_eq(errno_get(), 77);
    weft_sleep(0);
    weft_sleep(-5);
}

Test(timer_sleep, not_before)
{
    uint64_t seed = test_seed();
    test_run(run_not_before, &seed);
}

/* ---- in order of their times, on one processor ---------------------------------------------------------------- */

#define SLEEPERS 50
#define STEP (2 * WEFT_MILLISECOND)
static int order[SLEEPERS], nasleep, nwoken;
static int64_t base, last;
static weft_waitgroup wg;

/* One of them was not run for so long that what it asked for may be due after the next one's: that tells nothing. On one processor they go to sleep
 * one after another. */
static bool late;
static int64_t note_time(void)
{
    int64_t now = weft_now();
    if (now - __atomic_exchange_n(&last, now, __ATOMIC_RELAXED) >= STEP || now >= base)
        __atomic_store_n(&late, true, __ATOMIC_RELAXED);
    return now;
}

static void sleep_till(void *arg)
{
    int i = (int)(intptr_t)arg;
    int64_t now = note_time();
    __atomic_fetch_add(&nasleep, 1, __ATOMIC_RELAXED);
    weft_sleep(base + i * STEP - now);
    order[__atomic_fetch_add(&nwoken, 1, __ATOMIC_RELAXED)] = i;
}

static void run_order(void *arg)
{
    (void)arg;
    int64_t lead_ns = 5 * WEFT_MILLISECOND;
    do {
        late = false;
        nasleep = nwoken = 0;
        last = weft_now();
        base = last + (lead_ns = w_min(lead_ns * 2, (int64_t)WEFT_SECOND));
        for (int k = 0; k < SLEEPERS; k++)
            cr_assert_eq(weft_waitgroup_go(&wg, sleep_till, (void *)(intptr_t)((k * 37) % SLEEPERS)), 0);
        while (__atomic_load_n(&nasleep, __ATOMIC_RELAXED) < SLEEPERS)
            weft_yield();
        note_time();
        weft_waitgroup_wait(&wg);
    } while (late);
    for (int i = 0; i < SLEEPERS; i++)
        cr_assert_eq(order[i], i);
}

Test(timer_sleep, who_is_due_first_wakes_first)
{
    test_run_procs(1, run_order, NULL);
}

/* ---- many, and the sleep of one does not hold up a shorter one ---------------------------------------------------- */

static int64_t longest;
static void sleep_some(void *arg)
{
    int64_t ns = (intptr_t)arg, from = weft_now();
    weft_sleep(ns);
    cr_expect_geq(weft_now() - from, ns);
}

static void run_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        int64_t ns = (i % 1000) * 50000;
        longest = ns > longest ? ns : longest;
        cr_assert_eq(weft_waitgroup_go(&wg, sleep_some, (void *)(intptr_t)ns), 0);
    }
    weft_waitgroup_wait(&wg);
}

Test(timer_sleep, twenty_thousand)
{
    test_run_procs(4, run_many, NULL);
}

static void sleep_long(void *arg) { (void)arg; weft_sleep(INT64_MAX); }

static void run_long(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_go(sleep_long, NULL), 0);
    for (int i = 0; i < 50; i++)
        weft_sleep(200000); /* each shortens the poller's sleep of the long one */
}

Test(timer_sleep, a_longer_sleep_does_not_hold_up_a_shorter_one)
{
    test_run_procs(4, run_long, NULL);
}

/* ---- threads of the host ----------------------------------------------------------------------------------------- */

static void *thread(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        int64_t from = weft_now();
        weft_sleep(WEFT_MILLISECOND);
        cr_expect_geq(weft_now() - from, WEFT_MILLISECOND);
    }
    return NULL;
}

Test(timer_sleep, host_threads)
{
    pthread_t t[3];
    cr_assert_eq(weft_start(NULL), 0);
    weft_sleep(WEFT_MILLISECOND);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, thread, NULL), 0);
    thread(NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(weft_stop(), 0);
}
