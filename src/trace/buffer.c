/* The trace: what happened in the scheduler and the collector, in the order in which it happened, for `go tool trace`.
 *
 * Actors. Emitters, one per thread, write events into buffers of their own. The switcher, one thread at a time, ends a generation every second or so,
 * or when it has grown large: it collects the buffers, adds tables, clock and samples, and gives the whole to the readers (stream.c), each of which
 * hands it to its writer on a thread of its own. A generation can be read without any other (but see [RULES]); what is dropped is dropped whole.
 *
 *      emitter          emitter          emitter              pool of buffers of 16 KiB, one mapping
 *      out[0] out[1]    out[0] out[1]    out[0] out[1]        taken and given back by compare-and-swap
 *         |                |                |
 *         +--- generation 6, 8, 10 ... -----+--> switcher: + tables[0], clock[0] --> readers --> writers
 *
 * [GEN] The change of generation. An emitter pays two plain stores, one plain load and a compiler barrier for each enter and leave; the switcher pays
 * for everything, as in [ENTRY]:
 *
 *      emitter (trace_enter, trace_leave)        switcher (trace_switch)
 *        seq = odd                                 gen = N + 1
 *        compiler barrier                          membarrier(PRIVATE_EXPEDITED)
 *        look at gen: N or N + 1                   look at each seq: even: go on
 *        write into out[gen % 2]                                     odd: wait until it is another number
 *        seq = even
 *
 * The membarrier makes each running thread execute a fence at some point between the switcher's store and its looks. If the emitter's store of seq
 * comes before that point, the switcher sees it odd, and waits until what began then is over. If it comes after, the emitter's look at gen comes
 * after it, too, and sees N + 1. So when the switcher has gone through all emitters, nobody writes into N, and nobody will. An emitter that is
 * made meanwhile and not seen in the list was pushed after that point, and sees N + 1 likewise. (fenced: the emitter's fence and the switcher's own
 * make the same point.) seq is a count, not a flag, for the switcher could find a busy emitter odd each time it looks.
 *
 * From then on out[N % 2] of all emitters, and the tables, clock and counts of N % 2, are the switcher's, until it stores gen = N + 2 (rel; acq in
 * trace_enter). That is why there are two of each. Nobody ever waits for the switcher. It waits for emitters only while they are between enter and
 * leave, where they do not wait for anything but the CPU.
 *
 * [TURN] A signal handler that is to save what is known when the process crashes ends the generation itself, for what came last matters most. It
 * takes the switcher's turn for that, which the switcher holds from before it switches until the generation is finished. Neither waits for the other
 * without a limit: the handler gives up, at once if it has interrupted the very thread that has the turn. What the handler has ended, and whoever would not
 * leave in time, is cleared by the switcher when its turn comes, if the process lives on; that generation is lost to all readers.
 *
 * No buffer to be had: the emitter leaves out whatever else it would write into this generation, which is marked as lost and never shown to anybody,
 * and begins anew in the next one. The same generation is due (`due`) long before: at a sixteenth of the pool, or when a table is three quarters
 * full.
 *
 * [RULES] What Go's reader accepts (internal/trace/order.go). It knows of each thread its processor and fiber, of each processor and fiber a state,
 * and takes the events of each thread in their order, those of different threads by time, where it can: an event that is not possible yet waits for
 * others.
 *
 *   - Bound to the thread, taken at once, an error if they do not fit: GO_STOP, GO_BLOCK, GO_DESTROY (a running fiber), GO_SYSCALL_BEGIN (the same,
 *     with a running processor), GO_SYSCALL_END (while the processor is still there), PROC_STOP.
 *   - Numbered, and waiting until their number is the next one: GO_START (runnable; thread with a processor, without fiber), GO_UNBLOCK (waiting;
 *     from anywhere), GO_SWITCH (waiting; from a running one), PROC_START (idle; thread without processor), PROC_STEAL (in a syscall, of the thread
 *     named). GO_SYSCALL_BEGIN bears a number of the processor, which must be the next one. trace_next gives them.
 *     GO_SYSCALL_END_BLOCKED waits until the processor is no longer there.
 *   - In each generation the state of a fiber or processor comes before its first event there, unless that is its creation (trace_first): on the
 *     thread that has it, if it runs. It must be what the reader believes from the generation before. At the end of a generation all have been told:
 *     the switcher adds those that nobody touched (trace_late).
 *   - GC_BEGIN, GC_ACTIVE and GC_END are numbered among themselves, through all generations. If a cycle runs at the beginning of a generation,
 *     GC_ACTIVE; and GC_SWEEP_ACTIVE, GC_MARK_ASSIST_ACTIVE behind the state of who is in the middle of that. A stop of the world must not cross
 *     from one generation to the next.
 *   - PROCS_CHANGE, STW_*, GC_*, marks of the user, GO_LABEL: a running fiber. HEAP_*, GC_SWEEP_*: a processor. GO_CREATE: a processor, and a fiber
 *     that runs, or none.
 *
 * Which generation an event goes to is settled by enter. So enter comes when the thread holds what the event is about, the change of state itself
 * lies between enter and leave, and nobody else can get hold of it before leave: then the events of one fiber go to generations in their order. (A
 * blocks: enter, GO_BLOCK, leave, and only then the lock is dropped under which B makes it ready. Else GO_UNBLOCK could be in N, and GO_BLOCK in N +
 * 1.)
 *
 * States that the switcher adds are those from before trace_switch, of whatever trace_first then says that nobody has told of. If somebody changes
 * one after the switcher has read it, he either does so in N, and has told of it, or in N + 1, and what was read is how N ends. And a change that
 * the switcher has read was entered before, so in N.
 *
 * Which probe point gives which event is told in hooks.c. */
#include "trace/buffer.h"
#include <errno.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <string.h>
#include "base/backoff.h"
#include "base/offheap.h"
#include "base/syscall.h"
#include "os/futex.h"

#define POOL_DEFAULT ((size_t)256 << 20)
#define TABLE_DEFAULT ((size_t)8 << 20)
#define POOL_LEAST 64 /* buffers */
#define POOL_MOST 65535

struct trace trace;

/* ---- the pool -------------------------------------------------------------------------------------------- */

/* Free ones are a stack linked by index through next[], which lies apart: whoever loses the race for the first one has read a word of the next
 * one's, and never what its new owner writes. `free` is index + 1 in 16 bits, and a count of what was ever taken in 48, so that it is not the same
 * again when the same one is first again. Above `fresh`, none was ever taken. */
static struct {
    struct trace_buf *base;
    w_u32 *next;     /* index + 1; 0: none */
    struct trace_buf **order; /* trace_collect's: by number; NULL in between */
    w_u64 free;
    w_u32 fresh;
    w_u32 in_use;    /* rlx: counter */
    uint32_t n;      /* fixed while open */
} pool;

static size_t pool_map_bytes(uint32_t n) { return n * (sizeof(struct trace_buf) + sizeof(struct trace_buf *) + sizeof(w_u32)); }

static int pool_open(uint32_t n)
{
    char *p;
    while ((p = off_map(OFF_TRACE, pool_map_bytes(n), 4096)) == NULL)
        if ((n /= 2) < POOL_LEAST)
            return -ENOMEM;
    pool.base = (struct trace_buf *)p;
    pool.order = (struct trace_buf **)(p + n * sizeof(struct trace_buf));
    pool.next = (w_u32 *)(pool.order + n);
    pool.n = n;
    store_rlx(&pool.free, 0); /* rlx, and below: nobody uses it yet */
    store_rlx(&pool.fresh, 0);
    store_rlx(&pool.in_use, 0);
    return 0;
}

static void pool_close(void)
{
    if (pool.base != NULL)
        off_unmap(OFF_TRACE, pool.base, pool_map_bytes(pool.n));
    pool.base = NULL;
}

/* NULL: all are in use. */
static struct trace_buf *buf_get(void)
{
    uint64_t head;
    while ((head = load_acq(&pool.free)) % 65536 != 0) { /* acq: sees its next; rel in trace_bufs_free */
        uint32_t i = (uint32_t)(head % 65536) - 1;
        uint64_t next = load_rlx(&pool.next[i]); /* rlx: if head is still the same below, it is as of then */
        if (cas_acq(&pool.free, head, (head / 65536 + 1) * 65536 + next)) { /* acq: what others did with it is over; rel in trace_bufs_free */
            add_rlx(&pool.in_use, 1); /* rlx: counter */
            return &pool.base[i];
        }
    }
    for (uint32_t i = load_rlx(&pool.fresh); i < pool.n; i = load_rlx(&pool.fresh)) /* rlx: nobody has written there */
        if (cas_rlx(&pool.fresh, i, i + 1)) {
            add_rlx(&pool.in_use, 1); /* rlx: counter */
            return &pool.base[i];
        }
    return NULL;
}

void trace_bufs_free(struct trace_buf *list)
{
    for (struct trace_buf *b = list, *after; b != NULL; b = after) {
        after = b->next;
        uint32_t i = (uint32_t)(b - pool.base);
        uint64_t head;
        do {
            head = load_rlx(&pool.free); /* rlx: only put back as next */
            store_rlx(&pool.next[i], (uint32_t)(head % 65536)); /* rlx: published by the exchange */
        } while (!cas_rel(&pool.free, head, head / 65536 * 65536 + i + 1)); /* rel: publishes next, and what we read is read; acq in buf_get */
        sub_rlx(&pool.in_use, 1); /* rlx: counter */
    }
}

uint32_t trace_bufs_used(void) { return load_rlx(&pool.in_use); } /* rlx: counter */

/* ---- batches -------------------------------------------------------------------------------------------------- */

/* The batch that lies open, if there is one, gets its length. */
static void out_close(struct trace_out *o)
{
    struct trace_buf *b = o->cur;
    if (o->pos != NULL) {
        b->len = (uint32_t)(o->pos - b->data);
        trace_batch_close(b->data + b->contents, o->pos);
    }
    o->pos = o->end = NULL;
}

/* A new batch. room: what the largest piece of its contents takes. */
static bool out_open(struct trace_out *o, uint64_t gen, uint64_t m, uint64_t time, size_t room)
{
    out_close(o);
    struct trace_buf *b = o->lost ? NULL : buf_get();
    if (b == NULL) {
        o->lost = true;
        store_rlx(&trace.lost[gen % 2], 1); /* rlx: the switcher looks when all have left */
        return false;
    }
    b->next = NULL;
    if (o->first == NULL)
        o->first = b;
    else
        o->cur->next = b;
    o->cur = b;
    o->pos = trace_batch_open(b->data, gen, m, time);
    o->end = b->data + sizeof b->data - room; /* and one for the end of the generation: an event begins before end */
    o->last = time;
    b->contents = (uint32_t)(o->pos - b->data);
    b->number = add_rlx(&trace.bufs[gen % 2], 1); /* rlx: a thread sees its own numbers grow */
    return true;
}

struct trace_buf *trace_out_take(struct trace_out *o)
{
    out_close(o);
    struct trace_buf *first = o->first;
    memset(o, 0, sizeof *o);
    return first;
}

bool trace_out_room(struct trace_out *o, size_t n, uint32_t gen, uint64_t time, enum trace_type kind)
{
    if (likely(o->pos != NULL && (size_t)(o->end - o->pos) >= n))
        return true;
    if (!out_open(o, gen, TRACE_NONE, time, 1))
        return false;
    *o->pos++ = (uint8_t)kind;
    w_debug_assert((size_t)(o->end - o->pos) >= n);
    return true;
}

/* ---- emitters ---------------------------------------------------------------------------------------------------- */

/* It is worth while to end the generation. Wakes who waits for that (trace_wait_due), once. */
static void due(void)
{
    if (load_rlx(&trace.due) == 0 && cas_rlx(&trace.due, 0, 1)) /* rlx: a hint, and looked at again by the futex */
        os_futex_wake(&trace.due, 1);
}

w_noinline bool trace_refill(struct trace_emitter *e, struct trace_out *o)
{
    uint32_t gen = e->gen;
    if (o->lost || !out_open(o, gen, e->m, w_max(e->now, o->last), TRACE_EVENT_MAX))
        return false;
    if (gen != load_rlx(&trace.gen)) /* rlx: hint. It has ended: the states of many fibers, written late, would end the next one at once */
        return true;
    if (load_rlx(&trace.bufs[gen % 2]) >= load_rlx(&trace.soft_now) || /* rlx: hints */
        table_fills(&trace.texts[gen % 2]) || table_fills(&trace.stacks[gen % 2]))
        due();
    return true;
}

static w_u32 unfenced; /* 1: there is an emitter that relies on membarrier */

static bool membarrier_ready(void)
{
    return sys_call3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0; /* any number of times */
}

struct trace_emitter *trace_emitter_get(uint64_t m, bool fenced)
{
    struct trace_emitter *e;
    for (e = load_acq(&trace.emitters); e != NULL; e = e->next) /* acq: rel below */
        if (load_rlx(&e->owned) == 0 && cas_acq(&e->owned, 0, 1)) /* acq: sees what the last owner wrote; rel in trace_emitter_put */
            break;
    if (e == NULL) {
        e = off_alloc_aligned(OFF_TRACE, sizeof *e, _Alignof(struct trace_emitter));
        if (e == NULL)
            return NULL;
        store_rlx(&e->owned, 1); /* rlx, and next: published below */
        do
            e->next = load_rlx(&trace.emitters);
        while (!cas_seq(&trace.emitters, e->next, e)); /* seq: also before this emitter's first look at gen; settle_all has the other side */
    }
    e->m = m;
    e->fenced = fenced || !membarrier_ready();
    if (!e->fenced) {
        store_seq(&unfenced, 1);
        fence_seq(); /* before its first look at gen; settle_all has the other side */
    }
    return e;
}

void trace_emitter_put(struct trace_emitter *e)
{
    /* The batch bears our thread's id. What is left of the generation before is the switcher's. */
    if (trace_enter_at(e, 0)) {
        out_close(&e->out[e->gen % 2]);
        trace_leave(e);
    }
    store_rel(&e->owned, 0); /* rel: acq in trace_emitter_get */
}

/* ---- the switcher ------------------------------------------------------------------------------------------------ */

/* False: it is not over by then. */
static bool settle(struct trace_emitter *e, int64_t deadline)
{
    uint32_t s = load_acq(&e->seq); /* acq, and below: sees what was written in the old generation; rel in trace_leave and trace_enter_at */
    if (s % 2 == 0)
        return true;
    for (unsigned looks = 0; load_acq(&e->seq) == s; backoff(looks++))
        if (looks >= BACKOFF_PAUSES && deadline != 0 && os_now_ns() > deadline)
            return false;
    return true;
}

/* [GEN]: gen has been stored. deadline 0: none. */
static bool settle_all(int64_t deadline)
{
    fence_seq(); /* gen before the looks; the partners are trace_enter_at (fenced) and trace_emitter_get */
    if (load_seq(&unfenced) != 0) /* seq: after the store of gen. 0: whoever relies on it from now on sees the new one */
        sys_call3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (struct trace_emitter *e = load_acq(&trace.emitters); e != NULL; e = e->next) /* acq: sees the emitters; rel in trace_emitter_get */
        if (!settle(e, deadline))
            return false;
    return true;
}

/* Makes ready what belongs to the next generation, and returns its number. */
static uint32_t prepare(void)
{
    uint32_t gen = trace.last_gen + 1;
    gen += gen == 0;
    store_rlx(&trace.bufs[gen % 2], 0); /* rlx, and below: published with gen */
    store_rlx(&trace.lost[gen % 2], 0);
    store_rlx(&trace.gc[gen % 2], 0);
    trace_clock_make(&trace.clock[gen % 2]);
    trace.last_gen = gen;
    return gen;
}

void trace_begin(void)
{
    uint32_t gen = prepare();
    w_assert(pool.base != NULL && load_rlx(&trace.gen) == 0); /* rlx: only we write it */
    trace.gc_before = 0;
    store_rlx(&trace.due, 0); /* rlx: hint */
    store_seq(&trace.gen, gen); /* also rel: publishes what prepare did; acq in trace_enter_at */
}

/* old has ended: trace_late writes there, trace_collect empties it. */
static void late_begin(uint32_t old)
{
    struct trace_emitter *l = &trace.late;
    l->gen = old;
    l->m = TRACE_NONE;
    l->now = trace.clock[old % 2].units;
}

/* What a handler has ended is told by it, or by nobody. */
static void clear_taken(void)
{
    uint64_t gc = load_rlx(&trace.gc[trace.taken % 2]); /* rlx: by our turn */
    settle_all(0);
    late_begin(trace.taken);
    trace_bufs_free(trace_collect());
    trace_tables_clear(trace.taken);
    if (gc != 0)
        trace.gc_before = gc;
    trace.taken = 0;
    trace.mourned = true;
}

#define TURN_HANDLERS 2u
static uint32_t here(void) { return (uint32_t)sys_call0(SYS_gettid); }

void trace_turn_take(void)
{
    if (trace.switching)
        return;
    while (!cas_acq(&trace.turn, 0, here() << 1 | 1)) /* acq: sees what the handler did; rel in trace_give_sigsafe */
        os_futex_wait(&trace.turn, TURN_HANDLERS, -1);
    trace.switching = true;
    if (trace.taken != 0)
        clear_taken();
}

void trace_turn_drop(void)
{
    trace.switching = false;
    store_rel(&trace.turn, 0); /* rel: all is finished; acq in trace_take_sigsafe */
}

uint32_t trace_switch(bool stop)
{
    trace_turn_take();
    uint32_t old = load_rlx(&trace.gen); /* rlx: only we write it */
    uint32_t next = stop ? 0 : prepare();
    w_debug_assert(stop || next % 2 != old % 2);
    store_seq(&trace.gen, next); /* also rel, as in trace_begin. Before the looks of settle_all, by its fence */
    settle_all(0);
    store_rlx(&trace.due, 0); /* rlx: hint */
    late_begin(old);
    return old;
}

uint32_t trace_take_sigsafe(int64_t patience_ns)
{
    int64_t deadline = os_now_ns() + patience_ns;
    while (!cas_acq(&trace.turn, 0, TURN_HANDLERS)) { /* acq: the generation before is finished; rel in trace_turn_drop */
        if (load_rlx(&trace.turn) == (here() << 1 | 1) || os_now_ns() > deadline) /* rlx: if it is our thread's, it wrote that itself */
            return 0;
        nap();
    }
    uint32_t old = load_acq(&trace.gen); /* acq: sees what trace_begin prepared; rel there */
    if (old != 0 && trace.taken == 0) {
        trace.taken = old;
        trace.taken_began = trace.clock[old % 2];
        store_seq(&trace.gen, prepare()); /* as in trace_switch */
        if (settle_all(os_now_ns() + patience_ns / 10)) {
            late_begin(old);
            return old;
        }
    }
    trace_give_sigsafe();
    return 0;
}

void trace_give_sigsafe(void)
{
    store_rel(&trace.turn, 0); /* rel: acq in trace_turn_take */
    os_futex_wake(&trace.turn, INT_MAX);
}

struct trace_emitter *trace_late(uint64_t m)
{
    struct trace_emitter *l = &trace.late;
    if (l->m != m) {
        out_close(&l->out[l->gen % 2]);
        l->m = m;
    }
    return l;
}

void trace_sample(uint64_t time, uint64_t m, uint64_t p, uint64_t g, const uintptr_t *pcs, size_t n)
{
    struct trace_emitter *l = &trace.late;
    struct trace_out *o = &trace.samples;
    if (!trace_out_room(o, 1 + 5 * TRACE_NUMBER_MAX, l->gen, trace.clock[l->gen % 2].units, TRACE_CPU_SAMPLES))
        return;
    uint8_t *at = o->pos;
    *at++ = TRACE_CPU_SAMPLE;
    at = trace_put(at, time);
    at = trace_put(at, m);
    at = trace_put(at, p);
    at = trace_put(at, g);
    o->pos = trace_put(at, trace_stack(l, pcs, n));
}

static void put_in_order(struct trace_buf *list)
{
    for (; list != NULL; list = list->next)
        pool.order[list->number] = list;
}

/* A thread may have used several emitters, one after the other: so its batches come in the order in which they were opened. */
struct trace_buf *trace_collect(void)
{
    uint32_t parity = trace.late.gen % 2;
    struct trace_buf *all = NULL, **last = &all;
    for (struct trace_emitter *e = load_acq(&trace.emitters); e != NULL; e = e->next) /* acq: as in settle_all */
        put_in_order(trace_out_take(&e->out[parity]));
    put_in_order(trace_out_take(&trace.late.out[parity]));
    put_in_order(trace_out_take(&trace.samples));
    for (uint32_t i = 0, n = load_rlx(&trace.bufs[parity]); i < n; i++) { /* rlx: all have left */
        struct trace_buf *b = pool.order[i];
        pool.order[i] = NULL;
        if (b != NULL) {
            *last = b;
            last = &b->next;
        }
    }
    *last = NULL;
    return all;
}

void trace_tables_clear(uint32_t gen)
{
    table_reset(&trace.texts[gen % 2], trace.nfixed);
    table_reset(&trace.stacks[gen % 2], 0);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static void tables_close(void)
{
    for (int i = 0; i < 2; i++) {
        table_close(&trace.texts[i]);
        table_close(&trace.stacks[i]);
    }
}

static int tables_open(size_t bytes)
{
    for (;; bytes /= 2) {
        int err = table_open(&trace.texts[0], bytes);
        err = err != 0 ? err : table_open(&trace.texts[1], bytes);
        err = err != 0 ? err : table_open(&trace.stacks[0], bytes);
        err = err != 0 ? err : table_open(&trace.stacks[1], bytes);
        if (err == 0)
            return 0;
        tables_close();
        if (bytes < 65536)
            return err;
    }
}

int trace_open(const struct trace_setup *setup)
{
    struct trace_setup s = setup != NULL ? *setup : (struct trace_setup){ 0 };
    if (pool.base != NULL)
        return -EALREADY;
    uint32_t n = (uint32_t)w_min((s.pool_bytes != 0 ? s.pool_bytes : POOL_DEFAULT) / TRACE_BUF_BYTES, (size_t)POOL_MOST);
    int err = pool_open(w_max(n, (uint32_t)POOL_LEAST));
    if (err == 0 && (err = tables_open(s.table_bytes != 0 ? s.table_bytes : TABLE_DEFAULT)) != 0)
        pool_close();
    if (err != 0)
        return err;
    trace.pool_bufs = pool.n;
    trace.soft_bufs = pool.n / 16;
    store_rlx(&trace.soft_now, trace.soft_bufs); /* rlx: hint */
    trace.fixed = s.fixed;
    trace.nfixed = s.nfixed;
    trace_tables_clear(0);
    trace_tables_clear(1);
    trace_clock_open();
    return 0;
}

void trace_close(void)
{
    w_assert(load_rlx(&trace.gen) == 0 && trace_bufs_used() == 0); /* rlx: only the switcher writes it */
    tables_close();
    pool_close();
}

void trace_buffers_after_fork(void)
{
    store_rlx(&trace.gen, 0); /* rlx, and below: nobody else runs */
    for (struct trace_emitter *e = load_rlx(&trace.emitters); e != NULL; e = e->next) {
        memset(e->out, 0, sizeof e->out);
        store_rlx(&e->seq, 0);
        store_rlx(&e->owned, 0);
    }
    memset(trace.late.out, 0, sizeof trace.late.out);
    memset(&trace.samples, 0, sizeof trace.samples);
    store_rlx(&trace.turn, 0);
    trace.switching = trace.mourned = false;
    trace.taken = 0;
    tables_close();
    pool_close();
}
