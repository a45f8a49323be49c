/* The seeded scheduler.
 *
 * [SEED] With schedseed=N every choice that is left to the runtime is drawn from N, so that a program runs the same way each time, another way with
 * each seed, and in ways that chance finds only once in a million runs. A failure is repeated by its seed.
 *
 *   who runs      There is one processor, and weft_maxprocs keeps it at one. At each switch the next fiber is drawn among all that can run, whatever
 *                 queue they are in; machines go to the scheduler's loop for that (POLL_SEEDED in scheduler_due).
 *   when          A fiber that comes out of a call into weft is preempted, once in PREEMPT_ONE_IN: it waits, in place, for the processor, while
 *                 others are drawn. In place, since calls that do not move a fiber to another thread do not do it here either. So the windows between
 *                 two calls, those within calls that go out in between (weft_cond_wait) included, are open for everybody else.
 *   time          Time is drawn, too: the clock moves a little at each look at it and at each choice, at some choices much, as if the thread had been
 *                 put to sleep; and when nothing can run it jumps to the next timer, or somewhat beyond, so that neighbours come due together. Nobody
 *                 waits for real time, but where something outside may happen meanwhile: a fiber in weft_blocking_begin, a descriptor, a thread of
 *                 the host. Then the clock follows the real one.
 *   ties          Timers of the same time come in an order that is drawn; a select draws from the same source as ever, which is the processor's.
 *   the monitor   takes no processor away, serves neither timers nor descriptors, and asks for no collection: it would do so by its own clock.
 *
 * So a fiber that blocks its thread behind weft's back holds up all others; weft_blocking_begin gives the processor up as ever. What comes from
 * outside (descriptors, threads of the host, the end of a blocking call) comes when it comes: choices among it are drawn, but do not replay exactly.
 * Neither do addresses; nothing is chosen by them. Nor does what a stale word on a stack keeps alive, as a thread that waits in place may be seen
 * sooner or later on its way to sleep: so a finalizer may come a collection later than it did, and is one more to choose among.
 *
 * Who draws: the generator of the processor, by its owner; that of ties, under the lock of the timers; that of jumps, by who has claimed the
 * poller. */
#include "sched/seed.h"
#include "base/backoff.h"
#include "sched/machine.h"
#include "sched/runq.h"
#include "sched/switch.h"

#define LOOK_NS 100             /* a look at the clock */
#define STEP_NS 1024u           /* a choice: up to so much */
#define LONG_STEP_NS 2000000u   /* one in LONG_ONE_IN of them: longer than a mutex has patience */
#define LONG_ONE_IN 64u
#define PREEMPT_ONE_IN 8u
#define PREEMPTED_MAX 3u        /* at a time: each occupies a thread */
#define BEYOND_NS 100000u       /* half of the jumps go up to so far beyond the timer */
#define POLL_TURN 64u           /* choices between two looks at descriptors, if there is always something to run */

w_u32 seed_on;

static struct {
    uint64_t seed;
    struct rng ties, jumps;
    w_i64 now_ns;          /* rlx: a number that only grows; who must see it grow comes with the processor */
    uint32_t npreempted;   /* with the processor, and the next */
    uint32_t turn;
} seeded;

void seed_start(uint64_t seed)
{
    seeded.seed = seed;
    rng_seed(&seeded.ties, seed + 1);
    rng_seed(&seeded.jumps, seed + 2);
    seeded.npreempted = seeded.turn = 0;
    store_rlx(&seeded.now_ns, sched.start_ns); /* rlx: nobody runs; and below */
    store_rlx(&seed_on, seed != 0);
}

void seed_end(void) { store_rlx(&seed_on, 0); } /* rlx: nobody runs */

void seed_after_fork(void) { seeded.npreempted = 0; }

uint64_t seed_value(void) { return seeded.seed; }

/* ---- time ------------------------------------------------------------------------------------------------ */

int64_t seed_now_ns(void) { return add_rlx(&seeded.now_ns, LOOK_NS) + LOOK_NS; } /* rlx: see now_ns */

int64_t seed_peek_ns(void) { return load_rlx(&seeded.now_ns); } /* rlx: see now_ns */

#define ALONE_NAPS 50u /* 4 ms: they may have no CPU just now */

/* Those that are about to fall asleep, having passed the processor on, are waited for. */
bool seed_alone(void)
{
    for (unsigned looks = 0; looks < BACKOFF_PAUSES + ALONE_NAPS && netpoll_waiters() == 0; looks++) {
        lock_take(&sched.lock);
        bool alone = sched.nactive == 1;
        lock_drop(&sched.lock);
        if (alone)
            return netpoll_waiters() == 0;
        backoff(looks);
    }
    return false;
}

void seed_waited(int64_t until_ns, int64_t waited_ns)
{
    int64_t left = until_ns - seed_peek_ns();
    if (waited_ns >= left)
        waited_ns = w_max(left, (int64_t)0) + (rng_below(&seeded.jumps, 2) == 0 ? 0 : rng_below(&seeded.jumps, BEYOND_NS));
    add_rlx(&seeded.now_ns, waited_ns); /* rlx: see now_ns */
}

uint32_t seed_tie(void) { return (uint32_t)(rng_next(&seeded.ties) >> 33); } /* half of the range: `before` in timer.c subtracts */

/* ---- choices ---------------------------------------------------------------------------------------------- */

/* All that can run comes into the ring, as far as there is room. */
static void gather(struct p *p)
{
    runnable r = runq_get_next(p);
    if (r != 0)
        runq_put(p, r);
    if (load_rlx(&sched.global_len) == 0) /* rlx: hint; what comes from outside comes when it comes */
        return;
    lock_take(&sched.lock);
    while (load_rlx(&p->runq.tail) - load_rlx(&p->runq.head) < RUNQ_SIZE && (r = globq_get()) != 0) /* rlx: nobody steals, there is one processor */
        runq_put(p, r);
    lock_drop(&sched.lock);
}

static uint64_t id_of(runnable r) { return run_is_task(r) ? run_task(r)->id : run_fiber(r)->id; }

runnable seed_pick(struct m *m)
{
    struct p *p = m->p;
    if (++seeded.turn % POLL_TURN == 0 && netpoll_waiters() != 0)
        inject_fibers(p, netpoll(0));
    gather(p);
    uint32_t head = load_rlx(&p->runq.head), n = load_rlx(&p->runq.tail) - head; /* rlx: as in gather; and below */
    if (n == 0)
        return 0;
    uint32_t k = rng_below(&p->rng, n), step = rng_below(&p->rng, STEP_NS);
    if (rng_below(&p->rng, LONG_ONE_IN) == 0)
        step += rng_below(&p->rng, LONG_STEP_NS);
    add_rlx(&seeded.now_ns, step); /* rlx: see now_ns */
    w_uptr *first = &p->runq.slot[head % RUNQ_SIZE], *drawn = &p->runq.slot[(head + k) % RUNQ_SIZE];
    runnable r = load_rlx(drawn);
    store_rlx(drawn, load_rlx(first));
    store_rlx(first, r);
    PROBE(seed_choice, n, k, id_of(r));
    return runq_get(p);
}

/* Not inside, but about to be in user code, on the fiber's stack. */
void seed_preempt(struct m *m)
{
    struct fiber *f = m->cur;
    if (f == NULL || m->blocking || load_rlx(&m->pstate) == M_GONE) /* rlx: looked at again, inside */
        return;
    store_seq(&m->in_runtime, 1);
    if (m_has_p(m) && rng_below(&m->p->rng, PREEMPT_ONE_IN) == 0 && seeded.npreempted < PREEMPTED_MAX &&
        (!runq_empty(m->p) || load_rlx(&sched.global_len) != 0)) { /* rlx: as in gather */
        PROBE(seed_choice, 0, 0, f->id);
        seeded.npreempted++;
        proc_wait_in_place(m, f);
        seeded.npreempted--;
    }
    store_seq(&m->in_runtime, 0);
}
