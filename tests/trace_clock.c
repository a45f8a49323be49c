/* The time of the trace, on machines that are made up: what the counter and the clock show is written down here. */
#include "base/rng.h"
#include "test.h"
#include "trace/clock.h"

#define SECOND INT64_C(1000000000)

struct machine { struct os_look at; uint64_t khz; struct trace_line line; };

static void runs(struct machine *m, int64_t ns)
{
    m->at.ns += ns;
    m->at.ticks += (uint64_t)ns * m->khz / 1000000;
}

static void measure(struct machine *m)
{
    m->line.first = m->at;
    runs(m, 2000000);
}

static struct machine machine_new(uint64_t khz)
{
    struct machine m = { .at = { 123456789, 1000 * SECOND }, .khz = khz };
    measure(&m);
    return m;
}

/* The line of the next generation; the counter is measured anew if the last one does not hold. */
static struct trace_clock next(struct machine *m, bool holds)
{
    struct trace_clock c = { 0 };
    cr_assert_eq(trace_line_holds(&m->line, m->at), holds);
    if (!holds)
        measure(m);
    trace_line_make(&m->line, m->at, holds, &c);
    cr_assert_eq(c.mono_ns, m->at.ns);
    return c;
}

static uint64_t off_by(uint64_t a, uint64_t b) { return a > b ? a - b : b - a; }

Test(trace_clock, time_is_the_clocks)
{
    static const uint64_t khz[] = { 24000, 1000000, 2999999, 5100001 };
    for (size_t i = 0; i < w_countof(khz); i++) {
        struct machine m = machine_new(khz[i]);
        for (int64_t ns = 1000; ns < 4000 * SECOND; ns *= 2) {
            struct trace_clock c = next(&m, true);
            cr_expect_eq(c.units, (uint64_t)m.at.ns / TRACE_UNIT_NS);
            cr_expect_eq(m.line.ahead, 0u);
            runs(&m, ns);
            uint64_t error = off_by(trace_clock_at(&c, m.at.ticks), (uint64_t)m.at.ns / TRACE_UNIT_NS);
            cr_expect_leq(error, 1 + (uint64_t)ns / TRACE_UNIT_NS / 10000, "%lu kHz: %lu of %ld", (unsigned long)khz[i], (unsigned long)error,
                (long)ns);
        }
    }
}

/* The clock is corrected by up to 500 ppm while the counter is not, and looks are not exact. */
Test(trace_clock, corrections_of_the_clock_do_no_harm)
{
    struct machine m = machine_new(3000000);
    struct rng r;
    rng_seed(&r, test_seed());
    for (int i = 0; i < 10000; i++) {
        int64_t ns = 1000 + rng_below(&r, 2000000000);
        struct os_look exact = m.at;
        m.at.ns += rng_below(&r, 100); /* of what a look takes */
        struct trace_clock c = next(&m, true);
        m.at = exact;
        runs(&m, ns);
        m.at.ns += (int64_t)rng_below(&r, 1001) * ns / 1000000 - ns / 2000;
        cr_assert_lt(off_by(trace_clock_at(&c, m.at.ticks), (uint64_t)m.at.ns / TRACE_UNIT_NS), (uint64_t)(2000 + ns / 1000) / TRACE_UNIT_NS);
    }
}

/* The clock stands still, and the counter does not. Events were told of after that, in the generation in which it happened. */
Test(trace_clock, a_machine_that_slept)
{
    struct machine m = machine_new(3000000);
    struct trace_clock c = next(&m, true);
    runs(&m, SECOND / 2);
    int64_t slept = 8 * 3600 * SECOND;
    m.at.ticks += (uint64_t)slept / 1000000 * m.khz;
    uint64_t told = trace_clock_at(&c, m.at.ticks);
    runs(&m, SECOND / 2);
    for (int i = 0; i < 10; i++) {
        c = next(&m, i > 0);
        cr_assert_geq(c.units, told, "time runs backwards");
        cr_assert_lt(off_by(c.units, (uint64_t)(m.at.ns + slept) / TRACE_UNIT_NS), (uint64_t)slept / TRACE_UNIT_NS / 10000);
        runs(&m, SECOND);
        told = trace_clock_at(&c, m.at.ticks);
        cr_assert_leq(off_by(told - c.units, SECOND / TRACE_UNIT_NS), (uint64_t)SECOND / TRACE_UNIT_NS / 10000, "a second has %lu units",
            (unsigned long)(told - c.units));
    }
}

/* The counter begins anew, or another one has another rate. */
Test(trace_clock, another_counter)
{
    static const struct os_look looks[] = { { 0, 3000000 }, { 123, 24000 }, { UINT64_MAX / 4, 3000000 }, { 500000000000, 3010000 } };
    for (size_t i = 0; i < w_countof(looks); i++) {
        struct machine m = machine_new(3000000);
        next(&m, true);
        runs(&m, 5 * SECOND);
        m.at.ticks = looks[i].ticks;
        m.khz = (uint64_t)looks[i].ns;
        runs(&m, SECOND);
        for (int k = 0; k < 10; k++) {
            struct trace_clock c = next(&m, k > 0);
            runs(&m, SECOND);
            uint64_t units = trace_clock_at(&c, m.at.ticks) - c.units;
            cr_assert_leq(off_by(units, SECOND / TRACE_UNIT_NS), (uint64_t)SECOND / TRACE_UNIT_NS / 10000, "%zu: a second has %lu units", i,
                (unsigned long)units);
        }
    }
}

/* This one. */
Test(trace_clock, two_clocks_of_this_machine)
{
    struct trace_clock c;
    trace_clock_open();
    for (int i = 0; i < 200; i++) {
        trace_clock_make(&c);
        int64_t before = os_now_ns();
        uint64_t now = trace_now(&c);
        int64_t after = os_now_ns();
        cr_assert_geq(now, (uint64_t)(before - 20000) / TRACE_UNIT_NS);
        cr_assert_leq(now, (uint64_t)(after + 20000) / TRACE_UNIT_NS);
        cr_assert_eq(c.units, (uint64_t)c.mono_ns / TRACE_UNIT_NS);
    }
}
