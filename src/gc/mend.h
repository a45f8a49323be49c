/* Huge pages again for parts of the heap that have become cold. See mend.c. */
#ifndef WEFT_GC_MEND_H
#define WEFT_GC_MEND_H

#include "gc/heap.h"

/* [lo, hi) was written to while a cycle went on. Any marker. */
void mend_written(uintptr_t lo, uintptr_t hi);
/* A cycle has ended, in which what was written to [lo, hi) was told. By one for each address. */
void mend_cycle(uintptr_t lo, uintptr_t hi);
/* Since the start: parts for which it was asked for; that were small pages and are huge ones now. Any time. */
void mend_stats(uint64_t *tried, uint64_t *done);
void mend_exclude(void); /* what is here is no root: before loader_start */
void mend_start(void);

#endif
