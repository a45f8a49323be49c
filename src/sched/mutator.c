/* The program's side of the heap.
 *
 * An allocation enters the runtime, bumps a pointer in its processor's cache, and leaves. When a cycle is due the slow path says so, and the fiber
 * that noticed runs it, on its thread's own stack with its registers saved on its own (sched_on_big_stack), so that it is scanned like any parked
 * fiber; the new object is held by a variable of that frame.
 *
 * Some fibers belong to the runtime: one runs finalizers, up to a quarter as many as processors run cleanups, one sweeps behind a cycle (and collects
 * when two minutes passed without), one gives memory back [SCAVENGE], and one for every four processors marks beside the program [CONC]; the first of
 * these also makes huge pages again [MEND]. All sleep when there is nothing to do. They are made at the first need, so a program that has no finalizers
 * has no fiber for them. */
#include "sched/mutator.h"
#include "sched/guard.h"
#include "sched/labels.h"
#include "sched/leaked.h"
#include "sched/machine.h"
#include "sched/reclaim.h"
#include "sched/report.h"
#include "sched/seed.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/watch.h"
#include "sched/world.h"
#include "gc/cards.h"
#include "gc/pace.h"
#include "gc/trail.h"
#include "gc/type.h"
#include "os/dirty.h"
#include "os/vm.h"
#include <weft/sync.h>
#include <errno.h>
#include <string.h>

/* ---- a fiber of the runtime that sleeps until poked ----------------------------------------------------- */

struct worker {
    struct lock lock;        /* RANK_WORKER */
    struct fiber *parked;    /* under lock */
    bool poked, made;        /* under lock */
    w_u64 executed;          /* calls; written by its fiber. rel: what they did; acq in mutator_calls_executed. rlx otherwise */
    /* fixed after mutator_start */
    weft_fn *fn;
    const char *name;
    enum wait_reason why;
    enum gc_call_kind kind;  /* of those that run calls */
};

#define CLEANERS_MAX 64u

#define COLLECTORS_MAX 64u

static struct worker finalizer, cleaner[CLEANERS_MAX], sweeper, scavenger, collector[COLLECTORS_MAX];
static w_u32 forced; /* sysmon wants a collection */

static void worker_init(struct worker *w, weft_fn *fn, const char *name, enum wait_reason why)
{
    *w = (struct worker){ .fn = fn, .name = name, .why = why };
    lock_init(&w->lock, RANK_WORKER);
}

static void worker_poke(struct worker *w)
{
    lock_take(&w->lock);
    w->poked = true;
    struct fiber *f = w->parked;
    w->parked = NULL;
    bool make = !w->made;
    w->made = true;
    lock_drop(&w->lock);
    if (f != NULL)
        sched_ready_tail(f);
    else if (make) {
        /* a stack of the default size: one of another size may be had only by a new mapping */
        weft_go_opts opts = { .size = sizeof opts, .name = w->name };
        if (sched_spawn(w->fn, w, &opts, (const void *)w->fn, FIBER_SYSTEM) != 0) {
            lock_take(&w->lock);
            w->made = false; /* the next poke tries again */
            lock_drop(&w->lock);
        }
    }
}

/* Waits to be poked. Inside the runtime. */
static void worker_wait(struct worker *w)
{
    lock_take(&w->lock);
    if (w->poked) {
        w->poked = false;
        lock_drop(&w->lock);
        return;
    }
    w->parked = m_self()->cur;
    sched_park(park_unlock, &w->lock, w->why);
    lock_take(&w->lock);
    w->poked = false;
    lock_drop(&w->lock);
}

static void rest_over(void *w, int64_t now_ns)
{
    (void)now_ns;
    worker_poke(w);
}

/* Waits for so long, or to be poked. */
static void worker_rest(struct worker *w, int64_t ns)
{
    struct timer t = { .fn = rest_over, .arg = w };
    timer_start(&t, timer_after(sched_now_ns(), ns));
    worker_wait(w);
    timer_stop(&t);
}

/* A call has ended by weft_exit: that ends it, and this fiber; another one goes on. */
static void call_exited(void *arg)
{
    struct worker *w = arg;
    struct m *m = rt_enter();
    m->cur->flags |= FIBER_SYSTEM;
    store_rel(&w->executed, load_rlx(&w->executed) + 1); /* rel, rlx: see there */
    lock_take(&w->lock);
    w->made = false;
    lock_drop(&w->lock);
    worker_poke(w);
    rt_leave(m_self());
}

/* Waits for a call. The fiber is the runtime's own until it has one, and runs the program's code from then on: dumps show it. */
static void next_call(struct worker *w, struct gc_call *call)
{
    struct m *m = rt_enter();
    m->cur->flags |= FIBER_SYSTEM;
    while (!gc_call_take(w->kind, call)) {
        worker_wait(w);
        m = m_self();
    }
    labels_drop(m->cur); /* those of the call before */
    PROBE(finalizer_run, call->obj, call, w->kind);
    m->cur->flags &= (uint16_t)~FIBER_SYSTEM;
    *m->errno_at = 0; /* each is as if on a fiber of its own */
    rt_leave(m);
}

/* Runs finalizers or cleanups. */
static void calls_fiber(void *arg)
{
    struct worker *w = arg;
    weft_defer(call_exited, w); /* without memory for that: then so it is */
    struct deferred *own = m_self()->cur->defers;
    for (;;) {
        struct gc_call call;
        next_call(w, &call);
        if (w->kind == GC_FINALIZER)
            call.finalizer(call.obj, call.arg);
        else
            call.cleanup(call.arg);
        fiber_run_defers(own);
        call.obj = call.arg = NULL;
        __asm__ volatile("" : : "r"(&call) : "memory"); /* the stores happen: this frame must not keep the object */
        store_rel(&w->executed, load_rlx(&w->executed) + 1); /* rel, rlx: see there */
    }
}

uint64_t mutator_calls_executed(enum gc_call_kind kind)
{
    if (kind == GC_FINALIZER)
        return load_acq(&finalizer.executed); /* acq, here and below: sees what they did; rel by the fiber that ran them */
    uint64_t n = 0;
    for (unsigned i = 0; i < CLEANERS_MAX; i++)
        n += load_acq(&cleaner[i].executed);
    return n;
}

struct collecting { void (*fn)(void *arg); void *arg; };

static void collecting(void *arg)
{
    const struct collecting *c = arg;
    struct m *m = m_self(); /* the same at the end: on the big stack */
    m->collects = true;
    c->fn(c->arg);
    m->collects = false;
}

void mutator_collecting(void (*fn)(void *arg), void *arg)
{
    struct collecting c = { fn, arg };
    world_helpers_prepare(nprocs());
    sched_on_big_stack(collecting, &c);
    rt_own(m_self()); /* while we waited for another's stop, weft_maxprocs may have withdrawn our processor */
}

struct collect { struct gc_turn turn; bool again; };

static void host_relax(void);

#define SLICE_BYTES ((uint64_t)128 << 10)
#define COLLECT_TURN_NS 10000000 /* as long as any other fiber may run */

static void collect(void *arg)
{
    struct collect *c = arg;
    int64_t began = sched_peek_ns(); /* with a seed it goes on to the end, however long that takes */
    while ((c->again = gc_collect_some(&c->turn)) && sched_peek_ns() - began < COLLECT_TURN_NS)
        if (load_rlx(&sched.stopping) != 0) /* rlx: looked at again */
            host_relax();
}

/* The fiber stays on its thread: it may have called from within the loader, or with a mutex of the host's locked. */
static void yield_in_place(void)
{
    struct m *m = m_self();
    struct fiber *f = m->cur;
    bool was_bound = f->bound != NULL;
    f->bound = m;
    fiber_yield();
    if (!was_bound)
        f->bound = NULL;
}

/* While a cycle marks beside the program, those who wait for its end take turns with other fibers. */
static void collect_here(enum gc_why why)
{
    struct collect c = { .turn = { .why = why } };
    if (unlikely(sched.cfg.gcpoison != 0))
        PROBE(gc_asked, why, 0, 0);
    mutator_collecting(collect, &c);
    while (c.again) {
        yield_in_place();
        mutator_collecting(collect, &c);
    }
}

/* [CONC] While it hurries a processor marks for a multiple of the time since it did so last, when it comes by: from an allocation, or in the scheduler's
 * loop. The last rounds find fewer pages by that factor than the program could write in their time. Never for longer than HURRY_NS_MAX, so that a ticker, say,
 * is late by no more, unless the heap has outgrown its goal: fibers that run long without coming by are held back less, and one that has lost its processor not
 * at all. */
#define HURRY_TIMES 7
#define HURRY_NS_MAX 1000000
#define HURRY_NS_MIN 20000 /* worth the way */

static void mark_share(enum gc_cpu who, bool ends, bool (*wanted)(void), int times)
{
    int64_t now = os_now_ns(), due = w_min((now - m_self()->p->marked_ns) * times, (int64_t)HURRY_NS_MAX);
    uint64_t scanned = 0;
    if (due < HURRY_NS_MIN)
        return;
    while (load_rlx(&sched.stopping) == 0 && wanted() && /* rlx: looked at again */
           gc_mark_some(who, ends, SLICE_BYTES / 2, &scanned) && os_now_ns() - now < due)
        ;
    struct p *p = m_self()->p; /* who ends a mark may have lost the one it had */
    if (p != NULL)
        p->marked_ns = os_now_ns();
}

struct assist { bool paid, again; int64_t worth; }; /* again: it has been tried before */

static void assist(void *arg)
{
    struct assist *a = arg;
    a->worth = 0;
    if (gc_mark_hurries()) {
        mark_share(GC_CPU_ASSIST, true, gc_mark_hurries, HURRY_TIMES);
        a->paid = !gc_outgrown();
    } else {
        a->paid = gc_assist(gc_debt(&m_self()->p->gc), &a->worth);
    }
    if ((!a->paid && a->again) || load_rlx(&sched.stopping) != 0) /* after the first try other fibers run. rlx: looked at again */
        host_relax();
    a->again = true;
}

/* Waits for credit, if it comes to that: who allocates faster than is marked would never see the cycle end. */
static void assist_here(void)
{
    for (struct assist a = { 0 }; !a.paid && gc_marking();) {
        mutator_collecting(assist, &a);
        gc_paid(&m_self()->p->gc, a.worth); /* perhaps another processor's than it was, see there */
        if (!a.paid || timers_due(m_self()->p)) /* who pays all the time does not come by the scheduler otherwise */
            yield_in_place();
    }
}

/* The mark is over, but to write to a page that is still armed costs a fault, and the next cycle cannot begin: who allocates, and so writes, does as
 * much about it as it runs. */
static void disarm(void *none)
{
    (void)none;
    mark_share(GC_CPU_ASSIST, true, gc_disarms, 1);
}

/* An allocation was told that there is something to do. */
static void collect_due(void)
{
    if (gc_marking() && sched.cfg.gcstress == 0)
        assist_here();
    else if (gc_disarms() && sched.cfg.gcstress == 0 && !gc_due())
        mutator_collecting(disarm, NULL);
    else
        collect_here(sched.cfg.gcstress != 0 ? GC_WHY_STRESS : GC_WHY_HEAP);
}

void mutator_collect(void) { collect_here(GC_WHY_FORCED); }

static void sweep_fiber(void *arg)
{
    struct worker *w = arg;
    for (;;) {
        rt_enter();
        if (xchg_acq_rel(&forced, 0) != 0)
            collect_here(GC_WHY_PERIODIC);
        if (gc_sweep_some())
            fiber_yield();
        else
            worker_wait(w);
        rt_leave(m_self());
    }
}

/* ---- marking beside the program: [CONC] ------------------------------------------------------------------- */

#define TURN_NS 1000000          /* of a collector's fiber, before it looks whether it has had its share */
#define REST_NS_MIN 50000
#define REST_NS_MAX 5000000

static void mark_turn(void *arg)
{
    int64_t began = os_now_ns();
    bool *worked = arg;
    uint64_t scanned = 0;
    while ((*worked = gc_mark_some(GC_CPU_DEDICATED, true, SLICE_BYTES, &scanned)) && os_now_ns() - began < TURN_NS)
        if (load_rlx(&sched.stopping) != 0) /* rlx: looked at again */
            break;
}

/* From since on it has worked for so long: how long it rests. */
static int64_t collector_rest(int64_t since_ns, int64_t worked_ns, bool idle)
{
    int64_t due = (int64_t)((double)worked_ns / pace_workers(nprocs()).share) - (os_now_ns() - since_ns);
    return w_min(w_max(due, (int64_t)(idle ? REST_NS_MIN : 0)), (int64_t)REST_NS_MAX);
}

/* Between cycles: for how long to rest before the next piece; -1: till there is something to mark. */
static int64_t mend_turn(void)
{
    weft_blocking_begin();
    int64_t rest = gc_mend_some();
    weft_blocking_end();
    return rest;
}

/* One of those that mark. The first also mends. */
static void collect_fiber(void *arg)
{
    struct worker *w = arg;
    int64_t since_ns = 0, worked_ns = 0;
    for (;;) {
        int64_t mend = w == &collector[0] && !gc_mark_work() && gc_mend_wanted() ? mend_turn() : -1;
        rt_enter();
        if (!gc_mark_work()) {
            since_ns = 0;
            if (mend < 0 && w == &collector[0] && gc_mend_wanted()) { /* another one has ended the cycle just now */
                rt_leave(m_self());
                continue;
            }
            if (mend < 0)
                worker_wait(w);
            else
                worker_rest(w, mend);
            rt_leave(m_self());
            continue;
        }
        int64_t began = os_now_ns();
        if (since_ns == 0)
            since_ns = began, worked_ns = 0;
        bool worked;
        mutator_collecting(mark_turn, &worked);
        worked_ns += os_now_ns() - began;
        int64_t rest = worked && gc_mark_hurries() ? 0 : collector_rest(since_ns, worked_ns, !worked);
        if (rest < REST_NS_MIN)
            fiber_yield();
        else
            worker_rest(w, rest); /* the next phase ends it */
        rt_leave(m_self());
    }
}

static void host_mark_ready(void)
{
    for (unsigned i = 0, n = w_min(pace_workers(nprocs()).n, COLLECTORS_MAX); i < n; i++)
        worker_poke(&collector[i]);
    proc_wake(); /* one that idles; it wakes the next */
}

bool mutator_mark_idle(void)
{
    uint64_t scanned = 0;
    return gc_mark_some(GC_CPU_IDLE, false, SLICE_BYTES, &scanned);
}

void mutator_mark_turn(void)
{
    if (gc_mark_hurries() && load_rlx(&seed_on) == 0) /* rlx: see seed_on. [SEED]: who marks when is not drawn */
        mark_share(GC_CPU_DEDICATED, false, gc_mark_hurries, HURRY_TIMES);
}

static void scavenge_fiber(void *arg)
{
    struct worker *w = arg;
    for (;;) {
        rt_enter();
        int64_t ns = load_rlx(&seed_on) != 0 ? -1 : gc_scavenge_some(); /* rlx: see seed_on. [SEED]: it goes by the real clock */
        if (ns < 0)
            worker_wait(w);
        rt_leave(m_self()); /* between two pieces a stop can come */
        if (ns >= 0)
            weft_sleep(ns);
    }
}

struct take { bool fields; const struct fiber *asks; struct trail_taken *taken; int err; };

static void take(void *arg)
{
    struct take *t = arg;
    t->err = trail_take(t->fields, t->asks, &t->taken);
}

int mutator_trail(bool fields, struct trail_taken **out)
{
    struct take t = { .fields = fields, .asks = m_self()->cur };
    mutator_collecting(take, &t);
    *out = t.taken;
    return t.err;
}

void mutator_force_gc(void)
{
    if (xchg_acq_rel(&forced, 1) == 0)
        worker_poke(&sweeper);
}

/* ---- what gc asks of us ------------------------------------------------------------------------------------ */

/* The caller waits for others, who have all that is to be marked in hand, on its thread's own stack, its fiber published as a parked one: so it can stand
 * still for a stop. */
static void host_relax(void)
{
    struct m *m = m_self();
    if (load_acq(&sched.stopping) == 0)
        world_nap();
    if (load_acq(&sched.stopping) != 0)
        world_stop_here(m);
}

static void host_stop(int reason) { world_stop(reason, true); }
static void host_parallel(unsigned want, void (*fn)(void *, unsigned, unsigned), void *arg) { world_parallel(want, fn, arg); }
static unsigned host_procs(void) { return nprocs(); }
static uint64_t host_stack_bytes(void) { return stack_slots() * os_page_bytes(); }
static void host_calls(enum gc_call_kind kind)
{
    if (kind == GC_FINALIZER) {
        worker_poke(&finalizer);
        return;
    }
    uint64_t most = w_min(w_max(nprocs() / 4, 1u), CLEANERS_MAX);
    for (uint64_t i = 0, n = w_min(most, gc_calls_waiting(kind)); i < n; i++)
        worker_poke(&cleaner[i]);
}
static void host_sweep(void) { worker_poke(&sweeper); }
/* [SEED]: not where all is to be drawn from it, as the scavenger goes by the time that it took. */
static void host_scavenge(void)
{
    if (load_rlx(&seed_on) == 0) /* rlx: see seed_on */
        worker_poke(&scavenger);
}

/* Off-heap memory is asked to give back when a megabyte less of it is in use than after the cycle before; what goes in smaller steps jemalloc gives
 * back itself, as it is used. */
#define OFF_SHRUNK_BYTES ((uint64_t)1 << 20)
static w_u64 off_used;      /* by who ends a sweep; rlx: a figure */
static w_u32 off_shrunk;    /* rlx: a hint */

static bool host_release_wanted(void)
{
    uint64_t used = off_in_use_bytes();
    if (used + OFF_SHRUNK_BYTES < load_rlx(&off_used))
        store_rlx(&off_shrunk, 1);
    store_rlx(&off_used, used);
    return stack_release_due() || load_rlx(&off_shrunk) != 0;
}

static size_t host_release_some(void)
{
    size_t bytes = stack_release_some();
    if (bytes == 0 && load_rlx(&off_shrunk) != 0) {
        store_rlx(&off_shrunk, 0);
        off_release();
    }
    return bytes;
}

static void host_scan(unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker)
{
    world_scan_stacks(worker, nworkers, scan, marker);
}

static void host_scan_owned(gc_scan_owned_fn *scan, void *arg, const void *asks) { world_scan_owned(scan, arg, asks); }

int mutator_start(void)
{
    static const struct gc_host host = {
        .stop_world = host_stop, .start_world = world_start, .scan_stacks = host_scan, .scan_owned = host_scan_owned, .flush_caches = stack_caches_turn_stw,
        .parallel = host_parallel, .procs = host_procs,
        .stack_bytes = host_stack_bytes, .calls_ready = host_calls, .sweep_ready = host_sweep, .log = sched_log, .relax = host_relax,
        .scavenge_ready = host_scavenge, .release_wanted = host_release_wanted, .release_some = host_release_some,
        .cpu_times = cpu_times,
        .scan_running = watch_scan_running_stw, .scan_parked = watch_scan_parked, .scan_written = watch_scan_written_stw,
        .mark_ready = host_mark_ready, .stop_wanted = &sched.stopping,
    };
    const struct config *c = &sched.cfg;
    struct gc_settings set = {
        .heap_reserve = (size_t)c->heap_reserve, .gc_percent = (int)c->gc_percent, .memory_limit = c->memory_limit,
        .stress = (uint64_t)c->gcstress, .poison = c->gcpoison != 0, .verify = c->gcverify != 0, .trace = c->gctrace != 0,
        .scavtrace = c->scavtrace != 0, .madv_free = c->madvdontneed == 0, .fenced = sched.fenced,
        .sample_rate = (uint64_t)(c->mem_profile_rate != 0 ? w_max(c->mem_profile_rate, (int64_t)0) : c->memprofilerate),
        .sample_seed = (uint64_t)c->schedseed, /* [SEED] */
        .stw = c->gc == CONFIG_GC_STW || c->schedseed != 0, /* [SEED]: who marks what is not drawn */
        .dirty_any = c->gc == CONFIG_GC_AUTO, .dirty = c->gc == CONFIG_GC_MPROTECT ? DIRTY_MPROTECT : DIRTY_UFFD,
    };
    watch_start();
    worker_init(&finalizer, calls_fiber, "finalizers", WAIT_FINALIZER);
    worker_init(&sweeper, sweep_fiber, "sweeper", WAIT_SWEEP);
    worker_init(&scavenger, scavenge_fiber, "scavenger", WAIT_SCAVENGE);
    for (unsigned i = 0; i < COLLECTORS_MAX; i++)
        worker_init(&collector[i], collect_fiber, "collector", WAIT_MARK);
    for (unsigned i = 0; i < CLEANERS_MAX; i++) {
        worker_init(&cleaner[i], calls_fiber, "cleanups", WAIT_CLEANUP);
        cleaner[i].kind = GC_CLEANUP;
    }
    store_rlx(&forced, 0);
    store_rlx(&off_used, 0); /* rlx: nobody runs, here and below */
    store_rlx(&off_shrunk, 0);
    stack_exclude();
    return gc_start(&host, &set);
}

/* self is the fiber of w, which runs a call that forked: by its first deferred call. */
static bool worker_is(const struct worker *w, const struct fiber *self)
{
    for (struct deferred *d = self != NULL ? self->defers : NULL; d != NULL; d = d->next)
        if (d->fn == call_exited && d->arg == w)
            return true;
    return false;
}

bool mutator_has(const struct fiber *f)
{
    bool has = worker_is(&finalizer, f);
    for (unsigned i = 0; i < CLEANERS_MAX; i++)
        has = has || worker_is(&cleaner[i], f);
    return has;
}

static void worker_lose(struct worker *w, const struct fiber *self)
{
    lock_init(&w->lock, RANK_WORKER);
    w->parked = NULL;
    w->poked = false;
    w->made = worker_is(w, self);
}

void mutator_after_fork(const struct fiber *self)
{
    worker_lose(&finalizer, self);
    worker_lose(&sweeper, self);
    worker_lose(&scavenger, self);
    for (unsigned i = 0; i < COLLECTORS_MAX; i++)
        worker_lose(&collector[i], self);
    watch_after_fork();
    for (unsigned i = 0; i < CLEANERS_MAX; i++)
        worker_lose(&cleaner[i], self);
    store_rlx(&forced, 0); /* rlx: nobody else runs */
}

void mutator_end(void) { gc_stop_all(); }

/* ---- allocation ---------------------------------------------------------------------------------------------- */

struct typed { const weft_type *type; size_t n; };

static void *try_slow(struct m *m, size_t bytes, unsigned shape, const struct typed *t, bool *want_gc)
{
    return t != NULL ? gc_alloc_typed(&m->p->gc, t->type, t->n, want_gc) : gc_alloc_slow(&m->p->gc, bytes, shape, want_gc);
}

static bool possible(size_t bytes, const struct typed *t)
{
    return (t == NULL || !__builtin_mul_overflow(gc_type_size(t->type), t->n, &bytes)) && gc_alloc_possible(bytes);
}

static w_noinline void *alloc_slow(struct m *m, size_t bytes, unsigned shape, const struct typed *t)
{
    bool want_gc = false;
    void *volatile obj = try_slow(m, bytes, shape, t, &want_gc); /* volatile: on this frame, which a collection scans */
    if (obj == NULL && possible(bytes, t)) {
        collect_here(GC_WHY_NOMEM);
        m = m_self();
        obj = try_slow(m, bytes, shape, t, &want_gc);
    }
    if (want_gc)
        collect_due();
    return obj;
}

void *mutator_alloc(struct m *m, size_t bytes, unsigned shape)
{
    void *p = gc_alloc_fast(&m->p->gc, bytes, shape);
    return likely(p != NULL) ? p : alloc_slow(m, bytes, shape, NULL);
}

void *weft_alloc(size_t size)
{
    struct m *m = rt_enter();
    void *p = gc_alloc_fast(&m->p->gc, size, SHAPE_CONS);
    if (unlikely(p == NULL)) {
        p = alloc_slow(m, size, SHAPE_CONS, NULL);
        m = m_self();
    }
    rt_leave(m);
    return p;
}

void *weft_alloc_noscan(size_t size)
{
    struct m *m = rt_enter();
    void *p = gc_alloc_fast(&m->p->gc, size, SHAPE_NOSCAN);
    if (unlikely(p == NULL)) {
        p = alloc_slow(m, size, SHAPE_NOSCAN, NULL);
        m = m_self();
    }
    rt_leave(m);
    return p;
}

static void *alloc_typed(const weft_type *type, size_t n)
{
    if (type == NULL)
        return NULL;
    struct m *m = rt_enter();
    bool want_gc = false;
    void *p = gc_alloc_typed(&m->p->gc, type, n, &want_gc);
    if (unlikely(p == NULL || want_gc)) {
        void *volatile keep = p;
        struct typed t = { type, n };
        if (p == NULL)
            p = alloc_slow(m, 0, 0, &t);
        else
            collect_due();
        (void)keep;
        m = m_self();
    }
    rt_leave(m);
    return p;
}

void *weft_alloc_typed(const weft_type *type) { return alloc_typed(type, 1); }
void *weft_alloc_array(const weft_type *type, size_t n) { return alloc_typed(type, n); }

void *weft_alloc_carded(size_t size) { return alloc_typed(gc_type_carded_words(), size / 8 + (size % 8 != 0)); }

void *weft_realloc(void *old, size_t size)
{
    if (old == NULL)
        return weft_alloc(size);
    struct m *m = rt_enter();
    void *copy = NULL;
    size_t have = gc_object_size(old);
    if (have != 0 && gc_object_carded(old)) {
        bool start = gc_object_base(old) == old;
        rt_leave(m);
        if (start && (copy = weft_alloc_carded(size)) != NULL)
            weft_store_move(copy, old, w_min(have, w_align_up(size, 8)));
        return copy;
    }
    if (gc_object_base(old) == old) {
        unsigned shape = gc_object_shape(old);
        if (shape >= SHAPE_TYPED)
            shape = SHAPE_CONS; /* what lies behind the last element is not known */
        copy = gc_alloc_fast(&m->p->gc, size, shape);
        if (copy == NULL)
            copy = alloc_slow(m, size, shape, NULL);
        m = m_self();
        if (copy != NULL)
            memcpy(copy, old, w_min(have, size));
    }
    rt_leave(m);
    return copy;
}

void *weft_realloc_array(const weft_type *type, void *old, size_t n)
{
    if (type == NULL)
        return NULL;
    struct m *m = rt_enter();
    bool fits = old == NULL || (gc_object_base(old) == old && gc_object_shape(old) == type->shape);
    size_t have = old != NULL ? gc_object_size(old) : 0;
    rt_leave(m);
    char *copy = fits ? alloc_typed(type, n) : NULL;
    size_t bytes = w_min(have, w_align_up(n * type->size, 8)); /* the slot has so much */
    if (copy != NULL && old != NULL)
        type->carded ? weft_store_move(copy, old, bytes) : (void)memcpy(copy, old, bytes);
    return copy;
}

/* ---- carded objects [CARDS] ------------------------------------------------------------------------------------ */

#define MOVE_FEW 128u                /* bytes: so many are stored one by one, which is quicker than to enter */
#define MOVE_PIECE ((size_t)64 << 10) /* a stop waits for so much, some microseconds */

static void store_words(char *to, const char *from, size_t bytes)
{
    if ((uintptr_t)to - (uintptr_t)from >= bytes) /* forward does for what lies below, and for what does not overlap */
        for (size_t i = 0; i < bytes; i += 8)
            weft_store(to + i, *(weft_slot_ const *)(from + i));
    else
        for (size_t i = bytes; i != 0; i -= 8)
            weft_store(to + i - 8, *(weft_slot_ const *)(from + i - 8));
}

static void mark_cards(char *slots, size_t bytes)
{
    for (size_t i = 0, n; i < bytes; i += n) {
        n = CARD_BYTES - (uintptr_t)(slots + i) % CARD_BYTES;
        weft_stored(slots + i, NULL);
    }
}

void weft_store_move(void *to, const void *from, size_t bytes)
{
    if (bytes <= MOVE_FEW) {
        store_words(to, from, bytes);
        return;
    }
    if ((uintptr_t)to + weft_card_table_.minus_base >= weft_card_table_.bytes) {
        memmove(to, from, bytes);
        return;
    }
    bool forward = (uintptr_t)to - (uintptr_t)from >= bytes;
    for (size_t done = 0, n; done < bytes; done += n) {
        n = w_min(MOVE_PIECE, bytes - done);
        size_t at = forward ? done : bytes - done - n;
        struct m *m = rt_enter(); /* no stop between a word's copy and its mark */
        memmove((char *)to + at, (const char *)from + at, n);
        mark_cards((char *)to + at, n);
        rt_leave(m);
    }
    weft_keep_alive(from);
}

void weft_store_fill(void *slots, void *value, size_t n)
{
    weft_slot_ *s = slots;
    for (size_t i = 0, k; i < n; i += k) {
        k = w_min(n - i, (CARD_BYTES - (uintptr_t)(s + i) % CARD_BYTES) / sizeof *s);
        for (size_t j = 0; j < k; j++)
            __atomic_store_n(&s[i + j], value, __ATOMIC_RELAXED); /* rlx: as weft_store */
        weft_stored(&s[i], value);
    }
}

char *weft_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = weft_alloc_noscan(n);
    return copy == NULL ? NULL : memcpy(copy, s, n);
}

/* ---- the rest, through the door --------------------------------------------------------------------------------- */

#define INSIDE(type, expr)              \
    do {                                \
        struct m *m_ = rt_enter();      \
        type r_ = (expr);               \
        rt_leave(m_);                   \
        return r_;                      \
    } while (0)

void *weft_object_base(const void *p) { INSIDE(void *, gc_object_base(p)); }
size_t weft_object_size(const void *p) { INSIDE(size_t, gc_object_size(p)); }
int weft_root_add(void *p, size_t bytes) { INSIDE(int, gc_root_add(p, bytes)); }
int weft_root_remove(void *p) { INSIDE(int, gc_root_remove(p)); }
weft_handle weft_handle_new(void *p) { INSIDE(weft_handle, gc_handle_new(p)); }
void *weft_handle_get(weft_handle h) { INSIDE(void *, gc_handle_get(h)); }
int weft_handle_free(weft_handle h) { INSIDE(int, gc_handle_free(h)); }
w_noinline int weft_set_finalizer(void *obj, weft_finalizer *fn, void *ctx)
{
    const void *pc = __builtin_return_address(0);
    if (guarded(WEFT_GUARD_DESCRIPTORS) && fn != NULL) {
        reclaim_guard();
        weft_keep_alive(obj);
    }
    INSIDE(int, gc_finalizer_set(obj, fn, ctx, pc));
}
int weft_add_cleanup(void *p, weft_fn *fn, void *arg, weft_cleanup *out) { INSIDE(int, gc_cleanup_add(p, fn, arg, out)); }
bool weft_cleanup_stop(weft_cleanup c) { INSIDE(bool, gc_cleanup_stop(c)); }
const weft_type *weft_type_make(size_t size, const size_t *offsets, size_t n) { INSIDE(const weft_type *, gc_type_make(size, offsets, n)); }

const weft_type *weft_type_carded(const weft_type *type)
{
    if (type == NULL)
        return NULL;
    INSIDE(const weft_type *, gc_type_carded(type));
}

int weft_type_name(const weft_type *type, const char *name) { INSIDE(int, gc_type_name(type, name)); }

const weft_type *weft_type_once(struct weft_type_once *once, const char *name, size_t size, const size_t *offsets, size_t n)
{
    /* A later life of the runtime makes its types anew. */
    uint64_t run = __atomic_load_n(&once->run, __ATOMIC_ACQUIRE); /* acq: sees type; rel below */
    if (likely(run == sched.run))
        return __atomic_load_n(&once->type, __ATOMIC_RELAXED);
    const weft_type *t = weft_type_make(size, offsets, n);
    if (t != NULL) {
        weft_type_name(t, name); /* without memory for it, it has none */
        __atomic_store_n(&once->type, t, __ATOMIC_RELAXED); /* equal layouts share one type: a second maker writes the same */
        __atomic_store_n(&once->run, sched.run, __ATOMIC_RELEASE);
    }
    return t;
}

weft_weak *weft_weak_make(void *p)
{
    if (p == NULL)
        return NULL;
    struct m *m = rt_enter();
    weft_weak *w = gc_weak_find(p);
    if (w == NULL) {
        weft_weak *fresh = mutator_alloc(m, GC_WEAK_BYTES, SHAPE_NOSCAN);
        m = m_self();
        if (fresh != NULL)
            w = gc_weak_attach(p, fresh);
    }
    rt_leave(m);
    return w;
}

void *weft_weak_get(const weft_weak *w)
{
    if (w == NULL)
        return NULL;
    struct m *m = rt_enter();
    void *p = gc_weak_get(w);
    __asm__ volatile("" : "+r"(p)); /* open from here on, where a stop looks: not taken from its complement after rt_leave */
    rt_leave(m);
    return p;
}

/* On the caller's stack: who listens may look at it. */
static void collect_forced(bool release)
{
    int64_t began = PROBE_WANTED(gc_forced) ? os_now_ns() : 0;
    collect_here(GC_WHY_FORCED);
    if (release) {
        gc_release_free();
        stack_release_free();
        off_release();
    }
    if (began != 0)
        PROBE(gc_forced, 0, os_now_ns() - began, release);
}

static void collect_guarded(void)
{
    int64_t began = sched_now_ns();
    if (guard_gc_rests()) {
        PROBE(gc_forced, 1, 0, 0);
        return;
    }
    stack_caches_empty();
    collect_forced(true);
    guard_gc_took(began);
}

void weft_gc(void)
{
    rt_enter();
    if (guarded(WEFT_GUARD_GC))
        collect_guarded();
    else
        collect_forced(false);
    rt_leave(m_self());
}

int weft_set_gc_percent(int percent)
{
    struct m *m = rt_enter();
    int old = gc_set_percent(percent);
    if (gc_due())
        collect_here(GC_WHY_HEAP);
    (void)m;
    rt_leave(m_self());
    return old;
}

int64_t weft_set_memory_limit(int64_t bytes)
{
    rt_enter();
    int64_t old = gc_set_limit(bytes);
    if (gc_due())
        collect_here(GC_WHY_HEAP);
    rt_leave(m_self());
    return old;
}

void weft_free_os_memory(void)
{
    rt_enter();
    stack_caches_empty();
    collect_forced(true);
    rt_leave(m_self());
}

void sched_memory(struct sched_memory *out)
{
    struct off_stats sched_mem, fiber_mem, prof, trace, other;
    off_stats(OFF_SCHED, &sched_mem);
    off_stats(OFF_FIBER, &fiber_mem);
    off_stats(OFF_PROF, &prof);
    off_stats(OFF_TRACE, &trace);
    off_stats(OFF_OTHER, &other);
    uint64_t slots, unused;
    stack_count(&slots, &unused);
    out->stack_inuse = (slots - unused) * os_page_bytes();
    out->stack_sys = slots * os_page_bytes();
    out->buckets = prof.mapped_bytes;
    out->other = sched_mem.mapped_bytes + fiber_mem.mapped_bytes + trace.mapped_bytes + other.mapped_bytes
                 - nprocs() * sizeof(struct gc_cache); /* part of struct p, and counted as mcache */
}

static void fill_stats(weft_mem_stats *out)
{
    struct sched_memory s;
    gc_fill_stats(out);
    sched_memory(&s);
    out->stack_inuse = s.stack_inuse;
    out->stack_sys = s.stack_sys;
    out->buck_hash_sys = s.buckets;
    out->other_sys = s.other;
    out->sys += s.stack_sys + s.buckets + s.other;
}

static void read_stats(void *arg)
{
    world_stop(WEFT_STOP_MEM_STATS, false);
    fill_stats(arg);
    world_start();
}

static void read_stats_inside(weft_mem_stats *out)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    sched_on_big_stack(read_stats, out);
}

static int read_stats_again(weft_mem_stats *out)
{
    if (rt_enter_try() == NULL)
        return -ESRCH;
    read_stats_inside(out);
    rt_leave(m_self());
    return 0;
}

int weft_read_mem_stats(weft_mem_stats *out)
{
    if (out == NULL || out->size != sizeof *out)
        return -EINVAL;
    if (rt_enter_try() == NULL)
        return -ESRCH;
    bool guard = guarded(WEFT_GUARD_STATS);
    PROBE(mem_stats_read, guard, 0, 0);
    if (!guard)
        read_stats_inside(out);
    rt_leave(m_self());
    return guard ? guard_mem_stats(out, read_stats_again) : 0;
}
