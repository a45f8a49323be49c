/* [HANDOFF]: a fiber that calls weft without end, but never waits, does not keep its processor from others. */
#include "test.h"

static uint32_t ran;

static void run_once(void *arg)
{
    (void)arg;
    __atomic_store_n(&ran, 1, __ATOMIC_RELEASE);
}

/* Nearly all of its time is spent inside of the runtime, where nobody takes the processor away: elements are large, and both calls find what they need. */
static void inside_for_ever(void *arg)
{
    size_t size = (size_t)1 << 20;
    (void)arg;
    weft_chan *c = weft_chan_make_noscan(size, 1);
    char *elem = weft_alloc_noscan(size);
    cr_assert_eq(weft_go(run_once, NULL), 0);
    int64_t until = weft_now() + 10 * WEFT_SECOND;
    while (!__atomic_load_n(&ran, __ATOMIC_ACQUIRE) && weft_now() < until)
        for (int i = 0; i < 20; i++) {
            cr_assert_eq(weft_chan_send(c, elem), 0);
            cr_assert_eq(weft_chan_recv(c, elem), 1);
        }
    cr_assert_eq(ran, 1, "the other fiber did not run in 10 s");
}

Test(sched_fair, who_is_always_inside_lets_others_run) { test_run_procs(1, inside_for_ever, NULL); }
