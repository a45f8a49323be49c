#include "base/fail.h"

w_u32 fail_armed;

static struct {
    w_u64 requests, failed; /* rlx: counters; each request gets a number of its own, and nothing else hangs on it */
    uint64_t nth, run;      /* fixed while armed */
} kinds[FAIL_KINDS];

bool fail_count(enum fail_kind kind)
{
    uint64_t n = add_rlx(&kinds[kind].requests, 1) + 1; /* rlx: see kinds */
    if (n - kinds[kind].nth >= kinds[kind].run) /* before the nth it is below zero, that is large */
        return false;
    add_rlx(&kinds[kind].failed, 1); /* rlx: see kinds */
    return true;
}

void fail_arm(enum fail_kind kind, uint64_t nth, uint64_t run)
{
    store_rlx(&kinds[kind].requests, 0); /* rlx: no runtime runs; and below */
    store_rlx(&kinds[kind].failed, 0);
    kinds[kind].nth = nth;
    kinds[kind].run = run;
    if (nth != 0)
        or_rlx(&fail_armed, 1u << kind);
    else
        and_rlx(&fail_armed, ~(1u << kind));
}

void fail_disarm(void) { store_rlx(&fail_armed, 0); } /* rlx: no runtime runs */

uint64_t fail_requests(enum fail_kind kind) { return load_rlx(&kinds[kind].requests); } /* rlx: see kinds */
uint64_t fail_failed(enum fail_kind kind) { return load_rlx(&kinds[kind].failed); }
