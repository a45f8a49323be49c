/* How many processors there are: the default, and following it. See maxprocs.c. */
#ifndef WEFT_SCHED_MAXPROCS_H
#define WEFT_SCHED_MAXPROCS_H

#include "os/cgroup.h"
#include "sched/sched.h"

#define MAX_PROCS 1024

/* Opens the files of the control group; the number to start with. */
uint32_t maxprocs_start(void);
void maxprocs_end(void);
void maxprocs_after_fork(void); /* in the child: a fiber that was to follow is no more */
/* By the monitor, as often as it likes. */
void maxprocs_look(int64_t now_ns);

/* The quota of the control group, in CPUs, as of now. False: there is none. And whether the number of processors follows it. Any thread, that is
 * not a helper (files of its own), while the runtime runs. */
bool maxprocs_quota(double *cpus);
bool maxprocs_follows(void);
/* What cpu.stat of the process's own control group says now. False: not known. Any thread, while the runtime runs. */
bool maxprocs_throttled(struct cgroup_throttled *out);

int procs_resize(uint32_t n); /* runtime.c. In a stop: 0 or -ENOMEM; n processors afterwards, or as many as before */

#endif
