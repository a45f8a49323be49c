/* /metrics: what weft_metrics_read says, in the forms that Prometheus scrapes: its text format (0.0.4) and, for who prefers it in Accept, OpenMetrics
 * 1.0.0.
 *
 * Names follow Prometheus' conventions: base units, _total for counters, one metric with a label where Go's runtime/metrics has several names:
 *
 *     weft_memory_bytes{class="heap/free"}, weft_cpu_seconds_total{class="gc/pause"}, weft_fibers{state="waiting"}, weft_stopped_seconds{reason="gc"}
 *
 * The table says for each metric of weft's what becomes of it; of a metric that is not in the table a name is made by a rule, so nothing is ever
 * missing (and tests/serve_metrics.c sees to it that the table has them all). Sums of others in the table are left out: a query adds them up.
 *
 * Histograms have fewer bounds than weft's: every fourth of times, which is a factor of two, from a microsecond to 17 seconds; powers of two of
 * sizes. A count moves to the next bound above. The sums are exact where weft keeps them; else (waits for a processor) by the middles of its narrower
 * buckets.
 *
 * With ?go=1 there are beside these the names under which client_golang exports Go's runtime: go_goroutines, go_memstats_..., and those made from
 * runtime/metrics (go_sched_latencies_seconds, ...), for dashboards that know them. Not by default: it is twice as much, and not a Go process.
 *
 * To add a metric to weft: a line here. Prometheus' defaults (path /metrics) fit, as do those of its descendants:
 *
 *     # prometheus.yml (with a token: authorization.credentials)       # config.alloy
 *     scrape_configs:                                                  prometheus.scrape "weft" {
 *       - job_name: weft                                                 targets    = [{"__address__" = "127.0.0.1:6060"}]
 *         static_configs:                                                forward_to = [...]
 *           - targets: ["127.0.0.1:6060"]                              }
 *                                                                      pyroscope.scrape "weft" { // the profiles, by its default paths:
 *     # parca.yaml: the profiles, by its default paths                   targets = [{"__address__" = "127.0.0.1:6060", "service_name" = "weft"}]
 *     scrape_configs:                                                    forward_to = [...]
 *       - job_name: weft                                               }
 *         static_configs:
 *           - targets: ["127.0.0.1:6060"] */
#include "debug/serve/metrics.h"
#include "debug/serve/api.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <weft/debug.h>
#include <weft/mem.h>
#include <weft/metrics.h>

enum shape { GAUGE, COUNTER, HISTOGRAM, LEFT_OUT };

/* One line per metric of weft's; those of one family follow each other. help NULL: the description of the (first) metric. */
static const struct family {
    const char *metric;  /* of weft; a '*' at the end stands for what becomes the label's value */
    const char *name;    /* without _total */
    enum shape shape;
    const char *unit;    /* NULL: it is a count */
    const char *label, *value;
    const char *help;
    double factor;       /* 0: 1 */
} families[] = {
    { "/sched/goroutines/running:goroutines", "weft_fibers", GAUGE, NULL, "state", "running",
      "Fibers by what they are doing, the runtime's own included.", 0 },
    { "/sched/goroutines/runnable:goroutines", "weft_fibers", GAUGE, NULL, "state", "runnable", NULL, 0 },
    { "/sched/goroutines/waiting:goroutines", "weft_fibers", GAUGE, NULL, "state", "waiting", NULL, 0 },
    { "/sched/goroutines/not-in-go:goroutines", "weft_fibers", GAUGE, NULL, "state", "blocking", NULL, 0 },
    { "/sched/goroutines:goroutines", "weft_fibers_alive", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/sched/goroutines-created:goroutines", "weft_fibers_created", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/io/waiting:fibers", "weft_fibers_waiting_for_io", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/weft/io/descriptors:descriptors", "weft_descriptors", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/sched/gomaxprocs:threads", "weft_processors", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/sched/threads/total:threads", "weft_threads", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/weft/sched/threads/created:threads", "weft_threads_created", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/sched/threads/ended:threads", "weft_threads_ended", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/sched/hand-offs:processors", "weft_hand_offs", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/sched/latencies:seconds", "weft_sched_latency_seconds", HISTOGRAM, "seconds", NULL, NULL, NULL, 0 },
    { "/sync/mutex/wait/total:seconds", "weft_mutex_wait_seconds", COUNTER, "seconds", NULL, NULL, NULL, 0 },
    { "/weft/sync/runtime-locks/wait/total:seconds", "weft_runtime_lock_wait_seconds", COUNTER, "seconds", NULL, NULL, NULL, 0 },

    { "/sched/pauses/stopping/gc:seconds", "weft_stopping_seconds", HISTOGRAM, "seconds", "reason", "gc",
      "Stops of the world by reason: from deciding to stop until all stood still.", 0 },
    { "/weft/sched/pauses/stopping/*:seconds", "weft_stopping_seconds", HISTOGRAM, "seconds", "reason", "*", NULL, 0 },
    { "/sched/pauses/total/gc:seconds", "weft_stopped_seconds", HISTOGRAM, "seconds", "reason", "gc",
      "Stops of the world by reason: from deciding to stop until all ran again.", 0 },
    { "/weft/sched/pauses/total/*:seconds", "weft_stopped_seconds", HISTOGRAM, "seconds", "reason", "*", NULL, 0 },
    { "/sched/pauses/stopping/other:seconds", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/sched/pauses/total/other:seconds", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/gc/pauses:seconds", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },

    { "/gc/cycles/automatic:gc-cycles", "weft_gc_cycles", COUNTER, NULL, "kind", "automatic", "Finished collections.", 0 },
    { "/gc/cycles/forced:gc-cycles", "weft_gc_cycles", COUNTER, NULL, "kind", "forced", NULL, 0 },
    { "/gc/cycles/total:gc-cycles", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/gc/gogc:percent", "weft_gc_growth_ratio", GAUGE, "ratio", NULL, NULL, "The heap's growth at which a collection is due; +Inf: off.", 0.01 },
    { "/gc/gomemlimit:bytes", "weft_memory_limit_bytes", GAUGE, "bytes", NULL, NULL, "The memory limit; +Inf: none.", 0 },
    { "/gc/heap/goal:bytes", "weft_heap_goal_bytes", GAUGE, "bytes", NULL, NULL, "Heap size at which the next collection is due; +Inf: off.", 0 },
    { "/gc/heap/live:bytes", "weft_heap_live_bytes", GAUGE, "bytes", NULL, NULL, NULL, 0 },
    { "/gc/heap/objects:objects", "weft_heap_objects", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/gc/heap/allocs:bytes", "weft_heap_allocated_bytes", COUNTER, "bytes", NULL, NULL, NULL, 0 },
    { "/gc/heap/allocs:objects", "weft_heap_allocated_objects", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/gc/heap/frees:bytes", "weft_heap_freed_bytes", COUNTER, "bytes", NULL, NULL, NULL, 0 },
    { "/gc/heap/frees:objects", "weft_heap_freed_objects", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/gc/heap/allocs-by-size:bytes", "weft_heap_allocated_size_bytes", HISTOGRAM, "bytes", NULL, NULL, "Objects allocated, by size.", 0 },
    { "/gc/heap/frees-by-size:bytes", "weft_heap_freed_size_bytes", HISTOGRAM, "bytes", NULL, NULL, "Objects freed by the sweeper, by size.", 0 },
    { "/gc/heap/tiny/allocs:objects", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/gc/finalizers/queued:finalizers", "weft_finalizers_queued", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/gc/finalizers/executed:finalizers", "weft_finalizers_executed", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/gc/cleanups/queued:cleanups", "weft_cleanups_queued", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/gc/cleanups/executed:cleanups", "weft_cleanups_executed", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/gc/limiter/last-enabled:gc-cycle", "weft_gc_limiter_last_cycle", GAUGE, NULL, NULL, NULL, NULL, 0 },
    { "/gc/scan/total:bytes", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/gc/scan/*:bytes", "weft_gc_scan_bytes", GAUGE, "bytes", "kind", "*", "What the last collection had to look through.", 0 },
    { "/weft/gc/beside/cycles:gc-cycles", "weft_gc_cycles_beside", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/gc/beside/given-up:gc-cycles", "weft_gc_cycles_given_up", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/gc/beside/left:pages", "weft_gc_pages_left_to_stop", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/gc/beside/rounds:rounds", "weft_gc_rounds", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/gc/beside/stacks:bytes", "weft_gc_stopped_stack_bytes", COUNTER, "bytes", NULL, NULL, NULL, 0 },
    { "/weft/gc/beside/written:pages", "weft_gc_pages_written", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/gc/scanned/stacks:bytes", "weft_gc_scanned_stack_bytes", COUNTER, "bytes", NULL, NULL, NULL, 0 },
    { "/gc/stack/starting-size:bytes", "weft_stack_size_bytes", GAUGE, "bytes", NULL, NULL, NULL, 0 },

    { "/cpu/classes/gc/total:cpu-seconds", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/cpu/classes/scavenge/total:cpu-seconds", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/cpu/classes/total:cpu-seconds", NULL, LEFT_OUT, NULL, NULL, NULL, NULL, 0 },
    { "/cpu/classes/*:cpu-seconds", "weft_cpu_seconds", COUNTER, "seconds", "class", "*",
      "The processors' time by what it went to, as of the end of the last collection; together, the number of processors over time.", 0 },
    { "/weft/cpu/throttled/periods:periods", "weft_cpu_throttled_periods", COUNTER, NULL, NULL, NULL, NULL, 0 },
    { "/weft/cpu/throttled/time:cpu-seconds", "weft_cpu_throttled_seconds", COUNTER, "seconds", NULL, NULL, NULL, 0 },

    { "/memory/classes/total:bytes", "weft_memory_mapped_bytes", GAUGE, "bytes", NULL, NULL,
      "All that the runtime has mapped: the sum of weft_memory_bytes.", 0 },
    { "/memory/classes/*:bytes", "weft_memory_bytes", GAUGE, "bytes", "class", "*", "What the runtime has mapped, by what it is for.", 0 },
    { "/weft/memory/off-heap/*:bytes", "weft_off_heap_bytes", GAUGE, "bytes", "purpose", "*",
      "What the runtime itself has in use outside of the heap.", 0 },
    { "/weft/doctor/findings/*:findings", "weft_doctor_findings", COUNTER, NULL, "code", "*",
      "How often the doctor has seen each kind of misuse since the start of the runtime.", 0 },
};
#define FAMILIES (sizeof families / sizeof families[0])

#define TIME_LEAST_LOG2 10 /* of nanoseconds, the first bound; the last, and how much each is more than the one before */
#define TIME_MOST_LOG2 34

struct out {
    struct buf *t;
    bool openmetrics;
    const weft_metric_desc *desc;
    weft_metric *m;
    size_t n;
    bool *told;              /* by metric: it has been written, or left out */
    uint64_t *counts;
};

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

static void escaped(struct buf *t, const char *s, bool quotes)
{
    for (; *s != 0; s++)
        if (*s == '\\' || (quotes && *s == '"'))
            buf_printf(t, "\\%c", *s);
        else if (*s == '\n')
            buf_puts(t, "\\n");
        else
            buf_add(t, s, 1);
}

/* Also: written without an exponent. (No call of libm: who links with the library may have none.) */
static bool is_whole(double v) { return v > -1e15 && v < 1e15 && v == (double)(int64_t)v; }

/* As short as it can be written and read back. */
static void number(struct buf *t, double v)
{
    char s[40];
    if (isnan(v) || isinf(v)) {
        buf_puts(t, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
        return;
    }
    if (is_whole(v)) {
        buf_printf(t, "%.0f", v);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (strtod(s, NULL) == v)
            break;
    }
    buf_puts(t, s);
}

static void head(struct out *o, const char *name, enum shape shape, const char *unit, const char *help)
{
    static const char *const types[] = { [GAUGE] = "gauge", [COUNTER] = "counter", [HISTOGRAM] = "histogram" };
    const char *tail = shape == COUNTER && !o->openmetrics ? "_total" : "";
    buf_printf(o->t, "# HELP %s%s ", name, tail);
    escaped(o->t, help, o->openmetrics);
    buf_printf(o->t, "\n# TYPE %s%s %s\n", name, tail, types[shape]);
    if (unit != NULL && o->openmetrics)
        buf_printf(o->t, "# UNIT %s %s\n", name, unit);
}

static void line(struct buf *t, const char *name, const char *tail, const char *label, const char *value, size_t value_n, double v)
{
    char text[128];
    buf_printf(t, "%s%s", name, tail);
    if (label != NULL) {
        snprintf(text, sizeof text, "%.*s", (int)value_n, value);
        buf_printf(t, "{%s=\"", label);
        escaped(t, text, true);
        buf_puts(t, "\"}");
    }
    buf_puts(t, " ");
    number(t, v);
    buf_puts(t, "\n");
}

/* What OpenMetrics calls info is a gauge of 1 to others. */
static void info(struct out *o, const char *name, const char *help, const char *before)
{
    const char *tail = o->openmetrics ? "" : "_info";
    buf_printf(o->t, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, tail, help, name, tail, o->openmetrics ? "info" : "gauge");
    buf_printf(o->t, "%s_info{version=\"%s%s\"} 1\n", name, before, weft_version());
}

/* ---- histograms ------------------------------------------------------------------------------------------------------- */

static bool is_time(const weft_metric_desc *d) { return strstr(d->name, ":seconds") != NULL; }

/* What is told of the bounds of weft's. */
static double bound(const weft_metric_desc *d, unsigned i)
{
    return is_time(d) ? (double)(UINT64_C(1) << (TIME_LEAST_LOG2 + i)) / 1e9 : (double)(16u << i);
}
static unsigned bounds(const weft_metric_desc *d) { return is_time(d) ? TIME_MOST_LOG2 - TIME_LEAST_LOG2 + 1 : 12; }

static double u64_of(const struct out *o, const char *name)
{
    for (size_t i = 0; i < o->n; i++)
        if (strcmp(o->desc[i].name, name) == 0)
            return o->m[i].kind == WEFT_METRIC_U64 ? (double)o->m[i].u64 : NAN;
    return NAN;
}

/* Exact where weft keeps it: of stops, their lengths; of sizes, the bytes. */
static double sum_of(const struct out *o, size_t i)
{
    static const struct { const char *path; int reason; } stops[] = {
        { "/gc", WEFT_STOP_GC }, { "/dump", WEFT_STOP_DUMP }, { "/end", WEFT_STOP_END }, { "/fork", WEFT_STOP_FORK },
        { "/maxprocs", WEFT_STOP_MAXPROCS }, { "/mem-stats", WEFT_STOP_MEM_STATS }, { "/trace", WEFT_STOP_TRACE },
    };
    const weft_metric_desc *d = &o->desc[i];
    const char *pause = strstr(d->name, "/pauses/"), *colon = strchr(d->name, ':');
    weft_stop_stats s;
    for (size_t k = 0; pause != NULL && k < sizeof stops / sizeof stops[0]; k++) {
        size_t n = strlen(stops[k].path);
        if (strncmp(colon - n, stops[k].path, n) == 0 && weft_read_stop_stats(stops[k].reason, &s) == 0)
            return (double)(strncmp(pause, "/pauses/stopping", 16) == 0 ? s.stopping_total_ns : s.stopped_total_ns) / 1e9;
    }
    const char *bytes = strstr(d->name, "allocs-by-size") != NULL  ? "/gc/heap/allocs:bytes"
                        : strstr(d->name, "frees-by-size") != NULL ? "/gc/heap/frees:bytes" : NULL;
    if (bytes != NULL)
        return u64_of(o, bytes);
    double sum = 0;
    for (uint32_t k = 0; k < d->buckets; k++) {
        double lo = d->bounds[k], hi = d->bounds[k + 1];
        sum += (double)o->m[i].counts[k] * (isinf(lo) ? 0 : isinf(hi) ? lo : (lo + hi) / 2);
    }
    return sum;
}

static void bucket(struct buf *t, const char *name, const char *label, const char *value, size_t value_n, double le, uint64_t n)
{
    buf_printf(t, "%s_bucket{", name);
    if (label != NULL)
        buf_printf(t, "%s=\"%.*s\",", label, (int)value_n, value);
    buf_puts(t, "le=\"");
    number(t, le);
    buf_printf(t, "%s\"} %" PRIu64 "\n", is_whole(le) ? ".0" : "", n); /* OpenMetrics wants a point */
}

static void histogram(struct out *o, const char *name, size_t i, const char *label, const char *value, size_t value_n)
{
    const weft_metric_desc *d = &o->desc[i];
    const uint64_t *counts = o->m[i].counts;
    uint64_t upto = 0;
    uint32_t k = 0;
    double slack = is_time(d) ? 0 : 1; /* size classes end below the bound */
    for (unsigned b = 0; b < bounds(d); b++) {
        for (; k < d->buckets && d->bounds[k + 1] - slack <= bound(d, b) * (1 + 1e-9); k++)
            upto += counts[k];
        bucket(o->t, name, label, value, value_n, bound(d, b), upto);
    }
    for (; k < d->buckets; k++)
        upto += counts[k];
    bucket(o->t, name, label, value, value_n, INFINITY, upto);
    line(o->t, name, "_sum", label, value, value_n, sum_of(o, i));
    line(o->t, name, "_count", label, value, value_n, (double)upto);
}

/* ---- metrics of weft's ------------------------------------------------------------------------------------------------- */

/* Whether a line of the table is for that metric; what the '*' stands for. */
static bool matches(const char *pattern, const char *name, const char **star, size_t *n)
{
    const char *at = strchr(pattern, '*');
    if (at == NULL)
        return strcmp(pattern, name) == 0;
    size_t before = (size_t)(at - pattern), after = strlen(at + 1), all = strlen(name);
    *star = name + before;
    *n = all - before - after;
    return all > before + after && strncmp(pattern, name, before) == 0 && strcmp(name + all - after, at + 1) == 0;
}

/* 2^63-1 and above stand for "none" in limits. */
static double value_of(const weft_metric *m, double factor)
{
    if (m->kind == WEFT_METRIC_F64)
        return m->f64 * (factor != 0 ? factor : 1);
    return m->u64 >= INT64_MAX ? INFINITY : (double)m->u64 * (factor != 0 ? factor : 1);
}

static void sample(struct out *o, const struct family *f, size_t i, const char *value, size_t value_n)
{
    char code[32];
    if (f->label != NULL && strcmp(f->label, "code") == 0) { /* as everybody writes it: W06 */
        snprintf(code, sizeof code, "W%.*s", (int)value_n - 1, value + 1);
        value = code;
        value_n = strlen(code);
    }
    if (f->shape == HISTOGRAM)
        histogram(o, f->name, i, f->label, value, value_n);
    else
        line(o->t, f->name, f->shape == COUNTER ? "_total" : "", f->label, value, value_n, value_of(&o->m[i], f->factor));
}

static void by_table(struct out *o)
{
    const char *family = NULL;
    for (size_t k = 0; k < FAMILIES; k++)
        for (size_t i = 0; i < o->n; i++) {
            const struct family *f = &families[k];
            const char *value = f->value;
            size_t value_n = value != NULL ? strlen(value) : 0;
            if (o->told[i] || !matches(f->metric, o->desc[i].name, &value, &value_n))
                continue;
            o->told[i] = true;
            if (f->shape == LEFT_OUT)
                continue;
            if (family == NULL || strcmp(family, f->name) != 0)
                head(o, f->name, f->shape, f->unit, f->help != NULL ? f->help : o->desc[i].description);
            family = f->name;
            sample(o, f, i, value, value_n);
        }
}

/* "/gc/heap/allocs:bytes" with prefix "go_" becomes go_gc_heap_allocs_bytes, as client_golang does it. */
static const char *made_name(const char *metric, const char *prefix, char *to, size_t room)
{
    size_t n = (size_t)snprintf(to, room, "%s", prefix);
    for (const char *s = metric + 1; *s != 0 && n + 1 < room; s++)
        to[n++] = (*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') ? *s : '_';
    to[n] = 0;
    return to;
}

static void by_rule(struct out *o, const char *prefix, bool weft_only)
{
    for (size_t i = 0; i < o->n; i++) {
        const weft_metric_desc *d = &o->desc[i];
        char name[128];
        bool own = strncmp(d->name, "/weft/", 6) == 0;
        if (weft_only ? o->told[i] : own)
            continue;
        made_name(own ? d->name + 5 : d->name, prefix, name, sizeof name);
        enum shape shape = d->kind == WEFT_METRIC_HIST ? HISTOGRAM : d->cumulative ? COUNTER : GAUGE;
        const char *unit = strstr(d->name, ":bytes") != NULL ? "bytes" : strstr(d->name, "seconds") != NULL ? "seconds" : NULL;
        head(o, name, shape, unit, d->description);
        if (shape == HISTOGRAM)
            histogram(o, name, i, NULL, NULL, 0);
        else
            line(o->t, name, shape == COUNTER ? "_total" : "", NULL, NULL, 0, value_of(&o->m[i], 0));
    }
}

/* ---- the process's ------------------------------------------------------------------------------------------------------ */

/* Since Linux 6.2 the size of the folder. */
static double open_fds(void)
{
    struct stat st;
    double n = 0;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return (double)st.st_size;
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL)
        return NAN;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(d);
    return n - 1; /* its own */
}

static bool read_file(const char *path, char *buf, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, room - 1) : -1;
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Fields of /proc/self/stat, numbered as in proc(5). */
static double stat_field(const char *stat, int field)
{
    const char *at = strrchr(stat, ')');
    for (int i = 2; at != NULL && i < field; i++)
        at = strchr(at + 1, ' ');
    return at != NULL ? (double)strtoull(at, NULL, 10) : NAN;
}

static double boot_time(void)
{
    char buf[32768], *at = NULL; /* btime stands below a line per interrupt */
    int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NAN;
    size_t have = 0;
    for (ssize_t n; at == NULL && (n = read(fd, buf + have, sizeof buf - 1 - have)) > 0;) {
        have += (size_t)n;
        buf[have] = 0;
        at = strstr(buf, "\nbtime ");
        if (at == NULL && have > sizeof buf / 2) { /* keep the end: it may be the beginning of that line */
            memmove(buf, buf + have - 64, 64);
            have = 64;
        }
    }
    close(fd);
    return at != NULL ? (double)strtoull(at + 7, NULL, 10) : NAN;
}

static void one(struct out *o, const char *name, enum shape shape, const char *unit, const char *help, double v)
{
    if (isnan(v))
        return;
    head(o, name, shape, unit, help);
    line(o->t, name, shape == COUNTER ? "_total" : "", NULL, NULL, 0, v);
}

static double limit(int which)
{
    struct rlimit l;
    return getrlimit(which, &l) != 0 ? NAN : l.rlim_cur == RLIM_INFINITY ? INFINITY : (double)l.rlim_cur;
}

static void process(struct out *o)
{
    char stat[2048];
    struct timespec cpu;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0)
        one(o, "process_cpu_seconds", COUNTER, "seconds", "CPU time of the process, user and system.",
            (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
    one(o, "process_open_fds", GAUGE, NULL, "Open descriptors.", open_fds());
    one(o, "process_max_fds", GAUGE, NULL, "How many may be open.", limit(RLIMIT_NOFILE));
    one(o, "process_virtual_memory_max_bytes", GAUGE, "bytes", "How much address space the process may have.", limit(RLIMIT_AS));
    if (!read_file("/proc/self/stat", stat, sizeof stat))
        return;
    one(o, "process_virtual_memory_bytes", GAUGE, "bytes", "Address space.", stat_field(stat, 23));
    one(o, "process_resident_memory_bytes", GAUGE, "bytes", "Resident memory: /debug/memory explains it.",
        stat_field(stat, 24) * (double)sysconf(_SC_PAGESIZE));
    one(o, "process_threads", GAUGE, NULL, "Threads, the host's included.", stat_field(stat, 20));
    one(o, "process_start_time_seconds", GAUGE, "seconds", "When it was started, since 1970.",
        boot_time() + stat_field(stat, 22) / (double)sysconf(_SC_CLK_TCK));
}

/* ---- Go's names ----------------------------------------------------------------------------------------------------------- */

/* Those of client_golang's collector of Go's runtime that have been there for ever, as sums of weft's metrics. */
static const struct { const char *name; enum shape shape; const char *unit, *help, *of[8]; } go_names[] = {
    { "go_goroutines", GAUGE, NULL, "Fibers.", { "/sched/goroutines:goroutines" } },
    { "go_threads", GAUGE, NULL, "Threads of the runtime.", { "/sched/threads/total:threads" } },
    { "go_memstats_alloc_bytes", GAUGE, "bytes", "Bytes in objects.", { "/memory/classes/heap/objects:bytes" } },
    { "go_memstats_heap_alloc_bytes", GAUGE, "bytes", "Bytes in objects.", { "/memory/classes/heap/objects:bytes" } },
    { "go_memstats_mallocs", COUNTER, NULL, "Objects allocated.", { "/gc/heap/allocs:objects" } },
    { "go_memstats_frees", COUNTER, NULL, "Objects freed.", { "/gc/heap/frees:objects" } },
    { "go_memstats_heap_objects", GAUGE, NULL, "Objects.", { "/gc/heap/objects:objects" } },
    { "go_memstats_heap_inuse_bytes", GAUGE, "bytes", "Bytes in spans.",
      { "/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes" } },
    { "go_memstats_heap_idle_bytes", GAUGE, "bytes", "Bytes in free pages.",
      { "/memory/classes/heap/free:bytes", "/memory/classes/heap/released:bytes" } },
    { "go_memstats_heap_released_bytes", GAUGE, "bytes", "Bytes given back to the system.", { "/memory/classes/heap/released:bytes" } },
    { "go_memstats_heap_sys_bytes", GAUGE, "bytes", "Bytes of the heap.",
      { "/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/heap/free:bytes",
        "/memory/classes/heap/released:bytes" } },
    { "go_memstats_stack_inuse_bytes", GAUGE, "bytes", "Bytes in stacks of fibers.", { "/memory/classes/heap/stacks:bytes" } },
    { "go_memstats_stack_sys_bytes", GAUGE, "bytes", "Bytes in stacks.", { "/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes" } },
    { "go_memstats_sys_bytes", GAUGE, "bytes", "Bytes from the system.", { "/memory/classes/total:bytes" } },
    { "go_memstats_next_gc_bytes", GAUGE, "bytes", "Heap size at which the next collection is due.", { "/gc/heap/goal:bytes" } },
};

static void go(struct out *o)
{
    info(o, "go", "A runtime with Go's names.", "weft ");
    for (size_t i = 0; i < sizeof go_names / sizeof go_names[0]; i++) {
        double v = 0;
        for (const char *const *of = go_names[i].of; *of != NULL; of++)
            v += u64_of(o, *of);
        one(o, go_names[i].name, go_names[i].shape, go_names[i].unit, go_names[i].help, v);
    }
    by_rule(o, "go_", false);
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------- */

static int collect(struct out *o)
{
    size_t hists = 0;
    for (size_t i = 0; i < o->n; i++) {
        o->m[i].name = o->desc[i].name;
        if (o->desc[i].kind != WEFT_METRIC_HIST)
            continue;
        o->m[i].counts = o->counts + hists++ * WEFT_METRIC_BUCKETS;
        o->m[i].room = WEFT_METRIC_BUCKETS;
    }
    return weft_metrics_read(o->m, o->n);
}

static void make(struct out *o, bool with_go)
{
    info(o, "weft_build", "The library.", "");
    by_table(o);
    by_rule(o, "weft_", true);
    process(o);
    if (with_go)
        go(o);
    if (o->openmetrics)
        buf_puts(o->t, "# EOF\n");
}

int metrics_make(struct buf *t, bool openmetrics, bool with_go)
{
    struct out o = { .t = t, .openmetrics = openmetrics };
    size_t hists = 0;
    o.n = weft_metrics_all(&o.desc);
    for (size_t i = 0; i < o.n; i++)
        hists += o.desc[i].kind == WEFT_METRIC_HIST;
    o.m = calloc(o.n, sizeof *o.m);
    o.told = calloc(o.n, sizeof *o.told);
    o.counts = calloc(hists + 1, WEFT_METRIC_BUCKETS * sizeof *o.counts);
    locale_t c = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0); /* the program's may write a comma for the point */
    int err = o.m == NULL || o.told == NULL || o.counts == NULL || c == (locale_t)0 ? -ENOMEM : collect(&o);
    if (err == 0) {
        locale_t was = uselocale(c);
        make(&o, with_go);
        uselocale(was);
    }
    if (c != (locale_t)0)
        freelocale(c);
    free(o.m);
    free(o.told);
    free(o.counts);
    return err != 0 ? err : t->failed ? -ENOMEM : 0;
}

int metrics_answer(struct request *r)
{
    struct buf t = { 0 };
    bool openmetrics = accept_prefers(request_header(r, "Accept"), "application/openmetrics-text", "text/plain");
    int err = metrics_make(&t, openmetrics, request_query(r, "go")[0] == '1');
    if (err == 0) {
        request_type(r, openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8" : "text/plain; version=0.0.4; charset=utf-8");
        request_set_header(r, "Cache-Control", "no-store");
        request_set_header(r, "Vary", "Accept");
        err = request_write(r, t.at, t.n);
    }
    buf_free(&t);
    return err;
}
