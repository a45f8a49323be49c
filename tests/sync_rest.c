/* Conditions, wait groups, once, semaphores. */
#include "waiting.h"
#include "base/rng.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- conditions ---------------------------------------------------------------------------------------------------------- */

enum { N = 12 };
struct room { weft_mutex m; weft_cond c; weft_waitgroup wg; int next, got[N], calls; };
struct guest { struct room *r; int id; };

static void wait_called(void *arg)
{
    struct guest *g = arg;
    struct room *r = g->r;
    weft_mutex_lock(&r->m);
    weft_cond_wait(&r->c, &r->m);
    cr_assert(!weft_mutex_trylock(&r->m), "it is locked again");
    r->got[r->next] = g->id;
    __atomic_fetch_add(&r->next, 1, __ATOMIC_RELEASE);
    weft_mutex_unlock(&r->m);
}

static void fill_room(struct room *r, struct guest *g)
{
    *r = (struct room){ 0 };
    for (int i = 0; i < N; i++) {
        g[i] = (struct guest){ r, i };
        cr_assert_eq(weft_waitgroup_go(&r->wg, wait_called, &g[i]), 0);
        test_until(parked_on(&r->c) == (size_t)i + 1);
    }
}

static void cond_order(void *arg)
{
    (void)arg;
    struct room r;
    struct guest g[N];
    fill_room(&r, g);
    for (int i = 0; i < N / 2; i++) {
        weft_mutex_lock(&r.m);
        weft_cond_signal(&r.c);
        weft_mutex_unlock(&r.m);
        test_until(__atomic_load_n(&r.next, __ATOMIC_ACQUIRE) == i + 1);
        cr_assert_eq(parked_on(&r.c), (size_t)(N - i - 1), "a signal wakes one");
        cr_assert_eq(r.got[i], i, "fiber %d was woken as number %d", r.got[i], i);
    }
    weft_cond_broadcast(&r.c);
    weft_waitgroup_wait(&r.wg);
    cr_assert_eq(r.next, N);
    cr_assert_eq(r.c.waiters_, 0);
    weft_cond_signal(&r.c); /* nobody: nothing */
    weft_cond_broadcast(&r.c);
}

Test(cond, signal_wakes_one_in_order_broadcast_all)
{
    test_run_procs(1, cond_order, NULL);
    test_run_procs(2, cond_order, NULL);
}

static void cond_deadline(void *arg)
{
    (void)arg;
    struct room r = { 0 };
    weft_mutex_lock(&r.m);
    int64_t at = weft_now() + 2 * WEFT_MILLISECOND;
    cr_assert_eq(weft_cond_wait_until(&r.c, &r.m, at), -ETIMEDOUT);
    cr_assert_geq(weft_now(), at);
    cr_assert(!weft_mutex_trylock(&r.m), "it is locked again");
    cr_assert_eq(weft_cond_wait_until(&r.c, &r.m, 1), -ETIMEDOUT);
    cr_assert_eq(weft_cond_wait_until(&r.c, &r.m, INT64_MIN), -ETIMEDOUT);
    weft_mutex_unlock(&r.m);
    cr_assert_eq(r.c.waiters_, 0);
    cr_assert_eq(parked_on(&r.c), 0);
}

Test(cond, deadline) { test_run(cond_deadline, NULL); }

/* A bounded buffer: with signals only, each to one waiter; a lost one would stop it. Some waits have a deadline. */
struct buffer { weft_mutex m; weft_cond filled, emptied; weft_waitgroup wg; int n; uint64_t in, out, sum_in, sum_out; uint64_t each; };

static void put(void *arg)
{
    struct buffer *b = arg;
    for (uint64_t i = 0; i < b->each; i++) {
        weft_mutex_lock(&b->m);
        while (b->n == 3)
            if (i % 3)
                weft_cond_wait(&b->emptied, &b->m);
            else
                weft_cond_wait_until(&b->emptied, &b->m, weft_now() + 30000);
        b->n++;
        b->sum_in += i;
        weft_mutex_unlock(&b->m);
        weft_cond_signal(&b->filled);
    }
}

static void take(void *arg)
{
    struct buffer *b = arg;
    for (uint64_t i = 0; i < b->each; i++) {
        weft_mutex_lock(&b->m);
        while (b->n == 0)
            if (i % 3)
                weft_cond_wait(&b->filled, &b->m);
            else
                weft_cond_wait_until(&b->filled, &b->m, weft_now() + 30000);
        b->n--;
        b->sum_out += i;
        weft_mutex_unlock(&b->m);
        weft_cond_signal(&b->emptied);
    }
}

static void bounded_buffer(void *arg)
{
    (void)arg;
    struct buffer b = { .each = 4000 };
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(weft_waitgroup_go(&b.wg, put, &b), 0);
        cr_assert_eq(weft_waitgroup_go(&b.wg, take, &b), 0);
    }
    weft_waitgroup_wait(&b.wg);
    cr_assert_eq(b.n, 0);
    cr_assert_eq(b.sum_in, b.sum_out);
    cr_assert_eq(b.filled.waiters_ + b.emptied.waiters_, 0);
}

Test(cond, no_signal_is_lost)
{
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, bounded_buffer, NULL);
}

/* ---- wait groups ----------------------------------------------------------------------------------------------------------- */

static void count_up(void *arg) { __atomic_fetch_add((int *)arg, 1, __ATOMIC_RELAXED); }

static void yield_and_count(void *arg)
{
    for (int i = 0; i < 3; i++)
        weft_yield();
    count_up(arg);
}

static void group_go(void *arg)
{
    (void)arg;
    for (int round = 0; round < 200; round++) {
        weft_waitgroup *wg = calloc(1, sizeof *wg); /* freed as soon as wait returns */
        int n = 0;
        for (int i = 0; i < 20; i++)
            cr_assert_eq(weft_waitgroup_go(wg, i % 2 ? count_up : yield_and_count, &n), 0);
        if (round % 2)
            weft_waitgroup_wait(wg);
        else
            cr_assert_eq(weft_waitgroup_wait_until(wg, weft_now() + 100 * WEFT_SECOND), 0);
        memset(wg, 0xff, sizeof *wg);
        free(wg);
        cr_assert_eq(__atomic_load_n(&n, __ATOMIC_RELAXED), 20);
    }
}

Test(waitgroup, waits_for_all)
{
    test_run_each(group_go, NULL);
}

static void exits(void *arg)
{
    cr_assert_eq(weft_defer(count_up, arg), 0);
    weft_exit();
}

static void group_exit(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    int n = 0;
    for (int i = 0; i < 50; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, exits, &n), 0);
    weft_waitgroup_wait(&wg);
    cr_assert_eq(n, 50, "done comes after the deferred calls");
    cr_assert_eq(weft_waitgroup_go(&wg, NULL, NULL), -EINVAL);
    cr_assert_eq(weft_waitgroup_wait_until(&wg, 1), 0, "a failed go is not counted");
    cr_assert_eq(weft_num_fibers(), 1, "and after the fiber was counted out");
}

Test(waitgroup, counts_the_end_by_exit) { test_run_procs(2, group_exit, NULL); }

static void group_errors(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_done(&wg), -ERANGE);
    cr_assert_eq(weft_waitgroup_add(&wg, -5), -ERANGE);
    cr_assert_eq(weft_waitgroup_add(&wg, 3), 0);
    cr_assert_eq(weft_waitgroup_add(&wg, -4), -ERANGE);
    cr_assert_eq(weft_waitgroup_wait_until(&wg, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(weft_waitgroup_wait_until(&wg, 1), -ETIMEDOUT);
    cr_assert_eq(weft_waitgroup_add(&wg, INT32_MAX), -ERANGE);
    cr_assert_eq(weft_waitgroup_add(&wg, -3), 0);
    weft_waitgroup_wait(&wg);
    cr_assert_eq(weft_waitgroup_done(&wg), -ERANGE);
    cr_assert_eq(weft_waitgroup_add(&wg, 0), 0);
}

Test(waitgroup, errors_change_nothing) { test_run(group_errors, NULL); }

/* Many wait at once, in all ways; all come back, each round; the group is used again at once. */
struct many { weft_waitgroup wg, all; int64_t patience_ns; int back, timeouts; }; /* patience: short, time-outs are part of it; long, there are none */

static void wait_too(void *arg)
{
    struct many *m = arg;
    if (weft_fiber_id() % 3 == 0) {
        while (weft_waitgroup_wait_until(&m->wg, weft_now() + m->patience_ns) != 0)
            __atomic_fetch_add(&m->timeouts, 1, __ATOMIC_RELAXED);
    } else
        weft_waitgroup_wait(&m->wg);
    __atomic_fetch_add(&m->back, 1, __ATOMIC_RELAXED);
}

static void many_wait(void *arg)
{
    (void)arg;
    struct many m = { .patience_ns = 20000 };
    for (int round = 0; round < 300; round++) {
        m.back = 0;
        cr_assert_eq(weft_waitgroup_add(&m.wg, 2), 0);
        for (int i = 0; i < 7; i++)
            cr_assert_eq(weft_waitgroup_go(&m.all, wait_too, &m), 0);
        for (int i = 0; i < round % 10; i++)
            weft_yield();
        cr_assert_eq(weft_waitgroup_done(&m.wg), 0);
        if (round % 2)
            weft_sleep(30000);
        cr_assert_eq(weft_waitgroup_done(&m.wg), 0);
        weft_waitgroup_wait(&m.all);
        cr_assert_eq(m.back, 7);
        cr_assert_eq(m.wg.state_, 0, "nothing is left in the word");
        cr_assert_null(m.wg.waiter_);
    }
    cr_assert_gt(m.timeouts, 0);
}

Test(waitgroup, many_wait_and_it_is_used_again)
{
    test_run_each(many_wait, NULL);
}

/* Those who waited for one zero come back, though the counter rises again at once: others wait for the next zero only. */
static void group_generations(void *arg)
{
    (void)arg;
    struct many m = { .patience_ns = 100 * WEFT_SECOND };
    cr_assert_eq(weft_waitgroup_add(&m.wg, 1), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(weft_waitgroup_go(&m.all, wait_too, &m), 0);
    test_until(m.wg.waiter_ != NULL && parked_on(&m.wg) == 4);
    cr_assert_eq(weft_waitgroup_done(&m.wg), 0);
    cr_assert_eq(weft_waitgroup_add(&m.wg, 1), 0);
    weft_waitgroup_wait(&m.all);
    cr_assert_eq(m.back, 5);
    cr_assert_eq(weft_waitgroup_wait_until(&m.wg, weft_now() + WEFT_MILLISECOND), -ETIMEDOUT);
    cr_assert_eq(weft_waitgroup_done(&m.wg), 0);
}

Test(waitgroup, a_zero_that_passes_at_once_wakes_all) { test_run_procs(1, group_generations, NULL); }

/* The group may lie in a collected object that only the fibers of the group know. */
struct orphan { weft_waitgroup wg; weft_chan *c; };

static void recv_one(void *arg) { cr_assert_eq(weft_chan_recv(*(weft_chan **)arg, NULL), 1); }

static __attribute__((noinline)) void orphans(weft_chan **c)
{
    for (int i = 0; i < 100; i++) {
        struct orphan *o = weft_alloc(sizeof *o);
        cr_assert_eq(weft_waitgroup_go(&o->wg, recv_one, c), 0);
    }
}

static void group_root(void *arg)
{
    (void)arg;
    static weft_chan *c;
    c = weft_chan_make(8, 0);
    orphans(&c);
    weft_gc(); /* some have not started */
    test_until(receivers(c) == 100);
    weft_gc();
    for (int i = 0; i < 20000; i++)
        memset(weft_alloc(sizeof(struct orphan)), 0xff, sizeof(struct orphan));
    for (int i = 0; i < 100; i++)
        cr_assert_eq(weft_chan_send(c, &(uint64_t){ 1 }), 0);
    test_until(weft_num_fibers() == 1);
    uint32_t bad = 0;
    for (int i = 0; i < 20000; i++) {
        unsigned char *p = weft_alloc(sizeof(struct orphan));
        for (size_t k = 0; k < sizeof(struct orphan); k++)
            bad += p[k] != 0;
    }
    cr_assert_eq(bad, 0, "a counter was written in freed memory");
}

Test(waitgroup, is_a_root_of_its_fibers) { test_run_procs(1, group_root, NULL); }

/* ---- once ---------------------------------------------------------------------------------------------------------------- */

struct first { weft_once once; weft_waitgroup wg; int ran, seen, gone; bool exit; };

static void first_fn(void *arg)
{
    struct first *f = arg;
    weft_sleep(WEFT_MILLISECOND);
    f->ran++;
    cr_assert_eq(weft_defer(count_up, &f->gone), 0);
    if (f->exit)
        weft_exit();
}

static void first_user(void *arg)
{
    struct first *f = arg;
    weft_once_do(&f->once, first_fn, f);
    if (f->ran == 1)
        __atomic_fetch_add(&f->seen, 1, __ATOMIC_RELAXED);
}

static void once(void *arg)
{
    for (int round = 0; round < 10; round++) {
        struct first f = { .exit = *(bool *)arg };
        for (int i = 0; i < 10; i++)
            cr_assert_eq(weft_waitgroup_go(&f.wg, first_user, &f), 0);
        weft_waitgroup_wait(&f.wg);
        cr_assert_eq(f.ran, 1);
        cr_assert_eq(f.seen, f.exit ? 9 : 10, "who comes back finds it done");
        cr_assert_eq(f.gone, 1, "its own deferred calls are kept");
        weft_once_do(&f.once, first_fn, &f);
        cr_assert_eq(f.ran, 1);
    }
}

Test(once, runs_once_and_all_wait)
{
    test_run_procs(1, once, &(bool){ false });
    test_run_procs(4, once, &(bool){ false });
}
Test(once, an_exit_counts_as_done)
{
    test_run_procs(1, once, &(bool){ true });
    test_run_procs(4, once, &(bool){ true });
}

/* ---- semaphores ------------------------------------------------------------------------------------------------------------ */

struct gate { weft_sema s; weft_waitgroup wg; int next, got[N], inside, most, each; uint64_t timeouts, seed; };
struct visitor { struct gate *g; int id; };

static void enter_gate(void *arg)
{
    struct visitor *v = arg;
    weft_sema_acquire(&v->g->s);
    v->g->got[__atomic_fetch_add(&v->g->next, 1, __ATOMIC_RELAXED)] = v->id;
}

static void sema_order(void *arg)
{
    (void)arg;
    struct gate g = { .s = WEFT_SEMA_INIT(1) };
    struct visitor v[N];
    weft_sema_acquire(&g.s);
    for (int i = 0; i < N; i++) {
        v[i] = (struct visitor){ &g, i };
        cr_assert_eq(weft_waitgroup_go(&g.wg, enter_gate, &v[i]), 0);
        test_until(parked_on(&g.s) == (size_t)i + 1);
    }
    weft_sema_release(&g.s, 1);
    cr_assert(!weft_sema_try_acquire(&g.s), "nobody overtakes who waited");
    cr_assert_eq(weft_sema_acquire_until(&g.s, weft_now()), -ETIMEDOUT);
    test_until(__atomic_load_n(&g.next, __ATOMIC_RELAXED) == 1);
    weft_sema_release(&g.s, 3);
    test_until(__atomic_load_n(&g.next, __ATOMIC_RELAXED) == 4);
    weft_sema_release(&g.s, N);
    weft_waitgroup_wait(&g.wg);
    for (int i = 0; i < N; i++)
        cr_assert_eq(g.got[i], i);
    for (int i = 0; i < 4; i++)
        cr_assert(weft_sema_try_acquire(&g.s), "what was released beyond the waiters is there");
    cr_assert(!weft_sema_try_acquire(&g.s));
}

Test(sema, waiters_are_served_in_order) { test_run_procs(1, sema_order, NULL); }

static void visit(void *arg)
{
    struct gate *g = arg;
    struct rng r;
    rng_seed(&r, g->seed ^ weft_fiber_id());
    for (int i = 0; i < g->each; i++) {
        if (rng_below(&r, 3) == 0) {
            if (weft_sema_acquire_until(&g->s, weft_now() + rng_below(&r, 40000)) != 0) {
                __atomic_fetch_add(&g->timeouts, 1, __ATOMIC_RELAXED);
                continue;
            }
        } else
            weft_sema_acquire(&g->s);
        int n = __atomic_add_fetch(&g->inside, 1, __ATOMIC_RELAXED);
        cr_assert_leq(n, 3);
        if (n > __atomic_load_n(&g->most, __ATOMIC_RELAXED))
            __atomic_store_n(&g->most, n, __ATOMIC_RELAXED);
        if (rng_below(&r, 200) == 0)
            weft_sleep(50000); /* long enough for deadlines of others to pass */
        else
            weft_yield();
        __atomic_sub_fetch(&g->inside, 1, __ATOMIC_RELAXED);
        weft_sema_release(&g->s, 1);
    }
}

static void sema_count(void *arg)
{
    struct gate g = { .s = WEFT_SEMA_INIT(3), .each = 2000, .seed = *(uint64_t *)arg };
    for (int i = 0; i < 10; i++)
        cr_assert_eq(weft_waitgroup_go(&g.wg, visit, &g), 0);
    weft_waitgroup_wait(&g.wg);
    cr_assert_eq(g.most, 3);
    cr_assert_gt(g.timeouts, 0);
    cr_assert_eq(g.s.state_, 3, "what was taken was given back, and nobody is left waiting");
}

Test(sema, lets_in_as_many_as_it_counts)
{
    uint64_t seed = test_seed();
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, sema_count, &seed);
}

/* Up to the largest count. */
static void sema_large(void *arg)
{
    (void)arg;
    struct gate g = { .s = WEFT_SEMA_INIT(UINT32_MAX) };
    struct visitor v = { &g, 7 };
    for (int i = 0; i < 3; i++)
        cr_assert(weft_sema_try_acquire(&g.s));
    weft_sema_release(&g.s, 3);
    weft_sema_release(&g.s, 0);
    cr_assert_eq(g.s.state_, UINT32_MAX);
    g.s = (weft_sema){ 0 };
    cr_assert_eq(weft_waitgroup_go(&g.wg, enter_gate, &v), 0);
    test_until(parked_on(&g.s) == 1);
    weft_sema_release(&g.s, 0);
    cr_assert_eq(parked_on(&g.s), 1, "nothing was released");
    weft_sema_release(&g.s, UINT32_MAX);
    weft_waitgroup_wait(&g.wg);
    cr_assert_eq(g.s.state_, UINT32_MAX - 1, "one went to the waiter");
}

Test(sema, counts_to_the_largest) { test_run(sema_large, NULL); }

static void sema_overflow(void *arg)
{
    (void)arg;
    static weft_sema s = WEFT_SEMA_INIT(UINT32_MAX - 1);
    weft_sema_release(&s, 2);
}
static void run_overflow(void *arg) { test_run(sema_overflow, arg); }

Test(sema, a_count_that_overflows_is_fatal)
{
    static struct test_output out;
    test_fork(&out, run_overflow, NULL);
    cr_assert_eq(out.term_signal, SIGABRT);
    cr_assert_not_null(strstr(out.text, "weft: fatal: the count of semaphore"), "%s", out.text);
}

static void *host_release(void *arg)
{
    struct gate *g = arg;
    for (int i = 0; i < g->each; i++) {
        weft_sema_release(&g->s, 1);
        weft_mutex m = { 0 }; /* something else in between */
        weft_mutex_lock(&m);
        weft_mutex_unlock(&m);
    }
    return NULL;
}

static void sema_host(void *arg)
{
    (void)arg;
    struct gate g = { .each = 1000 };
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, host_release, &g), 0);
    for (int i = 0; i < 2000; i++)
        weft_sema_acquire(&g.s);
    weft_blocking_begin();
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    cr_assert_eq(g.s.state_, 0);
}

Test(sema, host_threads_release)
{
    test_run_procs(1, sema_host, NULL);
    test_run_procs(2, sema_host, NULL);
}

/* ---- the parking lot ----------------------------------------------------------------------------------------------------------- */

/* Thousands of addresses share the buckets; each finds its own. */
struct cell { weft_sema s; weft_waitgroup *wg; int hits; };

static void one_cell(void *arg)
{
    struct cell *c = arg;
    weft_sema_acquire(&c->s);
    c->hits++;
    weft_waitgroup_done(c->wg);
}

static void lot(void *arg)
{
    enum { CELLS = 5000 };
    uint64_t seed = *(uint64_t *)arg;
    struct rng r;
    weft_waitgroup wg = { 0 };
    struct cell *cell = weft_alloc(sizeof *cell * CELLS);
    int *turn = weft_alloc_noscan(sizeof *turn * CELLS);
    rng_seed(&r, seed);
    cr_assert_eq(weft_waitgroup_add(&wg, CELLS), 0);
    for (int i = 0; i < CELLS; i++) {
        turn[i] = i;
        cell[i].wg = &wg;
        cr_assert_eq(weft_go(one_cell, &cell[i]), 0);
    }
    for (int i = 0; i < CELLS; i++)
        test_until(parked_on(&cell[i].s) == 1);
    for (int i = CELLS - 1; i > 0; i--) {
        int j = (int)rng_below(&r, (uint32_t)i + 1), t = turn[i];
        turn[i] = turn[j];
        turn[j] = t;
    }
    for (int i = 0; i < CELLS; i++) {
        weft_sema_release(&cell[turn[i]].s, 1);
        cr_assert_eq(parked_on(&cell[turn[i]].s), 0);
        if (i % 100 == 0)
            for (int k = i + 1; k < CELLS; k += 37)
                cr_assert_eq(parked_on(&cell[turn[k]].s), 1);
    }
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < CELLS; i++)
        cr_assert_eq(cell[i].hits, 1);
}

Test(lot, thousands_of_addresses)
{
    uint64_t seed = test_seed();
    test_run_procs(2, lot, &seed);
}

/* Fibers that wait when the runtime ends leave nothing behind: the next life finds clean queues. */
static weft_sema left;
static weft_mutex left_m;
static void wait_left(void *arg)
{
    if (arg == NULL)
        weft_sema_acquire(&left);
    else
        weft_mutex_lock(&left_m);
    cr_assert(false);
}
static void leave(void *arg)
{
    (void)arg;
    left = (weft_sema){ 0 };
    left_m = (weft_mutex){ 0 };
    weft_mutex_lock(&left_m);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(weft_go(wait_left, i % 2 ? &left : NULL), 0);
    test_until(parked_on(&left) == 5 && parked_on(&left_m) == 5);
}

Test(lot, is_empty_in_the_next_life)
{
    for (int i = 0; i < 5; i++)
        test_run_procs(2, leave, NULL);
}
