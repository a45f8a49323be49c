/* locked [rounds] - what does a hand-over cost between two fibers that are locked to their threads?
 *
 * Two fibers, each locked to a thread of its own, pass a number to and fro over two unbuffered channels: each time one thread goes to sleep and another wakes.
 * Counted: one round trip.
 * Peers: Go: runtime.LockOSThread. Two processors. */
#include "bench_weft.h"

static long rounds;
static weft_chan *there, *back;

static void partner(void *arg)
{
    int64_t v;
    (void)arg;
    bench_must(weft_lock_os_thread(), "weft_lock_os_thread");
    while (weft_chan_recv(there, &v) == 1)
        bench_must(weft_chan_send(back, &v), "weft_chan_send");
}

static void pass(long n)
{
    for (int64_t i = 0, v; i < n; i++) {
        bench_must(weft_chan_send(there, &i), "weft_chan_send");
        if (weft_chan_recv(back, &v) != 1 || v != i)
            abort();
    }
}

static void run(void *arg)
{
    (void)arg;
    bench_must(weft_lock_os_thread(), "weft_lock_os_thread");
    there = weft_chan_make_noscan(8, 0);
    back = weft_chan_make_noscan(8, 0);
    bench_must(weft_go(partner, NULL), "weft_go");
    pass(rounds / 10);
    bench_span t = bench_begin();
    pass(rounds);
    bench_report("locked", "weft", (double)rounds, bench_end(t));
    weft_chan_close(there);
}

int main(int argc, char **argv)
{
    rounds = bench_arg(argc, argv, 1, 50000);
    return bench_run(run);
}
