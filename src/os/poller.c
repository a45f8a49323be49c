#include "os/poller.h"
#include "base/fail.h"
#include "base/syscall.h"
#include <errno.h>
#include <linux/time_types.h>
#include <sys/eventfd.h>

#define WATCH_READ (EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET)

static int control(struct poller *po, int op, int fd, uint32_t events, uint64_t tag)
{
    struct epoll_event ev = { .events = events, .data.u64 = tag };
    return (int)sys_call4(SYS_epoll_ctl, po->epoll_fd, op, fd, &ev);
}

int poller_open(struct poller *po)
{
    *po = (struct poller){ .epoll_fd = -1, .bell_fd = -1 };
    int r = fail_now(FAIL_FD) ? -EMFILE : (int)sys_call1(SYS_epoll_create1, EPOLL_CLOEXEC);
    if (r < 0)
        return r;
    po->epoll_fd = r;
    r = fail_now(FAIL_FD) ? -EMFILE : (int)sys_call2(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r >= 0) {
        po->bell_fd = r;
        r = control(po, EPOLL_CTL_ADD, po->bell_fd, EPOLLIN, 0);
    }
    if (r < 0)
        poller_close(po);
    return r;
}

void poller_close(struct poller *po)
{
    if (po->bell_fd >= 0)
        sys_call1(SYS_close, po->bell_fd);
    if (po->epoll_fd >= 0)
        sys_call1(SYS_close, po->epoll_fd);
    po->bell_fd = po->epoll_fd = -1;
}

int poller_add(struct poller *po, int fd, uint64_t tag, bool write)
{
    return control(po, EPOLL_CTL_ADD, fd, WATCH_READ | (write ? EPOLLOUT : 0), tag);
}

int poller_add_write(struct poller *po, int fd, uint64_t tag)
{
    return control(po, EPOLL_CTL_MOD, fd, WATCH_READ | EPOLLOUT, tag);
}

void poller_remove(struct poller *po, int fd)
{
    control(po, EPOLL_CTL_DEL, fd, 0, 0);
}

static int wait_call(struct poller *po, struct epoll_event *ev, int n, int64_t timeout_ns)
{
    int ms = timeout_ns < 0 ? -1 : 0;
    if (timeout_ns > 0 && load_rlx(&po->no_pwait2) == 0) { /* rlx: a hint, found out again if missed */
        struct __kernel_timespec ts = { timeout_ns / 1000000000, timeout_ns % 1000000000 };
        long r = sys_call6(SYS_epoll_pwait2, po->epoll_fd, (long)ev, n, (long)&ts, 0, 0);
        if (r != -ENOSYS && r != -EPERM) /* EPERM: a sandbox that does not know the call */
            return (int)r;
        store_rlx(&po->no_pwait2, 1); /* rlx: as above */
    }
    if (timeout_ns > 0)
        ms = timeout_ns > INT32_MAX * INT64_C(1000000) ? INT32_MAX : (int)((timeout_ns + 999999) / 1000000);
    return (int)sys_call6(SYS_epoll_pwait, po->epoll_fd, (long)ev, n, ms, 0, 8);
}

static void hear_bell(struct poller *po)
{
    uint64_t count;
    sys_call3(SYS_read, po->bell_fd, &count, sizeof count);
    /* An exchange, acq_rel: a ringer who still found the bell rung, and so did not write, did his work before; we see it (his xchg in poller_ring),
     * and the caller looks for work after we return. */
    xchg_acq_rel(&po->rung, 0);
}

int poller_wait(struct poller *po, struct epoll_event *ev, int n, int64_t timeout_ns)
{
    int got = wait_call(po, ev, n, timeout_ns);
    int kept = 0;
    for (int i = 0; i < got; i++) {
        if (ev[i].data.u64 != 0)
            ev[kept++] = ev[i];
        else if (timeout_ns != 0)
            hear_bell(po);
    }
    return got < 0 ? got : kept;
}

void poller_ring(struct poller *po)
{
    if (xchg_acq_rel(&po->rung, 1) != 0) /* rel: what the ringer did before; acq in hear_bell */
        return;
    uint64_t one = 1;
    sys_call3(SYS_write, po->bell_fd, &one, sizeof one);
}
