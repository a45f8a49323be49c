/* Profiles for pprof, written as a stream of pieces. See pprof.c.
 *
 *     p = pprof_open(&kind, time)
 *     pprof_add(p, ...) for each sample        }  as often as one likes: after each pprof_write
 *     pprof_encode(p, symbolizer, duration)    }  the file is a complete profile of all samples
 *     pprof_write(p, writer, ctx)              }  that were encoded
 *     pprof_close(p)
 *
 * One thread at a time; no locking of its own. All but pprof_write and pprof_stats take or free off-heap memory: inside the runtime, or on a
 * thread that no stop ever stops. pprof_encode also asks the symbolizer and may load zlib: on the latter kind only (the helper of dump.c is one). */
#ifndef WEFT_PROF_PPROF_H
#define WEFT_PROF_PPROF_H

#include "base/base.h"
#include "prof/gzip.h"
#include <weft/base.h>

#define PPROF_VALUES_MAX 4u    /* numbers per sample */
#define PPROF_DEPTH_MAX 1024u  /* frames per sample */
#define PPROF_LABELS_MAX 64u   /* labels per sample */
#define PPROF_FRAMES_MAX 16u   /* functions at one address, the inlined ones included */

struct pprof;

struct pprof_value { const char *type, *unit; }; /* such as "cpu", "nanoseconds" */

/* What is said once. Texts are copied; NULL: none. */
struct pprof_kind {
    struct pprof_value value[PPROF_VALUES_MAX];
    uint32_t values;                 /* how many; at least one, since pprof refuses a profile without */
    struct pprof_value period_type;
    int64_t period;
    const char *default_type;        /* the value shown unless asked otherwise; NULL: the last */
    const char *drop_frames, *keep_frames; /* regular expressions: frames that pprof leaves out, but for these */
    const char *doc_url;
    uint32_t highest_first;          /* samples of a piece come in the order of this value (the first is 1); 0: as they were first seen */
    size_t piece_bytes;              /* samples of a piece take no more memory than that; 0: as much as there is */
};

/* A text, or a number (text NULL) with its unit. Readers drop an empty text, and a number that is zero without a unit. Samples are equal only
 * if their labels come in the same order. */
struct pprof_label {
    const char *key, *text;
    int64_t num;
    const char *unit;
};

/* ---- what lies at an address --------------------------------------------------------------------- */

struct pprof_module {
    uintptr_t lo, hi;     /* whole pages, as in /proc/self/maps: of the code, and where in the file it begins */
    uint64_t offset;
    const char *path;
    const uint8_t *build_id;
    uint32_t build_id_bytes; /* 0: none */
};

struct pprof_frame {
    const char *func;     /* for people */
    const char *system;   /* for the linker; NULL: the same. pprof demangles those whose names are the same. */
    const char *file;     /* NULL: not known */
    uint32_t line, start; /* the function's first line; 0: not known */
};

/* To be embedded in what it needs. Both functions are asked for addresses that are new. */
struct pprof_symbolizer {
    bool (*module)(const struct pprof_symbolizer *s, uintptr_t addr, struct pprof_module *out); /* false: none */
    /* Innermost first, the last is not inlined; the number of them, at most PPROF_FRAMES_MAX; 0: not known. The texts stay till the next call. */
    uint32_t (*frames)(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *out);
    uintptr_t program;    /* an address in the program itself, which pprof names in its head; 0: not known */
    uint32_t generation;  /* another than before: modules may have come or gone */
};

/* ---- the stream -------------------------------------------------------------------------------------- */

/* NULL: no memory. time_ns: of the wall clock, when the profile began; 0: not told. */
struct pprof *pprof_open(const struct pprof_kind *kind, int64_t time_ns);
void pprof_close(struct pprof *p); /* what was not written is dropped; NULL is fine */

/* A sample: return addresses, innermost first (of a frame that was interrupted, its address + 1), and a number per value of the kind. None at all is
 * a sample, too. Equal ones of a piece are added up.
 * 0; -ENOMEM; -ENOSPC: the piece is full, encode it and add again; -EINVAL: too deep, or too many labels; or the writer's error. */
int pprof_add(struct pprof *p, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels);

/* A remark, for the next piece. 0, -ENOMEM or the writer's error. */
int pprof_comment(struct pprof *p, const char *text);

/* Makes a piece of all that was added since the last one; the first is made even of nothing. sym: NULL: addresses only. duration_ns: from time_ns to
 * now; the last one counts; 0: not told. 0; -ENOMEM: nothing has changed, and it may be tried again; or the writer's error. */
int pprof_encode(struct pprof *p, const struct pprof_symbolizer *sym, int64_t duration_ns);

/* Hands to w what was encoded and not yet written: a member, or several. From user code; anything may happen in w but a call for p.
 * 0 or w's error. After an error the stream is closed: nobody knows how much of the member has arrived, so nothing could follow it. This and all
 * later calls return that error; what was written before is whole. */
int pprof_write(struct pprof *p, weft_writer *w, void *ctx);

/* Takes what was encoded and not yet written, for the caller to write and free (gzip.h), in this order; then more may be added and encoded while
 * that is being written. Instead of pprof_write. */
struct gzip_bytes pprof_take(struct pprof *p);

struct pprof_stats {
    uint64_t pieces;            /* encoded */
    uint64_t proto_bytes;       /* encoded, before compression */
    uint64_t gzip_bytes;        /* encoded */
    uint64_t written_bytes;     /* w took them */
    size_t held_bytes;          /* off-heap, now */
    uint32_t samples;           /* different ones of the piece that is being collected */
};
void pprof_stats(const struct pprof *p, struct pprof_stats *out);

#endif
