/* Waiting until a descriptor is ready: see the essay in netpoll.c. The calls of the scheduler (netpoll, netpoll_break, ...) are in sched.h. */
#ifndef WEFT_SCHED_NETPOLL_H
#define WEFT_SCHED_NETPOLL_H

#include "sched/sched.h"

enum fd_dir { FD_READ, FD_WRITE };

/* The beginning of a struct fd. Its memory stays a pollable till the runtime ends, aligned to 64, since events may come late. */
struct pollable {
    w_uptr slot[2];      /* by direction, [POLL] */
    w_u64 tag;           /* of the registration: comes with each event. 0: none */
    w_u32 seen;          /* events of the lasting kind that were seen: the end, errors, urgent data */
    bool write_watched;  /* holder of FD_WRITE */
};

/* An address and its generation in one word, for those who may come late: user addresses leave 16 bits above, the alignment 6 below. */
#define TAG_GENERATIONS (1u << 22)
static inline uint64_t tag_make(const void *at, uint32_t generation)
{
    return (uint64_t)(generation >> 6) << 48 | (uintptr_t)at | (generation & 63);
}
static inline void *tag_address(uint64_t tag) { return (void *)(uintptr_t)(tag & ((UINT64_C(1) << 48) - 64)); }
static inline uint32_t tag_generation(uint64_t tag) { return (uint32_t)(tag >> 48) << 6 | (uint32_t)(tag & 63); }

/* Registers fd; 0 or negative errno. tag is made of po. */
int netpoll_add(struct pollable *po, int fd, bool write, uint64_t tag);
/* The caller is about to wait for writing: watches that from now on. */
int netpoll_watch_write(struct pollable *po, int fd);
void netpoll_remove(struct pollable *po, int fd);

/* Forgets that the direction became ready, before a system call that will find out itself; true: it had. */
static inline bool netpoll_forget(struct pollable *po, enum fd_dir dir);
/* Nothing has happened since netpoll_forget, and nothing lasting before. */
static inline bool netpoll_quiet(struct pollable *po, enum fd_dir dir);

/* Waiting, in two steps, one fiber per direction at a time. prepare: false: it became ready, do not wait. Between the two the caller looks at reasons
 * not to wait under the lock that also guards netpoll_unblock. park: true: it became ready; false: unblocked. */
bool netpoll_prepare(struct pollable *po, enum fd_dir dir);
bool netpoll_park(struct pollable *po, enum fd_dir dir);
static inline bool netpoll_waited_for(struct pollable *po, enum fd_dir dir);
/* Ends a wait without the direction being ready. The fiber returned, if any, is to be made ready by the caller. */
struct fiber *netpoll_unblock(struct pollable *po, enum fd_dir dir);

/* ---- inline ---- */

enum { SLOT_NIL = 0, SLOT_READY = 1, SLOT_WAIT = 2 /* else a struct fiber */ };

static inline bool netpoll_forget(struct pollable *po, enum fd_dir dir)
{
    return load_rlx(&po->slot[dir]) == SLOT_READY && /* rlx: if it becomes ready just now, that is remembered, which is right too */
           cas_acq(&po->slot[dir], SLOT_READY, SLOT_NIL); /* acq: seen, written before; rel in take_waiter */
}

static inline bool netpoll_quiet(struct pollable *po, enum fd_dir dir)
{
    return load_acq(&po->slot[dir]) == SLOT_NIL && load_rlx(&po->seen) == 0; /* acq: as in netpoll_forget; rlx: behind it */
}

static inline bool netpoll_waited_for(struct pollable *po, enum fd_dir dir)
{
    return load_rlx(&po->slot[dir]) >= SLOT_WAIT; /* rlx: WAIT is written under the lock the caller holds */
}

#endif
