/* Mutexes. The rules are Go's; the queue is the parking lot's ([LOT]), not a count and a semaphore.
 *
 * [MUTEX] One word:
 *      LOCKED     somebody owns it
 *      PARKED     somebody waits in the lot; as of the bucket's lock
 *      WOKEN      somebody is awake and tries for it (a woken waiter, or one that spins): an unlock need not wake another
 *      STARVING   the first waiter has waited for more than 1 ms: the lock is handed over in order, and nobody else may take it
 *
 * Normal mode: unlock makes the mutex free and wakes the first waiter, which competes with those who come by. These run already and are likely to
 * win, which is good for throughput. A waiter that loses queues again, in front. If it has waited for more than 1 ms by then, it turns STARVING on.
 *
 * Starvation mode: unlock hands the lock to the first waiter: LOCKED is set on its behalf, under the bucket's lock. Those who come by do not spin
 * and do not try, they queue at the end. The mode ends when the waiter that gets the lock was the last or had waited for less than 1 ms, from the
 * first time it queued.
 *
 * The fast path in the header leaves the word without LOCKED before it comes to weft_mutex_unlock_slow. From then on the mutex may be locked,
 * unlocked and freed by others; so the slow path goes by the address alone, until it has found a waiter ([LOT]). Of two such unlockers on their way
 * the first to get the bucket does what there is to do, and the other finds LOCKED or WOKEN set, or nobody waiting.
 *
 * No lost wake-up: PARKED is set, and WOKEN given up, by a compare-and-swap on a word that has LOCKED or STARVING. LOCKED: its owner is still to
 * unlock, and will see PARKED without WOKEN. STARVING without LOCKED: an unlocker is on its way to the bucket.
 *
 * Giving up (deadline): a waiter that takes itself out, the last one, clears PARKED and STARVING under the bucket's lock. One that was woken, and
 * so owes the others the attention that WOKEN took from them, gives WOKEN back only on a word that is LOCKED, else it takes the lock after all. */
#include "sched/latency.h"
#include "sched/lot.h"
#include "sched/sched.h"
#include <errno.h>
#include <weft/sync.h>

#define LOCKED 1u
#define PARKED 2u
#define WOKEN 4u
#define STARVING 8u

#define STARVING_NS 1000000
#define SPIN_ROUNDS 4
#define SPIN_PAUSES 30

static inline w_u32 *word(weft_mutex *m) { return (w_u32 *)&m->state; }
static inline uintptr_t key(weft_mutex *m) { return lot_key(m, LOT_MUTEX); }

/* Spinning pays if the owner runs on another processor, and nothing else wants ours. */
static bool can_spin(struct m *m, int round)
{
    if (round >= SPIN_ROUNDS || sched.ncpu < 2)
        return false;
    uint32_t unused = load_rlx(&sched.nidle_p) + load_rlx(&sched.nspinning); /* rlx: heuristics */
    if (nprocs() <= unused + 1)
        return false;
    struct p *p = m->p;
    return load_rlx(&p->runq.head) == load_rlx(&p->runq.tail) && load_rlx(&p->runq.next) == NULL; /* rlx: as above */
}

static void spin(void)
{
    for (int i = 0; i < SPIN_PAUSES; i++)
        cpu_relax();
}

/* Ends an attempt that does not want to wait any longer: takes the lock if it is free, else gives WOKEN back if it was ours. */
static int give_up(weft_mutex *m, bool awoke)
{
    uint32_t old = load_rlx(word(m)), now; /* rlx: checked by the cas */
    do {
        bool taken = old & (LOCKED | STARVING);
        if (taken && !awoke)
            return -ETIMEDOUT;
        now = (taken ? old : old | LOCKED) & ~(awoke ? WOKEN : 0);
        if (cas_acq(word(m), old, now)) /* acq: as in weft_mutex_lock, if it is */
            return taken ? -ETIMEDOUT : 0;
        old = load_rlx(word(m)); /* rlx: as above */
    } while (true);
}

/* Sets PARKED (and STARVING), clears WOKEN if it is ours. False: it can be had. The bucket is locked. */
static bool announce(weft_mutex *m, bool awoke, bool starving)
{
    uint32_t old = load_rlx(word(m)), now; /* rlx: checked by the cas */
    do {
        if (!(old & (LOCKED | STARVING)))
            return false;
        now = (old | PARKED | (starving ? STARVING : 0)) & ~(awoke ? WOKEN : 0);
        if (cas_rlx(word(m), old, now)) /* rlx: what it guards lies under the bucket's lock */
            return true;
        old = load_rlx(word(m)); /* rlx: as above */
    } while (true);
}

/* We own it. Who comes next has not waited for longer than we have. */
static void calm_down(weft_mutex *m, int64_t began_ns)
{
    if (sched_now_ns() - began_ns < STARVING_NS)
        and_rlx(word(m), ~STARVING); /* rlx: with LOCKED it guards nothing */
}

/* Inside the runtime. */
static int lock_inside(weft_mutex *m, int64_t deadline)
{
    bool awoke = false;
    int round = 0;
    int64_t began = 0;
    for (;;) {
        uint32_t old = load_rlx(word(m)); /* rlx: checked by the cas */
        if (!(old & (LOCKED | STARVING))) {
            if (cas_acq(word(m), old, (old | LOCKED) & ~(awoke ? WOKEN : 0))) /* acq: sees what the last owner wrote; rel in weft_mutex_unlock */
                return 0;
            continue;
        }
        if (!(old & STARVING) && can_spin(m_self(), round)) {
            if (!awoke && (old & (PARKED | WOKEN)) == PARKED && cas_rlx(word(m), old, old | WOKEN)) /* rlx: a hint to unlockers */
                awoke = true;
            spin();
            round++;
            continue;
        }
        int64_t now = sched_now_ns();
        if (deadline != 0 && now >= deadline)
            return give_up(m, awoke);
        struct lot_waiter w = { .since_ns = now };
        struct lot_bucket *b = lot_lock(m);
        if (!announce(m, awoke, began != 0 && now - began > STARVING_NS)) {
            lot_unlock(b);
            continue;
        }
        lot_add(b, &w, key(m), began != 0);
        if (began == 0)
            began = now;
        int r = lot_park(b, &w, deadline, WAIT_MUTEX);
        latency_blocked(now);
        if (r != 0) {
            if (lot_first(b, key(m)) == NULL)
                and_rlx(word(m), ~(PARKED | STARVING)); /* rlx: under the bucket's lock */
            lot_unlock(b);
            return -ETIMEDOUT;
        }
        if (w.handed) { /* what the last owner wrote came with sched_ready */
            calm_down(m, began);
            return 0;
        }
        awoke = true;
        round = 0;
    }
}

void weft_mutex_lock_slow(weft_mutex *m)
{
    rt_enter();
    lock_inside(m, 0);
    rt_leave(m_self());
}

int weft_mutex_lock_until(weft_mutex *m, int64_t deadline)
{
    if (cas_acq(word(m), 0, LOCKED)) /* acq: as in weft_mutex_lock */
        return 0;
    rt_enter();
    int r = lock_inside(m, deadline);
    rt_leave(m_self());
    return r;
}

bool weft_mutex_trylock(weft_mutex *m)
{
    uint32_t old = load_rlx(word(m)); /* rlx: checked by the cas */
    while (!(old & (LOCKED | STARVING))) {
        if (cas_acq(word(m), old, old | LOCKED)) /* acq: as in weft_mutex_lock */
            return true;
        old = load_rlx(word(m)); /* rlx: as above */
    }
    return false;
}

/* Wakes or serves the first waiter, if the mutex is free and nobody has been sent for it. The bucket is locked; w waits, so m is there. */
static struct fiber *pass_on(struct lot_bucket *b, weft_mutex *m, struct lot_waiter *w)
{
    bool last = lot_is_last(w);
    for (;;) {
        uint32_t old = load_acq(word(m)), now; /* acq: what the owner before wrote goes to w; rel in weft_mutex_unlock */
        if (old & LOCKED)
            return NULL; /* he will come here */
        if (!(old & STARVING) && (old & WOKEN))
            return NULL;
        now = old | (old & STARVING ? LOCKED : WOKEN);
        if (last)
            now &= ~(PARKED | STARVING);
        if (cas_acq_rel(word(m), old, now)) {
            w->handed = old & STARVING;
            sched_contended(m, w->since_ns, WAIT_MUTEX);
            return lot_grant(b, w);
        }
    }
}

void weft_mutex_unlock_slow(weft_mutex *m, uint32_t left)
{
    if (left & LOCKED)
        w_fatal("unlock of unlocked mutex %p", (void *)m);
    if (!(left & STARVING) && (left & (PARKED | WOKEN)) != PARKED)
        return;
    struct m *self = rt_enter();
    struct lot_bucket *b = lot_lock(m);
    struct lot_waiter *w = lot_first(b, key(m));
    struct fiber *f = w != NULL ? pass_on(b, m, w) : NULL;
    lot_unlock(b);
    if (f != NULL)
        sched_ready(f);
    rt_leave(self);
}
