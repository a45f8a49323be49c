/* The kernel's own search of page tables: PAGEMAP_SCAN on /proc/self/pagemap (linux/fs.h of 6.7, which may be newer than the headers that we are
 * built with). */
#ifndef WEFT_OS_PAGEMAP_H
#define WEFT_OS_PAGEMAP_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include "base/fail.h"
#include "base/syscall.h"

struct scan_region { uint64_t start, end, categories; };
struct scan {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan)

/* Categories. */
#define SCAN_WRITTEN 2u  /* not write-protected by a userfaultfd */
#define SCAN_PRESENT 8u
#define SCAN_ZERO 32u    /* the zero page */
#define SCAN_HUGE 64u    /* of a huge page, mapped as one */

/* Flags. */
#define SCAN_PROTECT 1u  /* write-protects what it finds */
#define SCAN_CHECKED 2u  /* -EPERM where no userfaultfd is registered that resolves writes by itself */

/* -EMFILE and others. */
static inline int pagemap_open(void)
{
    return fail_now(FAIL_FD) ? -EMFILE : (int)sys_call4(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
}

/* How many regions, or a negative errno; s->walk_end: as far as it has come. */
static inline long pagemap_scan(int fd, struct scan *s)
{
    s->size = sizeof *s;
    return sys_call3(SYS_ioctl, fd, SCAN, (long)(uintptr_t)s);
}

#endif
