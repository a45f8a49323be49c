/* Run queues, the parts that are not hot: overflow, stealing, the global queue. See runq.h.
 *
 * [GLOBQ] The global queue is a ring of batches. What a processor's ring cannot hold comes as one, linked by those who bring it before they take the
 * lock; and whoever has run out of work takes a whole one, and looks at what is in it after the lock: a runnable that has waited lies in no cache,
 * and a hundred misses in a row would keep all others from the lock. Singles fill the last batch up; so does, without a limit, whatever comes when
 * the ring is full, of which takers cut off what they can hold. */
#include "sched/runq.h"
#include "sched/machine.h"

#define BATCH_MAX (RUNQ_SIZE / 2u)
#define BATCHES 2048u

struct batch { runnable first, last; uint32_t n; }; /* linked from first to last */

static struct {          /* under sched.lock */
    struct batch at[BATCHES];
    uint32_t head, n;    /* head is 0 when n is: few batches, few lines */
} globq;

static inline struct batch *batch_at(uint32_t i) { return &globq.at[(globq.head + i) % BATCHES]; }

static void globq_put_batch(struct batch b)
{
    lock_check_held(&sched.lock);
    run_link(b.last)->next = 0;
    struct batch *tail = globq.n > 0 ? batch_at(globq.n - 1) : NULL;
    if (tail != NULL && (tail->n + b.n <= BATCH_MAX || globq.n == BATCHES)) {
        run_link(tail->last)->next = b.first;
        tail->last = b.last;
        tail->n += b.n;
    } else {
        *batch_at(globq.n++) = b;
    }
    store_rlx(&sched.global_len, load_rlx(&sched.global_len) + b.n); /* rlx: written under the lock only */
}

/* The longest waiting, at most max of them; n 0: there are none. */
static struct batch globq_get_some(uint32_t max)
{
    lock_check_held(&sched.lock);
    if (globq.n == 0)
        return (struct batch){ 0 };
    struct batch *head = batch_at(0), b = *head;
    if (b.n <= max) {
        globq.n--;
        globq.head = globq.n == 0 ? 0 : globq.head + 1;
    } else {
        b.n = max;
        b.last = b.first;
        for (uint32_t i = 1; i < max; i++)
            b.last = run_link(b.last)->next;
        head->first = run_link(b.last)->next;
        head->n -= max;
    }
    store_rlx(&sched.global_len, load_rlx(&sched.global_len) - b.n); /* rlx: as above */
    return b;
}

/* The older half of a full ring, but for one, and r go to the global queue: a batch. */
void runq_put_slow(struct p *p, runnable r, uint32_t head, uint32_t tail)
{
    runnable batch[BATCH_MAX];
    uint32_t n = (tail - head) / 2 - 1;
    for (uint32_t i = 0; i < n; i++)
        batch[i] = load_rlx(&p->runq.slot[(head + i) % RUNQ_SIZE]); /* rlx: we wrote them; void if the cas fails */
    if (!cas_rel(&p->runq.head, head, head + n)) { /* a thief made room */
        runq_put(p, r);
        return;
    }
    batch[n++] = r;
    for (uint32_t i = 0; i + 1 < n; i++)
        run_link(batch[i])->next = batch[i + 1];
    lock_take(&sched.lock);
    globq_put_batch((struct batch){ batch[0], r, n });
    lock_drop(&sched.lock);
}

/* Copies up to half of victim's ring to the end of into's, without moving into's tail. */
static uint32_t runq_grab(struct p *victim, struct p *into, uint32_t tail)
{
    for (;;) {
        uint32_t h = load_acq(&victim->runq.head); /* acq: against other thieves */
        uint32_t t = load_acq(&victim->runq.tail); /* acq: sees the slots; rel in runq_put */
        uint32_t n = t - h;
        n -= n / 2;
        if (n == 0)
            return 0;
        if (n > RUNQ_SIZE / 2) /* h and t were read at different times */
            continue;
        for (uint32_t i = 0; i < n; i++) {
            runnable r = load_rlx(&victim->runq.slot[(h + i) % RUNQ_SIZE]); /* rlx: void if the cas fails */
            store_rlx(&into->runq.slot[(tail + i) % RUNQ_SIZE], r);         /* rlx: published by runq_steal's store of tail */
        }
        if (cas_acq_rel(&victim->runq.head, h, h + n)) /* rel: slots have been read; acq in the victim's runq_put */
            return n;
    }
}

uint32_t runq_steal(struct p *victim, struct p *into, bool take_next, runnable *first)
{
    uint32_t tail = load_rlx(&into->runq.tail); /* rlx: only we write it */
    uint32_t n = runq_grab(victim, into, tail);
    if (n == 0) {
        if (!take_next)
            return 0;
        *first = runq_get_next(victim);
        return *first != 0;
    }
    n--;
    *first = load_rlx(&into->runq.slot[(tail + n) % RUNQ_SIZE]); /* rlx: ours */
    if (n > 0)
        store_rel(&into->runq.tail, tail + n); /* rel: publishes the slots; acq in runq_grab */
    return n + 1;
}

void globq_start(void)
{
    globq.head = globq.n = 0;
}

void globq_put(runnable r) { globq_put_batch((struct batch){ r, r, 1 }); }

void globq_add(runnable r)
{
    lock_take(&sched.lock);
    globq_put(r);
    lock_drop(&sched.lock);
}

runnable globq_get(void) { return globq_get_some(1).first; }

void globq_each(void (*fn)(runnable r, void *arg), void *arg)
{
    lock_check_held(&sched.lock);
    for (uint32_t i = 0; i < globq.n; i++)
        for (runnable r = batch_at(i)->first; r != 0; r = run_link(r)->next)
            fn(r, arg);
}

/* Who has waited long has its stack in no cache, nor the page in the TLB; what it needs to go on is fetched here for several at a time, while they
 * wait their turn. A prefetch alone is dropped where the page is not in the TLB, so the first line is read: we hold r, so its stack stands still. */
static w_no_sanitize void warm(runnable r)
{
    if (run_is_task(r))
        return;
    const volatile char *sp = run_fiber(r)->sp;
    (void)*sp;
    for (int i = 1; i < 5; i++)
        __builtin_prefetch((const char *)sp + 64 * i);
}

runnable globq_take(struct p *p, uint32_t max)
{
    lock_take(&sched.lock);
    struct batch b = globq_get_some(w_min(max, BATCH_MAX));
    lock_drop(&sched.lock);
    runnable first = b.first, r = b.n > 1 ? run_link(first)->next : 0;
    for (uint32_t i = 1; i < b.n; i++) {
        runnable next = run_link(r)->next;
        warm(r);
        runq_put(p, r);
        r = next;
    }
    if (b.n > 1) { /* they were in no queue for a moment, so whoever was about to sleep may have overlooked them */
        fence_seq(); /* before the looks of proc_wake */
        proc_wake();
    }
    return first;
}
