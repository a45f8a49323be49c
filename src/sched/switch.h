/* Between fibers: see the essay in switch.c. */
#ifndef WEFT_SCHED_SWITCH_H
#define WEFT_SCHED_SWITCH_H

#include "sched/sched.h"

/* What is due for the fiber that was left. */
enum after_switch { AFTER_NOTHING, AFTER_PARK, AFTER_YIELD, AFTER_YIELD_GLOBAL, AFTER_DEAD };

/* The loop of a machine's own stack: runs fibers until the thread is to end. */
void switch_loop(struct m *m);
/* Parks the fiber where it is: its thread sleeps with it. For fibers that are bound to their thread. The P is handed on. On return the machine has a
 * P. */
void park_in_place(struct m *m, park_commit *commit, void *arg, enum wait_reason why);
/* f, which m runs, waits in place for a processor. */
void proc_wait_in_place(struct m *m, struct fiber *f);

/* f, which was parked, runs: waits for who reads its stack, [PIN]. */
void fiber_runs(struct fiber *f);
/* [PIN]: true: f is parked and its stack stands still until fiber_unpin. Inside the runtime, not for the calling fiber, and for a few microseconds
 * only. */
bool fiber_pin(struct fiber *f);
void fiber_unpin(struct fiber *f);
/* The same for several at once, at the cost of one. No two of them are the same; the caller has pinned none before, as nobody else may pin two. */
void fibers_pin(struct fiber *const *f, uint32_t n, bool *held);

/* Every task that waits in a queue, while the world is stopped. */
void tasks_each_stw(void (*fn)(struct task *t, void *arg), void *arg);

/* Runs the deferred calls of the calling fiber, last first, down to `until`. In user code. */
void fiber_run_defers(struct deferred *until);
/* Ends the calling fiber, in user code: deferred calls, then away. */
void weft_exit_from(void *frame) w_noreturn;
#endif
