/* The window of the flight recorder: which generations are kept, that what is kept is a trace, and that it costs nobody's buffers. */
#include <fcntl.h>
#include "base/fail.h"
#include "trace/ring.h"
#include "trace_world.h"

static const struct trace_setup small = { .pool_bytes = 1 << 20, .table_bytes = 1 << 20, .fixed = world_texts, .nfixed = w_countof(world_texts) };

static int to_file(void *ctx, const void *data, size_t n) { return fwrite(data, 1, n, ctx) == n ? 0 : -EIO; }

/* What is kept now, as a file. Returns its bytes. */
static uint64_t write_ring(char path[64])
{
    strcpy(path, "/tmp/weft-ring-XXXXXX");
    FILE *f = fdopen(mkstemp(path), "w");
    struct ring_view *v = ring_hold();
    cr_assert_not_null(v);
    uint64_t bytes = 0;
    cr_assert_eq(ring_write(v, to_file, f, &bytes), 0);
    ring_put(v);
    fclose(f);
    return bytes;
}

/* The generations that are kept; the file is accepted. */
static size_t kept(uint32_t *gen, size_t room)
{
    char path[64];
    write_ring(path);
    size_t n = file_generations(path, gen, room);
    struct lines all = go_parse(path);
    for (size_t i = 0; i < all.n; i++)
        free(all.at[i].text);
    free(all.at);
    unlink(path);
    return n;
}

/* A file may begin with any generation, so each would have to tell of a cycle of the collector that runs: none does. */
static void next_generation(struct world *w)
{
    while (w->gc_runs)
        world_run(w);
    world_switch(w, false);
}

/* One with something in it; in a world that nobody else uses. */
static void generation(struct world *w)
{
    w->steps = 20;
    world_run(w);
    next_generation(w);
}

static struct world *begin(size_t bytes, int64_t age_ns)
{
    go_trace();
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(trace_open(&small), 0);
    cr_assert_eq(ring_open(bytes, age_ns, NULL), 0);
    struct world *w = world_new(test_seed(), 1, 2, 0);
    w->advance_every = 0;
    trace_begin();
    return w;
}

static void end(struct world *w)
{
    world_switch(w, true);
    ring_close();
    world_free(w);
    cr_assert_eq(trace_bufs_used(), 0u);
    cr_assert_eq(ring_stats().bytes, 0u);
    trace_close();
}

Test(trace_ring, everything_while_nothing_is_too_old_or_too_large)
{
    uint32_t gen[16];
    struct world *w = begin(64 << 20, 3600 * WEFT_SECOND);
    cr_assert_null(ring_hold(), "no generation is finished");
    for (uint32_t i = 1; i <= 8; i++) {
        generation(w);
        cr_assert_eq(kept(gen, 16), i);
        cr_assert_eq(gen[0], 1u);
        cr_assert_eq(gen[i - 1], i);
        cr_assert_eq(ring_stats().generations, i);
        cr_assert_eq(trace_bufs_used(), 0u, "it holds nothing of the pool");
    }
    end(w);
}

/* Go's rule: the newest, and the one that crosses the limit. */
Test(trace_ring, the_last_two_whatever_their_size_with_tiny_limits)
{
    uint32_t gen[16];
    for (int by_age = 0; by_age < 2; by_age++) {
        struct world *w = begin(by_age ? 64 << 20 : 1, by_age ? 1 : 3600 * WEFT_SECOND);
        uint32_t first = trace.last_gen;
        for (uint32_t i = 0; i < 4; i++) {
            generation(w);
            cr_assert_eq(kept(gen, 16), 1u, "the limit is crossed by the newest itself");
            cr_assert_eq(gen[0], first + i);
        }
        end(w);
    }
    enum { ALL = 400 };
    struct world *w = begin(64 << 20, 3600 * WEFT_SECOND);
    for (int i = 0; i < ALL; i++)
        generation(w);
    size_t all = ring_stats().bytes;
    end(w);
    w = begin(all / 8, 3600 * WEFT_SECOND);
    for (int i = 0; i < ALL; i++) {
        generation(w);
        cr_assert_leq(ring_stats().bytes, all / 8 + 64 * 1024);
    }
    size_t n = ring_stats().generations;
    cr_expect(n > ALL / 32 && n < ALL / 4, "%zu generations", n);
    end(w);
}

Test(trace_ring, what_is_held_stays_and_is_counted)
{
    struct world *w = begin(1, 1);
    generation(w);
    struct ring_view *v = ring_hold();
    size_t one = ring_stats().bytes;
    generation(w);
    generation(w);
    cr_expect_gt(ring_stats().bytes, one, "what is held, and the newest");
    FILE *f = tmpfile();
    uint64_t bytes = 0;
    cr_assert_eq(ring_write(v, to_file, f, &bytes), 0);
    cr_expect_eq((uint64_t)ftell(f), bytes);
    fclose(f);
    size_t before = ring_stats().bytes;
    ring_put(v);
    cr_expect_lt(ring_stats().bytes, before);
    cr_expect_eq(ring_open(1, 1, NULL), -EALREADY);
    cr_expect_geq(ring_stats().most_bytes, before);
    end(w);
    cr_expect_null(ring_hold());
}

static int fail_after(void *ctx, const void *data, size_t n)
{
    size_t *left = ctx;
    (void)data;
    if (*left < n)
        return -ENOSPC;
    *left -= n;
    return 0;
}

Test(trace_ring, a_writer_that_fails_ends_the_writing)
{
    struct world *w = begin(64 << 20, 3600 * WEFT_SECOND);
    generation(w);
    struct ring_view *v = ring_hold();
    uint64_t bytes = 0;
    size_t left = 100;
    cr_expect_eq(ring_write(v, fail_after, &left, &bytes), -ENOSPC);
    cr_expect_eq(bytes, 100 - left);
    ring_put(v);
    end(w);
}

/* [PEEK]: a handler that looks sees whole generations, whoever replaces them meanwhile; and what it sees is not freed before it is done. */
static struct { w_u32 stop, looks; } looking;
static void *look(void *arg)
{
    (void)arg;
    int fd = open("/dev/null", O_WRONLY);
    while (load_rlx(&looking.stop) == 0) {
        const struct ring_view *v = ring_peek_sigsafe();
        if (v == NULL)
            continue;
        uint64_t bytes = 0;
        FILE *f = fdopen(dup(fd), "w");
        cr_assert_eq(ring_write(v, to_file, f, &bytes), 0);
        fclose(f);
        cr_assert_gt(bytes, 16u);
        cr_assert_gt(ring_number(v, v->n - 1), 0u);
        ring_unpeek_sigsafe();
        add_rlx(&looking.looks, 1);
    }
    close(fd);
    return NULL;
}

Test(trace_ring, handlers_look_while_generations_come)
{
    struct world *w = begin(1, 1);
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, look, NULL), 0);
    for (int i = 0; i < 200 || load_rlx(&looking.looks) < 100; i++)
        generation(w);
    store_rlx(&looking.stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    generation(w);
    cr_expect_eq(ring_stats().generations, 1u);
    end(w);
}

/* Many threads, the pool runs out now and then: what is kept is accepted and true, over the gaps. */
static unsigned one(uint64_t seed)
{
    char path[64];
    struct rng r;
    rng_seed(&r, seed);
    cr_assert_eq(trace_open(&small), 0);
    cr_assert_eq(ring_open(1 << 16 << rng_below(&r, 6), 3600 * WEFT_SECOND, NULL), 0);
    struct world *w = world_new(seed, 1 + (int)rng_below(&r, 4), 1 + (int)rng_below(&r, 4), 100);
    trace_begin();
    unsigned bridges = 0;
    for (int round = 0; round < 6; round++) {
        w->steps = 20 + (int)rng_below(&r, 100);
        w->advance_every = 20;
        world_run(w);
        if (rng_below(&r, 3) == 0) /* as if no buffer had been left */
            store_rlx(&trace.lost[load_rlx(&trace.gen) % 2], 1);
        next_generation(w);
        if (ring_stats().generations > 0) {
            write_ring(path);
            bridges += world_check(w, path);
            unlink(path);
        }
    }
    world_switch(w, true);
    ring_close();
    world_free(w);
    trace_close();
    return bridges;
}

Test(trace_ring, gaps_are_bridged, .timeout = 600)
{
    unsigned bridges = 0;
    test_may_take(600);
    go_trace();
    cr_assert_eq(off_init(), 0);
    uint64_t seed = test_seed();
    for (unsigned i = 0; i < 20; i++)
        bridges += one(seed + i);
    cr_expect_gt(bridges, 20u);
    cr_expect_eq(ring_stats().bytes, 0u);
}

Test(trace_ring, without_memory_it_goes_on_when_there_is_some)
{
    uint32_t gen[16];
    struct world *w = begin(64 << 20, 3600 * WEFT_SECOND);
    generation(w);
    for (uint64_t nth = 1; nth <= 12; nth++) { /* of a generation, its copy, the view, the bridge */
        fail_arm(FAIL_MEM, nth, 1);
        generation(w);
        fail_disarm();
        cr_assert_gt(kept(gen, 16), 0u);
    }
    cr_expect_gt(ring_stats().lost, 0u);
    generation(w);
    cr_expect_geq(kept(gen, 16), 2u);
    cr_expect_eq(gen[kept(gen, 16) - 1], trace.last_gen - 1);
    end(w);
}
