/* Marking: finds everything that can be reached from the roots. See mark.c for how. */
#ifndef WEFT_GC_MARK_H
#define WEFT_GC_MARK_H

#include "gc/heap.h"
#include "gc/pacer.h"

struct marker;

/* In a stop, caches flushed, everything swept: marks on nworkers threads and fills in *out. late: [LATE]; NULL: as usual. */
void mark_stw(unsigned nworkers, const struct gc_late *late, struct pacer_marked *out);

/* For root jobs (roots.c): scans [lo, hi) as the data of a root. */
void mark_range(struct marker *m, const void *lo, const void *hi);
void mark_word(struct marker *m, uintptr_t word);
/* Scans the contents of an object without marking the object. */
void mark_contents(struct marker *m, struct span *s, size_t index);

/* In the part of a mark in which weak pointers count. */
bool mark_is_late(const struct marker *m);

/* Mark bits, for who comes after the workers in the stop. */
static inline bool mark_is_set(struct span *s, size_t i) { return bits_get(span_marks(s), i); }

/* Most chunks of mark stack beyond the one each worker has: for tests of exhaustion. */
extern size_t mark_max_chunks;
/* How many ways to search words for pointers this processor knows, the widest last; and uses that one of them from now on: for tests. */
unsigned mark_searches(void);
void mark_use_search(unsigned k);
void mark_free_memory(void);

#endif
