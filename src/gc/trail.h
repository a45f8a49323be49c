/* How the objects of the heap hang together, as of the end of a mark: which there are, what each refers to, and what refers to them from outside. For
 * who explains why an object lives, and what keeps how much. See trail.c for how it is taken, graph.h for what is read from it. */
#ifndef WEFT_GC_TRAIL_H
#define WEFT_GC_TRAIL_H

#include "gc/heap.h"

#define TRAIL_NONE UINT32_MAX
#define TRAIL_MOST ((uint32_t)1 << 31) /* objects, and references */

/* A word outside of the heap that leads to an object. */
struct trail_root {
    uint32_t node;
    uint8_t kind;    /* enum gc_root_kind */
    bool caller;     /* on the stack of who asked */
    int32_t thread;
    uint64_t owner;  /* fiber, handle, or the address of the object whose finalizer it is */
    uint64_t at;     /* its address; on a stack: how many words from the top. 0: not known */
};
struct trail_sample { uint32_t node; uintptr_t word; }; /* see gc_sampler */

/* Fixed once it is taken. Objects have numbers by address. */
struct trail {
    uint32_t n, nspans, nroots, nsamples;
    struct span *span;     /* copies; their marks say which objects there are */
    uint32_t *page;        /* of each */
    uint32_t *first;       /* of each, the number of its first object; and n */
    uint32_t *off, *to;    /* object i refers to to[off[i]] ... to[off[i + 1] - 1], by rising address of the word */
    uint32_t *at;          /* beside `to`: which word of i it is; only if asked for */
    struct trail_root *root;
    struct trail_sample *sample;
    uint64_t bytes, cycle, heap_bytes;
    int64_t look_ns;       /* so much longer the stop of the collection was */
};

/* Collects and takes it, on the terms of gc_collect; fields: `at` too. asks: for host.scan_owned. What is left to do is trail_finish's, which may
 * be done anywhere where off-heap memory may be taken, so outside of the runtime too. 0, -ENOMEM, -E2BIG (more than TRAIL_MOST). In both cases
 * trail_free. */
struct trail_taken;
int trail_take(bool fields, const void *asks, struct trail_taken **out);
int trail_finish(struct trail_taken *k, struct trail *t);
void trail_drop(struct trail_taken *k); /* NULL: nothing */
void trail_free(struct trail *t);

/* The object around p; TRAIL_NONE: none that lived then. */
uint32_t trail_find(const struct trail *t, const void *p);
char *trail_address(const struct trail *t, uint32_t i);
const struct span *trail_span(const struct trail *t, uint32_t i);
static inline size_t trail_bytes(const struct span *s) { return span_elem(s); }

/* One more than n, to be freed as OFF_PROF; also if n is 0. NULL: no memory. */
static inline void *trail_array(uint64_t n, size_t each) { return off_alloc(OFF_PROF, (n + 1) * each); }

/* For who wants something of the end of a mark: a collection of its own; in its stop, when all mark bits are final. false: no memory to begin one. */
struct gc_look { void (*marked_stw)(void *arg); void *arg; };
bool gc_collect_look(const struct gc_look *look);

#endif
