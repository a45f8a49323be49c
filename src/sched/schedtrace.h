/* Debug keys schedtrace and scheddetail: what the scheduler is doing, in the log every so many ms. See schedtrace.c. */
#ifndef WEFT_SCHED_SCHEDTRACE_H
#define WEFT_SCHED_SCHEDTRACE_H

#include "sched/sched.h"

static inline int64_t schedtrace_every_ns(void) { return sched.cfg.schedtrace * 1000000; } /* 0: never, and none of the rest is called */
int schedtrace_start(void);             /* 0 or -ENOMEM; also in the child of a fork, where what there was is kept */
void schedtrace_end(void);
void schedtrace_look(int64_t now_ns);   /* writes, if it is time. By the monitor, as often as it likes */

#endif
