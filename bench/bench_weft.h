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

/* For main: runs fn as the main fiber. */
static inline int bench_run(weft_fn *fn)
{
    bench_must(weft_run(fn, NULL, NULL), "weft_run");
    return 0;
}

#endif
