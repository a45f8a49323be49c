/* When the next cycle is due: pace.h's arithmetic, with what the cycles found, the settings, and a clock.
 *
 * Where marking stops the world, as it always does if there is little to scan, the trigger is the goal, else it lies before it by what the program
 * will allocate meanwhile; who allocates faster than that helps, by the assist ratio. In a stop the program allocates nothing, so it is given some
 * bytes after each cycle, where Go gives them before the goal: a megabyte by percent while the sweep is not done, 64 KiB when the memory limit leaves
 * nothing.
 *
 * What the runtime has beside the heap's pages changes between cycles (fibers start, tables grow), and what the limit leaves for objects with it. So
 * with a limit the goal is set anew whenever the heap takes pages (scavenge.c). Not subtracted are free pages, since objects go there first. */
#ifndef WEFT_GC_PACER_H
#define WEFT_GC_PACER_H

#include "gc/heap.h"
#include "gc/pace.h"

/* waste: what of the pages in use no object had when the cycle began. in_use: those pages. scan: the part of live that is not noscan.
 * stop_stack: the part of stack that was scanned in a stop. */
struct pacer_marked { uint64_t live_bytes, stack_bytes, global_bytes, waste_bytes, in_use_bytes, scan_bytes, stop_stack_bytes; };

struct pacer {
    w_u64 trigger;   /* heap.live from which a cycle is due; UINT64_MAX: never. rlx: a threshold, being late by a span is no harm */
    w_u64 goal;      /* what statistics show */
    w_i64 limit;     /* written under lock; rlx: a setting; and the next */
    w_i32 percent;
    struct lock lock; /* RANK_LEAF; the rest */
    uint64_t sweep_min; /* goal by percent: not below, while the sweep is not done */
    uint64_t last_goal; /* before the last cycle; 0: there was none */
    bool beside;        /* the trigger lies before the goal, for a mark beside the program */
    struct pacer_marked last;
    struct pace_bucket bucket;
    struct pace_rate rate;
    struct pace_mark mark; /* of the cycle that marks beside the program; written in its first stop */
    w_u64 assist_ratio; /* of it: bytes to scan for 2^16 allocated. rlx: figures, and the next */
    w_i64 credit;       /* bytes scanned */
    int64_t cpu_ns;       /* of the process, when the bucket was drained last */
    /* rlx: hints; a cycle too early or late is no harm */
    w_u32 by_limit;       /* the goal is the limit's */
    w_u32 capped;         /* the bucket is full */
    w_i64 drained_ns;     /* when */
    w_u64 capped_cycle;   /* the cycle that filled it last; 0: none */
    w_i64 assist_ns;      /* collector's work inside allocations since */
};
extern struct pacer pacer;

void pacer_start(int percent, int64_t limit);
/* In the stop in which a cycle begins: whether the mark is to be made beside the program, as the heap has so many bytes. */
bool pacer_beside_stw(uint64_t heap_bytes);
/* Around a mark beside the program, which began with so many bytes in the heap; allocated meanwhile, and scanned. */
void pacer_mark_begins_stw(uint64_t heap_bytes);
void pacer_mark_ends_stw(int64_t ns, const int64_t cpu_ns[GC_CPU_KINDS], uint64_t allocated, uint64_t scanned);
/* Beside the program so many bytes were scanned. credit: nobody had to do it for what he allocated. */
void pacer_scanned(uint64_t bytes, bool credit);
/* Bytes to be scanned for so many allocated; and allocated for scanned. */
uint64_t pacer_work(int64_t allocated);
int64_t pacer_worth(uint64_t work);
uint64_t pacer_spend_credit(uint64_t work); /* what is left to do of it */
/* After a mark. In a stop, or by who is busy with the cycle. */
void pacer_marked(const struct pacer_marked *m);
/* Before and after a cycle; number is its own. cpu_ns: of the processors, by its stops and its marking. */
void pacer_cycle_begins(int64_t now_ns);
void pacer_cycle_took(int64_t cpu_ns, int64_t now_ns, uint64_t number);
/* With a limit: overhead, of what is not the heap's pages, and retained, of those, are of now. */
void pacer_revise(uint64_t overhead, uint64_t retained);
/* Collecting takes too much of the time: what serves the limit alone is to be left. */
bool pacer_capped(void);
static inline bool pacer_limited(void) { return load_rlx(&pacer.limit) != INT64_MAX; } /* rlx: a setting */

#endif
