/* Sampled allocations: each byte by itself, whatever runs, shapes and stops do to it; and their deaths. */
#include "gc_host.h"
#include "base/real.h"
#include "gc/cache.h"

/* ---- a listener that counts ------------------------------------------------------------------------------- */

enum { WORDS = 64 };
static struct {
    uintptr_t word;               /* given to what is sampled from now on */
    uint64_t told[WORDS], born[WORDS], died[WORDS], bytes[WORDS], marks;
    bool between;                 /* marked_stw(true) and (false) */
    uintptr_t last;               /* the object told last, complemented: no root */
} heard;

static uintptr_t on_allocated(void *obj, size_t bytes)
{
    cr_assert_not(heard.between);
    cr_assert_eq(gc_object_base(obj), obj);
    cr_assert_eq(gc_object_size(obj), bytes);
    heard.told[heard.word]++;
    heard.bytes[heard.word] += bytes;
    heard.last = ~(uintptr_t)obj;
    return heard.word;
}
static void on_born(uintptr_t word) { cr_assert(heard.between); heard.born[word]++; }
static void on_died(uintptr_t word) { cr_assert(heard.between); heard.died[word]++; cr_assert(heard.died[word] <= heard.born[word]); }
static void on_marked(bool begins) { heard.between = begins; heard.marks += begins; }

static const struct gc_sampler listener = { on_allocated, on_born, on_died, on_marked };

static void begin(uint64_t rate, uint64_t stress, void *base)
{
    struct gc_settings set = th_settings();
    set.sample_rate = rate;
    set.sample_seed = test_seed();
    set.stress = stress;
    memset(&heard, 0, sizeof heard);
    heard.word = 1;
    gc_sampler = &listener;
    th_begin(set, base);
    gc_set_percent(-1);
}

static uint64_t live(unsigned word) { return heard.born[word] - heard.died[word]; }

static void collect(void)
{
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
}

/* ---- which ones ------------------------------------------------------------------------------------------- */

static double part(double got, double expected) { return got > 0 ? got * real_log(got / expected) : 0; }

/* n sampled with probability p each: as likely as 6 standard deviations from the mean, where many are expected and many not; elsewhere that says
 * little, and Chernoff's bound is it for any number: so far to one side comes less than once in e^18, which is 6 * 10^7. */
static void check_share(uint64_t sampled, double n, double p, const char *what)
{
    double got = (double)sampled, missed = n - got;
    bool may = p <= 0 || p >= 1 ? got == n * p : part(got, n * p) + part(missed, n * (1 - p)) <= 6 * 6 / 2;
    cr_assert(may, "%s: %.0f of %.0f, expected %.1f", what, got, n, n * p);
}

/* Objects of one size, with other sizes and shapes in between that interrupt its runs, and now and then a flush of the caches. */
static void shares(uint64_t rate, uint64_t stress, unsigned rounds)
{
    static const size_t size[] = { 16, 24, 64, 100, 512, 1000, 3000, 8192, 32768, 40000, 300000 };
    begin(rate, stress, __builtin_frame_address(0));
    const weft_type *t = gc_type_make(48, (const size_t[]){ 8 }, 1);
    unsigned many = rounds;
    uint64_t n[WORDS] = { 0 }, bytes[WORDS] = { 0 };
    for (unsigned r = 0; r < many; r++) {
        for (unsigned i = 0; i < w_countof(size); i++)
            for (unsigned k = 0, times = size[i] > 4000 ? 1 : 40; k < times; k++) {
                heard.word = 1 + i;
                bytes[heard.word] = gc_object_size(th_alloc(size[i], r % 3 == 0 ? SHAPE_CONS : SHAPE_NOSCAN));
                n[heard.word]++;
            }
        heard.word = 40;
        bytes[40] = gc_object_size(th_typed(t, 1));
        n[40]++;
        if (r % 50 == 49)
            th_collect(GC_WHY_FORCED);
    }
    for (unsigned w = 1; w <= 40; w++) {
        if (n[w] == 0)
            continue;
        char what[64];
        snprintf(what, sizeof what, "%lu bytes, rate %lu", (unsigned long)bytes[w], (unsigned long)rate);
        check_share(heard.told[w], (double)n[w], rate <= 1 ? (double)rate : 1 - real_exp(-(double)bytes[w] / (double)rate), what);
        cr_assert_eq(heard.bytes[w], heard.told[w] * bytes[w]);
    }
    th_end();
}

Test(gc_sample, each_byte_has_the_same_chance) { shares(4096, 0, 4000); }
Test(gc_sample, by_a_rate_like_the_default) { shares(100000, 0, 6000); }
Test(gc_sample, of_every_byte) { shares(2, 0, 200); }
Test(gc_sample, all_by_rate_1) { shares(1, 0, 300); }
Test(gc_sample, none_by_rate_0) { shares(0, 0, 300); }
Test(gc_sample, under_gcstress) { shares(4096, 50, 300); }
Test(gc_sample, all_under_gcstress) { shares(1, 20, 40); }

/* Whether one object is sampled says nothing of the next: pairs of neighbours are as frequent as they should be. */
Test(gc_sample, neighbours_are_independent)
{
    begin(256, 0, __builtin_frame_address(0));
    unsigned n = 400000, pairs = 0;
    bool before = false;
    for (unsigned i = 0; i < n; i++) {
        heard.last = 0;
        bool now = ~(uintptr_t)th_alloc(64, SHAPE_NOSCAN) == heard.last;
        pairs += now && before;
        before = now;
        if (i % 20000 == 19999)
            th_collect(GC_WHY_FORCED);
    }
    double p = 1 - real_exp(-64.0 / 256);
    check_share(heard.told[1], n, p, "objects");
    check_share(pairs, n / 2, 2 * p * p, "pairs"); /* overlapping, so their deviation is larger */
    th_end();
}

/* The gaps between sampled objects, in objects, are geometric: as the exponential, which has no memory, makes them. */
Test(gc_sample, gaps_have_no_memory)
{
    begin(1024, 0, __builtin_frame_address(0));
    uint64_t gap = 0, longer[4] = { 0 };
    for (unsigned i = 0; i < 1000000; i++) {
        heard.last = 0;
        gap++;
        if (~(uintptr_t)th_alloc(32, SHAPE_NOSCAN) != heard.last)
            continue;
        for (unsigned k = 0; k < 4; k++)
            longer[k] += gap > 16 * k;
        gap = 0;
    }
    for (unsigned k = 1; k < 4; k++) /* of those that were longer than 16 (k - 1), the same share is longer than 16 k */
        check_share(longer[k], (double)longer[k - 1], real_exp(-16 * 32.0 / 1024), "gaps");
    th_end();
}

Test(gc_sample, another_rate_takes_hold)
{
    begin(0, 0, __builtin_frame_address(0));
    for (int i = 0; i < 10; i++)
        th_alloc(64, SHAPE_NOSCAN);
    gc_set_sample_rate(1);
    cr_assert_eq(gc_sample_rate(), 1);
    collect(); /* what was prepared is given back */
    for (int i = 0; i < 1000; i++)
        th_alloc(64, SHAPE_NOSCAN);
    cr_assert_eq(heard.told[1], 1000);
    gc_set_sample_rate(0); /* the next object lies behind a limit that was set for it */
    for (int i = 0; i < 1000; i++)
        th_alloc(64, SHAPE_NOSCAN);
    cr_assert_eq(heard.told[1], 1000);
    gc_set_sample_rate(640);
    collect();
    for (int i = 0; i < 100000; i++)
        th_alloc(64, SHAPE_NOSCAN);
    check_share(heard.told[1] - 1000, 100000, 1 - real_exp(-0.1), "after the rate had changed");
    th_end();
}

/* ---- what becomes of them ------------------------------------------------------------------------------------- */

static void *volatile kept[20000]; /* volatile: nobody reads it but the collector */

static void fill(unsigned n, size_t size)
{
    for (unsigned i = 0; i < n; i++)
        kept[i] = th_alloc(size, i % 2 ? SHAPE_CONS : SHAPE_NOSCAN);
}

/* More than fit into one block of records, large ones among them, dying in several cycles. */
Test(gc_sample, deaths_are_told_when_they_happen)
{
    begin(1, 0, __builtin_frame_address(0));
    unsigned n = w_countof(kept);
    fill(n, 40);
    cr_assert_eq(heard.told[1], n);
    cr_assert_eq(heard.born[1], 0, "before a cycle nothing is told as born");
    heard.word = 2;
    void *volatile big = th_alloc(500000, SHAPE_CONS);
    collect();
    cr_assert_eq(live(1), n, "%lu born, %lu died", heard.born[1], heard.died[1]);
    cr_assert_eq(live(2), 1);
    big = NULL;
    (void)big;
    for (unsigned left = n; left > 0;) {
        unsigned drop = w_min(left, 3000u);
        for (unsigned i = 0; i < drop; i++)
            kept[--left] = NULL;
        collect();
        cr_assert_eq(live(1), left, "%lu live of %u", (unsigned long)live(1), left);
        cr_assert_eq(live(2), 0);
    }
    cr_assert_eq(heard.born[1], n);
    heard.word = 3; /* slots and blocks are used again */
    fill(n, 40);
    collect();
    cr_assert_eq(live(3), n);
    cr_assert_eq(heard.told[1], n);
    th_end();
}

Test(gc_sample, an_object_born_and_dead_between_two_cycles_was_there)
{
    begin(1, 0, __builtin_frame_address(0));
    for (int i = 0; i < 500; i++)
        th_alloc(64, SHAPE_CONS);
    collect();
    cr_assert_eq(heard.born[1], 500);
    cr_assert(live(1) <= 3, "%lu live", (unsigned long)live(1)); /* an old register may hold the last ones */
    th_end();
}

static void finalizer(void *obj, void *ctx) { (void)obj, (void)ctx; }

static __attribute__((noinline)) void make_finalized(void)
{
    void *p = th_alloc(64, SHAPE_CONS);
    cr_assert_eq(gc_finalizer_set(p, finalizer, NULL, NULL), 0);
}

Test(gc_sample, who_is_brought_back_by_a_finalizer_lives)
{
    begin(1, 0, __builtin_frame_address(0));
    make_finalized();
    test_wipe_stack();
    collect();
    cr_assert_eq(live(1), 1, "it waits for its finalizer");
    struct gc_call call;
    cr_assert(gc_call_take(GC_FINALIZER, &call));
    kept[0] = call.obj; /* resurrected */
    memset(&call, 0, sizeof call);
    collect();
    cr_assert_eq(live(1), 1);
    kept[0] = NULL;
    collect();
    collect();
    cr_assert_eq(live(1), 0);
    th_end();
}

Test(gc_sample, without_a_listener_nothing_is_kept)
{
    begin(1, 0, __builtin_frame_address(0));
    gc_sampler = NULL;
    struct off_stats before, after;
    off_stats(OFF_SPECIAL, &before);
    fill(1000, 64);
    collect();
    off_stats(OFF_SPECIAL, &after);
    cr_assert_eq(after.in_use_bytes, before.in_use_bytes);
    th_end();
}

static void *volatile many[200000]; /* no list: a forgotten register would keep the whole of it */

/* Memory of many records goes back, and none is left after the end. */
Test(gc_sample, records_are_given_back)
{
    begin(1, 0, __builtin_frame_address(0));
    struct off_stats idle, now;
    off_stats(OFF_SPECIAL, &idle);
    for (unsigned i = 0; i < w_countof(many); i++)
        many[i] = th_alloc(16, SHAPE_CONS);
    collect();
    off_stats(OFF_SPECIAL, &now);
    cr_assert(now.in_use_bytes - idle.in_use_bytes <= 200000 * 16 * 5 / 4, "%lu bytes", (unsigned long)now.in_use_bytes);
    cr_assert_eq(live(1), 200000);
    for (unsigned i = 0; i < w_countof(many); i++)
        many[i] = NULL;
    for (int i = 0; i < 10; i++)
        collect();
    off_stats(OFF_SPECIAL, &now);
    cr_assert(now.in_use_bytes - idle.in_use_bytes <= 400000, "%lu bytes are kept", (unsigned long)(now.in_use_bytes - idle.in_use_bytes));
    th_end();
    off_stats(OFF_SPECIAL, &now);
    cr_assert_eq(now.mapped_bytes, idle.mapped_bytes);
}
