/* Where everything is now: the numbers of which weft_debug_dump makes a page and weft_debug_json documents. See look.c. */
#ifndef WEFT_DEBUG_LOOK_H
#define WEFT_DEBUG_LOOK_H

#include "gc/stats.h"
#include "prof/roster.h"
#include "prof/sampler.h"
#include "prof/symbols.h"
#include "prof/text.h"
#include <weft/mem.h>
#include <weft/metrics.h>
#include <weft/trace.h>

/* Metrics that are shown. To add one: a line. */
#define LOOK_NUMBERS(X)                                                 \
    X(FIBERS, "/sched/goroutines:goroutines")                           \
    X(RUNNING, "/sched/goroutines/running:goroutines")                  \
    X(RUNNABLE, "/sched/goroutines/runnable:goroutines")                \
    X(WAITING, "/sched/goroutines/waiting:goroutines")                  \
    X(NOT_IN, "/sched/goroutines/not-in-go:goroutines")                 \
    X(MADE, "/sched/goroutines-created:goroutines")                     \
    X(THREADS, "/sched/threads/total:threads")                          \
    X(THREADS_MADE, "/weft/sched/threads/created:threads")              \
    X(THREADS_ENDED, "/weft/sched/threads/ended:threads")               \
    X(HANDOFFS, "/weft/sched/hand-offs:processors")                     \
    X(DESCRIPTORS, "/weft/io/descriptors:descriptors")                  \
    X(CYCLES, "/gc/cycles/total:gc-cycles")                             \
    X(FORCED, "/gc/cycles/forced:gc-cycles")                            \
    X(GOAL, "/gc/heap/goal:bytes")                                      \
    X(LIVE, "/gc/heap/live:bytes")                                      \
    X(OBJECTS, "/gc/heap/objects:objects")                              \
    X(ALLOC_BYTES, "/gc/heap/allocs:bytes")                             \
    X(ALLOC_OBJECTS, "/gc/heap/allocs:objects")                         \
    X(FREE_BYTES, "/gc/heap/frees:bytes")                               \
    X(FREE_OBJECTS, "/gc/heap/frees:objects")                           \
    X(PERCENT, "/gc/gogc:percent")                                      \
    X(LIMIT, "/gc/gomemlimit:bytes")                                    \
    X(FINALIZERS, "/gc/finalizers/queued:finalizers")                   \
    X(FINALIZED, "/gc/finalizers/executed:finalizers")                  \
    X(CLEANUPS, "/gc/cleanups/queued:cleanups")                         \
    X(CLEANED, "/gc/cleanups/executed:cleanups")                        \
    X(MEM_TOTAL, "/memory/classes/total:bytes")                         \
    X(MEM_OBJECTS, "/memory/classes/heap/objects:bytes")                \
    X(MEM_UNUSED, "/memory/classes/heap/unused:bytes")                  \
    X(MEM_FREE, "/memory/classes/heap/free:bytes")                      \
    X(MEM_RELEASED, "/memory/classes/heap/released:bytes")              \
    X(MEM_STACKS, "/memory/classes/heap/stacks:bytes")                  \
    X(MEM_THREADS, "/memory/classes/os-stacks:bytes")                   \
    X(MEM_GC, "/memory/classes/metadata/other:bytes")                   \
    X(MEM_PROF, "/memory/classes/profiling/buckets:bytes")              \
    X(MEM_TRACE, "/weft/memory/off-heap/trace:bytes")                   \
    X(MEM_OTHER, "/memory/classes/other:bytes")

enum look_number {
#define X(id, name) id,
    LOOK_NUMBERS(X)
#undef X
    LOOK_NUMBER_COUNT
};

#define LOOK_THREADS 256u
#define LOOK_PROFILES 64u
#define LOOK_WAITS 200u
#define LOOK_SITE 320u

struct look_fiber { uint64_t id; const void *site; bool system; char name[ROSTER_NAME]; }; /* id 0: none */
struct look_proc { uint32_t id, queued, timers, steps, machine; bool runs; struct look_fiber fiber; };
struct look_thread { uint32_t id; int tid; const char *does; struct look_fiber fiber; bool foreign, locked; };
struct look_profile { const char *name; int64_t count; bool own; };
/* Fibers of one place and state: state is a text that is there once. */
struct look_group { const void *site; const char *state; uint64_t n; };

/* What is wanted besides the metrics. */
enum {
    LOOK_SCHED = 1,      /* proc, thread */
    LOOK_FIBERS = 2,     /* r.rec: all of them; group, wait: costs something per fiber */
    LOOK_WATCHING = 4,   /* profiles, traces */
    LOOK_HEAP = 8,       /* counts, history, scavenged */
    LOOK_INFO = 16,      /* quota */
    LOOK_STOPS = 32,     /* stop */
};

struct look {
    struct roster r;     /* memory, symbols, and with LOOK_FIBERS the fibers */
    unsigned wants;
    weft_metric number[LOOK_NUMBER_COUNT];
    int64_t wall_ns, now_ns, up_ns;
    int64_t collected_ago_ns;        /* negative: never */
    uint32_t nprocs;
    /* LOOK_SCHED */
    struct look_proc *proc;
    struct look_thread *thread;
    uint32_t procs, threads, threads_all, global_queue;
    uint64_t latencies[TIMEHIST_BUCKETS];
    /* LOOK_FIBERS */
    struct look_group *group;        /* by place, then state */
    uint32_t groups;
    uint64_t fibers, waiting;        /* in r.rec, without threads; those of them that wait */
    struct rec *wait[LOOK_WAITS];    /* the longest first */
    uint32_t waits;
    /* LOOK_WATCHING */
    struct look_profile profile[LOOK_PROFILES];
    size_t profiles;
    int64_t heap_rate, block_ns, mutex_fraction;
    bool cpu_on, wall_on, flight_on;
    struct sampler_state cpu, wall;
    unsigned trace_writers;
    bool tracing;
    int64_t flight_age_ns;
    uint64_t flight_bytes;
    weft_flight_stats flight;
    /* LOOK_HEAP */
    struct heap_counts counts;
    struct heap_cycle history[STATS_CYCLES];
    unsigned cycles;
    struct gc_scavenge_stats scavenged;
    double cpu_fraction;
    /* LOOK_INFO */
    double quota;                    /* CPUs; 0: none */
    uint64_t throttled;
    double throttled_s;
    bool follows;
    /* LOOK_STOPS */
    weft_stop_stats stop[WEFT_STOP_REASONS];
    uint64_t stopping[WEFT_STOP_REASONS][TIMEHIST_BUCKETS], stopped[WEFT_STOP_REASONS][TIMEHIST_BUCKETS];
    /* the helper's */
    void (*look)(struct look *l);    /* while the runtime cannot end; NULL: nothing */
    void (*make)(struct look *l);    /* then, where names may be asked for */
    void *arg;                       /* theirs */
    struct text text;
    struct look_name { const void *site; char *name; } *names;
    uint32_t nnames, names_room;
    struct symbol scratch[SYMBOLS_INLINED_MAX];
};

static inline uint64_t look_num(const struct look *l, enum look_number i) { return l->number[i].u64; }

/* From user code; may block: looks, has make write l->text on a helper, and hands that to w in user code. 0, -EINVAL (w NULL), -ESRCH, -ENOMEM,
 * -EAGAIN, l->r.err as look has set it, or w's error. */
int look_run(unsigned wants, void (*look)(struct look *l), void (*make)(struct look *l), void *arg, weft_writer *w, void *ctx);

/* In make: "function at file.c:12", or the address; "" for NULL. Stays. */
const char *look_site(struct look *l, const void *site);
/* Function, and file and line if they are known; false: it is not. */
bool look_symbol(struct look *l, const void *site, struct symbol *out);

/* The groups with the same place, or state, as one; n: of groups, most first. In l's memory. NULL: none, or no memory. */
struct look_group *look_by_site(struct look *l, uint32_t *n);
struct look_group *look_by_state(struct look *l, uint32_t *n);
void look_sort(struct look_group *g, uint32_t n); /* most first */

/* Upper end of the bucket in which the q-quantile (0..1) lies, but no more than most; 0: nothing was counted. */
uint64_t look_quantile(const uint64_t counts[TIMEHIST_BUCKETS], double q, uint64_t most);
uint64_t look_sum(const uint64_t counts[TIMEHIST_BUCKETS]);

#endif
