/* Fibers that wait for ever, proved by a collection. See leaked.c ([LEAKED]). */
#ifndef WEFT_SCHED_LEAKED_H
#define WEFT_SCHED_LEAKED_H

#include "sched/sched.h"

/* Looks for them, in a collection of its own; *n: how many there are, the fibers of the runtime not counted. On the terms of collect_here: inside the
 * runtime, by a fiber or a thread of the host, which stands on another processor afterwards, perhaps. 0, -ENOMEM. */
int leaked_find(uint64_t *n);

/* What the last look said; 0: none. For show. */
uint64_t leaked_count(void);

/* It was found by the last look that has ended, and waits there still. Of a pinned fiber that waits, or in a stop; else a hint. */
bool leaked_is(const struct fiber *f);

/* In a stop: is this cycle a look, in which all timers in heaps are roots? And does the stack of f come late? */
extern bool leaked_looking;
#define LEAKED_ASKED 2u /* of waits_on */
static inline bool leaked_left_out_stw(const struct fiber *f)
{
    return unlikely(leaked_looking) && (load_rlx(&f->waits_on) & LEAKED_ASKED) != 0; /* rlx: everybody stands still */
}

#endif
