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

/* For main: runs fn as the main fiber. */
static inline int bench_run(weft_fn *fn)
{
    bench_must(weft_run(fn, NULL, NULL), "weft_run");
    return 0;
}

#endif
