/* Samples of the CPU profile in the trace. */
#include <time.h>
#include "trace_live.h"
#include "trace_test.h"

static int to_nothing(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

static w_noinline void spins_for(int64_t ns)
{
    struct timespec ts;
    int64_t until = 0;
    for (;;) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        int64_t now = ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
        if (until == 0)
            until = now + ns;
        if (now >= until)
            break;
        for (volatile int i = 0; i < 1000; i++)
            ;
    }
    __asm__ volatile("");
}

static w_u32 spinning;
static void spinner(void *arg)
{
    (void)arg;
    for (int i = 0; i < 40; i++) {
        spins_for(5000000);
        weft_sleep(WEFT_MILLISECOND);
    }
    sub_rlx(&spinning, 1);
}

static void profile_start(void)
{
    weft_cpu_profile_opts o = WEFT_CPU_PROFILE_OPTS_INIT;
    o.hz = 1000;
    cr_assert_eq(weft_cpu_profile_start(to_nothing, NULL, &o), 0);
}

static void advance(void) { cr_assert_eq(weft_flight_recorder_snapshot(to_nothing, NULL), 0); }

/* Of the samples in a file: how many there are; on a thread for fibers (M=-1: the profile's helper and the like); on a fiber; of one that the trace says
 * runs then; in a function; and how many generations hold one that was taken after them. */
struct counts { int all, thread, fiber, runs, spins, misplaced; };
static struct counts count(const struct live *l)
{
    static const char program[] =
        "/^M=/ { m = $1; g = $3; sub(\"G=\", \"\", g); sample = 0; time = $5; sub(\"Time=\", \"\", time); time += 0 }\n"
        "/ Sync / { misplaced += last > time; last = 0 }\n"
        "/ StateTransition .*GoID=/ { match($0, /GoID=[0-9]+/); id = substr($0, RSTART + 5, RLENGTH - 5); state[id] = $0; "
        "    sub(/.*->/, \"\", state[id]); sub(/ .*/, \"\", state[id]) }\n"
        "/ StackSample / { sample = 1; all++; thread += m != \"M=-1\"; last = time; "
        "    if (g > 0) { fiber++; runs += state[g] == \"Running\" || state[g] == \"Syscall\" } }\n"
        "/^\\tspins_for / && sample { spins++; sample = 0 }\n"
        "END { print all + 0, thread + 0, fiber + 0, runs + 0, spins + 0, misplaced + 0 }";
    struct counts c = { 0 };
    struct test_output *out = malloc(sizeof *out);
    char command[1400];
    if (access(GO_TRACE, X_OK) != 0)
        cr_skip_test("no go tool trace");
    snprintf(command, sizeof command, "%s -d=parsed %s | awk '%s'", GO_TRACE, l->path, program);
    test_shell(out, command);
    cr_assert_eq(sscanf(out->text, "%d %d %d %d %d %d", &c.all, &c.thread, &c.fiber, &c.runs, &c.spins, &c.misplaced), 6, "%s", out->text);
    free(out);
    return c;
}

/* Over generations that end in the middle: each sample is in that in which it was taken, on a fiber that runs there. */
static void both(void *arg)
{
    struct live l;
    (void)arg;
    live_start(&l);
    cr_assert_eq(weft_flight_recorder_start(NULL), 0);
    profile_start();
    store_rlx(&spinning, 2);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(weft_go(spinner, NULL), 0);
    while (load_rlx(&spinning) > 0) { /* shorter than the profile's helper sleeps */
        weft_sleep(10 * WEFT_MILLISECOND);
        advance();
    }
    cr_assert_eq(weft_flight_recorder_stop(), 0);
    live_stop(&l);
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    struct counts c = count(&l);
    cr_expect_geq(c.thread, 20, "%d", c.thread); /* 400 ms of CPU time, at the kernel's ticks */
    cr_expect_geq(c.fiber, c.thread / 2, "%d of %d", c.fiber, c.thread);
    cr_expect_geq(c.runs, c.fiber * 95 / 100, "%d of %d", c.runs, c.fiber);
    cr_expect_eq(c.misplaced, 0, "%d", c.misplaced);
    cr_expect_geq(c.spins, c.fiber * 3 / 4, "%d of %d", c.spins, c.fiber);
    live_check(&l);
}
Test(trace_samples, a_sample_is_of_a_fiber_that_runs, SIGNALS_AT_ONCE) { test_run_procs(2, both, NULL); }

static void one_without_the_other(void *arg)
{
    struct live l[2];
    (void)arg;
    live_start(&l[0]);
    spins_for(50000000);
    live_stop(&l[0]);
    profile_start();
    spins_for(50000000);
    live_start(&l[1]);
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    spins_for(50000000);
    live_stop(&l[1]);
    profile_start();
    spins_for(50000000);
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    cr_expect_eq(count(&l[0]).all, 0, "no profile");
    cr_expect_leq(count(&l[1]).all, 2, "hardly any time with a profile");
    live_check(&l[0]);
    live_check(&l[1]);
}
Test(trace_samples, only_while_both_run, SIGNALS_AT_ONCE) { test_run(one_without_the_other, NULL); }
