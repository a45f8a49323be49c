/* Waiting for somebody who needs microseconds, unless he has lost his CPU, and does not say when he is through: pauses first, then naps. What takes
 * longer deserves a futex.
 *
 * Never sched_yield(2). Linux 6.18 puts who yields behind the others by a time slice for each call, however far that is by then; a loop of it among
 * threads that want the CPU was hours ahead after a minute, and then it was the others who got none, for up to a minute at a time. */
#ifndef WEFT_BASE_BACKOFF_H
#define WEFT_BASE_BACKOFF_H

#include "base/atomic.h"

#define BACKOFF_PAUSES 200u /* 1 to 10 us */

#define NAP_NS 20000

/* Lets others have the CPU for NAP_NS, and the system's slack of some 50 us. Leaves errno alone; may be used in a stop and in a signal handler. */
void nap(void);

/* To be called each time when there is still reason to wait. looks: how often it has been called before. */
static inline void backoff(unsigned looks)
{
    if (looks < BACKOFF_PAUSES)
        cpu_relax();
    else
        nap();
}

#endif
