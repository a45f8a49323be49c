/* Wait groups.
 *
 * [GROUP] state: the counter in the low half; above it
 *      ONE    a fiber waits, and wg->waiter_ is it
 *      MANY   more wait in the parking lot ([LOT]), or one with a deadline; as of the bucket's lock
 *
 * Nearly always one fiber waits, so there is a place for one in the group itself. It takes the place by a compare-and-swap, parks, and then, in its
 * commit function, sets ONE if the counter is not zero; else it is readied at once. Who brings the counter to zero clears the flags in the same step,
 * and so owns all waiters of that moment: it frees the place, and readies the fiber.
 *
 * With MANY that step is made under the bucket's lock, and so is queueing. So those it finds in the lot are those who waited for this zero, even if
 * the counter rises again at once and others come to wait for the next. Go forbids such use ("reused before previous Wait has returned"); here it
 * works.
 *
 * Freeing. A wait that sees zero returns, and its caller may free the group. Whoever made it zero touches it afterwards only to free the place of a
 * fiber that still waits, so that freeing would be wrong anyway; and before that fiber is readied. */
#include "sched/waitgroup.h"
#include "sched/lot.h"
#include <errno.h>

#define ONE (UINT64_C(1) << 32)
#define MANY (UINT64_C(1) << 33)

typedef W_PTR(struct fiber) waiter_slot;
static inline w_u64 *word(weft_waitgroup *wg) { return (w_u64 *)&wg->state_; }
static inline uintptr_t key(weft_waitgroup *wg) { return lot_key(wg, LOT_ANY); }
static inline waiter_slot *slot(weft_waitgroup *wg) { return (waiter_slot *)&wg->waiter_; }

/* ---- counting ------------------------------------------------------------------------------------------------ */

enum step { STEP_DONE, STEP_RANGE, STEP_WAKE };

/* Adds, unless that takes the counter to zero while somebody waits. */
static inline enum step count(weft_waitgroup *wg, int64_t delta)
{
    uint64_t s = load_rlx(word(wg)); /* rlx: checked by the cas */
    for (;;) {
        int64_t n = (int64_t)(uint32_t)s + delta;
        if (unlikely(n < 0 || n > INT32_MAX))
            return STEP_RANGE;
        if (n == 0 && (s & (ONE | MANY)))
            return STEP_WAKE;
        /* rel: who waits sees what was done before; acq there. acq: the last passes on what all did */
        if (likely(cas_acq_rel(word(wg), s, (s & (ONE | MANY)) | (uint64_t)n)))
            return STEP_DONE;
        s = load_rlx(word(wg)); /* rlx: as above */
    }
}

static struct fiber *vacate(weft_waitgroup *wg)
{
    struct fiber *f = load_rlx(slot(wg)); /* rlx: published with ONE */
    store_rel(slot(wg), NULL);            /* rel: the next to take the place comes after us; acq in wait_here */
    return f;
}

/* The rare way to zero, and the way back if it was not that after all. */
static w_noinline int count_many(weft_waitgroup *wg, int64_t delta)
{
    struct fiber *f = NULL, *chain = NULL;
    int r = 0;
    struct lot_bucket *b = lot_lock(wg);
    for (;;) {
        uint64_t s = load_rlx(word(wg)); /* rlx: checked by the cas */
        int64_t n = (int64_t)(uint32_t)s + delta;
        if (n < 0 || n > INT32_MAX) {
            r = -ERANGE;
            break;
        }
        if (!cas_acq_rel(word(wg), s, n != 0 ? (s & (ONE | MANY)) | (uint64_t)n : 0)) /* as in count */
            continue;
        if (n == 0) {
            uint32_t in_lot;
            if (s & ONE)
                f = vacate(wg);
            if (s & MANY)
                chain = lot_grant_all(b, key(wg), &in_lot);
        }
        break;
    }
    lot_unlock(b);
    if (f != NULL)
        sched_ready(f);
    lot_ready_all(chain);
    return r;
}

int waitgroup_add_inside(weft_waitgroup *wg, int delta)
{
    for (;;) {
        enum step step = count(wg, delta);
        if (step != STEP_WAKE)
            return step == STEP_DONE ? 0 : -ERANGE;
        uint64_t s = load_rlx(word(wg)); /* rlx: checked by the cas */
        if (s & MANY)
            return count_many(wg, delta);
        if ((s & ONE) && (int64_t)(uint32_t)s + delta == 0 && cas_acq_rel(word(wg), s, 0)) { /* as in count */
            sched_ready(vacate(wg));
            return 0;
        }
    }
}

int weft_waitgroup_add(weft_waitgroup *wg, int delta)
{
    enum step step = count(wg, delta);
    if (likely(step != STEP_WAKE))
        return step == STEP_DONE ? 0 : -ERANGE;
    struct m *m = rt_enter();
    int r = waitgroup_add_inside(wg, delta);
    rt_leave(m);
    return r;
}

int weft_waitgroup_done(weft_waitgroup *wg)
{
    return weft_waitgroup_add(wg, -1);
}

/* The group goes with the task into the fiber, which counts down at its very end (fiber_end in switch.c): no wrapper, no allocation. */
int weft_waitgroup_go(weft_waitgroup *wg, weft_fn *fn, void *arg)
{
    if (fn == NULL)
        return -EINVAL;
    struct m *m = rt_enter_if_running();
    if (unlikely(m == NULL))
        return load_acq(&sched.running) != 0 ? -ENOMEM : -ESRCH;
    int r = waitgroup_add_inside(wg, 1);
    if (r == 0) {
        r = sched_spawn_group(fn, arg, NULL, __builtin_return_address(0), 0, wg);
        if (r != 0)
            waitgroup_add_inside(wg, -1);
    }
    rt_leave(m);
    return r;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static inline bool is_zero(weft_waitgroup *wg)
{
    return (uint32_t)load_acq(word(wg)) == 0; /* acq: sees what was done before done; rel in count */
}

/* The fiber is parked: now it may be found, unless it need not wait. */
static void show(struct fiber *f, void *arg)
{
    weft_waitgroup *wg = arg;
    for (;;) {
        uint64_t s = load_acq(word(wg)); /* acq: as in is_zero */
        if ((uint32_t)s == 0) {
            store_rel(slot(wg), NULL); /* rel: as in vacate */
            sched_ready(f);
            return;
        }
        if (cas_rel(word(wg), s, s | ONE)) /* rel: publishes the place; who clears ONE does so by an acquiring cas */
            return;
    }
}

static int wait_in_lot(weft_waitgroup *wg, int64_t deadline)
{
    struct lot_waiter w = { 0 };
    struct lot_bucket *b = lot_lock(wg);
    for (;;) {
        uint64_t s = load_acq(word(wg)); /* acq: as in is_zero */
        if ((uint32_t)s == 0) {
            lot_unlock(b);
            return 0;
        }
        if ((s & MANY) || cas_rlx(word(wg), s, s | MANY)) /* rlx: the queue is the bucket's */
            break;
    }
    lot_add(b, &w, key(wg), false);
    int r = lot_park(b, &w, deadline, WAIT_GROUP);
    if (r != 0) {
        if (lot_first(b, key(wg)) == NULL)
            and_rlx(word(wg), ~MANY); /* rlx: under the bucket's lock */
        lot_unlock(b);
    }
    return r;
}

void weft_waitgroup_wait(weft_waitgroup *wg)
{
    if (is_zero(wg))
        return;
    struct m *m = rt_enter();
    fiber_waits_on(m->cur, wg);
    if (cas_acq(slot(wg), NULL, m->cur)) /* acq: after the last one's leaving; rel in vacate */
        sched_park(show, wg, WAIT_GROUP);
    else
        wait_in_lot(wg, 0);
    rt_leave(m_self());
}

int weft_waitgroup_wait_until(weft_waitgroup *wg, int64_t deadline)
{
    if (deadline == 0) {
        weft_waitgroup_wait(wg);
        return 0;
    }
    if (is_zero(wg))
        return 0;
    rt_enter();
    int r = sched_now_ns() < deadline ? wait_in_lot(wg, deadline) : -ETIMEDOUT;
    rt_leave(m_self());
    return r;
}
