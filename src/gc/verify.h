/* gcverify=1: the result of a mark is checked by a second one that shares no code with it. */
#ifndef WEFT_GC_VERIFY_H
#define WEFT_GC_VERIFY_H

#include "gc/heap.h"

/* In a stop, after the mark and the finalizers: marks again, one object at a time, into bits of its own; ends the program
 * and names the first object that can be reached and is not marked. Does nothing when there is no memory for its bits. */
void verify_stw(void);
/* For mark.c, in its place, while verify_stw goes through the roots. */
void verify_range(const void *lo, const void *hi);
void verify_word(uintptr_t word);
void verify_contents(struct span *s, size_t index);

#endif
