/* Select: waiting on several channels at once. The algorithm is Go's.
 *
 * [SELECT] 1. The channels are locked, all of them, in the order of their addresses (so that two selects never wait for each other), each once.
 *          2. The cases are looked at in an order drawn at random; the first that can go on is done, the locks are dropped, and that is all. A random
 *             order makes the choice uniform among those that are ready, however many there are.
 *          3. None is ready: a waiter is queued on every channel, and the fiber parks. The locks are dropped when its registers are saved.
 *          4. Who finds one of the waiters, in whatever channel, must turn the flag `won` from 0 to 1; one succeeds, does the transfer to or from the
 *             case's element, and readies the fiber with wake = the waiter. The others drop what they found and look further in their queue. A
 *             deadline is one more competitor.
 *          5. Woken, the fiber locks all channels again, takes its other waiters out, and drops the locks.
 *
 * Looking at the channels one after the other, without holding all locks, would not do: a token that wanders from B to A, between a look at A and one
 * at B, was in one of them at every moment, yet "none is ready" would be the answer.
 *
 * The frame. Step 3 drops the locks one by one, and with the first dropped a partner may ready the fiber, on another machine. But in step 5 it needs
 * all locks, so it cannot leave the frame before the last is dropped; nor can a waiter's finder, who holds its channel's lock, see the frame vanish.
 * The deadline's callback takes the lock that is dropped last (that of the lowest channel), so that it too comes only when the fiber is parked; and
 * timer_stop waits for it to return.
 *
 * Up to SMALL cases the waiters lie on the stack. A larger select has its arrays in a collected object, conservative, found from the stack. */
#include "sched/chan.h"
#include "sched/sched.h"
#include <errno.h>
#include <string.h>
#include <weft/gc.h>

#define SMALL 16
#define CASES_MAX 65535

struct select {
    weft_case *cases;
    uint32_t n;              /* cases with a channel */
    uint16_t *poll, *order;  /* n indices: at random; by address of the channel */
    struct chan_waiter *waiters; /* n, in order of `order` */
    w_u32 won;
    struct fiber *fiber;
    int64_t deadline;
    struct timer timer;
};

static inline weft_chan *chan_at(const struct select *s, uint32_t k)
{
    return s->cases[s->order[k]].chan;
}

/* ---- order ---------------------------------------------------------------------------------------------- */

/* The cases with a channel, shuffled: each is put at a random place among those before it. */
static void draw_poll_order(struct select *s, size_t n, struct rng *rng)
{
    uint32_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->cases[i].chan == NULL)
            continue;
        uint32_t j = k == 0 ? 0 : rng_below(rng, k + 1);
        s->poll[k] = s->poll[j];
        s->poll[j] = (uint16_t)i;
        k++;
    }
    s->n = k;
}

static void sift_down(struct select *s, uint32_t root, uint32_t n)
{
    uint16_t moving = s->order[root];
    for (;;) {
        uint32_t child = 2 * root + 1;
        if (child >= n)
            break;
        if (child + 1 < n && chan_at(s, child) < chan_at(s, child + 1))
            child++;
        if (chan_at(s, child) <= s->cases[moving].chan)
            break;
        s->order[root] = s->order[child];
        root = child;
    }
    s->order[root] = moving;
}

static void sort_by_address(struct select *s)
{
    uint32_t n = s->n;
    memcpy(s->order, s->poll, n * sizeof *s->order);
    if (n <= SMALL) {
        for (uint32_t i = 1; i < n; i++) {
            uint16_t moving = s->order[i];
            uint32_t j = i;
            for (; j > 0 && chan_at(s, j - 1) > s->cases[moving].chan; j--)
                s->order[j] = s->order[j - 1];
            s->order[j] = moving;
        }
        return;
    }
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(s, i, n);
    for (uint32_t last = n - 1; last > 0; last--) {
        uint16_t greatest = s->order[0];
        s->order[0] = s->order[last];
        s->order[last] = greatest;
        sift_down(s, 0, last);
    }
}

static void lock_all(struct select *s)
{
    weft_chan *before = NULL;
    for (uint32_t k = 0; k < s->n; k++) {
        weft_chan *c = chan_at(s, k);
        if (c != before)
            lock_take(&c->lock);
        before = c;
    }
}

/* From the highest to the lowest. After the last lock, s may be gone. */
static void unlock_all(struct select *s)
{
    for (uint32_t k = s->n; k > 0;) {
        weft_chan *c = chan_at(s, --k);
        if (k == 0 || chan_at(s, k - 1) != c)
            lock_drop(&c->lock);
    }
}

/* ---- steps ---------------------------------------------------------------------------------------------- */

/* The first case in poll order that can go on: done. -EAGAIN: none. All locked. */
static int try_cases(struct select *s, struct fiber **wake)
{
    for (uint32_t k = 0; k < s->n; k++) {
        weft_case *cs = &s->cases[s->poll[k]];
        int r = cs->op == WEFT_SEND ? chan_send_locked(cs->chan, cs->elem, wake) : chan_recv_locked(cs->chan, cs->elem, wake);
        if (r != -EAGAIN) {
            cs->result = r;
            return s->poll[k];
        }
    }
    return -EAGAIN;
}

/* What is to be received is a tick that is not due: its timer goes into the heap. */
static void start_timers(struct select *s)
{
    for (uint32_t k = 0; k < s->n; k++)
        if (s->cases[s->order[k]].op == WEFT_RECV && chan_tick_pending(chan_at(s, k)))
            timer_chan_start(chan_at(s, k));
}

static inline struct chan_queue *queue_of(const weft_case *cs)
{
    return cs->op == WEFT_SEND ? &cs->chan->sendq : &cs->chan->recvq;
}

static void enqueue_all(struct select *s)
{
    for (uint32_t k = 0; k < s->n; k++) {
        weft_case *cs = &s->cases[s->order[k]];
        struct chan_waiter *w = &s->waiters[k];
        *w = (struct chan_waiter){ .fiber = s->fiber, .chan = cs->chan, .elem = cs->elem, .won = &s->won, .index = s->order[k] };
        chan_enqueue(queue_of(cs), w);
    }
}

static void dequeue_all(struct select *s)
{
    lock_all(s);
    for (uint32_t k = 0; k < s->n; k++)
        if (s->waiters[k].queued)
            chan_dequeue(queue_of(&s->cases[s->order[k]]), &s->waiters[k]);
    unlock_all(s);
}

/* Runs under no lock: see [SELECT] for the one it takes. */
static void deadline_passed(void *arg, int64_t now_ns)
{
    (void)now_ns;
    struct select *s = arg;
    struct lock *lowest = &chan_at(s, 0)->lock;
    struct fiber *f = NULL;
    lock_take(lowest);
    if (cas_acq_rel(&s->won, 0, 1)) { /* as in take_waiter of chan.c */
        f = s->fiber;
        f->wake = NULL;
    }
    lock_drop(lowest);
    if (f != NULL)
        sched_ready(f);
}

static void park_unlock_all(struct fiber *f, void *arg)
{
    (void)f;
    unlock_all(arg);
}

/* All locked. Returns the index, or -ETIMEDOUT; outside of the runtime. */
static int wait_for_case(struct select *s, struct m *m, uint8_t why)
{
    s->fiber = m->cur;
    start_timers(s);
    enqueue_all(s);
    if (s->deadline != 0) {
        s->timer = (struct timer){ .fn = deadline_passed, .arg = s };
        timer_start(&s->timer, s->deadline);
    }
    s->fiber->waits = s->waiters;
    s->fiber->nwaits = s->n;
    fiber_waits_on(s->fiber, s->deadline == 0 ? s->waiters : NULL);
    sched_park(park_unlock_all, s, why);
    s->fiber->waits = NULL;
    if (s->deadline != 0)
        timer_stop(&s->timer);
    struct chan_waiter *w = s->fiber->wake;
    s->fiber->wake = NULL;
    dequeue_all(s);
    rt_leave(m_self());
    if (w == NULL)
        return -ETIMEDOUT;
    weft_case *cs = &s->cases[w->index];
    cs->result = cs->op == WEFT_SEND ? (w->ok ? 0 : -EPIPE) : w->ok;
    return (int)w->index;
}

static int select_steps(struct select *s, size_t n, bool block, uint8_t why)
{
    struct m *m = rt_enter();
    draw_poll_order(s, n, &m->p->rng);
    if (unlikely(s->n == 0)) {
        rt_leave(m);
        return block ? select_never(s->deadline, why) : -EAGAIN;
    }
    sort_by_address(s);
    struct fiber *wake = NULL;
    lock_all(s);
    int i = try_cases(s, &wake);
    if (i < 0 && block) {
        if (s->deadline == 0 || s->deadline > sched_now_ns())
            return wait_for_case(s, m, why);
        i = -ETIMEDOUT;
    }
    unlock_all(s);
    if (wake != NULL)
        sched_ready(wake);
    rt_leave(m);
    return i;
}

/* ---- frames ------------------------------------------------------------------------------------------------ */

/* In a frame of its own, so that a select of two takes no more of the stack than it needs. */
static w_noinline int select_small(weft_case *cases, size_t n, bool block, int64_t deadline, uint8_t why)
{
    uint16_t poll[SMALL], order[SMALL];
    struct select s = { .cases = cases, .poll = poll, .order = order, .deadline = deadline };
    s.waiters = __builtin_alloca(n * sizeof(struct chan_waiter));
    return select_steps(&s, n, block, why);
}

static w_noinline int select_large(weft_case *cases, size_t n, bool block, int64_t deadline, uint8_t why)
{
    struct chan_waiter *waiters = weft_alloc(n * (sizeof(struct chan_waiter) + 2 * sizeof(uint16_t)));
    if (waiters == NULL)
        return -ENOMEM;
    uint16_t *poll = (uint16_t *)(waiters + n);
    struct select s = { .cases = cases, .poll = poll, .order = poll + n, .waiters = waiters, .deadline = deadline };
    int r = select_steps(&s, n, block, why);
    weft_keep_alive(waiters);
    return r;
}

int select_run(weft_case *cases, size_t n, bool block, int64_t deadline, uint8_t why)
{
    if (n <= SMALL)
        return select_small(cases, n, block, deadline, why);
    return select_large(cases, n, block, deadline, why);
}

/* ---- never ---------------------------------------------------------------------------------------------------- */

struct never { struct timer timer; int64_t deadline; };

static void never_over(void *arg, int64_t now_ns)
{
    (void)now_ns;
    sched_ready(arg);
}

/* Only now, so that nobody is made ready before he is parked. */
static void never_start(struct fiber *f, void *arg)
{
    struct never *v = arg;
    if (v->deadline == 0)
        return;
    v->timer.arg = f;
    timer_start(&v->timer, v->deadline);
}

int select_never(int64_t deadline, uint8_t why)
{
    struct never v = { .timer = { .fn = never_over }, .deadline = deadline };
    struct m *m = rt_enter();
    fiber_waits_on(m->cur, deadline == 0 ? &v : NULL);
    if (deadline == 0 || deadline > sched_now_ns())
        do
            sched_park(never_start, &v, why);
        while (deadline == 0);
    rt_leave(m_self());
    return -ETIMEDOUT;
}

/* ---- the public calls -------------------------------------------------------------------------------------------- */

static bool cases_valid(const weft_case *cases, size_t n)
{
    if (n > CASES_MAX || (n > 0 && cases == NULL))
        return false;
    for (size_t i = 0; i < n; i++)
        if (cases[i].op != WEFT_SEND && cases[i].op != WEFT_RECV)
            return false;
    return true;
}

int weft_select_until(weft_case *cases, size_t n, int64_t deadline)
{
    if (!cases_valid(cases, n))
        return -EINVAL;
    if (n == 0)
        return select_never(deadline, WAIT_SELECT_EMPTY);
    if (n == 1 && deadline == 0) {
        cases->result = cases->op == WEFT_SEND ? weft_chan_send(cases->chan, cases->elem) : weft_chan_recv(cases->chan, cases->elem);
        return 0;
    }
    return select_run(cases, n, true, deadline, WAIT_SELECT);
}

int weft_select(weft_case *cases, size_t n)
{
    return weft_select_until(cases, n, 0);
}

int weft_select_default(weft_case *cases, size_t n)
{
    if (!cases_valid(cases, n))
        return -EINVAL;
    if (n == 1) { /* the cheap looks of the non-blocking calls are right for one channel only */
        int r = cases->op == WEFT_SEND ? weft_chan_try_send(cases->chan, cases->elem) : weft_chan_try_recv(cases->chan, cases->elem);
        if (r == -EAGAIN)
            return -EAGAIN;
        cases->result = r;
        return 0;
    }
    return select_run(cases, n, false, 0, WAIT_SELECT);
}
