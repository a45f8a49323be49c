/* Frames of profiles and traces that are no code: return addresses below 4096, where nothing is ever mapped. They say what a sample is about when
 * its stack does not, and stand outermost. To add one: a line here. */
#ifndef WEFT_PROF_PSEUDO_H
#define WEFT_PROF_PSEUDO_H

#include "base/base.h"

#define PSEUDO_FRAMES(X)                                                                        \
    X(PSEUDO_GC, "runtime.gc")             /* a collection: marking, sweeping, giving back */   \
    X(PSEUDO_SCHED, "runtime.sched")       /* the scheduler, the monitor, a stop of the world */ \
    X(PSEUDO_LOST, "runtime.lostSamples")  /* samples for which there was no room */            \
    X(PSEUDO_UNKNOWN, "runtime.unknown")   /* on a stack that is not known */                   \
    X(PSEUDO_PROF, "runtime.profiler")     /* what profiles cost, but for the signals */        \
    X(PSEUDO_ELIDED, "runtime.elided")     /* stands in a deep stack, for frames left out */

enum pseudo {
    PSEUDO_NONE,
#define X(id, text) id,
    PSEUDO_FRAMES(X)
#undef X
    PSEUDO_COUNT
};

#define PSEUDO_END 4096u

static inline bool pseudo_is(uintptr_t return_pc) { return return_pc < PSEUDO_END; }

/* NULL: not such a frame. */
static inline const char *pseudo_name(uintptr_t return_pc)
{
    static const char *const text[] = {
        NULL,
#define X(id, text) text,
        PSEUDO_FRAMES(X)
#undef X
    };
    return return_pc < PSEUDO_COUNT ? text[return_pc] : NULL;
}

#endif
