#include "os/futex.h"
#include <linux/futex.h>
#include <time.h>
#include "base/syscall.h"

int os_futex_wait(w_u32 *addr, uint32_t expect, int64_t timeout_ns)
{
    struct timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
    return (int)sys_call4(SYS_futex, &addr->v, FUTEX_WAIT_PRIVATE, expect, timeout_ns < 0 ? NULL : &ts);
}

int os_futex_wake(w_u32 *addr, int n)
{
    int woken = (int)sys_call3(SYS_futex, &addr->v, FUTEX_WAKE_PRIVATE, n);
    return woken > 0 ? woken : 0;
}
