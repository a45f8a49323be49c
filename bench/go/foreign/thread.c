/* The thread of main.go. */
#include "../../bench.h"
#include "_cgo_export.h"
#include <pthread.h>

static long calls;
static double attach_ns, alloc_ns, chan_ns, cpu_s;

static void *thread(void *arg)
{
    (void)arg;
    bench_span first = bench_begin();
    goAlloc();
    attach_ns = (double)bench_end(first).wall_ns;
    for (long i = 0; i < calls / 10; i++)
        goAlloc();
    bench_span t = bench_begin();
    for (long i = 0; i < calls; i++)
        goAlloc();
    t = bench_end(t);
    bench_span chan = bench_begin();
    for (long i = 0; i < calls; i++)
        if (!goSend(i) || goRecv() != i)
            abort();
    chan = bench_end(chan);
    alloc_ns = (double)t.wall_ns / (double)calls;
    chan_ns = (double)chan.wall_ns / (double)calls;
    cpu_s = (double)(t.cpu_ns + chan.cpu_ns) / 1e9;
    return NULL;
}

void run_thread(long n, double *attach, double *alloc, double *chan, double *cpu)
{
    pthread_t t;
    calls = n;
    if (pthread_create(&t, NULL, thread, NULL) != 0)
        abort();
    pthread_join(t, NULL);
    *attach = attach_ns;
    *alloc = alloc_ns;
    *chan = chan_ns;
    *cpu = cpu_s;
}
