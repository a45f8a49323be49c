#include "os/clock.h"
#include <errno.h>
#include <time.h>

static int64_t clock_ns(clockid_t id)
{
    struct timespec ts;
    int saved = errno;
    if (clock_gettime(id, &ts) != 0) {
        int err = errno;
        errno = saved;
        return -err;
    }
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t os_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
int64_t os_wall_ns(void) { return clock_ns(CLOCK_REALTIME); }
int64_t os_self_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }
int64_t os_process_cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* The kernel's encoding of "scheduler clock of thread tid" (CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED), which is what
 * pthread_getcpuclockid computes from a pthread_t: part of the ABI. */
int64_t os_thread_cpu_ns(pid_t tid)
{
    return clock_ns((clockid_t)(~(unsigned)tid << 3 | 6));
}
