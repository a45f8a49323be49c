/* The monitor: a thread that holds no P, runs no fiber, and looks after those that do.
 *
 * [HANDOFF]. A fiber in user code cannot be preempted: it may be anywhere, inside malloc for instance. But its processor can be taken away ([ENTRY])
 * and given to another machine; the fiber goes on where it was, on its own thread, scheduled by the kernel, and queues for a processor at its next
 * call into weft. The monitor does that to a machine whose processor has made no scheduling step
 *      for 10 ms; or
 *      between two looks of the monitor, if the thread has used no CPU time between them: it sleeps in the kernel (a blocking read, a foreign mutex).
 * A fiber that calls weft again and again without ever waiting is inside nearly whenever the monitor looks; it is told to give its processor up
 * itself when it leaves (POLL_HANDOFF), and goes on without in the same way.
 * Only where somebody gains: the queue of that processor, or the global one, has work, or no other processor is idle or searching to serve timers
 * and descriptors.
 *
 * It also: finds a machine for work that has none, since no thread could be made; polls descriptors that nobody polled for 10 ms; wakes a machine for
 * timers that are overdue because all were busy; starts threads for tainted threads, and helpers of parallel marking; forces a collection after two
 * minutes without; looks whether the number of processors is still right (maxprocs.c); keeps the coarse clock; writes schedtrace's lines.
 *
 * It looks every 20 us while it finds something to do; after a millisecond without it sleeps twice as long each time, up to 10 ms. Once it has come
 * there and all processors idle, it sleeps without a time-out, until one is taken up: an idle program has no ticking thread. Not before: a server's
 * processors idle for moments thousands of times a second, and each would be ended by a wake-up of the monitor on the way of the request that ends
 * it. Nor while a fiber goes on without a processor and the host has asked to be told when it does so for too long (slowfiber): it is our looks by
 * which that is seen. */
#include "sched/sysmon.h"
#include "sched/guard.h"
#include "sched/machine.h"
#include "sched/maxprocs.h"
#include "sched/mutator.h"
#include "sched/runq.h"
#include "sched/schedtrace.h"
#include "sched/service.h"
#include "sched/world.h"
#include "base/fail.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/procself.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>

#define SLICE_NS 10000000
#define DELAY_MIN_NS INT64_C(20000)
#define DELAY_MAX_NS INT64_C(10000000)
#define ASLEEP_NS 100000000
#define IDLE_LOOK_NS INT64_C(60000000000) /* also an idle program is collected when it is time */
#define STRANDED_NS 1000000000

static struct {
    pthread_t thread;
    w_u32 word;        /* futex: 1 asked to look */
    w_u32 asleep;      /* sleeps without a time-out */
    struct lock work;  /* RANK_MONITOR: held while it looks after others, but not while it makes threads, which may take its time */
    struct lock lock;  /* RANK_LEAF: asked */
    struct m *asked;   /* threads to start, linked by idle_next */
    bool closed;       /* it has ended; under lock */
    w_u32 nasked;      /* under lock; read relaxed as a hint */
    w_uptr call;       /* sysmon_call's; 0: none */
    w_u32 helpers;     /* of parallel marking: so many are wanted; 0: as many as there are */
    w_u32 spares;      /* 1: threads are to be made until GUARD_SPARES sleep */
} sysmon;

static void sysmon_poke(void)
{
    store_seq(&sysmon.word, 1);
    os_futex_wake(&sysmon.word, 1);
}

void sysmon_wake(void)
{
    if (load_seq(&sysmon.asleep) != 0)
        sysmon_poke();
}

void sysmon_start_thread(struct m *m)
{
    lock_take(&sysmon.lock);
    if (sysmon.closed) { /* the runtime ends: m would end at once */
        lock_drop(&sysmon.lock);
        m_give_up(m);
        return;
    }
    m->idle_next = sysmon.asked;
    sysmon.asked = m;
    store_seq(&sysmon.nasked, load_rlx(&sysmon.nasked) + 1); /* rlx: under the lock */
    lock_drop(&sysmon.lock);
    sysmon_poke();
}

void sysmon_start_helpers(unsigned want)
{
    store_seq(&sysmon.helpers, want);
    sysmon_poke();
}

void sysmon_call(void (*fn)(void))
{
    store_seq(&sysmon.call, (uintptr_t)fn);
    sysmon_poke();
}

void sysmon_want_spares(void)
{
    store_seq(&sysmon.spares, 1); /* seq: as helpers */
    sysmon_poke();
}

/* One at each look: until it has looked for work itself it is not among those that sleep. Where no processor idles it waits for a later look. */
static bool start_spare(void)
{
    if (load_seq(&sysmon.spares) == 0)
        return false;
    store_seq(&sysmon.spares, 0); /* seq: before the count, or a wish that comes now would be lost */
    int made = m_spare_start(GUARD_SPARES);
    if (made != 0)
        store_seq(&sysmon.spares, 1);
    return made > 0;
}

static bool start_asked(void)
{
    if (load_seq(&sysmon.call) != 0 && load_acq(&sched.ending) == 0) { /* seq, as below */
        void (*fn)(void) = (void (*)(void))xchg_acq(&sysmon.call, 0);
        fn();
    }
    uint32_t helpers = load_seq(&sysmon.helpers); /* seq, as below: after word = 0; who asks stores this before it pokes */
    if (helpers != 0) {
        store_rlx(&sysmon.helpers, 0); /* rlx: a larger wish that is lost comes again with the next collection */
        world_helpers_prepare(helpers);
    }
    bool did = start_spare();
    if (load_seq(&sysmon.nasked) == 0)
        return did;
    lock_take(&sysmon.lock);
    struct m *m = sysmon.asked;
    sysmon.asked = NULL;
    store_rlx(&sysmon.nasked, 0); /* rlx: under the lock */
    lock_drop(&sysmon.lock);
    while (m != NULL) {
        struct m *next = m->idle_next;
        m_start_or_give_up(m);
        m = next;
    }
    return true;
}

/* Would anybody gain if p moved? */
static bool wanted(struct p *p)
{
    return !runq_empty(p) || load_rlx(&sched.global_len) != 0 || procs_all_busy(); /* rlx: hint */
}

/* The thread has used no CPU time since the last look, and that is not for want of a CPU. */
static bool sleeps(struct p *p, struct m *m, uint64_t tick)
{
    int tid = __atomic_load_n(&m->tid, __ATOMIC_RELAXED); /* rlx: 0 while the thread starts, which is our own clock, and that moves */
    int64_t cpu = os_thread_cpu_ns(tid);
    bool same = p->sys_cpu_tick == tick && p->sys_cpu_ns == cpu && cpu > 0;
    p->sys_cpu_ns = cpu;
    p->sys_cpu_tick = tick;
    return same && os_thread_sleeps(tid);
}

static bool retake(struct p *p, int64_t now)
{
    uint64_t tick = load_rlx(&p->tick); /* rlx: see p_tick */
    if (load_rlx(&p->sys_tick) != tick) { /* rlx: only we write it */
        store_rlx(&p->sys_tick, tick);
        p->sys_when_ns = now;
        return false;
    }
    struct m *m = load_acq(&p->owner); /* acq: sees what m was made of; rel in m_own. Machines are never freed while we run */
    if (m == NULL || m->foreign || !wanted(p))
        return false;
    int64_t ran = now - p->sys_when_ns;
    bool inside = load_rlx(&m->in_runtime) != 0; /* rlx: p_take looks again */
    if (ran < SLICE_NS && (inside || !sleeps(p, m, tick)))
        return false;
    struct p *taken = NULL;
    /* Not lock_take: a stopper holds it till every machine with a processor has come, and there may be one whose thread only we can start. */
    if (!inside && lock_try(&sched.take_lock)) {
        if (load_rlx(&sched.stopping) == 0 && load_rlx(&p->owner) == m) /* rlx: a stopper holds take_lock while it takes */
            taken = p_take(m);
        lock_drop(&sched.take_lock);
    }
    if (taken == NULL) {
        if (ran >= SLICE_NS)
            or_acq_rel(&m->poll, POLL_HANDOFF); /* it may have another P by now, and give up that: no harm */
        return false;
    }
    add_rlx(&taken->handoffs, 1); /* rlx: counter */
    PROBE(proc_handoff, taken->id, m->id, ran);
    proc_handoff(taken);
    return true;
}

/* ---- what is looked at --------------------------------------------------------------------------------------- */

/* All processors idle, though there is work. So it is for a moment on the way of each wake-up, and for good if the machine that was to do it got no
 * memory or no thread. */
static bool stranded(void)
{
    if (load_seq(&sched.nidle_p) != nprocs() || load_seq(&sched.ending) != 0)
        return false;
    for (uint32_t i = 0; i < nprocs(); i++)
        if (!runq_empty(sched.allp[i]))
            return true;
    return load_rlx(&sched.global_len) != 0; /* rlx: hint; looked at again and again */
}

/* Tries again, as a limit may be one for the moment. Time in which we did not look does not count: a process that was stopped in the middle of a
 * wake-up goes on with it. */
static bool rescue(int64_t now, int64_t *stranded_ns)
{
    if (!stranded()) {
        *stranded_ns = 0;
        return false;
    }
    *stranded_ns += w_min(now - load_rlx(&sched.coarse_ns), DELAY_MAX_NS); /* rlx: ours, from the last look */
    if (*stranded_ns > STRANDED_NS)
        w_fatal("cannot make a thread: fibers can run, and for a second there was no memory or no thread for them; raise the limit of "
                "processes (ulimit -u), of address space or of memory");
    proc_wake_slow();
    return true;
}

/* [SEED]: not by our clock, so then no collection is due by time. */
static bool collection_due(int64_t now) { return load_rlx(&seed_on) == 0 && gc_period_over(now); } /* rlx: see seed_on */

static bool look_after(int64_t now, int64_t *polled, int64_t *stranded_ns)
{
    bool did = rescue(now, stranded_ns);
    store_rlx(&sched.coarse_ns, now); /* rlx: for show */
    if (schedtrace_every_ns() != 0)
        schedtrace_look(now);
    if (load_rlx(&seed_on) != 0) /* rlx: see seed_on. [SEED]: not by our clock */
        return did;
    if (load_rlx(&sched.poll_until_ns) != 0) /* rlx: hint */
        *polled = now;
    if (netpoll_waiters() != 0 && now - *polled > SLICE_NS) {
        *polled = now;
        struct fiber *list = netpoll(0);
        if (list != NULL) {
            inject_fibers(NULL, list);
            did = true;
        }
    }
    if (timers_next() < now - SLICE_NS / 10 && load_rlx(&sched.nidle_p) != 0) { /* rlx: hint */
        proc_wake_slow();
        did = true;
    }
    for (uint32_t i = 0; i < nprocs(); i++) {
        struct p *p = sched.allp[i];
        if (load_rlx(&p->status) == P_RUNNING && retake(p, now)) /* rlx: hint */
            did = true;
    }
    PROBE(monitor_look, now, 0, 0);
    if (collection_due(now))
        mutator_force_gc();
    maxprocs_look(now);
    return did;
}

static bool look(int64_t now, int64_t *polled, int64_t *stranded_ns)
{
    bool did = start_asked();
    if (!lock_try(&sysmon.work)) /* a fork is under way. Not waited for: who forks may wait for a thread that only we can start */
        return did;
    did |= look_after(now, polled, stranded_ns);
    lock_drop(&sysmon.work);
    return did;
}

void sysmon_hold(void) { lock_take(&sysmon.work); }
void sysmon_let_go(void) { lock_drop(&sysmon.work); }

/* A fiber that has lost its processor goes on. None begins to while we sleep: that is when we take one, or tell it to give it up. */
static bool computes_timed(void)
{
    if (sched.cfg.slowfiber == 0)
        return false;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees *m; rel in m_publish_locked */
        if (load_acq(&m->dead) == M_ALIVE && !m->foreign && __atomic_load_n(&m->cur, __ATOMIC_RELAXED) != NULL) /* rlx: looked at again and again */
            return true;
    return false;
}

/* Nothing runs and nothing will by itself: no need to look. */
static bool all_idle(void)
{
    return schedtrace_every_ns() == 0 && load_seq(&sched.nidle_p) == nprocs() && load_rlx(&sysmon.nasked) == 0 && load_rlx(&sysmon.helpers) == 0 &&
           load_rlx(&sysmon.spares) == 0 &&
           load_seq(&sched.ending) == 0 && !stranded() && !computes_timed(); /* rlx: who asks pokes us */
}

static bool all_asleep(void)
{
    lock_take(&sched.lock);
    bool asleep = sched.nactive == 0;
    lock_drop(&sched.lock);
    return asleep;
}

/* When the last machine fell asleep there may have been a thread of the host that has ended since: look again for the deadlock. */
static void idle_look(int waited)
{
    if (waited != -ETIMEDOUT)
        return;
    lock_take(&sched.lock);
    if (sched.nactive == 0)
        runtime_idle_locked();
    else
        lock_drop(&sched.lock);
}

static int64_t idle_look_ns(void) { return load_rlx(&seed_on) != 0 ? IDLE_LOOK_NS : w_min(IDLE_LOOK_NS, gc_period_ns); } /* rlx: see seed_on */

static void *sysmon_main(void *arg)
{
    (void)arg;
    pthread_setname_np(pthread_self(), "weft-sysmon");
    struct service *s = service_begin(SERVICE_MONITOR);
    int64_t delay = DELAY_MIN_NS, polled = 0, stranded_ns = 0;
    unsigned quiet = 0;
    while (load_acq(&sched.ending) == 0) {
        if (delay == DELAY_MAX_NS && all_idle() && !collection_due(os_now_ns())) {
            store_seq(&sysmon.asleep, 1); /* seq: before the second look; sysmon_wake's caller changes nidle_p before it looks at asleep */
            while (all_idle() && load_seq(&sysmon.word) == 0 && !collection_due(os_now_ns()))
                idle_look(os_futex_wait(&sysmon.word, 0, all_asleep() ? ASLEEP_NS : idle_look_ns()));
            store_seq(&sysmon.asleep, 0);
        } else {
            os_futex_wait(&sysmon.word, 0, schedtrace_every_ns() != 0 ? w_min(delay, schedtrace_every_ns()) : delay);
        }
        store_seq(&sysmon.word, 0); /* seq: before the look, or a poke in between would be lost */
        service_look(s);
        if (look(os_now_ns(), &polled, &stranded_ns)) {
            quiet = 0;
            delay = DELAY_MIN_NS;
        } else if (++quiet > 50) {
            delay = w_min(delay * 2, DELAY_MAX_NS);
        }
    }
    lock_take(&sysmon.lock);
    sysmon.closed = true;
    lock_drop(&sysmon.lock);
    start_asked();
    service_end(s);
    return NULL;
}

int sysmon_start(void)
{
    memset(&sysmon, 0, sizeof sysmon);
    if (schedtrace_every_ns() != 0 && schedtrace_start() != 0)
        return -ENOMEM;
    lock_init(&sysmon.work, RANK_MONITOR);
    lock_init(&sysmon.lock, RANK_LEAF);
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV); /* as in world.c, helpers_start */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256u << 10);
    int err = fail_now(FAIL_THREAD) ? EAGAIN : pthread_create(&sysmon.thread, &attr, sysmon_main, NULL);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err != 0 && schedtrace_every_ns() != 0)
        schedtrace_end();
    return -err;
}

void sysmon_end(void)
{
    sysmon_poke();
    pthread_join(sysmon.thread, NULL);
    if (schedtrace_every_ns() != 0)
        schedtrace_end();
}
