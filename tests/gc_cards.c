/* Cards: each store of weft_store is told once, and none is lost while others take them. */
#include "gc_host.h"
#include "base/rng.h"
#include "gc/cards.h"
#include "gc/type.h"

#define BEGIN() th_begin(th_settings(), __builtin_frame_address(0))

struct told { uintptr_t lo[64], hi[64]; size_t n; };

static void tell(void *arg, uintptr_t lo, uintptr_t hi)
{
    struct told *t = arg;
    cr_assert(t->n < w_countof(t->lo) && lo < hi && lo % CARD_BYTES == 0 && hi % CARD_BYTES == 0);
    t->lo[t->n] = lo;
    t->hi[t->n++] = hi;
}

static struct told take_stw(const struct span *s)
{
    struct told t = { .n = 0 };
    cards_take_stw((uintptr_t)span_base(s), (uintptr_t)span_base(s) + span_bytes(s), tell, &t);
    return t;
}

static struct told take_now(const struct span *s)
{
    struct told t = { .n = 0 };
    cards_take((uintptr_t)span_base(s), (uintptr_t)span_base(s) + span_bytes(s), tell, &t);
    return t;
}

static void close_all(const struct span *s) { cards_close((uintptr_t)span_base(s), (uintptr_t)span_base(s) + span_bytes(s)); }
static void clear_all(const struct span *s) { cards_clear((uintptr_t)span_base(s), (uintptr_t)span_base(s) + span_bytes(s)); }

static uintptr_t card_of(const void *slot) { return w_align_down((uintptr_t)slot, CARD_BYTES); }

#define ASSERT_TOLD(t, from, to)                                                                                     \
    do {                                                                                                              \
        struct told t_ = (t);                                                                                         \
        cr_assert_eq(t_.n, 1);                                                                                        \
        cr_assert_eq(t_.lo[0], (uintptr_t)(from));                                                                    \
        cr_assert_eq(t_.hi[0], (uintptr_t)(to));                                                                      \
    } while (0)
#define ASSERT_NONE(t) cr_assert_eq((t).n, 0)

static void **carded_array(size_t words, struct span **s)
{
    void **a = th_typed(gc_type_carded_words(), words);
    cr_assert_not_null(a);
    *s = heap_span_of(a);
    cr_assert((*s)->carded);
    take_stw(*s);
    return a;
}

/* ---- what is told ------------------------------------------------------------------------------------------------- */

Test(gc_cards, every_store_is_told_once_and_alone)
{
    BEGIN();
    struct span *s;
    size_t words = 3 * HEAP_PAGE; /* a large object: 24 pages */
    void **a = carded_array(words, &s);
    for (size_t i = 0; i < words; i += i % 61 + 1) {
        weft_store(&a[i], &a[i]);
        cr_assert_eq(a[i], &a[i]);
        ASSERT_TOLD(take_stw(s), card_of(&a[i]), card_of(&a[i]) + CARD_BYTES);
        ASSERT_NONE(take_stw(s));
    }
    uint64_t number = 5;
    __atomic_store_n((void **)&a[9], (void *)(uintptr_t)number, __ATOMIC_RELAXED);
    weft_stored(&a[9], (void *)(uintptr_t)number);
    ASSERT_TOLD(take_stw(s), card_of(&a[9]), card_of(&a[9]) + CARD_BYTES);
    th_end();
}

Test(gc_cards, cards_in_a_row_are_told_as_one)
{
    BEGIN();
    struct span *s;
    size_t words = 2 * HEAP_PAGE / 8, card = CARD_BYTES / 8;
    void **a = carded_array(5 * words, &s);
    for (size_t i = 0; i < 5 * words; i++)
        weft_store(&a[i], a);
    ASSERT_TOLD(take_stw(s), span_base(s), span_base(s) + span_bytes(s));
    /* over a word of the table, and one by itself behind */
    for (size_t i = 3; i < 13; i++)
        weft_store(&a[i * card + i], a);
    weft_store(&a[14 * card + card - 1], a);
    struct told t = take_stw(s);
    cr_assert_eq(t.n, 2);
    cr_assert_eq(t.lo[0], (uintptr_t)&a[3 * card]);
    cr_assert_eq(t.hi[0], (uintptr_t)&a[13 * card]);
    cr_assert_eq(t.lo[1], (uintptr_t)&a[14 * card]);
    cr_assert_eq(t.hi[1], (uintptr_t)&a[15 * card]);
    th_end();
}

/* The first and the last word of a span are its own. */
Test(gc_cards, neighbours_hear_nothing)
{
    BEGIN();
    struct span *s[3], *left;
    void **a[3];
    size_t words = GC_MAX_SMALL / 8 + HEAP_PAGE / 8; /* each a span of its own, behind each other */
    for (int i = 0; i < 3; i++)
        a[i] = carded_array(words, &s[i]);
    cr_assert_eq((char *)a[0] + span_bytes(s[0]), (char *)a[1]);
    cr_assert_eq((char *)a[1] + span_bytes(s[1]), (char *)a[2]);
    weft_store(&a[1][0], a);
    weft_store(&a[1][words - 1], a);
    ASSERT_NONE(take_stw(s[0]));
    ASSERT_NONE(take_stw(s[2]));
    struct told t = take_stw(s[1]);
    cr_assert_eq(t.n, 2);
    cr_assert_eq(t.lo[0], (uintptr_t)a[1]);
    cr_assert_eq(t.hi[1], (uintptr_t)(a[1] + words));
    /* in a part of a span, only that */
    left = s[1];
    weft_store(&a[1][0], a);
    weft_store(&a[1][HEAP_PAGE / 8], a);
    t.n = 0;
    cards_take_stw((uintptr_t)span_base(left) + HEAP_PAGE, (uintptr_t)span_base(left) + span_bytes(left), tell, &t);
    ASSERT_TOLD(t, &a[1][HEAP_PAGE / 8], &a[1][HEAP_PAGE / 8 + CARD_BYTES / 8]);
    ASSERT_TOLD(take_stw(s[1]), a[1], a[1] + CARD_BYTES / 8);
    th_end();
}

Test(gc_cards, closed_ones_are_taken_and_the_rest_stays)
{
    BEGIN();
    struct span *s;
    void **a = carded_array(HEAP_PAGE, &s);
    size_t card = CARD_BYTES / 8;
    cr_assert(cards_concurrent());
    weft_store(&a[0], a);
    weft_store(&a[4 * card], a);
    ASSERT_NONE(take_now(s)); /* nothing is closed */
    close_all(s);
    weft_store(&a[card], a);     /* after the close: the next round's, */
    weft_store(&a[4 * card], a); /* and of this one the round's too */
    cards_settle();
    ASSERT_TOLD(take_now(s), &a[0], &a[card]);
    ASSERT_NONE(take_now(s));
    close_all(s);
    close_all(s);
    cards_settle();
    struct told t = take_now(s);
    cr_assert_eq(t.n, 2);
    cr_assert_eq(t.lo[0], (uintptr_t)&a[card]);
    cr_assert_eq(t.lo[1], (uintptr_t)&a[4 * card]);
    /* a stop takes both kinds */
    weft_store(&a[0], a);
    close_all(s);
    weft_store(&a[card], a);
    ASSERT_TOLD(take_stw(s), &a[0], &a[2 * card]);
    weft_store(&a[0], a);
    close_all(s);
    weft_store(&a[card], a);
    clear_all(s);
    ASSERT_NONE(take_stw(s));
    th_end();
}

/* ---- slots elsewhere ---------------------------------------------------------------------------------------------------- */

static void *in_data[4];

static void store_anywhere(void)
{
    void *on_stack[4] = { NULL }, **in_malloc = calloc(1000, sizeof *in_malloc);
    weft_store(&on_stack[1], in_data);
    weft_store(&in_data[1], on_stack);
    weft_store(&in_malloc[1], on_stack);
    cr_assert(on_stack[1] == in_data && in_data[1] == on_stack && in_malloc[1] == on_stack);
    weft_store_fill(in_malloc, in_data, 500);
    weft_store_move(in_malloc + 250, in_malloc, 500 * sizeof *in_malloc);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(in_malloc[i], i < 750 ? in_data : NULL);
    free(in_malloc);
}

Test(gc_cards, a_slot_may_lie_anywhere)
{
    store_anywhere(); /* there is no heap yet */
    BEGIN();
    store_anywhere();
    /* objects of other types: nothing is told, nothing is broken */
    void **plain = th_alloc(512, SHAPE_CONS);
    cr_assert_not(heap_span_of(plain)->carded);
    weft_store(&plain[3], plain);
    cr_assert_eq(plain[3], plain);
    th_end();
    store_anywhere(); /* nor is there any more */
}

/* ---- types -------------------------------------------------------------------------------------------------------------- */

struct node { uint64_t n; struct node *left, *right; };

static void find_name(void *arg, const char *name) { *(int *)arg += strcmp(name, "node") == 0; }

Test(gc_cards, a_carded_type_is_one_of_its_own)
{
    BEGIN();
    const size_t at[] = { offsetof(struct node, left), offsetof(struct node, right) };
    const weft_type *t = gc_type_make(sizeof(struct node), at, 2);
    cr_assert_eq(gc_type_name(t, "node"), 0);
    const weft_type *c = gc_type_carded(t);
    cr_assert(c != NULL && c != t);
    cr_assert_eq(gc_type_carded(t), c);
    cr_assert_eq(gc_type_carded(c), c);
    cr_assert_eq(gc_type_make(sizeof(struct node), at, 2), t);
    struct span *plain = heap_span_of(th_typed(t, 1)), *carded = heap_span_of(th_typed(c, 1)), *large = heap_span_of(th_typed(c, 10000));
    cr_assert(!plain->carded && carded->carded && large->carded);
    cr_assert(plain->shape != carded->shape && carded->shape == large->shape);
    int named = 0;
    types_each_name(carded->shape, find_name, &named);
    cr_assert_eq(named, 1);
    /* without pointers there is nothing to tell; pointers only, of whatever size, are words */
    const weft_type *bytes = gc_type_make(40, NULL, 0), *pair = gc_type_make(16, (size_t[]){ 0, 8 }, 2), *odd = gc_type_make(20, (size_t[]){ 8 }, 1);
    cr_assert_eq(gc_type_carded(bytes), bytes);
    struct span *pairs = heap_span_of(th_typed(gc_type_carded(pair), 1)), *odds = heap_span_of(th_typed(gc_type_carded(odd), 1));
    struct span *words = heap_span_of(th_typed(gc_type_carded_words(), 1));
    cr_assert(pairs->carded && pairs->shape == words->shape && odds->shape == words->shape);
    th_end();
}

static struct span *was_carded;
static void make_carded(void) { carded_array(HEAP_PAGE, &was_carded); }

/* A span that is used anew for another shape. */
Test(gc_cards, a_span_is_what_it_is_used_for)
{
    BEGIN();
    th_away(make_carded);
    test_wipe_stack();
    th_collect(GC_WHY_FORCED);
    cr_assert_null(heap_span_of(span_base(was_carded)));
    cr_assert_eq(heap_span_of(th_alloc(8 * HEAP_PAGE, SHAPE_CONS)), was_carded);
    cr_assert_not(was_carded->carded);
    th_end();
}

/* Objects that only a carded one leads to. */
static struct node *volatile kept;

static void make_tree(void)
{
    const size_t at[] = { offsetof(struct node, left), offsetof(struct node, right) };
    const weft_type *t = gc_type_carded(gc_type_make(sizeof(struct node), at, 2));
    kept = th_typed(t, 1);
    for (struct node *n = kept, *next; n->n < 1000; n = next) {
        next = th_typed(t, 1);
        next->n = n->n + 1;
        void **words = th_typed(gc_type_carded_words(), 3);
        weft_store(&n->left, words);
        weft_store(&words[2], next);
    }
}

Test(gc_cards, what_is_in_carded_objects_lives)
{
    struct gc_settings set = th_settings();
    set.verify = set.poison = true;
    th_begin(set, __builtin_frame_address(0));
    th_away(make_tree);
    for (int i = 0; i < 3; i++) {
        test_wipe_stack();
        th_collect(GC_WHY_FORCED);
        uint64_t n = 0;
        for (struct node *x = kept; x->left != NULL; x = ((void **)x->left)[2])
            cr_assert_eq(x->n, n++);
        cr_assert_eq(n, 1000);
    }
    th_end();
}

Test(gc_cards, the_table_is_counted)
{
    static weft_mem_stats before, after;
    BEGIN();
    before.size = after.size = sizeof before;
    gc_fill_stats(&before);
    th_alloc((size_t)256 << 20, SHAPE_NOSCAN);
    gc_fill_stats(&after);
    cr_assert_geq(after.gc_sys - before.gc_sys, ((size_t)256 << 20) / CARD_BYTES);
    th_end();
}

/* ---- while others take ---------------------------------------------------------------------------------------------------- */

/* Threads store ever larger numbers, each to slots of its own, one on a card, and say after each that it is done. Who takes notes what has been
 * said, then closes, settles, and takes: of each slot at least that must have been told by then, or the card be marked again. */
enum { STORM_PAGES = 16, PER_PAGE = HEAP_PAGE / CARD_BYTES, STORM_SLOTS = STORM_PAGES * PER_PAGE, STORERS = 2, ROUNDS = 100000 };

static struct {
    void **a;
    uint64_t seed, told[STORM_SLOTS];
    W_PTR(void) said[STORM_SLOTS]; /* rel: the store is done; acq by who takes */
    w_u32 stop;
} storm;

static void **storm_slot(size_t i) { return &storm.a[i * (CARD_BYTES / 8) + i * 7 % (CARD_BYTES / 8)]; }

static bool storm_marked(size_t i)
{
    size_t card = ((uintptr_t)storm_slot(i) + weft_card_table_.minus_base) / CARD_BYTES;
    return __atomic_load_n(&weft_card_table_.table[card], __ATOMIC_ACQUIRE) == WEFT_CARD_MARKED_;
}

static void copy_out(void *arg, uintptr_t lo, uintptr_t hi)
{
    (void)arg;
    for (size_t i = (lo - (uintptr_t)storm.a) / CARD_BYTES; i < (hi - (uintptr_t)storm.a) / CARD_BYTES; i++)
        storm.told[i] = (uintptr_t)__atomic_load_n(storm_slot(i), __ATOMIC_RELAXED);
}

static void *storer(void *arg)
{
    struct rng r;
    rng_seed(&r, storm.seed + (uintptr_t)arg);
    for (uintptr_t n = 1; !load_acq(&storm.stop); n++) {
        size_t i = rng_below(&r, STORM_SLOTS / STORERS) * STORERS + (uintptr_t)arg;
        weft_store(storm_slot(i), (void *)n);
        store_rel(&storm.said[i], (void *)n);
    }
    return NULL;
}

Test(gc_cards, nothing_is_lost_while_others_store)
{
    BEGIN();
    pthread_t t[STORERS];
    struct span *s;
    struct rng r;
    storm.seed = test_seed();
    rng_seed(&r, ~storm.seed);
    storm.a = carded_array(STORM_PAGES * HEAP_PAGE / 8, &s);
    for (uintptr_t i = 0; i < STORERS; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, storer, (void *)i), 0);
    for (int round = 0; round < ROUNDS / (test_is_slow() ? 10 : 1); round++) {
        size_t first = rng_below(&r, STORM_PAGES) * PER_PAGE;
        uintptr_t lo = (uintptr_t)storm.a + first * CARD_BYTES, said[PER_PAGE];
        for (size_t i = 0; i < PER_PAGE; i++)
            said[i] = (uintptr_t)load_acq(&storm.said[first + i]);
        cards_close(lo, lo + HEAP_PAGE);
        cards_settle();
        cards_take(lo, lo + HEAP_PAGE, copy_out, NULL);
        for (size_t i = 0; i < PER_PAGE; i++)
            cr_assert(storm.told[first + i] >= said[i] || storm_marked(first + i), "round %d, slot %zu", round, first + i);
    }
    store_rel(&storm.stop, 1);
    for (int i = 0; i < STORERS; i++)
        pthread_join(t[i], NULL);
    cards_take_stw((uintptr_t)storm.a, (uintptr_t)storm.a + STORM_PAGES * HEAP_PAGE, copy_out, NULL);
    for (size_t i = 0; i < STORM_SLOTS; i++)
        cr_assert_eq(storm.told[i], (uintptr_t)*storm_slot(i));
    th_end();
}
