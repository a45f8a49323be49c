/* What the tests of descriptors share. */
#ifndef WEFT_IO_TEST_H
#define WEFT_IO_TEST_H

#include "base/rng.h"
#include "sched/fd.h"
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A weft call that must succeed. */
#define OK(call) ({ long ok_ = (long)(call); if (ok_ < 0) cr_assert_fail("%s:%d: %s: %s", __FILE__, __LINE__, #call, weft_strerror((int)ok_)); ok_; })

/* A deadline that only a lost wake-up reaches. */
static inline int64_t soon(void) { return weft_now() + 20 * WEFT_SECOND; }

static inline void guard(weft_fd *f) { OK(weft_fd_set_deadline(f, soon(), soon())); }

static inline weft_fd *opened(int fd)
{
    weft_fd *f = NULL;
    OK(weft_fd_open(fd, &f));
    return f;
}

static inline void pipe_new(weft_fd **r, weft_fd **w)
{
    int p[2];
    cr_assert_eq(pipe2(p, O_CLOEXEC), 0);
    *r = opened(p[0]);
    *w = opened(p[1]);
}

static inline void pair_new(int type, weft_fd **a, weft_fd **b)
{
    int p[2];
    cr_assert_eq(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, p), 0);
    *a = opened(p[0]);
    *b = opened(p[1]);
}

/* A fiber is parked till f can be read or written; so many more wait for their turn. */
static inline bool waits(weft_fd *f, enum fd_dir dir) { return load_acq(&fd_at(f)->poll.slot[dir]) > SLOT_WAIT; }

static inline size_t in_line(weft_fd *f, enum fd_dir dir)
{
    size_t n = 0;
    struct m *m = rt_enter();
    lock_take(&fd_at(f)->lock);
    for (struct fd_waiter *w = fd_at(f)->side[dir].first; w != NULL; w = w->next)
        n++;
    lock_drop(&fd_at(f)->lock);
    rt_leave(m);
    return n;
}

/* Two ends of a TCP connection. */
static inline void tcp_new(weft_fd **a, weft_fd **b)
{
    weft_fd *l;
    char addr[32];
    OK(weft_listen("127.0.0.1:0", 8, &l));
    snprintf(addr, sizeof addr, "127.0.0.1:%d", weft_fd_port(l));
    OK(weft_dial(addr, soon(), a));
    guard(l);
    OK(weft_accept(l, b, NULL, NULL));
    OK(weft_fd_close(l));
}

/* A stream of bytes that both ends know. */
static inline uint8_t stream_byte(uint64_t seed, uint64_t i)
{
    uint64_t x = (seed + i / 8) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 29;
    return (uint8_t)(x >> (i % 8 * 8));
}

static inline void stream_fill(uint8_t *buf, size_t n, uint64_t seed, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        buf[i] = stream_byte(seed, at + i);
}

static inline void stream_check(const uint8_t *buf, size_t n, uint64_t seed, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        if (buf[i] != stream_byte(seed, at + i))
            cr_assert_fail("byte %lu is wrong", (unsigned long)(at + i));
}

/* Starts fn(arg) and counts it in wg. */
#define GO(wg, fn, arg) cr_assert_eq(weft_waitgroup_go(&(wg), (fn), (void *)(arg)), 0)

#endif
