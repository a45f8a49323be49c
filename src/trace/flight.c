/* The flight recorder: a user of the trace (api.h) that reads it into memory (ring.c), and writes it out when asked, when a trigger fires, or when the
 * process crashes (crash.c).
 *
 *      switcher --> ring: the last generations <-- snapshot: trace_advance, then what is kept, to the caller's writer
 *         |                                    <-- crash
 *       bell --> watcher, a helper: looks for triggers, calls the host's `triggered`, which asks for a snapshot
 *
 * One start, stop or snapshot at a time each: `state` and `writing` say so, under a lock that is held for nothing else. A stop waits until nobody writes.
 * Whatever waits does so outside the runtime, a fiber without its processor, and a thread of the host away (call_away), as in api.c. When the runtime
 * ends, fibers are gone that may have been in the middle of something; it is undone as it lies.
 *
 * Triggers. That the world was stopped for too long, and that the heap is too large, is heard from probe points, which note it and ring the bell. How
 * long fibers waited is read off each generation (watch.c). One trigger at a time, at most one in every_ns; those that come meanwhile are counted. */
#include "trace/flight.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <weft/sched.h>
#include <weft/sync.h>
#include <weft/trace.h>
#include "base/lock.h"
#include "base/probe.h"
#include "os/futex.h"
#include "prof/helper.h"
#include "sched/sched.h"
#include "trace/api.h"
#include "trace/crash.h"
#include "trace/ring.h"
#include "trace/watch.h"

#define AGE_NS (10 * WEFT_SECOND)
#define BYTES ((size_t)10 << 20)
#define EVERY_NS (60 * WEFT_SECOND)
#define GENERATIONS 4u     /* as many, at least, fill the memory allowed: so it is exceeded by a quarter, or by what a small generation takes */
#define GENERATION_BUFS 64u /* it is no smaller */

enum { OFF, STARTING, ON, STOPPING };

static struct {
    struct lock lock;         /* state, writing, stats */
    w_u32 state;              /* futex. Written under lock; read as a hint without */
    bool writing;
    uint64_t life;            /* counts ends of the runtime: whose snapshot was under way then does not end another's */
    W_PTR(struct fiber) writer; /* whose writer is being called */
    w_u32 written;            /* futex: grows when writing ends */
    weft_flight_stats stats;  /* of what this file counts */
    weft_flight_opts opts;    /* fixed while not OFF */
    /* the watcher; its probes */
    bool watched;
    struct helper watcher;
    bool listens;
    w_u32 bell, ends;
    w_u64 stopped_ns;         /* the longest that was too long, and that nobody has looked at yet */
    w_u64 heap_bytes;         /* likewise */
    w_u32 heap_above;
} flight = { .lock = LOCK_INIT(RANK_LEAF) };

/* ---- outside the runtime ----------------------------------------------------------------------------------------- */

/* NULL: no runtime (*err). */
static struct m *leave(int *err)
{
    struct m *m = rt_enter_try();
    if (m == NULL) {
        *err = load_acq(&sched.running) != 0 ? -ENOMEM : -ESRCH; /* acq: as in weft_attach */
        return NULL;
    }
    if (m->foreign)
        call_away(m);
    rt_leave(m);
    weft_blocking_begin();
    return m;
}

static void come_back(void)
{
    weft_blocking_end();
    struct m *m = m_self();
    if (m->foreign)
        call_back(m);
}

static bool change_state(uint32_t from, uint32_t to)
{
    lock_take(&flight.lock);
    bool ok = load_rlx(&flight.state) == from; /* rlx: under the lock */
    if (ok)
        store_rlx(&flight.state, to);
    lock_drop(&flight.lock);
    return ok;
}

/* The watcher is no thread of the runtime's, and must not become one. */
static bool on_watcher(void) { return flight.watched && pthread_equal(pthread_self(), flight.watcher.thread); }

/* ---- snapshots ------------------------------------------------------------------------------------------------------ */

static int writing_begin(uint64_t *life)
{
    lock_take(&flight.lock);
    int err = load_rlx(&flight.state) != ON ? -ESRCH : flight.writing ? -EBUSY : 0; /* rlx: under the lock */
    if (err == 0)
        flight.writing = true;
    *life = flight.life;
    lock_drop(&flight.lock);
    return err;
}

static void writing_end(uint64_t life, int err)
{
    lock_take(&flight.lock);
    if (life == flight.life) {
        flight.writing = false;
        store_rlx(&flight.writer, NULL); /* rlx: under the lock */
        flight.stats.snapshots += err == 0;
        flight.stats.failed += err != 0;
    }
    add_rlx(&flight.written, 1); /* rlx: likewise */
    lock_drop(&flight.lock);
    os_futex_wake(&flight.written, INT_MAX);
}

/* Nobody writes any more. */
static void writing_wait(void)
{
    for (;;) {
        lock_take(&flight.lock);
        bool writing = flight.writing;
        uint32_t seen = load_rlx(&flight.written); /* rlx: under the lock */
        lock_drop(&flight.lock);
        if (!writing)
            return;
        os_futex_wait(&flight.written, seen, -1);
    }
}

/* What is kept up to now. */
static struct ring_view *view_now(int *err)
{
    bool inside = !on_watcher();
    if (inside && leave(err) == NULL)
        return NULL;
    trace_advance();
    struct ring_view *v = ring_hold();
    if (inside)
        come_back();
    *err = v == NULL ? -ENOMEM : 0;
    return v;
}

int weft_flight_recorder_snapshot(weft_writer *w, void *ctx)
{
    uint64_t bytes = 0, life;
    int err = w == NULL ? -EINVAL : writing_begin(&life);
    while (err == -EBUSY && on_watcher()) { /* what it is for must not be lost to somebody else's */
        writing_wait();
        err = writing_begin(&life);
    }
    if (err != 0)
        return err;
    struct ring_view *v = view_now(&err);
    if (v != NULL) {
        if (m_self() != NULL)
            store_rlx(&flight.writer, m_self()->cur); /* rlx: nobody else writes */
        err = ring_write(v, w, ctx, &bytes); /* as a call of the caller's own: it may do what it likes */
        ring_put(v);
    }
    writing_end(life, err);
    return err;
}

/* ---- triggers ---------------------------------------------------------------------------------------------------------- */

static void ring_bell(void)
{
    add_rlx(&flight.bell, 1); /* rlx: what it is about is looked at with acq, or read again */
    os_futex_wake(&flight.bell, 1);
}

static void heard(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    (void)arg;
    (void)c;
    if (id == PROBE_world_start && (int64_t)b > flight.opts.stop_ns) {
        if (load_rlx(&flight.stopped_ns) < b) /* rlx: one stop at a time */
            store_rlx(&flight.stopped_ns, b);
        ring_bell();
    }
    if (id == PROBE_heap_live && a <= flight.opts.heap_bytes && load_rlx(&flight.heap_above) != 0) /* rlx, and below: a flag */
        store_rlx(&flight.heap_above, 0);
    if (id == PROBE_heap_live && a > flight.opts.heap_bytes && load_rlx(&flight.heap_above) == 0 && cas_rlx(&flight.heap_above, 0, 1)) {
        store_rlx(&flight.heap_bytes, a);
        ring_bell();
    }
}

static void fire(const weft_flight_event *e, int64_t *last_ns)
{
    int64_t now = os_now_ns();
    bool now_or_not = *last_ns == 0 || now - *last_ns >= flight.opts.every_ns;
    lock_take(&flight.lock);
    flight.stats.suppressed += !now_or_not;
    flight.stats.triggers[e->why] += now_or_not;
    lock_drop(&flight.lock);
    if (!now_or_not)
        return;
    flight.opts.triggered(flight.opts.arg, e);
    *last_ns = os_now_ns();
}

/* Generations that have not been searched yet. */
static struct watch_found search(struct watch *w, uint32_t *last)
{
    struct watch_found most = { 0 };
    struct ring_view *v = ring_hold();
    for (uint32_t i = 0; v != NULL && i < v->n; i++) {
        struct watch_found found = { 0 };
        uint32_t number = ring_number(v, i);
        if ((int32_t)(number - *last) <= 0)
            continue;
        bool skipped = *last != 0 && number != *last + 1;
        *last = number;
        int err = w != NULL ? watch_generation(w, number, ring_bufs(v, i), &found) : -ENOMEM;
        if (err != 0 || skipped) {
            lock_take(&flight.lock);
            flight.stats.unwatched++;
            lock_drop(&flight.lock);
        }
        if (found.ns > most.ns)
            most = found;
    }
    ring_put(v);
    return most;
}

static void watcher_main(void *arg)
{
    struct watch *w = flight.opts.runnable_ns > 0 ? watch_new(w_max(flight.opts.bytes, BYTES)) : NULL;
    uint32_t last = 0;
    int64_t last_ns = 0;
    (void)arg;
    while (load_acq(&flight.ends) == 0) { /* acq: rel in watcher_stop */
        uint32_t seen = load_acq(&flight.bell);
        uint64_t ns = xchg_acq(&flight.stopped_ns, 0), heap = xchg_acq(&flight.heap_bytes, 0);
        if (ns != 0)
            fire(&(weft_flight_event){ WEFT_FLIGHT_STOP, ns, 0 }, &last_ns);
        if (heap != 0)
            fire(&(weft_flight_event){ WEFT_FLIGHT_HEAP, heap, 0 }, &last_ns);
        struct watch_found found = flight.opts.runnable_ns > 0 ? search(w, &last) : (struct watch_found){ 0 };
        if ((int64_t)found.ns > flight.opts.runnable_ns)
            fire(&(weft_flight_event){ WEFT_FLIGHT_RUNNABLE, found.ns, found.fiber }, &last_ns);
        os_futex_wait(&flight.bell, seen, -1);
    }
    watch_free(w);
}

static void watcher_stop(void)
{
    if (flight.listens)
        probe_unlisten(heard, NULL);
    flight.listens = false;
    if (!flight.watched)
        return;
    store_rel(&flight.ends, 1); /* rel: acq in watcher_main */
    ring_bell();
    helper_join(&flight.watcher);
    flight.watched = false;
}

static int watcher_start(void)
{
    const weft_flight_opts *o = &flight.opts;
    uint64_t mask = (o->stop_ns > 0 ? 1ull << PROBE_world_start : 0) | (o->heap_bytes > 0 ? 1ull << PROBE_heap_live : 0);
    if (mask == 0 && o->runnable_ns <= 0)
        return 0;
    store_rlx(&flight.ends, 0); /* rlx, and below: helper_start publishes */
    store_rlx(&flight.stopped_ns, 0);
    store_rlx(&flight.heap_bytes, 0);
    store_rlx(&flight.heap_above, 0);
    flight.watcher = (struct helper){ .fn = watcher_main, .flags = HELPER_HOSTS_FILES };
    int err = helper_start(&flight.watcher);
    flight.watched = err == 0;
    if (err == 0 && mask != 0) {
        flight.listens = probe_listen(mask, heard, NULL) == 0;
        err = flight.listens ? 0 : -EAGAIN;
    }
    return err;
}

/* ---- start and stop ---------------------------------------------------------------------------------------------------- */

static int options(const weft_flight_opts *o)
{
    if (o != NULL && (o->size != sizeof *o || o->age_ns < 0 || o->stop_ns < 0 || o->runnable_ns < 0 || o->every_ns < 0 || o->crash_fd < -1))
        return -EINVAL;
    if (o != NULL && o->triggered == NULL && (o->stop_ns != 0 || o->runnable_ns != 0 || o->heap_bytes != 0))
        return -EINVAL;
    return 0;
}

static void set_options(const weft_flight_opts *o)
{
    flight.opts = o != NULL ? *o : (weft_flight_opts)WEFT_FLIGHT_OPTS_INIT;
    flight.opts.age_ns = flight.opts.age_ns != 0 ? flight.opts.age_ns : AGE_NS;
    flight.opts.bytes = flight.opts.bytes != 0 ? flight.opts.bytes : BYTES;
    flight.opts.every_ns = flight.opts.every_ns != 0 ? flight.opts.every_ns : EVERY_NS;
    lock_take(&flight.lock);
    flight.stats = (weft_flight_stats){ 0 };
    lock_drop(&flight.lock);
}

/* Generations as small as the memory for them wants it. */
static void cut_smaller(void)
{
    size_t bufs = w_max(flight.opts.bytes / GENERATIONS / TRACE_BUF_BYTES, (size_t)GENERATION_BUFS);
    store_rlx(&trace.soft_now, (uint32_t)w_min(bufs, (size_t)trace.soft_bufs)); /* rlx: hint. soft_bufs is fixed while the trace is in use */
}

/* Outside the runtime; undoes what there is of it. */
static void take_down(void)
{
    crash_disarm();
    watcher_stop();
    writing_wait();
    ring_close();
    store_rlx(&trace.soft_now, trace.soft_bufs); /* rlx: hint */
}

static int set_up(void)
{
    int err = ring_open(flight.opts.bytes, flight.opts.age_ns, &flight.bell);
    if (err == 0) {
        cut_smaller();
        err = watcher_start();
    }
    if (err == 0 && flight.opts.crash_fd >= 0)
        err = crash_arm(flight.opts.crash_fd);
    if (err != 0)
        take_down();
    return err;
}

int weft_flight_recorder_start(const weft_flight_opts *opts)
{
    int err = options(opts);
    if (err != 0)
        return err;
    if (!change_state(OFF, STARTING))
        return load_rlx(&flight.state) == ON ? -EALREADY : -EBUSY; /* rlx: as of about then */
    set_options(opts);
    if ((err = trace_use()) == 0) {
        if (leave(&err) != NULL) {
            err = set_up();
            come_back();
        }
        if (err != 0)
            trace_unuse();
    }
    change_state(STARTING, err == 0 ? ON : OFF);
    return err;
}

int weft_flight_recorder_stop(void)
{
    int err;
    struct m *m = m_self();
    if (on_watcher() || (m != NULL && m->cur != NULL && m->cur == load_rlx(&flight.writer))) /* rlx: if it is us, we wrote it */
        return -EDEADLK;
    if (!change_state(ON, STOPPING))
        return load_rlx(&flight.state) == OFF ? -ESRCH : -EBUSY; /* rlx: as of about then */
    if (leave(&err) == NULL) /* the runtime has ended meanwhile, and with it the recorder */
        return -ESRCH;
    take_down();
    come_back();
    trace_unuse();
    change_state(STOPPING, OFF);
    return 0;
}

int weft_flight_recorder_stats(weft_flight_stats *out)
{
    if (out == NULL || out->size != sizeof *out)
        return -EINVAL;
    struct ring_stats r = ring_stats();
    lock_take(&flight.lock);
    *out = flight.stats;
    lock_drop(&flight.lock);
    out->size = sizeof *out;
    out->bytes = r.bytes;
    out->most_bytes = r.most_bytes;
    out->generations = r.generations;
    out->lost = r.lost;
    return 0;
}

bool flight_limits(int64_t *age_ns, uint64_t *bytes)
{
    lock_take(&flight.lock);
    bool on = load_rlx(&flight.state) == ON; /* rlx: under the lock */
    *age_ns = on ? flight.opts.age_ns : 0;
    *bytes = on ? flight.opts.bytes : 0;
    lock_drop(&flight.lock);
    return on;
}

/* ---- the runtime's end, and forks ------------------------------------------------------------------------------------------ */

void flight_end(void)
{
    lock_take(&flight.lock);
    flight.writing = false; /* a fiber that is gone, or a thread of the host that holds what it writes */
    flight.life++;
    lock_drop(&flight.lock);
    if (load_rlx(&flight.state) != OFF) /* rlx: nobody else is inside */
        take_down();
    store_rlx(&flight.state, OFF);
}

void flight_after_fork(void)
{
    if (flight.listens)
        probe_unlisten(heard, NULL);
    memset(&flight, 0, sizeof flight);
    lock_init(&flight.lock, RANK_LEAF);
    ring_after_fork();
    crash_after_fork();
}
