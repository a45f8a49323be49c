/* Text that grows, and stacks in it as Go's profiles show them. See text.c.
 *
 * Takes off-heap memory: inside the runtime, or on a thread that no stop ever stops. */
#ifndef WEFT_PROF_TEXT_H
#define WEFT_PROF_TEXT_H

#include "prof/trim.h"
#include <weft/base.h>

struct text_chunk;
struct text {
    struct text_chunk *first, *last;
    size_t bytes;
    bool nomem; /* something is missing; all that follows, too */
};

void text_put(struct text *t, const char *s, size_t n);
void text_puts(struct text *t, const char *s);
void text_putf(struct text *t, const char *fmt, ...) w_printf(2, 3); /* up to 255 bytes */
void text_quoted(struct text *t, const char *s); /* in quotation marks, what is no plain text escaped, as Go's %q */
/* In user code. 0 or w's error. */
int text_write(const struct text *t, weft_writer *w, void *ctx);
void text_free(struct text *t);

/* What lies at addresses, kept. */
struct text_places {
    struct trim *trim;
    struct store places, symbols;
    struct table table;
};
void text_places_init(struct text_places *p, struct trim *trim);
void text_places_free(struct text_places *p);

/* A line per function: "#", address, function+offset, file:line, in columns; a blank line at the end. trim_functions counts. */
void text_stack(struct text *t, struct text_places *p, const uintptr_t *pc, uint32_t n);

#endif
