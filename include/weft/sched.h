/* weft/sched.h - starting and stopping the runtime; fibers; threads and processors.
 *
 * Contracts: Go's package runtime (Gosched, Goexit, LockOSThread, GOMAXPROCS, NumGoroutine, Stack). */
#ifndef WEFT_SCHED_H
#define WEFT_SCHED_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- the runtime's life ------------------------------------------------------------------------ */

struct weft_finding; /* weft/debug.h */

typedef struct weft_config {
    size_t size;               /* sizeof(weft_config); WEFT_CONFIG_INIT sets it */
    int maxprocs;              /* processors; 0: WEFT_MAXPROCS, else affinity and cgroup quota, followed as they change (weft_maxprocs) */
    int gc_percent;            /* 0: WEFT_GC, else 100; WEFT_GC_OFF: no collection by growth */
    int64_t memory_limit;      /* bytes, soft; 0: WEFT_MEMLIMIT, else none */
    size_t stack_size;         /* bytes of address space of a fiber's stack; 0: WEFT_STACK, else 64 KiB; rounded up to a power of two */
    size_t main_stack_size;    /* the same for the main fiber; 0: 1 MiB */
    size_t heap_reserve;       /* bytes of address space for the heap, at least 16 MiB, at most 1 TiB are taken; 0: 1 TiB, or what the limits of the
                                  process allow */
    int max_threads;           /* 0: 10000 */
    int stop_signal;           /* used to stop threads that are in user code; 0: SIGURG. A handler of the host's is still called for each signal that
                                  is not ours; unless it is a real-time signal also for some that are, since pending ones melt into one.
                                  One that the host installs later, and that passes nothing on, is found and put behind ours when a thread does not
                                  stop. Handlers without SA_ONSTACK run on the stack of whatever fiber they interrupt; one for SIGSEGV like that,
                                  installed after the start, keeps overflows from being reported.
                                  A thread is stopped in the middle of system calls: most are restarted, but those that the kernel never restarts
                                  (nanosleep, poll, ...: signal(7)) return EINTR, unless between weft_blocking_begin and _end, where threads are left
                                  alone */
    const char *debug;         /* keys as in WEFT_DEBUG ("gctrace=1,gcstress=100"); read after the environment and stronger */
    void (*log)(void *arg, const char *line); /* gets every line the runtime has to say (gctrace, deadlock report, warnings); NULL: stderr.
                                                 May be called on any thread; must not call weft, nor wait for a lock that a
                                                 handler of pthread_atfork holds during a fork */
    void *log_arg;
    int stop_timeout_ms;       /* how long weft_stop waits for fibers in user code; 0: 1000; negative: for ever. Time in which the whole process
                                  stood still is not waited */
    int64_t mem_profile_rate;  /* see weft_set_mem_profile_rate; 0: WEFT_DEBUG=memprofilerate=N, else 524288; negative: no samples */
    const char *doctor;        /* modes of the doctor, see weft/debug.h: "off", "count", "report" or "abort" for all codes, and "w04=MODE" for one,
                                  separated by commas; NULL: as WEFT_DEBUG says, else "report" */
    void (*finding)(void *arg, const struct weft_finding *f); /* gets what the doctor finds; NULL: the log. On a thread of the doctor's, outside of the
                                                                 runtime; may do anything but call weft */
    void *finding_arg;
    int guards;                /* sum of WEFT_GUARD_*; 0: all with WEFT_DEBUG=guard=1, else none; WEFT_GUARD_NONE: none whatever WEFT_DEBUG says */
} weft_config;

#define WEFT_CONFIG_INIT { sizeof(weft_config), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
#define WEFT_GC_OFF (-1)

/* Guards make known misuses harmless, where code that has them cannot be mended at once. Each takes a part of a contract back, so none is on unless
 * asked for. What calls them in vain is named by the doctor (weft/debug.h), guarded or not. */
enum {
    WEFT_GUARD_NONE = -1,
    WEFT_GUARD_GC = 1,        /* weft_gc takes at most a twentieth of the time: after a collection that took t, calls within 19 t return at once. Those that
                                 collect give free memory back to the operating system, too */
    WEFT_GUARD_STATS = 2,     /* weft_read_mem_stats stops the world ten times a second at most: figures are of one moment, up to 100 ms ago */
    WEFT_GUARD_THREADS = 4,   /* weft_lock_os_thread waits while 16 fibers are locked, but lets one more in every 10 ms, so that nobody waits for ever.
                                 Threads that end with their fiber are replaced ahead, by one that no fiber has run on */
    WEFT_GUARD_PROFILES = 8,  /* block and mutex profiles take half a percent of the processors' time each, whatever their rate; CPU and wall-clock
                                 profiles have limits of bytes and time also with `unlimited` */
    WEFT_GUARD_PROCS = 16,    /* more processors than the affinity mask and the quota allow are as many as they allow, and follow them */
    WEFT_GUARD_STACKS = 32,   /* a text that weft_stack had to cut says so in its last line */
    WEFT_GUARD_DESCRIPTORS = 64, /* weft_set_finalizer collects, and lets finalizers run for up to 100 ms, when three quarters of the descriptors that
                                    the process may have are taken; so does weft_accept when there is none left, and tries again */
    WEFT_GUARD_ALL = 127
};

/* Starts the runtime, runs main_fn(arg) as the main fiber, first on the calling thread, and stops the runtime when it returns.
 * Other fibers are not waited for: each ends at its next call into weft, without running its deferred calls (as in Go).
 * cfg may be NULL. Settings come from cfg, then from the environment (WEFT_MAXPROCS, WEFT_GC, WEFT_MEMLIMIT, WEFT_STACK,
 * WEFT_DEBUG), read here and never again.
 *   0          main_fn returned (or called weft_exit and all fibers ended)
 *   -EDEADLK   all fibers were asleep and nothing could wake them; they are listed to the log
 *   -EALREADY  the runtime runs already, or another copy of the library does in this process (weft/base.h)
 *   -EINVAL    bad setting (the log says which)
 *   -ENOMEM, -EAGAIN, -EMFILE, -ENFILE  no memory, thread or descriptor to start with
 *   -EBUSY     main_fn returned, but fibers in user code did not come back within stop_timeout_ms: their threads go on and
 *              the runtime's memory stays mapped; the runtime cannot be started again. But one that is on the calling thread is waited for without
 *              end: that thread runs any fiber, unless main_fn is locked to it (weft_lock_os_thread). The same if a thread of the host is in a call
 *              then that does not end within that time: it waits there for ever
 * Threads of the host may call in meanwhile and may end at any time; calls of theirs that are under way when main_fn returns are waited
 * for, but nobody is left to wake those that wait. */
WEFT_API int weft_run(weft_fn *main_fn, void *arg, const weft_config *cfg) WEFT_MUST_CHECK;

/* The same for a host that keeps its own main: after weft_start the calling thread is an attached thread.
 * weft_stop may be called by any thread of the host; of several at once one does it, and the others get -ESRCH. Results as above.
 * With weft_start a deadlock is not reported: a thread of the host may wake any fiber. -EPERM: called from a fiber,
 * or started by weft_run. -ESRCH: not running. */
WEFT_API int weft_start(const weft_config *cfg) WEFT_MUST_CHECK;
WEFT_API int weft_stop(void);

/* fork(2) in a host that runs the runtime. The parent's processors stop for the time of the call (WEFT_STOP_FORK). The child may use the
 * runtime, whoever forked, and fork again:
 *   - Of the fibers only the caller lives. The others run no more, nor do their deferred calls; what they reach stays alive and is not
 *     finalized. Locks, wait groups and channels that others held or waited in are as with threads: what a child uses it makes itself.
 *     Timers go on, but for those with a function. Descriptors are watched anew.
 *   - Threads, the monitor's too, are made at the child's first call; without the means for them (one thread, two descriptors) the
 *     program ends with a line that says so.
 *   - A fiber that forked on the thread of weft_run (main_fn locked to it) returns from main_fn as ever, and weft_run returns. On any other
 *     thread of the runtime nobody waits for it: when main_fn returns, or the last fiber has ended, the process ends as by exit(0); by
 *     exit(1) after a deadlock. A child that a thread of the host has forked ends the runtime by weft_stop, also where weft_run started it.
 * A child that is forked in a signal handler or by the log function while the library is at work, or while another thread is in weft_start,
 * weft_stop or at the end of weft_run, cannot use the runtime: calls that have -ESRCH return it, weft_start gives -EBUSY, the others
 * are fatal. It may execute another program or end. Children of vfork and posix_spawn may not call weft at all; a collection that comes
 * meanwhile waits for who called vfork until the child has executed its program or ended. */

/* True between a successful start and the stop. */
WEFT_API bool weft_running(void);

/* The number of the runtime's life: a higher one for each start in this process, which stays after the stop and in a child of fork; 0 before the first. Who
 * keeps something of one life tells by it, and by weft_running, that this one is over. At any time. */
WEFT_API uint64_t weft_life(void);

/* A host thread attaches itself on its first call and detaches when it ends; these do it by hand. Attach twice is fine.
 * Attached threads are stopped by collections and their stacks and thread-local variables are roots. Attaching unblocks the stop signal; whoever
 * blocks it afterwards holds up the next stop, and with it the whole program, until it unblocks it or calls weft.
 * A thread may end without a word: by return, pthread_exit or cancellation. One that ends by the bare system call is forgotten too, if
 * its stack stays mapped and it is not between weft_blocking_begin and _end.
 * weft_attach: 0, -ESRCH (runtime not running), -ENOMEM, -EAGAIN. weft_detach: 0, -EPERM (a thread of the runtime). */
WEFT_API int weft_attach(void);
WEFT_API int weft_detach(void);

/* ---- fibers ------------------------------------------------------------------------------------ */

/* Starts a fiber that runs fn(arg). The stack is bound when it first runs; if there is no memory for it then, even after all that is free was given
 * back, the program ends with a line that says so (but for the main fiber: weft_run returns -ENOMEM). So it does when fibers can run and for a second
 * no thread can be made for them. arg is a root from now on.
 * 0, -ENOMEM, -EINVAL (fn NULL), -ESRCH (runtime not running). Does not block or move. */
WEFT_API int weft_go(weft_fn *fn, void *arg);

typedef struct weft_go_opts {
    size_t size;           /* sizeof(weft_go_opts) */
    const char *name;      /* shown in dumps; must live as long as the fiber; NULL: none */
    size_t stack_size;     /* bytes of address space; 0: the default; 16 KiB to 1 GiB, rounded up to a power of two */
    uint64_t *id;          /* out: the fiber's id */
} weft_go_opts;
#define WEFT_GO_OPTS_INIT { sizeof(weft_go_opts), 0, 0, 0 }
/* weft_go with options; opts may be NULL. -EINVAL also for a wrong size or stack_size. */
WEFT_API int weft_go_opts_run(weft_fn *fn, void *arg, const weft_go_opts *opts);

/* Lets others run; the caller is queued behind them. May move. */
WEFT_API void weft_yield(void);

/* Runs the deferred calls, then ends the calling fiber. From the main fiber: the others go on, and weft_run returns
 * 0 when the last has ended. A thread that is not a fiber: fatal. */
WEFT_API void weft_exit(void) WEFT_NORETURN;

/* Runs fn(arg) when the calling fiber ends, by return or weft_exit; last deferred first. arg is a root.
 * 0, -ENOMEM, -EINVAL (fn NULL), -EPERM (not a fiber). */
WEFT_API int weft_defer(weft_fn *fn, void *arg);

/* Id of the calling fiber: 1 is the main fiber, numbers are never reused; 0 outside of fibers. */
WEFT_API uint64_t weft_fiber_id(void);
/* Name shown in dumps; must live as long as the fiber. */
WEFT_API void weft_set_name(const char *name);
/* Fibers that exist (running, waiting or not yet started), without those of the runtime itself; racy, no stop. */
WEFT_API int64_t weft_num_fibers(void);

/* Announces code that may sleep in the kernel or compute for long: the processor is given away at once instead of after some
 * milliseconds. Between the two no other call into weft is allowed, and collections do not stop the thread: it may use what it holds, contents of
 * objects included, but a pointer that it takes out of the heap only then, or moves from one object to another, may be missed. Does not nest. */
WEFT_API void weft_blocking_begin(void);
WEFT_API void weft_blocking_end(void);

/* ---- threads and processors -------------------------------------------------------------------- */

/* Wires the fiber to its thread: it runs only there, and nothing else does. Counts; unlocking at 0 does nothing.
 * A fiber that ends while locked takes its thread with it (the main thread is parked for ever instead).
 * lock: 0, -EOVERFLOW. */
WEFT_API int weft_lock_os_thread(void);
WEFT_API void weft_unlock_os_thread(void);

/* Number of processors: how many threads run fibers at once. n < 1 only reads. Returns the previous value. n >= 1 stops the world shortly, unless
 * it is the number already, and ends automatic updates; more than 1024 is 1024. The default: WEFT_MAXPROCS, which is not updated either; else
 * min(CPUs in the affinity mask, quota of the process's own control group, v1 or v2, rounded up, but at least 2). That is looked at again about
 * once a second, and followed. Where there is no memory for more processors the number stays (read it again to know), and the log says so. May
 * block. */
WEFT_API int weft_maxprocs(int n);
/* Back to the default of now, whatever WEFT_MAXPROCS says, and to following it. Returns the previous value. May block. (Go: SetDefaultGOMAXPROCS) */
WEFT_API int weft_maxprocs_default(void);
/* CPUs in the affinity mask when the runtime started. */
WEFT_API int weft_num_cpu(void);
/* Limit on threads made by the runtime for fibers; those of the host do not count. Exceeding it ends the program with a clear line, as in Go: when
 * a thread more is needed, or at once if there are more already. n < 1 only reads. Returns the previous one. */
WEFT_API int weft_set_max_threads(int n);

/* ---- stacks ------------------------------------------------------------------------------------ */

/* Writes the calling fiber's stack, and if all is true those of all others after it, as text into buf. Returns the size of the
 * whole text, without the NUL; the text was cut (and still ends in NUL) when that is >= len. No stop of the world.
 * Format: Go's ("fiber 7 [chan receive, 2 minutes]:", frames, "created by f in fiber 1"), last line "N of N fibers". -ESRCH: the runtime does not
 * run; -ENOMEM. */
WEFT_API ssize_t weft_stack(char *buf, size_t len, bool all);
/* The same, streamed: never cut. 0 or the writer's error. */
WEFT_API int weft_stack_write(weft_writer *w, void *ctx, bool all);

/* ---- leaked fibers ------------------------------------------------------------------------------- */

/* Which fibers does a piece of a program leave behind? Comparing two weft_num_fibers() says that there are more, not which, and counts what was
 * made at first use to stay (a logger, a pool) and what is about to end. This compares the fibers themselves, place by place:
 *
 *     weft_leak_check *check;
 *     request();                                    // once before, so that what first use makes is there
 *     if (weft_leak_check_begin(&check) == 0) {
 *         request();
 *         leaked = weft_leak_check_end(check, WEFT_SECOND, to_stderr, NULL);
 *     }
 *
 * Several checks may be under way. A check ends in the life of the runtime in which it began. (The idea: goleak.) */
typedef struct weft_leak_check weft_leak_check;

/* Remembers the fibers that exist. 0, -ESRCH (the runtime does not run: a baseline from before says nothing), -ENOMEM. May block. */
WEFT_API int weft_leak_check_begin(weft_leak_check **out) WEFT_MUST_CHECK;

/* How many fibers there are more than at the beginning, summed over the places (return addresses of weft_go and its like) where more have been made
 * since than are gone: one that replaces another of the same place is none. The caller, threads of the host and fibers of the runtime do not count.
 * If there are some it looks again for up to wait_ns, since some may be about to end. Then it writes to w (NULL: does not) a line with the number,
 * and the stacks of all fibers that have been made since at those places, as weft_stack_write does. Frees check, whatever it returns. With each
 * look it leaks a fiber of its own, to see that the look would have found it, and then takes it back.
 *   >= 0      the number      -EIO  the fiber of its own was not found: no verdict
 *   -ESRCH    that life of the runtime is over, or ends during the call
 *   -ENOMEM, or the writer's error */
WEFT_API ssize_t weft_leak_check_end(weft_leak_check *check, int64_t wait_ns, weft_writer *w, void *ctx) WEFT_MUST_CHECK;

WEFT_END_DECLS
#endif
