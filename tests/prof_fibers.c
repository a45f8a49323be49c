/* Profiles of fibers, of those that are leaked, and of threads: every fiber is in, once, with its labels and where it waits; threads have a maker. */
#include "prof_test.h"
#include "leak_test.h"
#include <pthread.h>
#include "prof/helper.h"
#include "prof/out.h"

extern const struct profile_kind profile_fibers;

static weft_chan *never, *also_never;

NOINLINE static void waits_deep(int n)
{
    if (n > 0)
        waits_deep(n - 1);
    else
        weft_chan_recv(never, NULL);
    NO_TAIL_CALL();
}

static void receiver(void *arg)
{
    (void)arg;
    waits_deep(2);
    NO_TAIL_CALL();
}

static void sender(void *arg)
{
    (void)arg;
    weft_chan_send(also_never, NULL);
    NO_TAIL_CALL();
}

static void start(weft_fn *fn, int n)
{
    weft_go_opts opts = { .size = sizeof opts, .name = "waits" };
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go_opts_run(fn, NULL, &opts), 0);
}

static void labelled_senders(void *arg)
{
    (void)arg;
    start(sender, 3);
}

static void cast(void)
{
    never = weft_chan_make(0, 0);
    also_never = weft_chan_make(0, 0);
    start(receiver, 40);
    start(sender, 5);
    weft_label l[] = { { "tenant", "acme" }, { "a", "b c" } };
    cr_assert_eq(weft_with_labels(l, 2, labelled_senders, NULL), 0);
    all_wait(48);
}

static const char *label_of(const struct pp_sample *s, const char *key)
{
    for (size_t i = 0; i < s->labels; i++)
        if (strcmp(s->label[i].key, key) == 0)
            return s->label[i].text;
    return NULL;
}

static void by_stack(void *arg)
{
    (void)arg;
    cast();
    weft_profile *p = weft_profile_lookup("goroutine");
    cr_assert_eq(p, weft_profile_lookup("fiber"));
    cr_assert_eq(weft_profile_count(p), 49);
    struct pp *pp = prof_read(p);
    cr_assert_str_eq(pp->type[0].type, "goroutine");
    struct prof_sum r = prof_sum(pp, "weft_chan_recv;waits_deep;waits_deep;waits_deep;receiver"), s = prof_sum(pp, "weft_chan_send;sender");
    cr_expect_eq(r.samples, 1);
    cr_expect_eq(r.value[0], 40);
    cr_expect_eq(s.samples, 2, "with labels and without");
    cr_expect_eq(s.value[0], 8);
    int64_t all = 0, acme = 0;
    for (size_t i = 0; i < pp->samples; i++) {
        const char *t = label_of(&pp->sample[i], "tenant");
        all += pp->sample[i].value[0];
        if (t != NULL && strcmp(t, "acme") == 0) {
            acme += pp->sample[i].value[0];
            cr_expect_str_eq(label_of(&pp->sample[i], "a"), "b c");
        }
    }
    cr_expect_eq(acme, 3);
    cr_expect_eq(all, 49, "everybody is in, once");
    const char *text = prof_text(p);
    cr_expect_eq(strncmp(text, "goroutine profile: total 49\n40 @ 0x", 35), 0, "%.60s", text);
    cr_expect_not_null(strstr(text, "\n# labels: {\"a\":\"b c\", \"tenant\":\"acme\"}\n"), "%s", text);
    struct sink dump = prof_write(p, 2);
    cr_expect_not_null(strstr((char *)dump.bytes, "\"waits\" [chan send] {a: \"b c\", tenant: acme}:\nweft_chan_send(...)\n"), "%s", dump.bytes);
    cr_expect_not_null(strstr((char *)dump.bytes, "\n49 of 49 fibers\n"));
}

Test(prof_fibers, one_sample_for_each_stack_and_set_of_labels) { test_run_each(by_stack, NULL); }

static void with_tool(void *arg)
{
    struct test_output *out = arg;
    cast();
    prof_tool(out, prof_write(weft_profile_lookup("goroutine"), 0), "-traces", NULL);
    cr_expect_not_null(strstr(out->text, "Type: goroutine"), "%s", out->text);
    cr_expect_not_null(strstr(out->text, "tenant:  acme"), "%s", out->text);
    cr_expect_not_null(strstr(out->text, "waits_deep"), "%s", out->text);
}

static struct pp *window_end(weft_profile_delta *d)
{
    struct sink s = { 0 };
    cr_assert_eq(weft_profile_delta_end(d, sink_write, &s), 0);
    return pp_decode(s.bytes, s.len);
}

static void window(void *arg)
{
    static const char *const others[] = { "goroutineleak", "threadcreate" };
    weft_profile_delta *d;
    (void)arg;
    cast();
    cr_assert_eq(weft_profile_delta_begin(weft_profile_lookup("goroutine"), &d), 0);
    weft_chan_close(never);
    start(sender, 2);
    all_wait(10);
    test_until(weft_num_fibers() == 11);
    struct pp *pp = window_end(d);
    struct prof_sum r = prof_sum(pp, "weft_chan_recv;waits_deep;waits_deep;waits_deep;receiver"), s = prof_sum(pp, "weft_chan_send;sender");
    cr_expect_eq(r.value[0], -40);
    cr_expect_eq(s.samples, 1, "those with labels are as before");
    cr_expect_eq(s.value[0], 2);
    for (size_t i = 0; i < w_countof(others); i++) {
        cr_assert_eq(weft_profile_delta_begin(weft_profile_lookup(others[i]), &d), 0);
        cr_expect_str_eq(window_end(d)->type[0].type, others[i]);
    }
}

Test(prof_fibers, what_has_changed_in_a_window) { test_run_each(window, NULL); }

Test(prof_fibers, go_tool_pprof_reads_it)
{
    static struct test_output out;
    test_run(with_tool, &out);
}

/* None has a stack. */
static void queued(void *arg)
{
    add_rlx((w_u32 *)arg, 1); /* rlx: on the only processor */
    NO_TAIL_CALL();
}
static void spawn_labelled(void *arg)
{
    for (int i = 0; i < 7; i++)
        cr_assert_eq(weft_go(queued, arg), 0);
}

/* On a thread of the host that never comes into the runtime, while who has the only processor stays inside. */
static w_u32 holding, release_it;
struct asked { struct profile_out *o; int err; };

static void make(void *arg)
{
    struct asked *a = arg;
    const struct maps *maps = maps_begin(symbols_gone);
    a->err = out_collect(a->o, maps);
    if (a->err == 0)
        a->err = out_make(a->o);
    maps_end();
}

static void *ask(void *arg)
{
    while (load_acq(&holding) == 0)
        usleep(100);
    struct asked a = { .o = out_new(&profile_fibers, OUT_PROTO, NULL) };
    cr_assert_eq(helper_run(make, &a), 0);
    cr_assert_eq(a.err, 0);
    cr_assert_eq(out_write(a.o, sink_write, arg), 0);
    out_free(a.o);
    store_rel(&release_it, 1);
    return NULL;
}

static uint32_t hold(const w_u32 *started) /* before, if the processor was taken away for a while */
{
    struct m *m = rt_enter();
    store_rel(&holding, 1);
    while (load_acq(&release_it) == 0)
        usleep(100);
    uint32_t n = load_rlx(started); /* rlx: as where it is counted */
    rt_leave(m);
    return n;
}

static void unstarted(void *arg)
{
    (void)arg;
    struct sink s = { 0 };
    pthread_t t;
    weft_label l = { "job", "queued" };
    static w_u32 ran;
    cr_assert_eq(pthread_create(&t, NULL, ask, &s), 0);
    cr_assert_eq(weft_with_labels(&l, 1, spawn_labelled, &ran), 0);
    uint32_t started = hold(&ran);
    pthread_join(t, NULL);
    struct pp *pp = pp_decode(s.bytes, s.len);
    int64_t n = 0;
    for (size_t i = 0; i < pp->samples; i++) {
        if (strcmp(pp_text(&pp->sample[i]), "queued job=queued") == 0)
            n += pp->sample[i].value[0];
    }
    cr_expect_eq(n, 7 - (int64_t)started);
}

Test(prof_fibers, who_has_not_started_shows_what_it_is_to_run) { test_run_procs(1, unstarted, NULL); }

/* ---- leaked ------------------------------------------------------------------------------------------------------ */

NOINLINE static void leaks_here(void)
{
    for (int i = 0; i < 30; i++)
        start_waiting((struct job){ .wait = RECV, .on = node_new() });
    for (int i = 0; i < 10; i++)
        start_waiting((struct job){ .wait = MUTEX, .on = node_new() });
}

static void leaked(void *arg)
{
    (void)arg;
    leaks_here();
    never = weft_chan_make(0, 0);
    also_never = weft_chan_make(0, 0);
    start(receiver, 5);
    all_wait(45);
    weft_profile *p = weft_profile_lookup("goroutineleak");
    cr_assert_eq(p, weft_profile_lookup("leak"));
    cr_expect_eq(weft_profile_count(p), 0, "nobody has looked");
    test_wipe_stack();
    struct pp *pp = prof_read(p);
    int64_t n = 0;
    for (size_t i = 0; i < pp->samples; i++)
        n += pp->sample[i].value[0];
    cr_expect_eq(n, 40);
    cr_expect_str_eq(pp->type[0].type, "goroutineleak");
    cr_expect_eq(prof_sum(pp, "weft_chan_recv_until;waits").value[0] + prof_sum(pp, "weft_chan_recv;weft_chan_recv_until;waits").value[0], 30);
    cr_expect_eq(weft_profile_count(p), 40);
    const char *text = (const char *)prof_write(p, 2).bytes, *at = text;
    int said = 0, all = 0;
    for (; (at = strstr(at, "(leaked)]")) != NULL; at++)
        said++;
    for (at = text; (at = strstr(at, "\nfiber ")) != NULL; at++)
        all++;
    cr_expect_eq(said, 40);
    cr_expect_eq(all, 45, "those that are not leaked, too; and one in front");
    cr_expect_not_null(strstr(text, "[chan receive (leaked)]:"), "%s", text);
    cr_expect_not_null(strstr(text, "[sync.Mutex.Lock (leaked)]:"));
    cr_expect_not_null(strstr(prof_text(p), "goroutineleak profile: total 40\n"));
}

Test(prof_fibers, the_leaked_ones_alone_but_all_in_the_dump) { test_run_each(leaked, NULL); }

static void *leak_from_thread(void *arg)
{
    (void)arg;
    struct pp *pp = prof_named("goroutineleak");
    cr_expect_eq(weft_profile_count(weft_profile_lookup("goroutineleak")), 40);
    cr_expect_eq(prof_sum(pp, "weft_chan_recv_until;waits").value[0] + prof_sum(pp, "weft_chan_recv;weft_chan_recv_until;waits").value[0], 30);
    return NULL;
}

static void leaked_asked_by_thread(void *arg)
{
    (void)arg;
    leaks_here();
    all_wait(40);
    test_wipe_stack();
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, leak_from_thread, NULL), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(prof_fibers, a_thread_of_the_host_may_ask) { test_run_each(leaked_asked_by_thread, NULL); }

/* gctrace tells which collection it was. */
static char looks[4096];
static void remember(void *arg, const char *line)
{
    (void)arg;
    size_t n = strlen(looks);
    snprintf(looks + n, sizeof looks - n, "%s\n", line);
}

static void traced(void *arg)
{
    (void)arg;
    weft_gc();
    (void)prof_named("goroutineleak");
}

Test(prof_fibers, a_look_for_leaks_says_so_in_gctrace)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "gctrace=1,gcstress=0";
    cfg.log = remember;
    test_run_config(&cfg, traced, NULL);
    const char *second = strchr(looks, '\n'), *said = strstr(looks, "% (checking for goroutine leaks): ");
    cr_assert(second != NULL && said != NULL, "%s", looks);
    cr_expect_gt((uintptr_t)said, (uintptr_t)second, "not the other one");
    cr_expect_not_null(strstr(said, " P (forced)\n"));
}

/* ---- threads -------------------------------------------------------------------------------------------------------- */

NOINLINE static void blocks_here(void)
{
    weft_blocking_begin();
    usleep(1000);
    weft_blocking_end();
    NO_TAIL_CALL();
}

static void blocker(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5; i++)
        blocks_here();
}

static void threads(void *arg)
{
    (void)arg;
    for (int i = 0; i < 10; i++)
        weft_go(blocker, NULL);
    test_until(weft_num_fibers() == 1);
    weft_profile *p = weft_profile_lookup("threadcreate");
    struct pp *pp = prof_read(p);
    int64_t n = 0;
    for (size_t i = 0; i < pp->samples; i++) {
        n += pp->sample[i].value[0];
        cr_expect_neq(pp_text(&pp->sample[i])[0], 0, "each has a stack");
    }
    cr_expect_gt(n, 1);
    cr_expect_eq(n, weft_profile_count(p));
    bool by_us = false;
    for (size_t i = 0; i < pp->samples; i++)
        by_us |= strstr(pp_text(&pp->sample[i]), "blocks_here;blocker") != NULL || strstr(pp_text(&pp->sample[i]), ";threads") != NULL;
    for (size_t i = 0; i < pp->samples; i++) {
        const char *text = pp_text(&pp->sample[i]), *call = strstr(text, "weft_");
        cr_expect(call == NULL || call == text, "it begins with the call into weft: %s", text);
    }
    if (!by_us)
        prof_show(pp);
    cr_expect(by_us, "a fiber made some");
}

Test(prof_fibers, threads_show_who_made_them) { test_run_procs(2, threads, NULL); }
