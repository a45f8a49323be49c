/* Weak pointers: equality, death, finalizers and cleanups beside them, and readers while collections run. */
#include "heap_test.h"
#include "base/rng.h"

enum { MANY = 500, STRAY = 25 };

static weft_weak *weak[MANY], *inner[MANY];
static struct box *strong[MANY];

static __attribute__((noinline)) void make(bool hold)
{
    for (int i = 0; i < MANY; i++) {
        struct box *b = box_new(NULL, (uint64_t)i);
        weak[i] = weft_weak_make(b);
        inner[i] = weft_weak_make(&b->next);
        cr_assert(weak[i] != NULL && inner[i] != NULL);
        strong[i] = hold ? b : NULL;
        weft_keep_alive(b);
    }
}

static __attribute__((noinline)) int alive(weft_weak **w)
{
    int n = 0;
    for (int i = 0; i < MANY; i++)
        n += weft_weak_get(w[i]) != NULL;
    return n;
}

static void forget(void)
{
    memset(weak, 0, sizeof weak);
    memset(inner, 0, sizeof inner);
    memset(strong, 0, sizeof strong);
}

/* ---- life and death ------------------------------------------------------------------------------------------------------ */

static __attribute__((noinline)) void check_strong(void)
{
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(weft_weak_get(weak[i]), strong[i]);
        cr_assert_eq(weft_weak_get(inner[i]), &strong[i]->next);
        box_check(weft_weak_get(weak[i]), (uint64_t)i);
    }
}

static void lives_as_long(void *arg)
{
    (void)arg;
    make(true);
    churn();
    check_strong();
    memset(strong, 0, sizeof strong);
    test_until((churn(), alive(weak) <= STRAY));
    cr_assert_eq(alive(inner), alive(weak), "they die together");
    cr_assert_null(weft_weak_get(NULL));
    cr_assert_null(weft_weak_make(NULL));
    forget();
}
Test(heap_weak, reads_the_object_while_it_lives_and_then_null) { test_run_each(lives_as_long, NULL); }

/* The last strong pointer may come from a weak one. */
static void kept_by_get(void *arg)
{
    (void)arg;
    make(true);
    for (int i = 0; i < MANY; i++)
        strong[i] = weft_weak_get(weak[i]);
    churn();
    check_strong();
    forget();
}
Test(heap_weak, what_get_gives_is_strong) { test_run_each(kept_by_get, NULL); }

/* ---- equality ------------------------------------------------------------------------------------------------------------- */

static void equal(void *arg)
{
    (void)arg;
    make(true);
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(weft_weak_make(strong[i]), weak[i]);
        cr_assert_eq(weft_weak_make(&strong[i]->next), inner[i]);
        cr_assert_neq(weak[i], inner[i]);
        cr_assert(i == 0 || weak[i] != weak[i - 1]);
    }
    churn();
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_weak_make(strong[i]), weak[i], "also after a collection");
    weft_weak *before[MANY];
    memcpy(before, weak, sizeof before);
    memset(strong, 0, sizeof strong);
    test_until((churn(), alive(weak) <= STRAY));
    make(true); /* at the addresses of the dead, in part */
    for (int i = 0; i < MANY; i++)
        for (int k = 0; k < MANY; k++)
            cr_assert_neq(weak[i], before[k], "a dead one is no other's");
    forget();
}
Test(heap_weak, same_byte_same_pointer) { test_run_each(equal, NULL); }

/* The object keeps its handle, though nobody else does. */
static void handle_stays(void *arg)
{
    (void)arg;
    make(true);
    memset(weak, 0, sizeof weak);
    memset(inner, 0, sizeof inner);
    for (int round = 0; round < 3; round++) {
        churn();
        for (int i = 0; i < 2000; i++)
            memset(weft_alloc_noscan(16), 0x11, 16);
    }
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_weak_get(weft_weak_make(strong[i])), strong[i]);
    forget();
}
Test(heap_weak, the_object_keeps_the_handle) { test_run_each(handle_stays, NULL); }

static int global_word;

static void immortal(void *arg)
{
    (void)arg;
    int *host = malloc(5000 * sizeof *host), local;
    weft_weak *g = weft_weak_make(&global_word), *l = weft_weak_make(&local);
    weft_weak **w = malloc(5000 * sizeof *w);
    for (int i = 0; i < 5000; i++)
        w[i] = weft_weak_make(&host[i]);
    collect();
    cr_assert_eq(weft_weak_get(g), &global_word);
    cr_assert_eq(weft_weak_get(l), &local);
    cr_assert_eq(weft_weak_make(&global_word), g);
    for (int i = 0; i < 5000; i++)
        cr_assert(weft_weak_get(w[i]) == &host[i] && weft_weak_make(&host[i]) == w[i] && (i == 0 || w[i] != w[i - 1]));
    free(host);
    free(w);
}
Test(heap_weak, outside_of_the_heap_nothing_dies) { test_run_each(immortal, NULL); }

/* ---- finalizers and cleanups ------------------------------------------------------------------------------------------------- */

static int finalized, saw_alive, cleaned;
static struct box *saved[MANY]; /* a straggler's finalizer saves it while all are looked at */
static void save(uintptr_t i, struct box *b) { __atomic_store_n(&saved[i], b, __ATOMIC_RELEASE); }
static struct box *saved_now(uintptr_t i) { return __atomic_load_n(&saved[i], __ATOMIC_ACQUIRE); }
static void drop_saved(void)
{
    for (uintptr_t i = 0; i < MANY; i++)
        save(i, NULL);
}

static void finalize(void *obj, void *ctx)
{
    struct box *b = obj;
    uintptr_t i = (uintptr_t)ctx;
    box_check(b, i);
    if (weft_weak_get(weak[i]) != NULL || weft_weak_get(inner[i]) != NULL)
        count_up(&saw_alive);
    save(i, b); /* resurrected */
    count_up(&finalized);
}

static void clean(void *arg)
{
    if (weft_weak_get(weak[(uintptr_t)arg]) != NULL)
        count_up(&saw_alive);
    count_up(&cleaned);
}

static void dies_first(void *arg)
{
    (void)arg;
    finalized = saw_alive = cleaned = 0;
    drop_saved(); /* a straggler of an earlier life may have saved what is gone */
    make(true);
    for (uintptr_t i = 0; i < MANY; i++) {
        cr_assert_eq(weft_set_finalizer(strong[i], finalize, (void *)i), 0);
        cr_assert_eq(weft_add_cleanup(strong[i], clean, (void *)i, NULL), 0);
    }
    memset(strong, 0, sizeof strong);
    test_until((collect(), count_now(&finalized) >= MANY - STRAY));
    collect();
    for (uintptr_t i = 0; i < MANY; i++) {
        struct box *b = saved_now(i);
        if (b == NULL)
            continue;
        cr_assert_null(weft_weak_get(weak[i]), "resurrection does not bring the weak pointer back");
        weft_weak *anew = weft_weak_make(b);
        cr_assert_neq(anew, weak[i]);
        cr_assert_eq(weft_weak_get(anew), b);
    }
    cr_assert_eq(count_now(&cleaned), 0, "not before the second death");
    drop_saved();
    test_until((collect(), count_now(&cleaned) >= MANY - 2 * STRAY));
    cr_assert_eq(count_now(&saw_alive), 0);
    forget();
}
Test(heap_weak, dies_before_the_finalizer_runs) { test_run_each(dies_first, NULL); }

/* ---- a table of weak pointers, as an interpreter has it, while others collect ------------------------------------------------- */

enum { CACHE = 256, ROUNDS = 20000 };
static weft_weak *cache[CACHE];
static int hits, misses, running;

static struct box *lookup(uint64_t i)
{
    weft_weak *w = __atomic_load_n(&cache[i], __ATOMIC_ACQUIRE);
    struct box *b = weft_weak_get(w);
    if (b != NULL) {
        count_up(&hits);
        return b;
    }
    count_up(&misses);
    b = box_new(NULL, i);
    __atomic_store_n(&cache[i], weft_weak_make(b), __ATOMIC_RELEASE);
    return b;
}

static void use_cache(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    struct box *mine[8] = { NULL };
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t k = rng_next(&r) % CACHE;
        struct box *b = mine[i % 8] = lookup(k);
        if (i % 64 == 0)
            weft_yield();
        box_check(b, k);
    }
    count_up(&running);
}

static void cache_storm(void *arg)
{
    (void)arg;
    uint64_t seed = test_seed();
    hits = misses = running = 0;
    for (uintptr_t i = 0; i < 4; i++)
        cr_assert_eq(weft_go(use_cache, (void *)(seed + i)), 0);
    test_until((weft_gc(), count_now(&running) == 4));
    cr_assert(hits > 0 && misses > 0, "%d hits, %d misses", hits, misses);
    memset(cache, 0, sizeof cache);
}
Test(heap_weak, a_cache_under_collections) { test_run_each(cache_storm, NULL); }
