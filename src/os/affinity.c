#include "os/affinity.h"
#include <errno.h>
#include <stdint.h>
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
