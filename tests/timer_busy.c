/* Timers of threads that sleep in place (host threads, locked fibers), while a fiber computes on another processor. */
#include "sched/sched.h"
#include "test.h"
#include <pthread.h>

#define SLEEPS 8
static w_u32 stop, in_time;

/* Computes, and notes whether somebody looks after the timers before the sleep of the other is over. Without that nobody but the monitor would, when
 * it is too late. */
static void watch(void *arg)
{
    (void)arg;
    int64_t seen = 0;
    while (load_acq(&stop) == 0) {
        int64_t first = INT64_MAX;
        for (uint32_t i = 0; i < nprocs(); i++)
            first = w_min(first, load_seq(&sched.allp[i]->timers.next_ns));
        if (first != INT64_MAX && first != seen && load_seq(&sched.poll_until_ns) != 0 && weft_now() < first) {
            seen = first;
            add_seq(&in_time, 1);
        }
    }
}

static void *sleeper(void *arg)
{
    (void)arg;
    for (int i = 0; i < SLEEPS; i++)
        weft_sleep(40 * WEFT_MILLISECOND);
    return NULL;
}

static void locked(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    sleeper(arg);
    weft_unlock_os_thread();
}

static void run_host(void *arg)
{
    pthread_t t;
    weft_waitgroup wg = { 0 };
    bool host = arg != NULL;
    store_seq(&stop, 0);
    store_seq(&in_time, 0);
    cr_assert_eq(weft_waitgroup_go(&wg, watch, NULL), 0);
    if (host) {
        cr_assert_eq(pthread_create(&t, NULL, sleeper, NULL), 0);
        weft_blocking_begin();
        pthread_join(t, NULL);
        weft_blocking_end();
    } else
        locked(NULL);
    store_rel(&stop, 1);
    weft_waitgroup_wait(&wg);
    cr_expect_geq(load_seq(&in_time), SLEEPS / 2, "in %u of %d sleeps somebody looked after the timers", load_seq(&in_time), SLEEPS);
}

Test(timer_busy, a_host_thread_wakes_in_time) { test_run_procs(2, run_host, "host"); }
Test(timer_busy, a_locked_fiber_wakes_in_time) { test_run_procs(2, run_host, NULL); }
