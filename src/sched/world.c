/* Stopping the world.
 *
 * [STW]. Two things can be stopped: the processors, that is everything that happens inside weft, and the threads, that is every store the program may
 * do. Statistics need the first, collections both.
 *
 *   1. One stopper at a time: `owner`. Who wants to stop while another does stands still for that one first. A fork is one, too: see fork.c.
 *   2. stopping = 1; POLL_STOP in every machine's poll; then sched.lock once, after which no idle P is taken up (see machine.c); then a membarrier.
 *   3. Idle Ps are stopped by being idle: nobody gets one. Each machine with a P is either
 *        in user code: its P is taken (p_take) and kept in m->taken; or
 *        inside: it stands still by itself when it leaves, parks, or looks for work (world_stop_here), with its P in hand. It is waited for, and woken
 *        if it naps (world_nap).
 *      A machine may have given its P up, or sysmon taken one, and not have put it away yet (proc_handoff): that is waited for as well, since until
 *      then it may be at work on queues and timers.
 *   4. If threads are to stop: each machine with a current fiber that is in user code gets the stop signal. The handler, on the alternate stack,
 *      publishes the interrupted registers and stack pointer, acknowledges, and sleeps. A handler that finds its machine inside the runtime does
 *      nothing: the machine will stand still when it leaves, since poll is set. Machines without a P that come in wait in rt_own, and acknowledge
 *      there.
 *      If all other Ps idle and threads go on (statistics of a program that waits), there is nothing to do: who has no P gets none.
 *   5. start: taken Ps are given back where they came from (their machines need not even notice), poll is cleared, stopping = 0, gate is opened.
 *
 * An acknowledgement carries the number of the stop, so that a late one does not count for the next. Threads asleep between weft_blocking_begin and
 * _end, parked in place, or idle have no current fiber and are not disturbed.
 *
 * While threads are stopped nothing here may take a lock of libc or the loader, since a stopped thread may hold it: no malloc, stdio, dlopen,
 * pthread_create. So the helpers of parallel marking are started before the stop; or whenever it likes by the monitor, which may wait for such a lock
 * in a stop, as nobody waits for it. A new thread may want such a lock too before it comes to our code (thread-local storage of modules; a sanitizer,
 * which keeps book of threads): only helpers that have said that they are here get work in a stop.
 *
 * [HELPERS] The system likes to wake a thread on the CPU of who wakes it, also where another one has nothing to do because its thread has just been
 * stopped: then two workers of a mark had one CPU between them, and the other one slept, in half of the stops. So a helper may not use the CPU of
 * who wakes it while it is woken; once it has a place it may go anywhere again, or it would wait for the CPU where it is, which another process may
 * keep busy, while ours has nothing to do.
 *
 * The whole argument rests on the same pairs as [ENTRY]: (in_runtime = 0; look at poll) against (poll |= STOP; membarrier; look at in_runtime). */
#include "sched/world.h"
#include "sched/leaked.h"
#include "sched/machine.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/service.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/sysmon.h"
#include "base/backoff.h"
#include "base/fail.h"
#include "base/syscall.h"
#include "os/affinity.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/loader.h"
#include "os/signal.h"
#include <errno.h>
#include <linux/membarrier.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LATE_NS 10000000
#define HUNG_LATE 100 /* so often late is a second */

struct helper {
    pthread_t thread;
    w_u32 word;   /* futex: 0 idle, 1 work, 2 end */
    w_u32 here;   /* it has come to wait for word. rel: publishes tid; acq in helpers_here */
    int tid;
    unsigned index;
};

static struct {
    w_u32 owner;       /* 1 while somebody stops the world or forks */
    w_u32 gate;        /* futex: number of the stop that is wanted or comes next; grows at each start and is never 0, which machines start with */
    w_u32 event;       /* futex: bumped at each acknowledgement */
    w_u32 napping;     /* in world_nap, asleep on sched.stopping */
    /* the owner's */
    bool threads;
    bool alone;        /* nobody else had a processor, and threads go on: nothing was to be done */
    uint32_t event_before;
    int reason;
    int64_t decided_ns;
    struct m *all;     /* the machines that this stop is about: what the list began with when `stopping` was set. Ones that attach meanwhile are put
                          in front */
    struct m *late;    /* the first one that was waited for too long */
    bool late_inside;
    weft_stop_stats stats[WEFT_STOP_REASONS]; /* written by the owner; read racily, each word by itself */
    struct timehist stopping[WEFT_STOP_REASONS], stopped[WEFT_STOP_REASONS]; /* the same in other buckets */
    struct lock helpers_lock; /* RANK_LEAF: who starts helpers */
    struct helper helpers[WORLD_WORKERS_MAX - 1];
    w_u32 nhelpers;    /* grows under helpers_lock, rel: publishes the helper; acq in world_helpers */
    /* work of the helpers */
    void (*fn)(void *arg, unsigned i, unsigned n);
    void *arg;
    unsigned nwork;
    w_u32 left;        /* futex: helpers still at work */
} world;

static const char *const reason_text[WEFT_STOP_REASONS] = { "GC", "read mem stats", "GOMAXPROCS", "all stacks", "fork", "end", "start trace" };

/* ---- the expensive half of [ENTRY] -------------------------------------------------------------------- */

void world_fence(void)
{
    if (sched.fenced) {
        fence_seq();
        return;
    }
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

static bool membarrier_ready(void)
{
    int err = errno;
    bool ok = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
    errno = err;
    return ok;
}

/* ---- standing still ------------------------------------------------------------------------------------- */

static void acknowledge(struct m *m, uint32_t stop)
{
    store_rel(&m->stop_ack, stop); /* rel: publishes stop_sp and all that we did; acq in acked */
    add_seq(&world.event, 1);
    os_futex_wake(&world.event, 1);
}

static void stand_still_once(struct m *m, uint32_t stop)
{
    acknowledge(m, stop);
    /* acq: sees what the stopper did; rel in world_start. seq: after event was bumped; world_start opens the gate before it looks at event */
    while (load_seq(&world.gate) == stop)
        os_futex_wait(&world.gate, stop, -1);
}

static void stand_still(void *arg)
{
    while (load_acq(&sched.stopping) != 0) {
        uint32_t stop = load_acq(&world.gate);
        if (load_acq(&sched.stopping) == 0)
            return;
        stand_still_once(arg, stop);
    }
}

/* From user code, for this stop only: somebody inside may still want a lock of libc that we hold before the next one may stop us, and that one sends
 * a signal of its own. */
static void stand_still_signalled(void *arg)
{
    struct m *m = arg;
    stand_still_once(m, load_rlx(&m->stop_sent)); /* rlx: as looked at in stop_signal */
}

void world_stop_here(struct m *m)
{
    m->stop_regs_lo = m->stop_regs_hi = NULL;
    weft_arch_call_saved(&m->stop_sp, stand_still, m);
}

/* We are in the handler of the stop signal. On the stack for handlers there may be more above our context: that of a handler of the host which it
 * interrupted, and what this one had interrupted in its turn. */
static void stand_still_here(struct m *m, ucontext_t *uc)
{
    uintptr_t lo = (uintptr_t)uc->uc_stack.ss_sp, hi = lo + uc->uc_stack.ss_size, at = (uintptr_t)uc;
#ifdef W_TSAN
    /* TSan puts a handler off to the next call it knows and calls it there, on the stack of that call, with a copy of a context that is out of
     * date. */
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (at - here > 1u << 16) {
        bool nested = lo <= here && here < hi;
        m->stop_regs_lo = nested ? (void *)here : NULL;
        m->stop_regs_hi = nested ? (void *)hi : NULL;
        weft_arch_call_saved(&m->stop_sp, stand_still_signalled, m);
        return;
    }
#endif
    uintptr_t sp = arch_uc_sp(uc) - ARCH_RED_ZONE;
    m->stop_sp = lo <= sp && sp < hi ? NULL : (void *)sp; /* NULL: where the thread's own stack was left nobody knows, so all of it is scanned */
    m->stop_regs_lo = uc;
    m->stop_regs_hi = lo <= at && at < hi ? (void *)hi : arch_uc_end(uc);
    stand_still_signalled(m);
}

/* Real-time signals queue, so each counts; of others one stands for all that were sent till then. */
static bool take_signalled(struct m *m, int sig)
{
    if (sig < SIGRTMIN)
        return xchg_acq_rel(&m->signalled, 0) != 0; /* acq: sees stop_sent; rel in send_signal */
    bool ours = load_acq(&m->signalled) != 0; /* acq: as above. Only we make it smaller */
    if (ours)
        sub_acq_rel(&m->signalled, 1);
    return ours;
}

/* On the alternate stack, of a thread that the stop signal interrupted; if that stack is the host's and a handler of its own is running there,
 * below that one. What the signal says of its sender does not tell whose it is: the host may send the same to its threads, and of two that are
 * pending the second vanishes. So `signalled` says whether we have sent one, and whether to stand still does not depend on it. */
static enum signal_whose stop_signal(int sig, siginfo_t *info, void *ctx)
{
    struct m *m = m_self();
    if (m == NULL) /* one of ours may come when the thread has detached already: then its default must not end the program */
        return info->si_code == SI_TKILL && info->si_pid == getpid() ? SIGNAL_BOTH : SIGNAL_HOSTS;
    bool ours = take_signalled(m, sig);
    if (ours && sched_reports.interrupted != NULL)
        sched_reports.interrupted(m, ctx);
    /* rlx: what it looks at has orders of its own */
    void (*watched)(struct m *m, const ucontext_t *uc) = __atomic_load_n(&sched_reports.watched, __ATOMIC_RELAXED);
    if (ours && watched != NULL)
        watched(m, ctx);
    /* One that came for another reason or too late does not count: that a thread stands still, perhaps in malloc, is for the stopper to say, when
     * nobody inside needs malloc any more. rlx: our own thread's store; and a stopper whose store of stop_sent we miss has not signalled yet. */
    if (load_rlx(&m->in_runtime) == 0 && load_acq(&sched.stopping) != 0 && load_rlx(&m->stop_sent) == load_acq(&world.gate))
        stand_still_here(m, ctx);
    return !ours ? SIGNAL_HOSTS : sig < SIGRTMIN ? SIGNAL_BOTH : SIGNAL_OURS;
}

static int send_signal(struct m *m)
{
    int err = errno;
    int tid = __atomic_load_n(&m->tid, __ATOMIC_RELAXED); /* rlx: to a profile's helper it may be that of the machine's next thread, which was not asked */
    add_acq_rel(&m->signalled, 1); /* rel: publishes stop_sent; acq in take_signalled */
    int r = syscall(SYS_tgkill, getpid(), tid, sched.stop_signal) == 0 ? 0 : -errno;
    errno = err;
    return r;
}

int world_interrupt(struct m *m) { return send_signal(m); }

/* ---- stopping --------------------------------------------------------------------------------------------- */

static bool acked(struct m *m) { return load_acq(&m->stop_ack) == load_rlx(&world.gate); } /* rlx: only we open the gate */

uint32_t world_missing(void)
{
    uint32_t n = 0;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees the machine; rel in m_publish_locked */
        n += load_acq(&m->dead) == M_ALIVE && load_acq(&m->pstate) != M_GONE && !acked(m); /* acq: as above; with m_own, m_disown */
    return n > 0 ? n - 1 : 0; /* one of them is the stopper */
}

static void take_ownership(struct m *m)
{
    bool known = m != NULL && load_acq(&m->dead) == M_ALIVE; /* acq: as in scan_machine. Else a thread of the host that forks */
    for (unsigned looks = 0; !cas_acq_rel(&world.owner, 0, 1);) { /* acq: sees the last stop's end; rel in world_start */
        if (known && load_acq(&sched.stopping) != 0) {
            world_stop_here(m);
            looks = 0;
        } else {
            backoff(looks++); /* a stop begins or ends, or a fork is under way */
        }
    }
}

/* P of m is not running any more, or is taken now. */
static bool p_stopped(struct m *m)
{
    uint32_t s = load_acq(&m->pstate); /* acq: with m_own, m_disown */
    if (s == M_GONE || acked(m))
        return true;
    struct p *p = p_borrow(m);
    if (p == NULL)
        return false;
    m->taken = p;
    return true;
}

static void send_stop(struct m *m)
{
    store_rlx(&m->stop_sent, load_rlx(&world.gate)); /* rlx: send_signal publishes it; only we open the gate */
    if (send_signal(m) == -ESRCH)
        store_seq(&m->dead, M_VANISHED); /* a thread of the host that ended without a word */
}

/* The thread of m cannot touch the heap any more; asks it to stop, once, if it is in user code. */
static bool thread_stopped(struct m *m)
{
    if (load_acq(&m->dead) != 0 || __atomic_load_n(&m->cur, __ATOMIC_ACQUIRE) == NULL || acked(m))
        return true;
    if (load_acq(&m->in_runtime) == 0 && load_rlx(&m->stop_sent) != load_rlx(&world.gate)) /* rlx: only we write both */
        send_stop(m);
    return false;
}

/* Each P is with a machine that stands still, is kept by us, or idles. */
static bool procs_at_rest(struct m *self)
{
    lock_take(&sched.lock);
    uint32_t n = load_rlx(&sched.nidle_p); /* rlx: under the lock */
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        n += m->taken != NULL || (load_acq(&m->pstate) != M_GONE && (m == self || load_acq(&m->dead) == M_ALIVE));
    lock_drop(&sched.lock);
    return n == nprocs();
}

/* m is late for the n-th time. Nothing may be logged while threads are stopped, since the host's log may need what one of them holds; a line of ours
 * to stderr may. */
static void late(struct m *m, bool (*done)(struct m *), int64_t n)
{
    if (world.late == NULL) {
        world.late = m;
        world.late_inside = load_acq(&m->in_runtime) != 0;
    }
    PROBE(world_late, m, n * LATE_NS, load_acq(&m->in_runtime) != 0);
    if (done == thread_stopped && load_acq(&m->in_runtime) == 0) {
        if (n > 1)
            signal_to_front(sched.stop_signal); /* the host's handler may keep it to itself */
        send_stop(m); /* again: a sigwait or signalfd of the host's may have taken the first one */
    }
    if (n == HUNG_LATE && sched.cfg.log == NULL)
        sched_logf("weft: a stop of the world (%s) has waited for a second for thread %d%s: %s", reason_text[world.reason], m->tid,
                   m->foreign ? " of the host" : "",
                   load_acq(&m->in_runtime) != 0 ? "inside the runtime" : "in user code, not scheduled or with the stop signal blocked");
}

static void wait_for(struct m *m, bool (*done)(struct m *))
{
    int64_t times = 0, since_ns = 0;
    for (unsigned spins = 0;; spins++) {
        uint32_t e = load_acq(&world.event);
        if (done(m))
            return;
        if (spins < 200) {
            cpu_relax();
            continue;
        }
        os_futex_wait(&world.event, e, 1000000);
        int64_t now_ns = os_now_ns();
        if (since_ns == 0)
            since_ns = now_ns;
        if (now_ns - since_ns > (times + 1) * LATE_NS)
            late(m, done, ++times);
    }
}

static void count(uint64_t *total, uint64_t *max, uint64_t *buckets, int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    *total += v;
    *max = w_max(*max, v);
    unsigned b = v < 2 ? 0 : 63u - (unsigned)__builtin_clzll(v);
    buckets[w_min(b, (unsigned)WEFT_STOP_BUCKETS - 1)]++;
}

static void stop_procs(struct m *self, struct m *all)
{
    for (struct m *m = all; m != NULL; m = m->all_next)
        or_acq_rel(&m->poll, POLL_STOP);
    world_fence();
    lock_take(&sched.take_lock);
    for (struct m *m = all; m != NULL; m = m->all_next)
        if (m != self && load_acq(&m->dead) == 0)
            wait_for(m, p_stopped);
    lock_drop(&sched.take_lock);
    for (unsigned looks = 0; !procs_at_rest(self); looks += 10) /* to look costs more than a pause */
        backoff(looks);
}

uint32_t world_stop_now(void)
{
    lock_check_held(&sched.lock);
    return load_rlx(&sched.stopping) != 0 ? load_rlx(&world.gate) : 0; /* rlx: stopping is cleared under the lock, before the gate opens */
}

void world_nap(void)
{
    add_seq(&world.napping, 1); /* seq: see world_stop */
    os_futex_wait(&sched.stopping, 0, NAP_NS);
    sub_rlx(&world.napping, 1); /* rlx: too high a number only wakes for nothing */
}

void world_stop(int reason, bool threads)
{
    struct m *self = m_self();
    int64_t decided = os_now_ns();
    take_ownership(self);
    world.threads = threads;
    world.reason = reason;
    world.decided_ns = decided;
    world.late = NULL;
    world.event_before = load_rlx(&world.event); /* rlx: of this stop nobody knows yet */
    PROBE(world_stop, reason, 0, 0);
    store_seq(&sched.stopping, 1);
    if (load_seq(&world.napping) != 0) /* seq: after stopping; who naps is counted before the kernel looks at that */
        os_futex_wake(&sched.stopping, INT_MAX);
    lock_take(&sched.lock); /* from here on no idle P is taken up */
    struct m *all = world.all = load_acq(&sched.all_m);
    world.alone = !threads && load_rlx(&sched.nidle_p) + (self != NULL && m_has_p(self)) == nprocs(); /* rlx: under the lock */
    cpu_clock_locked();
    sched.cpu_stop = reason == WEFT_STOP_GC ? CPU_COLLECTS : CPU_STOPPED;
    lock_drop(&sched.lock);
    if (!world.alone)
        stop_procs(self, all);
    if (threads)
        /* Those attached since then wait for a P with nothing of the heap in hand. */
        for (struct m *m = all; m != NULL; m = m->all_next)
            if (m != self)
                thread_stopped(m);
    if (threads)
        for (struct m *m = all; m != NULL; m = m->all_next)
            if (m != self)
                wait_for(m, thread_stopped);
    int64_t took = os_now_ns() - decided;
    weft_stop_stats *st = &world.stats[reason];
    st->count++;
    count(&st->stopping_total_ns, &st->stopping_max_ns, st->stopping, took);
    timehist_add(&world.stopping[reason], took, 1);
    PROBE(world_stopped, reason, took, 0);
}

/* Whoever had work for another machine during the stop found no idle P to be had (p_idle_get), and one that was to sleep in epoll did not
 * (poll_asleep). What they left undone shows here: sched.lock, under which `stopping` was cleared, orders it before this look, or lets them find a P
 * themselves. */
static bool wake_wanted(void)
{
    uint32_t n = nprocs();
    for (uint32_t i = 0; i < n; i++)
        if (!runq_empty(sched.allp[i]))
            return true;
    return load_seq(&sched.poll_until_ns) == 0 && (netpoll_waiters() != 0 || timers_next() != INT64_MAX); /* seq: as in poll_asleep */
}

int64_t world_start(void)
{
    struct m *self = m_self();
    int64_t took = os_now_ns() - world.decided_ns;
    weft_stop_stats *st = &world.stats[world.reason];
    count(&st->stopped_total_ns, &st->stopped_max_ns, st->stopped, took);
    timehist_add(&world.stopped[world.reason], took, 1);
    PROBE(world_start, world.reason, took, 0);
    lock_take(&sched.lock); /* rt_own looks under it whether it got its P back, else takes an idle one */
    cpu_clock_locked();
    sched.cpu_stop = CPU_RUNS;
    for (struct m *m = world.alone ? NULL : load_acq(&sched.all_m); m != NULL; m = m->all_next) {
        struct p *p = m->taken;
        m->taken = NULL;
        if (load_rlx(&m->dead) == M_VANISHED) /* rlx: set by us */
            store_rlx(&m->dead, M_DEAD); /* rlx: under the lock */
        if (p != NULL && m->foreign) { /* in user code it has no use for it */
            PROBE(proc_lost, p, m, 0);
            p_idle_put(p);
        } else if (p != NULL) {
            m_own(m, p);
        }
        and_acq_rel(&m->poll, ~(uint32_t)POLL_STOP);
    }
    store_seq(&sched.stopping, 0);
    lock_drop(&sched.lock);
    struct m *slow = world.late;
    bool inside = world.late_inside;
    int reason = world.reason;
    uint32_t next = load_rlx(&world.gate) + 1; /* rlx: only the owner writes it */
    store_seq(&world.gate, next != 0 ? next : 1); /* rel: publishes what was done in the stop; acq in stand_still */
    if (load_seq(&world.event) != world.event_before) /* seq: after the gate; who does not show here yet finds it open */
        os_futex_wake(&world.gate, INT_MAX);
    store_rel(&world.owner, 0); /* rel: acq in take_ownership */
    /* A warning is for those who listen; not in a handler of fork, where the host may hold anything. */
    if (slow != NULL && sched.cfg.log != NULL && reason != WEFT_STOP_FORK)
        sched_logf("weft: stop of the world (%s) took %ld us; thread %d%s was %s", reason_text[reason], (long)(took / 1000), slow->tid,
                   slow->foreign ? " of the host" : "",
                   inside ? "inside the runtime" : "in user code, not scheduled or with the stop signal blocked");
    if (self == NULL || load_rlx(&sched.global_len) != 0) /* rlx: hint */
        proc_wake_slow();
    else if (wake_wanted())
        proc_wake();
    return took;
}

/* ---- what a collection scans --------------------------------------------------------------------------------- */

/* owner: whose a range is stands there before it is scanned; NULL: nobody wants to know. caller: of him. */
struct scan { void (*range)(void *, const void *, const void *); void *marker; struct gc_owner *owner; const struct fiber *caller; };

static inline void owned(const struct scan *s, enum gc_root_kind kind, const struct fiber *f, int thread)
{
    if (unlikely(s->owner != NULL))
        *s->owner = (struct gc_owner){ .kind = kind, .fiber = f != NULL ? f->id : 0, .thread = thread, .caller = f != NULL && f == s->caller };
}

static void scan_defers(const struct scan *s, struct fiber *f)
{
    owned(s, GC_ROOT_ARGUMENT, f, 0);
    for (struct deferred *d = f->defers; d != NULL; d = d->next)
        s->range(s->marker, d, d + 1);
}

/* Stack from sp to the descriptor, and that too: it holds the argument. */
static void scan_stack_from(const struct scan *s, struct fiber *f, const void *sp)
{
    bool outside = (const char *)sp < f->stack_lo || (const char *)sp > f->stack_hi;
    const void *lo = outside ? f->stack_lo : sp; /* outside: a signal handler of the host, on the alternate stack */
    owned(s, GC_ROOT_STACK, f, f->flags & FIBER_THREAD ? f->bound->tid : 0);
    s->range(s->marker, lo, f->stack_hi);
    owned(s, GC_ROOT_ARGUMENT, f, 0);
    s->range(s->marker, f, f + 1);
    scan_defers(s, f);
}

void world_scan_parked(struct fiber *f, void (*range)(void *, const void *, const void *), void *marker)
{
    struct scan s = { .range = range, .marker = marker };
    scan_stack_from(&s, f, f->sp);
}

static void scan_fiber(struct fiber *f, void *arg)
{
    uint32_t state = load_rlx(&f->state); /* rlx: the world stands still */
    if ((state == FIBER_WAITING || state == FIBER_RUNNABLE) && !leaked_left_out_stw(f))
        scan_stack_from(arg, f, f->sp);
}

static void scan_task(struct task *t, void *arg)
{
    const struct scan *s = arg;
    owned(s, GC_ROOT_ARGUMENT, NULL, 0);
    if (unlikely(s->owner != NULL))
        s->owner->fiber = t->id;
    s->range(s->marker, &t->arg, &t->arg + 1);
    s->range(s->marker, &t->group, &t->group + 1);
}

/* A thread that attached during this stop has nothing of the heap: its stack was nobody's till then. What lies there of a thread before it says
 * nothing, and would be seen by one pass of a stop and not by another. */
static void scan_machine(const struct scan *s, struct m *m)
{
    if (load_acq(&m->dead) != M_ALIVE) /* acq: sees what was made of it, perhaps only just now, by a thread that attaches; rel in m_publish_locked */
        return;
    if (m->came_in == load_rlx(&world.gate)) /* rlx: only we write it */
        return;
    /* acq: as in thread_stopped. Who comes back from blocking may only just be parking again */
    struct fiber *f = __atomic_load_n(&m->cur, __ATOMIC_ACQUIRE);
    if (f != NULL && load_rlx(&f->state) == FIBER_RUNNING && acked(m)) { /* rlx: the world stands still */
        scan_stack_from(s, f, m->stop_sp);
        owned(s, GC_ROOT_REGISTERS, f, m->foreign ? m->tid : 0);
        if (m->stop_regs_lo != NULL)
            s->range(s->marker, m->stop_regs_lo, m->stop_regs_hi);
    }
    if (m->foreign)
        scan_fiber(&m->self, (void *)s);
    owned(s, GC_ROOT_REGISTERS, NULL, m->tid);
    if (m->blocking)
        s->range(s->marker, &m->block_frame, &m->block_frame + 1);
    owned(s, GC_ROOT_TLS, NULL, m->tid);
    if (m->thread_pointer != 0)
        loader_tls(m->thread_pointer, s->range, s->marker);
}

static void scan_but_stacks(const struct scan *s, unsigned worker, unsigned nworkers)
{
    unsigned i = 0;
    /* From world.all: all workers must count the same machines, or one is left to another that counts it differently. */
    for (struct m *m = world.all; m != NULL; m = m->all_next)
        if (i++ % nworkers == worker)
            scan_machine(s, m);
    if (worker == 0) {
        tasks_each_stw(scan_task, (void *)s);
        owned(s, GC_ROOT_TIMER, NULL, 0);
        timers_scan(s->range, s->marker, leaked_looking);
    }
}

static void scan_all(const struct scan *s, unsigned worker, unsigned nworkers)
{
    scan_but_stacks(s, worker, nworkers);
    stack_each(worker, nworkers, scan_fiber, (void *)s);
}

void world_scan_running(unsigned worker, unsigned nworkers, void (*range)(void *, const void *, const void *), void *marker)
{
    scan_but_stacks(&(struct scan){ .range = range, .marker = marker }, worker, nworkers);
}

void world_scan_stacks(unsigned worker, unsigned nworkers, void (*range)(void *, const void *, const void *), void *marker)
{
    scan_all(&(struct scan){ .range = range, .marker = marker }, worker, nworkers);
}

struct told { gc_scan_owned_fn *fn; void *arg; struct gc_owner owner; };

static void tell_range(void *arg, const void *lo, const void *hi)
{
    struct told *t = arg;
    t->fn(t->arg, &t->owner, lo, hi);
}

void world_scan_owned(gc_scan_owned_fn *fn, void *arg, const struct fiber *caller)
{
    struct told t = { .fn = fn, .arg = arg };
    scan_all(&(struct scan){ tell_range, &t, &t.owner, caller }, 0, 1);
}

/* ---- helpers of a stop ----------------------------------------------------------------------------------------- */

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    pthread_setname_np(pthread_self(), "weft-gc");
    struct service *s = service_begin(SERVICE_GC);
    h->tid = (int)sys_call0(SYS_gettid);
    store_rel(&h->here, 1); /* rel: whatever it takes to start is behind us; acq in helpers_here */
    for (;;) {
        uint32_t w;
        while ((w = load_acq(&h->word)) == 0) /* acq: sees the work; rel in world_parallel */
            os_futex_wait(&h->word, 0, -1);
        if (w == 2) {
            service_end(s);
            return NULL;
        }
        store_rlx(&h->word, 0); /* rlx: the next one comes after left is 0 */
        service_look(s);
        world.fn(world.arg, h->index, world.nwork);
        if (sub_acq_rel(&world.left, 1) == 1) /* rel: our work is done; acq in world_parallel */
            os_futex_wake(&world.left, 1);
    }
}

static void helpers_start(unsigned want)
{
    uint32_t n;
    while ((n = load_rlx(&world.nhelpers)) + 1 < want) { /* rlx: changes under the lock, which we hold */
        struct helper *h = &world.helpers[n];
        store_rlx(&h->word, 0); /* rlx: pthread_create publishes, and the next */
        store_rlx(&h->here, 0);
        h->index = n + 1;
        sigset_t all, old;
        sigfillset(&all);
        sigdelset(&all, SIGSEGV); /* a first write to a page: os/dirty_mprotect.c */
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int err = fail_now(FAIL_THREAD) ? EAGAIN : pthread_create(&h->thread, NULL, helper_main, h);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (err != 0)
            return; /* fewer will do */
        store_rel(&world.nhelpers, n + 1); /* rel: publishes helpers[n] */
    }
}

void world_helpers_prepare(unsigned want)
{
    want = w_min(want, (unsigned)w_countof(world.helpers));
    if (load_acq(&world.nhelpers) + 1 >= want)
        return;
    struct m *m = m_self();
    if (m != NULL && (m->foreign || m->tainted)) { /* what it did to its thread would be theirs; this collection goes without */
        sysmon_start_helpers(want);
        return;
    }
    lock_take(&world.helpers_lock);
    helpers_start(want);
    lock_drop(&world.helpers_lock);
}

unsigned world_helpers(void) { return load_acq(&world.nhelpers); }

/* Up to the first one whose thread is still on its way. */
static unsigned helpers_here(void)
{
    unsigned n = 0, all = world_helpers();
    while (n < all && load_acq(&world.helpers[n].here) != 0) /* acq: it needs nothing any more that a stopped thread may hold; rel in helper_main */
        n++;
    return n;
}

void world_parallel(unsigned want, void (*fn)(void *arg, unsigned i, unsigned n), void *arg)
{
    unsigned n = w_min(want, helpers_here() + 1);
    struct os_affinity was;
    world.fn = fn;
    world.arg = arg;
    world.nwork = n;
    store_rlx(&world.left, n - 1); /* rlx: published by the words */
    for (unsigned i = 0; i + 1 < n; i++) {
        struct helper *h = &world.helpers[i];
        bool elsewhere = os_affinity_elsewhere(h->tid, &was); /* [HELPERS] */
        store_rel(&h->word, 1); /* rel: publishes the work; acq in helper_main */
        os_futex_wake(&h->word, 1);
        if (elsewhere)
            os_affinity_back(h->tid, &was);
    }
    fn(arg, 0, n);
    uint32_t left;
    unsigned spins = 0;
    while ((left = load_acq(&world.left)) != 0) { /* acq: sees the helpers' work */
        if (++spins < 2000)
            cpu_relax();
        else
            os_futex_wait(&world.left, left, -1);
    }
}

/* ---- for forks -------------------------------------------------------------------------------------------------- */

void world_own(void)
{
    for (unsigned looks = 0; !cas_acq(&world.owner, 0, 1); looks++) /* acq: as in take_ownership */
        backoff(looks);
}

void world_disown(void) { store_rel(&world.owner, 0); } /* rel: acq in take_ownership, world_own */

void world_leave(struct m *m)
{
    for (;;) {
        store_rel(&m->in_runtime, 0); /* rel: as in rt_leave */
        fence_compiler();
        if (!(load_acq(&m->poll) & POLL_STOP))
            return;
        store_seq(&m->in_runtime, 1);
        if (load_acq(&sched.stopping) != 0)
            world_stop_here(m);
        else
            cpu_relax();
    }
}

void world_after_fork(void)
{
    lock_init(&sched.take_lock, RANK_TAKE);
    lock_init(&world.helpers_lock, RANK_LEAF);
    store_rlx(&world.nhelpers, 0); /* rlx: nobody else runs; and below */
    store_rlx(&world.left, 0);
    store_rlx(&world.napping, 0);
    world.late = NULL;
    uint32_t next = load_rlx(&world.gate) + 1;
    store_rlx(&world.gate, next != 0 ? next : 1);
    store_rlx(&sched.stopping, 0);
    sched.fenced = sched.fenced || !membarrier_ready();
    store_rel(&world.owner, 0); /* rel: acq in take_ownership */
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

int world_start_up(void)
{
    sched.fenced = sched.cfg.membarrier == 0 || !membarrier_ready();
    lock_init(&world.helpers_lock, RANK_LEAF);
    if (load_rlx(&world.gate) == 0) /* rlx: nobody runs yet */
        store_rlx(&world.gate, 1);
    for (int i = 0; i < WEFT_STOP_REASONS; i++)
        if (world.stats[i].count != 0) { /* in an earlier life; what was never touched takes no memory */
            memset(&world.stats[i], 0, sizeof world.stats[i]);
            memset(&world.stopping[i], 0, sizeof world.stopping[i]);
            memset(&world.stopped[i], 0, sizeof world.stopped[i]);
        }
    return signal_hook(sched.stop_signal, stop_signal, true); /* undisturbed: no handler of the host runs in a stop */
}

void world_end(void)
{
    unsigned n = world_helpers();
    for (unsigned i = 0; i < n; i++) {
        store_rel(&world.helpers[i].word, 2);
        os_futex_wake(&world.helpers[i].word, 1);
    }
    for (unsigned i = 0; i < n; i++)
        pthread_join(world.helpers[i].thread, NULL);
    store_rlx(&world.nhelpers, 0); /* rlx: nobody else runs any more */
    signal_unhook(sched.stop_signal);
}

const struct timehist *world_times(int reason, bool stopped) { return stopped ? &world.stopped[reason] : &world.stopping[reason]; }

int weft_read_stop_stats(int reason, weft_stop_stats *out)
{
    if (reason < 0 || reason >= WEFT_STOP_REASONS || out == NULL)
        return -EINVAL;
    *out = world.stats[reason];
    out->reason = reason_text[reason];
    return 0;
}
