/* Resources that are no memory, but are given back by finalizers: descriptors above all.
 *
 * The collector sees an object of 16 bytes where the process sees a descriptor, so it runs when the heap has grown, not when the table is full. Here
 * it is run because of that: by who has met EMFILE and says so (weft_reclaim), by who counts what he has (weft_resource), or, where code cannot be
 * mended, by a guard (WEFT_GUARD_DESCRIPTORS), which looks at the table every few finalizers that are set. */
#include "sched/reclaim.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <weft/sync.h>
#include "base/probe.h"
#include "base/syscall.h"
#include "sched/guard.h"
#include "sched/mutator.h"

#define WAIT_NS (100 * WEFT_MILLISECOND)
#define PAUSE_NS (50 * WEFT_MICROSECOND)
#define PAUSES 200u /* at least: the process may have stood still meanwhile */
#define SETS 16u   /* finalizers from one look at the table to the next */
#define RESTS 16u  /* looks left out after a collection that brought no relief */
#define LOOKED_AT 4

/* ---- the table of descriptors ------------------------------------------------------------------------------------ */

int64_t reclaim_limit(void)
{
    struct rlimit l;
    return getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < INT32_MAX ? (int64_t)l.rlim_cur : INT32_MAX;
}

/* The kernel gives out the lowest number that is free: where those from three quarters on are taken, what is below is, too, but for holes. */
bool reclaim_descriptors_short(void)
{
    int64_t limit = reclaim_limit();
    for (int64_t i = 0; i < LOOKED_AT; i++)
        if (!reclaim_is_open(limit / 4 * 3 + i))
            return false;
    return limit > 4 * LOOKED_AT;
}

bool reclaim_is_open(int64_t fd) { return sys_call3(SYS_fcntl, (long)fd, F_GETFD, 0) >= 0; }

/* ---- collecting for it -------------------------------------------------------------------------------------------- */

static uint64_t executed(void) { return mutator_calls_executed(GC_FINALIZER) + mutator_calls_executed(GC_CLEANUP); }

static bool all_ran(const uint64_t *queued)
{
    return mutator_calls_executed(GC_FINALIZER) >= queued[GC_FINALIZER] && mutator_calls_executed(GC_CLEANUP) >= queued[GC_CLEANUP];
}

int64_t weft_reclaim(void)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    bool waits = !mutator_has(m->cur), fiber = !m->foreign; /* it would wait for itself */
    uint64_t before = executed(), queued[GC_CALLS];
    mutator_collect();
    for (unsigned k = 0; k < GC_CALLS; k++)
        queued[k] = gc_calls_queued(k);
    rt_leave(m_self());
    int64_t until = weft_now() + WAIT_NS;
    for (unsigned i = 0; waits && !all_ran(queued) && (i < PAUSES || weft_now() < until); i++) {
        if (fiber)
            weft_sleep(PAUSE_NS);
        else
            usleep(PAUSE_NS / 1000);
    }
    return (int64_t)(executed() - before);
}

/* ---- what is counted -------------------------------------------------------------------------------------------------- */

int64_t reclaim_limit_of(const weft_resource *r) { return r->limit > 0 ? r->limit : reclaim_limit(); }

static w_u32 reclaiming; /* takes that wait for finalizers. rlx: a hint, but finalizers that the collection of one finds due see it */

int64_t weft_resource_take(weft_resource *r)
{
    int64_t held = __atomic_add_fetch(&r->held_, 1, __ATOMIC_RELAXED), limit = reclaim_limit_of(r); /* rlx, here and below: counters */
    int64_t rest = __atomic_load_n(&r->next_, __ATOMIC_RELAXED);
    if (likely(held < limit - limit / 8) || held < rest)
        return held;
    int64_t late = __atomic_load_n(&r->late_, __ATOMIC_RELAXED);
    add_rlx(&reclaiming, 1);
    weft_reclaim();
    sub_rlx(&reclaiming, 1);
    late = __atomic_load_n(&r->late_, __ATOMIC_RELAXED) - late;
    int64_t now = __atomic_load_n(&r->held_, __ATOMIC_RELAXED);
    /* no relief: not again before another sixteenth is taken, or all */
    __atomic_store_n(&r->next_, now > limit - limit / 8 ? now + limit / 16 + 1 : 0, __ATOMIC_RELAXED);
    struct m *m = rt_enter_try();
    if (m != NULL) {
        PROBE(resource_late, r, held, late);
        rt_leave(m_self());
    }
    return now;
}

/* By hand, or by a finalizer, a cleanup: only of those it can be said that they came late. */
int64_t weft_resource_give(weft_resource *r)
{
    if (load_rlx(&reclaiming) != 0) {
        const struct m *m = m_self();
        if (m != NULL && m->run == sched.run && mutator_has(m->cur))
            __atomic_add_fetch(&r->late_, 1, __ATOMIC_RELAXED); /* rlx: a counter */
    }
    return __atomic_sub_fetch(&r->held_, 1, __ATOMIC_RELAXED);
}

/* ---- the guard --------------------------------------------------------------------------------------------------------- */

static w_u32 sets, rests; /* rlx: hints */

void reclaim_guard(void)
{
    if (add_rlx(&sets, 1) % SETS != 0)
        return;
    uint32_t left = load_rlx(&rests);
    if (left > 0) {
        store_rlx(&rests, left - 1);
        return;
    }
    if (reclaim_descriptors_short()) {
        weft_reclaim();
        if (reclaim_descriptors_short())
            store_rlx(&rests, RESTS);
    }
}

bool reclaim_after(int64_t err) { return (err == -EMFILE || err == -ENFILE) && guarded(WEFT_GUARD_DESCRIPTORS) && weft_reclaim() > 0; }
