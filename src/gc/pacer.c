/* See pacer.h. The limit's share follows Go's: what the limit leaves after everything that is mapped and is not an object, less a
 * headroom of 3 % (at least 1 MiB), and never below what lives. So that a limit below what lives does not turn the program into one
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

static uint64_t limit_goal(uint64_t other)
{
    if (pacer.limit == INT64_MAX)
        return UINT64_MAX;
    uint64_t limit = (uint64_t)pacer.limit, live = pacer.last.live_bytes;
    uint64_t head = w_max(limit / 100 * 3, LIMIT_HEADROOM_MIN);
    return limit > other + head ? w_max(limit - other - head, live) : live;
}

/* other: stats_not_objects_bytes(), asked before the lock was taken. */
static void update_locked(uint64_t other)
{
    uint64_t by_percent = percent_goal(), by_limit = limit_goal(other), goal = w_min(by_percent, by_limit);
    pacer.by_limit = by_limit < by_percent;
    store_rlx(&pacer.goal, goal); /* rlx: see pacer.h */
    store_rlx(&pacer.trigger, goal);
}

void pacer_start(int percent, int64_t limit)
{
    uint64_t other = stats_not_objects_bytes();
    lock_take(&pacer.lock);
    pacer.percent = percent < 0 ? -1 : percent;
    pacer.limit = limit;
    pacer.last = (struct pacer_marked){ 0, 0, 0 };
    pacer.last_ns = 0;
    store_rlx(&pacer.not_before_ns, 0); /* rlx: alone */
    update_locked(other);
    lock_drop(&pacer.lock);
}

void pacer_marked(const struct pacer_marked *m)
{
    uint64_t other = stats_not_objects_bytes();
    lock_take(&pacer.lock);
    pacer.last = *m;
    update_locked(other);
    lock_drop(&pacer.lock);
}

void pacer_cycle_took(int64_t ns, int64_t now_ns)
{
    pacer.last_ns = ns;
    store_rlx(&pacer.not_before_ns, now_ns + ns); /* rlx: a hint */
}

bool gc_due(void)
{
    /* rlx: hints; a cycle too many or too late is no harm */
    return pacer_reached() && (!pacer.by_limit || os_now_ns() >= load_rlx(&pacer.not_before_ns));
}

int gc_set_percent(int percent)
{
    uint64_t other = stats_not_objects_bytes();
    lock_take(&pacer.lock);
    int old = pacer.percent;
    pacer.percent = percent < 0 ? -1 : percent;
    update_locked(other);
    lock_drop(&pacer.lock);
    return old;
}

int64_t gc_set_limit(int64_t bytes)
{
    uint64_t other = stats_not_objects_bytes();
    lock_take(&pacer.lock);
    int64_t old = pacer.limit;
    if (bytes >= 0) {
        pacer.limit = bytes;
        update_locked(other);
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
