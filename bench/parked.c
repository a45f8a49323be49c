/* parked [fibers] - what does a fiber cost that waits?
 *
 * A million fibers start, say so, and wait on one channel; when all wait, the memory is taken; then the channel
 * is closed, and all end. Counted:
 * ns_per_op: from the first start until all wait, each; kib_each: growth of resident memory, each; wake_ns:
 * from the close until all have ended, each.
 * Peers: Go does the same; its stacks start at 2 KiB and are copied when they grow, ours are one page at least. */
#include "bench_weft.h"
#include <stdatomic.h>

static long fibers;
static atomic_long waiting;
static weft_chan *gate;

static void waiter(void *arg)
{
    (void)arg;
    atomic_fetch_add_explicit(&waiting, 1, memory_order_relaxed);
    weft_chan_recv(gate, NULL);
}

static void run(void *arg)
{
    static weft_waitgroup wg;
    (void)arg;
    gate = weft_chan_make(0, 0);
    long before = bench_rss_kib();
    bench_span create = bench_begin();
    for (long i = 0; i < fibers; i++)
        bench_must(weft_waitgroup_go(&wg, waiter, NULL), "weft_waitgroup_go");
    while (atomic_load(&waiting) < fibers)
        weft_yield();
    create = bench_end(create);
    long after = bench_rss_kib();
    bench_span wake = bench_begin();
    weft_chan_close(gate);
    weft_waitgroup_wait(&wg);
    wake = bench_end(wake);

    bench_open("parked", "weft");
    bench_num("ns_per_op", (double)create.wall_ns / (double)fibers);
    bench_num("ops", (double)fibers);
    bench_num("kib_each", (double)(after - before) / (double)fibers);
    bench_num("wake_ns", (double)wake.wall_ns / (double)fibers);
    bench_num("cpu_s", (double)(create.cpu_ns + wake.cpu_ns) / 1e9);
    bench_close();
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 1000000);
    return bench_run(run);
}
