/* See weak.h.
 *
 * A handle is a small object that holds the address where the marker does not see it. The object's table of specials (special.c) knows its handles
 * and keeps them, so that there is one for each object and offset and two of them compare equal when they point to the same; when
 * the object is found dead, they are cleared in that stop, before its finalizer is queued. So to read one is a load: what it gives cannot have died.
 *
 * What lies outside of the heap never dies: a handle for it is made off the heap, once for each address, and stays. */
#include "gc/weak.h"
#include <string.h>
#include "gc/heap.h"
#include "gc/special.h"

struct immortal {
    weft_weak handle;
    struct immortal *next; /* same bucket */
};

static struct {
    struct lock lock; /* all */
    struct immortal **bucket;
    size_t n, nbuckets; /* a power of two */
} immortals = { .lock = LOCK_INIT(RANK_LEAF) };

static size_t bucket_of(uint64_t hidden) { return (size_t)(hidden * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (immortals.nbuckets - 1); }

static void put(struct immortal *im)
{
    size_t b = bucket_of(load_rlx(&im->handle.hidden)); /* rlx: under lock */
    im->next = immortals.bucket[b];
    immortals.bucket[b] = im;
}

static bool grow(void)
{
    size_t was = immortals.nbuckets;
    struct immortal **old = immortals.bucket, **bigger = off_zalloc(OFF_SPECIAL, w_max((size_t)64, 2 * was) * sizeof *bigger);
    if (bigger == NULL)
        return was != 0; /* longer chains, then */
    immortals.bucket = bigger;
    immortals.nbuckets = w_max((size_t)64, 2 * was);
    for (size_t i = 0; i < was; i++)
        for (struct immortal *im = old[i], *next; im != NULL; im = next) {
            next = im->next;
            put(im);
        }
    off_free(OFF_SPECIAL, old);
    return true;
}

static weft_weak *immortal_locked(uint64_t hidden)
{
    if (immortals.n == immortals.nbuckets && !grow())
        return NULL;
    for (struct immortal *im = immortals.bucket[bucket_of(hidden)]; im != NULL; im = im->next)
        if (load_rlx(&im->handle.hidden) == hidden) /* rlx: never changes */
            return &im->handle;
    struct immortal *im = off_alloc(OFF_SPECIAL, sizeof *im);
    if (im == NULL)
        return NULL;
    store_rlx(&im->handle.hidden, hidden); /* rlx: the lock publishes it */
    put(im);
    immortals.n++;
    return &im->handle;
}

static weft_weak *immortal(const void *p)
{
    lock_take(&immortals.lock);
    weft_weak *w = immortal_locked(~(uint64_t)(uintptr_t)p);
    lock_drop(&immortals.lock);
    return w;
}

void weak_stop(void)
{
    for (size_t i = 0; i < immortals.nbuckets; i++)
        for (struct immortal *im = immortals.bucket[i], *next; im != NULL; im = next) {
            next = im->next;
            off_free(OFF_SPECIAL, im);
        }
    off_free(OFF_SPECIAL, immortals.bucket);
    memset(&immortals, 0, sizeof immortals);
    lock_init(&immortals.lock, RANK_LEAF);
}

weft_weak *gc_weak_find(const void *p)
{
    struct span *s;
    size_t i;
    if (!gc_in_heap(p))
        return immortal(p);
    return heap_find(p, &s, &i) ? special_weak(s, i, (uint64_t)((const char *)p - span_object(s, i))) : NULL;
}

weft_weak *gc_weak_attach(const void *p, weft_weak *fresh)
{
    struct span *s;
    size_t i;
    if (!gc_in_heap(p))
        return immortal(p);
    if (!heap_find(p, &s, &i))
        return NULL;
    store_rlx(&fresh->hidden, ~(uint64_t)(uintptr_t)p); /* rlx: the lock in special_weak_add publishes it */
    return special_weak_add(s, i, (uint64_t)((const char *)p - span_object(s, i)), fresh);
}
