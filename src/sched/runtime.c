/* The runtime's life, and the public calls that are one step away from the scheduler.
 *
 * Start: settings, stacks, collector, processors; the calling thread becomes the main machine (weft_run); the monitor; then threads of the host
 * may call in, with weft_start the calling one first. End: `ending` is set, each machine leaves its fiber at its next step inside weft and its
 * thread returns; the last step unmaps everything. A fiber that stays in user code keeps its thread: it is waited for as long as
 * stop_timeout_ms says, and then everything stays mapped and the runtime is broken for good. */
#include "base/fail.h"
#include "base/fmt.h"
#include "base/offheap.h"
#include "os/affinity.h"
#include "os/clock.h"
#include "os/copies.h"
#include "os/dirty.h"
#include "os/futex.h"
#include "os/procself.h"
#include "os/signal.h"
#include "sched/fork.h"
#include "sched/guard.h"
#include "sched/labels.h"
#include "sched/latency.h"
#include "sched/machine.h"
#include "sched/maxprocs.h"
#include "sched/mutator.h"
#include "sched/report.h"
#include "sched/lot.h"
#include "sched/runq.h"
#include "sched/sanitize.h"
#include "sched/seed.h"
#include "sched/service.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/task.h"
#include "sched/sysmon.h"
#include "sched/world.h"
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern struct exceptions *__cxa_get_globals(void) __attribute__((weak));

struct sched sched = { .lock = LOCK_INIT(RANK_SCHED) };
struct sched_reports sched_reports;
struct sched_guest *sched_guests;

void sched_guest_add(struct sched_guest *g)
{
    g->next = sched_guests;
    sched_guests = g;
}

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER; /* start and stop; never taken by fibers */
static bool broken; /* a stop timed out, or we are the child of a fork that cannot go on; under life */

/* ---- saying things ------------------------------------------------------------------------------------- */

void sched_log(const char *line)
{
    if (sched.cfg.log != NULL) {
        sched.cfg.log(sched.cfg.log_arg, line);
        return;
    }
    char buf[1024];
    size_t n = w_fmt(buf, sizeof buf, "%s\n", line);
    if (n < sizeof buf) { /* in one piece, lest another's line comes between */
        w_write_all(2, buf, n);
        return;
    }
    w_write_all(2, line, n - 1);
    w_write_all(2, "\n", 1);
}

void sched_logf(const char *fmt, ...)
{
    char buf[1024];
    va_list ap;
    va_start(ap, fmt);
    w_vfmt(buf, sizeof buf, fmt, ap);
    va_end(ap);
    sched_log(buf);
}

static void say(void *arg, const char *line)
{
    const weft_config *cfg = arg;
    if (cfg != NULL && cfg->size >= offsetof(weft_config, log_arg) + sizeof cfg->log_arg && cfg->log != NULL)
        cfg->log(cfg->log_arg, line);
    else {
        w_write_all(2, line, strlen(line));
        w_write_all(2, "\n", 1);
    }
}

/* ---- processors ------------------------------------------------------------------------------------------ */

static struct p *p_new(uint32_t id)
{
    struct p *p = off_alloc_aligned(OFF_SCHED, sizeof *p, W_CACHELINE);
    if (p == NULL)
        return NULL;
    p->id = id;
    rng_seed(&p->rng, load_rlx(&seed_on) != 0 ? seed_value() : (uint64_t)os_now_ns() + id);
    latency_init(p, (uint64_t)os_now_ns() + id);
    timers_init(&p->timers);
    if (gc_cache_init(&p->gc) != 0) {
        off_free(OFF_SCHED, p);
        return NULL;
    }
    return p;
}

static void p_free(struct p *p)
{
    if (load_rlx(&p->status) != P_DEAD) /* rlx: nobody runs */
        gc_cache_fini(&p->gc);
    timers_fini(&p->timers);
    off_free(OFF_SCHED, p);
}

/* All that p has goes to others. In a stop, under sched.lock. */
static void p_empty(struct p *p)
{
    runnable r;
    while ((r = runq_get_next(p)) != 0 || (r = runq_get(p)) != 0)
        globq_put(r);
    timers_move(p, sched.allp[0]);
    gc_cache_fini(&p->gc);
    task_flush(p);
}

static void idle_remove(struct p *p)
{
    for (struct p **at = &sched.idle_p; *at != NULL; at = &(*at)->idle_next)
        if (*at == p) {
            *at = p->idle_next;
            sub_seq(&sched.nidle_p, 1);
            return;
        }
}

/* The machine that has p, running, stopped or to get it back; NULL: none. In a stop. */
static struct m *p_holder(struct p *p, bool *taken)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) {
        if (m->taken == p) {
            *taken = true;
            return m;
        }
        if (m->p == p && load_rlx(&m->pstate) != M_GONE) { /* rlx: the world stands still */
            *taken = false;
            return m;
        }
    }
    return NULL;
}

static void p_withdraw(struct p *p)
{
    bool taken;
    struct m *m = p_holder(p, &taken);
    if (m == NULL) {
        idle_remove(p);
    } else if (taken) {
        PROBE(proc_lost, p, m, 0);
        m->taken = NULL;
    } else {
        m_disown(m);
    }
}

/* Those from old on have a cache; false: none of them has, for want of memory. In a stop. */
static bool procs_make(uint32_t old, uint32_t n)
{
    for (uint32_t i = old; i < n; i++)
        if (sched.allp[i] == NULL ? (sched.allp[i] = p_new(i)) == NULL : gc_cache_init(&sched.allp[i]->gc) != 0) {
            while (i-- > old) {
                gc_cache_fini(&sched.allp[i]->gc);
                store_rlx(&sched.allp[i]->status, P_DEAD); /* rlx: in a stop */
            }
            return false;
        }
    return true;
}

int procs_resize(uint32_t n)
{
    struct m *self = m_self();
    uint32_t old = nprocs();
    if (!procs_make(old, n))
        return -ENOMEM;
    lock_take(&sched.lock);
    if (self->p != NULL && self->p->id >= n) { /* the caller goes on with a processor that stays */
        p_withdraw(sched.allp[0]);
        m_disown(self);
        m_own(self, sched.allp[0]);
    }
    for (uint32_t i = n; i < old; i++) {
        struct p *p = sched.allp[i];
        p_withdraw(p);
        p_count_idle(p, false);
        p_empty(p);
        store_rlx(&p->status, P_DEAD); /* rlx: in a stop */
    }
    cpu_clock_locked();
    store_rel(&sched.nprocs, n); /* rel: publishes allp; acq in nprocs */
    store_rel(&sched.allp_used, w_max(n, allp_used())); /* rel: as above */
    for (uint32_t i = old; i < n; i++)
        p_idle_put(sched.allp[i]);
    lock_drop(&sched.lock);
    for (uint32_t i = n; i < old; i++)
        stack_flush(sched.allp[i]);
    PROBE(proc_resize, old, n, 0);
    return 0;
}

int weft_num_cpu(void) { return sched.ncpu != 0 ? (int)sched.ncpu : os_cpu_count(); }

int weft_set_max_threads(int n)
{
    rt_enter();
    int64_t old = load_rlx(&sched.max_threads); /* rlx: a setting */
    if (n >= 1) {
        store_rlx(&sched.max_threads, n);
        m_check_limit(load_rlx(&sched.nthreads)); /* rlx: as of about now */
    }
    rt_leave(m_self());
    return (int)old;
}

/* ---- faults: written pages, overflow of a stack ------------------------------------------------------------------------------------ */

static enum signal_whose fault(int sig, siginfo_t *info, void *uc)
{
    if (sig == SIGSEGV && info->si_code > 0 && dirty_fault((uintptr_t)info->si_addr, arch_uc_pc(uc)))
        return SIGNAL_OURS;
    bool guard = false;
    struct fiber *f = info->si_code > 0 ? stack_find((uintptr_t)info->si_addr, &guard) : NULL;
    if (f == NULL || !guard) {
        if (sched_reports.fault != NULL)
            sched_reports.fault();
        return SIGNAL_HOSTS;
    }
    /* The guard may be that of a neighbour, if a frame jumped over its own: it is the running fiber that did it. */
    struct m *m = m_self();
    struct fiber *on = m == NULL ? NULL : m->blocking ? m->blocked : m->cur;
    char site[160] = "", pc[160] = "";
    if (on != NULL && !(on->flags & FIBER_THREAD))
        f = on;
    if (sched_reports.describe_pc != NULL) {
        sched_reports.describe_pc(f->site, site, sizeof site);
        sched_reports.describe_pc((void *)(arch_uc_pc(uc) + 1), pc, sizeof pc); /* it has not returned */
    }
    w_fatal("stack overflow: fiber %lu%s%s used all of its stack of %lu KiB, at %p %s; it was made at %p %s. Give it more with stack_size "
            "(weft_go_opts_run, weft_config)",
            (unsigned long)f->id, f->name ? " " : "", f->name ? f->name : "", (1ul << f->stack_log2) >> 10, (void *)arch_uc_pc(uc), pc, f->site,
            site);
}

/* ---- start ---------------------------------------------------------------------------------------------------- */

static int procs_start(void)
{
    uint32_t n = maxprocs_start();
    sched.allp_cap = MAX_PROCS;
    sched.allp = off_zalloc(OFF_SCHED, MAX_PROCS * sizeof *sched.allp);
    if (sched.allp == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        if ((sched.allp[i] = p_new(i)) == NULL)
            return -ENOMEM;
    lock_take(&sched.lock);
    sched.cpu_at_ns = os_now_ns();
    store_rel(&sched.nprocs, n); /* rel: as in procs_resize */
    store_rel(&sched.allp_used, n);
    for (uint32_t i = n; i-- > 0;)
        p_idle_put(sched.allp[i]);
    lock_drop(&sched.lock);
    return 0;
}

static void procs_end(void)
{
    maxprocs_end();
    for (uint32_t i = 0; sched.allp != NULL && i < sched.allp_cap; i++)
        if (sched.allp[i] != NULL)
            p_free(sched.allp[i]);
    off_free(OFF_SCHED, sched.allp);
    sched.allp = NULL;
}

static w_u64 life_number; /* sched.run, for who may look at any time */

static void sched_reset(const struct config *cfg, bool host_main)
{
    /* The lock stays: the last thread of the life before may still be about to drop it, and a thread of the host may be ending. */
    lock_take(&sched.lock);
    struct m *kept = load_rlx(&sched.all_m); /* rlx: under the lock; machines of host threads live on */
    uint32_t next_m_id = sched.next_m_id;
    memset((char *)&sched + sizeof sched.lock, 0, sizeof sched - sizeof sched.lock);
    globq_start();
    store_rlx(&sched.all_m, kept);
    sched.run = load_rlx(&life_number) + 1; /* rlx: under the lock */
    store_rlx(&life_number, sched.run);     /* rlx: goes before running (rel in runtime_up), so who sees that it runs (acq in weft_running) has its number */
    lock_drop(&sched.lock);
    sched.next_m_id = next_m_id;
    sched.cfg = *cfg;
    sched.host_main = host_main;
    sched.nactive = 1; /* who starts: nothing is asleep for ever before it has come to run */
    store_rlx(&sched.next_fiber_id, host_main ? 1 : 0); /* rlx: nobody runs. 1 is the main fiber, where there is one */
    lock_init(&sched.take_lock, RANK_TAKE);
    store_rlx(&sched.max_threads, cfg->max_threads);
    sched.stop_signal = (int)cfg->stop_signal;
    sched.stack_log2 = stack_log2((size_t)cfg->stack_size);
    sched.ncpu = cfg->cpus > 0 ? (uint32_t)cfg->cpus : (uint32_t)os_cpu_count();
    sched.start_ns = os_now_ns();
    sched.exceptions = __cxa_get_globals; /* the program's, if the library was linked into it */
    if (sched.exceptions == NULL)
        sched.exceptions = (struct exceptions *(*)(void))dlsym(RTLD_DEFAULT, "__cxa_get_globals");
    sched.lock_waited_ns = lock_waited_ns();
    store_rlx(&sched.coarse_ns, sched.start_ns);
    sched.modes = (cfg->schedseed != 0 ? POLL_SEEDED : 0) | (cfg->migrate != 0 ? POLL_MIGRATE : 0);
    seed_start((uint64_t)cfg->schedseed);
}

/* The calling thread becomes the main machine, with a processor and the first ids: before threads of the host may call in, and take them. */
static int main_machine(void)
{
    if (m_self() != NULL) /* attached to an earlier life of the runtime */
        m_detach(m_self());
    lock_take(&sched.lock);
    struct m *m = m_new();
    lock_drop(&sched.lock);
    if (m == NULL)
        return -ENOMEM;
    m->main = true;
    m_thread_setup(m);
    lock_take(&sched.lock);
    struct p *p = p_idle_get();
    p->id_next = 1;
    p->id_end = 1 + IDS_RESERVED;
    store_rlx(&sched.next_fiber_id, IDS_RESERVED); /* rlx: nobody else runs yet */
    m_own(m, p);
    sched.main_m = m;
    m_publish_locked(m);
    lock_drop(&sched.lock);
    return 0;
}

static void main_machine_undo(void)
{
    if (sched.main_m != NULL)
        m_thread_teardown(sched.main_m);
    machines_free();
}

static void unhook_faults(void)
{
    signal_unhook(SIGSEGV);
    signal_unhook(SIGBUS);
}

static void modes_begin(const struct config *c)
{
    fail_arm(FAIL_MEM, (uint64_t)c->failmem, (uint64_t)c->failrun);
    fail_arm(FAIL_THREAD, (uint64_t)c->failthread, (uint64_t)c->failrun);
    fail_arm(FAIL_FD, (uint64_t)c->failfd, (uint64_t)c->failrun);
    fail_arm(FAIL_DIRTY, (uint64_t)c->faildirty, (uint64_t)c->failrun);
}

static void modes_end(void)
{
    seed_end();
    fail_disarm();
}

/* Each step that can fail undoes what came before it. */
static int runtime_up(const weft_config *cfg, bool host_main)
{
    struct config c;
    int err = config_load(cfg, &c, say, (void *)(uintptr_t)cfg);
    if (err != 0)
        return err;
    modes_begin(&c);
    if ((err = off_init()) != 0) {
        modes_end();
        return err;
    }
    if (!copies_enter()) {
        say((void *)(uintptr_t)cfg,
            "weft: another copy of the library runs in this process; link libweft.so everywhere, or one libweft.a and that only once");
        modes_end();
        return -EALREADY;
    }
    sched_reset(&c, host_main);
    if ((err = world_start_up()) != 0) {
        copies_leave();
        modes_end();
        return err;
    }
    if ((err = stack_start()) == 0 && (err = task_start()) == 0 && (err = netpoll_start()) == 0) {
        if ((err = mutator_start()) == 0) {
            if ((err = procs_start()) == 0 && (err = host_main ? 0 : main_machine()) == 0 && (err = signal_hook(SIGSEGV, fault, false)) == 0) {
                if ((err = signal_hook(SIGBUS, fault, false)) == 0 && (err = sysmon_start()) == 0) {
                    store_rel(&sched.running, 1); /* rel: publishes all of it; acq in machine_here, m_attach, weft_running */
                    return 0;
                }
                unhook_faults();
            }
            main_machine_undo();
            procs_end();
            mutator_end();
        }
        netpoll_end();
        task_end();
    }
    world_end();
    copies_leave();
    modes_end();
    return err;
}

/* ---- end -------------------------------------------------------------------------------------------------------- */

void runtime_end(int result)
{
    lock_take(&sched.lock);
    if (load_rlx(&sched.ending) != 0) { /* rlx: under the lock */
        lock_drop(&sched.lock);
        return;
    }
    sched.result = result;
    store_seq(&sched.ending, 1);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (!m->foreign) {
            or_acq_rel(&m->poll, POLL_END);
            if (load_acq(&m->sleep) == 1)
                m_wake(m);
        }
    lock_drop(&sched.lock);
    netpoll_break();
}

void runtime_leave_fiber(struct m *m)
{
    struct fiber *f = m->cur;
    if (f == NULL) { /* parked in place, or between weft_blocking_begin and _end */
        void *drop;
        m->prev_to = AFTER_NOTHING; /* what the fiber that was left last here wanted is done long ago */
        sanitize_switch_to_g0(NULL, m, true);
        weft_arch_switch(&drop, m->g0_sp);
        __builtin_unreachable();
    }
    m->prev = f;
    m->prev_to = AFTER_NOTHING;
    __atomic_store_n(&m->cur, NULL, __ATOMIC_RELEASE); /* rel: acq in thread_stopped */
    sanitize_switch_to_g0(f, m, false);
    weft_arch_switch(&f->sp, m->g0_sp);
    __builtin_unreachable();
}

void main_fiber_ended(bool by_exit)
{
    if (by_exit)
        return;
    runtime_end(0);
    runtime_leave_fiber(m_self());
}

void fibers_count(uint64_t *made, uint64_t *ended)
{
    uint32_t n = allp_used();
    *made = *ended = 0;
    for (uint32_t i = 0; i < n; i++)
        *ended += load_acq(&sched.allp[i]->fibers_ended); /* acq: sees them made; rel in fiber_end */
    for (uint32_t i = 0; i < n; i++)
        *made += load_rlx(&sched.allp[i]->fibers_made); /* rlx: counters, racy by contract */
}

int64_t fibers_alive(void)
{
    uint64_t made, ended;
    fibers_count(&made, &ended);
    return (int64_t)(made - ended);
}

/* Ours, and those of the host that have called in. */
static int known_threads(void)
{
    int others = sched.orphan && !sched.orphan_leaderless ? 1 : 2; /* the monitor, the main thread if that is not one of ours */
    int known = (int)load_acq(&sched.nthreads) + others + (int)world_helpers() + (int)services_count(SERVICE_PROF);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        known += load_acq(&m->dead) == M_ALIVE && m->foreign; /* acq: sees the rest; rel in m_publish_locked */
    return known;
}

/* Threads that we do not know of: each may be about to call in and wake somebody. Under sched.lock, or one might become known between the counts and not
 * be counted active. A helper that ends in between would hide one, so those that are known are counted again; if they have changed there may be some, and the
 * monitor looks again. */
static bool strangers(void)
{
    lock_check_held(&sched.lock);
    int known = known_threads(), n = os_thread_count();
#ifdef W_TSAN
    n -= n > known + 1 ? 2 : 1; /* it has a thread of its own, in a child of a fork two */
#endif
    return n != known || known != known_threads();
}

/* Nothing of ours will ever wake anybody: no work, no timer, no descriptor. Under sched.lock. */
static bool asleep_for_ever(void)
{
    if (sched.host_main || sched.nactive != 0 || load_rlx(&sched.global_len) != 0) /* rlx: under the lock */
        return false;
    for (uint32_t i = 0; i < nprocs(); i++)
        if (!runq_empty(sched.allp[i]))
            return false;
    return load_rlx(&sched.stopping) == 0 && load_rlx(&sched.ending) == 0 && !timers_any() && netpoll_waiters() == 0; /* rlx: set under the lock */
}

void runtime_idle_locked(void)
{
    bool dead = asleep_for_ever();
    bool ended = dead && fibers_alive() == 0; /* the main fiber has called weft_exit, and all have ended */
    dead = dead && ((ended && !sched.orphan) || !strangers()); /* an orphan's end ends the process, and so these */
    lock_drop(&sched.lock);
    if (dead)
        runtime_end(ended ? 0 : -EDEADLK);
}

static void report_deadlock(void)
{
    sched_logf("weft: all fibers are asleep - deadlock: %ld wait, no timer or descriptor can wake one", (long)fibers_alive());
    if (sched_reports.dump_all != NULL)
        sched_reports.dump_all(sched_log);
}

static void free_fiber(struct fiber *f, void *arg)
{
    (void)arg;
    uint32_t s = load_rlx(&f->state); /* rlx: nobody runs */
    if (s == FIBER_FREE || s == FIBER_DEAD)
        return;
    for (struct deferred *d = f->defers, *next; d != NULL; d = next) {
        next = d->next;
        off_free(OFF_FIBER, d);
    }
    labels_drop(f);
}

static void free_labels(const struct task *copy, const struct task *at, void *arg)
{
    (void)at, (void)arg;
    labels_unref(copy->labels);
}

/* From here on a thread of the host that ends leaves its machine and nothing else. */
static void running_end(void)
{
    lock_take(&sched.lock);
    store_rel(&sched.running, 0); /* rel: as ever for those who look without the lock */
    lock_drop(&sched.lock);
}

#define STOP_LOOK_NS 10000000

/* What is left of the stop time-out, after a wait since began_ns. No more than one look's time of it counts: while the whole process stood still,
 * those whom it waits for did, too. */
static int64_t stop_left(int64_t left_ns, int64_t began_ns)
{
    return left_ns == INT64_MAX ? left_ns : left_ns - w_min(os_now_ns() - began_ns, STOP_LOOK_NS);
}

static int64_t stop_timeout_ns(void) { return sched.cfg.stop_timeout_ms < 0 ? INT64_MAX : sched.cfg.stop_timeout_ms * 1000000; }

static bool threads_ended(void)
{
    int64_t left_ns = stop_timeout_ns();
    uint32_t n;
    while ((n = load_acq(&sched.nthreads)) != 0) { /* acq: sees what they did */
        if (left_ns <= 0)
            return false;
        int64_t began_ns = os_now_ns();
        os_futex_wait(&sched.nthreads, n, left_ns == INT64_MAX ? -1 : w_min(left_ns, STOP_LOOK_NS));
        left_ns = stop_left(left_ns, began_ns);
    }
    lock_take(&sched.lock); /* the last one counted itself out under it: now it has left it, too */
    lock_drop(&sched.lock);
    return true;
}

/* Our machines have left, so what they made ready for threads of the host has nobody else to hand it on. */
static void hosts_go_on(void)
{
    struct p *seen = NULL, *p;
    lock_take(&sched.lock);
    while ((p = p_idle_get()) != NULL) {
        runnable r = 0;
        while ((r = runq_get_next(p)) != 0 || (r = runq_get(p)) != 0 || (r = globq_get()) != 0)
            if (!run_is_task(r) && (run_fiber(r)->flags & FIBER_THREAD) && load_rlx(&run_fiber(r)->bound->dead) == M_ALIVE) /* rlx: under the lock */
                break;
        if (r != 0) {
            m_own(run_fiber(r)->bound, p);
            sched.nactive++;
            m_wake(run_fiber(r)->bound);
        } else {
            p->idle_next = seen;
            seen = p;
        }
    }
    while ((p = seen) != NULL) {
        seen = p->idle_next;
        p_idle_put(p);
    }
    lock_drop(&sched.lock);
}

/* Threads of the host that are in the middle of a call: they finish it, or wait in it for what will not come. Returns such a one, at the time-out; 0:
 * none. */
static int hosts_outside(void)
{
    int64_t left_ns = stop_timeout_ns();
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        /* acq: sees what the call did; rel in rt_leave, call_back. in_runtime first: see call_away */
        while (m->foreign && load_acq(&m->dead) == M_ALIVE && (load_acq(&m->in_runtime) != 0 || load_acq(&m->away) != 0)) {
            if (left_ns <= 0)
                return m->tid;
            int64_t began_ns = os_now_ns();
            hosts_go_on();
            usleep(200);
            left_ns = stop_left(left_ns, began_ns);
        }
    return 0;
}

/* All machines but the caller's own have been told to end. */
static int runtime_down(void)
{
    int result = sched.result;
    sysmon_end(); /* first, since it makes threads for others */
    if (!threads_ended()) {
        broken = true;
        running_end();
        sched_logf("weft: %u threads are still in fibers that did not call weft within the stop time-out; the runtime stays mapped",
                   load_rlx(&sched.nthreads));
        return -EBUSY;
    }
    if (result == -EDEADLK)
        report_deadlock();
    int inside = hosts_outside();
    running_end();
    world_fence(); /* who came in since is seen below, or sees that nothing runs any more: [ENTRY] */
    if (inside != 0 || (inside = hosts_outside()) != 0) {
        broken = true;
        sched_logf("weft: thread %d of the host is still in a call, in which it waits for ever; the runtime stays mapped", inside);
        return result != 0 ? result : -EBUSY;
    }
    for (struct sched_guest *g = sched_guests; g != NULL; g = g->next)
        if (g->end != NULL)
            g->end();
    if (sched_reports.end != NULL)
        sched_reports.end();
    world_end();
    stack_each(0, 1, free_fiber, NULL);
    tasks_each(free_labels, NULL);
    netpoll_end();
    procs_end(); /* caches give their spans back to the heap */
    mutator_end();
    unhook_faults(); /* pages of the heap may have been armed till now */
    lot_reset(); /* those who still waited lie on the stacks */
    stack_end();
    task_end();
    machines_free();
    off_release();
    copies_leave();
    modes_end();
    return result;
}

/* ---- forks ------------------------------------------------------------------------------------------------------------ */

bool runtime_life_try(void) { return pthread_mutex_trylock(&life) == 0; }
void runtime_life_drop(void) { pthread_mutex_unlock(&life); }

void runtime_lost(void)
{
    life = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    broken = true;
    store_rlx(&sched.running, 0); /* rlx: nobody else runs */
}

void runtime_orphan_end(void)
{
    if (!cas_acq_rel(&sched.orphan_ends, 0, 1))
        return;
    pthread_mutex_lock(&life);
    int result = runtime_down();
    pthread_mutex_unlock(&life);
    exit(result == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

/* ---- the public side ------------------------------------------------------------------------------------------------ */

static int run_main(weft_fn *fn, void *arg)
{
    struct m *m = sched.main_m;
    weft_go_opts opts = { .size = sizeof opts, .stack_size = (size_t)sched.cfg.main_stack_size };
    int err = sched_spawn(fn, arg, &opts, __builtin_return_address(0), FIBER_MAIN);
    if (err == 0)
        switch_loop(m);
    else
        runtime_end(err);
    m_leave(m);
    return err;
}

/* The calling thread is ours. It must not wait for `life`: whoever ends the runtime waits for it. */
static bool on_fiber(void)
{
    struct m *m = m_self();
    return m != NULL && !m->foreign;
}

static void guests_begin(void)
{
    for (struct sched_guest *g = sched_guests; g != NULL; g = g->next)
        if (g->begin != NULL)
            g->begin();
}

int weft_run(weft_fn *main_fn, void *arg, const weft_config *cfg)
{
    if (main_fn == NULL)
        return -EINVAL;
    if (on_fiber())
        return -EALREADY;
    pthread_mutex_lock(&life);
    int err = broken ? -EBUSY : load_acq(&sched.running) != 0 ? -EALREADY : runtime_up(cfg, false);
    pthread_mutex_unlock(&life);
    if (err != 0)
        return err;
    guests_begin();
    err = run_main(main_fn, arg);
    pthread_mutex_lock(&life);
    int end = runtime_down();
    pthread_mutex_unlock(&life);
    return err != 0 ? err : end;
}

int weft_start(const weft_config *cfg)
{
    if (on_fiber())
        return -EALREADY;
    pthread_mutex_lock(&life);
    int err = broken ? -EBUSY : load_acq(&sched.running) != 0 ? -EALREADY : runtime_up(cfg, true);
    struct m *m;
    if (err == 0) {
        err = m_attach(&m);
        if (err == 0) {
            rt_own(m); /* others may have begun to stop the world */
            rt_leave(m);
            guests_begin();
        } else {
            runtime_end(0);
            runtime_down();
        }
    }
    pthread_mutex_unlock(&life);
    return err;
}

int weft_stop(void)
{
    if (on_fiber())
        return -EPERM;
    fork_child_ready();
    pthread_mutex_lock(&life);
    int err = -ESRCH;
    struct m *m = m_self();
    if (load_acq(&sched.running) != 0) {
        err = -EPERM;
        if (sched.host_main) {
            if (m != NULL && m->run == sched.run)
                m_detach(m);
            runtime_end(0);
            err = runtime_down();
        }
    }
    pthread_mutex_unlock(&life);
    return err;
}

bool weft_running(void) { return load_acq(&sched.running) != 0; } /* acq: sees life_number; rel in runtime_up */
uint64_t weft_life(void) { return load_rlx(&life_number); } /* rlx: see there */

int weft_attach(void)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return load_acq(&sched.running) != 0 ? -ENOMEM : -ESRCH;
    rt_leave(m);
    return 0;
}

int weft_detach(void)
{
    struct m *m = m_self();
    if (m == NULL || m->run != sched.run)
        return 0;
    if (!m->foreign)
        return -EPERM;
    if (m->blocking)
        w_fatal("a weft function was called between weft_blocking_begin and weft_blocking_end");
    m_detach(m);
    return 0;
}

int64_t weft_now(void) { return sched_now_ns(); }

static int go(weft_fn *fn, void *arg, const weft_go_opts *opts, const void *site)
{
    if (fn == NULL || (opts != NULL && opts->size != sizeof *opts))
        return -EINVAL;
    struct m *m = rt_enter_if_running();
    if (unlikely(m == NULL))
        return load_acq(&sched.running) != 0 ? -ENOMEM : -ESRCH;
    int err = sched_spawn(fn, arg, opts, site, 0);
    rt_leave(m);
    return err;
}

int weft_go(weft_fn *fn, void *arg) { return go(fn, arg, NULL, __builtin_return_address(0)); }

int weft_go_opts_run(weft_fn *fn, void *arg, const weft_go_opts *opts) { return go(fn, arg, opts, __builtin_return_address(0)); }

void weft_yield(void)
{
    rt_enter();
    fiber_yield();
    rt_leave(m_self());
}

int weft_defer(weft_fn *fn, void *arg)
{
    if (fn == NULL)
        return -EINVAL;
    struct m *m = rt_enter();
    struct fiber *f = m->cur;
    int err = 0;
    struct deferred *d = NULL;
    if (f->flags & FIBER_THREAD)
        err = -EPERM;
    else if ((d = off_alloc(OFF_FIBER, sizeof *d)) == NULL)
        err = -ENOMEM;
    else {
        *d = (struct deferred){ f->defers, fn, arg };
        f->defers = d;
    }
    rt_leave(m);
    return err;
}

uint64_t weft_fiber_id(void)
{
    struct m *m = m_self();
    return m != NULL && m->run == sched.run && m->cur != NULL ? m->cur->id : 0;
}

void weft_set_name(const char *name)
{
    struct m *m = rt_enter();
    m->cur->name = name;
    rt_leave(m);
}

int64_t weft_num_fibers(void)
{
    struct m *m = rt_enter();
    uint64_t made, ended;
    fibers_count(&made, &ended);
    PROBE(fibers_counted, made - ended, made, __builtin_return_address(0));
    rt_leave(m);
    return (int64_t)(made - ended);
}

int weft_lock_os_thread(void)
{
    struct m *m = rt_enter();
    struct fiber *f = m->cur;
    int err = 0;
    if (guarded(WEFT_GUARD_THREADS) && f->lock_depth == 0 && !(f->flags & FIBER_THREAD)) {
        rt_leave(m);
        guard_lock();
        m = rt_enter();
    }
    if (f->lock_depth == UINT32_MAX)
        err = -EOVERFLOW;
    else if (f->lock_depth++ == 0) {
        f->lock_site = __builtin_return_address(0);
        f->bound = m;
        m->tainted = true;
        __atomic_store_n(&m->locked, f, __ATOMIC_RELAXED); /* rlx: for show */
    }
    rt_leave(m);
    return err;
}

void weft_unlock_os_thread(void)
{
    struct m *m = rt_enter();
    struct fiber *f = m->cur;
    if (f->lock_depth != 0 && --f->lock_depth == 0 && !(f->flags & FIBER_THREAD)) {
        f->bound = NULL;
        __atomic_store_n(&m->locked, NULL, __ATOMIC_RELAXED); /* rlx: for show */
        m->tainted = false; /* what it did to the thread is undone now, by contract */
        rt_leave(m);
        if (guarded(WEFT_GUARD_THREADS))
            guard_unlocked();
        return;
    }
    rt_leave(m);
}
