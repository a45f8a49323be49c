/* Tasks, regions and logs of the program: as Go's tool shows them, and what happens when they are used wrongly. */
#include <pthread.h>
#include <setjmp.h>
#include "trace_live.h"
#include "trace_test.h"

/* The events of a kind in a file, one after the other. */
static struct lines events(const struct live *l, const char *kind)
{
    struct lines all = go_parse(l->path), some = { 0 };
    for (size_t i = 0; i < all.n; i++) {
        if (strncmp(all.at[i].text, kind, strlen(kind)) == 0)
            lines_add(&some, all.at[i].m, all.at[i].gen, "%s", all.at[i].text);
        free(all.at[i].text);
    }
    free(all.at);
    return some;
}

static void check_text(const struct lines *l, size_t i, const char *want)
{
    cr_assert_lt(i, l->n, "%s: only %zu", want, l->n);
    cr_expect(strstr(l->at[i].text, want) != NULL, "%zu: %s, not %s", i, l->at[i].text, want);
}

/* ---- tasks ---------------------------------------------------------------------------------------------------------- */

static weft_task outer, inner;
static w_noinline void begin_tasks(void)
{
    outer = weft_task_begin("request", 0);
    inner = weft_task_begin("query", outer);
}

static w_u32 done; /* by another fiber */

static void end_inner(void *arg)
{
    (void)arg;
    weft_task_end(inner);
    store_rel(&done, 1);
}

static void tasks(void *arg)
{
    struct live l;
    (void)arg;
    weft_task before = weft_task_begin("begun before the trace", 0);
    live_start(&l);
    begin_tasks();
    cr_expect(before != outer && outer != inner && before != 0);
    store_rlx(&done, 0);
    cr_assert_eq(weft_go(end_inner, NULL), 0);
    test_until(load_acq(&done) == 1);
    weft_task_end(outer);
    weft_task_end(before);
    weft_task_end(0);
    live_stop(&l);
    struct lines b = events(&l, "TaskBegin"), e = events(&l, "TaskEnd");
    char want[100];
    cr_expect_eq(b.n, 2u);
    cr_expect_eq(e.n, 3u);
    snprintf(want, sizeof want, "ID=%lu Parent=%lu Type=\"request\" Stack=begin_tasks,tasks", (unsigned long)outer, ~0ul);
    check_text(&b, 0, want);
    snprintf(want, sizeof want, "ID=%lu Parent=%lu Type=\"query\"", (unsigned long)inner, (unsigned long)outer);
    check_text(&b, 1, want);
    snprintf(want, sizeof want, "ID=%lu", (unsigned long)inner);
    check_text(&e, 0, want);
    snprintf(want, sizeof want, "ID=%lu", (unsigned long)outer);
    check_text(&e, 1, want);
    live_check(&l);
}
Test(trace_user, tasks_begin_and_end_on_any_fiber) { test_run_each(tasks, NULL); }

static void other_fiber(void *arg) { store_rel((w_u64 *)arg, weft_task_use(WEFT_TASK_ASK)); }
static void uses(void *arg)
{
    weft_task t = weft_task_begin("t", 0);
    w_u64 other = { 77 };
    (void)arg;
    cr_expect_eq(weft_task_use(t), 0u);
    cr_expect_eq(weft_task_use(WEFT_TASK_ASK), t);
    cr_assert_eq(weft_go(other_fiber, &other), 0);
    test_until(load_acq(&other) != 77);
    cr_expect_eq(load_acq(&other), 0u, "each fiber has its own");
    weft_yield();
    cr_expect_eq(weft_task_use(0), t);
    cr_expect_eq(weft_task_use(WEFT_TASK_ASK), 0u);
}
Test(trace_user, a_fiber_works_for_one_task)
{
    cr_expect_eq(weft_task_use(1), 0u, "no runtime");
    test_run_each(uses, NULL);
    cr_expect_eq(weft_task_use(WEFT_TASK_ASK), 0u);
}

/* ---- regions -------------------------------------------------------------------------------------------------------- */

static w_noinline void in_region(void *arg)
{
    weft_task t = *(weft_task *)arg;
    weft_task_use(t);
    WEFT_REGION("scoped");
    weft_yield();
}

static void regions(void *arg)
{
    struct live l;
    weft_region a, b;
    (void)arg;
    live_start(&l);
    weft_region_begin(&a, "outer");
    weft_region_begin(&b, "");
    cr_expect_eq(weft_region_end(&b), 0);
    weft_task t = weft_task_begin("t", 0);
    cr_expect_eq(weft_with_region("with", in_region, &t), 0);
    cr_expect_eq(weft_region_end(&a), 0);
    cr_expect_eq(weft_with_region("", NULL, NULL), -EINVAL);
    weft_task_use(0);
    live_stop(&l);
    struct lines e = events(&l, "Region");
    char want[100];
    cr_assert_eq(e.n, 8u);
    check_text(&e, 0, "RegionBegin Task=0 Type=\"outer\" Stack=regions");
    check_text(&e, 1, "RegionBegin Task=0 Type=\"\" Stack=regions");
    check_text(&e, 2, "RegionEnd Task=0 Type=\"\"");
    check_text(&e, 3, "RegionBegin Task=0 Type=\"with\"");
    snprintf(want, sizeof want, "RegionBegin Task=%lu Type=\"scoped\" Stack=in_region", (unsigned long)t);
    check_text(&e, 4, want);
    snprintf(want, sizeof want, "RegionEnd Task=%lu Type=\"scoped\" Stack=", (unsigned long)t);
    check_text(&e, 5, want);
    check_text(&e, 6, "RegionEnd Task=0 Type=\"with\"");
    check_text(&e, 7, "RegionEnd Task=0 Type=\"outer\"");
    live_check(&l);
}
Test(trace_user, regions_nest_and_belong_to_the_fibers_task) { test_run_each(regions, NULL); }

static void end_it(void *arg)
{
    cr_expect_eq(weft_region_end(arg), -EINVAL, "another fiber's");
    store_rel(&done, 1);
}
static void misused(void *arg)
{
    struct live l;
    weft_region a, b;
    (void)arg;
    live_start(&l);
    weft_region_begin(&a, "a");
    weft_region_begin(&b, "b");
    cr_expect_eq(weft_region_end(&a), -EINVAL, "b is open");
    store_rlx(&done, 0);
    cr_assert_eq(weft_go(end_it, &b), 0);
    test_until(load_acq(&done) == 1);
    cr_expect_eq(weft_region_end(&b), 0);
    cr_expect_eq(weft_region_end(&b), 0, "not shown any more");
    cr_expect_eq(weft_region_end(&a), 0);
    live_stop(&l);
    cr_expect_eq(live_count(&l, "RegionEnd"), 2);
    live_check(&l);
}
Test(trace_user, what_would_break_the_trace_is_an_error) { test_run_each(misused, NULL); }

/* Begun before a trace, in the one before, ended after it. */
static void over_traces(void *arg)
{
    struct live l[3];
    weft_region r[4];
    (void)arg;
    weft_region_begin(&r[0], "0");
    for (int i = 0; i < 3; i++) {
        live_start(&l[i]);
        weft_region_begin(&r[i + 1], "x");
        if (i == 1) {
            cr_expect_eq(weft_region_end(&r[2]), 0);
            cr_expect_eq(weft_region_end(&r[1]), 0, "of the trace before");
        }
        live_stop(&l[i]);
    }
    cr_expect_eq(weft_region_end(&r[3]), 0);
    cr_expect_eq(weft_region_end(&r[0]), 0);
    for (int i = 0; i < 3; i++)
        live_check(&l[i]);
}
Test(trace_user, regions_over_traces) { test_run_each(over_traces, NULL); }

/* In each generation the names are told anew; a fiber ends in the middle of its regions; another is left by longjmp. */
static jmp_buf out;
static void left(void *arg)
{
    weft_region a, b;
    (void)arg;
    weft_region_begin(&a, "a");
    if (setjmp(out) == 0) {
        weft_region_begin(&b, "left");
        longjmp(out, 1);
    }
    cr_expect_eq(weft_region_end(&a), -EINVAL);
    store_rel(&done, 1);
}
static void ends_inside(void *arg)
{
    WEFT_REGION("for ever");
    (void)arg;
    weft_exit();
}
static void generations(void *arg)
{
    struct live l, s;
    weft_region a, b;
    (void)arg;
    live_start(&l);
    cr_assert_eq(weft_flight_recorder_start(NULL), 0);
    weft_region_begin(&a, "over generations");
    for (int i = 0; i < 4; i++) {
        weft_region_begin(&b, "over the next one");
        live_open(&s);
        cr_assert_eq(weft_flight_recorder_snapshot(live_write, &s), 0);
        fclose(s.file);
        live_check(&s);
        store_rlx(&done, 0);
        cr_assert_eq(weft_go(ends_inside, NULL), 0);
        cr_assert_eq(weft_go(left, NULL), 0);
        test_until(load_acq(&done) == 1);
        cr_expect_eq(weft_region_end(&b), 0);
    }
    cr_expect_eq(weft_region_end(&a), 0);
    cr_assert_eq(weft_flight_recorder_stop(), 0);
    live_stop(&l);
    cr_expect_eq(live_count(&l, "RegionEnd .*over the next one"), 4);
    live_check(&l);
}
Test(trace_user, regions_over_generations) { test_run_procs(1, generations, NULL); }

/* ---- logs ------------------------------------------------------------------------------------------------------------- */

static int evaluated;
static const char *costly(void)
{
    evaluated++;
    return "x";
}
static void logs(void *arg)
{
    struct live l;
    char *l2k = malloc(2001);
    (void)arg;
    memset(l2k, 'y', 2000);
    l2k[2000] = 0;
    weft_trace_log("before", "the trace");
    if (weft_trace_enabled())
        weft_trace_logf("never", "%s", costly());
    cr_expect_eq(evaluated, 0);
    live_start(&l);
    cr_expect(weft_trace_enabled());
    weft_task t = weft_task_begin("t", 0);
    weft_trace_log("k", "plain");
    weft_task_use(t);
    weft_trace_logf("fmt", "%d of %s, %.2f", 3, "many", 1.5);
    weft_trace_log(NULL, NULL);
    weft_trace_log("long", l2k);
    weft_trace_logf("long", "%s", l2k);
    weft_task_use(0);
    live_stop(&l);
    cr_expect_not(weft_trace_enabled());
    struct lines e = events(&l, "Log");
    char want[1200];
    cr_assert_eq(e.n, 5u);
    check_text(&e, 0, "Log Task=0 Category=\"k\" Message=\"plain\" Stack=logs");
    snprintf(want, sizeof want, "Log Task=%lu Category=\"fmt\" Message=\"3 of many, 1.50\" Stack=logs", (unsigned long)t);
    check_text(&e, 1, want);
    check_text(&e, 2, "Category=\"\" Message=\"\"");
    l2k[1024] = 0;
    snprintf(want, sizeof want, "Category=\"long\" Message=\"%s\"", l2k);
    check_text(&e, 3, want);
    check_text(&e, 4, want);
    live_check(&l);
    free(l2k);
}
Test(trace_user, logs) { test_run(logs, NULL); }

/* ---- from elsewhere ----------------------------------------------------------------------------------------------------- */

static void *of_the_host(void *arg)
{
    (void)arg;
    weft_task t = weft_task_begin("of a thread", 0);
    weft_task_use(t);
    WEFT_REGION("on a thread");
    weft_trace_log("from", "a thread of the host");
    weft_task_end(t);
    return NULL;
}
static void with_thread(void *arg)
{
    struct live l;
    pthread_t th;
    (void)arg;
    live_start(&l);
    for (int i = 0; i < 3; i++) {
        weft_blocking_begin();
        cr_assert_eq(pthread_create(&th, NULL, of_the_host, NULL), 0);
        pthread_join(th, NULL);
        weft_blocking_end();
    }
    live_stop(&l);
    cr_expect_eq(live_count(&l, "a thread of the host"), 3);
    cr_expect_eq(live_count(&l, "RegionBegin .*on a thread"), 3);
    live_check(&l);
}
Test(trace_user, threads_of_the_host) { test_run_each(with_thread, NULL); }

Test(trace_user, without_a_runtime)
{
    weft_region r;
    cr_expect_not(weft_trace_enabled());
    weft_region_begin(&r, "r");
    cr_expect_eq(weft_region_end(&r), 0);
    weft_trace_log("a", "b");
    weft_trace_logf("a", "%d", 1);
    weft_task t = weft_task_begin("t", 0);
    cr_expect_neq(t, 0u);
    weft_task_end(t);
}

/* Many fibers at once, with everything, while generations change. */
static void works(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200; i++) {
        weft_task t = weft_task_begin("work", weft_task_use(WEFT_TASK_ASK));
        weft_task_use(t);
        WEFT_REGION("one");
        if (i % 3 == 0)
            weft_yield();
        WEFT_REGION("two");
        weft_trace_logf("i", "%d", i);
        if (i % 7 == 0)
            weft_sleep(10000);
        weft_task_end(t);
    }
}
static int to_nothing(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }
static void all_at_once(void *arg)
{
    struct live l;
    weft_waitgroup wg = { 0 };
    (void)arg;
    live_start(&l);
    cr_assert_eq(weft_flight_recorder_start(NULL), 0);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, works, NULL), 0);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(weft_flight_recorder_snapshot(to_nothing, NULL), 0);
        weft_sleep(WEFT_MILLISECOND / 2);
    }
    weft_waitgroup_wait(&wg);
    cr_assert_eq(weft_flight_recorder_stop(), 0);
    live_stop(&l);
    cr_expect_eq(live_count(&l, "RegionBegin"), 2 * 20 * 200);
    cr_expect_eq(live_count(&l, "RegionEnd"), 2 * 20 * 200);
    cr_expect_eq(live_count(&l, " Log "), 20 * 200);
    cr_expect_eq(live_count(&l, " TaskEnd "), 20 * 200);
    live_check(&l);
}
Test(trace_user, by_many_fibers) { test_run_each(all_at_once, NULL); }
