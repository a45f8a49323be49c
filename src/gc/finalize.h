/* Finalizers and cleanups: from found dead to taken by the fibers that run them. */
#ifndef WEFT_GC_FINALIZE_H
#define WEFT_GC_FINALIZE_H

#include "gc/heap.h"
#include "gc/mark.h"
#include "gc/roots.h"

void finalize_stop(void);
/* In a stop. */
void finalize_roots_stw(struct marker *m);
void finalize_each_stw(root_fn *fn, void *arg);
bool finalize_queue_stw(void *obj, weft_finalizer *fn, void *ctx, const void *pc); /* false: out of memory */
bool cleanup_queue_stw(weft_fn *fn, void *arg);                    /* the same */

#endif
