/* See resident.h.
 *
 * Of the ways to ask, smaps is the one for people: it takes four times as long, and does not say where in a mapping the pages are, while neighbours
 * of different owners are one mapping to the kernel. */
#include "os/resident.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "base/fail.h"
#include "base/syscall.h"
#include "os/pagemap.h"
#include "os/vm.h"

/* ---- files -------------------------------------------------------------------------------------------------------- */

static int open_proc(const char *path)
{
    return fail_now(FAIL_FD) ? -EMFILE : (int)sys_call4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

/* A file line by line, whatever its length. The end of a line that is longer than the buffer is lost. */
static int each_line(const char *path, void (*fn)(void *arg, char *line), void *arg)
{
    char buf[16384];
    size_t have = 0;
    bool skip = false;
    int fd = open_proc(path);
    long got;
    if (fd < 0)
        return fd;
    while ((got = sys_call3(SYS_read, fd, buf + have, sizeof buf - 1 - have)) > 0) {
        char *from = buf, *end;
        have += (size_t)got;
        buf[have] = 0;
        while ((end = memchr(from, '\n', have - (size_t)(from - buf))) != NULL) {
            *end = 0;
            if (!skip)
                fn(arg, from);
            skip = false;
            from = end + 1;
        }
        have -= (size_t)(from - buf);
        memmove(buf, from, have);
        if (have == sizeof buf - 1) {
            if (!skip)
                fn(arg, buf);
            skip = true;
            have = 0;
        }
    }
    sys_call1(SYS_close, fd);
    return (int)got;
}

static uint64_t hex(const char **s)
{
    uint64_t v = 0;
    for (;; (*s)++) {
        unsigned c = (unsigned char)**s, d = c - '0' <= 9 ? c - '0' : (c | 32) - 'a' <= 5 ? (c | 32) - 'a' + 10 : 16;
        if (d > 15)
            return v;
        v = v * 16 + d;
    }
}

static void total_line(void *arg, char *line)
{
    struct resident_totals *t = arg;
    const struct { const char *key; uint64_t *to; } keys[] = {
        { "VmRSS:", &t->rss }, { "RssAnon:", &t->anon }, { "RssFile:", &t->file }, { "RssShmem:", &t->shared }, { "VmSwap:", &t->swap },
    };
    for (unsigned i = 0; i < w_countof(keys); i++) {
        size_t n = strlen(keys[i].key);
        if (strncmp(line, keys[i].key, n) != 0)
            continue;
        uint64_t kib = 0;
        for (const char *s = line + n; *s != 0; s++)
            if (*s >= '0' && *s <= '9')
                kib = kib * 10 + (uint64_t)(*s - '0');
        *keys[i].to = kib << 10;
    }
}

int resident_totals(struct resident_totals *out)
{
    *out = (struct resident_totals){ 0 };
    return each_line("/proc/self/status", total_line, out);
}

struct each_mapping { void (*fn)(void *arg, const struct mapping *m); void *arg; };

/* 7f0e4c000000-7f0e4c021000 rw-p 00000000 00:00 0          [stack] */
static void mapping_line(void *arg, char *line)
{
    const struct each_mapping *to = arg;
    struct mapping m = { .path = "" };
    const char *s = line;
    m.lo = hex(&s);
    if (*s++ != '-')
        return;
    m.hi = hex(&s);
    if (*s++ != ' ' || strnlen(s, 5) < 5)
        return;
    m.read = s[0] == 'r';
    m.write = s[1] == 'w';
    m.exec = s[2] == 'x';
    m.shared = s[3] == 's';
    for (unsigned field = 0; field < 4; field++) { /* rights, offset, device, inode */
        while (*s != 0 && *s != ' ')
            s++;
        while (*s == ' ')
            s++;
    }
    m.path = s;
    to->fn(to->arg, &m);
}

int resident_mappings(void (*fn)(void *arg, const struct mapping *m), void *arg)
{
    struct each_mapping to = { fn, arg };
    return each_line("/proc/self/maps", mapping_line, &to);
}

/* ---- pages -------------------------------------------------------------------------------------------------------- */

#define AT_ONCE ((uintptr_t)1 << 30) /* bytes: the kernel holds off who maps and unmaps meanwhile */
#define REGIONS 512u

static int scan(int fd, uintptr_t lo, uintptr_t hi, void (*fn)(void *arg, uintptr_t lo, uintptr_t hi), void *arg)
{
    struct scan_region found[REGIONS];
    while (lo < hi) {
        struct scan s = {
            .start = lo, .end = w_min(hi, lo + AT_ONCE), .vec = (uintptr_t)found, .vec_len = REGIONS,
            .category_inverted = SCAN_ZERO, .category_mask = SCAN_PRESENT | SCAN_ZERO, .return_mask = SCAN_PRESENT,
        };
        long n = pagemap_scan(fd, &s);
        if (n < 0)
            return (int)n;
        for (long i = 0; i < n; i++)
            fn(arg, found[i].start, found[i].end);
        if (s.walk_end <= lo)
            return -EIO;
        lo = s.walk_end;
    }
    return 0;
}

static void ignore(void *arg, uintptr_t lo, uintptr_t hi) { (void)arg, (void)lo, (void)hi; }

void resident_open(struct resident *r)
{
    uintptr_t here = w_align_down((uintptr_t)&r, os_page_bytes());
    r->fd = pagemap_open();
    r->exact = r->fd >= 0 && scan(r->fd, here, here + os_page_bytes(), ignore, NULL) == 0;
}

void resident_close(struct resident *r)
{
    if (r->fd >= 0)
        sys_call1(SYS_close, r->fd);
}

#define CORE_PAGES 4096u
#define CORE_MOST ((uintptr_t)64 << 30) /* what is larger is some tool's, such as the shadow of a sanitizer: each page of it costs a byte here */

static int core(uintptr_t lo, uintptr_t hi, void (*fn)(void *arg, uintptr_t lo, uintptr_t hi), void *arg)
{
    unsigned char in[CORE_PAGES];
    uintptr_t page = os_page_bytes();
    for (uintptr_t at = lo; at < hi && hi - lo <= CORE_MOST; at += CORE_PAGES * page) {
        size_t n = w_min((hi - at) / page, (uintptr_t)CORE_PAGES);
        long err = sys_call3(SYS_mincore, at, n * page, (long)(uintptr_t)in);
        if (err < 0)
            return (int)err; /* gone meanwhile */
        for (size_t i = 0, k; i < n; i = k) {
            for (k = i + 1; k < n && (in[k] & 1) == (in[i] & 1);)
                k++;
            if (in[i] & 1)
                fn(arg, at + i * page, at + k * page);
        }
    }
    return 0;
}

int resident_runs(const struct resident *r, uintptr_t lo, uintptr_t hi, void (*fn)(void *arg, uintptr_t lo, uintptr_t hi), void *arg)
{
    return r->exact ? scan(r->fd, lo, hi, fn, arg) : core(lo, hi, fn, arg);
}
