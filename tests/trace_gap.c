/* A writer that is too slow loses whole generations; what is written then is still accepted, and true. */
#include "trace_world.h"

/* The smallest pool: a reader that is in the middle of something gets nothing else. */
static const struct trace_setup small = { .pool_bytes = 1 << 20, .table_bytes = 1 << 20, .fixed = world_texts, .nfixed = w_countof(world_texts) };

static void switch_now(struct world *w)
{
    pthread_mutex_lock(&w->gc);
    world_switch(w, false);
    if (w->gc_runs) { /* needs a fiber that runs; the next thread that has one would be too late */
        for (int i = 0; i < w->nthreads; i++) {
            struct wthread *t = &w->thread[i];
            if (t->p != NULL && t->f != NULL && !t->in_syscall && trace_enter(t->e)) {
                own_states(t);
                trace_event(t->e, GC_ACTIVE, ++w->gc_number);
                trace_leave(t->e);
                break;
            }
        }
    }
    pthread_mutex_unlock(&w->gc);
}

static unsigned one(uint64_t seed)
{
    uint64_t before = trace_stats().generations;
    struct sink slow = { 0 }, quick = { 0 };
    struct rng r;
    rng_seed(&r, seed);
    cr_assert_eq(trace_open(&small), 0);
    struct world *w = world_new(seed, 1 + (int)rng_below(&r, 4), 1 + (int)rng_below(&r, 4), 100);
    trace_begin();
    sink_open(&slow);
    sink_open(&quick);
    for (int round = 0; round < 6; round++) {
        store_rel(&slow.stuck, (uint32_t)round % 2);
        w->steps = 20 + (int)rng_below(&r, 100);
        w->advance_every = round % 2 ? 10 : 50;
        world_run(w);
        switch_now(w);
        if (round % 2 == 0) /* it has caught up */
            test_until(trace_reader_stats(slow.reader).generations + trace_reader_stats(slow.reader).dropped == trace_stats().generations - before);
    }
    store_rel(&slow.stuck, 0);
    world_switch(w, true);
    sink_close(&slow);
    sink_close(&quick);
    cr_assert_eq(slow.stats.generations + slow.stats.dropped, trace_stats().generations - before);
    unsigned bridges = world_check(w, slow.path);
    cr_assert_leq(bridges, slow.stats.dropped);
    world_check(w, quick.path);
    world_free(w);
    trace_close();
    unlink(slow.path);
    unlink(quick.path);
    return bridges;
}

Test(trace_gap, what_comes_behind_a_gap_is_accepted_and_true, .timeout = 600)
{
    unsigned bridges = 0, rounds = test_is_slow() ? 15 : 60;
    test_may_take(600);
    go_trace();
    cr_assert_eq(off_init(), 0);
    uint64_t seed = test_seed();
    for (unsigned i = 0; i < rounds; i++)
        bridges += one(seed + i);
    cr_expect_gt(bridges, rounds, "only %u gaps in %u files", bridges, rounds);
}
