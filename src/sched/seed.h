/* The seeded scheduler (WEFT_DEBUG=schedseed=N): see the essay in seed.c. */
#ifndef WEFT_SCHED_SEED_H
#define WEFT_SCHED_SEED_H

#include "sched/sched.h"

void seed_start(uint64_t seed);     /* 0: off */
void seed_after_fork(void);         /* in the child: nobody is preempted */
void seed_end(void);                /* the clock is the system's again */
uint64_t seed_value(void);

/* While it is on: */
runnable seed_pick(struct m *m);    /* one of all that can run, drawn; 0: there is none. m has the processor */
void seed_preempt(struct m *m);     /* m leaves the runtime: the fiber may have to wait in place first */
int64_t seed_peek_ns(void);         /* the clock, which does not move by it */
bool seed_alone(void);              /* the caller, without a processor, is the only machine awake: nothing happens before the next timer */
void seed_waited(int64_t until_ns, int64_t waited_ns); /* the caller has waited for a timer, so long, or without waiting till then */
uint32_t seed_tie(void);            /* rank among timers of the same time. Under the lock of their heap */

/* The time for the runtime's own use, also while it is off: how often the scheduler looks is no choice, so the clock does not move by it. */
static inline int64_t sched_peek_ns(void) { return unlikely(load_rlx(&seed_on) != 0) ? seed_peek_ns() : os_now_ns(); } /* rlx: see seed_on */

#endif
