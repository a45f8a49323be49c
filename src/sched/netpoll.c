/* Fibers that wait for descriptors.
 *
 * [POLL] A descriptor is registered with epoll once, edge-triggered, and no call of epoll_ctl follows until it is closed; but for one: writing is
 * watched from the first time a writer had to wait, since most never do, and each edge costs. Per direction there is a slot:
 *
 *      NIL ------ event ------> READY          nobody waits: the event is remembered for who comes
 *       ^                         |
 *       |<--- forget, prepare ----+            consumed, without waiting
 *       |
 *      NIL -- prepare --> WAIT -- park's commit --> fiber
 *                          | event: READY            | event: READY, and the fiber is made ready
 *                          | unblock: NIL            | unblock: NIL, the same
 *                          +--> the commit fails and makes the fiber ready at once
 *
 * and when the fiber runs again it exchanges the slot for NIL: READY tells it that there was an event.
 *
 * No wake-up is lost. The fiber forgets, then makes its system call, gets EAGAIN, then prepares. What made the descriptor ready before the call would
 * have been found by the call; what makes it ready after the call is a new edge, whose event comes after `forget` and therefore turns the slot to
 * READY either before `prepare` (which then does not wait), or before the commit (which then fails), or after it (and finds the fiber). A wake-up too
 * many is possible - an event that was on its way when the call was made, or one of the last owner of this memory - and harmless: every waiter tries
 * again and waits again.
 *
 * Late events. An event may be taken from epoll by one machine, and be delivered after another has closed the descriptor and used its struct fd anew.
 * So the memory of a struct fd stays one until the runtime ends, and an event carries a tag with the generation of the registration; of the tiny
 * rest, between the look at the tag and the change of the slot, comes a wake-up too many.
 *
 * After a short read. When a TCP socket had less than was asked for, the next call would only return EAGAIN: so the reader waits at once, as long
 * as netpoll_quiet() holds: no event since the `forget` before that read, and never one of the lasting kind. The end of the stream and errors come as
 * events of their own kind, which are kept in `seen`: if such a one was taken together with the data, nothing new will come, and from then on every
 * read makes its call. (Urgent data is among them, for reads stop short at its mark.) See io.c. */
#include "sched/netpoll.h"
#include "os/poller.h"
#include "sched/fd.h"
#include "sched/machine.h"
#include <errno.h>

#define EVENTS 128 /* in one call */

static struct {
    struct poller poller;
    w_u32 waiters; /* fibers in slots */
} net;

int netpoll_start(void)
{
    store_rlx(&net.waiters, 0); /* rlx: nobody else is there yet */
    fd_pool_init();
    return poller_open(&net.poller);
}

void netpoll_end(void)
{
    fd_pool_end();
    poller_close(&net.poller);
}

/* epoll's registrations belong to the parent as much as to us: what we changed there would be changed for it. */
int netpoll_after_fork(void)
{
    poller_close(&net.poller);
    store_rlx(&net.waiters, 0); /* rlx: nobody else is there yet */
    int err = poller_open(&net.poller);
    if (err == 0)
        fd_pool_after_fork();
    return err;
}

uint32_t netpoll_waiters(void)
{
    return load_seq(&net.waiters); /* seq: counted before a machine that parks a fiber goes idle, and looked at by who goes idle last */
}

void netpoll_break(void)
{
    poller_ring(&net.poller);
}

/* ---- registration -------------------------------------------------------------------------------------------- */

int netpoll_add(struct pollable *po, int fd, bool write, uint64_t tag)
{
    store_rlx(&po->slot[FD_READ], SLOT_NIL); /* rlx: a late event may turn it to READY: harmless */
    store_rlx(&po->slot[FD_WRITE], SLOT_NIL);
    store_rlx(&po->seen, 0);
    store_rel(&po->tag, tag); /* rel: publishes po; acq in deliver. The system call would order it as well */
    po->write_watched = write;
    return poller_add(&net.poller, fd, tag, write);
}

int netpoll_watch_write(struct pollable *po, int fd)
{
    if (likely(po->write_watched))
        return 0;
    /* rlx: we hold a reference; if it can be written just now, there will be an event */
    int r = poller_add_write(&net.poller, fd, load_rlx(&po->tag));
    po->write_watched = r == 0;
    return r;
}

void netpoll_remove(struct pollable *po, int fd)
{
    poller_remove(&net.poller, fd);
    store_rlx(&po->tag, 0); /* rlx: an event that still sees the old one is one too many, which is harmless */
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

bool netpoll_prepare(struct pollable *po, enum fd_dir dir)
{
    if (cas_rlx(&po->slot[dir], SLOT_NIL, SLOT_WAIT)) /* rlx: the commit publishes the fiber */
        return true;
    w_assert(load_rlx(&po->slot[dir]) == SLOT_READY); /* rlx: only we change READY */
    netpoll_forget(po, dir);
    return false;
}

/* A machine that parks a fiber comes to the scheduler, and polls there if it finds nothing else; but one that parks in place sleeps with it, without
 * a processor. If nobody polls then, somebody has to. seq: counted before the look; who goes idle becomes the poller or not, and then looks at the
 * count. */
static void park_in_slot(struct fiber *f, void *arg)
{
    w_uptr *slot = arg;
    add_seq(&net.waiters, 1);
    if (unlikely(m_self()->p == NULL) && load_seq(&sched.poll_until_ns) == 0)
        proc_wake();
    if (!cas_acq_rel(slot, SLOT_WAIT, (uintptr_t)f)) { /* rel: publishes the parked fiber; acq in take_waiter */
        sub_seq(&net.waiters, 1);
        sched_ready(f);
    }
}

bool netpoll_park(struct pollable *po, enum fd_dir dir)
{
    sched_park(park_in_slot, &po->slot[dir], WAIT_IO);
    return xchg_acq(&po->slot[dir], SLOT_NIL) == SLOT_READY; /* acq: seen, as in netpoll_forget */
}

/* The slot becomes `to`; returns the fiber that parked there. */
static struct fiber *take_waiter(struct pollable *po, enum fd_dir dir, uintptr_t to)
{
    for (;;) {
        uintptr_t old = load_rlx(&po->slot[dir]); /* rlx: checked by the exchange */
        if (old == to || (old == SLOT_READY && to == SLOT_NIL))
            return NULL;
        if (cas_acq_rel(&po->slot[dir], old, to)) /* acq: the parked fiber, rel in park_in_slot; rel: seen, acq in forget, quiet and park */
            return old > SLOT_WAIT ? (struct fiber *)old : NULL;
    }
}

struct fiber *netpoll_unblock(struct pollable *po, enum fd_dir dir)
{
    struct fiber *f = take_waiter(po, dir, SLOT_NIL);
    if (f != NULL)
        sub_seq(&net.waiters, 1);
    return f;
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

struct fiber_list { struct fiber *first, *last; uint32_t n; };

static void deliver_dir(struct pollable *po, enum fd_dir dir, struct fiber_list *list)
{
    struct fiber *f = take_waiter(po, dir, SLOT_READY);
    if (f == NULL)
        return;
    f->link.next = 0;
    if (list->last == NULL)
        list->first = f;
    else
        list->last->link.next = (runnable)f;
    list->last = f;
    list->n++;
}

static void deliver(const struct epoll_event *ev, struct fiber_list *list)
{
    struct pollable *po = tag_address(ev->data.u64);
    uint32_t events = ev->events, lasting = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI);
    if (ev->data.u64 != load_acq(&po->tag)) /* acq: sees po; rel in netpoll_add. If it is just changing, see netpoll_remove */
        return;
    if (lasting != 0)
        or_rlx(&po->seen, lasting); /* rlx: published by the change of the slot that follows, for these events concern reading too */
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
        deliver_dir(po, FD_READ, list);
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        deliver_dir(po, FD_WRITE, list);
}

struct fiber *netpoll(int64_t timeout_ns)
{
    struct epoll_event ev[EVENTS];
    struct fiber_list list = { 0 };
    int n = poller_wait(&net.poller, ev, EVENTS, timeout_ns);
    for (int i = 0; i < n; i++) /* an error is EINTR: the scheduler comes again */
        deliver(&ev[i], &list);
    if (list.n != 0)
        sub_seq(&net.waiters, list.n);
    return list.first;
}
