/* weft/gc.h - the collected heap.
 *
 * Objects never move; a pointer to any byte of an object's slot (weft_object_size) keeps it alive. One past the end is inside the slot
 * unless the size fills it exactly (weft_object_size(p) == size); then it is the neighbour's address, which it keeps alive instead, so a loop that
 * holds nothing but the end needs weft_keep_alive or a size one larger. Roots are the
 * stacks and registers of fibers and attached threads, thread-local variables, the writable data of all loaded modules, handles,
 * and ranges given by weft_root_add. Memory of the host's malloc is not scanned.
 * Contracts: Go's runtime (GC, SetFinalizer, KeepAlive) and runtime/debug (SetGCPercent, SetMemoryLimit, FreeOSMemory). */
#ifndef WEFT_GC_H
#define WEFT_GC_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* ---- allocation -------------------------------------------------------------------------------- */

/* Zeroed memory of at least size bytes, aligned to 16 (8 if the size is not a multiple of 16); size 0 gives a distinct object. NULL when out of
 * memory, after a collection was tried. May collect; does not move the fiber. */
WEFT_API void *weft_alloc(size_t size);          /* scanned conservatively: every aligned word may be a pointer */
WEFT_API void *weft_alloc_noscan(size_t size);   /* never scanned: promise that it holds no pointer into the heap */

/* A type says which words of an object are pointers, so that only those are looked at. */
typedef struct weft_type weft_type;
/* n offsets in bytes of the pointers in an object of size bytes, each a multiple of 8 and within. Lives as long as the runtime. Equal layouts
 * share one type. NULL: misaligned or out-of-range offset, size 0 or above 1 MiB, or no memory. */
WEFT_API const weft_type *weft_type_make(size_t size, const size_t *offsets, size_t n);
/* Names a type for people who look at the heap (weft_heap_dump, weft_why_alive): copied, up to 200 bytes. Types of equal layout are one, which then
 * has several names. 0, -EINVAL (NULL, empty), -ENOMEM. */
WEFT_API int weft_type_name(const weft_type *type, const char *name);
/* WEFT_TYPE(struct node, left, right): the type of a struct from its pointer fields, made once and named as written; a field that is not
 * pointer-sized does not compile. May be used from any thread. */
#define WEFT_TYPE(T, ...)                                                                             \
    WEFT_TYPE_IMPL_(T, #T, WEFT_FOREACH_(WEFT_OFFSET_, T, __VA_ARGS__))
WEFT_API void *weft_alloc_typed(const weft_type *type);
/* n elements in a row; NULL also when n * size overflows. Both: NULL for type NULL. */
WEFT_API void *weft_alloc_array(const weft_type *type, size_t n);

/* A larger or smaller copy of the same kind (but conservative if p is typed); p may be NULL (then weft_alloc). p stays valid, nothing is freed by
 * hand. NULL: no memory, or p is not the start of a heap object. */
WEFT_API void *weft_realloc(void *p, size_t size);
/* A copy of n elements, those beyond the old ones zero. p: an array of that type, or NULL. Else as weft_realloc. */
WEFT_API void *weft_realloc_array(const weft_type *type, void *p, size_t n);
WEFT_API char *weft_strdup(const char *s);       /* noscan copy */

/* ---- carded types: stores that tell the collector ------------------------------------------------- */

/* While the program runs beside it, the collector has to learn which objects get new pointers. By itself it asks the system which pages were written
 * to: plain stores need nothing, but the first one to each page, in each collection, costs a microsecond, and takes the huge page around it apart. A
 * program whose stores all go through one place, such as an interpreter, can tell it instead, for a nanosecond each: the objects of carded types are
 * left alone, in huge pages, and weft_store notes which card of the heap (WEFT_CARD_BYTES) it wrote to.
 *
 * The rule: every pointer into the heap that is written into a carded object is written by the calls below, or told by weft_stored: also the
 * first ones into a new object, and those of struct assignment, memcpy, atomic operations, read(2), and other functions of weft that give back a
 * pointer by a pointer (let it go to a variable first). Only what is no such pointer (NULL, a number, a tag) may be written anyhow, and so may what is
 * in objects of other types. A pointer written otherwise is not seen, and what nothing else leads to may be freed while it is in use:
 * WEFT_DEBUG=gcverify=1 ends the program where that happens.
 *
 * These may be called by any thread that may use the heap, at any time, also before weft_run and in a signal handler (but not weft_store_move);
 * they do not block. A slot may lie anywhere, and is aligned to 8; outside of carded objects they are plain stores. */
WEFT_API const weft_type *weft_type_carded(const weft_type *type); /* the same layout, carded. NULL: no memory, or type is NULL */
/* As weft_alloc, carded: scanned conservatively. weft_realloc of it is carded, too. */
WEFT_API void *weft_alloc_carded(size_t size);
/* *(void **)slot = value. Atomic: a reader sees the old or the new value. Order among several: none, as with plain stores. */
static inline void weft_store(void *slot, void *value);
/* value was written to *slot by other means: right after it, with no other call of weft between. */
static inline void weft_stored(void *slot, void *value);
/* memmove of pointers, and of what lies between them; bytes is a multiple of 8. May block. */
WEFT_API void weft_store_move(void *to, const void *from, size_t bytes);
/* n slots in a row get the same value. */
WEFT_API void weft_store_fill(void *slots, void *value, size_t n);

/* Start and usable size of the object that p points into; NULL and 0 if p is not in a live heap object. */
WEFT_API void *weft_object_base(const void *p);
WEFT_API size_t weft_object_size(const void *p);

/* ---- what the collector must know --------------------------------------------------------------- */

/* The object is reachable at least until here. Costs nothing. */
static inline void weft_keep_alive(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* [p, p+bytes) is scanned conservatively from now on. 0, -EINVAL (NULL, 0), -ENOMEM. Remove takes the same start; -ENOENT otherwise. */
WEFT_API int weft_root_add(void *p, size_t bytes);
WEFT_API int weft_root_remove(void *p);

/* A handle is a root named by an integer, for a pointer that travels through foreign code or memory. 0 is never a handle: no memory.
 * get: NULL for a handle that was freed. free: 0, -ENOENT. */
typedef uint64_t weft_handle;
WEFT_API weft_handle weft_handle_new(void *p);
WEFT_API void *weft_handle_get(weft_handle h);
WEFT_API int weft_handle_free(weft_handle h);

/* When obj has become unreachable, fn(obj, ctx) runs once, on the runtime's finalizer fiber (its stack has the default size:
 * weft_config.stack_size); obj and all it reaches live until then, and are freed by a later cycle if still unreachable. Order: if A reaches B, A's
 * runs first. A cycle of objects with finalizers is never freed. ctx is a root: if it reaches obj, obj is never freed. fn NULL removes. Pending
 * finalizers do not run at exit.
 * fn may do what any fiber may; while it blocks those behind it wait. weft_exit ends fn alone, and what it defers runs after it.
 * 0, -EINVAL (obj is not the start of a heap object), -EEXIST (has one), -ENOMEM. A pointer outside of the heap is -EINVAL too.
 * Synchronizes: what happened before the call is seen by fn. */
typedef void weft_finalizer(void *obj, void *ctx);
WEFT_API int weft_set_finalizer(void *obj, weft_finalizer *fn, void *ctx);

/* When the object that p points to, or into, has become unreachable, fn(arg) runs once, on a fiber of the runtime; the object itself is not kept for
 * it.
 * Any number per object, in no order; several may run at the same time, on a quarter as many fibers as there are processors. An object that has a
 * finalizer too must first be found unreachable a second time, after that has run. arg is a root until fn has run: if something it reaches
 * reaches the object, the object is never freed; nor does fn run when the runtime ends. weft_exit ends fn alone. out, which may be NULL, is for
 * weft_cleanup_stop and keeps nothing alive.
 * 0; -EINVAL (fn NULL, or p points to no live object of the heap); -ELOOP (arg points into the object itself); -ENOMEM.
 * Contract: Go's AddCleanup. Synchronizes as weft_set_finalizer. */
typedef struct weft_cleanup { uint64_t id_; uintptr_t at_; } weft_cleanup;
WEFT_API int weft_add_cleanup(void *p, weft_fn *fn, void *arg, weft_cleanup *out);
/* true: fn will not run. false: it has run, is running or is queued, or c is all zero. To be sure of true, keep p alive (weft_keep_alive) until after
 * the call. */
WEFT_API bool weft_cleanup_stop(weft_cleanup c);

/* A weak pointer: names an object and does not keep it. Two made from pointers to the same byte of the same object are the same pointer, also after
 * its death; those of different bytes differ. Itself an object of the heap, to be kept where the collector sees it. Of what lies outside of the heap
 * it is made once for all, and never dies.
 * NULL: p is NULL, or points into the heap but to no live object; or no memory. May collect. Contract: Go's package weak. */
typedef struct weft_weak weft_weak;
WEFT_API weft_weak *weft_weak_make(void *p);
/* The pointer it was made from, or NULL once the object was found unreachable: before its finalizer runs, and also if that brings it back to life
 * (which needs a new weak pointer). NULL for NULL. Does not block or collect. */
WEFT_API void *weft_weak_get(const weft_weak *w);

/* Keeps the objects that p points into, each as often as pinned, until weft_unpin: for pointers that lie where the collector does not look. Objects
 * never move, pinned or not. A pinner is a struct of the caller's, zero at first, in memory that the collector sees, used by one fiber at a time.
 * 0, also for a pointer that is not into the heap; -EINVAL (p NULL, or into the heap but to no live object); -ENOMEM. May collect.
 * A pinner that becomes unreachable with pins unpins them and logs a line. Contract: Go's runtime.Pinner. */
typedef struct weft_pinner { void *pins_; } weft_pinner;
WEFT_API int weft_pin(weft_pinner *pinner, const void *p);
/* Takes back all pins of this pinner, which can be used anew. */
WEFT_API void weft_unpin(weft_pinner *pinner);

/* ---- control ------------------------------------------------------------------------------------ */

/* A full collection: finishes one under way, runs one, sweeps it to the end. Blocks the caller only. Finalizers are queued, not awaited. */
WEFT_API void weft_gc(void);
/* Collect when the heap has grown by percent of what was live, stacks and globals included, and at least to 4 MiB * percent / 100; negative: off. At
 * once: the call itself collects if that is due. Returns the previous value (-1: off). Two minutes after the last collection there is one in any
 * case, unless it is off. */
WEFT_API int weft_set_gc_percent(int percent);
/* Soft limit of all memory that the runtime has and has not given back, in bytes: heap, stacks, its own tables; not the host's. Collections come
 * earlier, free memory goes back sooner; also with the percentage off. Soft: when half of the CPU time goes to collecting, the limit gives way.
 * Negative only reads. Returns the previous one; default INT64_MAX, no limit. May collect. Contract: debug.SetMemoryLimit. */
WEFT_API int64_t weft_set_memory_limit(int64_t bytes);
/* Collects and returns all free memory to the operating system, at once. By itself the runtime does so in the background, with up to 1 % of the
 * processors' time, for what exceeds by a tenth the memory that the heap used when it was last collected. May block. */
WEFT_API void weft_free_os_memory(void);

/* ---- what is scarce, and given back by finalizers ------------------------------------------------- */

/* Finalizers are a net for what nobody closed, and a net that comes late: a collection runs when the heap has grown, not when descriptors are short.
 * */

/* Collects, and waits until the finalizers and cleanups that were found due have run, 100 ms at the most (within one of them: not at all). For who
 * has met EMFILE: try again if it is above 0. How many have run meanwhile; -ESRCH (runtime not running). Blocks, may move, collects. */
WEFT_API int64_t weft_reclaim(void);

/* Counts what there are only `limit` of: in memory of the program's, that stays. Zero but for name and limit (0: as many as descriptors,
 * RLIMIT_NOFILE). take before one is opened, give when it has been closed, by hand or by a finalizer. When seven eighths are held, take runs
 * weft_reclaim first; that finalizers had to give an eighth back is W02, with the place of this call. Both return how many are held now. take may
 * block, move and collect; it refuses nothing. Anybody, at any time. */
typedef struct weft_resource {
    const char *name; /* for people, what it is */
    int64_t limit;
    int64_t held_, next_, late_;
} weft_resource;
WEFT_API int64_t weft_resource_take(weft_resource *r);
WEFT_API int64_t weft_resource_give(weft_resource *r);

/* ---- machinery of weft_store ------------------------------------------------------------------------ */

#define WEFT_CARD_SHIFT_ 9
#define WEFT_CARD_MARKED_ 1
#define WEFT_CARD_BYTES (1u << WEFT_CARD_SHIFT_)
/* A byte for each card of the range, of so many bytes, where the heap may lie; all zero before the start and after the end. minus_base: what is added
 * to an address to get that in the range; the base itself would be a pointer into the heap, and keep what is there. Of this size for ever: a
 * program may have a copy of it (by a relocation). */
WEFT_API extern struct weft_card_table_ { unsigned char *table; uintptr_t minus_base, bytes; } weft_card_table_;
typedef void *weft_slot_ __attribute__((may_alias));

/* The order of these, and why a mark is looked for before it is made: [CARDS] in src/gc/cards.c. */
static inline void weft_stored(void *slot, void *value)
{
    uintptr_t at = (uintptr_t)slot + weft_card_table_.minus_base;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__builtin_expect(at < weft_card_table_.bytes, 1)) {
        unsigned char *card = weft_card_table_.table + (at >> WEFT_CARD_SHIFT_);
        if (__atomic_load_n(card, __ATOMIC_RELAXED) != WEFT_CARD_MARKED_)
            __atomic_store_n(card, WEFT_CARD_MARKED_, __ATOMIC_RELEASE);
    }
    __asm__ volatile("" : : "r"(value) : "memory");
}

static inline void weft_store(void *slot, void *value)
{
    __atomic_store_n((weft_slot_ *)slot, value, __ATOMIC_RELAXED);
    weft_stored(slot, value);
}

/* ---- machinery of WEFT_TYPE ----------------------------------------------------------------------- */

struct weft_type_once { const weft_type *type; uint64_t run; };
WEFT_API const weft_type *weft_type_once(struct weft_type_once *once, const char *name, size_t size, const size_t *offsets, size_t n);
#ifdef __cplusplus
#define WEFT_ASSERT_ static_assert
#else
#define WEFT_ASSERT_ _Static_assert
#endif
#define WEFT_TYPE_IMPL_(T, name, ...)                                                                  \
    (__extension__({                                                                                   \
        static struct weft_type_once weft_once_;                                                       \
        static const size_t weft_offs_[] = { __VA_ARGS__ };                                            \
        weft_type_once(&weft_once_, name, sizeof(T), weft_offs_, sizeof weft_offs_ / sizeof weft_offs_[0]); \
    }))
/* The division makes a field that is not pointer-sized a compile-time error. */
#define WEFT_OFFSET_(T, f) (__builtin_offsetof(T, f) / (sizeof(((T *)0)->f) == sizeof(void *) ? 1 : 0))
#define WEFT_FOREACH_(m, T, ...) WEFT_FE_PICK_(__VA_ARGS__, WEFT_FE16_, WEFT_FE15_, WEFT_FE14_, WEFT_FE13_, WEFT_FE12_, WEFT_FE11_, \
    WEFT_FE10_, WEFT_FE9_, WEFT_FE8_, WEFT_FE7_, WEFT_FE6_, WEFT_FE5_, WEFT_FE4_, WEFT_FE3_, WEFT_FE2_, WEFT_FE1_, )(m, T, __VA_ARGS__)
#define WEFT_FE_PICK_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, f, ...) f
#define WEFT_FE1_(m, T, a) m(T, a)
#define WEFT_FE2_(m, T, a, ...) m(T, a), WEFT_FE1_(m, T, __VA_ARGS__)
#define WEFT_FE3_(m, T, a, ...) m(T, a), WEFT_FE2_(m, T, __VA_ARGS__)
#define WEFT_FE4_(m, T, a, ...) m(T, a), WEFT_FE3_(m, T, __VA_ARGS__)
#define WEFT_FE5_(m, T, a, ...) m(T, a), WEFT_FE4_(m, T, __VA_ARGS__)
#define WEFT_FE6_(m, T, a, ...) m(T, a), WEFT_FE5_(m, T, __VA_ARGS__)
#define WEFT_FE7_(m, T, a, ...) m(T, a), WEFT_FE6_(m, T, __VA_ARGS__)
#define WEFT_FE8_(m, T, a, ...) m(T, a), WEFT_FE7_(m, T, __VA_ARGS__)
#define WEFT_FE9_(m, T, a, ...) m(T, a), WEFT_FE8_(m, T, __VA_ARGS__)
#define WEFT_FE10_(m, T, a, ...) m(T, a), WEFT_FE9_(m, T, __VA_ARGS__)
#define WEFT_FE11_(m, T, a, ...) m(T, a), WEFT_FE10_(m, T, __VA_ARGS__)
#define WEFT_FE12_(m, T, a, ...) m(T, a), WEFT_FE11_(m, T, __VA_ARGS__)
#define WEFT_FE13_(m, T, a, ...) m(T, a), WEFT_FE12_(m, T, __VA_ARGS__)
#define WEFT_FE14_(m, T, a, ...) m(T, a), WEFT_FE13_(m, T, __VA_ARGS__)
#define WEFT_FE15_(m, T, a, ...) m(T, a), WEFT_FE14_(m, T, __VA_ARGS__)
#define WEFT_FE16_(m, T, a, ...) m(T, a), WEFT_FE15_(m, T, __VA_ARGS__)

WEFT_END_DECLS
#endif
