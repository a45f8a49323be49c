/* Start, stop, and the cycle.
 *
 * [CYCLE] One at a time, under gc.lock, which is held over the stop:
 *
 *     sweep termination   what the last cycle left is swept to the end; the table of modules is brought up to date; the world is
 *                         stopped [LOADER]; the processors' caches are flushed, so that allocation bits are exact
 *     mark                all roots and what they reach, by all processors (mark.c)
 *     mark termination    weak pointers to dead objects are cleared, finalizers and cleanups queued (special.c); what was sampled is told
 *                         (sample.c); the next goal is set; all spans become unswept
 *     sweep               the world runs; refills, a fiber in the background and whoever forced the cycle sweep
 *
 * Concurrent marking [CONC] has its place between: mark then runs before the stop, and its rest in mark termination.
 *
 * A thread that waits for gc.lock must not sit inside the runtime, or the holder's stop would wait for it: so nobody waits for that lock, one
 * tries, and between tries goes out through host.relax. */
#include <errno.h>
#include <string.h>
#include "base/fmt.h"
#include "base/probe.h"
#include "base/syscall.h"
#include "gc/cache.h"
#include "gc/finalize.h"
#include "gc/held.h"
#include "gc/mark.h"
#include "gc/pacer.h"
#include "gc/pages.h"
#include "gc/roots.h"
#include "gc/sample.h"
#include "gc/scavenge.h"
#include "gc/special.h"
#include "gc/stats.h"
#include "gc/sweep.h"
#include "gc/trail.h"
#include "gc/type.h"
#include "gc/verify.h"
#include "gc/weak.h"
#include "os/clock.h"
#include "os/loader.h"

enum phase { PHASE_SWEEP_TERM, PHASE_MARK, PHASE_MARK_TERM, PHASE_SWEEP };

#define LOADER_TRIES 1000u
#define LOADER_NS INT64_C(1000000000) /* a thread in the loader may have no CPU for as long as many tries take */
#define WORKER_BYTES (1u << 20) /* half the heap and roots: so much is worth a further worker */

static struct {
    struct lock lock;   /* RANK_GC */
    w_u64 begun; /* cycles; counted in their stops, under lock, read relaxed */
    w_i64 last_end_ns;
    int64_t start_ns;
} gc = { .lock = LOCK_INIT(RANK_GC) };

/* What a cycle measures of itself. */
struct cycle {
    uint64_t number;
    enum gc_why why;
    const struct gc_late *late; /* NULL: it asks for nothing */
    const struct gc_look *look; /* the same */
    int64_t begin_ns, mark_ns, marked_ns, end_ns, pause_ns;
    uint64_t before_bytes, goal_bytes;
    unsigned procs;
    struct pacer_marked marked;
};

/* ---- start and stop --------------------------------------------------------------------------------------- */

int gc_start(const struct gc_host *host, const struct gc_settings *set)
{
    if (heap.running)
        return -EINVAL;
    struct lock caches = heap.caches_lock;
    memset(&heap, 0, sizeof heap);
    heap.caches_lock = caches;
    heap.host = *host;
    heap.poison = set->poison;
    heap.verify = set->verify;
    heap.trace = set->trace;
    heap.scavtrace = set->scavtrace;
    heap.madv_free = set->madv_free;
    heap.stress = set->stress;
    heap.sample_seed = set->sample_seed;
    store_rlx(&heap.sample_rate, set->sample_rate); /* rlx: nobody else yet, here and below */
    store_rlx(&heap.sweepgen, SWEEPGEN_STEP);
    store_rlx(&gc.begun, 0);
    store_rlx(&gc.last_end_ns, 0);
    gc.start_ns = os_now_ns();
    stats_start();
    scavenge_start();
    sweep_reset();
    int err = pages_start(set->heap_reserve);
    if (err == 0 && (err = types_start()) == 0 && (err = roots_start()) == 0)
        heap.running = true;
    if (err != 0) {
        gc_stop_all();
        return err;
    }
    pacer_start(set->gc_percent, set->memory_limit);
    return 0;
}

void gc_stop_all(void)
{
    heap.running = false;
    finalize_stop();
    specials_stop();
    samples_stop();
    weak_stop();
    mark_free_memory();
    roots_stop();
    types_stop();
    pages_stop();
}

/* ---- gctrace ------------------------------------------------------------------------------------------------- */

/* Milliseconds as Go prints them: whole from 10 on, below that two significant digits, at most three decimals. */
static size_t put_ms(char *to, size_t n, int64_t ns)
{
    int64_t us = (ns + 500) / 1000;
    if (us >= 10000)
        return w_fmt(to, n, "%lld", (long long)(us / 1000));
    if (us >= 1000)
        return w_fmt(to, n, "%lld.%lld", (long long)(us / 1000), (long long)(us / 100 % 10));
    if (us >= 100)
        return w_fmt(to, n, "0.%02lld", (long long)(us / 10));
    return w_fmt(to, n, "0.%03lld", (long long)us);
}

static uint64_t mib(uint64_t bytes) { return (bytes + (1 << 19)) >> 20; }

static void trace(const struct cycle *c)
{
    char line[320], a[24], b[24], t[24], d[24], f[24], h[24];
    int64_t stop = c->mark_ns - c->begin_ns, mark = c->marked_ns - c->mark_ns, term = c->end_ns - c->marked_ns;
    int64_t since_ms = (c->begin_ns - gc.start_ns) / 1000000;
    put_ms(a, sizeof a, stop);
    put_ms(b, sizeof b, mark);
    put_ms(t, sizeof t, term);
    put_ms(d, sizeof d, stop * c->procs);
    put_ms(f, sizeof f, mark * c->procs);
    put_ms(h, sizeof h, term * c->procs);
    w_fmt(line, sizeof line,
          "gc %llu @%lld.%03llds %d%%%s: %s+%s+%s ms clock, %s+0/%s/0+%s ms cpu, %llu->%llu->%llu MB, %llu MB goal, "
          "%llu MB stacks, %llu MB globals, %u P%s",
          (unsigned long long)c->number, (long long)(since_ms / 1000), (long long)(since_ms % 1000),
          (int)(stats_cpu_fraction() * 100), c->late != NULL ? " (checking for goroutine leaks)" : "", a, b, t, d, f, h,
          (unsigned long long)mib(c->before_bytes), (unsigned long long)mib(c->before_bytes), (unsigned long long)mib(c->marked.live_bytes),
          (unsigned long long)mib(c->goal_bytes), (unsigned long long)mib(c->marked.stack_bytes),
          (unsigned long long)mib(c->marked.global_bytes), c->procs, c->why == GC_WHY_FORCED ? " (forced)" : "");
    heap.host.log(line);
}

/* ---- the cycle ------------------------------------------------------------------------------------------------ */

static void relax(void)
{
    if (heap.host.relax != NULL)
        heap.host.relax();
    else
        sys_call0(SYS_sched_yield); /* a host of one thread */
}

/* Stops the world with a table of modules that is true. false: no memory for it, or somebody was loading modules all the time. */
static bool stop_with_roots(void)
{
    int64_t begin = os_now_ns();
    for (unsigned i = 0; i < LOADER_TRIES || os_now_ns() - begin < LOADER_NS; i++) {
        if (roots_prepare() != 0)
            return false;
        heap.host.stop_world(WEFT_STOP_GC);
        if (loader_current_stw())
            return true;
        heap.host.start_world();
        relax(); /* the thread in the loader needs a chance to come out */
    }
    return false;
}

/* A small mark is over before helpers would have woken. */
static unsigned workers(unsigned procs)
{
    const struct pacer_marked *last = &pacer.last; /* plain: written by cycles only */
    uint64_t work = load_rlx(&heap.live) / 2 + last->stack_bytes + last->global_bytes; /* rlx: in a stop */
    return (unsigned)w_min((uint64_t)procs, work / WORKER_BYTES + 1);
}

static uint64_t in_use_bytes(void)
{
    struct pages_stats pg;
    pages_stats(&pg);
    return pg.sys_bytes - pg.free_bytes;
}

static void mark(struct cycle *c)
{
    c->procs = heap.host.procs();
    c->number = load_rlx(&gc.begun) + 1; /* rlx: the lock is held */
    store_rlx(&gc.begun, c->number);
    caches_flush_stw();
    if (heap.host.flush_caches != NULL)
        heap.host.flush_caches();
    c->before_bytes = load_rlx(&heap.live); /* rlx: in a stop */
    uint64_t in_use = in_use_bytes();
    c->goal_bytes = load_rlx(&pacer.goal);
    PROBE(gc_begin, c->number, c->why, c->before_bytes);
    PROBE(gc_phase, c->number, PHASE_MARK, 0);
    c->mark_ns = os_now_ns();
    mark_stw(workers(c->procs), c->late, &c->marked);
    c->marked_ns = os_now_ns();
    PROBE(gc_phase, c->number, PHASE_MARK_TERM, 0);
    c->marked.live_bytes += specials_dead_stw();
    held_prove_stw();
    samples_marked_stw();
    c->marked.waste_bytes = in_use - w_min(in_use, c->before_bytes);
    c->marked.in_use_bytes = in_use;
    if (heap.verify)
        verify_stw();
    if (c->look != NULL)
        c->look->marked_stw(c->look->arg);
    store_rlx(&heap.live, c->marked.live_bytes);
    sweep_begin_stw();
    pacer_marked(&c->marked);
    scavenge_pace_stw();
    PROBE(gc_phase, c->number, PHASE_SWEEP, 0);
}

static bool cycle(enum gc_why why, const struct gc_late *late, const struct gc_look *look)
{
    struct cycle c = { .why = why, .late = late, .look = look };
    PROBE(gc_phase, load_rlx(&gc.begun) + 1, PHASE_SWEEP_TERM, 0); /* rlx: the lock is held */
    sweep_finish();
    scavenge_to_limit();
    c.begin_ns = os_now_ns();
    pacer_cycle_begins(c.begin_ns);
    if (!stop_with_roots())
        return false;
    mark(&c);
    c.pause_ns = heap.host.start_world();
    c.end_ns = os_now_ns();
    const struct heap_cycle done = { c.number, (uint64_t)os_wall_ns(), (uint64_t)c.pause_ns, c.before_bytes, c.marked.live_bytes,
                                     load_rlx(&pacer.goal), why == GC_WHY_FORCED }; /* rlx: a figure */
    stats_cycle(&done, (c.end_ns - c.begin_ns) * c.procs);
    stats_cycle_cpu(c.marked.stack_bytes);
    pacer_cycle_took(c.end_ns - c.begin_ns, c.end_ns, c.number);
    store_rlx(&gc.last_end_ns, c.end_ns); /* rlx: figures */
    PROBE(gc_end, c.number, c.marked.live_bytes, load_rlx(&pacer.goal));
    held_tell();
    if (heap.trace)
        trace(&c);
    return true;
}

static void tell_host(void)
{
    for (unsigned k = 0; k < GC_CALLS; k++)
        if (gc_calls_waiting(k) != 0)
            heap.host.calls_ready(k);
    if (sweep_pending())
        heap.host.sweep_ready();
}

void gc_collect(enum gc_why why)
{
    bool wait = why == GC_WHY_FORCED || why == GC_WHY_NOMEM;
    uint64_t seen = load_rlx(&gc.begun); /* rlx: an old value only means one more cycle */
    while (!lock_try(&gc.lock)) {
        if (!wait)
            return; /* another thread is at it */
        relax();
    }
    /* One that began after we came has found all that was garbage then: calls that overlap share it. */
    bool need = why == GC_WHY_HEAP ? gc_due() : load_rlx(&gc.begun) == seen; /* rlx: the lock is held */
    bool done = need && cycle(why, NULL, NULL);
    if (wait)
        sweep_finish();
    lock_drop(&gc.lock);
    if (done)
        tell_host();
}

/* One of its own, whoever else collects. */
static bool collect_for(const struct gc_late *late, const struct gc_look *look)
{
    while (!lock_try(&gc.lock))
        relax();
    bool done = cycle(GC_WHY_FORCED, late, look);
    sweep_finish();
    lock_drop(&gc.lock);
    if (done)
        tell_host();
    return done;
}

bool gc_collect_late(const struct gc_late *late) { return collect_for(late, NULL); }
bool gc_collect_look(const struct gc_look *look) { return collect_for(NULL, look); }

uint64_t gc_cycles_begun(void) { return load_rlx(&gc.begun); } /* rlx: a figure, and exact in a stop */

/* The fork stopped the processors, so no sweep is half done; but who waited to begin its own stop held the lock. */
void gc_after_fork_child(void)
{
    lock_init(&gc.lock, RANK_GC);
    tell_host();
}

int64_t gc_last_end_ns(void) { return load_rlx(&gc.last_end_ns); } /* rlx: a figure */
