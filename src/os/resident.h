/* What of this process's address space is in memory, as the page tables say it. Blocks on files of /proc; not inside the runtime. errno is left
 * alone. */
#ifndef WEFT_OS_RESIDENT_H
#define WEFT_OS_RESIDENT_H

#include "base/base.h"

/* Of /proc/self/status, in bytes. rss is the sum of the next three. */
struct resident_totals { uint64_t rss, anon, file, shared, swap; };
int resident_totals(struct resident_totals *out); /* 0 or negative errno */

struct mapping {
    uintptr_t lo, hi;
    bool read, write, exec, shared;
    const char *path; /* as in /proc/self/maps; "": anonymous */
};
/* By address; what changes meanwhile may be missing, or there twice. 0 or negative errno. */
int resident_mappings(void (*fn)(void *arg, const struct mapping *m), void *arg);

/* exact: pages of any kind, and those that are the kernel's zero page, which counts as nobody's memory, left out (PAGEMAP_SCAN, Linux 6.7). Else
 * private anonymous memory only, and pages of zeroes that were only read count. */
struct resident { int fd; bool exact; };
void resident_open(struct resident *r);
void resident_close(struct resident *r);
/* Calls fn for each run of pages of a mapping, or a part of one, that are in memory. A gigabyte of small pages takes some 10 ms.
 * 0 or negative errno. */
int resident_runs(const struct resident *r, uintptr_t lo, uintptr_t hi, void (*fn)(void *arg, uintptr_t lo, uintptr_t hi), void *arg);

#endif
