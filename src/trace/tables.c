#include "trace/tables.h"
#include <errno.h>
#include <string.h>
#include "base/offheap.h"

#define MAP_BYTES(bytes) ((size_t)(bytes) + TABLE_BUCKETS * sizeof(w_u32))

_Static_assert(sizeof(struct table_entry) % 8 == 0, "data is words of stacks");

int table_open(struct trace_table *t, size_t bytes)
{
    memset(t, 0, sizeof *t);
    bytes = w_align_up(w_min(bytes, (size_t)1 << 30), 4096);
    char *p = off_map(OFF_TRACE, MAP_BYTES(bytes), 4096);
    if (p == NULL)
        return -ENOMEM;
    t->bucket = (w_u32 *)p;
    t->arena = p + TABLE_BUCKETS * sizeof(w_u32);
    t->bytes = (uint32_t)bytes;
    store_rlx(&t->used, TABLE_FIRST); /* rlx: nobody else knows of it */
    return 0;
}

void table_close(struct trace_table *t)
{
    if (t->arena != NULL)
        off_unmap(OFF_TRACE, t->bucket, MAP_BYTES(t->bytes));
    memset(t, 0, sizeof *t);
}

void table_reset(struct trace_table *t, uint32_t base)
{
    if (load_rlx(&t->used) != TABLE_FIRST) /* rlx, and below: nobody else uses it */
        memset(t->bucket, 0, TABLE_BUCKETS * sizeof(w_u32));
    store_rlx(&t->used, TABLE_FIRST);
    store_rlx(&t->ids, base);
    store_rlx(&t->lost, 0);
}

/* Sixteen bytes at a time; both halves of a product mix all of them. */
static inline uint64_t mix(uint64_t h, const uint64_t w[2])
{
    unsigned __int128 m = (unsigned __int128)(w[0] ^ 0xd6e8feb86659fd93) * (w[1] ^ h);
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static inline uint32_t hash_of(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = len * 0x9e3779b97f4a7c15, w[2];
    for (; len >= sizeof w; p += sizeof w, len -= sizeof w) {
        memcpy(w, p, sizeof w);
        h = mix(h, w);
    }
    w[0] = w[1] = 0;
    memcpy(w, p, len);
    h = mix(h, w);
    return (uint32_t)(h ^ h >> 32);
}

static inline struct table_entry *entry_at(const struct trace_table *t, uint32_t off) { return (struct table_entry *)(t->arena + off); }

/* The id of such an entry between from and until, which comes after it; 0: none. */
static inline uint32_t find(const struct trace_table *t, uint32_t from, uint32_t until, uint32_t hash, const void *data, size_t len)
{
    for (uint32_t off = from; off != until;) {
        const struct table_entry *e = entry_at(t, off);
        if (e->hash == hash && e->len == len && memcmp(e->data, data, len) == 0)
            return e->id;
        off = e->next;
    }
    return 0;
}

static w_noinline uint32_t add(struct trace_table *t, w_u32 *bucket, uint32_t head, uint32_t hash, const void *data, size_t len)
{
    uint32_t need = (uint32_t)w_align_up(sizeof(struct table_entry) + len, 8);
    /* rlx: only the size is looked at. Before the addition, so that it cannot overflow */
    if (load_rlx(&t->used) + need > t->bytes) {
        add_rlx(&t->lost, 1); /* rlx: counter */
        return 0;
    }
    uint32_t off = add_rlx(&t->used, need); /* rlx: the bytes are ours, whoever sees what else */
    if (off + need > t->bytes) {
        add_rlx(&t->lost, 1); /* rlx: counter */
        return 0;
    }
    struct table_entry *e = entry_at(t, off);
    e->hash = hash;
    e->len = (uint32_t)len;
    e->id = add_rlx(&t->ids, 1) + 1; /* rlx: a number of our own */
    memcpy(e->data, data, len);
    for (;;) {
        e->next = head;
        if (cas_rel(bucket, head, off)) /* rel: publishes the entry; acq in table_put and below */
            return e->id;
        uint32_t now = load_acq(bucket); /* acq: sees the entries in front of head; rel above */
        uint32_t id = find(t, now, head, hash, data, len);
        if (id != 0)
            return id;
        head = now;
    }
}

uint32_t table_put(struct trace_table *t, const void *data, size_t len)
{
    uint32_t hash = hash_of(data, len);
    w_u32 *bucket = &t->bucket[hash % TABLE_BUCKETS];
    uint32_t head = load_acq(bucket); /* acq: sees the entries; rel in add */
    uint32_t id = find(t, head, 0, hash, data, len);
    return likely(id != 0) ? id : add(t, bucket, head, hash, data, len);
}

bool table_each(struct trace_table *t, bool (*fn)(void *arg, const struct table_entry *e), void *arg)
{
    if (load_rlx(&t->used) == TABLE_FIRST) /* rlx, and below: nobody else uses it */
        return true;
    for (uint32_t b = 0; b < TABLE_BUCKETS; b++) {
        const struct table_entry *e;
        for (uint32_t off = load_rlx(&t->bucket[b]); off != 0; off = e->next) {
            e = entry_at(t, off);
            if (!fn(arg, e))
                return false;
        }
    }
    return true;
}
