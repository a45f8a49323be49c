/* Time of the trace: the monotonic clock, in units of eight nanoseconds, read by the processor's own counter where that can be relied on.
 *
 * Two thirds of what an event costs is the look at the clock (25 ns by the vDSO, 8 by the counter). The unit is small enough that neighbouring events
 * mostly differ, and large enough that a distance below a microsecond takes one byte.
 *
 * Which counter that is, and when it can be relied on, is said in os/ticks.h. A generation has a line from counter to clock, through a look at both at its beginning, with the slope from the first look of all to that one; so an error of
 * the slope (25 ppm at first, below 1 after a second) never adds up, and time may jump by some microseconds between generations.
 *
 * While a machine sleeps the clock stands still, and the counter goes on, or begins at 0; and a virtual one may wake up elsewhere, with another
 * counter. So at the beginning of each generation the line of the one before is held against the clock. If it has not led there, all that was
 * known is forgotten, and the slope measured anew. And if it has led too far, so that events were told of at times that the clock has yet to reach,
 * the trace's time stays that much ahead: what is earlier than what came before Go's reader would show as one moment. */
#ifndef WEFT_TRACE_CLOCK_H
#define WEFT_TRACE_CLOCK_H

#include "base/base.h"
#include "os/clock.h"
#include "os/ticks.h"

#define TRACE_UNIT_NS 8
#define TRACE_UNITS_PER_SECOND (1000000000 / TRACE_UNIT_NS)

struct trace_clock {
    uint64_t ticks, units; /* when it was made */
    uint64_t slope;        /* units a tick, times 2^32; 0: the system's clock is read */
    int64_t mono_ns, wall_ns;
};

/* What the line says of the counter at `ticks`; its beginning, if that is before it (another processor's, a little behind). */
static inline uint64_t trace_clock_at(const struct trace_clock *c, uint64_t ticks)
{
    int64_t d = (int64_t)(ticks - c->ticks);
    return c->units + (d > 0 ? (uint64_t)((unsigned __int128)(uint64_t)d * c->slope >> 32) : 0);
}

static inline uint64_t trace_now(const struct trace_clock *c)
{
    if (unlikely(c->slope == 0))
        return (uint64_t)os_now_ns() / TRACE_UNIT_NS;
    return trace_clock_at(c, os_counter());
}

/* Once, before the first generation: finds out what can be relied on, in two milliseconds. */
void trace_clock_open(void);
/* From now on. */
void trace_clock_make(struct trace_clock *c);

/* ---- its parts, for tests ---- */

struct trace_line {
    struct os_look first; /* ticks 0: there is no counter */
    struct trace_clock last; /* made last; slope 0: none */
    uint64_t ahead;          /* units by which the trace's time is ahead of the clock's */
};
/* Has the last line led to where the clock is now? */
bool trace_line_holds(const struct trace_line *l, struct os_look now);
/* The next one, which begins now; not the wall clock's time. held: the last one has; else `first` is new. */
void trace_line_make(struct trace_line *l, struct os_look now, bool held, struct trace_clock *c);

#endif
