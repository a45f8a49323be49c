#include "debug/cmd/profile.h"
#include <inttypes.h>
#include <string.h>

#define FRAMES_SHOWN 24
#define FRAMES_MAX 4096 /* of a stack; a location may have any number of lines, and a sample any number of locations */

/* ---- fields --------------------------------------------------------------------------------------------------- */

struct in { const uint8_t *at, *end; bool bad; };
struct field { uint64_t no, num; bool is_bytes; struct in in; };

static uint64_t number(struct in *in)
{
    uint64_t v = 0;
    for (unsigned shift = 0; in->at < in->end && shift < 64; shift += 7) {
        uint8_t b = *in->at++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
    in->bad = true;
    in->at = in->end;
    return 0;
}

static bool skip(struct in *in, uint64_t n)
{
    if (n > (uint64_t)(in->end - in->at)) {
        in->bad = true;
        in->at = in->end;
        return false;
    }
    in->at += n;
    return true;
}

/* The next field; false: there is none, or in->bad. Of the wire types those that have been in use since 2008: 0, 1, 2, 5. */
static bool next(struct in *in, struct field *f)
{
    if (in->at == in->end)
        return false;
    uint64_t head = number(in);
    *f = (struct field){ .no = head >> 3, .is_bytes = (head & 7) == 2 };
    switch (head & 7) {
    case 0: f->num = number(in); break;
    case 1: skip(in, 8); break;
    case 5: skip(in, 4); break;
    case 2:
        f->num = number(in);
        f->in = (struct in){ in->at, in->at, false };
        if (skip(in, f->num))
            f->in.end = in->at;
        break;
    default: in->bad = true;
    }
    in->bad |= f->no == 0;
    return !in->bad;
}

/* The numbers of a field that may be packed, one by one. */
static bool next_number(struct in *outer, struct field *f, uint64_t *v)
{
    if (!f->is_bytes) {
        if (f->no == 0)
            return false;
        f->no = 0; /* it has been seen */
        *v = f->num;
        return true;
    }
    if (f->in.at == f->in.end)
        return false;
    *v = number(&f->in);
    outer->bad |= f->in.bad;
    return !f->in.bad;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

#define APPEND(p, array, n, room, ...) \
    do { \
        MUST_ROOM((p)->array, (p)->n, (p)->room); \
        (p)->array[(p)->n++] = __VA_ARGS__; \
    } while (0)

static bool read_type(struct in in, struct profile_type *t)
{
    *t = (struct profile_type){ 0 };
    for (struct field f; next(&in, &f);)
        *(f.no == 1 ? &t->type : &t->unit) = f.num;
    return !in.bad;
}

static bool read_sample(struct profile *p, struct in in)
{
    struct profile_sample s = { .location = p->nids, .value = p->nvalues };
    for (struct field f; next(&in, &f);) {
        uint64_t v;
        if (f.no == 1)
            while (next_number(&in, &f, &v))
                APPEND(p, id, nids, ids_room, v);
        else if (f.no == 2)
            while (next_number(&in, &f, &v))
                APPEND(p, value, nvalues, values_room, (int64_t)v);
    }
    s.nlocations = p->nids - s.location;
    s.nvalues = p->nvalues - s.value;
    APPEND(p, sample, nsamples, samples_room, s);
    return !in.bad;
}

static bool read_line(struct profile *p, struct in in)
{
    struct profile_line l = { 0, 0 };
    for (struct field f; next(&in, &f);)
        if (f.no <= 2)
            *(f.no == 1 ? &l.function : &l.line) = f.num;
    APPEND(p, line, nlines, lines_room, l);
    return !in.bad;
}

static bool read_location(struct profile *p, struct in in)
{
    uint64_t id = 0;
    struct profile_location l = { .line = p->nlines };
    for (struct field f; next(&in, &f);)
        if (f.no == 1)
            id = f.num;
        else if (f.no == 3)
            l.address = f.num;
        else if (f.no == 4 && f.is_bytes)
            in.bad |= !read_line(p, f.in);
    l.nlines = p->nlines - l.line;
    map_put(&p->locations, id, (uint32_t)p->nlocations);
    APPEND(p, location, nlocations, locations_room, l);
    return !in.bad;
}

static bool read_function(struct profile *p, struct in in)
{
    uint64_t id = 0;
    struct profile_function fn = { 0, 0 };
    for (struct field f; next(&in, &f);)
        if (f.no == 1)
            id = f.num;
        else if (f.no == 2)
            fn.name = f.num;
        else if (f.no == 4)
            fn.file = f.num;
    map_put(&p->functions, id, (uint32_t)p->nfunctions);
    APPEND(p, function, nfunctions, functions_room, fn);
    return !in.bad;
}

static bool read_field(struct profile *p, struct in *in, struct field *f)
{
    uint64_t v;
    switch (f->no) {
    case 1:
        MUST_ROOM(p->type, p->ntypes, p->types_room);
        return f->is_bytes && read_type(f->in, &p->type[p->ntypes++]);
    case 2: return f->is_bytes && read_sample(p, f->in);
    case 4: return f->is_bytes && read_location(p, f->in);
    case 5: return f->is_bytes && read_function(p, f->in);
    case 6:
        if (!f->is_bytes || p->nstrings >= MAP_NONE)
            return false;
        APPEND(p, string, nstrings, strings_room, must_dup((const char *)f->in.at, (size_t)(f->in.end - f->in.at)));
        return true;
    case 9: p->time_ns = (int64_t)f->num; return true;
    case 10: p->duration_ns = (int64_t)f->num; return true;
    case 11: return f->is_bytes && read_type(f->in, &p->period_type);
    case 12: p->period = (int64_t)f->num; return true;
    case 13:
        while (next_number(in, f, &v))
            APPEND(p, comment, ncomments, comments_room, v);
        return true;
    default: return true;
    }
}

struct profile *profile_read(const uint8_t *data, size_t n, const char **why)
{
    struct profile *p = must_alloc(sizeof *p);
    struct in in = { data, data + n, false };
    for (struct field f; next(&in, &f);)
        in.bad |= !read_field(p, &in, &f) || p->nlocations >= MAP_NONE - 1 || p->nfunctions >= MAP_NONE - 1;
    *why = in.bad ? "no profile: neither gzip, nor a message of profile.proto, nor a trace"
        : p->ntypes == 0 || p->nstrings == 0 || p->string[0][0] != 0 ? "no profile: it says nothing of what it has counted" : NULL;
    if (*why == NULL)
        return p;
    profile_free(p);
    return NULL;
}

void profile_free(struct profile *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->nstrings; i++)
        free(p->string[i]);
    void *all[] = { p->string, p->function, p->line, p->location, p->sample, p->type, p->id, p->comment, p->value };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    map_free(&p->functions);
    map_free(&p->locations);
    free(p);
}

/* ---- looking at it ------------------------------------------------------------------------------------------------ */

const char *profile_string(const struct profile *p, uint64_t i) { return i < p->nstrings ? p->string[i] : ""; }

int profile_type(const struct profile *p, const char *type)
{
    for (size_t i = 0; i < p->ntypes && i < INT16_MAX; i++)
        if (strcmp(profile_string(p, p->type[i].type), type) == 0)
            return (int)i;
    return -1;
}

int64_t profile_value(const struct profile *p, const struct profile_sample *s, int type)
{
    return type >= 0 && (size_t)type < s->nvalues ? p->value[s->value + (size_t)type] : 0;
}

void profile_frames(const struct profile *p, const struct profile_sample *s, bool (*fn)(void *arg, const struct profile_frame *f), void *arg)
{
    for (size_t i = 0, n = 0; i < s->nlocations && n < FRAMES_MAX; i++, n++) {
        uint32_t at = map_get(&p->locations, p->id[s->location + i]);
        if (at == MAP_NONE)
            continue;
        const struct profile_location *l = &p->location[at];
        for (size_t k = 0; k < l->nlines && n < FRAMES_MAX; k++, n++) {
            const struct profile_line *line = &p->line[l->line + k];
            uint32_t of = map_get(&p->functions, line->function);
            struct profile_frame f = { "?", "", line->line };
            if (of != MAP_NONE) {
                f.function = profile_string(p, p->function[of].name);
                f.file = profile_string(p, p->function[of].file);
            }
            if (!fn(arg, &f))
                return;
        }
        if (l->nlines == 0) {
            char address[32];
            snprintf(address, sizeof address, "0x%" PRIx64, l->address);
            if (!fn(arg, &(struct profile_frame){ address, "", 0 }))
                return;
        }
    }
}

struct shown { struct text *t; unsigned frames; };

static bool show(void *arg, const struct profile_frame *f)
{
    struct shown *s = arg;
    if (s->frames++ == FRAMES_SHOWN) {
        text_add(s->t, "\n...");
        return false;
    }
    text_add(s->t, s->t->n > 0 ? "\n%s" : "%s", f->function);
    if (f->file[0] != 0)
        text_add(s->t, " at %s:%" PRIu64, f->file, f->line);
    return true;
}

void profile_stack(const struct profile *p, const struct profile_sample *s, struct text *t)
{
    text_add(t, "%s", "");
    profile_frames(p, s, show, &(struct shown){ t, 0 });
}
