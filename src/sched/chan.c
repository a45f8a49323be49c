/* Channels.
 *
 * [CHAN] A channel is one collected object: header, then a ring of elements. It has a lock and two queues, of fibers that wait to send and to
 * receive.
 * A queue's entry, struct chan_waiter, lies on the stack of the fiber that waits, so waiting allocates nothing.
 *
 *      send: a receiver waits?  -> copy into its memory, wake it          (stack to stack: the buffer is empty then)
 *            room in the ring?  -> copy into the ring
 *            else               -> queue, park
 *      recv: a sender waits?    -> unbuffered: copy from its memory, wake it
 *                                  full ring: copy from the ring's head, its element into the slot just freed (which is the tail), wake it
 *            ring not empty?    -> copy from the ring
 *            closed?            -> zeroes
 *            else               -> queue, park
 *
 * So a waiter never acts on the channel again: when it is woken, all has been done for it, and w.ok says how it ended. Both queues are served in the
 * order of coming, and nobody overtakes: who comes while others wait for the same finds no partner, no room and no element, and queues behind them.
 *
 * Order of steps: the waker drops the lock before it makes the fiber ready. A woken fiber may leave its frame, and with it the waiter, as soon as it
 * is ready, so the waker reads w before that. The lock is dropped for a parking fiber by its commit function, when its registers are saved; until
 * then nobody can see the waiter. If the waiter belongs to a select, it lies in several queues at once: who finds it must first win its flag
 * (select.c).
 *
 * The collector. Stops meet a thread only outside the runtime, and a send or receive is inside from the first look at the channel to the last
 * copy; so no stop sees an element half copied or held only in a register of ours. Before, an element is in the sender's memory; afterwards in the
 * ring, or in the receiver's memory. While a sender is parked, its element stays in its own memory, which is scanned: either it is on the parked
 * stack, or in an object that w.elem, on that stack, points into. Channels are reached from w.chan in the same way. The queues themselves need no
 * scanning: they lead to stacks, and stacks are roots.
 * So an unbuffered channel is an object without pointers. A collector that scans parked stacks ahead of its stop must note one thing: a partner
 * writes into the frame of a parked receiver. It readies that fiber in the same visit to the runtime, so "made ready since" has to count as "has run
 * since".
 * A slot of the ring is cleared when it is read, or it would keep its last element alive.
 *
 * Without the lock. weft_chan_try_* look before they lock: polling an empty channel costs three loads. The answer "would block" must be true of one
 * moment of the call, with the channel open then and full (or empty). A channel that is closed stays closed, so it is enough to look in this order:
 *      send: closed? no. full? yes.     Open at the first look; full at the second. If it was closed in between, then it was full and open just
 *                                       before that, for a closed channel does not fill up, and if it was not closed, at the second.
 *      recv: empty? yes. closed? no.    Open at the second look, so open at the first, when it was empty.
 *            closed? yes. empty? yes.   What was sent was sent before the close, and the ring is seen as of then or later: nothing comes any more.
 *      recv: tick pending? no. empty? yes.   A timer's: whoever finds its tick due sends it before it is not pending any more.
 * Each pair needs its order, hence load_acq on the first of the two. */
#include "sched/chan.h"
#include "sched/sched.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <weft/gc.h>

/* ---- elements ----------------------------------------------------------------------------------------- */

static inline char *chan_slot(weft_chan *c, size_t i)
{
    return (char *)(c + 1) + i * c->elem_size;
}

/* The sizes of nearly all elements without a call; memcpy of a constant size does not ask for alignment. */
static inline void elem_copy(void *to, const void *from, size_t size)
{
    switch (size) {
    case 8: memcpy(to, from, 8); break;
    case 16: memcpy(to, from, 16); break;
    case 4: memcpy(to, from, 4); break;
    case 2: memcpy(to, from, 2); break;
    case 1: memcpy(to, from, 1); break;
    case 0: break;
    default: memcpy(to, from, size);
    }
}

static inline void elem_zero(void *to, size_t size)
{
    if (size == 8)
        memset(to, 0, 8);
    else
        memset(to, 0, size);
}

/* From user to user; either may be NULL. */
static inline void elem_hand(void *to, const void *from, size_t size)
{
    if (to == NULL)
        return;
    if (likely(from != NULL))
        elem_copy(to, from, size);
    else
        elem_zero(to, size);
}

/* ---- queues --------------------------------------------------------------------------------------------- */

/* Stores of first are rlx: under the lock, and read elsewhere as a hint that says nothing about what it points to. */
void chan_enqueue(struct chan_queue *q, struct chan_waiter *w)
{
    w->next = NULL;
    w->prev = q->last;
    if (q->last != NULL)
        q->last->next = w;
    else
        store_rlx(&q->first, w);
    q->last = w;
    w->queued = true;
}

void chan_dequeue(struct chan_queue *q, struct chan_waiter *w)
{
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        store_rlx(&q->first, w->next);
    if (w->next != NULL)
        w->next->prev = w->prev;
    else
        q->last = w->prev;
    w->queued = false;
}

/* The first waiter that is still to be had; it is ours now. */
static inline struct chan_waiter *take_waiter(struct chan_queue *q)
{
    struct chan_waiter *w;
    while ((w = load_rlx(&q->first)) != NULL) { /* rlx: under the lock */
        chan_dequeue(q, w);
        if (w->won == NULL)
            return w;
        if (cas_acq_rel(w->won, 0, 1)) { /* once per select; the rest of it is ordered by the locks and by sched_ready */
            w->fiber->wake = w;
            return w;
        }
    }
    return NULL;
}

void chan_forget_stw(struct fiber *f)
{
    for (uint32_t i = 0; f->waits != NULL && i < f->nwaits; i++) {
        struct chan_waiter *w = &f->waits[i], *first = w;
        if (!w->queued)
            continue;
        while (first->prev != NULL)
            first = first->prev;
        chan_dequeue(load_rlx(&w->chan->recvq.first) == first ? &w->chan->recvq : &w->chan->sendq, w); /* rlx: alone */
    }
    f->waits = NULL;
}

/* ---- the two operations, under the lock -------------------------------------------------------------------- */

static inline void ring_put(weft_chan *c, size_t count, const void *elem)
{
    char *slot = chan_slot(c, c->send_at);
    if (likely(elem != NULL))
        elem_copy(slot, elem, c->elem_size);
    else
        elem_zero(slot, c->elem_size);
    if (++c->send_at == c->cap)
        c->send_at = 0;
    store_rlx(&c->count, count + 1); /* rlx: under the lock; a hint elsewhere */
}

static inline void ring_get(weft_chan *c, size_t count, void *elem)
{
    char *slot = chan_slot(c, c->recv_at);
    if (likely(elem != NULL))
        elem_copy(elem, slot, c->elem_size);
    if (c->clear)
        elem_zero(slot, c->elem_size);
    if (++c->recv_at == c->cap)
        c->recv_at = 0;
    /* rel: with load_acq in chan_is_empty: who sees the channel empty, and then not closed, saw these in their order */
    store_rel(&c->count, count - 1);
}

static inline int send_step(weft_chan *c, const void *elem, struct fiber **wake)
{
    lock_check_held(&c->lock);
    if (unlikely(load_rlx(&c->closed) != 0)) /* rlx: under the lock */
        return -EPIPE;
    struct chan_waiter *w = take_waiter(&c->recvq);
    if (w != NULL) {
        elem_hand(w->elem, elem, c->elem_size);
        w->ok = true;
        *wake = w->fiber;
        return 0;
    }
    size_t count = load_rlx(&c->count); /* rlx: under the lock */
    if (count == c->cap)
        return -EAGAIN;
    ring_put(c, count, elem);
    return 0;
}

static inline int recv_step(weft_chan *c, void *elem, struct fiber **wake)
{
    lock_check_held(&c->lock);
    if (chan_tick_pending(c))
        timer_chan_tick(c);
    size_t count = load_rlx(&c->count); /* rlx: under the lock */
    struct chan_waiter *w = take_waiter(&c->sendq);
    if (w != NULL) {
        if (c->cap == 0) {
            elem_hand(elem, w->elem, c->elem_size);
        } else {
            ring_get(c, count, elem);
            ring_put(c, count - 1, w->elem);
        }
        w->ok = true;
        *wake = w->fiber;
        return 1;
    }
    if (count != 0) {
        ring_get(c, count, elem);
        return 1;
    }
    if (load_rlx(&c->closed) == 0) /* rlx: under the lock */
        return -EAGAIN;
    if (elem != NULL)
        elem_zero(elem, c->elem_size);
    return 0;
}

int chan_send_locked(weft_chan *c, const void *elem, struct fiber **wake)
{
    return send_step(c, elem, wake);
}

int chan_recv_locked(weft_chan *c, void *elem, struct fiber **wake)
{
    return recv_step(c, elem, wake);
}

static inline void wake_partner(struct fiber *f)
{
    if (f != NULL)
        sched_ready(f);
}

/* ---- sending and receiving ------------------------------------------------------------------------------------ */

static inline struct chan_waiter waiter_of(struct m *m, weft_chan *c, void *elem)
{
    return (struct chan_waiter){ .fiber = m->cur, .chan = c, .elem = elem };
}

static inline void park_with(struct chan_waiter *w, enum wait_reason why)
{
    w->fiber->waits = w;
    w->fiber->nwaits = 1;
    fiber_waits_on(w->fiber, w);
    sched_park(park_unlock, &w->chan->lock, why);
    w->fiber->waits = NULL;
}

static w_noinline int send_parked(struct m *m, weft_chan *c, const void *elem)
{
    struct chan_waiter w = waiter_of(m, c, (void *)elem);
    chan_enqueue(&c->sendq, &w);
    park_with(&w, WAIT_CHAN_SEND);
    rt_leave(m_self());
    return w.ok ? 0 : -EPIPE;
}

static w_noinline int recv_parked(struct m *m, weft_chan *c, void *elem)
{
    if (chan_tick_pending(c))
        timer_chan_start(c);
    struct chan_waiter w = waiter_of(m, c, elem);
    chan_enqueue(&c->recvq, &w);
    park_with(&w, WAIT_CHAN_RECV);
    rt_leave(m_self());
    return w.ok;
}

int weft_chan_send(weft_chan *c, const void *elem)
{
    if (unlikely(c == NULL))
        return select_never(0, WAIT_CHAN_SEND_NIL);
    struct m *m = rt_enter();
    struct fiber *wake = NULL;
    lock_take(&c->lock);
    int r = send_step(c, elem, &wake);
    if (unlikely(r == -EAGAIN))
        return send_parked(m, c, elem);
    lock_drop(&c->lock);
    wake_partner(wake);
    rt_leave(m);
    return r;
}

int weft_chan_recv(weft_chan *c, void *elem)
{
    if (unlikely(c == NULL))
        return select_never(0, WAIT_CHAN_RECV_NIL);
    struct m *m = rt_enter();
    struct fiber *wake = NULL;
    lock_take(&c->lock);
    int r = recv_step(c, elem, &wake);
    if (unlikely(r == -EAGAIN))
        return recv_parked(m, c, elem);
    lock_drop(&c->lock);
    wake_partner(wake);
    rt_leave(m);
    return r;
}

/* With a deadline: a select of one. */
int weft_chan_send_until(weft_chan *c, const void *elem, int64_t deadline)
{
    if (deadline == 0)
        return weft_chan_send(c, elem);
    if (c == NULL)
        return select_never(deadline, WAIT_CHAN_SEND_NIL);
    weft_case one = { .op = WEFT_SEND, .chan = c, .elem = (void *)elem };
    int i = select_run(&one, 1, true, deadline, WAIT_CHAN_SEND);
    return i < 0 ? i : one.result;
}

int weft_chan_recv_until(weft_chan *c, void *elem, int64_t deadline)
{
    if (deadline == 0)
        return weft_chan_recv(c, elem);
    if (c == NULL)
        return select_never(deadline, WAIT_CHAN_RECV_NIL);
    weft_case one = { .op = WEFT_RECV, .chan = c, .elem = elem };
    int i = select_run(&one, 1, true, deadline, WAIT_CHAN_RECV);
    return i < 0 ? i : one.result;
}

/* ---- never blocking --------------------------------------------------------------------------------------------- */

static inline bool chan_is_full(weft_chan *c)
{
    if (c->cap == 0)
        return load_rlx(&c->recvq.first) == NULL; /* rlx: the second look of two */
    return load_rlx(&c->count) == c->cap;         /* rlx: as above */
}

/* acq: the first look of two, before that at closed. */
static inline bool chan_is_empty(weft_chan *c)
{
    if (c->cap == 0)
        return load_acq(&c->sendq.first) == NULL;
    return load_acq(&c->count) == 0;
}

int chan_try_send_inside(weft_chan *c, const void *elem)
{
    struct fiber *wake = NULL;
    lock_take(&c->lock);
    int r = send_step(c, elem, &wake);
    lock_drop(&c->lock);
    wake_partner(wake);
    return r;
}

int weft_chan_try_send(weft_chan *c, const void *elem)
{
    if (c == NULL)
        return -EAGAIN;
    if (load_acq(&c->closed) == 0 && chan_is_full(c)) /* acq: before the look whether it is full */
        return -EAGAIN;
    struct m *m = rt_enter();
    int r = chan_try_send_inside(c, elem);
    rt_leave(m);
    return r;
}

int weft_chan_try_recv(weft_chan *c, void *elem)
{
    if (c == NULL)
        return -EAGAIN;
    if (!chan_tick_pending(c) && chan_is_empty(c)) {
        if (load_acq(&c->closed) == 0) /* acq: sees all that was sent before the close; rel in weft_chan_close */
            return -EAGAIN;
        if (chan_is_empty(c)) {
            if (elem != NULL)
                elem_zero(elem, c->elem_size);
            return 0;
        }
    }
    struct m *m = rt_enter();
    struct fiber *wake = NULL;
    lock_take(&c->lock);
    int r = recv_step(c, elem, &wake);
    lock_drop(&c->lock);
    wake_partner(wake);
    rt_leave(m);
    return r;
}

void chan_drain_inside(weft_chan *c)
{
    struct fiber *wake = NULL;
    for (;;) {
        lock_take(&c->lock);
        bool more = recv_step(c, NULL, &wake) == 1;
        lock_drop(&c->lock);
        wake_partner(wake);
        wake = NULL;
        if (!more)
            return;
    }
}

/* ---- life ----------------------------------------------------------------------------------------------------------- */

static weft_chan *chan_make(size_t elem_size, size_t cap, bool scan)
{
    size_t bytes;
    if (__builtin_mul_overflow(elem_size, cap, &bytes) || __builtin_add_overflow(bytes, sizeof(weft_chan), &bytes))
        return NULL;
    scan = scan && bytes > sizeof(weft_chan) && elem_size >= sizeof(void *);
    weft_chan *c = scan ? weft_alloc(bytes) : weft_alloc_noscan(bytes);
    if (c == NULL)
        return NULL;
    lock_init(&c->lock, RANK_CHAN);
    c->elem_size = elem_size;
    c->cap = cap;
    c->clear = scan;
    return c;
}

weft_chan *weft_chan_make(size_t elem_size, size_t capacity)
{
    return chan_make(elem_size, capacity, true);
}

weft_chan *weft_chan_make_noscan(size_t elem_size, size_t capacity)
{
    return chan_make(elem_size, capacity, false);
}

#define CLOSE_BATCH 64

/* Takes up to n waiters, receivers first; they get ok = false. A receiver's memory is zeroed. */
static size_t close_some(weft_chan *c, struct fiber **woken, size_t n)
{
    struct chan_waiter *w;
    size_t k = 0;
    while (k < n && (w = take_waiter(&c->recvq)) != NULL) {
        if (w->elem != NULL)
            elem_zero(w->elem, c->elem_size);
        w->ok = false;
        woken[k++] = w->fiber;
    }
    while (k < n && (w = take_waiter(&c->sendq)) != NULL) {
        w->ok = false;
        woken[k++] = w->fiber;
    }
    return k;
}

/* Once it is closed nobody queues any more, so waiters may be woken in batches, with the lock dropped in between: few enough to be in the cache
 * still. */
int chan_close_inside(weft_chan *c)
{
    lock_take(&c->lock);
    if (load_rlx(&c->closed) != 0) { /* rlx: under the lock */
        lock_drop(&c->lock);
        return -EPIPE;
    }
    store_rel(&c->closed, 1); /* rel: publishes the final count, and all that was done before the close; acq in weft_chan_try_recv */
    struct fiber *woken[CLOSE_BATCH];
    size_t n;
    do {
        n = close_some(c, woken, CLOSE_BATCH);
        lock_drop(&c->lock);
        sched_ready_many(woken, n);
        lock_take(&c->lock);
    } while (n == CLOSE_BATCH);
    lock_drop(&c->lock);
    return 0;
}

int weft_chan_close(weft_chan *c)
{
    if (c == NULL)
        return -EINVAL;
    struct m *m = rt_enter();
    int r = chan_close_inside(c);
    rt_leave(m);
    return r;
}

size_t weft_chan_len(weft_chan *c)
{
    if (c == NULL)
        return 0;
    bool pending = chan_tick_pending(c);
    size_t n = load_rlx(&c->count); /* rlx: true of some moment, which is all a caller can ask */
    return n == 0 && pending && timer_chan_due(c) ? 1 : n;
}

size_t weft_chan_cap(weft_chan *c)
{
    return c == NULL ? 0 : c->cap;
}
