/* From probe points to events.
 *
 * What the reader believes. Of each fiber and each processor there is a record of the state in which Go's reader has it ([RULES] in buffer.c), and
 * each emitter knows which processor and fiber the reader believes to be on its thread. Both change only between trace_enter and trace_leave, by
 * whoever holds the fiber or processor. A probe says what happens now; the listener writes the events that lead from what is believed to that. So
 * there is no sequence of probes that yields a trace which is refused: where one went unheard, because the trace has just begun or there was no
 * memory, the missing step is made up for (RUN of a fiber that is believed to wait: GO_UNBLOCK, GO_START), and what cannot be told is left out.
 *
 *      fiber     (none) --create--> runnable --run--> running --block--> waiting --ready--> runnable     yield: running --> runnable
 *                                                     running --proc_lost--> syscall --wait_proc--> runnable --run--> ...
 *                                                                            syscall --run--> running (GO_SYSCALL_END_BLOCKED, GO_START)
 *                unborn: made by a thread without a processor, which must not say so; whoever runs it first does
 *      processor idle <-> running
 *
 * A fiber that goes on without a processor, be it that the monitor took it, that it said so itself (weft_blocking_begin), or that a thread of the
 * host is outside, is in a syscall for the trace, and its processor, after a moment, idle: GO_SYSCALL_BEGIN and PROC_STOP, both in the name of the
 * machine that loses it, by whoever takes it and so keeps that machine out. That a machine has got a processor shows in its next event: PROC_START
 * comes first. So the giver, who cannot write in the name of a thread that sleeps or is only being made, need not.
 *
 * A stop of the world takes processors and gives them back: unless it is kept (proc_lost), nothing has happened for the trace. STW_BEGIN and _END,
 * and GC_BEGIN and _END between them, are told while the teller owns the world; and whoever ends a generation owns it, too: so none of these crosses
 * from one generation to the next.
 *
 * The beginning. With the processors stopped, and sched.lock held, all fibers, tasks and machines are gone through, and get their records. Threads
 * without a processor may be about to do something even then: what they have made ready is on its way to a queue whose lock we hold, or believed to
 * be waiting, which is made up for as above.
 *
 * The end of a generation. The switcher notes, before it switches, the states of all records that nobody has touched in the generation; those that
 * are still untouched afterwards were so throughout it, and it writes them down: [RULES].
 *
 * Records of fibers lie in one mapping, 64 bytes each, and are used again, by number. A fiber's word `told` has the number, and the run of the trace
 * that gave it. Those of fibers that have ended are in lists of emitters, and between these in chains. An emitter that is still in the last
 * generation leaves alone what somebody has already let go in the next one: told[] must not run backwards. */
#include "trace/hooks.h"
#include <errno.h>
#include <string.h>
#include "base/fmt.h"
#include "base/offheap.h"
#include "base/probe.h"
#include "base/syscall.h"
#include "gc/pacer.h"
#include "prof/walk.h"
#include "sched/labels.h"
#include "sched/machine.h"
#include "sched/maxprocs.h"
#include "sched/stack.h"
#include "sched/switch.h"
#include "sched/sysmon.h"
#include "sched/world.h"
#include "trace/samples.h"
#include <weft/mem.h>

#define always_inline inline __attribute__((always_inline))

#define FIBERS_MAX (4u << 20)  /* address space of 256 MiB; touched as they are made */
#define FIBERS_LEAST 4096u
#define FRESH 32u              /* records that an emitter takes at a time */
#define CHAIN 64u              /* records that emitters hand on, at most */
#define STACK_MAX 64u
#define STACK_SKIP 3u             /* listen, probe_emit, and where the probe is: of a walk from the listener */

enum { UNBORN = 5 };           /* behind enum trace_go_status */
enum { STATUS = 7, SWEEPS = 8 /* processors only */, THREAD_SHIFT = 8 };

struct trace_proc {
    struct trace_resource told;
    w_u64 state;               /* enum trace_proc_status, SWEEPS, thread << THREAD_SHIFT; 0: never seen */
    uint64_t seen;             /* the switcher's */
} w_aligned(W_CACHELINE);

struct trace_fiber {
    struct trace_resource told;
    w_u64 state;               /* enum trace_go_status or UNBORN, thread << THREAD_SHIFT; 0: none */
    w_u64 id;
    w_uptr fn;
    uint64_t seen, seen_id;    /* the switcher's */
    uint32_t next, chain;      /* of free ones: number + 1 of the next in the list, of the next chain */
};
_Static_assert(sizeof(struct trace_fiber) == 64, "");

static struct {
    uint32_t run;              /* of the trace, from 1: which record numbers hold. Published with the generation */
    uint32_t cap;
    struct trace_fiber *fiber;
    struct trace_proc *proc;   /* MAX_PROCS; in the same mapping */
    w_u32 fresh;               /* records never used begin there */
    w_u64 chains;              /* number + 1 of the first one, and a count above, as in the pool of buffers */
    w_u64 missed;
    struct trace_resource settings; /* told once in a generation */
    uint64_t gc_events;        /* under the world's ownership */
    w_u64 goal;                /* of the heap */
    w_u32 lone_busy;           /* somebody uses lone */
    struct trace_emitter *lone; /* of a thread without machine: the monitor */
} hooks;

/* ---- texts --------------------------------------------------------------------------------------------------- */

/* Go's tools go by words: network, chan, sync and select tell their profiles apart. */
#define WAIT_TEXT(id, text) [id] = (id) == WAIT_IO ? "network" : (id) == WAIT_SEMA ? "sync (semacquire)" : text,

enum { TEXT_YIELD = WAIT_REASON_COUNT, TEXT_PREEMPTED, TEXT_RUNTIME_ENDS, TEXT_STOP };

const char *const hooks_texts[] = {
    WAIT_REASONS(WAIT_TEXT)
    [TEXT_YIELD] = "weft_yield",
    [TEXT_PREEMPTED] = "preempted",
    [TEXT_RUNTIME_ENDS] = "the runtime ends",
    /* The kinds of stops by Go's names. Those with "GC" are its pauses. */
    [TEXT_STOP + WEFT_STOP_GC] = "GC mark termination",
    [TEXT_STOP + WEFT_STOP_MEM_STATS] = "read mem stats",
    [TEXT_STOP + WEFT_STOP_MAXPROCS] = "GOMAXPROCS",
    [TEXT_STOP + WEFT_STOP_DUMP] = "all goroutines stack trace",
    [TEXT_STOP + WEFT_STOP_FORK] = "fork",
    [TEXT_STOP + WEFT_STOP_END] = "end",
    [TEXT_STOP + WEFT_STOP_TRACE] = "start trace",
};
const unsigned hooks_ntexts = w_countof(hooks_texts);
_Static_assert(w_countof(hooks_texts) == TEXT_STOP + WEFT_STOP_REASONS, "");

static inline uint64_t text(unsigned index) { return index + 1; }

/* ---- stacks ---------------------------------------------------------------------------------------------------- */

/* Of what m, the calling machine, runs; 0: it runs nothing. From the listener only, whose caller is probe_emit, called where the probe is. Mostly it is
 * one of a few: so each emitter keeps what the generation's number of a stack was. */
static always_inline uint64_t stack(struct trace_emitter *e, struct m *m)
{
    if (m == NULL || m->cur == NULL)
        return 0;
    const uintptr_t *own = __builtin_frame_address(0), *emit = (const uintptr_t *)own[0], *site = (const uintptr_t *)emit[0];
    uintptr_t pcs[STACK_MAX + STACK_SKIP], *pc = pcs;
    void **kept = NULL;
    uint32_t n = e->walks != NULL ? walk_again(m, e->walks, site, pcs + 1, STACK_MAX, &kept) : 0;
    n += n != 0; /* else it runs on a stack that we do not know */
    pcs[0] = (uintptr_t)__builtin_return_address(0); /* see trace_from_probe */
    uintptr_t known = kept != NULL ? (uintptr_t)*kept : 0;
    if (likely(known >> 32 == e->gen))
        return (uint32_t)known;
    if (e->walks == NULL || known != 0) { /* it was not walked */
        n = walk_self(m, pcs, w_countof(pcs));
        pc += STACK_SKIP - 1;
        pc[0] = pcs[1];
        n = n > STACK_SKIP ? n - (STACK_SKIP - 1) : 0;
    }
    uint64_t id = trace_stack(e, pc, n);
    if (kept != NULL && id != 0)
        *kept = (void *)((uintptr_t)e->gen << 32 | id);
    return id;
}

/* The function that it begins with, as if that had called something: the reader shows a fiber under this name. */
static inline uint64_t start_stack(struct trace_emitter *e, uintptr_t fn)
{
    uintptr_t pc = fn + 1;
    return fn != 0 ? trace_stack(e, &pc, 1) : 0;
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

static inline uint64_t status_of(const w_u64 *state) { return load_rlx(state) & STATUS; } /* rlx: ours, or handed on with what it is of */
static inline void become(w_u64 *state, uint64_t status, const struct trace_emitter *on)
{
    store_rel(state, status | (on != NULL ? on->m << THREAD_SHIFT : 0)); /* rel: publishes id and fn; acq in note */
}

static inline struct trace_fiber *find(uint64_t told)
{
    return likely(told >> 32 == hooks.run) ? &hooks.fiber[(uint32_t)told] : NULL;
}
static inline uint64_t word_of(const struct trace_fiber *r) { return (uint64_t)hooks.run << 32 | (uint32_t)(r - hooks.fiber); }

static uint32_t chain_get(void)
{
    uint64_t head;
    while ((uint32_t)(head = load_acq(&hooks.chains)) != 0) { /* acq: sees the chain; rel in chain_put */
        uint32_t i = (uint32_t)head;
        /* the count makes sure that head is as it was, and so this too. Another may be writing there: so atomic */
        uint32_t after = __atomic_load_n(&hooks.fiber[i - 1].chain, __ATOMIC_RELAXED);
        if (cas_acq(&hooks.chains, head, ((head >> 32) + 1) << 32 | after))
            return i;
    }
    return 0;
}

static void chain_put(uint32_t first)
{
    uint64_t head;
    do {
        head = load_rlx(&hooks.chains); /* rlx: only put back */
        __atomic_store_n(&hooks.fiber[first - 1].chain, (uint32_t)head, __ATOMIC_RELAXED);
    } while (!cas_rel(&hooks.chains, head, (head >> 32) << 32 | first)); /* rel: publishes the chain; acq in chain_get */
}

/* Of those at hand, which are not none, the first CHAIN, or as many as there are. */
static void hand_on(struct trace_emitter *e)
{
    uint32_t first = e->free, last = first, n = 1;
    for (; n < CHAIN && hooks.fiber[last - 1].next != 0; n++)
        last = hooks.fiber[last - 1].next;
    e->free = hooks.fiber[last - 1].next;
    hooks.fiber[last - 1].next = 0;
    e->nfree -= n;
    chain_put(first);
}

/* Between enter and leave. */
static void record_put(struct trace_emitter *e, struct trace_fiber *r)
{
    store_rel(&r->state, 0); /* rel: as in become */
    r->next = e->free;
    e->free = (uint32_t)(r - hooks.fiber) + 1;
    if (++e->nfree >= 2 * CHAIN)
        hand_on(e);
}

static w_noinline bool fresh_get(struct trace_emitter *e)
{
    uint32_t at = load_rlx(&hooks.fresh); /* rlx, and below: numbers of our own */
    do
        if (at >= hooks.cap)
            return false;
    while (!cas_rlx(&hooks.fresh, at, at + FRESH) && (at = load_rlx(&hooks.fresh), true));
    e->fresh = at;
    e->fresh_end = w_min(at + FRESH, hooks.cap);
    return true;
}

/* NULL: there is no room. Between enter and leave. */
static struct trace_fiber *record_get(struct trace_emitter *e)
{
    if (e->free == 0 && (e->free = chain_get()) != 0)
        e->nfree = CHAIN; /* at most: that of a thread that ended may be shorter */
    struct trace_fiber *r = e->free != 0 ? &hooks.fiber[e->free - 1] : NULL;
    if (likely(r != NULL && load_rlx(&r->told.told[(e->gen + 1) % 2]) != e->gen + 1)) { /* rlx: came with the list */
        e->free = r->next;
        e->nfree--;
        return r;
    }
    if (e->fresh == e->fresh_end && !fresh_get(e)) {
        add_rlx(&hooks.missed, 1); /* rlx: counter */
        return NULL;
    }
    return &hooks.fiber[e->fresh++];
}

/* ---- emitters ---------------------------------------------------------------------------------------------------- */

/* f, which is about to do something on this thread, was found here in a syscall as the trace began. */
static inline void find_here(struct trace_emitter *e, struct fiber *f)
{
    struct trace_fiber *r = find(f->told);
    if (r != NULL && e->g == NULL && load_rlx(&r->state) == (TRACE_GO_SYSCALL | e->m << THREAD_SHIFT)) /* rlx: ours */
        e->g = r;
}

/* The first look of this thread in this run of the trace. What it has is told as it comes, but a fiber that is in a syscall here was known before. */
static w_noinline void adopt(struct trace_emitter *e, struct m *m)
{
    e->run = hooks.run;
    e->p = NULL;
    e->g = NULL;
    e->stopper = 0;
    e->collects = e->sweeps = false;
    e->fresh = e->fresh_end = e->free = e->nfree = 0;
    if (m != NULL && m->foreign)
        find_here(e, &m->self);
    else if (m != NULL && m->blocking)
        find_here(e, m->blocked);
    else if (m != NULL && m->cur != NULL)
        find_here(e, m->cur);
}

static w_noinline struct trace_emitter *emitter_new(struct m *m)
{
    struct trace_emitter *e = trace_emitter_get((uint64_t)m->tid, sched.fenced);
    if (e != NULL)
        e->run = 0;
    if (e != NULL && e->walks == NULL)
        e->walks = off_zalloc(OFF_TRACE, walk_memo_bytes()); /* NULL: walks one by one */
    return m->told = e;
}

/* Of the calling machine, or one that is kept out. NULL: nothing is to be told. at_once: at the time of the last event, if there is one. */
static always_inline struct trace_emitter *enter_when(struct m *m, bool at_once)
{
    struct trace_emitter *e = m->told;
    if (unlikely(e == NULL) && (e = emitter_new(m)) == NULL)
        return NULL;
    if (!trace_enter_at(e, 0))
        return NULL;
    if (!at_once || unlikely(e->out[e->gen % 2].pos == NULL))
        e->now = trace_now(&trace.clock[e->gen % 2]);
    if (unlikely(e->run != hooks.run))
        adopt(e, m);
    return e;
}

static always_inline struct trace_emitter *enter(struct m *m) { return enter_when(m, false); }

/* For the monitor, which is no machine. Nobody waits: who finds it taken is some thread that nobody has foreseen. */
static w_noinline struct trace_emitter *enter_lone(void)
{
    static int tid;
    if (!cas_acq(&hooks.lone_busy, 0, 1)) /* acq: rel in leave_lone */
        return NULL;
    int here = (int)sys_call0(SYS_gettid);
    if (hooks.lone != NULL && tid != here) {
        trace_emitter_put(hooks.lone);
        hooks.lone = NULL;
    }
    if (hooks.lone == NULL && (hooks.lone = trace_emitter_get((uint64_t)here, sched.fenced)) != NULL) {
        hooks.lone->run = 0;
        tid = here;
    }
    struct trace_emitter *e = hooks.lone;
    if (e == NULL || !trace_enter(e)) {
        store_rel(&hooks.lone_busy, 0);
        return NULL;
    }
    if (e->run != hooks.run)
        adopt(e, NULL);
    return e;
}

static void leave_lone(struct trace_emitter *e)
{
    trace_leave(e);
    store_rel(&hooks.lone_busy, 0); /* rel: acq in enter_lone */
}

/* ---- what the reader believes -------------------------------------------------------------------------------------- */

static w_noinline void tell_settings(struct trace_emitter *e)
{
    trace_event(e, PROCS_CHANGE, nprocs(), 0);
    trace_event(e, HEAP_GOAL, load_rlx(&hooks.goal)); /* rlx: a figure */
}

static w_noinline void tell_proc(struct trace_emitter *e, struct trace_proc *p)
{
    uint64_t s = load_rlx(&p->state); /* rlx: as in status_of */
    trace_event(e, PROC_STATUS, (uint64_t)(p - hooks.proc), (s & STATUS) != 0 ? s & STATUS : TRACE_PROC_IDLE);
    if (s & SWEEPS)
        trace_event(e, GC_SWEEP_ACTIVE, (uint64_t)(p - hooks.proc));
}

static w_noinline void tell_fiber(struct trace_emitter *e, struct trace_fiber *r)
{
    uint64_t s = load_rlx(&r->state), status = s & STATUS; /* rlx: as in status_of */
    bool there = status == TRACE_GO_RUNNING || status == TRACE_GO_SYSCALL;
    uint64_t stack = start_stack(e, load_rlx(&r->fn)); /* rlx: as the state */
    trace_event(e, GO_STATUS_STACK, load_rlx(&r->id), there ? s >> THREAD_SHIFT : TRACE_NONE, status, stack);
}

static always_inline void know_proc(struct trace_emitter *e, struct trace_proc *p)
{
    if (unlikely(trace_first(&p->told, e->gen)))
        tell_proc(e, p);
}

static always_inline void know_fiber(struct trace_emitter *e, struct trace_fiber *r)
{
    if (unlikely(trace_first(&r->told, e->gen)))
        tell_fiber(e, r);
}

/* What the thread has. */
static always_inline void know_own(struct trace_emitter *e)
{
    if (e->p != NULL)
        know_proc(e, e->p);
    if (e->g != NULL) {
        know_fiber(e, e->g);
        if (e->p != NULL && unlikely(trace_first(&hooks.settings, e->gen)))
            tell_settings(e);
    }
}

/* m has p, and the reader does not know. */
static w_noinline void proc_found(struct trace_emitter *e, struct p *sched_p)
{
    struct trace_proc *p = &hooks.proc[sched_p->id];
    uint64_t was = status_of(&p->state);
    if (was != 0 && was != TRACE_PROC_IDLE)
        return; /* whoever had it could not tell that he lost it */
    struct trace_fiber *g = e->g;
    if (g != NULL) {
        know_fiber(e, g);
        if (status_of(&g->state) == TRACE_GO_SYSCALL)
            trace_event(e, GO_SYSCALL_END_BLOCKED);
        else
            g = NULL; /* it runs, and loses nothing */
    }
    know_proc(e, p);
    trace_event(e, PROC_START, sched_p->id, trace_next(&p->told, e->gen));
    become(&p->state, TRACE_PROC_RUNNING, e);
    e->p = p;
    if (g != NULL) {
        trace_event(e, GO_START, load_rlx(&g->id), trace_next(&g->told, e->gen)); /* rlx: as the state */
        become(&g->state, TRACE_GO_RUNNING, e);
    }
}

/* By m itself, inside the runtime. It may have lost its processor to a stop, for a moment. */
static always_inline void know_proc_of(struct trace_emitter *e, struct m *m)
{
    struct p *p = m->p;
    if (p != NULL && unlikely(e->p == NULL))
        proc_found(e, p);
}

/* ---- fibers ------------------------------------------------------------------------------------------------------------ */

static w_noinline struct trace_fiber *fiber_made(struct trace_emitter *e, uint64_t *told, uint64_t id, weft_fn *fn)
{
    struct trace_fiber *r = record_get(e);
    if (r == NULL)
        return NULL;
    store_rlx(&r->id, id); /* rlx: published below */
    store_rel(&r->fn, (uintptr_t)fn); /* rel: whoever sees it sees the id; acq in write_untouched */
    store_rlx(&r->told.seq, (uint64_t)e->gen << 32); /* rlx: as in trace_next */
    become(&r->state, UNBORN, NULL);
    *told = word_of(r);
    return r;
}

static always_inline void tell_created(struct trace_emitter *e, struct trace_fiber *r, uint64_t at)
{
    store_rlx(&r->told.told[e->gen % 2], e->gen); /* rlx: as in trace_first */
    trace_event(e, GO_CREATE, load_rlx(&r->id), start_stack(e, load_rlx(&r->fn)), at); /* rlx: as the state */
    become(&r->state, TRACE_GO_RUNNABLE, NULL);
}

static always_inline void on_create(struct task *t)
{
    struct m *m = m_self();
    struct trace_emitter *e;
    if (m == NULL || (e = enter(m)) == NULL) /* the monitor: whoever runs it first tells of it */
        return;
    know_proc_of(e, m);
    know_own(e);
    struct trace_fiber *r = fiber_made(e, &t->told, t->id, t->fn);
    if (r != NULL && e->p != NULL)
        tell_created(e, r, stack(e, m));
    trace_leave(e);
}

/* The steps to a running fiber that are missing but for the last one. False: it cannot be told. */
static w_noinline bool make_runnable(struct trace_emitter *e, struct trace_fiber *r)
{
    switch (status_of(&r->state)) {
    case TRACE_GO_RUNNABLE:
        return true;
    case TRACE_GO_WAITING:
        know_fiber(e, r);
        trace_event(e, GO_UNBLOCK, load_rlx(&r->id), trace_next(&r->told, e->gen), 0); /* rlx: as the state */
        become(&r->state, TRACE_GO_RUNNABLE, NULL);
        return true;
    case UNBORN:
        tell_created(e, r, 0);
        return true;
    default:
        return false; /* on another thread, which could not tell that it was left */
    }
}

/* A thread of the host that is attached, but not known: outside the runtime, in a syscall. */
static w_noinline struct trace_fiber *host_found(struct trace_emitter *e, struct fiber *f)
{
    if (e->g != NULL || e->p != NULL) /* that: there was no room for a record as it came in */
        return NULL;
    uint64_t id = add_rlx(&sched.next_fiber_id, 1) + 1; /* rlx: only uniqueness matters */
    struct trace_fiber *r = fiber_made(e, &f->told, id, NULL);
    if (r == NULL)
        return NULL;
    store_rlx(&r->told.told[e->gen % 2], e->gen); /* rlx: as in trace_first */
    trace_event(e, GO_CREATE_SYSCALL, id);
    become(&r->state, TRACE_GO_SYSCALL, e);
    return e->g = r;
}

static w_noinline void tell_labels(struct trace_emitter *e, const struct labels *l)
{
    char text[256];
    size_t n = 0;
    for (uint32_t i = 0; l != NULL && i < l->n && n < sizeof text; i++)
        n += w_fmt(text + n, sizeof text - n, "%s%s=%s", i > 0 ? ", " : "", l->at[i].key, l->at[i].value);
    trace_event(e, GO_LABEL, trace_text(e, text, w_min(n, sizeof text - 1)));
}

/* f runs on m from here on: e->g is its record, or NULL if that cannot be told. */
static w_noinline void runs(struct trace_emitter *e, struct m *m, struct fiber *f)
{
    struct trace_fiber *r = find(f->told);
    if (unlikely(r == NULL))
        r = f->flags & FIBER_THREAD ? host_found(e, f) : fiber_made(e, &f->told, f->id, f->fn);
    if (unlikely(e->g == NULL && r != NULL && status_of(&r->state) == TRACE_GO_SYSCALL))
        find_here(e, f); /* when it fell asleep here to wait for a processor, the trace was just beginning */
    know_proc_of(e, m); /* if r was in a syscall here, it runs now */
    know_own(e);
    if (r == NULL || e->g == r)
        return;
    if (unlikely(e->g != NULL)) { /* it left without a word */
        if (status_of(&e->g->state) != TRACE_GO_RUNNING || e->p == NULL)
            return;
        trace_event(e, GO_STOP, text(TEXT_RUNTIME_ENDS), 0);
        become(&e->g->state, TRACE_GO_RUNNABLE, NULL);
        e->g = NULL;
    }
    if (e->p == NULL || (unlikely(status_of(&r->state) != TRACE_GO_RUNNABLE) && !make_runnable(e, r)))
        return;
    know_fiber(e, r);
    uint32_t number = trace_next(&r->told, e->gen);
    trace_event(e, GO_START, load_rlx(&r->id), number); /* rlx: as the state */
    become(&r->state, TRACE_GO_RUNNING, e);
    e->g = r;
    if (unlikely(f->labels != NULL) && number == 1) /* once in each generation */
        tell_labels(e, f->labels);
}

static always_inline void on_run(struct fiber *f, struct m *m, bool at_once)
{
    struct trace_emitter *e = enter_when(m, at_once);
    if (e == NULL)
        return;
    runs(e, m, f);
    trace_leave(e);
}

/* The record of f, which the reader believes to run here, with a processor; NULL: that cannot be told. */
static always_inline struct trace_fiber *running(struct trace_emitter *e, struct m *m, struct fiber *f)
{
    struct trace_fiber *r = find(f->told);
    if (unlikely(r == NULL || e->g != r || e->p == NULL)) {
        runs(e, m, f);
        if ((r = e->g) == NULL || r != find(f->told) || e->p == NULL)
            return NULL;
    }
    know_own(e);
    return status_of(&r->state) == TRACE_GO_RUNNING ? r : NULL;
}

static always_inline void on_block(struct fiber *f, unsigned why)
{
    struct m *m = m_self();
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    struct trace_fiber *r = running(e, m, f);
    if (r != NULL) {
        trace_event(e, GO_BLOCK, text(why), stack(e, m));
        become(&r->state, TRACE_GO_WAITING, NULL);
        e->g = NULL;
    }
    trace_leave(e);
}

static always_inline void on_yield(struct fiber *f)
{
    struct m *m = m_self();
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    struct trace_fiber *r = running(e, m, f);
    if (r != NULL) {
        trace_event(e, GO_STOP, text(TEXT_YIELD), stack(e, m));
        become(&r->state, TRACE_GO_RUNNABLE, NULL);
        e->g = NULL;
    }
    trace_leave(e);
}

static void on_labels(struct fiber *f, const struct labels *l)
{
    struct m *m = m_self();
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    if (running(e, m, f) != NULL)
        tell_labels(e, l);
    trace_leave(e);
}

/* It has no processor, or gives it up. */
static always_inline void on_wait_proc(struct fiber *f, struct m *m)
{
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    struct trace_fiber *r = find(f->told);
    if (r == NULL && (f->flags & FIBER_THREAD))
        r = host_found(e, f);
    know_proc_of(e, m);
    know_own(e);
    if (r != NULL && e->g == r) {
        if (status_of(&r->state) == TRACE_GO_SYSCALL)
            trace_event(e, GO_SYSCALL_END_BLOCKED);
        else
            trace_event(e, GO_STOP, text(TEXT_PREEMPTED), stack(e, m));
        become(&r->state, TRACE_GO_RUNNABLE, NULL);
        e->g = NULL;
    }
    trace_leave(e);
}

static always_inline void on_ready(struct fiber *f)
{
    struct m *m = m_self();
    struct trace_emitter *e = likely(m != NULL) ? enter(m) : enter_lone();
    if (e == NULL)
        return;
    struct trace_fiber *r = find(f->told);
    if (likely(r != NULL && status_of(&r->state) == TRACE_GO_WAITING)) {
        know_own(e);
        know_fiber(e, r);
        trace_event(e, GO_UNBLOCK, load_rlx(&r->id), trace_next(&r->told, e->gen), stack(e, m)); /* rlx: as the state */
        become(&r->state, TRACE_GO_RUNNABLE, NULL);
    }
    if (likely(m != NULL))
        trace_leave(e);
    else
        leave_lone(e);
}

static always_inline void on_end(struct fiber *f)
{
    struct m *m = m_self();
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    struct trace_fiber *r = running(e, m, f);
    if (r != NULL) {
        trace_event(e, GO_DESTROY);
        e->g = NULL;
        record_put(e, r);
        f->told = 0;
    }
    trace_leave(e);
}

/* ---- processors ----------------------------------------------------------------------------------------------------------- */

static w_noinline void tell_swept(struct trace_emitter *e)
{
    trace_event(e, GC_SWEEP_END, e->swept, e->freed);
    become(&e->p->state, TRACE_PROC_RUNNING, e);
    e->sweeps = false;
}

/* p is not m's any more. By m, or by one that keeps it out. */
static always_inline void on_proc_lost(struct p *sched_p, struct m *m)
{
    if (m->told == NULL) /* nothing of it was ever told */
        return;
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    struct trace_proc *p = &hooks.proc[sched_p->id];
    if (e->p == p) {
        know_own(e);
        if (e->sweeps)
            tell_swept(e);
        struct trace_fiber *g = e->stopper != 0 ? NULL : e->g; /* who stops the world gets another at once */
        if (g != NULL) {
            trace_event(e, GO_SYSCALL_BEGIN, trace_next(&p->told, e->gen), m == m_self() ? stack(e, m) : 0);
            become(&g->state, TRACE_GO_SYSCALL, e);
        }
        trace_event(e, PROC_STOP);
        become(&p->state, TRACE_PROC_IDLE, NULL);
        e->p = NULL;
    }
    trace_leave(e);
}

static always_inline void on_resize(void)
{
    struct m *m = m_self();
    struct trace_emitter *e = enter(m);
    if (e == NULL)
        return;
    know_proc_of(e, m);
    know_own(e);
    if (e->p != NULL && e->g != NULL && status_of(&e->g->state) == TRACE_GO_RUNNING)
        trace_event(e, PROCS_CHANGE, nprocs(), stack(e, m));
    trace_leave(e);
}

/* ---- stops and collections: whoever tells of them owns the world -------------------------------------------------------------- */

/* m runs a fiber, with a processor, and the reader knows. */
static bool tells_of_world(struct trace_emitter *e, struct m *m)
{
    know_proc_of(e, m);
    know_own(e);
    return e->p != NULL && e->g != NULL && status_of(&e->g->state) == TRACE_GO_RUNNING;
}

static void on_world_stop(unsigned reason)
{
    struct m *m = m_self();
    struct trace_emitter *e = m != NULL && m->cur != NULL ? enter(m) : NULL; /* else a thread that forks and is not attached */
    if (e == NULL)
        return;
    if (e->stopper == 0 && tells_of_world(e, m)) {
        trace_event(e, STW_BEGIN, text(TEXT_STOP + reason), 0);
        e->stopper = e->gen;
    }
    trace_leave(e);
}

static void on_world_start(void)
{
    struct m *m = m_self();
    struct trace_emitter *e = m != NULL && m->told != NULL ? enter(m) : NULL;
    if (e == NULL)
        return;
    if (e->stopper != 0 && tells_of_world(e, m)) {
        bool known = e->stopper == e->gen; /* else a handler has taken the generation, [TURN], and nobody knows of the beginning */
        if (e->collects && !known)
            trace_event(e, GC_ACTIVE, ++hooks.gc_events);
        if (e->collects)
            trace_event(e, GC_END, ++hooks.gc_events);
        if (known)
            trace_event(e, STW_END);
    }
    e->stopper = 0;
    e->collects = false;
    trace_leave(e);
}

static void on_gc_begin(void)
{
    struct m *m = m_self();
    struct trace_emitter *e = m != NULL && m->told != NULL ? enter(m) : NULL;
    if (e == NULL)
        return;
    if (e->stopper != 0 && tells_of_world(e, m)) {
        trace_event(e, GC_BEGIN, ++hooks.gc_events, 0);
        e->collects = true;
    }
    trace_leave(e);
}

static void tell_heap(uint64_t live_bytes, const uint64_t *goal_bytes)
{
    struct m *m = m_self();
    struct trace_emitter *e = m != NULL ? enter(m) : NULL;
    if (e == NULL)
        return;
    know_proc_of(e, m);
    know_own(e);
    if (e->p != NULL) {
        trace_event(e, HEAP_ALLOC, live_bytes);
        if (goal_bytes != NULL)
            trace_event(e, HEAP_GOAL, *goal_bytes);
    }
    trace_leave(e);
}

static uint64_t goal_shown(uint64_t goal) { return goal == UINT64_MAX ? 0 : goal; }

static void on_gc_end(uint64_t live_bytes, uint64_t goal_bytes)
{
    uint64_t goal = goal_shown(goal_bytes);
    store_rlx(&hooks.goal, goal); /* rlx: a figure */
    tell_heap(live_bytes, &goal);
}

/* A span has been swept; a range of them is told of as one. */
static void on_sweep(uint64_t pages, uint64_t freed_bytes)
{
    struct m *m = m_self();
    struct trace_emitter *e = m != NULL ? enter(m) : NULL;
    if (e == NULL)
        return;
    know_proc_of(e, m);
    know_own(e);
    if (!e->sweeps && e->p != NULL) {
        e->sweeps = true;
        e->swept = e->freed = 0;
        trace_event(e, GC_SWEEP_BEGIN, 0);
        store_rel(&e->p->state, load_rlx(&e->p->state) | SWEEPS); /* rel: as in become. rlx: ours */
    }
    e->swept += pages << 13;
    e->freed += freed_bytes;
    trace_leave(e);
}

static void on_swept(void)
{
    struct m *m = m_self();
    struct trace_emitter *e = m != NULL ? m->told : NULL;
    if (e == NULL || !e->sweeps || !trace_enter(e))
        return;
    if (e->run == hooks.run && e->p != NULL) {
        know_own(e);
        tell_swept(e);
    }
    e->sweeps = false;
    trace_leave(e);
}

struct trace_emitter *hooks_enter(struct m *m)
{
    struct trace_emitter *e = enter(m);
    if (e == NULL || running(e, m, m->cur) != NULL)
        return e;
    trace_leave(e);
    return NULL;
}

struct trace_emitter *hooks_enter_known(struct m *m)
{
    struct trace_emitter *e = enter(m);
    struct trace_fiber *r = e != NULL ? find(m->cur->told) : NULL;
    if (r != NULL && e->g == r && e->p != NULL && status_of(&r->state) == TRACE_GO_RUNNING) {
        know_own(e);
        return e;
    }
    if (e != NULL)
        trace_leave(e);
    return NULL;
}

/* ---- the listener ------------------------------------------------------------------------------------------------------------------ */

#define HEARD(X)                                                     \
    X(fiber_create, on_create((struct task *)a))                     \
    X(fiber_run, on_run((struct fiber *)a, (struct m *)b, c != 0)) \
    X(fiber_block, on_block((struct fiber *)a, (unsigned)b))         \
    X(fiber_yield, on_yield((struct fiber *)a))                      \
    X(fiber_wait_proc, on_wait_proc((struct fiber *)a, (struct m *)b)) \
    X(fiber_ready, on_ready((struct fiber *)a))                      \
    X(fiber_end, on_end((struct fiber *)a))                          \
    X(fiber_labels, on_labels((struct fiber *)a, (const struct labels *)b)) \
    X(proc_lost, on_proc_lost((struct p *)a, (struct m *)b))         \
    X(proc_resize, on_resize())                                      \
    X(world_stop, on_world_stop((unsigned)a))                        \
    X(world_start, on_world_start())                                 \
    X(gc_begin, on_gc_begin())                                       \
    X(gc_end, on_gc_end(b, c))                                       \
    X(gc_sweep, on_sweep(a, b))                                      \
    X(gc_swept, on_swept())                                          \
    X(heap_live, tell_heap(a, NULL))

#define X(name, call) | 1ull << PROBE_##name
static const uint64_t heard = 0 HEARD(X);
#undef X

static void listen(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    (void)arg;
    switch (id) {
#define X(name, call) case PROBE_##name: call; break;
    HEARD(X)
#undef X
    default: break;
    }
}

/* ---- the beginning -------------------------------------------------------------------------------------------------------------------- */

static struct trace_fiber *known_stw(uint64_t *told, uint64_t id, weft_fn *fn)
{
    uint32_t at = load_rlx(&hooks.fresh); /* rlx: nobody else yet */
    if (at >= hooks.cap) {
        add_rlx(&hooks.missed, 1); /* rlx: counter */
        return NULL;
    }
    store_rlx(&hooks.fresh, at + 1);
    struct trace_fiber *r = &hooks.fiber[at];
    store_rlx(&r->id, id);
    store_rlx(&r->fn, (uintptr_t)fn); /* rlx: published with the generation */
    *told = word_of(r);
    return r;
}

static void known_task(struct task *t, void *arg)
{
    (void)arg;
    struct trace_fiber *r = known_stw(&t->told, t->id, t->fn);
    if (r != NULL)
        become(&r->state, TRACE_GO_RUNNABLE, NULL);
}

static void known_fiber(struct fiber *f, void *arg)
{
    (void)arg;
    uint32_t s = load_rlx(&f->state); /* rlx: the processors stand still; who has none is made up for */
    if ((s != FIBER_WAITING && s != FIBER_RUNNABLE) || find(f->told) != NULL)
        return;
    uint64_t id = f->flags & FIBER_THREAD ? add_rlx(&sched.next_fiber_id, 1) + 1 : f->id; /* rlx: as in host_found */
    struct trace_fiber *r = known_stw(&f->told, id, f->fn);
    if (r != NULL)
        become(&r->state, s == FIBER_WAITING ? TRACE_GO_WAITING : TRACE_GO_RUNNABLE, NULL);
}

/* Fiber and processor of m. One without a processor may be on its way in, and no further. */
static void known_machine(struct m *m)
{
    struct p *p = m->taken != NULL ? m->taken : load_rlx(&m->pstate) != M_GONE ? m->p : NULL; /* rlx: it stands still */
    struct fiber *f = m->blocking ? m->blocked : __atomic_load_n(&m->cur, __ATOMIC_RELAXED); /* rlx: as above */
    struct trace_emitter *e = p == NULL ? NULL : m->told != NULL ? m->told : emitter_new(m);
    struct trace_emitter thread = { .m = (uint64_t)m->tid };
    if (e != NULL) {
        adopt(e, NULL);
        e->p = &hooks.proc[p->id];
        become(&e->p->state, TRACE_PROC_RUNNING, e);
    }
    /* Who comes back from blocking may wait for a processor, in a queue. rlx: as above */
    if (f == NULL || find(f->told) != NULL || (m->blocking && load_rlx(&f->state) == FIBER_RUNNABLE)) {
        if (m->foreign)
            known_fiber(&m->self, NULL);
        return;
    }
    uint64_t id = f->flags & FIBER_THREAD ? add_rlx(&sched.next_fiber_id, 1) + 1 : f->id; /* rlx: as in host_found */
    struct trace_fiber *r = known_stw(&f->told, id, f->fn);
    if (r == NULL)
        return;
    if (e == NULL && p != NULL) { /* no memory: runs untold */
        become(&r->state, TRACE_GO_RUNNABLE, NULL);
    } else {
        become(&r->state, e != NULL ? TRACE_GO_RUNNING : TRACE_GO_SYSCALL, e != NULL ? e : &thread);
        if (e != NULL)
            e->g = r;
    }
}

void hooks_begin(void)
{
    world_stop(WEFT_STOP_TRACE, false);
    hooks.run++;
    hooks.run += hooks.run == 0;
    store_rlx(&hooks.fresh, 0); /* rlx: published with the generation; and below */
    store_rlx(&hooks.chains, 0);
    store_rlx(&hooks.missed, 0);
    store_rlx(&hooks.goal, goal_shown(load_rlx(&pacer.goal)));
    hooks.settings = (struct trace_resource){ 0 };
    for (uint32_t i = 0; i < nprocs(); i++)
        become(&hooks.proc[i].state, TRACE_PROC_IDLE, NULL);
    tasks_each_stw(known_task, NULL);
    lock_take(&sched.lock);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees the machine; rel in m_publish_locked */
        if (load_acq(&m->dead) == M_ALIVE) /* acq: likewise */
            known_machine(m);
    stack_each(0, 1, known_fiber, NULL);
    probe_listen_steady(heard, listen, NULL); /* of four there is room for this one */
    trace_begin();
    lock_drop(&sched.lock);
    on_world_stop(WEFT_STOP_TRACE);
    world_start();
}

/* ---- the end of a generation ------------------------------------------------------------------------------------------------------------ */

/* States as of now, of what has not been told of in this generation. */
static uint32_t note(uint32_t gen)
{
    uint32_t n = w_min(load_rlx(&hooks.fresh), hooks.cap); /* rlx: later ones are told when they are made */
    for (uint32_t i = 0; i < n; i++) {
        struct trace_fiber *r = &hooks.fiber[i];
        r->seen = load_rlx(&r->told.told[gen % 2]) == gen ? 0 : load_acq(&r->state); /* rlx: looked at again; acq: sees id and fn; rel in become */
        r->seen_id = load_rlx(&r->id); /* rlx: if nobody touches it till the switch, they belong together */
    }
    for (uint32_t i = 0; i < MAX_PROCS; i++)
        hooks.proc[i].seen = load_acq(&hooks.proc[i].state); /* acq: as above */
    return n;
}

static struct trace_emitter *late(uint64_t state, bool there) { return trace_late(there ? state >> THREAD_SHIFT : TRACE_NONE); }

static void write_untouched(uint32_t gen, uint32_t n)
{
    for (uint32_t i = 0; i < MAX_PROCS; i++) {
        struct trace_proc *p = &hooks.proc[i];
        uint64_t status = p->seen & STATUS;
        if (status == 0 || !trace_first(&p->told, gen))
            continue;
        struct trace_emitter *e = late(p->seen, status == TRACE_PROC_RUNNING);
        trace_event(e, PROC_STATUS, i, status);
        if (p->seen & SWEEPS)
            trace_event(e, GC_SWEEP_ACTIVE, i);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct trace_fiber *r = &hooks.fiber[i];
        uint64_t status = r->seen & STATUS;
        if (status == 0 || status == UNBORN || !trace_first(&r->told, gen))
            continue;
        bool there = status == TRACE_GO_RUNNING || status == TRACE_GO_SYSCALL;
        struct trace_emitter *e = late(r->seen, there);
        uintptr_t fn = load_acq(&r->fn); /* acq: rel in fiber_made. It may be another's already: the fiber has ended since */
        if (load_rlx(&r->id) != r->seen_id)
            fn = 0;
        trace_event(e, GO_STATUS_STACK, r->seen_id, there ? r->seen >> THREAD_SHIFT : TRACE_NONE, status, start_stack(e, fn));
    }
}

void hooks_switch(bool stop, const struct trace_symbols *symbols)
{
    trace_turn_take();
    uint32_t n = note(load_rlx(&trace.gen)); /* rlx: by our turn */
    world_own(); /* no stop is under way */
    uint32_t gen = trace_switch(stop);
    world_disown();
    if (stop)
        probe_unlisten_steady(listen, NULL);
    write_untouched(gen, n);
    samples_write(trace.clock[gen % 2].units, stop ? UINT64_MAX : trace.clock[(gen + 1) % 2].units);
    trace_finish(symbols);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------------------- */

static size_t map_bytes(uint32_t cap) { return cap * sizeof(struct trace_fiber) + MAX_PROCS * sizeof(struct trace_proc); }

int hooks_open(void)
{
    uint32_t cap = FIBERS_MAX;
    char *p;
    while ((p = off_map(OFF_TRACE, map_bytes(cap), 4096)) == NULL)
        if ((cap /= 2) < FIBERS_LEAST)
            return -ENOMEM;
    hooks.fiber = (struct trace_fiber *)p;
    hooks.proc = (struct trace_proc *)(p + cap * sizeof(struct trace_fiber));
    hooks.cap = cap;
    return 0;
}

void hooks_close(void)
{
    if (hooks.fiber != NULL)
        off_unmap(OFF_TRACE, hooks.fiber, map_bytes(hooks.cap));
    hooks.fiber = NULL;
    hooks.proc = NULL;
}

uint64_t hooks_missed(void) { return load_rlx(&hooks.missed); } /* rlx: a figure */

void hooks_machine_gone(struct m *m)
{
    struct trace_emitter *e = enter(m);
    if (e != NULL) {
        struct trace_fiber *g = e->g;
        if (g != NULL && status_of(&g->state) == TRACE_GO_SYSCALL && m->foreign) {
            know_own(e);
            trace_event(e, GO_DESTROY_SYSCALL);
            e->g = NULL;
            record_put(e, g);
        }
        while (e->free != 0)
            hand_on(e);
        trace_leave(e);
    }
    if (m->told != NULL)
        trace_emitter_put(m->told);
    m->told = NULL;
}

void hooks_forget_machines(void)
{
    lock_take(&sched.lock);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) { /* acq: as in hooks_begin */
        if (m->told != NULL)
            trace_emitter_put(m->told);
        m->told = NULL;
    }
    lock_drop(&sched.lock);
}

void hooks_after_fork(void)
{
    probe_unlisten_steady(listen, NULL);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: as above */
        m->told = NULL;
    trace_after_fork();
    store_rlx(&hooks.lone_busy, 0); /* rlx: nobody else runs */
    hooks.lone = NULL;
    hooks_close();
}
