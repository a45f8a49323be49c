/* Who waits: looks inside channels, the parking lot and the heaps of timers, so that a test can go on when others are parked, and not after a
 * while. */
#ifndef WEFT_TEST_WAITING_H
#define WEFT_TEST_WAITING_H

#include "test.h"
#include "sched/chan.h"
#include "sched/lot.h"
#include "sched/sched.h"

static inline size_t waiting_in(weft_chan *c, struct chan_queue *q)
{
    struct m *m = rt_enter();
    size_t n = 0;
    lock_take(&c->lock);
    for (struct chan_waiter *w = load_rlx(&q->first); w != NULL; w = w->next)
        n++;
    lock_drop(&c->lock);
    rt_leave(m);
    return n;
}

/* Fibers, or cases of selects, that wait to send, to receive. */
static inline size_t senders(weft_chan *c) { return waiting_in(c, &c->sendq); }
static inline size_t receivers(weft_chan *c) { return waiting_in(c, &c->recvq); }

/* Fibers that are parked in the lot for a lock or the like. */
static inline size_t parked_as(void *addr, enum lot_kind kind)
{
    struct m *m = rt_enter();
    size_t n = 0;
    struct lot_bucket *b = lot_lock(addr);
    struct lot_waiter *first = lot_first(b, lot_key(addr, kind)), *w = first;
    if (first != NULL)
        do {
            n += w->where == LOT_PARKED;
            w = w->next;
        } while (w != first);
    lot_unlock(b);
    rt_leave(m);
    return n;
}
static inline size_t parked_on(void *addr) { return parked_as(addr, LOT_ANY) + parked_as(addr, LOT_MUTEX); }

/* Timers, of sleepers too, that are to fire yet. */
static inline uint32_t timers_waiting(void)
{
    uint32_t n = 0;
    struct m *m = rt_enter();
    for (uint32_t i = 0; i < nprocs(); i++) {
        struct timer_heap *h = &sched.allp[i]->timers;
        lock_take(&h->lock);
        n += h->len;
        lock_drop(&h->lock);
    }
    rt_leave(m);
    return n;
}

#endif
