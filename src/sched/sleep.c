/* Sleeping: a timer on the sleeper's own stack. */
#include "sched/sched.h"
#include <weft/sync.h>

/* At the tail: of many who wake together the first to wake runs first. */
static void sleep_over(void *arg, int64_t now_ns)
{
    (void)now_ns;
    sched_ready_tail(arg);
}

struct sleep { struct timer timer; int64_t when_ns; };

/* Only now, so that nobody is made ready before he is parked. */
static void sleep_start(struct fiber *f, void *arg)
{
    struct sleep *s = arg;
    s->timer.arg = f;
    timer_start(&s->timer, s->when_ns);
}

void weft_sleep(int64_t ns)
{
    if (ns <= 0)
        return;
    struct sleep s = { .timer = { .fn = sleep_over }, .when_ns = timer_after(sched_now_ns(), ns) };
    rt_enter();
    sched_park(sleep_start, &s, WAIT_SLEEP);
    rt_leave(m_self());
}
