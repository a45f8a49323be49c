/* Contexts.
 *
 * A context is a collected object. What can be cancelled forms trees: each such context has a list of those derived from it that are not cancelled
 * yet, and a pointer up. One lock per tree, that of its root, covers the lists, so that a cancellation, which walks down, is one step for all who
 * look: when weft_ctx_cancel has returned, by whomever it was called, everything below is cancelled. A context is taken off its list when it is
 * cancelled; until then its parent keeps it, as in Go.
 *
 *      background (NULL)
 *        `- root ----------- lock            root, a, b: up and children; a deadline: a timer, which keeps its context while it waits
 *             |- a                           v carries a value: it is in no list; what it asks, it asks of canceller (a)
 *             |  `- v (value) - after        after: a context that starts a fiber when it is cancelled
 *             `- b (deadline)
 *
 * The reason is there for all from the moment that done is closed: cause, then err (rel), then done. */
#include "sched/chan.h"
#include "sched/sched.h"
#include <errno.h>

struct weft_ctx {
    /* fixed once made */
    weft_ctx *parent;          /* where the search for values goes on */
    weft_ctx *canceller;       /* itself, or the nearest above that can be cancelled; NULL: none */
    weft_ctx *root;            /* of the tree; has its lock */
    weft_ctx *up;              /* the canceller of the parent */
    int64_t deadline_ns;       /* the earliest of all above; 0: none */
    const void *key;
    void *value;
    weft_chan *done;
    weft_fn *after;            /* NULL: not of weft_ctx_after */
    void *arg;
    const void *site;
    /* under the root's lock */
    weft_ctx *children, *next, *prev;
    bool linked;
    struct timer timer;
    w_i32 err;                 /* 0: not cancelled. rel after cause; acq in weft_ctx_err */
    w_i32 cause;
    struct lock lock;          /* RANK_CTX */
};

/* ---- the tree; all under its lock -------------------------------------------------------------------------------- */

static void link_below(weft_ctx *up, weft_ctx *c)
{
    c->next = up->children;
    c->prev = NULL;
    if (c->next != NULL)
        c->next->prev = c;
    up->children = c;
    c->linked = true;
}

static void unlink_below(weft_ctx *up, weft_ctx *c)
{
    if (!c->linked)
        return;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        up->children = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->next = c->prev = NULL;
    c->linked = false;
}

static void start_after_late(void *ctx, int64_t now_ns)
{
    weft_ctx *c = ctx;
    if (sched_spawn(c->after, c->arg, NULL, c->site, 0) != 0)
        timer_again(&c->timer, timer_after(now_ns, WEFT_MILLISECOND));
}

/* Starts the fiber of weft_ctx_after. Without memory for it, it is late, not lost. */
static void start_after(weft_ctx *c)
{
    if (sched_spawn(c->after, c->arg, NULL, c->site, 0) == 0)
        return;
    c->timer.fn = start_after_late;
    timer_start(&c->timer, timer_after(sched_now_ns(), WEFT_MILLISECOND));
}

static void mark_cancelled(weft_ctx *c, int err, int cause)
{
    store_rlx(&c->cause, cause); /* rlx: the next one publishes it */
    store_rel(&c->err, err);     /* rel: cause; acq in weft_ctx_err */
    chan_close_inside(c->done);
    if (c->after != NULL)
        start_after(c);
    else
        timer_cancel(&c->timer); /* whether or not it waits: its callback does nothing once err is set */
}

static void cancel_locked(weft_ctx *top, int err, int cause)
{
    if (load_rlx(&top->err) != 0) /* rlx: under the lock */
        return;
    if (top->up != NULL)
        unlink_below(top->up, top);
    mark_cancelled(top, err, cause);
    for (weft_ctx *c = top, *child;;) {
        if ((child = c->children) != NULL) {
            unlink_below(c, child);
            mark_cancelled(child, err, cause);
            c = child;
        } else if (c == top)
            return;
        else
            c = c->up;
    }
}

static void cancel_inside(weft_ctx *c, int err, int cause)
{
    lock_take(&c->root->lock);
    cancel_locked(c, err, cause);
    lock_drop(&c->root->lock);
}

static void deadline_passed(void *ctx, int64_t now_ns)
{
    (void)now_ns;
    cancel_inside(ctx, -ETIMEDOUT, -ETIMEDOUT);
}

/* ---- making them ---------------------------------------------------------------------------------------------------- */

static weft_ctx *derive(weft_ctx *parent)
{
    weft_ctx *c = weft_alloc(sizeof *c);
    if (c == NULL)
        return NULL;
    c->parent = parent;
    if (parent != NULL) {
        c->canceller = parent->canceller;
        c->deadline_ns = parent->deadline_ns;
    }
    return c;
}

/* One that can be cancelled, not in its tree yet. */
static weft_ctx *derive_canceller(weft_ctx *parent)
{
    weft_ctx *c = derive(parent);
    if (c == NULL || (c->done = weft_chan_make(0, 0)) == NULL)
        return NULL;
    c->up = c->canceller;
    c->root = c->up != NULL ? c->up->root : c;
    c->canceller = c;
    lock_init(&c->lock, RANK_CTX);
    c->timer.arg = c;
    c->timer.root = true;
    return c;
}

/* It becomes a part of the tree, and is cancelled at once if that is. when_ns: 0: no timer. */
static void join(weft_ctx *c, int64_t when_ns)
{
    rt_enter();
    lock_take(&c->root->lock);
    int err = c->up != NULL ? load_rlx(&c->up->err) : 0; /* rlx: under the lock */
    if (err != 0)
        cancel_locked(c, err, load_rlx(&c->up->cause));
    else {
        if (c->up != NULL)
            link_below(c->up, c);
        if (when_ns != 0)
            timer_start(&c->timer, when_ns);
    }
    lock_drop(&c->root->lock);
    rt_leave(m_self());
}

weft_ctx *weft_ctx_cancellable(weft_ctx *parent)
{
    weft_ctx *c = derive_canceller(parent);
    if (c != NULL)
        join(c, 0);
    return c;
}

weft_ctx *weft_ctx_until(weft_ctx *parent, int64_t deadline)
{
    weft_ctx *c = derive_canceller(parent);
    if (c == NULL)
        return NULL;
    bool sooner = deadline != 0 && (c->deadline_ns == 0 || deadline < c->deadline_ns);
    if (sooner) {
        c->deadline_ns = deadline;
        c->timer.fn = deadline_passed;
    }
    bool passed = sooner && deadline <= sched_now_ns();
    join(c, sooner && !passed ? deadline : 0);
    if (passed)
        weft_ctx_cancel_as(c, -ETIMEDOUT);
    return c;
}

weft_ctx *weft_ctx_with(weft_ctx *parent, const void *key, void *value)
{
    weft_ctx *c = derive(parent);
    if (c != NULL) {
        c->key = key;
        c->value = value;
    }
    return c;
}

weft_ctx *weft_ctx_detached(weft_ctx *parent)
{
    weft_ctx *c = derive(parent);
    if (c != NULL) {
        c->canceller = NULL;
        c->deadline_ns = 0;
    }
    return c;
}

weft_ctx *weft_ctx_after(weft_ctx *parent, weft_fn *fn, void *arg)
{
    weft_ctx *c = fn != NULL ? derive_canceller(parent) : NULL;
    if (c == NULL)
        return NULL;
    c->after = fn;
    c->arg = arg;
    c->site = __builtin_return_address(0);
    join(c, 0);
    return c;
}

/* ---- cancelling and asking -------------------------------------------------------------------------------------------- */

int weft_ctx_cancel_as(weft_ctx *c, int cause)
{
    if (c == NULL || c->canceller != c || cause >= 0)
        return -EINVAL;
    rt_enter();
    cancel_inside(c, cause == -ETIMEDOUT ? -ETIMEDOUT : -ECANCELED, cause);
    rt_leave(m_self());
    return 0;
}

int weft_ctx_cancel(weft_ctx *c)
{
    return weft_ctx_cancel_as(c, -ECANCELED);
}

bool weft_ctx_after_stop(weft_ctx *c)
{
    if (c == NULL || c->canceller != c)
        return false;
    rt_enter();
    lock_take(&c->root->lock);
    bool was = c->after != NULL && load_rlx(&c->err) == 0; /* rlx: under the lock */
    if (was) {
        c->after = NULL;
        cancel_locked(c, -ECANCELED, -ECANCELED);
    }
    lock_drop(&c->root->lock);
    rt_leave(m_self());
    return was;
}

int weft_ctx_err(const weft_ctx *c)
{
    return c != NULL && c->canceller != NULL ? load_acq(&c->canceller->err) : 0; /* acq: rel in mark_cancelled */
}

int weft_ctx_cause(const weft_ctx *c)
{
    return weft_ctx_err(c) != 0 ? load_rlx(&c->canceller->cause) : 0; /* rlx: err was seen, and cause is older */
}

weft_chan *weft_ctx_done(const weft_ctx *c)
{
    return c != NULL && c->canceller != NULL ? c->canceller->done : NULL;
}

int64_t weft_ctx_deadline(const weft_ctx *c)
{
    return c != NULL ? c->deadline_ns : 0;
}

void *weft_ctx_get(const weft_ctx *c, const void *key)
{
    for (; c != NULL; c = c->parent)
        if (c->key == key && key != NULL)
            return c->value;
    return NULL;
}
