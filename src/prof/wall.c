/* The wall-clock profile: where fibers are, running or not, and why they wait.
 *
 * A helper comes hz times a second and notes where fibers are at that moment, each for the time since it came last. The world is not stopped, and
 * what it costs does not grow with the number of fibers:
 *
 *   parked, or queued      a random few of them (fibers_max), each of which stands for as many as it is one of. With very many, only a random part of
 *                          the table of stacks is walked at a time. They are pinned in batches ([PIN]: one membarrier for sixteen), walked (walk.c),
 *                          and let go: who is woken meanwhile waits for some microseconds.
 *   not started            the same with the records of tasks; their stack is the place where they were made.
 *   running                all of them, one per machine: its thread gets a signal (cpu_ask) and walks its own stack. A thread that has used no CPU time
 *                          since it was asked last sleeps in the kernel: it is left alone, so that a system call is interrupted once and not
 *                          hz times a second, and it is where it was.
 *   between blocking_begin and _end    is where it left.
 *
 * A fiber that changes from one of these to another during a round may be seen twice or not at all in it, which is as likely as the other. */
#include <errno.h>
#include <string.h>
#include "base/offheap.h"
#include "base/rng.h"
#include "os/clock.h"
#include "prof/cpu.h"
#include "prof/pseudo.h"
#include "prof/sampler.h"
#include "prof/walk.h"
#include "sched/labels.h"
#include "sched/machine.h"
#include "sched/report.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/task.h"

#define FIBERS_MAX 512u          /* by default, of each of the first two kinds */
#define FIBERS_MOST 65536
#define HZ_MOST 1000
#define PART_FIBERS 16384        /* so many descriptors, or records of tasks, are looked at in a round */
#define BATCH 16u
#define ASLEEP_NS 20000          /* CPU time that being asked takes at most */

/* Where a machine was when it was asked last. */
struct seat {
    struct m *m;
    uint64_t fiber;              /* 0: not known */
    struct labels *labels;       /* a reference */
    int64_t cpu_ns;              /* its thread's clock then */
    uint32_t n;
    uintptr_t pc[WALK_MAX];
};

static struct {
    uint32_t max;                /* fixed while it runs */
    int64_t last_ns, next_ns, period_end_ns;
    struct rng rng;
    /* those chosen of a kind, as yet: any of the `seen` with the same likelihood */
    struct fiber **fiber;        /* max */
    struct task *task;           /* max */
    uint64_t seen;
    uint64_t bound;              /* descriptors seen in the last round that looked at all of a part, times parts */
    uint64_t tasks;
    uint32_t round;
    struct seat *seat;
    uint32_t seats, seats_room;
    uintptr_t pc[WALK_MAX + 1];
} wall;

static struct sampler sampler;

/* ---- samples ------------------------------------------------------------------------------------------------- */

/* One that stands for `of / among` fibers, for so long. Rounded at random, so that sums are right. */
static void add(uint32_t n, const char *state, const struct labels *l, uint64_t of, uint64_t among, int64_t ns)
{
    struct pprof_label label[WEFT_LABELS_MAX + 1];
    uint32_t labels = 0;
    uint64_t weight = of / among + (rng_next(&wall.rng) % among < of % among);
    bool placed = false;
    for (uint32_t i = 0; l != NULL && i < l->n; i++) {
        if (!placed && strcmp(l->at[i].key, "state") >= 0) {
            label[labels++] = (struct pprof_label){ .key = "state", .text = state };
            placed = true;
        }
        label[labels++] = (struct pprof_label){ .key = l->at[i].key, .text = l->at[i].value };
    }
    if (!placed)
        label[labels++] = (struct pprof_label){ .key = "state", .text = state };
    if (weight > 0)
        live_add(sampler.live, wall.pc, n, (int64_t[]){ (int64_t)weight, (int64_t)weight * ns }, label, labels);
}

/* Where the next one seen goes; UINT32_MAX: nowhere. */
static uint32_t place(void)
{
    uint64_t i = wall.seen++;
    if (i >= wall.max)
        i = rng_next(&wall.rng) % wall.seen;
    return i < wall.max ? (uint32_t)i : UINT32_MAX;
}

static uint32_t chosen(void) { return (uint32_t)w_min(wall.seen, (uint64_t)wall.max); }

/* ---- parked or queued ------------------------------------------------------------------------------------------- */

/* Reads descriptors that their owners may be writing; looked at again when it is pinned. */
static w_no_sanitize void see_fiber(struct fiber *f, void *total)
{
    uint32_t s = load_acq(&f->state); /* acq: sees what it was when it became so */
    (*(uint64_t *)total)++;
    if ((s != FIBER_WAITING && s != FIBER_RUNNABLE) || f->flags & (FIBER_SYSTEM | FIBER_THREAD) || f->why == WAIT_END || f->why == WAIT_BLOCKING)
        return;
    uint32_t at = place();
    if (at != UINT32_MAX)
        wall.fiber[at] = f;
}

static w_no_sanitize bool starts(const struct fiber *f) { return ARCH_PC((const struct arch_frame *)f->sp) == (uintptr_t)weft_arch_entry; }

/* Pinned. It does not run, so what it has stands still. */
static w_no_sanitize void add_parked(struct fiber *f, uint64_t of, uint64_t among, int64_t ns)
{
    bool waits = load_rlx(&f->state) == FIBER_WAITING; /* rlx: read with acquire in fibers_pin */
    const char *state = waits ? wait_reason_text(f->why) : "runnable";
    uint32_t n = 0;
    if (f->why == WAIT_BLOCKING) { /* see_machine shows it */
        fiber_unpin(f);
        return;
    }
    struct labels *l = labels_ref(f->labels);
    if (starts(f))
        wall.pc[n++] = (uintptr_t)f->fn + 1;
    else
        n = walk_parked(f, wall.pc, WALK_MAX);
    fiber_unpin(f);
    add(n, state, l, of, among, ns);
    labels_unref(l);
}

static void round_parked(int64_t ns)
{
    uint64_t parts = 1 + wall.bound / PART_FIBERS, looked_at = 0;
    unsigned part = parts > 1 ? rng_below(&wall.rng, (uint32_t)parts) : 0;
    wall.seen = 0;
    stack_each(part, (unsigned)parts, see_fiber, &looked_at);
    wall.bound = looked_at * parts;
    uint32_t n = chosen();
    for (uint32_t i = 0; i < n; i += BATCH) {
        bool held[BATCH];
        uint32_t k = w_min(n - i, BATCH);
        fibers_pin(wall.fiber + i, k, held);
        for (uint32_t j = 0; j < k; j++)
            if (held[j])
                add_parked(wall.fiber[i + j], wall.seen * parts, n, ns);
    }
}

/* ---- not started ---------------------------------------------------------------------------------------------------- */

/* Its labels may go as soon as it starts, on another thread: they are not looked at. */
static void see_task(const struct task *copy, const struct task *at, void *arg)
{
    (void)at, (void)arg;
    if (copy->flags & FIBER_SYSTEM)
        return;
    uint32_t i = place();
    if (i != UINT32_MAX)
        wall.task[i] = *copy;
}

/* All that are queued are looked at, so with very many not in each round. */
static void round_tasks(int64_t ns)
{
    uint64_t every = 1 + wall.tasks / PART_FIBERS;
    if (wall.round % every != 0)
        return;
    wall.seen = 0;
    tasks_each(see_task, NULL);
    wall.tasks = wall.seen;
    uint32_t n = chosen();
    for (uint32_t i = 0; i < n; i++) {
        wall.pc[0] = (uintptr_t)wall.task[i].site;
        add(1, "runnable, not started", NULL, wall.seen * every, n, ns);
    }
}

/* ---- running -------------------------------------------------------------------------------------------------------- */

static struct seat *seat_of(struct m *m)
{
    for (uint32_t i = 0; i < wall.seats; i++)
        if (wall.seat[i].m == m)
            return &wall.seat[i];
    if (wall.seats == wall.seats_room) {
        uint32_t room = wall.seats_room == 0 ? 16 : 2 * wall.seats_room;
        struct seat *more = off_realloc(OFF_PROF, wall.seat, room * sizeof *more);
        if (more == NULL)
            return NULL;
        wall.seat = more;
        wall.seats_room = room;
    }
    struct seat *s = &wall.seat[wall.seats++];
    *s = (struct seat){ .m = m };
    return s;
}

struct answer { uint64_t fiber; struct labels *labels; uint32_t n; uintptr_t pc[WALK_MAX]; };

/* On m's own thread, in the handler. */
static void answer(struct m *m, const ucontext_t *uc, void *arg)
{
    struct answer *a = arg;
    struct fiber *f = m->cur;
    a->fiber = 0;
    if (f == NULL || f->flags & (FIBER_SYSTEM | FIBER_THREAD) || m->collects)
        return;
    a->fiber = f->id;
    a->labels = labels_ref(f->labels);
    a->n = walk_signal(m, uc, a->pc, WALK_MAX);
}

static w_no_sanitize uint64_t id_of(const struct fiber *f) { return f != NULL ? f->id : 0; } /* a guess: it may end at any time */

static void seat_keep(struct seat *s, uint64_t fiber, struct labels *l, const uintptr_t *pc, uint32_t n)
{
    labels_unref(s->labels);
    s->fiber = fiber;
    s->labels = l;
    s->n = n;
    memcpy(s->pc, pc, n * sizeof *pc);
}

static void seat_add(const struct seat *s, const char *state, int64_t ns)
{
    memcpy(wall.pc, s->pc, s->n * sizeof s->pc[0]);
    add(s->n, state, s->labels, 1, 1, ns);
}

static void see_running(struct m *m, const struct fiber *f, int64_t ns)
{
    static struct answer a; /* the thread writes it, at the latest while cpu_ask waits */
    struct seat *s = seat_of(m);
    uint64_t fiber = id_of(f);
    if (s == NULL || fiber == 0)
        return;
    if (s->fiber == fiber && os_thread_cpu_ns(m->tid) - s->cpu_ns < ASLEEP_NS) {
        seat_add(s, wait_reason_text(WAIT_BLOCKING), ns);
        return;
    }
    s->fiber = 0;
    if (cpu_ask(m, answer, &a) != 0 || a.fiber == 0)
        return;
    seat_keep(s, a.fiber, a.labels, a.pc, a.n);
    seat_add(s, "running", ns);
    s->cpu_ns = os_thread_cpu_ns(m->tid);
}

/* Pinned, it cannot come back from there (weft_blocking_end). */
static w_no_sanitize void see_blocked(struct m *m, int64_t ns)
{
    struct fiber *f = m->blocked;
    if (f == NULL || f->flags & (FIBER_SYSTEM | FIBER_THREAD) || !fiber_pin(f))
        return;
    bool is = __atomic_load_n(&m->blocking, __ATOMIC_RELAXED) && m->blocked == f && f->why == WAIT_BLOCKING; /* rlx: after state, by fiber_pin */
    uint32_t n = is ? walk_blocked(m, wall.pc, WALK_MAX) : 0;
    struct labels *l = is ? labels_ref(f->labels) : NULL;
    fiber_unpin(f);
    if (is)
        add(n, wait_reason_text(WAIT_BLOCKING), l, 1, 1, ns);
    labels_unref(l);
}

static w_no_sanitize void see_machine(struct m *m, int64_t ns)
{
    const struct fiber *f = __atomic_load_n(&m->cur, __ATOMIC_ACQUIRE); /* acq: sees the fiber */
    if (f != NULL)
        see_running(m, f, ns);
    else if (__atomic_load_n(&m->blocking, __ATOMIC_RELAXED)) /* rlx: looked at again */
        see_blocked(m, ns);
}

static void round_running(int64_t ns)
{
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees the machine; rel in m_publish_locked */
        if (!m->foreign && load_acq(&m->dead) == M_ALIVE) /* acq: as above */
            see_machine(m, ns);
}

/* ---- begin, round, end --------------------------------------------------------------------------------------------------- */

static void wall_freed(struct sampler *s)
{
    (void)s;
    for (uint32_t i = 0; i < wall.seats; i++)
        labels_unref(wall.seat[i].labels);
    off_free(OFF_PROF, wall.fiber);
    off_free(OFF_PROF, wall.task);
    off_free(OFF_PROF, wall.seat);
    wall.fiber = NULL;
    wall.task = NULL;
    wall.seat = NULL;
    wall.seats = wall.seats_room = 0;
}

static void wall_forked(struct sampler *s) { (void)s, memset(&wall, 0, sizeof wall); }

static int wall_begin(struct sampler *s)
{
    int err = cpu_ask_begin();
    if (err != 0)
        return err;
    wall.max = s->arg;
    wall.fiber = off_alloc(OFF_PROF, wall.max * sizeof wall.fiber[0]);
    wall.task = off_alloc(OFF_PROF, wall.max * sizeof wall.task[0]);
    wall.bound = wall.tasks = wall.round = 0;
    wall.last_ns = wall.period_end_ns = os_now_ns();
    rng_seed(&wall.rng, (uint64_t)wall.last_ns);
    wall.next_ns = wall.last_ns + (int64_t)(rng_next(&wall.rng) % (uint64_t)s->period_ns);
    if (wall.fiber != NULL && wall.task != NULL)
        return 0;
    wall_freed(s);
    return -ENOMEM;
}

static void look(int64_t now_ns)
{
    int64_t ns = now_ns - wall.last_ns;
    wall.last_ns = now_ns;
    wall.round++;
    round_parked(ns);
    round_tasks(ns);
    round_running(ns);
}

/* The next moment is anywhere in the next period: what happens with a period of its own is not seen at the same place again and again. */
static int64_t wall_round(struct sampler *s, int64_t now_ns)
{
    if (now_ns < wall.next_ns)
        return wall.next_ns;
    look(now_ns);
    wall.period_end_ns = w_max(wall.period_end_ns + s->period_ns, now_ns);
    wall.next_ns = wall.period_end_ns + (int64_t)(rng_next(&wall.rng) % (uint64_t)s->period_ns);
    return wall.next_ns;
}

static const char *wall_end(struct sampler *s)
{
    (void)s;
    look(os_now_ns());
    return NULL;
}

static struct sampler sampler = { .what = "wall-clock profile", .value = { { "samples", "count" }, { "wall", "nanoseconds" } },
                                  .period_type = { "wall", "nanoseconds" }, .hz = 10, .begin = wall_begin, .undo = wall_freed,
                                  .round = wall_round, .end = wall_end, .freed = wall_freed, .forked = wall_forked };

static void __attribute__((constructor)) wall_init(void) { sampler_add(&sampler); }

/* ---- the public side --------------------------------------------------------------------------------------------------------- */

static int start(weft_writer *w, void *ctx, const char *path, const weft_wall_profile_opts *opts)
{
    static const weft_wall_profile_opts none = WEFT_WALL_PROFILE_OPTS_INIT;
    const weft_wall_profile_opts *o = opts != NULL ? opts : &none;
    struct sampler_opts checked;
    if (o->size != sizeof *o || o->fibers_max < 0 || o->fibers_max > FIBERS_MOST || o->hz > HZ_MOST ||
        sampler_opts(&checked, o->hz, o->flush_ms, o->max_bytes, o->max_ns, o->unlimited, o->closed, o->closed_arg) != 0)
        return -EINVAL;
    checked.arg = o->fibers_max != 0 ? (uint32_t)o->fibers_max : FIBERS_MAX;
    return sampler_start(&sampler, &checked, w, ctx, path);
}

int weft_wall_profile_start(weft_writer *w, void *ctx, const weft_wall_profile_opts *opts) { return start(w, ctx, NULL, opts); }
int weft_wall_profile_start_file(const char *path, const weft_wall_profile_opts *opts) { return start(NULL, NULL, path, opts); }
int weft_wall_profile_stop(void) { return sampler_stop(&sampler); }
