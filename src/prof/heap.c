/* Heap profiles: what was allocated and what is in use, by who allocated it. "heap" and "allocs" are the same numbers; the latter is shown by what
 * was allocated, unless asked otherwise.
 *
 * gc tells of some allocations, each byte with the same chance (gc/sample.c). The stack is walked at once and finds its bucket, whose tag is the
 * size of the object (that of its class), so that each bucket has one size and so one factor: an object of s bytes is sampled with probability
 * p = 1 - exp(-s / rate), and a bucket of n samples stands for n / p objects. Scaled is what is written, by the rate of then; text has what was
 * counted, and the rate, for pprof to scale.
 *
 * [PUBLISH] Allocations are known at once, deaths only at the next mark: a profile of both as they come would be full of what nobody uses any more.
 * So a profile shows the heap as the last mark found it: all that was allocated before, less all that was dead then. gc tells both in the stop of
 * the mark, so that the counters of buckets, v[BORN] and v[DIED], are written in stops only, and between two stops they are that picture, with
 * nothing to be copied or turned over. (Go learns of deaths by sweeping, after the mark, and shows the mark before last.) After weft_gc it is exact.
 * Before the first mark of a run nothing is known of deaths, and all that was allocated is shown: v[EVER].
 *
 * A profile is collected by a thread that no stop stops, so a mark may come while it reads. `marking` is odd then; the numbers are copied first, when
 * it is even, and copied again if a mark came in between. If marks follow each other faster than that, what is taken mixes two of them: each stack by
 * itself is still true.
 *
 * Stacks begin with who called the runtime: its own frames go, by their addresses (base/text.h). As long as nobody has asked for a profile, or set a
 * rate, walks follow frame pointers, since what it takes to walk exactly (tables, a thread that keeps them) is too much for a program that only
 * might be asked one day. A program without frame pointers then has the function that allocates right, and those that called it perhaps; buckets of
 * such stacks say so. What is taken for callers may be another number each time, so from some thousands of stacks on new ones have nothing but the
 * function that allocates: else memory would grow for ever.
 *
 * Memory: nothing until the first sample; then a few pages, and a bucket of some hundred bytes per stack and size. */
#include <weft/prof.h>
#include <errno.h>
#include <pthread.h>
#include "base/backoff.h"
#include "base/offheap.h"
#include "base/real.h"
#include "base/seqcount.h"
#include "base/text.h"
#include "gc/gc.h"
#include "prof/buckets.h"
#include "prof/heap.h"
#include "prof/helper.h"
#include "prof/profile.h"
#include "prof/pseudo.h"
#include "prof/walk.h"
#include "sched/report.h"
#include "sched/sched.h"

enum { BORN, DIED, EVER }; /* of bucket.v; EVER: rlx, a counter */
#define INEXACT (1ull << 63) /* in a tag, beside the size: the stack was walked by frame pointers */
#define INEXACT_MOST 8192u   /* stacks there are when no new one of that kind is believed any more */

static struct buckets buckets;
static struct seqcount marking; /* [PUBLISH] */
static w_u64 marks;             /* in this run; with the same */
static pthread_mutex_t walking = PTHREAD_MUTEX_INITIALIZER; /* held between weft_blocking_begin and _end, where no stop finds its holder */
static w_u32 walks;             /* exactly; under the mutex, rlx elsewhere: a hint */

/* ---- what gc tells ----------------------------------------------------------------------------------------- */

/* Without the runtime's own frames in front, and those where a fiber begins. Of a stack that is the runtime's as a whole nothing goes. */
static const uintptr_t *trim(const uintptr_t *pc, uint32_t *n)
{
    uint32_t from = text_own_frames(pc, *n), to = *n;
    if (from == to)
        return pc;
    while (text_is_own(pc[to - 1]))
        to--;
    *n = to - from;
    return pc + from;
}

static struct bucket *inexact(const uintptr_t *pc, uint32_t n, uint64_t tag)
{
    if (load_rlx(&buckets.count) < INEXACT_MOST) /* rlx: a few more are no harm */
        return bucket_get(&buckets, pc, n, tag);
    struct bucket *b = bucket_find(&buckets, pc, n, tag);
    return b != NULL ? b : bucket_get(&buckets, pc, 1, tag);
}

static uintptr_t allocated(void *obj, size_t bytes)
{
    (void)obj;
    uintptr_t pc[WALK_MAX];
    uint32_t n = walk_self(m_self(), pc, WALK_MAX);
    if (n == 0)
        pc[n++] = PSEUDO_UNKNOWN;
    const uintptr_t *at = trim(pc, &n);
    struct bucket *b = load_rlx(&walks) != 0 ? bucket_get(&buckets, at, n, bytes) : inexact(at, n, bytes | INEXACT);
    if (b != NULL)
        add_rlx(&b->v[EVER], 1);
    return (uintptr_t)b;
}

/* One writer, and the fence of seq_begin is before. */
static void count(uintptr_t word, unsigned what)
{
    w_u64 *v = &((struct bucket *)word)->v[what];
    store_rlx(v, load_rlx(v) + 1);
}

static void born_stw(uintptr_t word) { count(word, BORN); }
static void died_stw(uintptr_t word) { count(word, DIED); }

static void marked_stw(bool begins)
{
    if (begins) {
        seq_begin(&marking);
        return;
    }
    store_rlx(&marks, load_rlx(&marks) + 1); /* rlx: under seq */
    seq_end(&marking);
}

/* ---- walking well -------------------------------------------------------------------------------------------- */

/* From now on, till the runtime ends. Without memory or a thread for it things stay as they are. In no fiber, or between weft_blocking_begin and
 * _end. */
static int walk_begin(void *none)
{
    (void)none;
    pthread_mutex_lock(&walking);
    if (load_rlx(&walks) == 0 && walk_use() == 0)
        store_rlx(&walks, 1);
    pthread_mutex_unlock(&walking);
    return 0;
}

/* Outside the runtime. */
static int walk_exactly(int debug)
{
    (void)debug;
    struct m *m = load_rlx(&walks) == 0 ? rt_enter_try() : NULL; /* rlx: a hint */
    return m != NULL ? helper_outside(m, walk_begin, NULL) : 0;
}

int64_t weft_set_mem_profile_rate(int64_t bytes)
{
    if (bytes > 0)
        walk_exactly(0);
    struct m *m = rt_enter_try();
    if (m == NULL)
        return -ESRCH;
    int64_t old = (int64_t)gc_sample_rate();
    if (bytes >= 0)
        gc_set_sample_rate((uint64_t)bytes);
    rt_leave(m);
    return old;
}

/* ---- the profile ------------------------------------------------------------------------------------------- */

struct taken { struct bucket *bucket; int64_t born, died; };
struct taking { struct taken *at; size_t n, room; bool first, nomem; };

static void take(struct bucket *b, void *arg)
{
    struct taking *t = arg;
    if (t->n == t->room) {
        size_t room = t->room != 0 ? 2 * t->room : 128;
        struct taken *more = t->nomem ? NULL : off_realloc(OFF_PROF, t->at, room * sizeof *more);
        if (more == NULL) {
            t->nomem = true;
            return;
        }
        t->at = more;
        t->room = room;
    }
    int64_t died = (int64_t)load_rlx(&b->v[DIED]); /* rlx, here and below: void if marking moves */
    t->at[t->n++] = (struct taken){ b, (int64_t)load_rlx(&b->v[t->first ? EVER : BORN]), died };
}

/* Till no mark changes the numbers, which takes as long as it takes to walk all samples. */
static uint64_t between_marks(void)
{
    uint64_t seq;
    while (((seq = seq_read(&marking)) & 1) != 0)
        nap();
    return seq;
}

#define TRIES 20

/* As of one mark. On a thread that a stop does not stop. */
static void take_all(struct taking *t)
{
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t seq = between_marks();
        t->n = 0;
        t->first = load_rlx(&marks) == 0; /* rlx: as in take */
        buckets_each(&buckets, take, t);
        if (!seq_moved(&marking, seq))
            return;
    }
}

/* How many each sampled object of the size stands for. */
static double scale(uint64_t size, uint64_t rate) { return rate <= 1 ? 1 : 1 / (1 - real_exp(-(double)size / (double)rate)); }

static bool is_code(const struct maps *maps, uintptr_t at)
{
    const struct maps_module *m = maps_find(maps, at);
    for (unsigned i = 0; m != NULL && i < m->nseg; i++)
        if (m->seg[i].code && at - m->seg[i].lo < m->seg[i].hi - m->seg[i].lo)
            return true;
    return false;
}

/* Frame pointers lead astray where the program has none: what is not code is no return address, and what lies behind it means nothing. */
static uint32_t believable(const struct maps *maps, const uintptr_t *pc, uint32_t n)
{
    uint32_t i = 1;
    while (i < n && is_code(maps, pc[i] - 1))
        i++;
    return i;
}

uint32_t heap_site(const struct maps *maps, uintptr_t word, const uintptr_t **pc)
{
    const struct bucket *b = (const struct bucket *)word;
    *pc = b->pc;
    return b->tag & INEXACT ? believable(maps, b->pc, b->n) : b->n;
}

uint64_t heap_site_bytes(uintptr_t word) { return ((const struct bucket *)word)->tag & ~INEXACT; }
double heap_site_scale(uint64_t bytes) { return scale(bytes, gc_sample_rate()); }

static int collect(struct profile_out *o)
{
    struct taking t = { 0 };
    take_all(&t);
    uint64_t rate = profile_is_text(o) ? 1 : gc_sample_rate();
    int err = t.nomem ? -ENOMEM : 0;
    for (size_t i = 0; i < t.n && err == 0; i++) {
        struct bucket *b = t.at[i].bucket;
        uint64_t bytes = b->tag & ~INEXACT;
        uint32_t n = b->tag & INEXACT ? believable(profile_maps(o), b->pc, b->n) : b->n;
        double k = scale(bytes, rate), size = (double)bytes, allocs = k * (double)t.at[i].born, in_use = k * (double)(t.at[i].born - t.at[i].died);
        int64_t value[] = { (int64_t)allocs, (int64_t)(allocs * size), (int64_t)in_use, (int64_t)(in_use * size) };
        struct pprof_label label = { .key = "bytes", .num = (int64_t)bytes };
        err = profile_sample(o, b->pc, n, value, &label, 1);
    }
    off_free(OFF_PROF, t.at);
    return err;
}

static int64_t stacks(void) { return (int64_t)load_rlx(&buckets.count); } /* rlx: for show */
static int64_t period(void) { return (int64_t)gc_sample_rate(); }

#define HEAP                                                                                                                      \
    .style = PROFILE_HEAP, .flags = PROFILE_DELTA, .values = 4, .period_type = { "space", "bytes" }, .period = period, \
    .value = { { "alloc_objects", "count" }, { "alloc_space", "bytes" }, { "inuse_objects", "count" }, { "inuse_space", "bytes" } },     \
    .count = stacks, .prepare = walk_exactly, .collect = collect

const struct profile_kind profile_heap = { .name = "heap", HEAP };
const struct profile_kind profile_allocs = { .name = "allocs", HEAP, .default_type = "alloc_space" };

/* ---- the runtime's life, and forks ----------------------------------------------------------------------------- */

/* Who gives a rate wants to see something. */
static w_startup void heap_begin(void)
{
    if (sched.cfg.mem_profile_rate > 0 || (sched.cfg.memprofilerate != CONFIG_MEM_PROFILE_RATE && gc_sample_rate() > 0))
        walk_begin(NULL);
}

static void heap_end(void)
{
    if (load_rlx(&walks) != 0) /* rlx, and below: nobody else is there */
        walk_unuse();
    store_rlx(&walks, 0);
    store_rlx(&marks, 0);
    buckets_free(&buckets);
}

static void heap_after_fork(void)
{
    walking = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    store_rlx(&walks, 0); /* rlx: nobody else runs. Who kept walks exact is not there */
}

static struct sched_guest guest = { .begin = heap_begin, .end = heap_end, .after_fork = heap_after_fork };
static const struct gc_sampler sampler = { allocated, born_stw, died_stw, marked_stw };

static void __attribute__((constructor)) heap_init(void)
{
    gc_sampler = &sampler;
    sched_guest_add(&guest);
}
