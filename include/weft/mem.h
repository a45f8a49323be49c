/* weft/mem.h - memory statistics. Contract: Go's runtime.MemStats and ReadMemStats. */
#ifndef WEFT_MEM_H
#define WEFT_MEM_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

#define WEFT_SIZE_CLASSES 68 /* class 0 stands for large objects */

/* Bytes and counts as of the call. Invariants:
 *   mallocs - frees = heap_objects;  heap_sys = heap_idle + heap_inuse;  heap_idle >= heap_released;  heap_inuse >= heap_alloc;
 *   sys = heap_sys + stack_sys + mspan_sys + mcache_sys + buck_hash_sys + gc_sys + other_sys;  each _inuse <= its _sys. */
typedef struct weft_mem_stats {
    size_t size;              /* in: sizeof(weft_mem_stats) */
    uint64_t alloc;           /* = heap_alloc */
    uint64_t total_alloc;     /* cumulative bytes allocated, rounded to size classes; never falls */
    uint64_t sys;             /* bytes obtained from the operating system */
    uint64_t mallocs, frees;  /* cumulative objects */
    uint64_t heap_alloc;      /* bytes of objects that live or are not yet swept */
    uint64_t heap_sys, heap_idle, heap_inuse, heap_released, heap_objects;
    uint64_t stack_inuse, stack_sys;     /* stacks of fibers, at a page each (what deeper calls touched is not known): bound; all that hold memory */
    uint64_t mspan_inuse, mspan_sys;     /* span records */
    uint64_t mcache_inuse, mcache_sys;   /* caches of processors */
    uint64_t buck_hash_sys;              /* profiler tables */
    uint64_t gc_sys;                     /* bitmaps, mark stacks, root tables */
    uint64_t other_sys;
    uint64_t next_gc;         /* heap size at which the next cycle starts; UINT64_MAX: off */
    uint64_t last_gc;         /* end of the last cycle, ns since 1970; 0: none */
    uint64_t pause_total_ns;
    uint64_t pause_ns[256];   /* ring: stop time of each cycle, newest at [(num_gc+255)%256] */
    uint64_t pause_end[256];  /* ring: end of each, ns since 1970 */
    uint32_t num_gc, num_forced_gc;
    double gc_cpu_fraction;   /* of processors' time since start; 0..1 */
    bool enable_gc;           /* true */
    struct { uint32_t size; uint64_t mallocs, frees; } by_size[WEFT_SIZE_CLASSES];
} weft_mem_stats;

/* Stops the world for the time of the summing. 0, -EINVAL (size not set), -ESRCH (runtime not running). May block. */
WEFT_API int weft_read_mem_stats(weft_mem_stats *out);

/* How often and how long the world was stopped, by reason. */
enum {
    WEFT_STOP_GC = 0, WEFT_STOP_MEM_STATS, WEFT_STOP_MAXPROCS, WEFT_STOP_DUMP, WEFT_STOP_FORK, WEFT_STOP_END, WEFT_STOP_TRACE,
    WEFT_STOP_REASONS
};
#define WEFT_STOP_BUCKETS 40 /* bucket i counts times in [2^i, 2^(i+1)) ns */
typedef struct weft_stop_stats {
    const char *reason;
    uint64_t count, stopping_total_ns, stopped_total_ns, stopping_max_ns, stopped_max_ns;
    uint64_t stopping[WEFT_STOP_BUCKETS]; /* from deciding to stop until all are stopped */
    uint64_t stopped[WEFT_STOP_BUCKETS];  /* from deciding to stop until all run again */
} weft_stop_stats;
/* No stop. 0, -EINVAL (reason out of range or out NULL). */
WEFT_API int weft_read_stop_stats(int reason, weft_stop_stats *out);

WEFT_END_DECLS
#endif
