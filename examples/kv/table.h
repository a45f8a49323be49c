/* table.h - strings and the hash table of the server: the keys of a shard, the fields of a hash.
 *
 * Everything here is collected: to remove an entry is to unlink it, to drop a table is to forget it.
 *
 * Rehash is incremental: a table that is to grow or shrink gets a second slot array, and every later operation moves
 * a few buckets over, so that no request pays for all. While that goes on an entry is in the old array or in the new
 * one. */
#ifndef KV_TABLE_H
#define KV_TABLE_H

#include "resp.h"

/* n bytes that never change; a noscan object. (APPEND writes behind them, see str_append.) */
struct str {
    uint32_t n, cap;
    char b[];
};
struct str *str_make(const char *p, size_t n); /* NULL: no memory */
/* s and then p: s itself where there is room behind it, so that n appends copy O(n) bytes. Whoever still sends the
 * old s is not disturbed: its bytes stay. */
struct str *str_append(struct str *s, const char *p, size_t n);

enum kind { KIND_STRING, KIND_LIST, KIND_HASH };

/* The key lies in the entry, which saves an object and a cache miss per look-up. So entries of different sizes have
 * different types; the collector looks at next and value only. */
struct entry {
    struct entry *next;
    void *value;        /* struct str, struct list, struct table, by kind */
    int64_t expires_ms; /* 0: never */
    uint32_t hash, kind;
    uint32_t n;
    char key[];
};

struct table {
    struct entry **slots[2]; /* [1] only while rehashing, which moves entries from [0] to it */
    size_t buckets[2];       /* powers of two */
    size_t moved;            /* buckets of [0] that are empty for good */
    size_t count;
};

const weft_type *table_type(void); /* of a table that is a heap object */

/* 32 bits of a keyed hash: clients cannot choose keys that collide. */
uint32_t table_hash(const char *p, size_t n);
void table_hash_seed(const uint64_t seed[2]);

/* key.hash must be set. find: NULL if there is none. put: the entry, new with a NULL value if there was none; NULL:
 * no memory. remove: the entry that was unlinked, or NULL. */
struct entry *table_find(struct table *t, struct slice key);
struct entry *table_put(struct table *t, struct slice key);
struct entry *table_remove(struct table *t, struct slice key);
void table_unlink(struct table *t, struct entry *e);

/* Buckets are numbered over both arrays. The first entry of bucket i, or NULL; i < table_buckets(t). */
static inline size_t table_buckets(const struct table *t) { return t->buckets[0] + t->buckets[1]; }
static inline struct entry *table_bucket(const struct table *t, size_t i)
{
    return i < t->buckets[0] ? t->slots[0][i] : t->slots[1][i - t->buckets[0]];
}

#endif
