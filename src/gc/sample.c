/* See sample.h. Heap profiles stand on this, but gc knows nothing of them: a layer above declares itself by gc_sampler, in a word per object it
 * remembers what it likes (see gc.h).
 *
 * [STREAM] Each byte that a processor's cache hands out is to be sampled with the same small probability, by itself, and an object with its bytes:
 * so one of s bytes is with probability 1 - exp(-s / rate), and whoever counts it for 1 / that many has an estimate that is right on average. Of the
 * bytes put in a row, then, the distances between sampled ones are exponential with mean `rate`. The exponential distribution knows no past:
 * wherever one stands in the row, the distance to the next sampled byte has the same distribution, whatever came before, and is independent of what
 * the bytes to the left or elsewhere drew. Three things follow, on which all of this rests.
 *
 *  1. The order in the row is arbitrary, as long as each byte is in it once and its place is chosen without a look at what lies ahead. So it need not
 *     be the order of allocation: a cache has a run per shape and class and they are used up in turns, but the stream takes a run whole, when
 *     it is made. One comparison per run (some 8 KiB) tells that nothing in it is sampled, which at the default rate holds for 98 of 100.
 *     Only then does the run get a limit before the sampled object, at which the fast path gives up; it costs the fast path nothing, as it
 *     looks at a limit anyway. What lies behind that object is not looked at yet. It is another piece of the stream, taken when the object was.
 *  2. What is handed out and not used may be forgotten. A run that is given back in a stop takes a sampled object that it was going to have with it:
 *     the bytes of the next run that holds these slots are drawn anew. Nothing in the program knew of the draw, so nothing was chosen by it.
 *  3. Another rate takes hold anywhere by one new draw. What was cut by the old one is looked at again when it is reached, as far as the limit was in
 *     its way; a run without one goes to its end (or to the next cycle) as it is.
 *
 * The draw is of a real number, and whole bytes of it are kept; since objects have whole sizes, what is dropped never decides. The rest of a sampled
 * object is not drawn: it is sampled. By rate 1 every object is, by 0 none. Under gcstress each object goes the slow way and is a piece of its own.
 * A large object is one, too.
 *
 * [RECORDS] A record { object, word } per sampled object, in blocks: each cache fills one of its own, without a lock, and only in the stop of a
 * cycle does anybody read them. There all of them are walked, in the order of memory: those that came since the last walk are told as born, those
 * whose mark bit is clear as dead; the rest is moved together, and caches begin with other blocks. That is after finalizers and the rest of
 * special.c have had their say, so an object is dead when it is freed, and one that its finalizer brings back is not. Records hold no object: they
 * lie in memory that is not scanned. Special.c's tables would do, but cost a lock and two small blocks per object; these cost two words. */
#include "gc/sample.h"
#include <string.h>
#include "base/lock.h"
#include "base/probe.h"
#include "base/real.h"
#include "gc/cache.h"
#include "gc/mark.h"
#include "os/clock.h"

#define BLOCK_BYTES 65536u
#define SPARE_BLOCKS 4u     /* kept; above that some go back in each cycle */
#define DROPS_PER_CYCLE 16u
#define AHEAD 16u           /* records: of the map, and as many again of the marks */

struct record { char *obj; uintptr_t word; };

struct gc_samples {
    struct gc_samples *next;
    uint32_t n;    /* owner's cache; in a stop whoever collects */
    uint32_t told; /* as born: those before it */
    struct record at[(BLOCK_BYTES - 16) / sizeof(struct record)];
};
_Static_assert(sizeof(struct gc_samples) == BLOCK_BYTES, "whole pages");
#define BLOCK_RECORDS w_countof(((struct gc_samples *)0)->at)

const struct gc_sampler *gc_sampler;

/* The lists: under the lock, and in a stop whoever collects. */
static struct {
    struct lock lock;
    struct gc_samples *all, *spare;
    struct gc_samples *part;  /* of all: it has room, and no cache has it open */
    uint32_t nspare;
    w_u64 caches;             /* rlx: only makes their seeds differ */
} samples = { .lock = LOCK_INIT(RANK_LEAF) };

/* ---- [STREAM] -------------------------------------------------------------------------------------------- */

#define NEVER ((uint64_t)1 << 62)

static void draw(struct gc_sample_cache *sc)
{
    if (sc->rate <= 1) {
        sc->next = sc->rate == 0 ? NEVER : 0;
        return;
    }
    double x = -real_log(1 - rng_unit(&sc->rng)) * (double)sc->rate;
    sc->next = x < (double)NEVER ? (uint64_t)x : NEVER;
}

void sample_cache_init(struct gc_sample_cache *sc)
{
    uint64_t seed = heap.sample_seed != 0 ? heap.sample_seed : (uint64_t)os_now_ns() ^ (uintptr_t)sc << 20;
    *sc = (struct gc_sample_cache){ .rate = load_rlx(&heap.sample_rate) }; /* rlx: a setting */
    rng_seed(&sc->rng, seed + add_rlx(&samples.caches, 1));
    draw(sc);
}

bool sample_holds(const struct gc_sample_cache *sc) { return sc->rate == load_rlx(&heap.sample_rate); } /* rlx: a setting */

char *sample_next(struct gc_sample_cache *sc, char *p, char *end, size_t size)
{
    size_t bytes = (size_t)(end - p);
    if (unlikely(!sample_holds(sc))) {
        sc->rate = load_rlx(&heap.sample_rate); /* rlx: a setting */
        draw(sc);
    }
    if (likely(sc->next >= bytes)) {
        sc->next -= bytes;
        return end;
    }
    p += sc->next / size * size;
    draw(sc); /* for what comes next in the stream, whatever that is */
    return p;
}

uint64_t gc_sample_rate(void) { return load_rlx(&heap.sample_rate); } /* rlx, and below: a setting. Caches look at it when they come by */
void gc_set_sample_rate(uint64_t bytes) { store_rlx(&heap.sample_rate, bytes); }

/* ---- [RECORDS] ------------------------------------------------------------------------------------------- */

static struct gc_samples *block_open(void)
{
    lock_take(&samples.lock);
    struct gc_samples *b = samples.part;
    samples.part = NULL;
    if (b == NULL) {
        if ((b = samples.spare) != NULL) {
            samples.spare = b->next;
            samples.nspare--;
        } else
            b = off_map(OFF_SPECIAL, BLOCK_BYTES, HEAP_PAGE);
        if (b != NULL) {
            b->next = samples.all;
            samples.all = b;
        }
    }
    lock_drop(&samples.lock);
    return b;
}

/* First a place for the record: an object that is told as born must be found dead one day. */
void sample_tell(struct gc_sample_cache *sc, void *obj, size_t bytes)
{
    PROBE(alloc_sample, obj, bytes, 0);
    if (gc_sampler == NULL)
        return;
    if (sc->open == NULL || sc->open->n == BLOCK_RECORDS) {
        struct gc_samples *b = block_open();
        if (b == NULL)
            return;
        sc->open = b;
    }
    uintptr_t word = gc_sampler->allocated(obj, bytes);
    if (word != 0)
        sc->open->at[sc->open->n++] = (struct record){ obj, word };
}

static bool survives(const struct record *r)
{
    if (bits_get((const uint64_t *)heap.bits, heap_mark_bit(r->obj)))
        return true;
    PROBE(free_sample, r->obj, span_elem(heap_span_of(r->obj)), 0);
    return false;
}

/* Where survivors go: never ahead of where they come from. */
struct place { struct gc_samples *block; uint32_t n; };

static void keep(struct place *to, struct record r)
{
    if (to->n == BLOCK_RECORDS) {
        to->block->n = to->block->told = to->n;
        *to = (struct place){ to->block->next, 0 };
    }
    to->block->at[to->n++] = r;
}

/* Objects come in no order, so what tells of each is far from the last. In a heap of 1 GB with 2500 samples the walk takes 20 to 25 ns for each; by the
 * records of their spans, and eight ahead, it took 70. */
static void ahead(const struct record *r) { __builtin_prefetch((const uint64_t *)heap.bits + heap_mark_bit(r->obj) / 64); }

static void walk_block(struct gc_samples *b, struct place *to)
{
    uint32_t n = b->n, told = b->told;
    for (uint32_t i = 0; i < n; i++) {
        struct record r = b->at[i];
        if (i + 2 * AHEAD < n)
            __builtin_prefetch(&heap.pagemap[page_of(b->at[i + 2 * AHEAD].obj)]);
        if (i + AHEAD < n)
            ahead(&b->at[i + AHEAD]);
        if (i >= told)
            gc_sampler->born_stw(r.word);
        if (survives(&r))
            keep(to, r);
        else
            gc_sampler->died_stw(r.word);
    }
}

static void spare(struct gc_samples *b)
{
    for (struct gc_samples *next; b != NULL; b = next) {
        next = b->next;
        b->n = b->told = 0;
        b->next = samples.spare;
        samples.spare = b;
        samples.nspare++;
    }
}

static void drop_spare(void)
{
    for (unsigned i = 0; i < DROPS_PER_CYCLE && samples.nspare > SPARE_BLOCKS; i++) {
        struct gc_samples *b = samples.spare;
        samples.spare = b->next;
        samples.nspare--;
        off_unmap(OFF_SPECIAL, b, BLOCK_BYTES);
    }
}

static void walk_all(void)
{
    struct place to = { samples.all, 0 };
    for (struct gc_samples *b = samples.all; b != NULL; b = b->next)
        walk_block(b, &to);
    to.block->n = to.block->told = to.n;
    samples.part = to.n < BLOCK_RECORDS ? to.block : NULL;
    struct gc_samples *rest = to.block->next;
    to.block->next = NULL;
    if (to.n == 0) { /* so it is the first */
        samples.all = samples.part = NULL;
        to.block->next = rest;
        rest = to.block;
    }
    spare(rest);
    for (struct gc_cache_priv *pv = heap.caches; pv != NULL; pv = pv->next)
        pv->sample.open = NULL;
}

void samples_marked_stw(void)
{
    if (gc_sampler == NULL)
        return;
    gc_sampler->marked_stw(true);
    if (samples.all != NULL)
        walk_all();
    drop_spare();
    gc_sampler->marked_stw(false);
}

uint64_t samples_most_stw(void)
{
    uint64_t n = 0;
    for (const struct gc_samples *b = samples.all; b != NULL; b = b->next)
        n += b->n;
    return n;
}

void samples_each_stw(void (*fn)(void *arg, void *obj, uintptr_t word), void *arg)
{
    for (const struct gc_samples *b = samples.all; b != NULL; b = b->next)
        for (uint32_t i = 0; i < b->n; i++)
            fn(arg, b->at[i].obj, b->at[i].word);
}

static void unmap(struct gc_samples *b)
{
    for (struct gc_samples *next; b != NULL; b = next) {
        next = b->next;
        off_unmap(OFF_SPECIAL, b, BLOCK_BYTES);
    }
}

void samples_stop(void)
{
    unmap(samples.all);
    unmap(samples.spare);
    memset(&samples, 0, sizeof samples);
    lock_init(&samples.lock, RANK_LEAF);
}
