/* Bug 04: weft_gc in a hot loop, to keep memory low.
 *
 * What the call promises: a full collection, done when the call returns.
 * What the bug assumes:   that more collections cost a little and save a lot.
 * What goes wrong:        each collection marks all that is live, however little garbage there is: the cost grows with
 *                         the heap and the rate of the calls. Throughput falls; and where the mark is made in a stop
 *                         (weft_config_report says so) fibers that have nothing to do with it are held up by each.
 * Instead:                let the pacer decide when it pays, and say what you want: a limit on memory.
 * Guarded:                a collection that took a millisecond is followed by nineteen in which the calls return at once. */
#include "bug.h"

enum { LIVE_NODES = 400000, WORK_BYTES = 16384, RUN_MS = 2500 };

struct node {
    struct node *left, *right;
    char payload[48];
};

static struct node *grow(int n)
{
    if (n == 0)
        return NULL;
    struct node *node = weft_alloc_typed(WEFT_TYPE(struct node, left, right));
    node->left = grow((n - 1) / 2);
    node->right = grow(n - 1 - (n - 1) / 2);
    return node;
}

static struct node *live; /* what the program keeps: some 25 MiB */
static struct bug_bystander bystander;

static void request(void)
{
    char *text = weft_alloc_noscan(WORK_BYTES);
    for (volatile int i = 0; i < 20000; i++)
        text[i % WORK_BYTES] = (char)i;
}

/* Cycles so far that marked beside the program. */
static uint64_t cycles_beside(void)
{
    weft_metric m = { .name = "/weft/gc/beside/cycles:gc-cycles" };
    weft_metrics_read(&m, 1);
    return m.kind == WEFT_METRIC_U64 ? m.u64 : 0;
}

static void measure(bool buggy)
{
    live = grow(LIVE_NODES);
    weft_gc();
    weft_mem_stats *m = weft_alloc_noscan(sizeof *m);
    m->size = sizeof *m;
    weft_read_mem_stats(m);
    uint32_t cycles = m->num_gc;
    uint64_t beside = cycles_beside();
    if (!buggy)
        weft_set_memory_limit((int64_t)(m->sys - m->heap_released) + (64 << 20));
    bug_bystander_start(&bystander);
    int64_t start = weft_now(), end = start + RUN_MS * WEFT_MILLISECOND;
    long requests = 0;
    for (; weft_now() < end; requests++) {
        request();
        if (buggy)
            weft_gc(); /* here it happens */
    }
    double rate = (double)requests * 1e9 / (double)(weft_now() - start);
    bug_bystander_stop(&bystander);
    double half = bug_bystander_us(&bystander, 50), p99 = bug_bystander_us(&bystander, 99);
    weft_keep_alive(live); /* a variable nobody reads would be optimised away, and its tree collected */
    weft_read_mem_stats(m);
    cycles = m->num_gc - cycles;
    bug_value("rate", rate);
    bug_value("half", half);
    bug_value("beside", (double)(cycles_beside() - beside));
    bug_value("per_request", (double)cycles / (double)requests);
    bug_say("%.0f requests/s with %u collections; an unrelated fiber's median is %.1f ms, p99 %.1f ms; peak memory %.0f MiB", rate,
            cycles, half / 1000, p99 / 1000, bug_peak_mib());
    bug_cell("%.0f req/s, median %.1f ms", rate, half / 1000);
}

static void buggy(void *arg) { (void)arg, measure(true); }
static void fixed(void *arg) { (void)arg, measure(false); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "per_request") < 0.5)
        return "the calls did not collect";
    if (bug_get(f, "per_request") > 0.05 * bug_get(b, "per_request"))
        return "the pacer collects as often as the loop did";
    if (bug_get(f, "rate") < 3 * bug_get(b, "rate"))
        return "throughput without the calls is not three times as high";
    /* Stop follows stop, so the median shows them; a single stop of the pacer's is as long, and shows in the p99. Those of a mark beside the program are
     * too short for that. */
    if (bug_get(b, "beside") == 0 && bug_get(f, "half") < BUG_BUSY_US && bug_get(b, "half") < 1.5 * bug_get(f, "half"))
        return "the unrelated fiber is not held up more";
    if (bug_get(g, "rate") < 3 * bug_get(b, "rate"))
        return "guarded, throughput is not three times as high";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "04",
        .title = "weft_gc in a hot loop",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "weft_set_memory_limit(512 << 20);   /* once, at the start; no weft_gc */",
        .attempts = 3,
        .code = WEFT_W04,
        .guard = "WEFT_GUARD_GC: collections that are forced take a twentieth of the time at most; other calls return at once",
        .verdict = verdict,
        .plots = { { "rate", "requests per second", "/s", true }, { "half", "median round of an unrelated fiber", "us", false } },
    };
    return bug_main(argc, argv, &bug);
}
