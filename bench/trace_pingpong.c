/* trace_pingpong [round trips] - what does an execution trace cost a program that does nothing but hand over?
 *
 * Two fibers on one processor, two unbuffered channels; a round trip is six events: each fiber blocks, is made ready, and goes on. Counted: a round trip
 * without a trace and with one (off_ns, on_ns), how many times as long it takes (slowdown), what that is per event (event_ns), and bytes per event. The
 * writer counts and drops. Peer: Go does the same, with runtime/trace. */
#include "bench_weft.h"

static long trips;
static uint64_t bytes;

static int count(void *ctx, const void *data, size_t n)
{
    (void)ctx;
    bench_use(data);
    __atomic_fetch_add(&bytes, n, __ATOMIC_RELAXED);
    return 0;
}

static double ask(long n)
{
    bench_span t = bench_begin();
    bench_ask(n);
    return (double)bench_end(t).wall_ns / (double)n;
}

static void run(void *arg)
{
    (void)arg;
    bench_ask_begin(bench_echo);
    ask(trips / 10);
    double off = ask(trips);
    bench_must(weft_trace_start(count, NULL, NULL), "weft_trace_start");
    ask(trips / 10);
    double on = ask(trips);
    weft_trace_stats st = { .size = sizeof st };
    bench_must(weft_trace_stop(count, NULL, &st), "weft_trace_stop");
    if (st.dropped != 0)
        abort();
    bench_open("trace_pingpong", "weft");
    bench_num("off_ns", off);
    bench_num("on_ns", on);
    bench_num("slowdown", on / off);
    bench_num("event_ns", (on - off) / 6);
    bench_num("bytes", (double)bytes / (6 * 1.1 * (double)trips));
    bench_close();
    weft_chan_close(bench_there);
}

int main(int argc, char **argv)
{
    trips = bench_arg(argc, argv, 1, 1000000);
    return bench_run(run);
}
