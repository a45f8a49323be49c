/* Run queues, the parts that are not hot: overflow, stealing, the global list. See runq.h. */
#include "sched/runq.h"

/* Half of a full ring and r go to the global queue. */
void runq_put_slow(struct p *p, runnable r, uint32_t head, uint32_t tail)
{
    runnable batch[RUNQ_SIZE / 2];
    uint32_t n = (tail - head) / 2;
    for (uint32_t i = 0; i < n; i++)
        batch[i] = load_rlx(&p->runq.slot[(head + i) % RUNQ_SIZE]); /* rlx: we wrote them; void if the cas fails */
    if (!cas_rel(&p->runq.head, head, head + n)) { /* a thief made room */
        runq_put(p, r);
        return;
    }
    lock_take(&sched.lock);
    for (uint32_t i = 0; i < n; i++)
        globq_put(batch[i]);
    globq_put(r);
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

void globq_put(runnable r)
{
    lock_check_held(&sched.lock);
    run_link(r)->next = 0;
    if (sched.global_tail != 0)
        run_link(sched.global_tail)->next = r;
    else
        sched.global_head = r;
    sched.global_tail = r;
    store_rlx(&sched.global_len, load_rlx(&sched.global_len) + 1); /* rlx: written under the lock only */
}

runnable globq_get(void)
{
    lock_check_held(&sched.lock);
    runnable r = sched.global_head;
    if (r == 0)
        return 0;
    sched.global_head = run_link(r)->next;
    if (sched.global_head == 0)
        sched.global_tail = 0;
    store_rlx(&sched.global_len, load_rlx(&sched.global_len) - 1); /* rlx: as above */
    return r;
}

/* Who has waited long has its stack in no cache, nor the page in the TLB; what it needs to go on is fetched here for several at a time, while they wait their turn. A
 * prefetch alone is dropped where the page is not in the TLB, so the first line is read: we hold r, so its stack stands still. */
static w_no_sanitize void warm(runnable r)
{
    if (run_is_task(r))
        return;
    const volatile char *sp = run_fiber(r)->sp;
    (void)*sp;
    for (int i = 1; i < 5; i++)
        __builtin_prefetch((const char *)sp + 64 * i);
}

runnable globq_get_batch(struct p *p, uint32_t max)
{
    uint32_t n = load_rlx(&sched.global_len) / nprocs() + 1; /* rlx: written under the lock only */
    n = w_min(n, w_min(max, (uint32_t)RUNQ_SIZE / 2));
    runnable first = globq_get();
    while (first != 0 && --n > 0) {
        runnable r = globq_get();
        if (r == 0)
            break;
        warm(r);
        runq_put(p, r);
    }
    return first;
}
