/* Sleeping on a word and waking its sleepers: the kernel's futex, private to the process. Does not touch errno; may
 * be used in a stop and in a signal handler. */
#ifndef WEFT_OS_FUTEX_H
#define WEFT_OS_FUTEX_H

#include "base/atomic.h"

/* Sleeps while *addr == expect, at most timeout_ns (negative: for ever). The caller loops on its own condition:
 * 0 (woken, perhaps for nothing), -EAGAIN (*addr was another value), -ETIMEDOUT, -EINTR (a signal). */
int os_futex_wait(w_u32 *addr, uint32_t expect, int64_t timeout_ns);
/* Wakes up to n sleepers; INT_MAX: all. Returns how many. addr may be gone already: then it does nothing. */
int os_futex_wake(w_u32 *addr, int n);

#endif
