/* Probe points: emitting is low, reading is high.
 *
 * gc and sched say what happens through this one table; profilers, tracer and doctor subscribe. While nobody
 * listens a probe costs one predictable branch on one word. A probe point is a leaf: it takes no lock and
 * allocates nothing, and so must its listeners.
 *
 * To add a probe: one line in PROBES, and PROBE(name, a, b, c) where it happens. Arguments are three words whose meaning the table gives. What
 * happens to a fiber or processor is told while nobody else can get hold of it, so listeners hear it in its order: that a fiber blocks before
 * anybody can make it ready, that a processor is lost before another machine can have it.
 *
 * struct task, fiber and m have a word for listeners, `told`: 0 in what is new, and a fiber takes that of its task. It is the trace's. */
#ifndef WEFT_BASE_PROBE_H
#define WEFT_BASE_PROBE_H

#include "base/atomic.h"
#include "base/base.h"

/*      name             a                 b                c */
#define PROBES(X)                                                                   \
    X(fiber_create)   /* struct task      parent id        creation pc: in no queue yet */ \
    X(fiber_start)    /* id               processor        -: a task has got a stack */ \
    X(fiber_run)      /* struct fiber     its machine      1: at once when the one before blocked, yielded or ended */ \
    X(fiber_block)    /* struct fiber     wait reason      -             */         \
    X(fiber_yield)    /* struct fiber     -                -: goes to a queue */    \
    X(fiber_wait_proc) /* struct fiber    its machine      -: waits in place for a processor */ \
    X(fiber_ready)    /* struct fiber     by fiber id      -: in no queue yet */    \
    X(fiber_waited)   /* struct fiber     reason, weight   waited ns     */         \
    X(fiber_end)      /* struct fiber     -                -             */         \
    X(proc_lost)      /* struct p         struct m         -: by m, or by one that keeps it out */ \
    X(fiber_labels)   /* struct fiber     struct labels    -             */         \
    X(proc_handoff)   /* processor        machine lost     ran ns        */         \
    X(thread_start)   /* machine id       -                -             */         \
    X(thread_end)     /* machine id       -                -             */         \
    X(thread_here)    /* struct m or 0    struct service   1: from now on; 0: no more. On the thread, which holds no lock */ \
    X(world_stop)     /* reason           -                -: others cannot stop it any more */ \
    X(world_stopped)  /* reason           ns to stop       -: all stand still */      \
    X(world_start)    /* reason           ns stopped       -: others cannot stop it yet */ \
    X(gc_begin)       /* cycle            trigger          heap bytes    */         \
    X(gc_phase)       /* cycle            phase            -             */         \
    X(gc_end)         /* cycle            live bytes       next goal     */         \
    X(gc_sweep)       /* span pages       freed bytes      -             */         \
    X(gc_swept)       /* -                -                -: the calling machine sweeps no more for now */ \
    X(heap_live)      /* bytes            -                -: a cache was filled, a large object made */ \
    X(alloc_sample)   /* object           bytes            -             */         \
    X(free_sample)    /* object           bytes            -             */         \
    X(finalizer_run)  /* object           struct gc_call   enum gc_call_kind */     \
    X(finalizer_held) /* struct gc_held   -                -: by itself; nobody will ever run it */ \
    X(gc_asked)       /* why              -                -: a collection is about to run; on its caller's stack. With gcpoison, as the next */ \
    X(alloc_checked)  /* object           bytes            -: with gcstress, each */ \
    X(free_checked)   /* object           cycle            -: each that was freed */ \
    X(buffer_used)    /* address          bytes            1: a call that waits uses it; 0: no more */ \
    X(poison_broken)  /* freed object     bytes            offset of a word that was written to: the program ends next */ \
    X(resource_late)  /* weft_resource    held before      of these, given back by finalizers after a collection that was made for it */ \
    X(lock_contended) /* address          reason, weight   waited ns     */         \
    X(proc_resize)    /* old              new              -: in its stop */        \
    X(gc_forced)      /* 1: kept from it  took ns          1: weft_free_os_memory, else weft_gc. On the caller's stack */ \
    X(mem_stats_read) /* 1: guarded       -                -: weft_read_mem_stats is about to stop the world. On the caller's stack */ \
    X(fiber_end_locked) /* struct fiber   pc of the lock   -: its thread ends with it */ \
    X(procs_asked)    /* how many         -                -: weft_maxprocs, on the caller's stack */ \
    X(procs_above)    /* processors       the default      -: each second that the host's own number is above what the quota and the CPUs give */ \
    X(fibers_counted) /* how many         made so far      return address: weft_num_fibers */ \
    X(stack_dumped)   /* bytes of text    of the buffer    all: weft_stack into a buffer. On the caller's stack, and the next three */ \
    X(trace_started)  /* writer           its ctx          error: weft_trace_start */ \
    X(trace_stopped)  /* writer           its ctx          error: weft_trace_stop */ \
    X(profile_begun)  /* what, a text     -                -: one without limits */  \
    X(profile_over)   /* what             bytes            ns: that one is beyond the limits that others have. On its helper */ \
    X(profile_ended)  /* what             enum profile_end bytes: that one */       \
    X(waits_rate)     /* 0 block, 1 mutex rate             -: set by the host, without a budget; 0: off */ \
    X(waits_cost)     /* 0 block, 1 mutex ns of recording  ns of processor time: every now and then, at such a rate. Whoever records */ \
    X(world_late)     /* struct m         ns waited for it 1: inside the runtime. By the stopper, every 10 ms, in the stop */ \
    X(monitor_look)   /* now ns           -                -: the monitor has looked at the processors. On its thread, which holds its lock */ \
    X(seed_choice)    /* among so many    the number       fiber id; 0, 0, id: preempted */

/* fiber_waited is told by the fiber itself when it runs again, in the call that waited; lock_contended by who passes the lock on. Looking at the
 * clock for it costs as much as the wait may, so listeners can have one in so many told, drawn at random (sched_waits_one_in, sched_unlocks_one_in):
 * the weight of one is how many it stands for. */
#define PROBE_WAITED(reason, weight) ((uintptr_t)(reason) | (uintptr_t)(weight) << 8)
#define PROBE_WAITED_REASON(b) ((b) & 0xff)
#define PROBE_WAITED_WEIGHT(b) ((uint32_t)((b) >> 8))

enum probe_id {
#define X(name) PROBE_##name,
    PROBES(X)
#undef X
    PROBE_COUNT
};

typedef void probe_fn(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c);

/* One bit per probe; set while it has at least one listener. Read relaxed: a late look loses only the events around a subscription. */
extern w_u64 probe_mask;

#ifdef WEFT_NO_PROBES /* to measure what probes cost that nobody listens to */
#define PROBE_WANTED(name) false
#define PROBE(name, a, b, c) ((void)(0 ? ((void)(a), (void)(b), (void)(c), PROBE_##name) : 0))
#else
#define PROBE_WANTED(name) unlikely(load_rlx(&probe_mask) & (1ull << PROBE_##name))
#define PROBE(name, a, b, c)                                                                           \
    do {                                                                                               \
        if (PROBE_WANTED(name))                                                                        \
            probe_emit(PROBE_##name, (uintptr_t)(a), (uintptr_t)(b), (uintptr_t)(c));                  \
    } while (0)
#endif

void probe_emit(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c);
/* At most 8 listeners. probe_listen: 0, or -ENOSPC. After probe_unlisten returns, fn is not entered again
 * (calls under way are waited for by spinning), so it must not be called from fn. Both may be called from any thread. */
int probe_listen(uint64_t mask, probe_fn *fn, void *arg);
void probe_unlisten(probe_fn *fn, void *arg);
/* A listener that is quicker to call, for frequent events: nobody counts who is in it. So fn and arg are there for good, and after
 * probe_unlisten_steady, which waits for nobody, those may still come who looked before: fn has a way of its own to turn them away. At most 4 are
 * known, each of which can listen again (a mask takes the place of the one before). 0, or -ENOSPC. */
int probe_listen_steady(uint64_t mask, probe_fn *fn, void *arg);
void probe_unlisten_steady(probe_fn *fn, void *arg);
/* In the child of a fork, while it has one thread, which is in no listener. */
void probe_after_fork(void);

#endif
