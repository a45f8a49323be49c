#include "trace/clock.h"
#include "base/atomic.h"

#define BASELINE_NS 2000000
#define LOOK_ERROR_NS 10000 /* of two looks; much more than that only where the processor was taken away in the middle of each */

static struct trace_line line;

/* The slope so far is that from here on. */
static void measure(void)
{
    line.first = os_look();
    while (os_now_ns() - line.first.ns < BASELINE_NS)
        cpu_relax();
}

void trace_clock_open(void)
{
    line = (struct trace_line){ 0 };
    if (os_counter_trusted())
        measure();
}

bool trace_line_holds(const struct trace_line *l, struct os_look now)
{
    if (now.ticks <= l->first.ticks)
        return false;
    if (l->last.slope == 0)
        return true;
    int64_t led_ns = (int64_t)((trace_clock_at(&l->last, now.ticks) - l->last.units) * TRACE_UNIT_NS), passed_ns = now.ns - l->last.mono_ns;
    int64_t off_ns = led_ns > passed_ns ? led_ns - passed_ns : passed_ns - led_ns;
    return off_ns <= LOOK_ERROR_NS + passed_ns / 1024; /* twice as much as the kernel lets a clock be corrected by */
}

void trace_line_make(struct trace_line *l, struct os_look now, bool held, struct trace_clock *c)
{
    uint64_t ticks = now.ticks - l->first.ticks, ns = (uint64_t)(now.ns - l->first.ns), clock = (uint64_t)now.ns / TRACE_UNIT_NS;
    if (!held && trace_clock_at(&l->last, now.ticks) > clock + l->ahead)
        l->ahead = trace_clock_at(&l->last, now.ticks) - clock;
    c->ticks = now.ticks;
    c->mono_ns = now.ns;
    c->units = clock + l->ahead;
    c->slope = ticks != 0 ? (uint64_t)(((unsigned __int128)ns << 32) / TRACE_UNIT_NS / ticks) : 0;
    l->last = *c;
}

void trace_clock_make(struct trace_clock *c)
{
    if (line.first.ticks != 0) {
        struct os_look now = os_look();
        bool held = trace_line_holds(&line, now);
        if (!held) {
            measure();
            now = os_look();
        }
        trace_line_make(&line, now, held, c);
    } else {
        int64_t now = os_now_ns();
        *c = (struct trace_clock){ .mono_ns = now, .units = (uint64_t)now / TRACE_UNIT_NS };
    }
    c->wall_ns = os_wall_ns();
}
