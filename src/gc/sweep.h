/* Sweeping: what the last mark did not find becomes free. Lazily, by refills, by who takes memory in proportion to it, and by a fiber in the background;
 * and to the end before the next mark. Object memory is not touched, except to poison it. */
#ifndef WEFT_GC_SWEEP_H
#define WEFT_GC_SWEEP_H

#include "gc/heap.h"

/* s is in the caller's hand and unswept. Returns its free slots; == nobj: it is empty. */
unsigned span_sweep(struct span *s);
/* Around having a span in hand: sweep_finish waits for others'. */
void sweep_enter(void);
void sweep_leave(void);
/* Before npages are taken for a large object: sweeps large objects till as many are free, or none is left to sweep. */
void sweep_large(size_t npages);
/* Sweeps all that is left, and waits until all others have finished theirs. */
void sweep_finish(void);
/* In a stop, after a mark: everything becomes unswept, spans of so many bytes. */
void sweep_begin_stw(uint64_t in_use_bytes);
/* By who has taken so much memory: sweeps its share, [SHARE]. Inside the runtime, under no lock. */
void sweep_share(uint64_t bytes);
bool sweep_pending(void);
void sweep_reset(void); /* for a new start */

#endif
