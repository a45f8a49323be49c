/* The heap with its pages armed, by write protection: what that must not get in the way of. What the program reads into it, what the runtime itself
 * writes to it on whatever thread, and the end. */
#include "io_test.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include "gc/heap.h"
#include "os/dirty.h"

enum { BYTES = 64 << 10 };
static char *obj;

/* The whole pages of obj, as a cycle would. */
static void arm(void)
{
    uintptr_t lo = w_align_up((uintptr_t)obj, 4096), hi = w_align_down((uintptr_t)obj + BYTES, 4096);
    OK(dirty_arm(lo, hi));
}

/* The page at p is told. */
static void expect_written(const void *p)
{
    uintptr_t at = w_align_down((uintptr_t)p, 4096), next;
    struct dirty_range out[1];
    cr_assert_eq(dirty_take(at, at + 4096, true, out, 1, &next), 1);
}

/* As a cycle would do with all that is there. */
static void begin(void)
{
    uintptr_t base = (uintptr_t)heap.base;
    dirty_stop();
    OK(dirty_start(DIRTY_MPROTECT, false, base, base + heap.reserved));
    OK(dirty_committed(base, base + load_rlx(&heap.committed))); /* rlx: what we have made is there */
}

static void arm_all(void) { OK(dirty_arm((uintptr_t)heap.base, (uintptr_t)heap.base + load_rlx(&heap.committed))); } /* rlx: as in begin */

static void calls(void *arg)
{
    (void)arg;
    weft_fd *r, *w, *a, *b, *listener, *client, *server;
    char word[16] = "";
    obj = weft_alloc(BYTES);
    begin();
    char *at = (char *)w_align_up((uintptr_t)obj, 4096) + 3 * 4096 - 2;

    pipe_new(&r, &w);
    OK(weft_write(w, "hello", 5));
    arm();
    cr_assert_eq(OK(weft_read(r, at, 5)), 5);
    cr_assert_eq(memcmp(at, "hello", 5), 0);
    expect_written(at), expect_written(at + 4);

    OK(weft_write(w, "hello", 5));
    arm();
    cr_assert_eq(OK(weft_readv(r, (struct iovec[]){ { at + 8192, 2 }, { at, 3 } }, 2)), 5);
    cr_assert(memcmp(at + 8192, "he", 2) == 0 && memcmp(at, "llo", 3) == 0);
    expect_written(at), expect_written(at + 8192);

    pair_new(SOCK_DGRAM, &a, &b);
    OK(weft_write(b, "datagram", 8));
    arm();
    cr_assert_eq(OK(weft_recvfrom(a, at, 100, 0, NULL, NULL)), 8);
    cr_assert_eq(memcmp(at, "datagram", 8), 0);
    expect_written(at);

    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof here;
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(s, (struct sockaddr *)&here, len) == 0 && listen(s, 5) == 0 && getsockname(s, (struct sockaddr *)&here, &len) == 0);
    listener = opened(s);
    client = opened(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    OK(weft_connect(client, (struct sockaddr *)&here, len));
    struct sockaddr_in *peer = (void *)(at + 2);
    socklen_t *peerlen = (void *)(at + 2 + 4096);
    *peerlen = sizeof *peer;
    arm();
    OK(weft_accept(listener, &server, (struct sockaddr *)peer, peerlen));
    cr_assert(*peerlen == sizeof *peer && peer->sin_family == AF_INET);
    expect_written(peer), expect_written(peerlen);

    arm();
    OK(weft_write(client, word, sizeof word));
    memset(obj, 0, BYTES); /* the program's own stores, through the runtime's handler */
    weft_fd *const all[] = { r, w, a, b, listener, client, server };
    for (size_t i = 0; i < w_countof(all); i++)
        OK(weft_fd_close(all[i]));
    dirty_stop();
}

Test(gc_dirty, reads_into_armed_pages) { test_run_debug(1, "gc=stw", calls, NULL); }

/* In a stop pools are written to, by any of those who mark. */
static void pools(void *arg)
{
    (void)arg;
    static weft_pool *pool[50];
    int got = 0;
    for (size_t i = 0; i < w_countof(pool); i++)
        pool[i] = weft_pool_new(NULL, NULL);
    begin();
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < w_countof(pool); i++)
            weft_pool_put(pool[i], weft_alloc(100));
        arm_all();
        weft_gc();
        for (size_t i = 0; i < w_countof(pool); i++)
            got += weft_pool_get(pool[i]) != NULL;
    }
    cr_assert_gt(got, 0, "of a pool's things those on another processor may not be had"); /* after a collection we may be on another one */
    OK(dirty_disarm((uintptr_t)heap.base, (uintptr_t)heap.base + load_rlx(&heap.committed))); /* rlx: as in begin */
    dirty_stop();
}

Test(gc_dirty, the_collector_writes_itself) { test_run_debug(2, "gc=stw,gcpoison=1", pools, NULL); }

/* Who runs still has allocated memory in hand, which is poisoned when it goes back. */
static void ends_armed(void *arg)
{
    (void)arg;
    obj = weft_alloc(100);
    begin();
    obj = weft_alloc(100);
    arm_all();
}

Test(gc_dirty, the_runtime_ends)
{
    test_run_debug(2, "gc=stw,gcpoison=1", ends_armed, NULL);
    dirty_stop();
    test_run_debug(2, "gc=stw,gcpoison=1", ends_armed, NULL);
}
