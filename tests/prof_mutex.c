/* The mutex profile: who made others wait, and for how long, by the stack that unlocked. */
#include "prof_test.h"
#include "waiting.h"
#include <errno.h>
#include "base/probe.h"

#define MS 1000000

static weft_mutex mu;
static weft_rwmutex rw;
static weft_waitgroup done;

static struct pp *profile(void) { return prof_named("mutex"); }
static void fraction(int n) { cr_assert_geq(weft_set_mutex_profile_fraction(n), 0); }

/* Holds it until n others wait, and 2 ms longer. */
NOINLINE static void hold_mutex(int n)
{
    weft_mutex_lock(&mu);
    for (int i = 0; i < n; i++)
        weft_waitgroup_go(&done, (weft_fn *)(void (*)(void *))weft_mutex_lock, &mu);
    test_until(parked_as(&mu, LOT_MUTEX) == (size_t)n);
    weft_sleep(2 * MS);
    weft_mutex_unlock(&mu);
    NO_TAIL_CALL();
}

NOINLINE static void unlock_mutex(void) { weft_mutex_unlock(&mu); NO_TAIL_CALL(); }

/* The one that waits gets the mutex when it is unlocked, and that is whose doing it is. */
static void one_waits(void *arg)
{
    (void)arg;
    fraction(1);
    hold_mutex(1);
    weft_waitgroup_wait(&done);
    unlock_mutex();
    fraction(0);
    struct pp *p = profile();
    struct prof_sum s = prof_sum(p, "(weft_mutex_unlock);hold_mutex;one_waits");
    cr_expect_eq(p->samples, 1);
    cr_expect_eq(s.value[0], 1);
    cr_expect_geq(s.value[1], 2 * MS);
    cr_expect_str_eq(p->type[0].type, "contentions");
    cr_expect_str_eq(p->type[1].type, "delay");
    cr_expect_eq(p->period, 1);
    const char *text = prof_text(weft_profile_lookup("mutex"));
    cr_expect_eq(strncmp(text, "--- mutex:\ncycles/second=1000000000\nsampling period=0\n", 52), 0, "%s", text);
    cr_expect_not_null(strstr(text, "\thold_mutex+0x"), "%s", text);
}

Test(prof_mutex, by_who_unlocks) { test_run(one_waits, NULL); }

/* All of the waiting is in it: when each of n has had it, what they waited is what was told of those who unlocked. */
static w_u64 told_ns, told;
static void listener(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t ns)
{
    (void)arg, (void)id, (void)a, (void)b;
    add_rlx(&told_ns, ns);
    add_rlx(&told, 1);
}

NOINLINE static void take_turns(void *arg)
{
    (void)arg;
    for (int i = 0; i < 50; i++) {
        weft_mutex_lock(&mu);
        weft_sleep(20000);
        weft_mutex_unlock(&mu);
    }
    NO_TAIL_CALL();
}

static void all_of_it(void *arg)
{
    (void)arg;
    fraction(1);
    cr_assert_eq(probe_listen(1ull << PROBE_lock_contended, listener, NULL), 0);
    for (int i = 0; i < 6; i++)
        weft_waitgroup_go(&done, take_turns, NULL);
    weft_waitgroup_wait(&done);
    probe_unlisten(listener, NULL);
    struct prof_sum s = prof_sum(profile(), "(weft_mutex_unlock);take_turns");
    cr_expect_gt(s.value[0], 50);
    cr_expect_eq(s.value[0], (int64_t)load_rlx(&told));
    cr_expect_eq(s.value[1], (int64_t)load_rlx(&told_ns));
}

Test(prof_mutex, all_of_the_waiting) { test_run(all_of_it, NULL); }

NOINLINE static void write_lock_held(void)
{
    weft_rwmutex_lock(&rw);
    for (int i = 0; i < 3; i++)
        weft_waitgroup_go(&done, (weft_fn *)(void (*)(void *))weft_rwmutex_rlock, &rw);
    test_until(parked_as(&rw, LOT_READER) == 3);
    weft_rwmutex_unlock(&rw);
    NO_TAIL_CALL();
}

NOINLINE static void last_reader(void)
{
    weft_waitgroup_go(&done, (weft_fn *)(void (*)(void *))weft_rwmutex_lock, &rw);
    test_until(parked_as(&rw, LOT_WRITER) == 1);
    weft_rwmutex_runlock(&rw);
    weft_rwmutex_runlock(&rw);
    weft_rwmutex_runlock(&rw);
    NO_TAIL_CALL();
}

static void read_and_write(void *arg)
{
    (void)arg;
    fraction(1);
    write_lock_held();
    weft_waitgroup_wait(&done);
    last_reader();
    weft_waitgroup_wait(&done);
    struct pp *p = profile();
    cr_expect_eq(prof_sum(p, "weft_rwmutex_unlock;write_lock_held;read_and_write").value[0], 3); /* one for each that waited */
    cr_expect_eq(prof_sum(p, "weft_rwmutex_runlock;last_reader;read_and_write").value[0], 1);
}

Test(prof_mutex, read_write_locks) { test_run(read_and_write, NULL); }

/* Go's TestMutexProfileRateAdjust, and the answers of SetMutexProfileFraction. */
static void rates(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_set_mutex_profile_fraction(-1), 0);
    hold_mutex(1);
    weft_waitgroup_wait(&done);
    unlock_mutex();
    cr_expect_eq(profile()->samples, 0);
    cr_expect_eq(weft_set_mutex_profile_fraction(1), 0);
    cr_expect_eq(weft_set_mutex_profile_fraction(-1), 1);
    hold_mutex(1);
    weft_waitgroup_wait(&done);
    unlock_mutex();
    struct prof_sum before = prof_sum(profile(), "(weft_mutex_unlock);hold_mutex");
    cr_expect_eq(before.value[0], 1);
    cr_expect_eq(weft_set_mutex_profile_fraction(0), 1);
    hold_mutex(1);
    weft_waitgroup_wait(&done);
    unlock_mutex();
    struct prof_sum after = prof_sum(profile(), "(weft_mutex_unlock);hold_mutex");
    cr_expect_eq(after.value[0], 1); /* what there is stays, and does not depend on what the fraction is now */
    cr_expect_eq(after.value[1], before.value[1]);
    cr_expect_eq(weft_set_mutex_profile_fraction(5), 0);
    cr_expect_eq(weft_set_mutex_profile_fraction(-1), 5);
}

Test(prof_mutex, fractions)
{
    cr_expect_eq(weft_set_mutex_profile_fraction(-1), -ESRCH);
    test_run(rates, NULL);
    cr_expect_eq(weft_set_mutex_profile_fraction(1), -ESRCH);
}

/* As a lock tells it. */
NOINLINE static void weft_tell(void)
{
    struct m *m = rt_enter();
    sched_contended(&mu, sched_now_ns(), WAIT_MUTEX);
    rt_leave(m);
    NO_TAIL_CALL();
}

NOINLINE static void contend(int n) { while (n-- > 0) weft_tell(); NO_TAIL_CALL(); }
NOINLINE static void contend_within_budget(int n) { while (n-- > 0) weft_tell(); NO_TAIL_CALL(); }

/* One in a hundred is taken, and the sums are those of all; likewise with a budget. Margins are five standard deviations and more. */
static void sums(void *arg)
{
    const int n = 200000;
    (void)arg;
    fraction(100);
    contend(n);
    cr_expect_eq(weft_set_mutex_profile_budget(100.5), -EINVAL);
    cr_assert_eq(weft_set_mutex_profile_budget(10), 0);
    contend_within_budget(20 * n);
    cr_assert_eq(weft_set_mutex_profile_budget(0), 0);
    cr_expect_eq(weft_set_mutex_profile_fraction(-1), 0);
    contend(1000);
    struct pp *p = profile();
    struct prof_sum s = prof_sum(p, "weft_tell;contend;sums");
    cr_expect_float_eq((double)s.value[0], n, 0.12 * n, "%ld", (long)s.value[0]);
    cr_expect_geq(s.value[1], s.value[0]);
    s = prof_sum(p, "weft_tell;contend_within_budget;sums");
    cr_expect_float_eq((double)s.value[0], 20 * n, 0.15 * 20 * n, "%ld", (long)s.value[0]);
    cr_expect_geq(s.value[1], s.value[0]);
}

Test(prof_mutex, sums_are_right_at_any_fraction) { test_run(sums, NULL); }

static void in_the_viewer(void *arg)
{
    static struct test_output out;
    (void)arg;
    fraction(1);
    contend(1000);
    prof_tool(&out, prof_write(weft_profile_lookup("mutex"), 0), "-traces", NULL);
    cr_expect_not_null(strstr(out.text, "Type: delay\n"), "%s", out.text);
    cr_expect_not_null(strstr(out.text, "s   weft_tell\n             contend\n"), "%s", out.text);
    prof_tool(&out, prof_write(weft_profile_lookup("mutex"), 1), "-top", NULL);
    cr_expect_not_null(strstr(out.text, "100% of"), "%s", out.text);
}

Test(prof_mutex, in_the_viewer) { test_run(in_the_viewer, NULL); }
