/* idle [seconds] - what does a program cost that does nothing?
 *
 * The main fiber sleeps for ten seconds. Counted, from /proc/self: resident memory, threads, and processor time
 * over those seconds (cpu_percent of one processor).
 * Peers: Go, with time.Sleep. */
#include "bench_weft.h"

static long seconds;

static long threads(void)
{
    long n = 0;
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "Threads: %ld", &n);
    if (f)
        fclose(f);
    return n;
}

static void run(void *arg)
{
    (void)arg;
    bench_span t = bench_begin();
    weft_sleep(seconds * WEFT_SECOND);
    t = bench_end(t);
    long running = threads();
    bench_open("idle", "weft");
    bench_num("wall_s", (double)t.wall_ns / 1e9);
    bench_num("cpu_s", (double)t.cpu_ns / 1e9);
    bench_num("cpu_percent", 100.0 * (double)t.cpu_ns / (double)t.wall_ns);
    bench_num("threads", (double)running);
    bench_close();
}

int main(int argc, char **argv)
{
    seconds = bench_arg(argc, argv, 1, 10);
    return bench_run(run);
}
