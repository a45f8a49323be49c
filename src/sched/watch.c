/* Parked stacks that need not be scanned in a stop.
 *
 * [WATCHED] A program may have a million parked fibers, and it is their stacks, not the heap, that would make its stops long. Most of them stay as they are from
 * one collection to the next. But it is not enough to scan, in the second stop of a cycle, the stacks that ran since they were scanned: in C a fiber writes
 * into the stack of another one that is parked, to whose variable it was given the address (a child's result, in the frame of who waits for it). So
 * stacks are watched as the heap is, by their page tables (os/dirty.h):
 *
 *     scan_parked   arms a whole arena of stacks, then scans those of its fibers that are parked, and sets their bit in `seen`
 *     the stop      looks which pages of the arena are not armed any more. Of a fiber that was seen it scans what lies on these pages, of one that was
 *                   not, all of its stack
 *
 * What is written to a page after it was armed is found there. What was written before was read by the scan, if the fiber was parked then: its bit
 * is set, and the scan began after the arming. Was it not, it ran, and if it is parked now, it has written to its stack since: its
 * saved registers, at least. So its slot shows in the stop, without its bit, and all of it is scanned. A fiber that runs in the stop is scanned by its
 * machine. One that came later (to this slot or to one that was never used before) has written all that it has there.
 *
 * The bits lie apart from the descriptors: to write there would be noted, too. While it is scanned beside the program a stack may begin to run, or its fiber end and
 * its memory go back to the system, at any moment. It stays mapped, and its bounds are fixed, or read as zero; so what is read is right or
 * worthless, and in the latter case it is read again.
 *
 * Deferred calls lie outside the stack, in a list that its fiber changes; for those few fibers that have some, while parked, they are scanned with the fiber pinned.
 *
 * Few stacks are quicker scanned than armed: then all are scanned in both stops. The same where only write protection by mprotect is to be had, as a system call
 * that writes into an armed stack would fail there. */
#include "sched/watch.h"
#include "sched/leaked.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/world.h"
#include "os/dirty.h"

#define FEW_STACKS 256u /* 100 us */
#define RANGES 128u

static struct {
    uint32_t narenas;   /* that are watched in this cycle; 0: none. Written in stops */
    uint32_t life;      /* what arenas are watched for: a child of a fork begins anew */
    w_u32 refused;      /* by the system. rlx: a flag */
    w_u32 next;         /* arena, for the next worker of the stop; rlx: only a ticket */
} watch;

struct visit { gc_scan_range_fn *scan; void *marker; struct stack_watch *w; const struct stack_arena *arena; uintptr_t lo, hi; };

void watch_start(void)
{
    watch.narenas = 0;
    watch.life++;
    store_rlx(&watch.refused, 0); /* rlx: nobody runs */
}

void watch_after_fork(void)
{
    watch.narenas = 0;
    watch.life++;
}

static void forget_seen_stw(struct stack_watch *w)
{
    for (uint32_t k = 0; k < (w->nslots + 63) / 64; k++)
        store_rlx(&w->seen[k], 0); /* rlx: in a stop */
}

unsigned watch_scan_running_stw(gc_scan_range_fn *scan, void *marker)
{
    bool watches = dirty_backend() == DIRTY_UFFD && stack_slots() > FEW_STACKS && load_rlx(&watch.refused) == 0; /* rlx: in a stop */
    watch.narenas = watches ? stack_arenas() : 0;
    store_rlx(&watch.next, 0); /* rlx: in a stop */
    if (!watches) {
        world_scan_stacks(0, 1, scan, marker);
        return 0;
    }
    for (uint32_t i = 0; i < watch.narenas; i++)
        forget_seen_stw(stack_watch(i));
    world_scan_running(0, 1, scan, marker);
    return watch.narenas;
}

/* ---- beside the program ---------------------------------------------------------------------------------------- */

static bool arm(uint32_t i, const struct stack_arena *a)
{
    struct stack_watch *w = stack_watch(i);
    if (load_rlx(&w->watched) != watch.life) { /* rlx: one at a time has this part; a stop comes between two cycles */
        if (dirty_watch(a->lo, a->lo + ((uintptr_t)w->nslots << a->log2)) != 0)
            return false;
        store_rlx(&w->watched, watch.life);
    }
    return dirty_arm(a->lo, a->hi) == 0;
}

static uint32_t slot_of(const struct stack_arena *a, uintptr_t at) { return (uint32_t)((at - a->lo) >> a->log2); }

static bool scan_defers(struct fiber *f, const struct visit *v)
{
    bool held = fiber_pin(f);
    if (held) {
        for (struct deferred *d = f->defers; d != NULL; d = d->next)
            v->scan(v->marker, d, d + 1);
        fiber_unpin(f);
    }
    return held;
}

static w_no_sanitize void scan_parked(struct fiber *f, void *arg)
{
    const struct visit *v = arg;
    uint32_t state = load_acq(&f->state); /* acq: sees what it wrote before it parked; rel in switch_finish */
    if (state != FIBER_WAITING && state != FIBER_RUNNABLE)
        return;
    const char *sp = __atomic_load_n((char **)&f->sp, __ATOMIC_RELAXED); /* rlx: right, or read again in the stop; and below */
    const char *lo = __atomic_load_n(&f->stack_lo, __ATOMIC_RELAXED), *hi = __atomic_load_n(&f->stack_hi, __ATOMIC_RELAXED);
    if (lo == NULL || sp < lo || sp > hi)
        return; /* it begins to run, or is gone */
    if (__atomic_load_n(&f->defers, __ATOMIC_RELAXED) != NULL && !scan_defers(f, v))
        return;
    v->scan(v->marker, sp, hi);
    v->scan(v->marker, f, f + 1);
    uint32_t s = slot_of(v->arena, (uintptr_t)f);
    or_rlx(&v->w->seen[s / 64], UINT64_C(1) << s % 64); /* rlx: read in the stop */
}

bool watch_scan_parked(unsigned part, gc_scan_range_fn *scan, void *marker)
{
    struct stack_arena a;
    if (!stack_arena(part, &a) || a.lo == a.hi)
        return true;
    if (!arm(part, &a)) {
        store_rlx(&watch.refused, 1); /* rlx: a flag */
        return false;
    }
    struct visit v = { .scan = scan, .marker = marker, .w = stack_watch(part), .arena = &a };
    stack_each_slot(part, 0, slot_of(&a, a.hi), scan_parked, &v);
    return true;
}

/* ---- in the stop -------------------------------------------------------------------------------------------------- */

static void scan_part(const struct visit *v, const void *lo, const void *hi)
{
    uintptr_t a = w_max((uintptr_t)lo, v->lo), b = w_min((uintptr_t)hi, v->hi);
    if (a < b)
        v->scan(v->marker, (void *)a, (void *)b);
}

static void scan_written(struct fiber *f, void *arg)
{
    const struct visit *v = arg;
    uint32_t state = load_rlx(&f->state), s = slot_of(v->arena, (uintptr_t)f); /* rlx: the world stands still */
    if (state != FIBER_WAITING && state != FIBER_RUNNABLE)
        return;
    uint64_t bit = UINT64_C(1) << s % 64;
    if ((load_rlx(&v->w->seen[s / 64]) & bit) == 0) {
        world_scan_parked(f, v->scan, v->marker);
        or_rlx(&v->w->seen[s / 64], bit); /* once, on however many pages */
        return;
    }
    scan_part(v, f->sp, f->stack_hi);
    scan_part(v, f, f + 1);
    if ((uintptr_t)f < v->hi && (uintptr_t)(f + 1) > v->lo)
        for (struct deferred *d = f->defers; d != NULL; d = d->next)
            v->scan(v->marker, d, d + 1);
}

static bool scan_arena(uint32_t i, gc_scan_range_fn *scan, void *marker)
{
    struct dirty_range found[RANGES];
    struct stack_arena a;
    if (!stack_arena(i, &a) || a.lo == a.hi)
        return true;
    struct visit v = { .scan = scan, .marker = marker, .w = stack_watch(i), .arena = &a, .lo = a.lo, .hi = a.hi };
    if (i >= watch.narenas) { /* since then made */
        forget_seen_stw(v.w);
        stack_each_slot(i, 0, slot_of(&a, a.hi), scan_written, &v);
        return true;
    }
    for (uintptr_t at = a.lo; at < a.hi;) {
        ptrdiff_t n = dirty_take(at, a.hi, false, found, RANGES, &at);
        if (n < 0)
            return false;
        for (ptrdiff_t k = 0; k < n; k++) {
            v.lo = found[k].lo;
            v.hi = found[k].hi;
            stack_each_slot(i, slot_of(&a, v.lo), slot_of(&a, v.hi - 1) + 1, scan_written, &v);
        }
    }
    return true;
}

bool watch_scan_written_stw(unsigned worker, unsigned nworkers, gc_scan_range_fn *scan, void *marker)
{
    if (watch.narenas == 0) {
        world_scan_stacks(worker, nworkers, scan, marker);
        return true;
    }
    world_scan_running(worker, nworkers, scan, marker);
    for (uint32_t i, n = stack_arenas(); (i = add_rlx(&watch.next, 1)) < n;) /* rlx: see there */
        if (!scan_arena(i, scan, marker))
            return false;
    return true;
}
