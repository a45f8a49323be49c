/* Where events go: emitters, their buffers, and the change from one generation to the next. The protocol, [GEN], and what a valid sequence is,
 * [RULES], are in buffer.c.
 *
 *     if (trace_enter(e)) {                          // before what is told of is done
 *         trace_event(e, GO_BLOCK, why, trace_stack(e, pcs, n));
 *         trace_event(e, GO_START, id, trace_next(&next->trace, e->gen));  // the same time
 *         trace_leave(e);
 *     }
 *
 * An emitter stands for a thread and is used by one thread at a time: its own, or one that keeps that out (a P is taken from a machine in user code,
 * [ENTRY]). Between enter and leave: no park, no wait, no second enter. It may be inside the runtime or not, on any stack, in a stop, with or
 * without a P, and may hold any lock, for nothing here takes one, allocates, or sleeps; not in a signal handler, which may have interrupted the same
 * emitter. */
#ifndef WEFT_TRACE_BUFFER_H
#define WEFT_TRACE_BUFFER_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "trace/clock.h"
#include "trace/format.h"
#include "trace/tables.h"

/* ---- buffers ------------------------------------------------------------------------------------------ */

#define TRACE_BUF_BYTES 16384

/* One batch, of the pool. */
struct trace_buf {
    struct trace_buf *next;
    uint32_t len;      /* of data; set when it is closed */
    uint32_t contents; /* offset in data of what is behind the batch's length */
    uint32_t number;   /* in its generation, by when it was opened */
    uint8_t data[TRACE_BUF_BYTES - sizeof(void *) - 12];
};
_Static_assert(sizeof(struct trace_buf) == TRACE_BUF_BYTES, "");

/* A sequence of batches that is being written: those of one thread, or a table. */
struct trace_out {
    uint8_t *pos, *end;  /* pos >= end: no event has room. Else cur lies open from pos on */
    uint64_t last;       /* time of the last event */
    struct trace_buf *first, *cur;
    bool lost;           /* no buffer was to be had: what would come next is left out, and the generation is worth nothing */
};

struct trace_emitter {
    w_u32 seq;           /* [GEN] odd: between enter and leave */
    uint32_t gen;        /* of the events under way */
    uint64_t now;        /* their time */
    uint64_t m;          /* the thread's id; fixed while owned */
    bool fenced;         /* as in sched: no membarrier(2). Fixed while owned */
    w_u32 owned;
    struct trace_out out[2]; /* by generation % 2 */
    struct trace_emitter *next; /* fixed: all there are, none is ever freed */
    /* hooks.c's, of whoever uses it: what the reader believes the thread has */
    uint32_t run;
    struct trace_proc *p;
    struct trace_fiber *g;
    struct walk_memo *walks;
    uint32_t stopper;    /* STW_BEGIN has been told, in this generation; 0: not */
    bool collects;       /* GC_BEGIN has been told */
    bool sweeps;
    uint64_t swept, freed;
    uint32_t fresh, fresh_end, free, nfree; /* records of fibers at hand; nfree: so many in the list at most */
} w_aligned(W_CACHELINE);

/* ---- the trace ---------------------------------------------------------------------------------------- */

struct trace {
    w_u32 gen;                   /* [GEN] where events go; 0: nowhere */
    struct trace_clock clock[2]; /* these, by generation % 2: written while nobody is in the generation */
    struct trace_table texts[2], stacks[2];
    w_u32 bufs[2];               /* buffers that the generation has taken. rlx: counter */
    w_u32 lost[2];               /* something of it was lost */
    w_u64 gc[2];                 /* the collector's last event in it: its number * 2, + 1 if a cycle runs then; 0: none */
    w_u32 due;                   /* futex. 1: the generation is large enough, it should end */
    W_PTR(struct trace_emitter) emitters; /* rel: publishes the new one; acq in the switcher */
    /* fixed while open */
    uint32_t soft_bufs;          /* a generation of so many is due */
    uint32_t pool_bufs;
    const char *const *fixed;
    uint32_t nfixed;
    w_u32 soft_now;              /* likewise, if a recorder wants smaller ones. rlx: hint */
    w_u32 turn;                  /* [TURN] futex. 0: nobody's, TURN_HANDLERS, else the switcher's: 1 and its thread id above */
    /* under the turn */
    bool switching;              /* it is the switcher's */
    bool mourned;                /* the generation taken is to be told of as lost */
    uint32_t taken;              /* the generation that a handler has ended, until it is cleared; 0: none */
    struct trace_clock taken_began;
    uint32_t last_gen;
    uint64_t gc_before;          /* as gc, of all generations since trace_begin that have been finished */
    struct trace_emitter late;   /* writes into the generation that has ended */
    struct trace_out samples;
};
extern struct trace trace;

struct trace_setup {
    size_t pool_bytes;    /* of buffers; address space, touched as they are used. 0: 256 MiB */
    size_t table_bytes;   /* of each table of strings or stacks, four in all, likewise. 0: 8 MiB */
    const char *const *fixed; /* texts whose ids are 1, 2, ... in every generation; at most TRACE_TEXT_MAX bytes each */
    unsigned nfixed;
};
/* 0, -EALREADY, -ENOMEM. Takes less than was asked for where there is less; setup NULL: the defaults. While it is open:
 * trace_begin, any number of trace_switch, and a last one with stop. All by one thread at a time, the switcher, which no emitter ever waits for. */
int trace_open(const struct trace_setup *setup);
void trace_close(void); /* no generation runs, all buffers have been given back */
/* What trace_after_fork of stream.h does with all of this: nothing is open, nobody is an emitter. */
void trace_buffers_after_fork(void);

/* An emitter for the calling thread, whose id is m. fenced: membarrier(2) may not be relied on. NULL: no memory. Any thread, at any time; takes
 * memory. */
struct trace_emitter *trace_emitter_get(uint64_t m, bool fenced);
void trace_emitter_put(struct trace_emitter *e); /* between events */

/* ---- emitting ------------------------------------------------------------------------------------------ */

static inline bool trace_on(void) { return load_rlx(&trace.gen) != 0; } /* rlx: hint */

bool trace_refill(struct trace_emitter *e, struct trace_out *o);

static inline void trace_leave(struct trace_emitter *e)
{
    store_rel(&e->seq, load_rlx(&e->seq) + 1); /* rel: publishes out[]; acq in settle. rlx: only writer */
}

/* At a time of the caller's. Time that runs backwards stands still. */
static inline bool trace_enter_at(struct trace_emitter *e, uint64_t now)
{
    w_debug_assert(load_rlx(&e->seq) % 2 == 0); /* rlx: only writer */
    /* rel: as in trace_leave, for a switcher that sees only this one. [GEN]: before the look at gen; the switcher's membarrier orders it */
    store_rel(&e->seq, load_rlx(&e->seq) + 1);
    fence_compiler();
    if (unlikely(e->fenced))
        fence_seq(); /* seq before gen; the partner is in settle_all */
    e->gen = load_acq(&trace.gen); /* acq: sees clock and tables, and out[] cleared; rel in trace_switch, trace_begin */
    if (unlikely(e->gen == 0)) {
        trace_leave(e);
        return false;
    }
    e->now = now;
    return true;
}

/* False: no trace is being made. Then there is no leave. */
static inline bool trace_enter(struct trace_emitter *e)
{
    if (!trace_enter_at(e, 0))
        return false;
    e->now = trace_now(&trace.clock[e->gen % 2]);
    return true;
}

static inline __attribute__((always_inline)) void trace_emit(struct trace_emitter *e, enum trace_type type, const uint64_t *args, unsigned n)
{
    struct trace_out *o = &e->out[e->gen % 2];
    if (type == TRACE_GC_BEGIN || type == TRACE_GC_ACTIVE || type == TRACE_GC_END) /* known when compiled: costs nothing elsewhere */
        store_rlx(&trace.gc[e->gen % 2], args[0] * 2 + (type != TRACE_GC_END)); /* rlx: as above. Also if the event itself is lost */
    if (unlikely(o->pos >= o->end) && !trace_refill(e, o))
        return;
    uint64_t t = w_max(e->now, o->last);
    uint8_t *p = o->pos;
    *p++ = (uint8_t)type;
    p = trace_put(p, t - o->last);
    for (unsigned i = 0; i < n; i++)
        p = trace_put(p, args[i]);
    o->last = t;
    o->pos = p;
}

/* trace_event(e, GO_START, id, sequence): between enter and leave. The number of arguments is checked. */
#define trace_event(e, name, ...)                                                                                          \
    do {                                                                                                                   \
        _Static_assert(sizeof((const uint64_t[]){ 0, ##__VA_ARGS__ }) == (1 + TRACE_##name##_ARGS) * sizeof(uint64_t),      \
                       "arguments of " #name);                                                                             \
        trace_emit((e), TRACE_##name, (const uint64_t[]){ 0, ##__VA_ARGS__ } + 1, TRACE_##name##_ARGS);                     \
    } while (0)

/* Ids, for events of the same enter. A text is cut to its first TRACE_TEXT_MAX bytes, a stack (return addresses, innermost first) to its first
 * TRACE_FRAMES_MAX. 0, the empty one, if the table is full, which the generation counts. */
static inline uint64_t trace_text(struct trace_emitter *e, const char *text, size_t n)
{
    return n == 0 ? 0 : table_put(&trace.texts[e->gen % 2], text, w_min(n, (size_t)TRACE_TEXT_MAX));
}
static inline uint64_t trace_stack(struct trace_emitter *e, const uintptr_t *pcs, size_t n)
{
    return n == 0 ? 0 : table_put(&trace.stacks[e->gen % 2], pcs, w_min(n, (size_t)TRACE_FRAMES_MAX) * sizeof *pcs);
}

/* Between enter and leave: without what is missing, the generation must not be shown. */
static inline void trace_lose(struct trace_emitter *e) { store_rlx(&trace.lost[e->gen % 2], 1); } /* rlx: the switcher looks when all have left */

/* A stack that was taken at a probe point begins with probe_emit, which nobody wants to see, and then in the depths of the runtime; others begin
 * with who called it. */
static inline bool trace_from_probe(const uintptr_t *pcs, size_t n)
{
    return n > 0 && pcs[0] - (uintptr_t)probe_emit < 1024; /* nothing else that a stack could begin with lies there */
}

/* ---- what a fiber or a processor carries ------------------------------------------------------------------- */

/* Zeroed when the fiber or processor is made. */
struct trace_resource {
    w_u64 seq;     /* generation << 32 | last number; written by whoever holds the resource */
    w_u32 told[2]; /* by generation % 2: the generation in which its status was written last */
};

/* Its status, or its creation, is to be written now: nobody has done so in this generation. True once in each, whoever asks. */
static inline bool trace_first(struct trace_resource *r, uint32_t gen)
{
    uint32_t was = load_rlx(&r->told[gen % 2]); /* rlx, and the exchange: a claim; what is written is ordered by who holds the resource */
    return was != gen && cas_rlx(&r->told[gen % 2], was, gen);
}

/* The number of its next event in the generation, for those that carry one: 1, 2, ... By whoever holds the resource. */
static inline uint32_t trace_next(struct trace_resource *r, uint32_t gen)
{
    uint64_t s = load_rlx(&r->seq); /* rlx: handed on with the resource */
    s = (s >> 32 == gen ? s : (uint64_t)gen << 32) + 1;
    store_rlx(&r->seq, s);
    return (uint32_t)s;
}

/* ---- the switcher ------------------------------------------------------------------------------------------ */

void trace_begin(void);            /* the first generation, or the first after a stop */
/* From now on events go into the next generation, or nowhere (stop). Returns the number of the one that has ended, in which nobody is any more. Waits
 * for those who are between enter and leave. */
uint32_t trace_switch(bool stop);
/* Writes into the generation that has ended, until trace_collect, without enter and leave, behind what thread m wrote (TRACE_NONE: no thread):
 * states of whatever was not touched in it. What runs on a thread, as its own; the rest as no thread's. */
struct trace_emitter *trace_late(uint64_t m);
void trace_sample(uint64_t time, uint64_t m, uint64_t p, uint64_t g, const uintptr_t *pcs, size_t n); /* likewise; p TRACE_NONE, g 0: none */
/* [TURN] What trace_switch begins with; a switcher that notes something before it switches calls it first. trace_turn_drop when all is finished. */
void trace_turn_take(void);
void trace_turn_drop(void);
/* In a signal handler, which may have interrupted anybody: ends the generation in the switcher's place, waiting so long for its turn, and a tenth of
 * that for emitters. Its number: nobody writes into it any more, and trace_collect and the tables are the handler's, until trace_give_sigsafe. 0: not
 * to be had; then there is no give. */
uint32_t trace_take_sigsafe(int64_t patience_ns);
void trace_give_sigsafe(void);
/* All its buffers, without the tables' and the clock's; empties what it used but the tables. */
struct trace_buf *trace_collect(void);
void trace_tables_clear(uint32_t gen);
/* Room for n bytes of a table's batch, which begins with the byte kind; false: there is no buffer. Then o->pos moves behind what is written. */
bool trace_out_room(struct trace_out *o, size_t n, uint32_t gen, uint64_t time, enum trace_type kind);
/* Its buffers; o is empty then. */
struct trace_buf *trace_out_take(struct trace_out *o);
void trace_bufs_free(struct trace_buf *list); /* any thread */
uint32_t trace_bufs_used(void);

#endif
