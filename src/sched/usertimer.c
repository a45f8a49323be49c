/* Timers of the program: on a channel, or with a function.
 *
 * A timer is one collected object that holds its struct timer and, if it has one, its channel with room for one tick. Since the channel lies inside,
 * whoever holds the channel, or waits for it, keeps the timer: weft_timer_chan(weft_timer_new(...)) is enough.
 *
 * [PENDING] A timer on a channel is in no heap of timers until somebody waits for it, since most are stopped before: to start and to stop one costs
 * two stores then (half of what it costs in the heap, with 100,000 of them). While it is not, its channel says tick_pending. Whoever receives there
 * looks first whether the tick is due, and sends it himself; who is about to wait puts the timer into the heap first, where it then stays until it
 * has run or is stopped. All of this happens under the channel's lock, so: tick pending => no receiver waits, the timer is in no heap, and
 * no callback of it runs; a receiver waits => the timer is in the heap, or does not run. Reset looks for receivers who wait, and if there are any
 * starts the timer in the heap. (Go does the same since 1.23.)
 *
 * Reachability. The heap of timers is not memory of the collector, and finds the timer by a pointer that is no root: a timer on a channel that nobody
 * can receive from is as good as none. So, exactly while it waits there, a timer is watched (gc_watch): the stop that finds it dead takes it out. A
 * timer that is pending, was stopped or has fired is garbage like any other. (Two other ways lost: asking each timer in the heap after each mark
 * whether it still lives costs a cache miss per timer in the stop; a finalizer keeps each dead one, stopped or not, for a further cycle: starting and
 * stopping cost twice as much, and the heap grew fourfold.) A timer with a function does reach something, and must run though nobody holds it: it is
 * a root while it waits (TIMER_ROOT in timer.c). Being an object that is scanned, it keeps arg. So is a timer for whose watch there is no memory.
 *
 * No old tick. A tick is sent under the channel's lock only, by the callback or by who finds it due; stop and reset hold the timer's own lock, make
 * it not pending or take it out of the heap, wait for a callback under way, and drop what is in the channel. After that nothing of before can be
 * received. As in Go, a tick that had been sent but not received counts as "it was running". */
#include "gc/gc.h"
#include "sched/chan.h"
#include "sched/sched.h"
#include <errno.h>
#include <stddef.h>

struct weft_timer {
    struct timer timer;
    struct lock lock;   /* RANK_USERTIMER: one stop or reset at a time */
    w_i64 pending_ns;   /* with tick_pending: when it is due. Written under the channel's lock; read relaxed by timer_chan_due */
    weft_fn *fn;        /* NULL: the channel */
    void *arg;
    const void *site;   /* who made it: creation site of the fibers */
};

struct chan_timer {
    struct weft_timer t;
    struct weft_chan chan;
    int64_t tick;       /* the channel's room */
};
_Static_assert(offsetof(struct chan_timer, tick) == offsetof(struct chan_timer, chan) + sizeof(struct weft_chan), "elements follow the channel");

static inline weft_chan *chan_of(struct weft_timer *t)
{
    return &((struct chan_timer *)t)->chan;
}

/* If nobody took the last tick, this one is dropped. */
static void send_tick(void *arg, int64_t now_ns)
{
    struct weft_timer *t = arg;
    if (t->timer.period_ns <= 0)
        gc_unwatch(t);
    (void)chan_try_send_inside(chan_of(t), &now_ns);
}

/* Without memory for a fiber the run is late, not lost. */
static void run_fn(void *arg, int64_t now_ns)
{
    struct weft_timer *t = arg;
    if (sched_spawn(t->fn, t->arg, NULL, t->site, 0) != 0 && t->timer.period_ns <= 0)
        timer_again(&t->timer, timer_after(now_ns, WEFT_MILLISECOND));
}

bool timer_runs_function(const struct timer *t) { return t->fn == run_fn; }

static int64_t when_after(int64_t ns)
{
    return timer_after(sched_now_ns(), ns > 0 ? ns : 0);
}

static void timer_init(struct weft_timer *t, int64_t period_ns, void (*fn)(void *, int64_t))
{
    t->timer.fn = fn;
    t->timer.arg = t;
    t->timer.period_ns = period_ns;
    lock_init(&t->lock, RANK_USERTIMER);
}

static void dead_stw(void *obj)
{
    struct weft_timer *t = obj;
    timer_cancel(&t->timer);
}

static void heap_start(struct weft_timer *t, int64_t when_ns)
{
    t->timer.root = t->fn != NULL || gc_watch(t, dead_stw) == -ENOMEM;
    timer_start(&t->timer, when_ns);
}

/* ---- [PENDING], under the channel's lock -------------------------------------------------------------------------------- */

static inline struct weft_timer *timer_of(weft_chan *c)
{
    return &w_containerof(c, struct chan_timer, chan)->t;
}

static inline void set_pending(weft_chan *c, bool pending)
{
    __atomic_store_n(&c->tick_pending, pending, __ATOMIC_RELEASE); /* rel: after the tick was sent; acq in chan_tick_pending */
}

void timer_chan_start(weft_chan *c)
{
    struct weft_timer *t = timer_of(c);
    set_pending(c, false);
    heap_start(t, load_rlx(&t->pending_ns)); /* rlx: under the lock, and below */
}

bool timer_chan_due(weft_chan *c)
{
    return load_rlx(&timer_of(c)->pending_ns) <= sched_now_ns(); /* rlx: true of some moment */
}

void timer_chan_tick(weft_chan *c)
{
    struct weft_timer *t = timer_of(c);
    struct fiber *nobody = NULL; /* who waits has the timer in the heap */
    int64_t due = load_rlx(&t->pending_ns), now = sched_now_ns();
    if (due > now)
        return;
    (void)chan_send_locked(c, &due, &nobody); /* dropped if the last one is there still */
    w_debug_assert(nobody == NULL);
    if (t->timer.period_ns > 0)
        store_rlx(&t->pending_ns, timer_next_period(due, t->timer.period_ns, now));
    else
        set_pending(c, false);
}

/* True: it was pending, and is off. */
static bool take_pending(weft_chan *c)
{
    lock_take(&c->lock);
    bool pending = chan_tick_pending(c);
    set_pending(c, false);
    lock_drop(&c->lock);
    return pending;
}

static void start_on_chan(struct weft_timer *t, int64_t when_ns)
{
    weft_chan *c = chan_of(t);
    lock_take(&c->lock);
    store_rlx(&t->pending_ns, when_ns);
    if (load_rlx(&c->recvq.first) == NULL) /* rlx: under the lock */
        set_pending(c, true);
    else
        heap_start(t, when_ns);
    lock_drop(&c->lock);
}

/* ---- starting and stopping -------------------------------------------------------------------------------------------------- */

weft_timer *weft_timer_new(int64_t ns, int64_t period_ns)
{
    if (period_ns < 0)
        return NULL;
    struct chan_timer *ct = weft_alloc_noscan(sizeof *ct);
    if (ct == NULL)
        return NULL;
    lock_init(&ct->chan.lock, RANK_CHAN);
    ct->chan.elem_size = sizeof ct->tick;
    ct->chan.cap = 1;
    timer_init(&ct->t, period_ns, send_tick);
    store_rlx(&ct->t.pending_ns, when_after(ns)); /* rlx: nobody else knows it */
    ct->chan.tick_pending = true;
    return &ct->t;
}

weft_timer *weft_timer_func(int64_t ns, int64_t period_ns, weft_fn *fn, void *arg)
{
    if (period_ns < 0 || fn == NULL)
        return NULL;
    struct weft_timer *t = weft_alloc(sizeof *t);
    if (t == NULL)
        return NULL;
    timer_init(t, period_ns, run_fn);
    t->fn = fn;
    t->arg = arg;
    t->site = __builtin_return_address(0);
    rt_enter();
    heap_start(t, when_after(ns));
    rt_leave(m_self());
    return t;
}

weft_chan *weft_timer_chan(weft_timer *t)
{
    return t->fn == NULL ? chan_of(t) : NULL;
}

/* Under its lock. */
static bool stop_on_chan(struct weft_timer *t)
{
    weft_chan *c = chan_of(t);
    bool was = take_pending(c);
    if (!was) {
        was = timer_stop(&t->timer);
        gc_unwatch(t);
    }
    if (load_rlx(&c->count) != 0) { /* rlx: neither the callback nor who looks fills it any more */
        chan_drain_inside(c);
        was = true;
    }
    return was;
}

static bool stop(struct weft_timer *t)
{
    return t->fn == NULL ? stop_on_chan(t) : timer_stop(&t->timer);
}

bool weft_timer_stop(weft_timer *t)
{
    rt_enter();
    lock_take(&t->lock);
    bool was = stop(t);
    lock_drop(&t->lock);
    rt_leave(m_self());
    return was;
}

bool weft_timer_reset(weft_timer *t, int64_t ns)
{
    rt_enter();
    lock_take(&t->lock);
    bool was = stop(t);
    int64_t when = when_after(ns);
    if (t->fn == NULL)
        start_on_chan(t, when);
    else
        heap_start(t, when);
    lock_drop(&t->lock);
    rt_leave(m_self());
    return was;
}
