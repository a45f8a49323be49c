/* Finding work.
 *
 * A machine with nothing at hand looks, in this order: stop wanted? timers due? does a collection hurry ([CONC]: then it marks first)? every 61st
 * time the global queue; its own queue; the global queue; the poller; the queues of others (a machine that searches there is "spinning"). Then it
 * gives its processor to the idle list, looks once more, and sleeps: in epoll, until the next timer, if nobody else is there; else on a futex.
 *
 * No lost wake-up. Whoever makes work: (1) puts it into a queue, (2) looks whether a processor idles and nobody spins. Whoever runs out of work:
 * (1) makes its processor idle, stops being counted as spinning, (2) looks at all queues. Both steps are ordered by sequentially consistent
 * operations, so one of the two sees the other. At most half of the busy processors spin, and who finds work while spinning wakes the next searcher:
 * so a burst of work wakes machines one after the other, and a trickle wakes none in vain. This is Go's scheme (runtime/proc.go, "Worker thread
 * parking/unparking"). */
#include "sched/schedule.h"
#include "sched/latency.h"
#include "sched/machine.h"
#include "sched/mutator.h"
#include "sched/runq.h"
#include "sched/seed.h"
#include "sched/world.h"
#include "os/clock.h"

static void spinning_begin(struct m *m)
{
    m->spinning = true;
    add_seq(&sched.nspinning, 1);
}

static void spinning_end(struct m *m)
{
    m->spinning = false;
    sub_seq(&sched.nspinning, 1); /* seq: before the second look at the queues */
}

/* Found something while spinning: another may be needed. */
static runnable found(struct m *m, runnable r)
{
    if (m->spinning) {
        spinning_end(m);
        proc_wake();
    }
    return r;
}

void inject_fibers(struct p *p, struct fiber *list)
{
    uint32_t n = 0;
    while (list != NULL) {
        struct fiber *f = list;
        list = run_fiber(f->link.next);
        PROBE(fiber_ready, f, 0, 0);
        store_rlx(&f->state, FIBER_RUNNABLE); /* rlx: the queue publishes it */
        if (p != NULL) {
            latency_fiber_ready(p, f);
            runq_put(p, (runnable)f);
        } else {
            globq_add((runnable)f);
        }
        n++;
    }
    fence_seq(); /* before the looks of proc_wake */
    if (n > (p != NULL ? 1u : 0u))
        proc_wake();
}

static runnable take_global(struct m *m, uint32_t max)
{
    return load_rlx(&sched.global_len) != 0 ? globq_take(m->p, max) : 0; /* rlx: hint */
}

static runnable take_polled(struct m *m)
{
    if (netpoll_waiters() == 0 || load_rlx(&sched.poll_until_ns) != 0) /* rlx: hint: if somebody sleeps there he will tell */
        return 0;
    struct fiber *list = netpoll(0);
    if (list == NULL)
        return 0;
    inject_fibers(m->p, list);
    return runq_get(m->p);
}

/* A fiber that was just made ready by a running one is left to it for a moment: it is likely to run it itself. */
static bool next_is_stale(struct p *victim)
{
    if (load_rlx(&victim->status) != P_RUNNING) /* rlx: hint */
        return true;
    uint32_t tick = load_rlx(&victim->tick); /* rlx: see p_tick */
    for (int i = 0; i < 100; i++)
        cpu_relax();
    return tick == load_rlx(&victim->tick);
}

static runnable steal(struct m *m, int64_t *now)
{
    struct p *p = m->p;
    uint32_t n = nprocs();
    for (int round = 0; round < 4; round++) {
        uint32_t start = rng_below(&p->rng, n);
        for (uint32_t k = 0; k < n; k++) {
            if (load_rlx(&sched.stopping) != 0) /* rlx: looked at again */
                return 0;
            struct p *v = sched.allp[(start + k) % n];
            runnable r = 0;
            if (v == p)
                continue;
            if (round == 3) {
                int64_t when = load_rlx(&v->timers.next_ns); /* rlx: hint, checked under the lock */
                if (when != INT64_MAX) {
                    if (*now == 0)
                        *now = sched_peek_ns();
                    if (when <= *now)
                        timers_run(v, *now);
                }
                r = runq_get_next(p); /* a timer may have readied something here */
                if (r == 0)
                    r = runq_get(p);
                if (r != 0)
                    return r;
            }
            bool take_next = round == 3 && load_rlx(&v->runq.next) != NULL && next_is_stale(v); /* rlx: hint */
            if (runq_steal(v, p, take_next, &r))
                return r;
        }
    }
    return 0;
}

static bool any_queue_filled(void)
{
    for (uint32_t i = 0; i < nprocs(); i++)
        if (!runq_empty(sched.allp[i]))
            return true;
    return load_rlx(&sched.global_len) != 0; /* rlx: behind the fences of spinning_end, p_idle_put */
}

/* Till the first timer, by a clock that is drawn. */
static w_noinline struct fiber *poll_seeded(int64_t when, int64_t delay)
{
    if (delay <= 0)
        return netpoll(delay);
    int64_t began = os_now_ns();
    bool jump = seed_alone();
    struct fiber *list = netpoll(jump ? 0 : w_max(delay - (os_now_ns() - began), (int64_t)0));
    seed_waited(when, jump ? delay : os_now_ns() - began);
    return list;
}

/* Sleeps in epoll if that is free and something can happen there. True: look for work again (with a P). */
static bool poll_asleep(struct m *m)
{
    if (netpoll_waiters() == 0 && timers_next() == INT64_MAX)
        return false;
    /* rlx: see seed_on. [SEED]: time is for who has the processor, or had it last */
    if (unlikely(load_rlx(&seed_on) != 0) && load_seq(&sched.nidle_p) == 0)
        return false;
    /* seq: claimed before the look at the timers; timer_start puts its timer before it looks at poll_until */
    if (!cas_seq(&sched.poll_until_ns, 0, INT64_MAX))
        return false;
    int64_t when = timers_next(), delay = -1;
    if (when != INT64_MAX) {
        store_seq(&sched.poll_until_ns, w_max(when, (int64_t)1)); /* seq: as above */
        when = w_min(when, timers_next());
        delay = w_max(when - sched_peek_ns(), (int64_t)0);
    }
    /* What we were to wait for may have gone before others could see us here, see m_sleep_inactive. */
    if (load_seq(&sched.ending) != 0 || load_seq(&sched.stopping) != 0 || (when == INT64_MAX && netpoll_waiters() == 0))
        delay = 0;
    struct fiber *list = unlikely(load_rlx(&seed_on) != 0) ? poll_seeded(when, delay) : netpoll(delay); /* rlx: see seed_on */
    store_seq(&sched.poll_until_ns, 0);
    if (load_seq(&sched.stopping) == 0 && m_get_idle(m)) {
        if (list != NULL)
            inject_fibers(m->p, list);
        else
            spinning_begin(m); /* timers on other processors are found by stealing */
        return true;
    }
    if (list != NULL)
        inject_fibers(NULL, list);
    return false;
}

/* Sleeps until somebody has work. The machine has no P; afterwards it has, or the runtime ends. */
static void sleep_idle(struct m *m)
{
    lock_take(&sched.lock);
    if (load_rlx(&sched.ending) != 0) { /* rlx: set under this lock; then all who sleep were woken, and we would come too late */
        lock_drop(&sched.lock);
        return;
    }
    store_rlx(&m->sleep, 1); /* rlx: published by the lock */
    m->idle_next = sched.idle_m;
    sched.idle_m = m;
    sched.nidle_m++;
    lock_drop(&sched.lock);
    m_sleep_inactive(m);
}

/* Gives up the P; false: there is something after all, and we still (or again) have one. */
static bool go_idle(struct m *m)
{
    lock_take(&sched.lock);
    /* rlx: set or written under this lock, or found by the next look */
    if (load_rlx(&sched.stopping) != 0 || load_rlx(&sched.ending) != 0 || load_rlx(&sched.global_len) != 0) {
        lock_drop(&sched.lock);
        return false;
    }
    p_idle_put(m_disown(m)); /* a seq add inside: before the second look */
    lock_drop(&sched.lock);
    bool was_spinning = m->spinning;
    if (was_spinning) {
        spinning_end(m);
        if (any_queue_filled() && m_get_idle(m)) {
            spinning_begin(m);
            return false;
        }
    }
    return true;
}

/* [CONC] While it marks it does not count as one who looks for work; it looks again after some 100 us. Who finds something to mark may have company. */
static bool mark_idle(struct m *m)
{
    if (load_rlx(&seed_on) != 0) /* rlx: see seed_on. [SEED]: who marks when is not drawn */
        return false;
    if (m->spinning) {
        spinning_end(m);
        if (any_queue_filled())
            return true; /* who had work meanwhile saw that we were looking for some */
    }
    if (!mutator_mark_idle())
        return false;
    if (load_rlx(&sched.nidle_p) != 0) /* rlx: a hint */
        proc_wake();
    return true;
}

runnable schedule_next(struct m *m)
{
    for (;;) {
        if (load_acq(&sched.ending) != 0)
            return 0;
        if (!m_has_p(m)) {
            if (unlikely(m->given != 0)) { /* the processor was withdrawn (weft_maxprocs) */
                lock_take(&sched.lock);
                bool stop = load_rlx(&sched.stopping) != 0; /* rlx: set before the stopper takes this lock; then nothing that is scanned may move */
                if (!stop) {
                    globq_put(m->given);
                    m->given = 0;
                }
                lock_drop(&sched.lock);
                if (stop) {
                    world_stop_here(m);
                    continue;
                }
            }
            if (!m_get_idle(m)) {
                if (load_acq(&sched.stopping) != 0)
                    world_stop_here(m);
                else if (!poll_asleep(m))
                    sleep_idle(m);
            }
            continue;
        }
        if (load_acq(&sched.stopping) != 0) {
            if (m->spinning)
                spinning_end(m);
            world_stop_here(m);
            continue;
        }
        if (m->given != 0) {
            runnable r = m->given;
            m->given = 0;
            return found(m, r);
        }
        struct p *p = m->p;
        int64_t now = 0;
        if (load_rlx(&p->timers.next_ns) != INT64_MAX) { /* rlx: hint, checked under the lock */
            now = sched_peek_ns();
            timers_run(p, now);
        }
        if (unlikely(gc_mark_work()) && !m->spinning)
            mutator_mark_turn();
        runnable r = unlikely(load_rlx(&seed_on) != 0) ? seed_pick(m) : 0; /* rlx: see seed_on */
        uint32_t tick = p_tick(p);
        if (r == 0 && tick - p->global_tick >= GLOBAL_TURN) {
            p->global_tick = tick;
            r = take_global(m, 1);
        }
        if (r == 0)
            r = runq_local(p);
        if (r == 0)
            r = take_global(m, RUNQ_SIZE / 2);
        if (r == 0)
            r = take_polled(m);
        if (r == 0 && nprocs() > 1 &&
            (m->spinning || 2 * load_rlx(&sched.nspinning) < nprocs() - load_rlx(&sched.nidle_p))) { /* rlx: heuristics */
            if (!m->spinning)
                spinning_begin(m);
            r = steal(m, &now);
        }
        if (r != 0)
            return found(m, r);
        if (unlikely(gc_mark_work()) && mark_idle(m))
            continue;
        if (go_idle(m) && !poll_asleep(m))
            sleep_idle(m);
    }
}
