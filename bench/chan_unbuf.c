/* chan_unbuf [round trips] [locked] - what does it cost to ask another fiber something and get an answer?
 *
 * Two fibers on one processor, two unbuffered channels of 8-byte elements. Counted: one round trip, that is two
 * sends, two receives, two switches. locked: each is locked to a thread of its own (on two processors), so each time one thread goes to sleep and another wakes.
 * Peers: Go does the same, with runtime.LockOSThread. Boost.Fiber has unbuffered_channel. State Threads has no channel; the peer makes a
 * rendezvous of a slot and a condition variable, as its users do. */
#include "bench_weft.h"
#include <string.h>

static long trips;
static bool locked;

static void lock(void)
{
    if (locked)
        bench_must(weft_lock_os_thread(), "weft_lock_os_thread");
}

static void echo(void *arg)
{
    lock();
    bench_echo(arg);
}

static void run(void *arg)
{
    (void)arg;
    lock();
    bench_ask_begin(echo);
    bench_ask(trips / 10);
    bench_span t = bench_begin();
    bench_ask(trips);
    bench_report("chan_unbuf", "weft", (double)trips, bench_end(t));
    weft_chan_close(bench_there);
}

int main(int argc, char **argv)
{
    trips = bench_arg(argc, argv, 1, 2000000);
    locked = argc > 2 && strcmp(argv[2], "locked") == 0;
    return bench_run(run);
}
