/* See latency.h. */
#include "sched/latency.h"
#include "sched/seed.h"
#include "os/clock.h"

#define PERIOD_MIN_LOG2 3u
#define PERIOD_MAX_LOG2 10u
#define STAMP_MASK ((UINT64_C(1) << READY_STAMP_BITS) - 1)
#define STAMP_WEIGHT UINT64_C(15)
#define STAMP_TIME (STAMP_MASK & ~STAMP_WEIGHT)
#define WORTH_NS 1000 /* between two that become ready: more, and each eighth costs next to nothing */

static uint64_t stamp(struct latency_rate *r)
{
    int64_t now = os_now_ns(), since = now - r->at_ns;
    unsigned period = r->period_log2;
    r->at_ns = now;
    if (since >> period < WORTH_NS)
        r->period_log2 = w_min(period + 1, PERIOD_MAX_LOG2);
    else if (since >> period > 2 * WORTH_NS)
        r->period_log2 = w_max(period - 1, PERIOD_MIN_LOG2);
    return ((uint64_t)now & STAMP_TIME) | (period - PERIOD_MIN_LOG2);
}

/* On average 2^period_log2. */
static uint32_t draw(struct p *p, const struct latency_rate *r) { return 1 + rng_below(&p->ready_rng, (2u << r->period_log2) - 1); }

uint64_t latency_stamp(struct p *p)
{
    uint64_t s = stamp(&p->ready_rate);
    p->ready_left = draw(p, &p->ready_rate);
    return s;
}

uint64_t latency_yield_stamp(struct p *p)
{
    uint32_t tick = load_rlx(&p->tick); /* rlx: ours */
    uint64_t s = tick == p->yield_tick ? stamp(&p->yield_rate) : 0; /* else the step that was drawn was none */
    p->yield_tick = tick + draw(p, &p->yield_rate);
    return s;
}

void latency_init(struct p *p, uint64_t seed)
{
    rng_seed(&p->ready_rng, seed);
    p->ready_rate.period_log2 = p->yield_rate.period_log2 = PERIOD_MIN_LOG2;
    p->ready_left = draw(p, &p->ready_rate);
    p->yield_tick = draw(p, &p->yield_rate);
}

void latency_count(struct p *p, uint64_t stamp)
{
    if (p == NULL)
        return;
    uint64_t ns = ((uint64_t)os_now_ns() - (stamp & STAMP_TIME)) & STAMP_MASK;
    timehist_add(&p->latencies, (int64_t)ns, UINT64_C(1) << (stamp & STAMP_WEIGHT));
}

void latency_blocked(int64_t since_ns)
{
    struct p *p = m_self()->p;
    if (p != NULL)
        store_rlx(&p->blocked_ns, load_rlx(&p->blocked_ns) + (uint64_t)(sched_peek_ns() - since_ns)); /* rlx: counter, one writer */
}
