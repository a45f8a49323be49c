/* See vm.h. System calls directly: libc's wrappers would write the host's errno. */
#include "os/vm.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/fail.h"
#include "base/syscall.h"

#define PEEK_PAGES 8u

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#ifndef PR_SET_VMA_ANON_NAME
#define PR_SET_VMA_ANON_NAME 0
#endif

size_t os_page_bytes(void)
{
    static size_t bytes; /* the same value whoever writes it */
    size_t b = __atomic_load_n(&bytes, __ATOMIC_RELAXED);
    if (b == 0) {
        b = (size_t)sysconf(_SC_PAGESIZE);
        __atomic_store_n(&bytes, b, __ATOMIC_RELAXED);
    }
    return b;
}

static void *map(size_t bytes)
{
    long r = sys_call6(SYS_mmap, 0, (long)bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return r < 0 && r > -4096 ? NULL : (void *)r;
}

void *os_vm_reserve(size_t bytes, size_t align)
{
    if (align < os_page_bytes())
        align = os_page_bytes();
    if (bytes > SIZE_MAX - align || fail_now(FAIL_MEM))
        return NULL;
    char *p = map(bytes + align);
    if (p == NULL)
        return NULL;
    char *at = (char *)w_align_up((uintptr_t)p, align), *end = p + bytes + align;
    if (at > p)
        os_vm_free(p, (size_t)(at - p));
    if (at + bytes < end)
        os_vm_free(at + bytes, (size_t)(end - (at + bytes)));
    sys_call3(SYS_madvise, at, bytes, MADV_DONTDUMP); /* a terabyte: gcore(1) would write all of it, as zeroes */
    return at;
}

/* By libc's call, which sanitizers know. */
void *os_vm_map_stack(size_t bytes)
{
    if (fail_now(FAIL_MEM))
        return NULL;
    int saved = errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    errno = saved;
    return p != MAP_FAILED ? p : NULL;
}

int os_vm_commit(void *p, size_t bytes)
{
    int r = fail_now(FAIL_MEM) ? -ENOMEM : (int)sys_call3(SYS_mprotect, p, bytes, PROT_READ | PROT_WRITE);
    if (r == 0)
        sys_call3(SYS_madvise, p, bytes, MADV_DODUMP);
    return r;
}

int os_vm_release(void *p, size_t bytes, bool now)
{
    int r = now ? -EINVAL : (int)sys_call3(SYS_madvise, p, bytes, MADV_FREE);
    return r == -EINVAL ? (int)sys_call3(SYS_madvise, p, bytes, MADV_DONTNEED) : r;
}

void os_vm_free(void *p, size_t bytes)
{
    if (p != NULL && bytes != 0)
        sys_call2(SYS_munmap, p, bytes);
}

void os_vm_huge(void *p, size_t bytes) { sys_call3(SYS_madvise, p, bytes, MADV_HUGEPAGE); }
void os_vm_collapse(void *p, size_t bytes) { sys_call3(SYS_madvise, p, bytes, MADV_COLLAPSE); }

void os_vm_name(void *p, size_t bytes, const char *name)
{
    sys_call6(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)p, (long)bytes, (long)name, 0);
}

/* The kernel reads the word, unless it is at NULL, then finds that there is no such `how`: -EFAULT where it cannot be read. */
static bool can_read(uintptr_t p) { return p >= 8 && sys_call4(SYS_rt_sigprocmask, -1, w_align_down(p, 8), 0, 8) != -EFAULT; }

static w_no_sanitize size_t copy_readable(char *to, const char *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if ((i == 0 || (uintptr_t)(from + i) % 4096 == 0) && !can_read((uintptr_t)(from + i)))
            return i;
        to[i] = from[i];
    }
    return bytes;
}

size_t os_vm_peek(void *to, const void *from, size_t bytes)
{
    struct iovec local = { to, bytes }, remote[PEEK_PAGES + 1]; /* one per page: the kernel may give up a whole one */
    unsigned n = 0;
    w_assert(bytes <= PEEK_PAGES * 4096);
    for (uintptr_t p = (uintptr_t)from, end = p + bytes; p < end;) {
        uintptr_t next = w_min(w_align_down(p, 4096) + 4096, end);
        remote[n++] = (struct iovec){ (void *)p, next - p };
        p = next;
    }
    long r = sys_call6(SYS_process_vm_readv, sys_call0(SYS_getpid), (long)&local, 1, (long)remote, n, 0);
    if (r == -EFAULT)
        return 0;
    return r >= 0 ? (size_t)r : copy_readable(to, from, bytes);
}

size_t os_vm_limit_bytes(void)
{
    struct rlimit lim = { RLIM_INFINITY, RLIM_INFINITY };
    if (sys_call4(SYS_prlimit64, 0, RLIMIT_AS, 0, &lim) != 0 || lim.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    return lim.rlim_cur;
}
