#include "pprof_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

int sink_write(void *ctx, const void *data, size_t n)
{
    struct sink *s = ctx;
    bool fails = s->err != 0 && s->calls >= s->fail_at;
    if (!fails) {
        if (s->len + n >= s->room)
            s->bytes = realloc(s->bytes, s->room = 2 * (s->len + n + 1));
        memcpy(s->bytes + s->len, data, n);
        s->len += n;
        s->bytes[s->len] = 0;
    }
    __atomic_store_n(&s->calls, s->calls + 1, __ATOMIC_RELEASE); /* rel: with what was written; for who waits for a call of another thread */
    return fails ? s->err : 0;
}

void sink_free(struct sink *s)
{
    free(s->bytes);
    *s = (struct sink){ 0 };
}

uint8_t *pp_gunzip(const void *file, size_t n, size_t *len, size_t *members, size_t *ends)
{
    size_t room = 1 << 20, got = 0, count = 0;
    uint8_t *out = malloc(room);
    z_stream z = { .next_in = (Bytef *)(uintptr_t)file, .avail_in = (unsigned)n };
    while (z.avail_in > 0) {
        int rc = Z_OK;
        cr_assert_eq(inflateInit2(&z, 16 + 15), Z_OK);
        while (rc == Z_OK) {
            if (got == room)
                out = realloc(out, room *= 2);
            z.next_out = out + got;
            z.avail_out = (unsigned)(room - got);
            rc = inflate(&z, Z_NO_FLUSH);
            got = (size_t)(z.next_out - out);
            if (rc == Z_BUF_ERROR && z.avail_out == 0)
                rc = Z_OK;
        }
        cr_assert_eq(rc, Z_STREAM_END, "member %zu: zlib says %d", count, rc);
        inflateEnd(&z);
        if (ends != NULL)
            ends[count] = n - z.avail_in;
        count++;
    }
    if (members != NULL)
        *members = count;
    *len = got;
    return out;
}

/* ---- fields ------------------------------------------------------------------------------------------------ */

struct in { const uint8_t *at, *end; };
struct field { unsigned no; bool is_bytes; uint64_t num; struct in in; };

static uint64_t varint(struct in *in)
{
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        cr_assert(in->at < in->end && shift < 70, "a number is cut, or has no end");
        v |= (uint64_t)(*in->at & 0x7f) << shift;
        if ((*in->at++ & 0x80) == 0)
            return v;
    }
}

static bool next(struct in *in, struct field *f)
{
    if (in->at == in->end)
        return false;
    uint64_t head = varint(in);
    *f = (struct field){ .no = (unsigned)(head >> 3), .is_bytes = (head & 7) == 2 };
    cr_assert(f->no != 0 && ((head & 7) == 0 || (head & 7) == 2), "field %u has wire type %u", f->no, (unsigned)(head & 7));
    f->num = varint(in);
    if (f->is_bytes) {
        cr_assert_leq(f->num, (uint64_t)(in->end - in->at), "field %u is cut", f->no);
        f->in = (struct in){ in->at, in->at + f->num };
        in->at += f->num;
    }
    return true;
}

/* One more, zeroed; there is room for a power of two. */
static void *room_for(void *array, size_t count, size_t each)
{
    if ((count & (count - 1)) == 0)
        array = realloc(array, (count == 0 ? 1 : 2 * count) * each);
    memset((char *)array + count * each, 0, each);
    return array;
}
#define GROW(array, count) (array = room_for(array, count, sizeof *(array)), &(array)[(count)++])

/* A number, or several that share a head. */
#define EACH_NUM(f, v, ...)                                                    \
    do {                                                                       \
        struct field *f_ = (f);                                                \
        do {                                                                   \
            if (f_->is_bytes && f_->in.at == f_->in.end)                       \
                break;                                                         \
            uint64_t v = f_->is_bytes ? varint(&f_->in) : f_->num;             \
            __VA_ARGS__;                                                       \
        } while (f_->is_bytes);                                                \
    } while (0)

/* ---- messages ------------------------------------------------------------------------------------------------ */

/* First pass: numbers, since what they refer to may come later. Pointers hold numbers until the second. */
#define AS_PTR(v) ((void *)(uintptr_t)(v))
#define AS_NUM(p) ((uint64_t)(uintptr_t)(p))

static void read_value_type(struct in in, struct pp_value_type *t)
{
    for (struct field f; next(&in, &f);)
        *(f.no == 1 ? &t->type : &t->unit) = AS_PTR(f.num);
}

static void read_label(struct in in, struct pp_label *l)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: l->key = AS_PTR(f.num); break;
        case 2: l->text = AS_PTR(f.num); break;
        case 3: l->num = (int64_t)f.num; break;
        case 4: l->unit = AS_PTR(f.num); break;
        default: cr_assert_fail("label: field %u", f.no);
        }
}

static void read_sample(struct in in, struct pp_sample *s)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: EACH_NUM(&f, v, *GROW(s->location, s->locations) = AS_PTR(v)); break;
        case 2: EACH_NUM(&f, v, *GROW(s->value, s->values) = (int64_t)v); break;
        case 3: read_label(f.in, GROW(s->label, s->labels)); break;
        default: cr_assert_fail("sample: field %u", f.no);
        }
}

static void read_mapping(struct in in, struct pp_mapping *m)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: m->id = f.num; break;
        case 2: m->lo = f.num; break;
        case 3: m->hi = f.num; break;
        case 4: m->offset = f.num; break;
        case 5: m->file = AS_PTR(f.num); break;
        case 6: m->build_id = AS_PTR(f.num); break;
        case 7: m->functions = f.num != 0; break;
        case 8: m->files = f.num != 0; break;
        case 9: m->lines = f.num != 0; break;
        case 10: m->inlined = f.num != 0; break;
        default: cr_assert_fail("mapping: field %u", f.no);
        }
}

static void read_line(struct in in, struct pp_line *l)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: l->function = AS_PTR(f.num); break;
        case 2: l->line = (int64_t)f.num; break;
        default: cr_assert_fail("line: field %u", f.no);
        }
}

static void read_location(struct in in, struct pp_location *l)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: l->id = f.num; break;
        case 2: l->mapping = AS_PTR(f.num); break;
        case 3: l->address = f.num; break;
        case 4: read_line(f.in, GROW(l->line, l->lines)); break;
        default: cr_assert_fail("location: field %u", f.no);
        }
}

static void read_function(struct in in, struct pp_function *fn)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: fn->id = f.num; break;
        case 2: fn->name = AS_PTR(f.num); break;
        case 3: fn->system = AS_PTR(f.num); break;
        case 4: fn->file = AS_PTR(f.num); break;
        case 5: fn->start = (int64_t)f.num; break;
        default: cr_assert_fail("function: field %u", f.no);
        }
}

static void read_profile(struct in in, struct pp *p)
{
    for (struct field f; next(&in, &f);)
        switch (f.no) {
        case 1: read_value_type(f.in, GROW(p->type, p->types)); break;
        case 2: read_sample(f.in, GROW(p->sample, p->samples)); break;
        case 3: read_mapping(f.in, GROW(p->mapping, p->mappings)); break;
        case 4: read_location(f.in, GROW(p->location, p->locations)); break;
        case 5: read_function(f.in, GROW(p->function, p->functions)); break;
        case 6: *GROW(p->string, p->strings) = strndup((const char *)f.in.at, f.num); break;
        case 7: p->drop_frames = AS_PTR(f.num); break;
        case 8: p->keep_frames = AS_PTR(f.num); break;
        case 9:
            cr_assert_eq(p->time, 0, "concatenated profiles: a second time");
            p->time = (int64_t)f.num;
            break;
        case 10: p->duration = (int64_t)f.num; break;
        case 11: read_value_type(f.in, &p->period_type); break;
        case 12: p->period = (int64_t)f.num; break;
        case 13: EACH_NUM(&f, v, *GROW(p->comment, p->comments) = AS_PTR(v)); break;
        case 14: p->default_type = AS_PTR(f.num); break;
        case 15: p->doc_url = AS_PTR(f.num); break;
        default: cr_assert_fail("profile: field %u", f.no);
        }
}

/* ---- what they refer to ------------------------------------------------------------------------------------- */

static void text(const struct pp *p, const char **s)
{
    cr_assert_lt(AS_NUM(*s), p->strings, "string %lu of %zu", (unsigned long)AS_NUM(*s), p->strings);
    *s = p->string[AS_NUM(*s)];
}

static size_t *by_id(size_t n, uint64_t (*id)(const void *, size_t), const void *all, const char *what)
{
    size_t *index = malloc((n + 1) * sizeof *index);
    memset(index, 0xff, (n + 1) * sizeof *index);
    for (size_t i = 0; i < n; i++) {
        uint64_t k = id(all, i);
        cr_assert(k >= 1 && k <= n, "%s: id %lu of %zu", what, (unsigned long)k, n); /* stricter than pprof: ours leave no gap */
        cr_assert_eq(index[k], SIZE_MAX, "multiple %s with same id %lu", what, (unsigned long)k);
        index[k] = i;
    }
    return index;
}

static uint64_t mapping_id(const void *all, size_t i) { return ((const struct pp_mapping *)all)[i].id; }
static uint64_t location_id(const void *all, size_t i) { return ((const struct pp_location *)all)[i].id; }
static uint64_t function_id(const void *all, size_t i) { return ((const struct pp_function *)all)[i].id; }

static void link_all(struct pp *p)
{
    size_t *mapping = by_id(p->mappings, mapping_id, p->mapping, "mappings");
    size_t *location = by_id(p->locations, location_id, p->location, "locations");
    size_t *function = by_id(p->functions, function_id, p->function, "functions");
    for (size_t i = 0; i < p->functions; i++) {
        text(p, &p->function[i].name);
        text(p, &p->function[i].system);
        text(p, &p->function[i].file);
    }
    for (size_t i = 0; i < p->mappings; i++) {
        text(p, &p->mapping[i].file);
        text(p, &p->mapping[i].build_id);
    }
    for (size_t i = 0; i < p->locations; i++) {
        struct pp_location *l = &p->location[i];
        cr_assert_leq(AS_NUM(l->mapping), p->mappings);
        l->mapping = l->mapping != NULL ? &p->mapping[mapping[AS_NUM(l->mapping)]] : NULL;
        for (size_t k = 0; k < l->lines; k++) {
            uint64_t id = AS_NUM(l->line[k].function);
            cr_assert(id >= 1 && id <= p->functions, "a line with function %lu", (unsigned long)id);
            l->line[k].function = &p->function[function[id]];
        }
    }
    for (size_t i = 0; i < p->samples; i++) {
        struct pp_sample *s = &p->sample[i];
        cr_assert_eq(s->values, p->types, "sample has %zu values vs. %zu types", s->values, p->types);
        for (size_t k = 0; k < s->locations; k++) {
            uint64_t id = AS_NUM(s->location[k]);
            cr_assert(id >= 1 && id <= p->locations, "sample has nil location %lu", (unsigned long)id);
            s->location[k] = &p->location[location[id]];
        }
        for (size_t k = 0; k < s->labels; k++) {
            struct pp_label *l = &s->label[k];
            text(p, &l->key);
            text(p, &l->unit);
            if (l->text != NULL)
                text(p, &l->text);
        }
    }
}

struct pp *pp_decode(const void *file, size_t n)
{
    struct pp *p = calloc(1, sizeof *p);
    const uint8_t *bytes = pp_gunzip(file, n, &p->bytes, NULL, NULL);
    read_profile((struct in){ bytes, bytes + p->bytes }, p);
    cr_assert_gt(p->types, 0u, "no sample type");
    cr_assert(p->strings > 0 && p->string[0][0] == 0, "string_table[0] must be ''");
    for (size_t i = 0; i < p->types; i++) {
        text(p, &p->type[i].type);
        text(p, &p->type[i].unit);
    }
    const char **texts[] = { &p->period_type.type, &p->period_type.unit, &p->drop_frames, &p->keep_frames, &p->default_type, &p->doc_url };
    for (size_t i = 0; i < w_countof(texts); i++)
        text(p, texts[i]);
    for (size_t i = 0; i < p->comments; i++)
        text(p, &p->comment[i]);
    link_all(p);
    return p;
}

const char *pp_text(const struct pp_sample *s)
{
    char *buf;
    size_t len;
    FILE *f = open_memstream(&buf, &len);
    for (size_t i = 0; i < s->locations; i++) {
        const struct pp_location *l = s->location[i];
        if (l->lines == 0)
            fprintf(f, "%s0x%lx", i > 0 ? ";" : "", (unsigned long)l->address);
        for (size_t k = 0; k < l->lines; k++)
            fprintf(f, k + 1 < l->lines ? "%s(%s)" : "%s%s", i + k > 0 ? ";" : "", l->line[k].function->name);
    }
    for (size_t i = 0; i < s->labels; i++) {
        const struct pp_label *l = &s->label[i];
        if (l->text != NULL)
            fprintf(f, " %s=%s", l->key, l->text);
        else
            fprintf(f, " %s=%ld%s", l->key, (long)l->num, l->unit);
    }
    fclose(f);
    return buf;
}

int64_t pp_sum(const struct pp *p, const char *text, size_t value)
{
    int64_t sum = 0;
    for (size_t i = 0; i < p->samples; i++)
        if (strcmp(pp_text(&p->sample[i]), text) == 0)
            sum += p->sample[i].value[value];
    return sum;
}

size_t pp_count(const struct pp *p, const char *text)
{
    size_t n = 0;
    for (size_t i = 0; i < p->samples; i++)
        n += strcmp(pp_text(&p->sample[i]), text) == 0;
    return n;
}
