/* Profiles read back: a decoder of our own for pprof's format, which refuses whatever pprof would. Fails the test then. */
#ifndef WEFT_PPROF_TEST_H
#define WEFT_PPROF_TEST_H

#include "test.h"

struct pp_value_type { const char *type, *unit; };
struct pp_function { uint64_t id; const char *name, *system, *file; int64_t start; };
struct pp_line { struct pp_function *function; int64_t line; };
struct pp_mapping { uint64_t id, lo, hi, offset; const char *file, *build_id; bool functions, files, lines, inlined; };
struct pp_location { uint64_t id, address; struct pp_mapping *mapping; struct pp_line *line; size_t lines; };
struct pp_label { const char *key, *text, *unit; int64_t num; };
struct pp_sample {
    struct pp_location **location;
    int64_t *value;
    struct pp_label *label;
    size_t locations, values, labels;
};

/* A decoded profile. Nothing is ever freed: a test is a process. */
struct pp {
    const char **string;
    struct pp_value_type *type, period_type;
    struct pp_sample *sample;
    struct pp_mapping *mapping;
    struct pp_location *location;
    struct pp_function *function;
    const char **comment, *drop_frames, *keep_frames, *default_type, *doc_url;
    size_t strings, types, samples, mappings, locations, functions, comments;
    int64_t time, duration, period;
    size_t bytes; /* before compression */
};

/* What a writer got, with a zero behind it: ctx of sink_write. Nothing written: NULL. */
struct sink {
    union { uint8_t *bytes; char *text; };
    size_t len, room;
    unsigned calls;
    int err;         /* != 0: returned by call number fail_at (0: the first), and by all after it */
    unsigned fail_at;
};
int sink_write(void *ctx, const void *data, size_t n);
void sink_free(struct sink *s); /* and empties it */

/* All members of a gzip file. *members: how many; ends: where each of them ends, room for 1000; both may be NULL. */
uint8_t *pp_gunzip(const void *file, size_t n, size_t *len, size_t *members, size_t *ends);
struct pp *pp_decode(const void *file, size_t n);

/* A sample as text: "leaf;middle;root", what is inlined in parentheses, hexadecimal addresses where there is no name; then each label, " key=text",
 * or " key=16unit". */
const char *pp_text(const struct pp_sample *s);
/* The sum of the value over all samples of that text; and how many there are. */
int64_t pp_sum(const struct pp *p, const char *text, size_t value);
size_t pp_count(const struct pp *p, const char *text);

#endif
