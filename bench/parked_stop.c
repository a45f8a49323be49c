/* parked_stop [fibers] [collections] - how long does the world stand still for the stacks of fibers that wait?
 *
 * A million fibers (100 000) wait, each with an object of its own of 32 bytes that only its stack leads to, at a thousand channels: what is sent to
 * one wakes the fiber that has waited longest there, which looks at its object and waits again, behind the others. 10 are woken each millisecond.
 * Meanwhile twenty collections run, one each 200 ms. Counted: stops of the world by the collector (upper ends of buckets that are a quarter wide),
 * gc_ns, the median of a whole collection, and bytes of stacks scanned by a collection: in all, and in its stop.
 * Peers: Go does the same. Two processors. */
#include "bench_weft.h"

#define CHANNELS 1000
#define AT_ONCE 10

static long fibers, collections;
static weft_chan *at[CHANNELS];
static long waiting;
static int over;
static weft_waitgroup wakers;

static void waiter(void *arg)
{
    weft_chan *c = at[(uintptr_t)arg % CHANNELS];
    uint64_t *own = weft_alloc(32);
    if (!own)
        abort();
    own[0] = own[3] = (uintptr_t)arg;
    __atomic_fetch_add(&waiting, 1, __ATOMIC_RELAXED);
    while (weft_chan_recv(c, NULL) == 1)
        if (own[0] != own[3])
            abort();
}

static void waker(void *arg)
{
    uint64_t seed = 88172645463325252u;
    (void)arg;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        for (int i = 0; i < AT_ONCE; i++)
            bench_must(weft_chan_send(at[bench_random(&seed) % CHANNELS], NULL), "weft_chan_send");
        weft_sleep(WEFT_MILLISECOND);
    }
}

/* Of stacks scanned so far: in all, and while the world stood still. */
static void scanned(uint64_t out[2])
{
    weft_metric m[2];
    memset(m, 0, sizeof m);
    m[0].name = "/weft/gc/scanned/stacks:bytes";
    m[1].name = "/weft/gc/beside/stacks:bytes";
    bench_must(weft_metrics_read(m, 2), "weft_metrics_read");
    for (int i = 0; i < 2; i++)
        out[i] = m[i].kind == WEFT_METRIC_U64 ? m[i].u64 : 0;
}

static void run(void *arg)
{
    static bench_stops before, stops;
    static double ns[1000];
    uint64_t bytes[2][2];
    (void)arg;
    for (int i = 0; i < CHANNELS; i++)
        if (!(at[i] = weft_chan_make(0, 0)))
            abort();
    for (long i = 0; i < fibers; i++)
        bench_must(weft_go(waiter, (void *)(uintptr_t)i), "weft_go");
    while (__atomic_load_n(&waiting, __ATOMIC_RELAXED) < fibers)
        weft_yield();
    weft_gc();
    bench_must(weft_waitgroup_go(&wakers, waker, NULL), "weft_waitgroup_go");
    bench_stops_look(&before);
    scanned(bytes[0]);
    bench_span t = bench_begin();
    for (long i = 0; i < collections; i++) {
        weft_sleep(200 * WEFT_MILLISECOND);
        bench_span one = bench_begin();
        weft_gc();
        ns[i] = (double)bench_end(one).wall_ns;
    }
    t = bench_end(t);
    scanned(bytes[1]);
    bench_stops_since(&stops, &before);
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    weft_waitgroup_wait(&wakers);
    bench_open("parked_stop", "weft");
    bench_num("stop_p50_ns", bench_stops_ns(&stops, .5));
    bench_num("stop_max_ns", bench_stops_ns(&stops, 1));
    bench_num("stops", (double)bench_stops_count(&stops));
    bench_num("gc_ns", bench_median(ns, collections));
    bench_num("stack_bytes", (double)(bytes[1][0] - bytes[0][0]) / (double)stops.cycles);
    bench_num("stop_stack_bytes", (double)(bytes[1][1] - bytes[0][1]) / (double)stops.cycles);
    bench_num("ops", (double)fibers);
    bench_num("cpu_s", (double)t.cpu_ns / 1e9);
    bench_close();
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 1000000);
    collections = bench_arg(argc, argv, 2, 20);
    return fibers < CHANNELS || collections < 1 || collections > 1000 ? 2 : bench_run(run);
}
