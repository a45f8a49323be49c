/* Roots beside the stacks: data of modules, ranges given by the program, handles, what finalizers hold. */
#ifndef WEFT_GC_ROOTS_H
#define WEFT_GC_ROOTS_H

#include "gc/heap.h"
#include "gc/mark.h"

int roots_start(void);
void roots_stop(void);
/* Before a stop: brings the list of jobs up to date with the loader's table. -ENOMEM: no cycle can be done. */
int roots_prepare(void);
/* Beside the program: the roots are cut into this many jobs, for any worker to take. What changes meanwhile may be left out. */
size_t roots_jobs(void);
void roots_job(size_t i, struct marker *m);
/* The same in a stop. */
size_t roots_jobs_stw(void);
void roots_job_stw(size_t i, struct marker *m);

/* In a stop, after its mark: every root word of them, with its kind, whose it is (the handle, the object), and where it lies; at 0: in no place of
 * its own. By one alone. */
typedef void root_fn(void *arg, enum gc_root_kind kind, uint64_t owner, uintptr_t at, uintptr_t word);
void roots_each_stw(root_fn *fn, void *arg);

#endif
