/* Which allocations a listener is told of, and when their objects have died. See sample.c. */
#ifndef WEFT_GC_SAMPLE_H
#define WEFT_GC_SAMPLE_H

#include "base/base.h"
#include "base/rng.h"

struct gc_samples;

/* Of a processor's cache, and its owner's. */
struct gc_sample_cache {
    uint64_t next;           /* bytes of the stream from here to the next sampled one */
    uint64_t rate;           /* by which that was drawn */
    struct rng rng;
    struct gc_samples *open; /* where the next record goes; NULL: none taken since the last cycle */
};

void sample_cache_init(struct gc_sample_cache *sc);

/* [STREAM] The objects of size bytes in [p, end) are the next piece of the stream. The first of them that is sampled; end: none. */
char *sample_next(struct gc_sample_cache *sc, char *p, char *end, size_t size);
/* A run ends before an object that was found by sample_next some time ago. Does that still hold? Not by another rate. */
bool sample_holds(const struct gc_sample_cache *sc);
/* obj, just allocated, is sampled. */
void sample_tell(struct gc_sample_cache *sc, void *obj, size_t bytes);

/* In the stop of a cycle, after the last mark bit was set. */
void samples_marked_stw(void);
/* In a stop, after that: every sampled object that lives, and the word that the sampler gave it. */
uint64_t samples_most_stw(void); /* how many there are at the most */
void samples_each_stw(void (*fn)(void *arg, void *obj, uintptr_t word), void *arg);
void samples_stop(void);

#endif
