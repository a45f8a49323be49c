/* Deadlines that have passed: whatever can be had at once is had, everything else gives -ETIMEDOUT at once and leaves no trace; and those that lie so
 * far ahead that the sum overflows. */
#include "test.h"
#include "waiting.h"
#include <errno.h>
#include <string.h>

static const int64_t past[] = { 1, -1, INT64_MIN, 1000 };

static struct {
    weft_mutex free, held;
    weft_rwmutex rw_free, rw_read, rw_written;
    weft_sema one, none;
    weft_waitgroup zero, some;
    weft_cond c;
    weft_chan *empty, *full, *closed;
} w;

static void arrange(void)
{
    memset(&w, 0, sizeof w);
    cr_assert(weft_mutex_trylock(&w.held) && weft_rwmutex_tryrlock(&w.rw_read) && weft_rwmutex_trylock(&w.rw_written));
    w.one = (weft_sema)WEFT_SEMA_INIT(1);
    cr_assert_eq(weft_waitgroup_add(&w.some, 1), 0);
    w.empty = weft_chan_make(4, 1);
    w.full = weft_chan_make(4, 1);
    w.closed = weft_chan_make(4, 1);
    cr_assert(weft_chan_send(w.full, NULL) == 0 && weft_chan_close(w.closed) == 0);
}

static void at(int64_t when)
{
    arrange();
    cr_expect_eq(weft_mutex_lock_until(&w.free, when), 0);
    cr_expect_eq(weft_mutex_lock_until(&w.held, when), -ETIMEDOUT);
    cr_expect_eq(weft_rwmutex_lock_until(&w.rw_free, when), 0);
    cr_expect_eq(weft_rwmutex_rlock_until(&w.rw_read, when), 0);
    cr_expect_eq(weft_rwmutex_lock_until(&w.rw_read, when), -ETIMEDOUT);
    cr_expect(weft_rwmutex_tryrlock(&w.rw_read), "the writer that gave up keeps nobody out");
    cr_expect_eq(weft_rwmutex_rlock_until(&w.rw_written, when), -ETIMEDOUT);
    cr_expect_eq(weft_rwmutex_lock_until(&w.rw_written, when), -ETIMEDOUT);
    cr_expect_eq(weft_sema_acquire_until(&w.one, when), 0);
    cr_expect_eq(weft_sema_acquire_until(&w.none, when), -ETIMEDOUT);
    cr_expect_eq(weft_waitgroup_wait_until(&w.zero, when), 0);
    cr_expect_eq(weft_waitgroup_wait_until(&w.some, when), -ETIMEDOUT);
    cr_expect_eq(weft_cond_wait_until(&w.c, &w.held, when), -ETIMEDOUT);
    cr_expect(!weft_mutex_trylock(&w.held), "locked again");
    weft_cond_signal(&w.c); /* to nobody */
    cr_expect_eq(weft_cond_wait_until(&w.c, &w.held, when), -ETIMEDOUT);
    cr_expect_eq(weft_chan_send_until(w.empty, NULL, when), 0);
    cr_expect_eq(weft_chan_send_until(w.full, NULL, when), -ETIMEDOUT);
    cr_expect_eq(weft_chan_send_until(w.closed, NULL, when), -EPIPE);
    cr_expect_eq(weft_chan_recv_until(w.full, NULL, when), 1);
    cr_expect_eq(weft_chan_recv_until(w.full, NULL, when), -ETIMEDOUT);
    cr_expect_eq(weft_chan_recv_until(w.closed, NULL, when), 0);
    cr_expect_eq(weft_chan_recv_until(NULL, NULL, when), -ETIMEDOUT);
    cr_expect_eq(weft_select_until(NULL, 0, when), -ETIMEDOUT);
    weft_case cs[] = { { WEFT_RECV, w.full, NULL, 0 }, { WEFT_SEND, NULL, NULL, 0 } };
    cr_expect_eq(weft_select_until(cs, 2, when), -ETIMEDOUT);
    cs[1] = (weft_case){ WEFT_SEND, w.full, NULL, 0 };
    cr_expect_eq(weft_select_until(cs, 2, when), 1);
    cr_expect_eq(timers_waiting(), 0);
    cr_expect_eq(parked_on(&w.held) + parked_on(&w.rw_read) + parked_on(&w.none) + parked_on(&w.c) + receivers(w.full) + senders(w.full), 0);
}

static void all_past(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < w_countof(past); i++)
        at(past[i]);
    at(weft_now());
}

Test(wait_past, what_is_there_is_had_and_nothing_is_waited_for) { test_run_procs(1, all_past, NULL); }

static void in_a_while(void *arg)
{
    (void)arg;
    test_until(parked_on(&w.none) == 1);
    weft_sema_release(&w.none, 1);
    test_until(receivers(w.empty) == 1);
    cr_assert_eq(weft_chan_send(w.empty, NULL), 0);
    test_until(parked_on(&w.held) == 1);
    weft_mutex_unlock(&w.held);
}

/* The largest times: for ever, and no overflow on the way. */
static void far_ahead(void *arg)
{
    (void)arg;
    const int64_t far[] = { INT64_MAX, INT64_MAX - 1, weft_now() + (INT64_MAX - weft_now()) / 2 };
    for (size_t i = 0; i < w_countof(far); i++) {
        arrange();
        cr_assert_eq(weft_go(in_a_while, NULL), 0);
        cr_expect_eq(weft_sema_acquire_until(&w.none, far[i]), 0);
        cr_expect_eq(weft_chan_recv_until(w.empty, NULL, far[i]), 1);
        cr_expect_eq(weft_mutex_lock_until(&w.held, far[i]), 0);
        weft_timer *t = weft_timer_new(far[i], far[i]), *f = weft_timer_func(far[i], 0, in_a_while, NULL);
        weft_sleep(WEFT_MICROSECOND);
        cr_expect(weft_timer_stop(t) && weft_timer_reset(f, INT64_MAX) == true && weft_timer_stop(f) && !weft_timer_stop(f));
        cr_expect_eq(timers_waiting(), 0);
    }
}

Test(wait_past, the_largest_times_are_never) { test_run_procs(1, far_ahead, NULL); }
