/* block_profile [round trips] [budget in tenths of a percent] - what does a block profile of every wait cost where fibers do nothing but wait?
 *
 * The question of chan_unbuf (two fibers, two unbuffered channels, one processor), in turns without a profile and with one: rate 1, or a budget.
 * Counted: processor time of a round trip, which is two waits; ns_per_op is with the profile, slowdown the median of with / without, added_ns the
 * difference for one wait. Peer: Go does the same. */
#include "bench_weft.h"

#define TURNS 9

static long trips, budget;

static double ask(long n)
{
    bench_span t = bench_begin();
    bench_ask(n);
    return (double)bench_end(t).cpu_ns / (double)n; /* not of who else runs on the machine */
}

static void profile(bool on)
{
    if (budget > 0)
        bench_must(weft_set_block_profile_budget(on ? (double)budget / 10 : 0), "weft_set_block_profile_budget");
    else
        bench_must(weft_set_block_profile_rate(on), "weft_set_block_profile_rate");
}

static void run(void *arg)
{
    double off[TURNS], on[TURNS], slowdown[TURNS], added[TURNS];
    (void)arg;
    bench_ask_begin(bench_echo);
    ask(trips / 10);
    for (int i = 0; i < TURNS; i++) {
        off[i] = ask(trips);
        profile(true);
        ask(trips / 4); /* finds its rate */
        on[i] = ask(trips);
        profile(false);
        slowdown[i] = on[i] / off[i];
        added[i] = (on[i] - off[i]) / 2;
    }
    bench_open("block_profile", "weft");
    bench_num("ns_per_op", bench_median(on, TURNS));
    bench_num("off_ns", bench_median(off, TURNS));
    bench_num("slowdown", bench_median(slowdown, TURNS));
    bench_num("added_ns", bench_median(added, TURNS));
    bench_close();
    weft_chan_close(bench_there);
}

int main(int argc, char **argv)
{
    trips = bench_arg(argc, argv, 1, 200000);
    budget = bench_arg(argc, argv, 2, 0);
    return bench_run(run);
}
