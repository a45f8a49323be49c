/* weft/sync.h - channels, select, locks, waiting, time, contexts, pools.
 *
 * Contracts: Go's language specification (channels, select), sync, time, context. What Go panics on is an error here.
 * Every call that waits, but weft_once_do, has a form with a deadline (a time of weft_now(); 0: none), which gives -ETIMEDOUT.
 * All objects but channels, timers, contexts and pools are plain structs, zero-initialised, of the caller's; they must not be copied once used. */
#ifndef WEFT_SYNC_H
#define WEFT_SYNC_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- channels ----------------------------------------------------------------------------------- */

/* A channel is a collected object: there is nothing to free. */
typedef struct weft_chan weft_chan;

/* Elements of elem_size bytes (0 is fine), capacity buffered elements (0: unbuffered). The buffer is scanned
 * conservatively; the _noscan form promises elements without pointers. NULL: no memory, or the size overflows. */
WEFT_API weft_chan *weft_chan_make(size_t elem_size, size_t capacity);
WEFT_API weft_chan *weft_chan_make_noscan(size_t elem_size, size_t capacity);

/* Copies elem in or out. Waiters are served in order. c NULL blocks for ever (till the deadline). elem may be NULL: zeroes are sent, what is received
 * is dropped.
 * send: 0, -EPIPE (closed), -ETIMEDOUT.   recv: 1 (a value), 0 (closed and empty; *elem zeroed), -ETIMEDOUT. May block. */
WEFT_API int weft_chan_send(weft_chan *c, const void *elem);
WEFT_API int weft_chan_recv(weft_chan *c, void *elem);
WEFT_API int weft_chan_send_until(weft_chan *c, const void *elem, int64_t deadline);
WEFT_API int weft_chan_recv_until(weft_chan *c, void *elem, int64_t deadline);
/* Never block: -EAGAIN where the others would. */
WEFT_API int weft_chan_try_send(weft_chan *c, const void *elem);
WEFT_API int weft_chan_try_recv(weft_chan *c, void *elem);
/* 0, -EPIPE (closed already), -EINVAL (NULL). Wakes all waiters. */
WEFT_API int weft_chan_close(weft_chan *c);
WEFT_API size_t weft_chan_len(weft_chan *c);
WEFT_API size_t weft_chan_cap(weft_chan *c);

enum { WEFT_SEND = 1, WEFT_RECV = 2 };
typedef struct weft_case {
    int op;             /* WEFT_SEND or WEFT_RECV */
    weft_chan *chan;    /* NULL: this case is never ready */
    void *elem;         /* sent from or received into; may be NULL */
    int result;         /* out, of the chosen case: what weft_chan_send or _recv would return */
} weft_case;
/* Waits until one case can go on, does it, and returns its index; among several, one chosen uniformly. n may be 0: blocks for ever.
 * weft_select_default: -EAGAIN if none is ready. _until: -ETIMEDOUT. -EINVAL: bad op, or n above 65535.
 * -ENOMEM: no memory for more than 16 cases. May block; may collect, with more than 16 cases. */
WEFT_API int weft_select(weft_case *cases, size_t n);
WEFT_API int weft_select_default(weft_case *cases, size_t n);
WEFT_API int weft_select_until(weft_case *cases, size_t n, int64_t deadline);

/* ---- locks -------------------------------------------------------------------------------------- */

/* As sync.Mutex: spins a little, then queues; a waiter of more than 1 ms gets the lock handed over in order. Not recursive, not
 * bound to a fiber. Unlocking an unlocked mutex is fatal. May be locked by one fiber and unlocked by another. Whoever locked it last may free
 * it after unlocking, even if others have not quite returned from their unlocking. */
typedef struct weft_mutex { uint32_t state; } weft_mutex;
WEFT_API void weft_mutex_lock_slow(weft_mutex *m);
WEFT_API void weft_mutex_unlock_slow(weft_mutex *m, uint32_t state);
WEFT_API int weft_mutex_lock_until(weft_mutex *m, int64_t deadline) WEFT_MUST_CHECK; /* 0, -ETIMEDOUT */
WEFT_API bool weft_mutex_trylock(weft_mutex *m) WEFT_MUST_CHECK;

static inline void weft_mutex_lock(weft_mutex *m)
{
    uint32_t free_ = 0;
    if (!__atomic_compare_exchange_n(&m->state, &free_, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        weft_mutex_lock_slow(m);
}
static inline void weft_mutex_unlock(weft_mutex *m)
{
    uint32_t left = __atomic_sub_fetch(&m->state, 1, __ATOMIC_RELEASE);
    if (left != 0)
        weft_mutex_unlock_slow(m, left);
}

/* Many readers or one writer. A waiting writer keeps new readers out, and readers who wait while one writes come before the next writer, so neither
 * starves. Not recursive, also not for readers. Unlocking what is not locked is fatal. _until: 0, -ETIMEDOUT. */
typedef struct weft_rwmutex { uint32_t state_; } weft_rwmutex;
WEFT_API void weft_rwmutex_rlock(weft_rwmutex *rw);
WEFT_API void weft_rwmutex_runlock(weft_rwmutex *rw);
WEFT_API void weft_rwmutex_lock(weft_rwmutex *rw);
WEFT_API void weft_rwmutex_unlock(weft_rwmutex *rw);
WEFT_API int weft_rwmutex_rlock_until(weft_rwmutex *rw, int64_t deadline) WEFT_MUST_CHECK;
WEFT_API int weft_rwmutex_lock_until(weft_rwmutex *rw, int64_t deadline) WEFT_MUST_CHECK;
WEFT_API bool weft_rwmutex_tryrlock(weft_rwmutex *rw) WEFT_MUST_CHECK;
WEFT_API bool weft_rwmutex_trylock(weft_rwmutex *rw) WEFT_MUST_CHECK;

/* wait unlocks m, sleeps, locks m again; signal wakes the longest waiting, broadcast all; they wake nobody else, and nobody wakes by
 * itself. 0, -ETIMEDOUT (m is locked again in either case). */
typedef struct weft_cond { uint32_t waiters_; } weft_cond;
WEFT_API void weft_cond_wait(weft_cond *c, weft_mutex *m);
WEFT_API int weft_cond_wait_until(weft_cond *c, weft_mutex *m, int64_t deadline);
WEFT_API void weft_cond_signal(weft_cond *c);
WEFT_API void weft_cond_broadcast(weft_cond *c);

/* Waits until the counter is zero. add: 0, or -ERANGE if it would become negative or more than INT32_MAX (nothing is changed). done is add(-1).
 * wait returns once the counter has been zero, and whoever has returned from it may free the group. wait_until: 0, -ETIMEDOUT.
 * go: add(1), start a fiber that runs fn(arg), and done when it ends, also by weft_exit, after its deferred calls; 0 or what weft_go returns. The
 * group is a root of that fiber's. */
typedef struct weft_waitgroup { uint64_t state_; void *waiter_; } weft_waitgroup;
WEFT_API int weft_waitgroup_add(weft_waitgroup *wg, int delta);
WEFT_API int weft_waitgroup_done(weft_waitgroup *wg);
WEFT_API void weft_waitgroup_wait(weft_waitgroup *wg);
WEFT_API int weft_waitgroup_wait_until(weft_waitgroup *wg, int64_t deadline);
WEFT_API int weft_waitgroup_go(weft_waitgroup *wg, weft_fn *fn, void *arg);

/* Counting semaphore; waiters are served in order, and nobody overtakes them. acquire_until: 0, -ETIMEDOUT. A count above UINT32_MAX is fatal. */
typedef struct weft_sema { uint64_t state_; } weft_sema;
#define WEFT_SEMA_INIT(n) { (uint32_t)(n) }
WEFT_API void weft_sema_acquire(weft_sema *s);
WEFT_API int weft_sema_acquire_until(weft_sema *s, int64_t deadline);
WEFT_API bool weft_sema_try_acquire(weft_sema *s) WEFT_MUST_CHECK;
WEFT_API void weft_sema_release(weft_sema *s, uint32_t n);

/* Runs fn(arg) once, whoever comes first; the others wait until it is done. If fn ends the fiber by weft_exit, that counts as done. A call
 * for the same once from within fn never returns. */
typedef struct weft_once { uint32_t done; weft_mutex m; } weft_once;
WEFT_API void weft_once_do_slow(weft_once *o, weft_fn *fn, void *arg);
static inline void weft_once_do(weft_once *o, weft_fn *fn, void *arg)
{
    if (__atomic_load_n(&o->done, __ATOMIC_ACQUIRE) == 0)
        weft_once_do_slow(o, fn, arg);
}

/* ---- time --------------------------------------------------------------------------------------- */

/* A sleep, a deadline or a timer takes some 30 bytes while it waits; without memory for that the program ends with a line that says so. */

/* Not before ns nanoseconds; <= 0 returns at once. */
WEFT_API void weft_sleep(int64_t ns);
#define WEFT_MICROSECOND INT64_C(1000)
#define WEFT_MILLISECOND INT64_C(1000000)
#define WEFT_SECOND INT64_C(1000000000)

/* A timer sends the time (int64_t of weft_now(), when it was due or a little later) on its channel of capacity 1, once after ns, or each period_ns if
 * that is > 0 (a ticker: ticks nobody takes are dropped). One that nobody ever waited for costs nothing but its memory. A collected object: a timer that is
 * not reachable stops by itself. After stop or reset no old tick is received.
 * new: NULL without memory or with a negative period. stop: true if it was running. reset: the same, and it runs anew. */
typedef struct weft_timer weft_timer;
WEFT_API weft_timer *weft_timer_new(int64_t ns, int64_t period_ns);
/* The same, but runs fn(arg) on a fiber of its own each time. arg is a root while the timer runs. */
WEFT_API weft_timer *weft_timer_func(int64_t ns, int64_t period_ns, weft_fn *fn, void *arg);
WEFT_API weft_chan *weft_timer_chan(weft_timer *t);
WEFT_API bool weft_timer_stop(weft_timer *t);
WEFT_API bool weft_timer_reset(weft_timer *t, int64_t ns);

/* ---- contexts ------------------------------------------------------------------------------------ */

/* What a task hands on to those it starts: whether it is cancelled, till when it has time, and values. A collected object that does not
 * change but for being cancelled; NULL is the context without anything, which never is. Who derives a context keeps it alive until it is
 * cancelled, so cancel each that you make, also when all went well. Contract: Go's package context. All may be called from anywhere; none blocks;
 * those that make one may collect, and return NULL without memory. */
typedef struct weft_ctx weft_ctx;
/* One that can be cancelled, and is when its parent is. */
WEFT_API weft_ctx *weft_ctx_cancellable(weft_ctx *parent);
/* The same, and it is cancelled at deadline (a time of weft_now(); 0: none), if its parent's is not sooner anyway. */
WEFT_API weft_ctx *weft_ctx_until(weft_ctx *parent, int64_t deadline);
/* One with a value under a key: an address that is yours. NULL is no key. */
WEFT_API weft_ctx *weft_ctx_with(weft_ctx *parent, const void *key, void *value);
/* One with the parent's values only: for what is to go on when the parent is cancelled. */
WEFT_API weft_ctx *weft_ctx_detached(weft_ctx *parent);
/* When parent is cancelled (at once if it is), fn(arg) runs on a fiber of its own; NULL also for fn NULL. _stop: true: it will not run; false: it was
 * started, or stopped already, or c is none of these (NULL). weft_ctx_cancel of the returned context starts fn. */
WEFT_API weft_ctx *weft_ctx_after(weft_ctx *parent, weft_fn *fn, void *arg);
WEFT_API bool weft_ctx_after_stop(weft_ctx *c);

/* Cancels c and all that is derived from it; when it returns, all of them are. The first cause stays. 0, also if it was cancelled before; -EINVAL: c
 * cannot be cancelled by itself (NULL, of weft_ctx_with, _detached), or cause is not a negative errno. */
WEFT_API int weft_ctx_cancel(weft_ctx *c);
WEFT_API int weft_ctx_cancel_as(weft_ctx *c, int cause);
/* 0, -ECANCELED, or -ETIMEDOUT (the deadline passed). cause: what weft_ctx_cancel_as was given; else the same. */
WEFT_API int weft_ctx_err(const weft_ctx *c);
WEFT_API int weft_ctx_cause(const weft_ctx *c);
/* A channel that is closed when c is cancelled, for weft_select; NULL, which is never ready, if c cannot be. To sleep unless cancelled:
 * weft_chan_recv_until(weft_ctx_done(c), NULL, weft_now() + ns) == -ETIMEDOUT. */
WEFT_API weft_chan *weft_ctx_done(const weft_ctx *c);
/* When c will be cancelled, 0: not by time. Fits all _until calls. */
WEFT_API int64_t weft_ctx_deadline(const weft_ctx *c);
/* The value of the nearest context up from c that has one under that key; NULL: none. */
WEFT_API void *weft_ctx_get(const weft_ctx *c, const void *key);

/* ---- pools ---------------------------------------------------------------------------------------- */

/* Objects to use again instead of allocating them. What is in a pool may vanish at any time, as it does when two collections passed without its being
 * taken.
 * A collected object. Contract: Go's sync.Pool. */
typedef struct weft_pool weft_pool;
/* make(arg), which may be NULL, makes what get returns when the pool is empty. NULL: no memory. */
WEFT_API weft_pool *weft_pool_new(void *(*make)(void *arg), void *arg);
/* Some object that was put, mostly one that was put on this processor last; else what make returns, or NULL without it. Does not block, but make may.
 * May collect. */
WEFT_API void *weft_pool_get(weft_pool *pool);
/* x, which is a pointer into the heap (others are not looked after) and no longer the caller's. NULL is ignored. Does not block; may collect. */
WEFT_API void weft_pool_put(weft_pool *pool, void *x);

WEFT_END_DECLS
#endif
