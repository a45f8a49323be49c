/* What tests of weft_why_alive and weft_heap_dump share: what was written, as one text. */
#ifndef WEFT_RETAIN_TEST_H
#define WEFT_RETAIN_TEST_H

#include "json_test.h"
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
