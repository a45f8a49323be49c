/* How long fibers that could run waited for a processor.
 *
 * The scheduler measures one wake-up in eight at most ([LATENCY]); who waits for the one that took too long wants to know of each. The trace has them all,
 * so they are read off it, on a thread that has time for that, and who emits pays nothing.
 *
 * Events of a thread are in order, those of different threads are not. But what makes a fiber runnable and what lets it run fit together by their
 * numbers ([RULES]): behind number n of the fiber (0: its state, or its creation), and before n + 1. So each such event looks for its other half
 * under (fiber, n): who comes second finds the first. What is left without its other half at the end can run still, and is carried over: its state in
 * the next generation is looked up there.
 *
 *      GO_CREATE g               (g, 0)  ----+
 *      GO_STATUS g, runnable     (g, 0)  ----+--->  GO_START g, n + 1
 *      GO_UNBLOCK g, n           (g, n)  ----+
 *      GO_STOP, GO_SYSCALL_END_BLOCKED (g, n)    of the fiber that the thread has, since its number n */
#include "trace/watch.h"
#include <errno.h>
#include <string.h>
#include "base/offheap.h"

struct half {
    uint64_t fiber; /* 0: free */
    uint64_t time;  /* units: since when it can run, or when it was run */
    uint32_t number;
    bool ran;
};

struct halves { struct half *at; size_t room, n; };

struct on { uint64_t m, fiber; uint32_t number; bool used; };
#define THREADS 4096u

struct watch {
    size_t limit;
    uint32_t last;          /* generation */
    uint64_t end;           /* the latest time seen in it */
    struct halves now, before; /* before: those of the generation before that can run still, by number 0 */
    struct on on[THREADS];
    struct watch_found found;
    bool nomem;
};

/* ---- halves --------------------------------------------------------------------------------------------------- */

static size_t slot_of(const struct halves *h, uint64_t fiber, uint32_t number)
{
    size_t i = (size_t)((fiber + (uint64_t)number * 0x632be59bd9b4e019) * 0x9e3779b97f4a7c15 >> 20) & (h->room - 1);
    while (h->at[i].fiber != 0 && (h->at[i].fiber != fiber || h->at[i].number != number))
        i = (i + 1) & (h->room - 1);
    return i;
}

static struct half *look(const struct halves *h, uint64_t fiber, uint32_t number)
{
    struct half *x = h->room != 0 ? &h->at[slot_of(h, fiber, number)] : NULL;
    return x != NULL && x->fiber != 0 ? x : NULL;
}

static bool grow(struct watch *w, struct halves *h)
{
    struct halves bigger = { .room = h->room != 0 ? h->room * 2 : 1024, .n = h->n };
    if (bigger.room * sizeof *bigger.at > w->limit || (bigger.at = off_zalloc(OFF_TRACE, bigger.room * sizeof *bigger.at)) == NULL)
        return false;
    for (size_t i = 0; i < h->room; i++)
        if (h->at[i].fiber != 0)
            bigger.at[slot_of(&bigger, h->at[i].fiber, h->at[i].number)] = h->at[i];
    off_free(OFF_TRACE, h->at);
    *h = bigger;
    return true;
}

static void add(struct watch *w, struct halves *h, struct half x)
{
    if (h->n * 4 >= h->room * 3 && !grow(w, h)) {
        w->nomem = true;
        return;
    }
    h->at[slot_of(h, x.fiber, x.number)] = x;
    h->n++;
}

static void waited(struct watch *w, uint64_t fiber, uint64_t from, uint64_t to)
{
    uint64_t ns = to > from ? (to - from) * TRACE_UNIT_NS : 0;
    if (ns > w->found.ns)
        w->found = (struct watch_found){ fiber, ns };
}

/* One half: can run since time, or was run then. The other one stays where it is, with no length, since an open table has no holes. */
static void half(struct watch *w, uint64_t fiber, uint32_t number, uint64_t time, bool ran)
{
    struct half *x = look(&w->now, fiber, number);
    if (x == NULL) {
        add(w, &w->now, (struct half){ fiber, time, number, ran });
        return;
    }
    if (x->ran != ran)
        waited(w, fiber, ran ? x->time : time, ran ? time : x->time);
    x->ran = true;
    x->time = 0;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static struct on *thread(struct watch *w, uint64_t m)
{
    size_t i = (size_t)(m * 0x9e3779b97f4a7c15 >> 52);
    for (size_t k = 0; k < THREADS; k++, i = (i + 1) % THREADS)
        if (!w->on[i].used || w->on[i].m == m) {
            w->on[i].used = true;
            w->on[i].m = m;
            return &w->on[i];
        }
    w->nomem = true;
    return &w->on[0];
}

static void event(struct watch *w, struct on *on, const struct trace_record *ev, uint64_t time)
{
    const struct half *was;
    switch (ev->type) {
    case TRACE_GO_CREATE:
        half(w, ev->args[0], 0, time, false);
        break;
    case TRACE_GO_STATUS:
    case TRACE_GO_STATUS_STACK:
        if (ev->args[2] == TRACE_GO_RUNNING || ev->args[2] == TRACE_GO_SYSCALL)
            *on = (struct on){ on->m, ev->args[0], 0, true };
        if (ev->args[2] == TRACE_GO_RUNNABLE) {
            was = look(&w->before, ev->args[0], 0);
            half(w, ev->args[0], 0, was != NULL ? was->time : time, false);
        }
        break;
    case TRACE_GO_UNBLOCK:
        half(w, ev->args[0], (uint32_t)ev->args[1], time, false);
        break;
    case TRACE_GO_START:
        half(w, ev->args[0], (uint32_t)ev->args[1] - 1, time, true);
        *on = (struct on){ on->m, ev->args[0], (uint32_t)ev->args[1], true };
        break;
    case TRACE_GO_SWITCH:
    case TRACE_GO_SWITCH_DESTROY:
        *on = (struct on){ on->m, ev->args[0], (uint32_t)ev->args[1], true };
        break;
    case TRACE_GO_CREATE_SYSCALL:
        *on = (struct on){ on->m, ev->args[0], 0, true };
        break;
    case TRACE_GO_STOP:
    case TRACE_GO_SYSCALL_END_BLOCKED:
        if (on->fiber != 0)
            half(w, on->fiber, on->number, time, false);
        on->fiber = 0;
        break;
    case TRACE_GO_BLOCK:
    case TRACE_GO_DESTROY:
    case TRACE_GO_DESTROY_SYSCALL:
        on->fiber = 0;
        break;
    default:
        break;
    }
}

static void batch(struct watch *w, const struct trace_buf *b)
{
    const uint8_t *p = b->data;
    struct trace_batch head;
    if (!trace_get_batch(&p, b->data + b->len, &head) || head.length == 0 || trace_args[*p] == 0)
        return; /* a table, or the clock */
    const uint8_t *end = p + head.length;
    struct on none = { 0 }, *on = head.m != TRACE_NONE ? thread(w, head.m) : &none;
    uint64_t time = head.time;
    for (struct trace_record ev; p < end && trace_get_event(&p, end, &ev);) {
        time += ev.time;
        event(w, on, &ev, time);
    }
    w->end = w_max(w->end, time);
}

/* Those that can run still. */
static void carry(struct watch *w)
{
    struct halves next = { 0 };
    for (size_t i = 0; i < w->now.room; i++) {
        struct half *x = &w->now.at[i];
        if (x->fiber == 0 || x->ran)
            continue;
        waited(w, x->fiber, x->time, w->end);
        add(w, &next, (struct half){ .fiber = x->fiber, .time = x->time });
    }
    off_free(OFF_TRACE, w->before.at);
    w->before = next;
}

int watch_generation(struct watch *w, uint32_t number, const struct trace_buf *bufs, struct watch_found *out)
{
    if (number != w->last + 1) {
        off_free(OFF_TRACE, w->before.at);
        w->before = (struct halves){ 0 };
    }
    w->last = number;
    w->end = 0;
    w->nomem = false;
    w->found = (struct watch_found){ 0 };
    memset(w->on, 0, sizeof w->on);
    for (; bufs != NULL && !w->nomem; bufs = bufs->next)
        batch(w, bufs);
    carry(w);
    off_free(OFF_TRACE, w->now.at);
    w->now = (struct halves){ 0 };
    *out = w->found;
    return w->nomem ? -ENOMEM : 0;
}

struct watch *watch_new(size_t limit_bytes)
{
    struct watch *w = off_zalloc(OFF_TRACE, sizeof *w);
    if (w != NULL)
        w->limit = limit_bytes;
    return w;
}

void watch_free(struct watch *w)
{
    if (w == NULL)
        return;
    off_free(OFF_TRACE, w->now.at);
    off_free(OFF_TRACE, w->before.at);
    off_free(OFF_TRACE, w);
}
