/* Pools.
 *
 * A pool has two sides. What is put goes to the primary one; a collection makes that the victim, and drops the victim before: so what nobody takes in
 * the time between two collections is garbage at the second. The collector does that itself in its stop (gc/special.c: what a pool holds is not
 * reachable through the pool, in which the collector sees nothing but make's argument, but by its special). We are inside the runtime at every step,
 * so a stop finds no step half done; but an allocation may be a collection, after which everything is looked at anew.
 *
 * A side has a place for each processor: one object that only the processor's own machine touches, and blocks of more, under a lock, so that others
 * can take from them when they have none.
 *
 *      pool -> primary -> local[p]: own, lock, blocks -> { x, x, x } -> ...
 *           -> victim  -> the same */
#include "sched/mutator.h"
#include <weft/sync.h>

#define BLOCK_ITEMS 30u

struct block {
    struct block *next;
    size_t n;
    void *x[BLOCK_ITEMS];
};

struct local {
    void *own;           /* the processor's */
    struct block *blocks; /* under lock; the first has at least one, if there is a first */
    struct lock lock;    /* RANK_LEAF */
    char pad_[64 - 3 * sizeof(void *)];
};
_Static_assert(sizeof(struct local) == 64, "a cache line each");

struct gc_pool_side {
    size_t n;
    char pad_[56];
    struct local local[];
};

struct weft_pool {
    struct gc_pool gc;
    void *(*make)(void *arg);
};

weft_pool *weft_pool_new(void *(*make)(void *arg), void *arg)
{
    weft_pool *pool = weft_alloc_typed(WEFT_TYPE(weft_pool, gc.arg));
    if (pool == NULL)
        return NULL;
    pool->make = make;
    pool->gc.arg = arg;
    rt_enter();
    int err = gc_pool_add(&pool->gc);
    rt_leave(m_self());
    return err == 0 ? pool : NULL;
}

/* ---- taking ------------------------------------------------------------------------------------------------------- */

static void *pop(struct local *l)
{
    void *x = NULL;
    lock_take(&l->lock);
    struct block *b = l->blocks;
    if (b != NULL) {
        x = b->x[--b->n];
        b->x[b->n] = NULL;
        if (b->n == 0)
            l->blocks = b->next;
    }
    lock_drop(&l->lock);
    return x;
}

/* From the place of processor p, or any other. */
static void *take_from(struct gc_pool_side *side, uint32_t p)
{
    if (side == NULL)
        return NULL;
    void *x = NULL;
    if (p < side->n) {
        x = side->local[p].own;
        side->local[p].own = NULL;
    }
    for (size_t i = 0; x == NULL && i < side->n; i++)
        x = pop(&side->local[(p + i) % side->n]);
    return x;
}

void *weft_pool_get(weft_pool *pool)
{
    struct m *m = rt_enter();
    void *x = take_from(load_acq(&pool->gc.primary), m->p->id); /* acq: rel in side_for */
    if (x == NULL)
        x = take_from(pool->gc.victim, m->p->id); /* changes in stops only */
    rt_leave(m);
    return x == NULL && pool->make != NULL ? pool->make(pool->gc.arg) : x;
}

/* ---- putting ------------------------------------------------------------------------------------------------------- */

/* The primary side; makes one. NULL: no memory. May collect. */
static struct gc_pool_side *side_for(weft_pool *pool)
{
    struct gc_pool_side *have = load_acq(&pool->gc.primary); /* acq: rel below */
    if (have != NULL)
        return have;
    size_t n = nprocs();
    struct gc_pool_side *fresh = mutator_alloc(m_self(), sizeof *fresh + n * sizeof fresh->local[0], SHAPE_CONS);
    if (fresh == NULL)
        return NULL;
    fresh->n = n;
    for (size_t i = 0; i < n; i++)
        lock_init(&fresh->local[i].lock, RANK_LEAF);
    have = load_acq(&pool->gc.primary); /* acq: as above */
    if (have == NULL && !cas_rel(&pool->gc.primary, have, fresh)) /* rel: its locks; acq in those that load it */
        have = load_acq(&pool->gc.primary);                       /* acq: as above. Stops are the only ones that take it away */
    return have != NULL ? have : fresh;
}

static bool push(struct local *l, void *x)
{
    lock_take(&l->lock);
    struct block *b = l->blocks;
    bool room = b != NULL && b->n < BLOCK_ITEMS;
    if (room)
        b->x[b->n++] = x;
    lock_drop(&l->lock);
    return room;
}

static void push_block(struct local *l, struct block *b)
{
    lock_take(&l->lock);
    b->next = l->blocks;
    l->blocks = b;
    lock_drop(&l->lock);
}

/* The place of the calling machine's processor; NULL: none, as there is no memory, or the processor is newer than the side. May collect. */
static struct local *place(weft_pool *pool)
{
    struct gc_pool_side *side = side_for(pool);
    uint32_t p = m_self()->p->id;
    return side != NULL && p < side->n ? &side->local[p] : NULL;
}

void weft_pool_put(weft_pool *pool, void *x)
{
    if (x == NULL)
        return;
    rt_enter();
    struct local *l = place(pool);
    if (l != NULL && l->own == NULL)
        l->own = x;
    else if (l != NULL && !push(l, x)) {
        struct block *b = mutator_alloc(m_self(), sizeof *b, SHAPE_CONS);
        if (b != NULL && (l = place(pool)) != NULL) { /* perhaps another processor's by now */
            b->x[b->n++] = x;
            push_block(l, b);
        }
    }
    rt_leave(m_self());
}
