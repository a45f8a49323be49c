/* Wait groups from inside: see waitgroup.c ([GROUP]). */
#ifndef WEFT_SCHED_WAITGROUP_H
#define WEFT_SCHED_WAITGROUP_H

#include "sched/sched.h"
#include <weft/sync.h>

/* weft_waitgroup_add, inside the runtime. */
int waitgroup_add_inside(weft_waitgroup *wg, int delta);

#endif
