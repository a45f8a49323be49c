/* fork(2), and how the runtime lives on in the child.
 *
 * [FORK] The child has one thread, the one that forked, and memory as of that moment. A lock that another thread held, a list that it was
 * changing, would stay so. Hence the processors are stopped around the fork, as for statistics: whoever is inside the runtime comes to a place
 * where he holds no lock. What moves without a processor is kept still by sched.lock (threads that attach, end, wake up or go to sleep) and by
 * the monitor's own (sysmon_hold). Off-heap memory does the same for itself.
 *
 *      prepare   one fork at a time (`one`); no start or stop of the runtime (`life`); stop; the monitor; sched.lock
 *      parent    the same backwards
 *      child     the same, but that the stop stays: it says FORK_LATER, takes the processor from the calling thread, and leaves all else for later
 *
 * Most children only execute another program, or end. So what is missing is made anew when the child first calls in, which it does by the slow
 * door, having no processor (fork_child_ready): in user code, where everything is allowed that is not in a handler of fork. Then
 *   - other machines are gone. Processors idle. The monitor, the poller (epoll's registrations are the parent's as well), helpers and threads are
 *     new.
 *   - of the fibers the calling one lives. The others are dropped from queues, channels, locks and descriptors, so nothing wakes them; should
 *     something do so, they are bound to a machine that is none, and the scheduler drops them (proc_give_bound). Their stacks stay: what they reach
 *     stays alive, and what lies there may be used, as it is if a fiber waits for one that it has started, with a struct on its own stack. None
 *     of it is finalized.
 *   - timers go on, but for those with a function, which the parent runs, and those of waits that are no more.
 * Threads of the host that were parked in a channel must be taken out at once: their stacks belong to libc, which uses them again.
 *
 * Where the runtime is in a state that nobody can wait for, the child gets none (FORK_NEVER): it may end, or execute another program. That is if
 * the calling thread is inside (a signal handler, the host's log), and while another thread starts or stops the runtime.
 *
 * Handlers run in the opposite order of registration on the way in. Ours are registered after those of off-heap memory and of the malloc that the
 * process began with, and so run before them, since a stop may need memory; but after those of the host that come later, which may wait for the
 * host's locks, as nobody can hold one of them and wait for us. */
#include "sched/fork.h"
#include "sched/chan.h"
#include "sched/labels.h"
#include "sched/lot.h"
#include "sched/machine.h"
#include "sched/maxprocs.h"
#include "sched/mutator.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/seed.h"
#include "sched/service.h"
#include "sched/stack.h"
#include "sched/sysmon.h"
#include "sched/task.h"
#include "sched/world.h"
#include "os/dirty.h"
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

enum way {
    WAY_STOPPED, /* one runs, and the world is stopped */
    WAY_IDLE,    /* no runtime runs */
    WAY_AGAIN,   /* by a child that has not used the runtime yet */
    WAY_UNSURE,  /* the runtime is being started or stopped */
};

/* Taken in user code: nothing that stops the world waits for it. It guards what follows. */
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static enum way way;        /* of the fork under way */
static struct m *forking;   /* whose it is; NULL: of a thread that is not attached */
static struct m *caller;    /* in a child: the one that has forked it */

/* The thread that forks is inside the runtime: then nothing is done around it. */
static __thread bool inside __attribute__((tls_model("initial-exec")));

/* ---- around the fork ----------------------------------------------------------------------------------- */

static struct m *machine_alive(void)
{
    struct m *m = m_self();
    return m != NULL && load_acq(&m->dead) == M_ALIVE ? m : NULL; /* acq: sees the rest; rel in m_publish_locked */
}

static void stop_for_fork(void)
{
    if (forking != NULL)
        store_seq(&forking->in_runtime, 1); /* seq: as in machine_here */
    world_stop(WEFT_STOP_FORK, false);
    sysmon_hold();
    lock_take(&sched.lock);
}

static void prepare(void)
{
    struct m *m = machine_alive();
    inside = m != NULL && load_rlx(&m->in_runtime) != 0; /* rlx: our own */
    if (inside)
        return;
    pthread_mutex_lock(&one);
    forking = m;
    if (load_acq(&sched.forked) != FORK_NOT) {
        way = WAY_AGAIN;
    } else if (!runtime_life_try()) {
        way = WAY_UNSURE;
        world_own(); /* a collector needs memory, whose locks the fork takes */
    } else if (load_acq(&sched.running) == 0) {
        way = WAY_IDLE;
        lock_take(&sched.lock);
    } else {
        way = WAY_STOPPED;
        stop_for_fork();
    }
}

static void parent(void)
{
    if (inside)
        return;
    switch (way) {
    case WAY_STOPPED: {
        struct m *m = forking;
        bool tainted = m != NULL && m->tainted;
        lock_drop(&sched.lock);
        sysmon_let_go();
        if (m != NULL)
            m->tainted = true; /* so the monitor makes the threads: handlers that have not run yet may hold locks that it takes to make one */
        world_start();
        if (m != NULL) {
            m->tainted = tainted;
            world_leave(m);
        }
        runtime_life_drop();
        break;
    }
    case WAY_IDLE:
        lock_drop(&sched.lock);
        runtime_life_drop();
        break;
    case WAY_UNSURE:
        world_disown();
        break;
    case WAY_AGAIN:
        break;
    }
    pthread_mutex_unlock(&one);
}

/* ---- in the child ------------------------------------------------------------------------------------------ */

/* The next call into the runtime comes by the slow door. */
static void take_processor(struct m *m)
{
    store_rlx(&m->pstate, M_GONE); /* rlx: nobody else runs */
    m->p = NULL;
    store_rlx(&m->in_runtime, 0);
}

/* No processor runs but that of the calling fiber, which goes on in user code. It counts as working till it comes back in, however long that
 * takes. */
static void idle_processors(const struct p *callers)
{
    cpu_clock_locked();
    sched.cpu_stop = CPU_RUNS;
    for (uint32_t i = 0; i < nprocs(); i++)
        if (sched.allp[i] != callers)
            p_count_idle(sched.allp[i], true);
}

static void child_of_stop(void)
{
    bool ending = load_rlx(&sched.ending) != 0; /* rlx: under the lock */
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (m != caller && m->foreign && load_rlx(&m->dead) == M_ALIVE) /* rlx: under the lock */
            chan_forget_stw(&m->self);
    idle_processors(caller != NULL ? caller->p : NULL);
    if (caller != NULL)
        take_processor(caller);
    store_rlx(&sched.forked, ending ? FORK_NEVER : FORK_LATER); /* rlx: nobody else runs */
    lock_drop(&sched.lock);
    sysmon_let_go();
    runtime_life_drop();
    if (ending)
        runtime_lost();
}

static void child_of_none(void)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (m != m_self() && m->foreign)
            store_rlx(&m->dead, M_DEAD); /* rlx: under the lock. Its thread is no more */
    lock_drop(&sched.lock);
    runtime_life_drop();
}

static void child(void)
{
    dirty_forked();
    probe_after_fork();
    for (struct sched_guest *g = sched_guests; g != NULL; g = g->next)
        if (g->after_fork != NULL)
            g->after_fork();
    if (inside) {
        one = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        store_rlx(&sched.forked, FORK_NEVER); /* rlx: nobody else runs */
        runtime_lost();
        return;
    }
    caller = forking;
    if (caller != NULL)
        caller->tid = (int)syscall(SYS_gettid); /* here: it may be another thread that comes to use the runtime first */
    switch (way) {
    case WAY_STOPPED:
        child_of_stop();
        break;
    case WAY_IDLE:
        child_of_none();
        break;
    case WAY_UNSURE:
        world_disown();
        if (caller != NULL)
            take_processor(caller);
        store_rlx(&sched.forked, FORK_NEVER); /* rlx: as above */
        runtime_lost();
        break;
    case WAY_AGAIN:
        break;
    }
    pthread_mutex_unlock(&one);
}

/* As early as it can be, after off-heap memory. */
__attribute__((constructor(103))) static void fork_register(void) { pthread_atfork(prepare, parent, child); }

/* ---- the child's first use ------------------------------------------------------------------------------------- */

static struct m nobody = { .dead = { M_DEAD } }; /* whom fibers are bound to that are no more */

static struct fiber *callers_fiber(void)
{
    if (caller == NULL || caller->foreign)
        return NULL;
    return caller->blocking ? caller->blocked : caller->cur;
}

/* What a fiber ran that did not wait lies somewhere on its stack. */
static void lose_fiber(struct fiber *f, void *self)
{
    uint32_t state = load_rlx(&f->state); /* rlx: nobody else runs; and below */
    store_rlx(&f->pin, 0);
    if (f == self || state == FIBER_FREE || state == FIBER_DEAD)
        return;
    chan_forget_stw(f);
    labels_drop(f);
    if (state == FIBER_RUNNING) {
        f->sp = f->stack_lo;
        store_rlx(&f->state, FIBER_WAITING);
    }
    f->why = WAIT_END;
    f->bound = &nobody;
    f->flags |= FIBER_SYSTEM; /* it is not counted, nor shown */
}

static void lose_runnable(struct p *p, runnable r)
{
    if (r == 0 || !run_is_task(r))
        return;
    labels_unref(run_task(r)->labels);
    task_free(p, run_task(r));
}

static void lose_queues(void)
{
    struct p *p = sched.allp[0];
    runnable r;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (m != caller && load_rlx(&m->dead) == M_ALIVE) /* rlx: nobody else runs */
            lose_runnable(p, m->given);
    for (uint32_t i = 0; i < nprocs(); i++)
        while ((r = runq_get_next(sched.allp[i])) != 0 || (r = runq_get(sched.allp[i])) != 0)
            lose_runnable(sched.allp[i], r);
    lock_take(&sched.lock);
    while ((r = globq_get()) != 0)
        lose_runnable(p, r);
    lock_drop(&sched.lock);
}

static bool on_lost_stack(const void *addr)
{
    bool guard;
    if (stack_find((uintptr_t)addr, &guard) != NULL)
        return true;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (m != caller && m->foreign && (const char *)addr >= m->self.stack_lo && (const char *)addr < m->self.stack_hi)
            return true;
    return false;
}

static enum timer_fate timer_fate(const struct timer *t)
{
    return on_lost_stack(t) ? TIMER_GONE : timer_runs_function(t) ? TIMER_STOP : TIMER_KEEP;
}

/* Everyone idles but the caller, who has no processor at the moment. */
static void reset_processors(bool counts, bool system)
{
    lock_take(&sched.lock);
    sched.idle_p = NULL;
    store_rlx(&sched.nidle_p, 0); /* rlx: nobody else runs; and below */
    for (uint32_t i = nprocs(); i-- > 0;) {
        struct p *p = sched.allp[i];
        store_rlx(&p->owner, NULL);
        p_idle_put(p);
    }
    for (uint32_t i = 0; i < sched.allp_cap && sched.allp[i] != NULL; i++) { /* those that are no more have counted, too */
        store_rlx(&sched.allp[i]->fibers_made, i == 0 && counts);
        store_rlx(&sched.allp[i]->fibers_ended, 0);
    }
    store_rlx(&sched.system_made, system);
    store_rlx(&sched.system_ended, 0);
    sched.idle_m = NULL;
    sched.nidle_m = 0;
    lock_drop(&sched.lock);
    store_rlx(&sched.nspinning, 0);
    store_rlx(&sched.poll_until_ns, 0);
}

/* Who is there to see the runtime end? */
static void reset_threads(void)
{
    bool ours = caller != NULL && !caller->foreign, main = ours && caller->main;
    store_rlx(&sched.nthreads, ours && !main); /* rlx: nobody else runs; and below */
    store_rlx(&sched.threads_ended, load_rlx(&sched.threads_made) - load_rlx(&sched.nthreads));
    if (!main)
        sched.main_m = NULL;
    sched.orphan = ours && !main;
    sched.host_main = !ours; /* weft_stop is for a thread of the host, whoever started */
    sched.nactive = (caller != NULL) + (uint32_t)sched.host_main;
}

static void make_anew(void)
{
    struct fiber *self = callers_fiber();
    lose_queues();
    stack_each(0, 1, lose_fiber, self);
    timers_forget_stw(timer_fate);
    machines_after_fork(caller);
    lot_reset();
    bool system = self != NULL && ((self->flags & FIBER_SYSTEM) || mutator_has(self));
    reset_processors(self != NULL && !system, system && !(self->flags & FIBER_THREAD));
    reset_threads();
    mutator_after_fork(self);
    maxprocs_after_fork();
    seed_after_fork();
    int err = netpoll_after_fork();
    if (err != 0)
        w_fatal("the child of a fork gets no descriptors for epoll (error %d): raise the limit of open files", -err);
    world_after_fork();
    services_after_fork();
    if ((err = sysmon_start()) != 0)
        w_fatal("the child of a fork gets no thread (error %d): raise the limit of processes (ulimit -u) or of address space", -err);
}

int fork_child_ready_slow(void)
{
    pthread_mutex_lock(&one);
    int err = 0;
    if (load_rlx(&sched.forked) == FORK_NEVER) { /* rlx: under the lock */
        err = -ESRCH;
    } else if (load_rlx(&sched.forked) == FORK_LATER) { /* rlx: as above */
        struct m *m = m_self();
        bool enters = m != NULL && m == caller && load_rlx(&m->in_runtime) == 0; /* rlx: our own */
        if (enters)
            store_seq(&m->in_runtime, 1); /* seq: as in machine_here. The fibers that are started at the end may collect */
        make_anew();
        store_rel(&sched.forked, FORK_NOT); /* rel: publishes all of it; acq in fork_child_ready */
        gc_after_fork_child();
        if (enters)
            world_leave(m);
    }
    pthread_mutex_unlock(&one);
    return err;
}
