/* Timers of the runtime.
 *
 * [TIMER] Each processor has a heap of waiting timers under a lock of its own. A timer is put into the heap of the machine that starts it and stays
 * there till it runs or is stopped; stopping takes it out at once, so that the heap never holds more than what waits. The scheduler runs what is
 * due in its own heap between two fibers, and in the heaps of others when it finds nothing else to do; so a processor whose fiber computes does not
 * hold up its timers for longer than it takes another machine to run out of work, or sysmon to take the processor away.
 *
 * The heap is 4-ary: half as deep as a binary one, and the four children of an entry fill one cache line. Timers themselves lie scattered over the
 * stacks of those who wait, each on a page of its own, and so are touched only when they come and go: an entry carries what is compared, and the
 * place of a timer in the heap, needed to take it out of the middle, is kept under a small number, its slot, in a dense array.
 *
 *      heap[i]      { when, seq, slot }      sorted as a heap by when, then by seq: the order of starting
 *      pos_of[slot] = i                      timer_of[slot] = timer (| TIMER_ROOT)        timer->slot = slot + 1
 *
 * Waking the poller. One machine may sleep in epoll until sched.poll_until_ns, which it found by timers_next(). Who starts a timer stores next_ns
 * and then reads poll_until_ns; who goes to sleep stores poll_until_ns and then reads every next_ns, once more. Both are sequentially consistent,
 * so one sees the other: either the sleep is cut short by netpoll_break, or it was not that long. Is nobody in epoll, then the starter's machine
 * itself is awake, and comes to the scheduler before it sleeps; but for one that parks its fiber in place and has given up its processor already:
 * that one wakes another, whatever waits before its timer, or if none idles, lets the processor it leaves
 * look after the timers (proc_handoff), unless that goes to another thread's fiber (proc_give_bound): then they wait for its next step.
 *
 * Stopping a timer whose callback runs. Callbacks run without the lock, but their timer is noted in a record, linked into `running` until they have
 * returned. timer_stop looks for such a record under the lock and, if it is another machine's, waits a little and looks again. This ends:
 * callbacks do not block, do not call timer_stop, and are inside the runtime, so that no stop of the world halts them; they may wait for locks,
 * which is why timer_stop must not be called with a lock held that the callback takes. Called by the callback itself it does not wait. Where that
 * is too strict (a deadline changed under the lock its callback takes), timer_cancel takes the timer out if it waits, and says so if it does not.
 *
 * Lifetime. When a callback has made its fiber ready, the timer on that fiber's stack may be gone. So a timer without period is marked as no longer
 * waiting before its callback begins and never touched afterwards. */
#include "sched/machine.h"
#include "sched/sched.h"
#include "sched/seed.h"
#include "base/backoff.h"
#include "base/offheap.h"
#include <string.h>

#define TIMER_ROOT ((uintptr_t)1)
#define NO_SLOT UINT32_MAX
#define CAP_MIN 32u
#define BATCH 256 /* callbacks in one go: a stop of the world waits for them */

struct timer_entry {
    int64_t when_ns;
    uint32_t slot;
    uint32_t seq;
};

/* On the stack of who runs callbacks; linked under the heap's lock. */
struct timer_run {
    struct timer_run *next;
    struct timer *t;
    struct m *by;
};

/* ---- the heap; all under its lock ------------------------------------------------------------------------ */

static inline bool before(const struct timer_entry *a, const struct timer_entry *b)
{
    if (a->when_ns != b->when_ns)
        return a->when_ns < b->when_ns;
    return (int32_t)(a->seq - b->seq) < 0;
}

static inline struct timer *timer_at(struct timer_heap *h, uint32_t slot)
{
    return (struct timer *)(h->timer_of[slot] & ~TIMER_ROOT);
}

static inline void put_at(struct timer_heap *h, uint32_t i, struct timer_entry e)
{
    h->heap[i] = e;
    h->pos_of[e.slot] = i;
}

/* e is to lie at the hole i or above. */
static void sift_up(struct timer_heap *h, uint32_t i, struct timer_entry e)
{
    while (i > 0) {
        uint32_t up = (i - 1) / 4;
        if (!before(&e, &h->heap[up]))
            break;
        put_at(h, i, h->heap[up]);
        i = up;
    }
    put_at(h, i, e);
}

/* e is to lie at the hole i or below. */
static void sift_down(struct timer_heap *h, uint32_t i, struct timer_entry e)
{
    for (;;) {
        uint32_t first = 4 * i + 1, end = w_min(first + 4, h->len);
        if (first >= h->len)
            break;
        uint32_t least = first;
        for (uint32_t c = first + 1; c < end; c++)
            if (before(&h->heap[c], &h->heap[least]))
                least = c;
        if (!before(&h->heap[least], &e))
            break;
        put_at(h, i, h->heap[least]);
        i = least;
    }
    put_at(h, i, e);
}

static void sift(struct timer_heap *h, uint32_t i, struct timer_entry e)
{
    if (i > 0 && before(&e, &h->heap[(i - 1) / 4]))
        sift_up(h, i, e);
    else
        sift_down(h, i, e);
}

/* One block: three entries of padding, so that heap[1], the first of four children, begins a cache line; then the arrays by slot. */
#define PAD 3u
static size_t block_bytes(uint32_t cap)
{
    return (PAD + (size_t)cap) * sizeof(struct timer_entry) + cap * (sizeof(uintptr_t) + sizeof(uint32_t));
}

static inline void *block_of(struct timer_heap *h)
{
    return h->cap == 0 ? NULL : h->heap - PAD;
}

static bool heap_block(struct timer_heap *to, uint32_t cap)
{
    struct timer_entry *block = off_alloc_aligned(OFF_SCHED, block_bytes(cap), W_CACHELINE);
    if (block == NULL)
        return false;
    to->heap = block + PAD;
    to->timer_of = (uintptr_t *)(to->heap + cap);
    to->pos_of = (uint32_t *)(to->timer_of + cap);
    to->cap = cap;
    return true;
}

static void heap_take_block(struct timer_heap *h, const struct timer_heap *from)
{
    off_free(OFF_SCHED, block_of(h));
    h->heap = from->heap;
    h->timer_of = from->timer_of;
    h->pos_of = from->pos_of;
    h->cap = from->cap;
    h->free_slot = from->free_slot;
}

/* Slots from `from` on become free. */
static void slots_free(struct timer_heap *h, uint32_t from)
{
    for (uint32_t s = h->cap; s-- > from;) {
        h->timer_of[s] = 0;
        h->pos_of[s] = h->free_slot;
        h->free_slot = s;
    }
}

/* Some more will do, out of what all others have free. */
static w_cold bool heap_block_last(struct timer_heap *to, uint32_t cap)
{
    off_release();
    return heap_block(to, cap);
}

static void heap_grow(struct timer_heap *h)
{
    struct timer_heap to = { .free_slot = NO_SLOT };
    if (!heap_block(&to, h->cap == 0 ? CAP_MIN : 2 * h->cap) && !heap_block_last(&to, h->cap + CAP_MIN))
        w_fatal("no memory for %u waiting timers", h->len + 1);
    if (h->cap != 0) {
        memcpy(to.heap, h->heap, h->len * sizeof *to.heap);
        memcpy(to.timer_of, h->timer_of, h->cap * sizeof *to.timer_of);
        memcpy(to.pos_of, h->pos_of, h->cap * sizeof *to.pos_of);
    }
    slots_free(&to, h->cap); /* called when no slot is free */
    heap_take_block(h, &to);
}

/* Most timers have gone: half the room is enough. Slots are given anew, by place. */
static void heap_shrink(struct timer_heap *h)
{
    struct timer_heap to = { .free_slot = NO_SLOT };
    if (!heap_block(&to, h->cap / 2))
        return;
    for (uint32_t i = 0; i < h->len; i++) {
        uintptr_t tagged = h->timer_of[h->heap[i].slot];
        ((struct timer *)(tagged & ~TIMER_ROOT))->slot = i + 1;
        to.timer_of[i] = tagged;
        to.pos_of[i] = i;
        to.heap[i] = h->heap[i];
        to.heap[i].slot = i;
    }
    slots_free(&to, h->len);
    heap_take_block(h, &to);
}

static void heap_note_next(struct timer_heap *h)
{
    int64_t next = h->len == 0 ? INT64_MAX : h->heap[0].when_ns;
    if (load_rlx(&h->next_ns) != next) /* rlx: written under the lock only */
        store_seq(&h->next_ns, next); /* seq: before the look at poll_until_ns in timer_start; timers_next reads it after poll_until_ns was stored */
}

static inline uint32_t next_seq(struct timer_heap *h)
{
    return unlikely(load_rlx(&seed_on) != 0) ? seed_tie() : h->next_seq++; /* rlx: see seed_on */
}

/* True: it is the first now. */
static bool heap_insert(struct timer_heap *h, struct timer *t, int64_t when_ns)
{
    if (h->free_slot == NO_SLOT)
        heap_grow(h);
    uint32_t slot = h->free_slot;
    h->free_slot = h->pos_of[slot];
    h->timer_of[slot] = (uintptr_t)t | (t->root ? TIMER_ROOT : 0);
    t->slot = slot + 1;
    struct timer_entry e = { when_ns, slot, next_seq(h) };
    sift_up(h, h->len++, e);
    bool first = h->pos_of[slot] == 0;
    if (first)
        heap_note_next(h);
    return first;
}

static void heap_remove(struct timer_heap *h, struct timer *t)
{
    uint32_t slot = t->slot - 1, i = h->pos_of[slot];
    w_debug_assert(timer_at(h, slot) == t);
    t->slot = 0;
    h->timer_of[slot] = 0;
    h->pos_of[slot] = h->free_slot;
    h->free_slot = slot;
    struct timer_entry last = h->heap[--h->len];
    if (i != h->len)
        sift(h, i, last);
    if (i == 0)
        heap_note_next(h);
    if (h->len < h->cap / 8 && h->cap > CAP_MIN)
        heap_shrink(h);
}

int64_t timer_next_period(int64_t when_ns, int64_t period_ns, int64_t now_ns)
{
    int64_t periods = (now_ns - when_ns) / period_ns + 1, ahead;
    if (__builtin_mul_overflow(periods, period_ns, &ahead))
        ahead = INT64_MAX;
    return timer_after(when_ns, ahead);
}

/* The first is due: it is taken out, or with a period, moved to the next multiple that lies ahead. */
static struct timer *heap_take_due(struct timer_heap *h, int64_t now_ns)
{
    struct timer_entry e = h->heap[0];
    struct timer *t = timer_at(h, e.slot);
    if (t->period_ns <= 0) {
        heap_remove(h, t);
        return t;
    }
    e.when_ns = timer_next_period(e.when_ns, t->period_ns, now_ns);
    e.seq = next_seq(h);
    sift_down(h, 0, e);
    heap_note_next(h);
    return t;
}

static bool runs_elsewhere(struct timer_heap *h, struct timer *t, struct m *me)
{
    for (struct timer_run *r = h->running; r != NULL; r = r->next)
        if (r->t == t && r->by != me)
            return true;
    return false;
}

/* ---- starting and stopping ---------------------------------------------------------------------------------- */

/* seq: after the store of next_ns in heap_note_next, see [TIMER]. */
static void wake_poller(int64_t when_ns, bool without_p)
{
    int64_t until = load_seq(&sched.poll_until_ns);
    if (until != 0 && when_ns < until)
        netpoll_break();
    else if (until == 0 && without_p)
        proc_wake();
}

/* Times before the clock's first are all the same, and those who subtract from them need not think of overflow. */
static void start_in(struct timer_heap *h, struct timer *t, int64_t when_ns)
{
    when_ns = w_max(when_ns, (int64_t)0);
    bool without_p = m_self()->p == NULL; /* before the timer may wake us, and so give us one */
    lock_take(&h->lock);
    bool first = heap_insert(h, t, when_ns);
    lock_drop(&h->lock);
    if (first || without_p)
        wake_poller(when_ns, without_p);
}

void timer_start(struct timer *t, int64_t when_ns)
{
    struct p *p = m_self()->p; /* without one, as while parking in place: any */
    struct timer_heap *h = &(p != NULL ? p : sched.allp[0])->timers;
    t->home = h;
    start_in(h, t, when_ns);
}

/* The home stays: timer_stop may be looking for us there. */
void timer_again(struct timer *t, int64_t when_ns)
{
    start_in(t->home, t, when_ns);
}

bool timer_cancel(struct timer *t)
{
    struct timer_heap *h = t->home;
    if (h == NULL)
        return false;
    lock_take(&h->lock);
    bool waited = t->slot != 0;
    if (waited)
        heap_remove(h, t);
    lock_drop(&h->lock);
    return waited;
}

bool timer_stop(struct timer *t)
{
    struct timer_heap *h = t->home; /* a plain read: only the owner changes it, by timer_start, and timers_move in a stop */
    struct m *me = m_self();
    bool waited = false;
    if (h == NULL)
        return false;
    for (unsigned looks = 0;; looks++) {
        lock_take(&h->lock);
        if (t->slot != 0) {
            heap_remove(h, t);
            waited = true;
        }
        bool runs = runs_elsewhere(h, t, me); /* it may come back by timer_again, hence the loop */
        lock_drop(&h->lock);
        if (!runs)
            return waited;
        backoff(looks);
    }
}

/* ---- running -------------------------------------------------------------------------------------------------- */

static void run_begin(struct timer_heap *h, struct timer_run *r)
{
    r->by = m_self();
    r->next = h->running;
    h->running = r;
}

static void run_end(struct timer_heap *h, struct timer_run *r)
{
    struct timer_run **at = &h->running;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
}

static int64_t run_due(struct timer_heap *h, int64_t now_ns)
{
    struct timer_run r = { 0 };
    lock_take(&h->lock);
    run_begin(h, &r);
    for (int n = 0; n < BATCH && h->len != 0 && h->heap[0].when_ns <= now_ns; n++) {
        struct timer *t = heap_take_due(h, now_ns);
        void (*fn)(void *, int64_t) = t->fn;
        void *arg = t->arg;
        r.t = t;
        lock_drop(&h->lock);
        fn(arg, now_ns);
        lock_take(&h->lock);
        r.t = NULL;
    }
    run_end(h, &r);
    int64_t next = load_rlx(&h->next_ns); /* rlx: under the lock */
    lock_drop(&h->lock);
    return next;
}

int64_t timers_run(struct p *p, int64_t now_ns)
{
    int64_t next = load_rlx(&p->timers.next_ns); /* rlx: a hint; the heap is looked at under the lock */
    if (likely(next == INT64_MAX))
        return next;
    if (now_ns == 0)
        now_ns = sched_now_ns();
    return now_ns < next ? next : run_due(&p->timers, now_ns);
}

bool timers_due(struct p *p)
{
    int64_t when = load_rlx(&p->timers.next_ns); /* rlx: a hint, checked under the lock */
    /* [SEED]: how often somebody asks depends on how long things take, and so may no choice */
    return when != INT64_MAX && load_rlx(&seed_on) == 0 && when <= os_now_ns(); /* rlx: see seed_on */
}

int64_t timers_next(void)
{
    int64_t next = INT64_MAX;
    for (uint32_t i = 0; i < nprocs(); i++)
        next = w_min(next, load_seq(&sched.allp[i]->timers.next_ns)); /* seq: see [TIMER] */
    return next;
}

bool timers_any(void)
{
    return timers_next() != INT64_MAX;
}

/* ---- processors come and go ------------------------------------------------------------------------------------ */

void timers_init(struct timer_heap *h)
{
    *h = (struct timer_heap){ .free_slot = NO_SLOT };
    lock_init(&h->lock, RANK_TIMER);
    store_rlx(&h->next_ns, INT64_MAX); /* rlx: published with the processor */
}

void timers_fini(struct timer_heap *h)
{
    off_free(OFF_SCHED, block_of(h));
    timers_init(h);
}

/* In a stop, so that no callback is under way and nobody is between reading home and taking its lock. */
void timers_move(struct p *from, struct p *to)
{
    struct timer_heap *a = &from->timers, *b = &to->timers;
    w_assert(a->running == NULL);
    while (a->len != 0) {
        int64_t when_ns = a->heap[0].when_ns;
        struct timer *t = timer_at(a, a->heap[0].slot);
        heap_remove(a, t);
        t->home = b;
        heap_insert(b, t, when_ns);
    }
}

static void heap_forget(struct timer_heap *h, enum timer_fate (*fate)(const struct timer *t))
{
    uint32_t n = h->len;
    h->len = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct timer_entry e = h->heap[i];
        struct timer *t = timer_at(h, e.slot);
        enum timer_fate what = fate(t);
        if (what == TIMER_KEEP) {
            sift_up(h, h->len++, e); /* behind the place it is read from, or there */
            continue;
        }
        if (what == TIMER_STOP)
            t->slot = 0;
        h->timer_of[e.slot] = 0;
        h->pos_of[e.slot] = h->free_slot;
        h->free_slot = e.slot;
    }
    heap_note_next(h);
}

void timers_forget_stw(enum timer_fate (*fate)(const struct timer *t))
{
    for (uint32_t i = 0; i < nprocs(); i++)
        heap_forget(&sched.allp[i]->timers, fate);
}

/* The word that names the timer is given as the root: the timer lies in the object that it keeps, if in any. */
void timers_scan(void (*root)(void *marker, const void *lo, const void *hi), void *marker, bool all)
{
    for (uint32_t i = 0; i < nprocs(); i++) {
        struct timer_heap *h = &sched.allp[i]->timers;
        for (uint32_t s = 0; s < h->cap; s++)
            if (all || (h->timer_of[s] & TIMER_ROOT))
                root(marker, &h->timer_of[s], &h->timer_of[s] + 1);
    }
}
