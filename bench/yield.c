/* yield [fibers] [yields each] - what does it cost to let another fiber run?
 *
 * N fibers (2; or 1000, which no longer fit in the first-level cache) do nothing but yield, on one processor.
 * Counted: one weft_yield, that is one trip through the run queue and one switch.
 * Peers: Go's Gosched puts the goroutine on the global queue. Boost.Fiber's round robin has one thread and no
 * lock. State Threads 1.9 has no yield: st_usleep(0) goes through its timer heap. */
#include "bench_weft.h"

static long fibers, yields;

static void yielder(void *arg)
{
    for (long n = *(long *)arg; n > 0; n--)
        weft_yield();
}

static void run_all(long each)
{
    static weft_waitgroup wg;
    for (long i = 0; i < fibers; i++)
        bench_must(weft_waitgroup_go(&wg, yielder, &each), "weft_waitgroup_go");
    weft_waitgroup_wait(&wg);
}

static void run(void *arg)
{
    (void)arg;
    run_all(yields / 10);
    bench_span t = bench_begin();
    run_all(yields);
    bench_report("yield", "weft", (double)fibers * (double)yields, bench_end(t));
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 2);
    yields = bench_arg(argc, argv, 2, 10000000 / fibers);
    return bench_run(run);
}
