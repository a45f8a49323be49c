/* weft_store and its like, as a program uses them: what is stored into carded objects is kept, by every way there is. */
#include "heap_test.h"
#include "base/rng.h"
#include "gc/cards.h"
#include "gc/heap.h"
#include <errno.h>
#include <pthread.h>

struct cell { uint64_t n; struct cell *next; void *value; };

static const weft_type *cell_type(void) { return weft_type_carded(WEFT_TYPE(struct cell, next, value)); }

static bool is_carded(const void *p) { return heap_span_of(p)->carded; }

static bool is_marked(const void *slot)
{
    return weft_card_table_.table[((uintptr_t)slot + weft_card_table_.minus_base) / CARD_BYTES] == WEFT_CARD_MARKED_;
}

/* Nobody takes cards beside the program. */
#define ONLY_OURS "gc=stw"

/* ---- every way to store ---------------------------------------------------------------------------------------------------- */

enum { WORDS = 20000 };

static void forget(void **a, size_t n) { cards_clear(w_align_down((uintptr_t)a, HEAP_PAGE), w_align_up((uintptr_t)(a + n), HEAP_PAGE)); }

/* Cards are marked where something was stored, and nowhere else. */
static void check_marks(void **a, size_t from, size_t n)
{
    uintptr_t lo = w_align_down((uintptr_t)&a[from], CARD_BYTES), hi = n == 0 ? lo : w_align_up((uintptr_t)&a[from + n], CARD_BYTES);
    for (size_t i = 0; i < WORDS; i++)
        cr_assert_eq(is_marked(&a[i]), (uintptr_t)&a[i] >= lo && (uintptr_t)&a[i] < hi, "%zu of [%zu, +%zu)", i, from, n);
}

static void moves(void *arg)
{
    (void)arg;
    struct rng r;
    rng_seed(&r, test_seed());
    void **a = weft_alloc_carded(WORDS * sizeof *a), **want = calloc(WORDS, sizeof *want);
    for (int round = 0; round < 300; round++) {
        size_t most = round % 3 == 0 ? 20 : round % 3 == 1 ? 500 : WORDS / 2;
        size_t n = rng_below(&r, (uint32_t)most), to = rng_below(&r, (uint32_t)(WORDS - n)), from = rng_below(&r, (uint32_t)(WORDS - n));
        if (round % 2)
            from = w_min(WORDS - n, to + rng_below(&r, 8)); /* they overlap */
        for (size_t i = 0; i < WORDS; i++)
            want[i] = a[i] = (void *)(uintptr_t)(i * 8 + 1 + (uintptr_t)round);
        forget(a, WORDS);
        memmove(&want[to], &want[from], n * sizeof *a);
        weft_store_move(&a[to], &a[from], n * sizeof *a);
        cr_assert_eq(memcmp(a, want, WORDS * sizeof *a), 0, "%zu words from %zu to %zu", n, from, to);
        check_marks(a, to, n);
        forget(a, WORDS);
        for (size_t i = 0; i < n; i++)
            want[from + i] = a;
        weft_store_fill(&a[from], a, n);
        cr_assert_eq(memcmp(a, want, WORDS * sizeof *a), 0);
        check_marks(a, from, n);
    }
    free(want);
}

Test(heap_store, move_and_fill_are_memmove_and_tell) { test_run_debug(0, ONLY_OURS, moves, NULL); }

static void ways(void *arg)
{
    (void)arg;
    struct cell *c = weft_alloc_typed(cell_type()), *d = weft_alloc_typed(cell_type());
    cr_assert(is_carded(c));
    forget((void **)c, 3);
    weft_store(&c->next, d);
    cr_assert(c->next == d && is_marked(&c->next));
    forget((void **)c, 3);
    __atomic_store_n(&c->value, d, __ATOMIC_RELEASE);
    weft_stored(&c->value, d);
    cr_assert(is_marked(&c->value));
    cr_assert_null(weft_type_carded(NULL));
    cr_assert_null(weft_alloc_typed(weft_type_carded(NULL)));
    /* of any size */
    for (size_t n = 0; n < 100000; n = n * 3 + 1) {
        char *p = weft_alloc_carded(n);
        cr_assert(p != NULL && is_carded(p) && weft_object_size(p) >= n);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(p[i], 0);
    }
    cr_assert_null(weft_alloc_carded(SIZE_MAX));
    cr_assert_null(weft_alloc_carded(SIZE_MAX - 8));
}

Test(heap_store, every_way_to_store_and_to_allocate) { test_run_debug(0, ONLY_OURS, ways, NULL); }

/* A larger and a smaller copy, of words and of a typed array. */
static void copies(void *arg)
{
    (void)arg;
    void **a = weft_alloc_carded(3000 * sizeof *a);
    weft_store_fill(a, a, 3000);
    for (size_t n = 1000; n <= 9000; n += 8000) {
        void **b = weft_realloc(a, n * sizeof *b - 3);
        cr_assert(b != NULL && b != a && is_carded(b) && is_marked(b) && is_marked(&b[n < 3000 ? n - 1 : 2999]));
        for (size_t i = 0; i < w_min(n, 3000ul); i++)
            cr_assert_eq(b[i], a);
    }
    cr_assert_null(weft_realloc(&a[1], 100));
    struct cell *c = weft_alloc_array(cell_type(), 10);
    for (int i = 0; i < 10; i++)
        weft_store(&c[i].next, &c[9 - i]);
    struct cell *d = weft_realloc_array(cell_type(), c, 50);
    cr_assert(d != NULL && is_carded(d) && is_marked(&d[0].next) && is_marked(&d[9].next));
    for (int i = 0; i < 50; i++)
        cr_assert_eq(d[i].next, i < 10 ? &c[9 - i] : NULL);
    cr_assert_null(weft_realloc_array(WEFT_TYPE(struct cell, next, value), c, 5)); /* of another type */
}

Test(heap_store, copies_are_carded_and_told) { test_run_debug(0, ONLY_OURS, copies, NULL); }

/* ---- kept ------------------------------------------------------------------------------------------------------------------- */

/* Queues of boxes that fibers move from one to the other, so that for each box there is now and then only what was just stored. */
enum { QUEUES = 64, BOXES = 64, FIBERS = 4, MOVES = 30000 };

static void *queue[FIBERS]; /* carded: QUEUES arrays of BOXES, each */

static void **slot(int f, struct rng *r) { return (void **)((void **)queue[f])[rng_below(r, QUEUES)] + rng_below(r, BOXES); }

static void mover(void *arg)
{
    int f = (int)(uintptr_t)arg;
    struct rng r;
    rng_seed(&r, test_seed() + (uintptr_t)f);
    void **own = weft_alloc_carded(QUEUES * sizeof *own);
    weft_store(&queue[f], own);
    for (uint64_t q = 0; q < QUEUES; q++) {
        weft_store(&own[q], weft_alloc_carded(BOXES * sizeof(void *)));
        for (uint64_t i = 0; i < BOXES; i++)
            weft_store((void **)own[q] + i, box_new(NULL, q * BOXES + i));
    }
    for (int i = 0; i < MOVES / (test_is_slow() ? 10 : 1); i++) {
        void **a = slot(f, &r), **b = slot(f, &r), *held = *a;
        weft_store(a, *b);
        weft_store(b, held);
        if (i % 64 == 0) { /* a new array takes the place of an old one */
            void **to = &own[rng_below(&r, QUEUES)], **fresh = weft_alloc_carded(BOXES * sizeof(void *));
            weft_store_move(fresh, *to, BOXES * sizeof(void *));
            weft_store(to, fresh);
        }
        if (i % 1000 == 0)
            weft_yield();
    }
    uint64_t sum = 0;
    for (int q = 0; q < QUEUES; q++)
        for (int i = 0; i < BOXES; i++) {
            struct box *x = ((struct box **)own[q])[i];
            uint64_t n = x->mark ^ BOX_MARK;
            box_check(x, n);
            sum += n;
        }
    cr_assert_eq(sum, (uint64_t)QUEUES * BOXES * (QUEUES * BOXES - 1) / 2);
    busy_done();
}

static void collecting(void *arg)
{
    (void)arg;
    busy_begin(mover, FIBERS);
    while (count_now(&busy_running) != 0) {
        weft_gc();
        weft_yield();
    }
}

Test(heap_store, what_is_moved_about_is_kept, .timeout = 60) { test_run_debug(2, "gcverify=1,gcpoison=1", collecting, NULL); }
Test(heap_store, beside_mprotect, .timeout = 60) { test_run_debug(2, "gc=mprotect,gcverify=1,gcpoison=1", collecting, NULL); }
Test(heap_store, in_one_stop, .timeout = 60) { test_run_debug(2, "gc=stw,gcverify=1,gcpoison=1", collecting, NULL); }

/* Without membarrier(2) there are cards as well, but nobody looks at them before the final stop. */
Test(heap_store, without_membarrier, .timeout = 60)
{
    test_run_debug(2, "membarrier=0,gcverify=1,gcpoison=1", collecting, NULL);
    cr_assert_not(cards_concurrent());
}

/* Threads of the host, and lives of the runtime one after the other. */
static void *host_thread(void *arg)
{
    void **a = arg;
    for (size_t i = 0; i < WORDS; i++) {
        struct box *b = box_new(NULL, i);
        weft_store(&a[i], b);
    }
    return NULL;
}

static void host_main(void *arg)
{
    (void)arg;
    pthread_t t;
    void **a = weft_alloc_carded(WORDS * sizeof *a);
    cr_assert_eq(pthread_create(&t, NULL, host_thread, a), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
    churn();
    for (size_t i = 0; i < WORDS; i++)
        box_check(a[i], i);
}

Test(heap_store, threads_of_the_host_and_several_lives)
{
    for (int i = 0; i < 3; i++)
        test_run(host_main, NULL);
    cr_assert_null(weft_card_table_.table);
}
