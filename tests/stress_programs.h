/* Programs whose outcome is known whatever the order in which things happen: what the stress modes are tried on. Each checks what it can against a
 * model, with expect(), and comes to its end if no wake-up is lost. */
#ifndef WEFT_TEST_STRESS_PROGRAMS_H
#define WEFT_TEST_STRESS_PROGRAMS_H

#include "base/rng.h"
#include "test.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Not pthread_self(), which a compiler takes for constant. */
static w_noinline long thread_now(void) { return syscall(SYS_gettid); }

struct program {
    const char *name;
    weft_fn *fn; /* the main fiber; its argument is a struct rng to shape the program by */
};

/* What went wrong first; empty: nothing. */
static char stress_wrong[256];
static int stress_line; /* the expectation that was met last */

#define expect(cond)                                                                                  \
    ((cond) ? __atomic_store_n(&stress_line, __LINE__, __ATOMIC_RELAXED)                              \
            : (void)(stress_wrong[0] != 0 || snprintf(stress_wrong, sizeof stress_wrong, "line %d: %s", __LINE__, #cond)))

/* Several fibers may count at a time. */
static inline int64_t count(int64_t *n, int64_t by) { return __atomic_add_fetch(n, by, __ATOMIC_ACQ_REL); }
static inline int64_t counted(int64_t *n) { return __atomic_load_n(n, __ATOMIC_ACQUIRE); }

static inline void start(weft_waitgroup *wg, weft_fn *fn, void *arg) { expect(weft_waitgroup_go(wg, fn, arg) == 0); }

static inline void yield_some(struct rng *r)
{
    while (rng_below(r, 3) == 0)
        weft_yield();
}

/* ---- channels: each item arrives once, those of one sender in order -------------------------------------- */

enum { SENDERS = 4, RECEIVERS = 3, ITEMS = 12 };
struct item { int from, n; };
static struct {
    weft_chan *c;
    weft_waitgroup senders, receivers;
    int taken[SENDERS][ITEMS];
    uint64_t shape;
} flow;

static void flow_send(void *arg)
{
    struct item it = { (int)(intptr_t)arg, 0 };
    struct rng r = { flow.shape + (uint64_t)it.from };
    for (; it.n < ITEMS; it.n++) {
        yield_some(&r);
        expect(weft_chan_send(flow.c, &it) == 0);
    }
}

static void flow_receive(void *arg)
{
    struct item it;
    int last[SENDERS];
    (void)arg;
    memset(last, -1, sizeof last);
    while (weft_chan_recv(flow.c, &it) == 1) {
        expect(it.n > last[it.from]);
        last[it.from] = it.n;
        flow.taken[it.from][it.n]++;
    }
}

static void program_chan(void *arg)
{
    struct rng *r = arg;
    memset(&flow, 0, sizeof flow);
    flow.shape = rng_next(r);
    flow.c = weft_chan_make_noscan(sizeof(struct item), rng_below(r, 4));
    for (intptr_t i = 0; i < RECEIVERS; i++)
        start(&flow.receivers, flow_receive, (void *)i);
    for (intptr_t i = 0; i < SENDERS; i++)
        start(&flow.senders, flow_send, (void *)i);
    weft_waitgroup_wait(&flow.senders);
    expect(weft_chan_close(flow.c) == 0);
    expect(weft_chan_send(flow.c, &(struct item){ 0, 0 }) == -EPIPE);
    weft_waitgroup_wait(&flow.receivers);
    for (int i = 0; i < SENDERS; i++)
        for (int n = 0; n < ITEMS; n++)
            expect(flow.taken[i][n] == 1);
}

/* ---- select: values wander, none is lost or doubled ---------------------------------------------------------- */

enum { ROOMS = 3, WALKERS = 5, WALKS = 10 };
static struct {
    weft_chan *room[ROOMS], *over;
    weft_waitgroup walkers, guards;
    uint64_t shape;
    int64_t sent, received;
} walk;

static void walk_send(void *arg)
{
    struct rng r = { walk.shape + (uintptr_t)arg };
    for (int i = 0; i < WALKS; i++) {
        int64_t v = (int64_t)(uintptr_t)arg * 100 + i, back[ROOMS];
        weft_case cs[ROOMS + 1];
        size_t n = 0;
        for (uint32_t k = 0; k < ROOMS; k++) /* both ways of one channel at times */
            cs[n++] = (weft_case){ .op = k == 0 || rng_below(&r, 3) != 0 ? WEFT_SEND : WEFT_RECV, .chan = walk.room[k], .elem = &back[k] };
        cs[n++] = (weft_case){ .op = WEFT_RECV, .chan = NULL };
        for (uint32_t k = 0; k < ROOMS; k++)
            back[k] = v;
        int got;
        if (rng_below(&r, 4) != 0)
            got = weft_select(cs, n);
        else
            while ((got = rng_below(&r, 2) ? weft_select_default(cs, n) : weft_select_until(cs, n, weft_now() + 30 * WEFT_MICROSECOND)) < 0) {
                expect(got == -EAGAIN || got == -ETIMEDOUT);
                weft_yield();
            }
        expect(got >= 0 && got < ROOMS);
        if (got < 0 || got >= ROOMS)
            return;
        if (cs[got].op == WEFT_SEND) {
            expect(cs[got].result == 0);
            count(&walk.sent, v);
        } else {
            expect(cs[got].result == 1);
            count(&walk.received, back[got]);
        }
    }
}

static void walk_receive(void *arg)
{
    weft_chan *c = walk.room[(uintptr_t)arg];
    int64_t v;
    weft_case cs[] = { { .op = WEFT_RECV, .chan = c, .elem = &v }, { .op = WEFT_RECV, .chan = walk.over } };
    for (;;) {
        int i = weft_select(cs, 2);
        expect(i == 0 ? cs[0].result == 1 : i == 1 && cs[1].result == 0);
        if (i != 0)
            return;
        count(&walk.received, v);
    }
}

static void program_select(void *arg)
{
    struct rng *r = arg;
    memset(&walk, 0, sizeof walk);
    walk.shape = rng_next(r);
    walk.over = weft_chan_make(0, 0);
    for (int i = 0; i < ROOMS; i++)
        walk.room[i] = weft_chan_make_noscan(sizeof(int64_t), rng_below(r, 2));
    for (intptr_t i = 0; i < ROOMS; i++)
        start(&walk.guards, walk_receive, (void *)i);
    for (intptr_t i = 0; i < WALKERS; i++)
        start(&walk.walkers, walk_send, (void *)i);
    weft_waitgroup_wait(&walk.walkers);
    expect(weft_chan_close(walk.over) == 0);
    weft_waitgroup_wait(&walk.guards);
    int64_t v;
    for (int i = 0; i < ROOMS; i++)
        while (weft_chan_try_recv(walk.room[i], &v) == 1)
            walk.received += v;
    expect(walk.sent == walk.received);
}

/* ---- locks: one writer or readers, and who gives up owns nothing --------------------------------------------- */

enum { LOCKERS = 6, ROUNDS = 8 };
static struct {
    weft_mutex m;
    weft_rwmutex rw;
    weft_sema sema;
    weft_waitgroup all;
    uint64_t shape;
    int inside, entered;
    int64_t readers, writers, admitted;
} locks;

static void lock_mutex(struct rng *r)
{
    switch (rng_below(r, 4)) {
    case 0:
        while (!weft_mutex_trylock(&locks.m))
            weft_yield();
        break;
    case 1:
        while (weft_mutex_lock_until(&locks.m, weft_now() + rng_below(r, 200000)) != 0)
            weft_yield();
        break;
    default:
        weft_mutex_lock(&locks.m);
    }
    expect(locks.inside == 0);
    locks.inside = 1;
    yield_some(r);
    locks.entered++;
    locks.inside = 0;
    weft_mutex_unlock(&locks.m);
}

static void lock_rw(struct rng *r)
{
    if (rng_below(r, 3) != 0) {
        if (rng_below(r, 4) != 0)
            weft_rwmutex_rlock(&locks.rw);
        else if (weft_rwmutex_rlock_until(&locks.rw, weft_now() + rng_below(r, 100000)) != 0)
            return;
        count(&locks.readers, 1);
        expect(counted(&locks.writers) == 0);
        yield_some(r);
        expect(counted(&locks.writers) == 0);
        count(&locks.readers, -1);
        weft_rwmutex_runlock(&locks.rw);
    } else {
        if (rng_below(r, 3) != 0)
            weft_rwmutex_lock(&locks.rw);
        else if (weft_rwmutex_lock_until(&locks.rw, weft_now() + rng_below(r, 100000)) != 0)
            return;
        expect(count(&locks.writers, 1) == 1 && counted(&locks.readers) == 0);
        yield_some(r);
        expect(count(&locks.writers, -1) == 0 && counted(&locks.readers) == 0);
        weft_rwmutex_unlock(&locks.rw);
    }
}

static void lock_sema(struct rng *r)
{
    if (rng_below(r, 4) != 0)
        weft_sema_acquire(&locks.sema);
    else if (weft_sema_acquire_until(&locks.sema, weft_now() + rng_below(r, 100000)) != 0)
        return;
    expect(count(&locks.admitted, 1) <= 2);
    yield_some(r);
    count(&locks.admitted, -1);
    weft_sema_release(&locks.sema, 1);
}

static void locker(void *arg)
{
    struct rng r = { locks.shape + (uintptr_t)arg };
    for (int i = 0; i < ROUNDS; i++) {
        lock_mutex(&r);
        lock_rw(&r);
        lock_sema(&r);
    }
}

static void program_locks(void *arg)
{
    memset(&locks, 0, sizeof locks);
    locks.shape = rng_next(arg);
    locks.sema = (weft_sema)WEFT_SEMA_INIT(2);
    for (intptr_t i = 0; i < LOCKERS; i++)
        start(&locks.all, locker, (void *)i);
    weft_waitgroup_wait(&locks.all);
    expect(locks.entered == LOCKERS * ROUNDS);
    expect(weft_mutex_trylock(&locks.m) && weft_rwmutex_trylock(&locks.rw));
    expect(weft_sema_try_acquire(&locks.sema) && weft_sema_try_acquire(&locks.sema) && !weft_sema_try_acquire(&locks.sema));
}

/* ---- conditions: a bounded buffer with as few signals as will do ------------------------------------------------ */

enum { ROOM = 2, MAKERS = 3, MADE = 10 };
static struct {
    weft_mutex m;
    weft_cond not_empty, not_full, over;
    weft_waitgroup all;
    int have[ROOM], n, taken, taken_sum, ended;
    uint64_t shape;
} buffer;

/* One signal for each item and each place: if it goes to somebody who has just given up, or to nobody who waits, the program stands still. */
static void buffer_make(void *arg)
{
    struct rng r = { buffer.shape + (uintptr_t)arg };
    for (int i = 1; i <= MADE; i++) {
        weft_mutex_lock(&buffer.m);
        while (buffer.n == ROOM)
            if (rng_below(&r, 3) != 0)
                weft_cond_wait(&buffer.not_full, &buffer.m);
            else
                (void)weft_cond_wait_until(&buffer.not_full, &buffer.m, weft_now() + rng_below(&r, 50000));
        buffer.have[buffer.n++] = i;
        yield_some(&r);
        weft_mutex_unlock(&buffer.m);
        weft_cond_signal(&buffer.not_empty);
    }
}

static void buffer_take(void *arg)
{
    struct rng r = { ~(buffer.shape + (uintptr_t)arg) };
    for (int i = 0; i < MADE; i++) {
        weft_mutex_lock(&buffer.m);
        while (buffer.n == 0)
            weft_cond_wait(&buffer.not_empty, &buffer.m);
        buffer.taken_sum += buffer.have[--buffer.n];
        buffer.taken++;
        yield_some(&r);
        weft_cond_signal(&buffer.not_full);
        weft_mutex_unlock(&buffer.m);
    }
    weft_mutex_lock(&buffer.m);
    if (++buffer.ended == MAKERS)
        weft_cond_broadcast(&buffer.over);
    while (buffer.ended < MAKERS)
        weft_cond_wait(&buffer.over, &buffer.m);
    weft_mutex_unlock(&buffer.m);
}

static void program_cond(void *arg)
{
    memset(&buffer, 0, sizeof buffer);
    buffer.shape = rng_next(arg);
    for (intptr_t i = 0; i < MAKERS; i++) {
        start(&buffer.all, buffer_take, (void *)i);
        start(&buffer.all, buffer_make, (void *)i);
    }
    weft_waitgroup_wait(&buffer.all);
    expect(buffer.taken == MAKERS * MADE && buffer.taken_sum == MAKERS * MADE * (MADE + 1) / 2 && buffer.n == 0);
}

/* ---- wait groups, once ---------------------------------------------------------------------------------------------- */

enum { WAITERS = 4, GENERATIONS = 5 };
static struct {
    weft_waitgroup work, waiters;
    weft_once once;
    weft_sema go;
    int ran;
    int64_t done, passed;
} meet;

static void meet_once(void *arg)
{
    (void)arg;
    meet.ran++;
    weft_yield();
    meet.ran++;
}

static void meet_work(void *arg)
{
    (void)arg;
    weft_once_do(&meet.once, meet_once, NULL);
    expect(meet.ran == 2);
    weft_yield();
    count(&meet.done, 1);
}

static void meet_wait(void *arg)
{
    (void)arg;
    if (weft_waitgroup_wait_until(&meet.work, weft_now() + 20 * WEFT_MICROSECOND) != 0)
        weft_waitgroup_wait(&meet.work);
    count(&meet.passed, 1);
}

static void program_meet(void *arg)
{
    (void)arg;
    memset(&meet, 0, sizeof meet);
    for (int g = 1; g <= GENERATIONS; g++) {
        for (int i = 0; i < WAITERS; i++)
            start(&meet.work, meet_work, NULL);
        for (int i = 0; i < WAITERS; i++)
            start(&meet.waiters, meet_wait, NULL);
        weft_waitgroup_wait(&meet.work);
        expect(counted(&meet.done) == g * WAITERS);
        weft_waitgroup_wait(&meet.waiters);
        expect(counted(&meet.passed) == g * WAITERS);
    }
    expect(weft_waitgroup_done(&meet.work) == -ERANGE);
}

/* ---- time: nobody wakes too early, a deadline and a value exclude each other ------------------------------------------- */

static int64_t long_nap_ns = 3 * WEFT_MILLISECOND; /* where time is drawn it may be as long as one likes */
enum { SLEEPERS = 6, NAPS = 5, RACES = 12 };
static struct {
    weft_waitgroup all;
    weft_chan *c;
    uint64_t shape;
    int64_t sent, got, fired, runs;
} naps;

static void nap(void *arg)
{
    struct rng r = { naps.shape + (uintptr_t)arg };
    for (int i = 0; i < NAPS; i++) {
        int64_t ns = rng_below(&r, 3) == 0 ? long_nap_ns : (int64_t)rng_below(&r, 300000), before = weft_now();
        weft_sleep(ns);
        expect(weft_now() >= before + ns);
    }
}

static void race_send(void *arg)
{
    struct rng r = { ~(naps.shape + (uintptr_t)arg) };
    for (int i = 0; i < RACES; i++) {
        if (weft_chan_send_until(naps.c, &i, weft_now() + rng_below(&r, 20000)) == 0)
            count(&naps.sent, 1);
        else
            weft_sleep(rng_below(&r, 20000));
    }
}

static void race_receive(void *arg)
{
    struct rng r = { naps.shape * 3 + (uintptr_t)arg };
    for (int i = 0, v; i < RACES; i++) {
        if (weft_chan_recv_until(naps.c, &v, weft_now() + rng_below(&r, 20000)) == 1)
            count(&naps.got, 1);
        yield_some(&r);
    }
}

static void fire(void *arg) { count(arg, 1); }

static void tick(void *arg)
{
    struct rng r = { naps.shape * 5 };
    (void)arg;
    weft_timer *t = weft_timer_new(rng_below(&r, 30000), 0), *f = weft_timer_func(rng_below(&r, 30000), 0, fire, &naps.fired);
    int64_t when, runs = 1;
    expect(t != NULL && f != NULL);
    for (int i = 0; i < NAPS; i++) {
        weft_sleep(rng_below(&r, 30000));
        if (!weft_timer_stop(t)) /* nobody has received: it was running, or its tick lay there */
            expect(i > 0);
        expect(weft_chan_try_recv(weft_timer_chan(t), &when) == -EAGAIN);
        int64_t asked = weft_now(), in = (int64_t)rng_below(&r, 30000);
        expect(!weft_timer_reset(t, in));
        expect(weft_chan_recv(weft_timer_chan(t), &when) == 1 && when >= asked + in);
        if (!weft_timer_reset(f, (int64_t)rng_below(&r, 30000)))
            runs++; /* it had fired */
    }
    if (weft_timer_stop(f))
        runs--;
    naps.runs = runs;
}

static void program_time(void *arg)
{
    struct rng *r = arg;
    memset(&naps, 0, sizeof naps);
    naps.shape = rng_next(r);
    naps.c = weft_chan_make_noscan(sizeof(int), 0);
    for (intptr_t i = 0; i < SLEEPERS; i++)
        start(&naps.all, nap, (void *)i);
    for (intptr_t i = 0; i < 2; i++) {
        start(&naps.all, race_send, (void *)i);
        start(&naps.all, race_receive, (void *)i);
    }
    start(&naps.all, tick, NULL);
    weft_waitgroup_wait(&naps.all);
    expect(naps.sent == naps.got);
    for (int i = 0; i < 1000 && counted(&naps.fired) != naps.runs; i++) /* the last may be runnable yet */
        weft_sleep(WEFT_MILLISECOND);
    expect(counted(&naps.fired) == naps.runs);
}

/* ---- threads: fibers locked to theirs talk to others -------------------------------------------------------------------- */

enum { LOCKED = 3, TALKS = 6 };
static struct {
    weft_chan *to, *fro;
    weft_waitgroup all;
} talk;

static void talk_locked(void *arg)
{
    uintptr_t v;
    (void)arg;
    expect(weft_lock_os_thread() == 0);
    long here = thread_now();
    while (weft_chan_recv(talk.to, &v) == 1) {
        expect(thread_now() == here);
        weft_yield();
        v++;
        expect(weft_chan_send(talk.fro, &v) == 0);
    }
    weft_unlock_os_thread();
}

static void program_threads(void *arg)
{
    (void)arg;
    memset(&talk, 0, sizeof talk);
    talk.to = weft_chan_make_noscan(sizeof(uintptr_t), 0);
    talk.fro = weft_chan_make_noscan(sizeof(uintptr_t), LOCKED);
    for (int i = 0; i < LOCKED; i++)
        start(&talk.all, talk_locked, NULL);
    for (uintptr_t i = 0, v, sum = 0; i < TALKS; i++, sum = 0) {
        for (v = 0; v < LOCKED; v++)
            expect(weft_chan_send(talk.to, &v) == 0);
        for (int k = 0; k < LOCKED; k++, sum += v)
            expect(weft_chan_recv(talk.fro, &v) == 1);
        expect(sum == LOCKED * (LOCKED + 1) / 2);
    }
    expect(weft_chan_close(talk.to) == 0);
    weft_waitgroup_wait(&talk.all);
}

/* ---- memory: what is reachable stays, what is not is finalized once -------------------------------------------------------- */

enum { GROWERS = 3, GROWN = 40 };
struct leaf { struct leaf *next; uintptr_t n; };
static struct {
    weft_waitgroup all;
    weft_chan *c;
    int64_t finalized;
} grown;

static void leaf_gone(void *obj, void *ctx)
{
    (void)ctx;
    expect(((struct leaf *)obj)->n < GROWN);
    ((struct leaf *)obj)->n = GROWN; /* a second time would be seen */
    count(&grown.finalized, 1);
}

static void grow_list(void *arg)
{
    struct leaf *list = NULL;
    (void)arg;
    for (uintptr_t i = 0; i < GROWN; i++) {
        struct leaf *l = weft_alloc(sizeof *l), *drop = weft_alloc(sizeof *drop);
        expect(l != NULL && drop != NULL);
        *l = (struct leaf){ list, i };
        list = l;
        drop->n = i;
        expect(weft_set_finalizer(drop, leaf_gone, NULL) == 0);
        if (i % 16 == 0)
            weft_gc();
    }
    expect(weft_chan_send(grown.c, &list) == 0);
}

static void program_memory(void *arg)
{
    (void)arg;
    memset(&grown, 0, sizeof grown);
    grown.c = weft_chan_make(sizeof(struct leaf *), 1);
    for (int i = 0; i < GROWERS; i++)
        start(&grown.all, grow_list, NULL);
    for (int i = 0; i < GROWERS; i++) {
        struct leaf *l = NULL;
        uintptr_t n = GROWN;
        expect(weft_chan_recv(grown.c, &l) == 1);
        for (; l != NULL; l = l->next)
            expect(l->n == --n);
        expect(n == 0);
    }
    weft_waitgroup_wait(&grown.all);
    expect(counted(&grown.finalized) <= GROWERS * GROWN);
}

/* ---- contexts: who is cancelled knows it when cancelling has returned, and all below too -------------------------------------- */

enum { BRANCHES = 3, TWIGS = 2, LEAVES = BRANCHES * TWIGS };
static struct {
    weft_ctx *root, *branch[BRANCHES];
    weft_waitgroup all;
    weft_chan *c;
    uint64_t shape;
    int64_t sent, got, ran, stopped;
} tree;

static void tree_after(void *arg)
{
    (void)arg;
    expect(weft_ctx_err(tree.root) != 0);
    count(&tree.ran, 1);
    expect(weft_waitgroup_done(&tree.all) == 0);
}

/* Sends or receives until it is cancelled. */
static void tree_leaf(void *arg)
{
    uintptr_t id = (uintptr_t)arg;
    struct rng r = { tree.shape + id };
    weft_ctx *up = tree.branch[id % BRANCHES];
    weft_ctx *c = rng_below(&r, 2) ? weft_ctx_until(up, weft_now() + rng_below(&r, 60000)) : weft_ctx_with(weft_ctx_cancellable(up), &tree, arg);
    expect(c != NULL);
    for (int64_t v = 1;;) {
        weft_case cs[] = { { WEFT_RECV, weft_ctx_done(c), NULL, 0 }, { id % 2 ? WEFT_SEND : WEFT_RECV, tree.c, &v, 0 } };
        int i = weft_select(cs, 2);
        if (i == 0) {
            expect(cs[0].result == 0);
            break;
        }
        expect(cs[1].result == (id % 2 ? 0 : 1));
        count(id % 2 ? &tree.sent : &tree.got, v);
    }
    int err = weft_ctx_err(c);
    expect(err == -ECANCELED || (err == -ETIMEDOUT && weft_now() >= weft_ctx_deadline(c)));
    expect(err == -ETIMEDOUT || weft_ctx_err(up) != 0);
    weft_ctx_cancel(c);
    expect(weft_ctx_err(c) == err);
}

static void program_ctx(void *arg)
{
    struct rng *r = arg;
    memset(&tree, 0, sizeof tree);
    tree.shape = rng_next(r);
    tree.c = weft_chan_make_noscan(sizeof(int64_t), rng_below(r, 2));
    tree.root = weft_ctx_cancellable(NULL);
    for (int i = 0; i < BRANCHES; i++)
        expect((tree.branch[i] = weft_ctx_cancellable(tree.root)) != NULL);
    for (intptr_t i = 0; i < LEAVES; i++)
        start(&tree.all, tree_leaf, (void *)i);
    weft_ctx *after[4];
    for (int i = 0; i < 4; i++) {
        expect(weft_waitgroup_add(&tree.all, 1) == 0);
        expect((after[i] = weft_ctx_after(tree.root, tree_after, NULL)) != NULL);
    }
    weft_sleep(rng_below(r, 60000));
    expect(weft_ctx_cancel_as(tree.branch[0], -EPIPE) == 0);
    expect(weft_ctx_cause(tree.branch[0]) == -EPIPE && weft_ctx_err(tree.root) == 0);
    for (int i = 0; i < 2; i++)
        if (weft_ctx_after_stop(after[i])) {
            tree.stopped++;
            expect(weft_waitgroup_done(&tree.all) == 0);
        }
    expect(tree.stopped == 2);
    expect(weft_ctx_cancel(tree.root) == 0);
    for (int i = 0; i < BRANCHES; i++)
        expect(weft_ctx_err(tree.branch[i]) == -ECANCELED && weft_chan_try_recv(weft_ctx_done(tree.branch[i]), NULL) == 0);
    expect(weft_ctx_cause(tree.branch[0]) == -EPIPE && !weft_ctx_after_stop(after[3]));
    weft_waitgroup_wait(&tree.all);
    int64_t v;
    while (weft_chan_try_recv(tree.c, &v) == 1)
        tree.got += v;
    expect(tree.sent == tree.got && tree.ran == 2);
}

/* ---- pools: nothing is lent to two at a time ---------------------------------------------------------------------------------------- */

enum { BORROWERS = 4, LOANS = 12 };
struct lent { struct lent *self; int64_t users; };
static struct {
    weft_pool *p;
    weft_waitgroup all;
    uint64_t shape;
    int64_t made;
} pool;

static void *lent_make(void *arg)
{
    struct lent *l = weft_alloc(sizeof *l);
    expect(arg == &pool && l != NULL);
    l->self = l;
    count(&pool.made, 1);
    weft_yield();
    return l;
}

static void borrow(void *arg)
{
    struct rng r = { pool.shape + (uintptr_t)arg };
    for (int i = 0; i < LOANS; i++) {
        struct lent *l[2];
        for (int k = 0; k < 2; k++) {
            l[k] = weft_pool_get(pool.p);
            expect(l[k] != NULL && l[k]->self == l[k] && count(&l[k]->users, 1) == 1);
        }
        yield_some(&r);
        if (rng_below(&r, 8) == 0)
            weft_gc();
        for (int k = 0; k < 2; k++) {
            expect(l[k]->self == l[k] && count(&l[k]->users, -1) == 0);
            weft_pool_put(pool.p, l[k]);
        }
    }
}

static void program_pool(void *arg)
{
    memset(&pool, 0, sizeof pool);
    pool.shape = rng_next(arg);
    expect((pool.p = weft_pool_new(lent_make, &pool)) != NULL);
    for (intptr_t i = 0; i < BORROWERS; i++)
        start(&pool.all, borrow, (void *)i);
    weft_waitgroup_wait(&pool.all);
    expect(counted(&pool.made) >= 2 && counted(&pool.made) <= 2 * BORROWERS * LOANS);
}

static const struct program programs[] = {
    { "chan", program_chan }, { "select", program_select },   { "locks", program_locks },   { "cond", program_cond }, { "meet", program_meet },
    { "time", program_time }, { "threads", program_threads }, { "memory", program_memory }, { "ctx", program_ctx },   { "pool", program_pool },
};

#endif
