/* The program's side of the heap: allocation, collections, the runtime's own fibers (finalizers, cleanups, sweeping, giving memory back). */
#ifndef WEFT_SCHED_MUTATOR_H
#define WEFT_SCHED_MUTATOR_H

#include "gc/gc.h"
#include "sched/sched.h"

int mutator_start(void);      /* the collector and its fibers; needs processors to exist */
void mutator_end(void);
void mutator_collect(void);   /* by force, for the caller, who is inside the runtime; may come back on another processor */
void mutator_collecting(void (*fn)(void *arg), void *arg); /* the same, but that fn collects, on the thread's own stack */
bool mutator_has(const struct fiber *f); /* f is one of the runtime's own, and runs a finalizer or cleanup */
void mutator_after_fork(const struct fiber *self); /* in the child: the fibers of the runtime are no more, but for the caller, if it is one; NULL: not
                                                      a fiber */
bool mutator_mark_idle(void); /* [CONC] a processor that has nothing to run marks a little. false: nothing is to be marked */
void mutator_mark_turn(void); /* [CONC] it hurries, and our processor has run fibers meanwhile */
void mutator_force_gc(void);  /* a collection on the runtime's own fiber, soon; by sysmon */
void *mutator_alloc(struct m *m, size_t bytes, unsigned shape); /* inside the runtime; NULL: out of memory after a collection. For channels and timers
                                                                   */
/* trail_take (gc/trail.h), for the caller, who is inside the runtime; may come back on another processor. */
struct trail_taken;
int mutator_trail(bool fields, struct trail_taken **out);
uint64_t mutator_calls_executed(enum gc_call_kind kind); /* finalizers or cleanups that have run, and what they did is seen */

#endif
