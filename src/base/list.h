/* An intrusive list, doubly linked, circular with its head: adding and removing are O(1) and need no case for the ends.
 *
 * A node that is in no list points at itself (after list_init or list_del), so list_linked() tells. No locking of its
 * own. */
#ifndef WEFT_BASE_LIST_H
#define WEFT_BASE_LIST_H

#include "base/base.h"

struct list { struct list *next, *prev; };

#define LIST_INIT(name) { &(name), &(name) }
#define list_entry(p, type, member) w_containerof(p, type, member)
/* The node at hand may be removed in the body. */
#define list_each(it, head)                                                                                    \
    for (struct list *it = (head)->next, *it##_next_ = it->next; it != (head); it = it##_next_, it##_next_ = it->next)

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *head) { return head->next == head; }
static inline bool list_linked(const struct list *n) { return n->next != n; }

static inline void list_add_between(struct list *n, struct list *prev, struct list *next)
{
    n->prev = prev;
    n->next = next;
    prev->next = n;
    next->prev = n;
}

static inline void list_add_front(struct list *head, struct list *n) { list_add_between(n, head, head->next); }
static inline void list_add_back(struct list *head, struct list *n) { list_add_between(n, head->prev, head); }

static inline void list_del(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

/* NULL: empty. */
static inline struct list *list_first(struct list *head) { return list_empty(head) ? NULL : head->next; }
static inline struct list *list_pop_front(struct list *head)
{
    struct list *n = list_first(head);
    if (n != NULL)
        list_del(n);
    return n;
}

/* Moves all nodes of from to the back of to. */
static inline void list_splice_back(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#endif
