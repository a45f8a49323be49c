/* metrics [pair] [calls] - what does it cost to read two metrics, again and again?
 *
 * pair heap: bytes of objects and the number of fibers, as a server would log them. pair memory: all memory, and what of it is free. pair pauses: the histograms
 * of the collector's pauses and of latencies. 1000 fibers wait. Counted: one read of both.
 * Peers: Go: runtime/metrics.Read of the same names into the same samples. Two processors. */
#include "bench_weft.h"
#include <string.h>

static const char *const pairs[][3] = {
    { "heap", "/memory/classes/heap/objects:bytes", "/sched/goroutines:goroutines" },
    { "memory", "/memory/classes/total:bytes", "/memory/classes/heap/free:bytes" },
    { "pauses", "/sched/pauses/total/gc:seconds", "/sched/latencies:seconds" },
};
static int pair;
static long calls;

static void run(void *arg)
{
    (void)arg;
    static uint64_t counts[2][WEFT_METRIC_BUCKETS];
    weft_metric m[2];
    memset(m, 0, sizeof m);
    for (int i = 0; i < 2; i++)
        m[i] = (weft_metric){ .name = pairs[pair][i + 1], .counts = counts[i], .room = WEFT_METRIC_BUCKETS };
    weft_chan *gate = bench_wait_at_gate(1000);
    for (int i = 0; i < 100000; i++)
        bench_use(weft_alloc((size_t)i % 500));
    weft_gc();
    for (long i = 0; i < calls / 10; i++)
        bench_must(weft_metrics_read(m, 2), "weft_metrics_read");
    bench_span t = bench_begin();
    for (long i = 0; i < calls; i++)
        bench_must(weft_metrics_read(m, 2), "weft_metrics_read");
    bench_report("metrics", "weft", (double)calls, bench_end(t));
    weft_chan_close(gate);
}

int main(int argc, char **argv)
{
    const char *want = argc > 1 ? argv[1] : "heap";
    while (strcmp(pairs[pair][0], want) != 0)
        if (++pair == 3)
            return 2;
    calls = bench_arg(argc, argv, 2, 1000000);
    return bench_run(run);
}
