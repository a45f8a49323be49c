/* The page allocator: runs of 8 KiB pages from the reserved range. First fit, lowest address first, so that the heap stays
 * dense at its start and free chunks collect at its end. */
#ifndef WEFT_GC_PAGES_H
#define WEFT_GC_PAGES_H

#include "gc/heap.h"

int pages_start(size_t reserve);   /* fills heap.base, .reserved, .pagemap, .spans. 0, -ENOMEM */
void pages_stop(void);
/* Index of the first of n pages, NO_PAGE: none. *needzero: they may hold old bytes (otherwise they read as zero). */
size_t pages_alloc(size_t n, bool *needzero);
void pages_free(size_t first, size_t n);
/* Returns free pages to the system until at least bytes of them have gone; SIZE_MAX: all. Returns how many bytes. */
size_t pages_release(size_t bytes);

struct pages_stats {
    uint64_t sys_bytes, free_bytes, released_bytes; /* released is a part of free */
    uint64_t spans_sys_bytes, tables_sys_bytes;     /* span records; pagemap and bitmaps */
};
void pages_stats(struct pages_stats *out);

#endif
