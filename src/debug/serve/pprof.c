/* The paths of Go's net/http/pprof: names, parameters, status codes, headers and texts are Go's, in the order in which Go looks at them. What weft adds (limits)
 * comes after all that Go would have said. weft/serve.h lists what differs. */
#include "debug/serve/pprof.h"
#include "debug/serve/uri.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/gc.h>
#include <weft/mem.h>
#include <weft/prof.h>
#include <weft/sched.h>
#include <weft/sync.h>
#include <weft/trace.h>

#define NAMES_MAX 256u
#define ADDRESSES_MAX 65536u

/* As Go's serveError. */
static int go_error(struct request *r, int status, const char *text)
{
    request_unset_headers(r, "X-Go-Pprof");
    request_set_header(r, "X-Go-Pprof", "1");
    return request_fail(r, status, "%s", text);
}

static int go_error_of(struct request *r, const char *what, int err)
{
    char text[300];
    if (err == -ESRCH)
        return err; /* 503: there is no runtime */
    snprintf(text, sizeof text, "%s: %s", what, weft_strerror(err));
    return go_error(r, 500, text);
}

/* True: more than this server lets one ask for; it has been answered. */
static bool too_long(struct request *r, double seconds)
{
    char text[200];
    if (seconds <= request_max_seconds(r))
        return false;
    snprintf(text, sizeof text, "\"seconds\" may be at most %d on this server (weft_serve_opts.max_seconds)", request_max_seconds(r));
    go_error(r, 400, text);
    return true;
}

static void binary(struct request *r, const char *name, const char *tail)
{
    char value[200];
    int n = snprintf(value, sizeof value, "attachment; filename=\"");
    for (; *name != 0 && n < 150; name++) /* a name is the program's own: nothing in it ends the header, or the quotation */
        value[n++] = *name > ' ' && *name <= '~' && *name != '"' && *name != '\\' ? *name : '_';
    snprintf(value + n, sizeof value - (size_t)n, "%s\"", tail);
    request_type(r, "application/octet-stream");
    request_set_header(r, "Content-Disposition", value);
}

/* ---- profiles by name ------------------------------------------------------------------------------------------------------- */

/* As Go's profileSupportsDelta: those of the program's own do not. */
static bool has_windows(const char *name)
{
    static const char *const names[] = { "allocs", "block", "goroutine", "goroutineleak", "heap", "mutex", "threadcreate" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static int window(struct request *r, weft_profile *p, const char *seconds)
{
    weft_profile_delta *d;
    int64_t n;
    bool collects = strcmp(weft_profile_name(p), "goroutineleak") == 0;
    if (!uri_int(seconds, &n) || n <= 0)
        return go_error(r, 400, "invalid value for \"seconds\" - must be a positive integer");
    if (!has_windows(weft_profile_name(p)))
        return go_error(r, 400, "\"seconds\" parameter is not supported for this profile type");
    if (uri_atoi(request_query(r, "debug")) != 0)
        return go_error(r, 400, "seconds and debug params are incompatible");
    if (too_long(r, (double)n) || !(collects ? request_heavy(r) : request_window(r)))
        return 0;
    int err = weft_profile_delta_begin(p, &d);
    if (err != 0)
        return err == -ESRCH ? err : go_error(r, 500, "failed to collect profile");
    if (!request_wait(r, n * WEFT_SECOND)) {
        weft_profile_delta_end(d, NULL, NULL);
        return go_error(r, 500, "context canceled");
    }
    binary(r, weft_profile_name(p), "-delta");
    err = weft_profile_delta_end(d, request_write, r);
    return err == 0 || err == -ESRCH ? err : go_error(r, 500, "failed to compute delta");
}

static int named(struct request *r, const char *name)
{
    weft_profile *p = weft_profile_lookup(name);
    if (p == NULL)
        return go_error(r, 404, "Unknown profile");
    const char *seconds = request_query(r, "seconds");
    if (*seconds != 0)
        return window(r, p, seconds);
    const char *proper = weft_profile_name(p);
    int64_t debug = uri_atoi(request_query(r, "debug"));
    bool gc = strcmp(proper, "heap") == 0 && uri_atoi(request_query(r, "gc")) > 0, leaks = strcmp(proper, "goroutineleak") == 0;
    bool stacks = strcmp(proper, "goroutine") == 0 && debug >= 2;
    if ((gc || leaks || stacks) && !request_heavy(r))
        return 0;
    if (!weft_running())
        return -ESRCH;
    if (gc)
        weft_gc();
    if (debug != 0)
        request_type(r, "text/plain; charset=utf-8");
    else
        binary(r, name, "");
    return weft_profile_write(p, request_write, r, debug > 2 ? 2 : debug < 0 ? -1 : (int)debug);
}

/* ---- the list ----------------------------------------------------------------------------------------------------------------- */

struct entry { const char *name, *what; int64_t count; };

static const struct entry entries[] = {
    { "allocs", "A sampling of all past allocations of memory.", 0 },
    { "block", "Stacks that waited for channels, locks and the like (weft_set_block_profile_rate).", 0 },
    { "cmdline", "The command line of this program, if that is switched on.", 0 },
    { "goroutine", "Stacks of all fibers. debug=2 as a parameter gives them one by one, as text.", 0 },
    { "goroutineleak", "Stacks of fibers that wait for what nobody can ever do. Takes a collection.", 0 },
    { "heap", "A sampling of memory in use, as the last collection found it. gc=1 as a parameter collects first.", 0 },
    { "mutex", "Stacks of those who made others wait by holding a lock (weft_set_mutex_profile_fraction).", 0 },
    { "profile", "Where CPU time goes. The parameter seconds says for how long; then use go tool pprof.", 0 },
    { "symbol", "Functions of addresses, given as the query or the body of a POST, separated by '+'.", 0 },
    { "threadcreate", "Stacks that led to the creation of threads.", 0 },
    { "trace", "An execution trace. The parameter seconds says for how long; then use go tool trace.", 0 },
};
#define ENTRIES (sizeof entries / sizeof entries[0])

static const char *what_is(const char *name)
{
    for (size_t i = 0; i < ENTRIES; i++)
        if (strcmp(entries[i].name, name) == 0)
            return entries[i].what;
    return "A profile of the program's own.";
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name); }

static int put_html(struct request *r, const char *text)
{
    int err = 0;
    for (; *text != 0 && err == 0; text++)
        switch (*text) {
        case '<': err = request_puts(r, "&lt;"); break;
        case '>': err = request_puts(r, "&gt;"); break;
        case '&': err = request_puts(r, "&amp;"); break;
        case '"': err = request_puts(r, "&#34;"); break;
        case '\'': err = request_puts(r, "&#39;"); break;
        default: err = request_write(r, text, 1);
        }
    return err;
}

static int put_link(struct request *r, const char *name)
{
    int err = 0;
    for (; *name != 0 && err == 0; name++) {
        bool plain = (*name >= '0' && *name <= '9') || ((*name | 0x20) >= 'a' && (*name | 0x20) <= 'z') || strchr("-_.~", *name) != NULL;
        err = plain ? request_write(r, name, 1) : request_printf(r, "%%%02X", (unsigned)(unsigned char)*name);
    }
    return err;
}

static int put_list(struct request *r, const struct entry *e, size_t n)
{
    int err = request_puts(r, "<html>\n<head>\n<title>/debug/pprof/</title>\n<style>\n.profile-name{\n\tdisplay:inline-block;\n\twidth:8rem;\n}\n</style>\n</head>\n"
                              "<body>\n/debug/pprof/\n<br>\n<p>debug=1 as a parameter gives text</p>\n<br>\nProfiles:\n<table>\n"
                              "<thead><td>Count</td><td>Profile</td></thead>\n");
    for (size_t i = 0; i < n && err == 0; i++) {
        request_printf(r, "<tr><td>%lld</td><td><a href='", (long long)e[i].count);
        put_link(r, e[i].name);
        request_puts(r, "?debug=1'>");
        put_html(r, e[i].name);
        err = request_puts(r, "</a></td></tr>\n");
    }
    request_puts(r, "</table>\n<a href=\"goroutine?debug=2\">full dump of all stacks</a>\n<br>\n<p>\nWhat they show:\n<ul>\n");
    for (size_t i = 0; i < n && err == 0; i++) {
        request_puts(r, "<li><div class=profile-name>");
        put_html(r, e[i].name);
        request_puts(r, ": </div> ");
        put_html(r, e[i].what);
        err = request_puts(r, "</li>\n");
    }
    return err != 0 ? err : request_puts(r, "</ul>\n</p>\n</body>\n</html>");
}

int pprof_index(struct request *r)
{
    weft_profile *all[NAMES_MAX];
    struct entry e[NAMES_MAX + 4];
    static const char *const others[] = { "cmdline", "profile", "symbol", "trace" };
    if (*request_rest(r) != 0)
        return named(r, request_rest(r));
    size_t have = weft_profiles(all, NAMES_MAX), n = 0;
    for (size_t i = 0; i < have && i < NAMES_MAX; i++) {
        int64_t count = weft_profile_count(all[i]);
        const char *name = weft_profile_name(all[i]);
        e[n++] = (struct entry){ name, what_is(name), count > 0 ? count : 0 };
    }
    for (size_t i = 0; i < 4; i++)
        e[n++] = (struct entry){ others[i], what_is(others[i]), 0 };
    qsort(e, n, sizeof *e, by_name);
    request_type(r, "text/html; charset=utf-8");
    request_set_header(r, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    return put_list(r, e, n);
}

/* ---- the command line ----------------------------------------------------------------------------------------------------------- */

/* As the kernel has it: the program may have changed its argv. Without the last NUL. */
int pprof_cmdline(struct request *r)
{
    char buf[4096];
    ssize_t n;
    bool first = true;
    char held = 0; /* the last byte so far, kept back: it may be the last of all */
    int err = 0;
    if (!request_cmdline(r))
        return request_fail(r, 403, "the command line is not shown, as it may hold secrets: weft_serve_opts.cmdline");
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while (err == 0 && (n = read(fd, buf, sizeof buf)) > 0) {
        if (!first)
            err = request_write(r, &held, 1);
        held = buf[n - 1];
        first = false;
        if (err == 0)
            err = request_write(r, buf, (size_t)n - 1);
    }
    close(fd);
    return err != 0 || first || held == 0 ? err : request_write(r, &held, 1);
}

/* ---- symbols ---------------------------------------------------------------------------------------------------------------------- */

int pprof_symbol(struct request *r)
{
    size_t n, have = 0;
    const char *text = request_body(r, &n);
    if (text == NULL || n == 0) {
        text = request_raw_query(r);
        n = strlen(text);
    }
    uint64_t *pc = malloc(sizeof *pc * (n / 2 + 1 < ADDRESSES_MAX ? n / 2 + 1 : ADDRESSES_MAX)), one;
    if (pc == NULL)
        return -ENOMEM;
    while (have < ADDRESSES_MAX && uri_address(&text, &n, &one))
        if (one != 0)
            pc[have++] = one;
    int err = request_puts(r, "num_symbols: 1\n");
    if (err == 0 && have > 0)
        err = weft_symbols_write(pc, have, request_write, r);
    free(pc);
    return err;
}

/* ---- what takes a while -------------------------------------------------------------------------------------------------------------- */

/* What a stop has returned. -ESRCH: the runtime ends, or has, and what there was is written, or will not be. */
static int stopped(struct request *r, int err, int if_ended)
{
    if (err != -ESRCH)
        return err;
    int so_far = request_abandon(r);
    return so_far != 0 ? so_far : if_ended;
}

static void closed(void *arg, int why, int err) { (void)arg, (void)why, (void)err; } /* no line in the log: the answer tells */

/* As Go: what is no positive number is the default (or what this server allows, if that is less). */
static int64_t whole_seconds(struct request *r)
{
    int64_t n, most = request_max_seconds(r);
    return uri_int(request_query(r, "seconds"), &n) && n > 0 ? n : most < 30 ? most : 30;
}

int pprof_profile(struct request *r)
{
    weft_cpu_profile_opts o = WEFT_CPU_PROFILE_OPTS_INIT;
    int64_t n = whole_seconds(r);
    if (too_long(r, (double)n) || !request_heavy(r))
        return 0;
    o.max_ns = (n + 60) * WEFT_SECOND;
    o.closed = closed;
    binary(r, "profile", "");
    int err = weft_cpu_profile_start(request_write, r, &o);
    if (err == -EALREADY)
        return go_error(r, 500, "Could not enable CPU profiling: cpu profiling already in use");
    if (err != 0)
        return go_error_of(r, "Could not enable CPU profiling", err);
    request_wait(r, n * WEFT_SECOND);
    return stopped(r, weft_cpu_profile_stop(), 0); /* each piece is complete in itself; of the end, the last may be missing */
}

int pprof_wall(struct request *r)
{
    weft_wall_profile_opts o = WEFT_WALL_PROFILE_OPTS_INIT;
    int64_t n = whole_seconds(r);
    if (too_long(r, (double)n) || !request_heavy(r))
        return 0;
    o.max_ns = (n + 60) * WEFT_SECOND;
    o.closed = closed;
    binary(r, "fgprof", "");
    int err = weft_wall_profile_start(request_write, r, &o);
    if (err == -EALREADY)
        return go_error(r, 500, "Could not enable wall-clock profiling: already in use");
    if (err != 0)
        return go_error_of(r, "Could not enable wall-clock profiling", err);
    request_wait(r, n * WEFT_SECOND);
    return stopped(r, weft_wall_profile_stop(), 0);
}

int pprof_trace(struct request *r)
{
    double n;
    if (!uri_float(request_query(r, "seconds"), &n) || !(n > 0))
        n = 1;
    if (too_long(r, n) || !request_heavy(r))
        return 0;
    binary(r, "trace", "");
    int err = weft_trace_start(request_write, r, NULL);
    if (err != 0)
        return go_error_of(r, "Could not enable tracing", err);
    request_wait(r, (int64_t)(n * (double)WEFT_SECOND));
    return stopped(r, weft_trace_stop(request_write, r, NULL), -ECANCELED); /* nobody waited for its last generation: it is cut off */
}
