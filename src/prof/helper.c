/* Threads that do what neither fibers nor threads of the host may; see helper.h. Their stacks are ours, since libc keeps the stacks that it makes. */
#include "prof/helper.h"
#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/mman.h>
#include "base/atomic.h"
#include "base/fail.h"
#include "base/syscall.h"
#include "os/vm.h"
#include "sched/sched.h"
#include "sched/service.h"

static w_u32 files_shared; /* once known; the same in all helpers */

static void own_files(void)
{
    if (load_rlx(&files_shared) == 0 && sys_call3(SYS_close_range, 3, ~0u, CLOSE_RANGE_UNSHARE) != 0) /* rlx: a flag */
        store_rlx(&files_shared, 1);
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    if (!(h->flags & HELPER_HOSTS_FILES))
        own_files();
    struct service *s = service_begin(SERVICE_PROF);
    h->fn(h->arg);
    service_end(s);
    return NULL;
}

int helper_start(struct helper *h)
{
    h->stack = os_vm_map_stack(HELPER_STACK_BYTES);
    if (h->stack == NULL)
        return -ENOMEM;
    pthread_attr_t attr;
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV); /* the host's writer may write to the heap: os/dirty_mprotect.c */
    pthread_attr_init(&attr);
    int err = pthread_attr_setstack(&attr, h->stack, HELPER_STACK_BYTES);
    if (err == 0) {
        pthread_sigmask(SIG_SETMASK, &all, &old);
        err = fail_now(FAIL_THREAD) ? EAGAIN : pthread_create(&h->thread, &attr, helper_main, h);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    pthread_attr_destroy(&attr);
    if (err != 0)
        munmap(h->stack, HELPER_STACK_BYTES);
    return -err;
}

void helper_join(struct helper *h)
{
    pthread_join(h->thread, NULL);
    munmap(h->stack, HELPER_STACK_BYTES);
}

int helper_run(void (*fn)(void *arg), void *arg)
{
    struct helper h = { .fn = fn, .arg = arg };
    int err = helper_start(&h);
    if (err == 0)
        helper_join(&h);
    return err;
}

int helper_outside(struct m *m, int (*fn)(void *arg), void *arg)
{
    bool away = m->foreign;
    if (away)
        call_away(m);
    rt_leave(m);
    weft_blocking_begin();
    int err = fn(arg);
    weft_blocking_end();
    if (away)
        call_back(m);
    return err;
}
