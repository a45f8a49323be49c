/* A stop of the world while threads are being made, for which the monitor may be needed, while the monitor takes processors away, and while threads
 * of the host attach. */
#include "sched/switch.h"
#include "sched/world.h"
#include "test.h"
#include <pthread.h>
#include <unistd.h>

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

Test(sched_stops, while_threads_are_made, .timeout = 100) { test_may_take(100); test_run_procs(4, stops, NULL); }

/* ---- who attaches while the workers of a collection scan -------------------------------------------------------------------------- */

#define STAY 6
static uint32_t attached, may_attach;
static struct m *there[STAY];
static int scanned[STAY];
static weft_chan *gate;

static void *stay_attached(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    there[(uintptr_t)arg] = m_self();
    __atomic_fetch_add(&attached, 1, __ATOMIC_ACQ_REL);
    cr_assert_eq(weft_chan_recv(gate, NULL), 0);
    return NULL;
}

static void *attach_late(void *arg)
{
    while (__atomic_load_n(&may_attach, __ATOMIC_ACQUIRE) == 0)
        usleep(100);
    cr_assert_eq(weft_attach(), 0);
    return arg;
}

static void note_scan(void *marker, const void *lo, const void *hi)
{
    (void)marker, (void)hi;
    for (int i = 0; i < STAY; i++)
        scanned[i] += lo == &there[i]->self;
}

/* One worker after the other, and in between the list of machines grows. */
static void scan_in_two_parts(void *arg)
{
    struct m *first = load_acq(&sched.all_m); /* acq: as all readers */
    world_stop(WEFT_STOP_GC, true);
    world_scan_stacks(0, 2, note_scan, NULL);
    __atomic_store_n(&may_attach, 1, __ATOMIC_RELEASE);
    while (load_acq(&sched.all_m) == first) /* acq: as above */
        usleep(100);
    world_scan_stacks(1, 2, note_scan, NULL);
    world_start();
    (void)arg;
}

static void attaches_meanwhile(void *arg)
{
    pthread_t t[STAY + 1];
    (void)arg;
    gate = weft_chan_make(0, 0);
    for (uintptr_t i = 0; i < STAY; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, stay_attached, (void *)i), 0);
    cr_assert_eq(pthread_create(&t[STAY], NULL, attach_late, NULL), 0);
    test_until(__atomic_load_n(&attached, __ATOMIC_ACQUIRE) == STAY);
    rt_enter();
    sched_on_big_stack(scan_in_two_parts, NULL);
    rt_leave(m_self());
    for (int i = 0; i < STAY; i++)
        cr_expect_eq(scanned[i], 1, "machine %d was scanned %d times", i, scanned[i]);
    cr_assert_eq(weft_chan_close(gate), 0);
    weft_blocking_begin();
    for (int i = 0; i <= STAY; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
}

Test(sched_stops, a_thread_that_attaches_during_a_scan_hides_no_other) { test_run_procs(2, attaches_meanwhile, NULL); }
