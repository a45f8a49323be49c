/* Random numbers that one owner draws: fast, not secret. wyrand: one multiplication per number, passes BigCrush.
 * For scheduling choices, sampling and tests; give each processor or thread its own. */
#ifndef WEFT_BASE_RNG_H
#define WEFT_BASE_RNG_H

#include "base/base.h"

struct rng { uint64_t state; };

/* Neighbouring seeds give unrelated sequences. */
static inline void rng_seed(struct rng *r, uint64_t seed)
{
    seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9ull;
    seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebull;
    r->state = seed ^ (seed >> 31);
}

static inline uint64_t rng_next(struct rng *r)
{
    r->state += 0xa0761d6478bd642full;
    __uint128_t m = (__uint128_t)r->state * (r->state ^ 0xe7037ed1a0b428dbull);
    return (uint64_t)(m >> 64) ^ (uint64_t)m;
}

/* Uniform in [0, n), n >= 1, without a division (Lemire); the bias is below n / 2^32. */
static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
    return (uint32_t)(((rng_next(r) >> 32) * n) >> 32);
}

/* Uniform in [0, 1). */
static inline double rng_unit(struct rng *r) { return (double)(rng_next(r) >> 11) * 0x1p-53; }

#endif
