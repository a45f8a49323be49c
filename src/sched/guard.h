/* Guards: what makes known misuses harmless (weft/sched.h, WEFT_GUARD_*). They are asked for, and fixed while the runtime runs. What is here is the
 * part that sched plays; the other layers ask guarded() where they decide. */
#ifndef WEFT_SCHED_GUARD_H
#define WEFT_SCHED_GUARD_H

#include "sched/sched.h"
#include <weft/mem.h>

static inline bool guarded(unsigned which) { return unlikely((sched.cfg.guards & which) != 0); }

/* weft_gc, inside the runtime. True: the collections that were asked for have had their share of the time, this one is not made. */
bool guard_gc_rests(void);
void guard_gc_took(int64_t began_ns); /* sched_now_ns before it */

/* weft_read_mem_stats, in user code: what read gives, or what it gave a moment ago. */
int guard_mem_stats(weft_mem_stats *out, int (*read)(weft_mem_stats *out));

/* The calling fiber, in user code, is to be locked to its thread: waits while too many are. Each call is followed by one of guard_unlocked, when the
 * fiber unlocks or ends. */
void guard_lock(void);
void guard_unlocked(void);

enum { GUARD_SPARES = 4 }; /* threads kept for when a locked fiber has taken one along, see sysmon_want_spares */

#endif
