/* cpu_profile [hz] [rounds] [depth] - what does a CPU profile cost the program that it is of?
 *
 * A fiber, `depth` calls deep, computes for some 100 ms, in pairs of rounds, one of them while a profile is taken at hz samples a second and written to
 * nowhere. Counted, in its thread's own processor time: a round without (off_ms) and with (on_ms), by how many percent the latter is slower
 * (the medians of all rounds, and of all pairs); and what the process uses besides, its helpers included (helpers_percent).
 * Peers: Go: the same with runtime/pprof, at its fixed 100 Hz. Two processors. */
#include "bench_weft.h"

enum { TURNS = 40000000, MAX_ROUNDS = 1000 };
static long hz, rounds, depth;
static uint64_t kept;

static __attribute__((noinline)) void compute(long deeper)
{
    if (deeper > 0) {
        compute(deeper - 1);
        bench_use(&deeper);
        return;
    }
    uint64_t x = kept | 1;
    for (long i = 0; i < TURNS; i++)
        x = x * 6364136223846793005u + (x >> 29);
    kept = x;
}

static int nowhere(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

struct round { double thread, others; };

static struct round timed(bool profile)
{
    weft_cpu_profile_opts o = { .size = sizeof o, .hz = (int)hz };
    struct round r;
    if (profile) {
        bench_must(weft_cpu_profile_start(nowhere, NULL, &o), "weft_cpu_profile_start");
        weft_sleep(100 * WEFT_MILLISECOND); /* the first piece looks up the program's names */
    }
    int64_t thread = bench_clock_ns(CLOCK_THREAD_CPUTIME_ID), all = bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    compute(depth);
    r.thread = (double)(bench_clock_ns(CLOCK_THREAD_CPUTIME_ID) - thread);
    r.others = (double)(bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - all) - r.thread;
    if (profile)
        bench_must(weft_cpu_profile_stop(), "weft_cpu_profile_stop");
    return r;
}

static void run(void *arg)
{
    static double off[MAX_ROUNDS], on[MAX_ROUNDS], slower[MAX_ROUNDS], others[MAX_ROUNDS];
    (void)arg;
    bench_must(weft_lock_os_thread(), "weft_lock_os_thread"); /* one clock for all */
    timed(true);
    for (long i = 0; i < rounds; i++) {
        struct round a = timed(i % 2), b = timed(!(i % 2)); /* whoever comes first may find the machine in another mood */
        off[i] = (i % 2 ? b : a).thread;
        on[i] = (i % 2 ? a : b).thread;
        slower[i] = (on[i] / off[i] - 1) * 100;
        others[i] = (i % 2 ? a : b).others / on[i] * 100;
    }
    bench_open("cpu_profile", "weft");
    bench_num("off_ms", bench_median(off, rounds) / 1e6);
    bench_num("on_ms", bench_median(on, rounds) / 1e6);
    bench_num("slower_percent", bench_median(slower, rounds));
    bench_num("helpers_percent", bench_median(others, rounds));
    bench_close();
}

int main(int argc, char **argv)
{
    hz = bench_arg(argc, argv, 1, 100);
    rounds = bench_arg(argc, argv, 2, 31);
    depth = bench_arg(argc, argv, 3, 20);
    return rounds < 1 || rounds > MAX_ROUNDS ? 2 : bench_run(run);
}
