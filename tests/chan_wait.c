/* Who waits on a channel, and how it ends: order, hand-off, close, deadlines, threads of the host. */
#include "waiting.h"
#include <errno.h>
#include <pthread.h>

static void later(weft_fn *fn, void *arg) { cr_assert_eq(weft_go(fn, arg), 0); }

/* ---- order ---------------------------------------------------------------------------------------------------- */

#define N 20
struct waiter_arg { weft_chan *c, *done; int id; };

static void send_id(void *arg)
{
    struct waiter_arg *w = arg;
    cr_assert_eq(weft_chan_send(w->c, &w->id), 0);
}

static void recv_and_tell(void *arg)
{
    struct waiter_arg *w = arg;
    int v, told;
    cr_assert_eq(weft_chan_recv(w->c, &v), 1);
    told = w->id * 1000 + v;
    cr_assert_eq(weft_chan_send(w->done, &told), 0);
}

/* Each waits before the next comes. */
static void senders_in_order(void *arg)
{
    struct waiter_arg w[N];
    size_t cap = *(size_t *)arg;
    weft_chan *c = weft_chan_make(sizeof(int), cap);
    for (int i = 0; i < (int)cap; i++)
        cr_assert_eq(weft_chan_send(c, &(int){ -1 }), 0);
    for (int i = 0; i < N; i++) {
        w[i] = (struct waiter_arg){ c, NULL, i };
        later(send_id, &w[i]);
        test_until(senders(c) == (size_t)i + 1);
    }
    int v;
    for (int i = 0; i < (int)cap; i++) {
        cr_assert_eq(weft_chan_recv(c, &v), 1);
        cr_assert_eq(v, -1);
    }
    for (int i = 0; i < N; i++) {
        cr_assert_eq(weft_chan_recv(c, &v), 1);
        cr_assert_eq(v, i, "sender %d was served as number %d", v, i);
    }
}

Test(chan, senders_are_served_in_order)
{
    test_run_procs(1, senders_in_order, &(size_t){ 0 });
    test_run_procs(2, senders_in_order, &(size_t){ 3 });
}

static void receivers_in_order(void *arg)
{
    struct waiter_arg w[N];
    weft_chan *c = weft_chan_make(sizeof(int), *(size_t *)arg), *done = weft_chan_make(sizeof(int), N);
    for (int i = 0; i < N; i++) {
        w[i] = (struct waiter_arg){ c, done, i };
        later(recv_and_tell, &w[i]);
        test_until(receivers(c) == (size_t)i + 1);
    }
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_chan_send(c, &i), 0);
    for (int i = 0; i < N; i++) {
        int told;
        cr_assert_eq(weft_chan_recv(done, &told), 1);
        cr_assert_eq(told / 1000, told % 1000, "receiver %d got element %d", told / 1000, told % 1000);
    }
}

Test(chan, receivers_are_served_in_order)
{
    test_run_procs(1, receivers_in_order, &(size_t){ 0 });
    test_run_procs(2, receivers_in_order, &(size_t){ 3 });
}

/* A sender that finds others waiting does not overtake them, though the buffer has room again. */
static void no_overtaking(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(sizeof(int), 1);
    struct waiter_arg w = { c, NULL, 2 };
    int v;
    cr_assert_eq(weft_chan_send(c, &(int){ 1 }), 0);
    later(send_id, &w);
    test_until(senders(c) == 1);
    cr_assert_eq(weft_chan_recv(c, &v), 1);
    cr_assert_eq(v, 1);
    cr_assert_eq(senders(c), 0, "its element went into the buffer");
    cr_assert_eq(weft_chan_try_send(c, &(int){ 3 }), -EAGAIN);
    cr_assert_eq(weft_chan_recv(c, &v), 1);
    cr_assert_eq(v, 2);
}

Test(chan, nobody_overtakes_a_waiting_sender) { test_run(no_overtaking, NULL); }

/* ---- close ------------------------------------------------------------------------------------------------------ */

struct ends { weft_chan *c; weft_waitgroup wg; int sends, recvs, zeroed; };

static void send_fails(void *arg)
{
    struct ends *e = arg;
    if (weft_chan_send(e->c, &(int){ 1 }) == -EPIPE)
        __atomic_fetch_add(&e->sends, 1, __ATOMIC_RELAXED);
}

static void recv_ends(void *arg)
{
    struct ends *e = arg;
    int v = 7;
    if (weft_chan_recv(e->c, &v) == 0)
        __atomic_fetch_add(&e->recvs, 1, __ATOMIC_RELAXED);
    if (v == 0)
        __atomic_fetch_add(&e->zeroed, 1, __ATOMIC_RELAXED);
}

static void close_wakes(void *arg)
{
    (void)arg;
    struct ends e = { .c = weft_chan_make(sizeof(int), 0) };
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_waitgroup_go(&e.wg, recv_ends, &e), 0);
    test_until(receivers(e.c) == N);
    cr_assert_eq(weft_chan_close(e.c), 0);
    weft_waitgroup_wait(&e.wg);
    cr_assert_eq(e.recvs, N);
    cr_assert_eq(e.zeroed, N);

    e.c = weft_chan_make(sizeof(int), 2);
    cr_assert_eq(weft_chan_send(e.c, &(int){ 8 }), 0);
    cr_assert_eq(weft_chan_send(e.c, &(int){ 9 }), 0);
    for (int i = 0; i < N; i++)
        cr_assert_eq(weft_waitgroup_go(&e.wg, send_fails, &e), 0);
    test_until(senders(e.c) == N);
    cr_assert_eq(weft_chan_close(e.c), 0);
    weft_waitgroup_wait(&e.wg);
    cr_assert_eq(e.sends, N);
    int v;
    cr_assert_eq(weft_chan_recv(e.c, &v), 1);
    cr_assert_eq(v, 8);
    cr_assert_eq(weft_chan_recv(e.c, &v), 1);
    cr_assert_eq(v, 9);
    cr_assert_eq(weft_chan_recv(e.c, &v), 0);
}

Test(chan, close_wakes_all)
{
    test_run_procs(1, close_wakes, NULL);
    test_run_procs(2, close_wakes, NULL);
}

/* ---- deadlines ---------------------------------------------------------------------------------------------------- */

static void deadline_leaves_no_trace(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(sizeof(int), 0);
    int v = 7;
    int64_t at = weft_now() + 2 * WEFT_MILLISECOND;
    cr_assert_eq(weft_chan_recv_until(c, &v, at), -ETIMEDOUT);
    cr_assert_geq(weft_now(), at);
    cr_assert_eq(v, 7, "nothing was received");
    cr_assert_eq(receivers(c), 0);
    cr_assert_eq(weft_chan_send_until(c, &v, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(senders(c), 0);
    cr_assert_eq(weft_chan_try_recv(c, &v), -EAGAIN, "a sender that gave up sends nothing");
}

Test(chan, after_a_deadline_nobody_waits) { test_run(deadline_leaves_no_trace, NULL); }

static void recv_far(void *arg)
{
    struct waiter_arg *w = arg;
    int v;
    cr_assert_eq(weft_chan_recv_until(w->c, &v, weft_now() + 3600 * WEFT_SECOND), 1);
    cr_assert_eq(weft_chan_send(w->done, &v), 0);
}

static void deadline_in_time(void *arg)
{
    (void)arg;
    struct waiter_arg w = { weft_chan_make(sizeof(int), 0), weft_chan_make(sizeof(int), 1), 0 };
    later(recv_far, &w);
    test_until(receivers(w.c) == 1);
    int v = 42;
    cr_assert_eq(weft_chan_send(w.c, &v), 0);
    v = 0;
    cr_assert_eq(weft_chan_recv(w.done, &v), 1);
    cr_assert_eq(v, 42);
}

Test(chan, before_the_deadline_a_value_arrives) { test_run(deadline_in_time, NULL); }

/* Deadlines and partners that come at the same moment: each element arrives exactly once, or its sender is told that it did not. */
struct race { weft_chan *c; weft_waitgroup wg; uint64_t sent, received; int left; };

static void race_send(void *arg)
{
    struct race *r = arg;
    for (uint64_t i = 1; i <= 400; i++) {
        int err = weft_chan_send_until(r->c, &i, weft_now() + (int64_t)(i % 7) * 20000);
        if (err == 0)
            __atomic_fetch_add(&r->sent, i, __ATOMIC_RELAXED);
        else
            cr_assert_eq(err, -ETIMEDOUT);
    }
    if (__atomic_sub_fetch(&r->left, 1, __ATOMIC_ACQ_REL) == 0)
        weft_chan_close(r->c);
}

static void race_recv(void *arg)
{
    struct race *r = arg;
    for (uint64_t i = 1;; i++) {
        uint64_t v;
        int got = weft_chan_recv_until(r->c, &v, weft_now() + (int64_t)(i % 5) * 20000);
        if (got == 0)
            return;
        if (got == 1)
            __atomic_fetch_add(&r->received, v, __ATOMIC_RELAXED);
        else
            cr_assert_eq(got, -ETIMEDOUT);
    }
}

static void deadline_race(void *arg)
{
    struct race r = { .c = weft_chan_make(8, *(size_t *)arg), .left = 4 };
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(weft_waitgroup_go(&r.wg, race_send, &r), 0);
        cr_assert_eq(weft_waitgroup_go(&r.wg, race_recv, &r), 0);
    }
    weft_waitgroup_wait(&r.wg);
    cr_assert_eq(r.sent, r.received);
    cr_assert_gt(r.sent, 0);
}

Test(chan, deadlines_race_with_partners)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        test_run_procs(procs, deadline_race, &(size_t){ 0 });
        test_run_procs(procs, deadline_race, &(size_t){ 2 });
    }
}

/* ---- threads of the host --------------------------------------------------------------------------------------------- */

struct host { weft_chan *there, *back; int n; };

static void *host_echo(void *arg)
{
    struct host *h = arg;
    int64_t v;
    while (weft_chan_recv(h->there, &v) == 1) {
        v = -v;
        cr_assert_eq(weft_chan_send(h->back, &v), 0);
    }
    return NULL;
}

static void with_host_threads(void *arg)
{
    struct host *h = arg;
    pthread_t t[4];
    h->there = weft_chan_make(8, 0);
    h->back = weft_chan_make(8, 0);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, host_echo, h), 0);
    int64_t sum = 0, v;
    for (int64_t i = 1; i <= h->n; i++) {
        cr_assert_eq(weft_chan_send(h->there, &i), 0);
        cr_assert_eq(weft_chan_recv(h->back, &v), 1);
        sum -= v;
    }
    cr_assert_eq(sum, (int64_t)h->n * (h->n + 1) / 2);
    weft_chan_close(h->there);
    weft_blocking_begin();
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
}

Test(chan, host_threads_send_and_receive)
{
    test_run_procs(1, with_host_threads, &(struct host){ .n = 500 });
    test_run_procs(2, with_host_threads, &(struct host){ .n = 500 });
}

static void send_42(void *arg) { cr_assert_eq(weft_chan_send(*(weft_chan **)arg, &(int){ 42 }), 0); }

/* No fiber at all on one side: the host's main thread waits, with and without a deadline. */
Test(chan, host_thread_waits_by_itself)
{
    cr_assert_eq(weft_start(NULL), 0);
    static weft_chan *c;
    int v = 0;
    c = weft_chan_make(sizeof(int), 0);
    cr_assert_eq(weft_chan_recv_until(c, &v, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(weft_go(send_42, &c), 0);
    cr_assert_eq(weft_chan_recv(c, &v), 1);
    cr_assert_eq(v, 42);
    cr_assert_eq(weft_go(send_42, &c), 0);
    cr_assert_eq(weft_chan_recv_until(c, &v, weft_now() + 10 * WEFT_SECOND), 1);
    cr_assert_eq(weft_stop(), 0);
}
