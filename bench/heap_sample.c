/* heap_sample [size] [rounds] [rate] [depth] - what does it cost that heap profiles are always on?
 *
 * A fiber, `depth` calls deep, allocates objects of `size` bytes and drops them, in rounds of a million: by turns without samples and with one per
 * `rate` bytes, stacks walked exactly. Counted, in processor time: one object without (off_ns) and with (on_ns), and by how many percent the latter is
 * slower: the medians of all rounds, and of all pairs of neighbours.
 * Peers: Go: the same with runtime.MemProfileRate. */
#include "bench_weft.h"

enum { OBJECTS = 1000000, MAX_ROUNDS = 2000 };
static long size, rounds, rate, depth;
static void *kept;

static __attribute__((noinline)) void allocate(long deeper)
{
    if (deeper > 0) {
        allocate(deeper - 1);
        bench_use(&deeper);
        return;
    }
    for (long i = 0; i < OBJECTS; i++) {
        void **p = weft_alloc((size_t)size);
        if (!p)
            abort();
        *p = NULL;
        kept = p;
        bench_use(p);
    }
}

static double timed(long bytes)
{
    weft_set_mem_profile_rate(bytes);
    weft_gc(); /* what was prepared by the other rate is given back */
    bench_span t = bench_begin();
    allocate(depth);
    return (double)bench_end(t).cpu_ns / OBJECTS;
}

static void run(void *arg)
{
    static double off[MAX_ROUNDS], on[MAX_ROUNDS], slower[MAX_ROUNDS];
    (void)arg;
    timed(rate);
    for (long i = 0; i < rounds; i++) {
        if (i % 2) { /* whoever comes first may find the machine in another mood */
            on[i] = timed(rate);
            off[i] = timed(0);
        } else {
            off[i] = timed(0);
            on[i] = timed(rate);
        }
        slower[i] = (on[i] / off[i] - 1) * 100;
    }
    bench_open("heap_sample", "weft");
    bench_num("off_ns", bench_median(off, rounds));
    bench_num("on_ns", bench_median(on, rounds));
    bench_num("slower_percent", bench_median(slower, rounds));
    bench_close();
}

int main(int argc, char **argv)
{
    size = bench_arg(argc, argv, 1, 64);
    rounds = bench_arg(argc, argv, 2, 201);
    rate = bench_arg(argc, argv, 3, 524288);
    depth = bench_arg(argc, argv, 4, 10);
    return rounds < 1 || rounds > MAX_ROUNDS ? 2 : bench_run(run);
}
