/* prodcons [producers] [consumers] [items] - what does an item cost when many want the same channel?
 *
 * Eight producers, eight consumers, one channel of 128 elements of 8 bytes, two processors. Counted: one item,
 * sent and received (wall time over all items).
 * Peers: Go does the same. */
#include "bench_weft.h"
#include <stdatomic.h>

static long producers, consumers, items;
static weft_chan *c;
static atomic_long sum;

static void produce(void *arg)
{
    for (int64_t i = 1, n = *(long *)arg / producers; i <= n; i++)
        bench_must(weft_chan_send(c, &i), "weft_chan_send");
}

static void consume(void *arg)
{
    int64_t v, mine = 0;
    (void)arg;
    while (weft_chan_recv(c, &v) == 1)
        mine += v;
    atomic_fetch_add(&sum, mine);
}

static void run_all(long n)
{
    static weft_waitgroup sending, receiving;
    sum = 0;
    c = weft_chan_make_noscan(8, 128);
    for (long i = 0; i < consumers; i++)
        bench_must(weft_waitgroup_go(&receiving, consume, NULL), "weft_waitgroup_go");
    for (long i = 0; i < producers; i++)
        bench_must(weft_waitgroup_go(&sending, produce, &n), "weft_waitgroup_go");
    weft_waitgroup_wait(&sending);
    bench_must(weft_chan_close(c), "weft_chan_close");
    weft_waitgroup_wait(&receiving);
    long each = n / producers;
    if (sum != producers * (each * (each + 1) / 2))
        abort();
}

static void run(void *arg)
{
    (void)arg;
    run_all(items / 10);
    bench_span t = bench_begin();
    run_all(items);
    bench_report("prodcons", "weft", (double)(items / producers * producers), bench_end(t));
}

int main(int argc, char **argv)
{
    producers = bench_arg(argc, argv, 1, 8);
    consumers = bench_arg(argc, argv, 2, 8);
    items = bench_arg(argc, argv, 3, 4000000);
    return bench_run(run);
}
