/* Profiles as `go tool pprof` reads them (profile.proto): decoded, whatever the bytes are. Identifiers that lead nowhere stand for nothing. */
#ifndef WEFT_CMD_PROFILE_H
#define WEFT_CMD_PROFILE_H

#include "debug/cmd/map.h"
#include "debug/cmd/report.h"

struct profile_function { uint64_t name, file; };               /* numbers of strings */
struct profile_line { uint64_t function, line; };               /* function: its id */
struct profile_location { uint64_t address; size_t line, nlines; }; /* lines from there */
struct profile_sample { size_t location, nlocations, value, nvalues; }; /* ids of locations, innermost first, and values, from there */
struct profile_type { uint64_t type, unit; };                   /* numbers of strings */

struct profile {
    char **string;
    struct profile_function *function;
    struct profile_line *line;
    struct profile_location *location;
    struct profile_sample *sample;
    struct profile_type *type, period_type;
    uint64_t *id, *comment; /* of locations of samples; numbers of strings */
    int64_t *value;
    int64_t time_ns, duration_ns, period;
    size_t nstrings, nfunctions, nlines, nlocations, nsamples, ntypes, nids, ncomments, nvalues;
    size_t strings_room, functions_room, lines_room, locations_room, samples_room, types_room, ids_room, comments_room, values_room;
    struct map functions, locations; /* by id */
};

/* NULL: it is none; *why says why. */
struct profile *profile_read(const uint8_t *data, size_t n, const char **why);
void profile_free(struct profile *p); /* may be NULL */

const char *profile_string(const struct profile *p, uint64_t i); /* "" if there is none */
/* The number of the values of that type ("contentions"), or -1. */
int profile_type(const struct profile *p, const char *type);
int64_t profile_value(const struct profile *p, const struct profile_sample *s, int type);
/* Calls fn for each frame from the innermost one on, inlined ones included, until it returns false. file may be "". */
struct profile_frame { const char *function, *file; uint64_t line; };
void profile_frames(const struct profile *p, const struct profile_sample *s, bool (*fn)(void *arg, const struct profile_frame *f), void *arg);
/* The stack as text, a frame a line. */
void profile_stack(const struct profile *p, const struct profile_sample *s, struct text *t);

#endif
