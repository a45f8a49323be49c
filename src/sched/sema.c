/* Counting semaphores. One word: the count, and above it a flag that somebody waits in the parking lot ([LOT]); the flag changes under the
 * bucket's lock. Somebody waits only while the count is 0: a release gives to those who wait first, in order, and counts only what is left. So nobody
 * can overtake. */
#include "sched/lot.h"
#include "sched/sched.h"
#include <errno.h>
#include <weft/sync.h>

#define WAITS (UINT64_C(1) << 32)

static inline w_u64 *word(weft_sema *s) { return (w_u64 *)&s->state_; }
static inline uintptr_t key(weft_sema *s) { return lot_key(s, LOT_ANY); }

bool weft_sema_try_acquire(weft_sema *s)
{
    uint64_t old = load_rlx(word(s)); /* rlx: checked by the cas */
    while ((uint32_t)old != 0) {
        if (cas_acq(word(s), old, old - 1)) /* acq: sees what the releaser did before; rel in weft_sema_release */
            return true;
        old = load_rlx(word(s)); /* rlx: as above */
    }
    return false;
}

/* Takes one, or sets the flag; with the bucket locked. */
static bool take_or_announce(weft_sema *s)
{
    for (;;) {
        uint64_t old = load_rlx(word(s)); /* rlx: checked by the cas */
        bool take = (uint32_t)old != 0;
        if (cas_acq(word(s), old, take ? old - 1 : old | WAITS)) /* acq: as in weft_sema_try_acquire */
            return take;
    }
}

static w_noinline int acquire_slow(weft_sema *s, int64_t deadline)
{
    rt_enter();
    int r = -ETIMEDOUT;
    if (deadline == 0 || sched_now_ns() < deadline) {
        struct lot_waiter w = { 0 };
        struct lot_bucket *b = lot_lock(s);
        if (take_or_announce(s)) {
            lot_unlock(b);
            r = 0;
        } else {
            lot_add(b, &w, key(s), false);
            r = lot_park(b, &w, deadline, WAIT_SEMA);
            if (r != 0) {
                if (lot_first(b, key(s)) == NULL)
                    and_rlx(word(s), ~WAITS); /* rlx: under the bucket's lock */
                lot_unlock(b);
            }
        }
    }
    rt_leave(m_self());
    return r;
}

int weft_sema_acquire_until(weft_sema *s, int64_t deadline)
{
    return weft_sema_try_acquire(s) ? 0 : acquire_slow(s, deadline);
}

void weft_sema_acquire(weft_sema *s)
{
    if (!weft_sema_try_acquire(s))
        acquire_slow(s, 0);
}

/* Adds to the count, unless somebody waits: false. */
static bool count_up(weft_sema *s, uint32_t n)
{
    uint64_t old = load_rlx(word(s)); /* rlx: checked by the cas */
    while (!(old & WAITS)) {
        if (old + n > UINT32_MAX)
            w_fatal("the count of semaphore %p overflows", (void *)s);
        if (cas_rel(word(s), old, old + n)) /* rel: publishes what we did before; acq in weft_sema_try_acquire */
            return true;
        old = load_rlx(word(s)); /* rlx: as above */
    }
    return false;
}

static w_noinline void release_slow(weft_sema *s, uint32_t n)
{
    struct m *m = rt_enter();
    struct fiber *chain = NULL, **end = &chain;
    struct lot_waiter *w;
    struct lot_bucket *b = lot_lock(s);
    for (; n > 0 && (w = lot_first(b, key(s))) != NULL; n--) {
        if (lot_is_last(w))
            and_acq_rel(word(s), ~WAITS);
        struct fiber *f = lot_grant(b, w);
        if (f != NULL) {
            *end = f;
            end = (struct fiber **)&f->link.next;
        }
    }
    *end = NULL;
    if (n > 0)
        count_up(s, n); /* nobody waits, and while we hold the bucket nobody will */
    lot_unlock(b);
    if (chain != NULL && chain->link.next == 0)
        sched_ready(chain);
    else
        lot_ready_all(chain);
    rt_leave(m);
}

void weft_sema_release(weft_sema *s, uint32_t n)
{
    if (!count_up(s, n))
        release_slow(s, n);
}
