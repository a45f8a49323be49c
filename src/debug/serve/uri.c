#include "debug/serve/uri.h"
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One character, escaped or not, of *at, before end. -1: the escape is wrong. */
static int decode_one(const char **at, const char *end, bool plus_is_space)
{
    const char *s = *at;
    if (*s == '%') {
        int hi = end - s > 2 ? hex_digit(s[1]) : -1, lo = hi >= 0 ? hex_digit(s[2]) : -1;
        *at = s + 3;
        return lo < 0 ? -1 : hi << 4 | lo;
    }
    *at = s + 1;
    return *s == '+' && plus_is_space ? ' ' : (unsigned char)*s;
}

bool uri_split(char *raw, struct uri *out)
{
    char *path = raw, *query = strchr(raw, '?'), *to;
    out->query = "";
    if (query != NULL) {
        *query = 0;
        out->query = query + 1;
    }
    if (*path != '/') { /* "http://host/path": what stands in front of the path says nothing here */
        char *host = strstr(path, "://");
        if (host == NULL)
            return false;
        path = strchr(host + 3, '/');
        if (path == NULL)
            return false;
    }
    out->path = to = path;
    const char *end = path + strlen(path);
    for (const char *from = path; from < end;) {
        int c = decode_one(&from, end, false);
        if (c <= 0)
            return false;
        *to++ = (char)c;
    }
    *to = 0;
    return true;
}

/* Decodes [from, end) and compares it with text. */
static bool decodes_to(const char *from, const char *end, const char *text)
{
    while (from < end) {
        int c = decode_one(&from, end, true);
        if (c <= 0 || c != (unsigned char)*text++)
            return false;
    }
    return *text == 0;
}

static bool decode(const char *from, const char *end, char *out, size_t room)
{
    size_t n = 0;
    while (from < end) {
        int c = decode_one(&from, end, true);
        if (c <= 0) /* a NUL is no part of any value we take */
            return false;
        if (n + 1 < room)
            out[n++] = (char)c;
    }
    out[n] = 0;
    return true;
}

bool uri_param(const char *query, const char *name, char *out, size_t room)
{
    for (const char *at = query, *next; *at != 0; at = next) {
        const char *end = strchrnul(at, '&');
        next = *end != 0 ? end + 1 : end;
        if (memchr(at, ';', (size_t)(end - at)) != NULL) /* as in Go: no separator, and no part of a parameter */
            continue;
        const char *equal = memchr(at, '=', (size_t)(end - at)), *value = equal != NULL ? equal + 1 : end;
        if (decodes_to(at, equal != NULL ? equal : end, name) && decode(value, end, out, room))
            return true;
    }
    out[0] = 0;
    return false;
}

/* The digits of a number, in the base, up to the end of the text. False: none, or something else; or more than max, and *out is max. */
static bool digits(const char *text, size_t n, unsigned base, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    bool over = false;
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        int d = hex_digit(text[i]);
        if (d < 0 || (unsigned)d >= base)
            return false;
        over = over || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, (unsigned)d, &v) || v > max;
    }
    *out = over ? max : v;
    return !over;
}

bool uri_int(const char *text, int64_t *out)
{
    bool minus = *text == '-';
    uint64_t v = 0, max = (uint64_t)INT64_MAX + minus;
    text += minus || *text == '+';
    bool good = digits(text, strlen(text), 10, max, &v);
    *out = minus ? (int64_t)-v : (int64_t)v;
    return good;
}

int64_t uri_atoi(const char *text)
{
    int64_t v;
    uri_int(text, &v);
    return v;
}

static locale_t c_locale;
static void c_locale_make(void) { c_locale = newlocale(LC_ALL_MASK, "C", NULL); } /* static in libc: never freed */

bool uri_float(const char *text, double *out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    char *end;
    pthread_once(&once, c_locale_make);
    *out = 0;
    if (c_locale == NULL || strlen(text) > 64 || strchr("0123456789+-.iInN", text[0]) == NULL || strpbrk(text, "xX(") != NULL)
        return false;
    *out = strtod_l(text, &end, c_locale);
    bool said_inf = strpbrk(text, "iI") != NULL;
    return end != text && *end == 0 && (said_inf || __builtin_isfinite(*out) || __builtin_isnan(*out));
}

bool uri_address(const char **text, size_t *n, uint64_t *out)
{
    if (*text == NULL)
        return false;
    const char *plus = memchr(*text, '+', *n), *word = *text;
    size_t len = plus != NULL ? (size_t)(plus - word) : *n;
    *text = plus != NULL ? plus + 1 : NULL;
    *n -= plus != NULL ? len + 1 : len;
    *out = 0;
    unsigned base = 10;
    if (len > 1 && word[0] == '0') {
        char kind = word[1] | 0x20;
        base = kind == 'x' ? 16 : kind == 'b' ? 2 : 8;
        size_t prefix = kind == 'x' || kind == 'b' || kind == 'o' ? 2 : 1;
        word += prefix;
        len -= prefix;
    }
    digits(word, len, base, UINT64_MAX, out);
    return true;
}
