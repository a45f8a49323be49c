/* Threads of the host and fibers use the same locks, conditions, groups and channels, side by side: whoever waits is woken by whoever it is. */
#include "base/rng.h"
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { EACH = 4, ROUNDS = 60 };

/* ---- a barrier of fibers and threads: a mutex and a condition ------------------------------------------------ */

static struct {
    weft_mutex m;
    weft_cond all_there;
    int here, round;
    weft_rwmutex rw;
    weft_once once;
    weft_sema sema;
    weft_waitgroup ended;
    weft_chan *c;
    int64_t made, sum, exclusive, once_ran, admitted;
} s;

static int64_t count(int64_t *n, int64_t by) { return __atomic_add_fetch(n, by, __ATOMIC_ACQ_REL); }

static void barrier(void)
{
    weft_mutex_lock(&s.m);
    int round = s.round;
    if (++s.here == 2 * EACH) {
        s.here = 0;
        s.round++;
        weft_cond_broadcast(&s.all_there);
    }
    while (s.round == round)
        weft_cond_wait(&s.all_there, &s.m);
    weft_mutex_unlock(&s.m);
}

static void make(void *arg)
{
    (void)arg;
    weft_yield();
    count(&s.once_ran, 1);
}

static void child(void *arg) { count(&s.made, (intptr_t)arg); }

static void member(uintptr_t id)
{
    for (int i = 0; i < ROUNDS; i++) {
        barrier();
        weft_once_do(&s.once, make, NULL);
        cr_assert_eq(count(&s.once_ran, 0), 1);
        weft_rwmutex_rlock(&s.rw);
        cr_assert_eq(count(&s.exclusive, 0), 0);
        weft_rwmutex_runlock(&s.rw);
        weft_rwmutex_lock(&s.rw);
        cr_assert_eq(count(&s.exclusive, 1), 1);
        count(&s.exclusive, -1);
        weft_rwmutex_unlock(&s.rw);
        weft_sema_acquire(&s.sema);
        cr_assert_leq(count(&s.admitted, 1), 2);
        count(&s.admitted, -1);
        weft_sema_release(&s.sema, 1);
        /* Half send, half receive; nobody finds a partner that is not there. */
        int64_t v = (int64_t)id;
        weft_case cs[] = { { id % 2 ? WEFT_SEND : WEFT_RECV, s.c, &v, 0 }, { WEFT_RECV, NULL, NULL, 0 } };
        cr_assert_eq(weft_select(cs, 2), 0);
        count(&s.sum, id % 2 ? v : -v);
        weft_waitgroup wg = { 0 };
        for (int k = 0; k < 3; k++)
            cr_assert_eq(weft_waitgroup_go(&wg, child, (void *)1), 0);
        weft_waitgroup_wait(&wg);
        if (i % 16 == 0)
            weft_sleep(50 * WEFT_MICROSECOND);
    }
    cr_assert_eq(weft_waitgroup_done(&s.ended), 0);
}

static void as_fiber(void *arg) { member((uintptr_t)arg); }
static void *as_thread(void *arg)
{
    member((uintptr_t)arg);
    return NULL;
}

static void together(void)
{
    pthread_t t[EACH];
    memset(&s, 0, sizeof s);
    s.sema = (weft_sema)WEFT_SEMA_INIT(2);
    s.c = weft_chan_make_noscan(sizeof(int64_t), 0);
    cr_assert_eq(weft_waitgroup_add(&s.ended, 2 * EACH), 0);
    for (uintptr_t i = 0; i < EACH; i++) {
        cr_assert_eq(weft_go(as_fiber, (void *)i), 0);
        cr_assert_eq(pthread_create(&t[i], NULL, as_thread, (void *)(EACH + i)), 0);
    }
    weft_waitgroup_wait(&s.ended);
    cr_expect_eq(s.made, 2 * EACH * ROUNDS * 3);
    cr_expect_eq(s.sum, 0);
    weft_blocking_begin();
    for (int i = 0; i < EACH; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
}

static void main_fiber(void *arg)
{
    (void)arg;
    together();
}

Test(sync_foreign, fibers_and_threads_of_the_host)
{
    test_run_each(main_fiber, NULL);
}

static void joined_by_a_fiber(const char *debug) { test_run_debug(2, debug, main_fiber, NULL); }

Test(sync_foreign, while_everything_is_collected) { joined_by_a_fiber("gcstress=50"); }
Test(sync_foreign, while_fibers_change_threads) { joined_by_a_fiber("migrate=1"); }

/* With a seed the choices are drawn; what comes from outside still comes when it comes. */
Test(sync_foreign, in_drawn_order)
{
    char debug[40];
    for (int seed = 1; seed <= (test_is_slow() ? 2 : 8); seed++) {
        snprintf(debug, sizeof debug, "schedseed=%d", seed);
        joined_by_a_fiber(debug);
    }
}

/* ---- threads alone, under weft_start: the fibers are theirs ---------------------------------------------------- */

struct crew { weft_chan *jobs, *results; };

static void square(void *arg)
{
    struct crew *c = arg;
    int64_t v;
    while (weft_chan_recv(c->jobs, &v) == 1) {
        v *= v;
        cr_assert_eq(weft_chan_send(c->results, &v), 0);
    }
}

static void *boss(void *arg)
{
    (void)arg;
    struct crew *c = weft_alloc(sizeof *c);
    int64_t sum = 0, want = 0, r;
    *c = (struct crew){ weft_chan_make_noscan(8, 1), weft_chan_make_noscan(8, 200) };
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_go(square, c), 0);
    for (int64_t i = 0; i < 200; i++) {
        cr_assert_eq(weft_chan_send(c->jobs, &i), 0);
        want += i * i;
    }
    cr_assert_eq(weft_chan_close(c->jobs), 0);
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(weft_chan_recv_until(c->results, &r, weft_now() + 20 * WEFT_SECOND), 1);
        sum += r;
    }
    cr_assert_eq(sum, want);
    return NULL;
}

Test(sync_foreign, threads_have_fibers_work_for_them)
{
    for (int round = 0; round < 5; round++) {
        pthread_t t[EACH];
        cr_assert_eq(weft_start(NULL), 0);
        for (int i = 0; i < EACH; i++)
            cr_assert_eq(pthread_create(&t[i], NULL, boss, NULL), 0);
        boss(NULL);
        for (int i = 0; i < EACH; i++)
            pthread_join(t[i], NULL);
        cr_assert_eq(weft_stop(), 0);
    }
}
