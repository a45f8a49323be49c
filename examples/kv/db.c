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
