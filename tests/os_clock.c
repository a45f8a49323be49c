/* Clocks: direction, unit, CPU time of another thread. */
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#include "base/atomic.h"
#include "os/clock.h"
#include "test.h"

Test(clock, monotonic_and_wall_are_in_ns)
{
    int64_t before = os_now_ns();
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    int64_t now = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    cr_expect(before <= now && now <= os_now_ns());
    cr_expect(os_wall_ns() / 1000000000 - time(NULL) <= 1);
}

static w_u32 state; /* 0: starting, 1: tid is known, 2: end */
static pid_t tid;

static void *spin(void *arg)
{
    tid = gettid();
    store_rel(&state, 1);
    while (load_acq(&state) == 1) {
    }
    return arg;
}

Test(clock, cpu_time_of_another_thread)
{
    pthread_t t;
    pthread_create(&t, NULL, spin, NULL);
    while (load_acq(&state) == 0) {
    }
    int64_t used = os_thread_cpu_ns(tid);
    cr_assert_geq(used, 0);
    int64_t own = os_self_cpu_ns();
    while (os_thread_cpu_ns(tid) < used + 10000000) /* ends, since that thread computes */
        usleep(1000);
    cr_expect_lt(os_self_cpu_ns() - own, os_process_cpu_ns());
    store_rel(&state, 2);
    pthread_join(t, NULL);
    for (int i = 0; os_thread_cpu_ns(tid) >= 0; i++) { /* join returns a moment before the kernel forgets the thread */
        cr_assert_lt(i, 10000, "the thread has ended");
        usleep(1000);
    }
    errno = 5;
    os_thread_cpu_ns(tid);
    cr_expect_eq(errno, 5);
}
