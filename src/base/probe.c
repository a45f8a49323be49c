/* Listeners of probe points; see probe.h.
 *
 * Actors: any thread emits; any thread listens or unlistens, one at a time under `lock`. What is shared: eight slots,
 * each { mask, fn, arg, users }. An emitter enters a slot by counting itself in `users` and then reading the mask;
 * unlisten clears the mask and then waits until users is zero. Of the two pairs (count, then read mask | clear mask,
 * then read count) at least one side sees the other: that is why both are seq. So after unlisten nobody is in fn or
 * will enter it, and the slot may be filled anew.
 *
 * A steady listener has its slot for good: fn and arg, once published with the first mask, never change. So there is nothing to count: whoever finds
 * a bit in the mask calls that function, perhaps a little late.
 *
 * The child of a fork is without the threads that held the lock or were in fn at that moment. Nothing is half done but what the lock
 * guards, and that is a slot whose mask is still 0, or probe_mask; see probe_after_fork. */
#include "base/probe.h"
#include <errno.h>
#include "base/backoff.h"
#include "base/lock.h"

#define SLOTS 8
#define STEADY 4

static struct slot {
    w_u64 mask; /* 0: free */
    w_u32 users;
    probe_fn *fn; /* written while mask is 0 and users is 0; read between */
    void *arg;
} slots[SLOTS];

static struct steady {
    w_u64 mask;
    probe_fn *fn; /* fixed, and arg, once it counts in nsteady */
    void *arg;
} steady[STEADY];
static w_u32 nsteady;

static struct lock lock = LOCK_INIT(RANK_LEAF);
static w_u64 counted_mask; /* of the slots */
w_u64 probe_mask;          /* of all */

_Static_assert(PROBE_COUNT <= 64, "one bit per probe");

void probe_emit(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    uint32_t n = load_acq(&nsteady); /* acq: sees fn and arg; rel in probe_listen_steady */
    for (uint32_t i = 0; i < n; i++)
        if ((load_acq(&steady[i].mask) & (1ull << id)) != 0) /* acq: sees what fn needs; rel in probe_listen_steady */
            steady[i].fn(steady[i].arg, id, a, b, c);
    if (likely((load_rlx(&counted_mask) & (1ull << id)) == 0)) /* rlx: as probe_mask */
        return;
    for (struct slot *s = slots; s < slots + SLOTS; s++) {
        if ((load_rlx(&s->mask) & (1ull << id)) == 0) /* rlx: read again below */
            continue;
        add_seq(&s->users, 1);                    /* seq: before the load of mask; partner in probe_unlisten */
        if ((load_seq(&s->mask) & (1ull << id)) != 0) /* also acq: sees fn and arg; rel in probe_listen */
            s->fn(s->arg, id, a, b, c);
        sub_acq_rel(&s->users, 1); /* rel: fn is done; acq in probe_unlisten */
    }
}

/* Lock held. */
static void publish_mask(void)
{
    uint64_t all = 0;
    for (struct slot *s = slots; s < slots + SLOTS; s++)
        all |= load_rlx(&s->mask); /* rlx: written under the lock; and below */
    store_rlx(&counted_mask, all); /* rlx: only a hint whether to look at the slots */
    for (uint32_t i = 0; i < load_rlx(&nsteady); i++)
        all |= load_rlx(&steady[i].mask);
    store_rlx(&probe_mask, all);   /* rlx: likewise */
}

int probe_listen(uint64_t mask, probe_fn *fn, void *arg)
{
    if (mask == 0 || fn == NULL)
        return -EINVAL;
    int err = -ENOSPC;
    lock_take(&lock);
    for (struct slot *s = slots; s < slots + SLOTS; s++) {
        if (load_rlx(&s->mask) != 0) /* rlx: written under the lock */
            continue;
        s->fn = fn;
        s->arg = arg;
        store_seq(&s->mask, mask); /* also rel: publishes fn and arg; acq in probe_emit */
        publish_mask();
        err = 0;
        break;
    }
    lock_drop(&lock);
    return err;
}

void probe_after_fork(void)
{
    lock_init(&lock, RANK_LEAF);
    for (struct slot *s = slots; s < slots + SLOTS; s++)
        store_rlx(&s->users, 0); /* rlx: nobody else runs */
    publish_mask();
}

void probe_unlisten(probe_fn *fn, void *arg)
{
    lock_take(&lock);
    for (struct slot *s = slots; s < slots + SLOTS; s++) {
        if (load_rlx(&s->mask) == 0 || s->fn != fn || s->arg != arg)
            continue;
        store_seq(&s->mask, 0); /* seq: before the load of users; partner in probe_emit */
        publish_mask();
        for (unsigned looks = 0; load_seq(&s->users) != 0; looks++) /* also acq: those who left are done; rel in probe_emit */
            backoff(looks);
        break;
    }
    lock_drop(&lock);
}

int probe_listen_steady(uint64_t mask, probe_fn *fn, void *arg)
{
    if (mask == 0 || fn == NULL)
        return -EINVAL;
    lock_take(&lock);
    uint32_t n = load_rlx(&nsteady), i = 0; /* rlx: written under the lock */
    while (i < n && (steady[i].fn != fn || steady[i].arg != arg))
        i++;
    int err = i < STEADY ? 0 : -ENOSPC;
    if (err == 0) {
        if (i == n) {
            steady[i].fn = fn;
            steady[i].arg = arg;
            store_rel(&nsteady, n + 1); /* rel: publishes fn and arg; acq in probe_emit */
        }
        store_rel(&steady[i].mask, mask); /* rel: publishes what fn needs; acq in probe_emit */
        publish_mask();
    }
    lock_drop(&lock);
    return err;
}

void probe_unlisten_steady(probe_fn *fn, void *arg)
{
    lock_take(&lock);
    for (uint32_t i = 0; i < load_rlx(&nsteady); i++) /* rlx: written under the lock */
        if (steady[i].fn == fn && steady[i].arg == arg)
            store_rlx(&steady[i].mask, 0); /* rlx: who still sees it is let in, by contract */
    publish_mask();
    lock_drop(&lock);
}
