/* Who may ask: token, Host, other sites' pages. */
#include "debug/serve/access.h"
#include "debug/serve/uri.h"
#include "serve_test.h"

#define TOKEN "correct-horse-battery"

static const char *basic(const char *user_and_password)
{
    static char out[1024];
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = strlen(user_and_password), k = (size_t)sprintf(out, "Authorization: Basic ");
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)user_and_password[i] << 16;
        v |= i + 1 < n ? (uint32_t)(unsigned char)user_and_password[i + 1] << 8 : 0;
        v |= i + 2 < n ? (uint32_t)(unsigned char)user_and_password[i + 2] : 0;
        for (int d = 0; d < 4; d++)
            out[k++] = i + (size_t)d > n ? '=' : digits[v >> (18 - 6 * d) & 63];
    }
    strcpy(out + k, "\r\n");
    return out;
}

Test(serve_access, token_matrix)
{
    weft_serve_opts o = serve_opts();
    o.token = TOKEN;
    o.cmdline = true;
    weft_debug_server *s = serve_begin(o);
    int port = weft_debug_port(s);
    static const char *const paths[] = { "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/profile?seconds=1", "/nothing", "/debug/pprof" };
    static const char *const wrong[] = {
        "", "Authorization: Bearer\r\n", "Authorization: Bearer \r\n", "Authorization: Bearer " TOKEN "x\r\n", "Authorization: Bearer correct-horse-batter\r\n",
        "Authorization: Bearer x" TOKEN "\r\n", "Authorization: " TOKEN "\r\n", "Authorization: Basic " TOKEN "\r\n", "Authorization: Bearer CORRECT-HORSE-BATTERY\r\n",
        "Authorization: Digest " TOKEN "\r\n", "X-Authorization: Bearer " TOKEN "\r\n", "Cookie: token=" TOKEN "\r\n", "Authorization: Basic Og==\r\n",
        "Authorization: Basic !!!!\r\n", "Authorization: Basic Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5\r\n" /* the token alone */,
    };
    for (size_t i = 0; i < w_countof(wrong); i++)
        for (size_t p = 0; p < w_countof(paths); p++) {
            struct answer a = ask_with(port, "GET", paths[p], wrong[i], NULL);
            cr_assert_eq(a.status, 401, "%s with '%s': %d", paths[p], wrong[i], a.status);
            cr_assert(strstr(a.head, "WWW-Authenticate: Basic realm") != NULL && strstr(a.head, "WWW-Authenticate: Bearer realm") != NULL, "%s", a.head);
            free(a.body);
        }
    const char *right[] = { "Authorization: Bearer " TOKEN "\r\n", "authorization: bearer  " TOKEN "\r\n", basic("anybody:" TOKEN) };
    for (size_t i = 0; i < w_countof(right); i++) {
        struct answer a = ask_with(port, "GET", "/debug/pprof/", right[i], NULL);
        cr_assert_eq(a.status, 200, "%s", right[i]);
        free(a.body);
    }
    struct answer a = ask_with(port, "GET", "/debug/pprof/", basic(":" TOKEN), NULL);
    cr_assert_eq(a.status, 200, "no user");
    free(a.body);
    a = ask_with(port, "GET", "/debug/pprof/", basic(TOKEN ":" TOKEN "x"), NULL);
    cr_assert_eq(a.status, 401, "as the user's name");
    free(a.body);
    a = ask_with(port, "GET", "/debug/pprof/", "Authorization: Bearer " TOKEN "\r\nHost: elsewhere.example\r\n", NULL);
    cr_assert_eq(a.status, 200, "with a token any name in Host will do");
    free(a.body);
    a = ask_with(port, "GET", "/debug/pprof/heap?token=" TOKEN, "", NULL);
    cr_assert_eq(a.status, 401, "in the query it counts for nothing");
    free(a.body);
    weft_debug_serve_stop(s);
    cr_assert(log_has("without the right token"));
    cr_assert_eq(log_has(TOKEN), 0, "the token is in the log:\n%s", serve_said.text);
}

Test(serve_access, token_as_it_is_compared)
{
    char longer[4096];
    cr_assert(token_shown("Bearer 0123456789abcdef", "0123456789abcdef"));
    cr_assert_not(token_shown(NULL, "0123456789abcdef"));
    cr_assert_not(token_shown("", "0123456789abcdef"));
    for (int at = 0; at < 16; at++) { /* every byte counts */
        char given[] = "Bearer 0123456789abcdef";
        given[7 + at] ^= 1;
        cr_assert_not(token_shown(given, "0123456789abcdef"), "%d", at);
        given[7 + at] = 0;
        cr_assert_not(token_shown(given, "0123456789abcdef"), "%d", at);
    }
    memset(longer, 'A', sizeof longer);
    memcpy(longer, "Basic ", 6);
    longer[sizeof longer - 1] = 0;
    cr_assert_not(token_shown(longer, "0123456789abcdef"));
    memcpy(longer, "Bearer ", 7);
    cr_assert_not(token_shown(longer, "0123456789abcdef"));
}

Test(serve_access, host_must_be_this_machine)
{
    weft_debug_server *s = serve_begin(serve_opts());
    static const char *const good[] = { "localhost", "localhost:6060", "LocalHost", "app.localhost", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:6060", "192.168.1.1:80" };
    static const char *const bad[] = { "evil.example", "evil.example:6060", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "", "[::1", "::1",
                                       "127.0.0.1:80x", "0x7f.1", "127.1", "localhost:", "[::1]x" };
    for (size_t i = 0; i < w_countof(good); i++) {
        char h[200];
        snprintf(h, sizeof h, "Host: %s\r\n", good[i]);
        struct answer a = ask_with(weft_debug_port(s), "GET", "/debug/pprof/", h, NULL);
        cr_assert_eq(a.status, 200, "%s: %d", good[i], a.status);
        free(a.body);
    }
    for (size_t i = 0; i < w_countof(bad); i++) {
        if (strcmp(bad[i], "localhost:") == 0)
            continue; /* an empty port is allowed by the grammar */
        char h[200];
        snprintf(h, sizeof h, "Host: %s\r\n", bad[i]);
        struct answer a = ask_with(weft_debug_port(s), "GET", "/debug/pprof/", h, NULL);
        cr_assert(a.status == 403 || a.status == 400, "%s: %d", bad[i], a.status);
        free(a.body);
    }
    int fd = connect_to(weft_debug_port(s)); /* HTTP/1.0, no Host: no browser */
    send_text(fd, "GET /debug/pprof/ HTTP/1.0\r\n\r\n");
    struct answer a = read_answer(fd);
    cr_assert_eq(a.status, 200);
    free(a.body);
    close(fd);
    weft_debug_serve_stop(s);
}

Test(serve_access, other_sites_pages_start_nothing_and_read_nothing)
{
    weft_debug_server *s = serve_begin(serve_opts());
    int port = weft_debug_port(s);
    static const struct { const char *path, *headers; int status; } cases[] = {
        { "/debug/pprof/", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n", 200 },
        { "/debug/pprof/", "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", 200 },
        { "/debug/pprof/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 200 }, /* a link */
        { "/debug/pprof/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403 },
        { "/debug/pprof/", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n", 403 },
        { "/debug/pprof/", "Origin: http://evil.example\r\n", 403 },
        { "/debug/pprof/", "Origin: null\r\n", 403 },
        { "/debug/pprof/", "Origin: http://localhost\r\n", 200 },
        { "/debug/pprof/", "Origin: https://localhost\r\n", 403 },
        { "/debug/pprof/profile?seconds=1", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403 },
        { "/debug/pprof/trace?seconds=1", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\n", 403 },
        { "/debug/pprof/heap?gc=1", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403 },
        { "/debug/pprof/heap?seconds=1", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403 },
        { "/debug/pprof/goroutineleak", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403 },
        { "/debug/pprof/goroutine?debug=2", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403 },
    };
    for (size_t i = 0; i < w_countof(cases); i++) {
        struct answer a = ask_with(port, "GET", cases[i].path, cases[i].headers, NULL);
        cr_assert_eq(a.status, cases[i].status, "%zu: %s: %d", i, cases[i].path, a.status);
        cr_assert_str_eq(header(&a, "Access-Control-Allow-Origin"), "");
        cr_assert_str_eq(header(&a, "Cross-Origin-Resource-Policy"), "same-origin");
        cr_assert_str_eq(header(&a, "X-Content-Type-Options"), "nosniff");
        free(a.body);
    }
    struct answer a = ask_with(port, "POST", "/debug/pprof/symbol", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", "0x1");
    cr_assert_eq(a.status, 403, "a form: %d", a.status);
    free(a.body);
    a = ask_with(port, "POST", "/debug/pprof/symbol", "", "0x1");
    cr_assert_eq(a.status, 503, "no runtime runs: %d", a.status);
    free(a.body);
    weft_debug_serve_stop(s);
}

/* ---- what stands in a request --------------------------------------------------------------------------------------------- */

Test(serve_access, parameters_are_read_as_go_reads_them)
{
    static const struct { const char *query, *name, *value; } cases[] = {
        { "seconds=5", "seconds", "5" },       { "a=1&seconds=5&seconds=6", "seconds", "5" }, { "seconds", "seconds", "" },
        { "second=1", "seconds", "" },         { "seconds=%35", "seconds", "5" },             { "s%65conds=5", "seconds", "5" },
        { "seconds=%3", "seconds", "" },       { "seconds=%zz&seconds=7", "seconds", "7" },   { "seconds=1+2", "seconds", "1 2" },
        { "seconds=5;x=1", "seconds", "" },    { "x=1;2&seconds=5", "seconds", "5" },         { "=5&&&seconds=5", "seconds", "5" },
        { "seconds=%00", "seconds", "" },      { "", "seconds", "" },                         { "seconds==5", "seconds", "=5" },
    };
    char out[16];
    for (size_t i = 0; i < w_countof(cases); i++) {
        uri_param(cases[i].query, cases[i].name, out, sizeof out);
        cr_assert_str_eq(out, cases[i].value, "%s: %s", cases[i].query, out);
    }
    uri_param("seconds=123456789012345678901234567890", "seconds", out, sizeof out);
    cr_assert_str_eq(out, "123456789012345");
}

Test(serve_access, numbers_are_read_as_go_reads_them)
{
    static const struct { const char *text; bool good; int64_t value; } ints[] = {
        { "0", true, 0 }, { "5", true, 5 }, { "-5", true, -5 }, { "+5", true, 5 }, { "", false, 0 }, { "-", false, 0 }, { " 5", false, 0 }, { "5 ", false, 0 },
        { "1.5", false, 0 }, { "0x5", false, 0 }, { "5s", false, 0 }, { "1_000", false, 0 }, { "9223372036854775807", true, INT64_MAX },
        { "9223372036854775808", false, INT64_MAX }, { "-9223372036854775808", true, INT64_MIN }, { "-9223372036854775809", false, INT64_MIN },
        { "99999999999999999999999999", false, INT64_MAX },
    };
    for (size_t i = 0; i < w_countof(ints); i++) {
        int64_t v = 77;
        cr_assert_eq(uri_int(ints[i].text, &v), ints[i].good, "'%s'", ints[i].text);
        cr_assert_eq(v, ints[i].value, "'%s': %ld", ints[i].text, (long)v);
    }
    static const struct { const char *text; bool good; double value; } floats[] = {
        { "1", true, 1 }, { "1.5", true, 1.5 }, { ".5", true, .5 }, { "1e3", true, 1000 }, { "-2", true, -2 }, { "", false, 0 }, { " 1", false, 0 }, { "1 ", false, 0 },
        { "1,5", false, 0 }, { "x", false, 0 }, { "1e999", false, 0 }, { "0x10", false, 0 }, { "inf", true, __builtin_inf() }, { "5x", false, 0 },
    };
    for (size_t i = 0; i < w_countof(floats); i++) {
        double v;
        cr_assert_eq(uri_float(floats[i].text, &v), floats[i].good, "'%s'", floats[i].text);
        cr_assert(!floats[i].good || v == floats[i].value, "'%s': %f", floats[i].text, v);
    }
    const char *text = "0x10+16+020+0b11+x++0xffffffffffffffff+99999999999999999999+0x+08";
    static const uint64_t want[] = { 16, 16, 16, 3, 0, 0, UINT64_MAX, UINT64_MAX, 0, 0 };
    size_t n = strlen(text), i = 0;
    for (uint64_t v; uri_address(&text, &n, &v); i++)
        cr_assert(i < w_countof(want) && v == want[i], "%zu: %lx", i, (unsigned long)v);
    cr_assert_eq(i, w_countof(want));
}

Test(serve_access, targets)
{
    static const struct { const char *raw; bool good; const char *path, *query; } cases[] = {
        { "/", true, "/", "" }, { "/a?b", true, "/a", "b" }, { "/a?b?c", true, "/a", "b?c" }, { "/%61", true, "/a", "" }, { "/a+b", true, "/a+b", "" },
        { "http://host/a?b", true, "/a", "b" }, { "/%", false, "", "" }, { "/%2", false, "", "" }, { "/%00", false, "", "" }, { "a", false, "", "" }, { "*", false, "", "" },
        { "", false, "", "" }, { "http://host", false, "", "" }, { "?a", false, "", "" },
    };
    for (size_t i = 0; i < w_countof(cases); i++) {
        char raw[64];
        struct uri u;
        strcpy(raw, cases[i].raw);
        cr_assert_eq(uri_split(raw, &u), cases[i].good, "'%s'", cases[i].raw);
        if (cases[i].good) {
            cr_assert_str_eq(u.path, cases[i].path);
            cr_assert_str_eq(u.query, cases[i].query);
        }
    }
}
