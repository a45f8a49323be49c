/* See mend.h.
 *
 * [MEND] Huge pages make marking faster, and the first write to an armed one makes 512 small pages of it, which stay small (os/dirty_uffd.c has figures).
 * To make all of them huge again after each cycle does not pay: what a program writes to in one cycle it writes to in the next. But memory that is filled
 * while a cycle goes on is written to then and perhaps never again, and programs move from one part of their data to another. So a unit of the size
 * of a huge page is mended when it has stayed cold for a whole cycle, once, and again only if it was written to in between and has become
 * cold anew: at most one mend (0.2 ms) for each unit in two cycles, and none for what is hot.
 *
 *     WARM    written to in this cycle, or new
 *     COOL    not in any cycle since the one that has ended; between cycles nothing is armed, and so nothing is told
 *     COLD    not in all of a cycle: wants mending
 *     DONE    it was asked for, whether or not the system could (it does not fill holes)
 *
 * A unit that holds memory without pointers only is never armed, so it comes to DONE soon and stays there. States are hints: two that change one at the same
 * time may lose a change, and a unit is mended late, or in vain. What is written down as written to is another matter, and the kernel's: dirty.h.
 *
 * The system copies 2 MiB for each and holds up page faults meanwhile, so it is done by one fiber, outside the runtime, one unit at a time, with pauses. */
#include "gc/mend.h"
#include "os/clock.h"
#include "os/dirty.h"
#include "os/loader.h"
#include "os/vm.h"

#define UNITS (HEAP_MAX_BYTES / OS_HUGE_PAGE)
#define PAUSE_TIMES 9 /* so it uses a tenth of a processor at the most */

enum { WARM, COOL, COLD, DONE };

static struct {
    w_u32 wanted;      /* some are COLD; rlx: a hint */
    w_u64 tried, done; /* rlx: figures */
    size_t cursor;     /* of who mends */
    w_u64 units;       /* so many have been looked at; rlx: only grows, by any start */
    w_u8 state[UNITS]; /* rlx: hints */
} mend;

static size_t unit_of(uintptr_t addr) { return (addr - (uintptr_t)heap.base) / OS_HUGE_PAGE; }

void mend_exclude(void) { loader_exclude(&mend, sizeof mend); }

void mend_start(void)
{
    for (size_t u = 0, n = load_rlx(&mend.units); u < n; u++) /* rlx: nobody else yet, and below */
        store_rlx(&mend.state[u], WARM);
    mend.cursor = 0;
    store_rlx(&mend.wanted, 0);
    store_rlx(&mend.tried, 0);
    store_rlx(&mend.done, 0);
}

void mend_written(uintptr_t lo, uintptr_t hi)
{
    for (size_t u = unit_of(lo); u <= unit_of(hi - 1); u++)
        if (load_rlx(&mend.state[u]) != WARM) /* rlx, here and below: a hint */
            store_rlx(&mend.state[u], WARM);
}

void mend_cycle(uintptr_t lo, uintptr_t hi)
{
    bool cold = false;
    if (dirty_backend() != DIRTY_UFFD)
        return;
    size_t last = unit_of(hi - 1);
    for (size_t u = unit_of(lo); u <= last; u++) {
        uint8_t s = load_rlx(&mend.state[u]); /* rlx, here and below: a hint */
        if (s < COLD)
            store_rlx(&mend.state[u], (uint8_t)(s + 1));
        cold |= s == COOL;
    }
    for (uint64_t n; (n = load_rlx(&mend.units)) <= last && !cas_rlx(&mend.units, n, last + 1);)
        ;
    if (cold)
        store_rlx(&mend.wanted, 1);
}

void mend_stats(uint64_t *tried, uint64_t *done)
{
    *tried = load_rlx(&mend.tried); /* rlx: figures */
    *done = load_rlx(&mend.done);
}

bool gc_mend_wanted(void) { return load_rlx(&mend.wanted) != 0; } /* rlx: a hint; who mends comes again after each cycle */

/* The next COLD one, once around from the cursor; UNITS: there is none. */
static size_t next_cold(void)
{
    size_t n = load_rlx(&heap.committed) / OS_HUGE_PAGE; /* rlx: only grows */
    for (size_t looked = 0; looked < n; looked++) {
        size_t u = mend.cursor < n ? mend.cursor : 0;
        mend.cursor = u + 1;
        if (load_rlx(&mend.state[u]) == COLD) /* rlx: a hint */
            return u;
    }
    return UNITS;
}

int64_t gc_mend_some(void)
{
    store_rlx(&mend.wanted, 0); /* rlx: a hint. Before the look: what becomes cold meanwhile is wanted, and found by the next call */
    size_t u = next_cold();
    if (u == UNITS)
        return -1;
    store_rlx(&mend.wanted, 1); /* rlx: hints */
    if (gc_mark_work())
        return -1;
    store_rlx(&mend.state[u], DONE);
    uintptr_t lo = (uintptr_t)heap.base + u * OS_HUGE_PAGE;
    int64_t began = os_self_cpu_ns(); /* not while others had the processor: on a busy machine it would rest for seconds */
    bool done = dirty_mend(lo, lo + OS_HUGE_PAGE) > 0;
    add_rlx(&mend.tried, 1); /* rlx: figures */
    add_rlx(&mend.done, done);
    return (os_self_cpu_ns() - began) * PAUSE_TIMES;
}
