/* db.h - the data: 64 shards, each a lock and a table; lists; expiry.
 *
 * A command locks the shards of its keys before it starts, in ascending order, and so is atomic. All functions that
 * take a key expect its shard to be locked. */
#ifndef KV_DB_H
#define KV_DB_H

#include "table.h"

enum { DB_SHARDS = 64 };
#define DB_ALL UINT64_MAX

static inline uint64_t db_shard_bit(uint32_t hash) { return UINT64_C(1) << (hash >> 26); }
void db_lock(uint64_t shards);
void db_unlock(uint64_t shards);

/* find removes what has expired. put: as table_put. */
struct entry *db_find(struct slice key, int64_t now_ms);
struct entry *db_put(struct slice key, int64_t now_ms);
void db_remove(struct entry *e);
void db_set_expiry(struct entry *e, int64_t expires_ms);

void db_clear(void);            /* all shards locked */
size_t db_count(void);          /* takes the locks itself, one by one */
struct db_stats { size_t keys, volatiles; uint64_t hits, misses, expired; };
void db_stats_read(struct db_stats *out);
void db_stats_reset(void);

/* Removes expired keys nobody asks for, for ever: the body of a fiber. */
void db_sweeper(void *unused);

#endif
