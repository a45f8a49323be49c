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
static weft_chan *there, *back;

static void lock(void)
{
    if (locked)
        bench_must(weft_lock_os_thread(), "weft_lock_os_thread");
}

static void echo(void *arg)
{
    int64_t v;
    (void)arg;
    lock();
    while (weft_chan_recv(there, &v) == 1)
        bench_must(weft_chan_send(back, &v), "weft_chan_send");
}

static void ask(long n)
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
    lock();
    there = weft_chan_make_noscan(8, 0);
    back = weft_chan_make_noscan(8, 0);
    bench_must(weft_go(echo, NULL), "weft_go");
    ask(trips / 10);
    bench_span t = bench_begin();
    ask(trips);
    bench_report("chan_unbuf", "weft", (double)trips, bench_end(t));
    weft_chan_close(there);
}

int main(int argc, char **argv)
{
    trips = bench_arg(argc, argv, 1, 2000000);
    locked = argc > 2 && strcmp(argv[2], "locked") == 0;
    return bench_run(run);
}
