/* The question of ../live_heap.c to Boehm's collector, with threads of the system instead of fibers. A stop is from its event before it stops the
 * world to the one after it has started it. -DINCREMENTAL: GC_enable_incremental, which is the peer boehminc. */
#define GC_THREADS
#include "../bench.h"
#include <gc.h>
#include <pthread.h>
#include "../live_heap.h"

#ifdef INCREMENTAL
#define IMPL "boehminc"
#else
#define IMPL "boehm"
#endif

static live_node *live_alloc(size_t bytes) { return GC_MALLOC(bytes); }

#define STOPS (1 << 20)
static int64_t *stops, stop_began; /* under the collector's lock */
static size_t nstops;

static void event(GC_EventType e)
{
    if (e == GC_EVENT_PRE_STOP_WORLD)
        stop_began = bench_clock_ns(CLOCK_MONOTONIC);
    else if (e == GC_EVENT_POST_START_WORLD && nstops < STOPS)
        stops[nstops++] = bench_clock_ns(CLOCK_MONOTONIC) - stop_began;
}

static void give_way(void) { } /* the system takes turns with its threads; by sched_yield some would get no turn: base/backoff.h */
static void sleep_ns(int64_t ns) /* signals of the collector interrupt it */
{
    int64_t until = bench_clock_ns(CLOCK_MONOTONIC) + ns;
    struct timespec t = { until / 1000000000, until % 1000000000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
        ;
}

static void *mutator(void *arg) { return live_mutate((unsigned)(uintptr_t)arg, give_way), NULL; }
static void *ticker(void *arg) { return live_tick(sleep_ns), arg; }

static void *collector(void *arg)
{
    while (!__atomic_load_n(&live.over, __ATOMIC_RELAXED)) {
        sleep_ns(250000000);
        GC_gcollect();
    }
    return arg;
}

static void start(pthread_t *t, void *(*fn)(void *), uintptr_t arg)
{
    if (pthread_create(t, NULL, fn, (void *)arg) != 0)
        abort();
}

int main(int argc, char **argv)
{
    long mb, seconds;
    int idle, n = 0;
    pthread_t t[LIVE_MUTATORS + 1];
    if (!live_arguments(argc, argv, &mb, &seconds, &idle))
        return 2;
    GC_INIT();
    GC_start_mark_threads();
    GC_disable();
    live.hub = GC_MALLOC(live.n * sizeof(live_node *));
    if (!live.hub)
        abort();
    live_build();
    live_ticker_init(seconds);
    stops = malloc(STOPS * sizeof *stops);
    if (!stops)
        abort();
    memset(stops, 0, STOPS * sizeof *stops);
    GC_enable();
#ifdef INCREMENTAL
    GC_enable_incremental();
#endif
    GC_gcollect();
    GC_set_on_collection_event(event);
    GC_word cycles = GC_get_gc_no();
    bench_span s = bench_begin();
    start(&t[n++], ticker, 0);
    if (idle)
        start(&t[n++], collector, 0);
    for (uintptr_t i = 0; !idle && i < LIVE_MUTATORS; i++)
        start(&t[n++], mutator, i);
    sleep_ns(seconds * 1000000000);
    __atomic_store_n(&live.over, 1, __ATOMIC_RELAXED);
    while (n > 0)
        pthread_join(t[--n], NULL);
    s = bench_end(s);
    struct live_stops stopped = live_stops_of(stops, nstops);
    live_report(IMPL, s, &stopped, GC_get_gc_no() - cycles);
    bench_close();
    return 0;
}
