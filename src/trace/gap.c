/* What is between a generation that was written and the next one that is, where others were dropped.
 *
 * Go's reader goes on from one generation to the next with all it knows: a fiber that runs is not told to wait unless an event says so, one that is
 * new must have been created. So a gap is bridged by events: in them all fibers that were there at its beginning end, and all that are there at its
 * end are made, with the same numbers, and brought to the state in which the next generation begins: on the same threads, with the same processors,
 * in the middle of the same sweeps and assists. A log of the user, on a fiber that lives for just that, says how many generations are missing.
 *
 *      written          gap                                                                        written
 *      ... | all threads let go | worker thread: fibers end | log | fibers are made | threads take up what is theirs | ...
 *          began                                                  ends
 *
 * How the one before ends, and how the one after begins, is read from their events ([RULES]: each fiber and processor is told of in each generation).
 * The beginning is in the states told there. The end is found without sorting the threads' events: a fiber's (a processor's) last state is that of
 * its highest number, and of the last event bound to the thread behind that; those follow it on the same thread. So each event has a key (number,
 * place behind it), and the highest key wins, whatever the order in which they are read. Sweeps have keys of their own, as they outlive a change
 * of state. What the collector does is counted through all generations already. */
#include "trace/gap.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/fmt.h"
#include "base/offheap.h"

#define WORKER 0 /* a thread id that no thread has */
#define SPEAKER (1ull << 62) /* a fiber's that none has */

/* ---- what is known of fibers, processors, threads ------------------------------------------------------------------ */

enum kind { FIBER = 1, PROC, THREAD };

struct key { uint32_t number, place; };

/* A fiber or a processor; or, with its own meaning, a thread. Small: there may be a million fibers. */
struct thing {
    uint64_t id;
    uint8_t kind;           /* 0: the slot is free */
    uint8_t status;         /* enum trace_go_status or trace_proc_status; 0: it is no more, or not there yet */
    bool range;             /* is in the middle of an assist, or a sweep */
    bool proc_in_syscall;   /* a thread's */
    uint32_t seq;           /* a processor's, for writing */
    struct key key, sweep_key;
    uint64_t m;             /* where it runs or is in a syscall */
    /* a thread: what it has, as far as its own events say, and the keys they go on with */
    uint64_t fiber, proc;   /* 0, TRACE_NONE: none */
    struct key fiber_key, proc_key;
};

/* By open addressing; grows. */
struct things {
    struct thing *slot;
    size_t room, n;
    bool nomem;
    struct thing none; /* stands for those for which there is no memory */
};

static size_t slot_of(const struct things *t, uint64_t kind, uint64_t id)
{
    size_t i = (size_t)((id * 4 + kind) * 0x9e3779b97f4a7c15 >> 20) & (t->room - 1);
    while (t->slot[i].kind != 0 && (t->slot[i].kind != kind || t->slot[i].id != id))
        i = (i + 1) & (t->room - 1);
    return i;
}

static struct thing *lookup(const struct things *t, enum kind kind, uint64_t id)
{
    struct thing *x = t->room != 0 ? &t->slot[slot_of(t, kind, id)] : NULL;
    return x != NULL && x->kind != 0 ? x : NULL;
}

static bool grow(struct things *t)
{
    struct things bigger = { .room = t->room != 0 ? t->room * 2 : 256 };
    bigger.slot = off_zalloc(OFF_TRACE, bigger.room * sizeof *bigger.slot);
    if (bigger.slot == NULL)
        return false;
    for (size_t i = 0; i < t->room; i++)
        if (t->slot[i].kind != 0)
            bigger.slot[slot_of(&bigger, t->slot[i].kind, t->slot[i].id)] = t->slot[i];
    off_free(OFF_TRACE, t->slot);
    t->slot = bigger.slot;
    t->room = bigger.room;
    return true;
}

/* Never NULL: without memory it is one that does not count, and nomem says so. Holds until the next call. */
static struct thing *thing(struct things *t, enum kind kind, uint64_t id)
{
    if (t->n * 4 >= t->room * 3 && !grow(t)) {
        t->nomem = true;
        return &t->none;
    }
    struct thing *x = &t->slot[slot_of(t, kind, id)];
    if (x->kind == 0) {
        *x = (struct thing){ .id = id, .kind = (uint8_t)kind, .m = TRACE_NONE, .proc = TRACE_NONE };
        t->n++;
    }
    return x;
}

#define each_thing(x, t, k) \
    for (struct thing *x = (t)->slot; x < (t)->slot + (t)->room; x++) \
        if (x->kind == (k))

/* ---- how a generation ends ------------------------------------------------------------------------------------------------ */

static bool later(struct key a, struct key b) { return a.number != b.number ? a.number > b.number : a.place >= b.place; }

static void fiber_is(struct things *t, uint64_t id, struct key key, uint32_t status, uint64_t m)
{
    struct thing *g = thing(t, FIBER, id);
    if (later(key, g->key)) {
        g->key = key;
        g->status = (uint8_t)status;
        g->m = m;
    }
}

static void proc_is(struct things *t, uint64_t id, struct key key, uint32_t status, uint64_t m)
{
    struct thing *p = thing(t, PROC, id);
    if (later(key, p->key)) {
        p->key = key;
        p->status = (uint8_t)status;
        p->m = m;
    }
}

static void sweeps(struct things *t, uint64_t id, struct key key, bool on)
{
    struct thing *p = thing(t, PROC, id);
    if (later(key, p->sweep_key)) {
        p->sweep_key = key;
        p->range = on;
    }
}

#define KEY(seq) ((struct key){ (uint32_t)(seq), 0 })
#define HAS_FIBER(mt, id, k) ((mt)->fiber = (id), (mt)->fiber_key = (k))
#define HAS_PROC(mt, id, k) ((mt)->proc = (id), (mt)->proc_key = (k), (mt)->proc_in_syscall = false)

/* One event of thread m. What the thread has is copied out and in, since other things may move meanwhile. */
static void end_event(struct things *t, uint64_t m, const struct trace_record *ev)
{
    const uint64_t *a = ev->args;
    struct thing th = *thing(t, THREAD, m);
    struct key zero = { 0, 0 };
    struct key fk = { th.fiber_key.number, th.fiber_key.place + 1 }, pk = { th.proc_key.number, th.proc_key.place + 1 };
    switch (ev->type) {
    case TRACE_PROC_STATUS:
        proc_is(t, a[0], zero, (uint32_t)a[1], m);
        if (a[1] == TRACE_PROC_RUNNING || a[1] == TRACE_PROC_SYSCALL) {
            HAS_PROC(&th, a[0], zero);
            th.proc_in_syscall = a[1] == TRACE_PROC_SYSCALL;
        }
        break;
    case TRACE_PROC_START:
        proc_is(t, a[0], KEY(a[1]), TRACE_PROC_RUNNING, m);
        HAS_PROC(&th, a[0], KEY(a[1]));
        break;
    case TRACE_PROC_STOP:
        proc_is(t, th.proc, pk, TRACE_PROC_IDLE, m);
        HAS_PROC(&th, TRACE_NONE, zero);
        break;
    case TRACE_PROC_STEAL:
        proc_is(t, a[0], KEY(a[1]), TRACE_PROC_IDLE, m);
        if (th.proc == a[0]) /* from itself */
            HAS_PROC(&th, TRACE_NONE, zero);
        break;
    case TRACE_GO_STATUS:
    case TRACE_GO_STATUS_STACK:
        fiber_is(t, a[0], zero, (uint32_t)a[2], a[2] == TRACE_GO_SYSCALL ? a[1] : m);
        if (a[2] == TRACE_GO_RUNNING || (a[2] == TRACE_GO_SYSCALL && a[1] == m))
            HAS_FIBER(&th, a[0], zero);
        break;
    case TRACE_GO_CREATE:
    case TRACE_GO_CREATE_BLOCKED:
        fiber_is(t, a[0], zero, ev->type == TRACE_GO_CREATE ? TRACE_GO_RUNNABLE : TRACE_GO_WAITING, m);
        break;
    case TRACE_GO_CREATE_SYSCALL:
        fiber_is(t, a[0], zero, TRACE_GO_SYSCALL, m);
        HAS_FIBER(&th, a[0], zero);
        break;
    case TRACE_GO_START:
        fiber_is(t, a[0], KEY(a[1]), TRACE_GO_RUNNING, m);
        HAS_FIBER(&th, a[0], KEY(a[1]));
        break;
    case TRACE_GO_UNBLOCK:
        fiber_is(t, a[0], KEY(a[1]), TRACE_GO_RUNNABLE, m);
        break;
    case TRACE_GO_STOP:
    case TRACE_GO_BLOCK:
    case TRACE_GO_DESTROY:
        fiber_is(t, th.fiber, fk, ev->type == TRACE_GO_STOP ? TRACE_GO_RUNNABLE : ev->type == TRACE_GO_BLOCK ? TRACE_GO_WAITING : 0, m);
        HAS_FIBER(&th, 0, zero);
        break;
    case TRACE_GO_SWITCH:
    case TRACE_GO_SWITCH_DESTROY:
        fiber_is(t, th.fiber, fk, ev->type == TRACE_GO_SWITCH ? TRACE_GO_WAITING : 0, m);
        fiber_is(t, a[0], KEY(a[1]), TRACE_GO_RUNNING, m);
        HAS_FIBER(&th, a[0], KEY(a[1]));
        break;
    case TRACE_GO_SYSCALL_BEGIN:
        fiber_is(t, th.fiber, fk, TRACE_GO_SYSCALL, m);
        th.fiber_key = fk;
        th.proc_key = KEY(a[0]);
        proc_is(t, th.proc, th.proc_key, TRACE_PROC_SYSCALL, m);
        th.proc_in_syscall = true;
        break;
    case TRACE_GO_SYSCALL_END:
        fiber_is(t, th.fiber, fk, TRACE_GO_RUNNING, m);
        th.fiber_key = fk;
        proc_is(t, th.proc, pk, TRACE_PROC_RUNNING, m);
        th.proc_key = pk;
        th.proc_in_syscall = false;
        break;
    case TRACE_GO_SYSCALL_END_BLOCKED:
        fiber_is(t, th.fiber, fk, TRACE_GO_RUNNABLE, m);
        HAS_FIBER(&th, 0, zero);
        if (th.proc_in_syscall) /* it was stolen */
            HAS_PROC(&th, TRACE_NONE, zero);
        break;
    case TRACE_GO_DESTROY_SYSCALL:
        fiber_is(t, th.fiber, fk, 0, m);
        HAS_FIBER(&th, 0, zero);
        if (th.proc_in_syscall) /* as far as this thread knows; a steal has a higher number */
            proc_is(t, th.proc, pk, TRACE_PROC_ABANDONED, m);
        HAS_PROC(&th, TRACE_NONE, zero);
        break;
    case TRACE_GC_SWEEP_ACTIVE:
        sweeps(t, a[0], zero, true);
        break;
    case TRACE_GC_SWEEP_BEGIN:
    case TRACE_GC_SWEEP_END:
        sweeps(t, th.proc, pk, ev->type == TRACE_GC_SWEEP_BEGIN);
        th.proc_key = pk;
        break;
    default:
        break;
    }
    *thing(t, THREAD, m) = th;
}

/* ---- how a generation begins ------------------------------------------------------------------------------------------------ */

static void begin_event(struct things *t, uint64_t m, const struct trace_record *ev)
{
    const uint64_t *a = ev->args;
    if (ev->type == TRACE_PROC_STATUS) {
        struct thing *p = thing(t, PROC, a[0]);
        p->status = (uint8_t)a[1];
        p->m = m;
    } else if (ev->type == TRACE_GO_STATUS || ev->type == TRACE_GO_STATUS_STACK) {
        struct thing *g = thing(t, FIBER, a[0]);
        g->status = (uint8_t)a[2];
        g->m = a[2] == TRACE_GO_SYSCALL ? a[1] : m;
    } else if (ev->type == TRACE_GC_SWEEP_ACTIVE) {
        thing(t, PROC, a[0])->range = true;
    } else if (ev->type == TRACE_GC_MARK_ASSIST_ACTIVE) {
        thing(t, FIBER, a[0])->range = true;
    }
}

static void read_generation(struct things *t, const struct trace_buf *list, void (*fn)(struct things *t, uint64_t m, const struct trace_record *ev))
{
    for (const struct trace_buf *b = list; b != NULL; b = b->next) {
        const uint8_t *p = b->data, *end = b->data + b->len;
        struct trace_batch batch;
        struct trace_record ev;
        if (!trace_get_batch(&p, end, &batch))
            continue;
        for (end = p + batch.length; trace_get_event(&p, end, &ev);) /* a table has none */
            fn(t, batch.m, &ev);
    }
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

struct pen {
    weft_writer *writer;
    void *ctx;
    uint64_t *bytes;
    int err;
    uint32_t gen;
    uint64_t m, time, last;
    uint8_t *at, *contents; /* at NULL: no batch is open */
    uint8_t data[4096];
};

/* How the one before ends, how the one after begins, and how things are while the bridge is written. */
struct sides { struct things old, new, now; struct pen pen; };

static void pen_write(struct pen *w, const void *data, size_t n)
{
    if (w->err == 0)
        w->err = w->writer(w->ctx, data, n);
    *w->bytes += n;
}

static void pen_flush(struct pen *w)
{
    if (w->at != NULL) {
        trace_batch_close(w->contents, w->at);
        pen_write(w, w->data, (size_t)(w->at - w->data));
    }
    w->at = NULL;
}

static void pen_batch(struct pen *w, uint64_t m)
{
    pen_flush(w);
    w->m = m;
    w->last = w->time;
    w->at = w->contents = trace_batch_open(w->data, w->gen, m, w->time);
}

/* An event of thread m, now. */
static void put(struct pen *w, uint64_t m, enum trace_type type, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t args[TRACE_ARGS_MAX] = { a, b, c, d };
    if (w->at == NULL || w->m != m || w->at + TRACE_EVENT_MAX > w->data + sizeof w->data)
        pen_batch(w, m);
    *w->at++ = (uint8_t)type;
    w->at = trace_put(w->at, w->time - w->last);
    w->last = w->time;
    for (unsigned i = 0; i + 1 < trace_args[type]; i++)
        w->at = trace_put(w->at, args[i]);
}

static void put_text(struct pen *w, uint64_t id, const char *text)
{
    size_t n = strlen(text);
    *w->at++ = TRACE_STRING;
    w->at = trace_put(w->at, id);
    w->at = trace_put(w->at, n);
    memcpy(w->at, text, n);
    w->at += n;
}

/* Clock and texts. */
static void put_tables(struct pen *w, const struct trace_gap *gap)
{
    char text[80];
    w_fmt(text, sizeof text, "%u generations of the trace are missing here", gap->missing);
    pen_batch(w, TRACE_NONE);
    *w->at++ = TRACE_SYNC;
    w->at = trace_put_sync(w->at, TRACE_UNITS_PER_SECOND, (uint64_t)gap->began.mono_ns, (uint64_t)gap->began.wall_ns);
    pen_batch(w, TRACE_NONE);
    *w->at++ = TRACE_STRINGS;
    put_text(w, 1, "weft");
    put_text(w, 2, text);
    pen_flush(w);
}

/* All threads let go of what they have. A processor whose fiber ends in a syscall is abandoned, as in Go. */
static void let_go(struct pen *w, struct things *old)
{
    each_thing(p, old, PROC)
        if (p->range)
            put(w, p->m, TRACE_GC_SWEEP_END, 0, 0, 0, 0);
    each_thing(g, old, FIBER) {
        if (g->status != TRACE_GO_RUNNING && g->status != TRACE_GO_SYSCALL)
            continue;
        put(w, g->m, g->status == TRACE_GO_RUNNING ? TRACE_GO_DESTROY : TRACE_GO_DESTROY_SYSCALL, 0, 0, 0, 0);
        g->status = 0;
    }
    w->time++;
    each_thing(p, old, PROC) {
        if (p->status == TRACE_PROC_RUNNING) {
            put(w, p->m, TRACE_PROC_STOP, 0, 0, 0, 0);
            p->status = TRACE_PROC_IDLE;
        } else if (p->status == TRACE_PROC_SYSCALL) {
            p->status = TRACE_PROC_ABANDONED;
        }
    }
    w->time++;
}

/* All processors idle, and numbered anew. */
static void proc_told(struct pen *w, struct things *now, uint64_t id, uint32_t status)
{
    struct thing *p = thing(now, PROC, id);
    if (p->status != 0)
        return;
    p->status = TRACE_PROC_IDLE;
    put(w, WORKER, TRACE_PROC_STATUS, id, status, 0, 0);
    if (status == TRACE_PROC_ABANDONED)
        put(w, WORKER, TRACE_PROC_STEAL, id, ++p->seq, TRACE_NONE, 0);
}

static void proc_start(struct pen *w, struct things *now, uint64_t m, uint64_t id)
{
    put(w, m, TRACE_PROC_START, id, ++thing(now, PROC, id)->seq, 0, 0);
}

/* What the collector did meanwhile, as far as the reader must be told: events of its numbers, up to the last. */
static void put_gc(struct pen *w, struct trace_gap *gap)
{
    uint64_t at = gap->gc_before / 2, to = gap->gc_after / 2;
    bool runs = gap->gc_before & 1, will_run = gap->gc_after & 1;
    if (to == 0 || (!gap->saw_gc && !will_run)) /* the first one that the reader sees may have any number */
        return;
    if (!gap->saw_gc)
        at = to - 1, runs = false;
    while (at < to) {
        at++;
        if (!runs)
            put(w, WORKER, TRACE_GC_BEGIN, at, 0, 0, 0);
        else if (at == to && !will_run)
            put(w, WORKER, TRACE_GC_END, at, 0, 0, 0);
        else
            put(w, WORKER, TRACE_GC_ACTIVE, at, 0, 0, 0);
        runs = true;
    }
    gap->saw_gc = true;
}

/* The worker has a processor. */
static void end_fibers(struct pen *w, struct things *old, struct trace_gap *gap)
{
    each_thing(g, old, FIBER) {
        if (g->status == 0)
            continue;
        uint64_t seq = 0;
        put(w, WORKER, TRACE_GO_STATUS, g->id, TRACE_NONE, g->status, 0);
        if (g->status == TRACE_GO_WAITING)
            put(w, WORKER, TRACE_GO_UNBLOCK, g->id, ++seq, 0, 0);
        put(w, WORKER, TRACE_GO_START, g->id, ++seq, 0, 0);
        put(w, WORKER, TRACE_GO_DESTROY, 0, 0, 0, 0);
    }
    put(w, WORKER, TRACE_GO_CREATE, SPEAKER, 0, 0, 0);
    put(w, WORKER, TRACE_GO_START, SPEAKER, 1, 0, 0);
    put(w, WORKER, TRACE_USER_LOG, 0, 1, 2, 0);
    put_gc(w, gap);
    put(w, WORKER, TRACE_GO_DESTROY, 0, 0, 0, 0);
}

/* Those that wait or can run are ready; the others can run, for the time being. */
static void make_fibers(struct pen *w, struct things *new)
{
    each_thing(g, new, FIBER) {
        bool waits = g->status == TRACE_GO_WAITING, aside = waits || g->status == TRACE_GO_RUNNABLE;
        put(w, WORKER, waits && !g->range ? TRACE_GO_CREATE_BLOCKED : TRACE_GO_CREATE, g->id, 0, 0, 0);
        if (!aside || !g->range)
            continue;
        put(w, WORKER, TRACE_GO_START, g->id, 1, 0, 0);
        put(w, WORKER, TRACE_GC_MARK_ASSIST_BEGIN, 0, 0, 0, 0);
        put(w, WORKER, waits ? TRACE_GO_BLOCK : TRACE_GO_STOP, 0, 0, 0, 0);
    }
}

/* A processor that nobody has, though it is not idle: a fiber ends with it in a syscall. The worker has none, before and after. */
static void abandon(struct pen *w, struct things *now, uint64_t id)
{
    proc_start(w, now, WORKER, id);
    put(w, WORKER, TRACE_GO_CREATE, SPEAKER, 0, 0, 0);
    put(w, WORKER, TRACE_GO_START, SPEAKER, 1, 0, 0);
    put(w, WORKER, TRACE_GO_SYSCALL_BEGIN, ++thing(now, PROC, id)->seq, 0, 0, 0);
    put(w, WORKER, TRACE_GO_DESTROY_SYSCALL, 0, 0, 0, 0);
}

/* On its own thread: g goes on with the processor that the thread has. */
static void run_fiber_there(struct pen *w, const struct thing *g)
{
    put(w, g->m, TRACE_GO_START, g->id, 1, 0, 0);
    if (g->range)
        put(w, g->m, TRACE_GC_MARK_ASSIST_BEGIN, 0, 0, 0, 0);
}

/* Threads take up what is theirs. `any` is a processor that idles till then. */
static void take_up(struct pen *w, struct things *new, struct things *now, uint64_t any)
{
    each_thing(p, new, PROC)
        if (p->status == TRACE_PROC_RUNNING || p->status == TRACE_PROC_SYSCALL)
            thing(now, THREAD, p->m)->proc = p->id;
    each_thing(g, new, FIBER) /* in a syscall, without a processor */
        if (g->status == TRACE_GO_SYSCALL && lookup(now, THREAD, g->m) == NULL) {
            proc_start(w, now, g->m, any);
            run_fiber_there(w, g);
            put(w, g->m, TRACE_GO_SYSCALL_BEGIN, ++thing(now, PROC, any)->seq, 0, 0, 0);
            put(w, g->m, TRACE_PROC_STOP, 0, 0, 0, 0);
        }
    w->time++;
    each_thing(p, new, PROC)
        if (p->status == TRACE_PROC_RUNNING || p->status == TRACE_PROC_SYSCALL) {
            proc_start(w, now, p->m, p->id);
            if (p->range)
                put(w, p->m, TRACE_GC_SWEEP_BEGIN, 0, 0, 0, 0);
        }
    w->time++;
    each_thing(g, new, FIBER) {
        struct thing *th = g->status == TRACE_GO_RUNNING || g->status == TRACE_GO_SYSCALL ? lookup(now, THREAD, g->m) : NULL;
        if (th == NULL)
            continue;
        run_fiber_there(w, g);
        if (g->status == TRACE_GO_SYSCALL)
            put(w, g->m, TRACE_GO_SYSCALL_BEGIN, ++thing(now, PROC, th->proc)->seq, 0, 0, 0);
    }
}

static void bridge(struct pen *w, struct trace_gap *gap, struct things *old, struct things *new, struct things *now)
{
    uint64_t any = TRACE_NONE;
    w->time = gap->began.units;
    put_tables(w, gap);
    let_go(w, old);
    each_thing(p, old, PROC) {
        proc_told(w, now, p->id, p->status);
        any = p->id;
    }
    each_thing(p, new, PROC) {
        proc_told(w, now, p->id, TRACE_PROC_IDLE);
        any = p->id;
    }
    if (any != TRACE_NONE) { /* else there is nothing that could be told */
        proc_start(w, now, WORKER, any);
        end_fibers(w, old, gap);
        w->time = w_max(w->time, gap->ends);
        make_fibers(w, new);
        put(w, WORKER, TRACE_PROC_STOP, 0, 0, 0, 0);
        w->time++;
        take_up(w, new, now, any);
        w->time++;
        each_thing(p, new, PROC)
            if (p->status == TRACE_PROC_ABANDONED)
                abandon(w, now, p->id);
    }
    pen_flush(w);
    pen_write(w, &(uint8_t){ TRACE_END_OF_GENERATION }, 1);
}

/* Room for all that a bridge adds to `now`: no memory is taken while it is written, for half a bridge would spoil the file. */
static bool now_reserve(struct sides *s)
{
    size_t most = 0;
    each_thing(p, &s->old, PROC)
        most++;
    each_thing(p, &s->new, PROC)
        most += 2; /* and the thread that has it */
    while (most * 4 >= s->now.room * 3)
        if (!grow(&s->now))
            return false;
    return true;
}

static void sides_free(struct sides *s)
{
    if (s == NULL)
        return;
    off_free(OFF_TRACE, s->old.slot);
    off_free(OFF_TRACE, s->new.slot);
    off_free(OFF_TRACE, s->now.slot);
    off_free(OFF_TRACE, s);
}

int trace_gap_read(struct trace_gap *gap)
{
    struct sides *s = off_zalloc(OFF_TRACE, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    read_generation(&s->old, gap->before, end_event);
    read_generation(&s->new, gap->after, begin_event);
    if (s->old.nomem || s->new.nomem || !now_reserve(s)) {
        sides_free(s);
        return -ENOMEM;
    }
    gap->sides = s;
    return 0;
}

int trace_gap_write(struct trace_gap *gap, weft_writer *writer, void *ctx, uint64_t *bytes)
{
    int err = gap->sides == NULL ? trace_gap_read(gap) : 0;
    if (err != 0)
        return err;
    struct sides *s = gap->sides;
    s->pen = (struct pen){ .writer = writer, .ctx = ctx, .bytes = bytes, .gen = gap->gen };
    bridge(&s->pen, gap, &s->old, &s->new, &s->now);
    w_debug_assert(!s->now.nomem);
    err = s->pen.err;
    sides_free(s);
    gap->sides = NULL;
    return err;
}
