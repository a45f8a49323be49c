/* timers [timers] - what does a timer cost, and how late are a hundred thousand sleepers woken?
 *
 * First: start 100 000 timers of an hour to an hour and a bit (in random order), stop them all, ten times.
 * Counted: ns_per_op, one start and stop.
 * Then: 100 000 fibers sleep 0.1 to 1 s (random). Counted: how late each wakes (p50 to max), and the processor
 * time of it all (cpu_s).
 * Peers: Go: time.NewTimer and Stop; time.Sleep. Two processors. */
#include "bench_weft.h"
#include <stdatomic.h>

static long timers;
static weft_timer **started; /* in the collected heap */
static int64_t *late;
static atomic_long next_late;

static void start_stop(void)
{
    uint64_t seed = 88172645463325252u;
    for (long i = 0; i < timers; i++) {
        started[i] = weft_timer_new(3600 * WEFT_SECOND + (int64_t)(bench_random(&seed) % 1000000000), 0);
        if (!started[i])
            abort();
    }
    for (long i = 0; i < timers; i++)
        if (!weft_timer_stop(started[i]))
            abort();
}

static void sleeper(void *arg)
{
    uint64_t seed = (uintptr_t)arg * 2685821657736338717u + 1;
    bench_random(&seed);
    int64_t ns = 100000000 + (int64_t)(bench_random(&seed) % 900000000);
    int64_t since = bench_clock_ns(CLOCK_MONOTONIC);
    weft_sleep(ns);
    late[atomic_fetch_add(&next_late, 1)] = bench_clock_ns(CLOCK_MONOTONIC) - since - ns;
}

static void run(void *arg)
{
    static weft_waitgroup wg;
    (void)arg;
    started = weft_alloc((size_t)timers * sizeof *started);
    late = calloc((size_t)timers, sizeof *late);
    if (!started || !late)
        abort();
    start_stop();
    bench_span t = bench_begin();
    for (int i = 0; i < 10; i++)
        start_stop();
    t = bench_end(t);
    bench_span sleeping = bench_begin();
    for (long i = 0; i < timers; i++)
        bench_must(weft_waitgroup_go(&wg, sleeper, (void *)(intptr_t)(i + 1)), "weft_waitgroup_go");
    weft_waitgroup_wait(&wg);
    sleeping = bench_end(sleeping);

    bench_open("timers", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / (10.0 * (double)timers));
    bench_num("ops", (double)timers);
    bench_num("cpu_s", (double)sleeping.cpu_ns / 1e9);
    bench_latencies(late, (size_t)timers);
    bench_close();
}

int main(int argc, char **argv)
{
    timers = bench_arg(argc, argv, 1, 100000);
    return bench_run(run);
}
