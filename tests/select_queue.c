/* Selects come and go in the queues of channels: who waits before and behind them is served, in order, and nothing is left there or kept. */
#include "base/rng.h"
#include "test.h"
#include "waiting.h"
#include <errno.h>
#include <string.h>

/* ---- out of the middle -------------------------------------------------------------------------------------- */

static weft_chan *common, *aside, *done;

static void plain(void *arg)
{
    uintptr_t got[2] = { (uintptr_t)arg, 0 };
    cr_assert_eq(weft_chan_recv(common, &got[1]), 1);
    cr_assert_eq(weft_chan_send(done, got), 0);
}

static void selecting(void *arg)
{
    uintptr_t got[2] = { (uintptr_t)arg, 0 };
    weft_case cs[] = { { WEFT_RECV, common, &got[1], 0 }, { WEFT_RECV, aside, &got[1], 0 } };
    cr_assert_geq(weft_select(cs, 2), 0);
    cr_assert_eq(weft_chan_send(done, got), 0);
}

/* Five wait in a row, those of `mask` by select; the selects are called aside; the others get 0, 1, ... in their order. */
static void five_in_a_row(unsigned mask)
{
    uintptr_t got[2];
    size_t selects = 0;
    for (uintptr_t i = 0; i < 5; i++) {
        bool s = mask >> i & 1;
        cr_assert_eq(weft_go(s ? selecting : plain, (void *)i), 0);
        selects += s;
        test_until(receivers(common) == i + 1);
    }
    for (size_t i = 0; i < selects; i++)
        cr_assert_eq(weft_chan_send(aside, &(uintptr_t){ 100 }), 0);
    for (size_t i = 0; i < selects; i++)
        cr_assert(weft_chan_recv(done, got) == 1 && got[1] == 100 && (mask >> got[0] & 1));
    cr_assert_eq(receivers(common), 5 - selects);
    cr_assert_eq(receivers(aside), 0);
    uintptr_t next = 0;
    for (uintptr_t i = 0; i < 5; i++) {
        if (mask >> i & 1)
            continue;
        cr_assert_eq(weft_chan_send(common, &next), 0);
        cr_assert_eq(weft_chan_recv(done, got), 1);
        cr_assert(got[0] == i && got[1] == next, "mask %x: %lu got %lu", mask, (unsigned long)got[0], (unsigned long)got[1]);
        next++;
    }
    cr_assert_eq(receivers(common), 0);
}

static void out_of_the_middle(void *arg)
{
    (void)arg;
    common = weft_chan_make_noscan(sizeof(uintptr_t), 0);
    aside = weft_chan_make_noscan(sizeof(uintptr_t), 0);
    done = weft_chan_make_noscan(2 * sizeof(uintptr_t), 5);
    for (unsigned mask = 0; mask < 32; mask++)
        five_in_a_row(mask);
}

Test(select_queue, who_leaves_the_queue_leaves_the_others_in_order)
{
    test_run_procs(1, out_of_the_middle, NULL);
    test_run_procs(3, out_of_the_middle, NULL);
}

/* ---- looks that take no lock --------------------------------------------------------------------------------- */

/* A full channel that is being closed has an element at every moment: a try that finds none has looked at two moments. */
static weft_chan *full;

static void close_it(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_chan_close(full), 0);
}

static void try_while_closing(void *arg)
{
    int rounds = *(int *)arg;
    for (int i = 0; i < rounds; i++) {
        int v = 0;
        full = weft_chan_make_noscan(sizeof v, 1);
        cr_assert_eq(weft_chan_send(full, &(int){ 7 }), 0);
        cr_assert_eq(weft_go(close_it, NULL), 0);
        int r = weft_chan_try_recv(full, &v);
        cr_assert(r == 1 && v == 7, "%d", r);
        while ((r = weft_chan_try_recv(full, &v)) == -EAGAIN)
            weft_yield();
        cr_assert_eq(r, 0);
    }
}

/* Before one of two channels is emptied the other has been filled: one of them has an element at every moment. */
static struct { weft_chan *a, *b; int missed; } two;

static void look_at_both(void *arg)
{
    weft_waitgroup *wg = arg;
    weft_case cs[] = { { WEFT_RECV, two.a, NULL, 0 }, { WEFT_RECV, two.b, NULL, 0 } };
    if (weft_select_default(cs, 2) == -EAGAIN)
        __atomic_store_n(&two.missed, 1, __ATOMIC_RELAXED);
    cr_assert_eq(weft_waitgroup_done(wg), 0);
}

static void look_while_they_change(void *arg)
{
    int rounds = *(int *)arg;
    for (int i = 0; i < rounds; i++) {
        weft_waitgroup wg = { 0 };
        two.a = weft_chan_make(0, 1);
        two.b = weft_chan_make(0, 1);
        cr_assert_eq(weft_chan_send(two.a, NULL), 0);
        cr_assert_eq(weft_waitgroup_add(&wg, 1), 0);
        cr_assert_eq(weft_go(look_at_both, &wg), 0);
        cr_assert_eq(i % 2 ? weft_chan_send(two.b, NULL) : weft_chan_close(two.b), 0);
        (void)weft_chan_try_recv(two.a, NULL);
        weft_waitgroup_wait(&wg);
        cr_assert_eq(two.missed, 0, "round %d", i);
    }
}

Test(select_queue, a_look_sees_one_moment)
{
    int rounds = test_is_slow() ? 1000 : 20000;
    for (int procs = 1; procs <= 4; procs *= 2) {
        test_run_procs(procs, try_while_closing, &rounds);
        test_run_procs(procs, look_while_they_change, &rounds);
    }
}

/* ---- nothing is kept ------------------------------------------------------------------------------------------- */

static void feed(void *arg)
{
    weft_chan *c = arg;
    for (int v = 0; weft_chan_send(c, &v) == 0; v++)
        ;
}

/* A hundred thousand selects on a channel that never answers leave it as it was. */
static void growth(void *arg)
{
    enum { TIMES = 100000 };
    (void)arg;
    weft_chan *busy = weft_chan_make_noscan(sizeof(int), 0), *never = weft_chan_make_noscan(sizeof(int), 0);
    weft_mem_stats before = { .size = sizeof before }, after = { .size = sizeof after };
    int v = -1;
    cr_assert_eq(weft_go(feed, busy), 0);
    for (int i = 0; i < TIMES; i++) {
        weft_case cs[] = { { WEFT_RECV, never, NULL, 0 }, { WEFT_RECV, busy, &v, 0 }, { WEFT_SEND, never, &v, 0 } };
        cr_assert_eq(weft_select(cs, 3), 1);
        cr_assert_eq(v, i);
        if (i == TIMES / 10)
            cr_assert_eq(weft_read_mem_stats(&before), 0);
    }
    cr_assert_eq(weft_read_mem_stats(&after), 0);
    cr_expect_lt(after.mallocs - before.mallocs, 1000ul);
    cr_expect_eq(senders(never) + receivers(never), 0);
}

Test(select_queue, a_hundred_thousand_selects_keep_nothing) { test_run_procs(1, growth, NULL); }

/* ---- a chain --------------------------------------------------------------------------------------------------- */

struct link { weft_chan *left, *right; };

static void pass_on(void *arg)
{
    struct link *l = arg;
    int v;
    cr_assert_eq(weft_chan_recv(l->right, &v), 1);
    v++;
    cr_assert_eq(weft_chan_send(l->left, &v), 0);
}

static void chain(void *arg)
{
    int n = *(int *)arg, v = 0;
    weft_chan *leftmost = weft_chan_make_noscan(sizeof v, 0), *at = leftmost;
    for (int i = 0; i < n; i++) {
        struct link *l = weft_alloc(sizeof *l);
        *l = (struct link){ at, weft_chan_make_noscan(sizeof v, 0) };
        at = l->right;
        cr_assert_eq(weft_go(pass_on, l), 0);
    }
    cr_assert_eq(weft_chan_send(at, &v), 0);
    cr_assert(weft_chan_recv(leftmost, &v) == 1 && v == n);
}

Test(select_queue, a_chain_of_ten_thousand)
{
    int n = test_is_slow() ? 1000 : 10000;
    test_run_each(chain, &n);
}
