/* Bug 06: memory statistics that stop the world, read at every turn.
 *
 * What the call promises: figures that are exact as of the call. For that it stops the world while it sums them.
 * What the bug assumes:   that reading a counter is free, so every request may carry the heap's size in its log line.
 * What goes wrong:        all fibers on all processors stop at every call, thousands of times a second: those that
 *                         count something, and those that never asked.
 * Instead:                one fiber reads them now and then, and everyone reads what it has noted.
 * Guarded:                that is what the runtime does, then: the answer is up to 100 ms old, and ten stops a second are all. */
#include "bug.h"

enum { RUN_MS = 1500, WORKERS = 2, POLL_MS = 250 };

static struct bug_bystander bystander = { .spins = 200000 };
static bool stop;
static uint64_t noted_heap_bytes;
static long requests;

static uint64_t heap_bytes_buggy(void)
{
    weft_mem_stats *m = weft_alloc_noscan(sizeof *m);
    m->size = sizeof *m;
    weft_read_mem_stats(m); /* here it happens */
    return m->heap_alloc;
}

static uint64_t heap_bytes_fixed(void) { return __atomic_load_n(&noted_heap_bytes, __ATOMIC_RELAXED); }

static void poller(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        __atomic_store_n(&noted_heap_bytes, heap_bytes_buggy(), __ATOMIC_RELAXED);
        weft_sleep(POLL_MS * WEFT_MILLISECOND);
    }
}

static void worker(void *arg)
{
    uint64_t (*heap_bytes)(void) = (uint64_t (*)(void))arg;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        char *line = weft_alloc_noscan(128);
        for (volatile int i = 0; i < 5000; i++) /* the request */
            ;
        snprintf(line, 128, "request done, heap %llu bytes", (unsigned long long)heap_bytes());
        __atomic_fetch_add(&requests, 1, __ATOMIC_RELAXED);
        weft_yield();
    }
}

static void measure(uint64_t (*heap_bytes)(void))
{
    weft_waitgroup wg = { 0 };
    weft_stop_stats before, after;
    weft_read_stop_stats(WEFT_STOP_MEM_STATS, &before);
    int64_t start = weft_now();
    bug_bystander_start(&bystander);
    if (heap_bytes == heap_bytes_fixed)
        weft_waitgroup_go(&wg, poller, NULL);
    for (int i = 0; i < WORKERS; i++)
        weft_waitgroup_go(&wg, worker, (void *)heap_bytes);
    weft_sleep(RUN_MS * WEFT_MILLISECOND);
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    bug_bystander_stop(&bystander);
    weft_waitgroup_wait(&wg);
    double half = bug_bystander_us(&bystander, 50), p99 = bug_bystander_us(&bystander, 99);
    double seconds = (double)(weft_now() - start) / 1e9;
    weft_read_stop_stats(WEFT_STOP_MEM_STATS, &after);
    double stops = (double)(after.count - before.count) / seconds, rate = (double)requests / seconds;
    bug_value("stops", stops);
    bug_value("half", half);
    bug_value("per_request", (double)(after.count - before.count) / (double)requests);
    bug_value("rate", rate);
    bug_say("%.0f requests/s with %.0f stops of the world per second; an unrelated fiber's median is %.1f ms, p99 %.1f ms", rate, stops,
            half / 1000, p99 / 1000);
    bug_cell("%.0f stops/s, median %.1f ms", stops, half / 1000);
}

static void buggy(void *arg) { (void)arg, measure(heap_bytes_buggy); }
static void fixed(void *arg) { (void)arg, measure(heap_bytes_fixed); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "per_request") < 0.9)
        return "reading the statistics did not stop the world";
    if (bug_get(f, "stops") > 20)
        return "the world is stopped often with one poller";
    if (bug_get(f, "rate") < 1.5 * bug_get(b, "rate"))
        return "requests are not slowed by the stops";
    /* So many stops slow down every round, so the median shows them; the p99 shows what else runs on the machine, too. */
    if (bug_get(f, "half") < BUG_BUSY_US && bug_get(b, "half") < 1.5 * bug_get(f, "half"))
        return "the unrelated fiber is not held up more";
    if (bug_get(g, "stops") > 20 || bug_get(g, "rate") < 1.5 * bug_get(b, "rate"))
        return "guarded, the world is stopped as often, or requests are as slow";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "06",
        .title = "stop-the-world statistics polled",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "heap = atomic_load(&noted);   /* one fiber reads the statistics now and then, and notes it */",
        .attempts = 3,
        .code = WEFT_W06,
        .guard = "WEFT_GUARD_STATS: figures are up to 100 ms old, so ten stops a second are all",
        .verdict = verdict,
        .plots = { { "stops", "stops of the world per second", "/s", false }, { "rate", "requests per second", "/s", true },
                   { "half", "median round of an unrelated fiber", "us", false } },
    };
    return bug_main(argc, argv, &bug);
}
