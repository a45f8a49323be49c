/* The parking lot: queues of waiting fibers by address. Mutexes, read-write locks, conditions, wait groups and semaphores wait here, so
 * that each of them is a word or two. See the essay in lot.c ([LOT]). Everything is called inside the runtime. */
#ifndef WEFT_SCHED_LOT_H
#define WEFT_SCHED_LOT_H

#include "base/lock.h"
#include "sched/fiber.h"

enum lot_where { LOT_QUEUED, LOT_PARKED, LOT_AWAKE };

/* What is waited for at an address: the low two bits of the key. Mutexes and read-write locks have kinds of their own, since who unlocks one may come
 * late ([LOT]). */
enum lot_kind { LOT_ANY, LOT_MUTEX, LOT_READER, LOT_WRITER };
static inline uintptr_t lot_key(const void *addr, enum lot_kind kind) { return (uintptr_t)addr + kind; }
static inline const void *lot_addr(uintptr_t key) { return (const void *)(key & ~(uintptr_t)3); }

/* On the stack of the fiber that waits. All under the bucket's lock. */
struct lot_waiter {
    struct lot_waiter *left, *right; /* tree of the bucket; of the first of its key only */
    struct lot_waiter *next, *prev;  /* ring of those with the same key; first->prev is the last */
    uintptr_t key;
    struct fiber *fiber;
    int64_t since_ns;   /* the caller's */
    uint32_t prio;
    uint8_t where;      /* enum lot_where */
    bool granted;       /* taken out by lot_grant: its wait is over */
    bool handed;        /* the granter's word to the waiter, as it likes */
};

struct lot_bucket {
    struct lock lock; /* RANK_LOT */
    struct lot_waiter *root;
} w_aligned(64);

/* The bucket of an address, which is that of all its keys, locked. */
struct lot_bucket *lot_lock(const void *addr);
static inline void lot_unlock(struct lot_bucket *b) { lock_drop(&b->lock); }

/* With b locked: */
struct lot_waiter *lot_first(struct lot_bucket *b, uintptr_t key); /* NULL: nobody waits */
static inline bool lot_is_last(const struct lot_waiter *w) { return w->next == w; } /* nobody else waits for its key */
void lot_add(struct lot_bucket *b, struct lot_waiter *w, uintptr_t key, bool front); /* the calling fiber; w zeroed, but since_ns */
/* Takes w out. The fiber to ready, after the bucket is unlocked; NULL: it is awake, and will find out. */
struct fiber *lot_grant(struct lot_bucket *b, struct lot_waiter *w);
/* Takes all of a key out and chains the fibers to ready by link.next, in order; returns their number in *n (those awake included). */
struct fiber *lot_grant_all(struct lot_bucket *b, uintptr_t key, uint32_t *n);
/* Readies such a chain. */
void lot_ready_all(struct fiber *chain);

/* Parks until granted, or the deadline (0: none). 0: granted, b is unlocked. -ETIMEDOUT: w is out of the queue, and b is locked (again), so that
 * the caller can put its flags right. */
int lot_park(struct lot_bucket *b, struct lot_waiter *w, int64_t deadline, enum wait_reason why);

/* Forgets all who wait: when the runtime ends. */
void lot_reset(void);

#endif
