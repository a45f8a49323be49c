/* Descriptors: lifetime, turns, deadlines. See the essay in fd.c. All calls are made inside the runtime unless they say otherwise. */
#ifndef WEFT_SCHED_FD_H
#define WEFT_SCHED_FD_H

#include "sched/netpoll.h"
#include <weft/io.h>

/* word: flags, and above them the number of references. [FD] */
#define FD_CLOSED UINT64_C(1)
#define FD_BUSY(dir) (UINT64_C(2) << (dir))
#define FD_QUEUED(dir) (UINT64_C(8) << (dir))
#define FD_REF UINT64_C(64)

enum { FD_IS_SOCKET = 1, FD_IS_TCP = 2 };

struct fd_waiter {
    struct fd_waiter *next;
    struct fiber *fiber;
    int result;
};

struct fd_side {
    struct weft_fd *fd;
    w_i64 deadline_ns;      /* 0: none. Written under lock */
    /* lock */
    struct fd_waiter *first, *last; /* who waits for his turn */
    bool armed;             /* timer is in a heap, or its callback is about to take the lock */
    int64_t armed_ns;
    struct timer timer;     /* runs out at the deadline or before it */
    /* who has the turn */
    bool drained;           /* the last read got less than it asked for: see io.c */
    int error;              /* of a call that had got or given some bytes: for the next one */
};

struct weft_fd {
    struct pollable poll;
    w_u64 word;
    /* fixed while open */
    int fd;                 /* -1: none. Closed by who drops the last reference, or with the runtime */
    uint8_t flags;
    struct lock lock;       /* RANK_FD */
    struct fd_side side[2];
    struct weft_fd *next_free, *next_made; /* the pool's */
} w_aligned(W_CACHELINE);

/* A weft_fd without a descriptor, open, with one reference less than any call needs. NULL: no memory. */
struct weft_fd *fd_new(void);
/* Takes back what fd_new gave and nobody else has seen; closes its descriptor, if any. */
void fd_discard(struct weft_fd *f);
void fd_pool_init(void);
void fd_pool_end(void);  /* closes every descriptor that is still open */

/* The caller's turn in one direction, with a reference: 0, -ECANCELED. May park. */
int fd_begin_slow(struct weft_fd *f, enum fd_dir dir);
void fd_end_slow(struct weft_fd *f, enum fd_dir dir); /* may leave and enter the runtime */
/* A reference without a turn. */
int fd_hold(struct weft_fd *f);
void fd_drop(struct weft_fd *f);                      /* may leave and enter the runtime */

/* The deadline of this direction has passed. */
bool fd_late(struct weft_fd *f, enum fd_dir dir);
/* Waits, having the turn, until the direction may be ready: 0, -ETIMEDOUT, -ECANCELED, or an error of epoll. */
int fd_wait(struct weft_fd *f, enum fd_dir dir);

/* From user code: connects a socket that is not registered yet, and registers it. 0, or a negative errno as of weft_connect. */
int fd_connect_new(struct weft_fd *f, const struct sockaddr *to, socklen_t tolen);

static inline int fd_begin(struct weft_fd *f, enum fd_dir dir)
{
    uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
    if (likely(!(w & (FD_CLOSED | FD_BUSY(dir)))) && likely(cas_acq(&f->word, w, (w | FD_BUSY(dir)) + FD_REF))) /* acq: what the last holder wrote; rel in fd_end */
        return 0;
    return fd_begin_slow(f, dir);
}

/* Inside or outside of the runtime: false: call fd_end_slow, inside. */
static inline bool fd_end_try(struct weft_fd *f, enum fd_dir dir)
{
    uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
    return likely(!(w & (FD_CLOSED | FD_QUEUED(dir)))) && cas_rel(&f->word, w, (w & ~FD_BUSY(dir)) - FD_REF); /* rel: what the holder wrote; acq in fd_begin */
}

#endif
