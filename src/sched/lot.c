/* The parking lot.
 *
 * [LOT] Whatever one waits for has an address. Addresses are hashed to buckets; a bucket has a lock and a tree of the addresses for which somebody
 * waits, each with its queue, first come first served. Waiters lie on the stacks of their fibers: nothing is allocated. (The idea: Linux's futexes;
 * Go's semaphores; WebKit's ParkingLot.)
 *
 * The owner of an address (a mutex, say) keeps flags in its own word that tell whether somebody waits, so that the usual case needs no bucket.
 * These flags change under the bucket's lock together with the queue. From this follows what the primitives here are built on:
 *
 *   - To wait: lock the bucket; look at the word once more; set the flag; lot_add, lot_park. Who frees the thing later sees the flag and comes to
 *     the bucket.
 *   - To wake: lock the bucket; if there is a first waiter, change the word on its behalf and lot_grant it. What is granted is done: the woken one
 *     does not compete for it.
 *   - As long as somebody waits, the word is there: the waiter has not returned from its call. So a waker that left the word free, and then comes
 *     to the bucket by the bare address, touches the word only if it finds a waiter. That is why a mutex may be freed by whoever locked it last,
 *     though another fiber may not have returned from its unlock. Should its memory be something else by then, say a semaphore, those who wait for
 *     that have another key; should it be a mutex again, one more look at its waiters does no harm.
 *
 * Deadlines. The timer's callback does not take the waiter out; it only wakes the fiber, once, under the bucket's lock. The fiber then locks the
 * bucket itself: if it has been granted meanwhile, then so be it, it succeeds; else it takes itself out, and with the bucket locked its caller puts
 * the flags right. So no grant is lost on one who gives up.
 *
 * Two steps. A condition must queue its waiter before it unlocks the mutex, and can park only after. lot_add alone makes the waiter LOT_QUEUED: who
 * grants it then has no fiber to wake, and lot_park returns at once.
 *
 * The tree is a treap: ordered by key, and as a heap by a hash of the key, which keeps it as flat as a random one. */
#include "sched/lot.h"
#include "sched/sched.h"
#include <errno.h>

#define BUCKETS_LOG2 8

static struct lot_bucket buckets[1 << BUCKETS_LOG2] = {
    [0 ... (1 << BUCKETS_LOG2) - 1] = { .lock = LOCK_INIT(RANK_LOT) },
};

/* All keys of an address fall into one bucket, as the smallest thing that is waited for has 4 bytes. */
static inline uint64_t hash(uintptr_t key)
{
    return (uint64_t)(key >> 2) * 0x9e3779b97f4a7c15u;
}

struct lot_bucket *lot_lock(const void *addr)
{
    struct lot_bucket *b = &buckets[hash((uintptr_t)addr) >> (64 - BUCKETS_LOG2)];
    lock_take(&b->lock);
    return b;
}

/* ---- the tree --------------------------------------------------------------------------------------------- */

/* Where the key is, or would be. */
static inline struct lot_waiter **find(struct lot_bucket *b, uintptr_t key)
{
    lock_check_held(&b->lock);
    struct lot_waiter **at = &b->root;
    while (*at != NULL && (*at)->key != key)
        at = key < (*at)->key ? &(*at)->left : &(*at)->right;
    return at;
}

static void tree_insert(struct lot_bucket *b, struct lot_waiter *w)
{
    struct lot_waiter **at = &b->root;
    while (*at != NULL && (*at)->prio > w->prio)
        at = w->key < (*at)->key ? &(*at)->left : &(*at)->right;
    /* The rest is split by the key. */
    struct lot_waiter *rest = *at, **less = &w->left, **more = &w->right;
    *at = w;
    while (rest != NULL) {
        if (rest->key < w->key) {
            *less = rest;
            less = &rest->right;
            rest = *less;
        } else {
            *more = rest;
            more = &rest->left;
            rest = *more;
        }
    }
    *less = *more = NULL;
}

static void tree_remove(struct lot_waiter **at)
{
    struct lot_waiter *l = (*at)->left, *r = (*at)->right;
    while (l != NULL && r != NULL) {
        if (l->prio > r->prio) {
            *at = l;
            at = &l->right;
            l = *at;
        } else {
            *at = r;
            at = &r->left;
            r = *at;
        }
    }
    *at = l != NULL ? l : r;
}

/* w takes the place of old. */
static void tree_replace(struct lot_waiter **at, struct lot_waiter *w)
{
    w->left = (*at)->left;
    w->right = (*at)->right;
    *at = w;
}

/* ---- queues ------------------------------------------------------------------------------------------------- */

struct lot_waiter *lot_first(struct lot_bucket *b, uintptr_t key)
{
    return *find(b, key);
}

void lot_add(struct lot_bucket *b, struct lot_waiter *w, uintptr_t key, bool front)
{
    w->fiber = m_self()->cur;
    w->key = key;
    struct lot_waiter **at = find(b, key), *first = *at;
    if (first == NULL) {
        w->next = w->prev = w;
        w->prio = (uint32_t)(hash(key) >> 16) ^ (uint32_t)(key & 3);
        tree_insert(b, w);
        return;
    }
    w->prio = first->prio;
    w->next = first;
    w->prev = first->prev;
    w->prev->next = w;
    first->prev = w;
    if (front)
        tree_replace(at, w);
}

static void take_out(struct lot_bucket *b, struct lot_waiter *w)
{
    struct lot_waiter **at = find(b, w->key);
    if (*at == w) {
        if (lot_is_last(w))
            tree_remove(at);
        else
            tree_replace(at, w->next);
    }
    w->prev->next = w->next;
    w->next->prev = w->prev;
}

static struct fiber *granted(struct lot_waiter *w)
{
    w->granted = true;
    if (w->where != LOT_PARKED)
        return NULL;
    w->where = LOT_AWAKE;
    return w->fiber;
}

struct fiber *lot_grant(struct lot_bucket *b, struct lot_waiter *w)
{
    take_out(b, w);
    return granted(w);
}

struct fiber *lot_grant_all(struct lot_bucket *b, uintptr_t key, uint32_t *n)
{
    struct lot_waiter **at = find(b, key), *first = *at, *w = first;
    struct fiber *chain = NULL, **end = &chain;
    *n = 0;
    if (first == NULL)
        return NULL;
    tree_remove(at);
    do {
        struct lot_waiter *next = w->next;
        struct fiber *f = granted(w);
        ++*n;
        if (f != NULL) {
            *end = f;
            end = (struct fiber **)&f->link.next;
        }
        w = next;
    } while (w != first);
    *end = NULL;
    return chain;
}

void lot_ready_all(struct fiber *chain)
{
    while (chain != NULL) {
        struct fiber *f = chain;
        chain = run_fiber(f->link.next);
        sched_ready_tail(f);
    }
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

struct timed {
    struct timer timer;
    struct lot_bucket *bucket;
    struct lot_waiter *w;
};

static void deadline_passed(void *arg, int64_t now_ns)
{
    (void)now_ns;
    struct timed *t = arg;
    struct lot_waiter *w = t->w;
    struct fiber *f = NULL;
    lock_take(&t->bucket->lock);
    if (w->where == LOT_PARKED) {
        w->where = LOT_AWAKE;
        f = w->fiber;
    }
    lock_drop(&t->bucket->lock);
    if (f != NULL)
        sched_ready(f);
}

static w_noinline int park_timed(struct lot_bucket *b, struct lot_waiter *w, int64_t deadline, enum wait_reason why)
{
    struct timed t = { .timer = { .fn = deadline_passed, .arg = &t }, .bucket = b, .w = w };
    timer_start(&t.timer, deadline); /* if it is due at once, the callback waits for the bucket until we are parked */
    sched_park(park_unlock, &b->lock, why);
    timer_stop(&t.timer); /* without the bucket's lock, for which the callback may be waiting */
    lock_take(&b->lock);
    if (w->granted) {
        lock_drop(&b->lock);
        return 0;
    }
    take_out(b, w);
    return -ETIMEDOUT;
}

int lot_park(struct lot_bucket *b, struct lot_waiter *w, int64_t deadline, enum wait_reason why)
{
    lock_check_held(&b->lock);
    if (w->granted) {
        lock_drop(&b->lock);
        return 0;
    }
    w->where = LOT_PARKED;
    fiber_waits_on(w->fiber, deadline == 0 ? lot_addr(w->key) : NULL);
    if (deadline != 0)
        return park_timed(b, w, deadline, why);
    sched_park(park_unlock, &b->lock, why);
    return 0;
}

void lot_reset(void)
{
    for (unsigned i = 0; i < w_countof(buckets); i++) {
        lock_init(&buckets[i].lock, RANK_LOT);
        buckets[i].root = NULL;
    }
}
