/* From buffers to writers.
 *
 * A generation, once finished, is a list of buffers, complete with tables, clock and end, that nobody changes any more. Readers share it: it is
 * counted, and its buffers go back to the pool with the last of them. Each reader has a queue and a thread (trace_reader_pump) which hands the
 * buffers to its writer; so a writer that blocks holds up nobody else, least of all an emitter.
 *
 *      trace_finish --> queue of reader 1 --> pump --> writer       generation 7: refs 2
 *                  \--> queue of reader 2 --> pump --> writer
 *
 * [SHARE] What a slow writer may hold: a reader that holds nothing gets the generation whatever its size; one that is behind gets it if what it holds
 * then is at most its share, a sixteenth of the pool; otherwise this generation is dropped for it, and counted. A generation is due at a sixteenth of
 * the pool. So eight readers, each stuck in the middle of something else, hold half of the pool or little more, and the generation that is being made
 * has the other half. (Of a million fibers the states alone are 12 MiB, of 256.)
 *
 * A reader keeps the last generation it wrote until the next one is at hand. For Go's reader would refuse what comes behind a gap: it holds each
 * state against that from before. So a gap is filled: gap.c makes a small generation of its own, which leads from how the one before it ends to how
 * the one behind it begins. Both are read before the writer is called, so that one that hangs holds one generation, not two. Without the memory for
 * that, the generation behind the gap is dropped as well, and the gap is longer.
 *
 * A writer that fails ends its reader: a generation that is written in part cannot be mended. The others go on. */
#include "trace/stream.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include "base/fmt.h"
#include "base/lock.h"
#include "base/offheap.h"
#include "os/futex.h"
#include "trace/gap.h"

#define QUEUE 64 /* generations */

struct trace_reader {
    weft_writer *writer; /* fixed; and the next */
    void *ctx;
    w_u32 event;         /* futex: grows when there is something to do. Under lock; read without */
    /* lock */
    bool closing;
    struct queued { struct generation *g; uint32_t gap; struct trace_clock gap_began; } queue[QUEUE]; /* gap: generations missing before it */
    uint32_t nqueued;
    uint32_t holding;    /* buffers: of what is queued or being written */
    uint32_t gap;        /* generations dropped since the last one that was queued */
    struct trace_clock gap_began; /* the first of them did */
    struct trace_reader_stats stats;
    /* the pump's */
    struct generation *last; /* written last; NULL: none, or it is not needed any more */
    bool saw_gc;
    uint32_t skipped;    /* generations, since the last one that was written: for lack of memory, and the gap before them */
    struct trace_clock skipped_began;
};

static struct lock lock = LOCK_INIT(RANK_LEAF); /* readers, their queues; total */
static struct trace_reader *readers[TRACE_READERS];
static struct trace_stats total;
static W_PTR(trace_tap) tap;

void trace_set_tap(trace_tap *fn) { store_rel(&tap, fn); } /* rel: publishes what fn needs; acq in publish */

/* ---- generations ----------------------------------------------------------------------------------------------- */

static void generation_put(struct generation *g)
{
    if (g == NULL || sub_acq_rel(&g->refs, 1) != 1) /* rel: we have read it; acq: so have all others */
        return;
    trace_bufs_free(g->bufs);
    off_free(OFF_TRACE, g);
}

/* Under lock: to r, if [SHARE] allows. */
static void offer(struct trace_reader *r, struct generation *g, const struct trace_clock *began)
{
    if (r->closing)
        return;
    bool fits = g != NULL && r->stats.err == 0 && r->nqueued < QUEUE && (r->holding == 0 || r->holding + g->nbufs <= trace.soft_bufs);
    if (!fits) {
        r->stats.dropped++;
        if (r->gap++ == 0)
            r->gap_began = *began;
        return;
    }
    add_rlx(&g->refs, 1); /* rlx: the caller has one */
    r->queue[r->nqueued++] = (struct queued){ g, r->gap, r->gap_began };
    r->holding += g->nbufs;
    r->gap = 0;
    add_rlx(&r->event, 1); /* rlx: under the lock, which the pump takes, too */
    os_futex_wake(&r->event, INT_MAX); /* under the lock: afterwards it may be gone */
}

/* g NULL: it was lost. */
static void publish(struct generation *g, const struct trace_clock *began)
{
    trace_tap *fn = load_acq(&tap); /* acq: rel in trace_set_tap */
    if (fn != NULL)
        fn(g, began);
    lock_take(&lock);
    for (int i = 0; i < TRACE_READERS; i++)
        if (readers[i] != NULL)
            offer(readers[i], g, began);
    total.generations++;
    total.lost += g == NULL;
    lock_drop(&lock);
}

/* ---- finishing ----------------------------------------------------------------------------------------------------- */

struct finish {
    uint32_t gen;
    uint64_t time;
    const struct trace_symbols *symbols;
    struct trace_out out; /* of the table at hand */
};

static bool put_text(struct finish *f, uint64_t id, const void *text, size_t n)
{
    struct trace_out *o = &f->out;
    if (!trace_out_room(o, 1 + 2 * TRACE_NUMBER_MAX + n, f->gen, f->time, TRACE_STRINGS))
        return false;
    uint8_t *p = o->pos;
    *p++ = TRACE_STRING;
    p = trace_put(p, id);
    p = trace_put(p, n);
    memcpy(p, text, n);
    o->pos = p + n;
    return true;
}

static bool put_text_entry(void *arg, const struct table_entry *e) { return put_text(arg, e->id, e->data, e->len); }

/* The end of a long name tells more than its beginning. */
static uint64_t name_id(struct finish *f, const char *s)
{
    size_t n = s != NULL ? strlen(s) : 0, over = n > TRACE_TEXT_MAX ? n - TRACE_TEXT_MAX : 0;
    return n == 0 ? 0 : table_put(&trace.texts[f->gen % 2], s + over, n - over);
}

/* Go's reader knows a frame by its address. Those that were inlined there have the same one, so they get a number in its highest byte, which no
 * address of a process has. */
static bool put_stack_entry(void *arg, const struct table_entry *e)
{
    struct finish *f = arg;
    struct trace_out *o = &f->out;
    static uint8_t body[TRACE_FRAMES_MAX * 4 * TRACE_NUMBER_MAX]; /* by [TURN]; a stack for handlers may have no room for it */
    uint8_t *p = body;
    unsigned nframes = 0;
    size_t npcs = e->len / sizeof(uintptr_t), i = 0;
    const uintptr_t *pcs = (const uintptr_t *)e->data; /* entries are aligned to words */
    if (trace_from_probe(pcs, npcs)) {
        i = 1;
        if (f->symbols != NULL && f->symbols->inner != NULL)
            i += f->symbols->inner(f->symbols->arg, pcs + 1, (unsigned)npcs - 1);
    }
    for (; i < npcs && nframes < TRACE_FRAMES_MAX; i++) {
        uintptr_t pc;
        memcpy(&pc, e->data + i * sizeof pc, sizeof pc);
        struct trace_frame frames[16];
        unsigned n = f->symbols != NULL ? f->symbols->frames(f->symbols->arg, pc, frames, w_countof(frames)) : 0;
        char text[24];
        if (n == 0) {
            w_fmt(text, sizeof text, "0x%lx", (unsigned long)pc);
            frames[0] = (struct trace_frame){ text, NULL, 0 };
            n = 1;
        }
        for (unsigned k = 0; k < n && nframes < TRACE_FRAMES_MAX; k++, nframes++) {
            p = trace_put(p, pc | (uint64_t)(n - 1 - k) << 56);
            p = trace_put(p, name_id(f, frames[k].function));
            p = trace_put(p, name_id(f, frames[k].file));
            p = trace_put(p, frames[k].line);
        }
    }
    size_t len = (size_t)(p - body);
    if (!trace_out_room(o, 1 + 2 * TRACE_NUMBER_MAX + len, f->gen, f->time, TRACE_STACKS))
        return false;
    uint8_t *at = o->pos;
    *at++ = TRACE_STACK;
    at = trace_put(at, e->id);
    at = trace_put(at, nframes);
    memcpy(at, body, len);
    o->pos = at + len;
    return true;
}

static bool put_fixed_texts(struct finish *f)
{
    for (uint32_t i = 0; i < trace.nfixed; i++) {
        size_t n = strlen(trace.fixed[i]);
        if (!put_text(f, i + 1, trace.fixed[i], w_min(n, (size_t)TRACE_TEXT_MAX)))
            return false;
    }
    return true;
}

/* Behind the list at *last; returns where the next one goes. */
static struct trace_buf **append(struct trace_buf **last, struct trace_buf *list)
{
    *last = list;
    while (*last != NULL)
        last = &(*last)->next;
    return last;
}

/* All buffers, in order; *ok: they are complete. */
static struct trace_buf *assemble(struct finish *f, bool *ok)
{
    uint32_t parity = f->gen % 2;
    const struct trace_clock *c = &trace.clock[parity];
    struct trace_buf *all = NULL, **last = &all;
    *ok = trace_out_room(&f->out, TRACE_SYNC_MAX, f->gen, f->time, TRACE_SYNC);
    if (*ok)
        f->out.pos = trace_put_sync(f->out.pos, TRACE_UNITS_PER_SECOND, (uint64_t)c->mono_ns, (uint64_t)c->wall_ns);
    last = append(last, trace_out_take(&f->out));
    last = append(last, trace_collect());
    *ok = *ok && load_rlx(&trace.lost[parity]) == 0 && /* rlx: all have left */
        table_each(&trace.stacks[parity], put_stack_entry, f); /* adds to the texts */
    last = append(last, trace_out_take(&f->out));
    *ok = *ok && put_fixed_texts(f) && table_each(&trace.texts[parity], put_text_entry, f);
    append(last, trace_out_take(&f->out));
    return all;
}

static struct generation *generation_new(struct trace_buf *bufs, uint32_t number)
{
    struct generation *g = off_zalloc(OFF_TRACE, sizeof *g);
    if (g == NULL)
        return NULL;
    g->number = number;
    g->bufs = bufs;
    g->began = trace.clock[number % 2];
    store_rlx(&g->refs, 1); /* rlx: nobody knows of it */
    struct trace_buf *b = bufs;
    for (g->nbufs = 1; b->next != NULL; b = b->next)
        g->nbufs++;
    b->data[b->len++] = TRACE_END_OF_GENERATION; /* each has room for this one byte */
    return g;
}

void trace_finish(const struct trace_symbols *symbols)
{
    uint32_t gen = trace.late.gen;
    bool ok;
    struct finish f = { .gen = gen, .time = trace.clock[gen % 2].units, .symbols = symbols };
    struct trace_buf *bufs = assemble(&f, &ok);
    uint64_t gc = load_rlx(&trace.gc[gen % 2]); /* rlx, and below: all have left */
    lock_take(&lock);
    total.texts_lost += load_rlx(&trace.texts[gen % 2].lost);
    total.stacks_lost += load_rlx(&trace.stacks[gen % 2].lost);
    lock_drop(&lock);
    trace_tables_clear(gen);
    struct generation *g = ok ? generation_new(bufs, gen) : NULL;
    if (g != NULL) {
        g->gc_before = trace.gc_before;
        g->gc_after = gc != 0 ? gc : trace.gc_before;
        g->gc_events = gc != 0;
    }
    if (gc != 0)
        trace.gc_before = gc;
    if (trace.mourned)
        publish(NULL, &trace.taken_began);
    trace.mourned = false;
    publish(g, &trace.clock[gen % 2]);
    if (g != NULL)
        generation_put(g);
    else
        trace_bufs_free(bufs);
    trace_turn_drop();
}

struct trace_buf *trace_assemble_sigsafe(uint32_t gen, const struct trace_symbols *symbols)
{
    bool ok;
    struct finish f = { .gen = gen, .time = trace.clock[gen % 2].units, .symbols = symbols };
    struct trace_buf *bufs = assemble(&f, &ok), *b = bufs;
    if (!ok) {
        trace_bufs_free(bufs);
        return NULL;
    }
    while (b->next != NULL)
        b = b->next;
    b->data[b->len++] = TRACE_END_OF_GENERATION; /* as in generation_new */
    return bufs;
}

bool trace_wait_due(int64_t timeout_ns)
{
    if (load_rlx(&trace.due) == 0) /* rlx: the futex looks again */
        os_futex_wait(&trace.due, 0, timeout_ns);
    return load_rlx(&trace.due) != 0; /* rlx: hint */
}

struct trace_stats trace_stats(void)
{
    lock_take(&lock);
    struct trace_stats s = total;
    lock_drop(&lock);
    return s;
}

/* ---- readers ------------------------------------------------------------------------------------------------------------ */

int trace_reader_open(weft_writer *w, void *ctx, struct trace_reader **out)
{
    struct trace_reader *r = off_zalloc(OFF_TRACE, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    r->writer = w;
    r->ctx = ctx;
    int at = -1, err = 0;
    lock_take(&lock);
    for (int i = 0; i < TRACE_READERS; i++) {
        if (readers[i] == NULL)
            at = i;
        else if (readers[i]->writer == w && readers[i]->ctx == ctx)
            err = -EALREADY;
    }
    if (err == 0 && at < 0)
        err = -ENOSPC;
    if (err == 0)
        readers[at] = r;
    lock_drop(&lock);
    if (err != 0) {
        off_free(OFF_TRACE, r);
        return err;
    }
    *out = r;
    return 0;
}

void trace_reader_close(struct trace_reader *r)
{
    lock_take(&lock);
    r->closing = true;
    add_rlx(&r->event, 1); /* rlx: under the lock, which the pump takes, too */
    os_futex_wake(&r->event, INT_MAX);
    lock_drop(&lock);
}

struct trace_reader_stats trace_reader_stats(struct trace_reader *r)
{
    lock_take(&lock);
    struct trace_reader_stats s = r->stats;
    lock_drop(&lock);
    return s;
}

static void last_put(struct trace_reader *r)
{
    generation_put(r->last);
    r->last = NULL;
}

/* What is queued counts as dropped. */
static void drop_all(struct trace_reader *r)
{
    struct queued q[QUEUE];
    lock_take(&lock);
    uint32_t n = r->nqueued;
    memcpy(q, r->queue, n * sizeof *q);
    r->nqueued = r->holding = 0;
    r->stats.dropped += n;
    lock_drop(&lock);
    for (uint32_t i = 0; i < n; i++)
        generation_put(q[i].g);
    last_put(r);
}

void trace_reader_free(struct trace_reader *r)
{
    lock_take(&lock);
    for (int i = 0; i < TRACE_READERS; i++)
        if (readers[i] == r)
            readers[i] = NULL;
    lock_drop(&lock);
    drop_all(r);
    off_free(OFF_TRACE, r);
}

/* The next one; false: there will be none. */
static bool next(struct trace_reader *r, struct queued *q)
{
    for (;;) {
        lock_take(&lock);
        uint32_t seen = load_rlx(&r->event); /* rlx: under the lock */
        bool some = r->nqueued > 0, closing = r->closing;
        if (some) {
            *q = r->queue[0];
            memmove(r->queue, r->queue + 1, --r->nqueued * sizeof *q);
        }
        lock_drop(&lock);
        if (some || closing)
            return some;
        os_futex_wait(&r->event, seen, -1);
    }
}

/* Finds out what must be told of the gap before q; false: no memory. */
static bool gap_read(struct trace_reader *r, const struct queued *q, struct trace_gap *gap)
{
    *gap = (struct trace_gap){
        .gen = r->last->number + 1, .missing = q->gap, .before = r->last->bufs, .after = q->g->bufs,
        .began = q->gap_began, .ends = q->g->began.units, .saw_gc = r->saw_gc, .gc_before = r->last->gc_after, .gc_after = q->g->gc_before,
    };
    return trace_gap_read(gap) == 0;
}

/* The gap before the next one begins where that before q does. */
static void skip(struct trace_reader *r, const struct queued *q)
{
    r->skipped = q->gap + 1;
    r->skipped_began = q->gap_began;
    generation_put(q->g);
}

static void add_skipped(struct trace_reader *r, struct queued *q)
{
    if (r->skipped == 0)
        return;
    q->gap += r->skipped;
    q->gap_began = r->skipped_began;
    r->skipped = 0;
}

/* What lies between the last one and q, then q. False: there was no memory for that, and nothing is written. */
static bool write_one(struct trace_reader *r, struct queued *q, uint64_t *bytes, int *err)
{
    struct trace_gap gap;
    add_skipped(r, q);
    bool bridge = q->gap != 0 && r->last != NULL;
    if (bridge && !gap_read(r, q, &gap)) {
        skip(r, q);
        return false;
    }
    last_put(r); /* [SHARE]: before the writer is called */
    if (bridge) {
        *err = trace_gap_write(&gap, r->writer, r->ctx, bytes);
        r->saw_gc |= gap.saw_gc;
    }
    for (const struct trace_buf *b = q->g->bufs; b != NULL && *err == 0; b = b->next) {
        *err = r->writer(r->ctx, b->data, b->len);
        *bytes += b->len;
    }
    r->saw_gc |= q->g->gc_events;
    r->last = q->g;
    return true;
}

int trace_reader_pump(struct trace_reader *r)
{
    uint8_t header[TRACE_HEADER_BYTES];
    trace_put_header(header);
    int err = r->writer(r->ctx, header, sizeof header);
    uint64_t bytes = sizeof header;
    for (struct queued q; err == 0 && next(r, &q);) {
        uint32_t nbufs = q.g->nbufs;
        bool wrote = write_one(r, &q, &bytes, &err) && err == 0;
        lock_take(&lock);
        r->holding -= nbufs;
        r->stats.generations += wrote;
        r->stats.dropped += !wrote;
        r->stats.bytes = wrote ? bytes : r->stats.bytes;
        lock_drop(&lock);
    }
    lock_take(&lock);
    r->stats.err = err;
    lock_drop(&lock);
    drop_all(r);
    return err;
}

void trace_after_fork(void)
{
    lock_init(&lock, RANK_LEAF); /* a pump may have held it */
    memset(readers, 0, sizeof readers);
    total = (struct trace_stats){ 0 };
    trace_buffers_after_fork();
}
