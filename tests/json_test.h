/* JSON read back: a parser of our own, as strict as RFC 8259 and RFC 3629. Fails the test at what is none. */
#ifndef WEFT_JSON_TEST_H
#define WEFT_JSON_TEST_H

#include "pprof_test.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/debug.h>

enum js_kind { JS_NULL, JS_FALSE, JS_TRUE, JS_NUMBER, JS_STRING, JS_LIST, JS_OBJECT };

/* Members of an object have a key; of a list, none. Nothing is ever freed. */
struct js { enum js_kind kind; const char *key, *text; double number; struct js *first, *next; size_t n; };

struct js_in { const char *at, *end; unsigned depth; };

static inline void js_space(struct js_in *in)
{
    while (in->at < in->end && strchr(" \t\r\n", *in->at) != NULL && *in->at != 0)
        in->at++;
}

#define js_must(in, cond) cr_assert(cond, "no JSON at \"%.60s\": %s", (in)->at, #cond)

static inline unsigned js_hex(struct js_in *in)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++, in->at++) {
        js_must(in, in->at < in->end && strchr("0123456789abcdefABCDEF", *in->at) != NULL && *in->at != 0);
        v = v * 16 + (unsigned)(*in->at <= '9' ? *in->at - '0' : (*in->at | 32) - 'a' + 10);
    }
    return v;
}

static inline char *js_put(char *to, uint32_t c)
{
    if (c < 0x80)
        return *to = (char)c, to + 1;
    int n = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *to++ = (char)((n == 1 ? 0xc0 : n == 2 ? 0xe0 : 0xf0) | c >> 6 * n);
    while (n-- > 0)
        *to++ = (char)(0x80 | (c >> 6 * n & 0x3f));
    return to;
}

static inline size_t js_utf8(struct js_in *in)
{
    const unsigned char *s = (const unsigned char *)in->at;
    size_t room = (size_t)(in->end - in->at), n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    js_must(in, n != 0 && n <= room);
    for (size_t i = 1; i < n; i++)
        js_must(in, (s[i] & 0xc0) == 0x80);
    js_must(in, !(s[0] == 0xe0 && s[1] < 0xa0) && !(s[0] == 0xed && s[1] > 0x9f) && !(s[0] == 0xf0 && s[1] < 0x90) && !(s[0] == 0xf4 && s[1] > 0x8f));
    return n;
}

static inline const char *js_text(struct js_in *in)
{
    js_must(in, *in->at++ == '"');
    const char *quote = in->at;
    while (quote < in->end && *quote != '"')
        quote += *quote == '\\' ? 2 : 1;
    char *text = malloc((size_t)(quote - in->at) + 2), *to = text;
    for (;;) {
        js_must(in, in->at < in->end && (unsigned char)*in->at >= ' ');
        if (*in->at == '"')
            break;
        if (*in->at != '\\') {
            for (size_t n = js_utf8(in); n > 0; n--)
                *to++ = *in->at++;
            continue;
        }
        static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        const char *p = in->at + 1 < in->end ? strchr(names, in->at[1]) : NULL;
        if (p != NULL && *p != 0) {
            *to++ = values[p - names];
            in->at += 2;
            continue;
        }
        js_must(in, in->at[1] == 'u');
        in->at += 2;
        uint32_t c = js_hex(in);
        js_must(in, c < 0xd800 || c > 0xdfff); /* ours writes none in two halves */
        to = js_put(to, c);
    }
    in->at++;
    *to = 0;
    return text;
}

static inline void js_number(struct js_in *in, struct js *v)
{
    const char *s = in->at;
    s += *s == '-';
    js_must(in, *s >= '0' && *s <= '9');
    if (*s++ != '0')
        while (*s >= '0' && *s <= '9')
            s++;
    if (*s == '.') {
        js_must(in, s[1] >= '0' && s[1] <= '9');
        for (s++; *s >= '0' && *s <= '9';)
            s++;
    }
    js_must(in, *s != 'e' && *s != 'E'); /* allowed, but not ours */
    v->kind = JS_NUMBER;
    v->number = strtod(in->at, NULL);
    js_must(in, v->number <= 9007199254740991. && v->number >= -9007199254740991.);
    in->at = s;
}

static inline struct js *js_value(struct js_in *in)
{
    struct js *v = calloc(1, sizeof *v), **last = &v->first;
    js_space(in);
    js_must(in, in->at < in->end && ++in->depth < 32);
    if (*in->at == '{' || *in->at == '[') {
        char close = *in->at++ == '{' ? '}' : ']';
        v->kind = close == '}' ? JS_OBJECT : JS_LIST;
        for (js_space(in); *in->at != close; js_space(in)) {
            const char *key = NULL;
            if (v->n > 0) {
                js_must(in, *in->at++ == ',');
                js_space(in);
            }
            if (close == '}') {
                key = js_text(in);
                for (struct js *k = v->first; k != NULL; k = k->next)
                    cr_assert_str_neq(k->key, key, "twice: %s", key);
                js_space(in);
                js_must(in, *in->at++ == ':');
            }
            *last = js_value(in);
            (*last)->key = key;
            last = &(*last)->next;
            v->n++;
        }
        in->at++;
    } else if (*in->at == '"') {
        v->kind = JS_STRING;
        v->text = js_text(in);
    } else if (strncmp(in->at, "true", 4) == 0) {
        v->kind = JS_TRUE, in->at += 4;
    } else if (strncmp(in->at, "false", 5) == 0) {
        v->kind = JS_FALSE, in->at += 5;
    } else if (strncmp(in->at, "null", 4) == 0) {
        v->kind = JS_NULL, in->at += 4;
    } else {
        js_number(in, v);
    }
    in->depth--;
    return v;
}

/* text ends in NUL. */
static inline struct js *js_parse(const char *text)
{
    struct js_in in = { text, text + strlen(text), 0 };
    struct js *v = js_value(&in);
    js_space(&in);
    js_must(&in, in.at == in.end);
    return v;
}

/* By a path of keys and, in lists, numbers: "threads.list.0.id". NULL: it is not there. */
static inline const struct js *js_find(const struct js *v, const char *path)
{
    while (v != NULL && *path != 0) {
        size_t n = strcspn(path, ".");
        const struct js *k = v->first;
        if (v->kind == JS_LIST)
            for (long i = atol(path); k != NULL && i > 0; i--)
                k = k->next;
        else
            while (k != NULL && !(strlen(k->key) == n && strncmp(k->key, path, n) == 0))
                k = k->next;
        v = k;
        path += n + (path[n] == '.');
    }
    return v;
}

static inline const struct js *js_at(const struct js *v, const char *path)
{
    const struct js *k = js_find(v, path);
    cr_assert_not_null(k, "there is no %s", path);
    return k;
}

/* A count, also one that is a string of digits. */
static inline double js_num(const struct js *v, const char *path)
{
    const struct js *k = js_at(v, path);
    cr_assert(k->kind == JS_NUMBER || k->kind == JS_STRING, "%s is no number", path);
    return k->kind == JS_NUMBER ? k->number : strtod(k->text, NULL);
}

static inline const char *js_str(const struct js *v, const char *path)
{
    const struct js *k = js_at(v, path);
    cr_assert_eq(k->kind, JS_STRING, "%s is no string", path);
    return k->text;
}

static inline bool js_is_null(const struct js *v, const char *path) { return js_at(v, path)->kind == JS_NULL; }
static inline bool js_true(const struct js *v, const char *path) { return js_at(v, path)->kind == JS_TRUE; }

/* The member of a list in which key is that text; NULL: none. */
static inline const struct js *js_with(const struct js *list, const char *key, const char *text)
{
    const struct js *m = list->first;
    while (m != NULL && strcmp(js_str(m, key), text) != 0)
        m = m->next;
    return m;
}

/* A document of the library's. */
static inline struct js *js_document(const char *what)
{
    struct sink s = { 0 };
    int err = weft_debug_json(what, sink_write, &s);
    cr_assert_eq(err, 0, "%s: %s", what, weft_strerror(err));
    struct js *v = js_parse(s.text);
    cr_assert_eq(v->kind, JS_OBJECT);
    sink_free(&s);
    return v;
}

#endif
