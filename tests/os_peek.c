/* os_vm_peek: memory of which parts may be missing, read through the kernel, and where a sandbox does not allow that. */
#include "test.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "os/vm.h"

static char *pages; /* of four the third is not there */

static void make_pages(void)
{
    pages = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(pages, MAP_FAILED);
    for (int i = 0; i < 4 * 4096; i++)
        pages[i] = (char)(i * 7);
    cr_assert_eq(munmap(pages + 2 * 4096, 4096), 0);
}

static void peeks(void)
{
    static char to[32768];
    for (size_t from = 0; from < 4 * 4096; from += 251)
        for (size_t n = 1; from + n <= 4 * 4096; n += 397) {
            size_t want = from < 2 * 4096 ? (from + n <= 2 * 4096 ? n : 2 * 4096 - from) : from < 3 * 4096 ? 0 : n;
            memset(to, 0x55, n);
            cr_assert_eq(os_vm_peek(to, pages + from, n), want, "%zu bytes from %zu", n, from);
            for (size_t i = 0; i < want; i += 61)
                cr_assert_eq(to[i], (char)((from + i) * 7));
        }
    cr_assert_eq(os_vm_peek(to, NULL, 8), 0);
    cr_assert_eq(errno, 0);
}

Test(os_peek, what_is_missing_is_left_out)
{
    make_pages();
    errno = 0;
    peeks();
}

Test(os_peek, in_a_sandbox)
{
    struct sock_filter deny[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { sizeof deny / sizeof deny[0], deny };
    make_pages();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0)
        return; /* no filters here, under emulation: then the call itself may be missing, which the other test sees */
    errno = 0;
    peeks();
}
