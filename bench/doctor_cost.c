/* doctor_cost [chan|alloc] [n] [pairs] - what does it cost that the doctor is always on?
 *
 * chan: two fibers send n values there and back over two unbuffered channels. alloc: a fiber allocates n objects of 64 bytes that hold pointers,
 * keeps each for a while, and so collects again and again. Lives of the runtime by turns with the doctor off and on (report, the default). Counted,
 * in processor time of the process, start and end of the runtime left out: one operation without (off_ns) and with (on_ns), and by how many percent
 * the latter is slower: medians of all lives, and of all pairs. Lives are short, so that few of them are disturbed by what
 * else runs on the machine. */
#include <string.h>
#include "bench_weft.h"

enum { MAX_PAIRS = 2000, KEPT = 4096 };
static long n, pairs;
static double took;

static void chan(void *arg)
{
    (void)arg;
    bench_ask_begin(bench_echo);
    bench_ask(n / 10);
    bench_span t = bench_begin();
    bench_ask(n);
    took = (double)bench_end(t).cpu_ns / (double)n;
    weft_chan_close(bench_there);
}

static void **kept;

static void allocate(long times)
{
    for (long i = 0; i < times; i++) {
        void **p = weft_alloc(64);
        if (!p)
            abort();
        *p = NULL;
        kept[i % KEPT] = p;
    }
}

static void alloc(void *arg)
{
    (void)arg;
    kept = weft_alloc(KEPT * sizeof *kept);
    allocate(n / 10);
    bench_span t = bench_begin();
    allocate(n);
    took = (double)bench_end(t).cpu_ns / (double)n;
    kept = NULL;
}

static double life(weft_fn *fn, const char *doctor)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.doctor = doctor;
    bench_must(weft_run(fn, NULL, &cfg), "weft_run");
    return took;
}

int main(int argc, char **argv)
{
    static double off[MAX_PAIRS], on[MAX_PAIRS], slower[MAX_PAIRS];
    weft_fn *fn = argc > 1 && strcmp(argv[1], "alloc") == 0 ? alloc : chan;
    n = bench_arg(argc, argv, 2, fn == alloc ? 500000 : 30000);
    pairs = bench_arg(argc, argv, 3, 400);
    if (pairs > MAX_PAIRS)
        pairs = MAX_PAIRS;
    life(fn, "off");
    for (long i = 0; i < pairs; i++) {
        if (i % 2) { /* whoever comes first may find the machine in another mood */
            on[i] = life(fn, "report");
            off[i] = life(fn, "off");
        } else {
            off[i] = life(fn, "off");
            on[i] = life(fn, "report");
        }
        slower[i] = (on[i] / off[i] - 1) * 100;
    }
    bench_open("doctor_cost", "weft");
    bench_num("off_ns", bench_median(off, pairs));
    bench_num("on_ns", bench_median(on, pairs));
    bench_num("slower_percent", bench_median(slower, pairs));
    bench_close();
    return 0;
}
