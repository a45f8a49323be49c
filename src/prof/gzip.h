/* Members of a gzip file, made in memory. See gzip.c. */
#ifndef WEFT_PROF_GZIP_H
#define WEFT_PROF_GZIP_H

#include "base/base.h"
#include <weft/base.h>

struct gzip; /* one member, being made */

/* Whole members, in order, to be written. All zero: none. */
struct gzip_bytes {
    struct gzip_chunk *first, *last;
    size_t bytes;
};

/* NULL: no memory. These take memory of OFF_PROF, and the first may load zlib: not in a stop, and not with the loader's lock held. */
struct gzip *gzip_begin(void);
void gzip_put(struct gzip *g, const void *data, size_t n); /* what fails is told at the end */
/* Both let g go. 0: the member is appended to *to; -ENOMEM: nothing of it is. */
int gzip_end(struct gzip *g, struct gzip_bytes *to);
void gzip_drop(struct gzip *g);

/* 0 or the writer's error. Calls w and nothing else; a member of up to 64 KiB is written in one call. */
int gzip_write(const struct gzip_bytes *b, weft_writer *w, void *ctx);
/* Its bytes lie in one piece then, and are written in one call. False: no memory; nothing has changed. */
bool gzip_join(struct gzip_bytes *b);
void gzip_free(struct gzip_bytes *b);

extern bool gzip_without_zlib; /* for tests: as if it were not installed */

#endif
