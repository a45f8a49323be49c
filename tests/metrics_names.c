/* Names of metrics: what there is, that it is described, and how samples find it. */
#include "metrics_test.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>

/* What Go has under these names, and of which kind: U, F, H; capitals are cumulative. */
static const struct { const char *name; char kind; } gos[] = {
    { "/cpu/classes/gc/mark/assist:cpu-seconds", 'F' }, { "/cpu/classes/gc/mark/dedicated:cpu-seconds", 'F' },
    { "/cpu/classes/gc/mark/idle:cpu-seconds", 'F' }, { "/cpu/classes/gc/pause:cpu-seconds", 'F' },
    { "/cpu/classes/gc/total:cpu-seconds", 'F' }, { "/cpu/classes/idle:cpu-seconds", 'F' },
    { "/cpu/classes/scavenge/assist:cpu-seconds", 'F' }, { "/cpu/classes/scavenge/background:cpu-seconds", 'F' },
    { "/cpu/classes/scavenge/total:cpu-seconds", 'F' }, { "/cpu/classes/total:cpu-seconds", 'F' }, { "/cpu/classes/user:cpu-seconds", 'F' },
    { "/gc/cleanups/executed:cleanups", 'U' }, { "/gc/cleanups/queued:cleanups", 'U' },
    { "/gc/cycles/automatic:gc-cycles", 'U' }, { "/gc/cycles/forced:gc-cycles", 'U' }, { "/gc/cycles/total:gc-cycles", 'U' },
    { "/gc/finalizers/executed:finalizers", 'U' }, { "/gc/finalizers/queued:finalizers", 'U' },
    { "/gc/gogc:percent", 'u' }, { "/gc/gomemlimit:bytes", 'u' },
    { "/gc/heap/allocs-by-size:bytes", 'H' }, { "/gc/heap/allocs:bytes", 'U' }, { "/gc/heap/allocs:objects", 'U' },
    { "/gc/heap/frees-by-size:bytes", 'H' }, { "/gc/heap/frees:bytes", 'U' }, { "/gc/heap/frees:objects", 'U' },
    { "/gc/heap/goal:bytes", 'u' }, { "/gc/heap/live:bytes", 'u' }, { "/gc/heap/objects:objects", 'u' }, { "/gc/heap/tiny/allocs:objects", 'U' },
    { "/gc/limiter/last-enabled:gc-cycle", 'u' }, { "/gc/pauses:seconds", 'H' },
    { "/gc/scan/globals:bytes", 'u' }, { "/gc/scan/heap:bytes", 'u' }, { "/gc/scan/stack:bytes", 'u' }, { "/gc/scan/total:bytes", 'u' },
    { "/gc/stack/starting-size:bytes", 'u' },
    { "/memory/classes/heap/free:bytes", 'u' }, { "/memory/classes/heap/objects:bytes", 'u' }, { "/memory/classes/heap/released:bytes", 'u' },
    { "/memory/classes/heap/stacks:bytes", 'u' }, { "/memory/classes/heap/unused:bytes", 'u' },
    { "/memory/classes/metadata/mcache/free:bytes", 'u' }, { "/memory/classes/metadata/mcache/inuse:bytes", 'u' },
    { "/memory/classes/metadata/mspan/free:bytes", 'u' }, { "/memory/classes/metadata/mspan/inuse:bytes", 'u' },
    { "/memory/classes/metadata/other:bytes", 'u' }, { "/memory/classes/os-stacks:bytes", 'u' }, { "/memory/classes/other:bytes", 'u' },
    { "/memory/classes/profiling/buckets:bytes", 'u' }, { "/memory/classes/total:bytes", 'u' },
    { "/sched/gomaxprocs:threads", 'u' }, { "/sched/goroutines-created:goroutines", 'U' }, { "/sched/goroutines/not-in-go:goroutines", 'u' },
    { "/sched/goroutines/runnable:goroutines", 'u' }, { "/sched/goroutines/running:goroutines", 'u' }, { "/sched/goroutines/waiting:goroutines", 'u' },
    { "/sched/goroutines:goroutines", 'u' }, { "/sched/latencies:seconds", 'H' },
    { "/sched/pauses/stopping/gc:seconds", 'H' }, { "/sched/pauses/stopping/other:seconds", 'H' },
    { "/sched/pauses/total/gc:seconds", 'H' }, { "/sched/pauses/total/other:seconds", 'H' },
    { "/sched/threads/total:threads", 'u' }, { "/sync/mutex/wait/total:seconds", 'F' },
};

static const weft_metric_desc *find(const char *name)
{
    const weft_metric_desc *d;
    size_t n = weft_metrics_all(&d);
    for (size_t i = 0; i < n; i++)
        if (strcmp(d[i].name, name) == 0)
            return &d[i];
    return NULL;
}

Test(metrics_names, gos_are_there_with_their_kinds)
{
    static const char letter[] = { [WEFT_METRIC_BAD] = 'b', [WEFT_METRIC_U64] = 'u', [WEFT_METRIC_F64] = 'f', [WEFT_METRIC_HIST] = 'h' };
    for (size_t i = 0; i < sizeof gos / sizeof *gos; i++) {
        const weft_metric_desc *d = find(gos[i].name);
        cr_assert_not_null(d, "%s is missing", gos[i].name);
        int kind = letter[d->kind];
        cr_expect_eq(d->cumulative ? toupper(kind) : kind, gos[i].kind, "%s", d->name);
    }
}

/* What is not Go's is under /weft/, so that a name of Go's that comes later is free. */
Test(metrics_names, ours_have_a_place_of_their_own)
{
    const weft_metric_desc *d;
    size_t n = weft_metrics_all(&d), own = 0;
    for (size_t i = 0; i < n; i++)
        own += strncmp(d[i].name, "/weft/", 6) == 0;
    cr_assert_eq(n - own, sizeof gos / sizeof *gos);
    cr_assert_not_null(find("/weft/sched/hand-offs:processors"));
}

Test(metrics_names, sorted_and_well_formed)
{
    const weft_metric_desc *d;
    size_t n = weft_metrics_all(&d);
    for (size_t i = 0; i < n; i++) {
        const char *s = d[i].name, *unit = strchr(s, ':');
        cr_assert(i == 0 || strcmp(d[i - 1].name, s) < 0, "%s comes too late", s);
        cr_assert(s[0] == '/' && unit != NULL && unit[1] != 0 && strchr(unit + 1, ':') == NULL, "%s", s);
        for (const char *c = s; *c != 0; c++)
            cr_assert(islower((unsigned char)*c) || isdigit((unsigned char)*c) || strchr("/-:", *c) != NULL, "%s: %c", s, *c);
        cr_assert(strstr(s, "//") == NULL && unit[-1] != '/', "%s", s);
    }
}

Test(metrics_names, all_are_described)
{
    const weft_metric_desc *d;
    size_t n = weft_metrics_all(&d);
    for (size_t i = 0; i < n; i++) {
        const char *t = d[i].description;
        cr_assert(t != NULL && isupper((unsigned char)t[0]) + isdigit((unsigned char)t[0]) != 0, "%s", d[i].name);
        cr_assert_eq(t[strlen(t) - 1], '.', "%s", d[i].name);
        bool hist = d[i].kind == WEFT_METRIC_HIST;
        cr_assert(hist == (d[i].buckets != 0) && hist == (d[i].bounds != NULL), "%s", d[i].name);
        cr_assert(d[i].buckets <= WEFT_METRIC_BUCKETS);
        for (uint32_t k = 0; k < d[i].buckets; k++)
            cr_assert(d[i].bounds[k] < d[i].bounds[k + 1], "%s: bound %u", d[i].name, k);
    }
}

/* Buckets as in Go: 0 to 256 ns in steps of 64, then each power of two in four; one class of size after the other. */
Test(metrics_names, shapes_of_histograms)
{
    const weft_metric_desc *t = find("/sched/latencies:seconds"), *s = find("/gc/heap/allocs-by-size:bytes");
    static const int64_t first[] = { 0, 64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280 };
    cr_assert_eq(t->buckets, 162);
    cr_assert(isinf(t->bounds[0]) && t->bounds[0] < 0 && isinf(t->bounds[162]));
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        cr_assert_eq(t->bounds[1 + i], (double)first[i] / 1e9, "%zu: %.10g", i, t->bounds[1 + i]);
    cr_assert_eq(t->bounds[161], 140737.488355328);
    cr_assert_eq(s->buckets, 68);
    cr_assert_eq(s->bounds[0], 1);
    cr_assert_eq(s->bounds[1], 17, "what fits into 16 bytes");
    cr_assert_eq(s->bounds[2], 25);
    cr_assert_eq(s->bounds[67], 32769);
    cr_assert(isinf(s->bounds[68]));
    cr_assert_eq(find("/gc/heap/frees-by-size:bytes")->bounds, s->bounds);
    cr_assert_eq(find("/gc/pauses:seconds")->bounds, t->bounds);
}

/* ---- samples ------------------------------------------------------------------------------------------------------- */

Test(metrics_names, no_samples_no_work)
{
    cr_assert_eq(weft_metrics_read(NULL, 0), 0);
    weft_metric m = { .name = "/gc/cycles/total:gc-cycles" };
    cr_assert_eq(weft_metrics_read(&m, 0), 0);
    cr_assert_eq(weft_metrics_read(NULL, 1), -EINVAL);
    cr_assert_eq(weft_metrics_read(&m, 1), -ESRCH);
    cr_assert(weft_metrics_all(NULL) > 60, "the list needs no runtime");
}

static void unknown_names(void *arg)
{
    (void)arg;
    static const char *const bad[] = { "", "/", "/sched", "/sched/goroutines", "/sched/goroutines:", "/zzz:z", "/sched/goroutines:goroutines ", NULL };
    enum { N = sizeof bad / sizeof *bad };
    weft_metric m[N + 1];
    memset(m, 0xee, sizeof m);
    for (int i = 0; i < N; i++) {
        m[i].name = bad[i];
        m[i].room = 0;
    }
    m[N].name = "/sched/gomaxprocs:threads";
    cr_assert_eq(weft_metrics_read(m, N + 1), 0);
    for (int i = 0; i < N; i++)
        cr_assert_eq(m[i].kind, WEFT_METRIC_BAD, "%s", bad[i]);
    cr_assert_eq(m[N].kind, WEFT_METRIC_U64, "others are not disturbed");
    cr_assert_eq(m[N].u64, 3);
}

Test(metrics_names, an_unknown_name_is_bad_and_no_error) { test_run_procs(3, unknown_names, NULL); }

/* A sample may be used for one name after the other, also when the text changes in its place. */
static void names_change(void *arg)
{
    (void)arg;
    char text[80] = "/sched/gomaxprocs:threads";
    weft_metric m = { .name = text };
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(m.u64, 3);
    cr_assert_neq(m.name, text);
    cr_assert_str_eq(m.name, text);
    m.name = text;
    strcpy(text, "/gc/gogc:percent");
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(m.u64, 100);
    m.name = "/sync/mutex/wait/total:seconds";
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(m.kind, WEFT_METRIC_F64);
    m.name = "/none:such";
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(m.kind, WEFT_METRIC_BAD);
}

Test(metrics_names, a_sample_may_change_its_name)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 3;
    cfg.gc_percent = 100;
    test_run_config(&cfg, names_change, NULL);
}

static void room(void *arg)
{
    (void)arg;
    uint64_t counts[WEFT_METRIC_BUCKETS];
    weft_metric m = { .name = "/gc/heap/allocs-by-size:bytes" };
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(m.kind, WEFT_METRIC_HIST);
    cr_assert_eq(m.buckets, 68);
    cr_assert_eq(m.bounds, find(m.name)->bounds);
    memset(counts, 0x77, sizeof counts);
    m.counts = counts;
    m.room = 67;
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert_eq(counts[0], UINT64_C(0x7777777777777777), "not enough room: nothing is written");
    m.room = 68;
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
    cr_assert(counts[0] < 1000000 && counts[67] < 1000000);
    cr_assert_eq(counts[68], UINT64_C(0x7777777777777777));
}

Test(metrics_names, a_histogram_takes_no_more_room_than_it_was_given) { test_run_procs(1, room, NULL); }
