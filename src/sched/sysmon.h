/* The monitor thread: see the essay in sysmon.c. */
#ifndef WEFT_SCHED_SYSMON_H
#define WEFT_SCHED_SYSMON_H

#include "sched/sched.h"

int sysmon_start(void);              /* 0 or negative errno */
void sysmon_end(void);               /* joins it */
void sysmon_wake(void);              /* processors are busy again, or there is something to do */
void sysmon_start_thread(struct m *m); /* makes m's thread for a caller whose own thread may be tainted */
/* Between the two it touches nothing that a processor or sched.lock guards: for a fork, in a stop of the world. The thread that takes it gives it
 * back. */
void sysmon_hold(void);
void sysmon_let_go(void);
void sysmon_call(void (*fn)(void));  /* the monitor calls fn, with no lock held, for a caller that must not make threads; of several that ask at a time
                                        the last one. Not after the runtime has begun to end */
void sysmon_want_spares(void); /* a thread is taken along by a locked fiber: makes some ahead, as processors come to idle */
void sysmon_start_helpers(unsigned want); /* world_helpers_prepare for such a caller; does not wait */

#endif
