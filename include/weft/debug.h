/* weft/debug.h - looking at a process from inside, and the doctor. */
#ifndef WEFT_DEBUG_H
#define WEFT_DEBUG_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* Writes one page about where everything is now, as text for people, whose form may change: processors and what runs there, fibers by what they wait
 * for and by who made them, threads, the heap and its goal, the longest stops, memory by part, profiles and traces under way. The world is not
 * stopped; lines that follow each other are of different moments. w is called on the caller's own stack and may do anything. For all stacks see
 * weft_stack_write. May block, does not collect. 0, -EINVAL (w NULL), -ESRCH (runtime not running), -ENOMEM, -EAGAIN (no thread), or w's error: then
 * only a part was written. */
WEFT_API int weft_debug_dump(weft_writer *w, void *ctx);

/* ---- for programs ---------------------------------------------------------------------------- */

/* Writes one JSON object about
 *     "info"      the program: version, process, processors and quota, settings
 *     "procs"     processors and what runs on them, queues, threads
 *     "fibers"    fibers by state and by who made them, and those that have waited longest
 *     "heap"      objects, goal, the last 256 collections
 *     "stops"     stops of the world by reason: until all stood still, until all ran again
 *     "memory"    what is resident, by part, and when each part falls
 *     "profiles"  profiles by name, and what is under way: CPU and wall-clock profile, trace, flight recorder
 *     "doctor"    findings: weft_doctor_report
 * in the shapes that share/doc/weft/json.txt shows (and the heads of the files in src/debug that make them). Fields may be added; none changes its
 * meaning. The world is not stopped. A thread of the library's makes it, which costs some hundred microseconds, and beside that "fibers" a tenth of
 * one per fiber, "memory" at most a millisecond per 100 MiB that is resident in small pages. w is called on the caller's own stack and may do
 * anything. May block, does not collect.
 * 0, -EINVAL (what or w NULL), -ENOENT (there is no such `what`), -ESRCH (runtime not running), -ENOMEM, -EAGAIN (no thread), for "memory" what
 * reading /proc/self/maps said, or w's error: then only a part was written. */
WEFT_API int weft_debug_json(const char *what, weft_writer *w, void *ctx);

/* The same for people, as text whose form may change. "memory": weft_memory_explain; "doctor": as text. */
WEFT_API int weft_debug_text(const char *what, weft_writer *w, void *ctx);

/* The text "info", for a log at start: version, processors and what they follow; whether collections mark beside the program, and why not where that was
 * asked for and is not to be had; each setting of weft_config and each key of WEFT_DEBUG that is set. On the terms of weft_debug_text. */
WEFT_API int weft_config_report(weft_writer *w, void *ctx);

/* What there is, by number: the names above. NULL: no more. At any time. */
WEFT_API const char *weft_debug_what(unsigned i);

/* Writes a page, as text for people, whose form may change, that explains the process's resident memory part by part, with a sum that is what the
 * kernel says, and, of each part, when it falls: after a collection resident memory hardly ever falls at once. As weft_debug_json("memory"). */
WEFT_API int weft_memory_explain(weft_writer *w, void *ctx);

/* ---- the doctor ---------------------------------------------------------------------------------- */

/* Looks for misuse of the runtime while the program runs. What it sees is coalesced by code and place into findings, each of which is told once: to
 * weft_config.finding or else the log, and to traces that are under way (a user log, category "weft.doctor"). On by default. WEFT_DEBUG=doctor=MODE
 * sets the mode of all codes, w04=MODE that of one, and so does weft_config.doctor ("count,w04=abort"):
 *   off      not looked for, at no cost
 *   count    counted, and in weft_doctor_report, but not told
 *   report   told, each finding once: the default
 *   abort    told, and then the program ends
 * WEFT_DEBUG=slowfiber=N: W15 tells of each fiber, too, that computes for N ms without a wait or a yield. slowstop=N: W16 from stops on that wait
 * N ms for a thread, or take ten times as long; by default 100, and 0: of none.
 * While nothing suspicious happens the doctor has no thread and no memory. */
enum {
    WEFT_W01 = 1, /* a finalizer's context keeps its own object alive */
    WEFT_W02,     /* a finalizer is the way to close what is scarce */
    WEFT_W03,     /* fibers end locked to their threads, which end with them */
    WEFT_W04,     /* weft_gc is called again and again */
    WEFT_W05,     /* an object was collected while its memory was in use */
    WEFT_W06,     /* statistics that stop the world are polled */
    WEFT_W07,     /* a CPU profile is not stopped */
    WEFT_W08,     /* leaks are told from the number of fibers, or by a baseline from before the runtime runs */
    WEFT_W09,     /* a second trace was refused, and that was ignored */
    WEFT_W10,     /* recording waits or contentions takes much of the time */
    WEFT_W11,     /* a dump was cut by a small buffer */
    WEFT_W12,     /* more processors than the quota pays for */
    WEFT_W13,     /* memory is expected to go back to the system by a collection */
    WEFT_W14,     /* profiles were to be served to everybody */
    WEFT_W15,     /* a fiber held a processor for too long */
    WEFT_W16,     /* a stop of the world took too long */
    WEFT_W17,     /* a fiber waited while it held a lock that must not be held then */
    WEFT_W18,     /* the address of a thread-local variable was kept while the fiber changed its thread */
    WEFT_DOCTOR_CODES
};

/* The strings are there during the call, and never NULL. */
typedef struct weft_finding {
    size_t size;          /* sizeof(weft_finding) of the library */
    int code;             /* WEFT_W.. */
    const char *what;     /* a sentence with its numbers */
    const char *cure;     /* one that says what to do */
    const char *stack;    /* of the offending call: a line "function at file.c:12" per frame, innermost first; "" if there is none */
    const char *made;     /* the same of what made the fiber, object, ... it is about; "" */
    uint64_t count;       /* so often seen till now */
    int64_t first, last;  /* weft_now() of the first and the last time */
} weft_finding;

/* Writes all findings, as text for people or as JSON:
 *   {"modes":{"w01":"report",...},"counts":{"w01":0,...},"lost":0,"now_ns":3,"findings":[{"code":"W04","mode":"report","title":"...","what":"...",
 *    "cure":"...","stack":[{"function":"f","file":"/x/a.c","line":12},...],"made":[...],"fiber":7,"count":3,"first_ns":1,"last_ns":2},...]}
 * fiber: the id of the one that did it; 0: none. lost: sightings that no finding stands for, as there was no more room. Times are of weft_now(). file
 * is "" and line 0 where they are not known.
 * May block, may move. 0, -EINVAL (w NULL, form unknown), -ESRCH (the runtime does not run), -ENOMEM, -EAGAIN (no thread), or w's error. */
enum { WEFT_FORM_TEXT, WEFT_FORM_JSON };
WEFT_API int weft_doctor_report(weft_writer *w, void *ctx, int form);

/* How often that has been seen since the start of the runtime, all findings with this code together; 0 for what is no code. After the end it is what
 * it was then. Anybody, at any time. */
WEFT_API uint64_t weft_doctor_count(int code);

/* Waits until all that was seen before the call has been told. The end of the runtime does so, too. May block, may move.
 * 0, -ESRCH (the runtime does not run), -EAGAIN (no thread to tell it), -ENOMEM, -EDEADLK (called by weft_config.finding). */
WEFT_API int weft_doctor_flush(void);

/* For libraries on top of weft: what was seen at the caller's place. what: the finding's sentence, copied up to 255 bytes, without the full stop; title
 * and cure are the code's. Does not block.
 * 0 (also where that code is off), -EINVAL (no code, what NULL), -ESRCH (the runtime does not run). */
WEFT_API int weft_doctor_note(int code, const char *what);

/* ---- what the doctor is told by the program ----------------------------------------------------------- */

/* A lock of the program's own, such as a pthread_mutex_t, belongs to a thread: a fiber that waits while it holds one may go on elsewhere, and others
 * that want it stand still with their threads. Who has taken one says so, and that he is about to give it back; if the fiber waits, yields or ends
 * in between, that is W17, with the stack of the wait and of the call that said so. name: for people; stays as it is. A recursive lock may be held
 * several times. For functions that wrap the lock:
 *
 *     static void cache_lock(void) { pthread_mutex_lock(&cache.m); weft_lock_held(&cache.m, "cache"); }
 *     static void cache_unlock(void) { weft_lock_released(&cache.m); pthread_mutex_unlock(&cache.m); }
 *
 * Up to 128 at a time are looked at. 70 ns for the two; from the first call on each wait of any fiber costs some nanoseconds more. With W17 off, or while
 * the runtime does not run, or on a thread of the host, nothing happens. Neither blocks. (weft_mutex and the like are the fiber's: they may be
 * held.) */
WEFT_API void weft_lock_held(const void *lock, const char *name);
WEFT_API void weft_lock_released(const void *lock);

/* Checks an address that may be one of a thread-local variable (errno's, say), where it is used: -EXDEV, and W18, if it is another thread's. So the
 * fiber has kept it over a call that may move. For variables of the program and the libraries that it started with, on threads that fibers run on or
 * that are attached. WEFT_DEBUG=migrate=1 makes each wait change the thread.
 * 0: the caller's own, or none that is known; -EXDEV; -ESRCH (the runtime does not run). Does not block. */
WEFT_API int weft_tls_check(const void *address);

/* ---- the heap's objects ------------------------------------------------------------------------ */

/* Writes why the object that obj points to, or into, is alive: a way from a root to it, object by object, with types where they are known
 * (WEFT_TYPE, weft_type_name), the offset of each word, and the place that allocated it where it was sampled for the heap profile. What was
 * declared as a root comes before what is read conservatively; the shortest way of that kind; the caller's own stack, where obj lies after all, last.
 * Runs a collection, whose stop takes about half as long again; what is found is of then. Blocks, may move. JSON: see share/doc/weft/json.txt.
 * 0, -EINVAL (w NULL, form unknown), -ENOENT (obj is not in a live object), -ESRCH (runtime not running), -ENOMEM, -EAGAIN (no thread), -E2BIG (more
 * than two thousand million objects or references), or w's error. */
WEFT_API int weft_why_alive(const void *obj, weft_writer *w, void *ctx, int form);

/* Writes what the heap is made of, as JSON (see share/doc/weft/json.txt): objects and bytes by type, by size, by place that allocated them (from
 * samples), by kind of root; and which objects keep most of it. Terms and errors of weft_why_alive. Takes some 60 bytes of memory for each object
 * and 8 for each reference while it works. */
WEFT_API int weft_heap_dump(weft_writer *w, void *ctx);

WEFT_END_DECLS
#endif
