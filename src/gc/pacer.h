/* When the next cycle is due.
 *
 *     goal = live + (live + stacks + globals) * percent / 100,  at least 4 MiB * percent / 100
 *
 * and with a memory limit at most what the limit leaves for objects. As marking stops the world, the trigger is the goal. */
#ifndef WEFT_GC_PACER_H
#define WEFT_GC_PACER_H

#include "gc/heap.h"

struct pacer_marked { uint64_t live_bytes, stack_bytes, global_bytes; };

struct pacer {
    w_u64 trigger;   /* heap.live from which a cycle is due; UINT64_MAX: never. rlx: a threshold, being late by a span is no harm */
    w_u64 goal;      /* what statistics show */
    struct lock lock; /* RANK_LEAF; the rest */
    int percent;
    int64_t limit;
    struct pacer_marked last;
    int64_t last_ns;      /* how long the last cycle took */
    w_i64 not_before_ns;  /* the limit alone does not start a cycle before: at most half the time goes to collecting */
    bool by_limit;
};
extern struct pacer pacer;

void pacer_start(int percent, int64_t limit);
/* After a mark. In a stop or under the gc lock. */
void pacer_marked(const struct pacer_marked *m);
void pacer_cycle_took(int64_t ns, int64_t now_ns);

static inline bool pacer_reached(void) { return load_rlx(&heap.live) >= load_rlx(&pacer.trigger); } /* rlx: see above */

#endif
