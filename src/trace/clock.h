/* Time of the trace: the monotonic clock, in units of eight nanoseconds, read by the processor's own counter where that can be relied on.
 *
 * Two thirds of what an event costs is the look at the clock (25 ns by the vDSO, 8 by the counter). The unit is small enough that neighbouring events
 * mostly differ, and large enough that a distance below a microsecond takes one byte.
 *
 * The counter can be relied on if the kernel uses it for its own clock: it has found it constant and the same on all processors. A generation has a
 * line from counter to clock, through a look at both at its beginning, with the slope from the first look of all to that one; so an error of
 * the slope (25 ppm at first, below 1 after a second) never adds up, and time may jump by some microseconds between generations. */
#ifndef WEFT_TRACE_CLOCK_H
#define WEFT_TRACE_CLOCK_H

#include "base/base.h"
#include "os/clock.h"

#define TRACE_UNIT_NS 8
#define TRACE_UNITS_PER_SECOND (1000000000 / TRACE_UNIT_NS)

struct trace_clock {
    uint64_t ticks, units; /* when it was made */
    uint64_t slope;        /* units a tick, times 2^32; 0: the system's clock is read */
    int64_t mono_ns, wall_ns;
};

static inline uint64_t trace_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc(); /* not ordered with what is before and after: so are the stores that an event tells of */
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return 0;
#endif
}

static inline uint64_t trace_now(const struct trace_clock *c)
{
    if (unlikely(c->slope == 0))
        return (uint64_t)os_now_ns() / TRACE_UNIT_NS;
    int64_t d = (int64_t)(trace_ticks() - c->ticks); /* below 0: another processor's, a little behind */
    return c->units + (d > 0 ? (uint64_t)((unsigned __int128)(uint64_t)d * c->slope >> 32) : 0);
}

/* Once, before the first generation: finds out what can be relied on, in two milliseconds. */
void trace_clock_open(void);
/* From now on. */
void trace_clock_make(struct trace_clock *c);

#endif
