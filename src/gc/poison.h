/* gcpoison=1: what is freed is filled with 0xDB and must still be so when it is used again.
 *
 * Invariant while it is on: every byte of every free slot, and of every free page that is dirty (pages.c), is POISON_BYTE. A page that
 * is not dirty reads as zero; a new span on such pages is filled first. So a slot is checked, then zeroed, when a run takes it. */
#ifndef WEFT_GC_POISON_H
#define WEFT_GC_POISON_H

#include "gc/heap.h"

#define POISON_BYTE 0xDB

void poison_fill(void *p, size_t bytes);
/* Ends the program if [p, p + bytes) of a free slot of elem bytes has been written to. */
void poison_check(const void *p, size_t bytes, size_t elem);
/* Checks the pages of a span just taken, and fills them. */
void poison_new_span(struct span *s);

#endif
