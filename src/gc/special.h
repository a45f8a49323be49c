/* What is attached to an object without being in it: weak handles, a finalizer, cleanups; and what a pool holds. */
#ifndef WEFT_GC_SPECIAL_H
#define WEFT_GC_SPECIAL_H

#include "gc/heap.h"
#include "gc/mark.h"
#include "gc/roots.h"

/* In the order in which the end of a mark treats the kinds of one object: weak handles forget it before its finalizer is queued, and cleanups
 * wait until it is found dead without a finalizer. To add a kind: a line here, what it holds in hold() of special.c, and what becomes
 * of it when the object is dead in outlives(). */
enum special_kind { SPECIAL_WEAK = 1, SPECIAL_FINALIZER, SPECIAL_CLEANUP, SPECIAL_WATCH, SPECIAL_POOL };

struct special {
    uint32_t index; /* of the object in its span */
    uint8_t kind;
    uint8_t looks;  /* of a finalizer: [HELD] in held.c; in stops only */
    union {
        struct { weft_weak *handle; uint64_t offset; } weak;       /* offset in the object; several per object */
        struct { weft_finalizer *fn; void *ctx; const void *pc; } finalizer; /* at most one; pc: who set it */
        struct { weft_fn *fn; void *arg; uint64_t id; } cleanup;   /* any number */
        void (*dead_stw)(void *obj);                               /* at most one; see gc_watch */
        struct gc_pool *pool;                                      /* the object itself */
    };
};

void specials_stop(void);

/* What follows is for live objects: (s, index) is one that the caller holds. */

/* A further one of its kind; 0, -ENOMEM. */
int special_add(struct span *s, struct special sp);
/* -EEXIST: the object has one. */
int special_add_only(struct span *s, struct special sp);
bool special_remove(struct span *s, size_t index, enum special_kind kind); /* false: there was none */

/* The handle for that offset; NULL: none. */
weft_weak *special_weak(struct span *s, size_t index, uint64_t offset);
/* Adds this one unless somebody was faster, and returns the one that holds; NULL: no memory. */
weft_weak *special_weak_add(struct span *s, size_t index, uint64_t offset, weft_weak *handle);

/* The object may be dead, and its memory another's by now: ids are never used again. false: there is none such. */
bool special_cleanup_remove(const void *p, uint64_t id);

/* Jobs that mark what specials hold, but for finalizers if they come later; beside the program, and in a stop. */
size_t specials_jobs(void);
void specials_job(size_t i, struct marker *m);
size_t specials_jobs_stw(void);
bool specials_any_stw(void);
void specials_job_stw(size_t i, struct marker *m);
/* [HELD] The same in two steps: what finalizers hold is left out till the rest is marked. */
void specials_finalizers_later_stw(bool later);
void specials_finalizers_stw(size_t i, struct marker *m);
/* Calls fn for every finalizer. */
void specials_each_finalizer_stw(void (*fn)(void *arg, struct span *s, struct special *e), void *arg);
/* What the finalizer of that object is called with; NULL: it has none. */
const struct special *special_finalizer_stw(const struct span *s, size_t index);
void specials_each_stw(root_fn *fn, void *arg);
/* In a stop, after the mark: deals with the specials of dead objects. Returns the bytes of objects brought back to life. */
uint64_t specials_dead_stw(void);

#endif
