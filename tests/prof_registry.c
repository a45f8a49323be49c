/* Profiles by name: finding them, the forms they are written in, and what a writer and a caller may do. */
#include "prof_test.h"
#include <errno.h>
#include <pthread.h>
#include "base/offheap.h"
#include "os/maps.h"
#include "prof/trim.h"

static weft_profile *own(const char *name)
{
    weft_profile *p = NULL;
    cr_assert_eq(weft_profile_new(name, &p), 0);
    return p;
}

/* ---- names ------------------------------------------------------------------------------------------------ */

/* Before any runtime, too. */
Test(prof_registry, names_in_order)
{
    static const char *const mine[] = { "zebra", "apple", "cat", "nn" };
    weft_profile *all[64], *few[3];
    size_t before = weft_profiles(NULL, 0);
    cr_assert_geq(before, 2);
    for (size_t i = 0; i < w_countof(mine); i++)
        cr_expect_eq(weft_profile_lookup(mine[i]), NULL);
    for (size_t i = 0; i < w_countof(mine); i++) {
        weft_profile *p = own(mine[i]);
        cr_expect_eq(weft_profile_lookup(mine[i]), p);
        cr_expect_str_eq(weft_profile_name(p), mine[i]);
        cr_expect_eq(weft_profile_count(p), 0);
    }
    size_t n = weft_profiles(all, w_countof(all));
    cr_assert_eq(n, before + w_countof(mine));
    for (size_t i = 1; i < n; i++)
        cr_expect_lt(strcmp(weft_profile_name(all[i - 1]), weft_profile_name(all[i])), 0);
    cr_expect_eq(weft_profiles(few, 3), n);
    for (size_t i = 0; i < 3; i++)
        cr_expect_eq(few[i], all[i]);
    cr_expect_null(weft_profile_lookup(NULL));
    cr_expect_null(weft_profile_lookup("heaps"));
}

static pthread_barrier_t barrier;
static void *make_same(void *arg)
{
    weft_profile **out = arg;
    pthread_barrier_wait(&barrier);
    int err = weft_profile_new("same", out);
    cr_assert(err == 0 || err == -EEXIST);
    return NULL;
}

Test(prof_registry, of_several_at_once_one_makes_it)
{
    pthread_t t[4];
    weft_profile *made[4] = { 0 };
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, make_same, &made[i]), 0);
    int n = 0;
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        n += made[i] != NULL;
        cr_expect(made[i] == NULL || made[i] == weft_profile_lookup("same"));
    }
    cr_expect_eq(n, 1);
}

/* ---- forms --------------------------------------------------------------------------------------------------- */

static const char *const names[] = { "block", "mutex" };

static void empty(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < w_countof(names); i++) {
        weft_profile *p = weft_profile_lookup(names[i]);
        struct pp *read = prof_read(p);
        cr_expect_eq(read->samples, 0);
        cr_assert_eq(read->types, 2);
        cr_expect_str_eq(read->type[0].type, "contentions");
        cr_expect_str_eq(read->type[0].unit, "count");
        cr_expect_str_eq(read->type[1].type, "delay");
        cr_expect_str_eq(read->type[1].unit, "nanoseconds");
        cr_expect_str_eq(read->period_type.type, "contentions");
        cr_expect_str_eq(read->period_type.unit, "count");
        cr_expect_eq(read->period, 1);
        cr_expect_eq(read->duration, 0);
        cr_expect_gt(read->time, 1700000000000000000);
        cr_expect_eq(weft_profile_count(p), 0);
    }
    cr_expect_str_eq(prof_text(weft_profile_lookup("block")), "--- contention:\ncycles/second=1000000000\n");
    cr_expect_str_eq(prof_text(weft_profile_lookup("mutex")), "--- mutex:\ncycles/second=1000000000\nsampling period=0\n");
    cr_expect_str_eq(prof_text(own("none")), "none profile: total 0\n");
}

Test(prof_registry, empty) { test_run(empty, NULL); }

/* debug of 2 and above is the same as 1 where there is nothing more to say; below 0 it is the same as 0. */
static void forms(void *arg)
{
    (void)arg;
    weft_profile *p = own("form");
    static const char gzip[] = { 0x1f, (char)0x8b };
    for (int debug = -2; debug <= 3; debug++) {
        struct sink s = prof_write(p, debug);
        cr_expect_eq(memcmp(s.bytes, debug > 0 ? "fo" : gzip, 2), 0, "%d", debug);
    }
}

Test(prof_registry, forms) { test_run(forms, NULL); }

/* ---- who writes ------------------------------------------------------------------------------------------------- */

static int thing[1000];

NOINLINE static void fill(weft_profile *p)
{
    for (volatile int i = 0; i < 1000; i++)
        cr_assert_eq(weft_profile_add(p, &thing[i], 0), 0);
}

static void errors(void *arg)
{
    (void)arg;
    weft_profile *p = own("wrong");
    struct sink ok = { 0 };
    fill(p);
    for (int debug = 0; debug < 2; debug++) {
        struct sink s = { .err = -ENOSPC };
        cr_expect_eq(weft_profile_write(p, sink_write, &s, debug), -ENOSPC);
        cr_expect_eq(s.calls, 1);
    }
    cr_expect_eq(weft_profile_write(NULL, sink_write, &ok, 0), -EINVAL);
    cr_expect_eq(weft_profile_write(p, NULL, NULL, 0), -EINVAL);
    cr_expect_eq(ok.calls, 0);
    errno = 77;
    cr_expect_eq(weft_profile_write(p, sink_write, &ok, 0), 0);
    cr_expect_eq(errno, 77);
}

Test(prof_registry, errors_of_the_writer) { test_run(errors, NULL); }

/* In the writer anything may happen: it waits, collects, writes another profile. */
static int busy_writer(void *ctx, const void *data, size_t n)
{
    weft_sleep(1000);
    weft_gc();
    prof_text(weft_profile_lookup("mutex"));
    cr_expect_neq(weft_fiber_id(), 0);
    return sink_write(ctx, data, n);
}

static void anything(void *arg)
{
    (void)arg;
    weft_profile *p = own("any");
    struct sink s = { 0 };
    fill(p);
    cr_assert_eq(weft_profile_write(p, busy_writer, &s, 0), 0);
    cr_expect_eq(prof_sum(pp_decode(s.bytes, s.len), "fill").value[0], 1000);
}

Test(prof_registry, anything_may_happen_in_the_writer) { test_run(anything, NULL); }

static void many_write(void *arg)
{
    weft_profile *p = arg;
    for (int i = 0; i < 5; i++)
        cr_expect_eq(prof_sum(prof_read(p), "fill").value[0], 1000);
}

static void *write_on_thread(void *arg) { return many_write(arg), NULL; }

static void at_once(void *arg)
{
    pthread_t t[3];
    weft_waitgroup done = { 0 };
    weft_profile *p = own("crowd");
    (void)arg;
    fill(p);
    for (int i = 0; i < 5; i++)
        weft_waitgroup_go(&done, many_write, p);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, write_on_thread, p), 0);
    weft_blocking_begin();
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    weft_waitgroup_wait(&done);
}

Test(prof_registry, many_write_at_once) { test_run_procs(3, at_once, NULL); }

Test(prof_registry, a_thread_of_the_host)
{
    weft_profile *p = own("host");
    struct sink s = { 0 };
    cr_expect_eq(weft_profile_write(p, sink_write, &s, 0), -ESRCH);
    cr_expect_eq(weft_profile_count(weft_profile_lookup("block")), -ESRCH);
    cr_assert_eq(weft_start(NULL), 0);
    fill(p);
    cr_expect_eq(prof_sum(prof_read(p), "fill").value[0], 1000);
    cr_assert_eq(weft_stop(), 0);
    cr_expect_eq(weft_profile_write(p, sink_write, &s, 0), -ESRCH);
    cr_expect_eq(s.calls, 0);
}

/* ---- what is left behind ------------------------------------------------------------------------------------------ */

static void use_all(void *arg)
{
    weft_profile *p = arg;
    weft_profile_delta *d;
    for (volatile int i = 0; i < 1000; i++)
        weft_profile_add(p, &thing[i], 0);
    cr_assert_eq(weft_set_block_profile_rate(1), 0);
    cr_assert_eq(weft_set_mutex_profile_fraction(1), 0);
    cr_assert_eq(weft_profile_delta_begin(weft_profile_lookup("block"), &d), 0);
    weft_sema none = { 0 };
    weft_sema_acquire_until(&none, weft_now() + 1000000);
    for (int debug = 0; debug < 2; debug++)
        for (size_t i = 0; i < w_countof(names); i++)
            prof_write(weft_profile_lookup(names[i]), debug);
    prof_text(p);
    cr_assert_eq(weft_profile_delta_end(d, sink_write, &(struct sink){ 0 }), 0);
    for (int i = 0; i < 1000; i++)
        weft_profile_remove(p, &thing[i]);
}

Test(prof_registry, nothing_is_left_after_the_stop)
{
    struct off_stats s;
    uint64_t bytes = 0;
    int threads = test_threads(), fds = test_fds();
    weft_profile *p = own("left");
    for (int i = 0; i < 3; i++) {
        test_run(use_all, p);
        off_stats(OFF_PROF, &s);
        if (i == 0)
            bytes = s.in_use_bytes; /* the profile, and its table of things */
        cr_expect_eq(s.in_use_bytes, bytes, "%lu, then %lu", (unsigned long)bytes, (unsigned long)s.in_use_bytes);
        cr_expect_lt(s.in_use_bytes, 150000);
        test_until(test_threads() == threads);
        cr_expect_eq(test_fds(), fds);
    }
}

/* Each request for memory fails once. */
static void no_memory(void *arg)
{
    weft_profile *p = arg;
    for (int i = 0; i < 40; i++) {
        struct sink s = { 0 };
        int err = weft_profile_write(p, sink_write, &s, i % 2);
        cr_expect(err == 0 || err == -ENOMEM, "%d", err);
        cr_expect(err == 0 || s.len == 0);
        if (err == 0 && i % 2 == 0)
            cr_expect_eq(prof_sum(pp_decode(s.bytes, s.len), "fill").value[0], 1000);
    }
}

static void fill_one(void *arg) { fill(arg); }

Test(prof_registry, memory_that_runs_out)
{
    weft_profile *p = own("poor");
    test_run(fill_one, p);
    for (int n = 3; n < 40; n += 3) {
        char debug[32];
        snprintf(debug, sizeof debug, "failmem=%d", n);
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.debug = debug;
        int err = weft_run(no_memory, p, &cfg);
        cr_expect(err == 0 || err == -ENOMEM, "%s: %d", debug, err);
    }
}

/* ---- go tool pprof --------------------------------------------------------------------------------------------------- */

static void in_the_viewer(void *arg)
{
    static struct test_output out;
    (void)arg;
    weft_profile *p = own("thing");
    fill(p);
    prof_tool(&out, prof_write(p, 0), "-top", NULL);
    cr_expect_not_null(strstr(out.text, "Type: thing\n"), "%s", out.text);
    cr_expect_not_null(strstr(out.text, "Showing nodes accounting for 1000, 100% of 1000 total"), "%s", out.text);
    cr_expect_not_null(strstr(out.text, "      1000   100%   100%       1000   100%  fill\n"), "%s", out.text);
    prof_tool(&out, prof_write(p, 0), "-raw", NULL);
    cr_expect_not_null(strstr(out.text, "PeriodType: thing count\nPeriod: 1\n"), "%s", out.text);
    prof_tool(&out, prof_write(p, 1), "-top", NULL); /* the old text, which it reads too */
    cr_expect_not_null(strstr(out.text, "1000, 100% of 1000 total"), "%s", out.text); /* names are remarks there */
}

Test(prof_registry, in_the_viewer) { test_run(in_the_viewer, NULL); }
