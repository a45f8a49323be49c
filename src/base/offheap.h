/* Off-heap memory: everything the runtime needs for itself, from a private jemalloc, one arena per purpose,
 * so that every byte shows in the statistics under its name.
 *
 * jemalloc is linked into the library with its symbols hidden; the host's malloc stays the host's. No thread is ever
 * stopped while it holds a lock of this jemalloc (it is inside the runtime then, [ENTRY]), so these calls are allowed
 * while the world is stopped. They are not allowed in a signal handler. */
#ifndef WEFT_BASE_OFFHEAP_H
#define WEFT_BASE_OFFHEAP_H

#include "base/base.h"

/* To add a purpose: a line here and its name in offheap.c. */
enum off_purpose {
    OFF_SCHED,   /* machines, processors, timers, descriptors */
    OFF_FIBER,   /* records of fibers that have not started */
    OFF_GC,      /* mark stacks, root tables */
    OFF_SPECIAL, /* finalizers, cleanups, weak handles */
    OFF_PROF,    /* sample buckets, symbol tables */
    OFF_TRACE,   /* trace buffers */
    OFF_OTHER,
    OFF_PURPOSES
};

int off_init(void);  /* 0 or -ENOMEM; idempotent; arenas are made once per process and reused by later starts */
void *off_alloc(enum off_purpose why, size_t bytes);               /* NULL when out of memory */
void *off_zalloc(enum off_purpose why, size_t bytes);              /* zeroed */
void *off_alloc_aligned(enum off_purpose why, size_t bytes, size_t align); /* zeroed */
void *off_realloc(enum off_purpose why, void *p, size_t bytes);    /* old block stays on NULL */
void off_free(enum off_purpose why, void *p);                      /* NULL is fine */
/* Whole pages, zeroed: no arena, which takes 80 KiB before its first block, is made for what comes in slabs. */
void *off_map(enum off_purpose why, size_t bytes, size_t align);   /* NULL when out of memory */
void off_unmap(enum off_purpose why, void *p, size_t bytes);

/* Returns free pages of all purposes to the kernel (jemalloc does so by itself only while it is being used). */
void off_release(void);

struct off_stats { uint64_t in_use_bytes, mapped_bytes, loose_bytes; }; /* loose: of what is mapped, in no range that off_ranges tells */
void off_stats(enum off_purpose why, struct off_stats *out);       /* counters kept by us; no lock */
uint64_t off_in_use_bytes(void);                                   /* of all purposes */
/* Where most of it lies: calls fn for each range of address space; what OFF_SCHED and OFF_GC share goes as the former's. Any time; one that comes or
 * goes meanwhile may be missing. */
void off_ranges(void (*fn)(void *arg, enum off_purpose why, uintptr_t lo, uintptr_t hi), void *arg);
const char *off_name(enum off_purpose why);

#endif
