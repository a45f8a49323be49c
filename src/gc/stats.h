/* Memory statistics of the heap, and the history of cycles. */
#ifndef WEFT_GC_STATS_H
#define WEFT_GC_STATS_H

#include "gc/heap.h"

void stats_start(void);
/* What the runtime has beside the pages of the heap: their tables, off-heap memory, stacks of fibers. Any time. */
uint64_t stats_overhead_bytes(void);
/* In a stop or under the gc lock: one more cycle. */
void stats_cycle(bool forced, int64_t pause_ns, int64_t end_wall_ns, int64_t cpu_ns);
/* Share of the processors' time since start that went to collecting. */
double stats_cpu_fraction(void);

#endif
