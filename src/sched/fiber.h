/* Fibers: what runs, and what is queued.
 *
 * A fiber is first a task: a small record in a run queue (what to run, for whom, made where). When a processor takes it up it is bound to a
 * stack, and its descriptor, struct fiber, is written at the upper end of that stack, in the page of the first frame. So a
 * queued child holds no stack, and a parked fiber holds one page.
 *
 *      slot base                                                      slot end
 *      | guard | free ... | frames of the fiber (grow down) | struct fiber |
 *
 * A run queue therefore holds a `runnable`: a struct task or a struct fiber, told apart by the lowest bit.
 * A host thread that calls in is a fiber too (FIBER_THREAD): its descriptor is part of its machine, its stack is the thread's.
 *
 * State, [PIN]: state is written by the machine that runs the fiber, or under the lock of what it waits on. Whoever wants to look at a parked
 * fiber's stack without stopping the world pins it: pin = 1, membarrier, then state is read; parked means that the stack stays as it is until pin =
 * 0, since resuming writes state = RUNNING, a compiler barrier, and waits while pin is set. Of a fiber that has ended, the descriptor's page may go
 * back to the system at any moment, and a pin with it: so pin is read again after state. */
#ifndef WEFT_SCHED_FIBER_H
#define WEFT_SCHED_FIBER_H

#include "base/atomic.h"
#include "base/base.h"
#include <weft/sched.h>

struct m;
struct fiber;
struct labels;

/* To add a reason: a line here; the text is what dumps show in brackets (Go's words, where Go has the reason). */
#define WAIT_REASONS(X)                                  \
    X(WAIT_NONE, "waiting")                              \
    X(WAIT_CHAN_SEND, "chan send")                       \
    X(WAIT_CHAN_RECV, "chan receive")                    \
    X(WAIT_CHAN_SEND_NIL, "chan send (nil chan)")        \
    X(WAIT_CHAN_RECV_NIL, "chan receive (nil chan)")     \
    X(WAIT_SELECT, "select")                             \
    X(WAIT_SELECT_EMPTY, "select (no cases)")            \
    X(WAIT_MUTEX, "sync.Mutex.Lock")                     \
    X(WAIT_RW_RLOCK, "sync.RWMutex.RLock")               \
    X(WAIT_RW_LOCK, "sync.RWMutex.Lock")                 \
    X(WAIT_GROUP, "sync.WaitGroup.Wait")                 \
    X(WAIT_COND, "sync.Cond.Wait")                       \
    X(WAIT_SEMA, "semacquire")                           \
    X(WAIT_SLEEP, "sleep")                               \
    X(WAIT_IO, "IO wait")                                \
    X(WAIT_FINALIZER, "finalizer wait")                  \
    X(WAIT_CLEANUP, "cleanup wait")                      \
    X(WAIT_SWEEP, "GC sweep wait")                       \
    X(WAIT_SCAVENGE, "GC scavenge wait")                 \
    X(WAIT_MARK, "GC worker (idle)")                     \
    X(WAIT_PROC, "waiting for a processor")              \
    X(WAIT_BLOCKING, "syscall")                          \
    X(WAIT_END, "ended")

enum wait_reason {
#define X(id, text) id,
    WAIT_REASONS(X)
#undef X
    WAIT_REASON_COUNT
};
const char *wait_reason_text(enum wait_reason r);

enum fiber_state {
    FIBER_FREE = 0, /* its slot is unused, or its memory went back: a zero page reads as this */
    FIBER_RUNNABLE, /* in a run queue, or about to be */
    FIBER_RUNNING,  /* some machine's cur */
    FIBER_WAITING,  /* parked; why says on what */
    FIBER_DEAD,
};

enum {
    FIBER_THREAD = 1,  /* stands for a host thread; stack and descriptor are not ours */
    FIBER_SYSTEM = 2,  /* of the runtime itself: not counted, not in deadlocks */
    FIBER_MAIN = 4,
};

typedef uintptr_t runnable; /* 0: none */

/* Both kinds begin with this, for lists. */
struct run_link { runnable next; };

#define READY_STAMP_BITS 48
struct task {
    struct run_link link;
    weft_fn *fn;
    void *arg;          /* a root while queued */
    uint64_t id;
    uint64_t parent;
    const void *site;   /* return address of the call that made it */
    const char *name;
    struct labels *labels; /* a reference, inherited; labels.h */
    uint64_t stack_log2 : 8, flags : 8, ready_stamp : READY_STAMP_BITS; /* [LATENCY] */
    void *group;        /* wait group to tell at the end, or NULL; a root */
    uint64_t told;      /* for listeners of probe points */
};

/* What C++ keeps per thread of the exceptions that are being thrown and handled: __cxa_eh_globals of its ABI. */
struct exceptions { void *caught; unsigned uncaught; };

struct deferred { struct deferred *next; weft_fn *fn; void *arg; };

struct fiber {
    struct run_link link;
    void *sp;               /* saved context, valid unless running; after weft_blocking_begin where the scan begins: the context is m->block_frame */
    w_u32 state;            /* enum fiber_state */
    w_u32 pin;              /* [PIN] */
    struct m *bound;        /* runs only there: locked to its thread, a host thread, or waiting in place for a processor; NULL: any */
    int err;                /* errno, while not running */
    uint8_t why;            /* enum wait_reason, while waiting */
    uint8_t stack_log2;
    uint16_t flags;
    void *wake;             /* passed from waker to woken; meaning is that of the wait */
    uint64_t ready_stamp;   /* [LATENCY] who readies it, then who runs it */
    /* fixed while it lives */
    char *stack_lo, *stack_hi; /* usable: guard excluded, descriptor excluded */
    uint64_t id, parent;
    const void *site;
    weft_fn *fn;
    void *arg;
    /* owner only */
    const char *name;
    struct labels *labels;  /* a reference; a handler of a signal on its thread may read it */
    struct label_scope *label_scopes;
    struct weft_region *regions; /* of its user, for the trace: the last one begun here; and what it works for */
    uint64_t user_task;
    struct deferred *defers;
    void *group;            /* as in struct task; kept alive by the first frame */
    uint32_t lock_depth;    /* weft_lock_os_thread */
    uint32_t nwaits;        /* of waits */
    const void *lock_site;  /* return address of the call that locked it last, from 0 */
    w_uptr waits_on;        /* [LEAKED] what it waits for, before a park for which that is asked; three bits of it are written in stops */
    struct chan_waiter *waits; /* those of ours that are in queues of channels, while parked there: a fork takes them out (fork.c) */
    bool main_exits;        /* the main fiber called weft_exit: the others go on */
    uint32_t arena;         /* stack.c's: where its slot lies */
    int64_t since_ns;       /* parked, or in a call, since; by the coarse clock; 0: not known */
    struct exceptions exceptions; /* while it does not run: it may wait in a handler, and go on on another thread */
    void *asan_fake, *tsan_fiber;
    uint64_t told;          /* for listeners of probe points */
    struct m *ran_on;       /* with debug key migrate: where it was resumed last, to be compared only */
};

/* rlx: read in stops, and as a hint */
static inline void fiber_waits_on(struct fiber *f, const void *what) { store_rlx(&f->waits_on, (uintptr_t)what); }

#define RUNNABLE_TASK 1u
static inline bool run_is_task(runnable r) { return r & RUNNABLE_TASK; }
static inline struct task *run_task(runnable r) { return (struct task *)(r & ~(uintptr_t)RUNNABLE_TASK); }
static inline struct fiber *run_fiber(runnable r) { return (struct fiber *)r; }
static inline struct run_link *run_link(runnable r) { return (struct run_link *)(r & ~(uintptr_t)RUNNABLE_TASK); }

#endif
