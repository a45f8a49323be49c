/* What is resident, by part, and when each part falls. See memory.c. For documents.c: look is run on the helper while the runtime is there, with a
 * struct memory in l->arg, the others after it. */
#ifndef WEFT_DEBUG_MEMORY_H
#define WEFT_DEBUG_MEMORY_H

#include "base/offheap.h"
#include "debug/look.h"
#include "os/resident.h"

/* To add a part: a line; in memory.c it gets its bytes and says when it falls. */
#define MEMORY_PARTS(X)                                                                         \
    X(PART_OBJECTS, "heap.objects", "heap", "objects of the heap, dead ones included until the next collection") \
    X(PART_GAPS, "heap.gaps", "heap", "room between objects, in pages that hold some")          \
    X(PART_FREE, "heap.free", "heap", "free pages of the heap, not given back")                 \
    X(PART_TABLES, "heap.tables", "heap", "the collector's tables of pages and spans")          \
    X(PART_STACKS, "stacks.used", "stacks", "stacks of fibers")                                 \
    X(PART_STACKS_FREE, "stacks.free", "stacks", "stacks that no fiber has")                    \
    X(PART_SCHED, "runtime.sched", "runtime", "the runtime: threads, processors, timers, descriptors") \
    X(PART_FIBER, "runtime.fiber", "runtime", "the runtime: fibers that have not started")      \
    X(PART_GC, "runtime.gc", "runtime", "the runtime: work lists, root tables, caches of processors") \
    X(PART_SPECIAL, "runtime.special", "runtime", "the runtime: finalizers, cleanups, weak pointers") \
    X(PART_PROF, "runtime.prof", "runtime", "the runtime: profiles and symbols")                \
    X(PART_TRACE, "runtime.trace", "runtime", "the runtime: traces")                            \
    X(PART_OTHER, "runtime.other", "runtime", "the runtime: the rest")                          \
    X(PART_WEFT, "code.weft", "code", "weft's code, and its allocator's data")                  \
    X(PART_CODE, "code.others", "code", "code and data of the program and of libraries")        \
    X(PART_FILES, "host.files", "host", "other files that are mapped")                          \
    X(PART_BRK, "host.brk", "host", "the host's malloc: its main arena")                        \
    X(PART_STACK, "host.stack", "host", "the stack of the first thread")                        \
    X(PART_ANON, "host.anonymous", "host", "the host's: other arenas of malloc, stacks of threads, mappings") \
    X(PART_SHARED, "host.shared", "host", "memory shared with other processes")

enum memory_part {
#define X(id, name, group, text) id,
    MEMORY_PARTS(X)
#undef X
    PARTS
};
_Static_assert(PART_OTHER - PART_SCHED == OFF_OTHER - OFF_SCHED, "the runtime's parts are those of off-heap memory, in that order");

struct memory {
    struct resident_totals totals;
    uint64_t resident[PARTS], held[PARTS]; /* held: what our own books say; UINT64_MAX: there are none */
    uint64_t sum;
    bool exact;                            /* resident.h */
    struct gc_scavenge_stats scavenged;
    uint64_t limit;                        /* INT64_MAX and more: none */
    uint64_t group_used, group_limit;      /* the control group's; UINT64_MAX: there is none */
    /* while it is found out */
    struct look *look;
    struct memory_range *range;
    uint32_t ranges, room;
    struct resident pages;
    char path[256];                        /* of the file that is being gone through; */
    uint64_t path_bytes;                   /* what of it is resident, */
    bool path_code;                        /* and whether any of it can be executed */
    int err;
};

void memory_look(struct look *l);
void memory_json(struct look *l);

#endif
