/* Sweeping when nobody does it in the background: who allocates has swept all when the next cycle is due, and on the way in proportion. */
#include "gc_host.h"
#include "base/probe.h"
#include "gc/pacer.h"
#include "gc/sweep.h"

enum { OBJECTS = 400000, BYTES = 48, NEAR = 400000 };
static void **kept;
static uint64_t swept; /* pages */

static void count(void *arg, enum probe_id id, uintptr_t pages, uintptr_t freed, uintptr_t none)
{
    (void)id, (void)freed, (void)none;
    *(uint64_t *)arg += pages;
}

/* Each third object stays, so that all spans do. */
static void build(void)
{
    kept = th_alloc(OBJECTS * sizeof *kept, SHAPE_CONS);
    for (int i = 0; i < OBJECTS; i++)
        kept[i] = th_alloc(BYTES, SHAPE_CONS);
    for (int i = 0; i < OBJECTS; i++)
        if (i % 3 != 0)
            kept[i] = NULL;
}

/* All of another size, so that none of it finds room in what has to be swept. */
static void allocate(size_t bytes, uint64_t until)
{
    while (load_rlx(&heap.live) < until)
        th_alloc(bytes, SHAPE_NOSCAN);
}

static void proportional(size_t bytes)
{
    th_begin(th_settings(), __builtin_frame_address(0));
    build();
    th_collect(GC_WHY_FORCED);
    cr_assert(!sweep_pending(), "who forces a cycle sweeps");
    uint64_t spans = OBJECTS / 3 * (uint64_t)BYTES / HEAP_PAGE;
    int stops = th.stops;
    while (th.stops == stops)
        th_alloc(BYTES, SHAPE_NOSCAN);
    cr_assert(sweep_pending(), "all is to be swept");
    uint64_t live = load_rlx(&heap.live), trigger = load_rlx(&pacer.trigger);
    swept = 0;
    cr_assert_eq(probe_listen(1ull << PROBE_gc_sweep, count, &swept), 0);
    allocate(bytes, live + (trigger - live) / 2);
    uint64_t half = swept;
    allocate(bytes, trigger - NEAR);
    cr_assert(!sweep_pending(), "%lu of %lu bytes", (unsigned long)load_rlx(&heap.live), (unsigned long)trigger);
    cr_assert_eq(th.stops, stops + 1);
    cr_assert_geq(swept, spans);
    cr_assert(half > swept / 3 && half < swept * 3 / 4, "%lu of %lu pages at half the way", (unsigned long)half, (unsigned long)swept);
    probe_unlisten(count, &swept);
    th_end();
}

Test(gc_sweep, by_small_objects) { proportional(1024); }
Test(gc_sweep, by_large_objects) { proportional(100000); }
