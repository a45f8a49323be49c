/* Statistics of the heap, and the history of cycles: figures for weft_read_mem_stats, which stops the world, and weft_metrics_read, which does not.
 * Both take them from the functions below, so that they agree to the byte when nothing runs. */
#ifndef WEFT_GC_STATS_H
#define WEFT_GC_STATS_H

#include "gc/heap.h"
#include "gc/pacer.h"
#include "gc/pages.h"

void stats_start(void);
/* What the runtime has beside the pages of the heap: their tables, off-heap memory, stacks of fibers. Any time. */
uint64_t stats_overhead_bytes(void);
/* One more cycle: by who is busy with it. */
struct heap_cycle { uint64_t number, end_wall_ns, pause_ns, before_bytes, marked_bytes, goal_bytes, forced; }; /* goal: of the next one. forced: 0, 1;
                                                        no bool, as what the stack had in its padding would be a root */
void stats_cycle(const struct heap_cycle *c, int64_t cpu_ns);
/* The same, after it: what the processors' time went to so far, as of now. */
void stats_cycle_cpu(uint64_t stack_bytes, const int64_t mark_ns[GC_CPU_KINDS]); /* beside the program */
/* Share of the processors' time since start that went to collecting. */
double stats_cpu_fraction(void);

/* ---- read by the two; inside the runtime or in a stop ([COUNT] in cache.h) -------------------------------- */

struct heap_bytes { uint64_t mallocs, frees; };
void stats_bytes(struct heap_bytes *out);   /* some ten times as fast as stats_count */

struct heap_counts { /* objects by class, large ones as class 0 */
    uint64_t mallocs[GC_CLASSES], frees[GC_CLASSES];
    uint64_t malloc_objects, free_objects;
    struct heap_bytes bytes;
};
void stats_count(struct heap_counts *out);

struct heap_memory {
    struct pages_stats pages;
    struct heap_bytes bytes;
    uint64_t in_use_bytes;                 /* of pages */
    uint64_t spans_bytes, caches_bytes, other_bytes; /* records of spans in use; caches; the rest of the collector's */
};
/* Together with the counts, unless that is NULL, so that the objects fit into the pages in use. */
void stats_memory(struct heap_memory *out, struct heap_counts *counts);

struct heap_cycles {
    uint64_t total, forced, stack_bytes;   /* stack_bytes: scanned by all of them */
    int64_t total_ns, idle_ns, user_ns, pause_ns, scav_assist_ns, scav_background_ns, mark_ns[GC_CPU_KINDS]; /* CPU time as of the end of the last cycle */
};
void stats_cycles(struct heap_cycles *out);
/* The last ones, oldest first; how many. */
#define STATS_CYCLES 256u /* weft_mem_stats says so */
unsigned stats_history(struct heap_cycle out[STATS_CYCLES]);

struct heap_pace { struct pacer_marked last; int percent; int64_t limit; uint64_t goal; };
void stats_pace(struct heap_pace *out);

#endif
