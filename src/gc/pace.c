/* See pace.h. */
#include "gc/pace.h"

#define HEADROOM_PERCENT 3u
#define HEADROOM_MIN ((uint64_t)1 << 20)
#define GOAL_MAX (UINT64_MAX / 4) /* above any heap, with room for sums */
#define ASSIST_WORK_MIN 1000u     /* so much is always left: estimates miss by that */
#define OVERSHOOT 1.1
#define PERCENT_OFF 100000        /* a cycle that was asked for, with percent off */

/* ---- how far ---------------------------------------------------------------------------------------------- */

static uint64_t percent_of(uint64_t bytes, int percent)
{
    return (uint64_t)w_min((__extension__(unsigned __int128)bytes) * (unsigned)percent / 100, (__extension__(unsigned __int128)GOAL_MAX));
}

uint64_t pace_percent_goal(int percent, uint64_t live, uint64_t stacks, uint64_t globals)
{
    if (percent < 0)
        return PACE_NEVER;
    return w_max(live + percent_of(live + stacks + globals, percent), percent_of(PACE_HEAP_MIN, percent));
}

uint64_t pace_limit_goal(uint64_t limit, uint64_t live, uint64_t not_objects, uint64_t mapped)
{
    if (limit >= INT64_MAX)
        return PACE_NEVER;
    uint64_t excess = mapped > limit ? mapped - limit : 0;
    if (not_objects + excess >= limit)
        return live; /* what the heap has no part in takes all: one cycle after another, as far as the bucket allows */
    uint64_t goal = limit - (not_objects + excess), headroom = w_max(goal / 100 * HEADROOM_PERCENT, HEADROOM_MIN);
    goal = goal < 2 * headroom ? headroom : goal - headroom;
    return w_max(goal, live);
}

/* ---- a cycle beside the program --------------------------------------------------------------------------- */

void pace_rate_add(struct pace_rate *r, uint64_t allocated, uint64_t scanned, double utilization, double idle)
{
    if (allocated == 0 || scanned == 0 || utilization >= 1)
        return; /* so short that it tells nothing */
    double rate = (double)allocated * (utilization + idle) / ((double)scanned * (1 - utilization));
    r->now = rate;
    for (unsigned i = 0; i < w_countof(r->last); i++)
        r->now = w_max(r->now, r->last[i]);
    for (unsigned i = 1; i < w_countof(r->last); i++)
        r->last[i - 1] = r->last[i];
    r->last[w_countof(r->last) - 1] = rate;
}

uint64_t pace_runway(const struct pace_rate *r, uint64_t work)
{
    return (uint64_t)w_min(r->now * (1 - PACE_UTILIZATION) / PACE_UTILIZATION * (double)work, (double)GOAL_MAX);
}

uint64_t pace_trigger(uint64_t goal, uint64_t live, uint64_t runway, uint64_t at_least)
{
    if (live >= goal)
        return goal;
    uint64_t least = live + (goal - live) / 64 * 45, most = live + (goal - live) / 64 * 61;
    least = w_max(least, at_least);
    if (goal > PACE_HEAP_MIN)
        most = w_max(most, goal - PACE_HEAP_MIN); /* enough for the rest of a cycle with little to scan */
    most = w_max(most, least);
    uint64_t trigger = runway > goal ? least : goal - runway;
    return w_min(w_min(w_max(trigger, least), most), goal);
}

struct pace_workers pace_workers(unsigned procs)
{
    unsigned n = (unsigned)(procs * PACE_UTILIZATION);
    n += n < procs * PACE_UTILIZATION;
    return (struct pace_workers){ n, procs * PACE_UTILIZATION / n };
}

static double most_heap(const struct pace_mark *m, double goal) { return m->limited ? goal : goal * OVERSHOOT; }

bool pace_outgrown(const struct pace_mark *m) { return (double)m->heap > most_heap(m, (double)m->goal); }

double pace_assist_ratio(const struct pace_mark *m)
{
    double goal = (double)m->goal, expected = (double)m->expected, most = (double)m->most;
    double percent = m->percent < 0 ? PERCENT_OFF : m->percent;
    if (m->done > m->expected) {
        double further = (goal - (double)m->triggered) / w_max(expected, 1.0) * most + (double)m->triggered;
        goal = w_min(further, m->limited ? goal : goal * (1 + percent / 100));
        expected = most;
    }
    if ((double)m->heap > goal) {
        goal = most_heap(m, goal);
        expected = most;
    }
    double work = w_max(expected - (double)m->done, (double)ASSIST_WORK_MIN);
    return work / w_max(goal - (double)m->heap, 1.0);
}

/* ---- how much of the time --------------------------------------------------------------------------------- */

void pace_bucket_resize(struct pace_bucket *b, unsigned procs)
{
    b->capacity = (uint64_t)procs * 1000000000;
    b->fill = w_min(b->fill, b->capacity);
}

/* It never holds less than nothing: who idled for a day has no right to collect for a day. */
void pace_bucket_add(struct pace_bucket *b, int64_t gc_ns, int64_t program_ns)
{
    int64_t change = gc_ns - program_ns;
    if (change >= 0)
        b->fill += w_min((uint64_t)change, b->capacity - b->fill);
    else
        b->fill -= w_min((uint64_t)-change, b->fill);
}

/* ---- what stays -------------------------------------------------------------------------------------------- */

uint64_t pace_retain(uint64_t in_use, uint64_t goal, uint64_t last_goal)
{
    double ratio = goal == PACE_NEVER || last_goal == PACE_NEVER || last_goal == 0 ? 1 : (double)goal / (double)last_goal;
    return (uint64_t)w_min((double)in_use * ratio * 1.1, (double)GOAL_MAX);
}

int64_t pace_scavenge_sleep_ns(int64_t worked_ns, unsigned procs)
{
    return w_max(worked_ns * 100 / (int64_t)procs - worked_ns, worked_ns);
}
