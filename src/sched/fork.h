/* fork(2): see the essay in fork.c. */
#ifndef WEFT_SCHED_FORK_H
#define WEFT_SCHED_FORK_H

#include "sched/sched.h"

enum fork_child {
    FORK_NOT = 0, /* we are no child of a fork, or have come to use the runtime since */
    FORK_LATER,   /* the first use will make anew what is missing */
    FORK_NEVER,   /* the runtime cannot be used here */
};

int fork_child_ready_slow(void);
/* From outside of the runtime, before a thread that holds no processor uses it: 0; -ESRCH: it cannot be used in this child of a fork. */
static inline int fork_child_ready(void)
{
    return likely(load_acq(&sched.forked) == FORK_NOT) ? 0 : fork_child_ready_slow(); /* acq: sees what was made anew; rel in fork_child_ready_slow */
}

/* runtime.c: keeps starts and stops out; false: one is under way. */
bool runtime_life_try(void);
void runtime_life_drop(void);
/* In a child: the runtime is as the fork found it, of which nothing is known. It neither runs nor can be started. */
void runtime_lost(void);

#endif
