/* Records by number, and a table that finds them by what is in them; both off-heap, of OFF_PROF.
 *
 * A store grows by chunks, so a record stays where it is and growing copies nothing. A table holds numbers of records only (open addressing, four
 * bytes a slot, three quarters full at most, and half after it has grown); what a record is and when two are the same is told by its user. Hashes
 * must be good in their high bits. No locking of their own. */
#ifndef WEFT_PROF_STORE_H
#define WEFT_PROF_STORE_H

#include <string.h>
#include "base/base.h"
#include "base/offheap.h"

#define STORE_CHUNK_BYTES (16u << 10)

struct store {
    uint8_t **chunk;
    uint32_t chunks, room; /* of chunk */
    uint32_t n;            /* of records, those that were skipped included */
    uint32_t each, shift;  /* bytes of a record, log2 of records in a chunk: fixed */
};

static inline void store_init(struct store *s, uint32_t each)
{
    *s = (struct store){ .each = each };
    while (each << (s->shift + 1) <= STORE_CHUNK_BYTES)
        s->shift++;
}

static inline void *store_at(const struct store *s, uint32_t i)
{
    return s->chunk[i >> s->shift] + (size_t)(i & ((1u << s->shift) - 1)) * s->each;
}

static w_cold bool store_grow(struct store *s)
{
    if (s->chunks == s->room) {
        uint32_t room = s->room == 0 ? 8 : s->room * 2;
        uint8_t **more = off_realloc(OFF_PROF, s->chunk, room * sizeof *more);
        if (more == NULL)
            return false;
        s->chunk = more;
        s->room = room;
    }
    uint8_t *c = off_alloc(OFF_PROF, (size_t)s->each << s->shift);
    if (c == NULL)
        return false;
    s->chunk[s->chunks++] = c;
    return true;
}

/* k records in a row, all in one chunk; *first is the number of the first. NULL: no memory, or no more numbers. */
static inline void *store_take(struct store *s, uint32_t k, uint32_t *first)
{
    uint32_t per = 1u << s->shift, at = s->n;
    w_debug_assert(k <= per);
    if ((at & (per - 1)) + k > per)
        at = (at | (per - 1)) + 1; /* the rest of the chunk is skipped */
    if (unlikely(at > UINT32_MAX - 2 * per))
        return NULL;
    if ((at + k - 1) >> s->shift >= s->chunks && !store_grow(s))
        return NULL;
    s->n = at + k;
    *first = at;
    return store_at(s, at);
}

/* The first keep chunks stay. */
static inline void store_clear(struct store *s, uint32_t keep)
{
    while (s->chunks > keep)
        off_free(OFF_PROF, s->chunk[--s->chunks]);
    s->n = 0;
}

static inline void store_free(struct store *s)
{
    store_clear(s, 0);
    off_free(OFF_PROF, s->chunk);
    s->chunk = NULL;
    s->room = 0;
}

static inline size_t store_bytes(const struct store *s)
{
    return s->room * sizeof *s->chunk + s->chunks * ((size_t)s->each << s->shift);
}

struct table {
    uint32_t *slot;      /* the record's number + 1; 0: empty */
    uint32_t room, used;
};

typedef uint32_t table_hash(const void *owner, uint32_t record);
typedef bool table_same(const void *owner, uint32_t record, const void *key);

static inline uint32_t table_first(uint32_t room, uint32_t hash) { return (uint32_t)(((uint64_t)hash * room) >> 32); }
static inline uint32_t table_next(uint32_t room, uint32_t i) { return i + 1 < room ? i + 1 : 0; }

static inline void table_insert(uint32_t *slot, uint32_t room, uint32_t hash, uint32_t record)
{
    uint32_t i = table_first(room, hash);
    while (slot[i] != 0)
        i = table_next(room, i);
    slot[i] = record + 1;
}

/* Makes room for one more record. False: no memory. */
static inline bool table_reserve(struct table *t, const void *owner, table_hash *hash_of)
{
    if (likely(t->used < t->room / 4 * 3))
        return true;
    uint32_t room = t->room == 0 ? 256 : t->room < UINT32_MAX / 2 ? t->room / 2 * 3 : 0;
    uint32_t *slot = room != 0 ? off_zalloc(OFF_PROF, (size_t)room * sizeof *slot) : NULL;
    if (slot == NULL)
        return false;
    for (uint32_t i = 0; i < t->room; i++)
        if (t->slot[i] != 0)
            table_insert(slot, room, hash_of(owner, t->slot[i] - 1), t->slot[i] - 1);
    off_free(OFF_PROF, t->slot);
    t->slot = slot;
    t->room = room;
    return true;
}

/* The slot of the record that is the same as key, or the empty one that would be its. After table_reserve. */
static inline uint32_t *table_find(const struct table *t, const void *owner, uint32_t hash, table_same *same, const void *key)
{
    for (uint32_t i = table_first(t->room, hash);; i = table_next(t->room, i))
        if (t->slot[i] == 0 || same(owner, t->slot[i] - 1, key))
            return &t->slot[i];
}

static inline void table_fill(struct table *t, uint32_t *empty, uint32_t record)
{
    *empty = record + 1;
    t->used++;
}

static inline void table_free(struct table *t)
{
    off_free(OFF_PROF, t->slot);
    *t = (struct table){ 0 };
}

/* Empties it; a large one goes. */
static inline void table_clear(struct table *t)
{
    if (t->room > 4096)
        table_free(t);
    else if (t->room > 0)
        memset(t->slot, 0, t->room * sizeof *t->slot);
    t->used = 0;
}

static inline size_t table_bytes(const struct table *t) { return t->room * sizeof *t->slot; }

#endif
