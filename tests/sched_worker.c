/* The runtime's own fibers park like others: the next one may need a stack, while the worker's lock is still held. In BUILD=debug the order of locks
 * is checked. */
#include "test.h"

static void nothing(void *arg) { (void)arg; }

static void collect_and_start(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++) {
        weft_go_opts opts = WEFT_GO_OPTS_INIT;
        opts.stack_size = (size_t)(64 << i % 4) << 10; /* of a size for which none is at hand */
        for (int k = 0; k < 200; k++)
            weft_alloc_noscan(64 + (size_t)k); /* some collect, and leave the sweeping to the sweeper */
        for (int k = 0; k < 3; k++)
            cr_assert_eq(weft_go_opts_run(nothing, NULL, &opts), 0);
        weft_yield();
    }
    test_until(weft_num_fibers() == 1);
}

Test(sched_worker, a_worker_parks_and_the_next_fiber_needs_a_stack)
{
    for (int procs = 1; procs <= 4; procs *= 4)
        test_run_debug(procs, "gcstress=50", collect_and_start, NULL);
}
