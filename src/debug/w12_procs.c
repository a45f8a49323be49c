/* W12: more processors than the quota of the control group pays for, and it is throttled.
 *
 * The number is the host's own (weft_maxprocs, weft_config, WEFT_MAXPROCS); the default follows the quota. What the kernel counts (cpu.stat) is
 * looked at once a second while there are more than the default, and the program is busy; and at the end. Throttling alone is none of ours: a
 * program that needs more than its quota is throttled with any number. But with the default all threads stop together at most for what the last
 * part of a period lacks. */
#include "base/lock.h"
#include "debug/place.h"
#include "debug/thresholds.h"
#include "sched/maxprocs.h"

static struct {
    bool known;                    /* base is */
    struct cgroup_throttled base;  /* when it was last judged */
    uint32_t procs, dflt;          /* as last seen; 0: there were never more */
    bool asked;                    /* by weft_maxprocs; else at the start */
    struct place place;
} quota;
static struct lock lock = LOCK_INIT(RANK_LEAF);

static void asked(void)
{
    struct place p;
    struct cgroup_throttled now;
    place_here(&p);
    bool known = maxprocs_throttled(&now);
    lock_take(&lock);
    quota.known = known;
    quota.base = now;
    quota.asked = true;
    quota.procs = 0;
    quota.place = p;
    lock_drop(&lock);
}

/* There is enough to judge by. */
static bool enough(const struct cgroup_throttled *now)
{
    return quota.known && now->periods - quota.base.periods >= T_W12_PERIODS;
}

static void judge(void)
{
    struct cgroup_throttled now;
    struct sighting s = { .code = WEFT_W12 };
    bool much = false;
    if (!maxprocs_throttled(&now))
        return;
    lock_take(&lock);
    if (enough(&now)) {
        uint64_t periods = now.periods - quota.base.periods, throttled = now.throttled - quota.base.throttled;
        much = throttled * 100 >= periods * T_W12_PERCENT;
        s.n[0] = (uint64_t)quota.procs << 32 | quota.dflt;
        s.n[1] = throttled << 32 | (uint32_t)periods;
        s.n[2] = now.throttled_ns - quota.base.throttled_ns;
        s.n[3] = quota.asked;
        place_stack(&s, &quota.place);
    }
    if (enough(&now) || !quota.known) {
        quota.base = now;
        quota.known = true;
    }
    lock_drop(&lock);
    if (much)
        doctor_sight(&s);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    (void)c;
    if (id == PROBE_procs_asked) {
        asked();
        return;
    }
    lock_take(&lock);
    quota.procs = (uint32_t)a;
    quota.dflt = (uint32_t)b;
    lock_drop(&lock);
    judge();
}

static void forget(void)
{
    if (quota.known || quota.asked || quota.procs != 0) /* what was never touched takes no memory */
        memset(&quota, 0, sizeof quota);
    lock_init(&lock, RANK_LEAF);
}

static void end(void)
{
    if (quota.procs > quota.dflt && quota.procs == nprocs())
        judge();
    forget();
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "%u processors were asked for%s, where quota and CPUs give %u: the kernel stopped all threads in %u of %u periods, for %lu ms in all",
              (unsigned)(s->n[0] >> 32), s->n[3] ? " here" : " at the start (weft_config.maxprocs or WEFT_MAXPROCS)", (unsigned)(uint32_t)s->n[0],
              (unsigned)(s->n[1] >> 32), (unsigned)(uint32_t)s->n[1], (unsigned long)(s->n[2] / 1000000));
}

const struct detector w12_procs = {
    .code = WEFT_W12,
    .title = "more processors than the quota pays for",
    .cure = "Leave the number at its default, which follows the quota of the control group and the CPUs (weft_maxprocs_default goes back to it).",
    .probes = DOCTOR_PROBE(procs_asked) | DOCTOR_PROBE(procs_above),
    .probe = told,
    .end = end,
    .after_fork = forget,
    .say = say,
};
