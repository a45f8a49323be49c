/* select [wait|ready] [items] - what does it cost to receive from whichever of four channels is ready?
 *
 * wait:  four producers, four unbuffered channels, one fiber that selects over them; one processor.
 * ready: four channels of one element; the fiber itself puts an item into one of them in turn, then selects
 *        over all: nobody ever waits, so this is select itself, plus one send.
 * Counted: one item. Peers: Go does the same. */
#include "bench_weft.h"

enum { CHANS = 4 };
static long items;
static int ready;
static weft_chan *chans[CHANS];

static void produce(void *arg)
{
    for (int64_t i = 0;; i++)
        if (weft_chan_send(arg, &i) != 0)
            return;
}

static void receive(long n)
{
    int64_t v[CHANS], sum = 0;
    weft_case cases[CHANS];
    for (int i = 0; i < CHANS; i++)
        cases[i] = (weft_case){ WEFT_RECV, chans[i], &v[i], 0 };
    for (int64_t i = 0; i < n; i++) {
        if (ready)
            bench_must(weft_chan_send(chans[i % CHANS], &i), "weft_chan_send");
        int k = weft_select(cases, CHANS);
        bench_must(k, "weft_select");
        if (cases[k].result != 1)
            abort();
        sum += v[k];
    }
    bench_use((void *)(uintptr_t)sum);
}

static void run(void *arg)
{
    (void)arg;
    for (int i = 0; i < CHANS; i++) {
        chans[i] = weft_chan_make_noscan(8, ready ? 1 : 0);
        if (!ready)
            bench_must(weft_go(produce, chans[i]), "weft_go");
    }
    receive(items / 10);
    bench_span t = bench_begin();
    receive(items);
    bench_report(ready ? "select_ready" : "select_wait", "weft", (double)items, bench_end(t));
    for (int i = 0; i < CHANS; i++)
        weft_chan_close(chans[i]);
}

int main(int argc, char **argv)
{
    ready = argc > 1 && strcmp(argv[1], "ready") == 0;
    items = bench_arg(argc, argv, 2, 3000000);
    return bench_run(run);
}
