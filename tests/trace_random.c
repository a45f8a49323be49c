/* Random programs on several threads, their generations ended at random: Go's tool accepts each, and shows what was told, thread by thread. */
#include "trace_world.h"

static void one(uint64_t seed, int i)
{
    struct rng r;
    rng_seed(&r, seed + (uint64_t)i);
    struct trace_setup setup = { .pool_bytes = 32 << 20, .table_bytes = 1 << 20, .fixed = world_texts, .nfixed = w_countof(world_texts) };
    struct sink s = { 0 };
    cr_assert_eq(trace_open(&setup), 0);
    struct world *w = world_new(seed + (uint64_t)i, 1 + (int)rng_below(&r, 4), 1 + (int)rng_below(&r, 4), 0);
    bool before = rng_below(&r, 2); /* there is a world already when tracing begins */
    w->steps = 200;
    if (before)
        world_run(w);
    trace_begin();
    sink_open(&s);
    w->steps = 20 + (int)rng_below(&r, 600);
    w->advance_every = 20 + rng_below(&r, 300);
    world_run(w);
    world_switch(w, true);
    sink_close(&s);
    cr_assert_eq(s.result, 0);
    cr_assert_leq(world_check(w, s.path), s.stats.dropped); /* where the machine is busy, the sink may come too late */
    world_free(w);
    trace_close();
    unlink(s.path);
}

Test(trace_random, programs_are_shown_as_they_were_told, .timeout = 600)
{
    test_may_take(600);
    go_trace();
    cr_assert_eq(off_init(), 0);
    uint64_t seed = test_seed();
    for (int i = 0; i < (test_is_slow() ? 60 : 300); i++)
        one(seed, i);
}
