/* The paths of net/http/pprof: status codes, headers, bodies and the order of checks, as contracts say Go has them. */
#include "pprof_test.h"
#include "serve_test.h"

#define OCTETS "application/octet-stream"
#define TEXT "text/plain; charset=utf-8"
#define HTML "text/html; charset=utf-8"

struct row {
    const char *method, *path;
    int status;
    const char *type, *disposition; /* as filename */
    bool go_pprof;                  /* X-Go-Pprof: 1 */
    const char *body;               /* NULL: anything */
};

static const struct row rows[] = {
    { "GET", "/debug/pprof/", 200, HTML, "", false, NULL },
    { "GET", "/debug/pprof/heap", 200, OCTETS, "heap", false, NULL },
    { "GET", "/debug/pprof/allocs", 200, OCTETS, "allocs", false, NULL },
    { "GET", "/debug/pprof/block", 200, OCTETS, "block", false, NULL },
    { "GET", "/debug/pprof/mutex", 200, OCTETS, "mutex", false, NULL },
    { "GET", "/debug/pprof/goroutine", 200, OCTETS, "goroutine", false, NULL },
    { "GET", "/debug/pprof/goroutineleak", 200, OCTETS, "goroutineleak", false, NULL },
    { "GET", "/debug/pprof/threadcreate", 200, OCTETS, "threadcreate", false, NULL },
    { "GET", "/debug/pprof/fiber", 200, OCTETS, "fiber", false, NULL },
    { "GET", "/debug/pprof/leak", 200, OCTETS, "leak", false, NULL },
    { "GET", "/debug/pprof/own", 200, OCTETS, "own", false, NULL },
    { "GET", "/debug/pprof/heap?debug=0", 200, OCTETS, "heap", false, NULL },
    { "GET", "/debug/pprof/heap?debug=1", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/heap?debug=-1", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/heap?debug=x", 200, OCTETS, "heap", false, NULL },
    { "GET", "/debug/pprof/heap?debug=99999999999999999999", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/heap?gc=1", 200, OCTETS, "heap", false, NULL },
    { "GET", "/debug/pprof/heap?gc=1&debug=1", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/heap?unknown=1", 200, OCTETS, "heap", false, NULL },
    { "GET", "/debug/pprof/goroutine?debug=1", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/goroutine?debug=2", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/goroutineleak?debug=2", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/block?debug=-1", 200, TEXT, "", false, NULL },
    { "GET", "/debug/pprof/heap?seconds=1", 200, OCTETS, "heap-delta", false, NULL },
    { "GET", "/debug/pprof/fiber?seconds=1", 200, OCTETS, "goroutine-delta", false, NULL },
    { "GET", "/debug/pprof/nothing", 404, TEXT, "", true, "Unknown profile\n" },
    { "GET", "/debug/pprof/%3Cscript%3Escripty%3C%2Fscript%3E", 404, TEXT, "", true, "Unknown profile\n" },
    { "GET", "/debug/pprof/heap/", 404, TEXT, "", true, "Unknown profile\n" },
    { "GET", "/debug/pprof/nothing?seconds=x", 404, TEXT, "", true, "Unknown profile\n" },
    { "GET", "/debug/pprof/heap?seconds=0", 400, TEXT, "", true, "invalid value for \"seconds\" - must be a positive integer\n" },
    { "GET", "/debug/pprof/heap?seconds=-1", 400, TEXT, "", true, "invalid value for \"seconds\" - must be a positive integer\n" },
    { "GET", "/debug/pprof/heap?seconds=1.5", 400, TEXT, "", true, "invalid value for \"seconds\" - must be a positive integer\n" },
    { "GET", "/debug/pprof/heap?seconds=x&debug=1", 400, TEXT, "", true, "invalid value for \"seconds\" - must be a positive integer\n" },
    { "GET", "/debug/pprof/own?seconds=x", 400, TEXT, "", true, "invalid value for \"seconds\" - must be a positive integer\n" },
    { "GET", "/debug/pprof/own?seconds=1", 400, TEXT, "", true, "\"seconds\" parameter is not supported for this profile type\n" },
    { "GET", "/debug/pprof/own?seconds=1&debug=1", 400, TEXT, "", true, "\"seconds\" parameter is not supported for this profile type\n" },
    { "GET", "/debug/pprof/heap?seconds=1&debug=1", 400, TEXT, "", true, "seconds and debug params are incompatible\n" },
    { "GET", "/debug/pprof/heap?seconds=9999&debug=1", 400, TEXT, "", true, "seconds and debug params are incompatible\n" },
    { "GET", "/debug/pprof/heap?seconds=9999", 400, TEXT, "", true, NULL },
    { "GET", "/debug/pprof/profile?seconds=9999", 400, TEXT, "", true, NULL },
    { "GET", "/debug/pprof/trace?seconds=9999", 400, TEXT, "", true, NULL },
    { "GET", "/debug/pprof/trace?seconds=inf", 400, TEXT, "", true, NULL },
    { "GET", "/debug/pprof/profile?seconds=1", 200, OCTETS, "profile", false, NULL },
    { "GET", "/debug/fgprof?seconds=1", 200, OCTETS, "fgprof", false, NULL },
    { "GET", "/debug/pprof/trace?seconds=0.2", 200, OCTETS, "trace", false, NULL },
    { "GET", "/debug/pprof/trace", 200, OCTETS, "trace", false, NULL },
    { "GET", "/debug/pprof/symbol", 200, TEXT, "", false, "num_symbols: 1\n" },
    { "GET", "/debug/pprof/symbol?0x1+junk+0", 200, TEXT, "", false, "num_symbols: 1\n" },
    { "HEAD", "/debug/pprof/", 200, HTML, "", false, "" },
    { "HEAD", "/debug/pprof/heap", 200, OCTETS, "heap", false, "" },
    { "HEAD", "/debug/pprof/nothing", 404, TEXT, "", true, "" },
    { "POST", "/debug/pprof/heap", 405, TEXT, "", false, "Method Not Allowed\n" },
    { "POST", "/debug/pprof/", 405, TEXT, "", false, "Method Not Allowed\n" },
    { "PUT", "/debug/pprof/symbol", 405, TEXT, "", false, "Method Not Allowed\n" },
    { "DELETE", "/debug/pprof/profile", 405, TEXT, "", false, "Method Not Allowed\n" },
    { "GET", "/nothing", 404, TEXT, "", false, "404 page not found\n" },
    { "GET", "/debug/pprofx", 404, TEXT, "", false, "404 page not found\n" },
};

static void look_at(int port, const struct row *w)
{
    char disposition[100] = "";
    struct answer a = ask_with(port, w->method, w->path, "", NULL);
    cr_expect_eq(a.status, w->status, "%s %s: %d: %s", w->method, w->path, a.status, a.body);
    cr_expect_str_eq(header(&a, "Content-Type"), w->type, "%s", w->path);
    if (*w->disposition != 0)
        snprintf(disposition, sizeof disposition, "attachment; filename=\"%s\"", w->disposition);
    cr_expect_str_eq(header(&a, "Content-Disposition"), disposition, "%s", w->path);
    cr_expect_str_eq(header(&a, "X-Go-Pprof"), w->go_pprof ? "1" : "", "%s", w->path);
    cr_expect_str_eq(header(&a, "X-Content-Type-Options"), "nosniff", "%s", w->path);
    cr_expect(w->status != 405 || strncmp(header(&a, "Allow"), "GET, HEAD", 9) == 0, "%s", w->path);
    cr_expect(w->body == NULL || strcmp(w->body, a.body) == 0, "%s: %s", w->path, a.body);
    cr_expect(a.whole || strcmp(w->method, "HEAD") == 0, "%s was cut off", w->path);
    if (w->status == 200 && w->body == NULL && strcmp(w->type, OCTETS) == 0 && strstr(w->path, "trace") == NULL)
        cr_expect(a.len > 20 && (unsigned char)a.body[0] == 0x1f && (unsigned char)a.body[1] == 0x8b, "%s is no gzip file", w->path);
    free(a.body);
}

static void table(void *arg)
{
    weft_profile *own;
    weft_debug_server *s = serve_begin(serve_opts());
    (void)arg;
    cr_assert_eq(weft_profile_new("own", &own), 0);
    for (size_t i = 0; i < w_countof(rows); i++)
        look_at(weft_debug_port(s), &rows[i]);
    weft_debug_serve_stop(s);
}

Test(serve_pprof, as_the_contract_says) { test_run_procs(2, table, NULL); }

/* ---- what stands in the answers --------------------------------------------------------------------------------------------- */

static volatile int came_back;
static void waits_here(void *chan)
{
    weft_chan_recv(chan, NULL);
    came_back = 1; /* so that it stays on the stack while it waits */
}

static void bodies(void *arg)
{
    weft_serve_opts o = serve_opts();
    weft_profile *odd;
    (void)arg;
    o.cmdline = true;
    weft_debug_server *s = serve_begin(o);
    int port = weft_debug_port(s);
    weft_chan *chan = weft_chan_make(0, 0);
    for (int i = 0; i < 7; i++)
        cr_assert_eq(weft_go(waits_here, chan), 0);

    struct answer a = get(port, "/debug/pprof/goroutine?debug=1");
    cr_assert(strncmp(a.body, "goroutine profile: total ", 25) == 0, "%s", a.body);
    cr_assert(strstr(a.body, "waits_here") != NULL, "%s", a.body);
    free(a.body);
    a = get(port, "/debug/pprof/goroutine?debug=2");
    cr_assert(strstr(a.body, "[chan receive") != NULL && strstr(a.body, " of ") != NULL, "%s", a.body);
    free(a.body);
    a = get(port, "/debug/pprof/heap?debug=1");
    cr_assert(strncmp(a.body, "heap profile: ", 14) == 0, "%s", a.body);
    free(a.body);
    a = get(port, "/debug/pprof/trace?seconds=0.1");
    cr_assert(strncmp(a.body, "go 1.", 5) == 0);
    free(a.body);

    cr_assert_eq(weft_profile_new("odd<b>'\"&/ .name", &odd), 0);
    a = get(port, "/debug/pprof/");
    cr_assert(strstr(a.body, "<td><a href='goroutine?debug=1'>goroutine</a></td>") != NULL, "%s", a.body);
    cr_assert(strstr(a.body, "<a href=\"goroutine?debug=2\">") != NULL);
    cr_assert(strstr(a.body, "<b>'") == NULL && strstr(a.body, "odd&lt;b&gt;&#39;&#34;&amp;/ .name") != NULL && strstr(a.body, "odd%3Cb%3E%27%22%26%2F%20.name?debug=1") != NULL, "%s",
              a.body);
    weft_profile *all[64];
    for (size_t i = 0, n = weft_profiles(all, 64); i < n && all[i] != odd; i++) {
        char row[100];
        snprintf(row, sizeof row, ">%s</a></td>", weft_profile_name(all[i]));
        cr_assert(strstr(a.body, row) != NULL, "%s is not listed", weft_profile_name(all[i]));
        snprintf(row, sizeof row, "%s: </div> ", weft_profile_name(all[i]));
        const char *what = strstr(a.body, row);
        cr_assert(what != NULL && strncmp(what + strlen(row), "A profile of the program's own", 20) != 0, "%s has no description", weft_profile_name(all[i]));
    }
    free(a.body);

    a = get(port, "/debug/pprof/cmdline");
    char cmdline[4096];
    FILE *f = fopen("/proc/self/cmdline", "r");
    size_t n = fread(cmdline, 1, sizeof cmdline, f);
    fclose(f);
    cr_assert(n > 1 && n < sizeof cmdline && a.len == n - 1 && memcmp(a.body, cmdline, n - 1) == 0);
    free(a.body);
    weft_debug_serve_stop(s);
}

Test(serve_pprof, bodies) { test_run_procs(2, bodies, NULL); }

static void symbols(void *arg)
{
    char text[400], want[400];
    weft_debug_server *s = serve_begin(serve_opts());
    (void)arg;
    snprintf(text, sizeof text, "%p+0x10+%p+junk+%llu", (void *)waits_here, (void *)symbols, (unsigned long long)(uintptr_t)symbols);
    snprintf(want, sizeof want, "num_symbols: 1\n%p waits_here\n%p symbols\n%p symbols\n", (void *)waits_here, (void *)symbols, (void *)symbols);
    struct answer a = ask_with(weft_debug_port(s), "POST", "/debug/pprof/symbol", "", text);
    cr_assert_eq(a.status, 200);
    cr_assert_str_eq(a.body, want);
    free(a.body);
    char path[500];
    snprintf(path, sizeof path, "/debug/pprof/symbol?%s", text);
    a = get(weft_debug_port(s), path);
    cr_assert_str_eq(a.body, want);
    free(a.body);
    weft_debug_serve_stop(s);
}

Test(serve_pprof, symbols_of_addresses) { test_run(symbols, NULL); }

Test(serve_pprof, command_line_only_if_switched_on)
{
    weft_debug_server *s = serve_begin(serve_opts());
    struct answer a = get(weft_debug_port(s), "/debug/pprof/cmdline");
    cr_assert_eq(a.status, 403);
    cr_assert(strstr(a.body, "weft_serve_opts.cmdline") != NULL);
    free(a.body);
    weft_debug_serve_stop(s);
}

Test(serve_pprof, redirects)
{
    weft_debug_server *s = serve_begin(serve_opts());
    static const char *const from_to[][2] = { { "/debug/pprof", "/debug/pprof/" }, { "/debug/pprof?a=b", "/debug/pprof/?a=b" }, { "/debug", "/debug/" }, { "/", "/debug/" } };
    for (size_t i = 0; i < w_countof(from_to); i++) {
        struct answer a = get(weft_debug_port(s), from_to[i][0]);
        cr_assert_eq(a.status, 301);
        cr_assert_str_eq(header(&a, "Location"), from_to[i][1]);
        free(a.body);
    }
    weft_debug_serve_stop(s);
}

/* Nothing has happened before, nor in the window: the kinds of values are there all the same. (Go: TestDeltaProfileEmptyBase) */
static void empty_window(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    (void)arg;
    struct answer a = get(weft_debug_port(s), "/debug/pprof/mutex?seconds=1");
    cr_assert_eq(a.status, 200);
    struct pp *p = pp_decode(a.body, a.len);
    cr_assert_eq(p->samples, 0);
    cr_assert_eq(p->types, 2);
    cr_assert_str_eq(p->type[0].type, "contentions");
    cr_assert_str_eq(p->type[1].type, "delay");
    weft_debug_serve_stop(s);
}

Test(serve_pprof, window_in_which_nothing_happens) { test_run_procs(2, empty_window, NULL); }

/* Connections may be used again, and a request may come in pieces, or several at once. */
static void connections(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int fd = connect_to(weft_debug_port(s));
    (void)arg;
    for (int i = 0; i < 3; i++) {
        static const char request[] = "GET /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n\r\n";
        char buf[2000];
        size_t n = 0;
        for (size_t k = 0; k < sizeof request - 1; k += i == 1 ? 1 : sizeof request)
            (void)!send(fd, request + k, i == 1 ? 1 : sizeof request - 1, MSG_NOSIGNAL);
        memset(buf, 0, sizeof buf);
        while (strstr(buf, "num_symbols: 1\n") == NULL) {
            ssize_t k = recv(fd, buf + n, sizeof buf - n - 1, 0);
            cr_assert(k > 0, "closed after %d requests", i);
            n += (size_t)k;
        }
    }
    send_text(fd, "GET /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n\r\nGET /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    struct answer a = read_answer(fd);
    cr_assert_eq(a.status, 200);
    close(fd);
    free(a.body);
    weft_debug_serve_stop(s);
}

Test(serve_pprof, connections_are_kept) { test_run(connections, NULL); }

/* The program's own profile is in the way of one that is asked for, and the other way round. */
static int drop_all(void *ctx, const void *data, size_t n) { (void)ctx, (void)data, (void)n; return 0; }

static void in_use(void *arg)
{
    weft_debug_server *s = serve_begin(serve_opts());
    (void)arg;
    cr_assert_eq(weft_cpu_profile_start(drop_all, NULL, NULL), 0);
    struct answer a = get(weft_debug_port(s), "/debug/pprof/profile?seconds=1");
    cr_assert_eq(a.status, 500);
    cr_assert_str_eq(a.body, "Could not enable CPU profiling: cpu profiling already in use\n");
    cr_assert_str_eq(header(&a, "X-Go-Pprof"), "1");
    cr_assert_str_eq(header(&a, "Content-Disposition"), "");
    free(a.body);
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/profile?seconds=1"), 200);
    weft_debug_serve_stop(s);
}

Test(serve_pprof, profile_that_runs_already) { test_run_procs(2, in_use, NULL); }

Test(serve_pprof, without_a_runtime_it_says_so)
{
    weft_debug_server *s = serve_begin(serve_opts());
    static const char *const paths[] = { "/debug/pprof/heap", "/debug/pprof/goroutine?debug=2", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1",
                                         "/debug/pprof/heap?seconds=1", "/debug/pprof/heap?gc=1", "/debug/pprof/symbol?0x10", "/debug/fgprof" };
    for (size_t i = 0; i < w_countof(paths); i++) {
        struct answer a = get(weft_debug_port(s), paths[i]);
        cr_assert_eq(a.status, 503, "%s: %d", paths[i], a.status);
        cr_assert(strstr(a.body, "the runtime is not running") != NULL, "%s: %s", paths[i], a.body);
        free(a.body);
    }
    cr_assert_eq(status_of(weft_debug_port(s), "/debug/pprof/"), 200);
    weft_debug_serve_stop(s);
}
