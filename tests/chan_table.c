/* What each operation gives on a channel in each state: the table of Go's language specification. */
#include "test.h"
#include <errno.h>
#include <string.h>

enum state { NIL, EMPTY, SOME, FULL, CLOSED, CLOSED_SOME, STATES };
static const char *const state_name[] = { "nil", "empty", "with elements", "full", "closed", "closed with elements" };
enum { BLOCKS = -EAGAIN };

/* The first element in the channel is 100. */
static weft_chan *in_state(enum state s, size_t cap, bool *applies)
{
    *applies = cap > 0 || s == NIL || s == EMPTY || s == CLOSED;
    if (s == NIL || !*applies)
        return NULL;
    weft_chan *c = weft_chan_make_noscan(sizeof(int), cap);
    size_t n = s == SOME || s == CLOSED_SOME ? 1 : s == FULL ? cap : 0;
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(weft_chan_send(c, &(int){ 100 + (int)i }), 0);
    if (s == CLOSED || s == CLOSED_SOME)
        cr_assert_eq(weft_chan_close(c), 0);
    return c;
}

struct row { enum state state; int send, recv, close; };
static const struct row buffered[] = {
    { NIL, BLOCKS, BLOCKS, -EINVAL },
    { EMPTY, 0, BLOCKS, 0 },
    { SOME, 0, 1, 0 },
    { FULL, BLOCKS, 1, 0 },
    { CLOSED, -EPIPE, 0, -EPIPE },
    { CLOSED_SOME, -EPIPE, 1, -EPIPE },
};
static const struct row unbuffered[] = {
    { NIL, BLOCKS, BLOCKS, -EINVAL },
    { EMPTY, BLOCKS, BLOCKS, 0 },
    { CLOSED, -EPIPE, 0, -EPIPE },
};

static void expect(const char *what, const struct row *row, size_t cap, int got, int want)
{
    cr_assert_eq(got, want, "%s on a %s channel of capacity %zu gave %d instead of %d", what, state_name[row->state], cap, got, want);
}

static void received(const struct row *row, size_t cap, int result, int v)
{
    int want = result == 1 ? 100 : result == 0 ? 0 : -7;
    cr_assert_eq(v, want, "a %s channel of capacity %zu gave %d instead of %d", state_name[row->state], cap, v, want);
}

/* Every form of the two operations; each on a fresh channel. */
static void check_row(const struct row *row, size_t cap)
{
    bool applies;
#define FRESH in_state(row->state, cap, &applies)
    int timed_send = row->send == BLOCKS ? -ETIMEDOUT : row->send, timed_recv = row->recv == BLOCKS ? -ETIMEDOUT : row->recv;
    const int one = 1;
    int v;

    expect("try_send", row, cap, weft_chan_try_send(FRESH, &one), row->send);
    expect("send_until the past", row, cap, weft_chan_send_until(FRESH, &one, 1), timed_send);
    expect("send_until soon", row, cap, weft_chan_send_until(FRESH, &one, weft_now() + WEFT_MILLISECOND), timed_send);
    if (row->send != BLOCKS)
        expect("send", row, cap, weft_chan_send(FRESH, &one), row->send);

    expect("try_recv", row, cap, (v = -7, weft_chan_try_recv(FRESH, &v)), row->recv);
    received(row, cap, row->recv, v);
    expect("recv_until the past", row, cap, (v = -7, weft_chan_recv_until(FRESH, &v, 1)), timed_recv);
    received(row, cap, row->recv, v);
    expect("recv_until soon", row, cap, (v = -7, weft_chan_recv_until(FRESH, &v, weft_now() + WEFT_MILLISECOND)), timed_recv);
    received(row, cap, row->recv, v);
    if (row->recv != BLOCKS) {
        expect("recv", row, cap, (v = -7, weft_chan_recv(FRESH, &v)), row->recv);
        received(row, cap, row->recv, v);
    }

    /* The same through select, alone and beside a case that is never ready. */
    for (size_t n = 1; n <= 2; n++) {
        weft_case s[2] = { { WEFT_SEND, FRESH, (void *)&one, -7 }, { WEFT_RECV, NULL, NULL, -7 } };
        expect("select_default to send", row, cap, weft_select_default(s, n), row->send == BLOCKS ? -EAGAIN : 0);
        expect("result of select to send", row, cap, s[0].result, row->send == BLOCKS ? -7 : row->send);
        weft_case t[2] = { { WEFT_SEND, FRESH, (void *)&one, -7 }, { WEFT_RECV, NULL, NULL, -7 } };
        expect("select_until to send", row, cap, weft_select_until(t, n, weft_now() + WEFT_MILLISECOND), row->send == BLOCKS ? -ETIMEDOUT : 0);
        expect("result of select to send", row, cap, t[0].result, row->send == BLOCKS ? -7 : row->send);
        v = -7;
        weft_case r[2] = { { WEFT_RECV, FRESH, &v, -7 }, { WEFT_RECV, NULL, NULL, -7 } };
        expect("select_default to receive", row, cap, weft_select_default(r, n), row->recv == BLOCKS ? -EAGAIN : 0);
        expect("result of select to receive", row, cap, r[0].result, row->recv == BLOCKS ? -7 : row->recv);
        received(row, cap, row->recv, v);
    }

    expect("close", row, cap, weft_chan_close(FRESH), row->close);
    weft_chan *c = FRESH;
    size_t len = row->state == FULL ? cap : row->state == SOME || row->state == CLOSED_SOME ? 1 : 0;
    cr_assert_eq(weft_chan_len(c), len);
    cr_assert_eq(weft_chan_cap(c), c == NULL ? 0 : cap);
}

static void table(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < sizeof buffered / sizeof buffered[0]; i++) {
        check_row(&buffered[i], 2);
        check_row(&buffered[i], 5);
    }
    for (size_t i = 0; i < sizeof unbuffered / sizeof unbuffered[0]; i++)
        check_row(&unbuffered[i], 0);
}

Test(chan, every_operation_in_every_state) { test_run(table, NULL); }

static void closed_drains(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(sizeof(int), 3);
    for (int i = 1; i <= 3; i++)
        cr_assert_eq(weft_chan_send(c, &i), 0);
    cr_assert_eq(weft_chan_close(c), 0);
    int v = -1;
    for (int i = 1; i <= 3; i++) {
        cr_assert_eq(weft_chan_recv(c, &v), 1);
        cr_assert_eq(v, i);
    }
    for (int i = 0; i < 3; i++) {
        v = -1;
        cr_assert_eq(weft_chan_recv(c, &v), 0);
        cr_assert_eq(v, 0);
    }
}

Test(chan, closed_channel_gives_what_is_buffered_then_zeroes) { test_run(closed_drains, NULL); }

/* ---- elements ---------------------------------------------------------------------------------------------- */

static void fill(unsigned char *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(seed * 31 + i * 7 + 1);
}

struct pipe { weft_chan *c; size_t size; int n; };

static void send_filled(void *arg)
{
    struct pipe *p = arg;
    unsigned char *e = weft_alloc(p->size + 1);
    for (int i = 0; i < p->n; i++) {
        fill(e + 1, p->size, (unsigned)i); /* + 1: elements need not be aligned */
        cr_assert_eq(weft_chan_send(p->c, e + 1), 0);
    }
    weft_chan_close(p->c);
}

static void sizes(void *arg)
{
    (void)arg;
    static const size_t size[] = { 0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 33, 64, 100, 4096, 10007 };
    static const size_t cap[] = { 0, 1, 3 };
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++)
        for (size_t k = 0; k < sizeof cap / sizeof cap[0]; k++)
            for (int scan = 0; scan < 2; scan++) {
                struct pipe p = { scan ? weft_chan_make(size[i], cap[k]) : weft_chan_make_noscan(size[i], cap[k]), size[i], 10 };
                cr_assert_not_null(p.c);
                cr_assert_eq(weft_go(send_filled, &p), 0);
                unsigned char *got = weft_alloc(size[i] + 3), *want = weft_alloc(size[i] + 3);
                for (int n = 0; n < p.n; n++) {
                    got[1] = got[size[i] + 2] = 0xee;
                    cr_assert_eq(weft_chan_recv(p.c, got + 2), 1);
                    fill(want + 2, size[i], (unsigned)n);
                    cr_assert_eq(memcmp(got + 2, want + 2, size[i]), 0, "element %d of %zu bytes, capacity %zu", n, size[i], cap[k]);
                    cr_assert_eq(got[1], 0xee);
                    cr_assert(size[i] == 0 || got[size[i] + 2] == 0xee, "%zu bytes: the byte after the element was written", size[i]);
                }
                cr_assert_eq(weft_chan_recv(p.c, got), 0);
            }
}

Test(chan, elements_of_all_sizes_arrive_whole) { test_run_procs(1, sizes, NULL); }

static void no_elem(void *arg)
{
    (void)arg;
    uint64_t v = 7;
    weft_chan *c = weft_chan_make(8, 2);
    cr_assert_eq(weft_chan_send(c, NULL), 0); /* zeroes */
    cr_assert_eq(weft_chan_send(c, &(uint64_t){ 5 }), 0);
    cr_assert_eq(weft_chan_recv(c, &v), 1);
    cr_assert_eq(v, 0);
    cr_assert_eq(weft_chan_recv(c, NULL), 1); /* dropped */
    cr_assert_eq(weft_chan_len(c), 0);
    weft_chan_close(c);
    cr_assert_eq(weft_chan_recv(c, NULL), 0);
}

Test(chan, elem_may_be_null) { test_run(no_elem, NULL); }

static void too_large(void *arg)
{
    (void)arg;
    cr_assert_null(weft_chan_make(SIZE_MAX, 2));
    cr_assert_null(weft_chan_make(2, SIZE_MAX));
    cr_assert_null(weft_chan_make((size_t)1 << 32, (size_t)1 << 32));
    cr_assert_null(weft_chan_make(1, SIZE_MAX - 8));
    cr_assert_null(weft_chan_make_noscan((size_t)1 << 62, 1));
    cr_assert_not_null(weft_chan_make(SIZE_MAX, 0)); /* nothing is stored */
    cr_assert_not_null(weft_chan_make(0, SIZE_MAX));
}

Test(chan, make_refuses_what_does_not_fit) { test_run(too_large, NULL); }

static void zero_size_full(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(0, 3);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_chan_try_send(c, NULL), 0);
    cr_assert_eq(weft_chan_try_send(c, NULL), -EAGAIN);
    cr_assert_eq(weft_chan_len(c), 3);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_chan_try_recv(c, NULL), 1);
    cr_assert_eq(weft_chan_try_recv(c, NULL), -EAGAIN);
}

Test(chan, elements_of_no_size_are_counted) { test_run(zero_size_full, NULL); }
