/* What was counted, by stack: sample buckets. See buckets.c.
 *
 * A bucket is found by its return addresses and a tag (a size, a set of labels; 0), and is never freed or changed but for its counters while the
 * runtime lives: whoever has its address may keep it. Callable inside the runtime, from probe points too, under any lock; not in a signal handler. */
#ifndef WEFT_PROF_BUCKETS_H
#define WEFT_PROF_BUCKETS_H

#include "base/atomic.h"
#include "base/base.h"

struct bucket_slot { struct bucket *v; }; /* atomic; rel: publishes the bucket; acq in readers */

struct bucket {
    struct bucket_slot child[4];   /* [TRIE] in buckets.c */
    w_u64 v[4];                    /* counters; what they count is said by the owner of the table. rlx, unless that says otherwise */
    /* fixed */
    uint64_t tag;
    uint32_t hash, n;
    uintptr_t pc[];                /* return addresses, innermost first */
};

struct slab;
struct buckets_root;

/* Zeroed: empty. Takes its memory when the first bucket is made. */
struct buckets {
    W_PTR(struct buckets_root) root; /* rel: publishes it; acq in readers */
    W_PTR(struct slab) slab;         /* the newest; rel and acq likewise */
    w_u64 count;                     /* buckets made; rlx, and the next: for show */
    w_u64 lost;                      /* calls of bucket_get that found no memory */
};

/* The bucket, made if need be. NULL: no memory. */
struct bucket *bucket_get(struct buckets *t, const uintptr_t *pc, uint32_t n, uint64_t tag);
/* NULL: there is none. */
struct bucket *bucket_find(struct buckets *t, const uintptr_t *pc, uint32_t n, uint64_t tag);

/* Every bucket that was there when it began; those made meanwhile perhaps. In no order that means anything. Callable anywhere. */
void buckets_each(struct buckets *t, void (*fn)(struct bucket *b, void *arg), void *arg);

/* All gone: nobody has the address of a bucket, or looks for one. */
void buckets_free(struct buckets *t);

#endif
