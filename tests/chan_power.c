/* Power series over channels (M. D. McIlroy, "Squinting at power series"): each series is a fiber that gives its next coefficient on demand, and
 * sums, products, inverses and substitutions are fibers that ask others. Thousands of fibers and channels come and go for a few coefficients, and a
 * value that is lost, doubled or late shows in all that follow. */
#include "test.h"
#include <stdlib.h>

/* ---- rational numbers ------------------------------------------------------------------------------------------ */

typedef struct { int64_t num, den; } rat;

static int64_t gcd(int64_t a, int64_t b) { return b == 0 ? (a < 0 ? -a : a) : gcd(b, a % b); }
static rat make(int64_t num, int64_t den)
{
    int64_t g = gcd(num, den);
    if (den < 0)
        g = -g;
    return (rat){ num / g, den / g };
}
static rat add(rat a, rat b)
{
    int64_t g = gcd(a.den, b.den);
    return make(a.num * (b.den / g) + b.num * (a.den / g), a.den / g * b.den);
}
static rat mul(rat a, rat b)
{
    int64_t g = gcd(a.num, b.den), h = gcd(b.num, a.den);
    g = g == 0 ? 1 : g;
    h = h == 0 ? 1 : h;
    return make(a.num / g * (b.num / h), a.den / h * (b.den / g));
}

/* ---- a series ------------------------------------------------------------------------------------------------------ */

typedef struct { weft_chan *ask, *give; } series;

struct job { series a, b, out; rat c; };

static series series_new(void) { return (series){ weft_chan_make(0, 0), weft_chan_make_noscan(sizeof(rat), 0) }; }

static series started(weft_fn *fn, struct job j)
{
    struct job *at = weft_alloc(sizeof *at);
    j.out = series_new();
    *at = j;
    cr_assert_eq(weft_go(fn, at), 0);
    return j.out;
}

static rat get(series s)
{
    rat r;
    cr_assert_eq(weft_chan_send(s.ask, NULL), 0);
    cr_assert_eq(weft_chan_recv(s.give, &r), 1);
    return r;
}

/* Waits until somebody asks, and only then works r out: a series that ran ahead of demand would wait for itself where it is defined by itself. */
#define put(s, r) (weft_chan_recv((s).ask, NULL) == 1 && give((s), (r)))
static bool give(series s, rat r) { return weft_chan_send(s.give, &r) == 0; }

/* Two coefficients at once: whoever is ready first is served first. */
static void get_two(series a, series b, rat *x, rat *y)
{
    weft_case cs[] = { { WEFT_SEND, a.ask, NULL, 0 }, { WEFT_SEND, b.ask, NULL, 0 }, { WEFT_RECV, NULL, x, 0 }, { WEFT_RECV, NULL, y, 0 } };
    for (int left = 4; left > 0; left--) {
        int i = weft_select(cs, 4);
        if (i < 0 || cs[i].result != (i < 2 ? 0 : 1))
            abort();
        cs[i].chan = NULL;
        if (i < 2)
            cs[i + 2].chan = i == 0 ? a.give : b.give;
    }
}

/* ---- what is done with them ----------------------------------------------------------------------------------------- */

/* Both copies of a series come from one list that grows at its end, by whoever is ahead. */
struct branch { struct branch *next; rat r; weft_mutex *m; series from; };
struct copy { struct branch *at; series out; };

static void branch_grow(struct branch *b)
{
    weft_mutex_lock(b->m);
    if (b->next == NULL) {
        struct branch *more = weft_alloc(sizeof *more);
        b->r = get(b->from);
        *more = (struct branch){ NULL, { 0, 1 }, b->m, b->from };
        __atomic_store_n(&b->next, more, __ATOMIC_RELEASE);
    }
    weft_mutex_unlock(b->m);
}

static void split_run(void *arg)
{
    struct copy *c = arg;
    for (struct branch *b = c->at;; b = b->next) {
        if (weft_chan_recv(c->out.ask, NULL) != 1)
            return;
        /* else not under the lock: that is held by who asks for more, perhaps of something that asks us */
        if (__atomic_load_n(&b->next, __ATOMIC_ACQUIRE) == NULL)
            branch_grow(b);
        if (weft_chan_send(c->out.give, &b->r) != 0)
            return;
    }
}

static void split(series s, series out[2])
{
    struct branch *b = weft_alloc(sizeof *b);
    *b = (struct branch){ NULL, { 0, 1 }, weft_alloc_noscan(sizeof(weft_mutex)), s };
    for (int i = 0; i < 2; i++) {
        struct copy *c = weft_alloc(sizeof *c);
        *c = (struct copy){ b, out[i] = series_new() };
        cr_assert_eq(weft_go(split_run, c), 0);
    }
}

static void constant_run(void *arg)
{
    struct job *j = arg;
    while (put(j->out, j->c))
        ;
}
static series constant(rat c) { return started(constant_run, (struct job){ .c = c }); }

static rat get_sum(struct job *j)
{
    rat x, y;
    get_two(j->a, j->b, &x, &y);
    return add(x, y);
}
static void add_run(void *arg)
{
    struct job *j = arg;
    while (put(j->out, get_sum(j)))
        ;
}
static series sum(series a, series b) { return started(add_run, (struct job){ a, b, { 0 }, { 0, 1 } }); }

static void scale_run(void *arg)
{
    struct job *j = arg;
    while (put(j->out, mul(j->c, get(j->a))))
        ;
}
static series scaled(rat c, series a) { return started(scale_run, (struct job){ .a = a, .c = c }); }

/* One place later, behind c: x * a + c. */
static void shift_run(void *arg)
{
    struct job *j = arg;
    if (put(j->out, j->c))
        while (put(j->out, get(j->a)))
            ;
}
static series shifted(rat c, series a) { return started(shift_run, (struct job){ .a = a, .c = c }); }

/* (f + xF)(g + xG) = fg + x(fG + gF + xFG) */
static series product(series a, series b);
static void product_run(void *arg)
{
    struct job *j = arg;
    rat f, g;
    if (!put(j->out, (get_two(j->a, j->b, &f, &g), mul(f, g))))
        return;
    series as[2], bs[2];
    split(j->a, as);
    split(j->b, bs);
    series fg = scaled(f, bs[0]), gf = scaled(g, as[0]), rest = sum(sum(fg, gf), shifted((rat){ 0, 1 }, product(as[1], bs[1])));
    while (put(j->out, get(rest)))
        ;
}
static series product(series a, series b) { return started(product_run, (struct job){ a, b, { 0 }, { 0, 1 } }); }

/* The integral, c at 0. */
static void integral_run(void *arg)
{
    struct job *j = arg;
    if (!put(j->out, j->c))
        return;
    for (int64_t n = 1; put(j->out, mul((rat){ 1, n }, get(j->a))); n++)
        ;
}

/* a(b(x)), b = xB, a = f + xF: f + xB * F(b) */
static void into_run(void *arg)
{
    struct job *j = arg;
    if (!put(j->out, get(j->a)))
        return;
    series bs[2];
    split(j->b, bs);
    get(bs[0]); /* it is 0, and so gone with the x */
    series rest = product(bs[0], started(into_run, (struct job){ j->a, bs[1], { 0 }, { 0, 1 } }));
    while (put(j->out, get(rest)))
        ;
}
static series into(series a, series b) { return started(into_run, (struct job){ a, b, { 0 }, { 0, 1 } }); }

/* 1/a, a = 1 + xA: R = 1 - xRA. What we give is what we need: R is split, one copy goes into its own making. */
static void copy_run(void *arg)
{
    struct job *j = arg;
    while (put(j->out, get(j->a)))
        ;
}
static void inverse_run(void *arg)
{
    struct job *j = arg, *made = weft_alloc(sizeof *made);
    series r = series_new(), rs[2];
    cr_assert_eq(get(j->a).num, 1);
    split(r, rs);
    *made = (struct job){ .a = shifted((rat){ 1, 1 }, scaled((rat){ -1, 1 }, product(rs[0], j->a))), .out = r, .c = { 0, 1 } };
    cr_assert_eq(weft_go(copy_run, made), 0);
    while (put(j->out, get(rs[1])))
        ;
}
static series inverse(series a) { return started(inverse_run, (struct job){ .a = a, .c = { 0, 1 } }); }

/* ---- known series -------------------------------------------------------------------------------------------------------- */

static void is(const char *what, series s, const rat *want, int n)
{
    for (int i = 0; i < n; i++) {
        rat r = get(s);
        cr_assert(r.num == want[i].num && r.den == want[i].den, "%s: coefficient %d is %ld/%ld instead of %ld/%ld", what, i, (long)r.num, (long)r.den,
                  (long)want[i].num, (long)want[i].den);
    }
}

/* e^x is its own integral. */
static series exponential(void)
{
    series out = series_new(), s[2];
    split(out, s);
    struct job *j = weft_alloc(sizeof *j);
    *j = (struct job){ .a = s[0], .out = out, .c = { 1, 1 } };
    cr_assert_eq(weft_go(integral_run, j), 0);
    return s[1];
}

static const rat ones[] = { { 1, 1 }, { 1, 1 }, { 1, 1 }, { 1, 1 }, { 1, 1 }, { 1, 1 } };
static const rat squares[] = { { 1, 1 }, { 2, 1 }, { 3, 1 }, { 4, 1 }, { 5, 1 }, { 6, 1 }, { 7, 1 } };
static const rat e_to_x[] = { { 1, 1 }, { 1, 1 }, { 1, 2 }, { 1, 6 }, { 1, 24 }, { 1, 120 }, { 1, 720 }, { 1, 5040 } };
static const rat tangent[] = { { 0, 1 }, { 1, 1 }, { 0, 1 }, { 1, 3 }, { 0, 1 }, { 2, 15 }, { 0, 1 }, { 17, 315 } };

static void series_of_all_kinds(void *arg)
{
    (void)arg;
    is("1/(1-x)", constant((rat){ 1, 1 }), ones, 6);
    is("1/(1-x)^2", product(constant((rat){ 1, 1 }), constant((rat){ 1, 1 })), squares, 7);
    is("e^x", exponential(), e_to_x, 8);
    /* 1 / (1 - x + x^2 - ...) = 1 + x */
    static const rat signs[] = { { 1, 1 }, { -1, 1 }, { 1, 1 }, { -1, 1 }, { 1, 1 } };
    series alternating = into(constant((rat){ 1, 1 }), shifted((rat){ 0, 1 }, shifted((rat){ -1, 1 }, constant((rat){ 0, 1 }))));
    is("1/(1+x)", alternating, signs, 5);
    static const rat one_plus_x[] = { { 1, 1 }, { 1, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 } };
    is("1/(1/(1+x))", inverse(into(constant((rat){ 1, 1 }), shifted((rat){ 0, 1 }, shifted((rat){ -1, 1 }, constant((rat){ 0, 1 }))))), one_plus_x, 5);
    /* e^x * e^-x = 1 */
    static const rat one[] = { { 1, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 }, { 0, 1 } };
    series minus_x = shifted((rat){ 0, 1 }, shifted((rat){ -1, 1 }, constant((rat){ 0, 1 })));
    is("e^x e^-x", product(exponential(), into(exponential(), minus_x)), one, 6);
    /* tan' = 1 + tan^2 */
    series t = series_new(), ts[2], tt[2];
    split(t, ts);
    split(ts[0], tt);
    struct job *j = weft_alloc(sizeof *j);
    *j = (struct job){ .a = sum(shifted((rat){ 1, 1 }, constant((rat){ 0, 1 })), product(tt[0], tt[1])), .out = t, .c = { 0, 1 } };
    cr_assert_eq(weft_go(integral_run, j), 0);
    is("tan", ts[1], tangent, test_is_slow() ? 6 : 8);
}

Test(chan_power, series_come_out_right)
{
    test_run_each(series_of_all_kinds, NULL);
}

Test(chan_power, also_while_everything_else_is_collected)
{
    test_run_debug(2, test_is_slow() ? "gcstress=200" : "gcstress=20", series_of_all_kinds, NULL);
}
