/* weft_timer_*: ticks, stop and reset, functions, and what the collector may take. */
#include "base/rng.h"
#include "gc/heap.h"
#include "sched/sched.h"
#include "waiting.h"
#include <errno.h>

/* ---- once, and again and again ------------------------------------------------------------------------------ */

static void run_once(void *arg)
{
    (void)arg;
    int64_t from = weft_now(), v = 0;
    weft_timer *t = weft_timer_new(2 * WEFT_MILLISECOND, 0);
    cr_assert_not_null(t);
    while (weft_chan_try_recv(weft_timer_chan(t), &v) == -EAGAIN)
        weft_yield();
    cr_expect_geq(v, from + 2 * WEFT_MILLISECOND);
    cr_expect_leq(v, weft_now());
    cr_expect(!weft_timer_stop(t));
    cr_expect_eq(weft_chan_recv_until(weft_timer_chan(t), &v, weft_now() + 5 * WEFT_MILLISECOND), -ETIMEDOUT);
    cr_expect(!weft_timer_reset(t, -1), "in the past: at once");
    cr_expect_eq(weft_chan_recv(weft_timer_chan(t), &v), 1);
    cr_expect_null(weft_timer_new(1, -1));
    cr_expect_null(weft_timer_func(1, 0, NULL, NULL));
}

Test(timer_user, once) { test_run(run_once, NULL); }

static void run_ticker(void *arg)
{
    (void)arg;
    int64_t period = 2 * WEFT_MILLISECOND, from = weft_now(), v, last = 0;
    weft_timer *t = weft_timer_new(period, period);
    for (int i = 1; i <= 25; i++) {
        cr_assert_eq(weft_chan_recv(weft_timer_chan(t), &v), 1);
        cr_expect_geq(v, from + i * period, "tick %d comes %ld ns too early", i, (long)(from + i * period - v));
        cr_expect_gt(v, last);
        last = v;
    }
    weft_sleep(10 * period);
    test_until(weft_chan_len(weft_timer_chan(t)) == 1); /* ticks nobody takes are dropped: there is room for one */
    cr_expect(weft_timer_stop(t));
    cr_expect_eq(weft_chan_recv_until(weft_timer_chan(t), &v, weft_now() + 3 * period), -ETIMEDOUT);
    cr_expect_eq(timers_waiting(), 0);
}

Test(timer_user, ticker) { test_run(run_ticker, NULL); }

/* ---- whom nobody waits for ------------------------------------------------------------------------------------------ */

/* They are in no heap of timers: whoever looks at the channel finds the tick when it is due. */
static void run_pending(void *arg)
{
    (void)arg;
    int64_t from = weft_now(), v = 0;
    weft_timer *t[4];
    for (int i = 0; i < 4; i++)
        t[i] = weft_timer_new(3 * WEFT_MILLISECOND, 0);
    weft_timer *far = weft_timer_new(3600 * WEFT_SECOND, 0);
    cr_expect_eq(timers_waiting(), 0);
    cr_expect_eq(weft_chan_len(weft_timer_chan(far)), 0u);
    cr_expect_eq(weft_chan_try_recv(weft_timer_chan(far), &v), -EAGAIN);
    for (int64_t until = weft_now() + 4 * WEFT_MILLISECOND; weft_now() < until;)
        weft_yield();
    cr_expect_eq(weft_chan_len(weft_timer_chan(t[0])), 1u);
    cr_expect(weft_timer_stop(t[0]), "nobody had received");
    cr_expect_eq(weft_chan_len(weft_timer_chan(t[0])), 0u, "an old tick");
    cr_expect_eq(weft_chan_try_recv(weft_timer_chan(t[1]), &v), 1);
    cr_expect_geq(v, from + 3 * WEFT_MILLISECOND);
    cr_expect_leq(v, weft_now());
    cr_expect(!weft_timer_stop(t[1]));
    cr_expect_eq(weft_chan_recv(weft_timer_chan(t[2]), &v), 1);
    weft_case both[2] = { { .op = WEFT_RECV, .chan = weft_timer_chan(far), .elem = &v }, { .op = WEFT_RECV, .chan = weft_timer_chan(t[3]), .elem = &v } };
    cr_expect_eq(weft_select_default(both, 2), 1);
    cr_expect_eq(weft_select_default(both, 2), -EAGAIN);
    cr_expect_eq(timers_waiting(), 0);
    cr_expect_eq(weft_select_until(both, 2, weft_now() + 200 * WEFT_MILLISECOND), -ETIMEDOUT);
    cr_expect_eq(timers_waiting(), 1, "who is waited for is in the heap, and stays there");
    cr_expect(weft_timer_stop(far));
    cr_expect_eq(timers_waiting(), 0);
}

Test(timer_user, pending_ticks_are_found_by_who_looks) { test_run(run_pending, NULL); }

static void run_pending_ticker(void *arg)
{
    (void)arg;
    int64_t period = 5 * WEFT_MILLISECOND, from = weft_now(), v = 0;
    weft_timer *t = weft_timer_new(period, period);
    for (int k = 0; k < 3; k++) {
        int64_t last = v;
        while (weft_chan_try_recv(weft_timer_chan(t), &v) == -EAGAIN)
            weft_yield();
        cr_expect_geq(v, from + (k + 1) * period);
        cr_expect_gt(v, last);
        cr_expect_eq(timers_waiting(), 0);
    }
    for (int64_t until = weft_now() + 3 * period; weft_now() < until;)
        weft_yield();
    cr_expect_eq(weft_chan_try_recv(weft_timer_chan(t), &v), 1);
    int64_t missed = v;
    cr_expect_eq(weft_chan_recv(weft_timer_chan(t), &v), 1);
    cr_expect_geq(v, missed + 2 * period, "ticks that were missed are skipped");
    cr_expect(weft_timer_stop(t));
}

Test(timer_user, a_pending_ticker_skips_what_is_missed) { test_run(run_pending_ticker, NULL); }

/* A case that is always ready does not hide it. */
static void run_select_busy(void *arg)
{
    (void)arg;
    int64_t v = 0;
    weft_chan *busy = weft_chan_make(0, 1);
    weft_timer *t = weft_timer_new(WEFT_MILLISECOND, 0);
    weft_case cases[2] = { { .op = WEFT_RECV, .chan = busy }, { .op = WEFT_RECV, .chan = weft_timer_chan(t), .elem = &v } };
    int64_t until = weft_now() + 10 * WEFT_SECOND;
    int i;
    do
        cr_assert_eq(weft_chan_try_send(busy, NULL), 0);
    while ((i = weft_select(cases, 2)) == 0 && weft_now() < until);
    cr_expect_eq(i, 1);
}

Test(timer_user, select_finds_a_tick_beside_a_case_that_is_always_ready) { test_run(run_select_busy, NULL); }

static void reset_sooner(void *arg)
{
    test_until(timers_waiting() == 1);
    cr_expect(weft_timer_reset(arg, WEFT_MILLISECOND));
}

static void run_reset_waiting(void *arg)
{
    (void)arg;
    weft_timer *t = weft_timer_new(3600 * WEFT_SECOND, 0);
    cr_assert_eq(weft_go(reset_sooner, t), 0);
    int64_t v = 0;
    cr_expect_eq(weft_chan_recv_until(weft_timer_chan(t), &v, 0), 1);
}

Test(timer_user, reset_reaches_who_waits_already) { test_run(run_reset_waiting, NULL); }

/* A look at the channel does not make the next tick an old one. */
static void run_look_then_receive(void *arg)
{
    (void)arg;
    int64_t period = 5 * WEFT_MILLISECOND, v = 0;
    weft_timer *t = weft_timer_new(period, period);
    while (weft_chan_len(weft_timer_chan(t)) == 0)
        weft_yield();
    weft_case both[2] = { { .op = WEFT_RECV, .chan = weft_chan_make(0, 1) }, { .op = WEFT_RECV, .chan = weft_timer_chan(t), .elem = &v } };
    for (int i = 0; i < 4; i++) { /* it sends the tick, and takes the other case now and then */
        weft_chan_try_send(both[0].chan, NULL);
        if (weft_select_default(both, 2) == 0 && weft_chan_len(weft_timer_chan(t)) == 1)
            break;
    }
    int64_t until = weft_now() + 4 * period;
    while (weft_now() < until)
        weft_yield();
    cr_expect_eq(weft_chan_recv(weft_timer_chan(t), &v), 1);
    int64_t first = v;
    cr_expect_eq(weft_chan_recv(weft_timer_chan(t), &v), 1);
    cr_expect_geq(v, until, "a tick of %ld ns before, after one of %ld", (long)(until - v), (long)(until - first));
    weft_timer_stop(t);
}

Test(timer_user, a_look_leaves_no_old_tick_behind) { test_run(run_look_then_receive, NULL); }

/* A tick that is due is seen by everybody, also while another one is just looking. */
static weft_timer *due;
static int misses, tries, looking, taken;

static void looks(void *arg)
{
    (void)arg;
    weft_chan *closed = weft_chan_make(0, 0);
    cr_assert_eq(weft_chan_close(closed), 0);
    /* It finds the tick due, and then takes either case. */
    weft_case both[2] = { { .op = WEFT_RECV, .chan = closed }, { .op = WEFT_RECV, .chan = weft_timer_chan(due) } };
    while (__atomic_load_n(&looking, __ATOMIC_ACQUIRE) != 0) {
        int64_t v;
        both[1].elem = &v;
        if (weft_select_default(both, 2) == 1)
            __atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED);
    }
}

static void run_due_beside_looks(void *arg)
{
    (void)arg;
    due = weft_timer_new(3600 * WEFT_SECOND, 0);
    looking = 1;
    weft_waitgroup two = { 0 };
    cr_assert_eq(weft_waitgroup_go(&two, looks, NULL), 0);
    for (tries = 0; tries < 50000; tries++) {
        int64_t v;
        weft_timer_reset(due, 0);
        misses += weft_chan_try_recv(weft_timer_chan(due), &v) != 1;
    }
    __atomic_store_n(&looking, 0, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&two);
    cr_expect_eq(misses, taken, "of %d ticks that were due %d were not there, and others took %d", tries, misses, taken);
}

Test(timer_user, a_due_tick_is_there_beside_others_who_look) { test_run_procs(2, run_due_beside_looks, NULL); }

/* The program may use the channel of a timer like any other. */
static void run_sends(void *arg)
{
    (void)arg;
    weft_timer *t = weft_timer_new(3600 * WEFT_SECOND, 0), *closed = weft_timer_new(0, WEFT_MILLISECOND);
    weft_chan *c = weft_timer_chan(t);
    int64_t mine = 42, v = 0;
    cr_expect_eq(weft_chan_send(c, &mine), 0);
    cr_expect_eq(weft_chan_try_send(c, &mine), -EAGAIN);
    cr_expect_eq(weft_chan_recv(c, &v), 1);
    cr_expect_eq(v, 42);
    cr_expect_eq(weft_chan_close(weft_timer_chan(closed)), 0);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(weft_chan_recv(weft_timer_chan(closed), &v), 0);
    cr_expect_eq(weft_chan_try_recv(weft_timer_chan(closed), &v), 0);
    cr_expect(weft_timer_stop(closed));
    cr_expect(weft_timer_stop(t));
}

Test(timer_user, the_channel_is_like_any_other) { test_run(run_sends, NULL); }

/* ---- no old tick ---------------------------------------------------------------------------------------------- */

static weft_waitgroup wg;

/* A tick of before would carry a time too early. */
static void resetter(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    weft_timer *t = weft_timer_new(rng_below(&r, 50000), 0);
    weft_chan *c = weft_timer_chan(t);
    for (int k = 0; k < 500; k++) {
        int64_t until = weft_now() + rng_below(&r, 60000);
        while (weft_now() < until)
            if (rng_below(&r, 4) == 0)
                weft_yield();
        int64_t v, ns = rng_below(&r, 50000), from = weft_now();
        switch (rng_below(&r, 3)) {
        case 0:
            weft_timer_reset(t, ns);
            cr_assert_eq(weft_chan_recv(c, &v), 1);
            cr_assert_geq(v, from + ns, "a tick of before the reset");
            weft_timer_reset(t, ns);
            break;
        case 1:
            weft_timer_stop(t);
            cr_assert_eq(weft_chan_try_recv(c, &v), -EAGAIN, "a tick after stop");
            for (int i = 0; i < 3; i++)
                weft_yield();
            cr_assert_eq(weft_chan_try_recv(c, &v), -EAGAIN, "a tick after stop");
            cr_assert(!weft_timer_reset(t, ns));
            break;
        default:
            weft_timer_reset(t, ns);
        }
    }
}

static void run_reset(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, resetter, (void *)(uintptr_t)(seed + i)), 0);
    weft_waitgroup_wait(&wg);
}

Test(timer_user, no_old_tick_after_stop_or_reset)
{
    uint64_t seed = test_seed();
    test_run_procs(4, run_reset, &seed);
}

/* Several fibers stop and reset the same timers. */
static weft_timer *shared[16];

static void meddler(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    for (int k = 0; k < 3000; k++) {
        weft_timer *t = shared[rng_below(&r, 16)];
        int64_t v;
        switch (rng_below(&r, 4)) {
        case 0: weft_timer_stop(t); break;
        case 1: weft_chan_try_recv(weft_timer_chan(t), &v); break;
        default: weft_timer_reset(t, rng_below(&r, 20000));
        }
    }
}

static void run_shared(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    for (int i = 0; i < 16; i++)
        shared[i] = weft_timer_new(1000, i % 2 * 5000);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, meddler, (void *)(uintptr_t)(seed + i)), 0);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < 16; i++)
        weft_timer_stop(shared[i]);
    cr_expect_eq(timers_waiting(), 0);
}

Test(timer_user, many_stop_and_reset_the_same_one)
{
    uint64_t seed = test_seed();
    test_run_procs(4, run_shared, &seed);
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static w_u32 runs;
static void count(void *arg)
{
    cr_expect_str_eq((const char *)arg, "still there");
    weft_yield(); /* it is a fiber */
    add_seq(&runs, 1);
}

/* Nobody holds the timer or its argument but the timer heap. */
static w_noinline void start_func(int64_t period)
{
    cr_assert_not_null(weft_timer_func(30 * WEFT_MILLISECOND, period, count, weft_strdup("still there")));
}

static void scrub(void)
{
    volatile char stack[8192];
    for (size_t i = 0; i < sizeof stack; i++)
        stack[i] = 0;
}

static void churn(void)
{
    for (int i = 0; i < 2000; i++) {
        char *p = weft_alloc_noscan(16 + i % 100);
        p[0] = 'x';
    }
}

static void run_func(void *arg)
{
    (void)arg;
    start_func(0);
    start_func(5 * WEFT_MILLISECOND);
    scrub();
    for (int i = 0; i < 3; i++) {
        weft_gc();
        churn();
    }
    test_until(load_seq(&runs) >= 5);
}

Test(timer_user, a_function_and_its_argument_are_roots_while_it_runs)
{
    test_run(run_func, NULL);
}

static void run_func_stop(void *arg)
{
    (void)arg;
    weft_timer *t = weft_timer_func(0, WEFT_MILLISECOND, count, weft_strdup("still there"));
    test_until(load_seq(&runs) >= 3);
    cr_expect_null(weft_timer_chan(t));
    cr_expect(weft_timer_stop(t));
    cr_expect(!weft_timer_stop(t));
    test_until(weft_num_fibers() == 1); /* a fiber started before may still count */
    uint32_t n = load_seq(&runs);
    weft_sleep(5 * WEFT_MILLISECOND);
    cr_expect_eq(load_seq(&runs), n);
    cr_expect(!weft_timer_reset(t, 0));
    test_until(load_seq(&runs) > n + 1);
    cr_expect(weft_timer_stop(t));
}

Test(timer_user, a_function_stops) { test_run(run_func_stop, NULL); }

/* ---- what nobody can receive from, stops ---------------------------------------------------------------------------- */

static void make_many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++) {
        weft_timer *t = weft_timer_new(3600 * WEFT_SECOND, i % 2 * WEFT_SECOND);
        cr_assert_not_null(t);
        if (i % 2 == 0) { /* waited for once: in the heap of timers */
            int64_t v;
            cr_assert_eq(weft_chan_recv_until(weft_timer_chan(t), &v, weft_now() + 10 * WEFT_MICROSECOND), -ETIMEDOUT);
        }
    }
}

static void run_unreachable(void *arg)
{
    (void)arg;
    weft_timer *kept = weft_timer_new(3600 * WEFT_SECOND, 0);
    cr_assert_eq(weft_waitgroup_go(&wg, make_many, NULL), 0);
    weft_waitgroup_wait(&wg);
    if (!heap.stress)
        cr_expect_geq(timers_waiting(), 5000);
    for (int i = 0; i < 100 && timers_waiting() > 50; i++) {
        weft_gc();
        weft_sleep(WEFT_MILLISECOND);
    }
    cr_expect_leq(timers_waiting(), 50, "%u unreachable timers are left", timers_waiting());
    cr_expect(weft_timer_stop(kept), "this one was reachable");
}

Test(timer_user, unreachable_ones_stop) { test_run(run_unreachable, NULL); }

static w_noinline weft_chan *after(int64_t ns) { return weft_timer_chan(weft_timer_new(ns, 0)); }

static void run_after(void *arg)
{
    (void)arg;
    int64_t v = 0;
    weft_chan *c = after(30 * WEFT_MILLISECOND);
    scrub();
    for (int i = 0; i < 3; i++) {
        weft_gc();
        churn();
    }
    cr_expect_eq(weft_chan_recv_until(c, &v, weft_now() + 10 * WEFT_SECOND), 1);
    cr_expect_neq(v, 0);
}

Test(timer_user, the_channel_keeps_its_timer) { test_run(run_after, NULL); }
