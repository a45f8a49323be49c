#include "os/affinity.h"
#include <errno.h>
#include <stdint.h>
#include "base/atomic.h"
#include "base/bits.h"
#include "base/syscall.h"

/* The kernel refuses a mask that is shorter than its own (-EINVAL) and returns the bytes it wrote. 65536 CPUs are
 * eight times what Linux can be built for, so a mask on the stack does. */
int os_cpu_count(void)
{
    uint64_t mask[1024];
    long bytes = sys_call3(SYS_sched_getaffinity, 0, sizeof mask, mask);
    unsigned n = 0;
    for (long i = 0; i < bytes / 8; i++)
        n += bits_count(mask[i]);
    return n > 0 ? (int)n : 1; /* a sandbox may forbid the call */
}

bool os_affinity_elsewhere(int tid, struct os_affinity *was)
{
    static w_u32 refused; /* rlx: a hint; then it is not tried again */
    uint64_t to[w_countof(was->mask)], left = 0;
    unsigned cpu;
    if (load_rlx(&refused) != 0) /* rlx, and below: see there */
        return false;
    was->bytes = sys_call3(SYS_sched_getaffinity, tid, sizeof was->mask, was->mask);
    if (was->bytes <= 0 || sys_call3(SYS_getcpu, &cpu, 0, 0) != 0 || cpu / 64 >= (unsigned long)was->bytes / 8)
        return false;
    for (long i = 0; i < was->bytes / 8; i++)
        left |= to[i] = was->mask[i] & ~((uint64_t)(i == cpu / 64) << cpu % 64);
    if (left == 0)
        return false;
    bool done = sys_call3(SYS_sched_setaffinity, tid, was->bytes, to) == 0;
    if (!done)
        store_rlx(&refused, 1);
    return done;
}

void os_affinity_back(int tid, const struct os_affinity *was) { sys_call3(SYS_sched_setaffinity, tid, was->bytes, was->mask); }
