#include "base/backoff.h"
#include <linux/futex.h>
#include <time.h>
#include "base/syscall.h"

void nap(void)
{
    w_u32 nobody = { 0 }; /* wakes us; a futex is what no sandbox refuses */
    struct timespec t = { 0, NAP_NS };
    sys_call4(SYS_futex, &nobody.v, FUTEX_WAIT_PRIVATE, 0, &t);
}
