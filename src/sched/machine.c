/* Threads and their hold on processors.
 *
 * A machine's P changes hands in three ways: the owner gives it up (m_disown), another takes it while the owner is in user code (p_take, [ENTRY]), or
 * a waker gives one to a sleeping machine (m_own before m_wake, under sched.lock). The last two happen only while no stop is wanted, or by the
 * stopper itself; so after the stopper has held sched.lock once, no P moves.
 *
 * Threads are made by whoever needs one, except by a thread that may be tainted: one that is locked to a fiber, or the host's. These ask sysmon,
 * which is ours and never runs a fiber, so a new thread inherits nothing that a fiber did to its own.
 *
 * struct m is never freed while the runtime runs (others may be looking at it), and stays in the list; dead ones are reused. Those of host threads
 * outlive the runtime, as the thread keeps a pointer to it: a look at m->run tells whether it belongs to this life. Until that thread has ended or
 * attached again nobody else may have it (M_ABSENT). */
#include "sched/machine.h"
#include "sched/fork.h"
#include "sched/guard.h"
#include "sched/labels.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/schedule.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/sysmon.h"
#include "sched/world.h"
#include "sched/sanitize.h"
#include "base/fail.h"
#include "os/futex.h"
#include "os/vm.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

__thread struct m *weft_tls_m;

#define ALTSTACK_BYTES (64u << 10)

/* ---- processors ------------------------------------------------------------------------------------ */

void cpu_clock_locked(void)
{
    lock_check_held(&sched.lock);
    int64_t now = os_now_ns(), since = now - sched.cpu_at_ns;
    sched.cpu_at_ns = now;
    sched.cpu_total_ns += since * nprocs();
    if (sched.cpu_stop == CPU_RUNS)
        sched.cpu_idle_ns += since * sched.cpu_idle_procs;
    else if (sched.cpu_stop == CPU_COLLECTS)
        sched.cpu_stopped_ns += since * nprocs();
}

/* Two looks at the clock would be most of a short call by a thread of the host, which takes a processor and gives it back: so p is not counted as
 * working there. */
void p_count_idle(struct p *p, bool idle)
{
    lock_check_held(&sched.lock);
    if (p->idle_counted == idle)
        return;
    cpu_clock_locked();
    p->idle_counted = idle;
    sched.cpu_idle_procs += idle ? 1 : -1;
}

void m_own(struct m *m, struct p *p)
{
    if (!m->foreign)
        p_count_idle(p, false);
    m->p = p;
    store_rel(&p->owner, m); /* rel: publishes *m, which a new machine has in no list yet; acq in retake */
    store_rlx(&p->status, P_RUNNING); /* rlx: with the lock that gave it, or by the owner */
    store_rel(&m->pstate, sched.fenced ? M_FENCED : M_OWNED); /* rel: publishes m->p; acq in p_take */
}

struct p *m_disown(struct m *m)
{
    struct p *p = m->p;
    PROBE(proc_lost, p, m, 0); /* by us, or while we stand still */
    uint32_t old = sched.fenced ? M_FENCED : M_OWNED;
    while (!cas_acq_rel(&m->pstate, old, M_GONE)) /* a taker looks just now; it will find us inside */
        cpu_relax();
    m->p = NULL;
    store_rlx(&p->owner, NULL); /* rlx: a hint for others */
    return p;
}

static struct p *take(struct m *m, bool borrow)
{
    lock_check_held(&sched.take_lock);
    uint32_t old = sched.fenced ? M_FENCED : M_OWNED;
    if (!cas_acq_rel(&m->pstate, old, M_TAKING))
        return NULL;
    world_fence(); /* from here on the machine sees TAKING when it enters, or we see it inside */
    if (load_acq(&m->in_runtime) != 0) { /* acq: with rel in rt_leave: what it did to its P */
        store_rel(&m->pstate, old);
        return NULL;
    }
    struct p *p = m->p;
    m->p = NULL;
    store_rlx(&p->owner, NULL); /* rlx: a hint */
    if (!borrow)
        PROBE(proc_lost, p, m, 0); /* if it comes in, it waits till this is over */
    store_rel(&m->pstate, M_GONE); /* rel: publishes m->p; acq in rt_own */
    return p;
}

struct p *p_take(struct m *m) { return take(m, false); }
struct p *p_borrow(struct m *m) { return take(m, true); }

void cpu_times(int64_t *total_ns, int64_t *idle_ns, int64_t *stopped_ns)
{
    lock_take(&sched.lock);
    cpu_clock_locked();
    *total_ns = sched.cpu_total_ns;
    *idle_ns = sched.cpu_idle_ns;
    *stopped_ns = sched.cpu_stopped_ns;
    lock_drop(&sched.lock);
}

struct p *p_idle_get(void)
{
    lock_check_held(&sched.lock);
    if (sched.idle_p == NULL || load_rlx(&sched.stopping) != 0) /* rlx: the stopper takes the lock after setting it */
        return NULL;
    struct p *p = sched.idle_p;
    sched.idle_p = p->idle_next;
    uint32_t idle = sub_seq(&sched.nidle_p, 1);
    if (idle == nprocs())
        sysmon_wake();
    return p;
}

void p_idle_put(struct p *p)
{
    lock_check_held(&sched.lock);
    store_rlx(&p->status, P_IDLE); /* rlx: under the lock */
    p->idle_next = sched.idle_p;
    sched.idle_p = p;
    p_count_idle(p, true);
    add_seq(&sched.nidle_p, 1); /* seq: before the second look at the queues, see schedule.c */
}

bool m_get_idle(struct m *m)
{
    lock_take(&sched.lock);
    struct p *p = p_idle_get();
    if (p != NULL)
        m_own(m, p);
    lock_drop(&sched.lock);
    return p != NULL;
}

/* ---- sleeping and waking ----------------------------------------------------------------------------- */

void m_sleep(struct m *m)
{
    while (load_acq(&m->sleep) == 1) /* acq: sees the P we were given; rel in m_wake */
        os_futex_wait(&m->sleep, 1, -1);
    store_rlx(&m->sleep, 0); /* rlx: ours again */
}

void m_sleep_inactive(struct m *m)
{
    lock_take(&sched.lock);
    if (load_rlx(&sched.ending) != 0 && !m->foreign) { /* rlx: set under this lock, and then all who slept were woken: we come too late */
        lock_drop(&sched.lock);
        return;
    }
    if (--sched.nactive == 0) {
        runtime_idle_locked(); /* drops the lock */
    } else {
        /* The last one may be asleep in epoll for a timer or descriptor that nobody waits for any more: let it find that out, and be the last to
         * sleep. seq: as in poll_asleep */
        bool in_vain = sched.nactive == 1 && load_seq(&sched.poll_until_ns) != 0 && !timers_any() && netpoll_waiters() == 0;
        lock_drop(&sched.lock);
        if (in_vain)
            netpoll_break();
    }
    m_sleep(m);
}

void m_wake(struct m *m)
{
    if (xchg_acq_rel(&m->sleep, 2) == 1) /* rel: publishes the P; acq in m_sleep */
        os_futex_wake(&m->sleep, 1);
}

/* Takes an idle machine off the list and counts it active. */
static struct m *idle_m_get(void)
{
    lock_check_held(&sched.lock);
    struct m *m = sched.idle_m;
    if (m != NULL) {
        sched.idle_m = m->idle_next;
        sched.nidle_m--;
        sched.nactive++;
    }
    return m;
}

/* The thread of m is to start; it has a processor and is in no list yet. Under sched.lock, which it drops. */
static void m_start_locked(struct m *m)
{
    sched.nactive++;
    m_publish_locked(m);
    lock_drop(&sched.lock);
    struct m *self = m_self();
    if (self == NULL || self->foreign || self->tainted)
        sysmon_start_thread(m);
    else
        m_start_or_give_up(m);
}

bool m_pass_on(struct m *m, runnable r)
{
    lock_take(&sched.lock);
    bool free = load_rlx(&sched.stopping) == 0 && load_rlx(&sched.ending) == 0; /* rlx: set before or under this lock */
    struct m *to = free ? idle_m_get() : NULL;
    bool fresh = free && to == NULL;
    if (fresh)
        to = m_new();
    if (to == NULL) {
        lock_drop(&sched.lock);
        return false;
    }
    m_own(to, m_disown(m));
    to->given = r;
    if (fresh) {
        m_start_locked(to);
        return true;
    }
    lock_drop(&sched.lock);
    m_wake(to);
    return true;
}

/* p, which nobody owns, gets a machine. Under sched.lock, which it drops. */
static void p_run_locked(struct p *p, bool spinning)
{
    bool ending = load_rlx(&sched.ending) != 0; /* rlx: set under the lock. Then nobody runs anything more */
    struct m *m = ending ? NULL : idle_m_get();
    if (m != NULL) {
        m_own(m, p);
        m->spinning = spinning;
        lock_drop(&sched.lock);
        m_wake(m);
        return;
    }
    m = ending ? NULL : m_new();
    if (m == NULL) {
        p_idle_put(p);
        lock_drop(&sched.lock);
        if (spinning)
            sub_seq(&sched.nspinning, 1);
        return;
    }
    m_own(m, p);
    m->spinning = spinning;
    m_start_locked(m);
}

/* The thread that f is bound to, which sleeps, goes on with p. Under sched.lock, which it drops. */
static void bound_run_locked(struct p *p, struct fiber *f)
{
    struct m *m = f->bound;
    m_own(m, p);
    sched.nactive++;
    lock_drop(&sched.lock);
    m_wake(m);
}

/* A fiber in the global queue that needs no thread made for it: its own one sleeps. NULL: there is none. */
static struct fiber *globq_take_bound(void)
{
    for (uint32_t n = load_rlx(&sched.global_len); n > 0; n--) { /* rlx: under the lock */
        runnable r = globq_get();
        if (!run_is_task(r) && run_fiber(r)->bound != NULL && load_rlx(&run_fiber(r)->bound->dead) == M_ALIVE)
            return run_fiber(r);
        globq_put(r);
    }
    return NULL;
}

void m_give_up(struct m *m)
{
    if (m->spinning)
        sub_seq(&sched.nspinning, 1); /* seq: before the look at the queue; who fills it looks here afterwards, in proc_wake */
    lock_take(&sched.lock);
    struct p *p = m_disown(m);
    sched.nactive--;
    if (m->given != 0)
        globq_put(m->given);
    store_rlx(&m->dead, M_DEAD); /* rlx: under the lock, and the next: set before or under it */
    bool free = load_rlx(&sched.stopping) == 0 && load_rlx(&sched.ending) == 0;
    struct fiber *f = free ? globq_take_bound() : NULL;
    if (f != NULL) {
        bound_run_locked(p, f);
        return;
    }
    p_idle_put(p);
    lock_drop(&sched.lock);
}

void m_start_or_give_up(struct m *m)
{
    int err = m_thread_start(m);
    if (err == 0)
        return;
    m_give_up(m); /* the monitor tries again if nobody else is left to do the work: stranded() */
}

int m_spare_start(uint32_t n)
{
    lock_take(&sched.lock);
    bool wanted = sched.nidle_m < n && load_rlx(&sched.ending) == 0; /* rlx: set under the lock */
    struct p *p = wanted ? p_idle_get() : NULL;
    struct m *m = p != NULL ? m_new() : NULL;
    if (m != NULL) {
        m_own(m, p);
        m_start_locked(m);
        return 1;
    }
    if (p != NULL)
        p_idle_put(p);
    lock_drop(&sched.lock);
    return wanted ? -EAGAIN : 0;
}

void proc_wake_slow(void)
{
    if (!cas_seq(&sched.nspinning, 0, 1))
        return;
    lock_take(&sched.lock);
    struct p *p = p_idle_get();
    if (p == NULL) {
        lock_drop(&sched.lock);
        sub_seq(&sched.nspinning, 1);
        return;
    }
    p_run_locked(p, true);
}

bool procs_all_busy(void)
{
    return load_rlx(&sched.nspinning) == 0 && load_rlx(&sched.nidle_p) == 0 && load_rlx(&sched.poll_until_ns) == 0 && /* rlx: hints */
           (netpoll_waiters() != 0 || timers_any());
}

void proc_handoff(struct p *p)
{
    lock_take(&sched.lock);
    bool stopping = load_rlx(&sched.stopping) != 0; /* rlx: set before the stopper takes the lock */
    /* rlx: hints, the last one under the lock */
    bool work = !runq_empty(p) || load_rlx(&sched.global_len) != 0 || load_rlx(&p->timers.next_ns) != INT64_MAX;
    if (!stopping && (work || procs_all_busy())) {
        p_run_locked(p, false);
        return;
    }
    p_idle_put(p);
    lock_drop(&sched.lock);
}

void proc_give_bound(struct p *p, struct fiber *f)
{
    lock_take(&sched.lock);
    if (unlikely(load_rlx(&f->bound->dead) != M_ALIVE)) { /* rlx: under the lock. The child of a fork: the fiber is no more, whoever woke it */
        lock_drop(&sched.lock);
        proc_handoff(p);
    } else if (unlikely(load_rlx(&sched.stopping) != 0 || load_rlx(&sched.ending) != 0)) { /* rlx: set before or under this lock */
        globq_put((runnable)f); /* at the end that machine may have left already */
        p_idle_put(p);
        lock_drop(&sched.lock);
    } else {
        bound_run_locked(p, f);
    }
}

/* ---- threads ----------------------------------------------------------------------------------------- */

/* All but its place in the list, where others pass by: they see M_ABSENT. */
static void m_clear(struct m *m)
{
    store_seq(&m->dead, M_ABSENT); /* seq: before what follows */
    labels_drop(&m->self); /* of a thread that ended without a word */
    memset(m, 0, offsetof(struct m, all_next));
    memset(&m->run, 0, sizeof *m - offsetof(struct m, run));
    m->run = sched.run;
    store_rlx(&m->in_runtime, 1); /* rlx: not published yet, and the next */
    store_rlx(&m->pstate, M_GONE);
}

/* One that is used no more, or a new one that is in no list yet; NULL: no memory. */
static struct m *m_record(bool foreign)
{
    lock_check_held(&sched.lock);
    struct m *m = load_acq(&sched.all_m);
    while (m != NULL && (load_rlx(&m->dead) != M_DEAD || m->foreign != foreign)) /* rlx: under the lock */
        m = m->all_next;
    if (m == NULL && (m = off_alloc_aligned(OFF_SCHED, sizeof *m, W_CACHELINE)) != NULL) {
        m->in_list = false;
        m->foreign = foreign;
        m->id = 0;
    }
    return m;
}

struct m *m_new(void)
{
    struct m *m = m_record(false);
    if (m == NULL)
        return NULL;
    m_clear(m);
    m->id = ++sched.next_m_id;
    store_rlx(&m->poll, sched.modes); /* rlx: not published yet */
    return m;
}

void m_publish_locked(struct m *m)
{
    lock_check_held(&sched.lock);
    m->came_in = m->foreign ? world_stop_now() : 0;
    store_rel(&m->dead, M_ALIVE); /* rel: publishes *m to who finds it in the list */
    if (m->in_list)
        return;
    m->in_list = true;
    m->all_next = load_rlx(&sched.all_m); /* rlx: under the lock */
    store_rel(&sched.all_m, m); /* rel: publishes *m; acq in readers */
}

static void m_name_thread(struct m *m)
{
    char name[16] = "weft-";
    unsigned n = m->id, len = 5;
    char digits[10];
    unsigned d = 0;
    do digits[d++] = (char)('0' + n % 10); while ((n /= 10) != 0);
    while (d > 0)
        name[len++] = digits[--d];
    name[len] = 0;
    pthread_setname_np(pthread_self(), name);
}

/* libc also asks for the thread's affinity. A sandbox may refuse that, but what it says of the stack has been filled in by then. */
static void find_stack(struct m *m)
{
    pthread_attr_t attr;
    void *lo = NULL;
    size_t size = 0;
    memset(&attr, 0, sizeof attr);
    int err = pthread_getattr_np(m->thread, &attr);
    pthread_attr_getstack(&attr, &lo, &size);
    if (err == 0)
        pthread_attr_destroy(&attr);
    if ((uintptr_t)__builtin_frame_address(0) - (uintptr_t)lo >= size)
        w_fatal("where the stack of a thread of the host lies cannot be found out (error %d); of the first thread libc reads it in /proc/self/maps, "
                "for which it needs a descriptor", err);
    m->self.stack_lo = lo;
    m->self.stack_hi = (char *)lo + size;
}

void m_thread_setup(struct m *m)
{
    m->thread = pthread_self();
    __atomic_store_n(&m->tid, (int)syscall(SYS_gettid), __ATOMIC_RELAXED); /* rlx: sysmon may look before; other readers find m by cur */
    m->thread_pointer = arch_thread_pointer();
    m->errno_at = &errno;
    m->exceptions = m->foreign || sched.exceptions == NULL ? NULL : sched.exceptions();
    if (m->exceptions != NULL) {
        m->host_exceptions = *m->exceptions;
        *m->exceptions = (struct exceptions){ 0 };
    }
    if (m->foreign)
        find_stack(m);
    stack_t old;
    if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE)) {
        void *mem = os_vm_map_stack(ALTSTACK_BYTES);
        if (mem != NULL) {
            stack_t ss = { .ss_sp = mem, .ss_size = ALTSTACK_BYTES };
            sigaltstack(&ss, NULL);
            m->altstack = mem;
        }
    }
    sigset_t set, old_set;
    sigemptyset(&set);
    sigaddset(&set, sched.stop_signal);
    m->unblocked = pthread_sigmask(SIG_UNBLOCK, &set, &old_set) == 0 && sigismember(&old_set, sched.stop_signal) == 1 ? sched.stop_signal : 0;
    sanitize_thread(m);
    weft_tls_m = m;
}

void m_thread_teardown(struct m *m)
{
    weft_tls_m = NULL;
    if (m->exceptions != NULL)
        *m->exceptions = m->host_exceptions;
    if (m->unblocked != 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, m->unblocked);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
    }
    if (m->altstack != NULL) {
        stack_t ss = { .ss_flags = SS_DISABLE }, now;
        if (sigaltstack(NULL, &now) == 0 && now.ss_sp == m->altstack) /* else it is the host's by now */
            sigaltstack(&ss, NULL);
        munmap(m->altstack, ALTSTACK_BYTES);
        m->altstack = NULL;
    }
}

/* No stop is on, and none begins while we hold sched.lock. */
static w_cold void machine_gone(struct m *m)
{
    for (struct sched_guest *g = sched_guests; g != NULL; g = g->next)
        if (g->machine_gone != NULL)
            g->machine_gone(m);
}

/* The thread ends, or is no longer ours: nothing below touches m. Its stack and thread-local variables are roots as long as the machine counts, so it
 * must not vanish under a collector that looks at them. Takes sched.lock. */
static void m_bury_lock(struct m *m)
{
    lock_take(&sched.lock);
    while (load_rlx(&sched.stopping) != 0) { /* rlx: a stopper sets it before it takes this lock */
        lock_drop(&sched.lock);
        world_stop_here(m);
        lock_take(&sched.lock);
    }
    if (m->told != NULL || m->self.told != 0)
        machine_gone(m);
    store_rlx(&m->dead, M_DEAD); /* rlx: under the lock */
}

/* A machine that leaves since the runtime ends still has its processor. A stop of the world, by a fiber that has not noticed yet, waits for every
 * one: so it idles.
 * What it was about to run may stand for a thread of the host, whose call is to end. */
static void p_leave(struct m *m)
{
    lock_take(&sched.lock);
    while (m->given != 0 && load_rlx(&sched.stopping) != 0) { /* rlx: as in m_bury_lock. Nothing that is scanned may move */
        lock_drop(&sched.lock);
        world_stop_here(m);
        lock_take(&sched.lock);
    }
    if (m->given != 0)
        globq_put(m->given);
    m->given = 0;
    if (m_has_p(m))
        p_idle_put(m_disown(m));
    lock_drop(&sched.lock);
}

void m_leave(struct m *m)
{
    PROBE(thread_here, m, 0, 0);
    p_leave(m);
    m_thread_teardown(m);
    m_bury_lock(m);
    lock_drop(&sched.lock);
}

static void *m_main(void *arg)
{
    struct m *m = arg;
    add_rlx(&sched.threads_made, 1); /* rlx: counter. By the thread itself, so that fibers on it find it counted */
    m_thread_setup(m);
    m_name_thread(m);
    PROBE(thread_start, m->id, 0, 0);
    PROBE(thread_here, m, 0, 1);
    switch_loop(m);
    PROBE(thread_here, m, 0, 0);
    PROBE(thread_end, m->id, 0, 0);
    p_leave(m);
    m_thread_teardown(m);
    add_rlx(&sched.threads_ended, 1); /* rlx: counter */
    lock_take(&sched.lock);
    if (--sched.nactive == 0 && load_rlx(&sched.ending) == 0) /* rlx: set under the lock */
        runtime_idle_locked();
    else
        lock_drop(&sched.lock);
    m_bury_lock(m);
    if (sub_seq(&sched.nthreads, 1) == 1 || load_rlx(&sched.ending) != 0)
        os_futex_wake(&sched.nthreads, INT_MAX);
    sched.orphan_leaderless |= sched.orphan && m->tid == getpid();
    bool ends = sched.orphan && load_rlx(&sched.ending) != 0; /* rlx: under the lock */
    lock_drop(&sched.lock);
    if (ends)
        runtime_orphan_end();
    return NULL;
}

void m_check_limit(uint32_t n)
{
    if ((int64_t)n > load_rlx(&sched.max_threads)) /* rlx: a setting */
        w_fatal("thread limit: %u threads exist or are wanted and the limit is %ld; fibers that stay locked to their threads or block in "
                "system calls need one each: unlock, or raise it with weft_set_max_threads", n, (long)load_rlx(&sched.max_threads));
}

int m_thread_start(struct m *m)
{
    m_check_limit(add_seq(&sched.nthreads, 1) + 1);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256u << 10);
    /* Signals of the process go to the host's threads; ours take only those that a fiber causes, the stop and the profiler's. */
    sigset_t all, old;
    sigfillset(&all);
    const int keep[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF };
    for (unsigned i = 0; i < w_countof(keep); i++)
        sigdelset(&all, keep[i]);
    sigdelset(&all, sched.stop_signal);
    m->made_by.n = sched_reports.maker_stack != NULL ? sched_reports.maker_stack(m->made_by.pc, w_countof(m->made_by.pc)) : 0;
    int err = pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t t;
    if (err == 0) {
        err = fail_now(FAIL_THREAD) ? EAGAIN : pthread_create(&t, &attr, m_main, m);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    pthread_attr_destroy(&attr);
    if (err != 0) {
        sub_seq(&sched.nthreads, 1);
        return -err;
    }
    return 0;
}

bool m_exit_locked(struct m *m)
{
    m->exiting = false;
    struct p *p = m_disown(m);
    if (guarded(WEFT_GUARD_THREADS))
        sysmon_want_spares();
    if (!m->main) {
        /* Not counted active from here on: the thread is as good as gone. */
        proc_handoff(p);
        return true;
    }
    store_rlx(&m->sleep, 1); /* rlx: published by runtime_end's lock */
    proc_handoff(p);
    m_sleep_inactive(m);
    return true; /* the runtime ends */
}

/* ---- threads of the host ------------------------------------------------------------------------------- */

static pthread_key_t detach_key;

static void thread_gone(void *arg) { m_detach(arg); }

/* Destructors run in the order of keys. Off-heap memory makes one too when the library is loaded: what that does, under its locks and in user code,
 * must come when the thread has detached, or a collector that needs memory would stop it there. Hence the priority. */
__attribute__((constructor(101))) static void make_detach_key(void) { pthread_key_create(&detach_key, thread_gone); }

/* A machine for a thread of the host; the one it has from an earlier life, if any. */
static struct m *m_claim(struct m *own)
{
    lock_take(&sched.lock);
    struct m *m = own != NULL ? own : m_record(true);
    if (m != NULL) {
        uint32_t id = m->id != 0 ? m->id : ++sched.next_m_id;
        m_clear(m);
        m->id = id;
    }
    lock_drop(&sched.lock);
    return m;
}

int m_attach(struct m **out)
{
    if (load_acq(&sched.running) == 0)
        return -ESRCH;
    int err = errno; /* the caller's, whatever libc does below */
    struct m *own = weft_tls_m; /* of an earlier life of the runtime, perhaps */
    if (own != NULL)
        m_thread_teardown(own);
    struct m *m = m_claim(own);
    if (m == NULL)
        return -ENOMEM;
    store_rlx(&m->poll, POLL_FOREIGN); /* rlx: not published yet; so each way out gives the P back */
    struct fiber *f = &m->self;
    f->flags = FIBER_THREAD | FIBER_SYSTEM;
    f->regions = NULL;
    f->user_task = 0;
    f->bound = m;
    store_rlx(&f->state, FIBER_RUNNING);
    m->cur = f;
    m_thread_setup(m);
    pthread_setspecific(detach_key, m);
    /* Only now: a stop waits for whoever counts, and the two calls above may wait for a lock of libc that a stopped thread holds. */
    lock_take(&sched.lock);
    sched.nactive++;
    m_publish_locked(m);
    lock_drop(&sched.lock);
    PROBE(thread_here, m, 0, 1);
    errno = err;
    *out = m;
    return 0;
}

/* No processor is needed for it, and nothing is waited for but the end of a stop: it may come at any time, also while the runtime ends or when it has
 * long ended. */
void m_detach(struct m *m)
{
    if (fork_child_ready() != 0) { /* others may have left anything locked */
        weft_tls_m = NULL;
        return;
    }
    store_seq(&m->in_runtime, 1); /* seq: a stop finds us inside from here on, or has sent its signal before */
    PROBE(thread_here, m, 0, 0);
    pthread_setspecific(detach_key, NULL);
    store_rel(&m->self.state, FIBER_DEAD); /* rel: a stop that sees it has nothing to scan here */
    __atomic_store_n(&m->cur, NULL, __ATOMIC_RELEASE); /* rel: after the state; acq in thread_stopped */
    labels_drop(&m->self);
    m_thread_teardown(m);
    uint64_t run = m->run;
    m_bury_lock(m);
    if (run == sched.run && load_rlx(&sched.running) != 0 && --sched.nactive == 0) /* rlx: written under the lock, as run */
        runtime_idle_locked();
    else
        lock_drop(&sched.lock);
}

/* Those of the host's threads are not used again: who waited in a wait group is known there by the fiber that lies in it. */
static void m_lose(struct m *m)
{
    bool was_alive = load_rlx(&m->dead) == M_ALIVE; /* rlx: nobody else runs; and below */
    store_rlx(&m->pstate, M_GONE);
    store_rlx(&m->dead, m->foreign ? M_ABSENT : M_DEAD);
    labels_drop(&m->self);
    __atomic_store_n(&m->cur, NULL, __ATOMIC_RELAXED);
    m->p = m->taken = NULL;
    m->blocking = false;
    m->given = 0;
    if (was_alive && m->altstack != NULL)
        munmap(m->altstack, ALTSTACK_BYTES);
    m->altstack = NULL;
}

void machines_after_fork(struct m *self)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
        if (m != self)
            m_lose(m);
    if (self == NULL)
        return;
    self->taken = NULL;
    store_rlx(&self->signalled, 0); /* rlx: as above. What was under way is not inherited */
    and_acq_rel(&self->poll, ~(uint32_t)(POLL_STOP | POLL_HANDOFF));
}

void machines_free(void)
{
    struct m *keep = NULL;
    lock_take(&sched.lock); /* a thread of the host may be ending */
    for (struct m *m = load_acq(&sched.all_m), *next; m != NULL; m = next) {
        next = m->all_next;
        if (m->foreign) {
            labels_drop(&m->self);
            if (load_rlx(&m->dead) == M_ALIVE) /* rlx: under the lock */
                store_rlx(&m->dead, M_ABSENT); /* its thread still points to it */
            m->all_next = keep;
            keep = m;
        } else {
            off_free(OFF_SCHED, m);
        }
    }
    store_rel(&sched.all_m, keep);
    lock_drop(&sched.lock);
}
