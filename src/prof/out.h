/* A profile on its way from samples to bytes. See out.c. For profile.c. */
#ifndef WEFT_PROF_OUT_H
#define WEFT_PROF_OUT_H

#include "prof/buckets.h"
#include "prof/profile.h"
#include "prof/text.h"
#include <weft/mem.h>

enum out_form {
    OUT_PROTO, /* for pprof */
    OUT_TEXT,
    OUT_DELTA, /* for pprof: out_collect twice, and what has changed is written */
};

struct profile_out {
    const struct profile_kind *kind;
    void *owner;             /* for collect functions of profile.c */
    enum out_form form;
    uint64_t run;            /* the life of the runtime in which it began */
    int64_t began_ns;        /* OUT_DELTA: first collection; by the monotonic clock */
    int64_t wall_ns;         /* last collection */
    weft_mem_stats *stats;   /* PROFILE_HEAP as text: as of then */
    /* while a helper works */
    const struct maps *maps;
    struct trim trim;
    int64_t sign;
    int err;
    /* what there is so far */
    struct pprof *pprof;     /* OUT_PROTO: from out_begin on; OUT_DELTA: at the end */
    struct buckets sums;     /* the other two: by stack, with the number of a set of labels as the tag */
    struct store sets;
    struct table set_table;
    struct text text;
};

/* Off-heap memory: inside the runtime, or on a thread that no stop stops. NULL: no memory. */
struct profile_out *out_new(const struct profile_kind *kind, enum out_form form, void *owner);
void out_free(struct profile_out *o);

/* On a helper, between maps_begin and maps_end. 0 or an error. out_collect asks the kind; after it the runtime may end. out_make makes the bytes. */
int out_collect(struct profile_out *o, const struct maps *maps);
int out_make(struct profile_out *o);

/* In user code. 0 or w's error. */
int out_write(struct profile_out *o, weft_writer *w, void *ctx);

#endif
