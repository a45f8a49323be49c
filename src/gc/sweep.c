/* See sweep.h. [SWEPT] is in heap.h. */
#include "gc/sweep.h"
#include <string.h>
#include "base/backoff.h"
#include "base/probe.h"
#include "gc/central.h"
#include "gc/pacer.h"
#include "gc/poison.h"
#include "gc/scavenge.h"
#include "gc/type.h"

static struct {
    w_u32 in_hand; /* spans being swept: acq_rel around, acq in sweep_finish */
    w_u64 cursor;  /* shape * GC_CLASSES + class that gc_sweep_some goes on with; rlx: a hint, lists are looked at under their locks */
    w_u32 pending; /* 0: nothing is left to take. rlx, but for who clears it: a hint */
    /* [SHARE] bytes of spans; rlx: figures */
    w_u64 all, swept; /* at the mark; of these, since then */
    w_i64 owed;       /* by those who have taken memory; two who pay at the same time may pay in advance */
} sweep;

/* [SHARE] What is left to sweep when the next cycle is due holds up whoever begins it, and the fiber in the background may have found no processor. So who
 * takes memory sweeps a share: as large a part of what is left as the memory is of what may still be taken till the heap is SHARE_SPARE before the
 * trigger. Reckoned anew each time, as the trigger moves with the settings. A call pays PAY_ROUNDS times PAY_BYTES at most, and leaves the rest to
 * those after it; it leaves off for a stop, too. */
#define SHARE_SPARE ((uint64_t)1 << 20)
#define RUNWAY_MIN ((uint64_t)64 << 10)
#define SOME_SPANS 32u
#define PAY_BYTES ((int64_t)(SOME_SPANS * HEAP_PAGE)) /* gc_sweep_some sweeps as much or more */
#define PAY_ROUNDS 16u

void sweep_enter(void) { add_acq_rel(&sweep.in_hand, 1); }
void sweep_leave(void) { sub_acq_rel(&sweep.in_hand, 1); } /* rel: the span is swept; acq in sweep_finish */

static void poison_freed(struct span *s)
{
    uint64_t *marks = span_marks(s), *allocs = span_allocs(s);
    size_t elem = span_elem(s);
    for (size_t i = 0; i < s->nobj; i++)
        if (bits_get(allocs, i) && !bits_get(marks, i)) {
            poison_fill(span_object(s, i), elem);
            PROBE(free_checked, span_object(s, i), gc_cycles_begun(), 0);
        }
}

static void count_freed(struct span *s, unsigned freed)
{
    if (s->cls == CLASS_LARGE) {
        add_rlx(&heap.large_frees, 1); /* rlx: counters */
        add_rlx(&heap.large_free_bytes, span_bytes(s));
    } else {
        add_rlx(&heap.frees[s->cls], freed);
        add_rlx(&heap.small_free_bytes, (uint64_t)freed * span_elem(s));
    }
}

unsigned span_sweep(struct span *s)
{
    unsigned n = span_words(s), live = 0, was = 0;
    uint64_t *marks = span_marks(s), *allocs = span_allocs(s);
    for (unsigned i = 0; i < n; i++) {
        live += bits_count(marks[i]);
        was += bits_count(allocs[i]);
    }
    w_debug_assert(live <= was);
    add_rlx(&sweep.swept, span_bytes(s)); /* rlx: a figure */
    if (was != live) {
        if (unlikely(heap.poison))
            poison_freed(s);
        count_freed(s, was - live);
    }
    PROBE(gc_sweep, s->npages, (size_t)(was - live) * span_elem(s), 0);
    store_rlx(&s->sweepgen, load_rlx(&heap.sweepgen) - 1); /* rlx: before the first mark goes, which is rel; see span_object_live */
    for (unsigned i = 0; i < n; i++) {
        __atomic_store_n(&allocs[i], marks[i], __ATOMIC_RELAXED);
        __atomic_store_n(&marks[i], 0, __ATOMIC_RELEASE); /* rel: after the allocation bits */
    }
    s->scan = 0;
    s->nfree = (uint16_t)(s->nobj - live);
    s->needzero = true;
    store_rel(&s->sweepgen, load_rlx(&heap.sweepgen)); /* rel: the bits are final; acq in span_object_live. rlx: moves in stops */
    return s->nfree;
}

/* Nothing is left to take: said once after each mark. */
static void ended(void)
{
    if (xchg_acq_rel(&sweep.pending, 0) != 0)
        scavenge_swept();
}

bool sweep_pending(void) { return load_rlx(&sweep.pending) != 0; } /* rlx: a hint */

/* Dead large objects give their pages back before new ones take fresh pages. Each is looked at once in a cycle, so a long search comes once in a
 * cycle. */
void sweep_large(size_t npages)
{
    if (!sweep_pending())
        return;
    uint32_t n = load_acq(&shapes.count); /* acq: rel in shape_add */
    for (uint32_t sh = 0; sh < n; sh++)
        for (size_t freed = 0; central_sweep_one(&shape_get(sh)->central[0], &freed); freed = 0) {
            if (freed >= npages) {
                PROBE(gc_swept, 0, 0, 0);
                return;
            }
            npages -= freed;
        }
    PROBE(gc_swept, 0, 0, 0);
}

bool gc_sweep_some(void)
{
    if (!sweep_pending())
        return false;
    uint64_t end = (uint64_t)load_acq(&shapes.count) * GC_CLASSES; /* acq: rel in shape_add */
    uint64_t at = load_rlx(&sweep.cursor);                         /* rlx: a hint */
    for (unsigned done = 0; at < end; at++) {
        struct central *ce = &shape_get((uint32_t)(at / GC_CLASSES))->central[at % GC_CLASSES];
        while (central_sweep_one(ce, NULL))
            if (++done == SOME_SPANS) {
                store_rlx(&sweep.cursor, at); /* rlx: a hint. It may go back when two race: no harm */
                PROBE(gc_swept, 0, 0, 0);
                return true;
            }
    }
    store_rlx(&sweep.cursor, at);
    PROBE(gc_swept, 0, 0, 0);
    ended();
    return false;
}

void sweep_share(uint64_t bytes)
{
    if (!sweep_pending())
        return;
    uint64_t all = load_rlx(&sweep.all), swept = load_rlx(&sweep.swept); /* rlx: figures, and below */
    uint64_t trigger = load_rlx(&pacer.trigger), from = load_rlx(&heap.live) + SHARE_SPARE;
    double runway = (double)w_max(trigger - w_min(trigger, from), RUNWAY_MIN), left = (double)(all - w_min(all, swept));
    add_rlx(&sweep.owed, (int64_t)w_min((double)bytes / runway * left, left));
    for (unsigned i = 0; i < PAY_ROUNDS && load_rlx(&sweep.owed) >= w_min(PAY_BYTES, (int64_t)left); i++) { /* the last ones at once */
        bool more = gc_sweep_some();
        uint64_t now = load_rlx(&sweep.swept); /* by others, too: that is paid as well */
        sub_rlx(&sweep.owed, (int64_t)(now - w_min(now, swept)));
        swept = now;
        if (!more || heap_stop_wanted())
            break;
    }
}

void sweep_finish(void)
{
    /* Not by the cursor: it is a hint. */
    uint32_t n = load_acq(&shapes.count); /* acq: rel in shape_add */
    for (uint32_t sh = 0; sh < n; sh++)
        for (unsigned c = 0; c < GC_CLASSES; c++)
            while (central_sweep_one(&shape_get(sh)->central[c], NULL))
                ;
    for (unsigned looks = 0; load_acq(&sweep.in_hand) != 0; looks++) /* acq: rel in sweep_leave */
        backoff(looks);
    PROBE(gc_swept, 0, 0, 0);
    ended();
}

void sweep_begin_stw(uint64_t in_use_bytes)
{
    w_assert(load_rlx(&sweep.in_hand) == 0); /* rlx: in a stop */
    store_rlx(&heap.sweepgen, load_rlx(&heap.sweepgen) + SWEEPGEN_STEP);
    uint32_t n = load_rlx(&shapes.count);
    for (uint32_t sh = 0; sh < n; sh++)
        for (unsigned c = 0; c < GC_CLASSES; c++)
            central_unsweep_stw(&shape_get(sh)->central[c]);
    store_rlx(&sweep.cursor, 0);
    store_rlx(&sweep.pending, 1);
    store_rlx(&sweep.all, in_use_bytes);
    store_rlx(&sweep.swept, 0);
    store_rlx(&sweep.owed, 0);
}

void sweep_reset(void)
{
    store_rlx(&sweep.in_hand, 0); /* rlx: alone */
    store_rlx(&sweep.pending, 0);
}
