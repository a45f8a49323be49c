/* Pins, and arrays that grow. */
#include "heap_test.h"
#include <errno.h>
#include <stdio.h>

enum { MANY = 300, STRAY = 15 };

/* ---- pins ------------------------------------------------------------------------------------------------------------------ */

/* Twice by one pinner, once by the other, each time somewhere into the object. */
static __attribute__((noinline)) void pin_all(struct track *t, weft_pinner *a, weft_pinner *b)
{
    for (uint64_t i = 0; i < MANY; i++) {
        struct box *x = box_new(t, i);
        cr_assert_eq(weft_pin(a, x), 0);
        cr_assert_eq(weft_pin(a, &x->pad[1]), 0);
        cr_assert_eq(weft_pin(b, &x->mark), 0);
    }
}

static __attribute__((noinline)) void check_all(const struct track *t)
{
    for (uint64_t i = 0; i < MANY; i++)
        box_check((struct box *)~t->hidden[2 * i], i);
}

static void pins(void *arg)
{
    (void)arg;
    static weft_pinner a, b;
    struct track t;
    track_init(&t, 4 * MANY);
    for (int round = 0; round < 2; round++) { /* a pinner can be used anew */
        t.n = 0;
        weft_unpin(&a);
        pin_all(&t, &a, &b);
        churn();
        check_all(&t);
        weft_unpin(&a);
        weft_unpin(&a);
        churn();
        check_all(&t); /* still b's */
        weft_unpin(&b);
        test_until((churn(), track_live(&t) <= 2 * STRAY));
    }
    track_free(&t);
    a = b = (weft_pinner){ 0 };
}
Test(heap_pin, kept_as_often_as_pinned) { test_run_each(pins, NULL); }

static int global_word;

static void odd_ones(void *arg)
{
    (void)arg;
    weft_pinner p = { 0 };
    int local;
    weft_unpin(&p);
    cr_expect_eq(weft_pin(&p, NULL), -EINVAL);
    cr_expect_eq(weft_pin(&p, &global_word), 0, "ignored");
    cr_expect_eq(weft_pin(&p, &local), 0, "ignored");
    cr_expect_null(p.pins_, "nothing to keep");
    weft_unpin(&p);
}
Test(heap_pin, of_other_memory_is_ignored) { test_run_each(odd_ones, NULL); }

static int leak_lines, leaked_pins;
static void hear(void *arg, const char *line)
{
    (void)arg;
    int n = 0;
    if (sscanf(line, "weft: a weft_pinner was dropped with %d pins", &n) == 1) {
        __atomic_fetch_add(&leaked_pins, n, __ATOMIC_ACQ_REL);
        count_up(&leak_lines);
    }
}

static __attribute__((noinline)) void drop_pinners(struct track *t)
{
    for (uint64_t i = 0; i < MANY; i++) {
        weft_pinner p = { 0 }, good = { 0 };
        struct box *x = box_new(t, i);
        cr_assert_eq(weft_pin(&p, x), 0);
        cr_assert_eq(weft_pin(&p, x->next), 0);
        cr_assert_eq(weft_pin(&good, x), 0);
        weft_unpin(&good);
    }
}

static void forgotten(void *arg)
{
    (void)arg;
    struct track t;
    track_init(&t, 2 * MANY);
    drop_pinners(&t);
    test_until((churn(), count_now(&leak_lines) >= MANY - STRAY));
    test_until((churn(), track_live(&t) <= 4 * STRAY));
    test_until(count_now(&leaked_pins) == 2 * count_now(&leak_lines)); /* one may be told just now */
    track_free(&t);
}
Test(heap_pin, a_forgotten_pinner_is_reported_and_undone)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.log = hear;
    test_run_config(&cfg, forgotten, NULL);
}

/* ---- arrays that grow ------------------------------------------------------------------------------------------------------- */

struct pair { struct box *b; uintptr_t hidden; };

static __attribute__((noinline)) struct pair *grow(struct track *t, size_t most)
{
    const weft_type *type = WEFT_TYPE(struct pair, b);
    struct pair *v = NULL;
    for (size_t n = 0; n < most; n++) {
        struct pair *w = weft_realloc_array(type, v, n + 1);
        cr_assert_not_null(w);
        cr_assert(w != v && w[n].b == NULL && w[n].hidden == 0, "a copy, and what is new is zero");
        v = w;
        v[n].b = box_new(NULL, n);
        v[n].hidden = (uintptr_t)box_new(t, n); /* no pointer, says the type */
    }
    return v;
}

static void grows(void *arg)
{
    (void)arg;
    struct track t;
    track_init(&t, 2 * MANY);
    static struct pair *v;
    v = grow(&t, MANY);
    test_until((churn(), track_live(&t) <= 2 * STRAY));
    for (uint64_t i = 0; i < MANY; i++)
        box_check(v[i].b, i);
    v = weft_realloc_array(WEFT_TYPE(struct pair, b), v, 10);
    churn();
    for (uint64_t i = 0; i < 10; i++)
        box_check(v[i].b, i);
    v = NULL;
    track_free(&t);
}
Test(heap_pin, typed_arrays_grow_and_stay_typed)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "gcstress=0"; /* whatever the environment says: or the dead leave their places to the living before they are counted */
    cfg.gc_percent = WEFT_GC_OFF;
    test_run_config(&cfg, grows, NULL);
}

static void grow_refusals(void *arg)
{
    (void)arg;
    const weft_type *pair = WEFT_TYPE(struct pair, b), *box = WEFT_TYPE(struct box, next);
    struct pair *v = weft_alloc_array(pair, 4);
    cr_expect_null(weft_realloc_array(NULL, NULL, 4));
    cr_expect_null(weft_realloc_array(box, v, 4), "of another type");
    cr_expect_null(weft_realloc_array(pair, v + 1, 4), "not its start");
    cr_expect_null(weft_realloc_array(pair, &global_word, 4), "not of the heap");
    cr_expect_null(weft_realloc_array(pair, weft_alloc(64), 4), "not typed");
    cr_expect_null(weft_realloc_array(pair, v, SIZE_MAX / 8));
    cr_expect_not_null(weft_realloc_array(pair, v, 4));
}
Test(heap_pin, what_does_not_grow) { test_run_each(grow_refusals, NULL); }
