/* Marking: finds everything that can be reached from the roots. See mark.c for how. */
#ifndef WEFT_GC_MARK_H
#define WEFT_GC_MARK_H

#include "gc/heap.h"
#include "gc/pacer.h"

struct marker;

/* In a stop, caches flushed, everything swept: marks on nworkers threads and fills in *out. late: [LATE]; NULL: as usual. rest: what the roots lead to
 * has been marked beside the program, so there is to be scanned what may have changed: njobs jobs of it, and scan_stw's, beside the roots; NULL: all. */
struct mark_rest {
    uint64_t njobs;
    void (*job_stw)(uint64_t i, struct marker *m);
    void (*scan_stw)(unsigned worker, unsigned nworkers, struct marker *m);
};
void mark_stw(unsigned nworkers, const struct gc_late *late, const struct mark_rest *rest, struct pacer_marked *out);

/* ---- beside the program: [CONC] in conc.c ------------------------------------------------------------------------- */

void mark_begin_stw(void); /* nothing is marked, and nothing is to be scanned */
/* One worker's slice: part, or (NULL) what is in the common list, and what follows from it, until about `most` bytes of objects have been scanned or a
 * stop is wanted. *scanned grows by them. What is left goes to the common list. false: there was nothing. Inside the runtime, under no lock. */
typedef void mark_part(void *arg, struct marker *m);
bool mark_slice(mark_part *part, void *arg, uint64_t most, uint64_t *scanned);
bool mark_idle(void); /* the common list is empty, and no slice is under way */
/* Marked objects on pages that were written to, which are [lo, hi): scanned once more, as far as they lie there. */
void mark_pages(struct marker *m, uintptr_t lo, uintptr_t hi);
/* In a stop: gives up what was marked beside the program. */
void mark_cancel_stw(void);

/* ---- for who has roots ------------------------------------------------------------------------------------------- */

/* For root jobs (roots.c): scans [lo, hi) as the data of a root. */
void mark_range(struct marker *m, const void *lo, const void *hi);
void mark_word(struct marker *m, uintptr_t word);
void mark_stack(void *marker, const void *lo, const void *hi); /* the same of a stack */
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
void mark_trim(void); /* after a mark, outside the stop: memory that it needed goes back */
void mark_free_memory(void);

#endif
