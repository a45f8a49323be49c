/* W06: statistics that stop the world, read at every turn. */
#include "debug/doctor.h"
#include "debug/thresholds.h"

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    static const struct rate_limit limit = { T_W06_WINDOW_NS, T_W06_READS, T_W06_SLOTS, 0 };
    struct sighting s = { .code = WEFT_W06 };
    (void)id, (void)b, (void)c;
    doctor_stack(&s);
    if (!doctor_rate(&s, &limit, 0))
        return;
    s.n[3] = a;
    doctor_sight(&s);
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "weft_read_mem_stats was called here %lu times within %lu ms%s", (unsigned long)s->n[0], (unsigned long)(s->n[1] / 1000000),
              s->n[3] != 0 ? "; a guard answered most of them without a stop" : ", and stopped all processors each time");
}

const struct detector w06_mem_stats = {
    .code = WEFT_W06,
    .title = "statistics that stop the world are polled",
    .cure = "Read the same figures by weft_metrics_read, which stops nothing; or let one fiber read them now and then, and note them for all.",
    .probes = DOCTOR_PROBE(mem_stats_read),
    .probe = told,
    .say = say,
};
