/* W01: finalizers whose ctx, or whose own object, leads to that object. Each is found, with the way; and nothing that is sound. */
#include "doctor_test.h"
#include "heap_test.h"
#include <weft/debug.h>

enum { N = 60, CYCLES = 12 };

struct file { uint64_t fd; };
struct closing { struct file *file; uint64_t why; };

static int run_count;
static void close_it(void *obj, void *ctx) { (void)obj, (void)ctx; __atomic_fetch_add(&run_count, 1, __ATOMIC_RELAXED); }

static void *table[8];

static inline void stays_here(int i) { __asm__ volatile("" : : "r"(i)); } /* the call before is none in its place */

/* ---- what is wrong ---------------------------------------------------------------------------------------------- */

NOINLINE static void of_a_struct(int i)
{
    struct file *f = weft_alloc_noscan(sizeof *f);
    struct closing *c = weft_alloc_typed(WEFT_TYPE(struct closing, file));
    c->file = f;
    weft_set_finalizer(f, close_it, c);
    stays_here(i);
}

NOINLINE static void of_itself(int i)
{
    void *obj = weft_alloc(32);
    weft_set_finalizer(obj, close_it, (char *)obj + 8 * (i % 4));
    stays_here(i);
}

NOINLINE static void far_away(int i)
{
    void **obj = weft_alloc(32), *p = obj;
    for (int k = 0; k < 40; k++) {
        void **next = weft_alloc(48);
        next[5] = p;
        p = next;
    }
    weft_set_finalizer(obj, close_it, p);
    stays_here(i);
}

NOINLINE static void each_others(int i)
{
    void *a = weft_alloc(32), *b = weft_alloc_noscan(64);
    weft_set_finalizer(a, close_it, b);
    weft_set_finalizer(b, close_it, a);
    stays_here(i);
}

NOINLINE static void in_a_circle(int i)
{
    void **a = weft_alloc(32), **b = weft_alloc(32);
    a[1] = b;
    b[2] = a;
    weft_set_finalizer(a, close_it, NULL);
    if (i % 2)
        weft_set_finalizer(b, close_it, NULL);
    stays_here(i);
}

NOINLINE static void to_itself(int i)
{
    void **a = weft_alloc(32);
    a[3] = a;
    weft_set_finalizer(a, close_it, NULL);
    stays_here(i);
}

/* ---- what is sound ---------------------------------------------------------------------------------------------- */

NOINLINE static void plain(int i)
{
    void *obj = weft_alloc(32);
    weft_set_finalizer(obj, close_it, i % 2 ? NULL : (void *)(uintptr_t)i);
}

/* Shared, and the finalizer's own besides: kept by the finalizers of others, and no fault in that. */
NOINLINE static void with_a_context_that_has_one(int i)
{
    void *shared = weft_alloc(64), *obj = weft_alloc(32);
    weft_set_finalizer(shared, close_it, NULL);
    weft_set_finalizer(obj, close_it, shared);
    table[i % 8] = obj;
}

NOINLINE static void in_a_row(int i)
{
    void *p = NULL;
    for (int k = 0; k < 6; k++) {
        void **o = weft_alloc(32);
        o[0] = p;
        weft_set_finalizer(o, close_it, NULL);
        p = o;
    }
    stays_here(i);
}

/* ctx is what the program works with, and knows the object as long as that is in use. */
NOINLINE static void known_to_its_context(int i)
{
    static void **registry;
    if (registry == NULL)
        table[7] = registry = weft_alloc(N * sizeof *registry);
    registry[i] = weft_alloc(32);
    weft_set_finalizer(registry[i], close_it, registry);
}

struct scheme { void (*make)(int i); const char *site, *what; int places; };

static void make_all(void *arg)
{
    const struct scheme *s = arg;
    for (int i = 0; i < N; i++)
        s->make(i);
}

static void see(void *arg)
{
    weft_waitgroup wg = { 0 };
    weft_waitgroup_go(&wg, make_all, arg);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < CYCLES; i++) {
        test_wipe_stack();
        weft_gc();
        weft_yield();
    }
    cr_assert_eq(weft_doctor_flush(), 0);
}

static void is_found(const struct scheme *s)
{
    doctor_run(see, (void *)s, "w04=off", NULL);
    cr_assert_eq(said.n, s->places, "%d findings", said.n);
    const struct told *t = &said.at[0];
    cr_expect_eq(t->code, WEFT_W01);
    cr_expect(strncmp(t->stack, s->site, strlen(s->site)) == 0, "%s", t->stack);
    cr_expect_not_null(strstr(t->what, s->what), "no \"%s\" in: %s", s->what, t->what);
    cr_expect_not_null(strstr(t->cure, "first argument"));
}

static void is_none(const struct scheme *s)
{
    doctor_run(see, (void *)s, "w04=off", NULL);
    cr_expect_eq(said.n, 0, "%s", said.at[0].what);
    cr_expect_eq(weft_doctor_count(WEFT_W01), 0);
}

Test(doctor_w01, of_a_struct)
{
    is_found(&(struct scheme){ of_a_struct, "of_a_struct at doctor_w01.c:", "(struct closing, 16 bytes) at offset 0 -> ", 1 });
}
Test(doctor_w01, of_itself) { is_found(&(struct scheme){ of_itself, "of_itself at doctor_w01.c:", "so that it never runs: ctx ", 1 }); }
Test(doctor_w01, far_away) { is_found(&(struct scheme){ far_away, "far_away at doctor_w01.c:", "... 33 others ... -> ", 1 }); }
Test(doctor_w01, each_others) { is_found(&(struct scheme){ each_others, "each_others at doctor_w01.c:", ", whose finalizer's ctx is ", 2 }); }
Test(doctor_w01, in_a_circle) { is_found(&(struct scheme){ in_a_circle, "in_a_circle at doctor_w01.c:", "leads to itself", 2 }); }
Test(doctor_w01, to_itself) { is_found(&(struct scheme){ to_itself, "to_itself at doctor_w01.c:", "at offset 24 -> ", 1 }); }
Test(doctor_w01, sound_plain) { is_none(&(struct scheme){ .make = plain }); }
Test(doctor_w01, sound_with_a_context_that_has_one) { is_none(&(struct scheme){ .make = with_a_context_that_has_one }); }
Test(doctor_w01, sound_in_a_row) { is_none(&(struct scheme){ .make = in_a_row }); }
Test(doctor_w01, sound_known_to_its_context) { is_none(&(struct scheme){ .make = known_to_its_context }); }

/* ---- with others at work ------------------------------------------------------------------------------------------ */

static void busy(void *arg)
{
    (void)arg;
    busy_begin(busy_alloc, 4);
    for (int i = 0; i < 20; i++) {
        weft_gc();
        weft_yield();
    }
    busy_end();
    cr_assert_eq(weft_doctor_flush(), 0);
}
Test(doctor_w01, a_busy_program_is_sound, .timeout = 60)
{
    doctor_run(busy, NULL, NULL, NULL);
    cr_expect_eq(weft_doctor_count(WEFT_W01), 0);
}

/* Six places, and the collector checks itself. */
static void verified(void *arg)
{
    static const struct scheme all[] = {
        { .make = of_a_struct }, { .make = far_away }, { .make = each_others }, { .make = in_a_circle }, { .make = with_a_context_that_has_one },
        { .make = in_a_row },
    };
    (void)arg;
    for (size_t i = 0; i + 1 < w_countof(all); i++)
        make_all((void *)&all[i]);
    for (int i = 0; i < 3; i++)
        see((void *)&all[w_countof(all) - 1]);
}
Test(doctor_w01, marking_in_two_steps_misses_nothing, .timeout = 60)
{
    doctor_run(verified, NULL, "w04=off,w16=off", "gcverify=1"); /* collections that check themselves are slow */
    cr_expect_eq(said.n, 6, "%d", said.n);
}
