/* The collector as the layers above see it.
 *
 * gc knows spans, objects, roots and phases. It holds no idea of a fiber, a thread or a processor: what it needs of them it
 * declares here as struct gc_host, which sched fills in.
 *
 * Where an object ends: no byte is added to tell a pointer one past the end from one to the neighbour (16 bytes would take a slot of 24, 4096 one of
 * 4608). Such a pointer belongs to the object while its size does not fill the slot, else to the next one.
 *
 * Who may call: everything below runs inside the runtime ([ENTRY]), so a caller is never stopped in the middle of it. */
#ifndef WEFT_GC_GC_H
#define WEFT_GC_GC_H

#include "base/atomic.h"
#include "base/base.h"
#include <weft/gc.h>
#include <weft/mem.h>

/* ---- what gc asks of sched ------------------------------------------------------------------------ */

/* Scans [lo, hi) conservatively; lo is aligned up to 8. In a stop only. */
typedef void gc_scan_range_fn(void *marker, const void *lo, const void *hi);

enum gc_call_kind { GC_FINALIZER, GC_CLEANUP, GC_CALLS };

/* Where a word lies that keeps an object: what was declared first, then what is read conservatively. To add a kind: a line here and its text in
 * debug/retain.c. */
enum gc_root_kind {
    GC_ROOT_HANDLE,      /* a handle, or a pin */
    GC_ROOT_RANGE,       /* of weft_root_add */
    GC_ROOT_QUEUED,      /* what a finalizer or a cleanup that is due is called with */
    GC_ROOT_CTX,         /* of the finalizer of `owner` */
    GC_ROOT_CLEANUP,     /* the arg of a cleanup of `owner` */
    GC_ROOT_FINALIZABLE, /* an object with a finalizer: what it refers to lives, though not by this the object itself */
    GC_ROOT_WEAK,        /* a weak handle, which lives as long as what it names */
    GC_ROOT_POOL,        /* what a pool keeps for a cycle longer */
    GC_ROOT_TIMER,
    GC_ROOT_ARGUMENT,    /* of a fiber that has not started; its descriptor; a deferred call's */
    GC_ROOT_DATA,        /* of a loaded module */
    GC_ROOT_TLS,
    GC_ROOT_STACK,
    GC_ROOT_REGISTERS,
    GC_ROOT_KINDS
};

/* Whose a range is that the host scans. */
struct gc_owner {
    enum gc_root_kind kind;
    uint64_t fiber; /* id; 0: none */
    int thread;     /* its number in the kernel; 0: none */
    bool caller;    /* of the fiber that collects */
};
typedef void gc_scan_owned_fn(void *arg, const struct gc_owner *o, const void *lo, const void *hi);

struct gc_host {
    /* Stops every processor and every thread that may touch the heap, and starts them again. reason: WEFT_STOP_*.
     * start returns the ns from deciding to stop until now. Called outside a stop by a thread inside the runtime. */
    void (*stop_world)(int reason);
    int64_t (*start_world)(void);
    /* In a stop: calls scan for each word range of stacks, saved registers and thread-local storage, and arguments of fibers that have not started.
     * Called by each of nworkers workers with its index, at the same time; the host splits the work between them. */
    void (*scan_stacks)(unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker);
    /* [CONC] For marking beside the program; all NULL: it never is. In the first stop, by one alone: scans what runs (stacks, registers, thread-local
     * storage) and what is not among the parts of scan_parked, the number of which it returns. */
    unsigned (*scan_running)(gc_scan_range_fn *scan, void *marker);
    /* After that, while the world runs, each part once: parked stacks, which are watched from then on. false: the system refused that. */
    bool (*scan_parked)(unsigned part, gc_scan_range_fn *scan, void *marker);
    /* In the second stop, once a cycle by each worker, as scan_stacks: all but parked stacks to which nobody has written since scan_parked. false: that is
     * not to be had. */
    bool (*scan_written)(unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker);
    void (*mark_ready)(void); /* Outside a stop, under no lock: there is marking to be done, gc_mark_some and gc_collect_some have work */
    const w_u32 *stop_wanted; /* not 0: whoever is inside should come out soon; read at any time. NULL: nobody ever */
    /* Scans as scan_stacks, by one alone, who is told whose each range is. asks: whom trail_take was given. NULL: it is not known. */
    void (*scan_owned)(gc_scan_owned_fn *scan, void *arg, const void *asks);
    /* In the stop of each cycle, once: the host's own caches give up what they need not keep. NULL: there are none. */
    void (*flush_caches)(void);
    /* In a stop: runs fn(arg, i, n) on up to want threads at once, the caller being one (i = 0), and returns when all are back. */
    void (*parallel)(unsigned want, void (*fn)(void *arg, unsigned i, unsigned n), void *arg);
    unsigned (*procs)(void);
    /* Outside a stop, by a thread inside the runtime that has to wait for another thread's cycle, on the terms of gc_collect: leaves the
     * runtime for a moment, so that a stop can take place, and comes back. */
    void (*relax)(void);
    /* Bytes of fibers' stacks, for the memory limit; any time. NULL: none. */
    uint64_t (*stack_bytes)(void);
    /* Outside a stop, may be called under no lock: there are calls of that kind to run; spans to sweep. */
    void (*calls_ready)(enum gc_call_kind kind);
    void (*sweep_ready)(void);
    /* [SCAVENGE] The same; gc_scavenge_some has something to do. NULL, as the next two: nobody ever calls it. */
    void (*scavenge_ready)(void);
    /* Free memory of the host's own. wanted: after each cycle, is some of it no longer needed? some: gives a piece back and returns its bytes; 0:
     * there is no more. */
    bool (*release_wanted)(void);
    size_t (*release_some)(void);
    void (*log)(const char *line); /* gctrace, scavtrace and findings */
    /* The processors' time since start: all of it, and of that what was idle, and what collections stopped; any time outside of a stop. NULL: not
     * known. */
    void (*cpu_times)(int64_t *total_ns, int64_t *idle_ns, int64_t *stopped_ns);
};

struct gc_settings {
    size_t heap_reserve;      /* 0: 1 TiB or what is allowed */
    int gc_percent;           /* negative: off */
    int64_t memory_limit;     /* INT64_MAX: none */
    uint64_t stress;          /* gcstress=N: collect every N allocations; 0: off */
    bool stw;                 /* marks in stops; else by that back-end of os/dirty.h, or any */
    int dirty;                /* enum dirty_backend */
    bool dirty_any;
    bool poison, verify, trace, scavtrace, madv_free; /* gcpoison, gcverify, gctrace, scavtrace, madvdontneed=0 */
    bool fenced;              /* membarrier(2) is not to be used */
    uint64_t sample_rate, sample_seed; /* see gc_sampler; seed 0: by the clock */
};

int gc_start(const struct gc_host *host, const struct gc_settings *set); /* 0, -ENOMEM, -EINVAL */
void gc_stop_all(void); /* nothing of the heap remains mapped; the world consists of the caller */

/* ---- caches: one per processor, used by its owner without any lock ---------------------------------- */

/* Shapes: what a span's objects look like. A typed shape is a layout registered by gc/type.c. */
enum { SHAPE_NOSCAN = 0, SHAPE_CONS = 1, SHAPE_TYPED = 2 /* and up */ };
#define GC_CLASSES WEFT_SIZE_CLASSES
#define GC_MAX_SMALL 32768u

/* The free slots from bump up to limit are zeroed and counted as allocated already. size is that of the class. */
struct gc_run { char *bump, *limit; };

struct gc_shape_cache {
    struct gc_run run[GC_CLASSES];
    char *end[GC_CLASSES];  /* where the run really ends: limit lies before it under gcstress, and at an object that is to be sampled [STREAM] */
    void *span[GC_CLASSES]; /* struct span the run lies in */
    uint64_t used[2];       /* a bit per class that has a run: for who counts */
    struct gc_shape_cache *next; /* of the same cache, typed shapes only; fixed once it is in that list */
};

struct gc_cache {
    struct gc_shape_cache **shapes; /* by shape; entries are made on first use */
    uint32_t nshapes;
    struct gc_shape_cache basic[2]; /* noscan, conservative */
    /* the rest, statistics shard included, is gc/cache.c's */
    struct gc_cache_priv *priv;
};

int gc_cache_init(struct gc_cache *c);   /* 0, -ENOMEM */
void gc_cache_fini(struct gc_cache *c);  /* gives spans back and keeps the statistics */

extern const uint8_t gc_class_small[1024 / 8 + 1];   /* (bytes + 7) / 8 -> class */
extern const uint8_t gc_class_large[(GC_MAX_SMALL - 1024) / 128 + 1]; /* (bytes - 1024 + 127) / 128 -> class */
extern const uint16_t gc_class_size[GC_CLASSES];     /* class -> bytes; [0] is 0 */

static inline unsigned gc_class_of(size_t bytes)
{
    return bytes <= 1024 ? gc_class_small[(bytes + 7) / 8] : gc_class_large[(bytes - 1024 + 127) / 128];
}

/* NULL: the run is used up. An empty one has bump = limit = NULL, hence the numbers: nothing may be added to a null pointer. */
static inline void *gc_run_take(struct gc_run *r, size_t size)
{
    uintptr_t next = (uintptr_t)r->bump + size;
    if (unlikely(next > (uintptr_t)r->limit))
        return NULL;
    char *p = r->bump;
    __atomic_store_n(&r->bump, (char *)next, __ATOMIC_RELAXED); /* rlx: one writer; others look at it to count, [COUNT] */
    return p;
}

/* The whole fast path. NULL: take gc_alloc_slow. c is that of the caller's processor. */
static inline void *gc_alloc_fast(struct gc_cache *c, size_t bytes, unsigned basic_shape)
{
    if (unlikely(bytes > GC_MAX_SMALL))
        return NULL;
    unsigned cls = gc_class_of(bytes);
    return gc_run_take(&c->basic[basic_shape].run[cls], gc_class_size[cls]);
}

/* Could an empty heap hold it? If not, to collect for it is in vain. */
bool gc_alloc_possible(size_t bytes);
/* Refills and large objects. *want_gc is set when a cycle is due, or an assist, or gc_disarms: the caller lets gc_collect (gc_assist, if gc_marking;
 * gc_mark_some) run on a big stack before it goes back to the program; the object returned is already the program's. NULL: out of memory (the caller
 * collects and tries once more). */
void *gc_alloc_slow(struct gc_cache *c, size_t bytes, unsigned shape, bool *want_gc);
/* n elements of a type. The fast path of typed objects lies in gc/alloc.c, where the layout is known. */
void *gc_alloc_typed(struct gc_cache *c, const weft_type *t, size_t n, bool *want_gc);

/* ---- cycles ------------------------------------------------------------------------------------------ */

enum gc_why { GC_WHY_HEAP, GC_WHY_FORCED, GC_WHY_PERIODIC, GC_WHY_NOMEM, GC_WHY_STRESS };
/* A cycle, or the part of it that has to be done by who asks for it. The caller must stand on a big stack, hold no lock, and have published its
 * registers. GC_WHY_HEAP and PERIODIC begin one, if nobody has just done so; a cycle that marks beside the program then goes on by gc_mark_some. The
 * others wait for the end of one that began after they came, and help; FORCED and NOMEM also sweep to the end. May be called by several at once. */
void gc_collect(enum gc_why why);
/* The same in pieces of some 100 us, unless the world is stopped to mark. why set and the rest zero before the first. true: call it again, after
 * others had a chance to run. */
struct gc_turn { enum gc_why why; bool came; uint64_t seen, mine; };
bool gc_collect_some(struct gc_turn *t);

/* [CONC] 2: a cycle marks beside the program; written in stops. 1: the mark is over, but gc_mark_some has still something to do */
extern w_u32 gc_marks;
static inline bool gc_marking(void) { return load_rlx(&gc_marks) == 2; } /* rlx: inside it does not change; else a hint */
static inline bool gc_disarms(void) { return load_rlx(&gc_marks) == 1; } /* rlx: a hint */
static inline bool gc_mark_work(void) { return load_rlx(&gc_marks) != 0; } /* rlx: a hint */
/* Does some of it: scans `most` bytes of objects or so; *scanned grows by them. Who: for the statistics. ends: it may also end the mark, in a stop, and is
 * called on the terms of gc_collect. true: something was done. Inside the runtime, under no lock. */
enum gc_cpu { GC_CPU_DEDICATED, GC_CPU_IDLE, GC_CPU_ASSIST, GC_CPU_KINDS };
bool gc_mark_some(enum gc_cpu who, bool ends, uint64_t most, uint64_t *scanned);
/* [CONC] It looks what the program has written, and what the program writes meanwhile has to be looked at again: all should mark more than they run.
 * A hint. */
bool gc_mark_hurries(void);
/* The heap has outgrown its goal while it is marked, and the cap on the collector's CPU time had not been reached when that began: who allocates waits for
 * the end of the mark, even if there is nothing he could mark. A hint. */
bool gc_outgrown(void);
/* On the terms of gc_collect: what the owner of a cache has allocated while a cycle marked, its debt, has to be paid for by marking. false: others have
 * all the work in hand, so there is nothing to pay with; again, after they had a chance to run. *worth: what has been paid, to be taken off by gc_paid. It
 * may end the mark, and while it waits for another's stop its owner may lose the cache, and the cache end: so it knows of none. */
bool gc_assist(int64_t debt, int64_t *worth);
int64_t gc_debt(const struct gc_cache *c);
void gc_paid(struct gc_cache *c, int64_t worth);

/* [LATE] A cycle that tells which of the host's stacks nothing else leads to. host.scan_stacks leaves some out, each of which is of interest once a
 * certain object is reached. When such an object is marked the host hears of it, gives the stack, and marking goes on, until nothing moves any more:
 * what was not given till then can be reached from itself, and its like, only. That is then scanned too, so the cycle frees what any other would.
 *
 * For that to be proof, everything by which the program could still come to an object counts in such a cycle: weak pointers are strong. All in its
 * stop, by worker of nworkers threads at the same time; begin and end by one. */
struct gc_late {
    /* Caches are flushed, nothing is marked yet: gc_object_base tells objects. From here on scan_stacks leaves out what is to come late. */
    void (*begin_stw)(void *arg);
    /* An object has been marked, which happens once. It is a cold call for each object of the heap: it has to be quick. */
    void (*reached_stw)(void *arg, unsigned worker, void *obj);
    /* Scans a stack that has become due by what this worker has told; false: there is none. */
    bool (*next_stw)(void *arg, unsigned worker, gc_scan_range_fn *scan, void *marker);
    /* Scans what was never due. */
    void (*rest_stw)(void *arg, unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker);
    void (*end_stw)(void *arg); /* scan_stacks scans all again */
    void *arg;
};
/* On the terms of gc_collect, with GC_WHY_FORCED; a cycle of its own, whoever else collects. false: there was no memory to begin one. */
bool gc_collect_late(const struct gc_late *late);
bool gc_due(void);             /* the heap has reached the trigger, and the last cycle by the limit was long enough ago */
/* [MEND] Makes a huge page again, where that is wanted: for how many ns to leave it at that; -1: there is no more to do till another cycle is over. Some
 * 0.2 ms, 10 at worst: outside the runtime. One caller at a time. */
bool gc_mend_wanted(void);
int64_t gc_mend_some(void);
/* Sweeps some spans, for a background fiber: false when there is nothing left. */
bool gc_sweep_some(void);
/* Gives back a piece of memory that is kept for nothing, for a background fiber: after how many ns the next may be due; 0: at once; -1: not before
 * host.scavenge_ready. One caller at a time. */
int64_t gc_scavenge_some(void);
int64_t gc_last_end_ns(void);  /* monotonic; 0: never */
/* So long without a cycle that one is due, GC_WHY_PERIODIC: two minutes (a variable for tests); not before the first one, and not with percent off.
 * Any thread. */
bool gc_period_over(int64_t now_ns);
extern int64_t gc_period_ns;

/* ---- finalizers and cleanups: gc finds, sched runs ------------------------------------------------------- */

struct gc_call {
    union { weft_finalizer *finalizer; weft_fn *cleanup; };
    void *obj; /* of a finalizer */
    void *arg; /* a finalizer's ctx */
    const void *pc; /* who set the finalizer */
    uint64_t cycle; /* which found the object dead */
};
/* Takes one that is due, in order. What it names stays a root until the caller's own stack holds it (the entry is copied out under the queue's
 * lock). */
bool gc_call_take(enum gc_call_kind kind, struct gc_call *out);
uint64_t gc_calls_waiting(enum gc_call_kind kind); /* queued and not taken; a hint */
uint64_t gc_calls_queued(enum gc_call_kind kind);  /* ever; a figure */
int gc_finalizer_set(void *obj, weft_finalizer *fn, void *ctx, const void *pc); /* pc: who asks */
int gc_cleanup_add(void *p, weft_fn *fn, void *arg, weft_cleanup *out);
bool gc_cleanup_stop(weft_cleanup c);

/* ---- weak pointers --------------------------------------------------------------------------------------- */

/* hidden: the address, complemented; 0: dead. Written by who makes it and in stops; rlx: whoever has the handle got it from the maker */
struct weft_weak { w_u64 hidden; };
/* The handle for p; NULL: none yet. */
weft_weak *gc_weak_find(const void *p);
/* Makes fresh, an object without pointers of GC_WEAK_BYTES, the handle for p unless somebody was faster, and returns the one that holds. NULL: no
 * memory, or p points to no live object of the heap though into it. */
weft_weak *gc_weak_attach(const void *p, weft_weak *fresh);
#define GC_WEAK_BYTES 16u
/* Inside the runtime, so between stops. The caller makes sure that what is returned lies open on its stack, not as a complement, when it goes out. */
static inline void *gc_weak_get(const weft_weak *w)
{
    uint64_t h = load_rlx(&w->hidden);
    return h == 0 ? NULL : (void *)(uintptr_t)~h;
}

/* ---- watches: for who knows an object by a pointer that is no root ----------------------------------------------- */

/* When obj, the start of a live object, is found dead for good, dead_stw(obj) is called in that stop; it may not ask for specials. 0, -EEXIST,
 * -ENOMEM. */
int gc_watch(void *obj, void (*dead_stw)(void *obj));
bool gc_unwatch(void *obj); /* false: it was not watched */

/* ---- pools: what they hold is turned over by each cycle -------------------------------------------------------- */

struct gc_pool_side; /* an object of the heap; its contents are sched's */
/* The beginning of an object in which the collector sees arg only. */
struct gc_pool {
    W_PTR(struct gc_pool_side) primary; /* taken away in stops only */
    struct gc_pool_side *victim;        /* written in stops */
    void *arg;                          /* fixed. Lives as long as the pool, and may lead to it */
    uint64_t cycle;
};
int gc_pool_add(struct gc_pool *pool); /* 0, -ENOMEM */
uint64_t gc_cycles_begun(void);

/* ---- sampled allocations: for who wants to know what the heap is made of ---------------------------------------- */

/* Some allocations are told, and when their objects die that is told, too. A byte is sampled with probability 1 / rate and an object with its
 * bytes: see [STREAM] in gc/sample.c. What happens between two cycles becomes known as a whole, in the stop of the later one. */
struct gc_sampler {
    /* Inside the runtime, on the stack of who allocates, anywhere where an allocation may take place: no object may be allocated. bytes: of the size
     * class. Returns a word for the next two; 0: they are not called for this one. */
    uintptr_t (*allocated)(void *obj, size_t bytes);
    /* In the stop of a cycle, when its mark is done: all that was allocated before it and not told yet; of that and of all before, what is dead. */
    void (*born_stw)(uintptr_t word);
    void (*died_stw)(uintptr_t word);
    void (*marked_stw)(bool begins); /* before and after these; in each cycle */
};
extern const struct gc_sampler *gc_sampler; /* set by a constructor of a layer above; NULL: nobody listens */

/* 1: every allocation; 0: none. Any thread; of a run that has begun, what is left goes by the old rate, at most until the next cycle. */
uint64_t gc_sample_rate(void);
void gc_set_sample_rate(uint64_t bytes);

/* ---- the rest of the public calls, once inside --------------------------------------------------------- */

const weft_type *gc_type_make(size_t size, const size_t *offsets, size_t n);
const weft_type *gc_type_carded(const weft_type *t); /* NULL: no memory */
const weft_type *gc_type_carded_words(void);         /* all pointers. The same */
int gc_type_name(const weft_type *t, const char *name); /* 0, -EINVAL, -ENOMEM */
size_t gc_type_size(const weft_type *t);
void *gc_object_base(const void *p);
size_t gc_object_size(const void *p);
bool gc_in_heap(const void *p); /* in its range of addresses */
unsigned gc_object_shape(const void *base); /* of a live object */
bool gc_object_carded(const void *base);    /* the same */
int gc_root_add(void *p, size_t bytes);
int gc_root_remove(void *p);
weft_handle gc_handle_new(void *p);
void *gc_handle_get(weft_handle h);
int gc_handle_free(weft_handle h);
int gc_set_percent(int percent);
int64_t gc_set_limit(int64_t bytes);
void gc_release_free(void);    /* every free page goes back to the system */
/* Given back since the start, and the time that took: in the background, and in allocations. Any time. */
struct gc_scavenge_stats {
    uint64_t background_bytes, eager_bytes, background_ns, assist_ns;
    uint64_t retained_bytes, keep_bytes; /* of the heap's pages: what it has; what may stay (by its goal, or by the memory limit), UINT64_MAX: all */
    bool by_limit;                       /* keep_bytes is the limit's, and it has more than that */
    uint64_t bytes_per_s;                /* in the background: so many at most */
};
void gc_scavenge_stats(struct gc_scavenge_stats *out);
/* The last cycle that brought collecting to the cap on its time; 0: none. Any time. */
uint64_t gc_capped_cycle(void);
/* All fields but the stacks' and sched's part of sys; in a stop. */
void gc_fill_stats(weft_mem_stats *out);
/* In the child of a fork, alone: undoes what threads that are no more were about to do. Calls the host's calls_ready, sweep_ready. */
void gc_after_fork_child(void);
/* Bytes of live heap that the last cycle found. */
uint64_t gc_live_bytes(void);


#endif
