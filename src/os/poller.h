/* epoll: which descriptors became ready, and a bell that wakes who waits for that.
 *
 * Registration is edge-triggered: an event comes when something new happens, once. The bell is a level-triggered eventfd: it stays rung until a
 * waiting call (timeout not 0) has heard it, since a call that only looks may be served first and must not swallow it for the other.
 * Results are 0 or a negative errno; errno is left alone. */
#ifndef WEFT_OS_POLLER_H
#define WEFT_OS_POLLER_H

#include "base/atomic.h"
#include "base/base.h"
#include <sys/epoll.h>

struct poller {
    int epoll_fd, bell_fd;
    w_u32 rung;      /* the bell has been rung and not been heard: once is enough */
    w_u32 no_pwait2; /* the kernel has no epoll_pwait2 (before 5.11): milliseconds, rounded up */
};

int poller_open(struct poller *po);
void poller_close(struct poller *po);
/* tag comes back with every event of fd; not 0. Reading, the end of the stream and errors are watched; poller_add_write adds writing. */
int poller_add(struct poller *po, int fd, uint64_t tag, bool write);
int poller_add_write(struct poller *po, int fd, uint64_t tag);
void poller_remove(struct poller *po, int fd);
/* Events into ev, at most n; the bell is not among them. timeout_ns 0: looks only; < 0: waits for ever. -EINTR: a signal came. */
int poller_wait(struct poller *po, struct epoll_event *ev, int n, int64_t timeout_ns);
/* Wakes one waiting call, now or the next. Any thread. */
void poller_ring(struct poller *po);

#endif
