/* What each guard does, and what it costs of a contract.
 *
 * GC: calls of weft_gc share collections if they overlap, with or without a guard (gc/cycle.c). With it, what they cost is bounded, too: after one that
 * took the time t, those that come within (REST - 1) t return at once. So at most one part in REST of the time goes to them, whoever calls, and
 * garbage that is not found is found by the next one, or by the pacer. It gives free memory back as well, as who calls it expects.
 *
 * STATS: figures are those of a moment at most STATS_NS ago, all of the same moment. Callers that come together wait for one stop.
 *
 * THREADS: a thread whose fiber ended locked cannot be used again: nobody knows what was done to it. What can be helped is how many there are at a
 * time, and what the next one costs. More than LOCKED fibers are not let in at once; beyond that one each EXTRA_NS is, so that fibers that wait for one
 * another while locked get on, if slowly: a guard must not make a deadlock. And the monitor, from which no thread inherits anything, makes threads
 * ahead as others are taken along (GUARD_SPARES), so that a processor need not wait for one. (Go has a template thread for the same reason, and makes
 * threads when they are needed: newmHandoff in runtime/proc.go.) */
#include "sched/guard.h"
#include "sched/report.h"
#include <string.h>
#include <weft/sync.h>

#define REST 20
#define STATS_NS (WEFT_SECOND / 10)
#define LOCKED 16
#define EXTRA_NS (10 * WEFT_MILLISECOND)

static struct {
    w_i64 gc_rests_until;   /* rlx: a time; two that come together may both collect, or share */
    weft_mutex stats_lock;  /* the next two */
    weft_mem_stats kept;    /* size 0: none */
    int64_t kept_ns;
    weft_mutex lock;        /* the next two */
    uint32_t locked;
    int64_t extra_ns;       /* when the next one beyond LOCKED is let in */
    weft_cond unlocked;
} guard;

/* ---- collections -------------------------------------------------------------------------------------------- */

bool guard_gc_rests(void)
{
    return sched_now_ns() < load_rlx(&guard.gc_rests_until); /* rlx: see there */
}

void guard_gc_took(int64_t began_ns)
{
    int64_t now = sched_now_ns();
    store_rlx(&guard.gc_rests_until, now + (REST - 1) * (now - began_ns)); /* rlx: see there */
}

/* ---- statistics --------------------------------------------------------------------------------------------- */

int guard_mem_stats(weft_mem_stats *out, int (*read)(weft_mem_stats *out))
{
    int err = 0;
    weft_mutex_lock(&guard.stats_lock);
    if (guard.kept.size == 0 || weft_now() - guard.kept_ns >= STATS_NS) {
        guard.kept.size = 0; /* read sets it, unless it fails */
        err = read(&guard.kept);
        guard.kept_ns = weft_now();
    }
    if (err == 0)
        *out = guard.kept;
    weft_mutex_unlock(&guard.stats_lock);
    return err;
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

void guard_lock(void)
{
    weft_mutex_lock(&guard.lock);
    while (guard.locked >= LOCKED) {
        int64_t now = weft_now();
        if (now >= guard.extra_ns) {
            guard.extra_ns = now + EXTRA_NS;
            break;
        }
        weft_cond_wait_until(&guard.unlocked, &guard.lock, guard.extra_ns);
    }
    if (++guard.locked == LOCKED)
        guard.extra_ns = weft_now() + EXTRA_NS;
    weft_mutex_unlock(&guard.lock);
}

void guard_unlocked(void)
{
    weft_mutex_lock(&guard.lock);
    if (guard.locked > 0) /* 0: in the child of a fork, the one that forked */
        guard.locked--;
    weft_mutex_unlock(&guard.lock);
    weft_cond_signal(&guard.unlocked);
}

/* ---- begin and fork ------------------------------------------------------------------------------------------- */

/* Nobody else runs. Without guards none of its pages is touched. */
static void begin(void)
{
    if (sched.cfg.guards != 0)
        memset(&guard, 0, sizeof guard);
}

static struct sched_guest guest = { .begin = begin, .after_fork = begin };

static void __attribute__((constructor)) guard_init(void)
{
    sched_guest_add(&guest);
}
