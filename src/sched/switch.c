/* Between fibers.
 *
 * A fiber that waits or yields goes straight to the next one of its processor, without passing the scheduler's stack; only when
 * nothing is at hand locally, or something else is due (a stop, timers, the global queue's turn), it goes to g0, the loop of the thread's own stack.
 *
 *      fiber A --park--> fiber B --end--> task C (on B's stack, if of the same size) --park--> g0 --> ...
 *
 * Whoever is left cannot finish leaving by himself: his registers are saved only when he no longer runs. So he leaves word (m->prev, prev_to,
 * commit), and the context that comes next on this machine acts on it first thing: switch_finish. That is where the state becomes
 * WAITING, the lock of the wait queue is dropped, a yielding fiber is queued, a dead one's stack is given back. From then on another machine may
 * run it; that is why after a switch no machine read before it may be used.
 *
 * A fiber that is bound to its thread (locked, a host thread, or one that waits for a processor) parks in place instead: the thread sleeps with it,
 * its processor goes elsewhere. Who takes such a fiber from a queue gives its own processor to the sleeping thread and looks for another.
 *
 * The end of a fiber does not switch at all if a task of the same stack size is next: it starts on the same stack.
 *
 * errno belongs to the fiber: saved and restored here. So do the exceptions of C++ that it handles. */
#include "sched/switch.h"
#include "sched/guard.h"
#include "sched/labels.h"
#include "sched/latency.h"
#include "sched/machine.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/schedule.h"
#include "sched/stack.h"
#include "sched/task.h"
#include "sched/waitgroup.h"
#include "sched/world.h"
#include "os/clock.h"
#include "os/ticks.h"
#include "sched/sanitize.h"
#include <errno.h>
#include <string.h>

const char *wait_reason_text(enum wait_reason r)
{
    static const char *const text[] = {
#define X(id, text) text,
        WAIT_REASONS(X)
#undef X
    };
    return (unsigned)r < WAIT_REASON_COUNT ? text[r] : "?";
}

/* ---- [PIN] ---------------------------------------------------------------------------------------- */

static w_cold void pin_wait(struct fiber *f)
{
    while (load_acq(&f->pin) != 0) /* acq: the looker is done with the stack; rel in fiber_unpin */
        cpu_relax();
}

/* Another who looks is waited for: that takes him microseconds. */
static void pin_claim(struct fiber *f)
{
    while (!cas_seq(&f->pin, 0, 1)) /* seq: before the look at state; resuming stores state before it looks at pin; membarrier makes that hold there */
        cpu_relax();
}

static bool pin_holds(struct fiber *f)
{
    uint32_t s = load_acq(&f->state); /* acq: sees the saved registers; rel in switch_finish */
    bool held = load_rlx(&f->pin) != 0; /* rlx: after state. 0: the page went back, so what is parked there now never saw it */
    if ((s == FIBER_WAITING || s == FIBER_RUNNABLE) && held && f->sp != NULL)
        return true;
    fiber_unpin(f);
    return false;
}

bool fiber_pin(struct fiber *f)
{
    pin_claim(f);
    world_fence();
    return pin_holds(f);
}

void fibers_pin(struct fiber *const *f, uint32_t n, bool *held)
{
    for (uint32_t i = 0; i < n; i++)
        pin_claim(f[i]);
    world_fence();
    for (uint32_t i = 0; i < n; i++)
        held[i] = pin_holds(f[i]);
}

void fiber_unpin(struct fiber *f)
{
    store_rel(&f->pin, 0); /* rel: we are done with the stack; acq in pin_wait */
}

/* ---- coming and going ------------------------------------------------------------------------------- */

/* What the fiber that was left here before could not do itself. */
static inline void switch_finish(struct m *m)
{
    struct fiber *f = m->prev;
    switch (m->prev_to) {
    case AFTER_PARK:
        store_rel(&f->state, FIBER_WAITING); /* rel: publishes f->sp and the stack; acq in fiber_pin */
        if (m->commit != NULL)
            m->commit(f, m->commit_arg);
        break;
    case AFTER_YIELD:
        store_rel(&f->state, FIBER_RUNNABLE); /* rel: as above */
        runq_put(m->p, (runnable)f);
        /* rlx: a hint; who yields might run on another processor at once, and the next one may not come back for long */
        if (unlikely(load_rlx(&sched.nidle_p) != 0))
            proc_wake();
        break;
    case AFTER_YIELD_GLOBAL:
        store_rel(&f->state, FIBER_RUNNABLE); /* rel: as above */
        globq_add((runnable)f);
        break;
    case AFTER_DEAD:
        sanitize_fiber_free(f);
        stack_put(m->p, f);
        break;
    case AFTER_NOTHING:
        break;
    }
}

static inline void runs(struct fiber *f)
{
    store_rlx(&f->state, FIBER_RUNNING); /* rlx: ordered before the look at pin by the barrier, [PIN] */
    fence_compiler();
    if (unlikely(sched.fenced))
        fence_seq();
    if (unlikely(load_acq(&f->pin) != 0)) /* acq: who looked is done; rel in fiber_unpin */
        pin_wait(f);
}

void fiber_runs(struct fiber *f) { runs(f); } /* not the hot path: every switch has its own copy */

static inline void exceptions_leave(struct m *m, struct fiber *f)
{
    struct exceptions *e = m->exceptions;
    if (unlikely(e != NULL) && unlikely(e->caught != NULL || e->uncaught != 0)) {
        f->exceptions = *e;
        *e = (struct exceptions){ 0 };
    }
}

static inline void exceptions_take(struct m *m, struct fiber *f)
{
    if (unlikely(f->exceptions.caught != NULL || f->exceptions.uncaught != 0)) {
        *m->exceptions = f->exceptions;
        f->exceptions = (struct exceptions){ 0 };
    }
}

/* f runs on m from here on, though we are not on its stack yet. */
static inline void fiber_take(struct m *m, struct fiber *f)
{
    __atomic_store_n(&m->cur, f, __ATOMIC_RELAXED); /* rlx: others look whether there is one */
    runs(f);
    latency_fiber_runs(m->p, f);
    *m->errno_at = f->err;
    exceptions_take(m, f);
}

static inline void fiber_leave(struct m *m, struct fiber *f, enum after_switch to)
{
    f->err = *m->errno_at;
    exceptions_leave(m, f);
    m->prev = f;
    m->prev_to = (uint8_t)to;
}

/* Runs next, or the scheduler if NULL. Returns when f is resumed. */
static void switch_away(struct m *m, struct fiber *f, struct fiber *next, enum after_switch to)
{
    fiber_leave(m, f, to);
    if (next != NULL) {
        PROBE(fiber_run, next, m, 1);
        fiber_take(m, next);
        sanitize_switch_begin(f, next, to == AFTER_DEAD);
        weft_arch_switch(&f->sp, next->sp);
    } else {
        __atomic_store_n(&m->cur, NULL, __ATOMIC_RELAXED); /* rlx: as in fiber_take */
        sanitize_switch_to_g0(f, m, to == AFTER_DEAD);
        weft_arch_switch(&f->sp, m->g0_sp);
    }
    sanitize_switch_end(f);
    switch_finish(m_self());
}

/* ---- tasks ------------------------------------------------------------------------------------------ */

static void fiber_start(void) w_noreturn;

static uint64_t fiber_id_new(struct p *p)
{
    if (p == NULL)
        return add_rlx(&sched.next_fiber_id, 1) + 1; /* rlx: only uniqueness matters */
    if (p->id_next == p->id_end) {
        p->id_next = add_rlx(&sched.next_fiber_id, IDS_RESERVED) + 1; /* rlx: as above */
        p->id_end = p->id_next + IDS_RESERVED;
    }
    return p->id_next++;
}

int sched_spawn_group(weft_fn *fn, void *arg, const weft_go_opts *opts, const void *site, uint32_t flags, void *group)
{
    struct m *m = m_self();
    struct p *p = m != NULL ? m->p : NULL;
    unsigned log2 = sched.stack_log2;
    if (opts != NULL && opts->stack_size != 0) {
        log2 = stack_log2(opts->stack_size);
        if (log2 == 0)
            return -EINVAL;
    }
    struct task *t = task_new(p);
    if (t == NULL)
        return -ENOMEM;
    struct fiber *me = m != NULL ? m->cur : NULL;
    uint64_t id = fiber_id_new(p);
    *t = (struct task){ .fn = fn, .arg = arg, .site = site, .flags = flags, .stack_log2 = log2, .group = group };
    if (me != NULL) {
        t->parent = me->id;
        t->labels = flags & FIBER_SYSTEM ? NULL : labels_ref(me->labels);
    }
    if (opts != NULL) {
        t->name = opts->name;
        if (opts->id != NULL)
            *opts->id = id;
    }
    if (likely(p != NULL) && unlikely(--p->ready_left == 0))
        t->ready_stamp = latency_stamp(p);
    task_publish(t, id);
    if (!(flags & FIBER_SYSTEM))
        store_rlx(&p->fibers_made, load_rlx(&p->fibers_made) + 1); /* rlx: counter, only writer */
    else
        add_rlx(&sched.system_made, 1); /* rlx: counter */
    PROBE(fiber_create, t, t->parent, site);
    if (unlikely(flags & FIBER_MAIN)) { /* begins on this thread: not in a queue, where another machine could steal it */
        m->given = (runnable)t | RUNNABLE_TASK;
        return 0;
    }
    if (likely(p != NULL)) {
        runq_put_next(p, (runnable)t | RUNNABLE_TASK);
    } else { /* only the runtime's own fibers are started like this */
        globq_add((runnable)t | RUNNABLE_TASK);
        fence_seq(); /* before the looks of proc_wake */
    }
    proc_wake();
    return 0;
}

/* The descriptor f takes the place of t; its stack is fresh. */
static void fiber_init(struct fiber *f, struct task *t)
{
    f->fn = t->fn;
    f->arg = t->arg;
    f->id = t->id;
    f->parent = t->parent;
    f->site = t->site;
    f->name = t->name;
    f->labels = t->labels;
    f->label_scopes = NULL;
    f->regions = NULL;
    f->user_task = 0;
    f->flags = (uint16_t)t->flags;
    f->bound = NULL;
    f->ready_stamp = t->ready_stamp;
    f->defers = NULL;
    f->group = t->group;
    f->told = t->told;
    f->lock_depth = 0;
    f->err = 0;
}

/* What can be had by giving back all that is free: the pages of free stacks, and those of off-heap memory. */
static w_cold struct fiber *stack_get_last(struct p *p, unsigned log2)
{
    stack_release_free();
    off_release();
    return stack_get(p, log2);
}

/* A fiber ready to be switched to. NULL: the main one, and the runtime ends for want of memory. */
static struct fiber *fiber_bind(struct p *p, struct task *t)
{
    struct fiber *f = stack_get(p, t->stack_log2);
    if (unlikely(f == NULL) && (f = stack_get_last(p, t->stack_log2)) == NULL && (t->flags & FIBER_MAIN)) {
        task_free(p, t);
        runtime_end(-ENOMEM);
        return NULL;
    }
    if (unlikely(f == NULL))
        w_fatal("no memory for the stack of fiber %lu (%lu stacks of fibers exist); raise vm.max_map_count or the limit of address space, "
                "or start fewer fibers at a time", (unsigned long)t->id, (unsigned long)stack_slots());
    fiber_init(f, t);
    sanitize_fiber_new(f);
    f->sp = arch_stack_init((void *)w_align_down((uintptr_t)f->stack_hi, 16), fiber_start);
    /* rel: publishes the fiber to dumps, before its task goes: one of the two is always there; acq in fiber_pin */
    store_rel(&f->state, FIBER_RUNNABLE);
    task_free(p, t);
    PROBE(fiber_start, f->id, p->id, 0);
    return f;
}

/* ---- what comes next, locally ------------------------------------------------------------------------- */

/* Something other than the local queue is due: the scheduler's loop must look. */
static inline bool scheduler_due(struct m *m, struct p *p)
{
    if (unlikely(load_rlx(&m->poll) & (POLL_STOP | POLL_END | POLL_SEEDED | POLL_MIGRATE))) /* rlx: a late look is caught by the next one */
        return true;
    uint32_t tick = p_tick(p);
    if (unlikely(tick - p->global_tick >= GLOBAL_TURN) && load_rlx(&sched.global_len) != 0) /* rlx: hint */
        return true;
    if (unlikely(tick % 16 == 0) && (load_rlx(&p->timers.next_ns) != INT64_MAX || gc_mark_work())) /* rlx: hint. Marking may be in a hurry */
        return true;
    return false;
}

/* The next fiber to switch to directly; NULL: go to the scheduler (which may find something in m->given). A task for which there is no stack at hand
 * is bound there: the caller's commit, and so the lock it holds, should not wait for a page fault. */
static inline struct fiber *local_fiber(struct m *m)
{
    struct p *p = m->p;
    if (scheduler_due(m, p))
        return NULL;
    runnable r = runq_local(p);
    if (r == 0)
        return NULL;
    bool task = run_is_task(r);
    if (unlikely(task ? !stack_at_hand(p, run_task(r)->stack_log2) : run_fiber(r)->bound != NULL)) {
        m->given = r;
        return NULL;
    }
    return task ? fiber_bind(p, run_task(r)) : run_fiber(r);
}

/* ---- parking ------------------------------------------------------------------------------------------ */

void park_unlock(struct fiber *f, void *lock)
{
    (void)f;
    lock_drop(lock);
}

static inline void park(struct m *m, struct fiber *f, park_commit *commit, void *arg, enum wait_reason why)
{
    if (unlikely(f->bound != NULL)) {
        park_in_place(m, commit, arg, why);
        return;
    }
    f->why = (uint8_t)why;
    f->since_ns = load_rlx(&sched.coarse_ns); /* rlx: for show */
    m->commit = commit;
    m->commit_arg = arg;
    switch_away(m, f, local_fiber(m), AFTER_PARK);
}

w_u32 sched_waits_one_in, sched_unlocks_one_in;

uint32_t sched_draw(struct draw *d, uint32_t one_in, struct rng *r)
{
    uint32_t weight = d->weight; /* 0: there was no gap before */
    d->left = 1 + rng_below(r, 2 * w_min(one_in, 1u << 30) - 1);
    d->weight = one_in;
    return weight;
}

/* A look at the clock is half of what this costs. Where one wait begins, and the next thing that happens on the processor is that another one ends,
 * one look will do for both. */
static w_noinline void park_measured(struct m *m, struct fiber *f, park_commit *commit, void *arg, enum wait_reason why, uint32_t weight)
{
    uint64_t from = os_ticks(), to;
    m->switch_ticks = from;
    m->switch_step = load_rlx(&m->p->tick) + 1; /* rlx: ours. The step of local_fiber */
    park(m, f, commit, arg, why);
    m = m_self();
    bool just_now = m->switch_ticks != 0 && m->switch_ticks != from && load_rlx(&m->p->tick) == m->switch_step; /* rlx: ours */
    to = likely(just_now) ? m->switch_ticks : os_ticks();
    m->switch_ticks = 0;
    PROBE(fiber_waited, f, PROBE_WAITED(why, weight), os_ticks_ns(from, to));
}

void sched_tell_contended(const void *lock, int64_t since_ns, enum wait_reason why, uint32_t weight)
{
    PROBE(lock_contended, lock, PROBE_WAITED(why, weight), w_max(sched_now_ns() - since_ns, INT64_C(1)));
}

void sched_park(park_commit *commit, void *arg, enum wait_reason why)
{
    struct m *m = m_self();
    struct fiber *f = m->cur;
    PROBE(fiber_block, f, why, 0);
    uint32_t weight = PROBE_WANTED(fiber_waited) ? sched_weight(m, &m->p->waits_draw, &sched_waits_one_in) : 0;
    if (unlikely(weight != 0))
        park_measured(m, f, commit, arg, why, weight);
    else
        park(m, f, commit, arg, why);
}

void sched_ready(struct fiber *f)
{
    struct m *m = m_self();
    PROBE(fiber_ready, f, m != NULL && m->cur != NULL ? m->cur->id : 0, 0);
    store_rlx(&f->state, FIBER_RUNNABLE); /* rlx: f->sp was published with WAITING, and parked it stays */
    struct p *p = m != NULL ? m->p : NULL;
    if (likely(p != NULL)) {
        latency_fiber_ready(p, f);
        runq_put_next(p, (runnable)f);
    } else {
        globq_add((runnable)f);
        fence_seq(); /* before the looks of proc_wake */
    }
    proc_wake();
}

/* Without waking a machine for it. */
static void ready_tail(struct m *m, struct fiber *f)
{
    PROBE(fiber_ready, f, m != NULL && m->cur != NULL ? m->cur->id : 0, 0);
    store_rlx(&f->state, FIBER_RUNNABLE); /* rlx: as in sched_ready */
    struct p *p = m != NULL ? m->p : NULL;
    if (likely(p != NULL)) {
        latency_fiber_ready(p, f);
        runq_put(p, (runnable)f);
    } else {
        globq_add((runnable)f);
    }
}

void sched_ready_tail(struct fiber *f)
{
    sched_ready_many(&f, 1);
}

void sched_ready_many(struct fiber *const *f, size_t n)
{
    if (n == 0)
        return;
    struct m *m = m_self();
    for (size_t i = 0; i < n; i++)
        ready_tail(m, f[i]);
    fence_seq(); /* the stores of tail or list before the looks of proc_wake */
    proc_wake();
}

/* Queues itself, and wakes a machine if a processor has become idle meanwhile. */
static void queue_for_proc(struct fiber *f, void *arg)
{
    (void)arg;
    store_rlx(&f->state, FIBER_RUNNABLE); /* rlx: the queue's lock publishes it */
    globq_add((runnable)f);
    fence_seq(); /* before the looks of proc_wake */
    proc_wake();
}

void fiber_yield(void)
{
    struct m *m = m_self();
    struct fiber *f = m->cur;
    if (unlikely(f->bound != NULL)) {
        if (!runq_empty(m->p) || load_rlx(&sched.global_len) != 0 || timers_due(m->p)) { /* rlx: hint. Who gets the processor runs them */
            PROBE(fiber_yield, f, 0, 0);
            park_in_place(m, queue_for_proc, NULL, WAIT_PROC);
        }
        return;
    }
    struct p *p = m->p;
    if (!scheduler_due(m, p)) {
        if (runq_empty(p)) {
            if (load_rlx(&sched.global_len) != 0) { /* rlx: hint */
                latency_fiber_yields(p, f);
                PROBE(fiber_yield, f, 0, 0);
                switch_away(m, f, NULL, AFTER_YIELD_GLOBAL);
            }
            return; /* else there is nobody to yield to */
        }
        runnable r = runq_local(p);
        if (r != 0) {
            struct fiber *next;
            if (run_is_task(r))
                next = fiber_bind(p, run_task(r));
            else if (unlikely(run_fiber(r)->bound != NULL)) {
                m->given = r;
                next = NULL;
            } else
                next = run_fiber(r);
            latency_fiber_yields(p, f);
            PROBE(fiber_yield, f, 0, 0);
            switch_away(m, f, next, AFTER_YIELD);
            return;
        }
    }
    latency_fiber_yields(p, f);
    PROBE(fiber_yield, f, 0, 0);
    switch_away(m, f, NULL, AFTER_YIELD);
}

/* ---- parking in place ----------------------------------------------------------------------------------- */

struct in_place { struct m *m; struct fiber *f; park_commit *commit; void *arg; };

/* What is to run next, if it is a fiber that is bound to another thread, as when two threads hand something to and fro: that one can be given our
 * processor at once. Until then the fiber is in no queue; the stack of one that waits is scanned all the same. */
static struct fiber *next_bound(struct m *m)
{
    struct p *p = m->p;
    if (load_rlx(&p->runq.next) == NULL || p->next_streak >= NEXT_STREAK_MAX || scheduler_due(m, p)) /* rlx: only we put something there */
        return NULL;
    runnable r = runq_get_next(p);
    if (r != 0 && !run_is_task(r) && run_fiber(r)->bound != NULL) {
        p->next_streak++;
        return run_fiber(r);
    }
    if (r != 0)
        runq_put_next(p, r);
    return NULL;
}

/* Below the saved registers of the fiber, on its own stack. */
static void in_place_sleep(void *arg)
{
    struct in_place *ip = arg;
    struct m *m = ip->m;
    struct fiber *f = ip->f;
    bool has_p = m_has_p(m);
    struct fiber *next = has_p ? next_bound(m) : NULL;
    struct p *p = has_p ? m_disown(m) : NULL;
    store_rlx(&m->sleep, 1); /* rlx: published by whatever makes f findable */
    store_rel(&f->state, FIBER_WAITING); /* rel: publishes f->sp; acq in fiber_pin */
    __atomic_store_n(&m->cur, NULL, __ATOMIC_RELEASE); /* rel: after the state, for a stop does not wait for us any more; acq in thread_stopped */
    if (ip->commit != NULL)
        ip->commit(f, ip->arg);
    if (next != NULL)
        proc_give_bound(p, next);
    else if (p != NULL)
        proc_handoff(p);
    m_sleep_inactive(m);
    if (unlikely(load_acq(&sched.ending) != 0) && !m->foreign)
        runtime_leave_fiber(m);
    if (!m->blocking) /* else weft_blocking_end says so */
        PROBE(fiber_run, f, m, 0);
    fiber_take(m, f);
}

static void park_at(struct m *m, struct fiber *f, void **sp, park_commit *commit, void *arg)
{
    f->since_ns = load_rlx(&sched.coarse_ns); /* rlx: for show */
    f->err = *m->errno_at;
    m->prev = f; /* cur is NULL meanwhile; for signal handlers, that find the stack they have interrupted */
    struct in_place ip = { m, f, commit, arg };
    weft_arch_call_saved(sp, in_place_sleep, &ip);
}

void park_in_place(struct m *m, park_commit *commit, void *arg, enum wait_reason why)
{
    struct fiber *f = m->cur;
    f->why = (uint8_t)why;
    park_at(m, f, &f->sp, commit, arg);
}

void proc_wait_in_place(struct m *m, struct fiber *f)
{
    bool was_bound = f->bound != NULL;
    f->bound = m;
    PROBE(fiber_wait_proc, f, m, 0);
    void *below; /* who returns from blocking remains parked where it left */
    if (!m->blocking)
        f->why = WAIT_PROC;
    park_at(m, f, m->blocking ? &below : &f->sp, queue_for_proc, NULL);
    if (!was_bound)
        f->bound = NULL;
}

/* ---- the big stack ---------------------------------------------------------------------------------------- */

struct big { struct m *m; struct fiber *f; void (*fn)(void *); void *arg; };

/* A host thread's own stack is big: the call stays on it, below the saved registers. */
static void big_call(void *arg)
{
    struct big *b = arg;
    store_rel(&b->f->state, FIBER_WAITING); /* rel: publishes f->sp */
    b->fn(b->arg);
    fiber_take(b->m, b->f);
}

void sched_on_big_stack(void (*fn)(void *arg), void *arg)
{
    struct m *m = m_self();
    struct fiber *f = m->cur;
    if (m->foreign) {
        struct big b = { m, f, fn, arg };
        f->why = WAIT_NONE;
        f->err = *m->errno_at;
        weft_arch_call_saved(&f->sp, big_call, &b);
        return;
    }
    f->why = WAIT_NONE;
    m->g0_call = fn;
    m->g0_arg = arg;
    fiber_leave(m, f, AFTER_NOTHING);
    sanitize_switch_to_g0(f, m, false);
    weft_arch_switch(&f->sp, m->g0_sp);
    sanitize_switch_end(f);
}


/* ---- the end of a fiber ------------------------------------------------------------------------------------- */

void fiber_run_defers(struct deferred *until)
{
    for (;;) {
        struct m *m = rt_enter();
        struct fiber *f = m->cur;
        struct deferred *d = f->defers;
        if (d == until) {
            rt_leave(m);
            return;
        }
        weft_fn *fn = d->fn;
        void *arg = d->arg;
        f->defers = d->next;
        off_free(OFF_FIBER, d);
        rt_leave(m);
        fn(arg);
    }
}

/* Starts t on the stack of f, which has just ended there. */
static void fiber_reuse(struct m *m, struct fiber *f, struct task *t) w_noreturn;
static void fiber_reuse(struct m *m, struct fiber *f, struct task *t)
{
    struct p *p = m->p;
    fiber_init(f, t);
    task_free(p, t);
    latency_fiber_runs(p, f);
    *m->errno_at = 0;
    PROBE(fiber_start, f->id, p->id, 0);
    PROBE(fiber_run, f, m, 1);
    m->prev_to = AFTER_NOTHING;
    weft_arch_restart((void *)w_align_down((uintptr_t)f->stack_hi, 16), fiber_start);
}

/* On the fiber's stack, inside the runtime. */
static void fiber_end(void) w_noreturn;
static void fiber_end(void)
{
    struct m *m = m_self();
    struct fiber *f = m->cur;
    struct p *p = m->p;
    PROBE(fiber_end, f, 0, 0);
    labels_drop(f);
    if (unlikely(m->exceptions != NULL))
        *m->exceptions = (struct exceptions){ 0 }; /* it may have called weft_exit in a handler */
    if (!(f->flags & FIBER_SYSTEM))
        store_rel(&p->fibers_ended, load_rlx(&p->fibers_ended) + 1); /* rel: see sched.h. rlx: only writer */
    else
        add_acq_rel(&sched.system_ended, 1); /* rel: likewise */
    if (f->group != NULL)
        waitgroup_add_inside(f->group, -1); /* fails only if others have counted it down too far */
    if (f->lock_depth != 0) {
        if (!m->main)
            PROBE(fiber_end_locked, f, f->lock_site, 0);
        m->exiting = true;
        f->bound = NULL;
        f->lock_depth = 0;
        __atomic_store_n(&m->locked, NULL, __ATOMIC_RELAXED); /* rlx: for show */
        switch_away(m, f, NULL, AFTER_DEAD);
        __builtin_unreachable();
    }
    struct fiber *next = NULL;
    if (!scheduler_due(m, p)) {
        runnable r = runq_local(p);
        if (!SANITIZE_STACKS && run_is_task(r) && run_task(r)->stack_log2 == f->stack_log2)
            fiber_reuse(m, f, run_task(r));
        if (run_is_task(r))
            next = fiber_bind(p, run_task(r));
        else if (r != 0 && run_fiber(r)->bound != NULL)
            m->given = r;
        else
            next = run_fiber(r);
    }
    switch_away(m, f, next, AFTER_DEAD);
    __builtin_unreachable();
}

/* The first thing on a fiber's stack. */
static void fiber_start(void)
{
    struct m *m = m_self();
    struct fiber *f = m->cur;
    sanitize_switch_end(f);
    switch_finish(m);
    weft_fn *fn = f->fn;
    void *arg = f->arg;
    void *group = f->group; /* this frame keeps it alive */
    f->arg = NULL; /* the fiber's frames keep it alive from here on, or do not */
    rt_leave(m);
    fn(arg);
    weft_keep_alive(group);
    weft_exit_from(__builtin_frame_address(0));
}

/* Ends the calling fiber; frame is not used but keeps the compiler from turning the caller's frame into ours. */
void weft_exit_from(void *frame)
{
    (void)frame;
    fiber_run_defers(NULL);
    if (guarded(WEFT_GUARD_THREADS) && m_self()->cur->lock_depth != 0)
        guard_unlocked();
    struct m *m = rt_enter();
    struct fiber *f = m->cur;
    if (f->flags & FIBER_THREAD)
        w_fatal("weft_exit called on a thread of the host; only fibers end that way");
    if (f->flags & FIBER_MAIN)
        main_fiber_ended(f->main_exits);
    fiber_end();
}

void weft_exit(void)
{
    struct m *m = rt_enter();
    if (m->cur->flags & FIBER_MAIN)
        m->cur->main_exits = true;
    rt_leave(m);
    weft_exit_from(__builtin_frame_address(0));
}

/* ---- the scheduler's stack ------------------------------------------------------------------------------------ */

/* Debug key migrate: f goes to a thread other than it ran on last, with our processor. True: it runs here. */
static bool migrate(struct m *m, struct fiber *f)
{
    if (f->ran_on == m) {
        f->ran_on = NULL; /* before it is passed on: should that thread not start, it comes back and runs here */
        if (m_pass_on(m, (runnable)f))
            return false;
    }
    f->ran_on = m;
    return true;
}

static void g0_work(struct m *m)
{
    void (*fn)(void *) = m->g0_call;
    struct fiber *f = m->cur;
    m->g0_call = NULL;
    store_rel(&f->state, FIBER_WAITING); /* rel: publishes f->sp; so the collector scans it as a parked one */
    fn(m->g0_arg);
    fiber_take(m, f);
    m->prev_to = AFTER_NOTHING;
    sanitize_switch_from_g0(m, f);
    weft_arch_switch(&m->g0_sp, f->sp);
    sanitize_switch_end_g0(m);
}

void switch_loop(struct m *m)
{
    m->g0_top = (char *)__builtin_frame_address(0) + 16; /* our own frame included, where that is said from its upper end */
    for (;;) {
        struct fiber *f;
        if (m->exiting && m_exit_locked(m))
            return;
        runnable r = schedule_next(m); /* blocks */
        if (r == 0)
            return; /* the runtime ends */
        if (run_is_task(r))
            f = fiber_bind(m->p, run_task(r));
        else
            f = run_fiber(r);
        if (unlikely(f == NULL))
            continue;
        if (unlikely(f->bound != NULL)) {
            proc_give_bound(m_disown(m), f);
            continue;
        }
        if (unlikely(sched.modes & POLL_MIGRATE) && !migrate(m, f))
            continue;
        PROBE(fiber_run, f, m, 0);
        fiber_take(m, f);
        m->switch_ticks = 0;
        m->prev_to = AFTER_NOTHING;
        sanitize_switch_from_g0(m, f);
        weft_arch_switch(&m->g0_sp, f->sp);
        sanitize_switch_end_g0(m);
        while (m->g0_call != NULL)
            g0_work(m);
        switch_finish(m);
        m->prev_to = AFTER_NOTHING;
    }
}

/* ---- for dumps and roots ---------------------------------------------------------------------------------------- */

struct task_visit { void (*fn)(struct task *t, void *arg); void *arg; };

static void task_visit(runnable r, void *visit)
{
    const struct task_visit *v = visit;
    if (r != 0 && run_is_task(r))
        v->fn(run_task(r), v->arg);
}

void tasks_each_stw(void (*fn)(struct task *t, void *arg), void *arg)
{
    struct task_visit v = { fn, arg };
    for (uint32_t i = 0; i < sched.allp_cap; i++) {
        struct p *p = sched.allp[i];
        if (p == NULL)
            continue;
        task_visit((runnable)load_rlx(&p->runq.next), &v); /* rlx: the world stands still */
        for (uint32_t h = load_rlx(&p->runq.head); h != load_rlx(&p->runq.tail); h++) /* rlx: as above */
            task_visit(load_rlx(&p->runq.slot[h % RUNQ_SIZE]), &v);
    }
    lock_take(&sched.lock); /* who comes from epoll without a processor may just be putting fibers there */
    globq_each(task_visit, &v);
    lock_drop(&sched.lock);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (load_acq(&m->dead) == M_ALIVE) /* acq: as in scan_machine */
            task_visit(m->given, &v);
}
