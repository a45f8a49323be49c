/* W10: block or mutex profile at so fine a rate that recording takes much of the time.
 *
 * What it costs is measured by the profile itself ([COST] in prof/block.c) and told every now and then, with the processor time that the process
 * has used meanwhile. It is added up till there is enough of it to judge by. */
#include "base/lock.h"
#include "debug/place.h"
#include "debug/thresholds.h"

static struct rated {
    int64_t rate;        /* 0: off, or by a budget */
    uint64_t cost_ns, cpu_ns;
    struct place set;
} rated[2];              /* block, mutex */
static struct lock lock = LOCK_INIT(RANK_LEAF);

static void set(struct rated *r, int64_t rate)
{
    struct place p;
    place_here(&p);
    lock_take(&lock);
    if (rate != 0) /* what was measured at this rate from this place goes on to count, if it was off meanwhile */
        *r = (struct rated){ rate, rate == r->rate ? r->cost_ns : 0, rate == r->rate ? r->cpu_ns : 0, p };
    lock_drop(&lock);
}

static bool fine(uint32_t kind, int64_t rate) { return rate > 0 && rate < (kind == 0 ? T_W10_BLOCK_NS : T_W10_MUTEX_ONE_IN); }

static void cost(uint32_t kind, uint64_t ns, uint64_t cpu_ns)
{
    struct rated *r = &rated[kind];
    struct sighting s = { .code = WEFT_W10, .text = kind == 0 ? "block" : "mutex" };
    bool much = false;
    lock_take(&lock);
    r->cost_ns += ns;
    r->cpu_ns += cpu_ns;
    if (r->cpu_ns >= T_W10_CPU_NS) {
        much = fine(kind, r->rate) && r->cost_ns >= r->cpu_ns / 100 * T_W10_PERCENT;
        s.n[0] = (uint64_t)r->rate;
        s.n[1] = r->cost_ns;
        s.n[2] = r->cpu_ns;
        place_stack(&s, &r->set);
        r->cost_ns = r->cpu_ns = 0;
    }
    lock_drop(&lock);
    if (much)
        doctor_sight(&s);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    if (id == PROBE_waits_rate)
        set(&rated[a], (int64_t)b);
    else
        cost((uint32_t)a, b, c);
}

static void forget(void)
{
    if (rated[0].set.n != 0 || rated[1].set.n != 0) /* what was never touched takes no memory */
        memset(rated, 0, sizeof rated);
    lock_init(&lock, RANK_LEAF);
}

static void say(struct text *t, const struct sighting *s)
{
    uint64_t permille = s->n[1] * 1000 / w_max(s->n[2], (uint64_t)1);
    text_putf(t, "recording for the %s profile took %lu.%lu %% of the processor time, %lu of %lu ms, since it was set here to record ", s->text,
              (unsigned long)(permille / 10), (unsigned long)(permille % 10), (unsigned long)(s->n[1] / 1000000), (unsigned long)(s->n[2] / 1000000));
    if (s->n[0] == 1)
        text_puts(t, s->text[0] == 'b' ? "every wait" : "every unlock that others waited for");
    else if (s->text[0] == 'b')
        text_putf(t, "waits of %lu ns and longer", (unsigned long)s->n[0]);
    else
        text_putf(t, "one such unlock in %lu", (unsigned long)s->n[0]);
}

const struct detector w10_rates = {
    .code = WEFT_W10,
    .title = "recording waits or contentions takes much of the time",
    .cure = "Say what it may cost instead of a rate: weft_set_block_profile_budget(0.5), weft_set_mutex_profile_budget(0.5), in percent of the "
            "processor time; sums stay right.",
    .probes = DOCTOR_PROBE(waits_rate) | DOCTOR_PROBE(waits_cost),
    .probe = told,
    .end = forget,
    .after_fork = forget,
    .say = say,
};
