/* Descriptors: lifetime, turns, deadlines. See the essay in fd.c. All calls are made inside the runtime unless they say otherwise. */
#ifndef WEFT_SCHED_FD_H
#define WEFT_SCHED_FD_H

#include "sched/netpoll.h"
#include <weft/io.h>

/* word: flags, above them 26 bits with the number of references, then the generation. [FD] */
#define FD_CLOSED UINT64_C(1)
#define FD_BUSY(dir) (UINT64_C(2) << (dir))
#define FD_QUEUED(dir) (UINT64_C(8) << (dir))
#define FD_REF UINT64_C(64)
#define FD_REFS (UINT64_C(0xffffffff) & ~UINT64_C(63))
#define FD_GENERATION (~UINT64_C(0xffffffff))

enum { FD_IS_SOCKET = 1, FD_IS_TCP = 2, FD_IS_FILE = 4 /* epoll cannot watch it: [FILE] in io.c */ };

struct fd_waiter {
    struct fd_waiter *next;
    struct fiber *fiber;
    int result;
};

struct fd_side {
    struct fd *fd;
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

/* What a weft_fd * names: a tag, not an address; see [FD]. */
struct fd {
    struct pollable poll;
    w_u64 word;
    /* fixed while open */
    int fd;                 /* -1: none. Closed by who drops the last reference, or with the runtime */
    uint8_t flags;
    struct lock lock;       /* RANK_FD */
    struct fd_side side[2];
    struct fd *next_free, *next_made; /* the pool's */
} w_aligned(W_CACHELINE);

static inline struct fd *fd_at(const weft_fd *h) { return tag_address((uintptr_t)h); }
/* The bits of the word that say that h is of this generation. */
static inline uint64_t fd_generation(const weft_fd *h) { return (uint64_t)tag_generation((uintptr_t)h) << 32; }
/* The name of f as it is now. */
static inline uint64_t fd_tag(struct fd *f) { return tag_make(f, (uint32_t)(load_rlx(&f->word) >> 32)); } /* rlx: fixed while open */
static inline weft_fd *fd_handle(struct fd *f) { return (weft_fd *)(uintptr_t)fd_tag(f); }

/* One without a descriptor, open, nobody's. NULL: no memory. */
struct fd *fd_new(void);
/* Takes back what fd_new gave and nobody else has seen; closes its descriptor, if any. */
void fd_discard(struct fd *f);
uint32_t fd_count(void); /* how many there are; any time */
void fd_pool_init(void);
void fd_pool_after_fork(void); /* in the child: nobody uses or waits for any, and all are watched by a poller that is new */
void fd_pool_end(void);  /* closes every descriptor that is still open */

/* The caller's turn in one direction, with a reference: 0, -ECANCELED. May park. */
int fd_begin_slow(weft_fd *h, enum fd_dir dir);
void fd_end_slow(struct fd *f, enum fd_dir dir); /* may leave and enter the runtime */
/* A reference without a turn. */
int fd_hold(const weft_fd *h);
void fd_drop(struct fd *f);                      /* may leave and enter the runtime */

/* The deadline of this direction has passed. */
bool fd_late(struct fd *f, enum fd_dir dir);
/* Waits, having the turn, until the direction may be ready: 0, -ETIMEDOUT, -ECANCELED, or an error of epoll. */
int fd_wait(struct fd *f, enum fd_dir dir);

/* From user code: connects a socket that is not registered yet, and registers it. 0, or a negative errno as of weft_connect. */
int fd_connect_new(struct fd *f, const struct sockaddr *to, socklen_t tolen);

static inline int fd_begin(weft_fd *h, enum fd_dir dir)
{
    struct fd *f = fd_at(h);
    uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
    if (likely(((w ^ fd_generation(h)) & (FD_GENERATION | FD_CLOSED | FD_BUSY(dir))) == 0) &&
        likely(cas_acq(&f->word, w, (w | FD_BUSY(dir)) + FD_REF))) /* acq: what the last holder wrote; rel in fd_end */
        return 0;
    return fd_begin_slow(h, dir);
}

/* Inside or outside of the runtime: false: call fd_end_slow, inside. */
static inline bool fd_end_try(struct fd *f, enum fd_dir dir)
{
    uint64_t w = load_rlx(&f->word); /* rlx: checked by the exchange */
    /* rel: what the holder wrote; acq in fd_begin */
    return likely(!(w & (FD_CLOSED | FD_QUEUED(dir)))) && cas_rel(&f->word, w, (w & ~FD_BUSY(dir)) - FD_REF);
}

#endif
