/* The runtime's own timers: order, stopping, periods, what the heap holds. */
#include "os/clock.h"
#include "sched/sched.h"
#include "waiting.h"
#include "base/rng.h"
#include <string.h>

/* ---- order --------------------------------------------------------------------------------------------- */

#define N 20000
static struct { struct timer t; int64_t when_ns; bool stopped, ran; } one[N];
static int ran[N], nran;

static void note(void *arg, int64_t now_ns)
{
    int i = (int)(intptr_t)arg;
    cr_expect_geq(now_ns, one[i].when_ns);
    one[i].ran = true;
    ran[nran] = i;
    __atomic_store_n(&nran, nran + 1, __ATOMIC_RELEASE); /* rel: with what it tells of; acq in run_order */
}

/* Many of them at equal times. A third is stopped, in random order. */
static void run_order(void *arg)
{
    struct rng r;
    rng_seed(&r, *(uint64_t *)arg);
    rt_enter();
    int64_t base = os_now_ns() + 200 * WEFT_MILLISECOND;
    for (int i = 0; i < N; i++) {
        one[i].when_ns = base + (int64_t)rng_below(&r, 3000) * 10000;
        one[i].t.fn = note;
        one[i].t.arg = (void *)(intptr_t)i;
        timer_start(&one[i].t, one[i].when_ns);
    }
    for (int k = 0; k < N / 3; k++) {
        int i = (int)rng_below(&r, N);
        cr_expect_eq(timer_stop(&one[i].t), !one[i].stopped, "timer %d, second stop: %d", i, one[i].stopped);
        one[i].stopped = true;
    }
    rt_leave(m_self());
    int left = 0;
    for (int i = 0; i < N; i++)
        left += !one[i].stopped;
    /* The pause of test_until is a timer itself, which may be over by the time that they are counted. */
    test_until(__atomic_load_n(&nran, __ATOMIC_ACQUIRE) >= left && timers_waiting() <= 1);
    for (int i = 0; i < N; i++)
        cr_expect_eq(one[i].ran, !one[i].stopped);
    cr_expect_eq(nran, left);
    for (int k = 1; k < nran; k++) {
        int a = ran[k - 1], b = ran[k];
        cr_assert(one[a].when_ns < one[b].when_ns || (one[a].when_ns == one[b].when_ns && a < b), "timer %d ran before %d", a, b);
    }
}

Test(timer_heap, by_time_and_then_in_order_of_starting)
{
    uint64_t seed = test_seed();
    test_run_procs(1, run_order, &seed);
}

/* ---- periods: no drift, missed ones are skipped -------------------------------------------------------------- */

static int ticks;
static void count(void *arg, int64_t now_ns)
{
    (void)arg;
    (void)now_ns;
    ticks++;
}

static void run_period(void *arg)
{
    (void)arg;
    struct m *m = rt_enter();
    struct timer t = { .period_ns = 1000, .fn = count };
    int64_t when = os_now_ns() + 3600 * WEFT_SECOND;
    timer_start(&t, when);
    struct p *p = m->p;
    cr_expect_eq(timers_run(p, when - 1), when);
    cr_expect_eq(ticks, 0);
    cr_expect_eq(timers_run(p, when), when + 1000);
    cr_expect_eq(ticks, 1);
    cr_expect_eq(timers_run(p, when + 1300), when + 2000, "late by 300: the next is not late");
    cr_expect_eq(ticks, 2);
    cr_expect_eq(timers_run(p, when + 12999), when + 13000, "ten were missed");
    cr_expect_eq(ticks, 3);
    cr_expect(timer_stop(&t));
    cr_expect(!timer_stop(&t));
    cr_expect_eq(timers_run(p, when + 14000), INT64_MAX);
    cr_expect_eq(ticks, 3);
    rt_leave(m_self());
}

Test(timer_heap, periods)
{
    test_run_procs(1, run_period, NULL);
}

/* ---- stop against a callback on another machine ------------------------------------------------------------------ */

struct race { struct timer t; w_u32 inside, runs; };

static void slow_callback(void *arg, int64_t now_ns)
{
    (void)now_ns;
    struct race *x = arg;
    store_seq(&x->inside, 1);
    for (int i = 0; i < 2000; i++)
        cpu_relax();
    add_seq(&x->runs, 1);
    store_seq(&x->inside, 0);
}

static weft_waitgroup wg;
static w_u32 met, prevented;

static void racer(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    for (int k = 0; k < 400; k++) {
        struct race x;
        memset(&x, 0, sizeof x);
        x.t.fn = slow_callback;
        x.t.arg = &x;
        rt_enter();
        timer_start(&x.t, os_now_ns() + rng_below(&r, 60000));
        rt_leave(m_self());
        int64_t until = weft_now() + rng_below(&r, 80000);
        while (weft_now() < until)
            if (rng_below(&r, 8) == 0)
                weft_yield();
        rt_enter();
        bool stopped = timer_stop(&x.t);
        rt_leave(m_self());
        cr_assert_eq(load_seq(&x.inside), 0, "the callback runs after timer_stop");
        cr_assert_eq(load_seq(&x.runs), stopped ? 0 : 1);
        add_rlx(stopped ? &prevented : &met, 1);
        memset(&x, 0x5a, sizeof x); /* a late callback would call nonsense */
    }
}

static void run_race(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, racer, (void *)(uintptr_t)(seed + i)), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_gt(load_rlx(&met), 100);
    cr_expect_gt(load_rlx(&prevented), 100);
}

Test(timer_heap, stop_waits_for_the_callback)
{
    uint64_t seed = test_seed();
    test_run_procs(4, run_race, &seed);
}

/* ---- times long past ---------------------------------------------------------------------------------------------- */

static void count_one(void *arg, int64_t now_ns)
{
    (void)now_ns;
    add_seq((w_u32 *)arg, 1);
}

static void run_long_past(void *arg)
{
    (void)arg;
    static const int64_t when[] = { INT64_MIN, INT64_MIN + 1, -1, 0, 1 };
    static w_u32 n;
    static struct timer t[w_countof(when)];
    for (size_t i = 0; i < w_countof(when); i++) {
        t[i].fn = count_one;
        t[i].arg = &n;
        rt_enter();
        timer_start(&t[i], when[i]);
        cr_expect_geq(timers_next(), 0, "a sleep until then would last for ever");
        rt_leave(m_self());
    }
    test_until(load_seq(&n) == w_countof(when));
}

Test(timer_heap, a_time_long_past_is_due) { test_run_procs(1, run_long_past, NULL); }

/* ---- nothing is kept --------------------------------------------------------------------------------------------- */

static void never(void *arg) { (void)arg; }

static void run_stopped(void *arg)
{
    (void)arg;
    static weft_timer *t[100000];
    for (int i = 0; i < 100000; i++)
        t[i] = weft_timer_func(3600 * WEFT_SECOND + i, 0, never, NULL);
    test_until(timers_waiting() == 100000); /* who collects may rest, some milliseconds */
    for (int i = 0; i < 100000; i++)
        cr_assert(weft_timer_stop(t[(i * 7919) % 100000]));
    test_until(timers_waiting() == 0);
    for (uint32_t i = 0; i < nprocs(); i++)
        cr_expect_leq(sched.allp[i]->timers.cap, 64, "room for %u timers is kept", sched.allp[i]->timers.cap);
}

Test(timer_heap, a_hundred_thousand_stopped_leave_nothing)
{
    test_run(run_stopped, NULL);
}

/* ---- processors go ----------------------------------------------------------------------------------------------- */

static w_u32 woken;
static void sleeper(void *arg)
{
    int64_t until = weft_now() + (intptr_t)arg;
    weft_sleep((intptr_t)arg);
    cr_expect_geq(weft_now(), until);
    add_seq(&woken, 1);
}

static void run_shrink(void *arg)
{
    (void)arg;
    for (int i = 0; i < 400; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, sleeper, (void *)(intptr_t)(50 * WEFT_MILLISECOND + i * 10000)), 0);
    test_until(timers_waiting() + load_seq(&woken) >= 400);
    weft_maxprocs(1);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(load_seq(&woken), 400);
}

Test(timer_heap, timers_of_a_processor_that_goes_are_taken_over)
{
    test_run_procs(8, run_shrink, NULL);
}
