/* weft_debug_json: that it is JSON, and true. */
#include "churn.h"
#include "json_test.h"
#include "metrics_test.h"
#include "waiting.h"
#include "debug/json.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <weft/prof.h>
#include <weft/trace.h>

#define NOINLINE __attribute__((noinline))

static weft_chan *never;

static void receiver(void *arg)
{
    (void)arg;
    weft_chan_recv(never, NULL);
}

NOINLINE static void make_receivers(int n, const char *name)
{
    const weft_go_opts opts = { .size = sizeof opts, .name = name };
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go_opts_run(receiver, NULL, &opts), 0);
    __asm__ volatile("");
}

static void all_receive(size_t n) { test_until(receivers(never) == n); }

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* ---- all of them ---------------------------------------------------------------------------------------------------- */

static void every_document(void *arg)
{
    (void)arg;
    unsigned n = 0;
    uint64_t before = test_stops();
    for (const char *what; (what = weft_debug_what(n)) != NULL; n++) {
        struct js *d = js_document(what);
        if (js_find(d, "at_ms") != NULL) {
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            double ms = (double)now.tv_sec * 1e3 - js_num(d, "at_ms");
            cr_expect(ms > -2000 && ms < 60000, "%s is as of now", what);
        }
        struct sink s = { 0 };
        cr_expect_eq(weft_debug_text(what, sink_write, &s), 0, "%s", what);
        cr_expect_gt(s.len, 10, "%s", what);
    }
    cr_expect_eq(n, 8);
    cr_expect_eq(test_stops(), before, "nothing was stopped");
}

Test(debug_json, every_document_is_json_and_a_text) { test_run_each(every_document, NULL); }

static int refuse(void *ctx, const void *data, size_t n)
{
    (void)ctx, (void)data, (void)n;
    return -ENOSPC;
}

static void errors(void *arg)
{
    (void)arg;
    cr_expect_eq(weft_debug_json(NULL, refuse, NULL), -EINVAL);
    cr_expect_eq(weft_debug_json("info", NULL, NULL), -EINVAL);
    cr_expect_eq(weft_debug_json("inf", refuse, NULL), -ENOENT);
    cr_expect_eq(weft_debug_text("info", NULL, NULL), -EINVAL);
    cr_expect_eq(weft_debug_text("", refuse, NULL), -ENOENT);
    cr_expect_eq(weft_memory_explain(NULL, NULL), -EINVAL);
    for (unsigned i = 0; weft_debug_what(i) != NULL; i++) {
        cr_expect_eq(weft_debug_json(weft_debug_what(i), refuse, NULL), -ENOSPC);
        cr_expect_eq(weft_debug_text(weft_debug_what(i), refuse, NULL), -ENOSPC);
    }
}

Test(debug_json, errors)
{
    for (unsigned i = 0; weft_debug_what(i) != NULL; i++)
        cr_expect_eq(weft_debug_json(weft_debug_what(i), refuse, NULL), -ESRCH);
    test_run(errors, NULL);
}

static void *by_thread(void *arg)
{
    (void)arg;
    for (unsigned i = 0; weft_debug_what(i) != NULL; i++)
        js_document(weft_debug_what(i));
    return NULL;
}

static void from_thread(void *arg)
{
    (void)arg;
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, by_thread, NULL), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(debug_json, a_thread_of_the_host_may_ask) { test_run_each(from_thread, NULL); }

/* ---- how it is written ---------------------------------------------------------------------------------------------- */

static void write_values(void *arg)
{
    (void)arg;
    struct m *m = rt_enter();
    struct text t = { 0 };
    struct json j = { .t = &t };
    json_open(&j, NULL, '{');
    json_u64(&j, "exact", (UINT64_C(1) << 53) - 1);
    json_u64(&j, "more", UINT64_C(1) << 53);
    json_u64(&j, "most", UINT64_MAX);
    json_i64(&j, "least", INT64_MIN);
    json_i64(&j, "minus", -12);
    json_f64(&j, "half", 0.5);
    json_f64(&j, "rounds", 0.9999999);
    json_f64(&j, "small", -0.000001);
    json_f64(&j, "tiny", -1e-9);
    json_f64(&j, "nan", NAN);
    json_f64(&j, "inf", INFINITY);
    json_limit(&j, "none", UINT64_MAX);
    json_open(&j, "list", '[');
    json_open(&j, NULL, '[');
    json_close(&j, ']');
    json_bool(&j, NULL, true);
    json_null(&j, NULL);
    json_str(&j, NULL, NULL);
    json_close(&j, ']');
    json_str(&j, "odd\"key", "\"\\\n\x01\x7f/</script>\xc3\xa4\xe2\x82\xac\xf0\x9f\x8d\x8e");
    json_str(&j, "broken", "a\xff" "b\xc3" "c\xed\xa0\x80" "d\xf0\x9f\x8d");
    json_str(&j, "overlong", "\xc0\xaf\xe0\x80\xaf\xf5\x80\x80\x80");
    json_close(&j, '}');
    rt_leave(m);
    struct sink s = { 0 };
    cr_assert_eq(text_write(&t, sink_write, &s), 0);
    const char *text = s.text;
    struct js *d = js_parse(text);
    cr_expect_eq(js_at(d, "exact")->kind, JS_NUMBER);
    cr_expect_str_eq(js_str(d, "more"), "9007199254740992");
    cr_expect_str_eq(js_str(d, "most"), "18446744073709551615");
    cr_expect_str_eq(js_str(d, "least"), "-9223372036854775808");
    cr_expect_eq(js_num(d, "minus"), -12);
    cr_expect_eq(js_num(d, "half"), 0.5);
    cr_expect_eq(js_num(d, "rounds"), 1);
    cr_expect_eq(js_num(d, "small"), -0.000001);
    cr_expect_eq(js_num(d, "tiny"), 0);
    cr_expect(js_is_null(d, "nan") && js_is_null(d, "inf") && js_is_null(d, "none"));
    cr_expect_eq(js_at(d, "list")->n, 4);
    cr_expect_str_eq(js_str(d, "odd\"key"), "\"\\\n\x01\x7f/</script>\xc3\xa4\xe2\x82\xac\xf0\x9f\x8d\x8e");
#define NO "\xef\xbf\xbd"
    cr_expect_str_eq(js_str(d, "broken"), "a" NO "b" NO "c" NO NO NO "d" NO NO NO);
    cr_expect_str_eq(js_str(d, "overlong"), NO NO NO NO NO NO NO NO NO);
    m = rt_enter();
    text_free(&t);
    rt_leave(m);
}

Test(debug_json, values_come_back_as_they_were) { test_run(write_values, NULL); }

/* ---- fibers --------------------------------------------------------------------------------------------------------- */

static void sleeper(void *arg) { weft_sleep(*(int64_t *)arg); }
static int64_t hour = 3600 * WEFT_SECOND;

NOINLINE static void make_sleepers(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go(sleeper, &hour), 0);
    __asm__ volatile("");
}

static const struct js *site_of(const struct js *fibers, const char *function)
{
    for (const struct js *s = js_at(fibers, "sites.list")->first; s != NULL; s = s->next)
        if (begins(js_str(s, "site"), function))
            return s;
    return NULL;
}

static void fibers(void *arg)
{
    (void)arg;
    never = weft_chan_make(0, 0);
    make_receivers(1, "\"old\x01\xff");
    all_receive(1);
    test_until(weft_now() % 1000000 != 0);
    make_receivers(239, "waits");
    all_receive(240);
    make_sleepers(50);
    test_until(js_num(js_with(js_at(js_document("fibers"), "states"), "state", "sleep") ?: js_parse("{\"n\":0}"), "n") == 50);
    struct js *d = js_document("fibers");
    cr_expect_eq(js_num(d, "all"), 291);
    cr_expect_geq(js_num(d, "made"), 291);
    cr_expect_eq(js_num(d, "leaked"), 0);
    cr_expect_eq(js_num(js_with(js_at(d, "states"), "state", "chan receive"), "n"), 240);
    double sum = 0;
    for (const struct js *s = js_at(d, "states")->first; s != NULL; s = s->next)
        sum += js_num(s, "n");
    cr_expect_eq(sum, 291, "each fiber has one state");
    const struct js *site = site_of(d, "make_receivers at " TEST_SRC "/tests/debug_json.c:");
    cr_assert_not_null(site);
    cr_expect_eq(js_num(site, "n"), 240);
    cr_expect_eq(js_num(js_with(js_at(site, "states"), "state", "chan receive"), "n"), 240);
    cr_expect_eq(js_num(site_of(d, "make_sleepers"), "n"), 50);
    cr_expect_eq(js_num(d, "sites.all"), js_num(d, "sites.shown"));
    /* Cut, and says so; the longest first. */
    cr_expect_eq(js_num(d, "waits.shown"), 200);
    cr_expect_eq(js_at(d, "waits.list")->n, 200);
    cr_expect_geq(js_num(d, "waits.all"), 290);
    double before = INFINITY;
    for (const struct js *w = js_at(d, "waits.list")->first; w != NULL; w = w->next) {
        cr_expect_leq(js_num(w, "wait_ns"), before);
        before = js_num(w, "wait_ns");
        if (js_num(w, "id") == 1)
            continue; /* ourselves, who wait for the document */
        cr_expect(begins(js_str(w, "site"), "make_"), "%s", js_str(w, "site"));
        cr_expect_eq(js_num(w, "parent"), 1);
    }
    cr_expect_not_null(js_with(js_at(d, "waits.list"), "name", "\"old\x01\xef\xbf\xbd"));
    weft_chan_close(never);
}

Test(debug_json, fibers_by_state_place_and_wait) { test_run_each(fibers, NULL); }

static w_u32 in_a_call, call_over;

static void waits_then_calls(void *first)
{
    cr_assert_eq(weft_chan_recv(first, NULL), 1);
    weft_blocking_begin();
    store_rel(&in_a_call, 1);
    while (load_acq(&call_over) == 0)
        usleep(1000);
    weft_blocking_end();
}

/* Until the monitor has looked at the clock again. */
static void clock_goes_on(void)
{
    int64_t coarse = load_rlx(&sched.coarse_ns), until = weft_now() + 10 * WEFT_SECOND;
    while (load_rlx(&sched.coarse_ns) == coarse && weft_now() < until)
        continue;
}

/* Who is in a call has been there since the call began, not since he waited for something else before. */
static void one_in_a_call(void *arg)
{
    (void)arg;
    weft_chan *first = weft_chan_make(0, 0);
    never = weft_chan_make(0, 0);
    const weft_go_opts opts = { .size = sizeof opts, .name = "calls" };
    cr_assert_eq(weft_go_opts_run(waits_then_calls, first, &opts), 0);
    test_until(receivers(first) == 1);
    clock_goes_on();
    make_receivers(1, "waits");
    all_receive(1);
    clock_goes_on();
    cr_assert_eq(weft_chan_send(first, NULL), 0);
    test_until(load_acq(&in_a_call) != 0);
    struct js *d = js_document("fibers");
    const struct js *list = js_at(d, "waits.list"), *calls = js_with(list, "name", "calls"), *waits = js_with(list, "name", "waits");
    store_rel(&call_over, 1);
    cr_expect_str_eq(js_str(calls, "state"), "syscall");
    cr_expect_lt(js_num(calls, "wait_ns"), js_num(waits, "wait_ns"));
    weft_chan_close(never);
}

Test(debug_json, fibers_are_in_a_call_since_it_began) { test_run_procs(3, one_in_a_call, NULL); }

static void waiter(void *arg) { weft_chan_recv(arg, NULL); }

static void leaks(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_go(waiter, weft_chan_make(0, 0)), 0);
    test_until(js_num(js_with(js_at(js_document("fibers"), "states"), "state", "chan receive") ?: js_parse("{\"n\":0}"), "n") == 3);
    test_wipe_stack();
    cr_assert_eq(weft_profile_write(weft_profile_lookup("goroutineleak"), sink_write, &s, 0), 0);
    struct js *d = js_document("fibers");
    cr_expect_eq(js_num(d, "leaked"), (double)weft_profile_count(weft_profile_lookup("goroutineleak")));
    double leaked = 0;
    for (const struct js *w = js_at(d, "waits.list")->first; w != NULL; w = w->next)
        leaked += js_true(w, "leaked");
    cr_expect_eq(leaked, js_num(d, "leaked"));
    cr_expect_gt(leaked, 0);
}

Test(debug_json, leaked_fibers_are_marked) { test_run(leaks, NULL); }

/* ---- processors ------------------------------------------------------------------------------------------------------ */

static w_u32 stop;
static void spin(void *arg)
{
    (void)arg;
    weft_set_name("spins");
    while (load_acq(&stop) == 0)
        ;
}

NOINLINE static void make_spinner(void)
{
    cr_assert_eq(weft_go(spin, NULL), 0);
    __asm__ volatile("");
}

static const struct js *thread_that_spins(const struct js *procs)
{
    for (const struct js *t = js_at(procs, "threads.list")->first; t != NULL; t = t->next)
        if (!js_is_null(t, "fiber") && begins(js_str(t, "fiber.site"), "make_spinner at "))
            return t;
    return NULL;
}

static void procs(void *arg)
{
    (void)arg;
    store_rel(&stop, 0);
    make_spinner();
    test_until(thread_that_spins(js_document("procs")) != NULL);
    struct js *d = js_document("procs");
    const struct js *t = thread_that_spins(d);
    cr_assert_not_null(t);
    cr_expect_str_eq(js_str(t, "does"), "runs");
    cr_expect_str_eq(js_str(t, "fiber.name"), "spins");
    cr_expect_eq(js_at(d, "procs")->n, (size_t)weft_maxprocs(0));
    double queued = js_num(d, "queue.global");
    for (const struct js *p = js_at(d, "procs")->first; p != NULL; p = p->next) {
        bool runs = strcmp(js_str(p, "state"), "running") == 0;
        cr_expect_eq(js_is_null(p, "fiber"), !runs);
        cr_expect_eq(js_is_null(p, "machine"), strcmp(js_str(p, "state"), "idle") == 0);
        queued += js_num(p, "queued");
    }
    cr_expect_eq(queued, js_num(d, "queue.all"));
    cr_expect_eq(js_at(d, "threads.list")->n, js_num(d, "threads.shown"));
    cr_expect_leq(js_num(d, "wait_for_processor.p50_ns"), js_num(d, "wait_for_processor.p99_ns"));
    cr_expect_leq(js_num(d, "wait_for_processor.p99_ns"), js_num(d, "wait_for_processor.max_ns"));
    store_rel(&stop, 1);
}

Test(debug_json, processors_and_what_runs_on_them, SIGNALS_AT_ONCE) { test_run_each(procs, NULL); }

/* ---- heap ------------------------------------------------------------------------------------------------------------ */

static void heap(void *arg)
{
    (void)arg;
    static void *keep[100];
    struct js *before = js_document("heap");
    for (int i = 0; i < 100; i++)
        cr_assert_not_null(keep[i] = weft_alloc(4096));
    weft_keep_alive(keep); /* written for somebody */
    for (int i = 0; i < 300; i++)
        weft_gc();
    struct js *d = js_document("heap");
    cr_expect_eq(js_num(d, "live_bytes"), (double)metric_u64("/memory/classes/heap/objects:bytes"));
    cr_expect_eq(js_num(d, "allocated_objects") - js_num(d, "freed_objects"), js_num(d, "objects"));
    cr_expect_eq(js_num(d, "allocated_bytes") - js_num(d, "freed_bytes"), js_num(d, "live_bytes"));
    cr_expect_geq(js_num(d, "marked_bytes"), 100 * 4096);
    cr_expect_eq(js_num(d, "goal_bytes"), (double)metric_u64("/gc/heap/goal:bytes"));
    cr_expect_eq(js_num(d, "percent"), 100);
    cr_expect(js_is_null(d, "limit_bytes"));
    cr_expect_eq(js_num(d, "cycles") - js_num(before, "cycles"), 300);
    cr_expect_eq(js_num(d, "forced") - js_num(before, "forced"), 300);
    const struct js *c = js_at(d, "history")->first;
    cr_expect_eq(js_at(d, "history")->n, 256);
    for (double number = js_num(d, "cycles") - 255, at = 0; c != NULL; c = c->next, number++) {
        cr_expect_eq(js_num(c, "cycle"), number);
        cr_expect(js_true(c, "forced"));
        cr_expect_gt(js_num(c, "pause_ns"), 0);
        cr_expect_geq(js_num(c, "end_ms"), at);
        cr_expect_geq(js_num(c, "before_bytes"), js_num(c, "marked_bytes"));
        cr_expect_geq(js_num(c, "marked_bytes"), 100 * 4096);
        at = js_num(c, "end_ms");
        if (c->next == NULL)
            cr_expect_eq(js_num(c, "marked_bytes"), js_num(d, "marked_bytes"));
    }
    double of_size = 0, objects = 0;
    for (const struct js *s = js_at(d, "sizes")->first; s != NULL; s = s->next) {
        objects += js_num(s, "live");
        if (js_num(s, "size") == 4096)
            of_size = js_num(s, "live");
    }
    cr_expect_eq(of_size, 100, "%g", of_size);
    cr_expect_eq(objects, js_num(d, "objects"));
    weft_set_gc_percent(-1);
    d = js_document("heap");
    cr_expect(js_is_null(d, "percent") && js_is_null(d, "goal_bytes"));
    weft_set_gc_percent(100);
}

Test(debug_json, heap_and_its_history) { test_run_each(heap, NULL); }

/* ---- stops ----------------------------------------------------------------------------------------------------------- */

static void stop_times(void *arg)
{
    (void)arg;
    weft_mem_stats st = { .size = sizeof st };
    cr_expect_null(js_with(js_at(js_document("stops"), "reasons"), "reason", "mem stats"));
    for (int i = 0; i < 20; i++)
        cr_assert_eq(weft_read_mem_stats(&st), 0);
    weft_stop_stats is;
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_MEM_STATS, &is), 0);
    const struct js *r = js_with(js_at(js_document("stops"), "reasons"), "reason", is.reason);
    cr_assert_not_null(r);
    cr_expect_eq(js_num(r, "count"), 20);
    static const char *const times[] = { "stopping", "stopped" };
    for (int i = 0; i < 2; i++) {
        const struct js *t = js_at(r, times[i]);
        cr_expect_leq(js_num(t, "p50_ns"), js_num(t, "p99_ns"));
        cr_expect_leq(js_num(t, "p99_ns"), js_num(t, "max_ns"));
        cr_expect_leq(js_num(t, "max_ns"), js_num(t, "total_ns"));
        cr_expect_gt(js_num(t, "p50_ns"), 0);
        double n = 0;
        for (const struct js *b = js_at(r, "histogram")->first; b != NULL; b = b->next)
            n += js_num(b, times[i]);
        cr_expect_eq(n, 20);
    }
    cr_expect_eq(js_num(r, "stopped.max_ns"), (double)is.stopped_max_ns);
}

Test(debug_json, stops_by_reason) { test_run_each(stop_times, NULL); }

/* ---- what is under way ----------------------------------------------------------------------------------------------- */

static int drop(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

static void watching(void *arg)
{
    (void)arg;
    weft_profile *own;
    int things[2];
    cr_assert_eq(weft_set_block_profile_rate(1234), 0);
    struct js *d = js_document("profiles");
    cr_expect(js_is_null(d, "cpu") && js_is_null(d, "wall") && js_is_null(d, "trace") && js_is_null(d, "flight"));
    cr_assert_eq(weft_profile_new("things", &own), 0);
    cr_assert_eq(weft_profile_add(own, &things[0], 0), 0);
    cr_assert_eq(weft_profile_add(own, &things[1], 0), 0);
    cr_assert_eq(weft_cpu_profile_start(drop, NULL, NULL), 0);
    weft_flight_opts fo = WEFT_FLIGHT_OPTS_INIT;
    fo.bytes = 3 << 20;
    cr_assert_eq(weft_flight_recorder_start(&fo), 0);
    cr_assert_eq(weft_trace_start(drop, things, NULL), 0);
    cr_assert_eq(weft_flight_recorder_snapshot(drop, NULL), 0);
    d = js_document("profiles");
    const struct js *p = js_with(js_at(d, "profiles"), "name", "things"), *heap_p = js_with(js_at(d, "profiles"), "name", "heap");
    cr_expect_eq(js_num(p, "count"), 2);
    cr_expect(js_true(p, "own") && !js_true(heap_p, "own"));
    cr_expect_geq(js_num(d, "cpu.age_ms"), 0);
    cr_expect_eq(js_num(d, "cpu.max_bytes"), 64 << 20);
    cr_expect_eq(js_num(d, "cpu.max_ms"), 3600000);
    cr_expect(js_is_null(d, "wall"));
    cr_expect_eq(js_num(d, "trace.writers"), 1);
    cr_expect_eq(js_num(d, "flight.limit_bytes"), 3 << 20);
    cr_expect_eq(js_num(d, "flight.age_ms"), 10000);
    cr_expect_eq(js_num(d, "flight.snapshots"), 1);
    cr_expect_eq(js_num(d, "rates.heap_bytes"), (double)weft_set_mem_profile_rate(-1));
    cr_expect_eq(js_num(d, "rates.block_ns"), 1234);
    cr_assert_eq(weft_set_block_profile_rate(0), 0);
    cr_expect_eq(weft_trace_stop(drop, things, NULL), 0);
    cr_expect_eq(weft_flight_recorder_stop(), 0);
    cr_expect_eq(weft_cpu_profile_stop(), 0);
    d = js_document("profiles");
    cr_expect(js_is_null(d, "cpu") && js_is_null(d, "trace") && js_is_null(d, "flight"));
    weft_profile_remove(own, &things[0]);
    weft_profile_remove(own, &things[1]);
}

Test(debug_json, profiles_and_traces_under_way) { test_run(watching, NULL); }

static void info(void *arg)
{
    (void)arg;
    struct js *d = js_document("info");
    cr_expect_str_eq(js_str(d, "version"), WEFT_VERSION);
    cr_expect_eq(js_num(d, "pid"), getpid());
    cr_expect_eq(js_num(d, "procs"), 3);
    cr_expect_eq(js_num(d, "quota_cpus"), 2.5);
    cr_expect(js_true(d, "procs_follow"));
    const struct js *c = js_at(d, "config"), *percent = js_with(c, "name", "gc_percent"), *quota = js_with(c, "name", "cpuquota");
    cr_expect_str_eq(js_str(percent, "value"), "off");
    cr_expect_str_eq(js_str(percent, "variable"), "WEFT_GC");
    cr_expect(!js_true(percent, "default") && js_true(js_with(c, "name", "max_threads"), "default"));
    cr_expect(js_true(quota, "debug"));
    cr_expect_str_eq(js_str(quota, "value"), "250");
    cr_expect_str_eq(js_str(js_with(c, "name", "gc"), "value"), "stw");
    cr_expect_not_null(js_str(d, "written_pages"));
    cr_expect_str_eq(js_str(js_with(c, "name", "doctor"), "value"), "report");
    cr_expect_str_eq(js_str(js_with(c, "name", "w04"), "value"), "count");
    cr_expect_str_eq(js_str(js_with(c, "name", "w05"), "value"), "as all");
}

Test(debug_json, the_program_and_its_settings)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.gc_percent = WEFT_GC_OFF;
    cfg.debug = "cpus=8,cpuquota=250,w04=count,gc=stw";
    test_run_config(&cfg, info, NULL);
}

/* ---- while much goes on ---------------------------------------------------------------------------------------------- */

static void busy(void *arg)
{
    (void)arg;
    churn_begin();
    for (int i = 0; i < (test_is_slow() ? 5 : 30); i++)
        for (unsigned k = 0; weft_debug_what(k) != NULL; k++)
            js_document(weft_debug_what(k));
    struct js *d = js_document("fibers");
    double sum = 0;
    for (const struct js *s = js_at(d, "sites.list")->first; s != NULL; s = s->next)
        sum += js_num(s, "n");
    cr_expect_eq(sum, js_num(d, "all"));
    churn_end();
}

Test(debug_json, at_any_time) { test_run_each(busy, NULL); }
