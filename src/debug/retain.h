/* What looking at the heap's objects has in common: the trail is taken by the caller, what is told of it is made on a helper, and handed to the
 * caller's writer. For why.c and heap_dump.c. */
#ifndef WEFT_DEBUG_RETAIN_H
#define WEFT_DEBUG_RETAIN_H

#include <weft/base.h>
#include "gc/graph.h"
#include "prof/symbols.h"
#include "prof/text.h"

/* The first member of what its user needs besides. */
struct retain {
    bool fields;                     /* trail_take's */
    int (*make)(struct retain *r);   /* on the helper: fills text. 0 or an error */
    /* for make */
    struct trail t;
    struct text text;
    const struct maps *maps;
    int64_t wall_ns;
    struct symbol scratch[SYMBOLS_INLINED_MAX];
    /* retain.c's */
    struct trail_taken *taken;
    int err;
};

/* r: zeroed but for what its user says. From user code. 0, -ESRCH, -ENOMEM, -EAGAIN, -E2BIG, or w's or make's error. */
int retain_run(struct retain *r, weft_writer *w, void *ctx);

/* JSON: an address, as a string. */
void retain_address(struct text *t, uintptr_t at);
/* What a shape is called: names of its types, or what is known of it. Not quoted; nothing in it needs it but for JSON's. */
size_t retain_type(char *to, size_t n, uint32_t shape);
const char *retain_kind(uint32_t shape); /* "typed", "conservative", "noscan" */
const char *retain_root_kind(unsigned kind);
/* "function at file.c:12", in a buffer. */
#define RETAIN_PLACE_BYTES 256u
void retain_place(struct retain *r, uintptr_t pc, char *to);
/* The innermost place that allocated it; "" if that is not known. */
void retain_site(struct retain *r, uint32_t i, char *to);

#endif
