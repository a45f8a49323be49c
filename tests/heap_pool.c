/* Pools: what comes out, what collections do to it, and that nothing is given to two. */
#include "heap_test.h"
#include "base/rng.h"

static int made;
static void *make_box(void *arg)
{
    count_up(&made);
    return box_new(arg, 1);
}

/* ---- in and out ------------------------------------------------------------------------------------------------------------ */

static void in_and_out(void *arg)
{
    (void)arg;
    made = 0;
    weft_pool *bare = weft_pool_new(NULL, NULL), *pool = weft_pool_new(make_box, NULL);
    cr_expect_null(weft_pool_get(bare));
    weft_pool_put(bare, NULL);
    cr_expect_null(weft_pool_get(bare));
    struct box *b = weft_pool_get(pool);
    box_check(b, 1);
    cr_expect_eq(count_now(&made), 1);
    weft_pool_put(bare, b);
    cr_expect_null(weft_pool_get(weft_pool_new(NULL, NULL)), "pools are each for themselves");
}
Test(heap_pool, empty_ones_make) { test_run_each(in_and_out, NULL); }

/* One processor, no collection: what was put comes out, each once, the last one first. */
static void all_come_back(void *arg)
{
    (void)arg;
    enum { N = 1000 };
    weft_set_gc_percent(-1);
    static struct box *box[N];
    weft_pool *pool = weft_pool_new(NULL, NULL);
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < N; i++)
            weft_pool_put(pool, box[i] = box_new(NULL, i));
        static char seen[N];
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < N; i++) {
            struct box *b = weft_pool_get(pool);
            cr_assert_not_null(b);
            uint64_t k = b->mark ^ BOX_MARK;
            box_check(b, k);
            cr_assert_eq(box[k], b);
            cr_assert_eq(seen[k]++, 0);
        }
        cr_assert_null(weft_pool_get(pool));
    }
}
Test(heap_pool, what_was_put_comes_out_once)
{
    test_run_debug(1, "gcstress=0", all_come_back, NULL); /* a collection may take them */
}

/* ---- collections ------------------------------------------------------------------------------------------------------------ */

enum { MANY = 500, STRAY = 20 };

static __attribute__((noinline)) void fill(weft_pool *pool, struct track *t)
{
    for (uint64_t i = 0; i < MANY; i++)
        weft_pool_put(pool, box_new(t, i));
}

static __attribute__((noinline)) int drain(weft_pool *pool)
{
    int n = 0;
    for (struct box *b; (b = weft_pool_get(pool)) != NULL; n++)
        box_check(b, b->mark ^ BOX_MARK);
    return n;
}

static void collections(void *arg)
{
    (void)arg;
    struct track t;
    track_init(&t, 8 * MANY);
    weft_set_gc_percent(-1);
    weft_pool *pool = weft_pool_new(NULL, NULL);
    fill(pool, &t);
    weft_gc();
    cr_assert_geq(drain(pool), MANY - 4, "one collection leaves them; others' own places are others'");
    fill(pool, &t);
    weft_gc();
    fill(pool, &t);
    cr_assert_geq(drain(pool), 2 * MANY - 8, "new and old");
    t.n = 0;
    fill(pool, &t);
    weft_gc();
    test_wipe_stack();
    test_until((churn(), track_live(&t) <= 2 * STRAY)); /* after the second they are garbage */
    cr_assert_eq(drain(pool), 0);
    track_free(&t);
}
Test(heap_pool, two_collections_empty_it)
{
    for (int procs = 1; procs <= 4; procs *= 2)
        test_run_debug(procs, "gcstress=0", collections, NULL);
}

static __attribute__((noinline)) void drop_pools(struct track *t)
{
    for (int i = 0; i < 50; i++)
        fill(weft_pool_new(make_box, box_new(t, 9)), t);
}

static void dropped(void *arg)
{
    (void)arg;
    struct track t;
    track_init(&t, 200 * MANY);
    drop_pools(&t);
    test_until((churn(), track_live(&t) <= t.n / 50));
    track_free(&t);
}
Test(heap_pool, a_dropped_pool_goes_with_all_it_holds) { test_run_each(dropped, NULL); }

static void *get_arg(void *arg)
{
    box_check(arg, 9);
    return NULL;
}

static void keeps_arg(void *arg)
{
    (void)arg;
    static weft_pool *pool[MANY];
    for (int i = 0; i < MANY; i++)
        pool[i] = weft_pool_new(get_arg, box_new(NULL, 9));
    churn();
    churn();
    for (int i = 0; i < MANY; i++)
        weft_pool_get(pool[i]);
    memset(pool, 0, sizeof pool);
}
Test(heap_pool, the_argument_lives_as_long_as_the_pool) { test_run_each(keeps_arg, NULL); }

/* The usual case: who has a pool is what its objects are made from. */
struct owner { weft_pool *pool; };
static int owners_gone;
static void owner_gone(void *arg) { count_up(arg); }
static void *make_owned(void *arg)
{
    struct owner **owned = weft_alloc(2 * sizeof *owned);
    owned[1] = arg;
    return owned;
}
static w_noinline void make_owners(int n)
{
    for (int i = 0; i < n; i++) {
        struct owner *o = weft_alloc(sizeof *o);
        cr_assert_not_null(o);
        o->pool = weft_pool_new(make_owned, o);
        weft_pool_put(o->pool, weft_pool_get(o->pool));
        cr_assert_eq(weft_add_cleanup(o, owner_gone, &owners_gone, NULL), 0);
    }
}
static void owned(void *arg)
{
    (void)arg;
    owners_gone = 0;
    make_owners(100);
    for (int i = 0; i < 4; i++)
        weft_gc();
    test_until(count_now(&owners_gone) >= 90);
}
Test(heap_pool, an_argument_that_leads_to_the_pool_keeps_nothing) { test_run_each(owned, NULL); }

/* ---- many users -------------------------------------------------------------------------------------------------------------- */

enum { USERS = 6, ROUNDS = 20000 };
struct item { int owner; uint64_t check; };
static weft_pool *shared;
static int busy, fresh, taken;

static void *make_item(void *arg)
{
    (void)arg;
    count_up(&fresh);
    struct item *it = weft_alloc_noscan(sizeof *it);
    it->check = ~(uint64_t)(uintptr_t)it;
    return it;
}

static void user(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    struct item *mine[8];
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t n = 1 + rng_below(&r, 8);
        __atomic_fetch_add(&taken, n, __ATOMIC_RELAXED);
        for (uint32_t k = 0; k < n; k++) {
            mine[k] = weft_pool_get(shared);
            cr_assert_eq(mine[k]->check, ~(uint64_t)(uintptr_t)mine[k], "freed while in the pool");
            cr_assert_eq(__atomic_exchange_n(&mine[k]->owner, 1, __ATOMIC_ACQ_REL), 0, "given to two");
        }
        if (rng_below(&r, 64) == 0)
            weft_yield();
        for (uint32_t k = 0; k < n; k++) {
            __atomic_store_n(&mine[k]->owner, 0, __ATOMIC_RELEASE);
            weft_pool_put(shared, mine[k]);
        }
    }
    __atomic_fetch_sub(&busy, 1, __ATOMIC_ACQ_REL);
}

static void users(void *arg)
{
    (void)arg;
    uint64_t seed = test_seed();
    shared = weft_pool_new(make_item, NULL);
    busy = USERS;
    fresh = taken = 0;
    for (uintptr_t i = 0; i < USERS; i++)
        cr_assert_eq(weft_go(user, (void *)(seed + i)), 0);
    for (int i = 0; count_now(&busy) > 0; i++) {
        if (i % 16 == 0)
            weft_gc();
        weft_maxprocs(1 + i % 5);
        weft_yield();
    }
    cr_assert(count_now(&fresh) < count_now(&taken), "nothing was used twice: %d", taken);
    shared = NULL;
}
Test(heap_pool, many_users_while_processors_come_and_go_and_collections_run) { test_run_each(users, NULL); }
