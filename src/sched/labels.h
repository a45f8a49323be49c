/* Labels of fibers: what profiles and traces are told apart by. See labels.c. */
#ifndef WEFT_SCHED_LABELS_H
#define WEFT_SCHED_LABELS_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/offheap.h"
#include "sched/fiber.h"
#include <weft/prof.h>

/* A set: immutable, sorted by key, each key once; the texts lie behind the array. No labels at all is NULL, never an empty set. */
struct labels {
    w_u32 refs;
    uint32_t n;
    struct { const char *key, *value; } at[];
};

/* Another reference, for who has one, or reads what a running fiber has on that fiber's own thread. Async-signal-safe. NULL is fine. */
static inline struct labels *labels_ref(struct labels *l)
{
    if (l != NULL)
        add_rlx(&l->refs, 1); /* rlx: the caller's reference keeps it alive */
    return l;
}

/* Inside the runtime, or on a thread that no stop ever stops. NULL is fine. */
static inline void labels_unref(struct labels *l)
{
    if (l != NULL && sub_acq_rel(&l->refs, 1) == 1) /* rel: we are done with it; acq: so is everyone else */
        off_free(OFF_PROF, l);
}

void labels_drop_slow(struct fiber *f);
/* f has ended, or will never run again: it has none from now on. The same places. */
static inline void labels_drop(struct fiber *f)
{
    if (unlikely(f->labels != NULL || f->label_scopes != NULL))
        labels_drop_slow(f);
}

#endif
