/* text.h - text of many lines, printed into a buffer of fixed size; what does not fit is cut off. */
#ifndef KV_TEXT_H
#define KV_TEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

struct text {
    char *b;
    size_t n, cap;
};

__attribute__((format(printf, 2, 3))) static inline void text_add(struct text *t, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    size_t room = t->cap - t->n;
    int n = vsnprintf(t->b + t->n, room, format, ap);
    va_end(ap);
    if (n > 0)
        t->n += (size_t)n < room ? (size_t)n : room - 1;
}

#endif
