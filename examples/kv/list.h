/* list.h - lists: chunks of elements, linked both ways. */
#ifndef KV_LIST_H
#define KV_LIST_H

#include "table.h"

struct chunk;
struct list {
    struct chunk *first, *last;
    size_t count;
};
struct list *list_make(void); /* NULL: no memory */
bool list_push(struct list *l, bool front, struct str *s); /* false: no memory */
struct str *list_pop(struct list *l, bool front);          /* the list is not empty */

/* Walks: list_at positions before element i, next returns it and goes on. */
struct list_cursor { struct chunk *chunk; uint32_t at; };
struct list_cursor list_at(const struct list *l, size_t i);
struct str *list_next(struct list_cursor *c);

#endif
