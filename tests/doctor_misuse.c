/* The doctor's detectors of misused profiles, traces, dumps, counts and processors: each fires on its misuse, names the place, and is silent on
 * what looks like it and is sound. Examples, and programs at large: doctor_bugs.sh, doctor_healthy.c. */
#include "cgroup_test.h"
#include "doctor_test.h"
#include <errno.h>
#include <fcntl.h>
#include "base/probe.h"
#include "sched/maxprocs.h"

#define NO_TAIL_CALL() __asm__ volatile("" : : "i"(__LINE__)) /* nor are two such functions the same */

static int to_nothing(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }
static int to_nothing_else(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

/* ---- W07: profiles ---------------------------------------------------------------------------------------------- */

static weft_cpu_profile_opts raw = { .size = sizeof raw, .unlimited = true };

NOINLINE static void raw_start(void)
{
    cr_assert_eq(weft_cpu_profile_start(to_nothing, NULL, &raw), 0);
    NO_TAIL_CALL();
}

static void profile_forgotten(void *arg) { (void)arg, raw_start(); }

Test(doctor_misuse, raw_profile_that_the_end_of_the_runtime_stops, SIGNALS_AT_ONCE)
{
    live(profile_forgotten);
    one_found(WEFT_W07, "raw_start", "CPU profile");
    cr_expect_not_null(strstr(said.at[0].what, "until the runtime ended"), "%s", said.at[0].what);
}

static void wall_profile_forgotten(void *arg)
{
    (void)arg;
    weft_wall_profile_opts o = { .size = sizeof o, .unlimited = true };
    cr_assert_eq(weft_wall_profile_start(to_nothing, NULL, &o), 0);
}

Test(doctor_misuse, raw_wall_profile_likewise, SIGNALS_AT_ONCE)
{
    live(wall_profile_forgotten);
    one_found(WEFT_W07, "wall_profile_forgotten", "wall-clock profile");
}

static void profiles_in_order(void *arg)
{
    (void)arg;
    raw_start();
    cr_expect_eq(weft_cpu_profile_stop(), 0);
    cr_assert_eq(weft_cpu_profile_start(to_nothing, NULL, NULL), 0); /* its limits end it, or the runtime's end: that is what it was asked for with */
}

Test(doctor_misuse, profile_that_is_stopped_or_has_limits, SIGNALS_AT_ONCE)
{
    live(profiles_in_order);
    nothing_found("profiles in order");
}

static int broken_writer(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, -ENOSPC; }
static w_u32 was_closed;
static void note_closed(void *arg, int why, int err) { (void)arg, (void)why, (void)err, store_rel(&was_closed, 1); }

static void profile_broken(void *arg)
{
    (void)arg;
    weft_cpu_profile_opts o = { .size = sizeof o, .unlimited = true, .flush_ms = 10, .closed = note_closed };
    cr_assert_eq(weft_cpu_profile_start(broken_writer, NULL, &o), 0);
    test_until(load_acq(&was_closed) != 0);
}

Test(doctor_misuse, raw_profile_that_its_writer_has_ended, SIGNALS_AT_ONCE)
{
    live(profile_broken);
    nothing_found("ended by its writer");
}

static const char *profile_name;
static void hear_begun(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    (void)arg, (void)id, (void)b, (void)c;
    profile_name = (const char *)a;
}

static void profile_grown(void *arg)
{
    (void)arg;
    cr_assert_eq(probe_listen(1ull << PROBE_profile_begun, hear_begun, NULL), 0);
    raw_start();
    rt_enter(); /* as the helper says after an hour, or 64 MiB */
    PROBE(profile_over, profile_name, 70 << 20, 10);
    rt_leave(m_self());
    cr_expect_eq(weft_doctor_flush(), 0);
    cr_expect_eq(said.n, 1, "while it runs");
    probe_unlisten(hear_begun, NULL);
    cr_expect_eq(weft_cpu_profile_stop(), 0);
}

Test(doctor_misuse, raw_profile_beyond_the_limits_of_others, SIGNALS_AT_ONCE)
{
    live(profile_grown);
    one_found(WEFT_W07, "raw_start", "nobody has stopped it");
}

static void exits(void *arg)
{
    (void)arg;
    raw_start();
    exit(0);
}

static void print_finding(void *arg, const weft_finding *f)
{
    (void)arg;
    printf("W%02d %s\n", f->code, f->what);
    fflush(stdout);
}

static void run_and_exit(void *arg)
{
    (void)arg;
    weft_config c = { .size = sizeof c, .finding = print_finding };
    (void)!weft_run(exits, NULL, &c);
}

Test(doctor_misuse, raw_profile_at_exit_is_told_before_the_process_ends, SIGNALS_AT_ONCE)
{
    struct test_output out;
    cr_expect_eq(test_fork(&out, run_and_exit, NULL), 0, "%s", out.text);
    cr_expect_not_null(strstr(out.text, "W07"), "%s", out.text);
    cr_expect_not_null(strstr(out.text, "until the process called exit"), "%s", out.text);
}

/* ---- W08: the number of fibers ------------------------------------------------------------------------------------ */

static weft_chan *stay;
static void stays(void *arg) { (void)arg, weft_chan_recv(stay, NULL); }
static void stay_some(void)
{
    stay = weft_chan_make(0, 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_go(stays, NULL), 0);
}

NOINLINE static int64_t before_all(void) { int64_t n = weft_num_fibers(); NO_TAIL_CALL(); return n; }
NOINLINE static int64_t after_all(void) { int64_t n = weft_num_fibers(); NO_TAIL_CALL(); return n; }

static void counts_twice(void *arg)
{
    (void)arg;
    cr_expect_eq(before_all(), 1);
    stay_some();
    cr_expect_eq(after_all(), 4);
}

Test(doctor_misuse, fibers_counted_before_anything_ran_and_after)
{
    live(counts_twice);
    one_found(WEFT_W08, "after_all", "the difference of 3");
    cr_expect(begins(said.at[0].made, "before_all"), "%s", said.at[0].made);
}

static void counts_warm(void *arg)
{
    (void)arg;
    stay_some();
    before_all();
    stay_some();
    after_all();
}
static void counts_for_a_metric(void *arg)
{
    (void)arg;
    before_all();
    for (int i = 0; i < 5; i++) {
        stay_some();
        after_all();
    }
}
static void counts_at_one_place(void *arg)
{
    (void)arg;
    before_all();
    stay_some();
    before_all();
}
static void counts_and_is_right(void *arg)
{
    (void)arg;
    before_all();
    after_all();
}
static void counts_for_others(void *arg) { (void)arg, before_all(), stay_some(), after_all(); }
static void counts_elsewhere(void *arg)
{
    weft_waitgroup wg = { 0 };
    (void)arg;
    cr_assert_eq(weft_waitgroup_go(&wg, counts_for_others, NULL), 0);
    weft_waitgroup_wait(&wg);
}

static void polls(void *arg)
{
    for (int i = 0; i < 3; i++)
        weft_num_fibers();
    weft_chan_send(arg, NULL);
}
static void counts_beside_a_metric(void *arg)
{
    (void)arg;
    before_all();
    stay_some();
    weft_chan *polled = weft_chan_make(0, 0);
    after_all();
    cr_assert_eq(weft_go(polls, polled), 0);
    weft_chan_recv(polled, NULL);
}

Test(doctor_misuse, fibers_counted_for_other_reasons)
{
    live(counts_beside_a_metric), nothing_found("beside a metric");
    live(counts_warm), nothing_found("warm");
    live(counts_for_a_metric), nothing_found("a metric");
    live(counts_at_one_place), nothing_found("one place");
    live(counts_and_is_right), nothing_found("no more than before");
    live(counts_elsewhere), nothing_found("another fiber");
}

/* ---- W09: traces ----------------------------------------------------------------------------------------------------- */

NOINLINE static int first_start(void) { int err = weft_trace_start(to_nothing, NULL, NULL); NO_TAIL_CALL(); return err; }
NOINLINE static int second_start(void) { int err = weft_trace_start(to_nothing, NULL, NULL); NO_TAIL_CALL(); return err; }
static int stop(void) { return weft_trace_stop(to_nothing, NULL, NULL); }

static void starts_twice(void *arg)
{
    (void)arg;
    cr_expect_eq(first_start(), 0);
    cr_expect_eq(second_start(), -EALREADY);
    cr_expect_eq(stop(), 0);
    cr_expect_eq(stop(), -ENOENT);
}

Test(doctor_misuse, trace_started_twice)
{
    live(starts_twice);
    one_found(WEFT_W09, "second_start", "refused (-EALREADY)");
    cr_expect(begins(said.at[0].made, "first_start"), "%s", said.at[0].made);
}

static void starts_and_looks(void *arg)
{
    (void)arg;
    cr_expect_eq(first_start(), 0);
    cr_expect_eq(second_start(), -EALREADY);
    cr_expect_eq(stop(), 0);
    cr_expect_eq(second_start(), 0);
    cr_expect_eq(stop(), 0);
}
static void starts_and_goes_without(void *arg)
{
    (void)arg;
    cr_expect_eq(first_start(), 0);
    cr_expect_eq(second_start(), -EALREADY);
    cr_expect_eq(stop(), 0);
}
static void stops_in_vain(void *arg)
{
    (void)arg;
    cr_expect_eq(first_start(), 0);
    cr_expect_eq(stop(), 0);
    cr_expect_eq(stop(), -ENOENT); /* to be sure, at a shutdown */
}
static void starts_two(void *arg)
{
    (void)arg;
    cr_expect_eq(first_start(), 0);
    cr_expect_eq(weft_trace_start(to_nothing_else, NULL, NULL), 0);
    cr_expect_eq(stop(), 0);
    cr_expect_eq(weft_trace_stop(to_nothing_else, NULL, NULL), 0);
}

Test(doctor_misuse, trace_refused_and_looked_at)
{
    live(starts_and_looks), nothing_found("stopped, and started anew");
    live(starts_and_goes_without), nothing_found("goes without");
    live(stops_in_vain), nothing_found("a stop in vain");
    live(starts_two), nothing_found("two writers");
}

static char trace_path[64];
static const char *second_path;

static void traces_to_files(void *arg)
{
    (void)arg;
    int a = open(trace_path, O_WRONLY), b = open(second_path, O_WRONLY);
    cr_assert(a >= 0 && b >= 0);
    cr_expect_eq(weft_trace_start(weft_fd_writer, (void *)(intptr_t)a, NULL), 0);
    cr_expect_eq(weft_trace_start(weft_fd_writer, (void *)(intptr_t)b, NULL), 0);
    cr_expect_eq(weft_trace_stop(weft_fd_writer, (void *)(intptr_t)b, NULL), 0);
    cr_expect_eq(weft_trace_stop(weft_fd_writer, (void *)(intptr_t)a, NULL), 0);
    close(a);
    close(b);
}

Test(doctor_misuse, two_traces_into_one_file)
{
    strcpy(trace_path, "/tmp/weft-doctor-XXXXXX");
    close(mkstemp(trace_path));
    second_path = trace_path;
    live(traces_to_files);
    one_found(WEFT_W09, "traces_to_files", "one is written already");
    char other[] = "/tmp/weft-doctor-XXXXXX";
    close(mkstemp(other));
    second_path = other;
    live(traces_to_files), nothing_found("two files");
    unlink(other);
    unlink(trace_path);
    strcpy(trace_path, "/dev/null");
    second_path = trace_path;
    live(traces_to_files), nothing_found("a device");
}

/* ---- W10: rates --------------------------------------------------------------------------------------------------------- */

enum { BLOCK, MUTEX };

/* As the profile says it: so much of every 100 ms. */
static void costs(int kind, int64_t ns, int times)
{
    rt_enter();
    for (int i = 0; i < times; i++)
        PROBE(waits_cost, kind, ns, 100 * WEFT_MILLISECOND);
    rt_leave(m_self());
}

NOINLINE static void every_wait(void) { cr_assert_eq(weft_set_block_profile_rate(1), 0); NO_TAIL_CALL(); }

static void waits_dear(void *arg) { (void)arg, every_wait(), costs(BLOCK, 30 * WEFT_MILLISECOND, 3); }

Test(doctor_misuse, block_rate_of_one_that_costs_a_third)
{
    live(waits_dear);
    one_found(WEFT_W10, "every_wait", "30.0 % of the processor time, 90 of 300 ms");
    cr_expect_not_null(strstr(said.at[0].what, "every wait"), "%s", said.at[0].what);
}

static void unlocks_dear(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_set_mutex_profile_fraction(2), 0);
    costs(MUTEX, 15 * WEFT_MILLISECOND, 3);
}

Test(doctor_misuse, mutex_fraction_that_costs_a_seventh)
{
    live(unlocks_dear);
    one_found(WEFT_W10, "unlocks_dear", "one such unlock in 2");
}

static void waits_cheap(void *arg) { (void)arg, every_wait(), costs(BLOCK, 5 * WEFT_MILLISECOND, 50); }
static void waits_dear_for_a_moment(void *arg) { (void)arg, every_wait(), costs(BLOCK, 90 * WEFT_MILLISECOND, 2); }
static void waits_at_a_coarse_rate(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_set_block_profile_rate(100000), 0);
    costs(BLOCK, 30 * WEFT_MILLISECOND, 9);
}

Test(doctor_misuse, rates_that_cost_little)
{
    live(waits_cheap), nothing_found("a twentieth");
    live(waits_dear_for_a_moment), nothing_found("a moment");
    live(waits_at_a_coarse_rate), nothing_found("a coarse rate");
}

/* What the profile tells is what it measures: more at rate 1 than at a coarse rate, nothing with a budget. */
static struct { uint64_t ns, cpu_ns; } told_cost;
static void hear_cost(void *arg, enum probe_id id, uintptr_t kind, uintptr_t ns, uintptr_t cpu_ns)
{
    (void)arg, (void)id;
    if (kind == BLOCK) {
        told_cost.ns += ns;
        told_cost.cpu_ns += cpu_ns;
    }
}

static void echo(void *arg)
{
    long n;
    while (weft_chan_recv(arg, &n) == 1)
        ;
}

static void hand_over(long times)
{
    weft_chan *c = weft_chan_make_noscan(sizeof(long), 0);
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, echo, c), 0);
    for (long i = 0; i < times; i++)
        weft_chan_send(c, &i);
    weft_chan_close(c);
    weft_waitgroup_wait(&wg);
}

static void measures(void *arg)
{
    (void)arg;
    cr_assert_eq(probe_listen(1ull << PROBE_waits_cost, hear_cost, NULL), 0);
    every_wait();
    hand_over(200000);
    cr_assert_eq(weft_set_block_profile_rate(0), 0);
    cr_expect_gt(told_cost.ns, 0);
    cr_expect_gt(told_cost.cpu_ns, 0); /* the cost is of samples, by the clock: where others have the CPUs it may come to more */
    told_cost.ns = told_cost.cpu_ns = 0;
    cr_assert_eq(weft_set_block_profile_budget(1), 0);
    hand_over(200000);
    cr_assert_eq(weft_set_block_profile_rate(0), 0);
    cr_expect_eq(told_cost.cpu_ns, 0, "with a budget it is the profile's own affair");
    probe_unlisten(hear_cost, NULL);
}

Test(doctor_misuse, cost_of_recording_is_measured)
{
    live_with((weft_config){ .maxprocs = 1, .doctor = "w10=off" }, measures);
}

/* ---- W11: dumps ------------------------------------------------------------------------------------------------------------ */

static char small[200];

NOINLINE static ssize_t dump_small(void) { ssize_t n = weft_stack(small, sizeof small, true); NO_TAIL_CALL(); return n; }

static void dumps_small(void *arg)
{
    (void)arg;
    stay_some();
    cr_expect_gt(dump_small(), (ssize_t)sizeof small);
}

Test(doctor_misuse, dump_cut)
{
    live(dumps_small);
    one_found(WEFT_W11, "dump_small", "was cut to the 199");
}

static void dumps_small_again(void *arg)
{
    dumps_small(arg);
    dump_small();
    cr_expect_eq(weft_doctor_flush(), 0);
    cr_expect_eq(said.n, 1, "the same again: it is known at once");
}

Test(doctor_misuse, dump_cut_again_and_again)
{
    live(dumps_small_again);
    one_found(WEFT_W11, "dump_small", "was cut");
}

static void dumps_larger(void *arg)
{
    dumps_small(arg);
    size_t room = sizeof small;
    char *text = NULL;
    for (ssize_t n = (ssize_t)room; n >= (ssize_t)room; n = weft_stack(text, room, true)) {
        room = (size_t)n + 1;
        text = realloc(text, room);
    }
    cr_expect_null(strstr(small, " of "));
    cr_expect_not_null(strstr(text, "4 of 4 fibers"));
    free(text);
}
static void dumps_itself(void *arg) { (void)arg, stay_some(); cr_expect_gt(weft_stack(small, 20, false), 20); }
static void dumps_for_the_size(void *arg) { (void)arg, stay_some(); cr_expect_gt(weft_stack(NULL, 0, true), 0); }

Test(doctor_misuse, dump_that_was_looked_at)
{
    live(dumps_larger), nothing_found("a larger buffer");
    live(dumps_itself), nothing_found("the own stack");
    live(dumps_for_the_size), nothing_found("only the size");
}

/* ---- W12: processors ----------------------------------------------------------------------------------------------------------- */

static void stat_says(int periods, int throttled, int usec)
{
    char text[256];
    snprintf(text, sizeof text, "usage_usec 1\nnr_periods %d\nnr_throttled %d\nthrottled_usec %d\n", periods, throttled, usec);
    put("/sys/fs/cgroup/app.slice/one/cpu.stat", text);
}

static int stat_periods, stat_throttled, stat_processors;
static bool stat_at_once; /* else only the end of the runtime finds it */

NOINLINE static void all_cpus(int n) { weft_maxprocs(n); NO_TAIL_CALL(); }

static void runs_throttled(void *arg)
{
    (void)arg;
    if (stat_processors > 0)
        all_cpus(stat_processors);
    if (stat_at_once)
        stat_says(100 + stat_periods, 50 + stat_throttled, 1000000 + 70000 * stat_throttled);
    rt_enter(); /* as the monitor says each second */
    if (nprocs() > 2)
        PROBE(procs_above, nprocs(), 2, 0);
    rt_leave(m_self());
    if (!stat_at_once)
        stat_says(100 + stat_periods, 50 + stat_throttled, 1000000 + 70000 * stat_throttled);
}

static void live_throttled(weft_config c, int processors, int periods, int throttled)
{
    stat_processors = processors;
    stat_periods = periods;
    stat_throttled = throttled;
    make_root();
    v2("200000 100000\n");
    stat_says(100, 50, 1000000);
    root_for_weft();
    c.debug = "cpus=8";
    live_with(c, runs_throttled);
    remove_root();
}

Test(doctor_misuse, more_processors_than_the_quota_and_throttled)
{
    live_throttled((weft_config){ 0 }, 8, 20, 15);
    one_found(WEFT_W12, "all_cpus", "8 processors were asked for here, where quota and CPUs give 2");
    cr_expect_not_null(strstr(said.at[0].what, "15 of 20 periods, for 1050 ms"), "%s", said.at[0].what);
    live_throttled((weft_config){ .maxprocs = 8 }, 0, 20, 15);
    one_found(WEFT_W12, "", "8 processors were asked for at the start");
    stat_at_once = true;
    live_throttled((weft_config){ 0 }, 8, 20, 15);
    one_found(WEFT_W12, "all_cpus", "15 of 20 periods");
}

Test(doctor_misuse, processors_without_harm)
{
    live_throttled((weft_config){ 0 }, 0, 20, 15), nothing_found("the default");
    live_throttled((weft_config){ 0 }, 2, 20, 15), nothing_found("as many as the default");
    live_throttled((weft_config){ 0 }, 8, 20, 1), nothing_found("hardly throttled");
    live_throttled((weft_config){ 0 }, 8, 5, 5), nothing_found("a moment");
}

/* The monitor comes and looks by itself. */
static void burns(void *arg)
{
    w_u32 *over = arg;
    while (load_rlx(over) == 0) /* rlx: a flag */
        weft_yield();
}

static void runs_busy(void *arg)
{
    static w_u32 over;
    (void)arg;
    store_rlx(&over, 0);
    all_cpus(4);
    weft_go(burns, &over);
    stat_says(200, 140, 9000000);
    test_until(weft_doctor_count(WEFT_W12) != 0);
    store_rlx(&over, 1);
}

Test(doctor_misuse, monitor_looks_whether_it_is_throttled)
{
    make_root();
    v2("200000 100000\n");
    stat_says(100, 50, 1000000);
    root_for_weft();
    live_with((weft_config){ .debug = "cpus=8" }, runs_busy);
    remove_root();
    one_found(WEFT_W12, "all_cpus", "90 of 100 periods");
}
