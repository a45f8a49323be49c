/* What profiles have in common that are taken over time.
 *
 * Who starts or stops one, or ends the runtime, holds `control`, and waits in user code where no stop stops him. A profile that has reached a limit
 * ends by itself on its helper; whoever comes next to start or stop one collects that.
 *
 * exit(3) in a host that does not stop it: a handler of atexit, registered by the first start, lets the helper write the rest, and waits. The host's
 * writer is older than that start, so what it needs is still there. This thread may be stopped at any time, and must hold nothing that a collector
 * needs: the helper does it all.
 *
 * In the child of a fork nobody writes. What the profile has is left where it lies, memory, references to labels, stacks of helpers: the helper may have
 * been in the middle of it, and what it has freed already must not be freed again. */
#include "prof/sampler.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fail.h"
#include "base/probe.h"
#include "os/clock.h"
#include "os/futex.h"
#include "prof/symbols.h"
#include "prof/walk.h"
#include "sched/guard.h"
#include "sched/report.h"
#include "sched/sched.h"

#define MAX_BYTES_MIN (64 << 10)
#define HZ_MAX 10000

static struct sampler *samplers;
static w_u32 symbols; /* modules were looked at. rlx: read when nobody starts one any more */

w_startup void sampler_add(struct sampler *s)
{
    s->next = samplers;
    samplers = s;
}

/* ---- the helper ---------------------------------------------------------------------------------------------- */

void sampler_wake(struct sampler *s)
{
    if (load_rlx(&s->wake) == 0 && cas_rlx(&s->wake, 0, 1)) /* rlx: a hint; the helper looks by itself before long */
        os_futex_wake(&s->wake, 1);
}

static void wait_for_work(struct sampler *s, int64_t due_ns)
{
    int64_t left = w_min(live_due_ns(s->live), due_ns) - os_now_ns();
    if (left > 0 && load_acq(&s->stop) == 0) /* acq: as below; stop is set before wake */
        os_futex_wait(&s->wake, 0, left);
    store_seq(&s->wake, 0); /* seq: before the look at what there is to do */
}

static void helper_main(void *arg)
{
    struct sampler *s = arg;
    int64_t due_ns = 0;
    bool go_on = true;
    while (go_on && load_acq(&s->stop) == 0) { /* acq: a wish, and whose; rel in end_and_wait */
        wait_for_work(s, due_ns);
        int64_t now_ns = os_now_ns();
        due_ns = s->round(s, now_ns);
        go_on = live_look(s->live, now_ns);
    }
    const char *remark = s->end(s);
    s->err = live_close(s->live, remark);
    if (s->unlimited)
        PROBE(profile_ended, s->what, go_on ? s->ended_by : PROFILE_END_ITSELF, live_bytes(s->live));
    if (remark != NULL)
        sched_logf("%s", remark);
    if (s->freed != NULL)
        s->freed(s);
    store_rel(&s->done, 1); /* rel: publishes err; acq in await_done */
    os_futex_wake(&s->done, 1 << 30);
}

static bool is_done(struct sampler *s) { return load_acq(&s->done) != 0; } /* acq: rel in helper_main */

static void end_and_wait(struct sampler *s, enum profile_end by)
{
    if (load_rlx(&s->stop) == 0) /* rlx: under control. exit(3) may have come before */
        s->ended_by = by;
    store_rel(&s->stop, 1); /* rel: before wake; publishes ended_by */
    store_seq(&s->wake, 1);
    os_futex_wake(&s->wake, 1);
    while (!is_done(s))
        os_futex_wait(&s->done, 0, -1);
}

/* ---- start and stop: `control` is held ------------------------------------------------------------------------- */

static int finish(struct sampler *s, enum profile_end by)
{
    end_and_wait(s, by);
    helper_join(&s->helper);
    walk_unuse();
    s->on = false; /* before: a child of a fork looks into live only if it is on */
    s->ctx = NULL;
    live_free(s->live);
    return s->err;
}

static void at_exit(void)
{
    for (struct sampler *s = samplers; s != NULL; s = s->next) {
        if (s->on && !is_done(s) && live_is_writer(s->live))
            continue; /* its writer itself has called exit */
        pthread_mutex_lock(&s->control);
        if (s->on)
            end_and_wait(s, PROFILE_END_EXIT);
        pthread_mutex_unlock(&s->control);
    }
}

static void register_exit(void) { atexit(at_exit); }

static int begin(struct sampler *s, const struct sampler_opts *o)
{
    static pthread_once_t registered = PTHREAD_ONCE_INIT;
    const struct pprof_kind kind = { .value = { s->value[0], s->value[1] }, .values = 2, .period_type = s->period_type,
                                     .period = 1000000000 / (o->hz != 0 ? o->hz : s->hz) };
    s->period_ns = kind.period;
    s->arg = o->arg;
    store_rlx(&s->wake, 0); /* rlx: the helper is not there yet, and the next two */
    store_rlx(&s->stop, 0);
    store_rlx(&s->done, 0);
    s->helper = (struct helper){ .fn = helper_main, .arg = s };
    s->unlimited = live_unlimited(&o->live);
    int err = walk_use();
    if (err != 0)
        return err;
    if ((err = live_open(&kind, &o->live, &s->live)) != 0)
        goto no_live;
    if ((err = s->begin(s)) != 0)
        goto no_begin;
    if ((err = helper_start(&s->helper)) != 0)
        goto no_helper;
    s->on = true;
    s->ctx = o->live.ctx;
    store_rlx(&symbols, 1); /* rlx: see there */
    pthread_once(&registered, register_exit);
    return 0;
no_helper:
    if (s->undo != NULL)
        s->undo(s);
no_begin:
    live_abandon(s->live);
no_live:
    walk_unuse();
    return err;
}

/* The file is not touched before it is known that nobody else writes one. */
static int begin_file(struct sampler *s, struct sampler_opts *o, const char *path)
{
    if (fail_now(FAIL_FD))
        return -EMFILE;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), err;
    if (fd < 0)
        return -errno;
    o->live.fd = fd;
    o->live.w = weft_fd_writer;
    o->live.ctx = (void *)(intptr_t)fd;
    err = begin(s, o);
    if (err != 0)
        close(fd);
    return err;
}

static int start_away(struct sampler *s, struct sampler_opts *o, const char *path)
{
    pthread_mutex_lock(&s->control);
    int err = 0;
    if (load_acq(&sched.running) == 0) /* acq: as in m_attach. The end takes `control` after that */
        err = -ESRCH;
    else if (s->on && !is_done(s))
        err = -EALREADY;
    else if (s->on)
        finish(s, PROFILE_END_ITSELF);
    if (err == 0)
        err = path != NULL ? begin_file(s, o, path) : begin(s, o);
    pthread_mutex_unlock(&s->control);
    return err;
}

/* ---- the public side ---------------------------------------------------------------------------------------------- */

int sampler_opts(struct sampler_opts *to, int hz, int flush_ms, int64_t max_bytes, int64_t max_ns, bool unlimited, weft_profile_closed *closed,
                 void *closed_arg)
{
    if (hz < 0 || hz > HZ_MAX || flush_ms < 0 || max_ns < 0 || (max_bytes != 0 && max_bytes < MAX_BYTES_MIN))
        return -EINVAL;
    *to = (struct sampler_opts){ .hz = hz, .live = { .fd = -1, .closed = closed, .closed_arg = closed_arg } };
    to->live.flush_ns = (flush_ms != 0 ? flush_ms : 1000) * INT64_C(1000000);
    if (!unlimited || guarded(WEFT_GUARD_PROFILES)) {
        to->live.max_ns = max_ns != 0 ? max_ns : LIVE_NS;
        to->live.max_bytes = max_bytes != 0 ? (uint64_t)max_bytes : LIVE_BYTES;
    }
    return 0;
}

/* False: the runtime does not run. */
static bool attached(void)
{
    struct m *m = rt_enter_try();
    if (m != NULL)
        rt_leave(m);
    return m != NULL;
}

/* On the caller's stack. Should another thread have stopped it already, its end was told before. */
static w_noinline void tell_begun(struct sampler *s)
{
    struct m *m = rt_enter_try();
    if (m == NULL)
        return;
    PROBE(profile_begun, s->what, 0, 0);
    rt_leave(m);
}

int sampler_start(struct sampler *s, struct sampler_opts *o, weft_writer *w, void *ctx, const char *path)
{
    if (w == NULL && path == NULL)
        return -EINVAL;
    if (!attached())
        return -ESRCH;
    int saved = errno;
    o->live.what = s->what;
    o->live.w = w;
    o->live.ctx = ctx;
    weft_blocking_begin();
    int err = start_away(s, o, path);
    weft_blocking_end();
    if (err == 0 && live_unlimited(&o->live) && PROBE_WANTED(profile_begun))
        tell_begun(s);
    errno = saved;
    return err;
}

int sampler_stop(struct sampler *s)
{
    if (!attached())
        return -ESRCH;
    int saved = errno;
    weft_blocking_begin();
    pthread_mutex_lock(&s->control);
    int err = s->on ? finish(s, PROFILE_END_STOPPED) : -ESRCH;
    pthread_mutex_unlock(&s->control);
    weft_blocking_end();
    errno = saved;
    return err;
}

bool sampler_state(const char *what, struct sampler_state *out)
{
    bool on = false;
    for (struct sampler *s = samplers; s != NULL; s = s->next)
        if (strcmp(s->what, what) == 0 && pthread_mutex_trylock(&s->control) == 0) { /* whoever has it may be waiting for the host's writer */
            on = s->on && !is_done(s);
            if (on)
                live_state(s->live, &out->live);
            pthread_mutex_unlock(&s->control);
        }
    if (on)
        out->age_ns = os_now_ns() - out->live.begun_ns;
    return on;
}

/* ---- for the runtime ------------------------------------------------------------------------------------------------- */

static void samplers_end(void)
{
    for (struct sampler *s = samplers; s != NULL; s = s->next) {
        pthread_mutex_lock(&s->control);
        if (s->on)
            finish(s, PROFILE_END_RUNTIME);
        pthread_mutex_unlock(&s->control);
    }
    for (struct sampler *s = samplers; s != NULL; s = s->next) { /* only now: one kind may use what another has (cpu_ask) */
        pthread_mutex_lock(&s->control);
        if (s->gone != NULL)
            s->gone(s);
        pthread_mutex_unlock(&s->control);
    }
    symbols_end(&symbols);
}

/* What somebody had in hand who was about to start or stop one is lost. */
static void samplers_after_fork(void)
{
    for (struct sampler *s = samplers; s != NULL; s = s->next) {
        s->control = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        if (s->on)
            live_after_fork(s->live);
        s->on = false;
        s->ctx = NULL;
        if (s->forked != NULL)
            s->forked(s);
    }
}

static void __attribute__((constructor)) sampler_init(void)
{
    static struct sched_guest guest = { .end = samplers_end, .after_fork = samplers_after_fork };
    sched_guest_add(&guest);
}
