/* Block and mutex profiles: where fibers waited, and who made them wait.
 *
 * Both listen to probes: fiber_waited is told by the one that waited, on its own stack, when it goes on; lock_contended by the one that unlocks, when
 * it passes the lock on. So the stack is that of whoever is told of, and it is walked at once.
 *
 * Rate. Of waits shorter than the rate r one of length t is taken with probability t/r, and counts as r/t waits of r/t times its length: so both
 * sums are right on average, whatever the rate. Of contentions one in n is taken, and counts as n of them. Counts of waits have fractions.
 *
 * [BUDGET] A share of the processors' time instead of a rate. What a record costs is measured as it is made; every WINDOW_NS or so whoever makes
 * one compares the sum with the processor time that the process has used since, and sets how many waits (contentions) the next ones stand for, so
 * that it will be AIM of the budget. There is nothing but that number: which waits are measured is drawn before they begin (sched_waits_one_in),
 * whatever their length, since looking at the clock may already be more than the budget allows. Each is weighed by the number that was in force when
 * it was drawn, so the sums are right on average although the number moves.
 *
 * [COST] At a rate the cost is only told (probe waits_cost), if anybody listens: of one wait (contention) in so
 * many, drawn at random, which stands for that many; those that were looked at and then not taken are among them.
 *
 * Locks of the runtime itself are not in the mutex profile: who unlocks them does not learn for how long others have waited. Metrics have the sum.
 *
 * Buckets: v[0] is the count, with FRACTION_BITS behind the point, v[1] the ns. Each processor has its own for a stack, with its number as the tag,
 * so that its owner can add without locked instructions; number 0 has one of each stack, perhaps with nothing in it. They stay as long as the
 * runtime runs, also while nothing is recorded. */
#include <weft/prof.h>
#include <errno.h>
#include <pthread.h>
#include "base/backoff.h"
#include "base/offheap.h"
#include "base/probe.h"
#include "base/rng.h"
#include "os/clock.h"
#include "os/ticks.h"
#include "prof/buckets.h"
#include "prof/helper.h"
#include "prof/profile.h"
#include "prof/walk.h"
#include "sched/guard.h"
#include "sched/report.h"
#include "sched/sched.h"

#define FRACTION_BITS 10
#define WINDOW_NS 20000000
#define ADAPT_MOST 16          /* in one window */
#define ONE_IN_MOST (1u << 20)
#define FIRST_ONE_IN 64u       /* with a budget: until the first window is over */
#define RECORD_NS_MOST 20000   /* beyond that a record was interrupted: its time went to others */
#define AIM 0.7

#define COST_ONE_IN_LOG2 6

#define MEMOS 256u             /* beyond that, processors have none */

struct waits {
    struct buckets buckets;
    w_i64 rate;            /* of waits in ns, of contentions one in so many; 0: off */
    w_u32 *one_in;         /* fixed; the scheduler draws by it. Of waits 1 without a budget */
    /* [BUDGET], [COST] */
    w_u64 budget_ppb;      /* of processor time; 0: none */
    w_u64 cost_ns;         /* in this window; rlx: a counter */
    w_u32 adapting;        /* somebody is: the next four. acq and rel by him */
    uint32_t least_one_in; /* a rate's, with WEFT_GUARD_PROFILES; else 1 */
    int64_t began_cpu_ns;
    w_u64 began;           /* ticks; read by others, as a hint */
    int64_t look_ns;       /* what two looks at the clock cost */
    bool listens, walks;   /* settings */
    struct walk_memo *memo[MEMOS]; /* the processor's of that number */
    uint64_t probe;        /* fixed */
};

static struct waits block = { .probe = 1ull << PROBE_fiber_waited, .one_in = &sched_waits_one_in };
static struct waits mutex = { .probe = 1ull << PROBE_lock_contended, .one_in = &sched_unlocks_one_in };
/* Held between weft_blocking_begin and _end, where no stop finds its holder. */
static pthread_mutex_t settings = PTHREAD_MUTEX_INITIALIZER;

/* ---- recording ------------------------------------------------------------------------------------------------------ */

/* A generator per processor, more or less: two that share one may draw the same number, once. */
static uint64_t draw(const struct m *m)
{
    static struct { w_u64 state; } w_aligned(W_CACHELINE) states[16];
    w_u64 *at = &states[m->id % w_countof(states)].state;
    struct rng r = { load_rlx(at) ^ ((uint64_t)m->id << 48) }; /* rlx: see above */
    uint64_t n = rng_next(&r);
    store_rlx(at, r.state ^ ((uint64_t)m->id << 48));
    return n;
}

/* One per processor, whose owner alone uses it, made when it records for the first time. */
static struct walk_memo *memo_of(struct waits *s, const struct m *m)
{
    uint32_t id = m->p->id;
    if (unlikely(id >= w_countof(s->memo)))
        return NULL;
    if (unlikely(s->memo[id] == NULL))
        s->memo[id] = off_map(OFF_PROF, walk_memo_bytes(), 4096); /* NULL: no memory, and none is used */
    return s->memo[id];
}

/* From where the probe is: frame is of the function that has it. */
static struct bucket *bucket_of_walk(struct waits *s, struct m *m, const uintptr_t *frame)
{
    uintptr_t pc[WALK_MAX];
    struct walk_memo *memo = memo_of(s, m);
    void **mine = NULL;
    uint32_t n = memo != NULL ? walk_again(m, memo, frame, pc, WALK_MAX, &mine) : walk_self(m, pc, WALK_MAX);
    if (likely(mine != NULL && *mine != NULL))
        return *mine;
    struct bucket *b = bucket_get(&s->buckets, pc, n, m->p->id);
    if (m->p->id != 0)
        bucket_get(&s->buckets, pc, n, 0);
    if (mine != NULL)
        *mine = b;
    return b;
}

static void record(struct waits *s, struct m *m, const uintptr_t *frame, uint64_t count, uint64_t ns)
{
    struct bucket *b = bucket_of_walk(s, m, frame);
    if (b == NULL)
        return;
    store_rlx(&b->v[0], load_rlx(&b->v[0]) + count); /* rlx: counters that only the processor's owner writes */
    store_rlx(&b->v[1], load_rlx(&b->v[1]) + ns);
}

/* ---- [BUDGET] ---------------------------------------------------------------------------------------------------------- */

static void set_one_in(struct waits *s, int64_t used_ns)
{
    double cost = (double)load_rlx(&s->cost_ns), one_in = load_rlx(s->one_in); /* rlx: counters */
    double may = (double)load_rlx(&s->budget_ppb) / 1e9 * (double)used_ns * AIM;
    double factor = w_min(w_max(cost / w_max(may, 1.0), 1.0 / ADAPT_MOST), (double)ADAPT_MOST);
    uint32_t to = (uint32_t)w_min(w_max(one_in * factor, (double)s->least_one_in), (double)ONE_IN_MOST);
    store_rlx(s->one_in, to); /* rlx: each record has the number it was drawn by */
}

static void adapt(struct waits *s, uint64_t now)
{
    int64_t cpu_ns = os_process_cpu_ns(), used_ns = w_max(cpu_ns - s->began_cpu_ns, (int64_t)1);
    if (load_rlx(&s->budget_ppb) != 0) /* rlx: a number */
        set_one_in(s, used_ns);
    else
        PROBE(waits_cost, s == &mutex, load_rlx(&s->cost_ns), used_ns);
    store_rlx(&s->cost_ns, 0); /* rlx: what comes in between is lost: one record */
    s->began_cpu_ns = cpu_ns;
    store_rlx(&s->began, now); /* rlx: read again by who adapts next */
}

static bool window_over(struct waits *s, uint64_t now) { return os_ticks_ns(load_rlx(&s->began), now) >= WINDOW_NS; } /* rlx: see there */

/* What was begun then stands for so many like it. */
static void spent(struct waits *s, uint64_t began, uint32_t many)
{
    uint64_t now = os_ticks();
    add_rlx(&s->cost_ns, many * (uint64_t)(w_min(os_ticks_ns(began, now), (int64_t)RECORD_NS_MOST) + s->look_ns)); /* rlx: a counter */
    if (likely(!window_over(s, now)) || load_rlx(&s->adapting) != 0) /* rlx: a hint */
        return;
    if (!cas_acq(&s->adapting, 0, 1)) /* acq: sees what the last one wrote; rel below */
        return;
    if (window_over(s, now))
        adapt(s, now);
    store_rel(&s->adapting, 0); /* rel: publishes it; acq above */
}

/* For how many the cost of this one is to count; 0: it is not measured. */
static uint32_t costs_for(const struct waits *s, const struct m *m)
{
    if (load_rlx(&s->budget_ppb) != 0) /* rlx: a number */
        return 1;
    return PROBE_WANTED(waits_cost) && draw(m) >> (64 - COST_ONE_IN_LOG2) == 0 ? 1u << COST_ONE_IN_LOG2 : 0;
}

/* ---- what is told --------------------------------------------------------------------------------------------------------- */

#define BLOCKS ((1u << WAIT_CHAN_SEND) | (1u << WAIT_CHAN_RECV) | (1u << WAIT_CHAN_SEND_NIL) | (1u << WAIT_CHAN_RECV_NIL) | (1u << WAIT_SELECT) | \
                (1u << WAIT_SELECT_EMPTY) | (1u << WAIT_MUTEX) | (1u << WAIT_RW_RLOCK) | (1u << WAIT_RW_LOCK) | (1u << WAIT_GROUP) | \
                (1u << WAIT_COND) | (1u << WAIT_SEMA))

static void waited(struct waits *s, const uintptr_t *frame, uintptr_t b, uint64_t ns)
{
    uint64_t rate = (uint64_t)load_rlx(&s->rate), weight = PROBE_WAITED_WEIGHT(b), count = weight << FRACTION_BITS; /* rlx: a number */
    if (!(BLOCKS >> PROBE_WAITED_REASON(b) & 1) || rate == 0)
        return;
    struct m *m = m_self();
    uint32_t many = costs_for(s, m);
    uint64_t began = many != 0 ? os_ticks() : 0;
    bool taken = ns >= rate || draw(m) % rate < ns;
    if (taken && ns < rate) {
        count = (uint64_t)((unsigned __int128)count * rate / ns);
        ns = rate;
    }
    if (taken)
        record(s, m, frame, count, ns * weight);
    if (many != 0)
        spent(s, began, many);
}

static void contended(struct waits *s, const uintptr_t *frame, uintptr_t b, uint64_t ns)
{
    if (load_rlx(&s->rate) == 0) /* rlx: a number */
        return;
    struct m *m = m_self();
    uint32_t many = costs_for(s, m);
    uint64_t began = many != 0 ? os_ticks() : 0, weight = PROBE_WAITED_WEIGHT(b);
    record(s, m, frame, weight << FRACTION_BITS, ns * weight);
    if (many != 0)
        spent(s, began, many);
}

/* Somebody may still come a little after it was turned off: rate is 0 then, and the buckets stay. */
static void told(void *arg, enum probe_id id, uintptr_t who, uintptr_t b, uintptr_t ns)
{
    (void)arg, (void)who;
    const uintptr_t *own = __builtin_frame_address(0), *emit = (const uintptr_t *)own[0], *frame = (const uintptr_t *)emit[0];
    if (id == PROBE_fiber_waited)
        waited(&block, frame, b, ns);
    else
        contended(&mutex, frame, b, ns);
}

/* ---- settings ----------------------------------------------------------------------------------------------------------------- */

/* Under settings, and the next two. Whoever listens walks. */
static int listen_to(uint64_t probes)
{
    if (probes == 0)
        probe_unlisten_steady(told, NULL);
    return probes != 0 ? probe_listen_steady(probes, told, NULL) : 0;
}

static int listen(struct waits *s)
{
    os_ticks_open();
    int err = s->walks ? 0 : walk_use(); /* in the child of a fork, once more */
    s->walks = err == 0;
    if (err != 0 || s->listens)
        return err;
    err = listen_to(s->probe | (block.listens ? block.probe : 0) | (mutex.listens ? mutex.probe : 0));
    s->listens = err == 0;
    return err;
}

static void unlisten(struct waits *s)
{
    if (s->listens) {
        s->listens = false;
        listen_to((block.listens ? block.probe : 0) | (mutex.listens ? mutex.probe : 0));
    }
    if (s->walks)
        walk_unuse();
    s->walks = false;
}

static int64_t two_looks_ns(void)
{
    uint64_t from = os_ticks();
    for (int i = 0; i < 15; i++)
        os_ticks();
    return os_ticks_ns(from, os_ticks()) / 8;
}

/* rate 0: off; budget 0: none. */
static int set(struct waits *s, int64_t rate, double budget)
{
    uint32_t least = s == &mutex && rate > 1 ? (uint32_t)rate : 1, one_in = budget > 0 ? w_max(least, FIRST_ONE_IN) : least;
    int err = rate > 0 ? listen(s) : 0;
    if (err != 0) {
        if (!s->listens)
            unlisten(s);
        return err;
    }
    for (unsigned looks = 0; !cas_acq(&s->adapting, 0, 1); looks++) /* acq: as in spent */
        backoff(looks);
    s->look_ns = two_looks_ns();
    s->began_cpu_ns = os_process_cpu_ns();
    store_rlx(&s->began, os_ticks()); /* rlx: as in adapt */
    store_rlx(&s->cost_ns, 0);        /* rlx, and the next: numbers; whoever is told of something meanwhile takes it by the old ones, or the new */
    s->least_one_in = least;
    store_rlx(s->one_in, one_in);
    store_rlx(&s->budget_ppb, budget > 0 ? (uint64_t)(budget * 1e7) + 1 : 0);
    store_rlx(&s->rate, rate);
    store_rel(&s->adapting, 0); /* rel: as in spent */
    if (rate == 0)
        unlisten(s);
    return 0;
}

/* [COST]: of the window that a new setting cuts short. Inside the runtime. */
static void tell_rest(struct waits *s)
{
    if (load_rlx(&s->rate) == 0 || load_rlx(&s->budget_ppb) != 0 || !cas_acq(&s->adapting, 0, 1)) /* rlx: numbers; acq: as in spent */
        return;
    adapt(s, os_ticks());
    store_rel(&s->adapting, 0); /* rel: as in spent */
}

struct setting { struct waits *s; int64_t rate; double budget; };

static int set_locked(void *arg)
{
    const struct setting *to = arg;
    pthread_mutex_lock(&settings);
    int err = set(to->s, to->rate, to->budget);
    pthread_mutex_unlock(&settings);
    return err;
}

/* Making walks exact, and waiting for listeners, are for outside of the runtime. */
static int set_outside(struct waits *s, int64_t rate, double budget)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    if (PROBE_WANTED(waits_cost))
        tell_rest(s);
    PROBE(waits_rate, s == &mutex, budget > 0 ? 0 : rate, 0);
    return helper_outside(m, set_locked, &(struct setting){ s, rate, budget });
}

/* Percent of processor time that a rate may take. */
static double guard_budget(void) { return guarded(WEFT_GUARD_PROFILES) ? 0.5 : 0; }

int weft_set_block_profile_rate(int64_t ns) { return set_outside(&block, w_max(ns, (int64_t)0), ns > 0 ? guard_budget() : 0); }

int weft_set_mutex_profile_fraction(int n)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    int old = (int)(load_rlx(&mutex.budget_ppb) != 0 ? load_rlx(mutex.one_in) : load_rlx(&mutex.rate)); /* rlx: numbers */
    rt_leave(m);
    int err = n >= 0 ? set_outside(&mutex, n, n > 0 ? guard_budget() : 0) : 0;
    return err != 0 ? err : old;
}

static int set_budget(struct waits *s, double percent)
{
    if (!(percent <= 100)) /* nor what is no number */
        return -EINVAL;
    return set_outside(s, percent > 0, w_max(percent, 0.0));
}

int weft_set_block_profile_budget(double percent) { return set_budget(&block, percent); }
int weft_set_mutex_profile_budget(double percent) { return set_budget(&mutex, percent); }

/* ---- the profiles --------------------------------------------------------------------------------------------------------------- */

struct to { struct profile_out *o; int err; };

static void sample(struct bucket *b, void *arg)
{
    struct to *to = arg;
    uint64_t count = load_rlx(&b->v[0]), ns = load_rlx(&b->v[1]); /* rlx: counters */
    int64_t value[2] = { (int64_t)((count + (1u << (FRACTION_BITS - 1))) >> FRACTION_BITS), (int64_t)w_min(ns, (uint64_t)INT64_MAX) };
    if (value[1] == 0) /* not this processor's, or made at this moment */
        return;
    value[0] = w_max(value[0], (int64_t)1);
    if (to->err == 0)
        to->err = profile_sample(to->o, b->pc, b->n, value, NULL, 0);
}

static int collect(struct waits *s, struct profile_out *o)
{
    struct to to = { .o = o };
    buckets_each(&s->buckets, sample, &to);
    return to.err;
}

static int block_collect(struct profile_out *o) { return collect(&block, o); }
static int mutex_collect(struct profile_out *o) { return collect(&mutex, o); }

static void count_stack(struct bucket *b, void *arg) { *(int64_t *)arg += b->tag == 0; }

static int64_t stacks(struct waits *s)
{
    int64_t n = 0;
    buckets_each(&s->buckets, count_stack, &n);
    return n;
}

static int64_t block_count(void) { return stacks(&block); }
static int64_t mutex_count(void) { return stacks(&mutex); }
int64_t block_profile_rate(void) { return load_rlx(&block.rate); } /* rlx: a number */

static int64_t mutex_period(void) { return load_rlx(&mutex.rate); } /* rlx: a number */

#define WAITS                                                                                                                   \
    .style = PROFILE_WAITS, .flags = PROFILE_FROM_CALL | PROFILE_DELTA, .value = { { "contentions", "count" }, { "delay", "nanoseconds" } }, \
    .values = 2, .period_type = { "contentions", "count" }

const struct profile_kind profile_block = { .name = "block", WAITS, .count = block_count, .collect = block_collect };
const struct profile_kind profile_mutex = { .name = "mutex", WAITS, .count = mutex_count, .collect = mutex_collect, .period = mutex_period };

/* ---- the runtime's end, and forks -------------------------------------------------------------------------------------------------- */

static void end(struct waits *s)
{
    set(s, 0, 0); /* nobody else is there */
    buckets_free(&s->buckets);
    for (uint32_t i = 0; i < MEMOS; i++) {
        if (s->memo[i] != NULL)
            off_unmap(OFF_PROF, s->memo[i], walk_memo_bytes());
        s->memo[i] = NULL;
    }
}

static void block_end(void)
{
    end(&block);
    end(&mutex);
}

static void block_after_fork(void)
{
    settings = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    store_rlx(&block.adapting, 0); /* rlx: nobody else runs */
    store_rlx(&mutex.adapting, 0);
    block.walks = mutex.walks = false; /* who kept them exact is not there */
}

static struct sched_guest guest = { .end = block_end, .after_fork = block_after_fork };

static void __attribute__((constructor)) block_init(void)
{
    sched_guest_add(&guest);
}
