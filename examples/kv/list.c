/* list.c - chunks. */
#include "list.h"

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
