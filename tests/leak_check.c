/* weft_leak_check: what it counts as leaked, what not, what it writes, and that it fails rather than be blind. */
#include "waiting.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define NO_TAIL_CALL() __asm__ volatile("")

static weft_chan *gate; /* closed: everybody goes */

static void wait_for_gate(void *arg) { weft_chan_recv(arg, NULL); }

NOINLINE static void start_here(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go(wait_for_gate, gate), 0);
}

NOINLINE static void start_there(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go(wait_for_gate, gate), 0);
}

static weft_leak_check *begin(void)
{
    weft_leak_check *c = NULL;
    cr_assert_eq(weft_leak_check_begin(&c), 0);
    return c;
}

static char text[1 << 16];
static size_t text_len;

static int to_text(void *ctx, const void *data, size_t n)
{
    cr_assert_eq(ctx, &text);
    cr_assert_lt(text_len + n, sizeof text);
    memcpy(text + text_len, data, n);
    text_len += n;
    return 0;
}

static int count(const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static ssize_t end(weft_leak_check *c, int64_t wait_ns)
{
    memset(text, 0, sizeof text);
    text_len = 0;
    return weft_leak_check_end(c, wait_ns, to_text, &text);
}

/* How long an end may wait until it counts none: a fiber that is ending, or one of the runtime's in the middle of a finalizer, may be listed for a moment.
 * Who is counted wrongly still is after it. */
#define A_MOMENT (20 * WEFT_SECOND)

/* Lets them all go, and waits till they have. */
static void open_gate(void)
{
    weft_chan_close(gate);
    gate = weft_chan_make(0, 0);
    test_until(weft_num_fibers() == 1);
}

static void on_weft(void *fn)
{
    gate = weft_chan_make(0, 0);
    ((void (*)(void))fn)();
    weft_chan_close(gate);
}

/* Written as a Test() is, so that it can be found, and cited, as one. */
#define LEAK_TEST(suite, name)                                           \
    static void name##_(void);                                           \
    Test(suite, name) { test_run_procs(4, on_weft, (void *)name##_); } \
    static void name##_(void)

/* ---- the number ----------------------------------------------------------------------------------------------- */

LEAK_TEST(leak_check, nothing_is_leaked)
{
    start_here(3);
    weft_leak_check *c = begin();
    cr_expect_eq(end(c, 0), 0);
    cr_expect_eq(text_len, 0, "%s", text);
}

LEAK_TEST(leak_check, what_is_left_is_counted_and_shown)
{
    start_here(3);
    weft_leak_check *c = begin();
    start_here(2);
    start_there(5);
    cr_expect_eq(end(c, 0), 7);
    cr_expect_not_null(strstr(text, "leak check: 7 fibers more"), "%s", text);
    cr_expect_eq(count("\ncreated by start_here in fiber 1\n"), 2, "%s", text);
    cr_expect_eq(count("\ncreated by start_there in fiber 1\n"), 5, "%s", text);
    cr_expect_eq(count("fiber_start"), 0);
    cr_expect_not_null(strstr(text, "\n7 of 7 fibers\n"), "%s", text);
}

/* Started or not. */
static void no_yield(void)
{
    weft_leak_check *c = begin();
    start_here(100);
    cr_expect_eq(end(c, 0), 100);
}
static void on_weft_one(void *arg) { on_weft(arg); }
Test(leak_check, tasks_that_have_not_started_count) { test_run_procs(1, on_weft_one, (void *)no_yield); }

LEAK_TEST(leak_check, who_replaces_another_of_the_same_place_is_no_leak)
{
    start_here(5);
    weft_leak_check *c = begin();
    open_gate();
    start_here(5);
    cr_expect_eq(end(c, A_MOMENT), 0, "%s", text);
}

LEAK_TEST(leak_check, but_one_place_does_not_make_up_for_another)
{
    start_here(5);
    weft_leak_check *c = begin();
    open_gate();
    start_here(2);
    start_there(4);
    cr_expect_eq(end(c, 0), 4);
    cr_expect_eq(count("created by start_there"), 4, "%s", text);
    cr_expect_eq(count("created by start_here"), 0, "%s", text);
}

static void end_soon(void *arg)
{
    (void)arg;
    weft_sleep(20 * WEFT_MILLISECOND);
}

LEAK_TEST(leak_check, who_is_about_to_end_is_waited_for)
{
    weft_leak_check *c = begin();
    for (int i = 0; i < 50; i++)
        cr_assert_eq(weft_go(end_soon, NULL), 0);
    cr_expect_eq(end(c, 20 * WEFT_SECOND), 0, "%s", text);
}

static void spin(void *stop)
{
    while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED))
        ;
}

static void sleep_locked(void *arg)
{
    (void)arg;
    if (weft_lock_os_thread() == 0)
        weft_sleep(1000 * WEFT_SECOND);
}

LEAK_TEST(leak_check, in_whatever_state_it_is)
{
    static int stop;
    weft_leak_check *c = begin();
    cr_assert_eq(weft_go(spin, &stop), 0);
    cr_assert_eq(weft_go(sleep_locked, NULL), 0);
    start_here(1);
    cr_expect_eq(end(c, 0), 3, "%s", text);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
}

/* ---- who does not count ---------------------------------------------------------------------------------------- */

static void finalize(void *obj, void *ctx) { (void)obj, (void)ctx; }
static void *attached(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    weft_chan_recv(arg, NULL);
    return NULL;
}

LEAK_TEST(leak_check, the_runtime_and_threads_of_the_host_do_not_count)
{
    pthread_t t;
    weft_leak_check *c = begin();
    for (int i = 0; i < 100; i++)
        weft_set_finalizer(weft_alloc(16), finalize, NULL);
    weft_gc();
    weft_gc();
    weft_maxprocs(2);
    cr_assert_eq(pthread_create(&t, NULL, attached, gate), 0);
    test_until(receivers(gate) == 1);
    cr_expect_eq(end(c, A_MOMENT), 0, "%s", text);
    weft_chan_close(gate);
    gate = weft_chan_make(0, 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

struct ending { weft_leak_check *c; ssize_t leaked; };
static void end_it(void *arg)
{
    struct ending *e = arg;
    e->leaked = end(e->c, 0);
}

LEAK_TEST(leak_check, nor_does_the_caller_though_it_is_new)
{
    struct ending e = { begin(), -1 };
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, end_it, &e), 0);
    weft_waitgroup_wait(&wg);
    cr_expect_eq(e.leaked, 0, "%s", text);
}

LEAK_TEST(leak_check, several_checks_at_once)
{
    weft_leak_check *c[8];
    for (int i = 0; i < 8; i++) {
        c[i] = begin();
        start_here(1);
    }
    for (int i = 7; i >= 0; i--)
        cr_expect_eq(end(c[i], 0), 8 - i);
}

static weft_waitgroup all_there, all_done;
static void checks(void *arg)
{
    int *wrong = arg;
    weft_waitgroup_done(&all_there);
    weft_waitgroup_wait(&all_there); /* else those who come later would be leaks of the first */
    for (int i = 0; i < 50; i++) {
        weft_leak_check *c = NULL;
        *wrong += weft_leak_check_begin(&c) != 0;
        *wrong += weft_leak_check_end(c, 10 * WEFT_SECOND, NULL, NULL) != 0;
    }
    weft_waitgroup_done(&all_done);
    weft_waitgroup_wait(&all_done);
}

/* The controls of the others come and go, before and after. */
LEAK_TEST(leak_check, checks_do_not_see_each_others_controls)
{
    int wrong[4] = { 0 };
    weft_waitgroup wg = { 0 };
    weft_waitgroup_add(&all_there, 4);
    weft_waitgroup_add(&all_done, 4);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, checks, &wrong[i]), 0);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < 4; i++)
        cr_expect_eq(wrong[i], 0);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static int refuse(void *ctx, const void *data, size_t n)
{
    (void)data, (void)n;
    return *(int *)ctx;
}

LEAK_TEST(leak_check, the_writers_error_comes_back)
{
    int err = -ENOSPC;
    weft_leak_check *c = begin();
    start_here(1);
    cr_expect_eq(weft_leak_check_end(c, 0, refuse, &err), -ENOSPC);
    c = begin();
    start_here(1);
    cr_expect_eq(weft_leak_check_end(c, 0, NULL, NULL), 1, "without a writer");
}

Test(leak_check, before_the_start_it_is_an_error)
{
    weft_leak_check *c = NULL;
    cr_expect_eq(weft_leak_check_begin(&c), -ESRCH);
    cr_expect_null(c);
}

/* ---- the end ------------------------------------------------------------------------------------------------------- */

/* The runtime ends while threads of the host are somewhere in a check, or list stacks; and begins again, perhaps before they notice. */
struct late { pthread_t thread; void (*fn)(struct late *); weft_leak_check *c; ssize_t result; int under_way; };

static void is_under_way(struct late *l) { __atomic_store_n(&l->under_way, 1, __ATOMIC_RELEASE); }

static void checks_for_long(struct late *l)
{
    is_under_way(l);
    l->result = weft_leak_check_end(l->c, 1000 * WEFT_SECOND, NULL, NULL);
}

static void begins_checks(struct late *l)
{
    do {
        if ((l->result = weft_leak_check_begin(&l->c)) == 0 && weft_leak_check_end(l->c, 0, NULL, NULL) < 0)
            l->result = -ESRCH;
        is_under_way(l);
    } while (l->result == 0);
}

static void lists_stacks(struct late *l)
{
    static char buf[65536];
    do {
        l->result = weft_stack(buf, sizeof buf, true);
        is_under_way(l);
    } while (l->result > 0);
}

static void *late_main(void *arg)
{
    struct late *l = arg;
    l->fn(l);
    return NULL;
}

Test(leak_check, the_end_of_the_runtime_is_an_error)
{
    uint64_t r = test_seed();
    for (int life = 0; life < (test_is_slow() ? 6 : 20); life++) {
        struct late late[] = { { .fn = checks_for_long }, { .fn = begins_checks }, { .fn = lists_stacks } };
        cr_assert_eq(weft_start(NULL), 0);
        gate = weft_chan_make(0, 0);
        late[0].c = begin();
        start_here(1);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&late[i].thread, NULL, late_main, &late[i]), 0);
        for (int i = 0; i < 3; i++)
            test_until(__atomic_load_n(&late[i].under_way, __ATOMIC_ACQUIRE) != 0);
        r = r * 6364136223846793005u + 1442695040888963407u;
        for (volatile uint64_t n = r >> 44; n > 0; n--)
            ;
        cr_assert_eq(weft_stop(), 0);
        if (life % 2 == 0) { /* ids of fibers and numbers of threads begin anew */
            cr_assert_eq(weft_start(NULL), 0);
            cr_assert_eq(weft_stop(), 0);
        }
        for (int i = 0; i < 3; i++) {
            pthread_join(late[i].thread, NULL);
            cr_expect_eq(late[i].result, -ESRCH, "%d: %zd", i, late[i].result);
        }
    }
}

Test(leak_check, from_a_thread_of_the_host)
{
    cr_assert_eq(weft_start(NULL), 0);
    gate = weft_chan_make(0, 0);
    weft_leak_check *c = begin();
    start_here(4);
    cr_expect_eq(end(c, 0), 4);
    cr_expect_eq(count("created by start_here"), 4, "%s", text);
    weft_chan_close(gate);
    cr_assert_eq(weft_stop(), 0);
}
