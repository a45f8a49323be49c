/* mutex [fibers] [locks each] - what does a lock cost that nobody else wants, and one that eight want?
 *
 * With one fiber: lock, add one to a counter, unlock. With more, each does that, and 20 steps of arithmetic
 * outside of the lock. Counted: one lock and unlock (with several fibers: wall time over all locks of all
 * fibers).
 * Peers: Go's sync.Mutex is the model of ours. pthread is glibc's mutex with a thread per fiber. */
#include "bench_weft.h"

static long fibers, locks;
static weft_mutex mutex;
static volatile int64_t counter;

static void alone(long n)
{
    for (long i = 0; i < n; i++) {
        weft_mutex_lock(&mutex);
        counter = counter + 1;
        weft_mutex_unlock(&mutex);
    }
}

static void contender(void *arg)
{
    uint64_t x = (uintptr_t)arg;
    for (long n = *(long *)arg; n > 0; n--) {
        weft_mutex_lock(&mutex);
        counter = counter + 1;
        weft_mutex_unlock(&mutex);
        for (int k = 0; k < 20; k++)
            bench_random(&x);
        bench_use((void *)x);
    }
}

static void run_all(long n)
{
    static weft_waitgroup wg;
    counter = 0;
    if (fibers == 1) {
        alone(n);
    } else {
        for (long i = 0; i < fibers; i++)
            bench_must(weft_waitgroup_go(&wg, contender, &n), "weft_waitgroup_go");
        weft_waitgroup_wait(&wg);
    }
    if (counter != n * fibers)
        abort();
}

static void run(void *arg)
{
    (void)arg;
    run_all(locks / 10);
    bench_span t = bench_begin();
    run_all(locks);
    bench_report("mutex", "weft", (double)locks * (double)fibers, bench_end(t));
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 1);
    locks = bench_arg(argc, argv, 2, fibers == 1 ? 50000000 : 4000000 / fibers);
    return bench_run(run);
}
