/* db.c - shards, expiry, lists. */
#include "db.h"

#include <string.h>

/* ---- shards -------------------------------------------------------------------------------------- */

/* In the program's data, which the collector scans; a shard per pair of cache lines, so that locks do not share one. */
static struct shard {
    weft_mutex lock;
    size_t cursor;     /* the sweeper's */
    size_t volatiles;  /* entries that expire */
    uint64_t hits, misses, expired;
    struct table keys;
} __attribute__((aligned(128))) shards[DB_SHARDS];

static struct shard *shard_of(uint32_t hash) { return &shards[hash >> 26]; }

void db_lock(uint64_t set)
{
    for (; set; set &= set - 1)
        weft_mutex_lock(&shards[__builtin_ctzll(set)].lock);
}

void db_unlock(uint64_t set)
{
    for (; set; set &= set - 1)
        weft_mutex_unlock(&shards[__builtin_ctzll(set)].lock);
}

static bool expired(const struct entry *e, int64_t now_ms) { return e->expires_ms != 0 && e->expires_ms <= now_ms; }

static void remove_from(struct shard *s, struct entry *e)
{
    s->volatiles -= e->expires_ms != 0;
    table_unlink(&s->keys, e);
}

struct entry *db_find(struct slice key, int64_t now_ms)
{
    struct shard *s = shard_of(key.hash);
    struct entry *e = table_find(&s->keys, key);
    if (e && expired(e, now_ms)) {
        remove_from(s, e);
        s->expired++;
        e = NULL;
    }
    if (e)
        s->hits++;
    else
        s->misses++;
    return e;
}

struct entry *db_put(struct slice key, int64_t now_ms)
{
    struct shard *s = shard_of(key.hash);
    struct entry *e = table_put(&s->keys, key);
    if (e && expired(e, now_ms)) {
        e->value = NULL;
        db_set_expiry(e, 0);
        s->expired++;
    }
    return e;
}

void db_remove(struct entry *e) { remove_from(shard_of(e->hash), e); }

void db_set_expiry(struct entry *e, int64_t expires_ms)
{
    shard_of(e->hash)->volatiles += (size_t)(expires_ms != 0) - (size_t)(e->expires_ms != 0);
    e->expires_ms = expires_ms;
}

void db_clear(void)
{
    for (int i = 0; i < DB_SHARDS; i++) { /* that is all: the collector finds out what it was */
        memset(&shards[i].keys, 0, sizeof shards[i].keys);
        shards[i].volatiles = shards[i].cursor = 0;
    }
}

size_t db_count(void)
{
    struct db_stats stats;
    db_stats_read(&stats);
    return stats.keys;
}

void db_stats_read(struct db_stats *out)
{
    *out = (struct db_stats){ 0 };
    for (int i = 0; i < DB_SHARDS; i++) {
        struct shard *s = &shards[i];
        weft_mutex_lock(&s->lock);
        out->keys += s->keys.count;
        out->volatiles += s->volatiles;
        out->hits += s->hits;
        out->misses += s->misses;
        out->expired += s->expired;
        weft_mutex_unlock(&s->lock);
    }
}

void db_stats_reset(void)
{
    for (int i = 0; i < DB_SHARDS; i++) {
        weft_mutex_lock(&shards[i].lock);
        shards[i].hits = shards[i].misses = shards[i].expired = 0;
        weft_mutex_unlock(&shards[i].lock);
    }
}

/* ---- the sweeper --------------------------------------------------------------------------------- */

enum { SWEEP_ENTRIES = 20, SWEEP_BUCKETS = 400, SWEEP_PERIOD_MS = 100 };

/* Looks at some entries that expire. True if more than a quarter of them had: the shard is worth another look at
 * once. */
static bool sweep_some(struct shard *s, int64_t now_ms)
{
    size_t seen = 0, dead = 0;
    for (int i = 0; i < SWEEP_BUCKETS && seen < SWEEP_ENTRIES && s->volatiles > 0; i++) {
        if (s->cursor >= table_buckets(&s->keys))
            s->cursor = 0;
        struct entry *next;
        for (struct entry *e = table_bucket(&s->keys, s->cursor); e; e = next) {
            next = e->next;
            seen += e->expires_ms != 0;
            if (!expired(e, now_ms))
                continue;
            remove_from(s, e); /* may start a rehash, which leaves the old array in place */
            s->expired++;
            dead++;
        }
        s->cursor++;
    }
    return dead * 4 > SWEEP_ENTRIES;
}

void db_sweeper(void *unused)
{
    (void)unused;
    weft_set_name("expiry sweeper");
    for (;;) {
        weft_sleep(SWEEP_PERIOD_MS * WEFT_MILLISECOND);
        for (int i = 0; i < DB_SHARDS; i++) {
            bool again = true;
            for (int round = 0; again && round < 16; round++) { /* requests get in between */
                weft_mutex_lock(&shards[i].lock);
                again = sweep_some(&shards[i], weft_now() / WEFT_MILLISECOND);
                weft_mutex_unlock(&shards[i].lock);
            }
        }
    }
}

/* ---- lists --------------------------------------------------------------------------------------- */

enum { CHUNK_ITEMS = 61 }; /* 512 bytes */

struct chunk {
    struct chunk *prev, *next;
    uint32_t lo, hi; /* items [lo, hi) are in use; the others are NULL */
    struct str *items[CHUNK_ITEMS];
};

static const weft_type *chunk_type;
static weft_once chunk_type_once;

static void chunk_type_make(void *unused)
{
    (void)unused;
    size_t offsets[2 + CHUNK_ITEMS] = { offsetof(struct chunk, prev), offsetof(struct chunk, next) };
    for (size_t i = 0; i < CHUNK_ITEMS; i++)
        offsets[2 + i] = offsetof(struct chunk, items) + i * sizeof(struct str *);
    chunk_type = weft_type_make(sizeof(struct chunk), offsets, 2 + CHUNK_ITEMS);
}

struct list *list_make(void) { return weft_alloc_typed(WEFT_TYPE(struct list, first, last)); }

static struct chunk *chunk_add(struct list *l, bool front)
{
    weft_once_do(&chunk_type_once, chunk_type_make, NULL);
    struct chunk *c = chunk_type ? weft_alloc_typed(chunk_type) : NULL;
    if (!c)
        return NULL;
    c->lo = c->hi = l->first ? (front ? CHUNK_ITEMS : 0) : CHUNK_ITEMS / 2;
    c->next = front ? l->first : NULL;
    c->prev = front ? NULL : l->last;
    *(c->next ? &c->next->prev : &l->last) = c;
    *(c->prev ? &c->prev->next : &l->first) = c;
    return c;
}

bool list_push(struct list *l, bool front, struct str *s)
{
    struct chunk *c = front ? l->first : l->last;
    if (!c || (front ? c->lo == 0 : c->hi == CHUNK_ITEMS))
        c = chunk_add(l, front);
    if (!c)
        return false;
    c->items[front ? --c->lo : c->hi++] = s;
    l->count++;
    return true;
}

struct str *list_pop(struct list *l, bool front)
{
    struct chunk *c = front ? l->first : l->last;
    struct str **item = &c->items[front ? c->lo++ : --c->hi], *s = *item;
    *item = NULL; /* a forgotten pointer in the chunk would keep the string */
    l->count--;
    if (c->lo == c->hi) {
        *(c->next ? &c->next->prev : &l->last) = c->prev;
        *(c->prev ? &c->prev->next : &l->first) = c->next;
    }
    return s;
}

struct list_cursor list_at(const struct list *l, size_t i)
{
    struct chunk *c;
    if (i <= l->count / 2) {
        for (c = l->first; c && i >= c->hi - c->lo; c = c->next)
            i -= c->hi - c->lo;
        return (struct list_cursor){ c, c ? c->lo + (uint32_t)i : 0 };
    }
    size_t back = l->count - i; /* 1: the last element */
    for (c = l->last; c && back > c->hi - c->lo; c = c->prev)
        back -= c->hi - c->lo;
    return (struct list_cursor){ c, c ? c->hi - (uint32_t)back : 0 };
}

struct str *list_next(struct list_cursor *c)
{
    if (c->chunk && c->at == c->chunk->hi) {
        c->chunk = c->chunk->next;
        c->at = c->chunk ? c->chunk->lo : 0;
    }
    return c->chunk ? c->chunk->items[c->at++] : NULL;
}
