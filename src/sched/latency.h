/* How long fibers wait for a processor once they can run, and how long they were blocked on locks.
 *
 * [LATENCY] One in eight of the times a fiber becomes ready is measured (Go's rate): its descriptor gets the time then, and when it runs the
 * difference goes to the histogram of the processor it runs on. Where a processor readies fibers every few nanoseconds the two looks at the clock
 * would be a good part of all it does, so there it measures fewer, down to one in 1024, and counts each for as many more. Which ones is drawn at
 * random, for programs have rhythms. All others pay for counting down, and for looking whether they are measured. A yield costs hardly more than that
 * would, so there the steps of the processor, which are counted anyway, are drawn, and measured if it is a yield.
 *
 * A stamp is the time, but for the last four bits, which have the logarithm of what it counts for; 0: not measured. It has 48 bits, as many as a task
 * has room for: enough for waits of 78 hours. */
#ifndef WEFT_SCHED_LATENCY_H
#define WEFT_SCHED_LATENCY_H

#include "sched/sched.h"

uint64_t latency_stamp(struct p *p) w_cold;       /* of what p has just counted down to */
uint64_t latency_yield_stamp(struct p *p) w_cold; /* 0: not measured after all */
void latency_count(struct p *p, uint64_t stamp) w_cold; /* p may be NULL: not counted */

/* f is about to be queued by p's owner. (Of tasks: sched_spawn_group.) */
static inline void latency_fiber_ready(struct p *p, struct fiber *f)
{
    if (unlikely(--p->ready_left == 0))
        f->ready_stamp = latency_stamp(p);
}

/* The same of one that yields. */
static inline void latency_fiber_yields(struct p *p, struct fiber *f)
{
    if (unlikely((int32_t)(load_rlx(&p->tick) - p->yield_tick) >= 0)) /* rlx: ours */
        f->ready_stamp = latency_yield_stamp(p);
}

/* f runs from here on. */
static inline void latency_fiber_runs(struct p *p, struct fiber *f)
{
    if (unlikely(f->ready_stamp != 0)) {
        latency_count(p, f->ready_stamp);
        f->ready_stamp = 0;
    }
}

void latency_init(struct p *p, uint64_t seed);

/* The calling fiber was blocked on a mutex or read-write lock since then (sched_now_ns). Inside the runtime. */
void latency_blocked(int64_t since_ns);

#endif
