/* See central.h. A span is on one list or in one hand: a processor's cache, a sweeper's. Lists are singly linked with a tail:
 * spans are taken at the head and come back at the tail, which keeps them in order of address over the cycles. */
#include "gc/central.h"
#include <string.h>
#include "base/probe.h"
#include "gc/sweep.h"
#include "gc/type.h"

static void push(struct span_list *l, struct span *s)
{
    s->next = NULL;
    if (l->head == NULL)
        l->head = s;
    else
        l->tail->next = s;
    l->tail = s;
}

static struct span *pop(struct span_list *l)
{
    struct span *s = l->head;
    if (s == NULL)
        return NULL;
    __atomic_store_n(&l->head, s->next, __ATOMIC_RELAXED); /* rlx: under the lock; take_unswept looks before it takes that */
    if (s->next != NULL) {
        __builtin_prefetch(s->next, 1);
        __builtin_prefetch(span_marks(s->next), 1);
    }
    s->next = NULL;
    return s;
}

static void append(struct span_list *to, struct span_list *from)
{
    if (from->head == NULL)
        return;
    if (to->head == NULL)
        to->head = from->head;
    else
        to->tail->next = from->head;
    to->tail = from->tail;
    from->head = from->tail = NULL;
}

void central_init(struct central *c)
{
    memset(c, 0, sizeof *c);
    lock_init(&c->lock, RANK_CENTRAL);
}

void central_put(struct central *c, struct span *s)
{
    lock_take(&c->lock);
    push(s->nfree != 0 ? &c->partial : &c->full, s);
    lock_drop(&c->lock);
}

static struct span *take_unswept(struct central *c)
{
    struct span *s = NULL;
    if (__atomic_load_n(&c->unswept.head, __ATOMIC_RELAXED) != NULL) { /* rlx: filled in stops only; looked at again under the lock */
        lock_take(&c->lock);
        s = pop(&c->unswept);
        if (s != NULL)
            sweep_enter();
        lock_drop(&c->lock);
    }
    return s;
}

bool central_sweep_one(struct central *c, size_t *freed)
{
    struct span *s = take_unswept(c);
    if (s == NULL)
        return false;
    if (span_sweep(s) == s->nobj) {
        if (freed != NULL)
            *freed = s->npages;
        span_free(s);
    } else
        central_put(c, s);
    sweep_leave();
    return true;
}

/* How many full spans a refill sweeps before it takes fresh pages instead: bounds the pause of one allocation. */
#define SWEEP_TRIES 100

struct span *central_get(uint32_t shape, unsigned cls)
{
    struct central *c = &shape_get(shape)->central[cls];
    lock_take(&c->lock);
    struct span *s = pop(&c->partial);
    lock_drop(&c->lock);
    if (s != NULL)
        return s;
    for (int tries = 0; tries < SWEEP_TRIES && (s = take_unswept(c)) != NULL; tries++) {
        bool room = span_sweep(s) != 0;
        if (!room)
            central_put(c, s);
        sweep_leave();
        if (room) {
            PROBE(gc_swept, 0, 0, 0);
            return s;
        }
    }
    PROBE(gc_swept, 0, 0, 0);
    return span_new(shape, cls, class_info[cls].npages);
}

void central_unsweep_stw(struct central *c)
{
    w_assert(c->unswept.head == NULL);
    append(&c->unswept, &c->partial);
    append(&c->unswept, &c->full);
}

struct span *central_large(uint32_t shape, size_t bytes)
{
    size_t n = bytes / HEAP_PAGE + (bytes % HEAP_PAGE != 0);
    if (!gc_alloc_possible(bytes))
        return NULL;
    sweep_large(n);
    struct span *s = span_new(shape, CLASS_LARGE, n);
    if (s == NULL)
        return NULL;
    if (s->needzero)
        memset(span_base(s), 0, span_bytes(s));
    s->needzero = true;
    if (gc_marking())
        span_born(s, 0, 1);
    __atomic_store_n(&span_allocs(s)[0], 1, __ATOMIC_RELAXED); /* rlx: [BITS] */
    s->nfree = 0;
    central_put(&shape_get(shape)->central[0], s);
    return s;
}
