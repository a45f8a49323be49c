/* W13: memory is expected to go back to the system by a collection.
 *
 * What a host reads in /proc nobody can see, so this goes by what it does with weft: weft_gc, with a large heap that is nearly empty then, and the
 * same fiber reads the statistics at once. If somebody calls weft_free_os_memory soon all is well. Else it is told, when the next such call comes or the
 * runtime ends, if the memory is still there: one case at a time, the last. */
#include "base/lock.h"
#include "debug/doctor.h"
#include "debug/thresholds.h"
#include "gc/pages.h"
#include "os/clock.h"
#include "sched/sched.h"

static struct {
    struct lock lock;      /* RANK_LEAF */
    bool collected, read;
    uint64_t kept, live;
    int64_t collected_ns, read_ns;
    struct sighting s;
} last = { .lock = LOCK_INIT(RANK_LEAF) };

struct sizes { uint64_t kept, live; };
static struct sizes sizes(void)
{
    struct pages_stats p;
    pages_stats(&p);
    return (struct sizes){ p.free_bytes - p.released_bytes, p.sys_bytes - p.free_bytes };
}

static uint64_t here(void)
{
    const struct m *m = m_self();
    return m != NULL && m->cur != NULL ? m->cur->id : 0;
}

/* True: *out is to be told. */
static bool judge(int64_t now, bool over, struct sighting *out)
{
    uint64_t kept = sizes().kept;
    lock_take(&last.lock);
    bool due = last.read && (over || now - last.read_ns >= T_W13_JUDGE_NS), yes = due && kept >= T_W13_KEPT_BYTES;
    if (yes)
        *out = last.s;
    if (due)
        last.collected = last.read = false;
    lock_drop(&last.lock);
    return yes;
}

static void collected(bool released, int64_t now)
{
    struct sizes z = sizes();
    struct sighting s = { .code = WEFT_W13, .n = { z.kept, z.live } };
    if (!released)
        doctor_stack(&s);
    s.frame = NULL; /* told when the call is over: only its place is known */
    s.fiber = here();
    lock_take(&last.lock);
    last.collected = !released && z.kept >= T_W13_KEPT_BYTES && z.kept >= T_W13_TIMES_LIVE * z.live;
    last.read = false;
    last.collected_ns = now;
    last.s = s;
    lock_drop(&last.lock);
}

static void read_by(uint64_t fiber, int64_t now)
{
    lock_take(&last.lock);
    if (last.collected && !last.read && last.s.fiber == fiber && now - last.collected_ns <= T_W13_READ_NS) {
        last.read = true;
        last.read_ns = now;
        last.s.n[2] = (uint64_t)(now - last.collected_ns);
    }
    lock_drop(&last.lock);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t released)
{
    int64_t now = os_now_ns();
    struct sighting s;
    (void)a, (void)b;
    if (!(id == PROBE_gc_forced && released) && judge(now, false, &s))
        doctor_sight(&s);
    if (id == PROBE_gc_forced)
        collected(released, now);
    else
        read_by(here(), now);
}

static void end(void)
{
    struct sighting s;
    if (judge(os_now_ns(), true, &s))
        doctor_sight(&s);
}

static void forget(void)
{
    lock_init(&last.lock, RANK_LEAF);
    if (last.collected || last.read) /* what was never touched takes no memory */
        last.collected = last.read = false;
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "weft_gc was called here, and %lu us later statistics of memory were read: ", (unsigned long)(s->n[2] / 1000));
    text_putf(t, "%lu MiB that are free were still the process's, with %lu MiB in use", (unsigned long)(s->n[0] >> 20),
              (unsigned long)(s->n[1] >> 20));
}

const struct detector w13_kept = {
    .code = WEFT_W13,
    .title = "memory is expected to go back by a collection",
    .cure = "What a collection frees goes back to the system in the background, within seconds; weft_free_os_memory gives it back at once. With "
            "madvdontneed=0 it counts as resident until the system needs it.",
    .probes = DOCTOR_PROBE(gc_forced) | DOCTOR_PROBE(mem_stats_read),
    .probe = told,
    .end = end,
    .begin = forget,
    .after_fork = forget,
    .say = say,
};
