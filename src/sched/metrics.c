/* Figures by name: weft_metrics_read.
 *
 * A read goes over its samples three times: finds each name in the table and what is needed for it; collects that, group by group, into a struct
 * snapshot; hands out the values. Groups are collected once per read however many samples want them, which is what makes values of one group belong
 * together, and those that nobody asked for cost nothing.
 *
 * Nothing is stopped. Counters are written by their owners, processor by processor, and summed here, relaxed. What holds between them at any time,
 * and why, is said where they are written: objects and bytes at [COUNT] (gc/cache.h), pages in use at stats_memory, fibers at fibers_count. The
 * reader is inside the runtime, so no stop takes place meanwhile: processors, caches and their lists stay. */
#include <weft/metrics.h>
#include "base/offheap.h"
#include "gc/conc.h"
#include "gc/stats.h"
#include "sched/fd.h"
#include "sched/machine.h"
#include "sched/maxprocs.h"
#include "sched/mutator.h"
#include "sched/report.h"
#include "sched/runq.h"
#include "sched/sched.h"
#include "sched/world.h"
#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- what is collected -------------------------------------------------------------------------------- */

enum {
    NOTHING = 0,
    BYTES = 1,    /* of objects */
    MEMORY = 2,   /* the memory map; brings BYTES */
    CYCLES = 4,   /* and CPU time, as of the end of the last one */
    PACE = 8,
    CALLS = 16,   /* of finalizers and cleanups */
    FIBERS = 32,
    STATES = 64,  /* what fibers are doing; brings FIBERS */
    REST = 128,   /* what is at hand */
    OBJECTS = 256, /* their numbers, by size; brings BYTES */
    GROUP = 512,  /* of the process: reads a file */
    DOCTOR = 1024, /* what a higher layer has found */
};

struct snapshot {
    uint64_t zero;
    struct heap_counts n;
    struct { uint64_t mallocs, frees, bytes, objects; } heap;
    struct {
        uint64_t heap_free, heap_objects, heap_released, heap_stacks, heap_unused, mcache_free, mcache_inuse, mspan_free, mspan_inuse,
            other_gc, os_stacks, other, buckets, total;
    } mem;
    struct { uint64_t automatic, forced, total, stack_bytes; } cycles;
    struct conc_stats beside;
    struct { double mark[GC_CPU_KINDS], pause, gc, idle, scav_assist, scav_background, scav, total, user; } cpu;
    struct { uint64_t percent, limit, goal, live, globals, heap, stacks, total; } pace;
    struct { uint64_t queued, executed; } calls[GC_CALLS]; /* finalizers and cleanups */
    struct { uint64_t made, alive; } fibers;
    struct { uint64_t not_in, runnable, running, waiting; } states;
    struct { uint64_t throttled; double seconds; } group;
    struct { uint64_t n[SCHED_FINDINGS]; } found;
    struct {
        uint64_t capped, procs, stack_bytes, threads, threads_made, threads_ended, handoffs, descriptors, waiting, off[OFF_PURPOSES];
        double blocked, lock_waited;
    } rest;
};

typedef void fill_fn(const struct snapshot *s, unsigned arg, uint64_t *counts);
static fill_fn fill_mallocs, fill_frees, fill_latencies, fill_stopping, fill_stopped, fill_stopping_other, fill_stopped_other;

/* ---- the table ------------------------------------------------------------------------------------------ */

/* To add a metric: a line here, in the order of names (bytes of ASCII; tests/metrics_names.c checks it). Name; kind: U64, F64, TIMES or SIZES,
 * histograms; whether cumulative; the group it comes from; AT(field of struct snapshot) or FILL(function, argument); what it says.
 * A name is a path of lower-case words and, after a colon, the unit. It never changes its meaning, kind or unit: what means something else gets
 * another name. Ours begin with /weft/. What Go has is called and counted as in Go. A figure that is not counted yet is counted where it happens, by
 * one writer, and summed in its group's function below. */
#define FOUND(X, nn, code) \
    X("/weft/doctor/findings/w" nn ":findings", U64, true, DOCTOR, AT(found.n[code]), \
      "How often the doctor has seen a misuse of this kind since the start of the runtime (weft_doctor_count).")
#define METRICS(X) \
    X("/cpu/classes/gc/mark/assist:cpu-seconds", F64, true, CYCLES, AT(cpu.mark[GC_CPU_ASSIST]), \
      "CPU time that allocating fibers spent marking beside the program. What is marked in stops is part of gc/pause.") \
    X("/cpu/classes/gc/mark/dedicated:cpu-seconds", F64, true, CYCLES, AT(cpu.mark[GC_CPU_DEDICATED]), \
      "CPU time of the collector's own fibers, and of who waits for a collection, marking beside the program.") \
    X("/cpu/classes/gc/mark/idle:cpu-seconds", F64, true, CYCLES, AT(cpu.mark[GC_CPU_IDLE]), \
      "CPU time of marking on processors that had nothing else to do.") \
    X("/cpu/classes/gc/pause:cpu-seconds", F64, true, CYCLES, AT(cpu.pause), \
      "Time for which the program stood still for the collector, times the number of processors. As of the end of the last cycle, as all of " \
      "/cpu/classes.") \
    X("/cpu/classes/gc/total:cpu-seconds", F64, true, CYCLES, AT(cpu.gc), \
      "CPU time of collecting: the sum of all of /cpu/classes/gc.") \
    X("/cpu/classes/idle:cpu-seconds", F64, true, CYCLES, AT(cpu.idle), \
      "Available CPU time that was not used.") \
    X("/cpu/classes/scavenge/assist:cpu-seconds", F64, true, CYCLES, AT(cpu.scav_assist), \
      "CPU time of giving memory back to the system at once, under pressure of the memory limit.") \
    X("/cpu/classes/scavenge/background:cpu-seconds", F64, true, CYCLES, AT(cpu.scav_background), \
      "CPU time of giving memory back to the system in the background.") \
    X("/cpu/classes/scavenge/total:cpu-seconds", F64, true, CYCLES, AT(cpu.scav), \
      "CPU time of giving memory back to the system: the sum of all of /cpu/classes/scavenge.") \
    X("/cpu/classes/total:cpu-seconds", F64, true, CYCLES, AT(cpu.total), \
      "Available CPU time: the number of processors over the time since the start.") \
    X("/cpu/classes/user:cpu-seconds", F64, true, CYCLES, AT(cpu.user), \
      "The rest: CPU time of the program's own code, and of what of the runtime is counted nowhere else. Without fibers that go on after their " \
      "processor was taken.") \
    X("/gc/cleanups/executed:cleanups", U64, true, CALLS, AT(calls[GC_CLEANUP].executed), \
      "Cleanups that have run.") \
    X("/gc/cleanups/queued:cleanups", U64, true, CALLS, AT(calls[GC_CLEANUP].queued), \
      "Cleanups that became due.") \
    X("/gc/cycles/automatic:gc-cycles", U64, true, CYCLES, AT(cycles.automatic), \
      "Finished cycles that nobody asked for.") \
    X("/gc/cycles/forced:gc-cycles", U64, true, CYCLES, AT(cycles.forced), \
      "Finished cycles that the program asked for.") \
    X("/gc/cycles/total:gc-cycles", U64, true, CYCLES, AT(cycles.total), \
      "All finished cycles.") \
    X("/gc/finalizers/executed:finalizers", U64, true, CALLS, AT(calls[GC_FINALIZER].executed), \
      "Finalizers that have run.") \
    X("/gc/finalizers/queued:finalizers", U64, true, CALLS, AT(calls[GC_FINALIZER].queued), \
      "Finalizers that became due.") \
    X("/gc/gogc:percent", U64, false, PACE, AT(pace.percent), \
      "The heap's growth in percent at which a cycle is due (weft_set_gc_percent). 2^64-1: off.") \
    X("/gc/gomemlimit:bytes", U64, false, PACE, AT(pace.limit), \
      "The memory limit (weft_set_memory_limit). 2^63-1: none.") \
    X("/gc/heap/allocs-by-size:bytes", SIZES, true, OBJECTS, FILL(fill_mallocs, 0), \
      "Objects allocated, by size. The last bucket has the large ones.") \
    X("/gc/heap/allocs:bytes", U64, true, BYTES, AT(heap.mallocs), \
      "Bytes of objects allocated, rounded up to size classes.") \
    X("/gc/heap/allocs:objects", U64, true, OBJECTS, AT(n.malloc_objects), \
      "Objects allocated.") \
    X("/gc/heap/frees-by-size:bytes", SIZES, true, OBJECTS, FILL(fill_frees, 0), \
      "Objects freed by the sweeper, by size. The last bucket has the large ones.") \
    X("/gc/heap/frees:bytes", U64, true, BYTES, AT(heap.frees), \
      "Bytes of objects freed by the sweeper.") \
    X("/gc/heap/frees:objects", U64, true, OBJECTS, AT(n.free_objects), \
      "Objects freed by the sweeper.") \
    X("/gc/heap/goal:bytes", U64, false, PACE, AT(pace.goal), \
      "Heap size at which the next cycle is due. 2^64-1: off.") \
    X("/gc/heap/live:bytes", U64, false, PACE, AT(pace.live), \
      "Bytes of objects that the last cycle found alive.") \
    X("/gc/heap/objects:objects", U64, false, OBJECTS, AT(heap.objects), \
      "Objects that live or are not yet swept.") \
    X("/gc/heap/tiny/allocs:objects", U64, true, NOTHING, AT(zero), \
      "Small objects that share a block with others. 0: in weft none does.") \
    X("/gc/limiter/last-enabled:gc-cycle", U64, false, REST, AT(rest.capped), \
      "The last cycle that brought collecting to the cap on its time, half of all, beyond which the memory limit is let go. 0: none.") \
    X("/gc/pauses:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_GC), \
      "The same as /sched/pauses/total/gc:seconds, under its old name.") \
    X("/gc/scan/globals:bytes", U64, false, PACE, AT(pace.globals), \
      "Bytes of roots in data of modules and elsewhere outside of stacks, as of the last cycle.") \
    X("/gc/scan/heap:bytes", U64, false, PACE, AT(pace.heap), \
      "Bytes of live objects that may hold pointers, as of the last cycle.") \
    X("/gc/scan/stack:bytes", U64, false, PACE, AT(pace.stacks), \
      "Bytes of stacks scanned by the last cycle, thread-local storage included.") \
    X("/gc/scan/total:bytes", U64, false, PACE, AT(pace.total), \
      "The sum of all of /gc/scan.") \
    X("/gc/stack/starting-size:bytes", U64, false, REST, AT(rest.stack_bytes), \
      "Address space of a new fiber's stack, unless chosen otherwise; it does not grow, and is memory only as far as it was touched.") \
    X("/memory/classes/heap/free:bytes", U64, false, MEMORY, AT(mem.heap_free), \
      "Free memory of the heap that was not given back to the system.") \
    X("/memory/classes/heap/objects:bytes", U64, false, BYTES, AT(heap.bytes), \
      "Objects that live or are not yet swept.") \
    X("/memory/classes/heap/released:bytes", U64, false, MEMORY, AT(mem.heap_released), \
      "Free memory of the heap that the system has back, or never gave.") \
    X("/memory/classes/heap/stacks:bytes", U64, false, MEMORY, AT(mem.heap_stacks), \
      "Stacks bound to fibers, at a page each.") \
    X("/memory/classes/heap/unused:bytes", U64, false, MEMORY, AT(mem.heap_unused), \
      "What of the memory set aside for objects has none in it.") \
    X("/memory/classes/metadata/mcache/free:bytes", U64, false, MEMORY, AT(mem.mcache_free), \
      "Memory of processors' caches that is not in use. 0: a cache is made when it is needed.") \
    X("/memory/classes/metadata/mcache/inuse:bytes", U64, false, MEMORY, AT(mem.mcache_inuse), \
      "Processors' caches.") \
    X("/memory/classes/metadata/mspan/free:bytes", U64, false, MEMORY, AT(mem.mspan_free), \
      "Span records that are not in use.") \
    X("/memory/classes/metadata/mspan/inuse:bytes", U64, false, MEMORY, AT(mem.mspan_inuse), \
      "Span records in use.") \
    X("/memory/classes/metadata/other:bytes", U64, false, MEMORY, AT(mem.other_gc), \
      "The rest of the collector's: tables of pages, work lists, finalizers.") \
    X("/memory/classes/os-stacks:bytes", U64, false, MEMORY, AT(mem.os_stacks), \
      "Stacks that no fiber has, at a page each. Stacks of threads are not counted: they are the C library's.") \
    X("/memory/classes/other:bytes", U64, false, MEMORY, AT(mem.other), \
      "The rest of the runtime's: processors, descriptors, timers, queued fibers.") \
    X("/memory/classes/profiling/buckets:bytes", U64, false, MEMORY, AT(mem.buckets), \
      "Tables of the profilers.") \
    X("/memory/classes/total:bytes", U64, false, MEMORY, AT(mem.total), \
      "All that the runtime has mapped: the sum of all of /memory/classes.") \
    X("/sched/gomaxprocs:threads", U64, false, REST, AT(rest.procs), \
      "Processors: how many threads run fibers at the same time (weft_maxprocs).") \
    X("/sched/goroutines-created:goroutines", U64, true, FIBERS, AT(fibers.made), \
      "Fibers ever started, the runtime's own included.") \
    X("/sched/goroutines/not-in-go:goroutines", U64, false, STATES, AT(states.not_in), \
      "Fibers that go on without a processor: between weft_blocking_begin and _end, or in code of their own that blocked or ran for " \
      "long. Approximate.") \
    X("/sched/goroutines/runnable:goroutines", U64, false, STATES, AT(states.runnable), \
      "Fibers that could run and wait for a processor. Approximate.") \
    X("/sched/goroutines/running:goroutines", U64, false, STATES, AT(states.running), \
      "Fibers that run; never more than /sched/gomaxprocs. Approximate.") \
    X("/sched/goroutines/waiting:goroutines", U64, false, STATES, AT(states.waiting), \
      "Fibers that wait for something. Approximate.") \
    X("/sched/goroutines:goroutines", U64, false, FIBERS, AT(fibers.alive), \
      "Fibers that were started and have not ended, the runtime's own included: so it may be more than weft_num_fibers().") \
    X("/sched/latencies:seconds", TIMES, true, NOTHING, FILL(fill_latencies, 0), \
      "How long fibers that could run waited until they did. One in eight is counted.") \
    X("/sched/pauses/stopping/gc:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_GC), \
      "Stops of the world by the collector: from deciding to stop until all stood still.") \
    X("/sched/pauses/stopping/other:seconds", TIMES, true, NOTHING, FILL(fill_stopping_other, 0), \
      "Stops of the world for other reasons: from deciding to stop until all stood still.") \
    X("/sched/pauses/total/gc:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_GC), \
      "Stops of the world by the collector: from deciding to stop until all ran again.") \
    X("/sched/pauses/total/other:seconds", TIMES, true, NOTHING, FILL(fill_stopped_other, 0), \
      "Stops of the world for other reasons: from deciding to stop until all ran again.") \
    X("/sched/threads/total:threads", U64, false, REST, AT(rest.threads), \
      "Threads of the runtime: those that run fibers, the monitor, helpers of the collector. The host's own are not counted.") \
    X("/sync/mutex/wait/total:seconds", F64, true, REST, AT(rest.blocked), \
      "How long fibers were blocked on mutexes and read-write locks, and threads on the runtime's own locks, all together.") \
    X("/weft/cpu/throttled/periods:periods", U64, true, GROUP, AT(group.throttled), \
      "Periods in which the process's control group had used up its CPU quota (cpu.stat), since the group was made. 0: none, or no group.") \
    X("/weft/cpu/throttled/time:cpu-seconds", F64, true, GROUP, AT(group.seconds), \
      "For how long the threads of the process's control group stood still because its CPU quota was used up, since the group was made.") \
    FOUND(X, "01", 1) FOUND(X, "02", 2) FOUND(X, "03", 3) FOUND(X, "04", 4) FOUND(X, "05", 5) FOUND(X, "06", 6) FOUND(X, "07", 7) FOUND(X, "08", 8) \
    FOUND(X, "09", 9) FOUND(X, "10", 10) FOUND(X, "11", 11) FOUND(X, "12", 12) FOUND(X, "13", 13) FOUND(X, "14", 14) FOUND(X, "15", 15) \
    FOUND(X, "16", 16) FOUND(X, "17", 17) FOUND(X, "18", 18) \
    X("/weft/gc/beside/cycles:gc-cycles", U64, true, CYCLES, AT(beside.cycles), \
      "Collections that marked beside the program.") \
    X("/weft/gc/beside/given-up:gc-cycles", U64, true, CYCLES, AT(beside.given_up), \
      "Of these, those that had to mark in a stop after all, as the system refused something.") \
    X("/weft/gc/beside/left:pages", U64, true, CYCLES, AT(beside.left_pages), \
      "Pages of the heap that had been written to and were looked at in stops.") \
    X("/weft/gc/beside/rounds:rounds", U64, true, CYCLES, AT(beside.rounds), \
      "How often collections looked beside the program which pages had been written to.") \
    X("/weft/gc/beside/stacks:bytes", U64, true, CYCLES, AT(beside.stop_stack_bytes), \
      "Bytes of stacks that such collections scanned in their last stops.") \
    X("/weft/gc/beside/written:pages", U64, true, CYCLES, AT(beside.written_pages), \
      "Pages that were found written to beside the program.") \
    X("/weft/gc/scanned/stacks:bytes", U64, true, CYCLES, AT(cycles.stack_bytes), \
      "Bytes of stacks scanned by all cycles.") \
    X("/weft/io/descriptors:descriptors", U64, false, REST, AT(rest.descriptors), \
      "Descriptors that weft holds (weft_fd).") \
    X("/weft/io/waiting:fibers", U64, false, REST, AT(rest.waiting), \
      "Fibers that wait for a descriptor.") \
    X("/weft/memory/off-heap/fiber:bytes", U64, false, REST, AT(rest.off[OFF_FIBER]), \
      "In use for records of fibers that have not started.") \
    X("/weft/memory/off-heap/gc:bytes", U64, false, REST, AT(rest.off[OFF_GC]), \
      "In use for the collector's work lists and root tables, processors' caches and types.") \
    X("/weft/memory/off-heap/other:bytes", U64, false, REST, AT(rest.off[OFF_OTHER]), \
      "In use for other purposes.") \
    X("/weft/memory/off-heap/prof:bytes", U64, false, REST, AT(rest.off[OFF_PROF]), \
      "In use for samples and symbols.") \
    X("/weft/memory/off-heap/sched:bytes", U64, false, REST, AT(rest.off[OFF_SCHED]), \
      "In use for threads, processors, timers and descriptors.") \
    X("/weft/memory/off-heap/special:bytes", U64, false, REST, AT(rest.off[OFF_SPECIAL]), \
      "In use for what is attached to objects, such as finalizers.") \
    X("/weft/memory/off-heap/trace:bytes", U64, false, REST, AT(rest.off[OFF_TRACE]), \
      "In use for traces.") \
    X("/weft/sched/hand-offs:processors", U64, true, REST, AT(rest.handoffs), \
      "Processors taken from fibers that blocked in the kernel or ran for too long.") \
    X("/weft/sched/pauses/stopping/dump:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_DUMP), \
      "Stops of the world for dumps: from deciding to stop until all stood still.") \
    X("/weft/sched/pauses/stopping/end:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_END), \
      "Stops of the world as the runtime ends: from deciding to stop until all stood still.") \
    X("/weft/sched/pauses/stopping/fork:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_FORK), \
      "Stops of the world for a fork: from deciding to stop until all stood still.") \
    X("/weft/sched/pauses/stopping/maxprocs:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_MAXPROCS), \
      "Stops of the world for another number of processors: from deciding to stop until all stood still.") \
    X("/weft/sched/pauses/stopping/mem-stats:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_MEM_STATS), \
      "Stops of the world by weft_read_mem_stats: from deciding to stop until all stood still.") \
    X("/weft/sched/pauses/stopping/trace:seconds", TIMES, true, NOTHING, FILL(fill_stopping, WEFT_STOP_TRACE), \
      "Stops of the world as a trace begins: from deciding to stop until all stood still.") \
    X("/weft/sched/pauses/total/dump:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_DUMP), \
      "Stops of the world for dumps: from deciding to stop until all ran again.") \
    X("/weft/sched/pauses/total/end:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_END), \
      "Stops of the world as the runtime ends: from deciding to stop until all ran again.") \
    X("/weft/sched/pauses/total/fork:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_FORK), \
      "Stops of the world for a fork: from deciding to stop until all ran again.") \
    X("/weft/sched/pauses/total/maxprocs:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_MAXPROCS), \
      "Stops of the world for another number of processors: from deciding to stop until all ran again.") \
    X("/weft/sched/pauses/total/mem-stats:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_MEM_STATS), \
      "Stops of the world by weft_read_mem_stats: from deciding to stop until all ran again.") \
    X("/weft/sched/pauses/total/trace:seconds", TIMES, true, NOTHING, FILL(fill_stopped, WEFT_STOP_TRACE), \
      "Stops of the world as a trace begins: from deciding to stop until all ran again.") \
    X("/weft/sched/threads/created:threads", U64, true, REST, AT(rest.threads_made), \
      "Threads made to run fibers.") \
    X("/weft/sched/threads/ended:threads", U64, true, REST, AT(rest.threads_ended), \
      "Threads that ran fibers and have ended.") \
    X("/weft/sync/runtime-locks/wait/total:seconds", F64, true, REST, AT(rest.lock_waited), \
      "How long threads slept for the runtime's own locks, all together; a part of /sync/mutex/wait/total.")

_Static_assert(WEFT_STOP_REASONS == 7, "each reason to stop has two lines above");

static double time_bounds[TIMEHIST_BUCKETS + 1], size_bounds[GC_CLASSES + 1];
_Static_assert(TIMEHIST_BUCKETS <= WEFT_METRIC_BUCKETS && GC_CLASSES <= WEFT_METRIC_BUCKETS, "what a user makes room for");

#define KIND_U64 .kind = WEFT_METRIC_U64
#define KIND_F64 .kind = WEFT_METRIC_F64
#define KIND_TIMES .kind = WEFT_METRIC_HIST, .buckets = TIMEHIST_BUCKETS, .bounds = time_bounds
#define KIND_SIZES .kind = WEFT_METRIC_HIST, .buckets = GC_CLASSES, .bounds = size_bounds

static const weft_metric_desc descs[] = {
#define X(n, k, c, needs, value, text) { .name = n, .description = text, .cumulative = c, KIND_##k },
    METRICS(X)
#undef X
};
#define NMETRICS ((uint32_t)w_countof(descs))

static const struct source {
    uint16_t needs, at; /* at: in struct snapshot; histograms have fill */
    uint32_t arg;
    fill_fn *fill;
} sources[] = {
#define AT(field) .at = offsetof(struct snapshot, field)
#define FILL(fn, n) .fill = fn, .arg = n
#define X(n, k, c, g, value, text) { .needs = g, value },
    METRICS(X)
#undef X
};

/* As the library is loaded: a list of metrics may be asked for at any time. */
__attribute__((constructor)) static void make_bounds(void)
{
    time_bounds[0] = -INFINITY;
    for (unsigned i = 1; i < TIMEHIST_BUCKETS; i++)
        time_bounds[i] = (double)timehist_lower_ns(i) / 1e9;
    time_bounds[TIMEHIST_BUCKETS] = INFINITY;
    for (unsigned i = 0; i < GC_CLASSES; i++)
        size_bounds[i] = gc_class_size[i] + 1;
    size_bounds[GC_CLASSES] = INFINITY;
}

/* ---- groups ------------------------------------------------------------------------------------------------ */

static void collect_memory(struct snapshot *s, bool objects)
{
    struct heap_memory h;
    struct sched_memory m;
    stats_memory(&h, objects ? &s->n : NULL);
    sched_memory(&m);
    s->n.bytes = h.bytes;
    s->mem.heap_free = h.pages.free_bytes - h.pages.released_bytes;
    s->mem.heap_objects = h.bytes.mallocs - h.bytes.frees;
    s->mem.heap_released = h.pages.released_bytes;
    s->mem.heap_stacks = m.stack_inuse;
    s->mem.heap_unused = h.in_use_bytes - s->mem.heap_objects;
    s->mem.mcache_free = 0;
    s->mem.mcache_inuse = h.caches_bytes;
    s->mem.mspan_free = h.pages.spans_sys_bytes - h.spans_bytes;
    s->mem.mspan_inuse = h.spans_bytes;
    s->mem.other_gc = h.other_bytes;
    s->mem.os_stacks = m.stack_sys - m.stack_inuse;
    s->mem.other = m.other;
    s->mem.buckets = m.buckets;
    const uint64_t *part = (const uint64_t *)&s->mem;
    uint64_t total = 0;
    for (size_t i = 0; i < offsetof(struct snapshot, mem.total) - offsetof(struct snapshot, mem); i += sizeof *part)
        total += *part++;
    s->mem.total = total;
}

static void collect_heap(struct snapshot *s, bool memory, bool objects)
{
    if (memory)
        collect_memory(s, objects);
    else if (objects)
        stats_count(&s->n);
    else
        stats_bytes(&s->n.bytes);
    s->heap.mallocs = s->n.bytes.mallocs;
    s->heap.frees = s->n.bytes.frees;
    s->heap.bytes = s->heap.mallocs - s->heap.frees;
    if (objects)
        s->heap.objects = s->n.malloc_objects - s->n.free_objects;
}

static double seconds(int64_t ns) { return (double)ns / 1e9; }

static void collect_cycles(struct snapshot *s)
{
    struct heap_cycles c;
    stats_cycles(&c);
    s->cycles.total = c.total;
    s->cycles.forced = c.forced;
    s->cycles.automatic = c.total - c.forced;
    s->cycles.stack_bytes = c.stack_bytes;
    conc_stats(&s->beside);
    s->cpu.pause = s->cpu.gc = seconds(c.pause_ns);
    for (unsigned k = 0; k < GC_CPU_KINDS; k++)
        s->cpu.gc += s->cpu.mark[k] = seconds(c.mark_ns[k]);
    s->cpu.idle = seconds(c.idle_ns);
    s->cpu.scav_assist = seconds(c.scav_assist_ns);
    s->cpu.scav_background = seconds(c.scav_background_ns);
    s->cpu.scav = seconds(c.scav_assist_ns + c.scav_background_ns);
    s->cpu.total = seconds(c.total_ns);
    s->cpu.user = seconds(c.user_ns);
}

static void collect_pace(struct snapshot *s)
{
    struct heap_pace p;
    stats_pace(&p);
    s->pace.percent = (uint64_t)(int64_t)p.percent;
    s->pace.limit = (uint64_t)p.limit;
    s->pace.goal = p.goal;
    s->pace.live = p.last.live_bytes;
    s->pace.globals = p.last.global_bytes;
    s->pace.heap = p.last.scan_bytes;
    s->pace.stacks = p.last.stack_bytes;
    s->pace.total = p.last.global_bytes + p.last.scan_bytes + p.last.stack_bytes;
}

static void collect_calls(struct snapshot *s)
{
    for (unsigned k = 0; k < GC_CALLS; k++) { /* what has run was queued before the last stop */
        s->calls[k].executed = mutator_calls_executed((enum gc_call_kind)k);
        s->calls[k].queued = gc_calls_queued((enum gc_call_kind)k);
    }
}

static void collect_fibers(struct snapshot *s)
{
    uint64_t made, ended, system_ended = load_acq(&sched.system_ended); /* acq: as in fibers_count; rel in fiber_end */
    fibers_count(&made, &ended);
    s->fibers.made = made + load_rlx(&sched.system_made); /* rlx: a counter */
    s->fibers.alive = s->fibers.made - ended - system_ended;
}

/* rlx: figures that change as they are read. */
static void collect_states(struct snapshot *s)
{
    uint64_t running = 0, not_in = 0, runnable = load_rlx(&sched.global_len);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) { /* acq: sees *m; rel in m_publish_locked */
        if (load_acq(&m->dead) != M_ALIVE || m->foreign)
            continue;
        bool runs = __atomic_load_n(&m->cur, __ATOMIC_RELAXED) != NULL, has_p = load_rlx(&m->pstate) != M_GONE;
        running += runs && has_p;
        not_in += (runs && !has_p) || __atomic_load_n(&m->blocking, __ATOMIC_RELAXED);
    }
    uint32_t n = nprocs();
    for (uint32_t i = 0; i < n; i++)
        runnable += runq_len(sched.allp[i]);
    s->states.running = w_min(running, (uint64_t)n);
    s->states.not_in = not_in;
    s->states.runnable = runnable;
    uint64_t busy = s->states.running + not_in + runnable;
    s->states.waiting = s->fibers.alive > busy ? s->fibers.alive - busy : 0;
}

static void collect_rest(struct snapshot *s)
{
    uint64_t blocked = 0, n = allp_used();
    s->rest.handoffs = 0;
    for (uint32_t i = 0; i < n; i++) { /* rlx: counters, here and below */
        s->rest.handoffs += load_rlx(&sched.allp[i]->handoffs);
        blocked += load_rlx(&sched.allp[i]->blocked_ns);
    }
    int64_t locks = lock_waited_ns() - sched.lock_waited_ns;
    s->rest.lock_waited = seconds(locks);
    s->rest.blocked = seconds((int64_t)blocked + locks);
    s->rest.capped = gc_capped_cycle();
    s->rest.procs = nprocs();
    s->rest.stack_bytes = UINT64_C(1) << sched.stack_log2;
    s->rest.threads = load_rlx(&sched.nthreads) + 1u + world_helpers() + (sched.main_m != NULL); /* the monitor; the main thread */
    s->rest.threads_ended = load_rlx(&sched.threads_ended);
    s->rest.threads_made = load_rlx(&sched.threads_made);
    s->rest.descriptors = fd_count();
    s->rest.waiting = netpoll_waiters();
    for (unsigned i = 0; i < OFF_PURPOSES; i++) {
        struct off_stats o;
        off_stats((enum off_purpose)i, &o);
        s->rest.off[i] = o.in_use_bytes;
    }
}

static void collect_group(struct snapshot *s)
{
    struct cgroup_throttled t = { 0, 0, 0 };
    if (!maxprocs_throttled(&t))
        t = (struct cgroup_throttled){ 0, 0, 0 };
    s->group.throttled = t.throttled;
    s->group.seconds = seconds((int64_t)t.throttled_ns);
}

static void collect(struct snapshot *s, unsigned needs)
{
    s->zero = 0;
    if (needs & (BYTES | MEMORY | OBJECTS))
        collect_heap(s, needs & MEMORY, needs & OBJECTS);
    if (needs & CYCLES)
        collect_cycles(s);
    if (needs & PACE)
        collect_pace(s);
    if (needs & CALLS)
        collect_calls(s);
    if (needs & (FIBERS | STATES))
        collect_fibers(s);
    if (needs & STATES)
        collect_states(s);
    if (needs & REST)
        collect_rest(s);
    if ((needs & DOCTOR) && sched_reports.found != NULL)
        for (unsigned i = 0; i < SCHED_FINDINGS; i++)
            s->found.n[i] = load_rlx(&sched_reports.found[i]); /* rlx: a counter */
    if (needs & GROUP)
        collect_group(s);
}

/* ---- histograms ---------------------------------------------------------------------------------------------- */

static void by_size(const uint64_t *classes, uint64_t *counts)
{
    memcpy(counts, classes + 1, (GC_CLASSES - 1) * sizeof *counts);
    counts[GC_CLASSES - 1] = classes[0];
}

static void fill_mallocs(const struct snapshot *s, unsigned arg, uint64_t *counts) { (void)arg, by_size(s->n.mallocs, counts); }
static void fill_frees(const struct snapshot *s, unsigned arg, uint64_t *counts) { (void)arg, by_size(s->n.frees, counts); }

static void clear_times(uint64_t *counts) { memset(counts, 0, TIMEHIST_BUCKETS * sizeof *counts); }

static void fill_latencies(const struct snapshot *s, unsigned arg, uint64_t *counts)
{
    (void)s, (void)arg;
    clear_times(counts);
    uint32_t n = allp_used();
    for (uint32_t i = 0; i < n; i++)
        timehist_sum(&sched.allp[i]->latencies, counts);
}

static void fill_reason(unsigned reason, bool stopped, uint64_t *counts)
{
    clear_times(counts);
    timehist_sum(world_times((int)reason, stopped), counts);
}

static void fill_others(bool stopped, uint64_t *counts)
{
    clear_times(counts);
    for (int r = 0; r < WEFT_STOP_REASONS; r++)
        if (r != WEFT_STOP_GC)
            timehist_sum(world_times(r, stopped), counts);
}

static void fill_stopping(const struct snapshot *s, unsigned reason, uint64_t *counts) { (void)s, fill_reason(reason, false, counts); }
static void fill_stopped(const struct snapshot *s, unsigned reason, uint64_t *counts) { (void)s, fill_reason(reason, true, counts); }
static void fill_stopping_other(const struct snapshot *s, unsigned arg, uint64_t *counts) { (void)s, (void)arg, fill_others(false, counts); }
static void fill_stopped_other(const struct snapshot *s, unsigned arg, uint64_t *counts) { (void)s, (void)arg, fill_others(true, counts); }

/* ---- the public side ------------------------------------------------------------------------------------------- */

size_t weft_metrics_all(const weft_metric_desc **list)
{
    if (list != NULL)
        *list = descs;
    return NMETRICS;
}

static w_noinline bool search(weft_metric *s)
{
    uint32_t lo = 0, hi = NMETRICS;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        int c = strcmp(s->name, descs[mid].name);
        if (c == 0) {
            s->name = descs[mid].name;
            s->id_ = mid;
            return true;
        }
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return false;
}

/* A name of ours is at one address only: if the sample has that it was found before. */
static inline bool find(weft_metric *s)
{
    if (likely(s->id_ < NMETRICS && s->name == descs[s->id_].name))
        return true;
    return s->name != NULL && search(s);
}

static void hand_out(weft_metric *m, const struct snapshot *s)
{
    const weft_metric_desc *d = &descs[m->id_];
    const struct source *from = &sources[m->id_];
    m->kind = d->kind;
    if (from->fill == NULL) {
        memcpy(&m->u64, (const char *)s + from->at, sizeof m->u64);
        return;
    }
    m->buckets = d->buckets;
    m->bounds = d->bounds;
    if (m->counts != NULL && m->room >= d->buckets)
        from->fill(s, from->arg, m->counts);
}

int weft_metrics_read(weft_metric *samples, size_t n)
{
    if (n == 0)
        return 0;
    if (samples == NULL)
        return -EINVAL;
    struct m *m = rt_enter_if_running();
    if (m == NULL)
        return -ESRCH;
    unsigned needs = 0;
    for (size_t i = 0; i < n; i++) {
        samples[i].kind = WEFT_METRIC_BAD;
        if (find(&samples[i])) {
            samples[i].kind = descs[samples[i].id_].kind;
            needs |= sources[samples[i].id_].needs;
        }
    }
    struct snapshot s;
    collect(&s, needs);
    for (size_t i = 0; i < n; i++)
        if (samples[i].kind != WEFT_METRIC_BAD)
            hand_out(&samples[i], &s);
    rt_leave(m);
    return 0;
}
