/* /debug/api/NAME: a document of weft_debug_json. /debug/NAME: the same as text for people, or JSON for who asks for it by ?format=json or Accept.
 * /debug/heap?dump=1: weft_heap_dump; ?why=0x...: weft_why_alive. /debug/flight: what the flight recorder keeps, as a trace.
 *
 * Whoever polls must not hurt the program. Most documents cost some hundred microseconds; with a million fibers, or a resident memory of many
 * gigabytes, some cost a second. So what took a millisecond and more is kept, and handed out again for twenty times as long as it took: making it
 * never takes more than a twentieth of a CPU, however many ask. at_ms in it tells how old it is. Of several who ask at the same time one makes it. */
#include "debug/serve/api.h"
#include "debug/serve/buf.h"
#include "debug/serve/clock.h"
#include <pthread.h>
#include <strings.h>
#include <weft/debug.h>
#include <weft/sched.h>
#include <weft/trace.h>

#define DOCUMENTS_MAX 16
#define COSTLY_NS 1000000
#define KEPT_TIMES 20

/* ---- what the client wants --------------------------------------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static bool same_word(const char *s, size_t n, const char *word)
{
    return strlen(word) == n && strncasecmp(s, word, n) == 0;
}

/* How well a media range fits: 0 not; 1 for everything, 2 the same kind, 3 the type itself. */
static int fits(const char *range, size_t n, const char *type)
{
    const char *slash = strchr(type, '/');
    size_t kind = (size_t)(slash - type);
    if (same_word(range, n, type))
        return 3;
    if (n == 3 && strncmp(range, "*/*", 3) == 0)
        return 1;
    return n == kind + 2 && strncasecmp(range, type, kind + 1) == 0 && range[n - 1] == '*' ? 2 : 0;
}

/* "0.5" in thousandths; 1000 for what is none. */
static int weight(const char *s, size_t n)
{
    int v = 0, digit = 1000;
    if (n == 0 || (*s != '0' && *s != '1'))
        return 1000;
    v = (*s - '0') * 1000;
    for (size_t i = 2; i < n && i < 5 && s[1] == '.' && s[i] >= '0' && s[i] <= '9'; i++)
        v += (s[i] - '0') * (digit /= 10);
    return v > 1000 ? 1000 : v;
}

/* In thousandths; the most specific range decides. */
static int quality(const char *accept, const char *type, bool version_1)
{
    int best = 0, q = 0;
    for (const char *at = accept; *at != 0; at += *at == ',') {
        size_t n = strcspn(at, ",");
        const char *end = at + n, *semi = memchr(at, ';', n);
        const char *lo = at, *hi = semi != NULL ? semi : end;
        while (lo < hi && is_space(*lo))
            lo++;
        while (hi > lo && is_space(hi[-1]))
            hi--;
        int fit = fits(lo, (size_t)(hi - lo), type), its = 1000;
        for (const char *p = semi; p != NULL && p < end;) {
            const char *next = memchr(p + 1, ';', (size_t)(end - p - 1)), *stop = next != NULL ? next : end, *eq = memchr(p, '=', (size_t)(stop - p));
            const char *key = p + 1, *value = eq != NULL ? eq + 1 : stop;
            while (key < stop && is_space(*key))
                key++;
            while (stop > value && is_space(stop[-1]))
                stop--;
            if (eq != NULL && same_word(key, (size_t)(eq - key), "q"))
                its = weight(value, (size_t)(stop - value));
            else if (eq != NULL && version_1 && same_word(key, (size_t)(eq - key), "version") && !same_word(value, (size_t)(stop - value), "1.0.0"))
                fit = 0;
            p = next;
        }
        if (fit > best || (fit == best && fit != 0 && its > q)) {
            best = fit;
            q = its;
        }
        at = end;
    }
    return q;
}

bool accept_prefers(const char *accept, const char *type, const char *otherwise)
{
    return accept != NULL && quality(accept, type, true) > quality(accept, otherwise, false);
}

static bool wants_json(struct request *r)
{
    const char *format = request_query(r, "format");
    return format[0] != 0 ? strcmp(format, "json") == 0 : accept_prefers(request_header(r, "Accept"), "application/json", "text/plain");
}

/* ---- documents ------------------------------------------------------------------------------------------------------------------ */

static struct kept {
    pthread_mutex_t lock; /* the rest; held while it is made, so that one does it for all */
    struct buf text;
    int64_t until_ns;
    uint64_t life; /* of the runtime that it tells of */
} documents[DOCUMENTS_MAX][2] = { [0 ... DOCUMENTS_MAX - 1] = { { .lock = PTHREAD_MUTEX_INITIALIZER }, { .lock = PTHREAD_MUTEX_INITIALIZER } } };

/* -1: there is none of that name. */
static int number_of(const char *name)
{
    const char *what;
    for (int i = 0; i < DOCUMENTS_MAX && (what = weft_debug_what((unsigned)i)) != NULL; i++)
        if (strcmp(what, name) == 0)
            return i;
    return -1;
}

static int make(int number, bool json, struct buf *to)
{
    const char *what = weft_debug_what((unsigned)number);
    return json ? weft_debug_json(what, buf_write, to) : weft_debug_text(what, buf_write, to);
}

/* A copy of what is kept, or a new one, in *to. */
static int get(int number, bool json, struct buf *to)
{
    struct kept *k = &documents[number][json];
    pthread_mutex_lock(&k->lock);
    int64_t begin = now_ns();
    bool runs = weft_running();
    uint64_t life = weft_life();
    int err = 0;
    if (k->text.at == NULL || begin >= k->until_ns || !runs || k->life != life) { /* what was kept is not of a runtime that has ended */
        buf_free(&k->text);
        k->life = life; /* or of a later one, if that starts now: then it is made once more */
        err = make(number, json, &k->text);
        int64_t end = now_ns();
        k->until_ns = end + KEPT_TIMES * (end - begin);
        if (err != 0 || end - begin < COSTLY_NS) {
            *to = k->text;
            k->text = (struct buf){ 0 };
        }
    }
    if (k->text.at != NULL)
        buf_add(to, k->text.at, k->text.n);
    pthread_mutex_unlock(&k->lock);
    return err != 0 ? err : to->failed ? -ENOMEM : 0;
}

void api_forget(void)
{
    for (int i = 0; i < DOCUMENTS_MAX; i++)
        for (int json = 0; json < 2; json++) {
            struct kept *k = &documents[i][json];
            pthread_mutex_lock(&k->lock);
            buf_free(&k->text);
            pthread_mutex_unlock(&k->lock);
        }
}

/* In the child of a fork: somebody may have held a lock, and been making what it guards. */
void api_after_fork(void)
{
    for (int i = 0; i < DOCUMENTS_MAX; i++)
        for (int json = 0; json < 2; json++)
            documents[i][json] = (struct kept){ .lock = PTHREAD_MUTEX_INITIALIZER };
}

static int answer(struct request *r, int number, bool json)
{
    struct buf t = { 0 };
    int err = get(number, json, &t);
    request_set_header(r, "Cache-Control", "no-store");
    if (err == 0) {
        if (json)
            request_type(r, "application/json; charset=utf-8");
        err = request_write(r, t.at, t.n);
    }
    buf_free(&t);
    return err;
}

int api_document(struct request *r)
{
    const char *name = request_rest(r), *what;
    int number = number_of(name);
    if (number >= 0)
        return answer(r, number, true);
    if (name[0] != 0)
        return request_fail(r, 404, "there is no document \"%.60s\": /debug/api/ lists them", name);
    request_type(r, "application/json; charset=utf-8");
    request_puts(r, "{\"documents\":[");
    for (unsigned i = 0; (what = weft_debug_what(i)) != NULL; i++)
        request_printf(r, "%s\"%s\"", i != 0 ? "," : "", what);
    return request_puts(r, "]}\n");
}

int api_text(struct request *r)
{
    int number = number_of(request_path(r) + sizeof "/debug/" - 1);
    bool json = wants_json(r);
    request_set_header(r, "Vary", "Accept");
    return number >= 0 ? answer(r, number, json) : request_fail(r, 404, "there is no such document");
}

/* ---- the heap's objects ---------------------------------------------------------------------------------------------------------- */

static int why_alive(struct request *r, const char *address)
{
    char *end;
    bool json = wants_json(r);
    errno = 0;
    uintptr_t at = strtoull(address, &end, 0);
    if (errno != 0 || *end != 0 || at == 0)
        return request_fail(r, 400, "\"why\" must be an address, such as 0x7f0012345678");
    if (!request_heavy(r))
        return 0;
    if (json)
        request_type(r, "application/json; charset=utf-8");
    int err = weft_why_alive((const void *)at, request_write, r, json ? WEFT_FORM_JSON : WEFT_FORM_TEXT);
    return err == -ENOENT ? request_fail(r, 404, "there is no live object at 0x%lx", (unsigned long)at) : err;
}

int api_heap(struct request *r)
{
    const char *why = request_query(r, "why");
    if (why[0] != 0)
        return why_alive(r, why);
    if (request_query(r, "dump")[0] != '1')
        return api_text(r);
    if (!request_heavy(r))
        return 0;
    request_type(r, "application/json; charset=utf-8");
    return weft_heap_dump(request_write, r);
}

/* ---- the flight recorder -------------------------------------------------------------------------------------------------------- */

int api_flight(struct request *r)
{
    request_type(r, "application/octet-stream");
    request_set_header(r, "Content-Disposition", "attachment; filename=\"flight.trace\"");
    int err = weft_flight_recorder_snapshot(request_write, r);
    if (err != -ESRCH && err != -EBUSY)
        return err;
    request_unset_headers(r, "Content-Disposition");
    if (err == -EBUSY)
        return request_fail(r, 409, "somebody else is reading what the flight recorder keeps");
    return request_fail(r, 404, "no flight recorder runs: weft_flight_recorder_start starts one");
}
