/* The pacer. First its arithmetic, in a model in which a cycle marks beside the program and time is a number: programs of many kinds, of each of
 * which it is said what the pacer owes it. Then the pacer as it is, with a heap that is a number: what it says of goals and when a cycle is due. */
#include "gc_host.h"
#include "gc/pacer.h"
#include "gc/stats.h"
#include "base/rng.h"

#define MIB ((uint64_t)1 << 20)
#define KIB ((uint64_t)1 << 10)
#define NO_LIMIT INT64_MAX

/* ---- the model ---------------------------------------------------------------------------------------------------- */

/* base, going up by `ramp` over the first `over` cycles; from cycle `at` on by `step`, in that cycle alone by `peak`; and noise. */
struct curve { double base, ramp; int over; double step, peak; int at; double wave, noise; };

static double value(const struct curve *c, int cycle, struct rng *r)
{
    double v = c->base + (cycle >= c->at ? c->step : 0) + (cycle == c->at ? c->peak : 0);
    if (c->over != 0)
        v += c->ramp * (cycle < c->over ? cycle : c->over) / c->over;
    static const double sine[8] = { 0, 0.7071, 1, 0.7071, 0, -0.7071, -1, -0.7071 };
    v += c->wave * sine[cycle % 8];
    return v + c->noise * ((double)(rng_next(r) % 20001) / 10000 - 1);
}

struct program {
    const char *name;
    int percent;
    uint64_t limit, globals, other; /* other: memory that is no heap */
    struct curve alloc, scan;  /* KiB per CPU millisecond */
    struct curve growth;       /* what lives, as a factor of what lived */
    double scannable;
    struct curve stacks;
    int cycles;
    void (*check)(const struct program *p, int cycle);
};

struct result { uint64_t live, trigger, goal, peak; double utilization; };
static struct result res[200];

#define PROCS 8
#define STEP_MS 0.5

static void check_range(const struct program *p, int cycle, const char *what, double v, double lo, double hi)
{
    cr_assert(v >= lo && v <= hi, "%s, cycle %d: %s is %f, not in %f to %f", p->name, cycle, what, v, lo, hi);
}

static double goal_ratio(int i) { return (double)res[i].peak / (double)res[i].goal; }
static double trigger_ratio(int i) { return (double)(res[i].trigger - res[i].live) / (double)(res[i].goal - res[i].live); }

/* One cycle: it scans what lives, while the program allocates and, by the assist ratio, helps. */
static void mark_beside(const struct program *p, struct pace_mark *m, uint64_t work, double alloc, double scan, struct result *out)
{
    double helped = 0, ms = 0;
    while (m->done < work) {
        double ratio = pace_assist_ratio(m), u = ratio * alloc / (ratio * alloc + scan);
        u = u < PACE_UTILIZATION ? PACE_UTILIZATION : u;
        double scanned = scan * 1024 * STEP_MS * PROCS * u, allocated = alloc * 1024 * STEP_MS * PROCS * (1 - u), part = 1;
        if (scanned > (double)(work - m->done)) {
            part = (double)(work - m->done) / scanned;
            scanned = (double)(work - m->done) + 0.5;
        }
        m->done += (uint64_t)scanned + (part < 1);
        m->done = m->done > work ? work : m->done;
        m->heap += (uint64_t)(allocated * part);
        m->most += (uint64_t)(allocated * part * p->scannable);
        ms += STEP_MS * part;
        helped += STEP_MS * part * (u - PACE_UTILIZATION);
    }
    out->peak = m->heap;
    out->utilization = PACE_UTILIZATION + (ms > 0 ? helped / ms : 0);
}

static void run_program(const struct program *p)
{
    struct rng r;
    rng_seed(&r, 0x5eed);
    struct pace_rate rate = { 0 };
    uint64_t live = 0, stacks = 0, globals = 0, heap_scan = 0, born = 0, peak = 0;
    for (int i = 0; i < p->cycles; i++) {
        double alloc = value(&p->alloc, i, &r), scan = value(&p->scan, i, &r), growth = value(&p->growth, i, &r);
        uint64_t stacks_now = (uint64_t)value(&p->stacks, i, &r);
        uint64_t percent = pace_percent_goal(p->percent, live, stacks, globals), limit = pace_limit_goal(p->limit, live, p->other, p->other + peak);
        bool limited = limit < percent;
        uint64_t runway = pace_runway(&rate, heap_scan + stacks + globals), sweep = limited ? 0 : live + MIB;
        uint64_t goal = limited ? limit : percent > sweep ? percent : sweep, trigger = pace_trigger(goal, live, runway, sweep);
        trigger = trigger < live ? live : trigger;
        cr_assert(trigger <= goal, "%s: trigger %lu, goal %lu", p->name, trigger, goal);
        if (!limited && goal < trigger + 64 * KIB)
            goal = trigger + 64 * KIB;
        uint64_t survives = i == 0 ? 256 * KIB : (uint64_t)((double)(live - born) * growth);
        uint64_t work = (uint64_t)((double)survives * p->scannable) + stacks_now + p->globals;
        struct pace_mark m = {
            .percent = p->percent, .goal = goal, .triggered = trigger, .heap = trigger, .expected = heap_scan + stacks + p->globals,
            .most = heap_scan + (uint64_t)((double)(trigger - live) * p->scannable) + stacks_now + p->globals,
        };
        res[i] = (struct result){ .live = live, .trigger = trigger, .goal = goal };
        mark_beside(p, &m, work, alloc, scan, &res[i]);
        cr_assert(res[i].utilization >= PACE_UTILIZATION - 1e-9 && res[i].utilization <= 1);
        if (p->check != NULL)
            p->check(p, i);
        pace_rate_add(&rate, res[i].peak - trigger, m.done, res[i].utilization, 0);
        peak = res[i].peak;
        born = res[i].peak - trigger;
        live = survives + born;
        heap_scan = m.done - stacks_now - p->globals;
        stacks = stacks_now;
        globals = p->globals;
    }
}

/* ---- what is owed ------------------------------------------------------------------------------------------------------ */

/* It takes its share and no more, ends at the goal, and stays there. */
static void settled(const struct program *p, int i)
{
    if (i < 24 || (p->alloc.at != 0 && i >= p->alloc.at && i < p->alloc.at + 25))
        return;
    check_range(p, i, "peak over goal", goal_ratio(i), 0.95, 1.05);
    check_range(p, i, "change of utilization", res[i].utilization - res[i - 1].utilization, -0.005, 0.005);
}

static void at_share(const struct program *p, int i)
{
    settled(p, i);
    if (i >= 24)
        check_range(p, i, "utilization", res[i].utilization, 0.245, 0.255);
}

static void unsteady(const struct program *p, int i)
{
    if (i > 12) {
        check_range(p, i, "peak over goal", goal_ratio(i), 0.93, 1.05);
        check_range(p, i, "utilization", res[i].utilization, 0.25, 0.3);
    }
}

/* With so high a percentage the one jump of what lives must not make the program wait for marking; nor may the heap become larger than the next goal
 * would allow. */
static void jump(const struct program *p, int i)
{
    if (i > 12) {
        check_range(p, i, "utilization", res[i].utilization, 0.25, 0.29);
        check_range(p, i, "peak over goal", goal_ratio(i), 0.85, i == p->growth.at ? 15 : 1.05);
    }
}

static void slow_small(const struct program *p, int i)
{
    if (i > 8) {
        check_range(p, i, "peak over goal", goal_ratio(i), 0.925, 1.025);
        check_range(p, i, "place of the trigger", trigger_ratio(i), 0.925, 0.975);
    }
}

static void slow_large(const struct program *p, int i)
{
    if (i > 13)
        check_range(p, i, "runway", (double)(res[i].goal - res[i].trigger), (double)(PACE_HEAP_MIN - 64 * KIB), (double)(PACE_HEAP_MIN + 64 * KIB));
}

static void limit_unseen(const struct program *p, int i)
{
    cr_assert(res[i].peak < p->limit * 97 / 100, "%s: %lu", p->name, res[i].peak);
    at_share(p, i);
}

static void limit_kept(const struct program *p, int i)
{
    cr_assert(res[i].peak + p->other <= p->limit, "%s, cycle %d: %lu and %lu", p->name, i, res[i].peak, p->other);
    if (i > 12)
        check_range(p, i, "goal", (double)res[i].goal, (double)(p->limit - p->other) * 0.965, (double)(p->limit - p->other) * 0.972);
    at_share(p, i);
}

/* More lives than the limit allows: the goal is what lives, and all time goes to marking, as far as the bucket lets it. */
static void limit_exceeded(const struct program *p, int i)
{
    if (i > 14)
        cr_assert_eq(res[i].goal, res[i].live, "%s, cycle %d: goal %lu, %lu live", p->name, i, res[i].goal, res[i].live);
    if (i >= 24)
        check_range(p, i, "utilization", res[i].utilization, 0.97, 1);
}

static void tiny(const struct program *p, int i)
{
    cr_assert(res[i].goal >= PACE_HEAP_MIN && res[i].goal <= PACE_HEAP_MIN + MIB, "%s: goal %lu", p->name, res[i].goal);
    cr_assert(res[i].peak <= res[i].goal, "%s: peak %lu over %lu", p->name, res[i].peak, res[i].goal);
}

/* Nobody allocates: a cycle that was asked for all the same finds the heap at its trigger. */
static void idle(const struct program *p, int i)
{
    if (i > 0)
        check_range(p, i, "peak over trigger", (double)res[i].peak / (double)res[i].trigger, 1, 1.001);
}

#define GROW_12 { .base = 2, .ramp = -1, .over = 12 }
#define SCAN { .base = 1024 }
#define STACKS { .base = 8192 }

static const struct program programs[] = {
    { "steady", 100, NO_LIMIT, 32 << 10, 0, { .base = 33 }, SCAN, GROW_12, 1, STACKS, 50, at_share },
    { "large stacks", 100, NO_LIMIT, 32 << 10, 0, { .base = 132 }, SCAN, GROW_12, 1, { .base = 2048, .ramp = 128 << 20, .over = 8 }, 50, at_share },
    { "large globals", 100, NO_LIMIT, 128 << 20, 0, { .base = 132 }, SCAN, GROW_12, 1, STACKS, 50, at_share },
    { "ramp", 100, NO_LIMIT, 32 << 10, 0, { .base = 33, .ramp = 66, .over = 60 }, SCAN, GROW_12, 1, STACKS, 100, settled },
    { "step", 100, NO_LIMIT, 32 << 10, 0, { .base = 33, .step = 66, .at = 50 }, SCAN, GROW_12, 1, STACKS, 100, settled },
    { "large step", 100, NO_LIMIT, 32 << 10, 0, { .base = 33, .step = 330, .at = 50 }, SCAN, GROW_12, 1, STACKS, 100, settled },
    { "jump of the heap", 1500, NO_LIMIT, 32 << 10, 0, { .base = 165, .noise = 7 }, SCAN, { .base = 2, .ramp = -1, .over = 12, .peak = 14, .at = 25 }, 1, STACKS, 50, jump },
    { "wave", 100, NO_LIMIT, 32 << 10, 0, { .base = 67, .wave = 13 }, SCAN, GROW_12, 1, STACKS, 50, unsteady },
    { "noise", 100, NO_LIMIT, 32 << 10, 0, { .base = 132, .noise = 13 }, SCAN, { .base = 2, .ramp = -1, .over = 12, .noise = 0.01 }, 1, STACKS, 50, unsteady },
    { "small and slow", 100, NO_LIMIT, 32 << 10, 0, { .base = 1 }, { .base = 2048 }, { .base = 2, .ramp = -1, .over = 8 }, 0.01, STACKS, 50, slow_small },
    { "large and slow", 100, NO_LIMIT, 32 << 10, 0, { .base = 1 }, { .base = 2048 }, { .base = 4, .ramp = -3, .over = 12 }, 0.01, STACKS, 50, slow_large },
    { "tiny", 100, NO_LIMIT, 32 << 10, 0, { .base = 10 }, SCAN, { .base = 1 }, 1, STACKS, 50, tiny },
    { "idle", 100, NO_LIMIT, 32 << 10, 0, { .base = 0.0001 }, SCAN, { .base = 2, .ramp = -1, .over = 12 }, 1, STACKS, 50, idle },
    { "far from the limit", 100, 512 << 20, 32 << 10, 0, { .base = 33 }, SCAN, GROW_12, 1, STACKS, 50, limit_unseen },
    { "at the limit", 100, 512 << 20, 32 << 10, 0, { .base = 33 }, SCAN, { .base = 3, .ramp = -2, .over = 12 }, 1, STACKS, 50, limit_kept },
    { "percent off, limit", -1, 512 << 20, 32 << 10, 0, { .base = 33 }, SCAN, GROW_12, 1, STACKS, 50, limit_kept },
    { "percent off, limit, much beside the heap", -1, 512 << 20, 32 << 10, 200 << 20, { .base = 33 }, SCAN, GROW_12, 1, STACKS, 50, limit_kept },
    { "over the limit", 100, 512 << 20, 32 << 10, 0, { .base = 33 }, SCAN, { .base = 3.5, .ramp = -2.5, .over = 12 }, 1, STACKS, 50, limit_exceeded },
    { "over the limit, percent off", -1, 512 << 20, 32 << 10, 0, { .base = 33 }, SCAN, { .base = 3.5, .ramp = -2.5, .over = 12 }, 1, STACKS, 50, limit_exceeded },
};

Test(gc_pacer, programs_get_what_is_owed_to_them)
{
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        run_program(&programs[i]);
        if (getenv("PACER"))
            for (int k = 0; k < programs[i].cycles; k++)
                fprintf(stderr, "%s %d: live %lu trigger %lu goal %lu peak %lu at %.3f\n", programs[i].name, k, res[k].live, res[k].trigger, res[k].goal, res[k].peak,
                        res[k].utilization);
    }
}

/* ---- the parts --------------------------------------------------------------------------------------------------------- */

Test(gc_pacer, goal_by_percent)
{
    cr_assert_eq(pace_percent_goal(100, 0, 0, 0), 4 * MIB);
    cr_assert_eq(pace_percent_goal(50, 0, 0, 0), 2 * MIB);
    cr_assert_eq(pace_percent_goal(0, 10 * MIB, MIB, MIB), 10 * MIB);
    cr_assert_eq(pace_percent_goal(100, 10 * MIB, 2 * MIB, 3 * MIB), 25 * MIB, "stacks and globals count");
    cr_assert_eq(pace_percent_goal(300, 10 * MIB, 0, 0), 40 * MIB);
    cr_assert_eq(pace_percent_goal(-1, 10 * MIB, 0, 0), PACE_NEVER);
    cr_assert(pace_percent_goal(INT32_MAX, (uint64_t)1 << 40, 0, 0) > (uint64_t)1 << 60, "no overflow");
}

Test(gc_pacer, goal_by_limit)
{
    cr_assert_eq(pace_limit_goal(INT64_MAX, MIB, 0, 0), PACE_NEVER);
    uint64_t free = 100 * MIB - 10 * MIB;
    cr_assert_eq(pace_limit_goal(100 * MIB, MIB, 10 * MIB, 50 * MIB), free - free / 100 * 3);
    cr_assert_eq(pace_limit_goal(100 * MIB, MIB, 10 * MIB, 120 * MIB), free - 20 * MIB - (free - 20 * MIB) / 100 * 3, "what exceeds the limit");
    cr_assert_eq(pace_limit_goal(20 * MIB, MIB, 10 * MIB, 15 * MIB), 9 * MIB, "headroom is at least 1 MiB");
    cr_assert_eq(pace_limit_goal(11 * MIB, 0, 10 * MIB, 11 * MIB), MIB, "and so is what is left of a little");
    cr_assert_eq(pace_limit_goal(100 * MIB, 95 * MIB, 10 * MIB, 50 * MIB), 95 * MIB, "not below what lives");
    cr_assert_eq(pace_limit_goal(100 * MIB, 3 * MIB, 100 * MIB, 103 * MIB), 3 * MIB, "when other memory takes all of it");
    cr_assert_eq(pace_limit_goal(0, 3 * MIB, MIB, MIB), 3 * MIB);
}

Test(gc_pacer, trigger_keeps_its_distance)
{
    for (uint64_t live = 0; live < 64 * MIB; live += 3 * MIB + 7)
        for (uint64_t goal = live; goal < live + 200 * MIB; goal = goal * 5 / 4 + 100 * KIB)
            for (uint64_t runway = 0; runway < 400 * MIB; runway = runway * 3 + 10 * KIB) {
                uint64_t t = pace_trigger(goal, live, runway, 0), way = goal - live;
                cr_assert(t <= goal && t >= live);
                if (way == 0)
                    continue;
                cr_assert(t >= live + way / 64 * 45, "70 %% of the way to %lu: %lu", goal, t);
                cr_assert(t <= live + way / 64 * 61 || t + PACE_HEAP_MIN <= goal);
                if (runway < way / 4 && runway > way / 16 && runway > PACE_HEAP_MIN)
                    cr_assert_eq(t, goal - runway);
            }
    cr_assert_eq(pace_trigger(100 * MIB, 50 * MIB, 60 * MIB, 99 * MIB), 99 * MIB, "not before the sweep is done");
    cr_assert_eq(pace_trigger(40 * MIB, 50 * MIB, 0, 0), 40 * MIB);
}

Test(gc_pacer, a_quarter_of_the_processors_marks)
{
    for (unsigned p = 1; p < 1000; p++) {
        struct pace_workers w = pace_workers(p);
        double all = w.n * w.share;
        cr_assert(all > 0.2499 * p && all < 0.2501 * p && w.share < 1.0001 && w.n <= p, "%u: %u of %f", p, w.n, w.share);
        cr_assert((w.n - 1) * 4 < p, "%u: %u would be as good", p, w.n - 1);
    }
}

/* An assist that is paid ends the work where the goal is. */
Test(gc_pacer, assists_end_at_the_goal)
{
    struct pace_mark m = { .percent = 100, .goal = 100 * MIB, .triggered = 80 * MIB, .heap = 80 * MIB, .expected = 50 * MIB, .most = 80 * MIB };
    while (m.done < m.expected - KIB && m.heap < m.goal) {
        m.done += (uint64_t)(pace_assist_ratio(&m) * 4096);
        m.heap += 4096;
    }
    cr_assert(m.heap <= m.goal && m.heap > m.goal - MIB, "the work was done at %lu of %lu", m.heap, m.goal);
    /* Twice the work that was expected: the ratio stays, the goal moves, not beyond that of the next cycle. */
    m = (struct pace_mark){ .percent = 100, .goal = 100 * MIB, .triggered = 80 * MIB, .heap = 80 * MIB, .expected = 40 * MIB, .most = 80 * MIB };
    double before = pace_assist_ratio(&m);
    while (m.done < m.most - KIB) {
        m.done += (uint64_t)(pace_assist_ratio(&m) * 4096);
        m.heap += 4096;
    }
    cr_assert(m.heap <= 121 * MIB && m.heap > 118 * MIB, "%lu", m.heap);
    m.done = 60 * MIB;
    m.heap = 110 * MIB;
    cr_assert(pace_assist_ratio(&m) < before * 1.1 && pace_assist_ratio(&m) > before * 0.9);
    m.heap = 500 * MIB; /* beyond all: it still is a number, and a large one */
    cr_assert(pace_assist_ratio(&m) > 1000);
}

/* The goal is the memory limit's, and there is more work than was expected: that is done within the goal all the same. */
Test(gc_pacer, assists_end_at_the_limit)
{
    struct pace_mark m = {
        .percent = -1, .limited = true, .goal = 100 * MIB, .triggered = 80 * MIB, .heap = 80 * MIB, .expected = 10 * MIB, .most = 80 * MIB,
    };
    while (m.done < m.most - KIB && m.heap < 200 * MIB) {
        m.done += (uint64_t)(pace_assist_ratio(&m) * 4096);
        m.heap += 4096;
    }
    cr_assert(m.heap <= 101 * MIB, "%lu", m.heap);
    m.heap = 100 * MIB;
    cr_assert(!pace_outgrown(&m));
    m.heap++;
    cr_assert(pace_outgrown(&m));
    m.limited = false; /* by percent a tenth more */
    cr_assert(!pace_outgrown(&m));
    m.heap = 111 * MIB;
    cr_assert(pace_outgrown(&m));
}

Test(gc_pacer, collecting_is_capped_by_a_leaky_bucket)
{
    enum { PROCS_14 = 14 };
    const int64_t second = 1000000000;
    struct pace_bucket b = { 0 };
    pace_bucket_resize(&b, PROCS_14);
    cr_assert_eq(b.capacity, (uint64_t)PROCS_14 * 1000000000);
    for (int i = 0; i < 2; i++) {
        pace_bucket_add(&b, 0, 3600 * second * PROCS_14);
        cr_assert_eq(b.fill, 0, "time without collecting gives no right to collect more");
        pace_bucket_add(&b, second, 0);
        cr_assert_eq(b.fill, second);
        pace_bucket_add(&b, second, second); /* half and half */
        cr_assert_eq(b.fill, second);
        pace_bucket_add(&b, second / 4, second * 3 / 4);
        cr_assert_eq(b.fill, second / 2);
        cr_assert(!pace_bucket_full(&b));
        pace_bucket_add(&b, PROCS_14 * second, 0);
        cr_assert(pace_bucket_full(&b) && b.fill == b.capacity);
        pace_bucket_add(&b, 100 * second, 0);
        cr_assert_eq(b.fill, b.capacity, "it runs over, and that is forgotten");
        pace_bucket_add(&b, 0, 1);
        cr_assert(!pace_bucket_full(&b));
        pace_bucket_resize(&b, 2);
        cr_assert(pace_bucket_full(&b), "fewer processors: a smaller bucket");
        pace_bucket_resize(&b, PROCS_14);
        cr_assert(!pace_bucket_full(&b) && b.fill == 2 * (uint64_t)second);
    }
}

Test(gc_pacer, memory_that_stays)
{
    cr_assert_eq(pace_retain(100 * MIB, 200 * MIB, 200 * MIB), 110 * MIB);
    cr_assert_eq(pace_retain(100 * MIB, 100 * MIB, 200 * MIB), 55 * MIB, "the heap is to shrink");
    cr_assert_eq(pace_retain(100 * MIB, PACE_NEVER, 200 * MIB), 110 * MIB);
    cr_assert_eq(pace_retain(100 * MIB, 200 * MIB, PACE_NEVER), 110 * MIB);
    cr_assert_eq(pace_limit_retain(1000), 950);
    for (unsigned procs = 1; procs < 300; procs++)
        for (int64_t worked = 1000; worked < 1000000000; worked *= 7) {
            int64_t slept = pace_scavenge_sleep_ns(worked, procs);
            double share = (double)worked / ((double)(worked + slept) * procs);
            cr_assert(share <= 0.01001, "%f of %u processors", share, procs);
        }
}

/* ---- the pacer, with a heap that is a number -------------------------------------------------------------------------------- */

#define BEGIN() th_begin(th_settings(), __builtin_frame_address(0))

/* What it marks is the truth that we tell it. */
struct fake { uint64_t live, stacks, globals; };

static void fake_cycle(const struct fake *f)
{
    struct pacer_marked m = { .live_bytes = f->live, .stack_bytes = f->stacks, .global_bytes = f->globals, .in_use_bytes = load_rlx(&heap.live) };
    store_rlx(&heap.live, f->live);
    pacer_marked(&m);
}

/* Allocates in spans till a cycle is due, at most `most` bytes; returns the heap then. */
static uint64_t fake_grow(uint64_t most)
{
    uint64_t from = load_rlx(&heap.live);
    while (!gc_due() && load_rlx(&heap.live) - from < most)
        add_rlx(&heap.live, 8192);
    return load_rlx(&heap.live);
}

static void ends_at_goal(const char *what)
{
    uint64_t peak = fake_grow(UINT64_MAX), goal = load_rlx(&pacer.goal);
    cr_assert(peak >= goal && peak <= goal + 8192 + 64 * KIB, "%s: %lu for a goal of %lu", what, peak, goal);
}

Test(gc_pacer, the_goal_is_kept_to_a_span)
{
    BEGIN();
    struct fake f = { 0 };
    for (int i = 0; i < 40; i++) { /* tiny, growing, shrinking; in between stacks and globals */
        ends_at_goal("percent");
        f.live = i < 20 ? f.live + (uint64_t)i * MIB : f.live / 2;
        f.stacks = (uint64_t)(i % 7) * 5 * MIB;
        f.globals = (uint64_t)(i % 3) * MIB;
        fake_cycle(&f);
        uint64_t goal = 2 * f.live + f.stacks + f.globals;
        cr_assert_eq(load_rlx(&pacer.goal), goal > 4 * MIB ? goal : 4 * MIB);
    }
    gc_set_percent(-1);
    cr_assert_eq(fake_grow(100 * MIB), f.live + 100 * MIB + (fake_grow(0) - load_rlx(&heap.live)), "nothing is ever due");
    cr_assert(!gc_due());
    th_end();
}

static uint64_t stack_bytes;
static uint64_t th_stack_bytes(void) { return stack_bytes; }

Test(gc_pacer, the_limit_is_kept_whatever_else_there_is)
{
    BEGIN();
    heap.host.stack_bytes = th_stack_bytes;
    gc_set_percent(-1);
    gc_set_limit(256 << 20);
    struct fake f = { .live = 20 * MIB };
    for (int i = 0; i < 20; i++) {
        stack_bytes = (uint64_t)i * 10 * MIB;
        fake_cycle(&f);
        ends_at_goal("limit");
        uint64_t all = load_rlx(&heap.live) + stats_overhead_bytes();
        cr_assert(all <= 256 * MIB && all >= 240 * MIB, "%lu MiB with %lu MiB of stacks", all / MIB, stack_bytes / MIB);
    }
    /* Stacks that come after the cycle are noticed before the next one. */
    stack_bytes = 0;
    fake_cycle(&f);
    uint64_t goal = load_rlx(&pacer.goal);
    stack_bytes = 100 * MIB;
    pacer_revise(stats_overhead_bytes(), 0);
    cr_assert(load_rlx(&pacer.goal) <= goal - 96 * MIB && load_rlx(&pacer.goal) >= goal - 100 * MIB);
    /* No room at all: from one cycle to the next the program gets 64 KiB. */
    stack_bytes = 300 * MIB;
    for (int i = 0; i < 10; i++) {
        fake_cycle(&f);
        cr_assert_eq(load_rlx(&pacer.goal), f.live);
        uint64_t got = fake_grow(UINT64_MAX) - f.live;
        cr_assert(got >= 64 * KIB && got <= 72 * KIB, "%lu", got);
    }
    th_end();
}

/* After the cap no cycle starts for the limit's sake, for the percentage's it does. */
Test(gc_pacer, the_limit_gives_way_when_all_time_goes_to_collecting)
{
    BEGIN();
    const int64_t later = os_now_ns() + INT64_C(3600000000000); /* so that no real time counts */
    gc_set_limit(10 << 20);
    struct fake f = { .live = 20 * MIB };
    fake_cycle(&f);
    fake_grow(UINT64_MAX);
    cr_assert(gc_due() && !pacer_capped() && gc_capped_cycle() == 0);
    pacer_cycle_took(900000000, later, 7);
    cr_assert(gc_due() && gc_capped_cycle() == 0);
    pacer_cycle_took(200000000, later, 8);
    cr_assert(pacer_capped() && !gc_due() && gc_capped_cycle() == 8);
    pacer_cycle_took(200000000, later, 9);
    cr_assert_eq(gc_capped_cycle(), 8, "it has been full since");
    gc_set_limit(INT64_MAX);
    fake_grow(UINT64_MAX);
    cr_assert(pacer_capped() && gc_due(), "40 MiB are due by percent");
    gc_set_limit(10 << 20);
    /* The program runs: on its CPU time a new cycle becomes possible. */
    store_rlx(&pacer.drained_ns, os_now_ns() - INT64_C(3600000000000));
    for (volatile int i = 0; os_process_cpu_ns() - pacer.cpu_ns < 1000000; i++)
        ;
    cr_assert(!pacer_capped() && gc_due());
    th_end();
}

Test(gc_pacer, a_cycle_is_forced_after_some_time)
{
    BEGIN();
    const int64_t hour = INT64_C(3600000000000);
    cr_assert(!gc_period_over(os_now_ns() + hour), "never before the first one");
    th_collect(GC_WHY_FORCED);
    int64_t last = gc_last_end_ns();
    cr_assert(!gc_period_over(last + INT64_C(119) * 1000000000) && gc_period_over(last + INT64_C(121) * 1000000000));
    gc_set_percent(-1);
    cr_assert(!gc_period_over(last + hour), "off is off");
    gc_set_limit(1 << 30);
    cr_assert(!gc_period_over(last + hour), "also with a limit");
    gc_set_percent(100);
    cr_assert(gc_period_over(last + hour));
    th_end();
}
