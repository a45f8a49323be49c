/* mem.h - everything the interpreter asks of its collector, for weft, for weft with stores that tell it (-DSCHEME_STORE), and for Boehm's
 * (-DSCHEME_BOEHM).
 *
 * Nothing is freed and no root is registered: the collector finds what the C stack, registers and heap objects point to. So a builtin
 * holds its objects in plain variables, and a value may lie in a struct, an array or a setjmp frame.
 *
 *      mem_new     an object of a fixed layout: only its pointers are looked at
 *      mem_words   an object of which any word may be a value
 *      mem_slots   the same, but that values come into it by mem_store only
 *      mem_bytes   text and numbers: never looked at
 *
 * All are zeroed, NULL without memory. A tagged pointer is an interior pointer, and keeps its object alive like any other. Objects do not move,
 * so an address is a hash.
 *
 * What a program's data are made of (pairs, vectors, closures, symbols, variables, entries of tables) is written by mem_store, the first values as well as
 * later ones: these types are MEM_STORED. It is a plain store, except with SCHEME_STORE, where the objects are of carded types (weft/gc.h). The machine's
 * stack, code and the compiler's notes are written as C does it.
 *
 * Under Boehm's collector there are no fibers: locks are nothing, and fiber.c defines no builtins. */
#ifndef SCHEME_MEM_H
#define SCHEME_MEM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef SCHEME_BOEHM
#include <weft.h>

typedef const weft_type *mem_type;
#define MEM_TYPE(T, ...) WEFT_TYPE(T, __VA_ARGS__)
static inline void *mem_new(mem_type type) { return weft_alloc_typed(type); }
static inline void *mem_words(size_t bytes) { return weft_alloc(bytes); }
static inline void *mem_bytes(size_t bytes) { return weft_alloc_noscan(bytes); }
#ifdef SCHEME_STORE
#define MEM_STORED(T, ...) weft_type_carded(WEFT_TYPE(T, __VA_ARGS__))
static inline void *mem_slots(size_t bytes) { return weft_alloc_carded(bytes); }
#define mem_store(slot, v) (weft_store((slot), (void *)(v)))
#endif
static inline void mem_collect(void) { weft_gc(); }
static inline int mem_finalizer(void *p, void (*fn)(void *, void *)) { return weft_set_finalizer(p, fn, NULL); }
/* Finalizers have a fiber of their own: lets it run for so long. */
static inline void mem_run_finalizers(unsigned ms) { weft_sleep(ms * WEFT_MILLISECOND); }

typedef weft_weak mem_weak;
static inline mem_weak *mem_weak_make(void *p) { return weft_weak_make(p); }
static inline void *mem_weak_get(mem_weak *w) { return weft_weak_get(w); }

typedef weft_mutex mem_lock;
static inline void mem_lock_take(mem_lock *l) { weft_mutex_lock(l); }
static inline void mem_lock_drop(mem_lock *l) { weft_mutex_unlock(l); }

/* Runs main_fn(arg) with stack_bytes of C stack. NULL: it has returned; else what went wrong. heap_bytes: at most; 0: all there is. */
static inline const char *mem_run(void (*main_fn)(void *), void *arg, size_t stack_bytes, size_t heap_bytes)
{
    weft_config config = WEFT_CONFIG_INIT;
    config.main_stack_size = stack_bytes;
    config.heap_reserve = heap_bytes;
    config.doctor = "w02=off"; /* programs in Scheme drop their ports, and we have a net for that: port_open */
    int r = weft_run(main_fn, arg, &config);
    return r == 0 || r == -EBUSY ? NULL : weft_strerror(r);
}

#else
#include <gc.h>

typedef size_t mem_type;
#define MEM_TYPE(T, ...) sizeof(T)
static inline void *mem_new(mem_type type) { return GC_MALLOC(type); }
static inline void *mem_words(size_t bytes) { return GC_MALLOC(bytes); }
static inline void *mem_bytes(size_t bytes)
{
    void *p = GC_MALLOC_ATOMIC(bytes);
    return p ? __builtin_memset(p, 0, bytes) : NULL;
}
static inline void mem_collect(void) { GC_gcollect(); }
static inline int mem_finalizer(void *p, void (*fn)(void *, void *))
{
    GC_REGISTER_FINALIZER(p, fn, NULL, NULL, NULL);
    return 0;
}
static inline void mem_run_finalizers(unsigned ms) { (void)ms, GC_invoke_finalizers(); }

/* The link is zeroed when the object dies; hidden, it does not keep it alive. */
typedef struct mem_weak { GC_word hidden; } mem_weak;
static inline mem_weak *mem_weak_make(void *p)
{
    mem_weak *w = GC_MALLOC_ATOMIC(sizeof *w);
    if (w) {
        w->hidden = GC_HIDE_POINTER(p);
        GC_GENERAL_REGISTER_DISAPPEARING_LINK((void **)&w->hidden, GC_base(p));
    }
    return w;
}
static inline void *mem_weak_get(mem_weak *w) { return w->hidden ? GC_REVEAL_POINTER(w->hidden) : NULL; }

typedef char mem_lock;
static inline void mem_lock_take(mem_lock *l) { (void)l; }
static inline void mem_lock_drop(mem_lock *l) { (void)l; }

static inline const char *mem_run(void (*main_fn)(void *), void *arg, size_t stack_bytes, size_t heap_bytes)
{
    (void)stack_bytes; /* the thread's own: ulimit -s */
    GC_set_all_interior_pointers(1);
    GC_INIT();
    GC_start_mark_threads();
    if (heap_bytes)
        GC_set_max_heap_size(heap_bytes);
    main_fn(arg);
    return NULL;
}
#endif

#ifndef SCHEME_STORE
#define MEM_STORED(T, ...) MEM_TYPE(T, __VA_ARGS__)
static inline void *mem_slots(size_t bytes) { return mem_words(bytes); }
#define mem_store(slot, v) ((void)(*(slot) = (v)))
#endif
#endif
