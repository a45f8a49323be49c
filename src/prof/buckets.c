/* Sample buckets: found or made without a lock.
 *
 * [TRIE] A table of ROOTS slots, and below each of them a tree of buckets. Ten bits of the hash choose the slot, the others, two at a time, the
 * child. So a bucket lies on one path only, and whoever wants to put one there walks the path to its first empty place. It is put there by a
 * compare-and-swap; who loses looks at what came instead, and goes on. Nothing is ever taken out or moved. So there is no state in which anybody
 * would wait for anybody, and a thread that is gone (in the child of a fork) leaves nothing half done.
 *
 * When the bits are used up they begin anew: equal hashes lie on one path, behind each other. A table of a hundred thousand buckets is four levels
 * deep, of a hundred mostly one.
 *
 * Memory comes in slabs, whole pages, from which buckets are cut by adding to a counter. A cut that nobody uses, since another was first to put that
 * bucket there, is lost; it is rare. So are the ends of slabs. Slabs and table count as OFF_PROF. */
#include "prof/buckets.h"
#include <string.h>
#include "base/offheap.h"

#define ROOTS_LOG2 10
#define ROOTS (1u << ROOTS_LOG2)
#define SLAB_BYTES (64u << 10)

struct buckets_root { struct bucket_slot slot[ROOTS]; };

struct slab {
    struct slab *older; /* fixed once published */
    w_u64 used;         /* bytes given away, its head too; may be beyond the end. rlx: each gets a piece of its own */
    char mem[];
};

/* Each address times a factor of its own, so that no multiplication waits for another. */
static uint32_t hash_of(const uintptr_t *pc, uint32_t n, uint64_t tag)
{
    uint64_t h = tag + n, factor = 0x9e3779b97f4a7c15u;
    for (uint32_t i = 0; i < n; i++, factor += 0x632be59bd9b4e01au)
        h += pc[i] * factor;
    h ^= h >> 32;
    return (uint32_t)(h * 0xbf58476d1ce4e5b9u >> 32);
}

static inline bool is_same(const struct bucket *b, uint32_t hash, const uintptr_t *pc, uint32_t n, uint64_t tag)
{
    if (b->hash != hash || b->n != n || b->tag != tag)
        return false;
    uintptr_t differ = 0;
    for (uint32_t i = 0; i < n; i++)
        differ |= b->pc[i] ^ pc[i];
    return differ == 0;
}

static struct buckets_root *root_get(struct buckets *t)
{
    struct buckets_root *r = load_acq(&t->root); /* acq: sees it empty; rel below */
    if (likely(r != NULL))
        return r;
    r = off_map(OFF_PROF, sizeof *r, 4096);
    if (r == NULL || cas_acq_rel(&t->root, NULL, r)) /* rel: publishes it; acq above */
        return r;
    off_unmap(OFF_PROF, r, sizeof *r);
    return load_acq(&t->root); /* acq: as above */
}

/* Zeroed. NULL: no memory. */
static void *cut(struct buckets *t, size_t bytes)
{
    struct slab *s = load_acq(&t->slab); /* acq: sees it; rel below */
    for (;;) {
        size_t at = s != NULL ? add_rlx(&s->used, bytes) : SLAB_BYTES; /* rlx: see there */
        if (likely(at + bytes <= SLAB_BYTES))
            return (char *)s + at;
        struct slab *fresh = off_map(OFF_PROF, SLAB_BYTES, 4096);
        if (fresh == NULL)
            return NULL;
        fresh->older = s;
        store_rlx(&fresh->used, sizeof *fresh); /* rlx: published by t->slab */
        if (cas_acq_rel(&t->slab, s, fresh)) { /* rel: publishes it; acq in all who load it */
            s = fresh;
        } else {
            off_unmap(OFF_PROF, fresh, SLAB_BYTES);
            s = load_acq(&t->slab); /* acq: as above */
        }
    }
}

/* make: if there is none. */
static inline struct bucket *find(struct buckets *t, const uintptr_t *pc, uint32_t n, uint64_t tag, bool make)
{
    size_t bytes = sizeof(struct bucket) + n * sizeof *pc;
    struct buckets_root *root = make ? root_get(t) : load_acq(&t->root); /* acq: as in root_get */
    struct bucket *made = NULL;
    if (!make && root == NULL)
        return NULL;
    if (root == NULL || bytes > SLAB_BYTES - sizeof(struct slab))
        goto lost;
    uint32_t hash = hash_of(pc, n, tag), bits = hash >> ROOTS_LOG2, left = 32 - ROOTS_LOG2;
    struct bucket_slot *at = &root->slot[hash % ROOTS];
    for (;;) {
        struct bucket *b = load_acq(at); /* acq: sees what it is; rel below */
        if (b == NULL && !make)
            return NULL;
        if (b == NULL) {
            if (made == NULL) {
                made = cut(t, bytes);
                if (made == NULL)
                    goto lost;
                made->tag = tag;
                made->hash = hash;
                made->n = n;
                if (n > 0)
                    memcpy(made->pc, pc, n * sizeof *pc);
            }
            if (cas_acq_rel(at, NULL, made)) { /* rel: publishes it; acq above and in each_below. acq: as above, if it failed */
                add_rlx(&t->count, 1); /* rlx: for show */
                return made;
            }
            b = load_acq(at); /* acq: as above; what is there stays */
        }
        if (is_same(b, hash, pc, n, tag))
            return b;
        if (left == 0) {
            bits = hash;
            left = 32;
        }
        at = &b->child[bits % 4];
        bits >>= 2;
        left -= 2;
    }
lost:
    add_rlx(&t->lost, 1); /* rlx: for show */
    return NULL;
}

struct bucket *bucket_get(struct buckets *t, const uintptr_t *pc, uint32_t n, uint64_t tag) { return find(t, pc, n, tag, true); }
struct bucket *bucket_find(struct buckets *t, const uintptr_t *pc, uint32_t n, uint64_t tag) { return find(t, pc, n, tag, false); }

static void each_below(struct bucket *b, void (*fn)(struct bucket *b, void *arg), void *arg)
{
    if (b == NULL)
        return;
    fn(b, arg);
    for (uint32_t i = 0; i < w_countof(b->child); i++)
        each_below(load_acq(&b->child[i]), fn, arg); /* acq: sees what it is; rel in bucket_get */
}

void buckets_each(struct buckets *t, void (*fn)(struct bucket *b, void *arg), void *arg)
{
    struct buckets_root *root = load_acq(&t->root); /* acq: as in root_get */
    for (uint32_t i = 0; root != NULL && i < ROOTS; i++)
        each_below(load_acq(&root->slot[i]), fn, arg); /* acq: as there */
}

void buckets_free(struct buckets *t)
{
    struct buckets_root *root = load_acq(&t->root); /* acq: as in root_get, and the next */
    for (struct slab *s = load_acq(&t->slab), *older; s != NULL; s = older) {
        older = s->older;
        off_unmap(OFF_PROF, s, SLAB_BYTES);
    }
    if (root != NULL)
        off_unmap(OFF_PROF, root, sizeof *root);
    *t = (struct buckets){ 0 };
}
