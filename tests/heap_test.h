/* What tests of the heap under fibers share: objects whose contents can be checked, and a list, outside of all roots, of where they are, so that what lives and what is gone can
 * be counted. */
#ifndef WEFT_HEAP_TEST_H
#define WEFT_HEAP_TEST_H

#include "test.h"
#include <stdlib.h>
#include <string.h>

struct box { uint64_t mark; struct box *next; uint64_t pad[4]; };
#define BOX_MARK UINT64_C(0x5ca1ab1ec0ffee00)

/* Addresses, complemented: no root. Memory of malloc is not scanned. */
struct track { uintptr_t *hidden; size_t n, cap; };

static inline void track_init(struct track *t, size_t cap) { *t = (struct track){ calloc(cap, sizeof *t->hidden), 0, cap }; }
static inline void track_free(struct track *t) { free(t->hidden); }
static inline void track_add(struct track *t, const void *p)
{
    size_t i = __atomic_fetch_add(&t->n, 1, __ATOMIC_RELAXED);
    cr_assert(i < t->cap);
    t->hidden[i] = ~(uintptr_t)p;
}

/* How many are live objects. Right after a collection: freed memory is used again. */
static __attribute__((noinline, unused)) size_t track_live(const struct track *t)
{
    size_t live = 0;
    for (size_t i = 0; i < t->n; i++)
        live += weft_object_base((void *)~t->hidden[i]) != NULL;
    return live;
}

/* An object and one behind it; t NULL: not tracked. */
static __attribute__((noinline, unused)) struct box *box_new(struct track *t, uint64_t i)
{
    struct box *b = weft_alloc(sizeof *b);
    b->mark = BOX_MARK ^ i;
    b->next = weft_alloc(sizeof *b);
    b->next->mark = ~(BOX_MARK ^ i);
    if (t != NULL) {
        track_add(t, b);
        track_add(t, b->next);
    }
    return b;
}

/* The same, as a number that is no address. */
static __attribute__((noinline, unused)) uintptr_t box_hidden(struct track *t, uint64_t i) { return ~(uintptr_t)box_new(t, i); }

static inline void box_check(const struct box *b, uint64_t i)
{
    cr_assert_eq(b->mark, BOX_MARK ^ i, "object %lu was freed: %lx", (unsigned long)i, (unsigned long)b->mark);
    cr_assert_eq(b->next->mark, ~(BOX_MARK ^ i), "what object %lu points to was freed", (unsigned long)i);
}

/* Collects, and takes freed memory into use again, so that what was freed by mistake shows. */
static __attribute__((noinline, unused)) void churn(void)
{
    test_wipe_stack();
    weft_gc();
    for (int i = 0; i < 2000; i++)
        memset(weft_alloc(sizeof(struct box)), 0x11, sizeof(struct box));
    test_wipe_stack();
    weft_gc();
}

static inline void count_up(int *n) { __atomic_fetch_add(n, 1, __ATOMIC_ACQ_REL); }
static inline int count_now(int *n) { return __atomic_load_n(n, __ATOMIC_ACQUIRE); }

#endif
