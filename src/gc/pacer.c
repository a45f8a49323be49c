/* See pacer.h. */
#include "gc/pacer.h"
#include "gc/conc.h"
#include "gc/pages.h"
#include "gc/scavenge.h"
#include "gc/stats.h"
#include "gc/sweep.h"
#include "os/clock.h"

#define SWEEP_MIN_BYTES ((uint64_t)1 << 20)
#define LIMIT_MIN_BYTES ((uint64_t)64 << 10)
#define DRAIN_NS 10000000
#define PERIOD_NS INT64_C(120000000000)

struct pacer pacer = { .lock = LOCK_INIT(RANK_LEAF), .limit = { INT64_MAX } };
int64_t gc_period_ns = PERIOD_NS;

/* Asked before the lock is taken. */
struct memory { uint64_t overhead, retained; };
static struct memory memory_now(void) { return (struct memory){ stats_overhead_bytes(), pages_retained_bytes() }; }

/* What is worth it: bytes that a mark beside the program spares the stop. So many are scanned in a millisecond or two, and to arm pages and to be told
 * of writes to them costs more: the smallest heap that is collected at all is marked in one stop, half of it alive. */
#define BESIDE_BYTES (PACE_HEAP_MIN / 4 * 3)

/* Globals do not count, being scanned in a stop either way. Of what is new a fourth may live. */
static bool worth_it(uint64_t heap_bytes)
{
    const struct pacer_marked *l = &pacer.last; /* plain: written by cycles, under the lock */
    uint64_t spared = l->scan_bytes + l->stack_bytes + (heap_bytes - w_min(heap_bytes, l->live_bytes)) / 4;
    return conc_possible() && (heap.beside_always || spared > BESIDE_BYTES);
}

bool pacer_beside_stw(uint64_t heap_bytes) { return pacer.beside || worth_it(heap_bytes); }

static void update_locked(const struct memory *now)
{
    const struct pacer_marked *l = &pacer.last;
    uint64_t limit = (uint64_t)load_rlx(&pacer.limit); /* rlx, here and below: see pacer.h */
    uint64_t percent = pace_percent_goal(load_rlx(&pacer.percent), l->live_bytes, l->stack_bytes, l->global_bytes);
    uint64_t by_limit = pace_limit_goal(limit, l->live_bytes, now->overhead + l->waste_bytes, now->overhead + now->retained);
    bool limited = by_limit < percent;
    uint64_t goal = limited ? by_limit : w_max(percent, pacer.sweep_min);
    store_rlx(&pacer.by_limit, limited);
    store_rlx(&pacer.goal, goal);
    uint64_t trigger = goal;
    pacer.beside = goal != PACE_NEVER && worth_it(goal);
    if (pacer.beside)
        trigger = pace_trigger(goal, l->live_bytes, pace_runway(&pacer.rate, l->scan_bytes + l->stack_bytes + l->global_bytes), pacer.sweep_min);
    store_rlx(&pacer.trigger, limited ? w_max(trigger, l->live_bytes + LIMIT_MIN_BYTES) : trigger);
}

/* A setting has changed. */
static void commit_locked(const struct memory *now)
{
    pacer.sweep_min = sweep_pending() ? load_rlx(&heap.live) + SWEEP_MIN_BYTES : 0; /* rlx: counter */
    update_locked(now);
}

void pacer_start(int percent, int64_t limit)
{
    struct memory now = memory_now();
    lock_take(&pacer.lock);
    store_rlx(&pacer.percent, percent < 0 ? -1 : percent); /* rlx: nobody else yet, here and below */
    store_rlx(&pacer.limit, limit);
    pacer.last = (struct pacer_marked){ 0 };
    pacer.sweep_min = pacer.last_goal = 0;
    pacer.bucket = (struct pace_bucket){ 0 };
    pacer.rate = (struct pace_rate){ 0 };
    pacer.cpu_ns = os_process_cpu_ns();
    store_rlx(&pacer.capped, 0);
    store_rlx(&pacer.capped_cycle, 0);
    store_rlx(&pacer.assist_ns, 0);
    store_rlx(&pacer.drained_ns, os_now_ns());
    update_locked(&now);
    lock_drop(&pacer.lock);
}

void pacer_marked(const struct pacer_marked *m)
{
    struct memory now = memory_now();
    lock_take(&pacer.lock);
    pacer.last = *m;
    pacer.last_goal = load_rlx(&pacer.goal); /* rlx: the lock is held */
    commit_locked(&now);
    lock_drop(&pacer.lock);
}

void pacer_revise(uint64_t overhead, uint64_t retained)
{
    struct memory now = { overhead, retained };
    lock_take(&pacer.lock);
    update_locked(&now);
    lock_drop(&pacer.lock);
}

/* ---- beside the program ------------------------------------------------------------------------------------- */

#define RATIO_ONE 65536.0
#define GOAL_AHEAD ((uint64_t)64 << 10)  /* the goal lies so far before where the heap is at least */
#define WORTH_MOST ((int64_t)1 << 20)   /* bytes that are paid in advance */

/* rlx, here and below: figures */
static void set_ratio(void)
{
    struct pace_mark m = pacer.mark;
    m.heap = load_rlx(&heap.live);
    m.done = conc_scanned();
    store_rlx(&pacer.assist_ratio, (uint64_t)w_min(pace_assist_ratio(&m) * RATIO_ONE, 1e12));
}

void pacer_mark_begins_stw(uint64_t heap_bytes)
{
    const struct pacer_marked *l = &pacer.last;
    uint64_t goal = w_max(load_rlx(&pacer.goal), heap_bytes + GOAL_AHEAD), roots = l->stack_bytes + l->global_bytes;
    pacer.mark = (struct pace_mark){
        .percent = load_rlx(&pacer.percent), .limited = load_rlx(&pacer.by_limit) != 0,
        .goal = w_min(goal, (uint64_t)INT64_MAX), .triggered = heap_bytes, .heap = heap_bytes,
        .expected = l->scan_bytes + roots, .most = heap_bytes + roots,
    };
    store_rlx(&pacer.credit, 0);
    set_ratio();
}

void pacer_mark_ends_stw(int64_t ns, const int64_t cpu_ns[GC_CPU_KINDS], uint64_t allocated, uint64_t scanned)
{
    double all = w_max((double)ns, 1.0) * heap.host.procs();
    double used = (double)(cpu_ns[GC_CPU_DEDICATED] + cpu_ns[GC_CPU_ASSIST]) / all, idle = (double)cpu_ns[GC_CPU_IDLE] / all;
    lock_take(&pacer.lock);
    pace_rate_add(&pacer.rate, allocated, scanned, used, idle);
    lock_drop(&pacer.lock);
}

void pacer_scanned(uint64_t bytes, bool credit)
{
    if (credit && bytes != 0)
        add_rlx(&pacer.credit, (int64_t)bytes);
    set_ratio();
}

uint64_t pacer_work(int64_t allocated)
{
    return allocated <= 0 ? 0 : (uint64_t)((double)allocated * (double)load_rlx(&pacer.assist_ratio) / RATIO_ONE);
}

int64_t pacer_worth(uint64_t work)
{
    return (int64_t)w_min((double)work * RATIO_ONE / w_max((double)load_rlx(&pacer.assist_ratio), 1.0), (double)WORTH_MOST);
}

uint64_t pacer_spend_credit(uint64_t work)
{
    int64_t credit = load_rlx(&pacer.credit);
    if (credit <= 0)
        return work;
    int64_t part = w_min(credit, (int64_t)work); /* two who take it at once have a little more of it than there is */
    sub_rlx(&pacer.credit, part);
    return work - (uint64_t)part;
}

/* ---- the cap ------------------------------------------------------------------------------------------------- */

/* The program's time is CPU time: processors that idled, or threads that the system let wait, have not got anything done. */
static void drain_locked(int64_t now_ns)
{
    unsigned procs = heap.host.procs();
    int64_t cpu = os_process_cpu_ns(), assist = xchg_acq_rel(&pacer.assist_ns, 0); /* no order is needed */
    int64_t window = (now_ns - load_rlx(&pacer.drained_ns)) * (int64_t)procs; /* rlx, here and below: the lock is held */
    int64_t program = w_max(w_min(cpu - pacer.cpu_ns, window) - assist, (int64_t)0);
    pace_bucket_resize(&pacer.bucket, procs);
    pace_bucket_add(&pacer.bucket, assist, program);
    pacer.cpu_ns = cpu;
    store_rlx(&pacer.drained_ns, now_ns);
    store_rlx(&pacer.capped, pace_bucket_full(&pacer.bucket));
}

void pacer_cycle_begins(int64_t now_ns)
{
    lock_take(&pacer.lock);
    drain_locked(now_ns);
    lock_drop(&pacer.lock);
}

/* What the process has used since it began, and the collector has not, is the program's, which went on beside it. */
void pacer_cycle_took(int64_t cpu_ns, int64_t now_ns, uint64_t number)
{
    unsigned procs = heap.host.procs();
    int64_t cpu = os_process_cpu_ns();
    lock_take(&pacer.lock);
    bool was = load_rlx(&pacer.capped) != 0; /* rlx, here and below: the lock is held */
    pace_bucket_resize(&pacer.bucket, procs);
    pace_bucket_add(&pacer.bucket, cpu_ns, w_max(cpu - pacer.cpu_ns - cpu_ns, (int64_t)0));
    pacer.cpu_ns = cpu;
    store_rlx(&pacer.drained_ns, now_ns);
    store_rlx(&pacer.capped, pace_bucket_full(&pacer.bucket));
    if (!was && load_rlx(&pacer.capped) != 0)
        store_rlx(&pacer.capped_cycle, number);
    lock_drop(&pacer.lock);
}

bool pacer_capped(void)
{
    if (load_rlx(&pacer.capped) == 0) /* rlx, here and below: hints */
        return false;
    int64_t now = os_now_ns();
    if (now - load_rlx(&pacer.drained_ns) > DRAIN_NS && lock_try(&pacer.lock)) {
        drain_locked(now);
        lock_drop(&pacer.lock);
    }
    return load_rlx(&pacer.capped) != 0;
}

uint64_t gc_capped_cycle(void) { return load_rlx(&pacer.capped_cycle); } /* rlx: a figure */

/* ---- due? ------------------------------------------------------------------------------------------------------ */

bool gc_due(void)
{
    return !gc_marking() && load_rlx(&heap.live) >= load_rlx(&pacer.trigger) && /* rlx: see pacer.h */
           (load_rlx(&pacer.by_limit) == 0 || !pacer_capped());
}

bool gc_outgrown(void)
{
    struct pace_mark m = pacer.mark; /* plain: written in the stop in which the mark began */
    m.heap = load_rlx(&heap.live);   /* rlx: counter */
    return pace_outgrown(&m) && !pacer_capped();
}

bool gc_period_over(int64_t now_ns)
{
    int64_t last = gc_last_end_ns();
    return last != 0 && now_ns - last > gc_period_ns && load_rlx(&pacer.percent) >= 0; /* rlx: a setting */
}

/* ---- settings --------------------------------------------------------------------------------------------------- */

int gc_set_percent(int percent)
{
    struct memory now = memory_now();
    lock_take(&pacer.lock);
    int old = load_rlx(&pacer.percent); /* rlx: the lock is held, and below */
    store_rlx(&pacer.percent, percent < 0 ? -1 : percent);
    commit_locked(&now);
    lock_drop(&pacer.lock);
    return old;
}

int64_t gc_set_limit(int64_t bytes)
{
    struct memory now = memory_now();
    lock_take(&pacer.lock);
    int64_t old = load_rlx(&pacer.limit); /* rlx: the lock is held, and below */
    if (bytes >= 0) {
        store_rlx(&pacer.limit, bytes);
        commit_locked(&now);
    }
    lock_drop(&pacer.lock);
    if (bytes >= 0)
        scavenge_wake();
    return old;
}

uint64_t gc_live_bytes(void)
{
    lock_take(&pacer.lock);
    uint64_t live = pacer.last.live_bytes;
    lock_drop(&pacer.lock);
    return live;
}
