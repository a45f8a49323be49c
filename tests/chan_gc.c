/* The collector and channels: whatever an element or a waiter points to lives; what was received is let go. */
#include "heap_test.h"
#include "waiting.h"
#include <errno.h>

static __attribute__((noinline)) void put(weft_chan *c, uint64_t from, uint64_t n)
{
    for (uint64_t i = from; i < from + n; i++) {
        struct box *b = box_new(NULL, i);
        cr_assert_eq(weft_chan_send(c, &b), 0);
    }
}

static void in_the_buffer(void *arg)
{
    (void)arg;
    for (size_t cap = 1; cap <= 5000; cap = cap * 3 + 1) { /* the last is a large object */
        weft_chan *c = weft_chan_make(sizeof(struct box *), cap);
        put(c, 0, cap);
        struct box *b;
        for (uint64_t i = 0; i < cap / 2; i++)
            cr_assert_eq(weft_chan_recv(c, &b), 1);
        put(c, cap, cap / 2); /* around the end */
        b = NULL;
        test_wipe_stack();
        churn();
        for (uint64_t i = cap / 2; i < cap + cap / 2; i++) {
            cr_assert_eq(weft_chan_recv(c, &b), 1);
            box_check(b, i);
        }
    }
}

Test(chan_gc, buffered_elements_live) { test_run(in_the_buffer, NULL); }

/* ---- parked ---------------------------------------------------------------------------------------------------- */

struct side { weft_chan *c; uint64_t i; weft_waitgroup wg; };

static void send_box(void *arg)
{
    struct side *s = arg;
    struct box *b = box_new(NULL, s->i);
    weft_waitgroup *wg = &s->wg;
    cr_assert_eq(weft_chan_send(s->c, &b), 0);
    (void)wg;
}

/* The element itself lies in a collected object that only the waiter knows. */
static __attribute__((noinline)) struct box **boxed(uint64_t i)
{
    struct box **cell = weft_alloc(sizeof *cell);
    *cell = box_new(NULL, i);
    return cell;
}

static void send_from_heap(void *arg)
{
    struct side *s = arg;
    cr_assert_eq(weft_chan_send(s->c, boxed(s->i)), 0);
}

static void select_box(void *arg)
{
    struct side *s = arg;
    weft_chan *never = weft_chan_make(8, 0);
    weft_case two[] = { { WEFT_RECV, never, NULL, 0 }, { WEFT_SEND, s->c, boxed(s->i), 0 } };
    cr_assert_eq(weft_select(two, 2), 1);
}

/* More cases than lie on the stack. */
static void select_many(void *arg)
{
    struct side *s = arg;
    weft_case many[40];
    for (int i = 0; i < 40; i++)
        many[i] = (weft_case){ WEFT_RECV, weft_chan_make(8, 0), NULL, 0 };
    many[33] = (weft_case){ WEFT_SEND, s->c, boxed(s->i), 0 };
    cr_assert_eq(weft_select(many, 40), 33);
}

static void held_by_parked(void *arg)
{
    weft_fn *fn = *(weft_fn **)arg;
    enum { FIBERS = 12 };
    for (size_t cap = 0; cap <= 2; cap += 2) {
        struct side s[FIBERS] = { 0 };
        weft_chan *c = weft_chan_make(sizeof(struct box *), cap);
        for (uint64_t i = 0; i < FIBERS; i++) {
            s[i].c = c;
            s[i].i = i;
            cr_assert_eq(weft_waitgroup_go(&s[i].wg, fn, &s[i]), 0);
            test_until(senders(c) + weft_chan_len(c) == i + 1);
        }
        test_wipe_stack();
        churn();
        for (uint64_t i = 0; i < FIBERS; i++) {
            struct box *b = NULL;
            cr_assert_eq(weft_chan_recv(c, &b), 1);
            churn();
            box_check(b, i);
        }
        for (int i = 0; i < FIBERS; i++)
            weft_waitgroup_wait(&s[i].wg);
    }
}

Test(chan_gc, a_parked_sender_keeps_its_element)
{
    test_run(held_by_parked, &(weft_fn *){ send_box });
    test_run(held_by_parked, &(weft_fn *){ send_from_heap });
}
Test(chan_gc, a_parked_select_keeps_its_elements)
{
    test_run(held_by_parked, &(weft_fn *){ select_box });
    test_run(held_by_parked, &(weft_fn *){ select_many });
}

/* A receiver that parks has a frame that a later partner fills: then the object must live by that frame alone. */
static void recv_box(void *arg)
{
    struct side *s = arg;
    struct box *b = NULL;
    cr_assert_eq(weft_chan_recv(s->c, &b), 1);
    churn();
    box_check(b, s->i);
}

static void handed_over(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < 30; i++) {
        struct side s = { .c = weft_chan_make(sizeof(struct box *), 0), .i = i };
        cr_assert_eq(weft_waitgroup_go(&s.wg, recv_box, &s), 0);
        test_until(receivers(s.c) == 1);
        put(s.c, i, 1);
        test_wipe_stack();
        churn();
        weft_waitgroup_wait(&s.wg);
    }
}

Test(chan_gc, what_is_handed_to_a_parked_receiver_lives)
{
    test_run_procs(1, handed_over, NULL);
    test_run_procs(2, handed_over, NULL);
}

/* The only way to a channel is a fiber parked on it, or a channel in a channel. */
static void recv_chan(void *arg)
{
    weft_chan *outer = arg, *inner = NULL;
    int v = 0;
    cr_assert_eq(weft_chan_recv(outer, &inner), 1);
    cr_assert_eq(weft_chan_recv(inner, &v), 1);
    cr_assert_eq(v, 17);
    cr_assert_eq(weft_chan_send(inner, &(int){ 18 }), 0);
}

static __attribute__((noinline)) void send_chan(weft_chan *outer)
{
    weft_chan *inner = weft_chan_make(sizeof(int), 1);
    cr_assert_eq(weft_chan_send(inner, &(int){ 17 }), 0);
    cr_assert_eq(weft_chan_send(outer, &inner), 0);
}

static void channels_in_channels(void *arg)
{
    (void)arg;
    weft_chan *outer = weft_chan_make(sizeof(weft_chan *), 3);
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 3; i++)
        send_chan(outer);
    test_wipe_stack();
    churn();
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, recv_chan, outer), 0);
    weft_waitgroup_wait(&wg);
}

Test(chan_gc, a_channel_in_a_channel_lives) { test_run(channels_in_channels, NULL); }

/* ---- letting go ----------------------------------------------------------------------------------------------------- */

static int finalized;
static void count_finalized(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    __atomic_fetch_add(&finalized, 1, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) void through(weft_chan *c, int n)
{
    for (int i = 0; i < n; i++) {
        void *b = weft_alloc(64);
        cr_assert_eq(weft_set_finalizer(b, count_finalized, NULL), 0);
        cr_assert_eq(weft_chan_send(c, &b), 0);
        b = NULL;
        cr_assert_eq(weft_chan_recv(c, &b), 1);
    }
}

static void lets_go(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(sizeof(void *), 100); /* every slot is used once: none is overwritten */
    through(c, 100);
    test_wipe_stack();
    weft_gc();
    test_until(__atomic_load_n(&finalized, __ATOMIC_RELAXED) >= 95); /* a conservative scan may find a few still */
    weft_keep_alive(c);
}

Test(chan_gc, a_channel_does_not_keep_what_was_received) { test_run(lets_go, NULL); }

static void under_stress_send(void *arg)
{
    struct side *s = arg;
    for (uint64_t i = 0; i < 300; i++) {
        struct box *b = box_new(NULL, i);
        cr_assert_eq(weft_chan_send(s->c, &b), 0);
    }
}

static void under_stress(void *arg)
{
    (void)arg;
    for (size_t cap = 0; cap <= 3; cap += 3) {
        struct side s[4] = { 0 };
        for (int k = 0; k < 4; k++) {
            s[k].c = weft_chan_make(sizeof(struct box *), cap);
            cr_assert_eq(weft_waitgroup_go(&s[k].wg, under_stress_send, &s[k]), 0);
        }
        for (uint64_t i = 0; i < 300; i++)
            for (int k = 0; k < 4; k++) {
                struct box *b = NULL;
                cr_assert_eq(weft_chan_recv(s[k].c, &b), 1);
                box_check(b, i);
            }
        for (int k = 0; k < 4; k++)
            weft_waitgroup_wait(&s[k].wg);
    }
}

Test(chan_gc, elements_live_when_every_seventh_allocation_collects)
{
    for (int procs = 1; procs <= 2; procs++)
        test_run_debug(procs, "gcstress=7,gcpoison=1", under_stress, NULL);
}
