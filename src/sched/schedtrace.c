/* schedtrace=N: a line about the scheduler every N ms, Go's. With scheddetail=1 instead a head and then a line for each processor, machine and fiber,
 * Go's as well.
 *
 * The monitor writes them. It stops nobody and, but for the head, locks nothing, so lines that follow each other are of different moments: a fiber
 * may be shown as run by a machine that is shown without it, and one that starts in between is shown twice, as a task and as a fiber. None is missed
 * that exists all the while. What is read lies where it can be read at any time: machines and processors are never freed while the runtime runs,
 * stacks and tasks stay mapped ([PIN], [TASK]).
 *
 * Go's fields, and what they are here:
 *
 *      needspinning    0: nobody ever waits for a machine to spin
 *      gcwaiting       the world is stopped, or to be stopped, whatever for; stopwait: how many machines are waited for
 *      nmidlelocked    machines asleep while the fiber that is locked to them waits
 *      sysmonwait      0, since it is the monitor that writes
 *      P status        0 idle, 1 running, 3 taken by a stop
 *      P syscalltick   how often it was handed off: a fiber in a system call is not known as such before it loses its processor by that
 *      P gfreecnt      stacks at hand for the next fibers
 *      M locks         1: inside the runtime, where nothing can be taken from it
 *      M blocked       asleep, with nothing to do
 *      M mallocing, throwing, preemptoff, dying   0 and empty: C has none of it
 *      G status        1 runnable, 2 running, 3 in weft_blocking_begin, 4 waiting, on what is in brackets
 *
 * A thread of the host that is attached is a machine without a fiber to show. Stacks that no fiber has are not shown. */
#include "sched/schedtrace.h"
#include "base/fmt.h"
#include "sched/report.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/task.h"
#include "sched/world.h"
#include <errno.h>

#define LINE_BYTES 32768u /* room for all processors that there can be */

static struct {
    int64_t last_ns;  /* the monitor's, and the next two */
    size_t len;
    char *line;
} trace;

static w_printf(1, 2) void put(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    trace.len = w_min(trace.len + w_vfmt(trace.line + trace.len, LINE_BYTES - trace.len, fmt, ap), (size_t)LINE_BYTES - 1);
    va_end(ap);
}

static void put_id(const char *name, bool there, uint64_t id)
{
    if (there)
        put("%s%llu", name, (unsigned long long)id);
    else
        put("%snil", name);
}

static void end_line(void)
{
    sched_log(trace.line);
    trace.len = 0;
}

static void put_head(int64_t now_ns)
{
    lock_take(&sched.lock);
    uint32_t nidle = sched.nidle_m;
    lock_drop(&sched.lock);
    put("SCHED %lldms: gomaxprocs=%u idleprocs=%u threads=%u spinningthreads=%u needspinning=0 idlethreads=%u runqueue=%u",
        /* rlx: figures, here and below */
        (long long)((now_ns - sched.start_ns) / 1000000), nprocs(), load_rlx(&sched.nidle_p), load_rlx(&sched.nthreads),
        load_rlx(&sched.nspinning), nidle, load_rlx(&sched.global_len));
}

static uint32_t queued(const struct p *p) { return load_rlx(&p->runq.tail) - load_rlx(&p->runq.head); } /* rlx: a figure */

static void put_short(void)
{
    uint32_t n = nprocs();
    put(" [");
    for (uint32_t i = 0; i < n; i++)
        put(" %u", queued(sched.allp[i]));
    put(" ] schedticks=[ ");
    for (uint32_t i = 0; i < n; i++)
        put("%u ", load_rlx(&sched.allp[i]->tick)); /* rlx: a figure */
    put("]");
    end_line();
}

/* ---- scheddetail: everything is read while its owner may be writing it, so no sanitizer may look ------------------------------------- */

static struct m *machines(void) { return load_acq(&sched.all_m); } /* acq: sees the machine; rel in m_publish_locked */
static bool alive(const struct m *m) { return load_acq(&m->dead) == M_ALIVE; } /* acq: as above */
static bool asleep(const struct m *m) { return load_rlx(&m->sleep) == 1; } /* rlx: for show */
#define READ(field) __atomic_load_n(&(field), __ATOMIC_RELAXED) /* rlx: for show */

static w_no_sanitize void detail_head(void)
{
    uint32_t idle_locked = 0;
    for (struct m *m = machines(); m != NULL; m = m->all_next)
        idle_locked += alive(m) && asleep(m) && READ(m->locked) != NULL;
    bool stopping = load_rlx(&sched.stopping) != 0; /* rlx: for show */
    put(" gcwaiting=%d nmidlelocked=%u stopwait=%u sysmonwait=0", stopping, idle_locked, stopping ? world_missing() : 0);
    end_line();
}

static w_no_sanitize void detail_p(struct p *p)
{
    struct m *m = load_acq(&p->owner); /* acq: sees its id; rel in m_own */
    uint32_t status = load_rlx(&p->status); /* rlx: for show, here and below */
    if (status == P_RUNNING && m == NULL && load_rlx(&sched.stopping) != 0)
        status = 3;
    put("  P%u: status=%u schedtick=%u syscalltick=%llu", p->id, status, load_rlx(&p->tick), (unsigned long long)load_rlx(&p->handoffs));
    put_id(" m=", m != NULL, m != NULL ? m->id : 0);
    put(" runqsize=%u gfreecnt=%u timerslen=%u", queued(p), READ(p->nfree_stacks) + READ(p->nold_stacks) + READ(p->nfresh_slots), READ(p->timers.len));
    end_line();
}

/* What it points to may be another fiber's by now, or nobody's, but it is there. */
static w_no_sanitize void put_fiber(const char *name, const struct fiber *f)
{
    bool shown = f != NULL && !(f->flags & FIBER_THREAD);
    put_id(name, shown, shown ? f->id : 0);
}

static w_no_sanitize void detail_m(struct m *m)
{
    bool has_p = load_acq(&m->pstate) != M_GONE; /* acq: sees p; rel in m_own */
    struct p *p = has_p ? READ(m->p) : NULL;
    put("  M%u:", m->id);
    put_id(" p=", p != NULL, p != NULL ? p->id : 0);
    put_fiber(" curg=", READ(m->blocking) ? READ(m->blocked) : READ(m->cur));
    put(" mallocing=0 throwing=0 preemptoff= locks=%u dying=0 spinning=%s blocked=%s", load_rlx(&m->in_runtime) != 0, /* rlx: for show */
        READ(m->spinning) ? "true" : "false", asleep(m) ? "true" : "false");
    put_fiber(" lockedg=", READ(m->locked));
    end_line();
}

static w_no_sanitize struct m *runs_on(const struct fiber *f)
{
    struct m *m = machines();
    while (m != NULL && (!alive(m) || (READ(m->blocking) ? READ(m->blocked) : READ(m->cur)) != f))
        m = m->all_next;
    return m;
}

static void detail_task(const struct task *t, const struct task *at, void *arg)
{
    (void)at, (void)arg;
    put("  G%llu: status=1() m=nil lockedm=nil", (unsigned long long)t->id);
    end_line();
}

static w_no_sanitize void detail_fiber(struct fiber *f, void *arg)
{
    (void)arg;
    static const uint8_t gos[] = { [FIBER_RUNNABLE] = 1, [FIBER_RUNNING] = 2, [FIBER_WAITING] = 4 };
    uint32_t state = load_acq(&f->state); /* acq: sees the rest, which may change; rel in fiber_bind */
    uint8_t why = READ(f->why);
    if (state == FIBER_FREE || state == FIBER_DEAD || (state == FIBER_WAITING && why == WAIT_END)) /* the last: lost in a fork */
        return;
    bool blocking = state == FIBER_WAITING && why == WAIT_BLOCKING;
    put("  G%llu: status=%u(%s)", (unsigned long long)f->id, blocking ? 3u : gos[state],
        state == FIBER_WAITING ? wait_reason_text((enum wait_reason)why) : "");
    struct m *m = state == FIBER_RUNNING || blocking ? runs_on(f) : NULL;
    struct m *to = READ(f->lock_depth) != 0 ? READ(f->bound) : NULL;
    put_id(" m=", m != NULL, m != NULL ? m->id : 0);
    put_id(" lockedm=", to != NULL, to != NULL ? to->id : 0);
    end_line();
}

static void put_detail(void)
{
    detail_head();
    uint32_t n = nprocs();
    for (uint32_t i = 0; i < n; i++)
        detail_p(sched.allp[i]);
    for (struct m *m = machines(); m != NULL; m = m->all_next)
        if (alive(m))
            detail_m(m);
    tasks_each(detail_task, NULL); /* first: none is missed that starts in between */
    stack_each(0, 1, detail_fiber, NULL);
}

/* ---- when ---------------------------------------------------------------------------------------------------------------------------------- */

int schedtrace_start(void)
{
    trace.last_ns = os_now_ns();
    trace.len = 0;
    if (trace.line == NULL && (trace.line = off_alloc(OFF_SCHED, LINE_BYTES)) == NULL)
        return -ENOMEM;
    return 0;
}

void schedtrace_end(void)
{
    off_free(OFF_SCHED, trace.line);
    trace.line = NULL;
}

void schedtrace_look(int64_t now_ns)
{
    if (now_ns - trace.last_ns < schedtrace_every_ns())
        return;
    put_head(now_ns);
    if (sched.cfg.scheddetail != 0)
        put_detail();
    else
        put_short();
    trace.last_ns = now_ns;
}
