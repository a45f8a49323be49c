/* Off-heap memory on a private jemalloc; see offheap.h.
 *
 * [PRIVATE] The Makefile links the members of libjemalloc_pic.a into the library with their public names prefixed
 * (jem_mallocx) and then makes them local, so neither the host's malloc nor a jemalloc of the host's meets this one.
 * Settings that users make for *their* jemalloc are not meant for ours: it reads no environment and no
 * /etc/malloc.conf (these calls are diverted to functions below) and takes its options from
 * jem_malloc_conf_2_conf_harder, the strongest source it knows.
 *
 * One arena per purpose, made at first use, so that blocks of different purposes never share a page. Only what every program needs, of the
 * scheduler and of the collector, lies in one, which is there from the start: an arena takes 80 KiB before its first block. An arena's extent hooks
 * are the default ones with a count around them. We bypass the thread caches (they would hold blocks of threads that have gone idle); what must be
 * faster keeps its own list of free blocks, per processor, as sched does with fiber records. */
#include "base/offheap.h"
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>
#include "base/atomic.h"
#include "base/backoff.h"
#include "base/fail.h"
#include "base/fmt.h"
#include "base/syscall.h"

void *jem_mallocx(size_t size, int flags);
void *jem_rallocx(void *p, size_t size, int flags);
void jem_dallocx(void *p, int flags);
size_t jem_sallocx(const void *p, int flags);
int jem_mallctl(const char *name, void *old, size_t *oldlen, void *new, size_t newlen);

/* A small, quiet allocator: no thread of its own, no huge pages behind our back; freed pages go back to the kernel
 * within a second of activity. Thread caches are bypassed, not off, since off takes jemalloc's slow path on every
 * call (80 against 130 ns for a pair). */
const char *jem_malloc_conf_2_conf_harder =
    "abort:false,abort_conf:false,narenas:1,tcache:true,tcache_max:8,background_thread:false,percpu_arena:disabled,"
    "dss:disabled,thp:never,metadata_thp:disabled,dirty_decay_ms:1000,muzzy_decay_ms:0,stats_print:false,"
    "junk:false,zero:false";

/* What jemalloc gets instead of functions that it should not call, or whose calls are of interest (JEM_DIVERT in the Makefile). From dlsym on they
 * serve options that we do not switch on; without them the library needs no libm (300 KiB resident). */
char *off_no_secure_getenv(const char *name);
ssize_t off_no_readlink(const char *path, char *buf, size_t n);
void *off_no_sbrk(intptr_t by);
void *off_no_dlsym(void *handle, const char *name);
int off_no__Unwind_Backtrace(void *fn, void *arg);
uintptr_t off_no__Unwind_GetIP(void *ctx);
double off_no_exp(double x);
double off_no_log(double x);
double off_no_round(double x);

void *off_no_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from);
int off_no_munmap(void *p, size_t n);

/* What it maps before its arena has our hooks, less what it gives back at the ends to have the rest aligned. By one thread, as the library is loaded. */
#define EARLY_MAX 8u
static struct { uintptr_t lo, hi; } early[EARLY_MAX];
static bool early_over;

void *off_no_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    void *p = mmap(at, n, prot, flags, fd, from);
    for (unsigned i = 0; !early_over && p != MAP_FAILED && i < EARLY_MAX; i++)
        if (early[i].lo >= early[i].hi) {
            early[i].lo = (uintptr_t)p;
            early[i].hi = (uintptr_t)p + n;
            break;
        }
    return p;
}

int off_no_munmap(void *p, size_t n)
{
    uintptr_t lo = (uintptr_t)p, hi = lo + n;
    for (unsigned i = 0; !early_over && i < EARLY_MAX; i++) {
        if (early[i].lo == lo)
            early[i].lo = w_min(hi, early[i].hi);
        else if (early[i].hi == hi)
            early[i].hi = w_max(lo, early[i].lo);
    }
    return munmap(p, n);
}

char *off_no_secure_getenv(const char *name) { return (void)name, NULL; }
ssize_t off_no_readlink(const char *path, char *buf, size_t n) { return (void)path, (void)buf, (void)n, -1; }
void *off_no_sbrk(intptr_t by) { return (void)by, (void *)-1; }
void *off_no_dlsym(void *handle, const char *name) { return (void)handle, (void)name, NULL; }
int off_no__Unwind_Backtrace(void *fn, void *arg) { return (void)fn, (void)arg, 0; }
uintptr_t off_no__Unwind_GetIP(void *ctx) { return (void)ctx, 0; }
double off_no_exp(double x) { return x; }
double off_no_log(double x) { return x; }
double off_no_round(double x) { return x; }

#ifdef W_TSAN
/* jemalloc is not instrumented, and TSan loses count of its mutexes. Locks of ours in their place show it all the
 * order there is. One is written into the first word of the mutex. */
int off_no_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr);
int off_no_pthread_mutex_lock(pthread_mutex_t *m);
int off_no_pthread_mutex_trylock(pthread_mutex_t *m);
int off_no_pthread_mutex_unlock(pthread_mutex_t *m);

static w_u32 *mutex_word(pthread_mutex_t *m) { return (w_u32 *)(void *)m; }

int off_no_pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    (void)attr;
    store_rlx(mutex_word(m), 0); /* rlx: nobody knows it yet */
    return 0;
}

int off_no_pthread_mutex_trylock(pthread_mutex_t *m)
{
    return cas_acq(mutex_word(m), 0, 1) ? 0 : EBUSY; /* acq: what the last holder wrote; rel in unlock */
}

int off_no_pthread_mutex_lock(pthread_mutex_t *m)
{
    for (unsigned looks = 0; off_no_pthread_mutex_trylock(m) != 0; looks++)
        backoff(looks);
    return 0;
}

int off_no_pthread_mutex_unlock(pthread_mutex_t *m)
{
    store_rel(mutex_word(m), 0); /* rel: publishes what was written under it; acq in trylock */
    return 0;
}
#endif

#define ARENA_NONE 0u /* else: index + 1 */

static struct purpose {
    const char *name;
    extent_hooks_t hooks; /* fixed by read_default_hooks */
    w_u32 arena;
    /* counters: rlx, read for statistics only */
    w_u64 in_use_bytes w_aligned(W_CACHELINE);
    w_u64 mapped_bytes;
    w_u64 loose_bytes; /* of these, in no range (below) */
} purposes[OFF_PURPOSES] = {
    [OFF_SCHED] = { .name = "sched" },
    [OFF_FIBER] = { .name = "fiber" },
    [OFF_GC] = { .name = "gc" },
    [OFF_SPECIAL] = { .name = "special" },
    [OFF_PROF] = { .name = "prof" },
    [OFF_TRACE] = { .name = "trace" },
    [OFF_OTHER] = { .name = "other" },
};

/* Where all that is, for who explains what is resident. A range is written by who has just mapped it, and taken out by who is about to unmap it; at: 0
 * free, TAKEN: being written. An arena takes twice as much each time, so there are few. Slabs may be many: of what is smaller than RANGE_MIN only the
 * sum is kept, as of what finds no room here. */
#define RANGE_MIN (256u << 10)
#define RANGES_MAX 256u
#define TAKEN 1u
static struct range { w_uptr at; w_u64 bytes_why; } ranges[RANGES_MAX];
static w_u32 ranges_used; /* up to there some were in use */

static void range_add(struct purpose *pu, void *p, size_t bytes)
{
    for (uint32_t i = 0; bytes >= RANGE_MIN && i < RANGES_MAX; i++) {
        struct range *r = &ranges[i];
        if (load_rlx(&r->at) != 0 || !cas_acq(&r->at, 0, TAKEN)) /* rlx: a hint. acq: after its last user; rel in range_remove */
            continue;
        store_rlx(&r->bytes_why, (uint64_t)bytes << 8 | (unsigned)(pu - purposes)); /* rlx: published by at */
        store_rel(&r->at, (uintptr_t)p); /* rel: publishes it; acq in off_ranges */
        uint32_t used = load_rlx(&ranges_used); /* rlx: only grows */
        while (used <= i && !cas_rel(&ranges_used, used, i + 1)) /* rel: acq in those who go over all */
            used = load_rlx(&ranges_used);
        return;
    }
    add_rlx(&pu->loose_bytes, bytes); /* rlx: a counter */
}

/* jemalloc may give back several that lay side by side as one, or a part. */
static void range_remove(struct purpose *pu, const void *p, size_t bytes)
{
    uintptr_t lo = (uintptr_t)p, hi = lo + bytes;
    bool found = false;
    for (uint32_t i = 0, n = load_acq(&ranges_used); i < n; i++) { /* acq: whoever unmaps has mapped before */
        uintptr_t at = load_rlx(&ranges[i].at); /* rlx: ours does not change */
        if (at < lo || at >= hi)
            continue;
        store_rel(&ranges[i].at, 0); /* rel: before its next user; acq in range_add */
        found = true;
    }
    if (!found)
        sub_rlx(&pu->loose_bytes, w_min((uint64_t)bytes, load_rlx(&pu->loose_bytes))); /* rlx: a counter */
}

void off_ranges(void (*fn)(void *arg, enum off_purpose why, uintptr_t lo, uintptr_t hi), void *arg)
{
    for (uint32_t i = 0, n = load_acq(&ranges_used); i < n; i++) { /* acq: rel in range_add */
        uintptr_t at = load_acq(&ranges[i].at); /* acq: sees bytes_why; rel in range_add */
        uint64_t b = load_rlx(&ranges[i].bytes_why);
        if (at > TAKEN)
            fn(arg, (enum off_purpose)(b & 0xff), at, at + (uintptr_t)(b >> 8));
    }
}

static extent_hooks_t *default_hooks; /* fixed by read_default_hooks; NULL: jemalloc could not start */

static void *hook_alloc(extent_hooks_t *h, void *at, size_t n, size_t align, bool *zero, bool *commit, unsigned arena)
{
    void *p = default_hooks->alloc(default_hooks, at, n, align, zero, commit, arena);
    if (p != NULL) {
        struct purpose *pu = w_containerof(h, struct purpose, hooks);
        add_rlx(&pu->mapped_bytes, n);
        range_add(pu, p, n);
    }
    return p;
}

static bool hook_dalloc(extent_hooks_t *h, void *p, size_t n, bool committed, unsigned arena)
{
    bool kept = default_hooks->dalloc == NULL || default_hooks->dalloc(default_hooks, p, n, committed, arena);
    if (!kept) {
        sub_rlx(&w_containerof(h, struct purpose, hooks)->mapped_bytes, n);
        range_remove(w_containerof(h, struct purpose, hooks), p, n);
    }
    return kept;
}

static void hook_destroy(extent_hooks_t *h, void *p, size_t n, bool committed, unsigned arena)
{
    range_remove(w_containerof(h, struct purpose, hooks), p, n);
    default_hooks->destroy(default_hooks, p, n, committed, arena);
    sub_rlx(&w_containerof(h, struct purpose, hooks)->mapped_bytes, n);
}

/* Making an arena, as the start of jemalloc, runs much of jemalloc's code, and hardly any of that again. Code pages are clean and in the page cache:
 * dropped from the process, those in use come back at a microsecond each. 140 KiB less resident in an idle program. */
extern char off_jem_text[], off_jem_text_end[]; /* set by the Makefile */

static void forget_code(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = w_align_up((uintptr_t)off_jem_text, page), to = w_align_down((uintptr_t)off_jem_text_end, page);
    if (from < to)
        sys_call3(SYS_madvise, from, to - from, MADV_DONTNEED);
}

/* jemalloc's own arena, which it makes in any case, serves the scheduler and the collector. What it mapped before it had our hooks is
 * in its statistics. */
static void first_arena_adopt(void)
{
    struct purpose *pu = &purposes[OFF_SCHED];
    extent_hooks_t *mine = &pu->hooks;
    uint64_t epoch = 1;
    size_t mapped, retained, len = sizeof mapped;
    if (jem_mallctl("arena.0.extent_hooks", NULL, NULL, &mine, sizeof mine) != 0 ||
        jem_mallctl("epoch", NULL, NULL, &epoch, sizeof epoch) != 0 ||
        jem_mallctl("stats.arenas.0.mapped", &mapped, &len, NULL, 0) != 0 ||
        jem_mallctl("stats.arenas.0.retained", &retained, &len, NULL, 0) != 0)
        return;
    add_rlx(&pu->mapped_bytes, mapped + retained); /* rlx: a counter */
    for (unsigned i = 0; i < EARLY_MAX; i++)
        if (early[i].lo < early[i].hi)
            range_add(pu, (void *)early[i].lo, early[i].hi - early[i].lo);
    store_rlx(&pu->arena, 0 + 1);                  /* rlx: no other thread yet */
    store_rlx(&purposes[OFF_GC].arena, 0 + 1);
}

/* When the library is loaded, as jemalloc starts itself: no thread races for it, and no fork comes in the middle. After machine.c's key (101); before
 * world.c's handlers of forks (103), which must come after jemalloc's. */
__attribute__((constructor(102))) static void read_default_hooks(void)
{
    extent_hooks_t *def;
    size_t len = sizeof def;
    if (jem_mallctl("arena.0.extent_hooks", &def, &len, NULL, 0) != 0)
        return;
    for (int i = 0; i < OFF_PURPOSES; i++) {
        purposes[i].hooks = *def;
        purposes[i].hooks.alloc = hook_alloc;
        purposes[i].hooks.dalloc = hook_dalloc;
        purposes[i].hooks.destroy = hook_destroy;
    }
    default_hooks = def;
    first_arena_adopt();
    early_over = true;
    forget_code();
}

static void arena_control(uint32_t arena, const char *what)
{
    char name[40];
    w_fmt(name, sizeof name, "arena.%u.%s", arena - 1, what);
    jem_mallctl(name, NULL, NULL, NULL, 0);
}

/* Makes the arena. Threads that race for it each make one and all but the first drop theirs: so nobody waits for
 * anybody, also not in a child forked in the middle. ARENA_NONE: no memory. */
static w_cold uint32_t arena_make(struct purpose *pu)
{
    extent_hooks_t *mine = &pu->hooks;
    unsigned index;
    size_t len = sizeof index;
    if (default_hooks == NULL || jem_mallctl("arenas.create", &index, &len, &mine, sizeof mine) != 0)
        return ARENA_NONE;
    if (!cas_acq_rel(&pu->arena, ARENA_NONE, index + 1)) /* rel: publishes the arena; acq in flags_of */
        arena_control(index + 1, "destroy");
    forget_code();
    return load_acq(&pu->arena); /* acq: sees the arena of who came first; rel above */
}

/* Flags that make jemalloc use the purpose's arena; 0: it cannot be made. */
static inline int flags_of(enum off_purpose why)
{
    struct purpose *pu = &purposes[why];
    uint32_t a = load_acq(&pu->arena); /* acq: sees the arena; rel in arena_make */
    if (unlikely(a == ARENA_NONE)) {
        a = arena_make(pu);
        if (a == ARENA_NONE)
            return 0;
    }
    return MALLOCX_ARENA(a - 1) | MALLOCX_TCACHE_NONE;
}

int off_init(void)
{
    return !fail_now(FAIL_MEM) && flags_of(OFF_SCHED) != 0 ? 0 : -ENOMEM;
}

static inline void *count_in(enum off_purpose why, void *p)
{
    if (p != NULL)
        add_rlx(&purposes[why].in_use_bytes, jem_sallocx(p, 0)); /* rlx: a counter */
    return p;
}

static void *alloc_flags(enum off_purpose why, size_t bytes, int extra)
{
    if (fail_now(FAIL_MEM))
        return NULL;
    int flags = flags_of(why);
    return flags == 0 ? NULL : count_in(why, jem_mallocx(bytes != 0 ? bytes : 1, flags | extra));
}

void *off_alloc(enum off_purpose why, size_t bytes)
{
    return alloc_flags(why, bytes, 0);
}

void *off_zalloc(enum off_purpose why, size_t bytes)
{
    return alloc_flags(why, bytes, MALLOCX_ZERO);
}

void *off_alloc_aligned(enum off_purpose why, size_t bytes, size_t align)
{
    return alloc_flags(why, bytes, MALLOCX_ZERO | MALLOCX_ALIGN(align));
}

void *off_map(enum off_purpose why, size_t bytes, size_t align)
{
    struct purpose *pu = &purposes[why];
    bool zero = true, commit = true;
    if (fail_now(FAIL_MEM) || default_hooks == NULL)
        return NULL;
    void *p = hook_alloc(&pu->hooks, NULL, bytes, align, &zero, &commit, 0);
    if (p != NULL)
        add_rlx(&pu->in_use_bytes, bytes); /* rlx: a counter */
    return p;
}

void off_unmap(enum off_purpose why, void *p, size_t bytes)
{
    struct purpose *pu = &purposes[why];
    range_remove(pu, p, bytes);
    munmap(p, bytes);
    sub_rlx(&pu->mapped_bytes, bytes); /* rlx: counters */
    sub_rlx(&pu->in_use_bytes, bytes);
}

void *off_realloc(enum off_purpose why, void *p, size_t bytes)
{
    if (p == NULL)
        return off_alloc(why, bytes);
    if (fail_now(FAIL_MEM))
        return NULL;
    size_t before = jem_sallocx(p, 0);
    void *q = jem_rallocx(p, bytes != 0 ? bytes : 1, flags_of(why));
    if (q != NULL) {
        sub_rlx(&purposes[why].in_use_bytes, before); /* rlx: a counter */
        count_in(why, q);
    }
    return q;
}

void off_free(enum off_purpose why, void *p)
{
    if (p == NULL)
        return;
    sub_rlx(&purposes[why].in_use_bytes, jem_sallocx(p, 0)); /* rlx: a counter */
    jem_dallocx(p, MALLOCX_TCACHE_NONE);
}

/* Scheduler and collector; not if the first arena could not be had: then each makes its own. */
static bool shares_arena(void)
{
    return load_rlx(&purposes[OFF_SCHED].arena) == load_rlx(&purposes[OFF_GC].arena); /* rlx: equal from the start, or never */
}

void off_release(void)
{
    for (int i = 0; i < OFF_PURPOSES; i++) {
        uint32_t a = load_acq(&purposes[i].arena); /* acq: as in flags_of */
        if (a != ARENA_NONE && !(i == OFF_GC && shares_arena()))
            arena_control(a, "purge");
    }
}

uint64_t off_in_use_bytes(void)
{
    uint64_t n = 0;
    for (int i = 0; i < OFF_PURPOSES; i++)
        n += load_rlx(&purposes[i].in_use_bytes); /* rlx: as below */
    return n;
}

void off_stats(enum off_purpose why, struct off_stats *out)
{
    out->in_use_bytes = load_rlx(&purposes[why].in_use_bytes); /* rlx: counters; they need not be of one moment */
    out->mapped_bytes = load_rlx(&purposes[why].mapped_bytes);
    out->loose_bytes = load_rlx(&purposes[why].loose_bytes);
    /* Of the arena that two share, the collector's are its blocks, and what is free is the scheduler's. */
    uint64_t shared = shares_arena() ? load_rlx(&purposes[OFF_GC].in_use_bytes) : 0;
    if (why == OFF_GC)
        out->mapped_bytes += shared;
    else if (why == OFF_SCHED)
        out->mapped_bytes -= w_min(shared, out->mapped_bytes);
}

const char *off_name(enum off_purpose why)
{
    return purposes[why].name;
}
