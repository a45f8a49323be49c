/* Huge pages again for parts of the heap that have become cold. See mend.c. */
#ifndef WEFT_GC_MEND_H
#define WEFT_GC_MEND_H

#include "gc/heap.h"

/* [lo, hi) was written to while a cycle went on. Any marker. */
void mend_written(uintptr_t lo, uintptr_t hi);
/* A cycle has ended, in which what was written to [lo, hi) was told. By one for each address. */
void mend_cycle(uintptr_t lo, uintptr_t hi);
/* So many parts have been looked at, or mended, since the start. */
uint64_t mend_done(void);
void mend_start(void);

#endif
