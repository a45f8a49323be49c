/* Sample buckets: one per stack and tag, whoever comes first, and all of them there afterwards. */
#include "prof/buckets.h"
#include <pthread.h>
#include <string.h>
#include "base/offheap.h"
#include "base/rng.h"
#include "test.h"

static struct buckets table;

static struct bucket *get(uintptr_t a, uintptr_t b, uint64_t tag)
{
    return bucket_get(&table, (uintptr_t[]){ a, b }, 2, tag);
}

Test(prof_buckets, one_per_stack_and_tag)
{
    struct bucket *b = get(1, 2, 0);
    cr_assert_not_null(b);
    cr_expect_eq(b->n, 2);
    cr_expect(b->pc[0] == 1 && b->pc[1] == 2 && b->tag == 0);
    cr_expect_eq(get(1, 2, 0), b);
    cr_expect_neq(get(2, 1, 0), b);
    cr_expect_neq(get(1, 2, 7), b);
    cr_expect_neq(bucket_get(&table, (uintptr_t[]){ 1, 2 }, 1, 0), b);
    struct bucket *none = bucket_get(&table, NULL, 0, 0);
    cr_assert_not_null(none);
    cr_expect_eq(bucket_get(&table, NULL, 0, 0), none);
    cr_expect_eq(load_rlx(&table.count), 5);
}

static void sum(struct bucket *b, void *arg)
{
    uint64_t *to = arg;
    to[0]++;
    to[1] += load_rlx(&b->v[0]);
    to[2] += b->pc[0];
}

/* Threads that all count the same stacks, in different orders: no stack has two buckets, and no count is lost. */
#define THREADS 4
#define STACKS 20000u

static void *count_all(void *arg)
{
    uint32_t step = 1 + 2 * (uint32_t)(uintptr_t)arg; /* prime to STACKS, or not: 1, 3, 7, 9 */
    for (uint32_t i = 0, at = 0; i < STACKS; i++, at = (at + step) % STACKS)
        add_rlx(&get(at + 1, at * 17 + 5, at % 3)->v[0], 1);
    return NULL;
}

Test(prof_buckets, threads_at_once)
{
    pthread_t t[THREADS];
    static const uintptr_t step[THREADS] = { 0, 1, 3, 4 };
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, count_all, (void *)step[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    uint64_t got[3] = { 0 };
    buckets_each(&table, sum, got);
    cr_expect_eq(got[0], STACKS);
    cr_expect_eq(load_rlx(&table.count), STACKS);
    cr_expect_eq(got[1], (uint64_t)THREADS * STACKS);
    cr_expect_eq(got[2], (uint64_t)STACKS * (STACKS + 1) / 2);
}

/* Of equal hashes, too: in a million random stacks there are hundreds. */
Test(prof_buckets, a_million)
{
    struct rng r;
    uint64_t got[3] = { 0 }, seed = test_seed();
    uint32_t n = test_is_slow() ? 100000 : 1000000;
    for (int pass = 0; pass < 2; pass++) {
        rng_seed(&r, seed);
        for (uint32_t i = 0; i < n; i++) {
            uintptr_t pc = rng_next(&r);
            add_rlx(&get(pc, i, 0)->v[0], 1);
        }
    }
    buckets_each(&table, sum, got);
    cr_expect_eq(got[0], n);
    cr_expect_eq(got[1], 2ull * n);
    struct off_stats s;
    buckets_free(&table);
    off_stats(OFF_PROF, &s);
    cr_expect_eq(s.mapped_bytes, 0, "%zu", (size_t)s.mapped_bytes);
}

Test(prof_buckets, no_memory)
{
    static uintptr_t deep[20000];
    cr_expect_null(bucket_get(&table, deep, w_countof(deep), 0));
    cr_expect_eq(load_rlx(&table.lost), 1);
    cr_expect_not_null(get(1, 2, 0));
}
