/* /debug/api/ and its pages of text, over HTTP: types, errors, what they say, and what is kept of a costly one. */
#include "debug/serve/clock.h"
#include "json_test.h"
#include "serve_test.h"
#include <weft/debug.h>
#include <weft/trace.h>

static weft_debug_server *server;
static int port;

/* In user code of a fiber: it waits for an answer that the runtime gives. */
static struct answer ask(const char *path, const char *more)
{
    weft_blocking_begin();
    struct answer a = ask_with(port, "GET", path, more, NULL);
    weft_blocking_end();
    cr_assert(a.status == 0 || a.whole, "%s", path);
    return a;
}

static struct js *json(const char *path, const char *more)
{
    struct answer a = ask(path, more);
    cr_assert_eq(a.status, 200, "%s: %d %s", path, a.status, a.body);
    cr_assert_str_eq(header(&a, "Content-Type"), "application/json; charset=utf-8", "%s", path);
    cr_expect_str_eq(header(&a, "X-Content-Type-Options"), "nosniff");
    struct js *v = js_parse(a.body);
    free(a.body);
    return v;
}

static void with_server(weft_fn *fn)
{
    server = serve_begin(serve_opts());
    port = weft_debug_port(server);
    test_run_procs(2, fn, NULL);
    cr_expect_eq(weft_debug_serve_stop(server), 0);
}

static void waiter(void *arg) { weft_chan_recv(arg, NULL); }

static void documents(void *arg)
{
    (void)arg;
    char path[64];
    const char *what;
    struct js *list = json("/debug/api/", "");
    weft_chan *gate = weft_chan_make(0, 0);
    for (int i = 0; i < 25; i++)
        cr_assert_eq(weft_go(waiter, gate), 0);
    for (unsigned i = 0; (what = weft_debug_what(i)) != NULL; i++) {
        char n[8];
        snprintf(n, sizeof n, "%u", i);
        cr_expect_str_eq(js_str(js_at(list, "documents"), n), what);
        snprintf(path, sizeof path, "/debug/api/%s", what);
        struct answer a = ask(path, "");
        cr_expect_str_eq(header(&a, "Cache-Control"), "no-store");
        json(path, "");
        /* As text for people, unless JSON is asked for. */
        snprintf(path, sizeof path, "/debug/%s", what);
        a = ask(path, "");
        cr_expect_eq(a.status, 200, "%s", path);
        cr_expect_str_eq(header(&a, "Content-Type"), "text/plain; charset=utf-8", "%s", path);
        cr_expect(a.body[0] != '{', "%s", path);
        a = ask(path, "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n");
        cr_expect_str_eq(header(&a, "Content-Type"), "text/plain; charset=utf-8", "%s", path);
        json(path, "Accept: application/json\r\n");
        snprintf(path, sizeof path, "/debug/%s?format=json", what);
        json(path, "");
    }
    test_until(js_num(js_with(js_at(json("/debug/api/fibers", ""), "states"), "state", "chan receive") ?: js_parse("{\"n\":0}"), "n") == 25);
    cr_expect_eq(js_num(json("/debug/fibers?format=json", ""), "all"), 26);
    cr_expect_eq(ask("/debug/api/nothing", "").status, 404);
    cr_expect_eq(ask("/debug/api/fibers/", "").status, 404);
    cr_expect_eq(ask("/debug/api/..%2ffibers", "").status, 404);
    weft_blocking_begin();
    struct answer a = ask_with(port, "POST", "/debug/api/fibers", "", "");
    weft_blocking_end();
    cr_expect_eq(a.status, 405);
    weft_chan_close(gate);
}

Test(serve_api, documents_and_pages) { with_server(documents); }

static void metrics(void *arg)
{
    (void)arg;
    struct answer a = ask("/metrics", "");
    cr_expect_eq(a.status, 200);
    cr_expect_str_eq(header(&a, "Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    cr_expect_not_null(strstr(a.body, "\nweft_fibers_alive "));
    a = ask("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    cr_expect_str_eq(header(&a, "Content-Type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    cr_expect(a.len > 6 && strcmp(a.body + a.len - 6, "# EOF\n") == 0);
    cr_expect_not_null(strstr(ask("/metrics?go=1", "").body, "\ngo_goroutines "));
}

Test(serve_api, metrics_in_the_form_that_is_wanted) { with_server(metrics); }

static void flight(void *arg)
{
    (void)arg;
    struct answer a = ask("/debug/flight", "");
    cr_expect_eq(a.status, 404);
    cr_expect_str_eq(header(&a, "Content-Disposition"), "");
    cr_expect_not_null(strstr(a.body, "weft_flight_recorder_start"));
    cr_assert_eq(weft_flight_recorder_start(NULL), 0);
    a = ask("/debug/flight", "");
    cr_expect_eq(a.status, 200);
    cr_expect_str_eq(header(&a, "Content-Type"), "application/octet-stream");
    cr_expect(a.len > 16 && strncmp(a.body, "go 1.", 5) == 0 && memcmp(a.body + 7, " trace\0\0\0", 9) == 0);
    cr_expect_eq(log_has("/debug/flight"), 4, "two lines for a heavy job");
    cr_assert_eq(weft_flight_recorder_stop(), 0);
}

Test(serve_api, the_flight_recorder_over_http) { with_server(flight); }

static void objects(void *arg)
{
    (void)arg;
    static void **root;
    char path[96], address[32];
    root = weft_alloc(64);
    root[3] = weft_alloc(128);
    weft_keep_alive(&root);
    struct js *dump = json("/debug/heap?dump=1", "");
    cr_expect_gt(dump->n, 2);
    snprintf(address, sizeof address, "%p", root[3]);
    snprintf(path, sizeof path, "/debug/heap?why=%s&format=json", address);
    json(path, "");
    snprintf(path, sizeof path, "/debug/heap?why=%s", address);
    struct answer a = ask(path, "");
    cr_expect_eq(a.status, 200);
    cr_expect_str_eq(header(&a, "Content-Type"), "text/plain; charset=utf-8");
    cr_expect_eq(ask("/debug/heap?why=0x10", "").status, 404);
    cr_expect_eq(ask("/debug/heap?why=x", "").status, 400);
    cr_expect_eq(ask("/debug/heap?why=99999999999999999999999", "").status, 400);
    cr_expect_eq(log_has("/debug/heap?"), 8, "two lines for each heavy job");
    cr_expect_eq(js_num(json("/debug/heap?format=json", ""), "objects"), js_num(json("/debug/api/heap", ""), "objects"));
    weft_keep_alive(root);
}

Test(serve_api, objects_of_the_heap) { with_server(objects); }

/* With so many fibers a document takes more than a millisecond; then it is the same one for a while. */
static void costly(void *arg)
{
    (void)arg;
    weft_chan *gate = weft_chan_make(0, 0);
    double at[60];
    int different = 1, fibers = test_is_slow() ? 5000 : 50000; /* each is a thread to TSan, which knows 8128 */
    for (int i = 0; i < fibers; i++)
        cr_assert_eq(weft_go(waiter, gate), 0);
    for (int i = 0; i < 60; i++) {
        struct js *d = json("/debug/api/fibers", "");
        at[i] = js_num(d, "at_ms");
        cr_expect_eq(js_num(d, "all"), fibers + 1);
        different += i > 0 && at[i] != at[i - 1];
    }
    cr_expect_lt(different, 40, "%d of 60 were made anew", different);
    weft_chan_close(gate);
}

Test(serve_api, a_costly_document_is_not_made_for_each_who_asks) { with_server(costly); }

static void nothing(void *arg) { (void)arg; }

Test(serve_api, without_a_runtime)
{
    server = serve_begin(serve_opts());
    port = weft_debug_port(server);
    for (int i = 0; i < 2; i++) {
        static const char *const paths[] = { "/debug/api/fibers", "/debug/memory", "/metrics", "/debug/api/doctor" };
        for (int k = 0; k < 4; k++) {
            struct answer a = get(port, paths[k]);
            cr_expect_eq(a.status, 503, "%s: %d", paths[k], a.status);
        }
        test_run(nothing, NULL);
    }
    cr_expect_eq(status_of(port, "/debug/api/"), 200, "which there are is known at any time");
    cr_expect_eq(weft_debug_serve_stop(server), 0);
}

/* The date is reckoned without libc: it is the same one. Each day until 2199, at another time of it. */
Test(serve_api, date_is_as_libc_says)
{
    char is[HTTP_DATE_BYTES], want[HTTP_DATE_BYTES];
    for (time_t t = 0; t < INT64_C(7258118400); t += 86400 + 61) {
        struct tm tm;
        http_date((uint64_t)t, is);
        strftime(want, sizeof want, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
        cr_assert_str_eq(is, want);
    }
    static const char *const paths[] = { "/debug/api/", "/nothing", "/debug" };
    server = serve_begin(serve_opts());
    for (size_t i = 0; i < w_countof(paths); i++) {
        time_t before = time(NULL);
        struct answer a = get(weft_debug_port(server), paths[i]);
        struct tm tm = { 0 };
        cr_expect_not_null(strptime(header(&a, "Date"), "%a, %d %b %Y %H:%M:%S GMT", &tm), "%s", a.head);
        time_t at = timegm(&tm);
        cr_expect(at >= before && at <= time(NULL), "%s", a.head);
        free(a.body);
    }
    cr_expect_eq(weft_debug_serve_stop(server), 0);
}
