/* /metrics: both of its forms are what they say, by a reader of our own that takes nothing else, and true. */
#include "serve_test.h"
#include "metrics_test.h"
#include "debug/serve/api.h"
#include "debug/serve/metrics.h"
#include <locale.h>
#include <math.h>
#include <weft/debug.h>
#include <weft/mem.h>

/* ---- a reader of both forms -------------------------------------------------------------------------------------------- */

struct family { char name[128], type[16], unit[16]; bool help; };
struct series { char name[128], labels[256]; double value; unsigned family; };
struct exposed { bool open; struct family family[512]; unsigned families; struct series series[4096]; unsigned n; };

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || s[i] == '_' || (i > 0 && s[i] >= '0' && s[i] <= '9')))
            return false;
    return n > 0;
}

static void read_comment(struct exposed *e, const char *line)
{
    char what[8], name[128], rest[400];
    cr_assert_eq(sscanf(line, "# %7s %127s %399[^\n]", what, name, rest), 3, "%s", line);
    cr_assert(is_name(name, strlen(name)), "%s", line);
    struct family *f = e->families > 0 ? &e->family[e->families - 1] : NULL;
    if (f == NULL || strcmp(f->name, name) != 0) {
        for (unsigned i = 0; i < e->families; i++)
            cr_assert_str_neq(e->family[i].name, name, "%s comes twice", name);
        cr_assert(e->families < 512);
        f = &e->family[e->families++];
        snprintf(f->name, sizeof f->name, "%s", name);
    }
    if (strcmp(what, "HELP") == 0) {
        cr_assert(!f->help, "%s", line);
        f->help = true;
    } else if (strcmp(what, "TYPE") == 0) {
        cr_assert(f->type[0] == 0, "%s", line);
        snprintf(f->type, sizeof f->type, "%.15s", rest);
    } else {
        cr_assert(e->open && strcmp(what, "UNIT") == 0, "%s", line);
        snprintf(f->unit, sizeof f->unit, "%.15s", rest);
        size_t n = strlen(f->name), u = strlen(rest);
        cr_assert(n > u + 1 && f->name[n - u - 1] == '_' && strcmp(f->name + n - u, rest) == 0, "the unit ends the name: %s", line);
    }
}

/* The suffix that a sample may have beyond the name of its family. */
static bool suffix_is_right(const struct exposed *e, const struct family *f, const char *suffix)
{
    if (strcmp(f->type, "counter") == 0)
        return e->open ? strcmp(suffix, "_total") == 0 : suffix[0] == 0 && strcmp(f->name + strlen(f->name) - 6, "_total") == 0;
    if (strcmp(f->type, "histogram") == 0)
        return strcmp(suffix, "_bucket") == 0 || strcmp(suffix, "_sum") == 0 || strcmp(suffix, "_count") == 0;
    if (strcmp(f->type, "info") == 0)
        return e->open && strcmp(suffix, "_info") == 0;
    cr_assert_str_eq(f->type, "gauge");
    return suffix[0] == 0 && (strlen(f->name) < 6 || strcmp(f->name + strlen(f->name) - 6, "_total") != 0);
}

static void read_sample(struct exposed *e, const char *line)
{
    size_t n = strcspn(line, "{ ");
    cr_assert(is_name(line, n) && e->families > 0 && e->n < 4096, "%s", line);
    struct family *f = &e->family[e->families - 1];
    struct series *s = &e->series[e->n];
    snprintf(s->name, sizeof s->name, "%.*s", (int)n, line);
    cr_assert(strncmp(s->name, f->name, strlen(f->name)) == 0 && suffix_is_right(e, f, s->name + strlen(f->name)), "%s", line);
    cr_assert(f->help && f->type[0] != 0, "%s", line);
    const char *at = line + n;
    s->labels[0] = 0;
    if (*at == '{') {
        const char *from = ++at;
        do {
            size_t key = strcspn(at, "=");
            cr_assert(is_name(at, key) && at[key + 1] == '"', "%s", line);
            for (at += key + 2; *at != '"'; at++) {
                cr_assert(*at != 0 && *at != '\n', "%s", line);
                if (*at == '\\') {
                    at++;
                    cr_assert(*at == '\\' || *at == '"' || *at == 'n', "%s", line);
                }
            }
            at++;
        } while (*at == ',' && at++);
        cr_assert_eq(*at, '}', "%s", line);
        snprintf(s->labels, sizeof s->labels, "%.*s", (int)(at - from), from);
        at++;
    }
    cr_assert_eq(*at++, ' ', "%s", line);
    char *end;
    cr_assert(strncmp(at, "inf", 3) != 0 && strchr("+-.0123456789N", *at) != NULL, "%s", line);
    s->value = strtod(at, &end);
    cr_assert(end > at && *end == 0, "%s", line);
    s->family = e->families - 1;
    for (unsigned i = 0; i < e->n; i++)
        cr_assert(strcmp(e->series[i].name, s->name) != 0 || strcmp(e->series[i].labels, s->labels) != 0, "twice: %s", line);
    e->n++;
}

/* Buckets rise, and the last one is +Inf and the count. */
static void check_histograms(const struct exposed *e)
{
    double le = -1, upto = -1;
    for (unsigned i = 0; i < e->n; i++) {
        const struct series *s = &e->series[i];
        const char *at = strstr(s->labels, "le=\"");
        if (strcmp(e->family[s->family].type, "histogram") != 0 || at == NULL)
            continue;
        cr_assert_eq(at, strrchr(s->labels, ',') != NULL ? strrchr(s->labels, ',') + 1 : s->labels);
        double bound = strtod(at + 4, NULL);
        if (e->open)
            cr_assert(strpbrk(at + 4, ".eI") != NULL, "a float: %s", s->labels);
        cr_assert_gt(bound, le, "%s{%s}", s->name, s->labels);
        cr_assert_geq(s->value, upto, "%s{%s}", s->name, s->labels);
        le = bound, upto = s->value;
        if (!isinf(bound))
            continue;
        cr_assert(strstr(s[1].name, "_sum") != NULL && strstr(s[2].name, "_count") != NULL && s[2].value == s->value);
        cr_assert(s->value != 0 || s[1].value == 0, "nothing happened, for so long: %s", s[1].name);
        le = upto = -1;
    }
}

static struct exposed *expose(const char *text, bool open)
{
    struct exposed *e = calloc(1, sizeof *e);
    bool over = false;
    e->open = open;
    size_t n = strlen(text);
    cr_assert(n > 0 && text[n - 1] == '\n');
    for (const char *at = text; *at != 0;) {
        char line[1024];
        size_t len = strcspn(at, "\n");
        cr_assert(len > 0 && len < sizeof line && !over, "%.80s", at);
        snprintf(line, sizeof line, "%.*s", (int)len, at);
        if (strcmp(line, "# EOF") == 0)
            over = true;
        else if (line[0] == '#')
            read_comment(e, line);
        else
            read_sample(e, line);
        at += len + 1;
    }
    cr_assert_eq(over, open);
    check_histograms(e);
    return e;
}

static struct exposed *metrics(bool open, bool go)
{
    struct buf t = { 0 };
    int err = metrics_make(&t, open, go);
    cr_assert_eq(err, 0, "%s", weft_strerror(err));
    buf_add(&t, "", 1);
    struct exposed *e = expose(t.at, open);
    buf_free(&t);
    return e;
}

static const struct series *series(const struct exposed *e, const char *name, const char *labels)
{
    for (unsigned i = 0; i < e->n; i++)
        if (strcmp(e->series[i].name, name) == 0 && strcmp(e->series[i].labels, labels) == 0)
            return &e->series[i];
    return NULL;
}

static double value(const struct exposed *e, const char *name, const char *labels)
{
    const struct series *s = series(e, name, labels);
    cr_assert_not_null(s, "%s{%s}", name, labels);
    return s->value;
}

/* ---- its forms --------------------------------------------------------------------------------------------------------------- */

static void both_forms(void *arg)
{
    (void)arg;
    static const char *const names[] = { "weft_fibers_alive", "weft_heap_goal_bytes", "process_resident_memory_bytes",
                                         "process_open_fds", "process_threads" };
    for (int open = 0; open < 2; open++)
        for (int go = 0; go < 2; go++) {
            struct exposed *e = metrics(open, go);
            for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
                cr_expect_not_null(series(e, names[i], ""), "%s", names[i]);
            cr_expect_not_null(series(e, "weft_build_info", "version=\"" WEFT_VERSION "\""));
            cr_expect_eq(series(e, "go_goroutines", "") != NULL, go);
            cr_expect_eq(series(e, "go_gc_heap_allocs_bytes_total", "") != NULL, go);
            for (unsigned i = 0; i < e->n; i++)
                cr_expect(go || strncmp(e->series[i].name, "go_", 3) != 0);
        }
}

Test(serve_metrics, both_forms_are_well_formed) { test_run_each(both_forms, NULL); }

/* What is made by rule is there for what was forgotten: so nothing should be. */
static void table(void *arg)
{
    (void)arg;
    struct buf t = { 0 };
    const weft_metric_desc *d;
    cr_assert_eq(metrics_make(&t, false, false), 0);
    buf_add(&t, "", 1);
    for (size_t i = 0, n = weft_metrics_all(&d); i < n; i++) {
        char made[160] = "# TYPE weft_";
        size_t k = strlen(made);
        for (const char *s = d[i].name + (strncmp(d[i].name, "/weft/", 6) == 0 ? 6 : 1); *s != 0; s++)
            made[k++] = (*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') ? *s : '_';
        made[k] = 0;
        const char *at = strstr(t.at, made);
        cr_expect(at == NULL || (at[k] != ' ' && strncmp(at + k, "_total", 6) != 0), "%s needs a line in src/debug/serve/metrics.c", d[i].name);
    }
    buf_free(&t);
}

Test(serve_metrics, the_table_knows_all_of_wefts_metrics) { test_run(table, NULL); }

static void with_commas(void *arg)
{
    (void)arg;
    struct buf t = { 0 };
    char half[8];
    snprintf(half, sizeof half, "%.1f", 0.5);
    cr_assert_str_eq(half, "0,5");
    cr_assert_eq(metrics_make(&t, false, false), 0);
    buf_add(&t, "", 1);
    setlocale(LC_NUMERIC, "C");
    expose(t.at, false);
    buf_free(&t);
}

Test(serve_metrics, numbers_have_a_point_in_any_locale)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "pt_BR.UTF-8" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (setlocale(LC_NUMERIC, names[i]) != NULL) {
            test_run(with_commas, NULL);
            return;
        }
    cr_skip_test("no locale with a comma is installed");
}

/* ---- the truth -------------------------------------------------------------------------------------------------------------- */

static void waiter(void *arg) { weft_chan_recv(arg, NULL); }

static void truth(void *arg)
{
    (void)arg;
    weft_mem_stats st = { .size = sizeof st };
    weft_gc(); /* the fibers that the runtime makes for a collection are there */
    struct exposed *was = metrics(false, true);
    weft_chan *gate = weft_chan_make(0, 0);
    for (int i = 0; i < 60; i++)
        cr_assert_eq(weft_go(waiter, gate), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(weft_read_mem_stats(&st), 0);
    for (int i = 0; i < 3; i++)
        weft_gc();
    static void *keep[64];
    for (int i = 0; i < 64; i++)
        keep[i] = weft_alloc(4096);
    weft_keep_alive(keep);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(weft_doctor_note(WEFT_W14, "for a test"), 0);
    test_until(value(metrics(false, false), "weft_fibers", "state=\"waiting\"") >= 60);
    struct exposed *e = metrics(false, true);
#define GREW(name, labels) (value(e, name, labels) - value(was, name, labels))
    cr_expect_eq(GREW("weft_fibers_alive", ""), 60);
    cr_expect_eq(GREW("weft_fibers_created_total", ""), 60);
    cr_expect_eq(GREW("go_goroutines", ""), 60);
    cr_expect_eq(GREW("weft_gc_cycles_total", "kind=\"forced\""), 3);
    cr_expect_eq(GREW("weft_heap_allocated_size_bytes_bucket", "le=\"4096.0\"") - GREW("weft_heap_allocated_size_bytes_bucket", "le=\"2048.0\""), 64);
    cr_expect_geq(GREW("weft_heap_allocated_bytes_total", ""), 64 * 4096);
    cr_expect_eq(GREW("weft_heap_allocated_size_bytes_sum", ""), GREW("weft_heap_allocated_bytes_total", ""));
    cr_expect_eq(value(e, "weft_heap_goal_bytes", ""), (double)metric_u64("/gc/heap/goal:bytes"));
    cr_expect(isinf(value(e, "weft_memory_limit_bytes", "")));
    cr_expect_eq(value(e, "weft_gc_growth_ratio", ""), 1);
    cr_expect_eq(value(e, "weft_processors", ""), weft_maxprocs(0));
    cr_expect_eq(value(e, "weft_doctor_findings_total", "code=\"W14\""), (double)weft_doctor_count(WEFT_W14));
    cr_expect_eq(value(e, "weft_doctor_findings_total", "code=\"W14\""), 2);
    cr_expect_eq(value(e, "weft_doctor_findings_total", "code=\"W03\""), 0);
    weft_stop_stats s;
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_MEM_STATS, &s), 0);
    cr_expect_eq(value(e, "weft_stopped_seconds_count", "reason=\"mem-stats\""), 5);
    cr_expect_eq(value(e, "weft_stopped_seconds_sum", "reason=\"mem-stats\""), (double)s.stopped_total_ns / 1e9);
    cr_expect_eq(value(e, "weft_stopping_seconds_sum", "reason=\"mem-stats\""), (double)s.stopping_total_ns / 1e9);
    cr_expect_eq(value(e, "weft_stopped_seconds_count", "reason=\"gc\""), value(e, "weft_gc_cycles_total", "kind=\"forced\"") +
                 value(e, "weft_gc_cycles_total", "kind=\"automatic\"") + (double)metric_beside());
    double sum = 0;
    for (unsigned i = 0; i < e->n; i++)
        if (strcmp(e->series[i].name, "weft_memory_bytes") == 0)
            sum += e->series[i].value;
    cr_expect_eq(sum, value(e, "weft_memory_mapped_bytes", ""));
    cr_expect_geq(value(e, "process_resident_memory_bytes", ""), 1 << 20);
    cr_expect_geq(value(e, "process_open_fds", ""), 3);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double age = (double)now.tv_sec - value(e, "process_start_time_seconds", "");
    cr_expect(test_is_emulated() || (age > -5 && age < 600), "%g", age);
    weft_chan_close(gate);
}

Test(serve_metrics, they_are_true) { test_run_each(truth, NULL); }

Test(serve_metrics, without_a_runtime)
{
    struct buf t = { 0 };
    cr_expect_eq(metrics_make(&t, false, false), -ESRCH);
}

/* ---- who wants what -------------------------------------------------------------------------------------------------------- */

Test(serve_metrics, accept_decides)
{
    static const struct { const char *accept; bool open; } cases[] = {
        { NULL, false }, { "", false }, { "*/*", false }, { "text/plain", false }, { "application/openmetrics-text", true },
        { "application/openmetrics-text; version=1.0.0; charset=utf-8", true }, { "application/openmetrics-text;version=0.0.1", false },
        { "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.6", false },
        { "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
          "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", true }, /* Prometheus 3 */
        { "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*"
          ";q=0.1", true },
        { "application/openmetrics-text;q=0, */*", false }, { "application/*, text/plain;q=0.9", true }, { "APPLICATION/OpenMetrics-Text", true },
        { " application/openmetrics-text ; q=0.9 , text/plain ; q=0.1", true }, { "application/openmetrics-textual", false },
        { ";;;,,,=q;q=,a/b;q=9", false }, { "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_eq(accept_prefers(cases[i].accept, "application/openmetrics-text", "text/plain"), cases[i].open, "%s", cases[i].accept);
}
