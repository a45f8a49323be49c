/* The part of a processor's cache that only gc sees. */
#ifndef WEFT_GC_CACHE_H
#define WEFT_GC_CACHE_H

#include "gc/heap.h"

struct gc_cache_priv {
    struct gc_cache *cache;
    struct gc_cache_priv *next; /* heap.caches_lock */
    w_u64 mallocs[GC_CLASSES];  /* owner writes (and the stop): rlx; includes what is left of the runs */
    uint64_t stress_count;      /* owner: allocations since the last cycle by gcstress */
};

/* In a stop: gives all spans back, so that allocation bits tell objects from free slots exactly. */
void caches_flush_stw(void);

#endif
