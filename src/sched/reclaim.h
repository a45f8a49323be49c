/* Collections for the sake of what is no memory. See reclaim.c. */
#ifndef WEFT_SCHED_RECLAIM_H
#define WEFT_SCHED_RECLAIM_H

#include "base/base.h"
#include <weft/gc.h>

int64_t reclaim_limit(void);          /* of descriptors */
int64_t reclaim_limit_of(const weft_resource *r); /* its own, or that */
bool reclaim_is_open(int64_t fd);
bool reclaim_descriptors_short(void); /* three quarters of them are taken */
/* WEFT_GUARD_DESCRIPTORS, in user code: a finalizer is about to be set. */
void reclaim_guard(void);
/* A call has failed with that, in user code. True: it is worth trying again. */
bool reclaim_after(int64_t err);

#endif
