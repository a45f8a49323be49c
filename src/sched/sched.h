/* The scheduler: machines, processors, and the doors in and out of the runtime. Read the essays in entry.c ([ENTRY]), world.c ([STW]), sysmon.c
 * ([HANDOFF]).
 *
 *   M  struct m   an OS thread, ours or the host's
 *   P  struct p   the right to run: run queue, timers, allocation cache. An M runs a fiber's calls into weft only while it holds a P.
 *
 * How to write a public call that may block:
 *
 *     int weft_thing_wait(weft_thing *t)
 *     {
 *         struct m *m = rt_enter();             // from here on no stop and no hand-off can happen to us
 *         lock_take(&t->lock);
 *         if (!ready) {
 *             queue_waiter(t, m->cur);          // a struct on this very stack will do
 *             sched_park(unlock_it, t, WAIT_THING); // unlock_it(fiber, t) runs once our registers are saved
 *         } else
 *             lock_drop(&t->lock);
 *         rt_leave(m_self());                   // never use the old m after a park: we may be on another thread
 *     }
 *
 * and the waker, also inside: take it off the queue under the lock, then sched_ready(fiber). */
#ifndef WEFT_SCHED_SCHED_H
#define WEFT_SCHED_SCHED_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/config.h"
#include "base/lock.h"
#include "base/offheap.h"
#include "base/probe.h"
#include "base/rng.h"
#include "base/timehist.h"
#include "gc/gc.h"
#include "os/clock.h"
#include "os/arch/arch.h"
#include "sched/fiber.h"
#include <pthread.h>

/* ---- processors ---------------------------------------------------------------------------------- */

#define RUNQ_SIZE 256
#define IDS_RESERVED 16u /* ids of fibers that a processor takes at a time */
#define GLOBAL_TURN 61 /* steps after which the global queue comes first, once */
struct timer;

/* Ring of runnables. Only the owner of the P pushes (tail); the owner and thieves take from head by compare-and-swap. As in Go. */
struct runq {
    w_u32 head;
    w_u32 tail;     /* rel by the owner: publishes slot; acq by thieves */
    W_PTR(void) next; /* run-next slot: what the running fiber made ready last; may be stolen */
    w_uptr slot[RUNQ_SIZE];
};

/* See timer.c. Everything under lock but next_ns. */
struct timer_heap {
    struct lock lock;           /* RANK_TIMER */
    w_i64 next_ns;              /* when of the first; INT64_MAX: empty. Written under lock; read without as a hint, checked again under the lock */
    struct timer_entry *heap;
    uintptr_t *timer_of;        /* by slot: the timer, with TIMER_ROOT */
    uint32_t *pos_of;           /* by slot: place in heap; of a free slot: the next free one */
    uint32_t len, cap, free_slot, next_seq;
    struct timer_run *running;  /* callbacks under way, of this heap */
};

enum p_status { P_IDLE, P_RUNNING, P_DEAD };

struct p {
    uint32_t id;
    /* owner only */
    w_u32 tick;             /* scheduling steps (p_tick) */
    uint32_t global_tick;   /* tick when the global queue had its turn last */
    uint32_t next_streak;   /* resumed from runq.next in a row */
    uint32_t ready_left;    /* [LATENCY] wake-ups to the next one that is measured */
    uint32_t yield_tick;    /* the same of yields: the step */
    struct task *free_tasks;
    uint32_t nfree_tasks;
    struct fiber *free_stacks; /* of the default size, warm, linked by link.next */
    uint32_t nfree_stacks;
    uint32_t nold_stacks;
    struct fiber *old_stacks; /* the same: those that nobody has taken since the last collection */
    char *fresh_slot;       /* nfresh_slots without memory, of the default size, with guards, begin here */
    uint32_t nfresh_slots;  /* others count with it */
    uint32_t fresh_arena;
    uint64_t id_next, id_end; /* fiber ids reserved from the global counter */
    struct rng rng;
    struct gc_cache gc;
    bool gc_wanted;
    int64_t marked_ns;      /* it has marked, or disarmed, last till then, as much as it owes for having run */
    /* counters: the owner writes, anyone reads relaxed */
    w_u64 fibers_made, fibers_ended; /* ended: rel, that nobody sees a fiber ended that he does not see made; acq in fibers_count */
    w_u64 handoffs;         /* sysmon writes, too: add_rlx */
    w_u64 blocked_ns;       /* on mutexes and read-write locks */
    /* shared */
    w_u32 status;           /* enum p_status; under sched.lock or by the owner */
    W_PTR(struct m) owner;  /* the M that has it; written with m->p. Others: a hint, checked by p_take */
    struct p *idle_next;    /* sched.lock */
    w_u64 sys_tick;         /* tick as sysmon last saw it: sysmon only */
    int64_t sys_when_ns;    /* sysmon only, and the next two */
    int64_t sys_cpu_ns;
    uint64_t sys_cpu_tick;
    bool idle_counted;      /* sched.lock: among sched.cpu_idle_procs */
    struct timer_heap timers;
    struct runq runq;
    /* [LATENCY]: the owner's */
    struct latency_rate { uint32_t period_log2; int64_t at_ns; } ready_rate, yield_rate;
    struct rng ready_rng;   /* apart from rng: what is measured changes nothing of what is scheduled */
    struct draw { uint32_t left, weight; } waits_draw, unlocks_draw; /* of those that probes tell of: up to the next one, and what it stands for */
    struct timehist latencies; /* read by others */
} w_aligned(64);

/* Counts a step. rlx: only the owner writes, others look whether it moves. */
static inline uint32_t p_tick(struct p *p)
{
    uint32_t t = load_rlx(&p->tick) + 1;
    store_rlx(&p->tick, t);
    return t;
}

/* ---- machines ------------------------------------------------------------------------------------ */

/* pstate: who owns m->p. Written by the M in OWNED and FENCED, by the holder of sched.take_lock in TAKING, see entry.c. */
enum m_pstate {
    M_OWNED = 0, /* m->p is ours */
    M_TAKING,    /* someone is finding out whether we are inside */
    M_GONE,      /* it was taken, or we have none */
    M_FENCED,    /* ours, but without membarrier(2): entering takes a real fence */
};
/* dead: whether the machine counts. */
enum m_dead {
    M_ALIVE = 0,
    M_DEAD,     /* the thread is gone, the struct can be used again */
    M_VANISHED, /* the same, from when the stop is over that has found it out */
    M_ABSENT,   /* being made; or of a thread of the host that was attached to an earlier life of the runtime and still points here */
};
/* poll: reasons to take the slow way out. */
enum { POLL_STOP = 1, POLL_FOREIGN = 2, POLL_END = 4, POLL_HANDOFF = 8, POLL_SEEDED = 16, POLL_MIGRATE = 32 };

typedef void park_commit(struct fiber *f, void *arg);

struct m {
    /* [ENTRY]; first, so that the fast path touches one line */
    w_u32 in_runtime;   /* owner writes; takers and the stop handler read */
    w_u32 pstate;
    w_u32 poll;         /* why to leave slowly. STOP: the stopper, cleared under sched.lock; END: runtime_end; HANDOFF: the monitor, cleared
                           by the owner; fixed: FOREIGN, SEEDED and MIGRATE (debug keys) */
    uint32_t id;
    struct p *p;        /* valid in OWNED and FENCED */
    struct fiber *cur;  /* the fiber that runs here; NULL in the scheduler and while parked in place. Owner writes; read by others in a stop */
    void *g0_sp;        /* context of the scheduler on the thread's own stack */
    int *errno_at;
    struct exceptions *exceptions; /* the thread's; NULL: it is the host's, and its fiber stays there, or there is no C++ in the process */
    /* what the next context must do for the one that was left: see switch.c */
    struct fiber *prev;
    park_commit *commit;
    void *commit_arg;
    uint64_t switch_ticks;  /* when the last measured wait began here, unless the scheduler ran since; 0: none. And the processor's step with it */
    uint32_t switch_step;
    uint8_t prev_to;    /* enum after_switch */
    bool spinning;
    bool main;          /* ran weft_run */
    bool blocking;      /* between weft_blocking_begin and _end */
    /* parking: see m_sleep */
    w_u32 sleep;        /* futex: 0 awake, 1 sleeping, 2 token */
    struct m *idle_next; /* sched.lock */
    /* [STW] */
    w_u32 stop_ack;     /* = world.gate once stopped with registers published */
    void *stop_sp;      /* lowest stack address to scan */
    const void *stop_regs_lo, *stop_regs_hi; /* the registers of an interrupted thread, and what lies above them on the stack for handlers; NULL if
                                                they lie on its own */
    w_u32 stop_sent; /* number of the stop for which the signal was sent; the stopper writes */
    w_u32 signalled;    /* stop signals of ours that are under way; counted up by the sender, down by the handler */
    struct p *taken;    /* P seized by the current stop */
    w_u32 away;         /* of a thread of the host: call_away */
    struct fiber *blocked;         /* between weft_blocking_begin and _end: the fiber, */
    struct arch_frame block_frame; /* and its registers as of then */
    w_u32 reading;      /* owner only: a layer above reads tables of its own here, in a handler or a probe point. They wait for that to end (prof/walk.c) */
    /* fixed */
    pthread_t thread;
    int tid;
    void *g0_top;       /* where on the thread's own stack the scheduler's frames begin; NULL: none has run here */
    uintptr_t thread_pointer; /* for thread-local roots */
    void *altstack;
    struct exceptions host_exceptions; /* of the caller of weft_run */
    int unblocked;      /* the stop signal, if the thread had it blocked; else 0 */
    void *g0_lo;        /* the thread's own stack, for sanitizers only; and the next three */
    size_t g0_bytes;
    void *g0_fake, *g0_tsan;
    /* from all_next to dead: what stays when the record is used again, as others may be looking at it */
    struct m *all_next; /* sched.lock to change; the list never shrinks while the runtime runs */
    bool in_list;       /* sched.lock */
    bool foreign;       /* for a thread of the host; fixed */
    w_u32 dead;         /* enum m_dead; sched.lock to change */
    uint32_t came_in;   /* of a thread of the host: the stop (world.gate) in which it attached; 0: in none. Fixed once it is M_ALIVE */
    uint64_t run;       /* sched.run this machine belongs to: a thread of the host may come back in a later life of the runtime */
    /* work for the scheduler's stack, set by the fiber that switches to it */
    void (*g0_call)(void *arg);
    void *g0_arg;
    runnable given;     /* a runnable taken from a queue but not run yet: bound elsewhere, a task without a stack at hand, or the main fiber */
    bool exiting;       /* its locked fiber ended: the thread goes too */
    bool collects;      /* a collection is under way on this thread */
    w_u32 sampled;      /* of who listens to thread_here, under his lock; 0 in what is new */
    struct fiber *locked; /* weft_lock_os_thread; NULL: no fiber is. For show */
    struct { uint32_t n; uintptr_t pc[20]; } made_by; /* the stack of who made the thread; fixed before it runs. For profiles */
    void *told;         /* for listeners of probe points; sched_guest.machine_gone is called at the end */
    bool tainted;       /* a fiber is locked to the thread, or ended so, and may have changed it: no thread is cloned from it */
    struct fiber self;  /* foreign: the fiber that stands for the thread */
} w_aligned(64);

extern __thread struct m *weft_tls_m __attribute__((tls_model("initial-exec"), visibility("hidden")));
/* The calling thread's machine, read afresh each time; NULL if it is not attached. */
static inline struct m *m_self(void) { return (struct m *)ARCH_TLS_LOAD(weft_tls_m); }

/* ---- everything there is once --------------------------------------------------------------------- */

struct sched {
    struct lock lock;        /* RANK_SCHED: the next group */
    w_u32 global_len;        /* of the global queue, which is in runq.c; written under lock, read relaxed as a hint */
    struct p *idle_p;
    w_u32 nidle_p;
    struct m *idle_m;
    uint32_t nidle_m;
    int64_t cpu_at_ns, cpu_total_ns, cpu_idle_ns, cpu_stopped_ns; /* the processors' time up to cpu_at_ns: cpu_clock_locked */
    uint32_t cpu_idle_procs; /* those that are idle, or with a thread of the host, which keeps one for a moment only */
    enum { CPU_RUNS, CPU_STOPPED, CPU_COLLECTS } cpu_stop; /* they do not count as idle in a stop; the last is a collection's */
    uint32_t nactive;        /* machines that are awake or will wake by themselves; 0: deadlock unless timers or descriptors wait */
    /* counters of their own */
    w_u32 nspinning;
    w_u32 nthreads;          /* ours, alive */
    w_u64 threads_made, threads_ended;
    w_u64 system_made, system_ended; /* fibers of the runtime itself */
    w_u64 next_fiber_id;
    w_i64 poll_until_ns;     /* the M in epoll sleeps until then; 0: nobody polls; INT64_MAX: no timer */
    w_i64 coarse_ns;         /* clock as of sysmon's last look */
    w_u32 stopping;          /* a stop of the world is wanted or in force */
    w_u32 ending;            /* the runtime ends */
    w_u32 forked;            /* enum fork_child: we are the child of a fork, and have not come to use it yet; fork.c */
    /* fixed while running, but for maxprocs (changed in a stop) */
    w_u32 nprocs;            /* rel: publishes allp up to it; acq in nprocs. Some threads are never stopped */
    uint32_t ncpu;
    struct p **allp;         /* grows in a stop, entries stay */
    uint32_t allp_cap;
    w_u32 allp_used;         /* entries up to it are not NULL: processors there are, or were; rel and acq as nprocs */
    struct m *main_m;        /* NULL: started by weft_start, or its thread is no more (fork.c) */
    bool orphan;             /* in the child of a fork: no thread of the host knows of the runtime. The last fiber ends the process */
    bool orphan_leaderless;  /* the thread that forked has ended: the kernel counts it to the end of the process */
    w_u32 orphan_ends;       /* somebody ends the process */
    bool fenced;             /* no membarrier(2) */
    bool host_main;          /* weft_start: threads of the host may wake anybody */
    struct config cfg;
    W_PTR(struct m) all_m;   /* every machine; rel: publishes the new head; acq in readers */
    uint32_t next_m_id;      /* lock */
    w_i64 max_threads;
    int stop_signal;
    int result;              /* of weft_run, set with ending */
    unsigned stack_log2;     /* default size of stacks */
    uint64_t run;            /* lives of the runtime, from 1 */
    uint32_t modes;          /* POLL_SEEDED, POLL_MIGRATE: in the poll of each machine of ours */
    w_u32 running;           /* the runtime is up */
    struct lock take_lock;   /* who may take Ps from machines */
    int64_t start_ns;
    struct exceptions *(*exceptions)(void); /* NULL: no C++ */
    int64_t lock_waited_ns;  /* lock_waited_ns() as of then */
};
extern struct sched sched;
static inline uint32_t allp_used(void) { return load_acq(&sched.allp_used); }
static inline uint32_t nprocs(void) { return load_acq(&sched.nprocs); } /* acq: sees allp[] up to it; rel in procs_resize */

/* ---- in and out (entry.c) -------------------------------------------------------------------------- */

struct m *rt_enter_slow(void);   /* attaches the thread, waits for a processor; ends the program if the runtime does not run */
void rt_leave_slow(struct m *m);

static inline struct m *rt_enter(void)
{
    struct m *m = m_self();
    if (unlikely(m == NULL))
        return rt_enter_slow();
    store_rlx(&m->in_runtime, 1); /* [ENTRY]: before the look at pstate; the taker's membarrier orders it */
    fence_compiler();
    if (unlikely(load_acq(&m->pstate) != M_OWNED)) /* acq: sees m->p, which a stop may have taken and given back; rel in m_own */
        return rt_enter_slow();
    return m;
}

static inline void rt_leave(struct m *m)
{
    store_rel(&m->in_runtime, 0); /* rel: publishes what we did with our P; acq in p_take. Before the look at poll, as above */
    fence_compiler();
    if (unlikely(load_rlx(&m->poll) != 0))
        rt_leave_slow(m);
}

/* For calls that can give an error where no runtime runs: NULL. */
struct m *rt_enter_try(void);
/* The same, quick on a fiber. */
static inline struct m *rt_enter_if_running(void)
{
    struct m *m = m_self();
    if (unlikely(m == NULL || m->foreign || m->run != sched.run)) /* a thread of the host may come after the end */
        return rt_enter_try();
    store_rlx(&m->in_runtime, 1); /* as in rt_enter */
    fence_compiler();
    return likely(load_acq(&m->pstate) == M_OWNED) ? m : rt_enter_try(); /* acq: as in rt_enter */
}
/* Makes sure of a processor, after something that may have cost it (a stop). Inside the runtime. May wait. */
void rt_own(struct m *m);

/* A call of a thread of the host that leaves the runtime in its middle, and has others look at things of the runtime meanwhile: the end waits for it
 * as for one that is inside, and it may enter although the end has begun. call_away: inside. call_back: outside, by anybody, when all that is looked at is its own. */
static inline void call_away(struct m *m) { store_rel(&m->away, 1); } /* rel: before in_runtime is cleared, and acq in hosts_outside */
static inline void call_back(struct m *m) { store_rel(&m->away, 0); } /* rel: whoever looked is done; acq in hosts_outside */

/* ---- parking and waking (switch.c); callers are inside the runtime ------------------------------------ */

/* The calling fiber waits. commit (may be NULL) is called with the fiber after its registers are saved, on another stack, and must not block; after
 * it the fiber may be resumed at any time. Returns when somebody called sched_ready. m_self() may have changed. */
void sched_park(park_commit *commit, void *arg, enum wait_reason why);
/* Of the waits (unlocks) that probe fiber_waited (lock_contended) would tell of, one in so many is measured, drawn at random; 0 and 1: each.
 * Listeners set it. */
extern w_u32 sched_waits_one_in, sched_unlocks_one_in;
/* What this one stands for; 0: it is not measured. Gaps between those that are have a length drawn at random, and each counts for the gap before it
 * on average, so sums are right however often the number changes. m: the caller's machine, inside the runtime. */
uint32_t sched_draw(struct draw *d, uint32_t one_in, struct rng *r) w_cold;
static inline uint32_t sched_weight(struct m *m, struct draw *d, const w_u32 *one_in)
{
    uint32_t n = load_rlx(one_in); /* rlx: the weight is told with it */
    if (n <= 1)
        return 1;
    if (likely(d->left > 1)) {
        d->left--;
        return 0;
    }
    return sched_draw(d, n, &m->p->ready_rng);
}
/* Who waits since then gets the lock from us: a probe, if anybody listens. Inside the runtime. */
void sched_tell_contended(const void *lock, int64_t since_ns, enum wait_reason why, uint32_t weight) w_cold;
static inline void sched_contended(const void *lock, int64_t since_ns, enum wait_reason why)
{
    struct m *m = m_self();
    uint32_t weight = PROBE_WANTED(lock_contended) ? sched_weight(m, &m->p->unlocks_draw, &sched_unlocks_one_in) : 0;
    if (unlikely(weight != 0))
        sched_tell_contended(lock, since_ns, why, weight);
}
/* Commit functions for the common cases: arg is the struct lock to drop; nothing. */
void park_unlock(struct fiber *f, void *lock);
/* f becomes runnable, next on this processor. f must be parked or about to be (its commit under way), and readied once per park. Callable by a
 * machine with or without a P. */
void sched_ready(struct fiber *f);
/* The same, at the tail of the queue; and for many at once. */
void sched_ready_tail(struct fiber *f);
void sched_ready_many(struct fiber *const *f, size_t n);
void fiber_yield(void);
/* Starts a task from inside, or from a thread of the runtime without a machine. site: creation pc. 0, -ENOMEM, -EINVAL (stack size). */
int sched_spawn_group(weft_fn *fn, void *arg, const weft_go_opts *opts, const void *site, uint32_t flags, void *group);
static inline int sched_spawn(weft_fn *fn, void *arg, const weft_go_opts *opts, const void *site, uint32_t flags)
{
    return sched_spawn_group(fn, arg, opts, site, flags, NULL);
}
/* Runs fn(arg) on the thread's own, big stack with the fiber's registers published, as collections need. Does not give up the P. */
void sched_on_big_stack(void (*fn)(void *arg), void *arg);

/* ---- time ---------------------------------------------------------------------------------------------- */

/* What weft_now() returns, and what times of timers and deadlines are compared with: the monotonic clock, or with schedseed one that is drawn. */
extern w_u32 seed_on; /* [SEED] in seed.c. Read relaxed: changes while no runtime runs */
int64_t seed_now_ns(void);
static inline int64_t sched_now_ns(void) { return unlikely(load_rlx(&seed_on) != 0) ? seed_now_ns() : os_now_ns(); } /* rlx: as above */

/* ---- timers (timer.c) --------------------------------------------------------------------------------- */

/* A timer of the runtime: embedded in its owner, e.g. on the stack of a sleeping fiber. fn(arg, now) runs inside the runtime on some machine that
 * holds a P, under no lock, must not block; it may start timers, ready fibers and spawn, but not call timer_stop. Zeroed before its first use; the
 * calls about one timer are ordered by its owner (but timer_again and its own callback). After a callback has begun, timer.c does not touch a timer
 * without period. */
struct timer {
    int64_t period_ns;          /* > 0: again each period, without drift; missed ones are skipped */
    void (*fn)(void *arg, int64_t now_ns);
    void *arg;
    bool root;                  /* while it waits, the heap object in which it lies is alive */
    struct timer_heap *home;    /* where it was started last. timer.c */
    uint32_t slot;              /* 1 + slot in home; 0: does not wait. Under home's lock. timer.c */
};
void timer_start(struct timer *t, int64_t when_ns);  /* t is idle; fn, arg, period_ns, root set by the caller */
bool timer_stop(struct timer *t);                    /* true: it was waiting and will not run. False: it has run, or is running on another machine
                                                        right now: timer_stop waits for that to end before it returns */
bool timer_cancel(struct timer *t);                  /* true: it was waiting and will not run. False: it has run, is running or will be in a moment.
                                                        Never waits */
void timer_again(struct timer *t, int64_t when_ns);  /* from t's own callback, at its end: starts it anew */
static inline int64_t timer_after(int64_t now_ns, int64_t ns) { return ns > INT64_MAX - 1 - now_ns ? INT64_MAX - 1 : now_ns + ns; }
/* the first multiple after when_ns that lies ahead of now_ns, which does not lie before it */
int64_t timer_next_period(int64_t when_ns, int64_t period_ns, int64_t now_ns);
int64_t timers_run(struct p *p, int64_t now_ns);     /* runs what is due in p's heap, some hundreds at most; returns the next when, INT64_MAX: none.
                                                        now_ns 0: not known, the clock is read if there is a timer */
bool timers_due(struct p *p);                        /* the scheduler has something to run there. A hint */
int64_t timers_next(void);                           /* earliest of all processors. Whoever is to sleep till then stores sched.poll_until_ns (seq) and
                                                        calls this again: [TIMER] */
bool timers_any(void);                               /* some timer waits that can wake somebody */
void timers_init(struct timer_heap *h);
void timers_fini(struct timer_heap *h);              /* its timers are forgotten */
void timers_move(struct p *from, struct p *to);      /* in a stop, when a processor goes */
enum timer_fate { TIMER_KEEP, TIMER_STOP, TIMER_GONE /* like TIMER_STOP, but its memory may be something else by now */ };
void timers_forget_stw(enum timer_fate (*fate)(const struct timer *t)); /* in the child of a fork */
bool timer_runs_function(const struct timer *t); /* weft_timer_func (usertimer.c) */
/* roots held by running timers (arg of weft_timer_func); in a stop */
void timers_scan(void (*root)(void *marker, const void *lo, const void *hi), void *marker, bool all);

/* ---- descriptors (netpoll.c) ---------------------------------------------------------------------------- */

int netpoll_start(void);
void netpoll_end(void);
/* Waits up to timeout_ns (0: looks only; < 0: for ever) and links the fibers that became ready by link.next into a list, newest last. No P needed. */
struct fiber *netpoll(int64_t timeout_ns);
void netpoll_break(void);       /* wakes the machine in netpoll, from any machine */
int netpoll_after_fork(void);   /* in the child: a poller of its own, that watches the same descriptors. 0 or negative errno */
uint32_t netpoll_waiters(void); /* fibers that wait for a descriptor */

/* ---- statistics of this layer ------------------------------------------------------------------------------ */
struct sched_memory { uint64_t stack_inuse, stack_sys, buckets, other; }; /* bytes */
void sched_memory(struct sched_memory *out); /* inside the runtime; exact in a stop */
void fibers_count(uint64_t *made, uint64_t *ended); /* without the runtime's own; nobody is counted as ended only */
int64_t fibers_alive(void);
void cpu_clock_locked(void);                 /* before cpu_idle_procs, nprocs or cpu_stop changes; under sched.lock */
void cpu_times(int64_t *total_ns, int64_t *idle_ns, int64_t *stopped_ns);

#endif
