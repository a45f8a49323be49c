/* Stacks.
 *
 * Address space comes in arenas of slots of one size (a power of two). A slot is, from below: a guard, the stack, the fiber's descriptor. Nothing
 * of it is resident until touched, and a parked fiber with shallow frames touches one page: descriptor and first frames share it. The descriptor's
 * place within that page varies with the slot (colour), since otherwise those of all fibers would fall into one set of the first-level cache.
 *
 * The guard is installed with MADV_GUARD_INSTALL where the kernel has it: no mapping of its own, so a million stacks lie in some twenty mappings.
 * Elsewhere with mprotect, which costs a mapping per stack and ends at vm.max_map_count. It takes a sixteenth of the slot, from a page to 1 MiB:
 * what jumps over it unnoticed is a frame larger than that (code compiled with -fstack-clash-protection touches each page of such a frame and
 * cannot).
 *
 * Slots are never unmapped before stack_end, so a pointer to a descriptor may be read at any time; one that was not used yet reads as zeroes,
 * state FIBER_FREE, and so does one whose memory went back to the system, which may happen between any two looks at it. So nothing in a descriptor
 * outlives its fiber: ids come from a counter and are never 0, and a pin that is lost is noticed ([PIN]).
 *
 * Free slots are, in the order in which they are taken:
 *
 *     warm     those in a processor's cache (default size only, last in first out), then those in a list per size under `lock`: linked through their
 *              descriptors
 *     clean    without memory: a bit each, in the arena
 *     unused   an arena's slots are used from its start on
 *
 * The latter two are taken for a processor as many at a time as one page of a page table maps, if of the default size: two processors do not fault in
 * the same table, the lock is seldom taken, and the guards of new ones take one system call (clean ones have theirs still).
 *
 * What was not needed for a whole cycle turns from warm to clean ([SCAVENGE]): of a list as many as it never fell below; of a cache what was in it
 * at the last collection and was not taken since. In the stop of the next one that (old_stacks) leaves the cache, and the rest of it gets old: so
 * the hot path has nothing to do with it.
 *
 * Pages are small ones on purpose (MADV_NOHUGEPAGE): a huge page would make every parked fiber cost what its neighbours could use. */
#include "sched/stack.h"
#include "sched/sanitize.h"
#include "base/bits.h"
#include "os/loader.h"
#include "os/vm.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef PIDFD_SELF_THREAD
#define PIDFD_SELF_THREAD (-10000)
#endif

#define GUARD_MIN 4096u
#define GUARD_MAX (1u << 20)
#define GUARD_PART 16u
#define ARENA_BYTES (64u << 20)
#define MAX_ARENAS 65536u
#define CACHE_MAX 64u
#define COLOURS 16u
#define COLOUR_BYTES 128u
#define TABLE_BYTES ((size_t)2 << 20) /* what one page of a page table maps */
#define BATCH_MAX (TABLE_BYTES >> STACK_MIN_LOG2)

/* Slots i of which bit i % 64 of clean[i / 64] is set are clean; their number is nclean, and i < used for each. */
struct arena {
    char *base;          /* fixed, and the next two */
    uint32_t log2, nslots;
    uint32_t index;      /* in stacks.arenas; fixed */
    w_u32 used;          /* slots handed out at least once; grows under lock */
    /* under lock */
    uint32_t nclean;
    struct arena *next_clean;
    struct stack_watch watch; /* watch.c's; its bits lie behind clean */
    w_u64 clean[];       /* read without by stack_each */
};

/* Slots without memory, in a row. */
struct slots {
    char *at;
    uint32_t n, arena;
    bool guarded;
};

static struct {
    struct lock lock;    /* RANK_STACK: all but arenas' contents */
    struct arena *arenas[MAX_ARENAS];
    w_u32 narenas;       /* rel: publishes arenas[i]; acq in stack_each */
    struct arena *fresh[STACK_MAX_LOG2 + 1]; /* arena with unused slots, by size */
    struct arena *clean[STACK_MAX_LOG2 + 1]; /* arenas with clean slots */
    struct fiber *free[STACK_MAX_LOG2 + 1];
    uint64_t nwarm[STACK_MAX_LOG2 + 1]; /* length of free */
    uint64_t low[STACK_MAX_LOG2 + 1];   /* its least since the last stack_release_due */
    uint64_t due[STACK_MAX_LOG2 + 1];   /* of it, to be released */
    struct fiber *old;   /* lists that have left caches, linked by `wake` of their first; on their way to free */
    w_u64 nfree;         /* in free or old, or on the way from there to the clean ones. Read relaxed by stack_count, as the next */
    w_u64 nslots;        /* used and not clean */
    w_u32 empty_caches;  /* at the next turn. rlx: a flag */
    bool light_guards;   /* MADV_GUARD_INSTALL works; fixed */
    size_t page;
} stacks;

unsigned stack_log2(size_t bytes)
{
    unsigned l = STACK_MIN_LOG2;
    while (l <= STACK_MAX_LOG2 && ((size_t)1 << l) < bytes)
        l++;
    return l <= STACK_MAX_LOG2 ? l : 0;
}

/* An emulator may take the call and do nothing. */
static bool guards_hold(size_t page)
{
    int err = errno;
    char c, *p = os_vm_reserve(page, page);
    bool hold = p != NULL && os_vm_commit(p, page) == 0 && madvise(p, page, MADV_GUARD_INSTALL) == 0 && os_vm_peek(&c, p, 1) == 0;
    os_vm_free(p, page);
    errno = err;
    return hold;
}

int stack_start(void)
{
    memset(stacks.free, 0, sizeof stacks.free);
    memset(stacks.clean, 0, sizeof stacks.clean);
    stacks.old = NULL;
    memset(stacks.nwarm, 0, sizeof stacks.nwarm);
    memset(stacks.low, 0, sizeof stacks.low);
    memset(stacks.due, 0, sizeof stacks.due);
    memset(stacks.fresh, 0, sizeof stacks.fresh);
    store_rlx(&stacks.nfree, 0); /* rlx: nobody else runs yet, and below */
    store_rlx(&stacks.nslots, 0);
    store_rlx(&stacks.narenas, 0);
    store_rlx(&stacks.empty_caches, 0);
    stacks.page = (size_t)sysconf(_SC_PAGESIZE);
    stacks.light_guards = guards_hold(stacks.page);
    lock_init(&stacks.lock, RANK_STACK);
    return 0;
}

void stack_exclude(void) { loader_exclude(&stacks, sizeof stacks); }

void stack_end(void)
{
    uint32_t n = load_acq(&stacks.narenas);
    for (uint32_t i = 0; i < n; i++) {
        struct arena *a = stacks.arenas[i];
        munmap(a->base, (size_t)a->nslots << a->log2);
        off_free(OFF_SCHED, a);
        stacks.arenas[i] = NULL;
    }
    store_rlx(&stacks.narenas, 0); /* rlx: nobody else runs any more */
}

static struct arena *arena_new(unsigned log2)
{
    uint32_t n = load_rlx(&stacks.narenas); /* rlx: only grows under the lock, which we hold */
    if (n == MAX_ARENAS)
        return NULL;
    size_t slot = (size_t)1 << log2, bytes = w_max(slot, (size_t)ARENA_BYTES);
    size_t words = ((bytes >> log2) + 63) / 64;
    struct arena *a = off_zalloc(OFF_SCHED, sizeof *a + 2 * words * sizeof a->clean[0]);
    if (a == NULL)
        return NULL;
    void *base = os_vm_map_stack(bytes);
    if (base == NULL) {
        bytes = slot;
        base = os_vm_map_stack(bytes);
    }
    if (base == NULL) {
        off_free(OFF_SCHED, a);
        return NULL;
    }
    madvise(base, bytes, MADV_NOHUGEPAGE);
    sanitize_memory_new(base, bytes);
    a->base = base;
    a->log2 = log2;
    a->nslots = (uint32_t)(bytes >> log2);
    a->watch.seen = a->clean + words;
    a->watch.nslots = a->nslots;
    a->index = n;
    stacks.arenas[n] = a;
    store_rel(&stacks.narenas, n + 1); /* rel: publishes arenas[n] */
    return a;
}

/* The place of the descriptor in a slot. */
static struct fiber *fiber_at(const char *slot, unsigned log2)
{
    uintptr_t end = (uintptr_t)slot + ((uintptr_t)1 << log2);
    end -= (((uintptr_t)slot >> log2) * 5 % COLOURS) * COLOUR_BYTES;
    return (struct fiber *)w_align_down(end - sizeof(struct fiber), W_CACHELINE);
}

static struct fiber *slot_fiber(const struct arena *a, uint32_t i) { return fiber_at(a->base + ((size_t)i << a->log2), a->log2); }

static size_t guard_bytes(unsigned log2)
{
    size_t part = ((size_t)1 << log2) / GUARD_PART;
    return w_align_up(w_min(w_max(part, (size_t)GUARD_MIN), (size_t)GUARD_MAX), stacks.page);
}

static int guard_install(char *slot, unsigned log2)
{
    size_t bytes = guard_bytes(log2);
    if (stacks.light_guards && madvise(slot, bytes, MADV_GUARD_INSTALL) == 0)
        return 0;
    return mprotect(slot, bytes, PROT_NONE) == 0 ? 0 : -errno; /* locked memory (mlockall) takes no other ones */
}

/* Of n ranges: one system call where the kernel allows it for one's own process (from 6.13, named so from 6.14). False: not, or not all. */
static bool advise_all(const struct iovec *at, uint32_t n, int advice)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += at[i].iov_len;
    return syscall(SYS_process_madvise, PIDFD_SELF_THREAD, at, n, advice, 0) == (long)bytes;
}

/* Returns how many have one now. */
static uint32_t guards_install(const struct slots *s, unsigned log2)
{
    struct iovec at[BATCH_MAX];
    for (uint32_t i = 0; i < s->n; i++)
        at[i] = (struct iovec){ s->at + ((size_t)i << log2), guard_bytes(log2) };
    if (s->n > 1 && stacks.light_guards && advise_all(at, s->n, MADV_GUARD_INSTALL))
        return s->n;
    uint32_t done = 0;
    while (done < s->n && guard_install(s->at + ((size_t)done << log2), log2) == 0)
        done++;
    return done;
}

static struct slots slots_of(const struct arena *a, uint32_t i, uint32_t n, bool guarded)
{
    store_rlx(&stacks.nslots, load_rlx(&stacks.nslots) + n); /* rlx: under the lock */
    return (struct slots){ .at = a->base + ((size_t)i << a->log2), .n = n, .arena = a->index, .guarded = guarded };
}

/* Slots that were never used, at most n; none: no memory. Under the lock. */
static struct slots slots_reserve(unsigned log2, uint32_t n)
{
    struct arena *a = stacks.fresh[log2];
    if (a == NULL || load_rlx(&a->used) == a->nslots) { /* rlx: changes under the lock only */
        a = arena_new(log2);
        if (a == NULL)
            return (struct slots){ 0 };
        stacks.fresh[log2] = a;
    }
    uint32_t i = load_rlx(&a->used); /* rlx: as above */
    n = w_min(n, a->nslots - i);
    store_rlx(&a->used, i + n); /* rlx: there is nothing to see in them yet */
    return slots_of(a, i, n, false);
}

/* How many bits are set from the lowest on. */
static uint32_t run_of_ones(uint64_t bits) { return bits != UINT64_MAX ? bits_ctz(~bits) : 64; }

/* The first clean slots of an arena, as many as follow each other in a word, at most n; none: there are no clean ones. Under the lock. */
static struct slots slots_clean(unsigned log2, uint32_t n)
{
    struct arena *a = stacks.clean[log2];
    if (a == NULL)
        return (struct slots){ 0 };
    uint32_t word = 0;
    uint64_t bits;
    while ((bits = load_rlx(&a->clean[word])) == 0) /* rlx: changes under the lock only */
        word++;
    unsigned first = bits_ctz(bits);
    n = w_min(n, run_of_ones(bits >> first));
    store_rlx(&a->clean[word], bits & ~(bits_mask(n) << first)); /* rlx: as `used` in slots_reserve */
    a->nclean -= n;
    if (a->nclean == 0)
        stacks.clean[log2] = a->next_clean;
    return slots_of(a, word * 64 + first, n, true);
}

static uint32_t slot_index(const struct arena *a, const struct fiber *f) { return (uint32_t)((size_t)((const char *)f - a->base) >> a->log2); }

/* Under the lock. */
static void slot_cleaned(struct arena *a, uint32_t i)
{
    store_rlx(&a->clean[i / 64], load_rlx(&a->clean[i / 64]) | UINT64_C(1) << i % 64); /* rlx: who does not see it yet finds zeroes there */
    if (a->nclean++ == 0) {
        a->next_clean = stacks.clean[a->log2];
        stacks.clean[a->log2] = a;
    }
    store_rlx(&stacks.nfree, load_rlx(&stacks.nfree) - 1); /* rlx: under the lock */
    store_rlx(&stacks.nslots, load_rlx(&stacks.nslots) - 1);
}

static struct fiber *slot_warm(unsigned log2)
{
    struct fiber *f = stacks.free[log2];
    if (f == NULL)
        return NULL;
    stacks.free[log2] = run_fiber(f->link.next);
    store_rlx(&stacks.nfree, load_rlx(&stacks.nfree) - 1); /* rlx: under the lock */
    stacks.nwarm[log2]--;
    stacks.low[log2] = w_min(stacks.low[log2], stacks.nwarm[log2]);
    return f;
}

/* The descriptor of a slot that has no memory. */
static struct fiber *slot_open(char *slot, unsigned log2, uint32_t arena)
{
    struct fiber *f = fiber_at(slot, log2);
    f->stack_lo = slot + guard_bytes(log2);
    f->stack_hi = (char *)f;
    f->stack_log2 = (uint8_t)log2;
    f->arena = arena;
    store_rlx(&f->pin, 0); /* rlx: the state is published later. Of a look at the fiber before: it knows that the pin is lost by then ([PIN]) */
    return f;
}

/* Neither in the lock: the guards' system call, and the first touch of the descriptor's page. */
static struct fiber *shared_get(struct p *p, unsigned log2)
{
    bool batch = p != NULL && log2 == sched.stack_log2;
    uint32_t n = batch ? (uint32_t)w_max(TABLE_BYTES >> log2, (size_t)1) : 1;
    struct slots s = { 0 };
    lock_take(&stacks.lock);
    struct fiber *f = slot_warm(log2);
    if (f == NULL && (s = slots_clean(log2, n)).n == 0)
        s = slots_reserve(log2, n);
    lock_drop(&stacks.lock);
    if (s.n == 0)
        return f;
    if (!s.guarded && (s.n = guards_install(&s, log2)) == 0) /* a slot without one is never used */
        return NULL;
    if (s.n > 1) {
        p->fresh_slot = s.at + ((size_t)1 << log2);
        p->fresh_arena = s.arena;
        __atomic_store_n(&p->nfresh_slots, s.n - 1, __ATOMIC_RELEASE); /* rel: after nslots; acq in stack_count */
    }
    return slot_open(s.at, log2, s.arena);
}

static inline void cached(struct p *p, uint32_t n)
{
    __atomic_store_n(&p->nfree_stacks, n, __ATOMIC_RELAXED); /* rlx: one writer; others count with it */
}
static inline void old_cached(struct p *p, uint32_t n) { __atomic_store_n(&p->nold_stacks, n, __ATOMIC_RELAXED); } /* rlx: likewise */

/* Of the default size, what p has beside its cache. */
static struct fiber *own_get(struct p *p)
{
    struct fiber *f = p->old_stacks;
    if (f != NULL) {
        p->old_stacks = run_fiber(f->link.next);
        old_cached(p, p->nold_stacks - 1);
        return f;
    }
    if (p->nfresh_slots == 0)
        return NULL;
    char *slot = p->fresh_slot;
    p->fresh_slot += (size_t)1 << sched.stack_log2;
    __atomic_store_n(&p->nfresh_slots, p->nfresh_slots - 1, __ATOMIC_RELAXED); /* rlx: others count with it */
    return slot_open(slot, sched.stack_log2, p->fresh_arena);
}

struct fiber *stack_get(struct p *p, unsigned log2)
{
    if (p != NULL && log2 == sched.stack_log2) {
        struct fiber *f = p->free_stacks;
        if (likely(f != NULL)) {
            p->free_stacks = run_fiber(f->link.next);
            cached(p, p->nfree_stacks - 1);
            return f;
        }
        if ((f = own_get(p)) != NULL)
            return f;
    }
    int err = errno;
    struct fiber *f = shared_get(p, log2);
    errno = err;
    return f;
}

/* Under the lock; and so the next ones. */
static void list_add(struct fiber *f)
{
    f->link.next = (runnable)stacks.free[f->stack_log2];
    stacks.free[f->stack_log2] = f;
    stacks.nwarm[f->stack_log2]++;
}

static void count_free(uint32_t n) { store_rlx(&stacks.nfree, load_rlx(&stacks.nfree) + n); } /* rlx: under the lock */

static void list_put(struct fiber *f)
{
    list_add(f);
    count_free(1);
}

static void list_put_all(struct fiber *first)
{
    for (struct fiber *f = first, *next; f != NULL; f = next) {
        next = run_fiber(f->link.next);
        list_put(f);
    }
}

void stack_put(struct p *p, struct fiber *f)
{
    store_rlx(&f->state, FIBER_DEAD); /* rlx: a reader of a stale state pins first, and then reads again */
    if (p != NULL && f->stack_log2 == sched.stack_log2 && p->nfree_stacks < CACHE_MAX) {
        f->link.next = (runnable)p->free_stacks;
        p->free_stacks = f;
        cached(p, p->nfree_stacks + 1);
        return;
    }
    lock_take(&stacks.lock);
    list_put(f);
    /* Half of the cache goes too, so that a processor where fibers end does not come here each time. */
    if (p != NULL && p->nfree_stacks == CACHE_MAX)
        for (unsigned i = 0; i < CACHE_MAX / 2; i++) {
            struct fiber *g = p->free_stacks;
            p->free_stacks = run_fiber(g->link.next);
            cached(p, p->nfree_stacks - 1);
            list_put(g);
        }
    lock_drop(&stacks.lock);
}

void stack_flush(struct p *p)
{
    lock_take(&stacks.lock);
    list_put_all(p->free_stacks);
    list_put_all(p->old_stacks);
    p->free_stacks = p->old_stacks = NULL;
    cached(p, 0);
    old_cached(p, 0);
    lock_drop(&stacks.lock);
}

static void each_slot(const struct arena *a, uint32_t from, uint32_t to, void (*fn)(struct fiber *f, void *arg), void *arg)
{
    for (uint32_t s = from; s < to; s++) {
        uint32_t clean = run_of_ones(load_rlx(&a->clean[s / 64]) >> s % 64); /* to look at one is a page fault */
        if (clean != 0) {
            s += clean - 1;
            continue;
        }
        if (s + 4 < to)
            __builtin_prefetch(slot_fiber(a, s + 4));
        fn(slot_fiber(a, s), arg);
    }
}

void stack_each(unsigned part, unsigned nparts, void (*fn)(struct fiber *f, void *arg), void *arg)
{
    uint32_t n = load_acq(&stacks.narenas); /* acq: sees arenas[i]; rel in arena_new */
    for (uint32_t i = 0; i < n; i++) {
        struct arena *a = stacks.arenas[i];
        uint32_t used = load_rlx(&a->used); /* rlx, and for the bits: a descriptor is published by its state, not by its slot */
        each_slot(a, (uint32_t)((uint64_t)used * part / nparts), (uint32_t)((uint64_t)used * (part + 1) / nparts), fn, arg);
    }
}

void stack_each_slot(uint32_t arena, uint32_t from, uint32_t to, void (*fn)(struct fiber *f, void *arg), void *arg)
{
    struct arena *a = stacks.arenas[arena];
    each_slot(a, from, w_min(to, load_rlx(&a->used)), fn, arg); /* rlx: as in stack_each */
}

uint32_t stack_arenas(void) { return load_acq(&stacks.narenas); } /* acq: as in stack_each */
struct stack_watch *stack_watch(uint32_t arena) { return &stacks.arenas[arena]->watch; }

bool stack_arena(uint32_t i, struct stack_arena *out)
{
    if (i >= load_acq(&stacks.narenas)) /* acq: as in stack_each */
        return false;
    const struct arena *a = stacks.arenas[i];
    uintptr_t lo = (uintptr_t)a->base;
    *out = (struct stack_arena){ lo, lo + ((uintptr_t)load_rlx(&a->used) << a->log2), a->log2 }; /* rlx: as in stack_each */
    return true;
}

uintptr_t stack_descriptor(const struct stack_arena *a, uintptr_t slot) { return (uintptr_t)fiber_at((const char *)slot, a->log2); }

bool stack_slot_free(const struct stack_arena *a, uintptr_t slot)
{
    uint32_t s = load_rlx(&fiber_at((const char *)slot, a->log2)->state); /* rlx: a hint */
    return s == FIBER_FREE || s == FIBER_DEAD;
}

struct fiber *stack_find(uintptr_t addr, bool *guard)
{
    uint32_t n = load_acq(&stacks.narenas); /* acq: as in stack_each */
    for (uint32_t i = 0; i < n; i++) {
        struct arena *a = stacks.arenas[i];
        uintptr_t base = (uintptr_t)a->base;
        if (addr < base || addr >= base + ((uintptr_t)a->nslots << a->log2))
            continue;
        uint32_t s = (uint32_t)((addr - base) >> a->log2);
        if (s >= load_rlx(&a->used)) /* rlx: as in stack_each */
            return NULL;
        struct fiber *f = slot_fiber(a, s);
        *guard = ((addr - base) & (((uintptr_t)1 << a->log2) - 1)) < guard_bytes(a->log2); /* the slot may not have been used yet */
        return f;
    }
    return NULL;
}

/* ---- back to the system ------------------------------------------------------------------------------------- */

#define RELEASE_BATCH 64u

static void release_stacks(struct fiber *const *f, uint32_t n)
{
    struct iovec at[RELEASE_BATCH];
    for (uint32_t i = 0; i < n; i++)
        at[i] = (struct iovec){ f[i]->stack_lo, ((size_t)1 << f[i]->stack_log2) - guard_bytes(f[i]->stack_log2) };
    int err = errno;
    if (!advise_all(at, n, MADV_DONTNEED))
        for (uint32_t i = 0; i < n; i++)
            madvise(at[i].iov_base, at[i].iov_len, MADV_DONTNEED); /* refused (locked memory): it is used as it is */
    errno = err;
}

/* Makes up to RELEASE_BATCH stacks of a size clean, not more than `most`. In between they are nobody's: no lock is held over the system calls. */
static size_t release_batch(unsigned l, uint64_t most)
{
    struct fiber *batch[RELEASE_BATCH];
    uint32_t slot_arena[RELEASE_BATCH];
    lock_take(&stacks.lock);
    uint32_t n = (uint32_t)w_min(w_min(most, stacks.nwarm[l]), (uint64_t)RELEASE_BATCH);
    for (uint32_t i = 0; i < n; i++) {
        struct fiber *f = stacks.free[l];
        stacks.free[l] = run_fiber(f->link.next);
        batch[i] = f;
        slot_arena[i] = f->arena;
    }
    stacks.nwarm[l] -= n;
    stacks.low[l] = w_min(stacks.low[l], stacks.nwarm[l]);
    lock_drop(&stacks.lock);
    if (n == 0)
        return 0;
    release_stacks(batch, n);
    lock_take(&stacks.lock);
    for (uint32_t i = 0; i < n; i++) {
        struct arena *a = stacks.arenas[slot_arena[i]];
        slot_cleaned(a, slot_index(a, batch[i]));
    }
    stacks.due[l] -= w_min(stacks.due[l], (uint64_t)n);
    lock_drop(&stacks.lock);
    return n * stacks.page;
}

/* Lists that left caches. Under the lock. */
static uint32_t old_to_free(void)
{
    uint32_t n = 0;
    for (struct fiber *first = stacks.old, *next_list; first != NULL; first = next_list) {
        next_list = first->wake;
        for (struct fiber *f = first, *next; f != NULL; f = next, n++) {
            next = run_fiber(f->link.next);
            list_add(f);
        }
    }
    stacks.old = NULL;
    return n;
}

static void old_put(struct fiber *first, uint32_t n)
{
    if (first == NULL)
        return;
    first->wake = stacks.old;
    stacks.old = first;
    count_free(n);
}

/* Stores to few lines per processor: nobody walks a list while the world stands still. */
void stack_caches_turn_stw(void)
{
    bool empty = xchg_acq_rel(&stacks.empty_caches, 0) != 0;
    lock_take(&stacks.lock);
    for (uint32_t i = 0, n = allp_used(); i < n; i++) {
        struct p *p = sched.allp[i];
        old_put(p->old_stacks, p->nold_stacks);
        if (empty)
            old_put(p->free_stacks, p->nfree_stacks);
        p->old_stacks = empty ? NULL : p->free_stacks;
        old_cached(p, empty ? 0 : p->nfree_stacks);
        p->free_stacks = NULL;
        cached(p, 0);
    }
    lock_drop(&stacks.lock);
}

void stack_caches_empty(void) { store_rlx(&stacks.empty_caches, 1); } /* rlx: a stop waits for the caller, who is inside */

bool stack_release_due(void)
{
    bool any = false;
    lock_take(&stacks.lock);
    uint64_t old = old_to_free();
    for (unsigned l = STACK_MIN_LOG2; l <= STACK_MAX_LOG2; l++) {
        stacks.due[l] = stacks.low[l] + (l == sched.stack_log2 ? old : 0);
        stacks.low[l] = stacks.nwarm[l];
        any = any || stacks.due[l] != 0;
    }
    lock_drop(&stacks.lock);
    return any;
}

size_t stack_release_some(void)
{
    size_t bytes = 0;
    for (unsigned l = STACK_MIN_LOG2; l <= STACK_MAX_LOG2 && bytes == 0; l++) {
        lock_take(&stacks.lock);
        uint64_t due = stacks.due[l];
        lock_drop(&stacks.lock);
        if (due != 0)
            bytes = release_batch(l, due);
    }
    return bytes;
}

void stack_release_free(void)
{
    lock_take(&stacks.lock);
    old_to_free();
    lock_drop(&stacks.lock);
    for (unsigned l = STACK_MIN_LOG2; l <= STACK_MAX_LOG2; l++)
        while (release_batch(l, UINT64_MAX) != 0)
            ;
}

/* rlx: figures. A slot on its way between two of them is counted twice, or not. But what is fresh is looked at before all that hold memory, lest it
 * be more. */
void stack_count(uint64_t *slots, uint64_t *unused)
{
    uint64_t fresh = 0;
    *unused = load_rlx(&stacks.nfree);
    uint32_t n = allp_used();
    for (uint32_t i = 0; i < n; i++) {
        struct p *p = sched.allp[i];
        fresh += __atomic_load_n(&p->nfresh_slots, __ATOMIC_ACQUIRE); /* acq: sees them in nslots; rel in shared_get */
        *unused += __atomic_load_n(&p->nfree_stacks, __ATOMIC_RELAXED) + __atomic_load_n(&p->nold_stacks, __ATOMIC_RELAXED);
    }
    uint64_t all = load_rlx(&stacks.nslots);
    *slots = all - w_min(fresh, all);
    *unused = w_min(*unused, *slots);
}

uint64_t stack_slots(void)
{
    uint64_t slots, unused;
    stack_count(&slots, &unused);
    return slots;
}
