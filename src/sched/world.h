/* Stopping the world: see the essay in world.c. */
#ifndef WEFT_SCHED_WORLD_H
#define WEFT_SCHED_WORLD_H

#include "sched/sched.h"

int world_start_up(void);   /* signal handlers; 0 or negative errno */
void world_end(void);

/* One stop at a time. The caller is inside the runtime, with or without a P, and if it is a fiber, has published its registers (sched_on_big_stack).
 * threads: also stop threads in user code, not only what they do inside weft. */
void world_stop(int reason, bool threads);
/* Lets others have the CPU for a moment, but no longer than till the world is to be stopped. Inside the runtime, under no lock; it does not stand still
 * itself. */
void world_nap(void);
uint32_t world_stop_now(void); /* the number of the stop that is on or has been asked for; 0: none. Under sched.lock */
int64_t world_start(void);  /* ns since the stop was decided */
/* How long it took by reason (WEFT_STOP_*), from deciding to stop: until all stood still; until all ran again. */
const struct timehist *world_times(int reason, bool stopped);
/* Machines that the stop under way still waits for; for show, read at any time while one is under way. */
uint32_t world_missing(void);
/* A stop is wanted: stand still till it is over. Inside the runtime. Afterwards the processor may be gone if maxprocs was lowered (m_has_p). */
void world_stop_here(struct m *m);

/* For fork.c. Between the first two no stop begins; the caller, in user code, waits for one that is in force. */
void world_own(void);
void world_disown(void);
/* rt_leave of who stopped the world from user code and must come back there: stands still if need be, and nothing else. */
void world_leave(struct m *m);
/* In the child: the stop that the fork was made in is over, its helpers are no more. */
void world_after_fork(void);

#define WORLD_WORKERS_MAX 65u /* of world_parallel, the caller included */
void world_scan_running(unsigned worker, unsigned nworkers, void (*scan)(void *marker, const void *lo, const void *hi), void *marker); /* all but parked stacks */
void world_scan_stacks(unsigned worker, unsigned nworkers, void (*scan)(void *marker, const void *lo, const void *hi), void *marker);
/* The same by one alone, who is told whose each range is; caller: the fiber that asks. */
void world_scan_owned(gc_scan_owned_fn *fn, void *arg, const struct fiber *caller);
void world_scan_parked(struct fiber *f, void (*scan)(void *marker, const void *lo, const void *hi), void *marker); /* one that waits */
void world_parallel(unsigned want, void (*fn)(void *arg, unsigned i, unsigned n), void *arg);
/* Makes sure that world_parallel has threads; outside of a stop. */
void world_helpers_prepare(unsigned want);
unsigned world_helpers(void); /* threads that exist for that */
/* Sends m's thread the stop signal, though nobody stops the world: sched_reports.interrupted is called on it. 0, or negative errno. Any thread. */
int world_interrupt(struct m *m);
/* The expensive half of [ENTRY]: each running thread of the process has executed a fence when it returns. */
void world_fence(void);

#endif
