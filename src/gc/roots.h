/* Roots beside the stacks: data of modules, ranges given by the program, handles, what finalizers hold. */
#ifndef WEFT_GC_ROOTS_H
#define WEFT_GC_ROOTS_H

#include "gc/heap.h"
#include "gc/mark.h"

int roots_start(void);
void roots_stop(void);
/* Before a stop: brings the list of jobs up to date with the loader's table. -ENOMEM: no cycle can be done. */
int roots_prepare(void);
/* In a stop: the roots are cut into this many jobs, for any worker to take. */
size_t roots_jobs_stw(void);
void roots_job_stw(size_t i, struct marker *m);

#endif
