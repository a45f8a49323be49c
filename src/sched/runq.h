/* Run queues: a ring per processor, a queue of batches for all. Algorithm of the ring: Go's runqput, runqget, runqsteal. */
#ifndef WEFT_SCHED_RUNQ_H
#define WEFT_SCHED_RUNQ_H

#include "sched/sched.h"

/* Owner of p only. */
void runq_put_slow(struct p *p, runnable r, uint32_t head, uint32_t tail);
uint32_t runq_steal(struct p *victim, struct p *into, bool take_next, runnable *first);
void globq_start(void); /* with a life of the runtime: what the last one left is forgotten */
/* Under sched.lock. */
void globq_put(runnable r);
runnable globq_get(void);
void globq_each(void (*fn)(runnable r, void *arg), void *arg);
/* The same as globq_put, and the lock. */
void globq_add(runnable r);
/* Takes one, and moves others that have waited as long to p's ring, which has room: at most max in all. Takes sched.lock; owner of p only. */
runnable globq_take(struct p *p, uint32_t max);

static inline bool runq_empty(struct p *p)
{
    return load_rlx(&p->runq.head) == load_rlx(&p->runq.tail) && load_rlx(&p->runq.next) == NULL; /* rlx: hints; takers check again */
}

/* How many wait there, for show. The two ends are not read at one moment. */
static inline uint32_t runq_len(const struct p *p)
{
    uint32_t n = load_rlx(&p->runq.tail) - load_rlx(&p->runq.head); /* rlx: a figure */
    return (n <= RUNQ_SIZE ? n : 0) + (load_rlx(&p->runq.next) != NULL);
}

static inline void runq_put(struct p *p, runnable r)
{
    uint32_t head = load_acq(&p->runq.head); /* acq: the slot we write was read by the thief; rel in its cas */
    uint32_t tail = load_rlx(&p->runq.tail); /* rlx: only we write it */
    if (unlikely(tail - head >= RUNQ_SIZE)) {
        runq_put_slow(p, r, head, tail);
        return;
    }
    store_rlx(&p->runq.slot[tail % RUNQ_SIZE], r); /* rlx: published by the store of tail */
    store_rel(&p->runq.tail, tail + 1);            /* rel: publishes the slot and what r points to; acq in runq_steal */
}

/* r runs next; what was there goes to the tail. */
static inline void runq_put_next(struct p *p, runnable r)
{
    void *old = xchg_acq_rel(&p->runq.next, (void *)r); /* rel: publishes what r points to; acq in runq_get_next, runq_steal */
    if (old != NULL)
        runq_put(p, (runnable)old);
}

static inline runnable runq_get_next(struct p *p)
{
    void *r = load_rlx(&p->runq.next); /* rlx: checked by the exchange */
    return r == NULL ? 0 : (runnable)xchg_acq_rel(&p->runq.next, NULL);
}

static inline runnable runq_get(struct p *p)
{
    for (;;) {
        uint32_t head = load_acq(&p->runq.head); /* acq: with the thief's cas */
        if (head == load_rlx(&p->runq.tail))     /* rlx: only we write it */
            return 0;
        runnable r = load_rlx(&p->runq.slot[head % RUNQ_SIZE]); /* rlx: we wrote it; void if the cas fails */
        if (likely(cas_rel(&p->runq.head, head, head + 1)))     /* rel: the slot has been read; acq in runq_put */
            return r;
    }
}

#define NEXT_STREAK_MAX 64 /* run-next hand-overs in a row before the queue gets its turn */

/* What p has to run: run-next, or, when two fibers have woken each other for long enough, who waits in the ring. Whoever takes from run-next to run
 * it comes here, on the way through the scheduler as well: else each pass there would give the two a new lease. Owner only. */
static inline runnable runq_local(struct p *p)
{
    if (likely(p->next_streak < NEXT_STREAK_MAX)) {
        runnable r = runq_get_next(p);
        if (r != 0) {
            p->next_streak++;
            return r;
        }
    }
    p->next_streak = 0;
    runnable r = runq_get(p);
    return r != 0 ? r : runq_get_next(p);
}

#endif
