/* Figures that change together, read without a lock: one writer at a time makes the count odd, changes them (relaxed), and makes it even again; who
 * finds it odd, or other than before, reads anew.
 *
 *     seq_begin(&s); store_rlx(&a, ..); store_rlx(&b, ..); seq_end(&s);
 *     do { n = seq_read(&s); x = load_rlx(&a); y = load_rlx(&b); } while (seq_moved(&s, n));
 *
 * An odd n has always moved, so a reader may also wait before it tries again. */
#ifndef WEFT_BASE_SEQCOUNT_H
#define WEFT_BASE_SEQCOUNT_H

#include "base/atomic.h"
#include "base/base.h"

struct seqcount { w_u64 n; };

static inline void seq_begin(struct seqcount *s)
{
    store_rlx(&s->n, load_rlx(&s->n) + 1); /* rlx: one writer; before what follows by the fence */
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* rel: publishes what was changed; acq in seq_read. rlx: as above */
static inline void seq_end(struct seqcount *s) { store_rel(&s->n, load_rlx(&s->n) + 1); }

static inline uint64_t seq_read(const struct seqcount *s) { return load_acq(&s->n); } /* acq: rel in seq_end */

/* What was read since then is void. */
static inline bool seq_moved(const struct seqcount *s, uint64_t n)
{
    fence_acq(); /* after whatever was read */
    return (n & 1) != 0 || load_rlx(&s->n) != n; /* rlx: by the fence */
}

#endif
