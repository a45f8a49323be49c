/* Records of fibers that have not started: see task.c. */
#ifndef WEFT_SCHED_TASK_H
#define WEFT_SCHED_TASK_H

#include "sched/sched.h"

int task_start(void);
void task_end(void);            /* frees all; nothing is queued any more */

/* Inside the runtime; p is the caller's, may be NULL. The record is not seen by tasks_each before task_publish. NULL: no memory. */
struct task *task_new(struct p *p);
static inline void task_publish(struct task *t, uint64_t id)
{
    __atomic_store_n(&t->id, id, __ATOMIC_RELEASE); /* rel: publishes *t; acq in tasks_each */
}
void task_free(struct p *p, struct task *t);
void task_flush(struct p *p);   /* the processor's cache goes to the shared lists */

/* A copy of every task that is queued, at any time and from any thread, with no stop. One that is queued during the whole call is seen
 * once; one that starts or is made meanwhile may be seen. The text of its name may be gone by then;
 * at->id still equal to copy->id says that it was there so far. */
void tasks_each(void (*fn)(const struct task *copy, const struct task *at, void *arg), void *arg);

#endif
