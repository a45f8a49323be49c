/* Read-write locks.
 *
 * One word, and two queues in the parking lot ([LOT]), of readers and of writers.
 *      WRITER        a writer owns it
 *      WRITER_WAITS  new readers queue; as of the bucket's lock
 *      READER_WAITS  as of the bucket's lock
 *      the rest      readers who own it, in units of READER; not together with WRITER
 *
 * Who frees it passes it on, under the bucket's lock: a writer to all readers who wait, or if there are none, to the next writer; the last reader to
 * the first writer. While readers own it and no writer waits, nobody waits. So in a crowd of both, writers and whole groups of readers take turns.
 *
 * The last reader has left the word free of itself before it comes to the bucket, and so looks for a writer there by the bare address ([LOT]). A
 * writer keeps WRITER until all is settled. */
#include "sched/latency.h"
#include "sched/lot.h"
#include "sched/sched.h"
#include <errno.h>
#include <weft/sync.h>

#define WRITER 1u
#define WRITER_WAITS 2u
#define READER_WAITS 4u
#define READER 8u

static inline w_u32 *word(weft_rwmutex *rw) { return (w_u32 *)&rw->state_; }
static inline uintptr_t reader_key(weft_rwmutex *rw) { return lot_key(rw, LOT_READER); }
static inline uintptr_t writer_key(weft_rwmutex *rw) { return lot_key(rw, LOT_WRITER); }

/* The state after taking it; 0: it cannot be had now, or others come first. */
static inline uint32_t read_locked(uint32_t s) { return s & (WRITER | WRITER_WAITS) ? 0 : s + READER; }
static inline uint32_t write_locked(uint32_t s) { return s & (WRITER | WRITER_WAITS) || s >= READER ? 0 : s | WRITER; }

static inline bool try_take(weft_rwmutex *rw, uint32_t (*locked)(uint32_t))
{
    uint32_t s = load_rlx(word(rw)), to; /* rlx: checked by the cas */
    while ((to = locked(s)) != 0) {
        if (cas_acq(word(rw), s, to)) /* acq: sees what the owners before wrote; rel in runlock, unlock */
            return true;
        s = load_rlx(word(rw)); /* rlx: as above */
    }
    return false;
}

/* Takes it, or sets flag; with the bucket locked. */
static inline bool take_or_announce(weft_rwmutex *rw, uint32_t (*locked)(uint32_t), uint32_t flag)
{
    for (;;) {
        uint32_t s = load_rlx(word(rw)), to = locked(s); /* rlx: checked by the cas */
        if (cas_acq(word(rw), s, to != 0 ? to : s | flag)) /* acq: as in try_take */
            return to != 0;
    }
}

/* All readers who wait own it from here on. */
static struct fiber *admit_readers(struct lot_bucket *b, weft_rwmutex *rw, uint32_t *n)
{
    if (unlikely(load_rlx(&probe_mask) != 0)) { /* rlx: a late look loses an event */
        struct lot_waiter *first = lot_first(b, reader_key(rw)), *w = first;
        for (; w != NULL; w = w->next == first ? NULL : w->next)
            sched_contended(rw, w->since_ns, WAIT_RW_RLOCK);
    }
    return lot_grant_all(b, reader_key(rw), n);
}

static struct fiber *admit_writer(struct lot_bucket *b, weft_rwmutex *rw, struct lot_waiter *w)
{
    sched_contended(rw, w->since_ns, WAIT_RW_LOCK);
    return lot_grant(b, w);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static w_noinline int read_slow(weft_rwmutex *rw, int64_t deadline)
{
    rt_enter();
    int64_t now = sched_now_ns();
    int r = -ETIMEDOUT;
    if (deadline == 0 || now < deadline) {
        struct lot_waiter w = { .since_ns = now };
        struct lot_bucket *b = lot_lock(rw);
        if (take_or_announce(rw, read_locked, READER_WAITS)) {
            lot_unlock(b);
            r = 0;
        } else {
            lot_add(b, &w, reader_key(rw), false);
            r = lot_park(b, &w, deadline, WAIT_RW_RLOCK);
            latency_blocked(now);
            if (r != 0) {
                if (lot_first(b, reader_key(rw)) == NULL)
                    and_rlx(word(rw), ~READER_WAITS); /* rlx: under the bucket's lock */
                lot_unlock(b);
            }
        }
    }
    rt_leave(m_self());
    return r;
}

int weft_rwmutex_rlock_until(weft_rwmutex *rw, int64_t deadline)
{
    return try_take(rw, read_locked) ? 0 : read_slow(rw, deadline);
}

void weft_rwmutex_rlock(weft_rwmutex *rw)
{
    if (!try_take(rw, read_locked))
        read_slow(rw, 0);
}

bool weft_rwmutex_tryrlock(weft_rwmutex *rw)
{
    return try_take(rw, read_locked);
}

/* The last reader has gone, and a writer waited then. */
static w_noinline void runlock_slow(weft_rwmutex *rw)
{
    struct m *m = rt_enter();
    struct fiber *f = NULL;
    struct lot_bucket *b = lot_lock(rw);
    struct lot_waiter *w = lot_first(b, writer_key(rw));
    if (w != NULL) { /* so rw is there */
        uint32_t clear = lot_is_last(w) ? WRITER_WAITS : 0;
        uint32_t s = load_rlx(word(rw)); /* rlx: checked by the cas */
        while (!(s & WRITER) && s < READER) { /* else another has settled this meanwhile */
            if (cas_acq_rel(word(rw), s, (s | WRITER) & ~clear)) {
                f = admit_writer(b, rw, w);
                break;
            }
            s = load_rlx(word(rw)); /* rlx: as above */
        }
    }
    lot_unlock(b);
    if (f != NULL)
        sched_ready(f);
    rt_leave(m);
}

void weft_rwmutex_runlock(weft_rwmutex *rw)
{
    /* rel: a writer sees that our reading is over; acq in try_take. acq: of several readers the last passes on what all did */
    uint32_t s = sub_acq_rel(word(rw), READER);
    if (unlikely(s < READER))
        w_fatal("runlock of rwmutex %p, which no reader has locked", (void *)rw);
    if (unlikely(s < 2 * READER && (s & WRITER_WAITS)))
        runlock_slow(rw);
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* A writer gave up, and none is left to wait for: readers it kept out come in, unless a writer owns it. The bucket is locked. */
static struct fiber *writers_gone(struct lot_bucket *b, weft_rwmutex *rw)
{
    for (;;) {
        uint32_t s = load_rlx(word(rw)); /* rlx: checked by the cas */
        if (s & WRITER || !(s & READER_WAITS)) {
            if (cas_rlx(word(rw), s, s & ~WRITER_WAITS)) /* rlx: under the bucket's lock */
                return NULL;
            continue;
        }
        /* Readers do not leave the queue while we hold the bucket, so they can be counted in first; the flags keep others out. */
        uint32_t n;
        struct fiber *chain = admit_readers(b, rw, &n);
        add_acq_rel(word(rw), n * READER);
        and_acq_rel(word(rw), ~(WRITER_WAITS | READER_WAITS));
        return chain;
    }
}

static w_noinline int write_slow(weft_rwmutex *rw, int64_t deadline)
{
    rt_enter();
    int64_t now = sched_now_ns();
    int r = -ETIMEDOUT;
    if (deadline == 0 || now < deadline) {
        struct lot_waiter w = { .since_ns = now };
        struct fiber *chain = NULL;
        struct lot_bucket *b = lot_lock(rw);
        if (take_or_announce(rw, write_locked, WRITER_WAITS)) {
            lot_unlock(b);
            r = 0;
        } else {
            lot_add(b, &w, writer_key(rw), false);
            r = lot_park(b, &w, deadline, WAIT_RW_LOCK);
            latency_blocked(now);
            if (r != 0) {
                if (lot_first(b, writer_key(rw)) == NULL)
                    chain = writers_gone(b, rw);
                lot_unlock(b);
                lot_ready_all(chain);
            }
        }
    }
    rt_leave(m_self());
    return r;
}

int weft_rwmutex_lock_until(weft_rwmutex *rw, int64_t deadline)
{
    return try_take(rw, write_locked) ? 0 : write_slow(rw, deadline);
}

void weft_rwmutex_lock(weft_rwmutex *rw)
{
    if (!try_take(rw, write_locked))
        write_slow(rw, 0);
}

bool weft_rwmutex_trylock(weft_rwmutex *rw)
{
    return try_take(rw, write_locked);
}

/* We own it as the writer, so nobody but holders of the bucket's lock changes the word. */
static w_noinline void unlock_slow(weft_rwmutex *rw)
{
    struct m *m = rt_enter();
    struct fiber *chain, *f = NULL;
    uint32_t n;
    struct lot_bucket *b = lot_lock(rw);
    struct lot_waiter *w = lot_first(b, writer_key(rw));
    chain = admit_readers(b, rw, &n);
    if (n != 0) {
        store_rel(word(rw), n * READER | (w != NULL ? WRITER_WAITS : 0)); /* rel: publishes what we wrote, to later takers; acq in try_take */
    } else if (w != NULL) {
        store_rel(word(rw), WRITER | (lot_is_last(w) ? 0 : WRITER_WAITS)); /* rel: as above */
        f = admit_writer(b, rw, w);
    } else {
        store_rel(word(rw), 0); /* rel: as above. All who waited have given up */
    }
    lot_unlock(b);
    lot_ready_all(chain);
    if (f != NULL)
        sched_ready(f);
    rt_leave(m);
}

void weft_rwmutex_unlock(weft_rwmutex *rw)
{
    uint32_t s = load_rlx(word(rw)); /* rlx: it is ours */
    if (unlikely(!(s & WRITER)))
        w_fatal("unlock of rwmutex %p, which no writer has locked", (void *)rw);
    if (unlikely(s != WRITER || !cas_rel(word(rw), WRITER, 0))) /* rel: publishes what we wrote; acq in try_take */
        unlock_slow(rw);
}
