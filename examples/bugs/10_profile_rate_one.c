/* Bug 10: block and mutex profiles at rate 1, left on.
 *
 * What the calls promise: a stack of every wait and of every unlock that others waited for.
 * What the bug assumes:   that a rate is a matter of detail, and that more is better.
 * What goes wrong:        where fibers wait for one another hundreds of thousands of times a second, looking at the
 *                         clock and at the stack takes as long as the waits themselves, and nothing says that it is the profile.
 * Instead:                say what it may cost. The rate follows from that, from moment to moment, and the sums stay right.
 * Guarded:                a rate is kept to half a percent of the processor time for each of the two. */
#include "bug.h"
#include <time.h>

enum { CLIENTS = 4, TURNS = 15, REQUESTS = 10000, WARM_UP = 2000 };

static weft_chan *ask, *answer;
static weft_mutex orders;
static long placed;

/* Serves whoever asks. */
static void server(void *arg)
{
    long n;
    (void)arg;
    while (weft_chan_recv(ask, &n) == 1) {
        n *= 2;
        weft_chan_send(answer, &n);
    }
}

/* Others come by while it holds the lock. */
__attribute__((noinline)) static void place_order(void)
{
    weft_mutex_lock(&orders);
    weft_yield();
    placed++;
    weft_mutex_unlock(&orders);
}

static void client(void *arg)
{
    for (long n = (long)arg, back; n > 0; n--) {
        weft_chan_send(ask, &n);
        weft_chan_recv(answer, &back);
        place_order();
    }
}

/* So many requests by each client: the processor time that one took, in ns. Others on the machine do not count. */
static double turn(long requests)
{
    struct timespec from, to;
    weft_waitgroup wg = { 0 };
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (int i = 0; i < CLIENTS; i++)
        weft_waitgroup_go(&wg, client, (void *)requests);
    weft_waitgroup_wait(&wg);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / (double)(requests * CLIENTS);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void rates(int64_t block, int mutex)
{
    weft_set_block_profile_rate(block);
    weft_set_mutex_profile_fraction(mutex);
}

static void rates_one(void) { rates(1, 1); } /* here it happens */
static void rates_sane(void) { rates(100000, 100); }
static void budget(void)
{
    weft_set_block_profile_budget(0.5);
    weft_set_mutex_profile_budget(0.5);
}

/* Percent of the throughput that is left with the profiles on: the median of some turns, each beside one without. */
static double left_with(void (*profiles)(void), double *off_ns)
{
    double share[TURNS], off[TURNS];
    for (int i = 0; i < TURNS; i++) {
        off[i] = turn(REQUESTS);
        profiles();
        turn(WARM_UP); /* a budget finds its rate */
        share[i] = off[i] / turn(REQUESTS);
        rates(0, 0);
    }
    qsort(share, TURNS, sizeof *share, compare);
    qsort(off, TURNS, sizeof *off, compare);
    *off_ns = off[TURNS / 2];
    return 100 * share[TURNS / 2];
}

static void begin(void)
{
    ask = weft_chan_make_noscan(sizeof(long), 0);
    answer = weft_chan_make_noscan(sizeof(long), 0);
    weft_go(server, NULL);
    turn(REQUESTS);
}

static void buggy(void *arg)
{
    double off_ns;
    (void)arg;
    begin();
    double left = left_with(rates_one, &off_ns);
    bug_value("left", left);
    bug_value("stacks", (double)weft_profile_count(weft_profile_lookup("block")));
    bug_say("%.2f million requests per second of processor time without profiles; with block rate 1 and mutex fraction 1 %.0f %% of that",
            1e3 / off_ns, left);
    bug_cell("%.0f %% of throughput left", left);
}

static void fixed(void *arg)
{
    double off_ns, sane, within;
    (void)arg;
    begin();
    sane = left_with(rates_sane, &off_ns);
    within = left_with(budget, &off_ns);
    bug_value("left", within);
    bug_value("stacks", (double)weft_profile_count(weft_profile_lookup("block")));
    bug_say("%.2f million; with a rate of 100 us and one unlock in 100 %.0f %% of that, with a budget of 1 %% of processor time %.0f %%",
            1e3 / off_ns, sane, within);
    bug_cell("%.0f %%, budget of 1 %% CPU", within);
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "left") > 85)
        return "rate 1 hardly costs anything";
    if (bug_get(f, "left") < 90)
        return "with a budget of 1 % more than 10 % is lost";
    if (bug_get(f, "stacks") < 1 || bug_get(b, "stacks") < 1)
        return "nothing was recorded";
    if (bug_get(g, "left") < 90 || bug_get(g, "stacks") < 1)
        return "guarded, more than 10 % is lost, or nothing was recorded";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "10",
        .title = "block and mutex profiles at rate 1",
        .buggy = buggy,
        .fixed = fixed,
        .config = { .maxprocs = 1 },
        .instead = "weft_set_block_profile_budget(0.5); weft_set_mutex_profile_budget(0.5);   /* percent of processor time */",
        .attempts = 3,
        .code = WEFT_W10,
        .guard = "WEFT_GUARD_PROFILES: whatever the rate, each of the two takes half a percent of the processor time",
        .verdict = verdict,
        .plots = { { "left", "throughput left", "%", true } },
    };
    return bug_main(argc, argv, &bug);
}
