/* Off-heap memory: blocks, alignment, counters, threads, fork. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "base/offheap.h"
#include "base/rng.h"
#include "test.h"

static uint64_t in_use(enum off_purpose why)
{
    struct off_stats s;
    off_stats(why, &s);
    cr_assert_leq(s.in_use_bytes, s.mapped_bytes);
    return s.in_use_bytes;
}

Test(offheap, blocks_are_counted_under_their_purpose)
{
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(off_init(), 0);
    uint64_t fiber = in_use(OFF_FIBER), other = in_use(OFF_OTHER);
    void *p = off_alloc(OFF_FIBER, 100);
    cr_expect(in_use(OFF_FIBER) >= fiber + 100 && in_use(OFF_FIBER) <= fiber + 128);
    p = off_realloc(OFF_FIBER, p, 100000);
    cr_expect_geq(in_use(OFF_FIBER), fiber + 100000);
    cr_expect_eq(in_use(OFF_OTHER), other);
    off_free(OFF_FIBER, p);
    off_free(OFF_FIBER, NULL);
    cr_expect_eq(in_use(OFF_FIBER), fiber);
    cr_expect_not_null(off_alloc(OFF_OTHER, 0));
    for (int i = 0; i < OFF_PURPOSES; i++)
        cr_expect_gt(strlen(off_name(i)), 1u);
}

Test(offheap, whole_pages_are_counted_aligned_and_zeroed)
{
    enum { SLABS = 20, BYTES = 64 << 10 };
    char *slab[SLABS];
    uint64_t before = in_use(OFF_TRACE);
    for (int i = 0; i < SLABS; i++) {
        slab[i] = off_map(OFF_TRACE, BYTES, BYTES);
        cr_assert_not_null(slab[i]);
        cr_expect_eq((uintptr_t)slab[i] % BYTES, 0u);
        cr_expect(slab[i][0] == 0 && memcmp(slab[i], slab[i] + 1, BYTES - 1) == 0, "not zeroed");
        memset(slab[i], i + 1, BYTES);
        cr_expect_eq(in_use(OFF_TRACE), before + (uint64_t)(i + 1) * BYTES);
    }
    for (int i = 0; i < SLABS; i++) {
        cr_expect_eq(slab[i][BYTES - 1], i + 1);
        off_unmap(OFF_TRACE, slab[i], BYTES);
    }
    cr_expect_eq(in_use(OFF_TRACE), before);
}

Test(offheap, contents_alignment_zeroes)
{
    struct { unsigned char *p; size_t n; unsigned char tag; } b[300] = { 0 };
    struct rng r;
    rng_seed(&r, test_seed());
    for (int i = 0; i < 20000; i++) {
        int k = (int)rng_below(&r, 300);
        if (b[k].p != NULL)
            for (size_t j = 0; j < b[k].n; j += 1 + b[k].n / 16)
                cr_assert_eq(b[k].p[j], b[k].tag);
        size_t n = rng_below(&r, 8) == 0 ? rng_below(&r, 100000) : 1 + rng_below(&r, 300);
        size_t old = b[k].n;
        unsigned how = rng_below(&r, 4);
        if (how == 0) {
            b[k].p = off_realloc(OFF_GC, b[k].p, n);
            for (size_t j = 0; j < (n < old ? n : old); j += 7)
                cr_assert_eq(b[k].p[j], b[k].tag, "lost by realloc");
        } else {
            off_free(OFF_GC, b[k].p);
            size_t align = 8u << rng_below(&r, 10);
            b[k].p = how == 1   ? off_alloc(OFF_GC, n)
                     : how == 2 ? off_zalloc(OFF_GC, n)
                                : off_alloc_aligned(OFF_GC, n, align);
            if (how == 3)
                cr_assert_eq((uintptr_t)b[k].p % align, 0u);
            if (how > 1)
                for (size_t j = 0; j < n; j++)
                    cr_assert_eq(b[k].p[j], 0);
        }
        cr_assert_not_null(b[k].p);
        b[k].n = n;
        b[k].tag = (unsigned char)rng_next(&r);
        memset(b[k].p, b[k].tag, n);
    }
    for (int k = 0; k < 300; k++)
        off_free(OFF_GC, b[k].p);
    cr_expect_eq(in_use(OFF_GC), 0u);
}

/* Blocks made by one thread and freed by another; threads that come and go. */
static void *swap_blocks(void *arg)
{
    void **table = arg;
    struct rng r;
    rng_seed(&r, (uintptr_t)&r);
    for (int i = 0; i < 20000; i++) {
        char *p = off_alloc(OFF_SCHED, 16 + rng_below(&r, 200));
        p[0] = 1;
        void *old = __atomic_exchange_n(&table[rng_below(&r, 64)], p, __ATOMIC_ACQ_REL);
        off_free(OFF_SCHED, old);
    }
    return NULL;
}

Test(offheap, blocks_wander_between_threads)
{
    static void *table[64];
    uint64_t before = in_use(OFF_SCHED);
    for (int round = 0; round < 3; round++) {
        pthread_t t[4];
        for (int i = 0; i < 4; i++)
            pthread_create(&t[i], NULL, swap_blocks, table);
        for (int i = 0; i < 4; i++)
            pthread_join(t[i], NULL);
    }
    for (int i = 0; i < 64; i++)
        off_free(OFF_SCHED, table[i]);
    cr_expect_eq(in_use(OFF_SCHED), before);
}

Test(offheap, free_pages_go_back_on_release)
{
    enum { N = 64 };
    void *p[N];
    off_init();
    for (int i = 0; i < N; i++) {
        p[i] = off_alloc(OFF_TRACE, 1 << 20);
        memset(p[i], 1, 1 << 20);
    }
    long full = test_rss_kib();
    for (int i = 0; i < N; i++)
        off_free(OFF_TRACE, p[i]);
    off_release();
    cr_expect_lt(test_rss_kib(), full - 50 * 1024);
}

static void *churn(void *stop)
{
    while (__atomic_load_n((int *)stop, __ATOMIC_RELAXED) == 0)
        off_free(OFF_OTHER, off_alloc(OFF_OTHER, 64));
    return NULL;
}
static void alloc_in_child(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        off_free(OFF_OTHER, off_alloc(OFF_OTHER, 64));
}

/* jemalloc's own fork handlers keep its locks usable in the child. */
Test(offheap, works_in_a_forked_child)
{
    int stop = 0;
    pthread_t t;
    static struct test_output o;
    pthread_create(&t, NULL, churn, &stop);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(test_fork(&o, alloc_in_child, NULL), 0, "signal %d", o.term_signal);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(t, NULL);
}

static void *first_use(void *arg)
{
    pthread_barrier_wait(arg);
    for (int i = 0; i < OFF_PURPOSES; i++)
        cr_assert_not_null(off_alloc(i, 1000));
    return NULL;
}

/* All threads use each purpose for the first time at once: one arena is left, and nothing is lost from the counts. */
Test(offheap, first_use_by_many_threads)
{
    enum { THREADS = 8 };
    pthread_t t[THREADS];
    pthread_barrier_t b;
    pthread_barrier_init(&b, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, first_use, &b);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < OFF_PURPOSES; i++)
        cr_expect_eq(in_use(i), THREADS * 1024u);
}
