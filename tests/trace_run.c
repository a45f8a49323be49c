/* Traces of programs that run, each accepted by go tool trace: whatever the program does, and whenever the trace begins and ends. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "stress_programs.h"
#include "trace_live.h"

/* ---- starting and stopping --------------------------------------------------------------------------------- */

static void idle(void *arg)
{
    (void)arg;
    struct live l;
    live_start(&l);
    weft_sleep(20 * WEFT_MILLISECOND);
    live_stop(&l);
    cr_expect_geq(live_count(&l, "GoID=1 Running->Waiting Reason=\"sleep\""), 1);
    live_check(&l);
}
Test(trace_run, idle_program) { test_run_each(idle, NULL); }

static void errors(void *arg)
{
    (void)arg;
    struct live a, b;
    weft_trace_opts bad = { 1, 0, 0 };
    weft_trace_stats bad_stats = { 0 };
    live_open(&a);
    live_open(&b);
    cr_expect_eq(weft_trace_stop(live_write, &a, NULL), -ENOENT);
    cr_expect_eq(weft_trace_start(NULL, &a, NULL), -EINVAL);
    cr_expect_eq(weft_trace_start(live_write, &a, &bad), -EINVAL);
    cr_expect_eq(weft_trace_start(live_write, &a, NULL), 0);
    cr_expect_eq(weft_trace_start(live_write, &a, NULL), -EALREADY);
    cr_expect_eq(weft_trace_stop(live_write, &b, NULL), -ENOENT);
    cr_expect_eq(weft_trace_stop(live_write, &a, &bad_stats), -EINVAL);
    cr_expect_eq(weft_trace_start(live_write, &b, NULL), 0);
    weft_yield();
    live_stop(&b);
    weft_yield();
    live_stop(&a);
    cr_expect_eq(weft_trace_stop(live_write, &a, NULL), -ENOENT);
    cr_expect_gt(a.stats.generations, b.stats.generations);
    live_check(&a);
    live_check(&b);
}
Test(trace_run, errors_are_told) { test_run(errors, NULL); }

Test(trace_run, without_a_runtime)
{
    struct live l;
    cr_expect_eq(weft_trace_start(live_write, &l, NULL), -ESRCH);
    cr_expect_eq(weft_trace_stop(live_write, &l, NULL), -ESRCH);
}

/* ---- programs that know their outcome ------------------------------------------------------------------------ */

struct whole { const struct program *pr; uint64_t seed; struct live l; };

static void whole(void *arg)
{
    struct whole *w = arg;
    struct rng shape;
    rng_seed(&shape, w->seed);
    live_start(&w->l);
    w->pr->fn(&shape);
    live_stop(&w->l);
}

static void traced(const struct program *pr, uint64_t seed, int procs, const char *debug)
{
    struct whole w = { .pr = pr, .seed = seed };
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    stress_wrong[0] = 0;
    int err = weft_run(whole, &w, &cfg);
    cr_assert(err == 0 && stress_wrong[0] == 0, "%s, seed %lu, %d processors, %s: %d, %s", pr->name, (unsigned long)seed, procs, debug, err,
              stress_wrong);
    live_check(&w.l);
}

static void all_programs(int procs, const char *debug)
{
    for (size_t i = 0; i < w_countof(programs); i++)
        traced(&programs[i], i + 1, procs, debug);
}
Test(trace_run, programs) { all_programs(0, ""); }
Test(trace_run, programs_on_one_processor) { all_programs(1, ""); }
Test(trace_run, programs_on_eight_processors) { all_programs(8, ""); }
Test(trace_run, programs_that_migrate) { all_programs(2, "migrate=1"); }
Test(trace_run, programs_by_seed) { all_programs(1, "schedseed=7"); }
Test(trace_run, programs_without_membarrier) { all_programs(2, "membarrier=0"); }
Test(trace_run, programs_that_collect_all_the_time) { all_programs(2, "gcstress=50"); }
