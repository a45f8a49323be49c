/* free_os [mib] [bytes] [rounds] - how long does it take to give memory back to the system, and how much of it?
 *
 * A gibibyte of objects without pointers (1 KiB each), written to, is dropped; then weft_free_os_memory is timed, which collects, sweeps and
 * releases. A first round, not counted, makes the tables and threads that stay.
 * Counted: p50_ns of the call; left_kib: by how much more than before is resident after the last one. Two processors.
 * Peers: Go: debug.FreeOSMemory. */
#include "bench_weft.h"

static long mib, bytes, rounds;

static __attribute__((noinline)) void fill(void)
{
    size_t n = ((size_t)mib << 20) / (size_t)bytes;
    void **all = weft_alloc(n * sizeof *all);
    for (size_t i = 0; all && i < n; i++) {
        all[i] = weft_alloc_noscan((size_t)bytes);
        if (!all[i])
            abort();
        memset(all[i], 1, (size_t)bytes);
    }
    if (!all)
        abort();
    memset(all, 0, n * sizeof *all); /* a pointer to it that is left somewhere keeps nothing else */
}

static void run(void *arg)
{
    (void)arg;
    weft_set_gc_percent(WEFT_GC_OFF);
    weft_free_os_memory();
    int64_t ns[100];
    long before = bench_rss_kib();
    bench_span t = { 0, 0 };
    for (long i = -1; i < rounds; i++) {
        fill();
        bench_span one = bench_begin();
        weft_free_os_memory();
        one = bench_end(one);
        if (i < 0)
            continue;
        ns[i] = one.wall_ns;
        t.wall_ns += one.wall_ns;
        t.cpu_ns += one.cpu_ns;
    }
    long left = bench_rss_kib() - before;
    bench_open("free_os", "weft");
    bench_num("ops", (double)rounds);
    bench_num("cpu_s", (double)t.cpu_ns / 1e9 / (double)rounds);
    bench_num("left_kib", (double)left);
    bench_latencies(ns, (size_t)rounds);
    bench_close();
}

int main(int argc, char **argv)
{
    mib = bench_arg(argc, argv, 1, 1024);
    bytes = bench_arg(argc, argv, 2, 1024);
    rounds = bench_arg(argc, argv, 3, 5);
    return mib < 1 || bytes < 1 || rounds < 1 || rounds > 100 ? 2 : bench_run(run);
}
