/* Spans: making, freeing, finding. See heap.h. */
#include <string.h>
#include "base/backoff.h"
#include "gc/heap.h"
#include "gc/pages.h"
#include "gc/poison.h"
#include "gc/scavenge.h"
#include "gc/type.h"

struct heap heap = { .caches_lock = LOCK_INIT(RANK_ROOTS) };

static uint32_t map_flags(const struct span *s)
{
    const struct shape *sh = shape_get(s->shape);
    if (s->shape < SHAPE_TYPED)
        return s->shape == SHAPE_NOSCAN ? PAGE_NOSCAN : 0;
    return sh->nptrs < sh->words ? PAGE_TYPED : 0; /* where all words are pointers, all are scanned */
}

/* rel: publishes the record to heap_span_of (acq) of a thread that got a pointer into the span by whatever way. */
static void map_pages(struct span *s)
{
    size_t first = span_page(s);
    uint32_t bits = s->cls | map_flags(s);
    for (size_t i = 0; i < s->npages; i++)
        store_rel(&heap.pagemap[first + i], bits | (uint32_t)i * PAGE_BACK_ONE);
}

/* In heap.kinds; rlx: see page_kinds. Atomic, as neighbours are others'. */
static void show_kind(const struct span *s, bool on)
{
    enum page_kind kind = s->shape == SHAPE_NOSCAN ? NOSCAN_PAGES : s->carded ? CARDED_PAGES : ARMED_PAGES;
    for (size_t i = span_page(s), end = i + s->npages, k; i < end; i += k) {
        k = w_min(64 - i % 64, end - i);
        w_u64 *w = &heap.kinds[i / 64].of[kind];
        uint64_t m = bits_mask((unsigned)k) << i % 64;
        if (on)
            or_rlx(w, m);
        else
            and_rlx(w, ~m);
    }
}

struct span *span_new(uint32_t shape, unsigned cls, size_t npages)
{
    bool needzero;
    size_t grown, first = pages_alloc(npages, &needzero, &grown);
    if (first == NO_PAGE)
        return NULL;
    scavenge_allocated(grown);
    struct span *s = &heap.spans[first];
    s->shape = shape;
    if (shape >= SHAPE_TYPED)
        heap.shapes[first] = shape;
    s->cls = (uint8_t)cls;
    s->carded = shape_get(shape)->carded;
    s->nobj = s->nfree = class_info[cls].nobj;
    s->scan = 0;
    s->next = NULL;
    s->npages = npages;
    s->needzero = needzero;
    store_rlx(&s->born, 0); /* rlx: published by map_pages */
    memset(s->allocs, 0, sizeof s->allocs);
    memset(&heap.bits[first], 0, sizeof heap.bits[first]);
    if (heap.poison)
        poison_new_span(s);
    store_rlx(&s->sweepgen, load_rlx(&heap.sweepgen)); /* rlx: moves in a stop only; published by map_pages */
    map_pages(s);
    show_kind(s, true);
    add_rlx(&heap.nspans, 1); /* rlx: counters */
    if (s->carded)
        add_rlx(&heap.ncarded, 1); /* before anything is stored in it */
    return s;
}

void span_free(struct span *s)
{
    size_t first = span_page(s), n = s->npages;
    w_assert(s->specials == NULL); /* and so it is in every record that is free: special_cleanup_remove may look */
    for (size_t i = 0; i < n; i++)
        store_rlx(&heap.pagemap[first + i], 0); /* rlx: no pointer into a free span is anybody's */
    show_kind(s, false);
    sub_rlx(&heap.nspans, 1); /* rlx: counters */
    if (s->carded)
        sub_rlx(&heap.ncarded, 1);
    pages_free(first, n);
}

w_noinline void span_born(struct span *s, size_t from, size_t to)
{
    uint64_t *marks = span_marks(s);
    store_rlx(&s->born, (uint32_t)gc_cycles_begun()); /* rlx: ordered by the fence, as the marks are */
    for (size_t i = from, k; i < to; i += k) {
        k = w_min(64 - i % 64, to - i);
        __atomic_fetch_or(&marks[i / 64], bits_mask((unsigned)k) << i % 64, __ATOMIC_RELAXED); /* markers set others */
    }
    add_rlx(&heap.born_bytes, (to - from) * span_elem(s)); /* rlx: counter */
    fence_seq(); /* before all stores to what is born */
}

struct span *heap_span_of(const void *p)
{
    uintptr_t off = (uintptr_t)p - (uintptr_t)heap.base;
    if (off >= load_rlx(&heap.committed)) /* rlx: see heap.h */
        return NULL;
    uint32_t m = load_acq(&heap.pagemap[off >> PAGE_SHIFT]); /* acq: rel in map_pages */
    return (m & 127) == 0 ? NULL : &heap.spans[(off >> PAGE_SHIFT) - PAGE_BACK(m)];
}

/* [SWEPT] In an unswept span the marks say it, in a swept one the allocation bits; a span that is being swept is waited for. */
static bool span_object_live(struct span *s, size_t i)
{
    uint32_t now = load_rlx(&heap.sweepgen), looks = 0; /* rlx: moves in a stop only */
    for (uint32_t g; (g = load_acq(&s->sweepgen)) != now; backoff(looks++)) { /* acq: rel at the end of span_sweep */
        if (g != now - SWEEPGEN_STEP)
            continue;
        uint64_t w = __atomic_load_n(&span_marks(s)[i / 64], __ATOMIC_ACQUIRE); /* acq: rel in span_sweep, before which */
        if (load_rlx(&s->sweepgen) == g)                                        /* the generation had moved */
            return w >> i % 64 & 1;
    }
    return __atomic_load_n(&span_allocs(s)[i / 64], __ATOMIC_RELAXED) >> i % 64 & 1; /* rlx: the object is the caller's */
}

bool heap_find(const void *p, struct span **sp, size_t *index)
{
    struct span *s = heap_span_of(p);
    if (s == NULL)
        return false;
    size_t i = span_index(s, p);
    if (i >= s->nobj || !span_object_live(s, i))
        return false;
    *sp = s;
    *index = i;
    return true;
}

struct span *span_next(size_t from)
{
    size_t end = load_rlx(&heap.committed) >> PAGE_SHIFT; /* rlx: in a stop */
    for (size_t i = from; i < end; i++)
        if ((load_rlx(&heap.pagemap[i]) & 127) != 0) /* rlx: in a stop */
            return &heap.spans[i];
    return NULL;
}

bool gc_in_heap(const void *p) { return (uintptr_t)p - (uintptr_t)heap.base < heap.reserved; }

void *gc_object_base(const void *p)
{
    struct span *s;
    size_t i;
    return heap_find(p, &s, &i) ? span_object(s, i) : NULL;
}

size_t gc_object_size(const void *p)
{
    struct span *s;
    size_t i;
    return heap_find(p, &s, &i) ? span_elem(s) : 0;
}

unsigned gc_object_shape(const void *base)
{
    struct span *s = heap_span_of(base);
    return s != NULL ? s->shape : SHAPE_CONS;
}

bool gc_object_carded(const void *base)
{
    struct span *s = heap_span_of(base);
    return s != NULL && s->carded;
}
