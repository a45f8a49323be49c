/* The mutex: exclusion, order under starvation, deadlines, misuse. */
#include "waiting.h"
#include "base/rng.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- exclusion ------------------------------------------------------------------------------------------------------ */

struct shared { weft_mutex m; weft_waitgroup wg; uint64_t a, b; int inside, each; uint64_t timeouts, seed; };

/* a and b are equal outside; inside nobody else may be. */
static void touch(struct shared *s, bool stay)
{
    cr_assert_eq(__atomic_fetch_add(&s->inside, 1, __ATOMIC_RELAXED), 0, "two are inside");
    cr_assert_eq(s->a, s->b);
    s->a++;
    if (stay)
        weft_yield();
    s->b++;
    __atomic_fetch_sub(&s->inside, 1, __ATOMIC_RELAXED);
}

static void contender(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < s->each; i++) {
        weft_mutex_lock(&s->m);
        touch(s, i % 16 == 0);
        weft_mutex_unlock(&s->m);
    }
}

static void exclusion(void *arg)
{
    (void)arg;
    struct shared s = { .each = 3000 };
    for (int i = 0; i < 10; i++)
        cr_assert_eq(weft_waitgroup_go(&s.wg, contender, &s), 0);
    weft_waitgroup_wait(&s.wg);
    cr_assert_eq(s.a, 10u * 3000);
    cr_assert_eq(s.b, 10u * 3000);
    cr_assert_eq(s.m.state, 0, "nothing is left in the word");
}

Test(mutex, one_at_a_time)
{
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, exclusion, NULL);
}

/* All ways of locking, with deadlines around the time it takes. */
static void mixed(void *arg)
{
    struct shared *s = arg;
    struct rng r;
    rng_seed(&r, s->seed ^ weft_fiber_id());
    for (int i = 0; i < s->each; i++) {
        switch (rng_below(&r, 4)) {
        case 0:
            weft_mutex_lock(&s->m);
            break;
        case 1:
            if (!weft_mutex_trylock(&s->m))
                continue;
            break;
        default:
            if (weft_mutex_lock_until(&s->m, weft_now() + rng_below(&r, 60000)) != 0) {
                __atomic_fetch_add(&s->timeouts, 1, __ATOMIC_RELAXED);
                continue;
            }
        }
        touch(s, rng_below(&r, 8) == 0);
        if (rng_below(&r, 200) == 0)
            weft_sleep(50000);
        weft_mutex_unlock(&s->m);
    }
}

static void mixed_run(void *arg)
{
    struct shared s = { .each = 1500, .seed = *(uint64_t *)arg };
    for (int i = 0; i < 8; i++)
        cr_assert_eq(weft_waitgroup_go(&s.wg, mixed, &s), 0);
    weft_waitgroup_wait(&s.wg);
    cr_assert_eq(s.a, s.b);
    cr_assert_gt(s.timeouts, 0);
    cr_assert_eq(s.m.state, 0, "nobody waits, so nothing is left in the word: %u", s.m.state);
    cr_assert(weft_mutex_trylock(&s.m));
    weft_mutex_unlock(&s.m);
}

Test(mutex, deadlines_and_tries_mixed)
{
    uint64_t seed = test_seed();
    for (int procs = 1; procs <= 8; procs *= 2)
        test_run_procs(procs, mixed_run, &seed);
}

/* ---- starvation ------------------------------------------------------------------------------------------------------- */

struct greed { weft_mutex m; weft_waitgroup wg; int stop, served; };

/* Holds the lock nearly all the time, and comes back at once. */
static void greedy(void *arg)
{
    struct greed *g = arg;
    while (!__atomic_load_n(&g->stop, __ATOMIC_ACQUIRE)) {
        weft_mutex_lock(&g->m);
        int64_t until = weft_now() + 100 * WEFT_MICROSECOND;
        while (weft_now() < until) {
        }
        weft_mutex_unlock(&g->m);
    }
}

static void modest(void *arg)
{
    struct greed *g = arg;
    for (int i = 0; i < 10; i++) {
        weft_sleep(100 * WEFT_MICROSECOND);
        weft_mutex_lock(&g->m);
        weft_mutex_unlock(&g->m);
        __atomic_fetch_add(&g->served, 1, __ATOMIC_RELAXED);
    }
}

static void starvation(void *arg)
{
    (void)arg;
    struct greed g = { 0 };
    weft_waitgroup others = { 0 };
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_waitgroup_go(&others, greedy, &g), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(weft_waitgroup_go(&g.wg, modest, &g), 0);
    weft_waitgroup_wait(&g.wg); /* without hand-over this takes for ever */
    cr_assert_eq(g.served, 50);
    __atomic_store_n(&g.stop, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&others);
}

Test(mutex, nobody_starves)
{
    test_run_each(starvation, NULL);
}

/* Those who have waited for long are served in order, and newcomers queue behind them. */
struct order { weft_mutex m; weft_waitgroup wg; int next, got[8]; };
struct order_one { struct order *o; int id; };

static void in_turn(void *arg)
{
    struct order_one *one = arg;
    weft_mutex_lock(&one->o->m);
    one->o->got[one->o->next++] = one->id;
    weft_mutex_unlock(&one->o->m);
}

static void order(void *arg)
{
    (void)arg;
    struct order o = { 0 };
    struct order_one one[8];
    weft_mutex_lock(&o.m);
    for (int i = 0; i < 8; i++) {
        one[i] = (struct order_one){ &o, i };
        cr_assert_eq(weft_waitgroup_go(&o.wg, in_turn, &one[i]), 0);
        test_until(parked_on(&o.m) == (size_t)i + 1);
    }
    /* The first is woken and loses to us again, until it has waited for long: then unlocking hands over to it. */
    for (int i = 0; i < 100 && o.next == 0; i++) {
        weft_mutex_unlock(&o.m);
        if (!weft_mutex_trylock(&o.m)) {
            weft_mutex_lock(&o.m);
            continue;
        }
        weft_sleep(500 * WEFT_MICROSECOND);
    }
    weft_mutex_unlock(&o.m);
    weft_waitgroup_wait(&o.wg);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(o.got[i], i, "fiber %d came as number %d", o.got[i], i);
}

Test(mutex, waiters_are_served_in_order) { test_run_procs(1, order, NULL); }

/* As long as the next one has waited for long too, the lock goes on from hand to hand: nobody can take it in between, not even who has just let go of
 * it. */
struct hands { weft_mutex m; weft_waitgroup wg; int taken; };

static void lock_twice(void *arg)
{
    struct hands *h = arg;
    weft_mutex_lock(&h->m);
    weft_mutex_unlock(&h->m);
    if (!weft_mutex_trylock(&h->m))
        return;
    h->taken++;
    weft_mutex_unlock(&h->m);
}

/* False: the first was given another processor when it was woken, and came before us. */
static bool hand_on(void)
{
    struct hands h = { 0 };
    weft_mutex_lock(&h.m);
    for (size_t i = 0; i < 8; i++) {
        cr_assert_eq(weft_waitgroup_go(&h.wg, lock_twice, &h), 0);
        test_until(parked_on(&h.m) == i + 1);
    }
    weft_sleep(2 * WEFT_MILLISECOND);
    weft_mutex_unlock(&h.m);
    bool lost = weft_mutex_trylock(&h.m);
    if (lost) {
        test_until(__atomic_load_n(&h.m.state, __ATOMIC_RELAXED) & 8); /* it has tried, and the lock is handed over from here on */
        weft_mutex_unlock(&h.m);
    }
    weft_waitgroup_wait(&h.wg);
    cr_assert_eq(h.m.state, 0);
    cr_assert(!lost || h.taken == 1, "%d got in between; only the last has nobody behind it", h.taken);
    return lost;
}

static void from_hand_to_hand(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100 && !hand_on(); i++) {
    }
}

Test(mutex, is_handed_on_while_others_have_waited_long) { test_run_procs(1, from_hand_to_hand, NULL); }

/* ---- deadlines -------------------------------------------------------------------------------------------------------- */

static void deadline(void *arg)
{
    (void)arg;
    weft_mutex m = { 0 };
    cr_assert_eq(weft_mutex_lock_until(&m, 1), 0, "free: a deadline in the past does not matter");
    int64_t at = weft_now() + 2 * WEFT_MILLISECOND;
    cr_assert_eq(weft_mutex_lock_until(&m, at), -ETIMEDOUT);
    cr_assert_geq(weft_now(), at);
    cr_assert_eq(weft_mutex_lock_until(&m, 1), -ETIMEDOUT);
    cr_assert(!weft_mutex_trylock(&m));
    weft_mutex_unlock(&m);
    cr_assert_eq(weft_mutex_lock_until(&m, 0), 0);
    weft_mutex_unlock(&m);
    cr_assert_eq(m.state, 0);
}

Test(mutex, deadline) { test_run(deadline, NULL); }

/* ---- freed after unlocking ---------------------------------------------------------------------------------------------- */

/* Each round two fibers lock a mutex of malloc's; whoever comes second frees it, while the first may not have returned from its unlock. Under
 * AddressSanitizer a touch afterwards is seen; without, the poison in the freed block is likely to upset the next rounds. */
struct mortal { weft_mutex m; int users; };
struct graves { weft_chan *c; weft_waitgroup wg; };

static void use(struct mortal *x)
{
    weft_mutex_lock(&x->m);
    bool last = --x->users == 0;
    weft_mutex_unlock(&x->m);
    if (last) {
        memset(x, 0xff, sizeof *x);
        free(x);
    }
}

static void mourner(void *arg)
{
    struct graves *g = arg;
    struct mortal *x;
    while (weft_chan_recv(g->c, &x) == 1)
        use(x);
}

static void freed(void *arg)
{
    (void)arg;
    struct graves g = { .c = weft_chan_make_noscan(sizeof(struct mortal *), 0) };
    for (int i = 0; i < 2; i++)
        cr_assert_eq(weft_waitgroup_go(&g.wg, mourner, &g), 0);
    for (int i = 0; i < 20000; i++) {
        struct mortal *x = calloc(1, sizeof *x);
        x->users = 3;
        cr_assert_eq(weft_chan_send(g.c, &x), 0);
        cr_assert_eq(weft_chan_send(g.c, &x), 0);
        use(x);
    }
    weft_chan_close(g.c);
    weft_waitgroup_wait(&g.wg);
}

Test(mutex, may_be_freed_by_who_unlocked_it_last)
{
    test_run_each(freed, NULL);
}

/* An unlocker may come to the lot when its mutex was freed long ago and the memory is something else, on which others wait. It must leave that
 * alone. */
struct heirs { union { weft_sema s; weft_rwmutex rw; weft_waitgroup wg; weft_cond c; weft_mutex m; } at; weft_mutex m; weft_waitgroup all; };

static void heir_sema(void *arg) { weft_sema_acquire(&((struct heirs *)arg)->at.s); }
static void heir_group(void *arg) { cr_assert_eq(weft_waitgroup_wait_until(&((struct heirs *)arg)->at.wg, weft_now() + 100 * WEFT_SECOND), 0); }
static void heir_reader(void *arg)
{
    struct heirs *h = arg;
    weft_rwmutex_rlock(&h->at.rw);
    weft_rwmutex_runlock(&h->at.rw);
}
static void heir_cond(void *arg)
{
    struct heirs *h = arg;
    weft_mutex_lock(&h->m);
    weft_cond_wait(&h->at.c, &h->m);
    weft_mutex_unlock(&h->m);
}

static void start_heirs(struct heirs *h, weft_fn *fn, enum lot_kind kind)
{
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(weft_waitgroup_go(&h->all, fn, h), 0);
        test_until(parked_as(&h->at, kind) == i + 1);
    }
    uint64_t before = h->at.s.state_;
    for (int i = 0; i < 3; i++)
        weft_mutex_unlock_slow(&h->at.m, 2); /* as if others had waited when it gave the mutex up */
    cr_assert_eq(parked_as(&h->at, kind), 2);
    cr_assert_eq(h->at.s.state_, before);
}

static void late_unlock(void *arg)
{
    (void)arg;
    struct heirs h = { 0 };
    start_heirs(&h, heir_sema, LOT_ANY);
    weft_sema_release(&h.at.s, 2);
    weft_waitgroup_wait(&h.all);

    h = (struct heirs){ 0 };
    cr_assert_eq(weft_waitgroup_add(&h.at.wg, 2), 0);
    start_heirs(&h, heir_group, LOT_ANY);
    cr_assert_eq(weft_waitgroup_add(&h.at.wg, -2), 0);
    weft_waitgroup_wait(&h.all);

    h = (struct heirs){ 0 };
    weft_rwmutex_lock(&h.at.rw);
    start_heirs(&h, heir_reader, LOT_READER);
    weft_rwmutex_unlock(&h.at.rw);
    weft_waitgroup_wait(&h.all);

    h = (struct heirs){ 0 };
    start_heirs(&h, heir_cond, LOT_ANY);
    weft_cond_broadcast(&h.at.c);
    weft_waitgroup_wait(&h.all);
}

Test(mutex, a_late_unlock_leaves_alone_what_came_after) { test_run(late_unlock, NULL); }

/* ---- misuse, host threads -------------------------------------------------------------------------------------------------- */

static void unlock_unlocked(void *arg)
{
    (void)arg;
    static weft_mutex m;
    weft_mutex_unlock(&m);
}
static void unlock_twice(void *arg)
{
    (void)arg;
    static weft_mutex m;
    weft_mutex_lock(&m);
    weft_mutex_unlock(&m);
    weft_mutex_unlock(&m);
}
static void run_it(void *arg) { test_run(*(weft_fn **)arg, NULL); }

Test(mutex, unlocking_what_is_not_locked_is_fatal)
{
    static struct test_output out;
    weft_fn *fn[] = { unlock_unlocked, unlock_twice };
    for (int i = 0; i < 2; i++) {
        test_fork(&out, run_it, &fn[i]);
        cr_assert_eq(out.term_signal, SIGABRT);
        cr_assert_not_null(strstr(out.text, "weft: fatal: unlock of unlocked mutex"), "%s", out.text);
    }
}

static void *host_contender(void *arg)
{
    contender(arg);
    return NULL;
}

static void with_threads(void *arg)
{
    (void)arg;
    struct shared s = { .each = 1000 };
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(weft_waitgroup_go(&s.wg, contender, &s), 0);
        cr_assert_eq(pthread_create(&t[i], NULL, host_contender, &s), 0);
    }
    weft_blocking_begin();
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    weft_waitgroup_wait(&s.wg);
    cr_assert_eq(s.a, 6000);
    cr_assert_eq(s.m.state, 0);
}

Test(mutex, host_threads_contend_too)
{
    test_run_procs(1, with_threads, NULL);
    test_run_procs(2, with_threads, NULL);
}
