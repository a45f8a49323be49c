/* live_heap [MB] [seconds] [hot | idle] - for how long does the collector hold up a program with a large heap?
 *
 * 500 MB of live nodes that point to each other at random (live_heap.h), 60 seconds, which is many collections: short windows flatter. Two fibers
 * allocate and rewire all the time; a ticker wants to run each millisecond.
 * Counted: ns_per_op and cpu_ns_per_op of the mutators together; stops of the world by the collector, upper ends of buckets that are a quarter wide
 * at most; how late the ticker came, from p50 to max; cycles.
 * idle: nothing but the ticker, and a collection every 250 ms, which another fiber asks for.
 * Peers: Go, by the same histogram; Boehm with threads, from its events around each stop, and boehminc, with GC_enable_incremental. Two processors.
 * All allocate zeroed nodes of the same sizes, from the same random numbers. */
#include "bench_weft.h"
#include "live_heap.h"

static long seconds;
static int idle;
static weft_waitgroup wg;

static live_node *live_alloc(size_t bytes) { return weft_alloc(bytes); }

static void mutator(void *arg) { live_mutate((unsigned)(uintptr_t)arg, weft_yield); }
static void ticker(void *arg) { (void)arg, live_tick(weft_sleep); }

static void collector(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&live.over, __ATOMIC_RELAXED)) {
        weft_sleep(250 * WEFT_MILLISECOND);
        weft_gc();
    }
}

static bench_stops before, stops;

static void run(void *arg)
{
    (void)arg;
    int percent = weft_set_gc_percent(WEFT_GC_OFF);
    live.hub = weft_alloc(live.n * sizeof(live_node *));
    if (!live.hub)
        abort();
    live_build();
    live_ticker_init(seconds);
    weft_set_gc_percent(percent);
    weft_gc();
    bench_stops_look(&before);
    bench_span t = bench_begin();
    bench_must(weft_waitgroup_go(&wg, ticker, NULL), "weft_waitgroup_go");
    if (idle)
        bench_must(weft_waitgroup_go(&wg, collector, NULL), "weft_waitgroup_go");
    for (uintptr_t i = 0; !idle && i < LIVE_MUTATORS; i++)
        bench_must(weft_waitgroup_go(&wg, mutator, (void *)i), "weft_waitgroup_go");
    weft_sleep(seconds * WEFT_SECOND);
    __atomic_store_n(&live.over, 1, __ATOMIC_RELAXED);
    weft_waitgroup_wait(&wg);
    t = bench_end(t);
    bench_stops_since(&stops, &before);
    struct live_stops s = { (double)bench_stops_count(&stops), bench_stops_ns(&stops, .5), bench_stops_ns(&stops, .99), bench_stops_ns(&stops, 1) };
    live_report("weft", t, &s, stops.cycles);
    bench_close();
}

int main(int argc, char **argv)
{
    long mb;
    return live_arguments(argc, argv, &mb, &seconds, &idle) ? bench_run(run) : 2;
}
