/* Profiles for pprof, written as a stream of pieces.
 *
 * [PIECES] A profile is one protobuf message (profile.proto). A message that is cut between two fields is a message, and the bytes of two messages,
 * one after the other, are the two merged: repeated fields are appended, of others the last one counts. gzip files can be appended the same way. So
 * a profile is written in pieces, each a complete gzip member with further fields of the one message: samples, and what is new of the tables that
 * samples refer to. The file is a complete profile after every piece, and whoever is killed leaves one. What comes when:
 *
 *   first piece only   types of the values, time, period, default type, frames to drop and to keep, address of a document; the program's mapping.
 *                      (A second time is what pprof tells two concatenated profiles by, and it refuses them.)
 *   every piece        its samples, and the locations, functions, mappings, strings that no piece had before; comments; the duration, if it is another
 *                      one: the last one counts.
 *   never again        an id, once it is used. Locations, functions and mappings cannot be corrected: a second one with the same id is refused.
 *
 * Two samples with the same stack and labels in different pieces are two samples of the profile; viewers add them up.
 *
 * A file that was cut inside a member (a disk that is full, a kill in the middle of write(2)) is refused by `go tool pprof` as a whole ("unexpected
 * EOF"); cut back to where that member began, it is complete. A member of up to 64 KiB is handed to the writer in one call.
 *
 * Data. Everything has a number, in order of appearance, and is kept for the whole stream in a store.h, with a table to find it:
 *
 *     strings    text (with the terminating zero), 16 bytes   number = index in the string table
 *     functions  16 bytes                                     number + 1 = id
 *     places     an address, 16 bytes                         not on the wire: has the id of its location once that was written
 *     mappings   40 bytes                                     number + 1 = id
 *
 * and for one piece only the samples: four bytes, 8 per value, one to three per frame and per label's word (numbers that are as long as on the
 * wire), plus 5 to 8 for the slot in their table. That is 1.2 to 2.5 times what a sample takes on the wire, where a value is as short as it is
 * small. The others take up to three times what the file holds of them, slots included, and a chunk each. While a piece is made, add the piece
 * itself, compressed, and 270 KiB for zlib. So the whole stays below three times the output before compression, from a megabyte on, even
 * where stacks are random and compress badly. What grows without limit in a stream that is never closed are labels with ever new texts, and places.
 *
 * Modules come and go. A place remembers its mapping, and a mapping knows if what it maps is still there: looked at when the symbolizer's generation
 * has moved. A place whose mapping is gone gets a new location, with a new id, when it is seen again. The mapping that comes back is taken up again.
 * A place is looked up when a sample with it is encoded, not when that was taken: what was unloaded in between has no name, or a wrong one.
 *
 * [FLAGS] A mapping's has_functions, has_filenames, has_line_numbers and has_inline_frames tell pprof not to look for symbols itself, and must be
 * said before it is known what else will be found in the module. So a module has up to one mapping entry per combination that occurs, with the same
 * range: each location refers to the one that is true of it, and pprof still finds names for those that have none.
 *
 * [RETRY] A piece is made as a whole or not at all. Functions, mappings and strings are written at the end of a piece, from the first that no
 * finished piece has had; only locations are told by their ids, and if a piece fails, those that it gave out are taken back. */
#include "prof/pprof.h"
#include <errno.h>
#include <string.h>
#include "base/fmt.h"
#include "base/offheap.h"
#include "prof/gzip.h"
#include "prof/proto.h"
#include "prof/store.h"

#define NONE UINT32_MAX /* instead of a number: no memory */

enum { HAS_FUNCTIONS = 1, HAS_FILES = 2, HAS_LINES = 4, HAS_INLINED = 8 };

struct string { const char *text; uint32_t len, hash; };
struct function { uint32_t name, system, file, start; };
struct place { uint64_t pc; uint32_t location, mapping; }; /* ids; 0: not written, none. Where it was asked for: see place_is_told */
struct mapping { uint64_t lo, hi, offset; uint32_t path, build_id; uint8_t has; bool gone; };

struct texts { struct texts *next; size_t used, room; char mem[]; };
#define TEXTS_BYTES (16u << 10)

/* A sample in p->samples, which counts in units of 16 bits:
 *     head    values, 64 bits each    key: a place per frame; for each label key << 1, text, or key << 1 | 1, unit, number; all of them varints */
struct head { uint16_t key_bytes, frames; };
#define UNIT sizeof(uint16_t)
#define CHUNK_ENDS UINT16_MAX /* instead of a head's key_bytes: the next sample is at the beginning of the next chunk */
#define KEY_BYTES_MAX (PPROF_DEPTH_MAX * 5 + PPROF_LABELS_MAX * (5 + 5 + PROTO_VARINT_MAX))
_Static_assert(KEY_BYTES_MAX < CHUNK_ENDS && sizeof(struct head) + 8 * PPROF_VALUES_MAX + KEY_BYTES_MAX + 1 <= STORE_CHUNK_BYTES, "a sample");

/* No message is longer, with its head: a sample's numbers are ids of 32 bits, and values. */
#define MESSAGE_BYTES 8192u
_Static_assert(8 + PPROF_DEPTH_MAX * 6 + PPROF_VALUES_MAX * 11 + PPROF_LABELS_MAX * (2 + 6 + 6 + 11) <= MESSAGE_BYTES, "a sample");
_Static_assert(8 + 3 * 11 + PPROF_FRAMES_MAX * (2 + 6 + 6) <= MESSAGE_BYTES, "a location");

struct pprof {
    int err;                /* the writer's */
    uint32_t values;
    uint32_t highest_first;
    size_t piece_bytes;
    struct { uint32_t type, unit; } value[PPROF_VALUES_MAX], period_type;
    uint32_t default_type, drop_frames, keep_frames, doc_url;
    int64_t time, period;

    struct store strings, functions, places, mappings, samples, comments;
    struct table string_table, function_table, place_table, sample_table;
    struct texts *texts;
    size_t text_bytes;
    uint32_t sample_count;
    uint32_t locations;     /* ids given out */
    uint32_t generation;    /* of the modules, when mappings were looked at */
    bool looked;

    /* what finished pieces hold */
    struct { uint32_t strings, functions, mappings, locations; int64_t duration; bool head; } had;

    /* a piece that is made */
    const struct pprof_symbolizer *sym;
    struct gzip *gz;
    uint32_t fill;
    uint64_t put;           /* bytes before compression */

    struct gzip_bytes out;  /* finished pieces */
    bool handed;            /* the writer has them */
    uint64_t pieces, proto_bytes, gzip_bytes, written_bytes;

    struct { struct head head; uint8_t bytes[KEY_BYTES_MAX]; } key; /* of the sample at hand */
    uint8_t stage[4 * MESSAGE_BYTES];
};

#define K 0x9e3779b97f4a7c15ull

/* ---- strings ---------------------------------------------------------------------------------------------- */

/* Of a character in UTF-8; 0: none is well formed here. */
static uint32_t char_bytes(const uint8_t *s)
{
    uint32_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    uint32_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80, high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (uint32_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (s[i] < low || s[i] > high) /* the zero at the end is such a one */
            return 0;
    return n;
}

static size_t bytes_well_formed(const char *s)
{
    const char *at = s;
    for (uint32_t n; *at != 0 && (n = char_bytes((const uint8_t *)at)) != 0;)
        at += n;
    return (size_t)(at - s);
}

struct text_key { const char *text; uint32_t len, hash; };

static uint32_t string_hash(const void *p, uint32_t i) { return ((struct string *)store_at(&((const struct pprof *)p)->strings, i))->hash; }

static bool string_same(const void *p, uint32_t i, const void *key)
{
    const struct string *s = store_at(&((const struct pprof *)p)->strings, i);
    const struct text_key *k = key;
    return s->hash == k->hash && s->len == k->len && memcmp(s->text, k->text, k->len) == 0;
}

static const char *text_keep(struct pprof *p, const char *s, size_t n)
{
    struct texts *t = p->texts;
    if (t == NULL || t->room - t->used < n + 1) {
        size_t room = w_max((size_t)TEXTS_BYTES - sizeof *t, n + 1);
        t = off_alloc(OFF_PROF, sizeof *t + room);
        if (t == NULL)
            return NULL;
        t->used = 0;
        t->room = room;
        t->next = p->texts;
        p->texts = t;
        p->text_bytes += sizeof *t + room;
    }
    char *to = t->mem + t->used;
    memcpy(to, s, n);
    to[n] = 0;
    t->used += n + 1;
    return to;
}

static uint32_t string_known(struct pprof *p, const struct text_key *k)
{
    if (!table_reserve(&p->string_table, p, string_hash))
        return NONE;
    uint32_t *slot = table_find(&p->string_table, p, k->hash, string_same, k), i;
    if (*slot != 0)
        return *slot - 1;
    const char *text = text_keep(p, k->text, k->len);
    struct string *s = text != NULL ? store_take(&p->strings, 1, &i) : NULL;
    if (s == NULL)
        return NONE;
    *s = (struct string){ text, k->len, k->hash };
    table_fill(&p->string_table, slot, i);
    return i;
}

/* What is no UTF-8 (a label may hold anything) would make the file unreadable to strict readers. */
static w_cold uint32_t string_mended(struct pprof *p, const char *s);

static uint32_t string(struct pprof *p, const char *s)
{
    if (s == NULL)
        s = "";
    size_t n = bytes_well_formed(s);
    if (unlikely(s[n] != 0))
        return string_mended(p, s);
    if (unlikely(n > INT32_MAX))
        return NONE;
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * K;
    return string_known(p, &(struct text_key){ s, (uint32_t)n, (uint32_t)(h >> 32) });
}

static w_cold uint32_t string_mended(struct pprof *p, const char *s)
{
    size_t n = strlen(s);
    char *copy = off_alloc(OFF_PROF, n + 1);
    if (copy == NULL)
        return NONE;
    memcpy(copy, s, n + 1);
    for (size_t at = bytes_well_formed(copy); copy[at] != 0; at += bytes_well_formed(copy + at))
        copy[at] = '?';
    uint32_t i = string(p, copy);
    off_free(OFF_PROF, copy);
    return i;
}

/* ---- samples ------------------------------------------------------------------------------------------------ */

static uint32_t pc_hash(uint64_t pc) { return (uint32_t)((pc * K) >> 32); }
static struct place *place_at(const struct pprof *p, uint32_t i) { return store_at(&p->places, i); }
static uint32_t place_hash(const void *p, uint32_t i) { return pc_hash(place_at(p, i)->pc); }
static bool place_same(const void *p, uint32_t i, const void *key) { return place_at(p, i)->pc == *(const uint64_t *)key; }

static uint32_t place(struct pprof *p, uint64_t pc)
{
    if (!table_reserve(&p->place_table, p, place_hash))
        return NONE;
    uint32_t *slot = table_find(&p->place_table, p, pc_hash(pc), place_same, &pc), i;
    if (*slot != 0)
        return *slot - 1;
    struct place *l = store_take(&p->places, 1, &i);
    if (l == NULL)
        return NONE;
    *l = (struct place){ .pc = pc };
    table_fill(&p->place_table, slot, i);
    return i;
}

static const struct head *sample_at(const struct pprof *p, uint32_t i) { return store_at(&p->samples, i); }
static const uint8_t *sample_values(const struct head *s) { return (const uint8_t *)(s + 1); }
static const uint8_t *sample_key(const struct pprof *p, const struct head *s) { return sample_values(s) + p->values * sizeof(int64_t); }

static uint32_t sample_units(const struct pprof *p, struct head h)
{
    return (uint32_t)((sizeof h + p->values * sizeof(int64_t) + h.key_bytes + UNIT - 1) / UNIT);
}

static uint32_t key_hash(struct head h, const uint8_t *key)
{
    uint64_t hash = ((uint64_t)h.frames << 16 | h.key_bytes) * K, w = 0;
    uint32_t i = 0;
    for (; i + sizeof w <= h.key_bytes; i += (uint32_t)sizeof w) {
        memcpy(&w, key + i, sizeof w);
        hash = (hash ^ (hash >> 29) ^ w) * K;
    }
    w = 0;
    memcpy(&w, key + i, h.key_bytes - i);
    hash = (hash ^ (hash >> 29) ^ w) * K;
    return (uint32_t)((hash ^ (hash >> 29)) * K >> 32);
}

static uint32_t sample_hash(const void *p, uint32_t i) { return key_hash(*sample_at(p, i), sample_key(p, sample_at(p, i))); }

static bool sample_same(const void *p, uint32_t i, const void *key)
{
    const struct head *s = sample_at(p, i), *k = key;
    return s->key_bytes == k->key_bytes && s->frames == k->frames && memcmp(sample_key(p, s), k + 1, k->key_bytes) == 0;
}

/* Into p->key. */
static bool key_make(struct pprof *p, const uintptr_t *pc, uint32_t n, const struct pprof_label *label, uint32_t labels)
{
    uint8_t *to = p->key.bytes;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = place(p, pc[i]);
        if (k == NONE)
            return false;
        to = proto_varint(to, k);
    }
    for (uint32_t i = 0; i < labels; i++) {
        bool is_text = label[i].text != NULL;
        uint32_t key = string(p, label[i].key), what = string(p, is_text ? label[i].text : label[i].unit);
        if (key == NONE || what == NONE)
            return false;
        to = proto_varint(proto_varint(to, (uint64_t)key << 1 | !is_text), what);
        if (!is_text)
            to = proto_varint(to, (uint64_t)label[i].num);
    }
    p->key.head = (struct head){ (uint16_t)(to - p->key.bytes), (uint16_t)n };
    return true;
}

static int64_t add_capped(int64_t a, int64_t b)
{
    int64_t sum;
    return !__builtin_add_overflow(a, b, &sum) ? sum : a > 0 ? INT64_MAX : INT64_MIN;
}

static void values_add(const struct pprof *p, uint8_t *to, const int64_t *value)
{
    for (uint32_t i = 0; i < p->values; i++, to += sizeof *value) {
        int64_t v;
        memcpy(&v, to, sizeof v);
        v = add_capped(v, value[i]);
        memcpy(to, &v, sizeof v);
    }
}

int pprof_add(struct pprof *p, const uintptr_t *pc, uint32_t n, const int64_t *value, const struct pprof_label *label, uint32_t labels)
{
    if (p->err != 0)
        return p->err;
    if (n > PPROF_DEPTH_MAX || labels > PPROF_LABELS_MAX)
        return -EINVAL;
    if (!key_make(p, pc, n, label, labels) || !table_reserve(&p->sample_table, p, sample_hash))
        return -ENOMEM;
    struct head head = p->key.head;
    uint32_t *slot = table_find(&p->sample_table, p, key_hash(head, p->key.bytes), sample_same, &p->key), i;
    if (*slot != 0) {
        values_add(p, (uint8_t *)(uintptr_t)sample_values(sample_at(p, *slot - 1)), value);
        return 0;
    }
    uint32_t units = sample_units(p, head), next = p->samples.n;
    if (p->piece_bytes != 0 && p->sample_count > 0 && (next + units) * UNIT + table_bytes(&p->sample_table) > p->piece_bytes)
        return -ENOSPC;
    struct head *s = store_take(&p->samples, units, &i);
    if (s == NULL)
        return -ENOMEM;
    if (i != next)
        *(uint16_t *)store_at(&p->samples, next) = CHUNK_ENDS;
    *s = head;
    memcpy(s + 1, value, p->values * sizeof *value);
    memcpy((uint8_t *)(s + 1) + p->values * sizeof *value, p->key.bytes, head.key_bytes);
    table_fill(&p->sample_table, slot, i);
    p->sample_count++;
    return 0;
}

int pprof_comment(struct pprof *p, const char *text)
{
    uint32_t *to, i, s = p->err == 0 ? string(p, text) : NONE;
    if (p->err != 0)
        return p->err;
    if (s == NONE || (to = store_take(&p->comments, 1, &i)) == NULL)
        return -ENOMEM;
    *to = s;
    return 0;
}

/* ---- making a piece: the bytes ------------------------------------------------------------------------------ */

/* Field numbers of profile.proto. */
enum { PROFILE_VALUE = 1, PROFILE_SAMPLE, PROFILE_MAPPING, PROFILE_LOCATION, PROFILE_FUNCTION, PROFILE_STRING, PROFILE_DROP_FRAMES,
       PROFILE_KEEP_FRAMES, PROFILE_TIME, PROFILE_DURATION, PROFILE_PERIOD_TYPE, PROFILE_PERIOD, PROFILE_COMMENT, PROFILE_DEFAULT_TYPE,
       PROFILE_DOC_URL };
enum { VALUE_TYPE = 1, VALUE_UNIT };
enum { SAMPLE_LOCATION = 1, SAMPLE_VALUE, SAMPLE_LABEL };
enum { LABEL_KEY = 1, LABEL_TEXT, LABEL_NUM, LABEL_UNIT };
enum { MAPPING_ID = 1, MAPPING_LO, MAPPING_HI, MAPPING_OFFSET, MAPPING_PATH, MAPPING_BUILD_ID, MAPPING_HAS };
enum { LOCATION_ID = 1, LOCATION_MAPPING, LOCATION_ADDRESS, LOCATION_LINE };
enum { LINE_FUNCTION = 1, LINE_NUMBER };
enum { FUNCTION_ID = 1, FUNCTION_NAME, FUNCTION_SYSTEM, FUNCTION_FILE, FUNCTION_START };

static void stage_flush(struct pprof *p)
{
    gzip_put(p->gz, p->stage, p->fill);
    p->put += p->fill;
    p->fill = 0;
}

/* Where the next message goes; there is room for one. */
static uint8_t *stage(struct pprof *p)
{
    if (sizeof p->stage - p->fill < MESSAGE_BYTES)
        stage_flush(p);
    return p->stage + p->fill;
}

static void staged(struct pprof *p, const uint8_t *end) { p->fill = (uint32_t)(end - p->stage); }

static void put_num(struct pprof *p, unsigned field, int64_t v) { staged(p, proto_opt(stage(p), field, (uint64_t)v)); }

static void put_value_type(struct pprof *p, unsigned field, uint32_t type, uint32_t unit)
{
    uint8_t *m = proto_begin(stage(p), field), *at = m;
    at = proto_num(at, VALUE_TYPE, type);
    at = proto_num(at, VALUE_UNIT, unit);
    staged(p, proto_end(m, at));
}

static void put_string(struct pprof *p, const struct string *s)
{
    staged(p, proto_bytes(stage(p), PROFILE_STRING, s->len));
    if (s->len > MESSAGE_BYTES) {
        stage_flush(p);
        gzip_put(p->gz, s->text, s->len);
        p->put += s->len;
        return;
    }
    uint8_t *at = stage(p);
    memcpy(at, s->text, s->len);
    staged(p, at + s->len);
}

static void put_function(struct pprof *p, uint32_t id, const struct function *f)
{
    uint8_t *m = proto_begin(stage(p), PROFILE_FUNCTION), *at = m;
    at = proto_num(at, FUNCTION_ID, id);
    at = proto_opt(at, FUNCTION_NAME, f->name);
    at = proto_opt(at, FUNCTION_SYSTEM, f->system);
    at = proto_opt(at, FUNCTION_FILE, f->file);
    at = proto_opt(at, FUNCTION_START, f->start);
    staged(p, proto_end(m, at));
}

static void put_mapping(struct pprof *p, uint32_t id, const struct mapping *g)
{
    uint8_t *m = proto_begin(stage(p), PROFILE_MAPPING), *at = m;
    at = proto_num(at, MAPPING_ID, id);
    at = proto_opt(at, MAPPING_LO, g->lo);
    at = proto_opt(at, MAPPING_HI, g->hi);
    at = proto_opt(at, MAPPING_OFFSET, g->offset);
    at = proto_opt(at, MAPPING_PATH, g->path);
    at = proto_opt(at, MAPPING_BUILD_ID, g->build_id);
    for (unsigned i = 0; i < 4; i++) /* in the order of HAS_* */
        at = proto_opt(at, MAPPING_HAS + i, g->has >> i & 1);
    staged(p, proto_end(m, at));
}

struct line { uint32_t function, line; };

static void put_location(struct pprof *p, uint32_t id, const struct place *l, const struct line *line, uint32_t lines)
{
    uint8_t *m = proto_begin(stage(p), PROFILE_LOCATION), *at = m;
    at = proto_num(at, LOCATION_ID, id);
    at = proto_opt(at, LOCATION_MAPPING, l->mapping);
    at = proto_opt(at, LOCATION_ADDRESS, l->pc - (l->pc != 0)); /* in the call, not behind it */
    for (uint32_t i = 0; i < lines; i++) {
        uint8_t *k = proto_begin(at, LOCATION_LINE);
        at = proto_num(k, LINE_FUNCTION, line[i].function);
        at = proto_opt(at, LINE_NUMBER, line[i].line);
        at = proto_end(k, at);
    }
    staged(p, proto_end(m, at));
}

/* As Go does it: numbers share a head if there are more than two. */
static uint8_t *put_nums(uint8_t *at, unsigned field, const uint64_t *v, uint32_t n)
{
    uint8_t *m = n > 2 ? proto_begin(at, field) : at;
    at = m;
    for (uint32_t i = 0; i < n; i++)
        at = n > 2 ? proto_varint(at, v[i]) : proto_num(at, field, v[i]);
    return n > 2 ? proto_end(m, at) : at;
}

static uint8_t *put_label(uint8_t *at, const uint8_t **label)
{
    uint64_t key = proto_read(label), what = proto_read(label);
    uint8_t *m = proto_begin(at, SAMPLE_LABEL);
    at = proto_opt(m, LABEL_KEY, key >> 1);
    if ((key & 1) == 0) {
        at = proto_num(at, LABEL_TEXT, what);
    } else {
        at = proto_num(at, LABEL_NUM, proto_read(label));
        at = proto_opt(at, LABEL_UNIT, what);
    }
    return proto_end(m, at);
}

/* The locations are written. */
static void put_sample(struct pprof *p, const struct head *s)
{
    uint64_t value[PPROF_VALUES_MAX], location[PPROF_DEPTH_MAX];
    const uint8_t *key = sample_key(p, s), *end = key + s->key_bytes;
    for (uint32_t i = 0; i < s->frames; i++)
        location[i] = place_at(p, (uint32_t)proto_read(&key))->location;
    memcpy(value, sample_values(s), p->values * sizeof *value);
    uint8_t *m = proto_begin(stage(p), PROFILE_SAMPLE), *at = m;
    at = put_nums(at, SAMPLE_LOCATION, location, s->frames);
    at = put_nums(at, SAMPLE_VALUE, value, p->values);
    while (key < end)
        at = put_label(at, &key);
    staged(p, proto_end(m, at));
}

/* ---- making a piece: what lies at a place --------------------------------------------------------------------- */

static struct function *function_at(const struct pprof *p, uint32_t i) { return store_at(&p->functions, i); }
static struct mapping *mapping_at(const struct pprof *p, uint32_t i) { return store_at(&p->mappings, i); }

static uint32_t fields_hash(const struct function *f)
{
    return (uint32_t)((((f->name * K ^ f->system) * K ^ f->file) * K ^ f->start) * K >> 32);
}

static uint32_t function_hash(const void *p, uint32_t i) { return fields_hash(function_at(p, i)); }
static bool function_same(const void *p, uint32_t i, const void *key) { return memcmp(function_at(p, i), key, sizeof(struct function)) == 0; }

/* Its id; NONE: no memory. */
static uint32_t function(struct pprof *p, const struct pprof_frame *frame)
{
    struct function f = { .name = string(p, frame->func), .file = string(p, frame->file), .start = frame->start };
    f.system = frame->system != NULL ? string(p, frame->system) : f.name;
    if (f.name == NONE || f.system == NONE || f.file == NONE || !table_reserve(&p->function_table, p, function_hash))
        return NONE;
    uint32_t *slot = table_find(&p->function_table, p, fields_hash(&f), function_same, &f), i;
    if (*slot != 0)
        return *slot;
    struct function *new = store_take(&p->functions, 1, &i);
    if (new == NULL)
        return NONE;
    *new = f;
    table_fill(&p->function_table, slot, i);
    return i + 1;
}

static uint32_t build_id(struct pprof *p, const struct pprof_module *m)
{
    char hex[2 * 64 + 1] = "";
    for (uint32_t i = 0; i < m->build_id_bytes && i < 64; i++)
        w_fmt(hex + 2 * i, 3, "%02x", m->build_id[i]);
    return string(p, hex);
}

/* The part of a mapping that is the module's. */
static bool module_fields(struct pprof *p, const struct pprof_module *m, struct mapping *to)
{
    *to = (struct mapping){ .lo = m->lo, .hi = m->hi, .offset = m->offset, .path = string(p, m->path), .build_id = build_id(p, m) };
    return to->path != NONE && to->build_id != NONE;
}

static bool module_same(const struct mapping *a, const struct mapping *b)
{
    return a->lo == b->lo && a->hi == b->hi && a->offset == b->offset && a->path == b->path && a->build_id == b->build_id;
}

/* Its id; NONE: no memory. Few: programs have some dozens of modules. */
static uint32_t mapping(struct pprof *p, const struct pprof_module *module, uint8_t has)
{
    struct mapping m, *new;
    uint32_t i;
    if (!module_fields(p, module, &m))
        return NONE;
    m.has = has;
    for (i = 0; i < p->mappings.n; i++)
        if (module_same(mapping_at(p, i), &m) && mapping_at(p, i)->has == has)
            return i + 1;
    new = store_take(&p->mappings, 1, &i);
    if (new == NULL)
        return NONE;
    *new = m;
    return i + 1;
}

/* Finds out which mappings are gone. False: no memory. */
static bool mappings_look(struct pprof *p)
{
    if (p->looked && p->generation == p->sym->generation)
        return true;
    for (uint32_t i = 0; i < p->mappings.n; i++) {
        struct mapping *m = mapping_at(p, i), now;
        struct pprof_module module;
        bool there = p->sym->module(p->sym, m->lo, &module);
        if (there && !module_fields(p, &module, &now))
            return false;
        m->gone = !there || !module_same(m, &now);
    }
    p->looked = true;
    p->generation = p->sym->generation;
    return true;
}

/* What is known of all frames; nothing is known of none. [FLAGS] */
static uint8_t frames_have(const struct pprof_frame *frame, uint32_t n)
{
    uint8_t has = n > 0 ? HAS_FUNCTIONS | HAS_FILES | HAS_LINES : 0;
    for (uint32_t i = 0; i < n; i++) {
        if (frame[i].file == NULL)
            has &= (uint8_t)~HAS_FILES;
        if (frame[i].line == 0)
            has &= (uint8_t)~HAS_LINES;
    }
    return has & HAS_LINES ? has | HAS_INLINED : has; /* lines come from where inlined functions are told, too */
}

/* Is what was written of it still true? A place that was in no module may be in one now. */
static bool place_is_told(const struct pprof *p, const struct place *l)
{
    struct pprof_module m;
    if (l->location == 0 || p->sym == NULL)
        return l->location != 0;
    return l->mapping != 0 ? !mapping_at(p, l->mapping - 1)->gone : !p->sym->module(p->sym, l->pc - 1, &m);
}

/* Writes its location, if no piece has it. False: no memory. */
static bool place_tell(struct pprof *p, struct place *l)
{
    if (likely(place_is_told(p, l)))
        return true;
    struct pprof_frame frame[PPROF_FRAMES_MAX];
    struct line line[PPROF_FRAMES_MAX];
    struct pprof_module module;
    uint32_t lines = p->sym != NULL ? p->sym->frames(p->sym, l->pc, frame) : 0;
    for (uint32_t i = 0; i < lines; i++) {
        line[i] = (struct line){ function(p, &frame[i]), frame[i].line };
        if (line[i].function == NONE)
            return false;
    }
    uint32_t map = p->sym != NULL && p->sym->module(p->sym, l->pc - 1, &module) ? mapping(p, &module, frames_have(frame, lines)) : 0;
    if (map == NONE)
        return false;
    l->mapping = map;
    l->location = ++p->locations;
    put_location(p, l->location, l, line, lines);
    return true;
}

/* ---- a piece --------------------------------------------------------------------------------------------------- */

/* pprof names the first mapping that does not look like a library's, so that it comes first. False: no memory. */
static bool tell_program(struct pprof *p)
{
    struct pprof_frame frame[PPROF_FRAMES_MAX];
    struct pprof_module module;
    if (p->sym == NULL || p->sym->program == 0 || !p->sym->module(p->sym, p->sym->program, &module))
        return true;
    return mapping(p, &module, frames_have(frame, p->sym->frames(p->sym, p->sym->program + 1, frame))) != NONE;
}

static void put_head(struct pprof *p)
{
    for (uint32_t i = 0; i < p->values; i++)
        put_value_type(p, PROFILE_VALUE, p->value[i].type, p->value[i].unit);
    if (p->period_type.type != 0)
        put_value_type(p, PROFILE_PERIOD_TYPE, p->period_type.type, p->period_type.unit);
    put_num(p, PROFILE_TIME, p->time);
    put_num(p, PROFILE_PERIOD, p->period);
    put_num(p, PROFILE_DROP_FRAMES, p->drop_frames);
    put_num(p, PROFILE_KEEP_FRAMES, p->keep_frames);
    put_num(p, PROFILE_DEFAULT_TYPE, p->default_type);
    put_num(p, PROFILE_DOC_URL, p->doc_url);
}

/* The sample at *at, or, if the chunk ends there, in the next one; *at goes behind it. */
static const struct head *sample_next(const struct pprof *p, uint32_t *at)
{
    const struct head *s = sample_at(p, *at);
    if (s->key_bytes == CHUNK_ENDS) {
        *at = (*at | ((1u << p->samples.shift) - 1)) + 1;
        s = sample_at(p, *at);
    }
    *at += sample_units(p, *s);
    return s;
}

/* False: no memory. */
static bool tell_sample(struct pprof *p, const struct head *s)
{
    const uint8_t *key = sample_key(p, s);
    for (uint32_t i = 0; i < s->frames; i++)
        if (!place_tell(p, place_at(p, (uint32_t)proto_read(&key))))
            return false;
    put_sample(p, s);
    return true;
}

static int64_t rank_of(const struct pprof *p, uint32_t i)
{
    int64_t v;
    memcpy(&v, sample_values(sample_at(p, i)) + (p->highest_first - 1) * sizeof v, sizeof v);
    return v;
}

/* Those that come earlier in the order: the higher, of equal ones the one that was seen first. */
static bool comes_before(const struct pprof *p, uint32_t a, uint32_t b)
{
    int64_t va = rank_of(p, a), vb = rank_of(p, b);
    return va != vb ? va > vb : a < b;
}

/* A heap: in place, without recursion. */
static void order_sort(const struct pprof *p, uint32_t *order, uint32_t n)
{
    for (uint32_t start = n / 2, end = n; end > 1;) {
        uint32_t top;
        if (start > 0) {
            top = order[--start];
        } else {
            top = order[--end];
            order[end] = order[0];
        }
        uint32_t i = start, child;
        for (; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && comes_before(p, order[child], order[child + 1]))
                child++;
            if (!comes_before(p, top, order[child]))
                break;
            order[i] = order[child];
        }
        order[i] = top;
    }
}

/* The numbers of the samples, highest first. NULL: no memory, or no order was asked for. */
static uint32_t *order_make(struct pprof *p)
{
    uint32_t *order = p->highest_first != 0 && p->sample_count > 1 ? off_alloc(OFF_PROF, p->sample_count * sizeof *order) : NULL;
    for (uint32_t i = 0, at = 0; order != NULL && i < p->sample_count; i++) {
        const struct head *s = sample_next(p, &at);
        order[i] = at - sample_units(p, *s);
    }
    if (order != NULL)
        order_sort(p, order, p->sample_count);
    return order;
}

/* False: no memory. */
static bool put_samples(struct pprof *p)
{
    bool ok = true;
    uint32_t *order = order_make(p);
    for (uint32_t i = 0, at = 0; i < p->sample_count && ok; i++)
        ok = tell_sample(p, order != NULL ? sample_at(p, order[i]) : sample_next(p, &at));
    off_free(OFF_PROF, order);
    return ok;
}

static void put_new(struct pprof *p)
{
    for (uint32_t i = p->had.functions; i < p->functions.n; i++)
        put_function(p, i + 1, function_at(p, i));
    for (uint32_t i = p->had.mappings; i < p->mappings.n; i++)
        put_mapping(p, i + 1, mapping_at(p, i));
    for (uint32_t i = 0; i < p->comments.n; i++)
        put_num(p, PROFILE_COMMENT, *(uint32_t *)store_at(&p->comments, i));
    for (uint32_t i = p->had.strings; i < p->strings.n; i++)
        put_string(p, store_at(&p->strings, i));
}

static int put_piece(struct pprof *p, int64_t duration_ns)
{
    if (p->sym != NULL && !mappings_look(p))
        return -ENOMEM;
    if (!p->had.head) {
        if (!tell_program(p))
            return -ENOMEM;
        put_head(p);
    }
    if (!put_samples(p))
        return -ENOMEM;
    put_new(p);
    if (duration_ns != p->had.duration)
        put_num(p, PROFILE_DURATION, duration_ns);
    stage_flush(p);
    return 0;
}

/* [RETRY] */
static void piece_failed(struct pprof *p)
{
    for (uint32_t i = 0; i < p->places.n; i++)
        if (place_at(p, i)->location > p->had.locations)
            place_at(p, i)->location = 0;
    p->locations = p->had.locations;
}

static void piece_done(struct pprof *p, int64_t duration_ns, size_t gzip_bytes)
{
    p->had.strings = p->strings.n;
    p->had.functions = p->functions.n;
    p->had.mappings = p->mappings.n;
    p->had.locations = p->locations;
    p->had.head = true;
    if (duration_ns != 0)
        p->had.duration = duration_ns;
    p->pieces++;
    p->proto_bytes += p->put;
    p->gzip_bytes += gzip_bytes;
    store_clear(&p->samples, 1);
    table_clear(&p->sample_table);
    p->sample_count = 0;
    store_clear(&p->comments, 1);
}

/* The writer has taken them. */
static void out_clear(struct pprof *p)
{
    if (p->handed)
        gzip_free(&p->out);
    p->handed = false;
}

int pprof_encode(struct pprof *p, const struct pprof_symbolizer *sym, int64_t duration_ns)
{
    if (p->err != 0)
        return p->err;
    out_clear(p);
    if (p->had.head && p->sample_count == 0 && p->comments.n == 0 && (duration_ns == 0 || duration_ns == p->had.duration))
        return 0;
    p->gz = gzip_begin();
    if (p->gz == NULL)
        return -ENOMEM;
    p->sym = sym;
    p->fill = 0;
    p->put = 0;
    size_t before = p->out.bytes;
    int err = put_piece(p, duration_ns);
    if (err == 0)
        err = gzip_end(p->gz, &p->out);
    else
        gzip_drop(p->gz);
    if (err == 0)
        piece_done(p, duration_ns, p->out.bytes - before);
    else
        piece_failed(p);
    return err;
}

int pprof_write(struct pprof *p, weft_writer *w, void *ctx)
{
    if (p->handed) /* and for good after an error */
        return p->err;
    p->err = gzip_write(&p->out, w, ctx);
    if (p->err == 0)
        p->written_bytes += p->out.bytes;
    p->handed = true;
    return p->err;
}

struct gzip_bytes pprof_take(struct pprof *p)
{
    out_clear(p);
    struct gzip_bytes out = p->out;
    p->out = (struct gzip_bytes){ 0 };
    return out;
}

/* ---- open, close -------------------------------------------------------------------------------------------- */

static bool kind_copy(struct pprof *p, const struct pprof_kind *k)
{
    bool all = string(p, "") == 0; /* the table begins with it */
#define COPY(to, text) all = ((to) = string(p, text)) != NONE && all
    for (uint32_t i = 0; i < k->values; i++) {
        COPY(p->value[i].type, k->value[i].type);
        COPY(p->value[i].unit, k->value[i].unit);
    }
    COPY(p->period_type.type, k->period_type.type);
    COPY(p->period_type.unit, k->period_type.unit);
    COPY(p->default_type, k->default_type);
    COPY(p->drop_frames, k->drop_frames);
    COPY(p->keep_frames, k->keep_frames);
    COPY(p->doc_url, k->doc_url);
#undef COPY
    return all;
}

struct pprof *pprof_open(const struct pprof_kind *kind, int64_t time_ns)
{
    w_assert(kind->values >= 1 && kind->values <= PPROF_VALUES_MAX);
    struct pprof *p = off_zalloc(OFF_PROF, sizeof *p);
    if (p == NULL)
        return NULL;
    p->values = kind->values;
    p->highest_first = kind->highest_first;
    p->piece_bytes = kind->piece_bytes;
    p->time = time_ns;
    p->period = kind->period;
    store_init(&p->strings, sizeof(struct string));
    store_init(&p->functions, sizeof(struct function));
    store_init(&p->places, sizeof(struct place));
    store_init(&p->mappings, sizeof(struct mapping));
    store_init(&p->samples, UNIT);
    store_init(&p->comments, sizeof(uint32_t));
    if (kind_copy(p, kind))
        return p;
    pprof_close(p);
    return NULL;
}

void pprof_close(struct pprof *p)
{
    if (p == NULL)
        return;
    struct store *stores[] = { &p->strings, &p->functions, &p->places, &p->mappings, &p->samples, &p->comments };
    struct table *tables[] = { &p->string_table, &p->function_table, &p->place_table, &p->sample_table };
    for (size_t i = 0; i < w_countof(stores); i++)
        store_free(stores[i]);
    for (size_t i = 0; i < w_countof(tables); i++)
        table_free(tables[i]);
    for (struct texts *t = p->texts, *next; t != NULL; t = next) {
        next = t->next;
        off_free(OFF_PROF, t);
    }
    gzip_free(&p->out);
    off_free(OFF_PROF, p);
}

void pprof_stats(const struct pprof *p, struct pprof_stats *out)
{
    const struct store *stores[] = { &p->strings, &p->functions, &p->places, &p->mappings, &p->samples, &p->comments };
    const struct table *tables[] = { &p->string_table, &p->function_table, &p->place_table, &p->sample_table };
    *out = (struct pprof_stats){ .pieces = p->pieces, .proto_bytes = p->proto_bytes, .gzip_bytes = p->gzip_bytes,
                                 .written_bytes = p->written_bytes, .samples = p->sample_count };
    out->held_bytes = sizeof *p + p->text_bytes + p->out.bytes;
    for (size_t i = 0; i < w_countof(stores); i++)
        out->held_bytes += store_bytes(stores[i]);
    for (size_t i = 0; i < w_countof(tables); i++)
        out->held_bytes += table_bytes(tables[i]);
}
