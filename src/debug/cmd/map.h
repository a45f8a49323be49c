/* From numbers to numbers, by open addressing: identifiers of files to places in arrays. */
#ifndef WEFT_CMD_MAP_H
#define WEFT_CMD_MAP_H

#include "debug/cmd/report.h"
#include <stdlib.h>

#define MAP_NONE UINT32_MAX

struct map {
    struct { uint64_t key; uint32_t value; } *slot; /* value: one more, 0: free */
    size_t room, n;
};

static inline size_t map_slot(const struct map *m, uint64_t key)
{
    uint64_t h = (key ^ key >> 32) * 0x9e3779b97f4a7c15ull;
    size_t i = (size_t)(h ^ h >> 29) & (m->room - 1);
    while (m->slot[i].value != 0 && m->slot[i].key != key)
        i = (i + 1) & (m->room - 1);
    return i;
}

static inline uint32_t map_get(const struct map *m, uint64_t key)
{
    return m->room == 0 ? MAP_NONE : m->slot[map_slot(m, key)].value - 1; /* 0 - 1 is MAP_NONE */
}

static inline void map_put(struct map *m, uint64_t key, uint32_t value)
{
    if (2 * (m->n + 1) > m->room) {
        struct map more = { .room = m->room == 0 ? 64 : 2 * m->room, .n = m->n };
        more.slot = must_alloc(more.room * sizeof *more.slot);
        for (size_t i = 0; i < m->room; i++)
            if (m->slot[i].value != 0)
                more.slot[map_slot(&more, m->slot[i].key)] = m->slot[i];
        free(m->slot);
        *m = more;
    }
    size_t i = map_slot(m, key);
    m->n += m->slot[i].value == 0;
    m->slot[i].key = key;
    m->slot[i].value = value + 1;
}

/* A key for what is no number: its bytes, from MAP_KEY on. (FNV-1a) */
#define MAP_KEY 0xcbf29ce484222325ull
static inline uint64_t map_key(uint64_t key, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        key = (key ^ ((const uint8_t *)data)[i]) * 0x100000001b3ull;
    return key;
}

static inline void map_free(struct map *m)
{
    free(m->slot);
    *m = (struct map){ 0 };
}

#endif
