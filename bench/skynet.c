/* skynet [leaves] - how fast does a tree of a million fibers come and go?
 *
 * A fiber starts ten, each of those ten, until there are a million leaves; each sends its number to its parent
 * over an unbuffered channel, each parent sends the sum. Counted: wall time of it all (ns_per_op: over leaves);
 * peak_kib shows how many stacks were alive at once.
 * Peers: Go does the same, two processors each. */
#include "bench_weft.h"

typedef struct job { weft_chan *up; int64_t first, leaves; } job;

static long leaves;

static void skynet(void *arg)
{
    job me = *(job *)arg;
    int64_t sum = me.first;
    if (me.leaves > 1) {
        weft_chan *down = weft_chan_make_noscan(8, 0);
        int64_t v;
        sum = 0;
        for (int i = 0; i < 10; i++) {
            job *child = weft_alloc(sizeof *child);
            if (!down || !child)
                abort();
            *child = (job){ down, me.first + i * (me.leaves / 10), me.leaves / 10 };
            bench_must(weft_go(skynet, child), "weft_go");
        }
        for (int i = 0; i < 10; i++) {
            if (weft_chan_recv(down, &v) != 1)
                abort();
            sum += v;
        }
    }
    bench_must(weft_chan_send(me.up, &sum), "weft_chan_send");
}

static void once(long n)
{
    int64_t sum;
    job *top = weft_alloc(sizeof *top);
    *top = (job){ weft_chan_make_noscan(8, 0), 0, n };
    bench_must(weft_go(skynet, top), "weft_go");
    if (weft_chan_recv(top->up, &sum) != 1 || sum != (int64_t)n * (n - 1) / 2)
        abort();
}

static void run(void *arg)
{
    (void)arg;
    once(1000);
    bench_span t = bench_begin();
    once(leaves);
    bench_report("skynet", "weft", (double)leaves, bench_end(t));
}

int main(int argc, char **argv)
{
    leaves = bench_arg(argc, argv, 1, 1000000); /* a power of ten */
    return bench_run(run);
}
