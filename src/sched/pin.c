/* Pins.
 *
 * Objects do not move, so to pin one is to make it a root: a handle (gc/roots.c) for each pin, whence the counting. A pinner points to a list of its
 * handles, an object of the heap, whose finalizer finds a pinner that was forgotten: the list is no root, and holds numbers only. */
#include "sched/mutator.h"
#include "sched/report.h"
#include <errno.h>
#include <string.h>

struct pins {
    size_t n, cap;
    weft_handle *handle; /* an object without pointers */
};

static void unpin(struct pins *pins)
{
    while (pins->n > 0)
        weft_handle_free(pins->handle[--pins->n]);
}

static void forgotten(void *obj, void *ctx)
{
    (void)ctx;
    struct pins *pins = obj;
    if (pins->n == 0)
        return;
    sched_logf("weft: a weft_pinner was dropped with %zu pins: call weft_unpin when whoever needs the objects is done", pins->n);
    unpin(pins);
}

static struct pins *pins_new(void)
{
    struct pins *pins = weft_alloc(sizeof *pins);
    return pins != NULL && weft_set_finalizer(pins, forgotten, NULL) == 0 ? pins : NULL;
}

static bool reserve(struct pins *pins)
{
    if (pins->n < pins->cap)
        return true;
    size_t cap = w_max((size_t)8, 2 * pins->cap);
    weft_handle *h = weft_alloc_noscan(cap * sizeof *h);
    if (h == NULL)
        return false;
    if (pins->n > 0)
        memcpy(h, pins->handle, pins->n * sizeof *h);
    pins->handle = h;
    pins->cap = cap;
    return true;
}

/* 1: into a live object of the heap; 0: elsewhere; else -EINVAL. */
static int is_object(const void *p)
{
    struct m *m = rt_enter();
    int r = gc_object_base(p) != NULL ? 1 : gc_in_heap(p) ? -EINVAL : 0;
    rt_leave(m);
    return p == NULL ? -EINVAL : r;
}

int weft_pin(weft_pinner *pinner, const void *p)
{
    int r = is_object(p);
    if (r != 1)
        return r;
    struct pins *pins = pinner->pins_;
    if (pins == NULL && (pins = pinner->pins_ = pins_new()) == NULL)
        return -ENOMEM;
    if (!reserve(pins))
        return -ENOMEM;
    weft_handle h = weft_handle_new((void *)(uintptr_t)p);
    if (h == 0)
        return -ENOMEM;
    pins->handle[pins->n++] = h;
    return 0;
}

void weft_unpin(weft_pinner *pinner)
{
    if (pinner->pins_ != NULL)
        unpin(pinner->pins_);
}
