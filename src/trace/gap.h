/* A generation that leads over a gap. See gap.c. */
#ifndef WEFT_TRACE_GAP_H
#define WEFT_TRACE_GAP_H

#include "base/base.h"
#include "trace/buffer.h"
#include <weft/base.h>

struct trace_gap {
    uint32_t gen;                          /* its number: that of the first one that is missing */
    uint32_t missing;                      /* generations */
    const struct trace_buf *before, *after; /* complete generations: what was written last, what comes next */
    struct trace_clock began;              /* when the gap began */
    uint64_t ends;                         /* the same, in units of the trace */
    bool saw_gc;                           /* in: the reader has seen an event of the collector; out: likewise, behind it */
    uint64_t gc_before, gc_after;          /* as trace.gc, at either end; 0: there was none */
    struct sides *sides;                   /* gap.c's; NULL: not read yet */
};

/* Finds out how the one before ends and the one after begins: then neither's buffers are needed any more. 0 or -ENOMEM. Takes memory; reads of the
 * buffers only what is fixed. */
int trace_gap_read(struct trace_gap *gap);
/* Writes, and forgets what was read; reads first, if that is not done. Adds what was written to *bytes. 0, the writer's error, or -ENOMEM, when
 * nothing has been written. */
int trace_gap_write(struct trace_gap *gap, weft_writer *w, void *ctx, uint64_t *bytes);

#endif
