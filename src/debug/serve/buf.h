/* Text that grows, in the host's memory. A failure is kept: what follows is dropped. */
#ifndef WEFT_SERVE_BUF_H
#define WEFT_SERVE_BUF_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buf { char *at; size_t n, room; bool failed; };

static inline bool buf_room(struct buf *t, size_t more)
{
    if (t->failed || more <= t->room - t->n)
        return !t->failed;
    size_t room = t->room == 0 ? 4096 : t->room;
    while (room < t->n + more)
        room *= 2;
    char *at = realloc(t->at, room);
    t->failed = at == NULL;
    if (at == NULL)
        return false;
    t->at = at;
    t->room = room;
    return true;
}

static inline void buf_add(struct buf *t, const void *data, size_t n)
{
    if (buf_room(t, n)) {
        memcpy(t->at + t->n, data, n);
        t->n += n;
    }
}

static inline void buf_puts(struct buf *t, const char *s) { buf_add(t, s, strlen(s)); }

static inline void __attribute__((format(printf, 2, 3))) buf_printf(struct buf *t, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    buf_add(t, line, n < (int)sizeof line ? (size_t)n : sizeof line - 1);
}

static inline void buf_free(struct buf *t)
{
    free(t->at);
    *t = (struct buf){ 0 };
}

/* A weft_writer into it. */
static inline int buf_write(void *ctx, const void *data, size_t n)
{
    struct buf *t = ctx;
    buf_add(t, data, n);
    return t->failed ? -ENOMEM : 0;
}

#endif
