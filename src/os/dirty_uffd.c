/* Written pages by userfaultfd in asynchronous mode.
 *
 * A bit of each page table entry says that the page is armed. The first write faults into the kernel, which clears the bit and goes on: no signal,
 * no message, and no difference whether the program writes or a system call on its behalf. PAGEMAP_SCAN lists the entries without the bit, and sets
 * it in the same walk, under the lock of their table: a write comes before and is reported, or after and faults. The processors' copies of the
 * entries are gone when it returns; who wrote by one of those until then wrote before the caller reads the page.
 *
 * The whole reservation is registered at once (3 us for a terabyte), so memory that is committed later needs no call that could fail, and the range
 * stays few mappings. An entry that is missing counts as written, whether the page was never touched or has been given back. To arm such a page
 * makes a table for it, and then no huge page comes at its first touch: arm what is in use, and no more than small gaps between.
 *
 * What writes past the page tables is not noted: a device, into pages that are pinned (O_DIRECT, registered buffers of io_uring). It brings no
 * pointers that the program does not have elsewhere.
 *
 * What it costs: see bench/dirty_pages.c. Two things decide how to use it:
 *   - to arm by PAGEMAP_SCAN takes half as long as by UFFDIO_WRITEPROTECT, and next to nothing for what is armed already, but more for a few pages;
 *   - a huge page is one entry: 0.1 us to arm or to look at, against 27 ns for each of 512. The first write to it makes them 512, for 11 us, against
 *     0.7 us for a small page; and it is a huge page again only when somebody collapses it (0.2 ms), which the kernel refuses while a part of it is
 *     armed.
 *
 * To mend all of a heap after each cycle (dirty_mend) gains nothing where all is written to: bench/live_heap did as many operations, for a third more
 * of processor time, and stood still each time that it came to a page which was being copied. What stayed cold for a cycle is another matter: [MEND]
 * in gc/mend.c.
 *
 * Privileges: none with UFFD_USER_MODE_ONLY, which concerns only faults that somebody is told of. Where a filter of system calls refuses
 * userfaultfd(2) there may be /dev/userfaultfd. If the host closes our descriptors, the kernel forgets the registration, and SCAN_CHECKED makes
 * each call fail from then on. */
#include "os/dirty_way.h"
#include <errno.h>
#include <linux/userfaultfd.h>
#include "os/loader.h"
#include "os/pagemap.h"
#include "os/vm.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define FEATURES (UFFD_FEATURE_PAGEFAULT_FLAG_WP | 1u << 13 /* WP_UNPOPULATED */ | 1u << 15 /* WP_ASYNC, of 6.7 */)
#define DEVICE_NEW _IO(0xAA, 0) /* USERFAULTFD_IOC_NEW, of 6.1 */

#define FEW_BYTES (32u << 10) /* up to here UFFDIO_WRITEPROTECT is quicker */
#define REGIONS 128u
#define TRIES 100

static struct {
    int fd, pagemap;
    uintptr_t lo, hi;
} uffd = { .fd = -1, .pagemap = -1 };

static long control(unsigned long what, void *arg) { return sys_call3(SYS_ioctl, uffd.fd, what, (long)(uintptr_t)arg); }

/* ---- ranges ------------------------------------------------------------------------------------------------------- */

/* -EAGAIN is for those who watch the mappings change, which we do not; and if it comes all the same, it goes. */
static int protect(uintptr_t lo, uintptr_t hi, bool on)
{
    struct uffdio_writeprotect w = { { lo, hi - lo }, on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };
    long r;
    for (int i = 0; (r = control(UFFDIO_WRITEPROTECT, &w)) == -EAGAIN && i < TRIES;)
        i++;
    return (int)r;
}

static long scan(struct scan *s)
{
    s->flags |= SCAN_CHECKED;
    s->category_mask = s->return_mask = SCAN_WRITTEN;
    return pagemap_scan(uffd.pagemap, s);
}

static int uffd_arm(uintptr_t lo, uintptr_t hi)
{
    if (hi - lo <= FEW_BYTES)
        return protect(lo, hi, true);
    while (lo < hi) {
        struct scan s = { .flags = SCAN_PROTECT, .start = lo, .end = hi }; /* no place for regions: the quickest walk */
        long r = scan(&s);
        if (r < 0)
            return (int)r;
        if (s.walk_end <= lo)
            return -EIO;
        lo = s.walk_end;
    }
    return 0;
}

static int uffd_disarm(uintptr_t lo, uintptr_t hi) { return protect(lo, hi, false); }

static ptrdiff_t uffd_take(uintptr_t lo, uintptr_t hi, bool arm, struct dirty_range *out, size_t n, uintptr_t *next)
{
    struct scan_region found[REGIONS];
    size_t k = 0;
    while (lo < hi && k < n) {
        struct scan s = {
            .flags = arm ? SCAN_PROTECT : 0, .start = lo, .end = hi, .vec = (uintptr_t)found, .vec_len = w_min(n - k, (size_t)REGIONS),
        };
        long r = scan(&s);
        if (r < 0)
            return r;
        if (s.walk_end <= lo)
            return -EIO;
        for (long i = 0; i < r; i++)
            k = dirty_put(out, k, n, found[i].start, found[i].end);
        lo = s.walk_end;
    }
    *next = lo;
    return (ptrdiff_t)k;
}

static bool is_huge(uintptr_t lo)
{
    struct scan_region r;
    struct scan s = {
        .start = lo, .end = lo + OS_HUGE_PAGE, .vec = (uintptr_t)&r, .vec_len = 1, .category_mask = SCAN_HUGE, .return_mask = SCAN_HUGE,
    };
    return pagemap_scan(uffd.pagemap, &s) == 1 && r.start == lo && r.end == lo + OS_HUGE_PAGE;
}

/* In memory that is registered the kernel fills no holes: what was given back stays so, and its unit small. */
static ptrdiff_t uffd_mend(uintptr_t lo, uintptr_t hi)
{
    ptrdiff_t n = 0;
    for (lo = w_align_up(lo, OS_HUGE_PAGE); lo + OS_HUGE_PAGE <= hi; lo += OS_HUGE_PAGE)
        if (!is_huge(lo)) {
            os_vm_collapse((void *)lo, OS_HUGE_PAGE);
            n += is_huge(lo);
        }
    return n;
}

static int uffd_committed(uintptr_t lo, uintptr_t hi) { return (void)lo, (void)hi, 0; }

/* ---- start ---------------------------------------------------------------------------------------------------------- */

static int open_device(void)
{
    int dev = fail_now(FAIL_FD) ? -EMFILE : (int)sys_call4(SYS_openat, AT_FDCWD, "/dev/userfaultfd", O_RDWR | O_CLOEXEC, 0);
    if (dev < 0)
        return dev;
    int fd = fail_now(FAIL_FD) ? -EMFILE : (int)sys_call3(SYS_ioctl, dev, DEVICE_NEW, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    sys_call1(SYS_close, dev);
    return fd;
}

static int open_any(void)
{
    int fd = fail_now(FAIL_FD) ? -EMFILE : (int)sys_call1(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (fd >= 0 || fd == -EMFILE || fd == -ENFILE)
        return fd;
    int dev = open_device();
    return dev >= 0 ? dev : fd;
}

static int register_range(uintptr_t lo, uintptr_t hi)
{
    struct uffdio_register r = { .range = { lo, hi - lo }, .mode = UFFDIO_REGISTER_MODE_WP };
    return (int)control(UFFDIO_REGISTER, &r);
}

/* Is the first page of [lo, hi), which is armed, seen to be written, and is it alone? It is armed again. 0, 1, -errno. */
static int is_written(uintptr_t lo, uintptr_t hi)
{
    struct dirty_range found;
    uintptr_t next;
    ptrdiff_t k = uffd_take(lo, hi, true, &found, 1, &next);
    return k == 1 && (found.lo != lo || found.hi != lo + os_page_bytes()) ? -ENOSYS : (int)k;
}

/* A write by the program, one by the kernel, one that arming makes forgotten. */
static int try_range(uintptr_t lo, uintptr_t hi)
{
    int err = register_range(lo, hi);
    if (err == 0 && (err = uffd_arm(lo, hi)) == 0 && (err = is_written(lo, hi)) == 0) {
        *(volatile char *)lo = 1;
        if ((err = is_written(lo, hi)) == 1 && (err = (int)sys_call2(SYS_clock_gettime, 1, lo)) == 0 && (err = is_written(lo, hi)) == 1) {
            *(volatile char *)lo = 2;
            if ((err = uffd_arm(lo, lo + os_page_bytes())) == 0 && (err = is_written(lo, hi)) == 0)
                return 0;
        }
    }
    return err < 0 ? err : -ENOSYS;
}

static int try_scratch(void)
{
    size_t bytes = w_max(os_page_bytes(), (size_t)FEW_BYTES) * 2; /* so that both ways to arm are tried */
    char *p = os_vm_reserve(bytes, os_page_bytes());
    int err = p == NULL || os_vm_commit(p, bytes) != 0 ? -ENOMEM : try_range((uintptr_t)p, (uintptr_t)p + bytes);
    os_vm_free(p, bytes);
    return err;
}

static void uffd_stop(void)
{
    if (uffd.fd >= 0)
        sys_call1(SYS_close, uffd.fd);
    if (uffd.pagemap >= 0)
        sys_call1(SYS_close, uffd.pagemap);
    uffd.fd = uffd.pagemap = -1;
}

static int start_steps(uintptr_t lo, uintptr_t hi, const char **why)
{
    struct uffdio_api api = { .api = UFFD_API, .features = FEATURES };
    *why = "userfaultfd is refused";
    if ((uffd.fd = open_any()) < 0)
        return uffd.fd;
    *why = "this kernel's userfaultfd does not resolve writes by itself (Linux 6.7 does)";
    if (control(UFFDIO_API, &api) != 0 || (api.features & FEATURES) != FEATURES)
        return -ENOSYS;
    *why = "/proc/self/pagemap cannot be opened";
    if ((uffd.pagemap = pagemap_open()) < 0)
        return uffd.pagemap;
    *why = "userfaultfd does not tell what was written when tried";
    int err = try_scratch();
    if (err != 0)
        return err;
    *why = "the heap cannot be registered with userfaultfd";
    return register_range(lo, hi);
}

static int start_all(uintptr_t lo, uintptr_t hi, const char **why)
{
    uffd.lo = lo;
    uffd.hi = hi;
    int err = start_steps(lo, hi, why);
    if (err != 0)
        uffd_stop();
    return err;
}

static int uffd_start(uintptr_t lo, uintptr_t hi, const char **why)
{
    loader_exclude(&uffd, sizeof uffd); /* lo is the address of an object */
    return start_all(lo, hi, why);
}

/* The descriptors are of the parent's memory. */
static int uffd_after_fork_child(void)
{
    const char *why;
    uffd_stop();
    return start_all(uffd.lo, uffd.hi, &why);
}

const struct dirty_way dirty_uffd = {
    .id = DIRTY_UFFD, .does = "told by the kernel (userfaultfd)",
    .start = uffd_start, .stop = uffd_stop, .committed = uffd_committed, .watch = register_range, .arm = uffd_arm, .disarm = uffd_disarm,
    .take = uffd_take, .mend = uffd_mend,
    .after_fork_child = uffd_after_fork_child,
};
