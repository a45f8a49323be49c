/* table.c - strings, entries, the table. */
#include "table.h"

#include <string.h>

enum {
    TABLE_MIN_BUCKETS = 8,
    TABLE_STEP = 4,        /* buckets moved per operation: enough to end before the next resize is due */
    ENTRY_STEP_BYTES = 16, /* sizes of entries that have a type of their own */
    ENTRY_TYPES = 33,
};

/* ---- strings ------------------------------------------------------------------------------------- */

struct str *str_make(const char *p, size_t n)
{
    struct str *s = weft_alloc_noscan(sizeof *s + n);
    if (!s)
        return NULL;
    s->n = s->cap = (uint32_t)n;
    memcpy(s->b, p, n);
    return s;
}

struct str *str_append(struct str *s, const char *p, size_t n)
{
    size_t sum = s->n + n;
    if (sum > s->cap) {
        size_t cap = sum < 4096 ? sum * 2 : sum + sum / 4;
        struct str *bigger = weft_alloc_noscan(sizeof *s + cap);
        if (!bigger)
            return NULL;
        memcpy(bigger->b, s->b, s->n);
        bigger->n = s->n;
        bigger->cap = (uint32_t)cap;
        s = bigger;
    }
    memcpy(s->b + s->n, p, n);
    s->n = (uint32_t)sum;
    return s;
}

/* ---- hash: SipHash-1-3 --------------------------------------------------------------------------- */

static uint64_t seed_[2];

void table_hash_seed(const uint64_t seed[2]) { memcpy(seed_, seed, sizeof seed_); }

static inline uint64_t rotl(uint64_t x, int k) { return x << k | x >> (64 - k); }

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
    v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
}

uint32_t table_hash(const char *p, size_t n)
{
    uint64_t v[4] = { seed_[0] ^ 0x736f6d6570736575u, seed_[1] ^ 0x646f72616e646f6du, seed_[0] ^ 0x6c7967656e657261u,
                      seed_[1] ^ 0x7465646279746573u };
    uint64_t word;
    const char *end = p + n / 8 * 8;
    for (; p < end; p += 8) {
        memcpy(&word, p, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)n << 56;
    for (size_t i = 0; i < n % 8; i++)
        word |= (uint64_t)(unsigned char)p[i] << 8 * i;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    uint64_t h = v[0] ^ v[1] ^ v[2] ^ v[3];
    return (uint32_t)(h ^ h >> 32);
}

/* ---- entries ------------------------------------------------------------------------------------- */

/* Entries of up to half a KiB come in steps of 16 bytes, each with a type; made once, by whoever comes first. */
static const weft_type *entry_types[ENTRY_TYPES];
static weft_once entry_types_once;

static void entry_types_make(void *unused)
{
    (void)unused;
    static const size_t pointers[] = { offsetof(struct entry, next), offsetof(struct entry, value) };
    for (size_t i = (sizeof(struct entry) + ENTRY_STEP_BYTES - 1) / ENTRY_STEP_BYTES; i < ENTRY_TYPES; i++)
        entry_types[i] = weft_type_make(i * ENTRY_STEP_BYTES, pointers, 2);
}

static struct entry *entry_make(struct slice key)
{
    weft_once_do(&entry_types_once, entry_types_make, NULL);
    size_t bytes = offsetof(struct entry, key) + key.n;
    if (bytes < sizeof(struct entry))
        bytes = sizeof(struct entry);
    size_t step = (bytes + ENTRY_STEP_BYTES - 1) / ENTRY_STEP_BYTES;
    const weft_type *type = step < ENTRY_TYPES ? entry_types[step] : NULL;
    /* A long key is rare: scanning it conservatively does no harm. */
    struct entry *e = type ? weft_alloc_typed(type) : weft_alloc(bytes);
    if (!e)
        return NULL;
    e->hash = key.hash;
    e->n = key.n;
    memcpy(e->key, key.p, key.n);
    return e;
}

/* ---- table --------------------------------------------------------------------------------------- */

const weft_type *table_type(void) { return WEFT_TYPE(struct table, slots[0], slots[1]); }

struct slot { struct entry *first; };

static struct entry **slots_make(size_t n) { return weft_alloc_array(WEFT_TYPE(struct slot, first), n); }

static void table_step(struct table *t)
{
    if (!t->slots[1])
        return;
    for (int i = 0; i < TABLE_STEP && t->moved < t->buckets[0]; i++, t->moved++) {
        struct entry *next;
        for (struct entry *e = t->slots[0][t->moved]; e; e = next) {
            next = e->next;
            struct entry **to = &t->slots[1][e->hash & (t->buckets[1] - 1)];
            e->next = *to;
            *to = e;
        }
        t->slots[0][t->moved] = NULL;
    }
    if (t->moved == t->buckets[0]) {
        t->slots[0] = t->slots[1];
        t->buckets[0] = t->buckets[1];
        t->slots[1] = NULL;
        t->buckets[1] = t->moved = 0;
    }
}

/* Starts a rehash when one is due. No memory for it is no error: chains get longer. */
static void table_resize(struct table *t)
{
    if (t->slots[1])
        return;
    size_t now = t->buckets[0], want = t->count >= now ? now * 2 : t->count < now / 8 ? now / 4 : now;
    if (want == now || want < TABLE_MIN_BUCKETS)
        return;
    t->slots[1] = slots_make(want);
    if (t->slots[1])
        t->buckets[1] = want;
}

/* The place that points to the entry, or to NULL at the end of its chain. */
static struct entry **table_place(struct table *t, struct slice key)
{
    struct entry **at = NULL;
    for (int i = 0; i < 2 && t->slots[i]; i++) {
        at = &t->slots[i][key.hash & (t->buckets[i] - 1)];
        for (; *at; at = &(*at)->next)
            if ((*at)->hash == key.hash && (*at)->n == key.n && memcmp((*at)->key, key.p, key.n) == 0)
                return at;
    }
    return at;
}

struct entry *table_find(struct table *t, struct slice key)
{
    if (!t->slots[0])
        return NULL;
    table_step(t);
    return *table_place(t, key);
}

struct entry *table_put(struct table *t, struct slice key)
{
    if (!t->slots[0]) {
        t->slots[0] = slots_make(TABLE_MIN_BUCKETS);
        if (!t->slots[0])
            return NULL;
        t->buckets[0] = TABLE_MIN_BUCKETS;
    }
    table_step(t);
    struct entry **at = table_place(t, key);
    if (*at)
        return *at;
    struct entry *e = entry_make(key);
    if (!e)
        return NULL;
    *at = e; /* the end of a chain in the newest array */
    t->count++;
    table_resize(t);
    return e;
}

struct entry *table_remove(struct table *t, struct slice key)
{
    struct entry *e = table_find(t, key);
    if (e)
        table_unlink(t, e);
    return e;
}

void table_unlink(struct table *t, struct entry *e)
{
    struct entry **at = table_place(t, (struct slice){ e->key, e->n, e->hash });
    *at = e->next;
    t->count--;
    table_resize(t);
}
