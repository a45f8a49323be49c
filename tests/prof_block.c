/* The block profile: who waited, where, how often and for how long; and that its sums are right whatever the rate. */
#include "prof_test.h"
#include "waiting.h"
#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include "base/probe.h"
#include "base/rng.h"
#include "os/clock.h"

#define MS 1000000

static struct pp *profile(void) { return prof_named("block"); }

static void rate(int64_t ns) { cr_assert_eq(weft_set_block_profile_rate(ns), 0); }

/* ---- what is recorded ----------------------------------------------------------------------------------------- */

/* Each of these waits once; the other side comes when it does. */
static weft_chan *c;
static weft_mutex mu;
static weft_rwmutex rw;
static weft_cond cond;
static weft_waitgroup wg;
static weft_sema sema;

NOINLINE static void do_send(void *arg) { cr_expect_eq(weft_chan_send(c, &arg), 0); NO_TAIL_CALL(); }
NOINLINE static void do_recv(void *arg) { cr_expect_eq(weft_chan_recv(c, &arg), 1); NO_TAIL_CALL(); }
NOINLINE static void do_select(void *arg)
{
    weft_case cases[] = { { WEFT_RECV, c, &arg, 0 }, { WEFT_RECV, weft_chan_make(0, 0), NULL, 0 } };
    cr_expect_eq(weft_select(cases, 2), 0);
    NO_TAIL_CALL();
}
NOINLINE static void do_lock(void *arg) { (void)arg, weft_mutex_lock(&mu), weft_mutex_unlock(&mu); NO_TAIL_CALL(); }
static w_u32 parks; /* of others than sleepers, and fibers of the runtime */
NOINLINE static void do_lock_until(void *arg)
{
    (void)arg;
    uint32_t before = load_rlx(&parks);
    do /* till it comes to wait before its time is over */
        cr_expect_eq(weft_mutex_lock_until(&mu, weft_now() + 20 * MS), -ETIMEDOUT);
    while (load_rlx(&parks) == before);
    NO_TAIL_CALL();
}
NOINLINE static void do_rlock(void *arg) { (void)arg, weft_rwmutex_rlock(&rw), weft_rwmutex_runlock(&rw); NO_TAIL_CALL(); }
NOINLINE static void do_wlock(void *arg) { (void)arg, weft_rwmutex_lock(&rw), weft_rwmutex_unlock(&rw); NO_TAIL_CALL(); }
NOINLINE static void do_cond(void *arg)
{
    (void)arg;
    weft_mutex_lock(&mu);
    weft_cond_wait(&cond, &mu);
    weft_mutex_unlock(&mu);
    NO_TAIL_CALL();
}
NOINLINE static void do_group(void *arg) { (void)arg, weft_waitgroup_wait(&wg); NO_TAIL_CALL(); }
NOINLINE static void do_sema(void *arg) { (void)arg, weft_sema_acquire(&sema); NO_TAIL_CALL(); }

NOINLINE static void do_sleep(void *arg) { (void)arg, weft_sleep(MS); NO_TAIL_CALL(); }

static const struct wait { weft_fn *fn; const char *stack, *function; } waits[] = {
    { do_send, "weft_chan_send;do_send", "do_send" },
    { do_recv, "weft_chan_recv;do_recv", "do_recv" },
    { do_select, "weft_select;do_select", "do_select" },
    { do_lock, "(weft_mutex_lock);do_lock", "do_lock" },
    { do_lock_until, "weft_mutex_lock_until;do_lock_until", "do_lock_until" },
    { do_rlock, "weft_rwmutex_rlock;do_rlock", "do_rlock" },
    { do_wlock, "weft_rwmutex_lock;do_wlock", "do_wlock" },
    { do_cond, "weft_cond_wait;do_cond", "do_cond" },
    { do_group, "weft_waitgroup_wait;do_group", "do_group" },
    { do_sema, "weft_sema_acquire;do_sema", "do_sema" },
    { do_sleep, NULL, NULL }, /* is no wait for anybody */
};
enum { WAITS = w_countof(waits) - 1 };

static struct fiber *last_parked, *waiter; /* waiter: who waits for the end of the others, and is none of them */
static void parked(void *arg, enum probe_id id, uintptr_t fiber, uintptr_t why, uintptr_t none)
{
    (void)arg, (void)id, (void)none;
    struct fiber *f = (struct fiber *)fiber;
    if (why != WAIT_SLEEP && f != waiter && !(f->flags & FIBER_SYSTEM)) {
        __atomic_store_n(&last_parked, f, __ATOMIC_RELAXED);
        add_acq_rel(&parks, 1); /* rel: who it is; acq in let_go */
    }
}

/* Whatever fn waits for, 2 ms after it does. */
static void let_go(weft_fn *fn, void *arg, uint32_t before)
{
    test_until(load_acq(&parks) != before && load_acq(&last_parked->state) == FIBER_WAITING);
    weft_sleep(2 * MS);
    if (fn == do_send)
        cr_expect_eq(weft_chan_recv(c, &arg), 1);
    else if (fn == do_recv || fn == do_select)
        cr_expect_eq(weft_chan_send(c, &arg), 0);
    else if (fn == do_lock)
        weft_mutex_unlock(&mu);
    else if (fn == do_rlock || fn == do_wlock)
        weft_rwmutex_unlock(&rw);
    else if (fn == do_cond)
        weft_mutex_lock(&mu), weft_cond_signal(&cond), weft_mutex_unlock(&mu);
    else if (fn == do_group)
        weft_waitgroup_done(&wg);
    else if (fn == do_sema)
        weft_sema_release(&sema, 1);
}

/* what waits for 2 ms or more, and do_sleep sleeps, in a fiber of its own. */
NOINLINE static void wait_once(weft_fn *what)
{
    weft_fn *volatile fn = what; /* else the compiler makes two of the end of this function, and our own wait has two stacks */
    weft_waitgroup ended = { 0 };
    waiter = m_self()->cur;
    if (fn == do_lock || fn == do_lock_until)
        weft_mutex_lock(&mu);
    else if (fn == do_rlock || fn == do_wlock)
        weft_rwmutex_lock(&rw);
    else if (fn == do_group)
        weft_waitgroup_add(&wg, 1);
    uint32_t before = load_rlx(&parks);
    cr_assert_eq(probe_listen(1ull << PROBE_fiber_block, parked, NULL), 0);
    weft_waitgroup_go(&ended, fn, NULL);
    if (fn != do_lock_until && fn != do_sleep) /* they come to an end by themselves */
        let_go(fn, NULL, before);
    weft_waitgroup_wait(&ended);
    probe_unlisten(parked, NULL);
    if (fn == do_lock_until)
        weft_mutex_unlock(&mu);
}

static void everything(void *arg)
{
    (void)arg;
    c = weft_chan_make(sizeof(void *), 0);
    rate(1);
    for (size_t i = 0; i < w_countof(waits); i++) /* from one place, so that our own waits are one stack */
        wait_once(waits[i].fn);
    rate(0);
    struct pp *p = profile();
    for (size_t i = 0; i < WAITS; i++) {
        struct prof_sum s = prof_sum(p, waits[i].stack);
        if (s.samples == 0)
            prof_show(p);
        cr_expect_eq(s.samples, 1, "%s", waits[i].stack);
        cr_expect_geq(s.value[0], 1, "%s", waits[i].stack);
        cr_expect_geq(s.value[1], MS, "%s waited for %ld ns", waits[i].stack, (long)s.value[1]);
        cr_expect_lt(s.value[1], 10000 * (int64_t)MS);
    }
    for (size_t i = 0; i < p->samples; i++)
        cr_expect_null(strstr(pp_text(&p->sample[i]), "do_sleep;"), "%s", pp_text(&p->sample[i]));
    /* Only what was waited for by this test's functions, or by who waited for them. */
    for (size_t i = 0; i < p->samples; i++)
        cr_expect(strncmp(pp_text(&p->sample[i]), "weft_", 5) == 0 || pp_text(&p->sample[i])[0] == '(', "%s", pp_text(&p->sample[i]));
    cr_expect_eq(p->sample[0].value[1], prof_sum(p, pp_text(&p->sample[0])).value[1]);
    for (size_t i = 1; i < p->samples; i++) /* the longest first */
        cr_expect_leq(p->sample[i].value[1], p->sample[i - 1].value[1]);
}

Test(prof_block, every_kind_of_wait_and_no_sleep) { test_run(everything, NULL); }
Test(prof_block, every_kind_of_wait_on_one_processor) { test_run_procs(1, everything, NULL); }
Test(prof_block, every_kind_of_wait_and_a_fiber_that_moves) { test_run_debug(2, "migrate=1", everything, NULL); }

/* Locked to its thread, it waits in place; so does a thread of the host. */
static void locked(void *arg)
{
    weft_lock_os_thread();
    do_sema(arg);
    weft_unlock_os_thread();
    NO_TAIL_CALL();
}

static void *host(void *arg) { return do_sema(arg), NULL; }

static void in_place(void *arg)
{
    pthread_t t;
    (void)arg;
    rate(1);
    weft_waitgroup ended = { 0 };
    weft_waitgroup_go(&ended, locked, NULL);
    test_until(parked_as(&sema, LOT_ANY) == 1);
    weft_sema_release(&sema, 1);
    weft_waitgroup_wait(&ended);
    cr_assert_eq(pthread_create(&t, NULL, host, NULL), 0);
    test_until(parked_as(&sema, LOT_ANY) == 1);
    weft_sema_release(&sema, 1);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
    struct pp *p = profile();
    cr_expect_eq(prof_sum(p, "weft_sema_acquire;do_sema;locked").value[0], 1);
    cr_expect_eq(prof_sum(p, "weft_sema_acquire;do_sema;host").value[0], 1);
}

Test(prof_block, waits_in_place)
{
    test_run(in_place, NULL);
}

/* Off at the start, and again; what there is stays until the runtime ends. */
static void off(void *arg)
{
    (void)arg;
    cr_expect_eq(profile()->samples, 0);
    wait_once(do_sema);
    cr_expect_eq(profile()->samples, 0);
    rate(1);
    wait_once(do_sema);
    rate(0);
    int64_t n = prof_sum(profile(), "weft_sema_acquire;do_sema").value[0];
    cr_expect_eq(n, 1);
    wait_once(do_sema);
    rate(-5);
    wait_once(do_sema);
    cr_expect_eq(prof_sum(profile(), "weft_sema_acquire;do_sema").value[0], 1);
    cr_expect_geq(weft_profile_count(weft_profile_lookup("block")), 1);
}

static void nothing(void *arg)
{
    (void)arg;
    cr_expect_eq(profile()->samples, 0);
    cr_expect_eq(weft_profile_count(weft_profile_lookup("block")), 0);
    wait_once(do_sema);
    cr_expect_eq(profile()->samples, 0);
}

Test(prof_block, off)
{
    cr_expect_eq(weft_set_block_profile_rate(1), -ESRCH);
    test_run(off, NULL);
    cr_expect_eq(weft_set_block_profile_rate(1), -ESRCH);
    test_run(nothing, NULL);
}

/* The child has what its parent had, and goes on. */
static void fork_child(void)
{
    wait_once(do_sema);
    cr_assert_eq(prof_sum(profile(), "weft_sema_acquire;do_sema").value[0], 2);
    cr_assert_eq(weft_set_block_profile_budget(50), 0);
    wait_once(do_sema);
    cr_assert_eq(weft_set_block_profile_rate(0), 0);
    cr_assert_geq(prof_sum(profile(), "weft_sema_acquire;do_sema").value[0], 2);
    _exit(0);
}

static void forks(void *arg)
{
    int status = -1;
    (void)arg;
    rate(1);
    wait_once(do_sema);
    pid_t pid = fork();
    if (pid == 0)
        fork_child();
    weft_blocking_begin();
    waitpid(pid, &status, 0);
    weft_blocking_end();
    cr_expect_eq(status, 0);
    wait_once(do_sema);
    cr_expect_eq(prof_sum(profile(), "weft_sema_acquire;do_sema").value[0], 2);
}

Test(prof_block, in_the_child_of_a_fork, CHILD_GOES_ON) { test_run(forks, NULL); }

/* ---- sums ---------------------------------------------------------------------------------------------------------- */

/* As the scheduler tells it, in a call into weft, as which it counts by its name. */
NOINLINE static void scheduler_tells(uint64_t weight, int64_t ns)
{
    PROBE(fiber_waited, 1, PROBE_WAITED(WAIT_CHAN_RECV, weight), ns);
    NO_TAIL_CALL();
}

NOINLINE static void weft_tell(uint64_t weight, int64_t ns)
{
    struct m *m = rt_enter();
    scheduler_tells(weight, ns);
    rt_leave(m);
    NO_TAIL_CALL();
}

NOINLINE static void short_waits(int n) { while (n-- > 0) weft_tell(1, 100); NO_TAIL_CALL(); }
NOINLINE static void medium_waits(int n) { while (n-- > 0) weft_tell(1, 5000); NO_TAIL_CALL(); }
NOINLINE static void long_waits(int n) { while (n-- > 0) weft_tell(1, 20000); NO_TAIL_CALL(); }
NOINLINE static void heavy_waits(int n) { while (n-- > 0) weft_tell(50, 1000); NO_TAIL_CALL(); }

/* The rate takes one in a hundred of the short ones, half of the medium ones. n of each are told: counts and times are those of all. (Go's
 * TestBlockProfileBias.) The wide margins are five times the standard deviation: it would fail once in some hundred thousand runs. */
static void no_bias(void *arg)
{
    const int n = 200000;
    (void)arg;
    rate(10000);
    short_waits(n);
    medium_waits(n);
    long_waits(n / 10);
    rate(1);
    heavy_waits(100);
    rate(0);
    struct pp *p = profile();
    struct { const char *fn; double count, ns, margin; } want[] = {
        { "weft_tell;short_waits;no_bias", n, n * 100.0, 0.12 }, /* 2000 are taken: 1 / sqrt(2000) is 2.2 % */
        { "weft_tell;medium_waits;no_bias", n, n * 5000.0, 0.016 },
        { "weft_tell;long_waits;no_bias", n / 10, n / 10 * 20000.0, 0 },
        { "weft_tell;heavy_waits;no_bias", 5000, 5000 * 1000.0, 0 },
    };
    for (size_t i = 0; i < w_countof(want); i++) {
        struct prof_sum s = prof_sum(p, want[i].fn);
        cr_expect_float_eq((double)s.value[0], want[i].count, want[i].margin * want[i].count + 1, "%s: %ld", want[i].fn, (long)s.value[0]);
        cr_expect_float_eq((double)s.value[1], want[i].ns, want[i].margin * want[i].ns + 1, "%s: %ld ns", want[i].fn, (long)s.value[1]);
    }
}

Test(prof_block, sums_are_right_at_any_rate) { test_run(no_bias, NULL); }

/* Of a wait that lasted no time at all, or less, there is one of a nanosecond. */
static void odd_times(void *arg)
{
    (void)arg;
    rate(1);
    weft_tell(1, 1);
    rate(INT64_MAX);
    for (int i = 0; i < 1000; i++)
        weft_tell(1, 1);
    for (volatile int i = 0; i < 2; i++)
        weft_tell(1, INT64_MAX);
    rate(0);
    struct pp *p = profile();
    int64_t longest = 0;
    for (size_t i = 0; i < p->samples; i++) {
        cr_expect(p->sample[i].value[0] >= 1 && p->sample[i].value[1] >= 1);
        longest = w_max(longest, p->sample[i].value[1]);
    }
    cr_expect_eq(longest, INT64_MAX);
}

Test(prof_block, extreme_rates_and_times) { test_run(odd_times, NULL); }

/* ---- depth ------------------------------------------------------------------------------------------------------------- */

NOINLINE static void deep(int n)
{
    if (n > 0)
        deep(n - 1);
    else
        weft_tell(1, 1000);
    NO_TAIL_CALL();
}

NOINLINE static void deeper_than_kept(void) { deep(300); NO_TAIL_CALL(); }

/* (Go's TestProfilerStackDepth: 128 frames, the innermost ones; here those within the runtime are of them.) */
static void depth(void *arg)
{
    (void)arg;
    rate(1);
    deep(90);
    deeper_than_kept();
    struct pp *p = profile();
    struct prof_sum whole = prof_sum(p, "weft_tell;deep;deep;deep");
    cr_expect_eq(whole.samples, 2);
    for (size_t i = 0; i < p->samples; i++) {
        const struct pp_sample *s = &p->sample[i];
        if (strstr(pp_text(s), "depth") != NULL)
            cr_expect_eq(s->locations, 1 + 91 + 1); /* to the fiber's first function */
        else
            cr_expect(s->locations > 120 && s->locations <= 128, "%zu", s->locations);
    }
}

Test(prof_block, deep_stacks) { test_run(depth, NULL); }

/* ---- a window -------------------------------------------------------------------------------------------------------------- */

static void window(void *arg)
{
    weft_profile *p = weft_profile_lookup("block");
    weft_profile_delta *d = NULL, *none = NULL;
    struct sink s = { 0 }, nothing = { 0 };
    static struct test_output out;
    (void)arg;
    rate(1);
    short_waits(10);
    cr_assert_eq(weft_profile_delta_begin(p, &d), 0);
    short_waits(7);
    medium_waits(3);
    cr_assert_eq(weft_profile_delta_begin(p, &none), 0);
    int64_t before = os_wall_ns();
    cr_assert_eq(weft_profile_delta_end(d, sink_write, &s), 0);
    struct pp *r = pp_decode(s.bytes, s.len);
    cr_expect_eq(prof_sum(r, "weft_tell;short_waits;window").value[0], 7);
    cr_expect_eq(prof_sum(r, "weft_tell;short_waits;window").value[1], 700);
    cr_expect_eq(prof_sum(r, "weft_tell;medium_waits;window").value[0], 3);
    cr_expect_str_eq(r->type[1].type, "delay");
    cr_expect_str_eq(r->period_type.type, "contentions");
    cr_expect_eq(r->period, 1);
    cr_expect_gt(r->duration, 0);
    cr_expect_geq(r->time, before);
    cr_assert_eq(weft_profile_delta_end(none, sink_write, &nothing), 0); /* no samples, but types: of use as a base */
    r = pp_decode(nothing.bytes, nothing.len);
    cr_expect_eq(prof_sum(r, "weft_tell;short_waits;window").samples, 0);
    cr_expect_eq(r->types, 2);
    cr_assert_eq(weft_profile_delta_begin(p, &d), 0);
    cr_expect_eq(weft_profile_delta_end(d, NULL, NULL), 0);
    prof_tool(&out, s, "-top", "-sample_index=contentions");
    cr_expect_not_null(strstr(out.text, "Total samples = 10"), "%s", out.text);
    cr_expect_not_null(strstr(out.text, "weft_tell\n"), "%s", out.text);
}

Test(prof_block, what_happens_in_a_window) { test_run(window, NULL); }

static weft_profile_delta *open_window;
static void window_begin(void *arg)
{
    (void)arg;
    rate(1);
    weft_tell(1, 5);
    cr_assert_eq(weft_profile_delta_begin(weft_profile_lookup("block"), &open_window), 0);
}
static void window_end(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_profile_delta_end(open_window, sink_write, &(struct sink){ 0 }), -ESRCH);
}

Test(prof_block, a_window_over_two_lives)
{
    test_run(window_begin, NULL);
    test_run(window_end, NULL);
}

/* ---- a budget ---------------------------------------------------------------------------------------------------------------- */

#define TRIPS 1000000
static void answer(void *arg)
{
    weft_chan **ch = arg;
    long v;
    while (weft_chan_recv(ch[0], &v) == 1)
        weft_chan_send(ch[1], &v);
}

NOINLINE static void ask(weft_chan **ch, int n)
{
    for (long i = 0, v = 0; i < n; i++) {
        weft_chan_send(ch[0], &v);
        cr_assert_eq(weft_chan_recv(ch[1], &v), 1);
    }
    NO_TAIL_CALL();
}

/* On one processor each trip is two waits. Few of them are recorded, in changing proportion, and the sum is that of all. */
static void budget(void *arg)
{
    weft_chan *ch[2] = { weft_chan_make(sizeof(long), 0), weft_chan_make(sizeof(long), 0) };
    (void)arg;
    cr_expect_eq(weft_set_block_profile_budget(101), -EINVAL);
    cr_expect_eq(weft_set_block_profile_budget(__builtin_nan("")), -EINVAL);
    weft_go(answer, ch);
    cr_assert_eq(weft_set_block_profile_budget(5), 0);
    uint32_t first = load_rlx(&sched_waits_one_in), least = first, most = first;
    for (int i = 0; i < 40; i++) {
        ask(ch, TRIPS / 40);
        uint32_t now = load_rlx(&sched_waits_one_in);
        least = w_min(least, now);
        most = w_max(most, now);
    }
    cr_assert_eq(weft_set_block_profile_budget(0), 0);
    cr_expect_eq(load_rlx(&sched_waits_one_in), 1);
    struct pp *p = profile();
    double n = (double)(prof_sum(p, "weft_chan_recv;ask").value[0] + prof_sum(p, "weft_chan_send;ask").value[0]);
    double other = (double)(prof_sum(p, "weft_chan_recv;answer").value[0] + prof_sum(p, "weft_chan_send;answer").value[0]);
    cr_expect_neq(least, most); /* it was adapted */
    cr_expect(n > 0.8 * TRIPS && n < 1.25 * TRIPS, "%.0f of %d", n, TRIPS);
    cr_expect(other > 0.8 * TRIPS && other < 1.25 * TRIPS, "%.0f of %d", other, TRIPS);
    weft_chan_close(ch[0]);
}

Test(prof_block, a_budget_keeps_sums_right) { test_run_procs(1, budget, NULL); }

/* ---- ways ----------------------------------------------------------------------------------------------------------------------- */

/* Stacks of the same depth and size that differ in one place, in random order, on several fibers: none is taken for another. */
static int told_by[4][4][4]; /* by the ways taken */

NOINLINE static void way_end(void) { weft_tell(1, 100); NO_TAIL_CALL(); }
#define WAY(name, a, b, c, d)                                  \
    NOINLINE static void name##0(int w) { (void)w, a; NO_TAIL_CALL(); __asm__ volatile("# 0"); } \
    NOINLINE static void name##1(int w) { (void)w, b; NO_TAIL_CALL(); __asm__ volatile("# 1"); } \
    NOINLINE static void name##2(int w) { (void)w, c; NO_TAIL_CALL(); __asm__ volatile("# 2"); } \
    NOINLINE static void name##3(int w) { (void)w, d; NO_TAIL_CALL(); __asm__ volatile("# 3"); }
WAY(third, way_end(), way_end(), way_end(), way_end())
static void (*const thirds[4])(int) = { third0, third1, third2, third3 };
WAY(second, thirds[w % 4](w), thirds[w % 4](w), thirds[w % 4](w), thirds[w % 4](w))
static void (*const seconds[4])(int) = { second0, second1, second2, second3 };
WAY(first, seconds[w / 4 % 4](w), seconds[w / 4 % 4](w), seconds[w / 4 % 4](w), seconds[w / 4 % 4](w))
static void (*const firsts[4])(int) = { first0, first1, first2, first3 };

static void wander(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    for (int i = 0; i < 5000; i++) {
        int w = (int)rng_below(&r, 64);
        __atomic_fetch_add(&told_by[w / 16][w / 4 % 4][w % 4], 1, __ATOMIC_RELAXED);
        firsts[w / 16](w);
        if (w == 0)
            weft_yield();
    }
    NO_TAIL_CALL();
}

static void ways(void *arg)
{
    uint64_t seed = test_seed();
    weft_waitgroup ended = { 0 };
    char stack[64];
    (void)arg;
    rate(1);
    for (uintptr_t i = 0; i < 8; i++)
        weft_waitgroup_go(&ended, wander, (void *)(seed + i));
    weft_waitgroup_wait(&ended);
    rate(0);
    struct pp *p = profile();
    for (int w = 0; w < 64; w++) {
        snprintf(stack, sizeof stack, "weft_tell;way_end;third%d;second%d;first%d;wander", w % 4, w / 4 % 4, w / 16);
        cr_expect_eq(prof_sum(p, stack).value[0], told_by[w / 16][w / 4 % 4][w % 4], "%s", stack);
    }
}

Test(prof_block, stacks_that_are_nearly_the_same) { test_run(ways, NULL); }
