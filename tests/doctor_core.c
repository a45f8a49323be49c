/* The doctor: what is told of what was seen, how often, where to, and by which mode. */
#include "doctor_test.h"
#include <errno.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>
#include "debug/findings.h"
#include "metrics_test.h"

/* ---- once each --------------------------------------------------------------------------------------------------------- */

NOINLINE static void offender(const char *what) { cr_assert_eq(weft_doctor_note(WEFT_W14, what), 0); __asm__ volatile(""); }
NOINLINE static void other_offender(void) { cr_assert_eq(weft_doctor_note(WEFT_W14, "same"), 0); __asm__ volatile(""); }
NOINLINE static void calls_offender(const char *what) { offender(what); __asm__ volatile(""); }

static void sees_the_same_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        calls_offender("same");
    for (int i = 0; i < 500; i++)
        other_offender();
    calls_offender("something \"else\"\n");
    cr_expect_eq(weft_doctor_count(WEFT_W14), 1501);
    cr_expect_eq(weft_doctor_flush(), 0);
    cr_expect_eq(said.n, 3, "%d", said.n);
}

Test(doctor_core, a_finding_is_told_once_with_its_stack)
{
    doctor_run(sees_the_same_often, NULL, NULL, NULL);
    cr_assert_eq(said.n, 3);
    const struct told *t = &said.at[0];
    cr_expect_eq(t->code, WEFT_W14);
    cr_expect(strncmp(t->stack, "offender at doctor_core.c:", 26) == 0, "%s", t->stack);
    cr_expect_not_null(strstr(t->stack, "\ncalls_offender at doctor_core.c:"), "%s", t->stack);
    cr_expect_not_null(strstr(t->stack, "\nsees_the_same_often at doctor_core.c:"), "%s", t->stack);
    cr_expect_null(strstr(t->stack, "weft_"), "nothing of the library: %s", t->stack);
    cr_expect_not_null(strstr(t->what, "same"), "%s", t->what);
    cr_expect(strncmp(said.at[1].stack, "other_offender at", 17) == 0, "%s", said.at[1].stack);
    cr_expect(t->first > 0 && t->last >= t->first && t->count >= 1);
    cr_expect_str_eq(said.log, "", "the host has a function of its own: %s", said.log);
    cr_expect_eq(weft_doctor_count(WEFT_W14), 1501, "still there after the end");
}

static void seen_just_before_the_end(void *arg)
{
    (void)arg;
    calls_offender("late");
}

Test(doctor_core, the_end_tells_what_is_left)
{
    doctor_run(seen_just_before_the_end, NULL, NULL, NULL);
    cr_assert_eq(said.n, 1);
}

static void *of_the_host(void *arg)
{
    (void)arg;
    calls_offender("from a thread of the host");
    cr_expect_eq(weft_doctor_flush(), 0);
    return NULL;
}

static void has_a_thread(void *arg)
{
    pthread_t t;
    (void)arg;
    cr_assert_eq(pthread_create(&t, NULL, of_the_host, NULL), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
    cr_expect_eq(said.n, 1, "flushed");
}

Test(doctor_core, threads_of_the_host_are_seen_too)
{
    doctor_run(has_a_thread, NULL, NULL, NULL);
    cr_assert_eq(said.n, 1);
    cr_expect_not_null(strstr(said.at[0].stack, "\nof_the_host at doctor_core.c:"), "%s", said.at[0].stack);
}

NOINLINE static void recurse(int n, const char *what)
{
    volatile char room[512];
    room[0] = 0;
    if (n == 0)
        calls_offender(what);
    else
        recurse(n - 1, what);
    room[1] = room[0];
}

static void goes_deep(void *arg)
{
    (void)arg;
    recurse(20, "deep");
    recurse(120, "deeper than what is kept");
}

Test(doctor_core, of_a_deep_stack_the_inner_frames_are_told)
{
    doctor_run(goes_deep, NULL, NULL, NULL);
    cr_assert_eq(said.n, 2);
    for (int i = 0; i < 2; i++) {
        int frames = 0;
        for (const char *p = said.at[i].stack; (p = strstr(p, "recurse at")) != NULL; p++)
            frames++;
        cr_expect(frames >= 20, "%d: %s", frames, said.at[i].stack);
    }
    cr_expect_not_null(strstr(said.at[0].stack, "goes_deep at"), "%s", said.at[0].stack);
}

static void notes_each_code(void *arg)
{
    (void)arg;
    for (int code = 1; code < WEFT_DOCTOR_CODES; code++)
        cr_expect_eq(weft_doctor_note(code, "a library has seen it"), 0);
    cr_expect_eq(weft_doctor_flush(), 0);
    char *json = doctor_text(WEFT_FORM_JSON);
    cr_expect_null(strstr(json, "\"title\":\"\""), "%s", json);
}

Test(doctor_core, a_librarys_sentence_is_told_as_it_is_and_each_code_has_its_cure)
{
    doctor_run(notes_each_code, NULL, NULL, NULL);
    for (int code = 1; code < WEFT_DOCTOR_CODES; code++) {
        const struct told *t = NULL;
        cr_assert_eq(told_of(code, &t), 1, "W%02d", code);
        cr_expect_str_eq(t->what, "a library has seen it", "W%02d: %s", code, t->what);
        cr_expect_neq(t->cure[0], 0, "W%02d", code);
    }
}

/* ---- modes ---------------------------------------------------------------------------------------------------------------- */

static void sees_two_codes(void *arg)
{
    (void)arg;
    calls_offender("fourteen");
    cr_assert_eq(weft_doctor_note(WEFT_W07, "seven"), 0);
    cr_assert_eq(weft_doctor_flush(), 0);
}

static void expect_modes(const char *modes, const char *debug, int told14, int told7, uint64_t count14, uint64_t count7)
{
    said.n = 0;
    doctor_run(sees_two_codes, NULL, modes, debug);
    cr_expect_eq(told_of(WEFT_W14, NULL), told14, "%s, %s", modes, debug);
    cr_expect_eq(told_of(WEFT_W07, NULL), told7, "%s, %s", modes, debug);
    cr_expect_eq(weft_doctor_count(WEFT_W14), count14, "%s, %s", modes, debug);
    cr_expect_eq(weft_doctor_count(WEFT_W07), count7, "%s, %s", modes, debug);
}

Test(doctor_core, modes_for_all_and_for_one)
{
    expect_modes(NULL, NULL, 1, 1, 1, 1);
    expect_modes("off", NULL, 0, 0, 0, 0);
    expect_modes("count", NULL, 0, 0, 1, 1);
    expect_modes("count,w14=report", NULL, 1, 0, 1, 1);
    expect_modes("w14=off", NULL, 0, 1, 0, 1);
    expect_modes(NULL, "doctor=off,w07=report", 0, 1, 0, 1);
    expect_modes(NULL, "w07=count", 1, 0, 1, 1);
    expect_modes("report", "doctor=off", 1, 1, 1, 1);
    setenv("WEFT_DEBUG", "doctor=count", 1);
    expect_modes(NULL, NULL, 0, 0, 1, 1);
    unsetenv("WEFT_DEBUG");
}

static void counts(void *arg)
{
    (void)arg;
    calls_offender("counted");
    cr_assert_eq(weft_doctor_flush(), 0);
    cr_expect_not(load_acq(&doctor.table)[0].resolved);
    cr_expect_not_null(strstr(doctor_text(WEFT_FORM_TEXT), "offender at doctor_core.c:"));
    calls_offender("as well");
}

/* Symbols cost milliseconds and memory, at the end of the runtime, too. */
Test(doctor_core, what_is_only_counted_is_not_looked_up_till_somebody_asks) { doctor_run(counts, NULL, "count", NULL); }

static void never(void *arg) { (void)arg; }

static void expect_refused(const char *modes, const char *why)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.doctor = modes;
    cfg.log = note_line;
    said.log[0] = 0;
    cr_expect_eq(weft_run(never, NULL, &cfg), -EINVAL, "%s", modes);
    cr_expect_not_null(strstr(said.log, why), "%s: %s", modes, said.log);
}

Test(doctor_core, what_is_no_mode_is_refused)
{
    expect_refused("abrot", "weft_config.doctor: \"abrot\" cannot be used: it must be off|count|report|abort");
    expect_refused("count,w06=of", "weft_config.doctor: w06=of cannot be used: it must be off|count|report|abort");
    expect_refused("w19=off", "unknown key \"w19\"");
    expect_refused("gctrace=1", "\"gctrace=1\" cannot be used");
}

static void goes_on_for_long(void *arg)
{
    calls_offender("abort");
    weft_sleep(20 * WEFT_SECOND);
    puts("not ended");
    (void)arg;
}

static void ends_at_once(void *arg) { (void)arg, calls_offender("abort"); }

static void aborts(void *fn)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.doctor = "w14=abort";
    _exit(weft_run((weft_fn *)fn, NULL, &cfg));
}

Test(doctor_core, abort_tells_and_then_ends_the_program)
{
    struct test_output out;
    weft_fn *const programs[] = { goes_on_for_long, ends_at_once };
    for (int i = 0; i < 2; i++) {
        test_fork(&out, aborts, (void *)programs[i]);
        cr_expect_eq(out.term_signal, SIGABRT, "%d: %s", out.exit_code, out.text);
        const char *told = strstr(out.text, "weft: doctor: W14: ");
        const char *end = strstr(out.text, "weft: fatal: the doctor has found W14, and its mode is abort: ");
        cr_expect(told != NULL && end != NULL && told < end, "%s", out.text);
        cr_expect_not_null(strstr(out.text, "      offender at doctor_core.c:"), "%s", out.text);
        cr_expect_null(strstr(out.text, "not ended"));
    }
}

/* The host's function may start a program, say. */
static int child_status = -1;
static void forks_and_waits(void *arg, const weft_finding *f)
{
    (void)arg, (void)f;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, &child_status, 0);
}

static void is_told_of(void *arg)
{
    (void)arg;
    calls_offender("a fork");
    cr_expect_eq(weft_doctor_flush(), 0);
}

Test(doctor_core, the_function_of_the_hosts_may_fork)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.finding = forks_and_waits;
    test_run_config(&cfg, is_told_of, NULL);
    cr_expect_eq(child_status, 0, "%d", child_status);
}

static void logs(void *arg)
{
    (void)arg;
    calls_offender("to the log");
}

Test(doctor_core, without_a_function_of_the_hosts_it_goes_to_the_log)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.log = note_line;
    test_run_config(&cfg, logs, NULL);
    cr_expect(strncmp(said.log, "weft: doctor: W14: ", 19) == 0, "%s", said.log);
    cr_expect_not_null(strstr(said.log, "to the log.\n      offender at doctor_core.c:"), "%s", said.log);
}

/* ---- reports --------------------------------------------------------------------------------------------------------------------- */

static void reports(void *arg)
{
    (void)arg;
    char *empty = doctor_text(WEFT_FORM_JSON);
    js_parse(empty);
    cr_expect_not_null(strstr(empty, "\"findings\":[]"), "%s", empty);
    calls_offender("a \"quoted\"\n\x01 text");
    calls_offender("no UTF-8: \xff, \xc3");
    calls_offender("another");
    calls_offender("another");
    char *text = doctor_text(WEFT_FORM_TEXT), *json = doctor_text(WEFT_FORM_JSON);
    js_parse(json);
    cr_expect_not_null(strstr(json, "\"w06\":\"off\""), "%s", json);
    cr_expect_not_null(strstr(json, "\"w14\":4"), "%s", json);
    cr_expect_not_null(strstr(json, "a \\\"quoted\\\"\\u000a\\u0001 text"), "%s", json);
    cr_expect_not_null(strstr(json, "no UTF-8: \xef\xbf\xbd, \xef\xbf\xbd\""), "%s", json);
    cr_expect_not_null(strstr(json, "\"stack\":[{\"function\":\"offender\",\"file\":\"" TEST_SRC "/tests/doctor_core.c\",\"line\":"), "%s", json);
    cr_expect_not_null(strstr(json, "\"count\":2"), "%s", json);
    cr_expect_not_null(strstr(text, "doctor: 3 findings\n"), "%s", text);
    cr_expect_not_null(strstr(text, "    offender at doctor_core.c:"), "%s", text);
    cr_expect_eq(weft_doctor_report(NULL, NULL, WEFT_FORM_TEXT), -EINVAL);
    cr_expect_eq(weft_doctor_report(sink_write, NULL, 7), -EINVAL);
}

Test(doctor_core, reports_as_text_and_json) { doctor_run(reports, NULL, "w06=off", NULL); }

static int fails(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, -EIO; }
static void fails_to_write(void *arg) 
{
    (void)arg;
    cr_expect_eq(weft_doctor_report(fails, NULL, WEFT_FORM_TEXT), -EIO);
}

Test(doctor_core, a_writers_error_is_returned) { doctor_run(fails_to_write, NULL, NULL, NULL); }

Test(doctor_core, outside_of_the_runtime_there_is_none)
{
    cr_expect_eq(weft_doctor_report(sink_write, NULL, WEFT_FORM_TEXT), -ESRCH);
    cr_expect_eq(weft_doctor_flush(), -ESRCH);
    cr_expect_eq(weft_doctor_note(WEFT_W01, "x"), -ESRCH);
    cr_expect_eq(weft_doctor_note(0, "x"), -EINVAL);
    cr_expect_eq(weft_doctor_note(WEFT_DOCTOR_CODES, "x"), -EINVAL);
    cr_expect_eq(weft_doctor_count(0) + weft_doctor_count(-1) + weft_doctor_count(WEFT_DOCTOR_CODES), 0);
}

static void sees_more_than_there_is_room_for(void *arg)
{
    char what[32];
    (void)arg;
    for (unsigned i = 0; i < FINDINGS_MAX + 36; i++) {
        snprintf(what, sizeof what, "number %u", i);
        offender(what);
    }
    cr_expect_eq(weft_doctor_count(WEFT_W14), FINDINGS_MAX + 36);
    char *json = doctor_text(WEFT_FORM_JSON);
    cr_expect_not_null(strstr(json, "\"lost\":36,"), "%s", json);
    js_parse(json);
    cr_expect_eq(weft_doctor_flush(), 0);
    cr_expect_eq(said.n, FINDINGS_MAX);
}

Test(doctor_core, what_has_no_room_is_counted) { doctor_run(sees_more_than_there_is_room_for, NULL, NULL, NULL); }

struct counted { int ready; uint32_t found; };

static void *waits_until_counted(void *arg)
{
    struct counted *c = arg;
    __atomic_store_n(&c->ready, 1, __ATOMIC_RELEASE);
    while (weft_doctor_count(WEFT_W14) == 0)
        cpu_relax();
    c->found = findings();
    return NULL;
}

static void sees_one_watched(void *arg)
{
    pthread_t t;
    struct counted c = { 0 };
    cr_assert_eq(pthread_create(&t, NULL, waits_until_counted, &c), 0);
    while (!__atomic_load_n(&c.ready, __ATOMIC_ACQUIRE))
        usleep(100);
    offender(arg);
    pthread_join(t, NULL);
    cr_expect_eq(c.found, 1);
}

Test(doctor_core, what_is_counted_can_be_found)
{
    for (int i = 0; i < 20; i++)
        doctor_run(sees_one_watched, "one", NULL, NULL);
}

static void reads_metric(void *arg)
{
    (void)arg;
    calls_offender("counted");
    calls_offender("counted");
    weft_metric s = { .name = "/weft/doctor/findings/w14:findings" };
    cr_assert_eq(weft_metrics_read(&s, 1), 0);
    cr_expect_eq(s.kind, WEFT_METRIC_U64);
    cr_expect_eq(s.u64, 2);
}

Test(doctor_core, there_is_a_metric) { doctor_run(reads_metric, NULL, "count", NULL); }

/* ---- many at a time ------------------------------------------------------------------------------------------------------------- */

static void many(void *arg)
{
    for (int i = 0; i < 200; i++) {
        offender((const char *)arg);
        if (i % 20 == 0)
            weft_yield();
        if (i == 100)
            cr_assert_eq(weft_doctor_flush(), 0);
        if (i % 50 == 0)
            free(doctor_text(i % 100 == 0 ? WEFT_FORM_JSON : WEFT_FORM_TEXT));
    }
}

static void storm(void *arg)
{
    static char names[16][8];
    weft_waitgroup wg = { 0 };
    (void)arg;
    for (int i = 0; i < 16; i++) {
        snprintf(names[i], sizeof names[i], "n%d", i / 2);
        cr_assert_eq(weft_waitgroup_go(&wg, many, names[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        weft_gc();
        weft_yield();
    }
    weft_waitgroup_wait(&wg);
    cr_expect_eq(weft_doctor_count(WEFT_W14), 16 * 200);
    cr_expect_eq(weft_doctor_flush(), 0);
    cr_expect_eq(told_of(WEFT_W14, NULL), 8, "%d", said.n);
}

Test(doctor_core, many_fibers_see_the_same) { doctor_run(storm, NULL, NULL, NULL); }

/* ---- lives, forks, and nothing ------------------------------------------------------------------------------------------------- */

Test(doctor_core, each_life_begins_anew)
{
    mallopt(M_ARENA_MAX, 1); /* libc's would count as mappings left */
    int threads = test_threads(), fds = test_fds(), maps = 0;
    for (int i = 0; i < 20; i++) {
        said.n = 0;
        doctor_run(sees_the_same_often, NULL, NULL, NULL);
        cr_assert_eq(said.n, 3, "life %d: %d", i, said.n);
        test_until(test_threads() == threads);
        cr_expect_eq(test_fds(), fds);
        if (i == 3)
            maps = test_maps();
    }
    cr_expect(test_is_slow() || test_maps() <= maps + 2, "%d, %d after three lives", test_maps(), maps);
}

static int in_child(void)
{
    said.n = 0;
    if (weft_doctor_count(WEFT_W14) != 0)
        return 2;
    calls_offender("same");
    calls_offender("of the child");
    if (weft_doctor_flush() != 0)
        return 3;
    if (said.n != 2 || weft_doctor_count(WEFT_W14) != 2)
        return 4;
    if (strstr(said.at[0].stack, "calls_offender at doctor_core.c:") == NULL)
        return 5;
    js_parse(doctor_text(WEFT_FORM_JSON));
    return 0;
}

static void forks(void *arg)
{
    int status;
    if (arg != NULL)
        sees_the_same_often(NULL);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        _exit(in_child());
    weft_blocking_begin();
    cr_assert_eq(waitpid(child, &status, 0), child);
    weft_blocking_end();
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %x", status);
    calls_offender("of the parent");
    cr_expect_eq(weft_doctor_flush(), 0);
    cr_expect_eq(said.n, arg != NULL ? 4 : 1);
}

Test(doctor_core, the_child_of_a_fork_has_its_own, CHILD_GOES_ON)
{
    doctor_run(forks, "after findings", NULL, NULL);
    said.n = 0;
    doctor_run(forks, NULL, NULL, NULL);
}

static void looks_what_there_is(void *arg)
{
    struct off_stats prof;
    const int *others = arg;
    weft_sleep(1000);
    off_stats(OFF_PROF, &prof);
    cr_expect_eq(prof.mapped_bytes, 0, "%lu", (unsigned long)prof.mapped_bytes);
    test_until(test_threads() == *others + (int)metric_u64("/sched/threads/total:threads")); /* those that start or end just now count late */
}

Test(doctor_core, a_program_in_which_nothing_is_found_has_nothing_of_it)
{
    int others = test_threads() - 1;
    doctor_run(looks_what_there_is, &others, "off", NULL);
    doctor_run(looks_what_there_is, &others, NULL, NULL);
}

/* ---- in a trace -------------------------------------------------------------------------------------------------------------------- */

static void traced(void *arg)
{
    cr_assert_eq(weft_trace_start(to_file, arg, NULL), 0);
    for (int i = 0; i < 10; i++)
        calls_offender("traced");
    cr_assert_eq(weft_trace_stop(to_file, arg, NULL), 0);
}

Test(doctor_core, traces_have_it_where_it_happened)
{
    static struct test_output out;
    doctor_traced(&out, traced, NULL, NULL);
    int logs = 0;
    for (const char *p = out.text; (p = strstr(p, "Category=\"weft.doctor\"")) != NULL; p++)
        logs++;
    cr_expect_eq(logs, 4, "1, 2, 4, 8: %d\n%s", logs, out.text);
    cr_expect(strstr(out.text, "Message=\"W14 ") != NULL && strstr(out.text, " (8)\"") != NULL, "%s", out.text);
    cr_expect_not_null(strstr(out.text, "offender"), "%s", out.text);
}
