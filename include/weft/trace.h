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

/* ---- user annotations ---------------------------------------------------------------------------- */

/* What the program means by what its fibers do, shown in the trace's "User-defined tasks" and "regions". While no trace is made all of this costs
 * next to nothing. */

/* True while a trace is made, by whomever for whomever: whether it is worth preparing something for a log. Anybody, at any time. */
WEFT_API bool weft_trace_enabled(void);

/* A task: a piece of work, such as a request, that may go on in several fibers. It is a number, so there is nothing to free, and it may be passed
 * about and kept at will; 0 is none. Numbers are never used twice. */
typedef uint64_t weft_task;

/* A task begins; parent: of which it is a part, or 0. Also while no trace is made, so that one which starts later shows the rest. Never fails, does
 * not block. name NULL is "". (Go: NewTask) */
WEFT_API weft_task weft_task_begin(const char *name, weft_task parent);
/* It is over; on whatever fiber. Once; 0 is ignored. */
WEFT_API void weft_task_end(weft_task task);

/* What the calling fiber (or thread of the host) works for from now on: its regions and logs are that task's. 0: nothing in particular. Returns what it
 * was. A fiber begins with 0: who starts one for a task passes it on, as anything else (in Go, with its context). -1 as task only reads.
 * While the runtime does not run, 0. */
WEFT_API weft_task weft_task_use(weft_task task);
#define WEFT_TASK_ASK (~(weft_task)0)

/* A region: a time in which the calling fiber does one thing. They nest, and end on the fiber on which they began, the last begun first.
 *
 *     weft_region r;
 *     weft_region_begin(&r, "parse");
 *     ...
 *     weft_region_end(&r);
 *
 * or, to the end of the block, however it is left but by longjmp or weft_exit: WEFT_REGION("parse"); */
typedef struct weft_region { /* the library's; lies in the frame of who begins it */
    struct weft_region *outer;
    const char *name;
    weft_task task;
    bool shown; /* a trace was made when it began */
} weft_region;
/* name stays as it is until the end. Does not block. (Go: StartRegion) */
WEFT_API void weft_region_begin(weft_region *r, const char *name);
/* 0; or -EINVAL, and nothing happens: the calling fiber has not begun it, or it was ended already, or one that was begun after it has not
 * been. Looked at only where the beginning is shown. A fiber that ends, or is left by longjmp, takes its regions along. */
WEFT_API int weft_region_end(weft_region *r);
static inline void weft_region_scope_end(weft_region *r) { (void)weft_region_end(r); }
#define WEFT_REGION_CAT2(a, b) a##b
#define WEFT_REGION_CAT(a, b) WEFT_REGION_CAT2(a, b)
#define WEFT_REGION(name)                                                                                        \
    weft_region WEFT_REGION_CAT(weft_region_, __LINE__) __attribute__((cleanup(weft_region_scope_end), unused)); \
    weft_region_begin(&WEFT_REGION_CAT(weft_region_, __LINE__), (name))
/* Runs fn(arg) in a region. 0, or -EINVAL: fn NULL. (Go: WithRegion) */
WEFT_API int weft_with_region(const char *name, weft_fn *fn, void *arg);

/* A message, with a category to sort by, of the fiber's task. Up to 1024 bytes of each are kept. Does not block. logf formats only while a trace is
 * made. NULL is "". (Go: Log, Logf) */
WEFT_API void weft_trace_log(const char *category, const char *text);
WEFT_API void weft_trace_logf(const char *category, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

WEFT_END_DECLS
#endif
