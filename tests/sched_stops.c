/* A stop of the world while threads are being made, for which the monitor may be needed, and while the monitor takes processors away. */
#include "test.h"
#include <pthread.h>

static uint32_t stop;
static bool going_on(void) { return !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); }

/* Its thread ends with it, so another must be made. */
static void locked(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
}

static void starter(void *arg)
{
    (void)arg;
    while (going_on()) {
        cr_assert_eq(weft_go(locked, NULL), 0);
        weft_sleep(100 * WEFT_MICROSECOND);
    }
}

/* In user code for longer than a time slice. */
static void computes(void *arg)
{
    (void)arg;
    while (going_on()) {
        int64_t until = weft_now() + 12 * WEFT_MILLISECOND;
        while (weft_now() < until) {
        }
        weft_yield();
    }
}

/* Gives its processor up at the end of each call, and others need a thread to use it: one that is not made from this one. */
static void *host(void *arg)
{
    (void)arg;
    while (going_on())
        weft_yield();
    return NULL;
}

static void stops(void *arg)
{
    weft_waitgroup wg = { 0 };
    pthread_t t[2];
    weft_mem_stats stats;
    (void)arg;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&t[i], NULL, host, NULL), 0);
        cr_assert_eq(weft_waitgroup_go(&wg, computes, NULL), 0);
        cr_assert_eq(weft_waitgroup_go(&wg, starter, NULL), 0);
    }
    for (int i = 0; i < (test_is_slow() ? 100 : 1000); i++) {
        weft_read_mem_stats(&stats);
        if (i % 20 == 0)
            weft_gc();
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&wg);
    weft_blocking_begin();
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    test_until(weft_num_fibers() == 1);
}

Test(sched_stops, while_threads_are_made, .timeout = 100) { test_run_procs(4, stops, NULL); }
