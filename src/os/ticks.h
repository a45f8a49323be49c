/* Short distances in time, by the processor's own counter: a third of what a look at the system's clock costs. See ticks.c. */
#ifndef WEFT_OS_TICKS_H
#define WEFT_OS_TICKS_H

#include "base/atomic.h"
#include "base/base.h"
#include "os/clock.h"

/* The counter itself, and whether it can be relied on: whether the kernel uses it for its own clock, having found it constant, and the same on all
 * processors. Not ordered with what is before and after. Of two processors, one may be a little behind. */
static inline uint64_t os_counter(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return 0;
#endif
}
bool os_counter_trusted(void);

/* Both clocks at one moment: of several looks, the one that took least. */
struct os_look { uint64_t ticks; int64_t ns; };
struct os_look os_look(void);

extern w_u64 os_ticks_slope; /* ns a tick, times 2^32; 0: the counter is not to be relied on, and a tick is a ns of the system's clock */

/* Finds out, in two milliseconds at most, unless it is known. Before that, and where the counter cannot be relied on, all is the same, but slow. */
void os_ticks_open(void);

static inline uint64_t os_ticks(void)
{
    if (unlikely(load_rlx(&os_ticks_slope) == 0)) /* rlx: it changes once, and then one distance is wrong: see os_ticks_ns */
        return (uint64_t)os_now_ns();
    return os_counter();
}

/* From then to now, at least 1. What began with one clock and ends with the other is as good as nothing. */
static inline int64_t os_ticks_ns(uint64_t then, uint64_t now)
{
    uint64_t slope = load_rlx(&os_ticks_slope); /* rlx: as above */
    int64_t d = (int64_t)(now - then);
    if (d <= 0 || (slope != 0 && d > INT64_MAX / 4))
        return 1;
    return slope != 0 ? w_max((int64_t)((unsigned __int128)(uint64_t)d * slope >> 32), (int64_t)1) : d;
}

#endif
