/* W03: fibers end while they are locked to their threads, which end with them: each call costs a thread.
 *
 * The fiber remembers where it was locked: that is the place. Who made the fiber is shown with it. */
#include "debug/doctor.h"
#include "debug/thresholds.h"
#include "sched/fiber.h"

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    static const struct rate_limit limit = { T_W03_WINDOW_NS, T_W03_THREADS, 0, 0 };
    const struct fiber *f = (const struct fiber *)a;
    struct sighting s = { .code = WEFT_W03, .fiber = f->id, .nstack = 1, .stack = { b }, .nmade = f->site != NULL, .made = { (uintptr_t)f->site } };
    (void)id, (void)c;
    if (doctor_rate(&s, &limit, 0))
        doctor_sight(&s);
}

static void say(struct text *t, const struct sighting *s)
{
    text_putf(t, "%lu fibers that were locked to their threads here ended locked within %lu ms, and each took its thread with it",
              (unsigned long)s->n[0], (unsigned long)(s->n[1] / 1000000));
}

const struct detector w03_locked_end = {
    .code = WEFT_W03,
    .title = "fibers end locked to their threads",
    .cure = "Call weft_unlock_os_thread where the section ends that needs the thread, or weft_defer it: then the thread is used again.",
    .probes = DOCTOR_PROBE(fiber_end_locked),
    .probe = told,
    .say = say,
};
