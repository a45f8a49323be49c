/* Channels from inside: what select, timers and tests share with chan.c, where the essay is ([CHAN]). */
#ifndef WEFT_SCHED_CHAN_H
#define WEFT_SCHED_CHAN_H

#include "base/atomic.h"
#include "base/lock.h"
#include <weft/sync.h>

struct fiber;

/* One fiber that waits on one channel; lies on that fiber's stack. All under the channel's lock, but *won. */
struct chan_waiter {
    struct chan_waiter *next, *prev;
    struct fiber *fiber;
    weft_chan *chan;
    void *elem;       /* sent from or received into, by the partner; NULL: zeroes, or dropped */
    w_u32 *won;       /* of a select: 0 until one of its cases is taken; NULL: waits here only */
    uint32_t index;   /* of a select: the case */
    bool queued;
    bool ok;          /* a partner came; false: the channel was closed */
};

struct chan_queue {
    W_PTR(struct chan_waiter) first; /* written under the lock; read without it as a hint, see [CHAN] */
    struct chan_waiter *last;
};

/* The elements follow. Invariant: senders wait only while count == cap, receivers only while count == 0; so only one of the queues has
 * waiters, but for the two cases of one select on an unbuffered channel. */
struct weft_chan {
    struct lock lock;  /* RANK_CHAN: all below that is not fixed */
    w_u32 closed;      /* written once, under the lock */
    bool clear;        /* fixed: elements may hold pointers, so a slot that was read is cleared */
    bool tick_pending; /* its timer runs, and is in no heap of timers: usertimer.c. Written under the lock; read without it as a hint */
    size_t elem_size;  /* fixed */
    size_t cap;        /* fixed */
    w_uptr count;      /* written under the lock */
    size_t send_at, recv_at; /* next slots */
    struct chan_queue recvq, sendq;
};

/* The rest is called inside the runtime, with c not NULL. */

/* What can be done at once, with c locked: what weft_chan_send and _recv return, or -EAGAIN. *wake: fiber to ready once the lock is dropped; NULL:
 * none. */
int chan_send_locked(weft_chan *c, const void *elem, struct fiber **wake);
int chan_recv_locked(weft_chan *c, void *elem, struct fiber **wake);
void chan_enqueue(struct chan_queue *q, struct chan_waiter *w);
void chan_dequeue(struct chan_queue *q, struct chan_waiter *w); /* w is queued there */
/* f will never come back: channels forget that it waits for them. Nobody else runs. */
void chan_forget_stw(struct fiber *f);

/* c is a timer's: whoever receives asks first, under its lock, whether a tick is due (recv_step). */
static inline bool chan_tick_pending(weft_chan *c)
{
    return unlikely(__atomic_load_n(&c->tick_pending, __ATOMIC_ACQUIRE)); /* acq: rel in set_pending */
}
/* With a tick pending, under the lock. If it is due it is in the channel afterwards. */
void timer_chan_tick(weft_chan *c);
/* Without the lock: it would be. */
bool timer_chan_due(weft_chan *c);
/* Under the lock; the caller is about to wait. The timer goes into the heap. */
void timer_chan_start(weft_chan *c);

/* weft_chan_try_send without the doors, for callbacks of timers. */
int chan_try_send_inside(weft_chan *c, const void *elem);
/* weft_chan_close without the doors. */
int chan_close_inside(weft_chan *c);
/* Drops what is buffered. */
void chan_drain_inside(weft_chan *c);

/* weft_select_until with a reason; block false: weft_select_default. From user code. */
int select_run(weft_case *cases, size_t n, bool block, int64_t deadline, uint8_t why);
/* Waits for a channel that never is ready: 0 never comes back, -ETIMEDOUT. From user code. */
int select_never(int64_t deadline, uint8_t why);

#endif
