/* For tests of leaks that a collection proves: fibers that wait, and what the look says of them. */
#ifndef LEAK_TEST_H
#define LEAK_TEST_H

#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sched/leaked.h"
#include "sched/stack.h"

#define NOINLINE __attribute__((noinline))

/* What is waited for, and what leads on. An object of the heap. */
#define LEADS 4
struct node {
    weft_chan *chan;
    weft_mutex mutex;
    weft_rwmutex rw;
    weft_waitgroup group;
    weft_cond cond;
    weft_sema sema;
    struct node *to[LEADS];
};

#define WAITS(X) X(SEND) X(RECV) X(SELECT) X(SELECT_MANY) X(MUTEX) X(RLOCK) X(WLOCK) X(GROUP) X(GROUP_SECOND) X(COND) X(SEMA)
enum wait {
#define X(name) name,
    WAITS(X)
#undef X
    WAITS_COUNT
};

/* What a fiber is started with; an object of the heap too, so it holds what it names while it lives. */
struct job { enum wait wait; struct node *on, *and, *holds[LEADS]; int64_t deadline; };

static NOINLINE __attribute__((unused)) struct node *node_new(void)
{
    struct node *n = weft_alloc(sizeof *n);
    n->chan = weft_chan_make(sizeof(int), 0);
    weft_mutex_lock(&n->mutex);
    weft_rwmutex_lock(&n->rw);
    weft_waitgroup_add(&n->group, 1);
    return n;
}

static inline void wait_many(struct job *j)
{
    weft_case cases[40];
    int v;
    for (int i = 0; i < 40; i++)
        cases[i] = (weft_case){ .op = WEFT_RECV, .chan = i % 2 ? j->on->chan : j->and->chan, .elem = &v };
    weft_select_until(cases, 40, j->deadline);
}

static inline void waits(void *arg)
{
    struct job *j = arg;
    int v = 0;
    weft_mutex own = { 0 };
    switch (j->wait) {
    case SEND:
        weft_chan_send_until(j->on->chan, &v, j->deadline);
        break;
    case RECV:
        weft_chan_recv_until(j->on->chan, &v, j->deadline);
        break;
    case SELECT: {
        weft_case two[2] = { { .op = WEFT_RECV, .chan = j->on->chan, .elem = &v }, { .op = WEFT_SEND, .chan = j->and->chan, .elem = &v } };
        weft_select_until(two, 2, j->deadline);
        break;
    }
    case SELECT_MANY:
        wait_many(j);
        break;
    case MUTEX:
        (void)!weft_mutex_lock_until(&j->on->mutex, j->deadline);
        break;
    case RLOCK:
        (void)!weft_rwmutex_rlock_until(&j->on->rw, j->deadline);
        break;
    case WLOCK:
        (void)!weft_rwmutex_lock_until(&j->on->rw, j->deadline);
        break;
    case GROUP: case GROUP_SECOND:
        weft_waitgroup_wait_until(&j->on->group, j->deadline);
        break;
    case COND:
        weft_mutex_lock(&own);
        weft_cond_wait_until(&j->on->cond, &own, j->deadline);
        weft_mutex_unlock(&own);
        break;
    case SEMA:
        weft_sema_acquire_until(&j->on->sema, j->deadline);
        break;
    default:
        abort();
    }
    weft_keep_alive(j);
}

/* Starts one that waits so; its id. */
static NOINLINE __attribute__((unused)) uint64_t start_waiting(struct job job)
{
    struct job *j = weft_alloc(sizeof *j);
    uint64_t id;
    *j = job;
    weft_go_opts opts = { .size = sizeof opts, .id = &id, .name = "waits" };
    cr_assert_eq(weft_go_opts_run(waits, j, &opts), 0);
    return id;
}

/* Those on their way there may wait for a processor, or collect. */
static inline w_no_sanitize void count_waiting(struct fiber *f, void *n)
{
    if (load_acq(&f->state) == FIBER_WAITING && f->why != WAIT_PROC && f->why != WAIT_NONE && f->name != NULL && strcmp(f->name, "waits") == 0)
        ++*(long *)n;
}

static inline long waiting(void)
{
    long n = 0;
    stack_each(0, 1, count_waiting, &n);
    return n;
}

/* So many wait. */
static inline void all_wait(long n) { test_until(waiting() == n); }

static NOINLINE __attribute__((unused)) long look_now(void)
{
    uint64_t n = 12345;
    rt_enter();
    int err = leaked_find(&n);
    rt_leave(m_self());
    cr_assert_eq(err, 0);
    cr_assert_eq(n, leaked_count());
    return (long)n;
}

/* A look; how many were found. Its frames lie in what was wiped. */
static NOINLINE __attribute__((unused)) long look(void)
{
    test_wipe_stack();
    return look_now();
}

/* Old copies of addresses lie in the frames of code that is not optimised, or that a sanitizer has filled up: of those who have leaked some are missed
 * then. Nobody else is ever found. */
static inline bool all_found(long n, long leaked)
{
#ifdef WEFT_CHECKS
    return n <= leaked;
#else
    return n == leaked || (test_is_slow() && n < leaked);
#endif
}

struct by_id { uint64_t id; bool leaked; };
static inline void find_by_id(struct fiber *f, void *arg)
{
    struct by_id *b = arg;
    if (load_acq(&f->state) == FIBER_WAITING && f->id == b->id)
        b->leaked = leaked_is(f);
}

static inline bool is_leaked(uint64_t id)
{
    struct by_id b = { .id = id };
    stack_each(0, 1, find_by_id, &b);
    return b.leaked;
}

#endif
