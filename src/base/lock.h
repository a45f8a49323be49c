/* Locks of the runtime, and their order.
 *
 * A lock is one word: 0 free, 1 held, 2 held with sleepers on a futex. Uncontended, taking it is one
 * compare-and-swap and giving it back one exchange. A holder is always inside the runtime ([ENTRY]), so a stop of the world
 * never meets a held lock in a thread it stopped; only the kernel can take the processor from a holder, hence the
 * short spin before sleeping.
 *
 * Order: a thread that holds a lock of rank r takes only locks of a higher rank (equal ranks only where
 * the enum says so and in address order). Checked in BUILD=debug. To add a lock: a line in the enum, in its place. A lock that is held when a fiber
 * parks, to be dropped by its commit function, is no leaf: the next fiber is taken up meanwhile. */
#ifndef WEFT_BASE_LOCK_H
#define WEFT_BASE_LOCK_H

#include "base/atomic.h"
#include "base/base.h"

enum lock_rank {
    RANK_MONITOR = 1, /* sched/sysmon.c: the monitor looks after others; held across a fork */
    RANK_FD,        /* sched/fd.c: one descriptor */
    RANK_USERTIMER, /* sched/usertimer.c: start and stop of one timer */
    RANK_CTX,       /* sched/ctx.c: a tree of contexts */
    RANK_CHAN,      /* sched/chan.c: a channel; several in address order (select) */
    RANK_LOT,       /* sched/lot.c: a bucket of waiters by address: mutex, rwmutex, cond, waitgroup, sema */
    RANK_WORKER,    /* sched/mutator.c: a fiber of the runtime that sleeps until poked */
    RANK_TIMER,     /* sched/timer.c: a processor's timer heap; several in address order */
    RANK_TAKE,      /* sched/world.c, sysmon.c: who may take processors away */
    RANK_SCHED,     /* sched/sched.c: global queue, idle lists */
    RANK_STACK,     /* sched/stack.c: arenas of stacks */
    RANK_FIN,       /* gc/finalize.c: queue of finalizers to run */
    RANK_CENTRAL,   /* gc/central.c: spans of one class and shape */
    RANK_SPECIAL,   /* gc/special.c: side tables of one span */
    RANK_HEAP,      /* gc/pages.c: the page allocator */
    RANK_ROOTS,     /* gc/roots.c */
    RANK_TYPES,     /* gc/type.c */
    RANK_LEAF,      /* holds nothing else inside; any number of kinds */
    RANK_DIRTY,     /* os/dirty_mprotect.c: protection of pages; taken by a write to the heap, whatever the writer holds */
};

struct lock {
    w_u32 word;
    uint32_t rank;
};

#define LOCK_INIT(r) { { 0 }, (r) }

void lock_init(struct lock *l, enum lock_rank rank);
void lock_slow(struct lock *l);   /* blocks the thread */
void lock_wake(struct lock *l);
int64_t lock_waited_ns(void);     /* how long threads have slept for locks, all together, since the library was loaded */
#ifdef WEFT_CHECKS
void lock_check_take(struct lock *l); /* ends the program on a rank violation */
void lock_check_drop(struct lock *l);
void lock_check_held(struct lock *l);
#else
static inline void lock_check_take(struct lock *l) { (void)l; }
static inline void lock_check_drop(struct lock *l) { (void)l; }
static inline void lock_check_held(struct lock *l) { (void)l; }
#endif

static inline void lock_take(struct lock *l)
{
    lock_check_take(l);
    if (unlikely(!cas_acq(&l->word, 0, 1))) /* acq: sees what the last holder wrote; rel in lock_drop */
        lock_slow(l);
}

static inline bool lock_try(struct lock *l)
{
    if (load_rlx(&l->word) != 0 || !cas_acq(&l->word, 0, 1))
        return false;
    lock_check_take(l);
    return true;
}

static inline void lock_drop(struct lock *l)
{
    lock_check_drop(l);
    if (unlikely(xchg_rel(&l->word, 0) == 2)) /* rel: publishes what was written under the lock; acq in lock_take */
        lock_wake(l);
}

#endif
