/* A ring of records from one producer to one consumer: from the handler of a signal on one thread to a helper. No lock, no memory.
 *
 * A record lies in one piece. Its first word is its length in words; a length of 0 says that the rest of the ring up to its end is left out. The
 * producer fills what lies between put and got, and publishes it by put; the consumer gives it back by got. */
#ifndef WEFT_PROF_RING_H
#define WEFT_PROF_RING_H

#include "base/atomic.h"
#include "base/base.h"

struct ring {
    w_u64 put;       /* words; rel by the producer: publishes the record; acq in ring_next */
    w_u64 got;       /* rel by the consumer: he is done with the record; acq in ring_reserve */
    w_u64 lost;      /* the producer's: what found no room */
    uint32_t words;  /* a power of two */
    uint64_t *mem;   /* NULL: no ring */
};

/* Room for a record of up to n words, NULL: none. */
static inline uint64_t *ring_reserve(struct ring *r, uint32_t n)
{
    uint64_t put = load_rlx(&r->put), rest = r->words - (put & (r->words - 1)); /* rlx: only we write it */
    if (put + n + (rest < n ? rest : 0) - load_acq(&r->got) > r->words)
        return NULL;
    if (rest >= n)
        return &r->mem[put & (r->words - 1)];
    r->mem[put & (r->words - 1)] = 0;
    store_rel(&r->put, put + rest);
    return r->mem;
}

static inline void ring_commit(struct ring *r, uint32_t n)
{
    uint64_t put = load_rlx(&r->put); /* rlx: as above */
    r->mem[put & (r->words - 1)] = n;
    store_rel(&r->put, put + n);
}

static inline bool ring_is_half_full(const struct ring *r)
{
    return load_rlx(&r->put) - load_rlx(&r->got) > r->words / 2; /* rlx: a hint */
}

/* The oldest record; NULL: there is none. It stays till ring_done. */
static inline const uint64_t *ring_next(struct ring *r)
{
    uint64_t got = load_rlx(&r->got), put = load_acq(&r->put); /* rlx: only we write it */
    if (got != put && r->mem[got & (r->words - 1)] == 0) {
        got += r->words - (got & (r->words - 1));
        store_rel(&r->got, got);
    }
    return got != put ? &r->mem[got & (r->words - 1)] : NULL;
}

static inline void ring_done(struct ring *r)
{
    uint64_t got = load_rlx(&r->got); /* rlx: as above */
    store_rel(&r->got, got + r->mem[got & (r->words - 1)]);
}

#endif
