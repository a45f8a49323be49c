/* W17: a fiber waits while it holds a lock of the host's.
 *
 * The runtime knows its own locks, which may be held while waiting. It does not know the host's (a pthread_mutex_t, one of a database's library),
 * which belong to the thread: a fiber that waits with one may go on, and unlock it, on another; and whatever fiber comes next on the first thread
 * and wants it stands still with its thread, for as long as the wait takes. So the host says when it has one (weft_lock_held), and as long as there
 * is one that fiber's waits are looked at. Before the first nobody listens: then probes of waits cost what they cost without a doctor.
 *
 * One table for all, under a lock: this is for debugging, and few are held at a time. Each hold is told of once. */
#include "base/lock.h"
#include "debug/place.h"

#define HELD 128u

static struct held {
    uint64_t fiber;      /* 0: free */
    const void *lock;
    const char *name;
    uint32_t depth;      /* of a recursive one */
    bool told;
    struct place place;
} held[HELD];
static uint32_t top;     /* entries from there on are free */
static w_u32 nheld;      /* written under lock; rlx: a hint for others, exact for the fiber that holds one */
static w_u32 listens;    /* under lock to change */
static struct lock lock = LOCK_INIT(RANK_LEAF);

enum { WAITED, YIELDED, ENDED }; /* n[0]; n[1]: the reason of a wait */

/* Under the lock, and the next two. fiber 0: anybody's. */
static struct held *find(uint64_t fiber, const void *l)
{
    for (struct held *h = held; h < held + top; h++)
        if (h->fiber != 0 && (fiber == 0 || h->fiber == fiber) && (l == NULL || h->lock == l))
            return h;
    return NULL;
}

static struct held *add(void)
{
    for (uint32_t i = 0; i < HELD; i++)
        if (held[i].fiber == 0) {
            top = w_max(top, i + 1);
            add_rlx(&nheld, 1); /* rlx: see there */
            return &held[i];
        }
    return NULL;
}

static void drop(struct held *h)
{
    h->fiber = 0;
    while (top > 0 && held[top - 1].fiber == 0)
        top--;
    sub_rlx(&nheld, 1);
}

/* ---- waits --------------------------------------------------------------------------------------------------------- */

/* False: it holds none that was not told of. */
static bool holds(uint64_t fiber, bool ends, struct sighting *s)
{
    bool some = false;
    lock_take(&lock);
    for (struct held *h = held; h < held + top; h++)
        if (h->fiber == fiber) {
            if (!h->told && !some) {
                h->told = some = true;
                s->text = h->name;
                place_made(s, &h->place);
            }
            if (ends)
                drop(h); /* top may come down to h: what lay beyond was free */
        }
    lock_drop(&lock);
    return some;
}

static void told(void *arg, enum probe_id id, uintptr_t a, uintptr_t why, uintptr_t c)
{
    const struct fiber *f = (const struct fiber *)a;
    struct sighting s = { .code = WEFT_W17 };
    (void)arg, (void)c;
    if (load_rlx(&nheld) == 0 || !holds(f->id, id == PROBE_fiber_end, &s)) /* rlx: what this fiber has added itself it sees */
        return;
    doctor_stack(&s);
    s.fiber = f->id;
    s.n[0] = id == PROBE_fiber_block ? WAITED : id == PROBE_fiber_yield ? YIELDED : ENDED;
    s.n[1] = id == PROBE_fiber_block ? why : 0;
    doctor_sight(&s);
}

/* ---- the public side ------------------------------------------------------------------------------------------------- */

static void listen(void)
{
    bool first;
    lock_take(&lock);
    first = load_rlx(&listens) == 0; /* rlx: under the lock */
    store_rlx(&listens, 1);
    lock_drop(&lock);
    if (first)
        probe_listen_steady(DOCTOR_PROBE(fiber_block) | DOCTOR_PROBE(fiber_yield) | DOCTOR_PROBE(fiber_end), told, NULL);
}

static void hold(const struct m *m, const void *l, const char *name)
{
    struct held n = { .fiber = m->cur->id, .lock = l, .name = name != NULL ? name : "", .depth = 1 };
    if (load_rlx(&listens) == 0) /* rlx: a hint */
        listen();
    place_here(&n.place);
    lock_take(&lock);
    struct held *h = find(n.fiber, l);
    if (h != NULL)
        h->depth++;
    else if ((h = add()) != NULL) /* else there are too many, and this one is not looked at */
        *h = n;
    lock_drop(&lock);
}

w_noinline void weft_lock_held(const void *l, const char *name)
{
    if (!doctor_wants(WEFT_W17))
        return;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return;
    if (l != NULL && !(m->cur->flags & FIBER_THREAD))
        hold(m, l, name);
    rt_leave(m);
}

static void release(uint64_t fiber, const void *l)
{
    lock_take(&lock);
    struct held *h = find(fiber, l);
    if (h == NULL)
        h = find(0, l);
    if (h != NULL && --h->depth == 0)
        drop(h);
    lock_drop(&lock);
}

void weft_lock_released(const void *l)
{
    if (l == NULL || load_rlx(&listens) == 0 || !doctor_wants(WEFT_W17)) /* rlx: whoever has held one sees it */
        return;
    struct m *m = rt_enter_try();
    if (m == NULL)
        return;
    release(m->cur->id, l);
    rt_leave(m);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

/* Also in the child of a fork: the fibers that held them are not there, but for the one that forked, whose locks are as the host's atfork handlers
 * left them. */
static void forget(void)
{
    lock_init(&lock, RANK_LEAF);
    if (load_rlx(&listens) == 0) /* rlx: nobody else is there. What was never touched takes no memory */
        return;
    memset(held, 0, sizeof held);
    top = 0;
    store_rlx(&nheld, 0);
}

static void end(void)
{
    if (load_rlx(&listens) != 0) /* rlx: as above */
        probe_unlisten_steady(told, NULL);
    forget();
    store_rlx(&listens, 0);
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "fiber %lu ", (unsigned long)s->fiber);
    if (s->n[0] == WAITED)
        text_putf(t, "waited (%s)", wait_reason_text((enum wait_reason)s->n[1]));
    else
        text_puts(t, s->n[0] == YIELDED ? "yielded" : "ended");
    text_putf(t, " while it held the lock \"%.100s\", which belongs to its thread", s->text);
}

const struct detector w17_held_lock = {
    .code = WEFT_W17,
    .title = "a fiber waits while it holds a lock of the host's",
    .cure = "Unlock it before the wait; or use a weft_mutex in its place, which belongs to the fiber and makes only fibers wait.",
    .end = end,
    .after_fork = forget,
    .say = say,
};
