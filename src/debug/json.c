/* See json.h. */
#include "debug/json.h"
#include <math.h>
#include <string.h>
#include "base/fmt.h"

#define EXACT_MAX ((UINT64_C(1) << 53) - 1)

static void next(struct json *j, const char *key)
{
    if (j->more & UINT64_C(1) << j->depth)
        text_put(j->t, ",", 1);
    j->more |= UINT64_C(1) << j->depth;
    if (key != NULL) {
        json_string(j->t, key);
        text_put(j->t, ":", 1);
    }
}

void json_open(struct json *j, const char *key, char kind)
{
    next(j, key);
    text_put(j->t, &kind, 1);
    j->depth++;
    w_debug_assert(j->depth < 64);
    j->more &= ~(UINT64_C(1) << j->depth);
}

void json_close(struct json *j, char kind)
{
    text_put(j->t, &kind, 1);
    j->depth--;
}

void json_u64(struct json *j, const char *key, uint64_t v)
{
    next(j, key);
    text_putf(j->t, v <= EXACT_MAX ? "%lu" : "\"%lu\"", (unsigned long)v);
}

void json_i64(struct json *j, const char *key, int64_t v)
{
    next(j, key);
    uint64_t size = v < 0 ? -(uint64_t)v : (uint64_t)v;
    text_putf(j->t, size <= EXACT_MAX ? "%ld" : "\"%ld\"", (long)v);
}

void json_f64(struct json *j, const char *key, double v)
{
    if (!(fabs(v) <= (double)EXACT_MAX)) {
        json_null(j, key);
        return;
    }
    next(j, key);
    uint64_t whole = (uint64_t)fabs(v), millionths = (uint64_t)((fabs(v) - (double)whole) * 1e6 + 0.5);
    if (millionths == 1000000) {
        whole++;
        millionths = 0;
    }
    char part[8] = "";
    if (millionths != 0) {
        size_t n = w_fmt(part, sizeof part, ".%06lu", (unsigned long)millionths);
        while (part[n - 1] == '0')
            part[--n] = 0;
    }
    text_putf(j->t, "%s%lu%s", v < 0 && (whole != 0 || millionths != 0) ? "-" : "", (unsigned long)whole, part);
}

void json_bool(struct json *j, const char *key, bool v)
{
    next(j, key);
    text_puts(j->t, v ? "true" : "false");
}

void json_null(struct json *j, const char *key)
{
    next(j, key);
    text_puts(j->t, "null");
}

void json_limit(struct json *j, const char *key, uint64_t v)
{
    if (v >= (uint64_t)INT64_MAX)
        json_null(j, key);
    else
        json_u64(j, key, v);
}

/* ---- strings ------------------------------------------------------------------------------------------------------ */

/* Bytes of the character at s, of n; 0: it is none. No overlong forms, no surrogates, nothing beyond U+10FFFF: RFC 3629. */
static size_t utf8(const unsigned char *s, size_t n)
{
    unsigned c = s[0], least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++, least = 0x80, most = 0xbf)
        if (s[i] < least || s[i] > most)
            return 0;
    return len;
}

static size_t plain(const unsigned char *s, size_t n)
{
    size_t i = 0, len;
    while (i < n && s[i] >= ' ' && s[i] != '"' && s[i] != '\\' && s[i] != 0x7f && (len = utf8(s + i, n - i)) != 0)
        i += len;
    return i;
}

void json_string(struct text *t, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t n = strlen(text);
    text_put(t, "\"", 1);
    while (n > 0) {
        size_t k = plain(s, n);
        text_put(t, (const char *)s, k);
        s += k;
        n -= k;
        if (n == 0)
            break;
        if (*s == '"' || *s == '\\')
            text_putf(t, "\\%c", *s);
        else if (*s < 0x80)
            text_putf(t, "\\u%04x", *s);
        else
            text_puts(t, "\xef\xbf\xbd");
        s++;
        n--;
    }
    text_put(t, "\"", 1);
}

void json_str(struct json *j, const char *key, const char *s)
{
    if (s == NULL) {
        json_null(j, key);
        return;
    }
    next(j, key);
    json_string(j->t, s);
}
