/* Types and shapes.
 *
 * weft_type_make gives the same type for the same layout (size and set of pointer words), found in a hash table. Types outlive the
 * runtime: a program's static pointers to them (WEFT_TYPE) stay good over a stop and a new start. Shapes are what the
 * heap needs of a type: spans of a shape hold objects of that layout. A layout without pointers is shape NOSCAN, one of pointers
 * only is CONS, and any other has its own, made at the first allocation in a run of the runtime.
 *
 * A carded type is another one than its like that is not, and so are their shapes: what is stored into a span is either all told or not at
 * all. Those of pointers only share the shape of carded words. */
#include "gc/type.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "os/vm.h"

#define TYPE_MAX_BYTES ((size_t)1 << 20)
#define BUCKETS 256u
#define SHAPE_UNMADE UINT32_MAX

struct shapes shapes;

static struct {
    struct lock lock; /* all below, and weft_type.shape */
    struct weft_type *bucket[BUCKETS];
    uint32_t carded_words; /* shape; SHAPE_UNMADE: not needed yet */
} types = { .lock = LOCK_INIT(RANK_TYPES) };

/* ---- shapes ---------------------------------------------------------------------------------------------- */

static size_t shapes_bytes(void) { return w_align_up(SHAPES_MAX * sizeof *shapes.at, os_page_bytes()); }

/* Index of the new shape, or -ENOMEM. Under types.lock, or at start. */
static int64_t shape_add(uint32_t words, uint32_t nptrs, uint32_t *ptrs, bool carded)
{
    uint32_t i = load_rlx(&shapes.count); /* rlx: the lock is held */
    if (i == SHAPES_MAX)
        return -ENOMEM;
    struct shape *sh = off_alloc_aligned(OFF_GC, sizeof *sh, W_CACHELINE);
    if (sh == NULL)
        return -ENOMEM;
    sh->words = words;
    sh->nptrs = nptrs;
    sh->ptrs = ptrs;
    sh->carded = carded;
    for (unsigned c = 0; c < GC_CLASSES; c++)
        central_init(&sh->central[c]);
    store_rel(&shapes.at[i], sh);      /* rel: publishes *sh; acq in shape_get */
    store_rel(&shapes.count, i + 1);   /* rel: the slot is filled; acq where the shapes are walked */
    return i;
}

int types_start(void)
{
    shapes.at = os_vm_reserve(shapes_bytes(), os_page_bytes());
    if (shapes.at == NULL || os_vm_commit(shapes.at, shapes_bytes()) != 0)
        return -ENOMEM;
    store_rlx(&shapes.count, 0); /* rlx: nobody else yet */
    types.carded_words = SHAPE_UNMADE;
    return shape_add(1, 0, NULL, false) == SHAPE_NOSCAN && shape_add(1, 1, NULL, false) == SHAPE_CONS ? 0 : -ENOMEM;
}

void types_stop(void)
{
    if (shapes.at == NULL)
        return;
    for (uint32_t i = 0; i < load_rlx(&shapes.count); i++) /* rlx: alone */
        off_free(OFF_GC, load_rlx(&shapes.at[i]));
    os_vm_free(shapes.at, shapes_bytes());
    shapes.at = NULL;
    store_rlx(&shapes.count, 0);
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct weft_type *t = types.bucket[b]; t != NULL; t = t->next)
            if (t->shape >= SHAPE_TYPED)
                t->shape = SHAPE_UNMADE;
}

/* ---- types --------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t hash_layout(size_t size, const uint32_t *ptrs, uint32_t n, bool carded)
{
    uint64_t h = (2 * size + carded) * 0x9e3779b97f4a7c15ull;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ ptrs[i]) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(h >> 32);
}

/* Word offsets, sorted and without doubles; -1: bad. */
static int64_t layout(size_t size, const size_t *offsets, size_t n, uint32_t *out)
{
    for (size_t i = 0; i < n; i++) {
        if (offsets[i] % 8 != 0 || size < 8 || offsets[i] > size - 8)
            return -1;
        out[i] = (uint32_t)(offsets[i] / 8);
    }
    if (n > 1)
        qsort(out, n, sizeof *out, by_value);
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (k == 0 || out[k - 1] != out[i])
            out[k++] = out[i];
    return (int64_t)k;
}

static struct weft_type *find_locked(const struct weft_type *like)
{
    for (struct weft_type *t = types.bucket[like->hash % BUCKETS]; t != NULL; t = t->next)
        if (t->hash == like->hash && t->size == like->size && t->nptrs == like->nptrs && t->carded == like->carded &&
            (t->nptrs == 0 || memcmp(t->ptrs, like->ptrs, t->nptrs * sizeof *t->ptrs) == 0))
            return t;
    return NULL;
}

/* A type that is not a multiple of 8 long cannot repeat as words: only its single objects could be typed, so it is conservative. */
static bool all_words(const struct weft_type *t) { return t->nptrs == t->size / 8 || t->size % 8 != 0; }

static uint32_t basic_shape(const struct weft_type *t)
{
    if (t->nptrs == 0)
        return SHAPE_NOSCAN;
    return all_words(t) && !t->carded ? SHAPE_CONS : SHAPE_UNMADE;
}

/* The type of that layout, whose k pointers are in ptrs, which becomes ours; k < 0: there is none. */
static const weft_type *type_of(size_t size, uint32_t *ptrs, int64_t k, bool carded)
{
    struct weft_type *t = NULL, *made = NULL;
    if (k >= 0 && (made = off_zalloc(OFF_GC, sizeof *made)) != NULL) {
        *made = (struct weft_type){ .size = size, .ptrs = ptrs, .nptrs = (uint32_t)k, .carded = carded };
        made->hash = hash_layout(size, ptrs, made->nptrs, carded);
        made->shape = basic_shape(made);
        lock_take(&types.lock);
        t = find_locked(made);
        if (t == NULL) {
            t = made;
            t->next = types.bucket[t->hash % BUCKETS];
            types.bucket[t->hash % BUCKETS] = t;
        }
        lock_drop(&types.lock);
    }
    if (t != made || t == NULL) {
        off_free(OFF_GC, made);
        off_free(OFF_GC, ptrs);
    }
    return t;
}

const weft_type *gc_type_make(size_t size, const size_t *offsets, size_t n)
{
    if (size == 0 || size > TYPE_MAX_BYTES || (n != 0 && offsets == NULL) || n > TYPE_MAX_BYTES)
        return NULL;
    uint32_t *ptrs = NULL;
    if (n != 0 && (ptrs = off_alloc(OFF_GC, n * sizeof *ptrs)) == NULL)
        return NULL;
    return type_of(size, ptrs, layout(size, offsets, n, ptrs), false);
}

/* Names it had until now. Without memory for them it has none. */
static void copy_names(const weft_type *from, const weft_type *to)
{
    lock_take(&types.lock);
    struct type_name *k = from->name;
    lock_drop(&types.lock);
    for (; k != NULL; k = k->next) /* they stay, and come in front */
        gc_type_name(to, k->s);
}

/* Without pointers there is nothing to tell. */
const weft_type *gc_type_carded(const weft_type *t)
{
    if (t->carded || t->nptrs == 0)
        return t;
    uint32_t *ptrs = off_alloc(OFF_GC, t->nptrs * sizeof *ptrs);
    if (ptrs == NULL)
        return NULL;
    memcpy(ptrs, t->ptrs, t->nptrs * sizeof *ptrs);
    const weft_type *made = type_of(t->size, ptrs, t->nptrs, true);
    if (made != NULL)
        copy_names(t, made);
    return made;
}

const weft_type *gc_type_carded_words(void)
{
    static W_PTR(const weft_type) words; /* types are for ever */
    const weft_type *t = load_acq(&words); /* acq: sees *t; rel below */
    if (unlikely(t == NULL)) {
        const weft_type *plain = gc_type_make(8, (size_t[]){ 0 }, 1);
        if (plain != NULL && (t = gc_type_carded(plain)) != NULL)
            store_rel(&words, t); /* rel: publishes *t; acq above. A second maker finds the same */
    }
    return t;
}

#define NAME_MAX_BYTES 200u

/* Looked up before each, since a program may ask again and again; new ones are rare. */
static bool is_named(const struct weft_type *t, const char *name, size_t n)
{
    for (const struct type_name *k = t->name; k != NULL; k = k->next)
        if (strncmp(k->s, name, n) == 0 && k->s[n] == 0)
            return true;
    return false;
}

int gc_type_name(const weft_type *type, const char *name)
{
    struct weft_type *t = (struct weft_type *)type;
    if (t == NULL || name == NULL || name[0] == 0)
        return -EINVAL;
    size_t n = strnlen(name, NAME_MAX_BYTES);
    struct type_name *k = off_zalloc(OFF_GC, sizeof *k + n + 1);
    if (k == NULL)
        return -ENOMEM;
    memcpy(k->s, name, n);
    lock_take(&types.lock);
    bool has = is_named(t, name, n);
    if (!has) {
        k->next = t->name;
        t->name = k;
    }
    lock_drop(&types.lock);
    if (has)
        off_free(OFF_GC, k);
    return 0;
}

void types_each_name(uint32_t shape, void (*fn)(void *arg, const char *name), void *arg)
{
    for (unsigned b = 0; b < BUCKETS; b++) {
        lock_take(&types.lock);
        struct weft_type *t = types.bucket[b];
        lock_drop(&types.lock);
        for (; t != NULL; t = t->next) /* types and their names stay, and come in front */
            if (__atomic_load_n(&t->shape, __ATOMIC_ACQUIRE) == shape) { /* acq: rel in type_shape_slow */
                lock_take(&types.lock);
                struct type_name *k = t->name;
                lock_drop(&types.lock);
                for (; k != NULL; k = k->next)
                    fn(arg, k->s);
            }
    }
}

static int64_t carded_words_locked(void)
{
    static uint32_t first;
    int64_t s = types.carded_words;
    if (s == SHAPE_UNMADE && (s = shape_add(1, 1, &first, true)) >= 0)
        types.carded_words = (uint32_t)s;
    return s;
}

static int64_t type_shape_slow(struct weft_type *t)
{
    lock_take(&types.lock);
    int64_t s = t->shape;
    if (s == SHAPE_UNMADE) {
        s = t->carded && all_words(t) ? carded_words_locked() : shape_add((uint32_t)(t->size / 8), t->nptrs, t->ptrs, t->carded);
        if (s >= 0)
            __atomic_store_n(&t->shape, (uint32_t)s, __ATOMIC_RELEASE); /* rel: the shape is there; acq in gc_alloc_typed */
    }
    lock_drop(&types.lock);
    return s;
}

static inline void *alloc_fast(struct gc_cache *c, size_t bytes, uint32_t shape)
{
    if (shape < SHAPE_TYPED)
        return gc_alloc_fast(c, bytes, shape);
    if (bytes > GC_MAX_SMALL || shape >= c->nshapes || c->shapes[shape] == NULL)
        return NULL;
    unsigned cls = gc_class_of(bytes);
    return gc_run_take(&c->shapes[shape]->run[cls], gc_class_size[cls]);
}

size_t gc_type_size(const weft_type *t) { return t->size; }

void *gc_alloc_typed(struct gc_cache *c, const weft_type *t, size_t n, bool *want_gc)
{
    size_t bytes;
    if (__builtin_mul_overflow(t->size, n, &bytes))
        return NULL;
    uint32_t shape = __atomic_load_n(&t->shape, __ATOMIC_ACQUIRE); /* acq: rel in type_shape_slow */
    if (unlikely(shape == SHAPE_UNMADE)) {
        int64_t s = type_shape_slow((struct weft_type *)t);
        if (s < 0)
            return NULL;
        shape = (uint32_t)s;
    }
    void *p = alloc_fast(c, bytes, shape);
    return likely(p != NULL) ? p : gc_alloc_slow(c, bytes, shape, want_gc);
}
