/* See mend.h.
 *
 * [MEND] Huge pages make marking faster, and the first write to an armed one makes 512 small pages of it, which stay small (os/dirty_uffd.c has figures).
 * To make all of them huge again after each cycle does not pay: what a program writes to in one cycle it writes to in the next. But memory that is filled
 * while a cycle goes on is written to then and perhaps never again, and programs move from one part of their data to another. So a unit of the size
 * of a huge page is mended when it has stayed cold for a whole cycle, once, and again only if it was written to in between and has become
 * cold anew: at most one mend (0.2 ms) for each unit in three cycles, and none for what is hot.
 *
 *     WARM    written to in this cycle, or new
 *     COOL    not since the end of the last cycle
 *     COLD    not in all of a cycle: wants mending
 *     DONE    it was asked for, whether or not the system could (it does not fill holes)
 *
 * A unit that holds memory without pointers only is never armed, so it comes to DONE soon and stays there. States are hints: two that change one at the same
 * time may lose a change, and a unit is mended late, or in vain. What is written down as written to is another matter, and the kernel's: dirty.h.
 *
 * The system copies 2 MiB for each and holds up page faults meanwhile, so it is done by one fiber, outside the runtime, with pauses. */
#include "gc/mend.h"
#include "os/clock.h"
#include "os/dirty.h"
#include "os/vm.h"

#define UNITS (HEAP_MAX_BYTES / OS_HUGE_PAGE)
#define FIRST_UNIT (CHUNK_BYTES / OS_HUGE_PAGE) /* the first chunk stays in small pages: pages.c */
#define PAUSE_TIMES 9                           /* so it is at work for a tenth of the time */

enum { WARM, COOL, COLD, DONE };

static struct {
    w_u64 wanted;   /* COLD ones; rlx: a hint */
    w_u64 done;     /* rlx: a figure */
    size_t cursor;  /* of who mends */
    size_t units;   /* in use so far, of any start. His, too */
    w_u8 state[UNITS]; /* rlx: hints. Of no cost where the heap has never been */
} mend;

static size_t unit_of(uintptr_t addr) { return (addr - (uintptr_t)heap.base) / OS_HUGE_PAGE; }

void mend_start(void)
{
    mend.cursor = 0;
    store_rlx(&mend.wanted, 0); /* rlx: nobody else yet, and below */
    store_rlx(&mend.done, 0);
    for (size_t u = 0; u < mend.units; u++)
        store_rlx(&mend.state[u], WARM);
}

void mend_written(uintptr_t lo, uintptr_t hi)
{
    for (size_t u = unit_of(lo); u <= unit_of(hi - 1); u++)
        if (load_rlx(&mend.state[u]) != WARM) /* rlx, here and below: a hint */
            store_rlx(&mend.state[u], WARM);
}

void mend_cycle(uintptr_t lo, uintptr_t hi)
{
    uint64_t cold = 0;
    if (dirty_backend() != DIRTY_UFFD)
        return;
    for (size_t u = w_max(unit_of(lo), (size_t)FIRST_UNIT); u <= unit_of(hi - 1); u++) {
        uint8_t s = load_rlx(&mend.state[u]); /* rlx: a hint */
        if (s < COLD)
            store_rlx(&mend.state[u], (uint8_t)(s + 1));
        cold += s == COOL;
    }
    if (cold != 0)
        add_rlx(&mend.wanted, cold);
}

uint64_t mend_done(void) { return load_rlx(&mend.done); } /* rlx: a figure */

bool gc_mend_wanted(void) { return load_rlx(&mend.wanted) != 0; } /* rlx: a hint; who mends comes again after each cycle */

int64_t gc_mend_some(void)
{
    size_t n = load_rlx(&heap.committed) / OS_HUGE_PAGE; /* rlx: only grows */
    mend.units = w_max(mend.units, n);
    for (size_t looked = 0; looked < n && !gc_mark_work(); looked++) {
        size_t u = mend.cursor < n ? mend.cursor : 0;
        mend.cursor = u + 1;
        if (load_rlx(&mend.state[u]) != COLD) /* rlx: a hint, and below */
            continue;
        store_rlx(&mend.state[u], DONE);
        sub_rlx(&mend.wanted, 1);
        uintptr_t lo = (uintptr_t)heap.base + u * OS_HUGE_PAGE;
        int64_t began = os_now_ns();
        if (dirty_mend(lo, lo + OS_HUGE_PAGE) <= 0)
            continue;
        add_rlx(&mend.done, 1);
        return (os_now_ns() - began) * PAUSE_TIMES;
    }
    if (!gc_mark_work())
        store_rlx(&mend.wanted, 0); /* rlx: a hint. Who has become cold meanwhile waits for the next */
    return -1;
}
