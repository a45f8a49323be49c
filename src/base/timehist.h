/* Histograms of times, in the buckets of Go's runtime/metrics.
 *
 *     bucket 0           less than 0
 *     bucket 1 + 4g + s  g of 40, s of 4: in [0, 256) ns a step is 64 ns; in [2^(g+7), 2^(g+8)) ns it is a quarter of 2^(g+7)
 *     bucket 161         2^47 ns and more
 *
 * One writer at a time; anyone reads. Most buckets stay empty, so there is a bit for each eight of them that has one which does not. */
#ifndef WEFT_BASE_TIMEHIST_H
#define WEFT_BASE_TIMEHIST_H

#include "base/atomic.h"
#include "base/base.h"

#define TIMEHIST_GROUPS 40u
#define TIMEHIST_BUCKETS (1 + 4 * TIMEHIST_GROUPS + 1)

struct timehist {
    w_u64 count[TIMEHIST_BUCKETS];
    w_u32 eights; /* bit i: buckets 8i to 8i + 7; set after the first was counted, and for good */
};

static inline unsigned timehist_bucket(int64_t ns)
{
    if (ns < 0)
        return 0;
    unsigned g = 56 - (unsigned)__builtin_clzll((uint64_t)ns | 255);
    if (g >= TIMEHIST_GROUPS)
        return TIMEHIST_BUCKETS - 1;
    return 1 + 4 * g + ((uint64_t)ns >> (g != 0 ? g + 5 : 6) & 3);
}

/* Where bucket i begins, i > 0. */
static inline uint64_t timehist_lower_ns(unsigned i)
{
    unsigned g = (i - 1) / 4, s = (i - 1) % 4;
    return g != 0 ? (uint64_t)(4 + s) << (g + 5) : 64 * s;
}

static inline void timehist_add(struct timehist *h, int64_t ns, uint64_t n)
{
    unsigned b = timehist_bucket(ns);
    w_u64 *c = &h->count[b];
    store_rlx(c, load_rlx(c) + n); /* rlx: counter, one writer */
    uint32_t eights = load_rlx(&h->eights);
    if (unlikely((eights & 1u << b / 8) == 0))
        store_rel(&h->eights, eights | 1u << b / 8); /* rel: publishes the count; acq in timehist_sum */
}

/* Adds the counts to those in sum. */
static inline void timehist_sum(const struct timehist *h, uint64_t *sum)
{
    for (uint32_t left = load_acq(&h->eights); left != 0; left &= left - 1) { /* acq: rel in timehist_add */
        unsigned from = 8 * (unsigned)__builtin_ctz(left);
        for (unsigned i = from; i < from + 8 && i < TIMEHIST_BUCKETS; i++)
            sum[i] += load_rlx(&h->count[i]); /* rlx: counters */
    }
}

#endif
