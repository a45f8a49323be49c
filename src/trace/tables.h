/* Strings and stacks of one generation: each is stored once and has a number, by which events name it.
 *
 *      bucket -> entry -> entry -> 0        entries lie one after another in an arena; bucket and link are offsets into it, 0 is none
 *
 * Emitters add without a lock: an entry is filled, then pushed in front of its bucket by compare-and-swap; who loses that race looks at what came in
 * between and, if it is the same, leaves his own unused. Nothing is removed; the whole is emptied when no emitter is in the generation any more,
 * [GEN]. A table that is full gives 0, the empty string or stack, and counts.
 *
 * Operations                 may run beside
 *   table_put                table_put
 *   table_each, table_reset  nothing */
#ifndef WEFT_TRACE_TABLES_H
#define WEFT_TRACE_TABLES_H

#include "base/atomic.h"
#include "base/base.h"

#define TABLE_BUCKETS 16384u

struct table_entry {
    uint32_t next, hash, id, len; /* len: bytes of data */
    uint8_t data[];
};

struct trace_table {
    char *arena;      /* entries from TABLE_FIRST on; NULL: nothing is stored */
    w_u32 *bucket;
    uint32_t bytes;   /* of the arena */
    w_u32 used;       /* bytes handed out; may be beyond, by those who found it full */
    w_u32 ids;        /* handed out */
    w_u32 lost;       /* found it full */
};

#define TABLE_FIRST 16u

/* Memory for so many bytes of entries, touched as it is used. 0 or -ENOMEM. */
int table_open(struct trace_table *t, size_t bytes);
void table_close(struct trace_table *t);
/* The id of those bytes; 0: there is no room. Ids begin above the base of table_reset. Any number of threads. */
uint32_t table_put(struct trace_table *t, const void *data, size_t len);
void table_reset(struct trace_table *t, uint32_t base);
/* Three quarters are used. A hint. */
static inline bool table_fills(const struct trace_table *t)
{
    return load_rlx(&t->used) / 3 >= t->bytes / 4; /* rlx: hint */
}
/* Calls fn for each entry until it returns false, and then returns false. */
bool table_each(struct trace_table *t, bool (*fn)(void *arg, const struct table_entry *e), void *arg);

#endif
