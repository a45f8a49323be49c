/* Many at once: sums, order per sender, sieve, selects against a model. Random parts print their seed. */
#include "waiting.h"
#include "base/rng.h"
#include <errno.h>
#include <stdlib.h>

/* ---- producers and consumers ----------------------------------------------------------------------------------- */

struct crowd {
    weft_chan *c;
    weft_waitgroup senders, receivers;
    int each, nsenders;
    uint64_t next_sender, count;
    unsigned char *seen; /* one per element */
};

static void crowd_send(void *arg)
{
    struct crowd *w = arg;
    uint64_t me = __atomic_fetch_add(&w->next_sender, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < w->each; i++) {
        uint64_t v = me << 32 | (uint64_t)i;
        cr_assert_eq(weft_chan_send(w->c, &v), 0);
    }
}

/* What one receiver gets of one sender comes in the order of sending. */
static void crowd_recv(void *arg)
{
    struct crowd *w = arg;
    int64_t *last = weft_alloc_noscan(sizeof *last * (size_t)w->nsenders);
    for (int i = 0; i < w->nsenders; i++)
        last[i] = -1;
    uint64_t v;
    while (weft_chan_recv(w->c, &v) == 1) {
        uint64_t from = v >> 32, i = (uint32_t)v;
        cr_assert_lt(last[from], (int64_t)i, "element %lu of sender %lu came after %ld", (unsigned long)i, (unsigned long)from, (long)last[from]);
        last[from] = (int64_t)i;
        __atomic_fetch_add(&w->seen[from * (uint64_t)w->each + i], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&w->count, 1, __ATOMIC_RELAXED);
    }
}

static void crowd(void *arg)
{
    (void)arg;
    static const size_t cap[] = { 0, 1, 7, 128 };
    for (int k = 0; k < 4; k++) {
        struct crowd w = { .c = weft_chan_make_noscan(8, cap[k]), .each = 2000, .nsenders = 8 };
        uint64_t total = (uint64_t)w.each * (uint64_t)w.nsenders;
        w.seen = weft_alloc_noscan(total);
        for (int i = 0; i < w.nsenders; i++) {
            cr_assert_eq(weft_waitgroup_go(&w.receivers, crowd_recv, &w), 0);
            cr_assert_eq(weft_waitgroup_go(&w.senders, crowd_send, &w), 0);
        }
        weft_waitgroup_wait(&w.senders);
        weft_chan_close(w.c);
        weft_waitgroup_wait(&w.receivers);
        cr_assert_eq(w.count, total);
        for (uint64_t i = 0; i < total; i++)
            cr_assert_eq(w.seen[i], 1, "element %lu of sender %lu was received %d times", (unsigned long)(i % (uint64_t)w.each),
                         (unsigned long)(i / (uint64_t)w.each), w.seen[i]);
    }
}

Test(chan_stress, every_element_arrives_once)
{
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, crowd, NULL);
}

/* ---- sieve ---------------------------------------------------------------------------------------------------------- */

struct filter { weft_chan *in, *out; int prime; };

static void generate(void *arg)
{
    struct filter *f = arg;
    for (int i = 2;; i++)
        if (weft_chan_send(f->out, &i) != 0)
            return;
}

static void filter(void *arg)
{
    struct filter *f = arg;
    int i;
    while (weft_chan_recv(f->in, &i) == 1)
        if (i % f->prime != 0 && weft_chan_send(f->out, &i) != 0)
            break;
    weft_chan_close(f->in); /* the one before stops, too */
}

static void sieve(void *arg)
{
    size_t cap = *(size_t *)arg;
    struct filter *f = weft_alloc(sizeof *f);
    *f = (struct filter){ NULL, weft_chan_make(sizeof(int), cap), 0 };
    cr_assert_eq(weft_go(generate, f), 0);
    weft_chan *c = f->out;
    int prime = 0;
    for (int n = 0; n < 300; n++) {
        cr_assert_eq(weft_chan_recv(c, &prime), 1);
        f = weft_alloc(sizeof *f);
        *f = (struct filter){ c, weft_chan_make(sizeof(int), cap), prime };
        cr_assert_eq(weft_go(filter, f), 0);
        c = f->out;
    }
    cr_assert_eq(prime, 1987, "the 300th prime");
    weft_chan_close(c);
}

Test(chan_stress, sieve)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        test_run_procs(procs, sieve, &(size_t){ 0 });
        test_run_procs(procs, sieve, &(size_t){ 4 });
    }
}

/* ---- tokens: selects in both directions, with deadlines, on random sets of channels ------------------------------------- */

/* A fixed number of tokens wanders between channels; whoever takes one gives one back. None is lost and none appears. */
struct wander { weft_chan *c[6]; weft_waitgroup wg; uint64_t seed; uint64_t next; int steps; bool unbuffered; };

static weft_chan *any(struct wander *w, struct rng *r) { return w->c[rng_below(r, 6)]; }

static void give(struct wander *w, struct rng *r, uint64_t token)
{
    for (;;) {
        weft_case s[4];
        size_t n = 1 + rng_below(r, 4);
        for (size_t i = 0; i < n; i++)
            s[i] = (weft_case){ WEFT_SEND, rng_below(r, 8) == 0 ? NULL : any(w, r), &token, 0 };
        int i = rng_below(r, 2) ? weft_select_default(s, n) : weft_select_until(s, n, weft_now() + rng_below(r, 50000));
        if (i >= 0) {
            cr_assert_eq(s[i].result, 0);
            return;
        }
        cr_assert(i == -EAGAIN || i == -ETIMEDOUT, "%d", i);
    }
}

static void wanderer(void *arg)
{
    struct wander *w = arg;
    struct rng r;
    rng_seed(&r, w->seed + __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED));
    for (int step = 0; step < w->steps; step++) {
        weft_case s[4];
        uint64_t got[4] = { 0 }, own = 0;
        size_t n = 1 + rng_below(&r, 4);
        for (size_t i = 0; i < n; i++)
            s[i] = (weft_case){ WEFT_RECV, any(w, &r), &got[i], 0 };
        int64_t until = weft_now() + rng_below(&r, 100000);
        int i = rng_below(&r, 3) == 0 ? weft_select_default(s, n) : weft_select_until(s, n, until);
        if (i >= 0) {
            cr_assert_eq(s[i].result, 1);
            own = got[i];
            cr_assert_neq(own, 0);
        }
        for (size_t k = 0; k < n; k++)
            cr_assert((int)k == i || got[k] == 0, "a case that was not chosen received");
        if (own != 0)
            give(w, &r, own);
    }
}

static void wander(void *arg)
{
    struct wander w = { .seed = *(uint64_t *)arg, .steps = 1500 };
    enum { TOKENS = 9 };
    for (int i = 0; i < 6; i++)
        w.c[i] = weft_chan_make_noscan(8, 2);
    for (uint64_t i = 1; i <= TOKENS; i++)
        cr_assert_eq(weft_chan_send(w.c[i % 6], &i), 0);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_waitgroup_go(&w.wg, wanderer, &w), 0);
    weft_waitgroup_wait(&w.wg);
    int seen[TOKENS + 1] = { 0 };
    uint64_t v, n = 0;
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(senders(w.c[i]) + receivers(w.c[i]), 0, "a waiter was left behind");
        while (weft_chan_try_recv(w.c[i], &v) == 1) {
            cr_assert(v >= 1 && v <= TOKENS && !seen[v]);
            seen[v] = 1;
            n++;
        }
    }
    cr_assert_eq(n, TOKENS);
}

Test(chan_stress, selects_lose_and_invent_nothing)
{
    uint64_t seed = test_seed();
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, wander, &seed);
}
