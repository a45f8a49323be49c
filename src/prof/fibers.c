/* Profiles of fibers and threads: goroutine, goroutineleak, threadcreate (Go's names, so that tools know them).
 *
 * goroutine        Who there is, by stack and labels, as of [DUMP]: no stop, each fiber at some moment of the call. One that has not started yet has
 *                  the function that it is to run for a stack.
 * goroutineleak    Those that wait for what nobody can ever do: whoever asks runs the collection that finds them ([LEAKED]). They do not go away, so
 *                  their stacks are taken afterwards, without hurry.
 * threadcreate     Threads that the runtime has made and that live, by who made it make them: a fiber, whose call needed one; or the scheduler and
 *                  its monitor, by the function that did.
 *
 * As text with debug 2 the first two are dumps of all stacks, in which those that were found leaked say so. */
#include "prof/out.h"
#include "prof/pseudo.h"
#include "prof/roster.h"
#include "prof/walk.h"
#include "sched/labels.h"
#include "sched/leaked.h"
#include "sched/report.h"
#include <errno.h>
#include <weft/prof.h>

/* ---- fibers -------------------------------------------------------------------------------------------------- */

/* Of a parked one, from the call that waits. What was left out in the middle is told. Returns how many. */
static uint32_t frames_of(struct profile_out *o, const struct trace *t, uintptr_t *pc)
{
    uint32_t from = t->view == VIEW_RUNNING ? 0 : trim_inner(&o->trim, TRIM_TO_CALL, t->pc, t->n), n = 0;
    for (uint32_t i = from; i < t->n; i++) {
        if (t->elided > 0 && i == UNWIND_INNER)
            pc[n++] = PSEUDO_ELIDED;
        pc[n++] = t->pc[i];
    }
    if (t->cut)
        pc[n++] = PSEUDO_ELIDED;
    return n;
}

static int sample(struct profile_out *o, const struct rec *r)
{
    uintptr_t pc[UNWIND_INNER + UNWIND_OUTER + 2];
    struct pprof_label label[WEFT_LABELS_MAX];
    uint32_t n = 1, labels = 0;
    int64_t one = 1;
    if (r->kind == KIND_TASK)
        pc[0] = (uintptr_t)r->fn + 1; /* as if it had called */
    else if (r->trace != NULL)
        n = frames_of(o, r->trace, pc);
    else
        pc[0] = PSEUDO_UNKNOWN;
    for (; r->labels != NULL && labels < w_min(r->labels->n, (uint32_t)WEFT_LABELS_MAX); labels++)
        label[labels] = (struct pprof_label){ .key = r->labels->at[labels].key, .text = r->labels->at[labels].value };
    return profile_sample(o, pc, n, &one, label, labels);
}

static int collect(struct profile_out *o, bool leaked_only)
{
    struct roster *c = roster_new(sizeof *c);
    if (c == NULL)
        return -ENOMEM;
    c->all = true;
    c->leaked_only = leaked_only;
    int err = roster_fill(c, profile_maps(o));
    if (err == 0 && (c->lost != 0 || c->err != 0)) /* a fiber, or a stack */
        err = -ENOMEM;
    for (size_t i = 0; i < c->n && err == 0; i++)
        if (c->rec[i].kind != KIND_THREAD && (!leaked_only || c->rec[i].leaked))
            err = sample(o, &c->rec[i]);
    roster_free(c);
    return err;
}

static int fibers_collect(struct profile_out *o) { return collect(o, false); }
static int64_t fibers_now(void) { return fibers_alive(); }
static int write_stacks(weft_writer *w, void *ctx) { return weft_stack_write(w, ctx, true); }

const struct profile_kind profile_fibers = {
    .name = "goroutine", .also = "fiber", .style = PROFILE_COUNTS, .value[0] = { "goroutine", "count" }, .values = 1,
    .flags = PROFILE_DELTA, .period_type = { "goroutine", "count" }, .count = fibers_now, .collect = fibers_collect, .write_text = write_stacks,
};

/* ---- those that are leaked ------------------------------------------------------------------------------------- */

static int leak_prepare(int debug)
{
    (void)debug;
    uint64_t n;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    int err = leaked_find(&n);
    rt_leave(m_self());
    return err;
}

static int leak_collect(struct profile_out *o) { return collect(o, true); }
static int64_t leak_count(void) { return (int64_t)leaked_count(); }

const struct profile_kind profile_leaked = {
    .name = "goroutineleak", .also = "leak", .style = PROFILE_COUNTS, .value[0] = { "goroutineleak", "count" }, .values = 1,
    .flags = PROFILE_DELTA, .period_type = { "goroutineleak", "count" }, .count = leak_count, .prepare = leak_prepare, .collect = leak_collect,
    .write_text = write_stacks,
};

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define CALLERS 3u /* which all lie in the runtime, and have frame pointers */

/* Of who is about to make a thread. Fibers' stacks are walked; of the scheduler and the monitor, the last few functions tell. */
static w_noinline w_no_sanitize uint32_t maker_stack(uintptr_t *pc, uint32_t max)
{
    struct m *m = m_self();
    uint32_t n = m != NULL && m->cur != NULL && load_rlx(&m->in_runtime) != 0 ? walk_self(m, pc, max) : 0; /* rlx: our own */
    if (n != 0 || max <= CALLERS)
        return n;
    const uintptr_t *fp = __builtin_frame_address(0);
    for (; n < CALLERS; fp = (const uintptr_t *)fp[0])
        pc[n++] = fp[1];
    pc[n++] = PSEUDO_SCHED;
    return n;
}

/* A record that is used again while it is read shows as two threads in one, or not at all. */
static w_no_sanitize bool made_of(const struct m *m, uintptr_t *pc, uint32_t *n)
{
    if (m->foreign || load_acq(&m->dead) != M_ALIVE) /* acq: sees the rest; rel in m_publish_locked */
        return false;
    *n = w_min(m->made_by.n, (uint32_t)w_countof(m->made_by.pc));
    for (unsigned i = 0; i < w_countof(m->made_by.pc); i++)
        pc[i] = __atomic_load_n(&m->made_by.pc[i], __ATOMIC_RELAXED); /* rlx: see above */
    return *n != 0;
}

static int threads_collect(struct profile_out *o)
{
    uintptr_t pc[w_countof(((struct m *)0)->made_by.pc)];
    uint32_t n;
    int err = 0;
    int64_t one = 1;
    for (struct m *m = load_acq(&sched.all_m); m != NULL && err == 0; m = m->all_next) /* acq: sees the machine; rel in m_publish_locked */
        if (made_of(m, pc, &n))
            err = profile_sample(o, pc, n, &one, NULL, 0);
    return err;
}

static int64_t threads_count(void)
{
    uintptr_t pc[w_countof(((struct m *)0)->made_by.pc)];
    uint32_t n;
    int64_t threads = 0;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: as above */
        threads += made_of(m, pc, &n);
    return threads;
}

const struct profile_kind profile_threads = {
    .name = "threadcreate", .also = "thread", .style = PROFILE_COUNTS, .value[0] = { "threadcreate", "count" }, .values = 1,
    .flags = PROFILE_FROM_CALL | PROFILE_DELTA, .period_type = { "threadcreate", "count" }, .count = threads_count, .collect = threads_collect,
};

static void __attribute__((constructor)) fibers_init(void)
{
    sched_reports.maker_stack = maker_stack;
}
