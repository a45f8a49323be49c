/* Parked stacks, watched while a cycle marks beside the program, so that its stop need not scan them all. See watch.c. */
#ifndef WEFT_SCHED_WATCH_H
#define WEFT_SCHED_WATCH_H

#include "sched/sched.h"

/* What struct gc_host says. */
unsigned watch_scan_running_stw(gc_scan_range_fn *scan, void *marker);
bool watch_scan_parked(unsigned part, gc_scan_range_fn *scan, void *marker);
bool watch_scan_written_stw(unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker);

void watch_start(void);
void watch_after_fork(void); /* in the child: nothing is watched */

#endif
