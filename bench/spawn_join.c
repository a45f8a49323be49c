/* spawn_join [batch] [fibers] - what does it cost to start a fiber and wait for its end?
 *
 * On one processor: start `batch` fibers (1; or 1000) that do nothing, wait for all of them by a wait group,
 * again. Counted: one fiber, from its start to its end.
 * Peers: Go: go and sync.WaitGroup. Boost.Fiber: fiber and join, its default stacks (128 KiB, malloc) from its
 * pooled allocator. State Threads: a joinable thread with its default stack. Both keep their stacks for reuse. */
#include "bench_weft.h"

static long batch, fibers;

static void child(void *arg) { bench_use(arg); }

static void run_all(long n)
{
    static weft_waitgroup wg;
    for (long i = 0; i < n; i += batch) {
        for (long j = 0; j < batch; j++)
            bench_must(weft_waitgroup_go(&wg, child, NULL), "weft_waitgroup_go");
        weft_waitgroup_wait(&wg);
    }
}

static void run(void *arg)
{
    (void)arg;
    run_all(fibers / 10);
    bench_span t = bench_begin();
    run_all(fibers);
    bench_report("spawn_join", "weft", (double)fibers, bench_end(t));
}

int main(int argc, char **argv)
{
    batch = bench_arg(argc, argv, 1, 1);
    fibers = bench_arg(argc, argv, 2, 3000000);
    return bench_run(run);
}
