/* What is attached to an object without being in it: finalizers now; cleanups and weak pointers have their place here. */
#ifndef WEFT_GC_SPECIAL_H
#define WEFT_GC_SPECIAL_H

#include "gc/heap.h"
#include "gc/mark.h"

/* In the order in which the end of a mark treats the kinds of one object. To add a kind: a line here, its roots in specials_job_stw,
 * and what becomes of it when the object is dead in specials_dead_stw. */
enum special_kind { SPECIAL_FINALIZER = 1 };

struct special {
    uint32_t index; /* of the object in its span */
    uint32_t kind;
    weft_finalizer *fn;
    void *ctx;      /* a root */
};

void specials_stop(void);
/* -EEXIST: the object has one of this kind; -ENOMEM. */
int special_add(struct span *s, struct special sp);
bool special_remove(struct span *s, size_t index, enum special_kind kind); /* false: there was none */

/* In a stop: jobs that mark what specials hold. */
size_t specials_jobs_stw(void);
void specials_job_stw(size_t i, struct marker *m);
/* In a stop, after the mark: deals with the specials of dead objects. Returns the bytes of objects brought back to life. */
uint64_t specials_dead_stw(void);

#endif
