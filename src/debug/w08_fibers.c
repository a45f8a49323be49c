/* W08: leaked fibers told from their number, by comparing it with one from before anything ran.
 *
 * A call before the start of the runtime ends the program with a line that says so. What is left is the first moment: the main fiber counts when no
 * other fiber has ever been made, and again, elsewhere, when there are more. What first use has made and keeps is in the difference, though nothing
 * leaked.
 *
 * Whoever shows the number now and then, as a metric, calls it from one place, or again and again, or on another fiber: nothing is said of that. So
 * it is judged at the end, when it is known how often it was called. */
#include "base/lock.h"
#include "debug/place.h"
#include "debug/thresholds.h"

static struct count {
    uint32_t calls;
    uintptr_t site;      /* return address */
    uint64_t fibers, made;
    struct place place;
} cold, later;
static struct lock lock = LOCK_INIT(RANK_LEAF);
static w_u32 calls;      /* of all; rlx: a counter */

static void told(enum probe_id id, uintptr_t a, uintptr_t made, uintptr_t site)
{
    const struct m *m = m_self();
    (void)id;
    if (load_rlx(&calls) > T_W08_CALLS) /* rlx: a metric; it is not looked at any more */
        return;
    add_rlx(&calls, 1);
    if (!(m->cur->flags & FIBER_MAIN))
        return;
    struct count c = { .calls = 1, .site = site, .fibers = a, .made = made };
    place_here(&c.place);
    lock_take(&lock);
    if (cold.calls == 0 && later.calls == 0 && made == 1)
        cold = c;
    else if (site == cold.site)
        cold.calls++;
    else if (later.calls == 0)
        later = c;
    else
        later.calls++;
    lock_drop(&lock);
}

static void forget(void)
{
    if (load_rlx(&calls) != 0) { /* rlx: nobody calls now. What was never touched takes no memory */
        memset(&cold, 0, sizeof cold);
        memset(&later, 0, sizeof later);
        store_rlx(&calls, 0);
    }
    lock_init(&lock, RANK_LEAF);
}

static void judge(void)
{
    if (load_rlx(&calls) != 2 || cold.calls != 1 || later.calls != 1 || later.fibers <= cold.fibers) /* rlx: likewise */
        return;
    struct sighting s = { .code = WEFT_W08, .n = { cold.fibers, later.fibers, later.made } };
    place_stack(&s, &later.place);
    place_made(&s, &cold.place);
    doctor_sight(&s);
}

static void end(void)
{
    judge();
    forget();
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "the number of fibers was taken here, %lu, and before anything had run, %lu: what was made at first use, to stay, is in the difference "
                 "of %lu, and which fibers they are it does not say", (unsigned long)s->n[1], (unsigned long)s->n[0], (unsigned long)(s->n[1] - s->n[0]));
}

const struct detector w08_fibers = {
    .code = WEFT_W08,
    .title = "leaks told from the number of fibers",
    .cure = "Run the work once; then weft_leak_check_begin before it and weft_leak_check_end after: they compare fibers by the place where they were "
            "made, and name it.",
    .probes = DOCTOR_PROBE(fibers_counted),
    .probe = told,
    .end = end,
    .after_fork = forget,
    .say = say,
};
