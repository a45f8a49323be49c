/* The wall-clock profile: where fibers are and why, running or not, and that it needs no stop for that. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/atomic.h"
#include "base/offheap.h"
#include "os/clock.h"
#include "pprof_test.h"
#include "sched/sched.h"

static struct sink to;

#define MS INT64_C(1000000)

static const weft_wall_profile_opts fast = { .size = sizeof fast, .hz = 100, .flush_ms = 50 };

static const char *label_of(const struct pp_sample *s, const char *key)
{
    for (size_t i = 0; i < s->labels; i++)
        if (strcmp(s->label[i].key, key) == 0)
            return s->label[i].text;
    return "";
}

/* In ns, of samples in that state, with that function on the stack, and with that label "who"; NULL: any. */
static int64_t ns_of(const struct pp *p, const char *state, const char *func, const char *who)
{
    int64_t ns = 0;
    for (size_t i = 0; i < p->samples; i++) {
        const struct pp_sample *s = &p->sample[i];
        bool in = func == NULL;
        for (size_t k = 0; k < s->locations; k++)
            for (size_t j = 0; j < s->location[k]->lines; j++)
                in |= func != NULL && strcmp(s->location[k]->line[j].function->name, func) == 0;
        if (in && (state == NULL || strcmp(label_of(s, "state"), state) == 0) && (who == NULL || strcmp(label_of(s, "who"), who) == 0))
            ns += s->value[1];
    }
    return ns;
}

static bool near(int64_t a, int64_t b, double tolerance) { return a >= b * (1 - tolerance) && a <= b * (1 + tolerance); }

static int64_t stopped_ns; /* when it was */
static struct pp *stop(void)
{
    cr_assert_eq(weft_wall_profile_stop(), 0);
    stopped_ns = weft_now();
    struct pp *p = pp_decode(to.bytes, to.len);
    cr_assert_str_eq(p->type[1].type, "wall");
    return p;
}

/* ---- each where it is --------------------------------------------------------------------------------------------- */

static weft_chan *never;
static int never_written[2];
static w_u32 begun, over;

static void is(const char *who)
{
    weft_set_labels(&(weft_label){ "who", who }, 1);
    add_rlx(&begun, 1);
}

static void sleeps(void *arg) { (void)arg, is("sleeps"), weft_sleep(1000 * WEFT_SECOND); }

static __attribute__((noinline)) void receives(void *arg)
{
    (void)arg;
    is("receives");
    weft_chan_recv(never, NULL);
    add_rlx(&begun, 1); /* or the compiler would leave this frame before the call */
}

static __attribute__((noinline)) void spins(void *arg)
{
    (void)arg;
    is("spins");
    while (load_rlx(&over) == 0)
        for (volatile int i = 0; i < 1000; i++)
            ;
}

/* Till the other end is closed. */
static void wait_in_the_kernel(void)
{
    char c;
    cr_assert_eq(read(never_written[0], &c, 1), 0);
}

static __attribute__((noinline)) void waits_in_the_kernel(void *arg)
{
    (void)arg;
    is("kernel");
    wait_in_the_kernel();
    add_rlx(&begun, 1); /* as in receives */
}

static __attribute__((noinline)) void waits_announced(void *arg)
{
    (void)arg;
    is("announced");
    weft_blocking_begin();
    wait_in_the_kernel();
    weft_blocking_end();
}

/* least: from when the profile had been started till it was to be stopped; most: from before the one till after the other. */
static bool lasted(int64_t ns, int64_t least, int64_t most) { return ns >= least * 0.9 && ns <= most * 1.1; }

static void five(void *arg)
{
    static weft_fn *const fn[] = { receives, spins, waits_in_the_kernel, waits_announced };
    weft_stop_stats before, after;
    weft_waitgroup wg = { 0 };
    (void)arg;
    never = weft_chan_make(0, 0);
    cr_assert_eq(pipe(never_written), 0);
    cr_assert_eq(weft_go(sleeps, NULL), 0); /* it ends with the runtime; the others when the profile has */
    for (size_t i = 0; i < w_countof(fn); i++)
        weft_waitgroup_go(&wg, fn[i], NULL);
    test_until(load_rlx(&begun) == w_countof(fn) + 1);
    weft_sleep(10 * MS);
    uint64_t stops = 0;
    for (int i = 0; i < WEFT_STOP_REASONS; i++)
        weft_read_stop_stats(i, &before), stops += before.count;
    int64_t t0 = weft_now();
    cr_assert_eq(weft_wall_profile_start(sink_write, &to, &fast), 0);
    int64_t t1 = weft_now();
    weft_sleep(1300 * MS);
    int64_t least = weft_now() - t1;
    struct pp *p = stop();
    int64_t most = stopped_ns - t0;
    for (int i = 0; i < WEFT_STOP_REASONS; i++)
        weft_read_stop_stats(i, &after), stops -= after.count;
    cr_expect_eq(stops, 0u, "the world was not stopped");
    cr_expect(lasted(ns_of(p, "sleep", "weft_sleep", "sleeps"), least, most), "%ld", (long)ns_of(p, "sleep", "weft_sleep", "sleeps"));
    cr_expect(lasted(ns_of(p, "chan receive", "receives", "receives"), least, most));
    /* A machine that does not get to answer in time is not seen in a round, on a busy machine in most; nor is a fiber that waits for a processor at the
     * moment running. But none is seen twice, and none taken for what it is not. */
    int64_t spun = ns_of(p, NULL, "spins", "spins"), slept = ns_of(p, NULL, "waits_in_the_kernel", "kernel");
    cr_expect(spun > least / 8 && spun < most * 11 / 10, "%ld of %ld", (long)spun, (long)most);
    cr_expect_gt(ns_of(p, "running", "spins", "spins"), spun / 2);
    cr_expect(slept > least / 8 && slept < most * 11 / 10, "%ld of %ld", (long)slept, (long)most);
    cr_expect_gt(ns_of(p, "syscall", "waits_in_the_kernel", "kernel"), slept / 2);
    cr_expect(lasted(ns_of(p, "syscall", "waits_announced", "announced"), least, most), "%ld", (long)ns_of(p, "syscall", NULL, "announced"));
    weft_chan_close(never);
    store_rlx(&over, 1);
    close(never_written[1]);
    weft_waitgroup_wait(&wg);
    close(never_written[0]);
}

Test(prof_wall, each_is_where_it_is, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    test_run_procs(2, five, NULL);
    struct off_stats s;
    off_stats(OFF_PROF, &s);
    cr_assert_eq(s.in_use_bytes, 0u, "%lu bytes are kept", (unsigned long)s.in_use_bytes);
}

/* ---- many --------------------------------------------------------------------------------------------------------------- */

enum { MANY = 20000 };

static __attribute__((noinline)) void parks(void *arg)
{
    (void)arg;
    add_rlx(&begun, 1);
    weft_chan_recv(never, NULL);
    add_rlx(&begun, 1); /* as in receives */
}

static void many(void *arg)
{
    (void)arg;
    weft_wall_profile_opts o = fast;
    o.fibers_max = 100;
    never = weft_chan_make(0, 0);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_go(parks, NULL), 0);
    test_until(load_rlx(&begun) == MANY);
    int64_t t0 = weft_now();
    cr_assert_eq(weft_wall_profile_start(sink_write, &to, &o), 0);
    int64_t t1 = weft_now();
    weft_sleep(500 * MS);
    int64_t least = weft_now() - t1;
    struct pp *p = stop();
    int64_t most = stopped_ns - t0, all = ns_of(p, "chan receive", "parks", NULL);
    cr_expect(p->duration >= least && p->duration <= most);
    cr_expect(lasted(all / MANY, least, most), "%d of %d fibers for %ld ms", (int)(all / p->duration), MANY, (long)(p->duration / MS));
    cr_expect_lt(p->samples, 4000u);
    weft_chan_close(never);
}

Test(prof_wall, of_many_some_stand_for_all, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, many, NULL); }

static int64_t queued_at_ns, queued_ns;

static __attribute__((noinline)) void begins(void *arg)
{
    (void)arg;
    queued_ns += weft_now() - queued_at_ns;
}

static void queues(void *arg)
{
    weft_waitgroup wg = { 0 };
    (void)arg;
    cr_assert_eq(weft_wall_profile_start(sink_write, &to, &fast), 0);
    queued_at_ns = weft_now();
    for (int i = 0; i < 800; i++)
        weft_waitgroup_go(&wg, begins, NULL);
    struct m *m = rt_enter(); /* where its processor cannot be taken, so all of them wait, for long against what the last look may be late */
    for (int64_t until = os_now_ns() + 2000 * MS; os_now_ns() < until;)
        ;
    rt_leave(m);
    weft_waitgroup_wait(&wg);
    struct pp *p = stop();
    int64_t ns = ns_of(p, "runnable, not started", "queues", NULL);
    cr_expect(near(ns, queued_ns, 0.3), "%ld ms of %ld", (long)(ns / MS), (long)(queued_ns / MS));
}

Test(prof_wall, those_that_have_not_begun, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(1, queues, NULL); }

static void refuses(void *arg)
{
    weft_wall_profile_opts o = fast;
    (void)arg;
    cr_expect_eq(weft_wall_profile_stop(), -ESRCH);
    o.fibers_max = -1;
    cr_expect_eq(weft_wall_profile_start(sink_write, &to, &o), -EINVAL);
    o = fast;
    o.hz = 1001;
    cr_expect_eq(weft_wall_profile_start(sink_write, &to, &o), -EINVAL);
    cr_expect_eq(weft_wall_profile_start(NULL, NULL, NULL), -EINVAL);
    cr_expect_eq(weft_wall_profile_start(sink_write, &to, NULL), 0);
    cr_expect_eq(weft_wall_profile_start(sink_write, &to, NULL), -EALREADY);
    struct sink other = { 0 };
    cr_expect_eq(weft_cpu_profile_start(sink_write, &other, NULL), 0, "the other kind may run beside it");
    weft_sleep(300 * MS);
    cr_expect_eq(weft_cpu_profile_stop(), 0);
    struct pp *p = stop();
    cr_expect_gt(ns_of(p, "sleep", "refuses", NULL), 100 * MS);
    cr_expect_str_eq(pp_decode(other.bytes, other.len)->type[1].type, "cpu");
}

Test(prof_wall, calls_that_are_refused, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    cr_expect_eq(weft_wall_profile_start(sink_write, &to, NULL), -ESRCH);
    test_run_procs(2, refuses, NULL);
}
