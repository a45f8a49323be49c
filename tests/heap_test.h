/* What tests of the heap under fibers share: objects whose contents can be checked, and a list, outside of all roots, of where they are, so that what
 * lives and what is gone can be counted. */
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

static __attribute__((noinline, unused)) void collect(void)
{
    test_wipe_stack();
    weft_gc();
}

/* Collects, and takes freed memory into use again, so that what was freed by mistake shows. */
static __attribute__((noinline, unused)) void churn(void)
{
    collect();
    for (int i = 0; i < 2000; i++)
        memset(weft_alloc(sizeof(struct box)), 0x11, sizeof(struct box));
    collect();
}

static inline void count_up(int *n) { __atomic_fetch_add(n, 1, __ATOMIC_ACQ_REL); }
static inline int count_now(int *n) { return __atomic_load_n(n, __ATOMIC_ACQUIRE); }

/* ---- a busy program: n fibers that run fn till told to stop -------------------------------------------------------------- */

static int busy_stop, busy_running;

static inline bool busy_on(void) { return __atomic_load_n(&busy_stop, __ATOMIC_ACQUIRE) == 0; }
static inline void busy_done(void) { __atomic_fetch_sub(&busy_running, 1, __ATOMIC_ACQ_REL); } /* fn's last word */

static inline void busy_begin(weft_fn *fn, int n)
{
    busy_stop = 0;
    busy_running = n;
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go(fn, (void *)(uintptr_t)i), 0);
}

static inline void busy_end(void)
{
    __atomic_store_n(&busy_stop, 1, __ATOMIC_RELEASE);
    test_until(count_now(&busy_running) == 0);
}

struct busy_pair { void *a, *b; uint64_t n[3]; };

static inline void busy_nothing(void *obj, void *ctx) { (void)obj, (void)ctx; }

/* Such a fn: allocates objects of all kinds and sizes, some with a finalizer. */
static __attribute__((unused)) void busy_alloc(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    void *keep[64] = { 0 };
    for (unsigned i = 0; busy_on(); i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = (size_t)(seed >> 33) % 3000;
        struct busy_pair *p = weft_alloc_typed(WEFT_TYPE(struct busy_pair, a, b));
        p->a = weft_alloc(size);
        p->b = weft_alloc_noscan(i % 50 == 0 ? 40000 + size * 100 : size);
        keep[i % 64] = p;
        if (i % 100 == 0)
            weft_set_finalizer(p, busy_nothing, NULL);
        if (i % 64 == 0)
            weft_yield();
    }
    weft_keep_alive(keep);
    busy_done();
}

#endif
