/* What select promises: one case, chosen uniformly; waiters are taken out again; nothing is done twice. */
#include "waiting.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static void later(weft_fn *fn, void *arg) { cr_assert_eq(weft_go(fn, arg), 0); }

/* ---- bounds ------------------------------------------------------------------------------------------------------- */

static void bounds(void *arg)
{
    (void)arg;
    weft_case bad = { 3, NULL, NULL, 0 };
    cr_assert_eq(weft_select(&bad, 1), -EINVAL);
    cr_assert_eq(weft_select_default(&bad, 1), -EINVAL);
    cr_assert_eq(weft_select(NULL, 1), -EINVAL);
    cr_assert_eq(weft_select_until(&bad, 65536, 1), -EINVAL);
    cr_assert_eq(weft_select_default(NULL, 0), -EAGAIN);
    cr_assert_eq(weft_select_until(NULL, 0, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    weft_case nil[2] = { { WEFT_SEND, NULL, NULL, 0 }, { WEFT_RECV, NULL, NULL, 0 } };
    cr_assert_eq(weft_select_until(nil, 2, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(weft_select_until(nil, 1, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
}

Test(select, bounds_and_nil_cases) { test_run(bounds, NULL); }

static void for_ever(void *arg)
{
    weft_case nil[3] = { { WEFT_SEND, NULL, NULL, 0 }, { WEFT_RECV, NULL, NULL, 0 }, { WEFT_RECV, NULL, NULL, 0 } };
    switch (*(int *)arg) {
    case 0: weft_select(NULL, 0); break;
    case 1: weft_select(nil, 1); break;
    case 2: weft_select(nil, 3); break;
    case 3: weft_chan_recv(NULL, NULL); break;
    case 4: weft_chan_send_until(NULL, NULL, 0); break;
    }
    cr_assert(false, "came back");
}

static void for_ever_run(void *arg)
{
    int r = weft_run(for_ever, arg, NULL);
    printf("%d:%s\n", *(int *)arg, r == -EDEADLK ? "deadlock" : weft_strerror(r));
}

/* In a child: Criterion's own threads might wake somebody, for all the runtime knows. */
Test(select, nothing_to_wait_for_blocks_for_ever)
{
    test_needs_a_kernel();
    static struct test_output out;
    static const char *const want[] = { "select (no cases)", "chan send (nil chan)", "select", "chan receive (nil chan)", "chan send (nil chan)" };
    for (int i = 0; i < 5; i++) {
        test_fork(&out, for_ever_run, &i);
        cr_assert_not_null(strstr(out.text, ":deadlock\n"), "%d: %s", i, out.text);
        cr_assert_not_null(strstr(out.text, want[i]), "%d: the report says [%s]: %s", i, want[i], out.text);
    }
}

/* ---- fairness ------------------------------------------------------------------------------------------------------- */

/* Among k ready cases of n, over m draws, each should come up m/k times. The sum of squared deviations over m/k is chi-square with k-1
 * degrees of freedom: for k up to 7 it exceeds 45 with a probability below 5e-8. A choice biased by 10 % gives hundreds. */
static void fair(const char *what, const int *ready, size_t n, int sends)
{
    enum { DRAWS = 60000 };
    weft_case s[16];
    int got[16] = { 0 }, k = 0, v;
    weft_chan *idle = weft_chan_make(sizeof(int), 0);
    for (size_t i = 0; i < n; i++) {
        k += ready[i];
        s[i] = (weft_case){ WEFT_RECV, idle, NULL, 0 };
        if (!ready[i])
            continue;
        s[i] = (weft_case){ (int)i < sends ? WEFT_SEND : WEFT_RECV, weft_chan_make(sizeof(int), 1), &v, 0 };
        if ((int)i >= sends)
            cr_assert_eq(weft_chan_send(s[i].chan, &v), 0);
    }
    for (int d = 0; d < DRAWS; d++) {
        int i = d % 2 ? weft_select(s, n) : weft_select_default(s, n);
        cr_assert(i >= 0 && ready[i]);
        got[i]++;
        if (s[i].op == WEFT_SEND)
            cr_assert_eq(weft_chan_recv(s[i].chan, NULL), 1);
        else
            cr_assert_eq(weft_chan_send(s[i].chan, &v), 0);
    }
    double chi = 0, mean = (double)DRAWS / k;
    for (size_t i = 0; i < n; i++)
        if (ready[i])
            chi += (got[i] - mean) * (got[i] - mean) / mean;
    cr_assert_lt(chi, 45.0, "%s: chi-square %.1f", what, chi);
}

static void fairness(void *arg)
{
    (void)arg;
    fair("two", (int[]){ 1, 1 }, 2, 0);
    fair("four", (int[]){ 1, 1, 1, 1 }, 4, 0);
    fair("seven, both ways", (int[]){ 1, 1, 1, 1, 1, 1, 1 }, 7, 3);
    fair("three of six, with gaps", (int[]){ 1, 0, 1, 0, 0, 1 }, 6, 1);
    fair("at the ends", (int[]){ 1, 0, 0, 0, 0, 0, 0, 1 }, 8, 0);
}

Test(select, choice_is_uniform) { test_run(fairness, NULL); }

/* ---- waiting ---------------------------------------------------------------------------------------------------------- */

struct pair { weft_chan *a, *b, *done; int index, v, w; };

static void wait_for_two(void *arg)
{
    struct pair *p = arg;
    weft_case s[2] = { { WEFT_RECV, p->a, &p->v, 0 }, { WEFT_SEND, p->b, &p->w, 0 } };
    p->index = weft_select(s, 2);
    cr_assert_eq(weft_chan_send(p->done, &s[p->index].result), 0);
}

static struct pair *pair_parked(void)
{
    struct pair *p = weft_alloc(sizeof *p);
    *p = (struct pair){ weft_chan_make(sizeof(int), 0), weft_chan_make(sizeof(int), 0), weft_chan_make(sizeof(int), 1), -1, 0, 77 };
    later(wait_for_two, p);
    test_until(receivers(p->a) == 1 && senders(p->b) == 1);
    return p;
}

static void pair_done(struct pair *p, int index, int result)
{
    int r = -7;
    cr_assert_eq(weft_chan_recv(p->done, &r), 1);
    cr_assert_eq(p->index, index);
    cr_assert_eq(r, result);
    cr_assert_eq(receivers(p->a), 0, "the waiter that lost is taken out");
    cr_assert_eq(senders(p->b), 0, "the waiter that lost is taken out");
}

static void woken(void *arg)
{
    (void)arg;
    struct pair *p = pair_parked();
    cr_assert_eq(weft_chan_send(p->a, &(int){ 5 }), 0);
    pair_done(p, 0, 1);
    cr_assert_eq(p->v, 5);

    p = pair_parked();
    int v = 0;
    cr_assert_eq(weft_chan_recv(p->b, &v), 1);
    cr_assert_eq(v, 77);
    pair_done(p, 1, 0);

    p = pair_parked();
    p->v = 9;
    cr_assert_eq(weft_chan_close(p->a), 0);
    pair_done(p, 0, 0);
    cr_assert_eq(p->v, 0, "what a closed channel gives is zero");

    p = pair_parked();
    cr_assert_eq(weft_chan_close(p->b), 0);
    pair_done(p, 1, -EPIPE);
}

Test(select, a_parked_select_is_woken_by_each_case)
{
    test_run_procs(1, woken, NULL);
    test_run_procs(2, woken, NULL);
}

/* Sending and receiving on one channel in one select does not pair with itself, but with another such select. */
static void both_ways(void *arg)
{
    struct pair *p = arg;
    int v = 0, own = 1;
    weft_case s[2] = { { WEFT_RECV, p->a, &v, 0 }, { WEFT_SEND, p->a, &own, 0 } };
    cr_assert_eq(weft_select_until(s, 2, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(receivers(p->a) + senders(p->a), 0);
}

static void both_ways_partner(void *arg)
{
    struct pair *p = arg;
    int v = 0, own = 2;
    weft_case s[2] = { { WEFT_SEND, p->a, &own, 0 }, { WEFT_RECV, p->a, &v, 0 } };
    int i = weft_select(s, 2);
    cr_assert_eq(v, i == 1 ? 3 : 0);
    cr_assert_eq(weft_chan_send(p->done, &i), 0);
}

static void self_and_other(void *arg)
{
    (void)arg;
    struct pair p = { .a = weft_chan_make(sizeof(int), 0), .done = weft_chan_make(sizeof(int), 1) };
    both_ways(&p);
    for (int k = 0; k < 50; k++) {
        later(both_ways_partner, &p);
        test_until(receivers(p.a) == 1 && senders(p.a) == 1);
        int v = 0, own = 3, other;
        weft_case s[2] = { { WEFT_RECV, p.a, &v, 0 }, { WEFT_SEND, p.a, &own, 0 } };
        int i = weft_select(s, 2);
        cr_assert_eq(weft_chan_recv(p.done, &other), 1);
        cr_assert_eq(i, other, "one sent, the other received");
        cr_assert_eq(v, i == 0 ? 2 : 0);
        cr_assert_eq(receivers(p.a) + senders(p.a), 0);
    }
}

Test(select, same_channel_both_ways) { test_run_procs(1, self_and_other, NULL); }

/* The same channel in many cases: all are served by one waiter each, and taken out together. */
static void same_channel(void *arg)
{
    struct pair *p = arg;
    int v[40] = { 0 };
    weft_case s[40];
    for (int i = 0; i < 40; i++)
        s[i] = (weft_case){ WEFT_RECV, i % 3 ? p->a : p->b, &v[i], 0 };
    p->index = weft_select(s, 40);
    for (int i = 0; i < 40; i++)
        cr_assert_eq(v[i], i == p->index ? 6 : 0);
    cr_assert_eq(weft_chan_send(p->done, &p->index), 0);
}

static void many_of_one(void *arg)
{
    (void)arg;
    struct pair p = { .a = weft_chan_make(sizeof(int), 0), .b = weft_chan_make(sizeof(int), 0), .done = weft_chan_make(sizeof(int), 1) };
    for (int k = 0; k < 20; k++) {
        later(same_channel, &p);
        test_until(receivers(p.a) == 26 && receivers(p.b) == 14);
        cr_assert_eq(weft_chan_send(k % 2 ? p.a : p.b, &(int){ 6 }), 0);
        cr_assert_eq(weft_chan_recv(p.done, NULL), 1);
        cr_assert_eq(receivers(p.a) + receivers(p.b), 0);
        cr_assert_eq(p.index % 3 != 0, k % 2);
    }
}

Test(select, one_channel_in_many_cases) { test_run(many_of_one, NULL); }

/* As many cases as there may be. */
static void all_cases(void *arg)
{
    enum { MANY = 65535 };
    (void)arg;
    weft_case *s = weft_alloc(sizeof *s * MANY);
    int v = 0;
    for (int i = 0; i < MANY; i++)
        s[i] = (weft_case){ WEFT_RECV, NULL, NULL, 0 };
    for (int i = 1; i < MANY; i += 1000)
        s[i] = (weft_case){ WEFT_RECV, weft_chan_make(sizeof(int), 1), &v, 0 };
    cr_assert_eq(weft_select_default(s, MANY), -EAGAIN);
    cr_assert_eq(weft_select_until(s, MANY, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(weft_chan_send(s[64001].chan, &(int){ 3 }), 0);
    cr_assert_eq(weft_select(s, MANY), 64001);
    cr_assert_eq(v, 3);
}

Test(select, up_to_65535_cases) { test_run(all_cases, NULL); }

/* ---- double select -------------------------------------------------------------------------------------------------------- */

/* Two fibers select over the same channels; a sender's select offers the same element on all of them. Each element must
 * arrive exactly once, though a lost race leaves both sides with waiters in several queues. */
struct twice { weft_chan *c[4]; weft_waitgroup wg; int n; unsigned char *seen; uint64_t bad; };

static void offer(void *arg)
{
    struct twice *t = arg;
    for (int i = 0; i < t->n; i++) {
        weft_case s[4];
        for (int k = 0; k < 4; k++)
            s[k] = (weft_case){ WEFT_SEND, t->c[k], &i, 0 };
        int k = weft_select(s, 4);
        cr_assert(k >= 0 && s[k].result == 0);
    }
    for (int k = 0; k < 4; k++)
        weft_chan_close(t->c[k]);
}

static void accept_any(void *arg)
{
    struct twice *t = arg;
    bool closed[4] = { false };
    int nclosed = 0;
    for (;;) {
        int v[4] = { -1, -1, -1, -1 };
        weft_case s[4];
        for (int k = 0; k < 4; k++)
            s[k] = (weft_case){ WEFT_RECV, t->c[3 - k], &v[k], 0 };
        for (int k = 0; k < 4; k++)
            if (closed[k])
                s[k].chan = NULL;
        int k = weft_select(s, 4);
        if (s[k].result == 0) {
            closed[k] = true;
            if (++nclosed == 4)
                return;
            continue;
        }
        __atomic_fetch_add(&t->seen[v[k]], 1, __ATOMIC_RELAXED);
        for (int j = 0; j < 4; j++)
            if (j != k && v[j] != -1)
                __atomic_fetch_add(&t->bad, 1, __ATOMIC_RELAXED);
    }
}

static void double_select(void *arg)
{
    struct twice t = { .n = 20000 };
    for (int k = 0; k < 4; k++)
        t.c[k] = weft_chan_make_noscan(sizeof(int), *(size_t *)arg);
    t.seen = weft_alloc_noscan((size_t)t.n);
    for (int k = 0; k < 3; k++)
        cr_assert_eq(weft_waitgroup_go(&t.wg, accept_any, &t), 0);
    cr_assert_eq(weft_waitgroup_go(&t.wg, offer, &t), 0);
    weft_waitgroup_wait(&t.wg);
    cr_assert_eq(t.bad, 0, "a case that was not chosen was filled");
    int lost = 0, twice = 0;
    for (int i = 0; i < t.n; i++)
        lost += t.seen[i] == 0, twice += t.seen[i] > 1;
    cr_assert_eq(twice, 0);
    cr_assert_eq(lost, 0);
}

Test(select, both_sides_select)
{
    for (int procs = 1; procs <= 8; procs *= 2) {
        test_run_procs(procs, double_select, &(size_t){ 0 });
        test_run_procs(procs, double_select, &(size_t){ 1 });
    }
}

/* A token moves from b to a while others poll both: there is always one, and so never "none is ready". */
struct token { weft_chan *a, *b; weft_waitgroup wg; int stop, misses, looks; };

static void move_token(void *arg)
{
    struct token *t = arg;
    int v = 1;
    while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
        /* First into the other, then out of this: between the two there are two of them, never none. */
        cr_assert_eq(weft_chan_send(t->a, &v), 0);
        cr_assert_eq(weft_chan_recv(t->b, &v), 1);
        cr_assert_eq(weft_chan_send(t->b, &v), 0);
        cr_assert_eq(weft_chan_recv(t->a, &v), 1);
    }
}

static void never_missed(void *arg)
{
    (void)arg;
    struct token t = { .a = weft_chan_make_noscan(sizeof(int), 4), .b = weft_chan_make_noscan(sizeof(int), 4) };
    int v = 1;
    cr_assert_eq(weft_chan_send(t.b, &v), 0);
    cr_assert_eq(weft_waitgroup_go(&t.wg, move_token, &t), 0);
    while (t.looks < 50000) {
        weft_case s[2] = { { WEFT_RECV, t.a, &v, 0 }, { WEFT_RECV, t.b, &v, 0 } };
        int i = weft_select_default(s, 2);
        t.looks++;
        if (i < 0)
            t.misses++;
        else
            cr_assert_eq(weft_chan_send(s[i].chan, &v), 0);
        if (t.looks % 64 == 0)
            weft_yield();
    }
    __atomic_store_n(&t.stop, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&t.wg);
    cr_assert_eq(t.misses, 0, "%d of %d looks found neither ready, though one always was", t.misses, t.looks);
}

Test(select, default_is_taken_only_if_none_is_ready_at_one_moment) { test_run_procs(2, never_missed, NULL); }
