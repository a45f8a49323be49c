/* weft/prof.h - labels of fibers and profiles that `go tool pprof` opens.
 *
 * Contracts: Go's packages runtime/pprof and runtime (SetCPUProfileRate). */
#ifndef WEFT_PROF_H
#define WEFT_PROF_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- labels ------------------------------------------------------------------------------------ */

/* Two texts that say what a fiber is working for, such as "tenant" and "acme". Samples that profiles take of it, and its part of a trace, carry
 * them. A fiber starts with those of the fiber that made it, at no cost but a count. Of two with the same key the later one counts. */
typedef struct weft_label { const char *key, *value; } weft_label;
#define WEFT_LABELS_MAX 32 /* of a fiber at a time */

/* The calling fiber (or thread of the host) has these labels and no others; n 0: none. The texts are copied. (Go: SetGoroutineLabels)
 * 0, -EINVAL (a text is NULL, a key empty, or there are more than WEFT_LABELS_MAX), -ENOMEM (it has those it had), -ESRCH (runtime not running). */
WEFT_API int weft_set_labels(const weft_label *labels, size_t n);

/* Runs fn(arg) with these labels beside those that the caller has, which it has again afterwards, whatever fn does to them. They also end if the
 * fiber does in fn (weft_exit). If fn is left by longjmp or an exception they stay, until the fiber calls this again or ends. (Go: Do)
 * fn has run: 0. It has not: -EINVAL (as above; fn NULL; together more than WEFT_LABELS_MAX), -ENOMEM, -ESRCH. */
WEFT_API int weft_with_labels(const weft_label *labels, size_t n, weft_fn *fn, void *arg) WEFT_MUST_CHECK;

/* The caller's label of that key; NULL: none (or the runtime does not run). Good until its labels change. (Go: Label) */
WEFT_API const char *weft_label_get(const char *key);

/* ---- profiles by name -------------------------------------------------------------------------------- */

/* What was counted, by stack. Built in are, by these names (those of Go, so that tools know them):
 *     heap           what was allocated and what is in use, as the last collection found it; before the first one, all that was allocated
 *     allocs         the same, but that tools show first what was allocated
 *     block          where fibers waited, on channels, locks and the like: weft_set_block_profile_rate
 *     mutex          who made others wait, by holding a lock: weft_set_mutex_profile_fraction
 *     goroutine      all fibers but the runtime's own, as they are ("fiber" is a name for it, too); with debug 2 all stacks, as weft_stack_write
 *     goroutineleak  those of them that wait for ever ("leak"): see below
 *     threadcreate   the runtime's threads, by who made it make them
 * A program adds its own: connections that are open, by who opened them. Stacks begin with the call into weft, without the frames of the runtime
 * inside of it. A profile is never destroyed. */
typedef struct weft_profile weft_profile;

/* An empty one of the program's own, that things are added to and removed from; its name is copied. No spaces, for the sake of tools. At any time,
 * also before the runtime starts. (Go: NewProfile)
 * 0, -EINVAL (name NULL or empty, or out NULL), -EEXIST (there is one of that name), -ENOMEM. */
WEFT_API int weft_profile_new(const char *name, weft_profile **out) WEFT_MUST_CHECK;

/* NULL: there is none of that name. At any time. */
WEFT_API weft_profile *weft_profile_lookup(const char *name);

/* All of them, by name: as many as there is room for. Returns how many there are. At any time. */
WEFT_API size_t weft_profiles(weft_profile **out, size_t room);

/* Adds a thing to a profile of the program's own, with the stack of the caller, or, without its skip innermost functions, of who called it. A thing
 * is known by its address, which is all that is kept: nothing stays alive because of it. (Go: Add)
 * 0, -EEXIST (it is in there; nothing has changed), -EINVAL (p NULL, skip negative), -EPERM (p is built in), -ENOMEM, -ESRCH (runtime not running). */
WEFT_API int weft_profile_add(weft_profile *p, const void *thing, int skip);
/* Takes it out again, if it is there. At any time. 0, -EINVAL (p NULL), -EPERM (p is built in). */
WEFT_API int weft_profile_remove(weft_profile *p, const void *thing);

/* How many things are in it; of block and mutex, different stacks; of heap and allocs, different stacks and sizes; of goroutineleak, what the last look
 * found. Does not block. -EINVAL (p NULL), -ESRCH (runtime not running; not for a profile of the program's own). */
WEFT_API int64_t weft_profile_count(weft_profile *p);
WEFT_API const char *weft_profile_name(const weft_profile *p);

/* Writes it, as of now, to w, which is called on the caller's own stack and may do anything. debug:
 *     0          a gzip file for `go tool pprof`, complete in itself
 *     1          text, with functions and lines
 *     2 or more  the same as 1, unless the profile has more to say
 *     below 0    as Go does: for heap and allocs the same as 1, else as 0
 * The world is not stopped, but for a moment by the numbers at the end of heap and allocs as text, and by the collection of goroutineleak. May block.
 * Ends in between if the runtime does, where the caller is a fiber.
 * 0, -EINVAL (p or w NULL), -ESRCH (runtime not running), -ENOMEM, -EAGAIN (no thread), or w's error: then only a part was written. */
WEFT_API int weft_profile_write(weft_profile *p, weft_writer *w, void *ctx, int debug);

/* What happens in a profile between two moments: begin takes the numbers as they are, end takes them again, writes what has changed as with debug 0
 * (with the duration; numbers may be negative), and frees d, whatever it returns. w NULL: only frees. (Go: /debug/pprof/NAME?seconds=N)
 * As weft_profile_write; begin also -ENOTSUP: a profile of the program's own. */
typedef struct weft_profile_delta weft_profile_delta;
WEFT_API int weft_profile_delta_begin(weft_profile *p, weft_profile_delta **out) WEFT_MUST_CHECK;
WEFT_API int weft_profile_delta_end(weft_profile_delta *d, weft_writer *w, void *ctx);

/* The functions that addresses of code lie in: for each that is known a line "0x4015d0 name" is written to w, which is called on the caller's own stack and
 * may do anything. For viewers that ask a process for names (Go: /debug/pprof/symbol). Waits for the disk. 0, -EINVAL (w or pc NULL), -ESRCH (runtime
 * not running), -ENOMEM, -EAGAIN (no thread), or w's error. */
WEFT_API int weft_symbols_write(const uint64_t *pc, size_t n, weft_writer *w, void *ctx);

/* ---- leaks --------------------------------------------------------------------------------------------------- */

/* The profile "goroutineleak" shows fibers that wait for what nobody can do any more: a channel, a case of a select, or an object in which a mutex,
 * read-write lock, condition, wait group or semaphore lies, which can be reached only from the stacks of fibers that wait like that, or a nil channel.
 * (Not the main fiber in a select without cases: so does a main function that has started all else.)
 * To write it, or a dump of it (debug 2: of all fibers, in which these say "(leaked)", as they do in later dumps), runs a collection that finds them:
 * it stops the world like any other. weft_profile_count tells how many the last one found.
 *
 * Who is shown has leaked, on one condition: that the collector sees all pointers to what is waited for but those of the fibers that wait. It does not
 * look into memory of malloc, nor at the stacks of threads that are not attached: what only they know, and are to wake somebody by, needs a handle
 * (weft_handle_new) or a root (weft_root_add). Not everybody who has leaked is shown: not who has a deadline, is locked to its thread, waits for
 * something outside of the heap (a global mutex, a wait group on a stack), or for what somebody could still reach, be it by a pointer that he will never
 * use. What is shown stays as it is: the fiber, and what it holds, is not freed. (Go: goroutineleak) */

/* ---- waits and contentions ------------------------------------------------------------------------------ */

/* Fills the block profile: the time that fibers (and threads of the host) wait on channels, in select, on mutexes, read-write locks, wait groups,
 * conditions and semaphores, until they run again, by the stack that waits. Not in sleep, nor for descriptors. ns <= 0: off, as it is at the start; 1:
 * every wait; else waits of ns and longer, and of shorter ones so many that sums are right on average. The profile keeps what it has until the
 * runtime ends. May block. 0, -ENOMEM, -EAGAIN (no thread), -ENOSPC (too many listeners at probes), -ESRCH (runtime not running).
 * (Go: SetBlockProfileRate) */
WEFT_API int weft_set_block_profile_rate(int64_t ns);

/* Fills the mutex profile: how long others waited for a mutex or read-write lock, by the stack that unlocked it then. One in n such unlocks is taken;
 * 0: none, as it is at the start. n < 0: changes nothing. Returns the old n, or as above. (Go: SetMutexProfileFraction) */
WEFT_API int weft_set_mutex_profile_fraction(int n);

/* The same with a limit on what it may cost instead of a rate: so many percent of the processor time that the process uses (0.5, say). So many waits
 * (unlocks) are taken as that allows, from moment to moment, drawn at random whatever their length, each counting for as many as it stands for: sums
 * are right on average. What the others cost, three nanoseconds for drawing, is not counted. percent <= 0: off. A later call of the functions above
 * ends it. As above; also -EINVAL (more than 100). */
WEFT_API int weft_set_block_profile_budget(double percent);
WEFT_API int weft_set_mutex_profile_budget(double percent);

/* ---- heap -------------------------------------------------------------------------------------- */

/* The profiles "heap" and "allocs" are made from samples: on average one per so many bytes allocated, 524288 unless set otherwise (here, by
 * weft_config.mem_profile_rate, or WEFT_DEBUG=memprofilerate=N); 1: every allocation; 0: none. What is written is scaled to an estimate of all, by
 * the rate of then: so set it once, early. Allocations that a processor has prepared (8 KiB of each size at most) still go by the old rate, until
 * the next collection. bytes < 0: changes nothing. Returns the rate before, or -ESRCH (runtime not running). (Go: MemProfileRate)
 * Until somebody has set a rate, in one of these ways, or written a profile of the heap, stacks are walked by frame pointers: in a program built
 * without them only the function that allocates is certain. May block for a few milliseconds, the first time. */
WEFT_API int64_t weft_set_mem_profile_rate(int64_t bytes);

/* ---- CPU profile ------------------------------------------------------------------------------- */

/* Why a profile was closed that nobody stopped. */
enum { WEFT_PROFILE_BYTES = 1, WEFT_PROFILE_TIME, WEFT_PROFILE_ERROR };
/* Told once, on a thread of the library's with the host's descriptors, which may do anything but call weft. err: the writer's, with _ERROR; else 0. */
typedef void weft_profile_closed(void *arg, int why, int err);

typedef struct weft_cpu_profile_opts {
    size_t size;               /* sizeof(weft_cpu_profile_opts) */
    int hz;                    /* samples per second of CPU time; 0: 100; at most 10000 */
    int flush_ms;              /* a piece is written that often; 0: 1000 */
    int64_t max_bytes;         /* of the file: it is closed before it has more; 0: 64 MiB; at least 64 KiB */
    int64_t max_ns;            /* how long it runs; 0: an hour */
    bool unlimited;            /* neither of the two: who asks for that stops it himself */
    weft_profile_closed *closed; /* when a limit was reached or the writer failed; NULL: a line goes to the log */
    void *closed_arg;
} weft_cpu_profile_opts;
#define WEFT_CPU_PROFILE_OPTS_INIT { sizeof(weft_cpu_profile_opts), 0, 0, 0, 0, 0, 0, 0 }

/* Where CPU time goes: each thread that the runtime has or that is attached to it is interrupted (SIGPROF) when it has used so much of it, and its stack
 * and the labels of its fiber are noted. The runtime's own work stands under runtime.gc, runtime.sched and runtime.profiler; what could not be noted
 * for want of room is counted as runtime.lostSamples.
 * The file grows by a piece at each flush, and is a complete profile for `go tool pprof` after every one: whoever is killed leaves what was written.
 * (Each piece is a gzip member. Viewers that read the first member only, as speedscope does, want it through zcat.)
 * w is called on a thread of the library's with the host's descriptors, once per piece; it may block (then samples are kept, some MiB of them), and may
 * do anything but call weft. ctx is a root. One profile at a time; it ends by weft_cpu_profile_stop, at a limit, when the writer fails, when the
 * runtime ends or the process does by exit(3); what there is is written then. In the child of a fork there is none.
 * A handler that the host has for SIGPROF goes on to get its own signals, and no others. Of a thread that blocks SIGPROF the
 * time is told, under runtime.unknown, and no stacks. System calls that the kernel never restarts may return EINTR (signal(7)), but not while they wait.
 * opts may be NULL. May block. 0, -EALREADY (one runs; or `closed` was called just now, and weft_cpu_profile_stop waits till it has ended), -EINVAL
 * (w NULL, a field out of range), -ESRCH (runtime not running), -ENOMEM, -EAGAIN (no thread), -ENOSPC (too many listen to the runtime).
 * (Go: StartCPUProfile) */
WEFT_API int weft_cpu_profile_start(weft_writer *w, void *ctx, const weft_cpu_profile_opts *opts) WEFT_MUST_CHECK;
/* The same into a file, made or truncated; closed at the end. Also what open(2) says. */
WEFT_API int weft_cpu_profile_start_file(const char *path, const weft_cpu_profile_opts *opts) WEFT_MUST_CHECK;
/* Writes the rest and ends it. Waits for the writer. 0 also if it was closed before, at a limit; -ESRCH: none was started, or it was stopped; or the
 * first error of the writer (of close(2)). (Go: StopCPUProfile) */
WEFT_API int weft_cpu_profile_stop(void);

/* ---- wall-clock profile ------------------------------------------------------------------------ */

typedef struct weft_wall_profile_opts {
    size_t size;               /* sizeof(weft_wall_profile_opts) */
    int hz;                    /* looks per second; 0: 10; at most 1000 */
    int fibers_max;            /* fibers that wait of which a look takes the stack, drawn at random; 0: 512; at most 65536 */
    int flush_ms;              /* this and the rest as in weft_cpu_profile_opts */
    int64_t max_bytes, max_ns;
    bool unlimited;
    weft_profile_closed *closed;
    void *closed_arg;
} weft_wall_profile_opts;
#define WEFT_WALL_PROFILE_OPTS_INIT { sizeof(weft_wall_profile_opts), 0, 0, 0, 0, 0, 0, 0, 0 }

/* Where the time of fibers goes, whether they run or wait: all of them are looked at hz times a second, and each sample has the label "state", which is
 * "running", "runnable", "syscall", or what it waits for, in the words of dumps ("chan receive", "sleep", "IO wait"). The sum is fibers times
 * seconds. The world is not stopped, and the cost does not grow with the number of fibers: of many, some are drawn, each standing for others. Of a
 * fiber that runs, the thread is interrupted (SIGPROF): a system call that the kernel never restarts may return EINTR then, once for each time that it
 * is made.
 * One at a time, beside a CPU profile. All else, results included, as with weft_cpu_profile_start. */
WEFT_API int weft_wall_profile_start(weft_writer *w, void *ctx, const weft_wall_profile_opts *opts) WEFT_MUST_CHECK;
WEFT_API int weft_wall_profile_start_file(const char *path, const weft_wall_profile_opts *opts) WEFT_MUST_CHECK;
WEFT_API int weft_wall_profile_stop(void);

WEFT_END_DECLS
#endif
