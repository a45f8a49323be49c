/* bench_weft.h - how a bench runs on weft: with the settings of the environment (WEFT_MAXPROCS comes from
 * run.sh), and a failure is an exit code and never a figure. */
#ifndef BENCH_WEFT_H
#define BENCH_WEFT_H

#include "bench.h"
#include <weft.h>

static inline void bench_must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "bench: %s: %s\n", what, weft_strerror(rc));
        _exit(1);
    }
}

struct bench_waiters { weft_chan *gate; long waiting; };

static inline void bench_waiter(void *arg)
{
    struct bench_waiters *w = arg;
    weft_chan *gate = w->gate;
    __atomic_fetch_add(&w->waiting, 1, __ATOMIC_SEQ_CST);
    weft_chan_recv(gate, NULL);
}

/* Starts n fibers that wait until the channel that is returned is closed, and waits until all do. */
static inline weft_chan *bench_wait_at_gate(long n)
{
    struct bench_waiters w = { weft_chan_make(0, 0), 0 };
    for (long i = 0; i < n; i++)
        bench_must(weft_go(bench_waiter, &w), "weft_go");
    while (__atomic_load_n(&w.waiting, __ATOMIC_SEQ_CST) < n)
        weft_yield();
    return w.gate;
}

/* ---- asking: numbers to another fiber and back, over two unbuffered channels ---- */

static weft_chan *bench_there, *bench_back; /* the other fiber ends when bench_there is closed */

static inline void bench_echo(void *arg)
{
    int64_t v;
    (void)arg;
    while (weft_chan_recv(bench_there, &v) == 1)
        bench_must(weft_chan_send(bench_back, &v), "weft_chan_send");
}

/* Starts the other fiber: bench_echo, or a function that comes to it. */
static inline void bench_ask_begin(weft_fn *echo)
{
    bench_there = weft_chan_make_noscan(8, 0);
    bench_back = weft_chan_make_noscan(8, 0);
    bench_must(weft_go(echo, NULL), "weft_go");
}

static inline void bench_ask(long n)
{
    for (int64_t i = 0, v; i < n; i++) {
        bench_must(weft_chan_send(bench_there, &i), "weft_chan_send");
        if (weft_chan_recv(bench_back, &v) != 1 || v != i)
            abort();
    }
}

/* ---- stops of the world by the collector, between two looks ---- */

typedef struct bench_stops {
    uint64_t count[WEFT_METRIC_BUCKETS], cycles;
    const double *bounds;
    uint32_t buckets;
} bench_stops;

static inline void bench_stops_look(bench_stops *s)
{
    weft_metric m[2];
    memset(m, 0, sizeof m);
    m[0] = (weft_metric){ .name = "/sched/pauses/total/gc:seconds", .counts = s->count, .room = WEFT_METRIC_BUCKETS };
    m[1].name = "/gc/cycles/total:gc-cycles";
    bench_must(weft_metrics_read(m, 2), "weft_metrics_read");
    s->bounds = m[0].bounds;
    s->buckets = m[0].buckets;
    s->cycles = m[1].u64;
}

/* From the first look on. */
static inline void bench_stops_since(bench_stops *s, const bench_stops *first)
{
    bench_stops_look(s);
    for (uint32_t i = 0; i < s->buckets; i++)
        s->count[i] -= first->count[i];
    s->cycles -= first->cycles;
}

static inline uint64_t bench_stops_count(const bench_stops *s)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < s->buckets; i++)
        n += s->count[i];
    return n;
}

/* So long, at the most, were `part` of them: the upper end of a bucket, which is a quarter wide. */
static inline double bench_stops_ns(const bench_stops *s, double part)
{
    uint64_t n = 0;
    double all = (double)bench_stops_count(s);
    for (uint32_t i = 0; i < s->buckets; i++)
        if ((n += s->count[i]) > 0 && (double)n >= part * all)
            return (double)(int64_t)(s->bounds[i + 1] * 1e9 + 0.5);
    return 0;
}

/* For main: runs fn as the main fiber. */
static inline int bench_run(weft_fn *fn)
{
    bench_must(weft_run(fn, NULL, NULL), "weft_run");
    return 0;
}

#endif
