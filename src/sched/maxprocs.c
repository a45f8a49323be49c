/* How many processors there are.
 *
 * A number that was asked for, by weft_config, WEFT_MAXPROCS or weft_maxprocs, stays. Otherwise it is the number of CPUs in the affinity mask, but
 * no more than the quota of the process's own control group rounded up, and that not below 2 (os/cgroup.h). Both may change while we run: the
 * monitor reads them again once a second at most (an idle program's monitor sleeps, then less often). It has no processor and no stack that a stop
 * would know, so it starts a fiber of the runtime's to make the change.
 *
 * `custom` tells which of the two it is. It is written by a caller of weft_maxprocs, who is inside the runtime, and read in a stop, for which
 * everyone inside has been waited: so either the fiber that follows sees it, and changes nothing, or the caller comes after it, and what it asks
 * for is what remains.
 *
 * With WEFT_GUARD_PROCS a number above that default is the default, and follows.
 *
 * More processors need memory. If there is none, the number stays and the log says so; a default is tried again with the next look. */
#include "sched/maxprocs.h"
#include "sched/guard.h"
#include "os/affinity.h"
#include "sched/report.h"
#include "sched/world.h"
#include <weft/sync.h>

static struct {
    struct cgroup group;  /* fixed while running: found at start, read again and again */
    w_u32 custom;
    w_u32 under_way;      /* a fiber that follows exists */
    w_i64 looked_ns;      /* the monitor's */
    w_u32 refused;        /* to follow, so many processors were wanted last, and there was no memory for them; 0: there was */
} follow;

bool maxprocs_quota(double *cpus)
{
    *cpus = (double)sched.cfg.cpuquota / 100;
    return sched.cfg.cpuquota != 0 || cgroup_limit(&follow.group, cpus);
}

bool maxprocs_follows(void) { return load_rlx(&follow.custom) == 0 && sched.cfg.updatemaxprocs != 0; } /* rlx: a figure */

/* The default as of now. */
static uint32_t wanted(void)
{
    const struct config *c = &sched.cfg;
    double limit;
    if (c->containermaxprocs == 0 || !maxprocs_quota(&limit))
        limit = 0;
    return (uint32_t)w_min(procs_default(c->cpus > 0 ? (int)c->cpus : os_cpu_count(), limit), MAX_PROCS);
}

uint32_t maxprocs_start(void)
{
    int64_t asked = load_rlx(&seed_on) != 0 ? 1 : sched.cfg.maxprocs; /* rlx: see seed_on; with a seed there is one, and that stays */
    cgroup_open(&follow.group, sched.cfg.cgrouproot); /* if it fails there is no limit */
    if (guarded(WEFT_GUARD_PROCS) && asked > wanted())
        asked = 0;
    store_rlx(&follow.custom, asked > 0); /* rlx, all four: nobody else runs yet */
    store_rlx(&follow.under_way, 0);
    store_rlx(&follow.refused, 0);
    store_rlx(&follow.looked_ns, sched.start_ns);
    return asked > 0 ? (uint32_t)w_min(asked, (int64_t)MAX_PROCS) : wanted();
}

void maxprocs_end(void) { cgroup_close(&follow.group); }

void maxprocs_after_fork(void) { store_rlx(&follow.under_way, 0); } /* rlx: nobody else runs */

bool maxprocs_throttled(struct cgroup_throttled *out) { return cgroup_throttled(&follow.group, out); }

struct change { uint32_t n; bool follows; bool refused; };

/* On the thread's own stack. */
static void change(void *arg)
{
    struct change *c = arg;
    world_stop(WEFT_STOP_MAXPROCS, false);
    if (!c->follows || load_rlx(&follow.custom) == 0) /* rlx: ordered by the stop */
        c->refused = procs_resize(c->n) != 0;
    world_start();
}

/* In user code, as the host's log may take its time. */
static void tell(const struct change *c, const char *what_next)
{
    if (c->refused)
        sched_logf("weft: no memory for %u processors: there remain %u%s", c->n, nprocs(), what_next);
}

static void follow_fiber(void *arg)
{
    (void)arg;
    rt_enter();
    struct change c = { wanted(), true, false };
    if (c.n != nprocs())
        sched_on_big_stack(change, &c);
    rt_leave(m_self());
    if (c.n != load_rlx(&follow.refused)) /* rlx: ours while under_way. Said once, as it is tried again each second */
        tell(&c, "; it is tried again");
    store_rlx(&follow.refused, c.refused ? c.n : 0); /* rlx: as above */
    store_rel(&follow.under_way, 0); /* rel: publishes refused to the next fiber; acq in maxprocs_look */
}

/* The number is the host's. */
static void look_above(int64_t now_ns)
{
    if (!PROBE_WANTED(procs_above))
        return;
    store_rlx(&follow.looked_ns, now_ns); /* rlx: ours */
    uint32_t dflt = wanted();
    if (nprocs() > dflt)
        PROBE(procs_above, nprocs(), dflt, 0);
}

void maxprocs_look(int64_t now_ns)
{
    /* rlx: a change that is seen too late is seen with the next look */
    if (now_ns - load_rlx(&follow.looked_ns) < WEFT_SECOND)
        return;
    if (load_rlx(&follow.custom) != 0) { /* rlx: as above */
        look_above(now_ns);
        return;
    }
    if (sched.cfg.updatemaxprocs == 0)
        return;
    store_rlx(&follow.looked_ns, now_ns);
    if (wanted() == nprocs() || xchg_acq_rel(&follow.under_way, 1) != 0)
        return;
    weft_go_opts opts = { .size = sizeof opts, .name = "maxprocs" };
    if (sched_spawn(follow_fiber, NULL, &opts, (const void *)follow_fiber, FIBER_SYSTEM) != 0)
        store_rlx(&follow.under_way, 0); /* rlx: as above; the next look tries again */
}

/* ---- the public side -------------------------------------------------------------------------------------- */

/* c NULL: no change. Returns the number there was. With a seed it stays, and the monitor must not follow either. */
static int resize(struct change *c)
{
    uint32_t old = nprocs();
    if (c != NULL && load_rlx(&seed_on) == 0) { /* rlx: see seed_on */
        store_rlx(&follow.custom, !c->follows); /* rlx: see above */
        if (c->n != old)
            sched_on_big_stack(change, c);
    }
    return (int)old;
}

int weft_maxprocs(int n)
{
    rt_enter();
    struct change c = { (uint32_t)w_min(n, MAX_PROCS), false, false };
    if (n >= 1)
        PROBE(procs_asked, c.n, 0, 0);
    if (guarded(WEFT_GUARD_PROCS) && n >= 1 && c.n > wanted())
        c = (struct change){ wanted(), true, false };
    int old = resize(n >= 1 ? &c : NULL);
    rt_leave(m_self());
    tell(&c, "");
    return old;
}

int weft_maxprocs_default(void)
{
    rt_enter();
    struct change c = { wanted(), true, false };
    int old = resize(&c);
    rt_leave(m_self());
    tell(&c, "; it is tried again");
    return old;
}
