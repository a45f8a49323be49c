/* Probe points: emitting is low, reading is high.
 *
 * gc and sched say what happens through this one table; profilers, tracer and doctor subscribe. While nobody
 * listens a probe costs one predictable branch on one word. A probe point is a leaf: it takes no lock and
 * allocates nothing, and so must its listeners.
 *
 * To add a probe: one line in PROBES, and PROBE(name, a, b, c) where it happens. Arguments are three words whose meaning the table gives. */
#ifndef WEFT_BASE_PROBE_H
#define WEFT_BASE_PROBE_H

#include "base/atomic.h"
#include "base/base.h"

/*      name             a                 b                c */
#define PROBES(X)                                                                   \
    X(fiber_create)   /* id               parent id        creation pc   */         \
    X(fiber_start)    /* id               processor        -             */         \
    X(fiber_block)    /* id               wait reason      -             */         \
    X(fiber_ready)    /* id               by fiber id      -             */         \
    X(fiber_end)      /* id               -                -             */         \
    X(fiber_labels)   /* id               struct labels    -             */         \
    X(proc_handoff)   /* processor        machine lost     ran ns        */         \
    X(thread_start)   /* machine id       -                -             */         \
    X(thread_end)     /* machine id       -                -             */         \
    X(world_stop)     /* reason           -                -             */         \
    X(world_stopped)  /* reason           ns to stop       -             */         \
    X(world_start)    /* reason           ns stopped       -             */         \
    X(gc_begin)       /* cycle            trigger          heap bytes    */         \
    X(gc_phase)       /* cycle            phase            -             */         \
    X(gc_end)         /* cycle            live bytes       next goal     */         \
    X(gc_sweep)       /* span pages       freed objects    -             */         \
    X(alloc_sample)   /* object           bytes            -             */         \
    X(free_sample)    /* object           bytes            -             */         \
    X(finalizer_run)  /* object           -                -             */         \
    X(lock_contended) /* address          waited ns        kind          */         \
    X(proc_resize)    /* old              new              -             */         \
    X(seed_choice)    /* among so many    the number       fiber id; 0, 0, id: preempted */

enum probe_id {
#define X(name) PROBE_##name,
    PROBES(X)
#undef X
    PROBE_COUNT
};

typedef void probe_fn(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c);

/* One bit per probe; set while it has at least one listener. Read relaxed: a late look loses only the events around a subscription. */
extern w_u64 probe_mask;

#define PROBE(name, a, b, c)                                                                           \
    do {                                                                                               \
        if (unlikely(load_rlx(&probe_mask) & (1ull << PROBE_##name)))                                  \
            probe_emit(PROBE_##name, (uintptr_t)(a), (uintptr_t)(b), (uintptr_t)(c));                  \
    } while (0)

void probe_emit(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c);
/* At most 8 listeners. probe_listen: 0, or -ENOSPC. After probe_unlisten returns, fn is not entered again
 * (calls under way are waited for by spinning), so it must not be called from fn. Both may be called from any thread. */
int probe_listen(uint64_t mask, probe_fn *fn, void *arg);
void probe_unlisten(probe_fn *fn, void *arg);
/* In the child of a fork, while it has one thread, which is in no listener. */
void probe_after_fork(void);

#endif
