/* The spans of one class and one shape that no processor holds. */
#ifndef WEFT_GC_CENTRAL_H
#define WEFT_GC_CENTRAL_H

#include "gc/heap.h"

struct span_list { struct span *head, *tail; };

struct central {
    struct lock lock; /* RANK_CENTRAL: all below */
    struct span_list partial; /* swept, with a free slot */
    struct span_list full;    /* swept, without */
    struct span_list unswept;
} w_aligned(W_CACHELINE);

void central_init(struct central *c);
/* A swept span with at least one free slot, now the caller's. NULL: out of memory. */
struct span *central_get(uint32_t shape, unsigned cls);
/* Takes a swept span back. */
void central_put(struct central *c, struct span *s);
/* In a stop: all spans become unswept. */
void central_unsweep_stw(struct central *c);
/* Sweeps one span of the list: false when there is none. Empty ones give their pages back; *freed (NULL: not asked): how many. */
bool central_sweep_one(struct central *c, size_t *freed);

/* A large object with its one slot taken and zeroed. NULL: out of memory. */
struct span *central_large(uint32_t shape, size_t bytes);

#endif
