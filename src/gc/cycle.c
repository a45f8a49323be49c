/* Start, stop, and the cycle.
 *
 * [CYCLE] One at a time: whoever has made gc.busy his begins it, and whoever does its last step ends it.
 *
 *     sweep termination   what the last cycle left is swept to the end; the table of modules is brought up to date; the world is
 *                         stopped [LOADER]; the processors' caches are flushed, so that allocation bits are exact
 *     mark                all roots and what they reach: in this stop, by all processors (mark.c); or beside the program (conc.c), and what is left
 *                         of it in a second stop, before which modules and caches have their turn again
 *     mark termination    weak pointers to dead objects are cleared, finalizers and cleanups queued (special.c); what was sampled is told
 *                         (sample.c); the next goal is set; all spans become unswept
 *     sweep               the world runs; refills, a fiber in the background and whoever forced the cycle sweep
 *
 * The mark is made in one stop where nobody can tell which pages are written to (WEFT_DEBUG=gc=stw; older kernels), and in cycles with a purpose of their
 * own ([LATE], trail.h).
 *
 * Marking beside the program belongs to no thread: its steps are taken by the collector's fiber, by processors that idle, by allocations, and by
 * those who wait for its end. The step that ends it is one of the collector's fiber, or of who waits.
 *
 * A thread that waits for another's cycle must not sit inside the runtime, or the other's stop would wait for it: so nobody waits for gc.busy, one
 * tries, and between tries goes out through host.relax. */
#include <errno.h>
#include <string.h>
#include "base/backoff.h"
#include "base/fmt.h"
#include "base/probe.h"
#include "gc/cache.h"
#include "gc/cards.h"
#include "gc/conc.h"
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
#include "os/dirty.h"
#include "os/loader.h"

enum phase { PHASE_SWEEP_TERM, PHASE_MARK, PHASE_MARK_TERM, PHASE_SWEEP };

#define LOADER_TRIES 1000u
#define LOADER_NS INT64_C(1000000000) /* a thread in the loader may have no CPU for as long as many tries take */
#define WORKER_BYTES (1u << 20) /* half the heap and roots: so much is worth a further worker */

/* What a cycle measures of itself. */
struct cycle {
    uint64_t number;
    enum gc_why why;
    const struct gc_late *late; /* NULL: it asks for nothing */
    const struct gc_look *look; /* the same */
    int64_t begin_ns, mark_ns, marked_ns, end_ns, pause_ns;
    uint64_t before_bytes, goal_bytes, in_use_bytes;
    uint64_t after_bytes; /* when the mark was over, before dead objects were taken off */
    unsigned procs;
    bool beside; /* the program */
    int64_t cpu_ns[GC_CPU_KINDS]; /* of marking beside it, as of its end */
    struct pacer_marked marked;
};

static struct {
    w_u32 busy;  /* 1: a cycle is under way. acq by who begins one: sees the last one's end; rel there */
    w_u64 begun; /* cycles; counted in their stops; rlx: exact in a stop and for who is busy */
    w_u64 ended; /* rel: a cycle's end; acq by who waits for that */
    w_i64 last_end_ns;
    int64_t start_ns;
    w_i64 first_pause_ns;        /* its first stop */
    struct cycle now;            /* who is busy: the cycle that marks beside the program. Handed on by conc_step's CONC_MARKED */
    w_i64 mark_cpu_ns[GC_CPU_KINDS]; /* of this cycle, beside the program. rlx: counters */
} gc;

w_u32 gc_marks;

static bool become_busy(void) { return load_rlx(&gc.busy) == 0 && cas_acq(&gc.busy, 0, 1); } /* acq: see there */
static void no_more_busy(void) { store_rel(&gc.busy, 0); } /* rel: see there */

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
    heap.fenced = set->fenced;
    heap.stress = set->stress;
    heap.beside_always = !set->stw && !set->dirty_any;
    heap.sample_seed = set->sample_seed;
    store_rlx(&gc.busy, 0); /* rlx: nobody else yet, here and below */
    store_rlx(&gc.ended, 0);
    store_rlx(&gc_marks, 0);
    conc_start();
    store_rlx(&heap.sample_rate, set->sample_rate); /* rlx: nobody else yet, here and below */
    store_rlx(&heap.sweepgen, SWEEPGEN_STEP);
    store_rlx(&gc.begun, 0);
    store_rlx(&gc.last_end_ns, 0);
    gc.start_ns = os_now_ns();
    stats_start();
    scavenge_start();
    sweep_reset();
    int err = pages_start(set->heap_reserve);
    if (err == 0 && !set->stw)
        err = dirty_start(set->dirty, set->dirty_any, (uintptr_t)heap.base, (uintptr_t)heap.base + heap.reserved);
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
    dirty_stop();
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
    char line[320], as[24], id[24], a[24], b[24], t[24], d[24], f[24], h[24];
    int64_t stop = c->mark_ns - c->begin_ns, mark = c->marked_ns - c->mark_ns, term = c->end_ns - c->marked_ns;
    int64_t since_ms = (c->begin_ns - gc.start_ns) / 1000000;
    put_ms(a, sizeof a, stop);
    put_ms(b, sizeof b, mark);
    put_ms(t, sizeof t, term);
    put_ms(d, sizeof d, stop * c->procs);
    put_ms(f, sizeof f, c->beside ? c->cpu_ns[GC_CPU_DEDICATED] : mark * c->procs);
    put_ms(as, sizeof as, c->cpu_ns[GC_CPU_ASSIST]);
    put_ms(id, sizeof id, c->cpu_ns[GC_CPU_IDLE]);
    put_ms(h, sizeof h, term * c->procs);
    w_fmt(line, sizeof line,
          "gc %llu @%lld.%03llds %d%%%s: %s+%s+%s ms clock, %s+%s/%s/%s+%s ms cpu, %llu->%llu->%llu MB, %llu MB goal, "
          "%llu MB stacks, %llu MB globals, %u P%s",
          (unsigned long long)c->number, (long long)(since_ms / 1000), (long long)(since_ms % 1000),
          (int)(stats_cpu_fraction() * 100), c->late != NULL ? " (checking for goroutine leaks)" : "", a, b, t, d, as, f, id, h,
          (unsigned long long)mib(c->before_bytes), (unsigned long long)mib(c->after_bytes), (unsigned long long)mib(c->marked.live_bytes),
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
        nap(); /* a host of one thread */
}

/* Stops the world with a table of modules that is true; stops that were in vain count in c's pause, if it becomes a cycle. false: no memory for it, or
 * somebody was loading modules all the time. */
static bool stop_with_roots(struct cycle *c)
{
    int64_t begin = os_now_ns();
    for (unsigned i = 0; i < LOADER_TRIES || os_now_ns() - begin < LOADER_NS; i++) {
        if (roots_prepare() != 0)
            return false;
        heap.host.stop_world(WEFT_STOP_GC);
        if (loader_current_stw())
            return true;
        c->pause_ns += heap.host.start_world();
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

/* In the first stop. */
static void begin_stw(struct cycle *c)
{
    c->procs = heap.host.procs();
    c->number = load_rlx(&gc.begun) + 1; /* rlx: we are busy */
    store_rlx(&gc.begun, c->number);
    caches_flush_stw();
    c->before_bytes = load_rlx(&heap.live); /* rlx: in a stop */
    c->in_use_bytes = in_use_bytes();
    c->goal_bytes = load_rlx(&pacer.goal);
    PROBE(gc_begin, c->number, c->why, c->before_bytes);
    PROBE(gc_phase, c->number, PHASE_MARK, 0);
    c->mark_ns = os_now_ns();
}

/* In the stop in which the mark has ended. */
static void end_stw(struct cycle *c)
{
    uint64_t before = c->before_bytes, in_use = c->in_use_bytes;
    c->after_bytes = load_rlx(&heap.live); /* rlx: in a stop */
    c->marked.live_bytes += specials_dead_stw();
    held_prove_stw();
    samples_marked_stw();
    c->marked.waste_bytes = in_use - w_min(in_use, before);
    c->marked.in_use_bytes = in_use;
    if (heap.verify)
        verify_stw();
    if (c->look != NULL)
        c->look->marked_stw(c->look->arg);
    if (heap.host.flush_caches != NULL)
        heap.host.flush_caches();
    store_rlx(&heap.live, c->marked.live_bytes);
    sweep_begin_stw(in_use_bytes());
    pacer_marked(&c->marked);
    scavenge_pace_stw();
    PROBE(gc_phase, c->number, PHASE_SWEEP, 0);
}

/* The world runs again. */
static void ended(struct cycle *c)
{
    c->end_ns = os_now_ns();
    const struct heap_cycle done = { c->number, (uint64_t)os_wall_ns(), (uint64_t)c->pause_ns, c->before_bytes, c->marked.live_bytes,
                                     load_rlx(&pacer.goal), c->why == GC_WHY_FORCED }; /* rlx: a figure */
    int64_t stopped_ns = c->beside ? c->pause_ns : c->end_ns - c->begin_ns;
    int64_t cpu_ns = stopped_ns * c->procs + c->cpu_ns[GC_CPU_DEDICATED] + c->cpu_ns[GC_CPU_ASSIST];
    stats_cycle(&done, cpu_ns);
    stats_cycle_cpu(c->marked.stack_bytes, c->cpu_ns);
    pacer_cycle_took(cpu_ns, c->end_ns, c->number);
    store_rlx(&gc.last_end_ns, c->end_ns); /* rlx: figures */
    mark_trim();
    PROBE(gc_end, c->number, c->marked.live_bytes, load_rlx(&pacer.goal));
    held_tell();
    if (heap.trace)
        trace(c);
    store_rel(&gc.ended, c->number); /* rel: see there */
}

/* ---- beside the program ------------------------------------------------------------------------------------------ */

static void tell_host(void);

static void begin_beside(struct cycle *c)
{
    for (unsigned k = 0; k < GC_CPU_KINDS; k++)
        store_rlx(&gc.mark_cpu_ns[k], 0); /* rlx: nobody marks */
    c->beside = true;
    begin_stw(c);
    conc_begin_stw();
    pacer_mark_begins_stw(c->before_bytes); /* what has been scanned so far is this cycle's */
    gc.now = *c;
    store_rlx(&gc.first_pause_ns, 0); /* rlx: a figure, and below */
    store_rlx(&gc.first_pause_ns, heap.host.start_world());
    if (heap.host.mark_ready != NULL)
        heap.host.mark_ready();
}

/* No memory for the table of modules, or it changed all the time: nothing is found dead. */
static void give_up(struct cycle *c)
{
    heap.host.stop_world(WEFT_STOP_GC);
    caches_flush_stw();
    conc_give_up_stw();
    heap.host.start_world();
    mark_trim();
    store_rel(&gc.ended, c->number); /* rel: see there */
    conc_disarm();
}

#define REST_WORKERS 4u /* there is little left, and to wake one more costs as much as it would do */

/* What could be done beside the program is done. */
static void end_beside(struct cycle *c)
{
    if (!stop_with_roots(c)) {
        give_up(c);
        return;
    }
    c->marked_ns = os_now_ns();
    PROBE(gc_phase, c->number, PHASE_MARK_TERM, 0);
    caches_flush_stw();
    for (unsigned k = 0; k < GC_CPU_KINDS; k++)
        c->cpu_ns[k] = load_rlx(&gc.mark_cpu_ns[k]); /* rlx: nobody marks */
    conc_end_stw(w_min(heap.host.procs(), REST_WORKERS), &c->marked);
    uint64_t live = load_rlx(&heap.live); /* rlx: in a stop */
    pacer_mark_ends_stw(c->marked_ns - c->mark_ns, c->cpu_ns, live - w_min(live, c->before_bytes), conc_scanned());
    end_stw(c);
    c->pause_ns += load_rlx(&gc.first_pause_ns) + heap.host.start_world(); /* rlx: see there */
    ended(c);
    conc_disarm();
    tell_host();
}

bool gc_mark_some(enum gc_cpu who, bool ends, uint64_t most, uint64_t *scanned)
{
    uint64_t before = *scanned;
    if (!gc_mark_work())
        return false;
    int64_t began = os_self_cpu_ns();
    enum conc_step step = conc_step(ends, most, scanned);
    if (step == CONC_NOTHING)
        return false;
    add_rlx(&gc.mark_cpu_ns[who], os_self_cpu_ns() - began); /* rlx: counters */
    pacer_scanned(*scanned - before, who != GC_CPU_ASSIST);
    if (step == CONC_MARKED)
        end_beside(&gc.now);
    else if (step == CONC_OVER)
        no_more_busy();
    return true;
}

/* ---- in one stop ---------------------------------------------------------------------------------------------------- */

static void mark_in_stop(struct cycle *c)
{
    begin_stw(c);
    mark_stw(workers(c->procs), c->late, NULL, &c->marked);
    c->marked_ns = os_now_ns();
    PROBE(gc_phase, c->number, PHASE_MARK_TERM, 0);
    end_stw(c);
    c->pause_ns += heap.host.start_world();
    ended(c);
}

/* We are busy. Begins a cycle: true if there was memory for it. *beside: its number if it goes on beside the program; then we are not busy any more. */
static bool cycle(enum gc_why why, const struct gc_late *late, const struct gc_look *look, uint64_t *beside)
{
    struct cycle c = { .why = why, .late = late, .look = look };
    PROBE(gc_phase, load_rlx(&gc.begun) + 1, PHASE_SWEEP_TERM, 0); /* rlx: we are busy */
    sweep_finish();
    scavenge_to_limit();
    c.begin_ns = os_now_ns();
    pacer_cycle_begins(c.begin_ns);
    if (!stop_with_roots(&c))
        return false;
    if (late == NULL && look == NULL && pacer_beside_stw(load_rlx(&heap.live))) { /* rlx: in a stop */
        *beside = load_rlx(&gc.begun) + 1; /* rlx: we are busy */
        begin_beside(&c);
    } else {
        mark_in_stop(&c);
    }
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

#define SLICE_BYTES ((uint64_t)128 << 10) /* some 100 us */

static bool waits(enum gc_why why) { return why == GC_WHY_FORCED || why == GC_WHY_NOMEM; }

/* Somebody's cycle is under way: helps, or lets others go on. */
static void help(void)
{
    uint64_t scanned = 0;
    if (!gc_mark_some(GC_CPU_DEDICATED, true, SLICE_BYTES, &scanned) || heap_stop_wanted())
        relax();
}

/* One that began after we came has found all that was garbage then: calls that overlap share it. */
bool gc_collect_some(struct gc_turn *t)
{
    if (!t->came) {
        t->came = true;
        t->seen = load_rlx(&gc.begun); /* rlx: an old value only means one more cycle */
    }
    if (t->mine != 0 && load_acq(&gc.ended) < t->mine) { /* acq: see there */
        help();
        return true;
    }
    if (t->mine != 0 && !waits(t->why))
        return false;
    if (!become_busy()) {
        if (!waits(t->why) && !(t->why == GC_WHY_HEAP && gc_disarms()))
            return false; /* another thread is at it. While it disarms, or is about to, the next cycle is due already */
        help();
        return true;
    }
    bool need = t->why == GC_WHY_HEAP ? gc_due() : load_rlx(&gc.begun) == t->seen; /* rlx: we are busy */
    bool done = need && cycle(t->why, NULL, NULL, &t->mine);
    if (done && t->mine != 0)
        return t->why != GC_WHY_HEAP && t->why != GC_WHY_PERIODIC;
    if (waits(t->why))
        sweep_finish();
    no_more_busy();
    if (done)
        tell_host();
    return false;
}

void gc_collect(enum gc_why why)
{
    struct gc_turn t = { .why = why };
    while (gc_collect_some(&t))
        ;
}

/* One of its own, whoever else collects. */
static bool collect_for(const struct gc_late *late, const struct gc_look *look)
{
    uint64_t none = 0;
    while (!become_busy())
        help();
    bool done = cycle(GC_WHY_FORCED, late, look, &none);
    sweep_finish();
    no_more_busy();
    if (done)
        tell_host();
    return done;
}

bool gc_collect_late(const struct gc_late *late) { return collect_for(late, NULL); }
bool gc_collect_look(const struct gc_look *look) { return collect_for(NULL, look); }

uint64_t gc_cycles_begun(void) { return load_rlx(&gc.begun); } /* rlx: a figure, and exact in a stop */

/* The fork stopped the processors, so no sweep is half done, and no slice of a mark; but who waited to begin its own stop was busy. */
void gc_after_fork_child(void)
{
    conc_after_fork_child();
    cards_after_fork_child();
    store_rlx(&gc.ended, load_rlx(&gc.begun)); /* rlx, and below: alone. A cycle that was under way is given up */
    store_rlx(&gc.busy, 0);
    tell_host();
}

int64_t gc_last_end_ns(void) { return load_rlx(&gc.last_end_ns); } /* rlx: a figure */
