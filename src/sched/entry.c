/* The doors of the runtime.
 *
 * [ENTRY]. A machine in user code keeps its P, but anybody may take it away meanwhile: to stop the world, or because the fiber runs for too long.
 * Calls into weft are frequent and takings are rare, so the machine pays two plain stores and two plain loads per call, and the taker pays for
 * everything:
 *
 *      machine (rt_enter)                    taker (p_take, world_stop)
 *        in_runtime = 1                        pstate: OWNED -> TAKING   (compare-and-swap)
 *        compiler barrier                      membarrier(PRIVATE_EXPEDITED)
 *        look at pstate: OWNED? go on          look at in_runtime:
 *                        else slow               1: lost; pstate = OWNED
 *                                                0: won;  pstate = GONE
 *
 * membarrier makes each running thread of the process execute a full fence at some point between the taker's store and its load. If the machine's
 * store of in_runtime comes before that point, the taker sees 1 and loses. If it comes after, the machine's look at pstate comes after it too, and
 * sees TAKING or what follows; it goes the slow way and waits there for the outcome. So never do both believe that they own the P. Both may give way:
 * the machine sees TAKING, the taker sees 1; then the taker puts OWNED back, and the machine, spinning, goes on.
 *
 * Leaving is the same the other way round: in_runtime = 0, compiler barrier, look at poll. A stopper sets poll, then membarrier, then looks at
 * in_runtime: it sees 0 and treats the machine as in user code, or the machine sees poll and comes back in to stand still.
 *
 * Without membarrier(2) (kernels before 4.14, some sandboxes, emulators; debug key membarrier=0) the owner's state is FENCED and not OWNED: each
 * entry takes the slow way, which has the real fence. The way out needs none there: a stopper that still sees in_runtime = 1 looks again, and who
 * leaves without having seen poll is found in user code.
 *
 * Threads of the host own a P only while they are inside: in user code nobody knows how long they stay. */
#include "sched/fork.h"
#include "sched/machine.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/seed.h"
#include "sched/switch.h"
#include "sched/world.h"
#include <errno.h>
#include <sched.h>

static w_noreturn void not_running(void)
{
    if (load_acq(&sched.forked) == FORK_NEVER) /* acq: as in fork_child_ready */
        w_fatal("a weft function was called in the child of a fork that was made while the runtime started or ended, or in a signal handler; such a "
                "child can only execute another program or end");
    w_fatal("a weft function was called while the runtime does not run; start it with weft_run or weft_start first");
}

/* The calling thread's machine, inside the runtime, in this life of it; NULL: the runtime does not run, or no memory (err). */
static struct m *machine_here(int *err)
{
    struct m *m = m_self();
    *err = fork_child_ready();
    if (unlikely(*err != 0)) {
        if (m != NULL)
            store_rlx(&m->in_runtime, 0); /* rlx: in this child nobody looks but we */
        return NULL;
    }
    /* A thread of ours may come after the end, if it was not waited for any longer: rt_own or rt_leave sends it home. acq: sees what
     * start wrote. rlx: our own */
    if (likely(m != NULL && m->run == sched.run && (!m->foreign || load_acq(&sched.running) != 0 || load_rlx(&m->away) != 0))) {
        store_seq(&m->in_runtime, 1);
        return m;
    }
    if (m != NULL && !m->foreign)
        return NULL;
    struct m *had = m;
    *err = m_attach(&m);
    if (*err == 0)
        return m;
    if (had != NULL)
        store_rel(&had->in_runtime, 0); /* rel: acq in hosts_outside */
    return NULL;
}

void rt_own(struct m *m)
{
    for (;;) {
        uint32_t s = load_acq(&m->pstate); /* acq: sees m->p; rel in p_take, m_own */
        if (s == M_OWNED)
            return;
        if (s == M_FENCED) {
            fence_seq(); /* in_runtime = 1 before this look; the taker's fence is between its two as well */
            if (load_acq(&m->pstate) == M_FENCED)
                return;
            continue;
        }
        if (s == M_TAKING) {
            cpu_relax();
            continue;
        }
        if (unlikely(m->blocking))
            w_fatal("a weft function was called between weft_blocking_begin and weft_blocking_end");
        if (load_acq(&sched.stopping) != 0) {
            world_stop_here(m);
            continue;
        }
        if (load_acq(&sched.ending) != 0 && !m->foreign)
            runtime_leave_fiber(m);
        lock_take(&sched.lock);
        /* A stop that ended just now may have given our P back. */
        struct p *p = load_acq(&m->pstate) == M_GONE ? p_idle_get() : NULL;
        if (p != NULL)
            m_own(m, p);
        bool again = p == NULL && load_acq(&m->pstate) != M_GONE;
        bool stopping = load_rlx(&sched.stopping) != 0; /* rlx: under the lock */
        lock_drop(&sched.lock);
        if (p != NULL)
            PROBE(fiber_run, m->cur, m, 0);
        if (p == NULL && !stopping && !again)
            proc_wait_in_place(m, m->cur);
    }
}

struct m *rt_enter_slow(void)
{
    int err;
    struct m *m = machine_here(&err);
    if (m == NULL) {
        if (err == -ENOMEM)
            w_fatal("no memory to attach a thread of the host");
        not_running();
    }
    rt_own(m);
    return m;
}

struct m *rt_enter_try(void)
{
    int err;
    struct m *m = machine_here(&err);
    if (m != NULL)
        rt_own(m);
    return m;
}

/* Between the two calls the thread is in user code, but what it held when it left is all it may use of the heap; so it is scanned as if it were
 * parked where it left. The scan begins at the caller's frame and takes the callee-saved registers from a copy. weft_blocking_begin itself, which
 * saves them, is written in assembly (os/arch): a frame of ours might keep one of them, and the next call overwrites that frame. */
void blocking_leave(const struct arch_frame *fr);
void blocking_leave(const struct arch_frame *fr)
{
    struct m *m = rt_enter();
    struct fiber *f = m->cur;
    f->sp = (void *)(fr + 1);
    m->block_frame = *fr;
    m->blocked = f;
    __atomic_store_n(&m->blocking, true, __ATOMIC_RELAXED); /* rlx: others count, as with cur below */
    f->why = WAIT_BLOCKING;
    f->since_ns = load_rlx(&sched.coarse_ns); /* rlx: for show */
    struct p *p = m_disown(m);
    store_rel(&f->state, FIBER_WAITING); /* rel: publishes sp and frame */
    __atomic_store_n(&m->cur, NULL, __ATOMIC_RELEASE);
    proc_handoff(p);
    store_rel(&m->in_runtime, 0); /* rel: as in rt_leave. Without a P and a current fiber nobody waits for us */
}

void weft_blocking_end(void)
{
    struct m *m = m_self();
    if (m == NULL || !m->blocking)
        w_fatal("weft_blocking_end without weft_blocking_begin on this thread");
    if (fork_child_ready() != 0)
        not_running();
    store_seq(&m->in_runtime, 1);
    struct fiber *f = m->blocked;
    bool over = m->foreign && (m->run != sched.run || load_acq(&sched.running) == 0); /* the runtime has ended meanwhile; acq: as in machine_here */
    /* A stop does not wait for us before we have a processor, so till then we remain what it scans: parked where we left. */
    while (!over && !m_has_p(m)) {
        if (load_acq(&sched.stopping) != 0)
            world_stop_here(m);
        else if (load_acq(&sched.ending) != 0 && !m->foreign)
            runtime_leave_fiber(m);
        else if (!m_get_idle(m))
            proc_wait_in_place(m, f);
    }
    __atomic_store_n(&m->blocking, false, __ATOMIC_RELAXED);
    if (!over)
        PROBE(fiber_run, f, m, 0);
    __atomic_store_n(&m->cur, f, __ATOMIC_RELAXED);
    fiber_runs(f);
    f->why = WAIT_NONE; /* only now: a dump that has it pinned goes by why, as sp is no context */
    rt_leave(m);
}

void rt_leave_slow(struct m *m)
{
    if (load_rlx(&m->poll) & POLL_SEEDED) /* rlx: fixed */
        seed_preempt(m);
    for (;;) {
        uint32_t poll = load_acq(&m->poll);
        if ((poll & POLL_END) && !m->foreign) {
            store_seq(&m->in_runtime, 1);
            runtime_leave_fiber(m);
        }
        if (load_acq(&m->poll) & POLL_STOP) {
            store_seq(&m->in_runtime, 1);
            if (load_acq(&sched.stopping) != 0)
                world_stop_here(m);
            else
                cpu_relax(); /* the stop is over, poll has just been cleared */
            store_seq(&m->in_runtime, 0);
            continue;
        }
        if (poll & POLL_HANDOFF) /* the monitor has come too often when we were inside: we give up what it could not take */
            and_acq_rel(&m->poll, ~(uint32_t)POLL_HANDOFF);
        if ((poll & (POLL_FOREIGN | POLL_HANDOFF)) && load_rlx(&m->pstate) != M_GONE) { /* rlx: looked at again, inside */
            store_seq(&m->in_runtime, 1);
            if (m_has_p(m)) {
                lock_take(&sched.lock);
                bool stop = load_rlx(&sched.stopping) != 0; /* rlx: under the lock */
                lock_drop(&sched.lock);
                if (!stop) {
                    if (poll & POLL_HANDOFF)
                        add_rlx(&m->p->handoffs, 1); /* rlx: counter */
                    proc_handoff(m_disown(m));
                }
            }
            store_seq(&m->in_runtime, 0);
            continue;
        }
        return;
    }
}
