/* W04: weft_gc in a hot loop. */
#include "debug/doctor.h"
#include "debug/thresholds.h"

static void told(enum probe_id id, uintptr_t kept, uintptr_t took_ns, uintptr_t c)
{
    static const struct rate_limit limit = { T_W04_WINDOW_NS, T_W04_CYCLES, T_W04_SLOTS, T_W04_SHARE_PERCENT };
    static const struct rate_limit guarded = { T_W04_WINDOW_NS, T_W04_KEPT, T_W04_SLOTS, 0 };
    struct sighting s = { .code = WEFT_W04 };
    (void)id, (void)c;
    doctor_stack(&s);
    if (!doctor_rate(&s, kept != 0 ? &guarded : &limit, (int64_t)took_ns))
        return;
    s.n[3] = kept;
    doctor_sight(&s);
}

static void say(struct text *t, const struct sighting *s)
{
    if (s->n[3] != 0)
        text_putf(t, "weft_gc was called here %lu times within %lu ms; a guard kept most of them from collecting, and %lu %% of that time went to "
                  "those that did", (unsigned long)s->n[0], (unsigned long)(s->n[1] / 1000000),
                  (unsigned long)(s->n[2] * 100 / w_max(s->n[1], (uint64_t)1)));
    else
        text_putf(t, "%lu collections were forced here within %lu ms, and took %lu %% of that time", (unsigned long)s->n[0],
                  (unsigned long)(s->n[1] / 1000000), (unsigned long)(s->n[2] * 100 / w_max(s->n[1], (uint64_t)1)));
}

const struct detector w04_forced_gc = {
    .code = WEFT_W04,
    .title = "weft_gc in a hot loop",
    .cure = "Leave it to the collector when it pays; to keep memory low say how much is allowed, once, by weft_set_memory_limit.",
    .probes = DOCTOR_PROBE(gc_forced),
    .probe = told,
    .say = say,
};
