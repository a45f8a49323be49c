/* Once. A mutex keeps the others waiting. fn may end its fiber: so what ends the call is also put before the fiber's deferred calls. */
#include "base/offheap.h"
#include "sched/sched.h"
#include <weft/sync.h>

static inline w_u32 *done(weft_once *o) { return (w_u32 *)&o->done; }

static void once_end(void *arg)
{
    weft_once *o = arg;
    store_rel(done(o), 1); /* rel: publishes what fn did; acq in weft_once_do */
    weft_mutex_unlock(&o->m);
}

/* NULL: not needed (a host thread cannot end so), or no memory, and then it is not done. */
static struct deferred *defer_end(weft_once *o)
{
    struct m *m = rt_enter();
    struct fiber *f = m->cur;
    struct deferred *d = NULL;
    if (!(f->flags & FIBER_THREAD) && (d = off_alloc(OFF_FIBER, sizeof *d)) != NULL) {
        *d = (struct deferred){ f->defers, once_end, o };
        f->defers = d;
    }
    rt_leave(m);
    return d;
}

/* fn has returned. It may have deferred calls itself, which stay. */
static void undefer(struct deferred *d)
{
    struct m *m = rt_enter();
    struct deferred **at = &m->cur->defers;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    off_free(OFF_FIBER, d);
    rt_leave(m);
}

void weft_once_do_slow(weft_once *o, weft_fn *fn, void *arg)
{
    weft_mutex_lock(&o->m);
    if (load_rlx(done(o)) != 0) { /* rlx: by the mutex */
        weft_mutex_unlock(&o->m);
        return;
    }
    struct deferred *d = defer_end(o);
    fn(arg);
    if (d != NULL)
        undefer(d);
    once_end(o);
}
