/* What tests of weft_why_alive and weft_heap_dump share: what was written, as one text. */
#ifndef WEFT_RETAIN_TEST_H
#define WEFT_RETAIN_TEST_H

#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct said { char *text; size_t len, cap; };

static inline int said_write(void *ctx, const void *data, size_t n)
{
    struct said *s = ctx;
    if (s->len + n + 1 > s->cap) {
        s->cap = 2 * (s->len + n + 1);
        s->text = realloc(s->text, s->cap);
    }
    memcpy(s->text + s->len, data, n);
    s->len += n;
    s->text[s->len] = 0;
    return 0;
}

static inline void said_free(struct said *s)
{
    free(s->text);
    *s = (struct said){ 0 };
}

/* Behind a well-formed value; NULL: it is none. */
static inline const char *json_value(const char *p);
static inline const char *json_space(const char *p)
{
    while (*p == ' ' || *p == '\n')
        p++;
    return p;
}
static inline const char *json_string(const char *p)
{
    if (*p++ != '"')
        return NULL;
    for (; *p != '"'; p++)
        if ((unsigned char)*p < ' ' || (*p == '\\' && (*++p == 0 || strchr("\"\\/bfnrtu", *p) == NULL)))
            return NULL;
    return p + 1;
}
static inline const char *json_list(const char *p, char end, bool named)
{
    p = json_space(p + 1);
    if (*p == end)
        return p + 1;
    for (;; p = json_space(p + 1)) {
        if (named) {
            p = json_string(p);
            if (p == NULL || *(p = json_space(p)) != ':')
                return NULL;
            p = json_space(p + 1);
        }
        if ((p = json_value(p)) == NULL)
            return NULL;
        p = json_space(p);
        if (*p == end)
            return p + 1;
        if (*p != ',')
            return NULL;
    }
}
static inline const char *json_value(const char *p)
{
    if (*p == '{')
        return json_list(p, '}', true);
    if (*p == '[')
        return json_list(p, ']', false);
    if (*p == '"')
        return json_string(p);
    const char *const words[] = { "true", "false", "null" };
    for (size_t i = 0; i < 3; i++)
        if (strncmp(p, words[i], strlen(words[i])) == 0)
            return p + strlen(words[i]);
    char *end;
    strtod(p, &end);
    return end != p ? end : NULL;
}
static inline bool is_json(const char *text)
{
    const char *end = json_value(json_space(text));
    return end != NULL && *json_space(end) == 0;
}

/* The number behind the first key of that name behind `after`, which is itself looked for; "" or NULL: from the beginning. -1: none. */
static inline double json_number(const char *text, const char *after, const char *key)
{
    char name[80];
    snprintf(name, sizeof name, "\"%s\":", key);
    const char *p = after != NULL && *after != 0 ? strstr(text, after) : text;
    p = p != NULL ? strstr(p, name) : NULL;
    return p != NULL ? strtod(p + strlen(name), NULL) : -1;
}

#endif
