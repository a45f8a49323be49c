/* W11: a dump of all stacks is cut by a small buffer.
 *
 * That alone is how one asks for the size: a larger buffer follows, from the same fiber. If none comes for a while, or the same small one comes
 * again, then what was returned was not looked at. Of the caller's own stack the inner frames may be all that is wanted: nothing is said. */
#include "base/lock.h"
#include "debug/place.h"
#include "debug/thresholds.h"
#include "os/clock.h"

#define CUT 8u

static struct cut {
    uint64_t who;        /* 0: free */
    size_t needed, room;
    int64_t at_ns;
    struct place place;
} cuts[CUT];
static struct lock lock = LOCK_INIT(RANK_LEAF);

static uint64_t caller(void)
{
    const struct m *m = m_self();
    return m->cur->flags & FIBER_THREAD ? UINT64_C(1) << 63 | m->id : m->cur->id;
}

/* Under the lock. */
static struct cut *find(uint64_t who)
{
    for (struct cut *c = cuts; c < cuts + CUT; c++)
        if (c->who == who)
            return c;
    return NULL;
}

static void sight(const struct cut *c)
{
    struct sighting s = { .code = WEFT_W11, .n = { c->needed, c->room } };
    place_stack(&s, &c->place);
    doctor_sight(&s);
}

/* Takes one out that has waited for so long. False: none has. */
static bool overdue(int64_t before_ns, struct cut *out)
{
    bool found = false;
    lock_take(&lock);
    for (struct cut *c = cuts; !found && c < cuts + CUT; c++)
        if (c->who != 0 && c->at_ns <= before_ns) {
            found = true;
            *out = *c;
            c->who = 0;
        }
    lock_drop(&lock);
    return found;
}

static void told(enum probe_id id, uintptr_t needed, uintptr_t room, uintptr_t all)
{
    struct cut n = { .who = caller(), .needed = needed, .room = room, .at_ns = os_now_ns() }, old;
    bool again = false;
    (void)id;
    if (!all || room == 0) /* 0: it was only asked for the size */
        return;
    if (needed > room)
        place_here(&n.place);
    lock_take(&lock);
    struct cut *c = find(n.who);
    if (needed > room) {
        again = c != NULL && room <= c->room;
        c = c != NULL ? c : find(0);
        if (c != NULL) /* else there are many, and some of them will be told */
            *c = n;
    } else if (c != NULL) {
        c->who = 0;
    }
    lock_drop(&lock);
    if (again)
        sight(&n);
    while (overdue(n.at_ns - T_W11_NS, &old))
        sight(&old);
}

static void forget(void)
{
    if (cuts[0].at_ns != 0) /* what was never touched takes no memory */
        memset(cuts, 0, sizeof cuts);
    lock_init(&lock, RANK_LEAF);
}

static void end(void)
{
    struct cut old;
    while (overdue(INT64_MAX, &old))
        sight(&old);
    forget();
}

static void say(struct text *t, const struct sighting *s)
{
    unsigned long needed = s->n[0], room = s->n[1];
    text_putf(t, "a dump of all stacks has %lu bytes and was cut to the %lu that the buffer had room for, and no larger one was tried: the other "
                 "%lu %% are not shown", needed, room, (needed - room) * 100 / w_max(needed, 1ul));
}

const struct detector w11_dump = {
    .code = WEFT_W11,
    .title = "dump cut by a small buffer",
    .cure = "Use weft_stack_write, which needs no buffer; or look at what weft_stack returns, and come again with so many bytes and one.",
    .probes = DOCTOR_PROBE(stack_dumped),
    .probe = told,
    .end = end,
    .after_fork = forget,
    .say = say,
};
