/* Begin and end of the trace, and its threads.
 *
 *      weft_trace_start --> reader, its pump (a helper with the host's descriptors)      } as many as there are writers
 *             trace_use --> buffers, records, the switcher (a helper), first generation  } once, by the first user
 *
 * The switcher ends a generation every second, or when one is large (trace.due), or when asked to: `asked` counts wishes, `done` those that were
 * known when the last generation ended. It looks up symbols, takes memory, and waits for nobody but emitters, which do not wait.
 *
 * Calls are one at a time, under a lock that is taken outside the runtime (a fiber: between weft_blocking_begin and _end; a thread of the host: away,
 * see call_away), since its holder waits for threads and for the host's writer. When the runtime ends, threads of the host that are in a call are
 * waited for, and fibers are gone; so if the lock is held then, it is by a fiber that will not come back, and what it was about is undone as it
 * lies. */
#include "trace/api.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <weft/sched.h>
#include <weft/sync.h>
#include <weft/trace.h>
#include "base/offheap.h"
#include "os/futex.h"
#include "os/maps.h"
#include "prof/helper.h"
#include "prof/symbols.h"
#include "prof/trim.h"
#include "prof/walk.h"
#include "sched/machine.h"
#include "sched/report.h"
#include "trace/buffer.h"
#include "trace/flight.h"
#include "trace/hooks.h"
#include "trace/samples.h"
#include "trace/stream.h"

#define GENERATION_NS WEFT_SECOND

struct sink {
    weft_writer *writer;  /* NULL: free */
    void *ctx;
    struct trace_reader *reader;
    struct helper pump;
    int result;           /* the pump's */
};

static struct {
    w_u32 lock;           /* futex: 0 free, 1 held, 2 held and waited for. It guards: */
    uint32_t users;
    bool open;            /* memory is there */
    bool walks;           /* stacks are walked */
    bool switching;       /* the switcher runs */
    struct helper switcher;
    struct sink sink[TRACE_READERS];
    w_u32 sinks;          /* those in use. rlx: others show it */
    /* the switcher's, and who asks it */
    w_u32 state;          /* futex: enum; under lock */
    w_u32 asked, done;    /* done is a futex */
    int64_t generation_ns; /* fixed while it runs */
} api;

enum { SWITCHER_WAITS, SWITCHER_GOES, SWITCHER_STOPS, SWITCHER_DROPS /* no generation has begun */ };

/* ---- the lock ------------------------------------------------------------------------------------------------ */

static void lock_api(void)
{
    if (cas_acq(&api.lock, 0, 1)) /* acq: rel in unlock_api */
        return;
    while (xchg_acq(&api.lock, 2) != 0) /* acq: likewise */
        os_futex_wait(&api.lock, 2, -1);
}

static void unlock_api(void)
{
    if (xchg_rel(&api.lock, 0) == 2) /* rel: acq in lock_api */
        os_futex_wake(&api.lock, 1);
}

/* Out of the runtime, with the lock. NULL: no runtime runs (*err). */
static struct m *leave_and_lock(int *err)
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
    lock_api();
    return m;
}

static void unlock_and_return(void)
{
    struct m *m = m_self(); /* a fiber that is outside stays on its thread */
    unlock_api();
    weft_blocking_end();
    m = m_self();
    if (m->foreign)
        call_back(m);
}

/* ---- the switcher ---------------------------------------------------------------------------------------------- */

static unsigned frames(void *arg, uintptr_t pc, struct trace_frame *out, unsigned max)
{
    struct trim *t = arg;
    struct symbol s[SYMBOLS_INLINED_MAX];
    unsigned n = symbols_at(t->maps, pc, s), strip = trim_functions(t, pc), k = 0;
    if (s[n - 1].func == NULL)
        return 0;
    for (unsigned i = strip < n ? strip : 0; i < n && k < max; i++, k++)
        out[k] = (struct trace_frame){ s[i].func != NULL ? s[i].func : "?", s[i].file, s[i].line };
    return k;
}

/* A stack begins with the public call. */
static unsigned inner(void *arg, const uintptr_t *pc, unsigned n) { return trim_inner(arg, TRIM_TO_CALL, pc, n); }

static void end_generation(bool stop)
{
    const struct maps *t = maps_begin(symbols_gone);
    if (t == NULL) {
        hooks_switch(stop, NULL);
        return;
    }
    struct trim trim;
    trim_init(&trim, t);
    hooks_switch(stop, &(struct trace_symbols){ .frames = frames, .inner = inner, .arg = &trim });
    trim_free(&trim);
    maps_end();
}

static void switcher_main(void *arg)
{
    (void)arg;
    while (load_acq(&api.state) == SWITCHER_WAITS) /* acq: rel in switcher_tell */
        os_futex_wait(&api.state, SWITCHER_WAITS, -1);
    for (bool stop = load_acq(&api.state) == SWITCHER_DROPS; !stop;) {
        uint32_t asked = load_acq(&api.asked); /* acq: what was done before the wish is in the generation; rel in trace_advance */
        if (load_acq(&api.state) == SWITCHER_GOES && asked == load_rlx(&api.done)) { /* rlx: ours */
            trace_wait_due(api.generation_ns);
            asked = load_acq(&api.asked);
        }
        stop = load_acq(&api.state) == SWITCHER_STOPS;
        end_generation(stop);
        store_rel(&api.done, asked); /* rel: acq in trace_advance */
        os_futex_wake(&api.done, INT_MAX);
    }
}

/* Ends its wait, in which it may be for a second. */
static void switcher_hurry(void)
{
    store_seq(&trace.due, 1); /* the switcher looks at state and asked before it sleeps on this, and after */
    os_futex_wake(&trace.due, 1);
}

static void switcher_tell(uint32_t state)
{
    store_seq(&api.state, state); /* also rel: acq in switcher_main */
    os_futex_wake(&api.state, 1);
    switcher_hurry();
}

void trace_advance(void)
{
    uint32_t wish = add_seq(&api.asked, 1) + 1, done; /* also rel: acq in switcher_main */
    switcher_hurry();
    while ((int32_t)((done = load_acq(&api.done)) - wish) < 0) /* acq: rel in switcher_main */
        os_futex_wait(&api.done, done, -1);
}

/* ---- users, under the lock ------------------------------------------------------------------------------------------ */

static void release(void)
{
    if (api.open) {
        samples_close();
        trace_close();
        hooks_close();
    }
    if (api.walks)
        walk_unuse();
    api.open = api.walks = false;
}

static void end(void)
{
    if (api.switching) {
        switcher_tell(load_rlx(&trace.gen) != 0 ? SWITCHER_STOPS : SWITCHER_DROPS); /* rlx: ours, or the switcher's, which only counts on */
        helper_join(&api.switcher);
    }
    api.switching = false;
}

static int prepare(const weft_trace_opts *o)
{
    struct trace_setup setup = { .pool_bytes = o->buffer_bytes, .fixed = hooks_texts, .nfixed = hooks_ntexts };
    api.generation_ns = o->generation_ns > 0 ? o->generation_ns : GENERATION_NS;
    int err = trace_open(&setup);
    if (err != 0)
        return err;
    api.open = true;
    samples_open();
    if ((err = hooks_open()) == 0 && (err = walk_use()) == 0) {
        api.walks = true;
        store_rlx(&api.state, SWITCHER_WAITS); /* rlx: helper_start publishes */
        store_rlx(&api.asked, 0);
        store_rlx(&api.done, 0);
        api.switcher = (struct helper){ .fn = switcher_main };
        err = helper_start(&api.switcher);
        api.switching = err == 0;
    }
    if (err != 0)
        release();
    return err;
}

static void begin(void *arg)
{
    (void)arg;
    hooks_begin();
}

/* Inside, for the stop. */
static void go(void)
{
    weft_blocking_end();
    rt_enter();
    sched_on_big_stack(begin, NULL);
    rt_own(m_self()); /* while we waited for another's stop, weft_maxprocs may have withdrawn our processor */
    rt_leave(m_self());
    weft_blocking_begin();
    switcher_tell(SWITCHER_GOES);
}

static int use(const weft_trace_opts *o)
{
    int err = api.users == 0 ? prepare(o) : 0;
    if (err != 0)
        return err;
    if (api.users++ == 0)
        go();
    return 0;
}

static void unuse(void)
{
    if (--api.users == 0)
        end();
}

int trace_use(void)
{
    int err;
    if (leave_and_lock(&err) == NULL)
        return err;
    err = use(&(weft_trace_opts)WEFT_TRACE_OPTS_INIT);
    unlock_and_return();
    return err;
}

void trace_unuse(void)
{
    int err;
    if (leave_and_lock(&err) == NULL)
        return; /* the end of the runtime has done it */
    if (api.users > 0) {
        unuse();
        if (api.users == 0)
            release();
    }
    unlock_and_return();
}

/* ---- writers, under the lock ------------------------------------------------------------------------------------------ */

static __thread bool on_pump __attribute__((tls_model("initial-exec"))); /* whoever waits for it has the lock */

static void pump_main(void *arg)
{
    struct sink *s = arg;
    on_pump = true;
    s->result = trace_reader_pump(s->reader);
}

static struct sink *sink_find(weft_writer *w, void *ctx)
{
    for (struct sink *s = api.sink; s < api.sink + TRACE_READERS; s++)
        if (s->writer == w && (w == NULL || s->ctx == ctx))
            return s;
    return NULL;
}

static int sink_open(weft_writer *w, void *ctx)
{
    struct sink *s = sink_find(NULL, NULL);
    if (s == NULL)
        return -ENOSPC;
    int err = trace_reader_open(w, ctx, &s->reader);
    if (err != 0)
        return err;
    s->pump = (struct helper){ .fn = pump_main, .arg = s, .flags = HELPER_HOSTS_FILES };
    if ((err = helper_start(&s->pump)) != 0) {
        trace_reader_free(s->reader);
        return err;
    }
    s->writer = w;
    s->ctx = ctx;
    add_rlx(&api.sinks, 1);
    return 0;
}

/* All that is finished has been written. */
static int sink_close(struct sink *s, struct trace_reader_stats *stats)
{
    trace_reader_close(s->reader);
    helper_join(&s->pump);
    *stats = trace_reader_stats(s->reader);
    trace_reader_free(s->reader);
    s->writer = NULL;
    s->ctx = NULL; /* a root no more */
    sub_rlx(&api.sinks, 1);
    return s->result;
}

unsigned trace_writers(void) { return load_rlx(&api.sinks); }

static int start(weft_writer *w, void *ctx, const weft_trace_opts *o)
{
    if (sink_find(w, ctx) != NULL)
        return -EALREADY;
    if (api.users > 0)
        trace_advance(); /* the writer gets what happens from about now on */
    int err = sink_open(w, ctx);
    if (err == 0 && (err = use(o)) != 0) {
        struct trace_reader_stats stats;
        sink_close(sink_find(w, ctx), &stats);
    }
    return err;
}

static int stop(weft_writer *w, void *ctx, struct trace_reader_stats *stats)
{
    struct sink *s = sink_find(w, ctx);
    if (s == NULL)
        return -ENOENT;
    if (api.users > 1)
        trace_advance();
    unuse();
    int err = sink_close(s, stats);
    if (api.users == 0)
        release();
    return err;
}

static void report(const struct trace_reader_stats *s)
{
    if (s->dropped != 0)
        sched_logf("weft: trace: %lu of %lu generations were dropped: %s", (unsigned long)s->dropped,
                   (unsigned long)(s->dropped + s->generations),
                   s->err != 0 ? "the writer failed" : "the writer was too slow, or buffer_bytes too few");
}

/* Of a call that is over but for its return: enters once more for it. */
static w_noinline void tell(enum probe_id id, weft_writer *w, void *ctx, int err)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return;
    probe_emit(id, (uintptr_t)w, (uintptr_t)ctx, (uintptr_t)err);
    rt_leave(m);
}

int weft_trace_start(weft_writer *w, void *ctx, const weft_trace_opts *opts)
{
    int err;
    if (w == NULL || (opts != NULL && opts->size != sizeof *opts))
        return -EINVAL;
    if (on_pump)
        return -EDEADLK;
    if (leave_and_lock(&err) == NULL)
        return err;
    err = start(w, ctx, opts != NULL ? opts : &(weft_trace_opts)WEFT_TRACE_OPTS_INIT);
    unlock_and_return();
    if (PROBE_WANTED(trace_started))
        tell(PROBE_trace_started, w, ctx, err);
    return err;
}

int weft_trace_stop(weft_writer *w, void *ctx, weft_trace_stats *stats)
{
    int err;
    struct trace_reader_stats s = { 0 };
    if (w == NULL || (stats != NULL && stats->size != sizeof *stats))
        return -EINVAL;
    if (on_pump)
        return -EDEADLK;
    if (leave_and_lock(&err) == NULL)
        return err;
    err = stop(w, ctx, &s);
    uint64_t missed = hooks_missed();
    unlock_and_return();
    if (stats != NULL)
        *stats = (weft_trace_stats){ sizeof *stats, s.bytes, s.generations, s.dropped, missed };
    report(&s);
    if (PROBE_WANTED(trace_stopped))
        tell(PROBE_trace_stopped, w, ctx, err);
    return err;
}

/* ---- the runtime's end, and forks ------------------------------------------------------------------------------------------ */

static void runtime_ends(void)
{
    struct trace_reader_stats stats;
    flight_end();
    store_rlx(&api.lock, 0); /* rlx: nobody is in a call, or his fiber is gone */
    end();
    for (struct sink *s = api.sink; s < api.sink + TRACE_READERS; s++)
        if (s->writer != NULL) {
            sink_close(s, &stats);
            report(&stats);
        }
    release();
    api.users = 0;
    hooks_forget_machines();
}

static void after_fork(void)
{
    flight_after_fork();
    samples_after_fork();
    hooks_after_fork();
    memset(&api, 0, sizeof api);
}

static struct sched_guest guest = { .end = runtime_ends, .after_fork = after_fork, .machine_gone = hooks_machine_gone };

__attribute__((constructor)) static void trace_guest(void) { sched_guest_add(&guest); }
