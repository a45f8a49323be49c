/* The part of a processor's cache that only gc sees. */
#ifndef WEFT_GC_CACHE_H
#define WEFT_GC_CACHE_H

#include "base/seqcount.h"
#include "gc/heap.h"
#include "gc/sample.h"

/* [COUNT] Objects are counted as allocated a run at a time, and who counts takes off what is left of the runs. The two change together under seq,
 * but in stops. So the count is exact to the object at any time, without a stop, and never falls. Between
 * two refills only a run's bump moves. Caches come and go, and are flushed, in stops only; a reader is inside the runtime, so none takes place while
 * it reads. That is also why it never sees an object freed that it does not see allocated: what a sweep frees was allocated before the last stop. */
struct gc_cache_priv {
    struct gc_cache *cache;
    struct gc_cache_priv *next; /* heap.caches_lock */
    /* [COUNT]: the owner writes */
    struct seqcount seq;        /* around changes of counts and runs */
    w_u64 mallocs[GC_CLASSES], malloc_bytes; /* include what is left of the runs */
    W_PTR(struct gc_shape_cache) typed; /* caches of typed shapes; rel: publishes a new one; acq in stats.c */
    w_u64 table_bytes;          /* what these and the vector to them take */
    int64_t debt;               /* owner: bytes allocated while a cycle marks, not paid for yet; negative: paid in advance */
    uint64_t stress_count;      /* owner: allocations since the last cycle by gcstress */
    struct gc_sample_cache sample; /* owner */
};

/* In a stop: gives all spans back, so that allocation bits tell objects from free slots exactly. */
void caches_flush_stw(void);

#endif
