/* Threads of the runtime that are no machines: the monitor, those that help to mark, those that work for profilers. No stop ever stops one.
 *
 * Each says when it comes and goes, so that profiles count what it uses; the same probe tells of machines. */
#ifndef WEFT_SCHED_SERVICE_H
#define WEFT_SCHED_SERVICE_H

#include "base/atomic.h"
#include "base/base.h"

enum service_kind { SERVICE_MONITOR, SERVICE_GC, SERVICE_PROF };

struct service {
    w_u32 tid;              /* 0: free. rel by its thread, after what follows; acq in services_each */
    enum service_kind kind;
    bool lets_in;           /* the thread's */
    w_u32 sampled;          /* of who listens to thread_here, under his lock; 0 in what is new. rlx: another's look may come when it is new again */
};

#define SERVICE_CLAIMED UINT32_MAX /* a tid: it is about to begin */
/* 0: none. */
static inline uint32_t service_tid(const struct service *s)
{
    uint32_t tid = load_acq(&s->tid); /* acq: rel in service_begin */
    return tid != SERVICE_CLAIMED ? tid : 0;
}

/* On the thread, with all signals blocked. NULL: one too many; it is not counted. */
struct service *service_begin(enum service_kind kind);
void service_end(struct service *s); /* NULL is fine */
struct service *service_self(void);  /* the calling thread's, from service_begin to service_end; NULL: it is none. Async-signal-safe */

/* Whether SIGPROF is let in: by who begins after this, and by who looks. Who says so has a handler that runs nothing of the host's on such a thread, as it
 * may have a small stack, and none of the host's descriptors. */
void services_let_in(bool let);
void service_look(struct service *s); /* on the thread, every now and then, if it lives long. NULL is fine */

void services_each(void (*fn)(struct service *s, void *arg), void *arg);
unsigned services_count(enum service_kind kind);
void services_after_fork(void);      /* in the child: they are no more */

#endif
