/* weft/trace.h - the execution trace: what fibers, processors and the collector did, when, and why. Files open in `go tool trace` (Go 1.26 or newer);
 * contract: Go's runtime/trace. */
#ifndef WEFT_TRACE_H
#define WEFT_TRACE_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- start and stop ----------------------------------------------------------------------------------------- */

typedef struct weft_trace_opts {
    size_t size;          /* sizeof(weft_trace_opts) */
    size_t buffer_bytes;  /* for events that are not written yet: address space, of which as much becomes memory as is in use. 0: 256 MiB, or less
                             where there is less. Of the first trace that is started; those beside it share it */
    int64_t generation_ns; /* the writer gets what has happened once in this time, or earlier if it is much. 0: a second. Likewise */
} weft_trace_opts;
#define WEFT_TRACE_OPTS_INIT { sizeof(weft_trace_opts), 0, 0 }

/* From now on everything that happens goes to w(ctx, ...), in generations of about a second, each complete in itself. The writer is called on a
 * thread that is not the caller's, from now until weft_trace_stop has returned; an error of its own ends this trace and no other. One that is slow
 * holds up nobody: it gets fewer generations, and what is left out is counted and marked in the trace (see weft_trace_stats).
 *
 * Several can be written at a time, up to eight, each started with its own writer or ctx. The first one stops the world for a moment
 * (WEFT_STOP_TRACE: microseconds, and 0.1 us per fiber that exists), and costs memory: 64 bytes per fiber beside the events. While one is on, a
 * deadlock of all fibers is not found: the threads that write it could wake them. 0, -EALREADY (a trace with this w and ctx is on: stop it first),
 * -ENOSPC (eight are), -EINVAL (w is NULL, or size not set), -ENOMEM, -EAGAIN (no thread to be had), -ESRCH (the runtime does not run). May block,
 * may move. The end of the runtime stops it; the child of a fork is not traced. */
WEFT_API int weft_trace_start(weft_writer *w, void *ctx, const weft_trace_opts *opts) WEFT_MUST_CHECK;

typedef struct weft_trace_stats {
    size_t size;          /* in: sizeof(weft_trace_stats) */
    uint64_t bytes;       /* written */
    uint64_t generations; /* written */
    uint64_t dropped;     /* generations that the writer did not get: it was too slow or has failed, or buffer_bytes were too few */
    uint64_t fibers_missed; /* that are not in the trace: too many at a time */
} weft_trace_stats;

/* The trace with this w and ctx is over: what has happened so far is written when this returns. stats: NULL, or filled in.
 * 0, the writer's error, -ENOENT (no such trace is on: it was not started, or has been stopped), -EINVAL (size not set), -ESRCH (the runtime does not
 * run; its end has stopped all). Waits for the writer. May block, may move. */
WEFT_API int weft_trace_stop(weft_writer *w, void *ctx, weft_trace_stats *stats);

WEFT_END_DECLS
#endif
