/* Finalizers that will never run, since what they are to be called with keeps their object. See held.c. */
#ifndef WEFT_GC_HELD_H
#define WEFT_GC_HELD_H

#include "gc/heap.h"

#define HELD_STEPS 8u

/* What the probe finalizer_held tells: proof of one. */
struct gc_held {
    const void *pc;        /* who set the finalizer */
    bool by_ctx;           /* its ctx leads to its object; else that leads to itself */
    uint32_t others;       /* finalizers set at the same place that are kept like that, as far as one can see without proof */
    uint32_t steps;        /* of the way, which may have more than are kept: the first of them, and the object, the last */
    struct gc_held_step {
        void *obj;
        size_t bytes;
        uint32_t shape;
        uint32_t field;    /* offset of the word that leads to the next; HELD_CTX: it is the ctx of this one's finalizer. Of the last, nothing */
    } step[HELD_STEPS];
};
#define HELD_CTX UINT32_MAX

/* All in the stop of a mark. */
bool held_due_stw(void);  /* this one looks */
void held_look_stw(void); /* all is marked but what finalizers hold */
void held_prove_stw(void); /* when mark bits are final */
void held_tell(void);     /* after the stop, by who collected */

#endif
