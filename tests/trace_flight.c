/* The flight recorder: what it keeps, what it writes when, and what it says when used wrongly. */
#include <pthread.h>
#include <signal.h>
#include "base/rng.h"
#include "os/clock.h"
#include "trace/ring.h"
#include "trace/watch.h"
#include "stress_programs.h"
#include "trace_live.h"
#include "trace_test.h"

static int to_nothing(void *ctx, const void *data, size_t n)
{
    (void)ctx;
    (void)data;
    (void)n;
    return 0;
}

static void recorder_start(const weft_flight_opts *opts)
{
    int err = weft_flight_recorder_start(opts);
    cr_assert_eq(err, 0, "%s", weft_strerror(err));
}

static void recorder_stop(void) { cr_assert_eq(weft_flight_recorder_stop(), 0); }

static weft_flight_stats stats(void)
{
    weft_flight_stats s = { .size = sizeof s };
    cr_assert_eq(weft_flight_recorder_stats(&s), 0);
    return s;
}

static void snapshot(struct live *l)
{
    live_open(l);
    int err = weft_flight_recorder_snapshot(live_write, l);
    cr_assert_eq(err, 0, "%s", weft_strerror(err));
    fclose(l->file);
}

static void advance(void) { cr_assert_eq(weft_flight_recorder_snapshot(to_nothing, NULL), 0); }

/* Values that go to and fro between two fibers. */
static void echo(void *arg)
{
    weft_chan **c = arg;
    uint64_t v;
    while (weft_chan_recv(c[0], &v) == 1)
        cr_assert_eq(weft_chan_send(c[1], &v), 0);
    weft_chan_close(c[1]);
}

static void ping_pong(int rounds)
{
    weft_chan *c[2] = { weft_chan_make_noscan(sizeof(uint64_t), 0), weft_chan_make_noscan(sizeof(uint64_t), 0) };
    uint64_t v = 0;
    cr_assert_eq(weft_go(echo, c), 0);
    for (int i = 0; i < rounds; i++) {
        cr_assert_eq(weft_chan_send(c[0], &v), 0);
        cr_assert_eq(weft_chan_recv(c[1], &v), 1);
    }
    weft_chan_close(c[0]);
    cr_assert_eq(weft_chan_recv(c[1], &v), 0);
}

/* ---- the contract --------------------------------------------------------------------------------------------- */

static void used_wrongly(void *arg)
{
    (void)arg;
    weft_flight_opts bad = WEFT_FLIGHT_OPTS_INIT;
    bad.size--;
    cr_expect_eq(weft_flight_recorder_start(&bad), -EINVAL);
    bad = (weft_flight_opts)WEFT_FLIGHT_OPTS_INIT;
    bad.stop_ns = 1;
    cr_expect_eq(weft_flight_recorder_start(&bad), -EINVAL, "a trigger without a function");
    cr_expect_eq(weft_flight_recorder_stop(), -ESRCH);
    cr_expect_eq(weft_flight_recorder_snapshot(to_nothing, NULL), -ESRCH);
    cr_expect_not(weft_trace_enabled());
    recorder_start(NULL);
    cr_expect(weft_trace_enabled());
    cr_expect_eq(weft_flight_recorder_start(NULL), -EALREADY);
    cr_expect_eq(weft_flight_recorder_snapshot(NULL, NULL), -EINVAL);
    cr_expect_eq(weft_flight_recorder_snapshot(to_nothing, NULL), 0);
    recorder_stop();
    cr_expect_not(weft_trace_enabled());
    cr_expect_eq(weft_flight_recorder_stop(), -ESRCH);
    cr_expect_eq(weft_flight_recorder_snapshot(to_nothing, NULL), -ESRCH);
    recorder_start(NULL);
    recorder_stop();
    cr_expect_eq(stats().bytes, 0u, "all is given back");
}
Test(trace_flight, says_what_is_wrong) { test_run_each(used_wrongly, NULL); }

Test(trace_flight, without_a_runtime)
{
    cr_expect_eq(weft_flight_recorder_start(NULL), -ESRCH);
    cr_expect_eq(weft_flight_recorder_snapshot(to_nothing, NULL), -ESRCH);
    cr_expect_eq(weft_flight_recorder_stop(), -ESRCH);
    weft_flight_stats s = { 0 };
    cr_expect_eq(weft_flight_recorder_stats(&s), -EINVAL);
    cr_expect_eq(weft_flight_recorder_stats(NULL), -EINVAL);
    cr_expect_eq(stats().snapshots, 0u);
}

static int second(void *ctx, const void *data, size_t n)
{
    (void)data;
    (void)n;
    *(int *)ctx = weft_flight_recorder_snapshot(to_nothing, NULL);
    cr_expect_eq(weft_flight_recorder_stop(), -EDEADLK);
    return -ENOSPC;
}
static void two_snapshots(void *arg)
{
    (void)arg;
    int err = 0;
    recorder_start(NULL);
    cr_expect_eq(weft_flight_recorder_snapshot(second, &err), -ENOSPC, "the writer's error");
    cr_expect_eq(err, -EBUSY);
    cr_expect_eq(stats().failed, 1u);
    advance();
    cr_expect_eq(stats().snapshots, 1u);
    recorder_stop();
}
Test(trace_flight, one_snapshot_at_a_time) { test_run_each(two_snapshots, NULL); }

static void *host_thread(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_flight_recorder_snapshot(to_nothing, NULL), 0);
    recorder_stop();
    recorder_start(NULL);
    return NULL;
}
static void by_a_thread(void *arg)
{
    pthread_t t;
    (void)arg;
    recorder_start(NULL);
    weft_blocking_begin();
    cr_assert_eq(pthread_create(&t, NULL, host_thread, NULL), 0);
    pthread_join(t, NULL);
    weft_blocking_end();
    advance(); /* and the end of the runtime stops it */
}
Test(trace_flight, threads_of_the_host_and_the_end_of_the_runtime)
{
    for (int i = 0; i < 3; i++) {
        test_run(by_a_thread, NULL);
        cr_expect_eq(stats().bytes, 0u);
        cr_expect_eq(weft_flight_recorder_stop(), -ESRCH);
    }
}

/* ---- what is written ----------------------------------------------------------------------------------------------- */

static void up_to_now(void *arg)
{
    struct live l[3];
    (void)arg;
    recorder_start(NULL);
    for (int i = 0; i < 3; i++) {
        ping_pong(10);
        snapshot(&l[i]);
    }
    recorder_stop();
    for (int i = 0; i < 3; i++) {
        cr_expect_geq(live_count(&l[i], "Running->Waiting Reason=\"chan (send|receive)\""), 10 * (i + 1));
        cr_expect_geq(live_count(&l[i], " Sync "), i + 2);
        live_check(&l[i]);
    }
}
Test(trace_flight, a_snapshot_has_all_up_to_now) { test_run_each(up_to_now, NULL); }

/* As Go's TestFlightRecorderGenerationCount. */
static void tiny(void *arg)
{
    weft_flight_opts o = WEFT_FLIGHT_OPTS_INIT;
    struct live l;
    if (arg != NULL)
        o.bytes = 1;
    else
        o.age_ns = 1;
    recorder_start(&o);
    for (int i = 0; i < 5; i++) {
        ping_pong(10);
        advance();
    }
    snapshot(&l);
    recorder_stop();
    cr_expect_leq(live_count(&l, " Sync "), 3);
    live_check(&l);
}
Test(trace_flight, tiny_limits_keep_the_last_generation)
{
    test_run(tiny, NULL);
    test_run(tiny, "");
}

static void beside(void *arg)
{
    struct live a, b, s;
    (void)arg;
    live_start(&a);
    ping_pong(5);
    recorder_start(NULL);
    live_start(&b);
    ping_pong(5);
    snapshot(&s);
    live_stop(&a);
    ping_pong(5);
    recorder_stop();
    live_stop(&b);
    live_check(&a);
    live_check(&b);
    live_check(&s);
}
Test(trace_flight, beside_traces) { test_run_each(beside, NULL); }

#define MIB (1u << 20)
static void bounded(void *arg)
{
    weft_flight_opts o = WEFT_FLIGHT_OPTS_INIT;
    struct live l;
    (void)arg;
    o.bytes = 2 * MIB;
    o.age_ns = 3600 * WEFT_SECOND;
    recorder_start(&o);
    while (stats().most_bytes < 2 * MIB) /* the limit is reached */
        ping_pong(20000);
    weft_flight_stats s = stats();
    for (int i = 0; i < 10 || (s.generations < 2 && i < 500); i++) { /* one that was ended late, on a busy machine, leaves room for no other */
        ping_pong(20000);
        s = stats();
    }
    cr_expect_leq(s.most_bytes, 16 * MIB, "%lu bytes", (unsigned long)s.most_bytes);
    cr_expect_gt(s.generations, 1u);
    cr_expect_eq(s.lost, 0u);
    snapshot(&l);
    recorder_stop();
    live_check(&l);
}
Test(trace_flight, memory_is_bounded) { test_run(bounded, NULL); }

/* Whatever the program does, and whenever one is asked for. */
static struct { w_u32 over; const struct program *pr; uint64_t seed; } run;

static void ask(void *arg)
{
    weft_chan *done = arg;
    while (load_acq(&run.over) == 0) {
        struct live l;
        snapshot(&l);
        live_check(&l);
    }
    weft_chan_send(done, NULL);
}

static void program_with_snapshots(void *arg)
{
    struct rng shape;
    (void)arg;
    weft_chan *done = weft_chan_make(0, 0);
    rng_seed(&shape, run.seed);
    store_rlx(&run.over, 0);
    recorder_start(NULL);
    cr_assert_eq(weft_go(ask, done), 0);
    run.pr->fn(&shape);
    store_rel(&run.over, 1);
    weft_chan_recv(done, NULL);
    recorder_stop();
}

Test(trace_flight, snapshots_of_programs)
{
    uint64_t seed = test_seed();
    for (size_t i = 0; i < w_countof(programs); i++) {
        run.pr = &programs[i];
        run.seed = seed + i;
        stress_wrong[0] = 0;
        test_run_procs(1 + (int)(i % 4), program_with_snapshots, NULL);
        cr_assert_eq(stress_wrong[0], 0, "%s: %s", programs[i].name, stress_wrong);
    }
}

/* ---- triggers ---------------------------------------------------------------------------------------------------------- */

static struct fired {
    w_u32 n;
    weft_flight_event event;
    int err, stop_err;
    struct live l;
} fired;

static void triggered(void *arg, const weft_flight_event *e)
{
    struct fired *f = arg;
    f->event = *e;
    strcpy(f->l.path, "/tmp/weft-live-XXXXXX");
    f->l.file = fdopen(mkstemp(f->l.path), "w");
    f->err = weft_flight_recorder_snapshot(live_write, &f->l);
    f->stop_err = weft_flight_recorder_stop();
    fclose(f->l.file);
    add_acq_rel(&f->n, 1);
}

static void check_fired(int why)
{
    test_until(load_acq(&fired.n) == 1);
    cr_expect_eq(fired.event.why, why);
    cr_expect_eq(fired.err, 0);
    cr_expect_eq(fired.stop_err, -EDEADLK);
    cr_expect_eq(stats().triggers[why], 1u);
}

static weft_flight_opts with_trigger(void)
{
    weft_flight_opts o = WEFT_FLIGHT_OPTS_INIT;
    memset(&fired, 0, sizeof fired);
    o.triggered = triggered;
    o.arg = &fired;
    return o;
}

static void long_stop(void *arg)
{
    weft_flight_opts o = with_trigger();
    (void)arg;
    o.stop_ns = 3600 * WEFT_SECOND;
    recorder_start(&o);
    weft_gc();
    advance();
    cr_expect_eq(load_acq(&fired.n), 0u, "no stop takes an hour");
    recorder_stop();
    o.stop_ns = 1;
    recorder_start(&o);
    weft_gc();
    check_fired(WEFT_FLIGHT_STOP);
    cr_expect_gt(fired.event.value, 1u);
    weft_gc();
    test_until(stats().suppressed > 0);
    recorder_stop();
    cr_expect_eq(load_acq(&fired.n), 1u, "one in a minute");
    live_check(&fired.l);
}
Test(trace_flight, trigger_when_the_world_is_stopped_too_long) { test_run(long_stop, NULL); }

static void large_heap(void *arg)
{
    weft_flight_opts o = with_trigger();
    (void)arg;
    o.heap_bytes = 8 * MIB;
    recorder_start(&o);
    for (int i = 0; i < 4; i++)
        cr_assert_not_null(weft_alloc(MIB));
    advance();
    cr_expect_eq(load_acq(&fired.n), 0u);
    void **keep = weft_alloc(16 * sizeof *keep);
    for (int i = 0; i < 16; i++)
        keep[i] = weft_alloc(MIB);
    check_fired(WEFT_FLIGHT_HEAP);
    cr_expect_gt(fired.event.value, 8 * MIB);
    recorder_stop();
    weft_keep_alive(keep);
    live_check(&fired.l);
}
Test(trace_flight, trigger_when_the_heap_is_large) { test_run(large_heap, NULL); }

static void nothing(void *arg) { (void)arg; }
static void long_wait(void *arg)
{
    weft_flight_opts o = with_trigger();
    (void)arg;
    o.runnable_ns = 3600 * WEFT_SECOND;
    recorder_start(&o);
    ping_pong(100);
    advance();
    advance();
    cr_expect_eq(load_acq(&fired.n), 0u);
    recorder_stop();
    o.runnable_ns = 3 * WEFT_MILLISECOND;
    recorder_start(&o);
    while (load_acq(&fired.n) == 0) { /* on a busy machine our processor may be given to the other meanwhile */
        cr_assert_eq(weft_go(nothing, NULL), 0);
        for (int64_t until = os_now_ns() + 5 * WEFT_MILLISECOND; os_now_ns() < until;)
            ;
        weft_yield();
        int err = weft_flight_recorder_snapshot(to_nothing, NULL);
        cr_assert(err == 0 || err == -EBUSY, "%d", err);
    }
    check_fired(WEFT_FLIGHT_RUNNABLE);
    cr_expect_gt(fired.event.value, 3 * 1000000u);
    cr_expect_neq(fired.event.fiber, 0u);
    cr_expect_eq(stats().unwatched, 0u);
    recorder_stop();
    live_check(&fired.l);
}
Test(trace_flight, trigger_when_a_fiber_waits_too_long_for_a_processor) { test_run_procs(1, long_wait, NULL); }

/* Known times, told by two threads whose events lie in the file in the other order. */
static struct watch_found watch_one(struct watch *w)
{
    struct watch_found f;
    trace_switch(false);
    trace_finish(NULL);
    struct ring_view *v = ring_hold();
    cr_assert_eq(watch_generation(w, ring_number(v, v->n - 1), ring_bufs(v, v->n - 1), &f), 0);
    ring_put(v);
    return f;
}

Test(trace_flight, waits_are_measured_from_event_to_event)
{
    static const char *const texts[] = { "x" };
    struct trace_setup s = { .fixed = texts, .nfixed = 1 };
    struct watch_found f;
    cr_assert_eq(off_init(), 0);
    cr_assert_eq(trace_open(&s), 0);
    cr_assert_eq(ring_open(1 << 20, WEFT_SECOND * 100, NULL), 0);
    struct trace_emitter *a = trace_emitter_get(1, false), *b = trace_emitter_get(2, false);
    struct watch *w = watch_new(1 << 20);
    trace_begin();
    uint64_t t = trace_now(&trace.clock[1]) + 1000;
#define AT(e, when, name, ...) (trace_enter_at(e, t + (when)), ({ trace_event(e, name, __VA_ARGS__); }), trace_leave(e))
    AT(a, 0, GO_CREATE, 7, 0, 0);      /* 7 waits 100, */
    AT(a, 10, GO_STATUS, 8, 1, TRACE_GO_RUNNING);
    AT(b, 100, GO_START, 7, 1);
    AT(b, 150, GO_BLOCK, 1, 0);
    AT(a, 200, GO_UNBLOCK, 7, 2, 0);   /* then 500 */
    AT(b, 700, GO_START, 7, 3);
    AT(a, 800, GO_STOP, 1, 0);         /* 8 can run from here on */
    AT(b, 1000, GO_STOP, 1, 0);        /* 7 likewise, for 50 */
    AT(b, 1050, GO_START, 7, 4);
    f = watch_one(w);
    cr_expect_eq(f.fiber, 7u);
    cr_expect_eq(f.ns, 500u * TRACE_UNIT_NS);
    t += 1000;
    AT(a, 0, GO_STATUS, 8, TRACE_NONE, TRACE_GO_RUNNABLE);
    AT(b, 300, GO_STATUS, 7, 2, TRACE_GO_RUNNING);
    f = watch_one(w);
    cr_expect_eq(f.fiber, 8u, "it waits still, since before");
    cr_expect_eq(f.ns, 500u * TRACE_UNIT_NS);
    t += 1000;
    AT(b, 0, GO_STATUS, 7, 2, TRACE_GO_RUNNING);
    AT(a, 10, GO_STATUS, 8, TRACE_NONE, TRACE_GO_RUNNABLE);
    AT(a, 20, GO_START, 8, 1);
    f = watch_one(w);
    cr_expect_eq(f.fiber, 8u);
    cr_expect_eq(f.ns, 1220u * TRACE_UNIT_NS);
    t += 1000;
    AT(a, 0, GO_STATUS, 8, 1, TRACE_GO_RUNNING);
    f = watch_one(w);
    cr_expect_eq(f.fiber, 0u, "nobody waits");
#undef AT
    trace_switch(true);
    trace_finish(NULL);
    watch_free(w);
    ring_close();
    trace_emitter_put(a);
    trace_emitter_put(b);
    trace_close();
}

/* ---- crashes ----------------------------------------------------------------------------------------------------------- */

/* A sanitizer reports faults in a handler of its own, and ends the program in its own way. */
#if defined(W_ASAN) || defined(W_TSAN)
#define CRASHES .disabled = true
#else
#define CRASHES .disabled = false
#endif

/* Runs the program, which ends by that signal; the file it leaves is accepted. */
static struct live crashed(const char *how, int signal)
{
    struct live l;
    struct test_output *out = malloc(sizeof *out);
    live_open(&l);
    fclose(l.file);
    const char *argv[] = { TEST_PROG("flight_crash"), how, l.path, NULL };
    test_child(out, argv, NULL);
    cr_assert_eq(out->term_signal, signal, "%s: ended by %d, exit %d: %s", how, out->term_signal, out->exit_code, out->text);
    free(out);
    return l;
}

static const struct { const char *how; int signal; } ways[] = {
    { "segv", SIGSEGV }, { "thread", SIGSEGV }, { "little", SIGSEGV }, { "abort", SIGABRT }, { "overflow", SIGABRT }, { "raise", SIGFPE },
    { "kill", SIGILL },
    { "early-segv", SIGSEGV }, { "early-abort", SIGABRT }, { "busy-segv", SIGSEGV }, { "busy-abort", SIGABRT }, { "busy-thread", SIGSEGV },
};

Test(trace_flight, a_process_that_crashes_leaves_a_trace, CRASHES)
{
    for (size_t i = 0; i < w_countof(ways); i++) {
        struct live l = crashed(ways[i].how, ways[i].signal);
        cr_expect_eq(live_count(&l, "RegionBegin .*the last thing it did"), 1, "%s", ways[i].how);
        cr_expect_geq(live_count(&l, "chan (send|receive)"), 50, "%s", ways[i].how);
        if (strncmp(ways[i].how, "early", 5) != 0) { /* what ran before has names */
            char command[300];
            struct test_output *out = malloc(sizeof *out);
            cr_expect_geq(live_count(&l, "chan (send|receive)"), 350, "%s", ways[i].how);
            snprintf(command, sizeof command, "%s -d=parsed %s | sed -n '/the last thing/,$p' | grep -c ping_pong", GO_TRACE, l.path);
            test_shell(out, command);
            cr_expect_geq(atoi(out->text), 25, "%s: %s", ways[i].how, out->text);
            free(out);
        }
        live_check(&l);
    }
}

Test(trace_flight, whenever_it_crashes, CRASHES)
{
    static const int signals[] = { 0, SIGABRT, SIGSEGV, SIGBUS };
    struct rng r;
    rng_seed(&r, test_seed());
    struct test_output *out = malloc(sizeof *out);
    for (int i = 0; i < 24; i++) {
        struct live l;
        int sig = signals[i % 4];
        char number[3][16];
        live_open(&l);
        fclose(l.file);
        snprintf(number[0], sizeof number[0], "%d", sig);
        snprintf(number[1], sizeof number[1], "%u", 1000 + rng_below(&r, 80000));
        snprintf(number[2], sizeof number[2], "%d", i % 3 != 0);
        const char *argv[] = { TEST_PROG("flight_storm"), l.path, number[0], number[1], number[2], NULL };
        test_child(out, argv, NULL);
        cr_assert_eq(out->term_signal, sig != 0 ? sig : SIGSEGV, "signal %d, exit code %d: %s", out->term_signal, out->exit_code, out->text);
        live_check(&l);
    }
    free(out);
}

/* What was taken for the crash is missing in other traces, which go on. */
Test(trace_flight, a_process_that_survives_goes_on_recording, CRASHES)
{
    struct live crash, after;
    struct test_output *out = malloc(sizeof *out);
    live_open(&crash);
    fclose(crash.file);
    live_open(&after);
    fclose(after.file);
    const char *argv[] = { TEST_PROG("flight_crash"), "survive", crash.path, after.path, NULL };
    test_child(out, argv, NULL);
    cr_assert_eq(out->exit_code, 0, "%d: %s", out->exit_code, out->text);
    cr_expect_geq(live_count(&crash, "chan (send|receive)"), 350);
    cr_expect_eq(live_count(&crash, "the last thing it did"), 1);
    cr_expect_geq(live_count(&after, "chan (send|receive)"), 600);
    cr_expect_eq(live_count(&after, "the last thing it did"), 0, "in the generation that was taken");
    cr_expect_eq(live_count(&after, "Category=\"weft\""), 1, "which is bridged");
    live_check(&crash);
    live_check(&after);
    free(out);
}
