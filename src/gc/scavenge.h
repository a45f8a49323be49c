/* Giving free pages back to the system. See the essay in scavenge.c. */
#ifndef WEFT_GC_SCAVENGE_H
#define WEFT_GC_SCAVENGE_H

#include "gc/heap.h"

void scavenge_start(void);
/* In a stop, after pacer_marked: the goals for what may stay. */
void scavenge_pace_stw(void);
/* The sweep has ended: chunks have shown how full they get. May be called in the middle of a cycle. */
void scavenge_swept(void);
/* The heap took pages from its free ones, having grown by so many bytes for it: keeps to the limit, and to the goal. Under no lock. */
void scavenge_allocated(size_t grown);
/* As much as exceeds the limit. */
void scavenge_to_limit(void);
/* Tells the host if there is something to do. */
void scavenge_wake(void);

#endif
