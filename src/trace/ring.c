/* The last generations, in memory of their own.
 *
 * A recorder is a reader that is never read, most of the time. If it held on to the buffers of the pool as a slow reader does it would starve the
 * others ([SHARE] in stream.c), and most of them are nearly empty: each thread and each table begins one in each generation. So a generation is
 * copied when it is finished, packed into one block, by the switcher, whom nobody waits for.
 *
 *      shown --> view: oldest ... newest            a view never changes; each generation that comes makes a new one
 *                       |           |
 *                      kept        kept             block: header | bridge | buf | data | buf | data | ...
 *
 * The window is Go's (internal/trace/flightrecorder.go): from the newest one backwards, as long as what is kept so far neither exceeds the limit of bytes
 * nor reaches further back than the limit of age. So there is always the newest, whole, and the one that crosses the limit.
 *
 * A generation that was lost leaves a gap, which Go's reader would refuse. It is bridged as for a slow reader (gap.c), at once, when the next one
 * comes, so that a signal handler finds nothing left to do.
 *
 * [PEEK] A handler reads without the lock, which the thread it has interrupted may have. It says that it looks, and then loads `shown`; who replaces
 * `shown` stores it, and then looks whether anybody peeks. Both are seq_cst, so either the handler sees the new view, or the other sees the handler
 * and frees nothing: what has left the window waits in `retired` for the next time. A handler that never comes back leaves it there. */
#include "trace/ring.h"
#include <errno.h>
#include <string.h>
#include "base/lock.h"
#include "base/offheap.h"
#include "os/futex.h"
#include "trace/gap.h"

struct kept {
    struct kept *retired;
    uint32_t number, refs; /* refs: views that have it. lock */
    size_t bytes;          /* of this block */
    struct trace_clock began;
    uint64_t gc_before, gc_after;
    bool gc_events;
    struct trace_buf *bufs; /* in this block, without what they have not used */
    size_t bridge_bytes;
    uint8_t *bridge;        /* likewise: to be written before bufs, but not if this is the first one */
};

static struct {
    struct lock lock; /* all below */
    bool open;
    size_t limit_bytes;
    int64_t limit_ns;
    w_u32 *bell;
    uint32_t gap;            /* generations missing behind the newest */
    struct trace_clock gap_began;
    struct kept *retired;
    struct ring_view *retired_views;
    struct ring_stats stats;
    W_PTR(struct ring_view) shown; /* [PEEK]. NULL: nothing is kept */
    w_u32 peeking;
} ring = { .lock = LOCK_INIT(RANK_LEAF) };

/* ---- one generation ----------------------------------------------------------------------------------------- */

struct bytes { uint8_t *at; size_t n, room; };

static int bytes_add(void *ctx, const void *data, size_t n)
{
    struct bytes *b = ctx;
    if (b->room - b->n < n) {
        size_t room = w_max(b->n + n, b->room * 2);
        uint8_t *p = off_realloc(OFF_TRACE, b->at, room);
        if (p == NULL)
            return -ENOMEM;
        b->at = p;
        b->room = room;
    }
    memcpy(b->at + b->n, data, n);
    b->n += n;
    return 0;
}

static size_t packed_bytes(const struct trace_buf *b) { return w_align_up(offsetof(struct trace_buf, data) + b->len, 8); }

static struct kept *pack(const struct generation *g, const struct bytes *bridge)
{
    size_t n = w_align_up(sizeof(struct kept) + bridge->n, 8);
    for (const struct trace_buf *b = g->bufs; b != NULL; b = b->next)
        n += packed_bytes(b);
    struct kept *k = off_alloc(OFF_TRACE, n);
    if (k == NULL)
        return NULL;
    *k = (struct kept){ .number = g->number, .bytes = n, .began = g->began, .gc_before = g->gc_before, .gc_after = g->gc_after,
                        .gc_events = g->gc_events, .bridge_bytes = bridge->n, .bridge = (uint8_t *)(k + 1) };
    if (bridge->n != 0)
        memcpy(k->bridge, bridge->at, bridge->n);
    char *to = (char *)k + w_align_up(sizeof *k + bridge->n, 8);
    struct trace_buf **last = &k->bufs;
    for (const struct trace_buf *b = g->bufs; b != NULL; b = b->next) {
        *last = (struct trace_buf *)to;
        memcpy(to, b, offsetof(struct trace_buf, data) + b->len);
        last = &(*last)->next;
        to += packed_bytes(b);
    }
    *last = NULL;
    return k;
}

static int write_kept(const struct kept *k, bool first, weft_writer *w, void *ctx, uint64_t *bytes)
{
    int err = 0;
    if (!first && k->bridge_bytes != 0) {
        err = w(ctx, k->bridge, k->bridge_bytes);
        *bytes += err == 0 ? k->bridge_bytes : 0;
    }
    for (const struct trace_buf *b = k->bufs; b != NULL && err == 0; b = b->next) {
        err = w(ctx, b->data, b->len);
        *bytes += err == 0 ? b->len : 0;
    }
    return err;
}

int ring_write(const struct ring_view *v, weft_writer *w, void *ctx, uint64_t *bytes)
{
    uint8_t header[TRACE_HEADER_BYTES];
    trace_put_header(header);
    int err = w(ctx, header, sizeof header);
    *bytes += err == 0 ? sizeof header : 0;
    for (uint32_t i = 0; i < v->n && err == 0; i++)
        err = write_kept(v->at[i], i == 0, w, ctx, bytes);
    return err;
}

/* ---- views, under the lock ------------------------------------------------------------------------------------- */

/* [PEEK]: after `shown` was replaced. */
static void free_retired(void)
{
    if (load_seq(&ring.peeking) != 0) /* seq: after the store of shown; the handler has it the other way round */
        return;
    for (struct kept *k = ring.retired, *next; k != NULL; k = next) {
        next = k->retired;
        ring.stats.bytes -= k->bytes;
        off_free(OFF_TRACE, k);
    }
    for (struct ring_view *v = ring.retired_views, *next; v != NULL; v = next) {
        next = v->retired;
        off_free(OFF_TRACE, v);
    }
    ring.retired = NULL;
    ring.retired_views = NULL;
}

static void view_put(struct ring_view *v)
{
    if (v == NULL || --v->refs != 0)
        return;
    for (uint32_t i = 0; i < v->n; i++)
        if (--v->at[i]->refs == 0) {
            v->at[i]->retired = ring.retired;
            ring.retired = v->at[i];
        }
    v->retired = ring.retired_views;
    ring.retired_views = v;
}

static void show(struct ring_view *v)
{
    struct ring_view *old = load_rlx(&ring.shown); /* rlx: changes under the lock */
    store_seq(&ring.shown, v); /* also rel: publishes it; acq in ring_peek_sigsafe. Before the look in free_retired */
    ring.stats.generations = v != NULL ? v->n : 0;
    view_put(old);
    free_retired();
}

/* k and what of the present ones is still in the window. */
static struct ring_view *window(struct kept *k)
{
    const struct ring_view *old = load_rlx(&ring.shown); /* rlx: changes under the lock */
    uint32_t had = old != NULL ? old->n : 0, from = had;
    int64_t now = os_now_ns();
    size_t bytes = k->bytes;
    const struct kept *oldest = k;
    while (from > 0 && bytes <= ring.limit_bytes && now - oldest->began.mono_ns <= ring.limit_ns) {
        oldest = old->at[--from];
        bytes += oldest->bytes;
    }
    uint32_t n = had - from + 1;
    struct ring_view *v = off_alloc(OFF_TRACE, sizeof *v + n * sizeof v->at[0]);
    if (v == NULL)
        return NULL;
    *v = (struct ring_view){ .n = n, .refs = 1 };
    for (uint32_t i = 0; i + 1 < n; i++)
        v->at[i] = old->at[from + i];
    v->at[n - 1] = k;
    for (uint32_t i = 0; i < n; i++)
        v->at[i]->refs++;
    return v;
}

/* ---- what comes ---------------------------------------------------------------------------------------------------- */

static void lost(const struct trace_clock *began)
{
    ring.stats.lost++;
    if (ring.gap++ == 0)
        ring.gap_began = *began;
}

/* What leads from the newest one to g. False: nothing can. */
static bool bridge(const struct generation *g, struct bytes *out)
{
    const struct ring_view *v = load_rlx(&ring.shown); /* rlx: changes under the lock */
    const struct kept *last = v->at[v->n - 1];
    /* A cycle of the collector that runs there and that no event of that generation tells of: a file that begins with it knows of none. */
    if (last->gc_after % 2 != 0 && !last->gc_events)
        return false;
    bool saw_gc = false;
    for (uint32_t i = 0; i < v->n; i++)
        saw_gc |= v->at[i]->gc_events;
    struct trace_gap gap = {
        .gen = last->number + 1, .missing = ring.gap, .before = last->bufs, .after = g->bufs, .began = ring.gap_began, .ends = g->began.units,
        .saw_gc = saw_gc, .gc_before = last->gc_after, .gc_after = g->gc_before,
    };
    uint64_t bytes = 0;
    return trace_gap_write(&gap, bytes_add, out, &bytes) == 0;
}

static void keep(const struct generation *g, const struct trace_clock *began)
{
    struct bytes lead = { 0 };
    lock_take(&ring.lock);
    bool some = ring.open && load_rlx(&ring.shown) != NULL; /* rlx: changes under the lock */
    if (ring.open && g != NULL && ring.gap != 0 && some && !bridge(g, &lead)) {
        lead.n = 0;
        show(NULL); /* what was before cannot be read together with what comes */
    }
    struct kept *k = ring.open && g != NULL ? pack(g, &lead) : NULL;
    struct ring_view *v = k != NULL ? window(k) : NULL;
    if (v != NULL) {
        ring.gap = 0;
        ring.stats.bytes += k->bytes;
        ring.stats.most_bytes = w_max(ring.stats.most_bytes, ring.stats.bytes);
        show(v);
        if (ring.bell != NULL) {
            add_rlx(ring.bell, 1); /* rlx: who looks takes the lock */
            os_futex_wake(ring.bell, 1); /* under the lock: afterwards it may be gone */
        }
    } else if (ring.open) {
        off_free(OFF_TRACE, k);
        lost(began);
    }
    lock_drop(&ring.lock);
    off_free(OFF_TRACE, lead.at);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

int ring_open(size_t bytes, int64_t age_ns, w_u32 *bell)
{
    lock_take(&ring.lock);
    int err = ring.open ? -EALREADY : 0;
    if (err == 0) {
        ring.open = true;
        ring.limit_bytes = bytes;
        ring.limit_ns = age_ns;
        ring.bell = bell;
        ring.gap = 0;
        ring.stats = (struct ring_stats){ .bytes = ring.stats.bytes, .most_bytes = ring.stats.bytes };
        trace_set_tap(keep); /* and so it stays: a closed ring keeps nothing */
    }
    lock_drop(&ring.lock);
    return err;
}

void ring_close(void)
{
    lock_take(&ring.lock);
    ring.open = false;
    show(NULL);
    lock_drop(&ring.lock);
}

struct ring_stats ring_stats(void)
{
    lock_take(&ring.lock);
    struct ring_stats s = ring.stats;
    lock_drop(&ring.lock);
    return s;
}

/* The switcher may have been in the middle of it: what there is is left where it lies. */
void ring_after_fork(void)
{
    memset(&ring, 0, sizeof ring);
    lock_init(&ring.lock, RANK_LEAF);
}

struct ring_view *ring_hold(void)
{
    lock_take(&ring.lock);
    struct ring_view *v = load_rlx(&ring.shown); /* rlx: changes under the lock */
    if (v != NULL)
        v->refs++;
    lock_drop(&ring.lock);
    return v;
}

void ring_put(struct ring_view *v)
{
    lock_take(&ring.lock);
    view_put(v);
    free_retired();
    lock_drop(&ring.lock);
}

const struct ring_view *ring_peek_sigsafe(void)
{
    add_seq(&ring.peeking, 1); /* seq: before the look at shown; the partner is in free_retired */
    const struct ring_view *v = load_seq(&ring.shown); /* also acq: sees the view; rel in show */
    if (v == NULL)
        ring_unpeek_sigsafe();
    return v;
}

void ring_unpeek_sigsafe(void) { sub_acq_rel(&ring.peeking, 1); } /* rel: what was read is read; acq in free_retired */

uint32_t ring_number(const struct ring_view *v, uint32_t i) { return v->at[i]->number; }

const struct trace_buf *ring_bufs(const struct ring_view *v, uint32_t i) { return v->at[i]->bufs; }
