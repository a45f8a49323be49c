/* Memory statistics of the heap, and the history of cycles. */
#ifndef WEFT_GC_STATS_H
#define WEFT_GC_STATS_H

#include "gc/heap.h"

void stats_start(void);
/* Bytes mapped by the runtime that hold no object: free but not released pages, tables, off-heap memory. Without stacks of fibers,
 * unless the host tells (gc_host.stack_bytes). Any time. */
uint64_t stats_not_objects_bytes(void);
/* In a stop or under the gc lock: one more cycle. */
void stats_cycle(bool forced, int64_t pause_ns, int64_t end_wall_ns, int64_t cpu_ns);
uint32_t stats_cycles(void);
/* Share of the processors' time since start that went to collecting. */
double stats_cpu_fraction(void);

#endif
