/* mem_stats [fibers] [calls] - what does it cost to read the memory statistics while N fibers wait?
 *
 * N fibers wait on a channel; one calls weft_read_mem_stats, which stops the world. Counted: one call (p50 to
 * max, ns_per_op: mean).
 * Peers: Go: runtime.ReadMemStats. Two processors. */
#include "bench_weft.h"

static long fibers, calls;

static void run(void *arg)
{
    static weft_mem_stats stats = { .size = sizeof stats };
    (void)arg;
    int64_t *ns = calloc((size_t)calls, sizeof *ns);
    weft_chan *gate = bench_wait_at_gate(fibers);
    for (long i = 0; i < 100; i++)
        bench_must(weft_read_mem_stats(&stats), "weft_read_mem_stats");
    bench_span t = bench_begin();
    for (long i = 0; i < calls; i++) {
        int64_t one = bench_clock_ns(CLOCK_MONOTONIC);
        bench_must(weft_read_mem_stats(&stats), "weft_read_mem_stats");
        ns[i] = bench_clock_ns(CLOCK_MONOTONIC) - one;
    }
    t = bench_end(t);
    bench_open("mem_stats", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / (double)calls);
    bench_num("ops", (double)calls);
    bench_num("cpu_s", (double)t.cpu_ns / 1e9);
    bench_latencies(ns, (size_t)calls);
    bench_close();
    weft_chan_close(gate);
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 1);
    calls = bench_arg(argc, argv, 2, 5000);
    return bench_run(run);
}
