/* The page allocator: runs of 8 KiB pages from the reserved range. First fit, lowest address first, so that the heap stays
 * dense at its start and free chunks collect at its end. */
#ifndef WEFT_GC_PAGES_H
#define WEFT_GC_PAGES_H

#include "gc/heap.h"

int pages_start(size_t reserve);   /* fills heap.base, .reserved, .pagemap, .spans, .bits. 0, -ENOMEM */
void pages_stop(void);
/* Index of the first of n pages, NO_PAGE: none. *needzero: they may hold old bytes (otherwise they read as zero). *grown: bytes by which the heap
 * grew for it. */
size_t pages_alloc(size_t n, bool *needzero, size_t *grown);
void pages_free(size_t first, size_t n);

/* Returns a run of free pages, at most a chunk, to the system: how many bytes; 0: there is none. force: also of chunks that fill up again (pages.c),
 * and those freed since the last pages_generation. [SCAVENGE] */
size_t pages_release_some(bool force);
/* The same until at least bytes of them have gone; SIZE_MAX: all. */
size_t pages_release(size_t bytes, bool force);
/* Returns the memory of span records and bits where no span has been left. */
void pages_release_tables(void);
/* A cycle is over, its sweep included. */
void pages_generation(void);
/* What the heap has from the system and has not returned; any time. */
uint64_t pages_retained_bytes(void);

struct pages_stats {
    uint64_t sys_bytes, free_bytes, released_bytes; /* released is a part of free */
    uint64_t spans_sys_bytes, tables_sys_bytes;     /* span records and bits; pagemap, kinds, shapes, cards, the bitmaps of pages.c */
    uint64_t changes;                               /* of pages, so far: pages_same */
};
void pages_stats(struct pages_stats *out); /* takes no lock */
/* The heap itself, from its base on, and its tables: address space that may hold memory. Calls fn for each; any time while the runtime runs. */
void pages_ranges(void (*fn)(void *arg, bool table, uintptr_t lo, uintptr_t hi), void *arg);
/* No page has changed hands since, till now. */
bool pages_same(const struct pages_stats *as);

#endif
