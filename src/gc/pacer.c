/* See pacer.h. The limit's share follows Go's, headroom and all. So that a limit below what lives does not turn the program into one
 * collection after another, the limit alone starts a cycle only after the program has run for as long as the last cycle took. */
#include "gc/pacer.h"
#include "gc/pages.h"
#include "gc/stats.h"
#include "os/clock.h"

#define HEAP_MIN_BYTES ((uint64_t)4 << 20)
#define LIMIT_HEADROOM_MIN ((uint64_t)1 << 20)

struct pacer pacer = { .lock = LOCK_INIT(RANK_LEAF) };

static uint64_t percent_of(uint64_t bytes, int percent)
{
    return (uint64_t)w_min((__extension__(unsigned __int128)bytes) * (unsigned)percent / 100,
                           (__extension__(unsigned __int128)UINT64_MAX / 4));
}

static uint64_t percent_goal(void)
{
    if (pacer.percent < 0)
        return UINT64_MAX;
    uint64_t live = pacer.last.live_bytes, all = live + pacer.last.stack_bytes + pacer.last.global_bytes;
    return w_max(live + percent_of(all, pacer.percent), percent_of(HEAP_MIN_BYTES, pacer.percent));
}

static uint64_t limit_goal(uint64_t overhead)
{
    if (pacer.limit == INT64_MAX)
        return UINT64_MAX;
    uint64_t limit = (uint64_t)pacer.limit, live = pacer.last.live_bytes;
    uint64_t not_objects = overhead + pacer.last.waste_bytes + w_max(limit / 100 * 3, LIMIT_HEADROOM_MIN);
    return limit > not_objects ? w_max(limit - not_objects, live) : live;
}

/* overhead: stats_overhead_bytes(), asked before the lock was taken. */
static void update_locked(uint64_t overhead)
{
    uint64_t by_percent = percent_goal(), by_limit = limit_goal(overhead), goal = w_min(by_percent, by_limit);
    store_rlx(&pacer.by_limit, by_limit < by_percent); /* rlx, here and below: see pacer.h */
    store_rlx(&pacer.goal, goal);
    store_rlx(&pacer.trigger, goal);
}

void pacer_start(int percent, int64_t limit)
{
    uint64_t overhead = stats_overhead_bytes();
    lock_take(&pacer.lock);
    pacer.percent = percent < 0 ? -1 : percent;
    pacer.limit = limit;
    pacer.last = (struct pacer_marked){ 0 };
    store_rlx(&pacer.not_before_ns, 0); /* rlx: alone */
    update_locked(overhead);
    lock_drop(&pacer.lock);
}

void pacer_marked(const struct pacer_marked *m)
{
    uint64_t overhead = stats_overhead_bytes();
    lock_take(&pacer.lock);
    pacer.last = *m;
    update_locked(overhead);
    lock_drop(&pacer.lock);
}

void pacer_cycle_took(int64_t ns, int64_t now_ns)
{
    store_rlx(&pacer.not_before_ns, now_ns + ns); /* rlx: a hint */
}

bool gc_due(void)
{
    return load_rlx(&heap.live) >= load_rlx(&pacer.trigger) && /* rlx: see pacer.h */
           (load_rlx(&pacer.by_limit) == 0 || os_now_ns() >= load_rlx(&pacer.not_before_ns));
}

uint64_t pacer_excess_bytes(void)
{
    lock_take(&pacer.lock);
    uint64_t limit = (uint64_t)pacer.limit;
    lock_drop(&pacer.lock);
    if (limit == INT64_MAX)
        return 0;
    struct pages_stats pg;
    pages_stats(&pg);
    uint64_t have = pg.sys_bytes - pg.released_bytes + stats_overhead_bytes();
    return have > limit ? have - limit : 0;
}

int gc_set_percent(int percent)
{
    uint64_t overhead = stats_overhead_bytes();
    lock_take(&pacer.lock);
    int old = pacer.percent;
    pacer.percent = percent < 0 ? -1 : percent;
    update_locked(overhead);
    lock_drop(&pacer.lock);
    return old;
}

int64_t gc_set_limit(int64_t bytes)
{
    uint64_t overhead = stats_overhead_bytes();
    lock_take(&pacer.lock);
    int64_t old = pacer.limit;
    if (bytes >= 0) {
        pacer.limit = bytes;
        update_locked(overhead);
    }
    lock_drop(&pacer.lock);
    return old;
}

uint64_t gc_live_bytes(void)
{
    lock_take(&pacer.lock);
    uint64_t live = pacer.last.live_bytes;
    lock_drop(&pacer.lock);
    return live;
}
