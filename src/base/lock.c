/* The slow half of lock.h, and the order of locks in BUILD=debug.
 *
 * [LOCK] Word 0: free; 1: held, nobody sleeps; 2: held, somebody may sleep. Who cannot take it at once spins a little
 * (a holder needs well under a microsecond), then writes 2 and sleeps as long as it reads 2. Having slept, it takes
 * the lock as 2, for it cannot know whether others still sleep. Who frees a 2 wakes one.
 *
 * Each look takes the cache line away from the holder, which mostly wants the lock again at once. So looks become rarer, up to one in 64 pauses: two
 * processors on one channel then take turns of many elements instead of one, at 14 ns an element instead of 49. */
#include "base/lock.h"
#include <errno.h>
#include <linux/futex.h>
#include <time.h>
#include "base/syscall.h"

#define PAUSES_FIRST 4u  /* before the first look; twice as many before each further one */
#define PAUSES_MOST 64u
#define LOOKS 8

void lock_init(struct lock *l, enum lock_rank rank)
{
    *l = (struct lock)LOCK_INIT(rank);
}

static w_i64 waited_ns;

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void lock_slow(struct lock *l)
{
    unsigned pauses = PAUSES_FIRST;
    for (int i = 0; i < LOOKS; i++) {
        for (unsigned k = 0; k < pauses; k++)
            cpu_relax();
        pauses = w_min(2 * pauses, PAUSES_MOST);
        /* rlx: a look before the expensive try; cas_acq: as in lock_take */
        if (load_rlx(&l->word) == 0 && cas_acq(&l->word, 0, 1))
            return;
    }
    int64_t since_ns = now_ns();
    while (xchg_acq(&l->word, 2) != 0) /* acq: as in lock_take */
        sys_call4(SYS_futex, &l->word, FUTEX_WAIT_PRIVATE, 2, 0); /* any result: look again */
    add_rlx(&waited_ns, now_ns() - since_ns); /* rlx: a counter */
}

int64_t lock_waited_ns(void) { return load_rlx(&waited_ns); } /* rlx: as above */

void lock_wake(struct lock *l)
{
    sys_call3(SYS_futex, &l->word, FUTEX_WAKE_PRIVATE, 1);
}

#ifdef WEFT_CHECKS

/* Locks the thread holds, in order of taking. A fiber does not change thread while it holds a lock. */
#define MAX_HELD 64
static __thread struct { struct lock *lock[MAX_HELD]; unsigned n; } held;

/* Ranks of which one thread may hold several, in order of address. */
static bool rank_is_many(uint32_t rank)
{
    return rank == RANK_CHAN || rank == RANK_TIMER;
}

void lock_check_take(struct lock *l)
{
    if (l->rank == 0 || l->rank > RANK_DIRTY)
        w_fatal("lock %p was not initialised (rank %u)", (void *)l, l->rank);
    for (unsigned i = 0; i < held.n; i++) {
        struct lock *h = held.lock[i];
        if (h == l)
            w_fatal("lock %p of rank %u is taken twice by one thread", (void *)l, l->rank);
        if (h->rank > l->rank || (h->rank == l->rank && !(rank_is_many(l->rank) && h < l)))
            w_fatal("lock order: rank %u (%p) is taken while rank %u (%p) is held", l->rank, (void *)l, h->rank,
                    (void *)h);
    }
    if (held.n < MAX_HELD) /* a select over very many channels: those beyond are not checked */
        held.lock[held.n++] = l;
}

void lock_check_drop(struct lock *l)
{
    for (unsigned i = held.n; i > 0; i--) {
        if (held.lock[i - 1] == l) {
            for (; i < held.n; i++)
                held.lock[i - 1] = held.lock[i];
            held.n--;
            return;
        }
    }
    if (held.n < MAX_HELD)
        w_fatal("lock %p of rank %u is dropped by a thread that does not hold it", (void *)l, l->rank);
}

void lock_check_held(struct lock *l)
{
    for (unsigned i = 0; i < held.n; i++)
        if (held.lock[i] == l)
            return;
    if (held.n < MAX_HELD)
        w_fatal("lock %p of rank %u should be held here", (void *)l, l->rank);
}

#endif
