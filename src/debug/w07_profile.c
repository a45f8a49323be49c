/* W07: a profile that is never stopped.
 *
 * One that has limits ends by itself, which is what they are for: nothing is said of it. One that was asked for without them is to be stopped by who
 * asked. It was not if it goes beyond what the limits would have been, or if the runtime ends, or the process does by exit(3), while it is on. */
#include "base/lock.h"
#include "debug/findings.h"
#include "debug/place.h"
#include "debug/thresholds.h"
#include "os/clock.h"
#include "prof/sampler.h"

#define KINDS 4u /* CPU, wall-clock; one of each at a time */

static struct { const char *what; int64_t at_ns; struct place place; } begun[KINDS];
static struct lock lock = LOCK_INIT(RANK_LEAF);

enum { SEEN_OVER = PROFILE_END_EXIT + 1 }; /* n[2]: this, or an enum profile_end */

static void begins(const char *what)
{
    struct place p;
    place_here(&p);
    lock_take(&lock);
    for (uint32_t i = 0; i < KINDS; i++)
        if (begun[i].what == what || begun[i].what == NULL) {
            begun[i].what = what;
            begun[i].at_ns = os_now_ns();
            begun[i].place = p;
            break;
        }
    lock_drop(&lock);
}

static void sight(const char *what, uint64_t bytes, uint64_t how)
{
    struct sighting s = { .code = WEFT_W07, .text = what, .n = { 0, bytes, how } };
    lock_take(&lock);
    for (uint32_t i = 0; i < KINDS; i++)
        if (begun[i].what == what) {
            s.n[0] = (uint64_t)(os_now_ns() - begun[i].at_ns);
            place_stack(&s, &begun[i].place);
        }
    lock_drop(&lock);
    doctor_sight(&s);
}

static void told(enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    const char *what = (const char *)a;
    if (id == PROBE_profile_begun)
        begins(what);
    else if (id == PROBE_profile_over)
        sight(what, b, SEEN_OVER);
    else if (b == PROFILE_END_RUNTIME || b == PROFILE_END_EXIT)
        sight(what, c, b);
    if (id == PROBE_profile_ended && b == PROFILE_END_EXIT) /* on the helper, for which the process waits */
        tell_flush(T_W07_EXIT_NS);
}

static void forget(void)
{
    if (begun[0].what != NULL) /* what was never touched takes no memory */
        memset(begun, 0, sizeof begun);
    lock_init(&lock, RANK_LEAF);
}

static void say(struct text *t, const struct sighting *s)
{
    uint64_t ms = s->n[0] / 1000000, kib = s->n[1] >> 10;
    text_putf(t, "the %s that was started here without limits ", s->text);
    if (s->n[2] == SEEN_OVER)
        text_putf(t, "has run for %lu s and written %lu KiB, and nobody has stopped it", (unsigned long)(ms / 1000), (unsigned long)kib);
    else
        text_putf(t, "was never stopped: it ran for %lu.%lu s, until %s, and wrote %lu KiB", (unsigned long)(ms / 1000), (unsigned long)(ms / 100 % 10),
                  s->n[2] == PROFILE_END_EXIT ? "the process called exit" : "the runtime ended", (unsigned long)kib);
}

const struct detector w07_profile = {
    .code = WEFT_W07,
    .title = "a profile is not stopped",
    .cure = "Start it with limits, which it has unless told otherwise, or stop it where it has served: weft_cpu_profile_stop, weft_wall_profile_stop.",
    .probes = DOCTOR_PROBE(profile_begun) | DOCTOR_PROBE(profile_over) | DOCTOR_PROBE(profile_ended),
    .probe = told,
    .end = forget,
    .after_fork = forget,
    .say = say,
};
