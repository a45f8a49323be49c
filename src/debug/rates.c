/* How often something happens in a second, by the place where it does.
 *
 * A window begins with the first of a place and ends with the first one that comes after its length. It counts if there were enough in it, all over
 * it: a burst and one late straggler are no rate. Places are few, since each is a call that is rare; where a place has no room the one that was
 * quiet for the longest time goes. */
#include "debug/findings.h"
#include <string.h>
#include "os/clock.h"

#define PLACES 64u

static struct place {
    int code;            /* 0: free */
    uint32_t count;
    uintptr_t site;
    int64_t began, last, cost_ns;
    uint32_t slots;      /* a bit per eighth that has seen one */
} places[PLACES];
static struct lock lock = LOCK_INIT(RANK_LEAF);
static w_u32 used;

void rates_reset(void)
{
    if (load_rlx(&used) != 0) /* rlx: alone; what was never touched takes no memory */
        memset(places, 0, sizeof places);
    store_rlx(&used, 0);
    lock_init(&lock, RANK_LEAF);
}

static struct place *place_of(int code, uintptr_t site)
{
    struct place *p = &places[0];
    for (struct place *q = places; q < places + PLACES; q++) {
        if (q->code == code && q->site == site)
            return q;
        if (q->code == 0 ? p->code != 0 : p->code != 0 && q->last < p->last)
            p = q;
    }
    *p = (struct place){ .code = code, .site = site };
    return p;
}

/* The window is over, or has enough. */
static bool reached(const struct place *p, const struct rate_limit *l, int64_t age)
{
    return p->count >= l->count && (uint32_t)__builtin_popcount(p->slots) >= l->slots && (l->slots == 0 || age >= l->window_ns) &&
           p->cost_ns * 100 >= (int64_t)l->share_percent * age;
}

bool doctor_rate(struct sighting *s, const struct rate_limit *l, int64_t cost_ns)
{
    int64_t now = os_now_ns();
    lock_take(&lock);
    store_rlx(&used, 1); /* rlx: under the lock */
    struct place *p = place_of(s->code, s->nstack > 0 ? s->stack[0] : 0);
    int64_t age = now - p->began;
    if (p->began == 0 || age >= 2 * l->window_ns) { /* the first, or a straggler */
        *p = (struct place){ .code = p->code, .site = p->site, .began = now };
        age = 0;
    }
    p->last = now;
    p->count++;
    p->cost_ns += cost_ns;
    p->slots |= 1u << w_min(age * 8 / l->window_ns, (int64_t)7);
    bool yes = reached(p, l, w_max(age, (int64_t)1));
    s->n[0] = p->count;
    s->n[1] = (uint64_t)age;
    s->n[2] = (uint64_t)p->cost_ns;
    if (yes || age >= l->window_ns)
        *p = (struct place){ .code = p->code, .site = p->site, .began = now, .last = now };
    lock_drop(&lock);
    return yes;
}
