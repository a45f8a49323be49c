/* chan_buf [items] - what does it cost to pass an item through a buffered channel?
 *
 * One producer and one consumer on one processor, a channel of 128 elements of 8 bytes: the producer fills it,
 * waits, the consumer empties it, waits. Counted: one item, sent and received.
 * Peers: Go does the same. Boost.Fiber's buffered_channel is bounded and lock-free, its capacity a power of
 * two. */
#include "bench_weft.h"

static long items;
static weft_chan *c;

static void produce(void *arg)
{
    for (int64_t i = 0, n = *(long *)arg; i < n; i++)
        bench_must(weft_chan_send(c, &i), "weft_chan_send");
}

static void pass(long n)
{
    bench_must(weft_go(produce, &n), "weft_go");
    for (int64_t i = 0, v; i < n; i++)
        if (weft_chan_recv(c, &v) != 1 || v != i)
            abort();
}

static void run(void *arg)
{
    (void)arg;
    c = weft_chan_make_noscan(8, 128);
    pass(items / 10);
    bench_span t = bench_begin();
    pass(items);
    bench_report("chan_buf", "weft", (double)items, bench_end(t));
}

int main(int argc, char **argv)
{
    items = bench_arg(argc, argv, 1, 10000000);
    return bench_run(run);
}
