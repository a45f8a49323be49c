/* Profiles by name: what the built-in ones are, and how a profile gets from what was counted to a file. See profile.c.
 *
 * To add a built-in profile: a struct profile_kind in the file that collects for it, and its line in the table of profile.c. */
#ifndef WEFT_PROF_PROFILE_H
#define WEFT_PROF_PROFILE_H

#include "os/maps.h"
#include "prof/pprof.h"

struct profile_out;

/* The text that debug 1 gives, and the order of samples: Go's. */
enum profile_style {
    PROFILE_COUNTS, /* one value; the highest first */
    PROFILE_HEAP,   /* four: objects and bytes allocated, in use; the fewest bytes in use first in text */
    PROFILE_WAITS,  /* two: contentions and ns; the longest first */
};

/* flags */
enum {
    PROFILE_FROM_CALL = 1,   /* stacks begin with the public call, without the frames of the runtime inside of it (trim.h) */
    PROFILE_FROM_CALLER = 2, /* ... with who called it; a stack that is the runtime's as a whole stays as it is */
    PROFILE_DELTA = 4,       /* what happened in a window is a sensible question: weft_profile_delta_begin */
};

struct profile_kind {
    const char *name;
    const char *also;                /* another name that weft_profile_lookup knows; NULL: none */
    enum profile_style style;
    unsigned flags;
    struct pprof_value value[PPROF_VALUES_MAX];
    uint32_t values;
    struct pprof_value period_type;
    int64_t (*period)(void);         /* NULL: 1. Of PROFILE_HEAP the mean bytes between samples, of PROFILE_WAITS the fraction (text only) */
    const char *default_type;        /* as in pprof_kind */
    int64_t (*count)(void);          /* for weft_profile_count. Inside the runtime */

    /* What must be done first, by the caller's own fiber or thread, outside of the runtime: a collection, say. It may block and move. debug as in
     * weft_profile_write. 0 or the error that weft_profile_write returns. NULL: nothing. */
    int (*prepare)(int debug);

    /* Hands every sample to profile_sample, in any order; those with equal stacks and labels are added up, those whose values are all zero left
     * out. It runs on a helper (helper.h), between maps_begin and maps_end, not within maps_hold, while the runtime cannot end: what it needs the
     * loader's or libunwind's locks for is fine, rt_enter is not. 0 or an error. */
    int (*collect)(struct profile_out *o);

    /* debug 2 and above, instead of all this: in user code, on the caller's own stack. NULL: the same as debug 1. */
    int (*write_text)(weft_writer *w, void *ctx);
};

/* For collect. 0; -ENOMEM; or what pprof_add says. Everything is copied. value: as many as the kind has, unscaled for PROFILE_HEAP in text
 * (profile_is_text). Labels in an order of their own, the same for all samples: by key. */
int profile_sample(struct profile_out *o, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels);
bool profile_is_text(const struct profile_out *o);
const struct maps *profile_maps(const struct profile_out *o); /* as of maps_begin */

/* block.c: as weft_set_block_profile_rate has set it; 0: off. Any time. */
int64_t block_profile_rate(void);

#endif
