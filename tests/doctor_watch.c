/* The watchdog: W15 a fiber that holds a processor for too long, W16 a stop of the world that takes too long; and what is neither. */
#include <signal.h>
#include "doctor_test.h"
#include "debug/findings.h"
#include "sched/sched.h"

#define MS WEFT_MILLISECOND

/* So much CPU time, however long it takes on a busy machine. */
NOINLINE static void spin(int64_t ns)
{
    int64_t until = os_self_cpu_ns() + ns;
    while (os_self_cpu_ns() < until)
        for (int i = 0; i < 1000; i++)
            cpu_relax();
    __asm__ volatile("");
}

/* ---- W15 ---------------------------------------------------------------------------------------------------------------- */

#define UNTIL_SEEN (-1)

/* So many ms; UNTIL_SEEN: until the monitor, which gets no more of a busy machine than others, has seen it, and a while longer. */
static void spin_for(intptr_t ms)
{
    if (ms == UNTIL_SEEN) {
        for (int64_t until = os_self_cpu_ns() + 10000 * MS; weft_doctor_count(WEFT_W15) == 0 && os_self_cpu_ns() < until;)
            spin(5 * MS);
        ms = 200;
    }
    spin(ms * MS);
}

NOINLINE static void computes(void *arg)
{
    spin_for((intptr_t)arg);
    __asm__ volatile("");
}

NOINLINE static void stays_inside(void *arg)
{
    struct m *m = rt_enter();
    spin_for((intptr_t)arg);
    rt_leave(m);
    __asm__ volatile(""); /* no tail call */
}

struct task_of { weft_fn *fn; int ms; int beside; };
static bool over;

static void yields(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE))
        weft_yield();
}

static void starts(void *arg)
{
    const struct task_of *t = arg;
    weft_waitgroup wg = { 0 }, beside = { 0 };
    over = false;
    for (int i = 0; i < t->beside; i++)
        cr_assert_eq(weft_waitgroup_go(&beside, yields, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, t->fn, (void *)(intptr_t)t->ms), 0);
    weft_waitgroup_wait(&wg);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&beside);
}

Test(doctor_watch, w15_a_fiber_that_computes_for_longer_than_asked_for, SIGNALS_AT_ONCE)
{
    const struct told *t = NULL;
    doctor_run(starts, &(struct task_of){ computes, UNTIL_SEEN, 0 }, NULL, "slowfiber=60");
    cr_assert_eq(told_of(WEFT_W15, &t), 1, "%d", said.n);
    cr_expect_not_null(strstr(t->stack, "\ncomputes at doctor_watch.c:"), "%s", t->stack);
    cr_expect_not_null(strstr(t->made, "starts at doctor_watch.c:"), "%s", t->made);
    cr_expect_not_null(strstr(t->what, "ms without a wait or a yield"), "%s", t->what);
    cr_expect_eq(weft_doctor_count(WEFT_W15), 1, "once in a stretch");
}

Test(doctor_watch, w15_also_if_it_has_lost_its_processor, SIGNALS_AT_ONCE)
{
    const struct told *t = NULL;
    doctor_run(starts, &(struct task_of){ computes, UNTIL_SEEN, 4 }, NULL, "slowfiber=60");
    cr_assert_eq(told_of(WEFT_W15, &t), 1, "%d", said.n);
    cr_expect_not_null(strstr(t->stack, "\ncomputes at doctor_watch.c:"), "%s", t->stack);
}

static void nothing(void *arg) { (void)arg; }

/* Its processor is taken for what is queued behind it, and then all idle. */
static void starts_two(void *arg)
{
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, nothing, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, computes, arg), 0);
    weft_waitgroup_wait(&wg);
}

Test(doctor_watch, w15_also_if_all_processors_idle, SIGNALS_AT_ONCE)
{
    const struct told *t = NULL;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 1;
    cfg.debug = "slowfiber=200"; /* the monitor is at rest long before */
    cfg.finding = note_finding;
    test_run_config(&cfg, starts_two, (void *)UNTIL_SEEN);
    cr_assert_eq(told_of(WEFT_W15, &t), 1, "%d", said.n);
    cr_expect_not_null(strstr(t->stack, "\ncomputes at doctor_watch.c:"), "%s", t->stack);
    cr_expect_not_null(strstr(t->what, "without a processor"), "%s", t->what);
}

Test(doctor_watch, w15_a_fiber_that_stays_inside_the_runtime, SIGNALS_AT_ONCE)
{
    const struct told *t = NULL;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 1;
    cfg.finding = note_finding;
    test_run_config(&cfg, starts, &(struct task_of){ stays_inside, UNTIL_SEEN, 2 });
    cr_assert_eq(told_of(WEFT_W15, &t), 1, "%d", said.n);
    cr_expect_not_null(strstr(t->what, "inside the runtime"), "%s", t->what);
    cr_expect_not_null(strstr(t->stack, "stays_inside at doctor_watch.c:"), "%s", t->stack);
}

NOINLINE static void sleeps(void *arg) { weft_sleep((int64_t)(intptr_t)arg * MS); }
NOINLINE static void blocks(void *arg)
{
    weft_blocking_begin();
    usleep((unsigned)(intptr_t)arg * 1000);
    weft_blocking_end();
}
NOINLINE static void computes_in_pieces(void *arg)
{
    for (int i = 0; i < (intptr_t)arg; i++) {
        spin(MS);
        weft_yield();
    }
}

Test(doctor_watch, w15_is_silent_of_those_that_wait_or_yield)
{
    weft_fn *const fine[] = { sleeps, blocks, computes_in_pieces };
    for (int i = 0; i < 3; i++)
        doctor_run(starts, &(struct task_of){ fine[i], 300, 1 }, NULL, "slowfiber=150");
    cr_expect_eq(said.n, 0, "%s", said.n > 0 ? said.at[0].what : "");
}

Test(doctor_watch, w15_is_silent_of_computations_unless_asked)
{
    doctor_run(starts, &(struct task_of){ computes, 1200, 4 }, NULL, NULL);
    cr_expect_eq(said.n, 0, "%s", said.n > 0 ? said.at[0].what : "");
}

/* ---- W16 ------------------------------------------------------------------------------------------------------------------ */

static int stop_begins;
static int64_t late_ns; /* so long the stopper has waited */

static void note_late(void *arg, enum probe_id id, uintptr_t m, uintptr_t ns, uintptr_t inside)
{
    (void)arg, (void)id, (void)m, (void)inside;
    __atomic_store_n(&late_ns, (int64_t)ns, __ATOMIC_RELAXED);
}

/* So many ms; UNTIL_SEEN: until the stopper, which gets no more of a busy machine than others, has waited for 40, and a while longer. */
static void spin_stopped(intptr_t ms)
{
    __atomic_store_n(&stop_begins, 1, __ATOMIC_RELEASE);
    if (ms == UNTIL_SEEN) {
        for (int64_t until = os_self_cpu_ns() + 10000 * MS; __atomic_load_n(&late_ns, __ATOMIC_RELAXED) < 40 * MS && os_self_cpu_ns() < until;)
            spin(5 * MS);
        ms = 100;
    }
    spin(ms * MS);
}

NOINLINE static void blocks_the_signal(void *arg)
{
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    spin_stopped((intptr_t)arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

NOINLINE static void only_computes(void *arg)
{
    spin_stopped((intptr_t)arg);
}

NOINLINE static void is_inside(void *arg)
{
    struct m *m = rt_enter();
    spin_stopped((intptr_t)arg);
    rt_leave(m);
    __asm__ volatile(""); /* no tail call */
}

static void stops_beside(void *arg)
{
    const struct task_of *t = arg;
    weft_waitgroup wg = { 0 };
    stop_begins = 0;
    late_ns = 0;
    cr_assert_eq(probe_listen(1ull << PROBE_world_late, note_late, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, t->fn, (void *)(intptr_t)t->ms), 0);
    while (!__atomic_load_n(&stop_begins, __ATOMIC_ACQUIRE))
        usleep(1000); /* this fiber keeps its processor */
    weft_gc();
    weft_waitgroup_wait(&wg);
    probe_unlisten(note_late, NULL);
}

static void stop_run(weft_fn *fn, int ms, const char *debug)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    cfg.debug = debug;
    cfg.finding = note_finding;
    cfg.log = note_line;
    test_run_config(&cfg, stops_beside, &(struct task_of){ fn, ms, 0 });
}

Test(doctor_watch, w16_a_thread_that_blocks_the_stop_signal, SIGNALS_AT_ONCE)
{
    const struct told *t = NULL;
    stop_run(blocks_the_signal, UNTIL_SEEN, "slowstop=30");
    cr_assert_eq(told_of(WEFT_W16, &t), 1, "%d", said.n);
    cr_expect_not_null(strstr(t->what, "a stop of the world (GC) waited "), "%s", t->what);
    cr_expect_not_null(strstr(t->what, "in user code"), "%s", t->what);
    cr_expect_not_null(strstr(t->stack, "blocks_the_signal at doctor_watch.c:"), "%s", t->stack);
    cr_expect_not_null(strstr(t->made, "stops_beside at doctor_watch.c:"), "%s", t->made);
}

Test(doctor_watch, w16_a_thread_that_stays_inside, SIGNALS_AT_ONCE)
{
    const struct told *t = NULL;
    stop_run(is_inside, UNTIL_SEEN, "slowstop=30");
    cr_assert_eq(told_of(WEFT_W16, &t), 1, "%d", said.n);
    cr_expect_not_null(strstr(t->what, "inside the runtime"), "%s", t->what);
    cr_expect_not_null(strstr(t->stack, "is_inside at doctor_watch.c:"), "%s", t->stack);
}

Test(doctor_watch, w16_is_silent_of_a_thread_that_computes, SIGNALS_AT_ONCE)
{
    stop_run(only_computes, 250, "slowstop=30");
    stop_run(blocks_the_signal, 250, "slowstop=0");
    cr_expect_eq(said.n, 0, "%s", said.n > 0 ? said.at[0].what : "");
}

static struct grove { struct grove *a, *b; } *grove;
static struct grove *grow(int depth)
{
    struct grove *g = weft_alloc_typed(WEFT_TYPE(struct grove, a, b));
    if (depth > 0)
        g->a = grow(depth - 1), g->b = grow(depth - 1);
    return g;
}

static void marks_much(void *arg)
{
    (void)arg;
    grove = grow(20);
    weft_gc();
    weft_keep_alive(grove);
}

Test(doctor_watch, w16_a_collection_that_does_not_end)
{
    const struct told *t = NULL;
    doctor_run(marks_much, NULL, NULL, "slowstop=1,gc=stw"); /* a mark beside the program has no long stop */
    cr_assert_geq(told_of(WEFT_W16, &t), 1, "%d", said.n);
    bool found = false;
    for (int i = 0; i < said.n; i++)
        found = found || strstr(said.at[i].what, "the collector stopped the world for ") != NULL;
    cr_expect(found, "%s", t->what);
}

/* ---- in a trace: what no fiber has seen ------------------------------------------------------------------------------------- */

static void traced_stop(void *arg)
{
    cr_assert_eq(weft_trace_start(to_file, arg, NULL), 0);
    marks_much(NULL);
    test_until(weft_doctor_count(WEFT_W16) > 0);
    cr_assert_eq(weft_trace_stop(to_file, arg, NULL), 0);
}

/* The only finding has gone its way into the trace, which begins when it has its text. */
static bool is_traced(void)
{
    if (weft_doctor_count(WEFT_W15) == 0)
        return false;
    const struct finding *f = load_acq(&doctor.table);
    return __atomic_load_n(&f->trace_text[0], __ATOMIC_ACQUIRE) != 0 && load_acq(&f->to_trace) == 0;
}

static void traced_fiber(void *arg)
{
    cr_assert_eq(weft_trace_start(to_file, arg, NULL), 0);
    computes((void *)UNTIL_SEEN);
    test_until(is_traced());
    cr_assert_eq(weft_trace_stop(to_file, arg, NULL), 0);
}

static void expect_in_trace(weft_fn *fn, const char *modes, const char *debug, const char *message)
{
    static struct test_output out;
    doctor_traced(&out, fn, modes, debug);
    cr_expect_not_null(strstr(out.text, message), "%s", out.text);
}

Test(doctor_watch, traces_have_what_the_stopper_has_seen)
{
    expect_in_trace(traced_stop, "off,w16=count", "slowstop=1,gc=stw", "Message=\"W16 ");
}

Test(doctor_watch, traces_have_what_the_monitor_has_seen, SIGNALS_AT_ONCE)
{
    expect_in_trace(traced_fiber, "off,w15=count", "slowfiber=30", "Message=\"W15 fiber 1 has run for ");
}
