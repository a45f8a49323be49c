/* When the next cycle is due.
 *
 *     goal = live + (live + stacks + globals) * percent / 100,  at least 4 MiB * percent / 100
 *
 * and with a memory limit at most what that leaves for objects:
 *
 *     limit - overhead - waste - headroom,  never below live
 *
 * overhead: all the runtime has beside the heap's pages. waste: what of the pages in use no object had when the last cycle began. Free pages are
 * not subtracted, since objects go there first; what they hold beyond the limit goes back to the system (pacer_excess_bytes).
 * As marking stops the world, the trigger is the goal. */
#ifndef WEFT_GC_PACER_H
#define WEFT_GC_PACER_H

#include "gc/heap.h"

struct pacer_marked { uint64_t live_bytes, stack_bytes, global_bytes, waste_bytes; };

struct pacer {
    w_u64 trigger;   /* heap.live from which a cycle is due; UINT64_MAX: never. rlx: a threshold, being late by a span is no harm */
    w_u64 goal;      /* what statistics show */
    struct lock lock; /* RANK_LEAF; the rest */
    int percent;
    int64_t limit;
    struct pacer_marked last;
    /* rlx: hints; a cycle too early or late is no harm */
    w_u32 by_limit;       /* the goal is the limit's */
    w_i64 not_before_ns;  /* then no cycle starts before: at most half the time goes to collecting */
};
extern struct pacer pacer;

void pacer_start(int percent, int64_t limit);
/* After a mark. In a stop or under the gc lock. */
void pacer_marked(const struct pacer_marked *m);
void pacer_cycle_took(int64_t ns, int64_t now_ns);
/* How much more than the limit the runtime has from the system. */
uint64_t pacer_excess_bytes(void);

#endif
