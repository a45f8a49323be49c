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
 * thread of the library's with the host's descriptors, from now until weft_trace_stop has returned, and may do anything but call weft; ctx is a root.
 * An error of its own ends this trace and no other. One that is slow holds up nobody: it gets fewer generations, and what is left out is counted and
 * marked in the trace (see weft_trace_stats).
 *
 * Several can be written at a time, up to eight, each started with its own writer or ctx. The first one stops the world for a moment
 * (WEFT_STOP_TRACE: microseconds, and 0.1 us per fiber that exists), and costs memory: 64 bytes per fiber beside the events. While one is on, a
 * deadlock of all fibers is not found: the threads that write it could wake them. 0, -EALREADY (a trace with this w and ctx is on: stop it first),
 * -ENOSPC (eight are), -EINVAL (w is NULL, or size not set), -ENOMEM, -EAGAIN (no thread to be had), -ESRCH (the runtime does not run). May block,
 * may move. -EDEADLK: called by a writer. The end of the runtime stops it; the child of a fork is not traced. */
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
 * run; its end has stopped all), -EDEADLK (called by a writer). Waits for the writer. May block, may move. */
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

/* ---- flight recorder ----------------------------------------------------------------------------- */

/* Keeps the last seconds of the trace in memory, to be written when something has gone wrong, so that one need not trace all the time into files to
 * see what came before. One at a time; beside it any traces may be started and stopped. (Go: FlightRecorder)
 *
 *     weft_flight_opts opts = WEFT_FLIGHT_OPTS_INIT;
 *     if (weft_flight_recorder_start(&opts) == 0) { ... if (slow) weft_flight_recorder_snapshot(to_file, f); ... }
 *
 * The trace is cut into generations of a second or so. What is kept is whole generations: the last finished one, and those before it as far as what is
 * kept after them is neither more than `bytes` nor reaches back more than age_ns. So mostly a little more than either; bytes counts for more. */

/* Why a trigger fires. */
enum { WEFT_FLIGHT_STOP = 1, WEFT_FLIGHT_RUNNABLE, WEFT_FLIGHT_HEAP };
typedef struct weft_flight_event {
    int why;            /* WEFT_FLIGHT_* */
    uint64_t value;     /* nanoseconds stopped or runnable, bytes of heap: more than the option says */
    uint64_t fiber;     /* RUNNABLE: the one that waited; else 0 */
} weft_flight_event;

typedef struct weft_flight_opts {
    size_t size;             /* sizeof(weft_flight_opts) */
    int64_t age_ns;          /* 0: ten seconds */
    size_t bytes;            /* 0: 10 MiB */
    /* Triggers: 0, none. Their snapshots are made on a thread of the recorder's, which calls triggered(arg, &event); that opens a file or whatever it
       likes and calls weft_flight_recorder_snapshot, which waits for nothing but its writer. It may not call what only fibers may. */
    int64_t stop_ns;         /* the world was stopped for longer */
    int64_t runnable_ns;     /* a fiber could run and waited longer for a processor. Looked for in each generation when it is finished */
    uint64_t heap_bytes;     /* the heap has grown beyond; again when it has been below */
    int64_t every_ns;        /* at most one trigger in so long, others are counted; 0: a minute */
    void (*triggered)(void *arg, const weft_flight_event *event);
    void *arg;
    /* A descriptor of a file to which the process writes what is kept when it crashes, -1 (WEFT_FLIGHT_OPTS_INIT), none: on the first SIGSEGV, SIGBUS,
       SIGABRT, SIGILL or SIGFPE that is not the runtime's own affair, before the host's handler is called or the process ends; also when the runtime
       ends the process by a fatal line. Up to the moment of the crash, if the other threads' events can be had within a second, else to the end of the
       last generation. In the handler nothing but write(2) is done, and nobody is waited for without a limit. */
    int crash_fd;
} weft_flight_opts;
#define WEFT_FLIGHT_OPTS_INIT { sizeof(weft_flight_opts), 0, 0, 0, 0, 0, 0, NULL, NULL, -1 }

/* Starts it. opts NULL: the defaults. A fiber or a thread of the host. May block.
 *   0          -EALREADY  it runs       -EBUSY   it is being started or stopped
 *   -ESRCH     runtime not running      -EINVAL  an option is out of range, or a trigger has no function
 *   -ENOMEM    -EAGAIN (no thread)      or what sigaction(2) says */
WEFT_API int weft_flight_recorder_start(const weft_flight_opts *opts) WEFT_MUST_CHECK;

/* Writes what is kept, up to now: a trace. For that the generation ends. It goes on recording meanwhile; what is being written is kept in addition. May
 * block. Fibers, threads of the host, and `triggered`.
 *   0          -ESRCH  no recorder runs      -EBUSY  somebody else writes one (`triggered` waits for that, nobody else)
 *   -ENOMEM    or the writer's error */
WEFT_API int weft_flight_recorder_snapshot(weft_writer *w, void *ctx) WEFT_MUST_CHECK;

/* Stops it, drops what is kept; waits for a snapshot that is being written, and for `triggered`. May block. The end of the runtime stops it, too.
 * 0, -ESRCH (it does not run), -EBUSY (it is being started or stopped), -EDEADLK (called by `triggered` or the snapshot's writer). */
WEFT_API int weft_flight_recorder_stop(void) WEFT_MUST_CHECK;

typedef struct weft_flight_stats {
    size_t size;             /* sizeof(weft_flight_stats); the caller sets it */
    uint64_t bytes, most_bytes; /* of memory for what is kept: now, and at most */
    uint64_t generations;    /* kept */
    uint64_t lost;           /* generations that could not be kept, or made, for want of memory */
    uint64_t snapshots, failed; /* written; ended with an error */
    uint64_t triggers[4];    /* by WEFT_FLIGHT_*: that called `triggered` */
    uint64_t suppressed;     /* that did not, because of every_ns or since one was at work */
    uint64_t unwatched;      /* generations that were not searched for runnable_ns, for want of memory or time */
} weft_flight_stats;
/* Since the last start. 0, -EINVAL (size). Anybody, at any time. */
WEFT_API int weft_flight_recorder_stats(weft_flight_stats *out);

WEFT_END_DECLS
#endif
