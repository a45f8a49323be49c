/* Condition variables: a queue in the parking lot ([LOT]), and a count of those in it, so that a signal for nobody costs one load.
 *
 * The waiter queues before it unlocks the mutex. So a signal by one who locked the mutex later finds it, even if it has not parked yet (LOT_QUEUED).
 * The count is written under the bucket's lock and read without it: who changed the condition under the mutex, after the waiter unlocked it, sees the
 * waiter's count by the mutex; to who did not, no promise is made, here as elsewhere.
 *
 * lot_park leaves no waiter behind that was granted, so nobody wakes for nothing, and a signal taken by one who timed out at the same moment is that
 * one's. */
#include "os/clock.h"
#include "sched/lot.h"
#include "sched/sched.h"
#include <errno.h>
#include <weft/sync.h>

static inline w_u32 *waiters(weft_cond *c) { return (w_u32 *)&c->waiters_; }
static inline uintptr_t key(weft_cond *c) { return lot_key(c, LOT_ANY); }

static inline void count_out(weft_cond *c, uint32_t n)
{
    store_rlx(waiters(c), load_rlx(waiters(c)) - n); /* rlx: under the bucket's lock; read elsewhere as the essay says */
}

int weft_cond_wait_until(weft_cond *c, weft_mutex *m, int64_t deadline)
{
    struct lot_waiter w = { 0 };
    struct m *self = rt_enter();
    struct lot_bucket *b = lot_lock(c);
    lot_add(b, &w, key(c), false);
    store_rlx(waiters(c), load_rlx(waiters(c)) + 1); /* rlx: as in count_out */
    lot_unlock(b);
    rt_leave(self);

    weft_mutex_unlock(m);

    rt_enter();
    b = lot_lock(c);
    int r = lot_park(b, &w, deadline, WAIT_COND);
    if (r != 0) {
        count_out(c, 1);
        lot_unlock(b);
    }
    rt_leave(m_self());
    weft_mutex_lock(m);
    return r;
}

void weft_cond_wait(weft_cond *c, weft_mutex *m)
{
    weft_cond_wait_until(c, m, 0);
}

void weft_cond_signal(weft_cond *c)
{
    if (load_rlx(waiters(c)) == 0) /* rlx: see the essay */
        return;
    struct m *self = rt_enter();
    struct fiber *f = NULL;
    struct lot_bucket *b = lot_lock(c);
    struct lot_waiter *w = lot_first(b, key(c));
    if (w != NULL) {
        count_out(c, 1);
        f = lot_grant(b, w);
    }
    lot_unlock(b);
    if (f != NULL)
        sched_ready(f);
    rt_leave(self);
}

void weft_cond_broadcast(weft_cond *c)
{
    if (load_rlx(waiters(c)) == 0) /* rlx: see the essay */
        return;
    struct m *self = rt_enter();
    uint32_t n;
    struct lot_bucket *b = lot_lock(c);
    struct fiber *chain = lot_grant_all(b, key(c), &n);
    if (n != 0)
        count_out(c, n);
    lot_unlock(b);
    lot_ready_all(chain);
    rt_leave(self);
}
