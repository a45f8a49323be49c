/* Contexts: who is cancelled by whom, when, and why; deadlines; values; functions that run afterwards. */
#include "waiting.h"
#include "base/rng.h"
#include <errno.h>
#include <stdlib.h>

static bool is_done(weft_ctx *c) { return weft_chan_try_recv(weft_ctx_done(c), NULL) == 0; }

#define expect_state(c, want, why)                                 \
    do {                                                           \
        cr_expect_eq(weft_ctx_err(c), want);                       \
        cr_expect_eq(weft_ctx_cause(c), why);                      \
        cr_expect_eq(is_done(c), (want) != 0);                     \
    } while (0)

/* ---- the empty one ------------------------------------------------------------------------------------------------------- */

static int key_a, key_b;

static void empty(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_ctx_err(NULL), 0);
    cr_expect_eq(weft_ctx_cause(NULL), 0);
    cr_expect_eq(weft_ctx_deadline(NULL), 0);
    cr_expect_null(weft_ctx_done(NULL));
    cr_expect_null(weft_ctx_get(NULL, &key_a));
    cr_expect_eq(weft_ctx_cancel(NULL), -EINVAL);
    weft_ctx *v = weft_ctx_with(NULL, &key_a, &key_b);
    cr_expect_null(weft_ctx_done(v));
    cr_expect_eq(weft_ctx_cancel(v), -EINVAL, "a value is not cancelled by itself");
    cr_expect_eq(weft_ctx_cancel(weft_ctx_detached(NULL)), -EINVAL);
    cr_expect_null(weft_ctx_after(NULL, NULL, NULL));
}
Test(sync_ctx, the_empty_context) { test_run_each(empty, NULL); }

/* ---- trees ----------------------------------------------------------------------------------------------------------------- */

static void downwards(void *arg)
{
    (void)arg;
    weft_ctx *root = weft_ctx_cancellable(NULL);
    weft_ctx *a = weft_ctx_cancellable(root), *b = weft_ctx_cancellable(root);
    weft_ctx *va = weft_ctx_with(a, &key_a, a), *aa = weft_ctx_cancellable(va), *out = weft_ctx_detached(va);
    weft_ctx *all[] = { root, a, b, va, aa };
    for (unsigned i = 0; i < w_countof(all); i++)
        expect_state(all[i], 0, 0);
    cr_expect_eq(weft_ctx_cancel_as(a, 5), -EINVAL);
    cr_expect_eq(weft_ctx_cancel_as(a, -EIO), 0);
    expect_state(a, -ECANCELED, -EIO);
    expect_state(va, -ECANCELED, -EIO);
    expect_state(aa, -ECANCELED, -EIO);
    expect_state(root, 0, 0);
    expect_state(b, 0, 0);
    cr_expect_eq(weft_ctx_err(out), 0, "detached");
    cr_expect_eq(weft_ctx_get(out, &key_a), a, "with its values");
    cr_expect_eq(weft_ctx_cancel(root), 0);
    cr_expect_eq(weft_ctx_cancel_as(root, -EIO), 0);
    expect_state(root, -ECANCELED, -ECANCELED);
    expect_state(b, -ECANCELED, -ECANCELED);
    expect_state(a, -ECANCELED, -EIO); /* the first cause stays */
    weft_ctx *late = weft_ctx_with(weft_ctx_cancellable(va), &key_b, NULL);
    expect_state(late, -ECANCELED, -EIO); /* born cancelled */
}
Test(sync_ctx, cancels_what_is_below_and_nothing_else) { test_run_each(downwards, NULL); }

/* Deep and wide, in bounded stack: each cancelled one tells whether all below it were cancelled when the call had returned. */
static void big_tree(void *arg)
{
    (void)arg;
    enum { N = 20000 };
    struct rng r;
    rng_seed(&r, test_seed());
    weft_ctx **c = weft_alloc(N * sizeof *c);
    int *up = malloc(N * sizeof *up);
    bool *gone = calloc(N, sizeof *gone);
    for (int i = 0; i < N; i++) {
        up[i] = i == 0 ? -1 : i < N / 2 ? i - 1 : (int)rng_below(&r, (uint32_t)i); /* a chain, then anything */
        c[i] = weft_ctx_cancellable(i == 0 ? NULL : c[up[i]]);
    }
    for (int round = 0; round < 20; round++) {
        int k = N / 4 + (int)rng_below(&r, N - N / 4);
        weft_ctx_cancel(c[k]);
        for (int i = k; i < N; i++)
            gone[i] |= i == k || (up[i] >= 0 && gone[up[i]]);
        for (int i = 0; i < N; i++)
            cr_assert_eq(weft_ctx_err(c[i]), gone[i] ? -ECANCELED : 0, "%d after %d", i, k);
    }
    weft_ctx_cancel(c[0]);
    for (int i = 0; i < N; i++)
        cr_assert(is_done(c[i]));
    free(up);
    free(gone);
}
Test(sync_ctx, a_large_tree) { test_run_each(big_tree, NULL); }

static int woken;
static void wait_done(void *ctx)
{
    weft_case cases[2] = { { WEFT_RECV, weft_ctx_done(ctx), NULL, 0 }, { WEFT_RECV, NULL, NULL, 0 } };
    cr_assert_eq(weft_select(cases, 2), 0);
    cr_assert_eq(weft_ctx_err(ctx), -ECANCELED, "err is there when done is closed");
    cr_assert_eq(weft_ctx_cause(ctx), -EPROTO);
    __atomic_fetch_add(&woken, 1, __ATOMIC_ACQ_REL);
}

static void wakes(void *arg)
{
    (void)arg;
    enum { N = 300 };
    woken = 0;
    weft_ctx *root = weft_ctx_cancellable(NULL), *child = weft_ctx_with(weft_ctx_cancellable(root), &key_a, NULL);
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_go(wait_done, i % 2 ? root : child), 0);
    test_until(receivers(weft_ctx_done(root)) + receivers(weft_ctx_done(child)) == N);
    weft_ctx_cancel_as(root, -EPROTO);
    test_until(__atomic_load_n(&woken, __ATOMIC_ACQUIRE) == N);
}
Test(sync_ctx, wakes_all_who_wait) { test_run_each(wakes, NULL); }

/* ---- deadlines --------------------------------------------------------------------------------------------------------------- */

static void deadlines(void *arg)
{
    (void)arg;
    int64_t now = weft_now(), far = now + 1000 * WEFT_SECOND;
    weft_ctx *root = weft_ctx_until(NULL, far);
    cr_expect_eq(weft_ctx_deadline(root), far);
    weft_ctx *later = weft_ctx_until(root, far + 1), *none = weft_ctx_until(root, 0), *plain = weft_ctx_cancellable(root);
    cr_expect_eq(weft_ctx_deadline(later), far, "the parent's is sooner");
    cr_expect_eq(weft_ctx_deadline(none), far);
    cr_expect_eq(weft_ctx_deadline(plain), far);
    cr_expect_eq(weft_ctx_deadline(weft_ctx_with(root, &key_a, NULL)), far);
    cr_expect_eq(weft_ctx_deadline(weft_ctx_detached(root)), 0);
    weft_ctx *past = weft_ctx_until(root, now - 1);
    expect_state(past, -ETIMEDOUT, -ETIMEDOUT);
    weft_ctx *soon = weft_ctx_until(root, weft_now() + 5 * WEFT_MILLISECOND), *below = weft_ctx_cancellable(soon);
    cr_expect_eq(weft_chan_recv(weft_ctx_done(below), NULL), 0);
    cr_expect_geq(weft_now(), weft_ctx_deadline(soon), "not before");
    expect_state(below, -ETIMEDOUT, -ETIMEDOUT);
    expect_state(soon, -ETIMEDOUT, -ETIMEDOUT);
    expect_state(root, 0, 0);
    uint32_t timers = timers_waiting();
    weft_ctx *cancelled = weft_ctx_until(root, far - 1);
    cr_expect_eq(timers_waiting(), timers + 1);
    weft_ctx_cancel(cancelled);
    cr_expect_eq(timers_waiting(), timers, "its timer is gone with it");
    expect_state(cancelled, -ECANCELED, -ECANCELED);
    weft_ctx_cancel(root);
    cr_expect_eq(timers_waiting(), timers - 1);
}
Test(sync_ctx, deadlines) { test_run_each(deadlines, NULL); }

/* ---- values ------------------------------------------------------------------------------------------------------------------- */

static void values(void *arg)
{
    (void)arg;
    int x, y, z;
    weft_ctx *a = weft_ctx_with(NULL, &key_a, &x), *b = weft_ctx_with(weft_ctx_cancellable(a), &key_b, &y);
    weft_ctx *a2 = weft_ctx_with(b, &key_a, &z);
    cr_expect_eq(weft_ctx_get(b, &key_a), &x);
    cr_expect_eq(weft_ctx_get(b, &key_b), &y);
    cr_expect_eq(weft_ctx_get(a2, &key_a), &z, "the nearest");
    cr_expect_eq(weft_ctx_get(a, &key_a), &x);
    cr_expect_null(weft_ctx_get(a, &key_b));
    cr_expect_null(weft_ctx_get(a2, NULL));
}
Test(sync_ctx, values_of_the_nearest) { test_run_each(values, NULL); }

/* ---- functions ------------------------------------------------------------------------------------------------------------------ */

static int ran;
static void count(void *arg)
{
    (void)arg;
    __atomic_fetch_add(&ran, 1, __ATOMIC_ACQ_REL);
}

static void afterwards(void *arg)
{
    (void)arg;
    ran = 0;
    weft_ctx *root = weft_ctx_cancellable(NULL), *child = weft_ctx_cancellable(root);
    weft_ctx *a[4];
    for (int i = 0; i < 4; i++)
        a[i] = weft_ctx_after(i < 2 ? root : child, count, NULL);
    cr_expect(weft_ctx_after_stop(a[0]));
    cr_expect(!weft_ctx_after_stop(a[0]), "stopped already");
    weft_gc(); /* nobody needs to hold them */
    weft_yield();
    cr_expect_eq(__atomic_load_n(&ran, __ATOMIC_ACQUIRE), 0);
    weft_ctx_cancel(root);
    test_until(__atomic_load_n(&ran, __ATOMIC_ACQUIRE) == 3);
    cr_expect(!weft_ctx_after_stop(a[1]), "it was started");
    weft_ctx *late = weft_ctx_after(root, count, NULL);
    test_until(__atomic_load_n(&ran, __ATOMIC_ACQUIRE) == 4);
    cr_expect(!weft_ctx_after_stop(late));
    cr_expect(!weft_ctx_after_stop(NULL) && !weft_ctx_after_stop(weft_ctx_with(NULL, &ran, NULL)), "neither is one");
    weft_ctx *alone = weft_ctx_after(NULL, count, NULL);
    weft_ctx_cancel(alone);
    test_until(__atomic_load_n(&ran, __ATOMIC_ACQUIRE) == 5);
}
Test(sync_ctx, a_function_runs_after_the_cancellation_once) { test_run_each(afterwards, NULL); }

/* ---- all at once ------------------------------------------------------------------------------------------------------------------ */

enum { TREES = 40, USERS = 4 };
static weft_ctx *tree[TREES];
static int busy;

static void storm_user(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    for (int i = 0; i < 3000; i++) {
        uint32_t k = rng_below(&r, TREES);
        weft_ctx *root = __atomic_load_n(&tree[k], __ATOMIC_ACQUIRE);
        weft_ctx *c = rng_below(&r, 2) ? weft_ctx_cancellable(root) : weft_ctx_until(root, weft_now() + (int64_t)rng_below(&r, 200000));
        weft_ctx *d = weft_ctx_cancellable(c);
        switch (rng_below(&r, 4)) {
        case 0:
            weft_ctx_cancel(root);
            cr_assert_eq(weft_ctx_err(d) != 0, true);
            __atomic_store_n(&tree[k], weft_ctx_cancellable(NULL), __ATOMIC_RELEASE);
            break;
        case 1:
            weft_ctx_cancel(c);
            cr_assert_neq(weft_ctx_err(d), 0);
            break;
        case 2:
            weft_chan_recv_until(weft_ctx_done(d), NULL, weft_now() + 50000);
            break;
        default:
            weft_yield();
        }
        weft_ctx_cancel(c);
        cr_assert(is_done(d));
    }
    __atomic_fetch_sub(&busy, 1, __ATOMIC_ACQ_REL);
}

static void storm(void *arg)
{
    (void)arg;
    uint64_t seed = test_seed();
    busy = USERS;
    for (int i = 0; i < TREES; i++)
        tree[i] = weft_ctx_cancellable(NULL);
    for (uintptr_t i = 0; i < USERS; i++)
        cr_assert_eq(weft_go(storm_user, (void *)(seed + i)), 0);
    test_until((weft_gc(), __atomic_load_n(&busy, __ATOMIC_ACQUIRE) == 0));
    for (int i = 0; i < TREES; i++)
        weft_ctx_cancel(tree[i]);
    test_until(timers_waiting() <= 1);
}
Test(sync_ctx, storm) { test_run_each(storm, NULL); }
