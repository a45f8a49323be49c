/* dump [fibers] [debug] [rounds] - how long does it take to see where all fibers are, and who has to wait meanwhile?
 *
 * So many fibers wait on a channel, at one of eight depths. The goroutine profile is written, debug 2 (all stacks as text) or 0 (for pprof), to a
 * writer that counts bytes, while a fiber ticks each millisecond. Counted, medians over rounds:
 * wall_ns: the write; stall_ns: the longest time that passed between two ticks, less the millisecond; bytes.
 * Peers: Go does the same by pprof.Lookup("goroutine").WriteTo, which stops the world. */
#include "bench_weft.h"
#include <stdatomic.h>

enum { ROUNDS_MAX = 100 };
static long fibers, debug, rounds;
static atomic_long waiting;
static atomic_bool stop;
static atomic_int_fast64_t longest_ns;
static weft_chan *gate;

__attribute__((noinline)) static void wait_deep(long depth)
{
    if (depth > 0) {
        wait_deep(depth - 1);
    } else {
        atomic_fetch_add_explicit(&waiting, 1, memory_order_relaxed);
        weft_chan_recv(gate, NULL);
    }
    __asm__ volatile("");
}

static void waiter(void *arg)
{
    wait_deep((long)(intptr_t)arg);
    __asm__ volatile("");
}

static void ticker(void *arg)
{
    (void)arg;
    for (int64_t last = bench_clock_ns(CLOCK_MONOTONIC), now; !atomic_load(&stop); last = now) {
        weft_sleep(WEFT_MILLISECOND);
        now = bench_clock_ns(CLOCK_MONOTONIC);
        if (now - last - WEFT_MILLISECOND > atomic_load(&longest_ns))
            atomic_store(&longest_ns, now - last - WEFT_MILLISECOND);
    }
}

static int count(void *ctx, const void *data, size_t n)
{
    (void)data;
    *(size_t *)ctx += n;
    return 0;
}

static void run(void *arg)
{
    static weft_waitgroup wg;
    static int64_t wall[ROUNDS_MAX], stall[ROUNDS_MAX];
    size_t bytes = 0;
    (void)arg;
    gate = weft_chan_make(0, 0);
    for (long i = 0; i < fibers; i++)
        bench_must(weft_waitgroup_go(&wg, waiter, (void *)(intptr_t)(i % 8)), "weft_waitgroup_go");
    while (atomic_load(&waiting) < fibers)
        weft_yield();
    bench_must(weft_waitgroup_go(&wg, ticker, NULL), "weft_waitgroup_go");
    bench_span all = bench_begin();
    for (long i = 0; i < rounds; i++) {
        weft_sleep(20 * WEFT_MILLISECOND);
        atomic_store(&longest_ns, 0);
        bytes = 0;
        bench_span s = bench_begin();
        bench_must(weft_profile_write(weft_profile_lookup("goroutine"), count, &bytes, (int)debug), "weft_profile_write");
        wall[i] = bench_end(s).wall_ns;
        weft_sleep(2 * WEFT_MILLISECOND);
        stall[i] = atomic_load(&longest_ns);
    }
    all = bench_end(all);
    atomic_store(&stop, true);
    weft_chan_close(gate);
    weft_waitgroup_wait(&wg);
    qsort(wall, (size_t)rounds, sizeof *wall, bench_compare_i64);
    qsort(stall, (size_t)rounds, sizeof *stall, bench_compare_i64);
    bench_open("dump", "weft");
    bench_num("wall_ns", (double)wall[rounds / 2]);
    bench_num("stall_ns", (double)stall[rounds / 2]);
    bench_num("stall_max_ns", (double)stall[rounds - 1]);
    bench_num("bytes", (double)bytes);
    bench_num("cpu_s", (double)all.cpu_ns / 1e9);
    bench_close();
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 10000);
    debug = bench_arg(argc, argv, 2, 2);
    rounds = bench_arg(argc, argv, 3, 9);
    if (rounds < 1 || rounds > ROUNDS_MAX)
        return 2;
    return bench_run(run);
}
