/* Timers of the program: on a channel, or with a function.
 *
 * A timer is one collected object that holds its struct timer and, if it has one, its channel with room for one tick. Since the channel lies inside, whoever holds the channel, or waits
 * for it, keeps the timer: weft_timer_chan(weft_timer_new(...)) is enough.
 *
 * Reachability. The heap of timers is not memory of the collector, and finds the timer by a pointer that is no root: a timer on a channel that nobody
 * can receive from is as good as none. So, exactly while it waits there, a timer is watched (gc_watch): the stop that finds it dead takes it out. A timer that was
 * stopped or has fired is garbage like any other. (Two other ways lost: asking each timer in the heap after each mark whether it still lives costs a cache miss per
 * timer in the stop; a finalizer keeps each dead one, stopped or not, for a further cycle: starting and stopping cost twice as much, and the heap grew fourfold.)
 * A timer with a function does reach something, and must run though nobody holds it: it is a root while it waits (TIMER_ROOT in timer.c). Being an object that is
 * scanned, it keeps arg. So is a timer for whose watch there is no memory.
 *
 * No old tick. A tick is sent by the callback, under the channel's lock only; stop and reset hold the timer's own lock, take it out of the heap, wait for a callback under way,
 * and drop what is in the channel. After that nothing of before can be received. As in Go, a tick that had been sent but not received counts as "it was running". */
#include "gc/gc.h"
#include "sched/chan.h"
#include "sched/sched.h"
#include <errno.h>
#include <stddef.h>

struct weft_timer {
    struct timer timer;
    struct lock lock;   /* RANK_USERTIMER: one stop or reset at a time */
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

static void start(struct weft_timer *t, int64_t ns)
{
    t->timer.root = t->fn != NULL || gc_watch(t, dead_stw) == -ENOMEM;
    timer_start(&t->timer, when_after(ns));
}

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
    rt_enter();
    start(&ct->t, ns);
    rt_leave(m_self());
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
    start(t, ns);
    rt_leave(m_self());
    return t;
}

weft_chan *weft_timer_chan(weft_timer *t)
{
    return t->fn == NULL ? chan_of(t) : NULL;
}

static bool stop_locked(struct weft_timer *t)
{
    bool was = timer_stop(&t->timer);
    if (t->fn == NULL)
        gc_unwatch(t);
    if (t->fn == NULL && load_rlx(&chan_of(t)->count) != 0) { /* rlx: only the callback fills it, and that is over */
        chan_drain_inside(chan_of(t));
        was = true;
    }
    return was;
}

bool weft_timer_stop(weft_timer *t)
{
    rt_enter();
    lock_take(&t->lock);
    bool was = stop_locked(t);
    lock_drop(&t->lock);
    rt_leave(m_self());
    return was;
}

bool weft_timer_reset(weft_timer *t, int64_t ns)
{
    rt_enter();
    lock_take(&t->lock);
    bool was = stop_locked(t);
    start(t, ns);
    lock_drop(&t->lock);
    rt_leave(m_self());
    return was;
}
