#include "test.h"
#include <stdio.h>
#include <unistd.h>

void test_run_config(const weft_config *cfg, weft_fn *fn, void *arg)
{
    weft_config c = *cfg;
    if (c.stop_timeout_ms == 0)
        c.stop_timeout_ms = TEST_STOP_MS;
    int err = weft_run(fn, arg, &c);
    cr_assert_eq(err, 0, "weft_run: %d (%s)", err, weft_strerror(err));
}

void test_run_debug(int n, const char *debug, weft_fn *fn, void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = n;
    cfg.debug = debug;
    test_run_config(&cfg, fn, arg);
}

void test_run_procs(int n, weft_fn *fn, void *arg)
{
    test_run_debug(n, NULL, fn, arg);
}

void test_run_each(weft_fn *fn, void *arg)
{
    for (int procs = 1; procs <= 4; procs *= 2)
        test_run_procs(procs, fn, arg);
}

void test_run(weft_fn *fn, void *arg)
{
    test_run_procs(0, fn, arg);
}

void test_pause(void)
{
    if (weft_fiber_id() != 0)
        weft_sleep(100 * WEFT_MICROSECOND);
    else
        usleep(100);
}

static void nothing(void *arg) { (void)arg; }

bool test_marks_beside(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "gc=uffd";
    if (weft_run(nothing, NULL, &cfg) == 0)
        return true;
    fprintf(stderr, "skipped: userfaultfd that tells what was written to is not to be had here\n");
    return false;
}
