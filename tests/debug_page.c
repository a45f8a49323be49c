/* weft_debug_dump: one page that says where everything is, from a fiber and from a thread of the host, while much goes on. */
#include "churn.h"
#include "leak_test.h"
#include "pprof_test.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static weft_chan *never;

static void receiver(void *arg)
{
    (void)arg;
    weft_chan_recv(never, NULL);
}

static void sleeper(void *arg)
{
    (void)arg;
    weft_sleep(3600 * WEFT_SECOND);
}

static const weft_go_opts opts = { .size = sizeof opts, .name = "waits" };

NOINLINE static void make_receivers(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go_opts_run(receiver, NULL, &opts), 0);
    __asm__ volatile("");
}

NOINLINE static void make_sleepers(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go_opts_run(sleeper, NULL, &opts), 0);
    __asm__ volatile("");
}

static char *page(void)
{
    struct sink s = { 0 };
    int err = weft_debug_dump(sink_write, &s);
    cr_assert_eq(err, 0, "%s", weft_strerror(err));
    return s.text;
}

static bool has(const char *text, const char *what) { return strstr(text, what) != NULL; }

static void from_fiber(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    make_receivers(30);
    make_sleepers(7);
    all_wait(37);
    weft_gc();
    uint64_t before = test_stops();
    char *p = page();
    cr_expect_eq(test_stops(), before, "nothing was stopped");
    cr_expect(has(p, "\nfibers 38; "), "%s", p);
    cr_expect(has(p, "30 chan receive"), "%s", p);
    cr_expect(has(p, "7 sleep"), "%s", p);
    cr_expect(has(p, "     30  make_receivers (" TEST_SRC "/tests/debug_page.c:"), "%s", p);
    cr_expect(has(p, "      7  make_sleepers"), "%s", p);
    cr_expect(has(p, "\nprocessors\n  P0  "), "%s", p);
    cr_expect(has(p, "  thread ") && has(p, " runs: fiber 1, made by "), "%s", p);
    cr_expect(has(p, "\nheap "), "%s", p);
    cr_expect(has(p, "collections 1, 1 of them forced; the last ended "), "%s", p);
    cr_expect(has(p, "  GC: ") || has(p, "      1  "), "%s", p);
    cr_expect(has(p, "\nmemory "), "%s", p);
    cr_expect(has(p, "goroutine 38"), "%s", p);
    cr_expect(has(p, "\ntrace: off\n"), "%s", p);
    cr_expect_lt(strlen(p), 8000, "it is a page");
    free(p);
}

Test(debug_page, says_where_everything_is) { test_run_each(from_fiber, NULL); }

/* ---- what it runs with ------------------------------------------------------------------------------------------------------- */

static void report_says(void *what)
{
    struct sink s = { 0 };
    cr_assert_eq(weft_config_report(sink_write, &s), 0);
    cr_expect(has(s.text, what), "%s", s.text);
    free(s.text);
}

Test(debug_page, config_report_has_what_was_set)
{
    test_run_debug(2, "gc=stw,slowfiber=77", report_says, "  WEFT_DEBUG slowfiber = 77\n");
    test_run_debug(3, NULL, report_says, ", 3 processors");
    cr_assert_eq(weft_config_report(NULL, NULL), -EINVAL);
}

Test(debug_page, config_report_has_how_collections_mark)
{
    test_run_debug(2, "gc=stw", report_says, "\ncollections stop the world to mark\n");
    test_run_debug(2, "gc=mprotect", report_says, "\ncollections mark beside the program: written pages are ");
}

static void *by_thread(void *arg)
{
    (void)arg;
    char *p = page();
    cr_expect(has(p, "is the host's"), "%s", p);
    cr_expect(has(p, "\nfibers "), "%s", p);
    free(p);
    return NULL;
}

static void from_thread(void *arg)
{
    (void)arg;
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, by_thread, NULL), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(debug_page, a_thread_of_the_host_may_ask) { test_run_each(from_thread, NULL); }

/* ---- while much goes on ------------------------------------------------------------------------------------------- */

static void busy(void *arg)
{
    (void)arg;
    churn_begin();
    for (int i = 0; i < 50; i++) {
        char *p = page();
        cr_assert(has(p, "\ntrace: off\n"));
        free(p);
    }
    churn_end();
}

Test(debug_page, at_any_time) { test_run_each(busy, NULL); }

static int refuse(void *ctx, const void *data, size_t n)
{
    (void)ctx, (void)data, (void)n;
    return -ENOSPC;
}

static void errors(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_debug_dump(NULL, NULL), -EINVAL);
    cr_expect_eq(weft_debug_dump(refuse, NULL), -ENOSPC);
}

Test(debug_page, errors)
{
    cr_expect_eq(weft_debug_dump(refuse, NULL), -ESRCH);
    test_run(errors, NULL);
}
