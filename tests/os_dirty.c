/* Written pages, by each back-end that this machine has: what the program writes, what the kernel writes for it, what nobody writes. */
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/backoff.h"
#include "base/fail.h"
#include "base/rng.h"
#include "os/clock.h"
#include "os/dirty.h"
#include "os/signal.h"
#include "os/vm.h"

#define RESERVED ((size_t)1 << 30)
#define COMMITTED ((size_t)64 << 20)
#define HUGE_AT ((size_t)16 << 20) /* from here on huge pages, where there are some */

static char *heap;
static size_t page;
static size_t faults; /* that were ours, roughly: several threads count */

static enum signal_whose fault(int sig, siginfo_t *info, void *uc)
{
    (void)sig;
    uintptr_t pc = 0;
#if defined(__x86_64__)
    pc = (uintptr_t)((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    pc = (uintptr_t)((ucontext_t *)uc)->uc_mcontext.pc;
#endif
    if (info->si_code <= 0 || !dirty_fault((uintptr_t)info->si_addr, pc))
        return SIGNAL_HOSTS;
    __atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED);
    return SIGNAL_OURS;
}

/* Whether the kernel says that it can, whatever we make of it. */
static bool kernel_has_it(void)
{
    struct uffdio_api api = { .api = UFFD_API, .features = 1u << 15 };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1);
    bool has = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void begin(enum dirty_backend want)
{
    page = os_page_bytes();
    heap = os_vm_reserve(RESERVED, OS_HUGE_PAGE);
    cr_assert_not_null(heap);
    uintptr_t lo = (uintptr_t)heap;
    int err = dirty_start(want, false, lo, lo + RESERVED);
    if (err != 0) {
        cr_assert(want == DIRTY_UFFD && !kernel_has_it(), "%s", dirty_why());
        cr_skip_test("%s", dirty_why());
    }
    cr_assert_eq(dirty_backend(), want);
    cr_assert_eq(os_vm_commit(heap, COMMITTED), 0);
    os_vm_huge(heap + HUGE_AT, COMMITTED - HUGE_AT);
    cr_assert_eq(dirty_committed(lo, lo + COMMITTED), 0);
    if (want == DIRTY_MPROTECT)
        cr_assert_eq(signal_hook(SIGSEGV, fault, false), 0);
}

static void end(void)
{
    signal_unhook(SIGSEGV);
    dirty_stop();
    os_vm_free(heap, RESERVED);
}

/* A test for each of them. */
#define EACH(name)                                                                              \
    static void name(void);                                                                     \
    Test(os_dirty, uffd_##name) { begin(DIRTY_UFFD); name(); end(); }                           \
    Test(os_dirty, mprotect_##name) { begin(DIRTY_MPROTECT); name(); end(); }                   \
    static void name(void)

/* ---- what is expected ------------------------------------------------------------------------------------------- */

static uintptr_t at(size_t i) { return (uintptr_t)heap + i * page; }
static void write_to(size_t i) { ((volatile char *)heap)[i * page + 8]++; }
static void fill_pages(size_t from, size_t to) { memset(heap + from * page, 1, (to - from) * page); }
static void arm(size_t from, size_t to) { cr_assert_eq(dirty_arm(at(from), at(to)), 0); }

/* All that is not armed in [from, to), n ranges at a time, as bits (of bytes). It looks at the order, and that a range ends where the next page is
 * armed. */
static void take(unsigned char *map, size_t from, size_t to, bool again, size_t n)
{
    struct dirty_range *out = calloc(n, sizeof *out);
    uintptr_t lo = at(from), seen = lo;
    memset(map, 0, to - from);
    while (lo < at(to)) {
        uintptr_t next = 0;
        ptrdiff_t k = dirty_take(lo, at(to), again, out, n, &next);
        cr_assert(k >= 0 && (size_t)k <= n, "%td", k);
        cr_assert(next > lo && next <= at(to));
        for (ptrdiff_t i = 0; i < k; i++) {
            cr_assert(out[i].lo >= seen && out[i].lo < out[i].hi && out[i].hi <= next);
            cr_assert(i == 0 || out[i].lo > out[i - 1].hi);
            memset(map + (out[i].lo - at(from)) / page, 1, (out[i].hi - out[i].lo) / page);
            seen = out[i].hi;
        }
        lo = next;
    }
    free(out);
}

/* The pages that are not armed in [from, to) are those listed, up to a -1. */
static void expect_all(int line, size_t from, size_t to, bool again, const long *list)
{
    unsigned char *map = malloc(to - from);
    size_t n = 0;
    take(map, from, to, again, 64);
    for (; list[n] >= 0; n++)
        cr_assert(map[(size_t)list[n] - from] == 1, "line %d: page %ld is not told", line, list[n]);
    for (size_t i = 0; i < to - from; i++)
        n -= map[i];
    cr_assert_eq(n, 0, "line %d: pages are told that nobody wrote to", line);
    free(map);
}
#define expect(from, to, again, ...) expect_all(__LINE__, from, to, again, (const long[]){ __VA_ARGS__ })

/* ---- one page after the other --------------------------------------------------------------------------------------- */

EACH(tells_what_was_written)
{
    fill_pages(0, 100);
    arm(0, 100);
    expect(0, 100, false, -1);
    write_to(3), write_to(4), write_to(70), write_to(99);
    write_to(3);
    expect(0, 100, false, 3, 4, 70, 99, -1);
    expect(0, 100, false, 3, 4, 70, 99, -1); /* a look changes nothing */
    expect(4, 71, false, 4, 70, -1);         /* a part */
    expect(4, 71, true, 4, 70, -1);
    expect(0, 100, false, 3, 99, -1);
    write_to(70);
    expect(0, 100, true, 3, 70, 99, -1);
    expect(0, 100, true, -1);
    cr_assert_eq(heap[3 * page + 8], 3);
    cr_assert_eq(heap[70 * page + 8], 3);
}

EACH(never_armed_counts_as_written)
{
    fill_pages(0, 10);
    expect(0, 4, false, 0, 1, 2, 3, -1);
    arm(1, 3);
    expect(0, 4, false, 0, 3, -1);
    cr_assert_eq(dirty_disarm(at(2), at(4)), 0);
    expect(0, 4, false, 0, 2, 3, -1);
    write_to(2);
    expect(0, 4, true, 0, 2, 3, -1);
    expect(0, 4, false, -1);
}

EACH(arming_again_forgets)
{
    fill_pages(0, 40);
    arm(0, 40);
    write_to(7), write_to(20);
    arm(0, 10); /* few pages and many go different ways */
    expect(0, 40, false, 20, -1);
    write_to(7);
    arm(0, 40);
    expect(0, 40, false, -1);
    write_to(39);
    expect(0, 40, false, 39, -1);
}

EACH(pages_never_touched)
{
    arm(0, 600);
    write_to(5), write_to(599);
    cr_assert_eq(((volatile char *)heap)[6 * page], 0); /* to read is not to write */
    expect(0, 600, true, 5, 599, -1);
    cr_assert_eq(((volatile char *)heap)[7 * page], 0);
    expect(0, 600, true, -1);
    write_to(6);
    expect(0, 600, true, 6, -1);
}

/* A page that lost its memory reads as zero, whether it is told or not; what is written then is told. */
EACH(memory_given_back)
{
    unsigned char map[64];
    fill_pages(0, 64);
    arm(0, 64);
    write_to(1);
    cr_assert_eq(os_vm_release(heap, 10 * page, true), 0);
    cr_assert_eq(heap[9 * page], 0);
    write_to(9);
    take(map, 0, 64, true, 8);
    cr_assert_eq(map[9], 1);
    for (int i = 10; i < 64; i++)
        cr_assert_eq(map[i], 0);
    expect(0, 64, false, -1);
    write_to(5);
    expect(0, 64, true, 5, -1);
}

/* ---- who writes ----------------------------------------------------------------------------------------------------- */

static void *writer(void *arg)
{
    for (size_t i = (size_t)arg; i < 1200; i += 4)
        write_to(i);
    return NULL;
}

EACH(writes_of_other_threads)
{
    enum { N = 1300 };
    unsigned char map[N];
    pthread_t t[4];
    fill_pages(0, N);
    for (int round = 0; round < 2; round++) {
        arm(0, N);
        for (size_t k = 0; k < 4; k++)
            cr_assert_eq(pthread_create(&t[k], NULL, writer, (void *)k), 0);
        for (int k = 0; k < 4; k++)
            pthread_join(t[k], NULL);
        take(map, 0, N, false, 100);
        for (int i = 0; i < N; i++)
            cr_assert_eq(map[i], i < 1200, "%d", i);
    }
}

/* Each byte of [8, 16) of a page holds the number of its last write. A collector reads the page after it has taken it, so all that it may miss is
 * what it is told of later. */
static struct { pthread_t thread[2]; w_u32 end; w_u64 writes; } hammer;
#define HAMMERED 700

static void *hammering(void *arg)
{
    struct rng r;
    rng_seed(&r, (uint64_t)(uintptr_t)arg);
    while (load_rlx(&hammer.end) == 0) {
        size_t i = rng_next(&r) % HAMMERED;
        __atomic_fetch_add((uint64_t *)(void *)(heap + i * page + 8), 1, __ATOMIC_RELAXED);
        add_rlx(&hammer.writes, 1); /* rlx: a counter */
    }
    return NULL;
}

EACH(no_write_is_lost)
{
    static uint64_t seen[HAMMERED];
    unsigned char map[HAMMERED];
    arm(0, HAMMERED);
    for (uintptr_t k = 0, seed = test_seed(); k < 2; k++)
        cr_assert_eq(pthread_create(&hammer.thread[k], NULL, hammering, (void *)(seed + k)), 0);
    bool last = false;
    for (int64_t until_ns = os_now_ns() + 5000000000, round = 1; !last; round++) {
        last = round == 150 || os_now_ns() > until_ns;
        for (uint64_t n = load_rlx(&hammer.writes); load_rlx(&hammer.writes) < n + 10;) /* rlx: a counter */
            nap();
        if (last) {
            store_rlx(&hammer.end, 1);
            pthread_join(hammer.thread[0], NULL);
            pthread_join(hammer.thread[1], NULL);
        }
        take(map, 0, HAMMERED, !last, 1 + (size_t)round % 90);
        for (size_t i = 0; i < HAMMERED; i++)
            if (map[i] == 1)
                seen[i] = __atomic_load_n((uint64_t *)(void *)(heap + i * page + 8), __ATOMIC_RELAXED);
    }
    for (size_t i = 0; i < HAMMERED; i++)
        cr_assert_eq(seen[i], *(uint64_t *)(void *)(heap + i * page + 8), "page %zu", i);
}

EACH(writes_of_the_kernel)
{
    int s[2];
    char *to = heap + 5 * page - 2, got[8];
    fill_pages(0, 20);
    arm(0, 20);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, s), 0);
    cr_assert_eq(send(s[1], "hello", 5, 0), 5);
    dirty_hold(to, 5); /* needed by one of the back-ends only */
    cr_assert_eq(dirty_arm(at(0), at(20)), 0); /* beside the call */
    cr_assert_eq(recv(s[0], to, 5, 0), 5);
    dirty_release(to, 5);
    memcpy(got, to, 5);
    cr_assert_eq(memcmp(got, "hello", 5), 0);
    unsigned char map[20];
    take(map, 0, 20, true, 20);
    cr_assert(map[4] == 1 && map[5] == 1);
    expect(0, 20, true, -1); /* armed again, now that it is released */
    dirty_hold(got, sizeof got); /* what is no heap needs nothing */
    dirty_release(got, sizeof got);
    dirty_hold(heap, 0);
    dirty_release(heap, 0);
    expect(0, 20, true, -1);
    close(s[0]), close(s[1]);
}

Test(os_dirty, uffd_needs_no_care_with_system_calls)
{
    int p[2];
    begin(DIRTY_UFFD);
    fill_pages(0, 20);
    arm(0, 20);
    cr_assert_eq(pipe(p), 0);
    cr_assert_eq(write(p[1], "hello", 5), 5);
    cr_assert_eq(read(p[0], heap + 3 * page, 5), 5);
    expect(0, 20, true, 3, -1);
    cr_assert_eq(write(p[1], "hello", 5), 5);
    cr_assert_eq(read(p[0], heap + HUGE_AT, 5), 5); /* never touched, and not armed */
    end();
}

/* ---- sizes ---------------------------------------------------------------------------------------------------------- */

EACH(huge_pages)
{
    size_t from = HUGE_AT / page, per = OS_HUGE_PAGE / page, to = from + 4 * per;
    fill_pages(from, to);
    arm(from, to);
    expect(from, to, true, -1);
    write_to(from + per + 5);
    write_to(to - 1);
    expect(from, to, true, (long)(from + per + 5), (long)to - 1, -1);
    write_to(from + 3);
    expect(from, from + 8, false, (long)from + 3, -1);
    expect(from + 4, to, false, -1);
    cr_assert_eq(dirty_disarm(at(from), at(to)), 0);
    os_vm_collapse(heap + HUGE_AT, 4 * OS_HUGE_PAGE);
    unsigned char *map = malloc(to - from);
    take(map, from, to, true, 3);
    for (size_t i = 0; i < to - from; i++)
        cr_assert_eq(map[i], 1);
    arm(from + per / 2, from + per);
    write_to(from + per / 2);
    expect(from, to, false, (long)(from + per / 2), -1);
    free(map);
}

/* Where there are huge pages at all. */
Test(os_dirty, uffd_huge_pages_are_mended)
{
    begin(DIRTY_UFFD);
    size_t from = HUGE_AT / page, per = OS_HUGE_PAGE / page, to = from + 4 * per;
    uintptr_t lo = at(from), hi = at(to);
    fill_pages(from, to);
    dirty_mend(lo, hi);
    if (dirty_mend(lo, hi) != 0)
        cr_skip_test("there are no huge pages to be had");
    arm(from, to);
    write_to(from + per + 5), write_to(from + 2 * per);
    cr_assert_eq(dirty_mend(lo, hi), 0); /* as long as they are armed */
    expect(from, to, false, (long)(from + per + 5), (long)(from + 2 * per), -1);
    cr_assert_eq(dirty_disarm(at(from + per), at(from + 2 * per)), 0);
    cr_assert_eq(dirty_mend(lo + page, hi - page), 1); /* whole units: the first and the last are not meant */
    cr_assert_eq(dirty_disarm(lo, hi), 0);
    cr_assert_eq(os_vm_release(heap + HUGE_AT + 2 * OS_HUGE_PAGE + page, page, true), 0);
    cr_assert_eq(dirty_mend(lo, hi), 0); /* what was given back is not taken anew */
    write_to(from + 2 * per + 1);
    cr_assert_eq(dirty_mend(lo, hi), 1);
    for (size_t i = from; i < to; i++)
        cr_assert(heap[i * page] == (i != from + 2 * per + 1), "%zu", i);
    cr_assert_eq(heap[(from + per + 5) * page + 8], 2);
    arm(from, to);
    write_to(from);
    expect(from, to, true, (long)from, -1);
    end();
}

/* Against a plain array, over every way to ask, with room for few ranges and for many. */
EACH(as_an_array_has_it)
{
    enum { N = 3000 };
    static unsigned char want[N], got[N];
    struct rng r;
    rng_seed(&r, test_seed());
    fill_pages(0, N);
    memset(want, 1, N);
    for (int step = 0; step < 600; step++) {
        size_t from = rng_next(&r) % N, to = from + 1 + rng_next(&r) % w_min((size_t)N - from, step % 3 != 0 ? (size_t)20 : (size_t)N);
        switch (rng_next(&r) % 5) {
        case 0:
            arm(from, to);
            memset(want + from, 0, to - from);
            break;
        case 1:
            if (step % 7 == 0) {
                cr_assert_eq(dirty_disarm(at(from), at(to)), 0);
                memset(want + from, 1, to - from);
            }
            break;
        case 2:
        case 3:
            for (size_t i = from; i < to; i += 1 + rng_next(&r) % 5) {
                write_to(i);
                want[i] = 1;
            }
            break;
        default: {
            bool again = rng_next(&r) % 2 != 0;
            take(got + from, from, to, again, 1 + rng_next(&r) % (step % 2 != 0 ? 3 : 300));
            for (size_t i = from; i < to; i++)
                cr_assert_eq(got[i], want[i], "step %d, page %zu", step, i);
            if (again)
                memset(want + from, 0, to - from);
        }
        }
    }
}

/* Stacks: their guards stay guards, what was never touched is not told, and what was given back may be used anew. */
Test(os_dirty, uffd_memory_beside_the_heap)
{
    enum { STACK = 16, N = 40 * STACK };
    begin(DIRTY_UFFD);
    char *heap_at = heap, *stacks = os_vm_map_stack(N * page), c;
    cr_assert_not_null(stacks);
    uintptr_t lo = (uintptr_t)stacks;
    cr_assert_lt(dirty_arm(lo, lo + N * page), 0);
    cr_assert_eq(dirty_watch(lo, lo + N * page), 0);
    bool guards = true;
    for (size_t i = 0; i < N; i += STACK) {
        guards &= madvise(stacks + i * page, page, 102 /* MADV_GUARD_INSTALL */) == 0;
        stacks[(i + STACK - 1) * page + 8] = 1;
    }
    heap = stacks;
    for (int few = 0; few < 2; few++) { /* one after the other, and all at once */
        for (size_t i = 0; few == 1 && i < N; i += STACK)
            arm(i, i + STACK);
        if (few == 0)
            arm(0, N);
        write_to(STACK - 1), write_to(3 * STACK - 2);
        unsigned char map[N];
        take(map, 0, N, true, 5);
        for (size_t i = 0; i < N; i++)
            if (!guards || i % STACK != 0)
                cr_assert_eq(map[i], i == STACK - 1 || i == 3 * STACK - 2, "%zu", i);
        for (size_t i = 0; guards && i < N; i += STACK)
            cr_assert_eq(os_vm_peek(&c, stacks + i * page, 1), 0);
        cr_assert_eq(madvise(stacks + page, (STACK - 1) * page, MADV_DONTNEED), 0);
        write_to(4);
        take(map, 0, N, true, N);
        cr_assert_eq(map[4], 1);
        cr_assert_eq(map[STACK], 0);
    }
    os_vm_free(stacks, N * page);
    heap = heap_at;
    end();
}

/* ---- mappings ------------------------------------------------------------------------------------------------------- */

/* The system allows so many mappings; the host has the greater part of them. What is written then is told with its neighbours. */
Test(os_dirty, mprotect_stays_below_the_number_of_mappings)
{
    test_needs_a_kernel();
    begin(DIRTY_MPROTECT);
    enum { N = 16384 };
    unsigned char *map = malloc(N);
    int before = test_maps();
    cr_assert_eq(os_vm_commit(heap + COMMITTED, COMMITTED), 0); /* 128 MiB, 32768 pages */
    cr_assert_eq(dirty_committed(at(0), at(0) + 2 * COMMITTED), 0);
    size_t n = 2 * COMMITTED / page;
    write_to(0); /* as a heap is before it is armed */
    for (int round = 0; round < 2; round++) {
        arm(0, n);
        for (size_t i = 0; i < n; i += 2)
            write_to(i);
        cr_assert_lt(test_maps() - before, 65530 / 4 + 400);
        for (size_t from = 0; from < n; from += N) {
            size_t to = w_min(from + N, n);
            take(map, from, to, false, 1000);
            for (size_t i = from; i < to; i += 2)
                cr_assert_eq(map[i - from], 1, "%zu", i);
        }
        size_t told = 0;
        take(map, 0, 100, false, 100);
        for (size_t i = 0; i < 100; i++)
            told += map[i];
        cr_assert_eq(told, 50); /* page by page, as long as there are few */
        for (size_t from = 0; from < n; from += N)
            take(map, from, w_min(from + N, n), true, 1000);
        cr_assert_lt(test_maps() - before, 10, "%d", test_maps() - before);
    }
    free(map);
    end();
}

/* The host has used them all up: a fault still ends, and nothing is missed. (A sanitizer needs some itself.) */
#if defined(W_ASAN) || defined(W_TSAN)
#define NO_MAPPINGS .disabled = true
#else
#define NO_MAPPINGS .disabled = false
#endif
Test(os_dirty, mprotect_when_there_are_no_more_mappings, NO_MAPPINGS)
{
    test_needs_a_kernel();
    begin(DIRTY_MPROTECT);
    unsigned char map[1000];
    fill_pages(0, 1000);
    arm(0, 1000);
    write_to(100);
    size_t most = (size_t)70000 * page;
    char *others = mmap(NULL, most, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(others, MAP_FAILED);
    size_t k = 0;
    while (k + 2 < 70000 && mprotect(others + k * page, page, PROT_NONE) == 0)
        k += 2;
    if (k + 2 >= 70000)
        cr_skip_test("this machine allows more mappings than the test makes");
    write_to(300), write_to(500); /* each would need two */
    int err = 0;
    for (size_t i = 200; i < 240 && err == 0; i += 2)
        err = dirty_arm(at(i), at(i + 1));
    cr_assert_eq(err, -ENOMEM);
    munmap(others, most);
    take(map, 0, 1000, true, 100);
    cr_assert(map[100] == 1 && map[300] == 1 && map[500] == 1);
    expect(0, 1000, false, -1);
    write_to(2);
    expect(0, 1000, false, 2, -1);
    end();
}

/* ---- faults that are not ours ------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t hosts;
static sigjmp_buf back;
static volatile char *volatile nowhere = (volatile char *)8;
static void hosts_handler(int sig)
{
    (void)sig;
    hosts++;
    siglongjmp(back, 1);
}

Test(os_dirty, mprotect_leaves_other_faults_to_the_host)
{
    struct sigaction sa = { .sa_handler = hosts_handler };
    sigaction(SIGSEGV, &sa, NULL);
    begin(DIRTY_MPROTECT);
    fill_pages(0, 10);
    arm(0, 10);
    if (sigsetjmp(back, 1) == 0)
        *(volatile char *)(heap + COMMITTED) = 1; /* not in use yet */
    cr_assert_eq(hosts, 1);
    if (sigsetjmp(back, 1) == 0)
        *nowhere = 1;
    cr_assert_eq(hosts, 2);
    if (sigsetjmp(back, 1) == 0)
        ((void (*)(void))(uintptr_t)heap)(); /* data that is called */
    cr_assert_eq(hosts, 3);
    write_to(4);
    cr_assert(hosts == 3 && faults == 1);
    expect(0, 10, true, 4, -1);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now); /* blocked for as long as the handler ran */
    cr_assert(!sigismember(&now, SIGUSR1) && !sigismember(&now, SIGSEGV));
    end();
}

/* ---- refusals ------------------------------------------------------------------------------------------------------- */

EACH(refusals)
{
    struct dirty_range out[4];
    uintptr_t next;
    fill_pages(0, 20);
    arm(0, 20);
    fail_arm(FAIL_DIRTY, 1, 3);
    errno = EDOM;
    cr_assert_eq(dirty_arm(at(0), at(4)), -EAGAIN);
    cr_assert_eq(dirty_take(at(0), at(20), true, out, 4, &next), -EAGAIN);
    cr_assert_eq(dirty_disarm(at(0), at(4)), -EAGAIN);
    cr_assert_eq(errno, EDOM);
    write_to(2);
    expect(0, 20, true, 2, -1);
    cr_assert_eq(fail_failed(FAIL_DIRTY), 3);
    fail_disarm();
}

/* As a host does that closes all descriptors it does not know. */
Test(os_dirty, uffd_closed_by_the_host)
{
    struct dirty_range out[4];
    uintptr_t next;
    begin(DIRTY_UFFD);
    fill_pages(0, 20);
    arm(0, 20);
    for (int fd = 3; fd < 100; fd++) {
        char path[32], to[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, to, sizeof to - 1) > 0 && (strstr(to, "userfaultfd") != NULL || strstr(to, "pagemap") != NULL))
            close(fd);
    }
    write_to(2);
    cr_assert_lt(dirty_arm(at(0), at(2)), 0);
    cr_assert_lt(dirty_arm(at(0), at(20)), 0);
    cr_assert_lt(dirty_take(at(0), at(20), true, out, 4, &next), 0);
    end();
}

/* The range is not registered any more: nothing of it is known, so nothing may be told. */
Test(os_dirty, uffd_mapped_anew)
{
    struct dirty_range out[4];
    uintptr_t next;
    begin(DIRTY_UFFD);
    fill_pages(0, 20);
    arm(0, 20);
    cr_assert_eq(mmap(heap + 4 * page, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), heap + 4 * page);
    cr_assert_eq(dirty_take(at(0), at(20), true, out, 4, &next), -EPERM);
    cr_assert_lt(dirty_arm(at(0), at(20)), 0);
    cr_assert_lt(dirty_arm(at(4), at(5)), 0);
    end();
}

Test(os_dirty, no_descriptors_left)
{
    struct rlimit few;
    page = os_page_bytes();
    heap = os_vm_reserve(RESERVED, OS_HUGE_PAGE);
    uintptr_t lo = (uintptr_t)heap;
    getrlimit(RLIMIT_NOFILE, &few);
    int fds = test_fds();
    for (uint64_t nth = 1; nth <= 2; nth++) { /* each of the two */
        fail_arm(FAIL_FD, nth, 100);
        int err = dirty_start(DIRTY_UFFD, false, lo, lo + RESERVED);
        cr_assert(err < 0, "%d", err);
        cr_assert_eq(dirty_backend(), DIRTY_NONE);
        cr_assert_eq(dirty_start(DIRTY_NONE, true, lo, lo + RESERVED), 0);
        cr_assert_eq(dirty_backend(), DIRTY_NONE);
        cr_assert_neq(dirty_why()[0], 0);
        fail_disarm();
    }
    few.rlim_cur = (rlim_t)fds; /* the one that test_fds opens is closed again */
    setrlimit(RLIMIT_NOFILE, &few);
    cr_assert_eq(dirty_start(DIRTY_NONE, true, lo, lo + RESERVED), 0);
    dirty_stop();
    few.rlim_cur = 100;
    setrlimit(RLIMIT_NOFILE, &few);
    cr_assert_eq(test_fds(), fds);
    os_vm_free(heap, RESERVED);
}

Test(os_dirty, none_refuses)
{
    struct dirty_range out[4];
    uintptr_t next;
    page = os_page_bytes();
    heap = os_vm_reserve(RESERVED, OS_HUGE_PAGE);
    cr_assert_eq(dirty_start(DIRTY_NONE, false, at(0), at(0) + RESERVED), 0);
    cr_assert_eq(dirty_backend(), DIRTY_NONE);
    cr_assert_lt(dirty_committed(at(0), at(100)), 0);
    cr_assert_lt(dirty_arm(at(0), at(1)), 0);
    cr_assert_lt(dirty_take(at(0), at(20), true, out, 4, &next), 0);
    cr_assert_eq(dirty_fault(at(0), 0), false);
    dirty_hold(heap, 10);
    dirty_release(heap, 10);
    dirty_forked();
    cr_assert_eq(dirty_after_fork_child(), 0);
    dirty_stop();
    os_vm_free(heap, RESERVED);
}

/* What needs care is not chosen without being asked for. */
Test(os_dirty, the_best_one_is_chosen)
{
    page = os_page_bytes();
    heap = os_vm_reserve(RESERVED, OS_HUGE_PAGE);
    bool has = dirty_start(DIRTY_UFFD, false, at(0), at(0) + RESERVED) == 0;
    dirty_stop();
    int fds = test_fds();
    cr_assert_eq(dirty_start(DIRTY_MPROTECT, true, at(0), at(0) + RESERVED), 0);
    cr_assert_eq(dirty_backend(), has ? DIRTY_UFFD : DIRTY_NONE);
    cr_assert_eq(strncmp(dirty_why(), "written pages ", 14), 0);
    dirty_stop();
    cr_assert_eq(test_fds(), fds);
    os_vm_free(heap, RESERVED);
}

/* Without privileges, too. */
static void as_nobody(void *arg)
{
    (void)arg;
    if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0)) /* else its own /proc is root's */
        _exit(9);
    begin(DIRTY_UFFD);
    fill_pages(0, 20);
    arm(0, 20);
    write_to(3);
    struct dirty_range out[2];
    uintptr_t next;
    bool found = dirty_take(at(0), at(20), true, out, 2, &next) == 1 && out[0].lo == at(3);
    int p[2];
    if (!found || pipe(p) != 0 || write(p[1], "hello", 5) != 5 || read(p[0], heap + 7 * page, 5) != 5)
        _exit(8);
    _exit(dirty_take(at(0), at(20), true, out, 2, &next) == 1 && out[0].lo == at(7) ? 0 : 7);
}

Test(os_dirty, uffd_without_privileges)
{
    struct test_output out;
    begin(DIRTY_UFFD);
    end();
    cr_assert_eq(test_fork(&out, as_nobody, NULL), 0, "%s", out.text);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------ */

static void child(void *arg)
{
    (void)arg;
    if (dirty_backend() == DIRTY_MPROTECT)
        signal_to_front(SIGSEGV); /* test_fork has put it away */
    dirty_forked();
    write_to(3);
    write_to(5); /* before it uses the collector */
    int fds = test_fds();
    if (dirty_after_fork_child() != 0 || dirty_backend() == DIRTY_NONE || test_fds() != fds)
        _exit(9);
    unsigned char map[20];
    take(map, 0, 20, false, 4);
    for (int i = 0; i < 20; i++)
        if (map[i] != 1)
            _exit(8);
    arm(0, 20);
    write_to(11);
    expect(0, 20, true, 11, -1);
    expect(0, 20, true, -1);
    _exit(0);
}

EACH(child_of_a_fork)
{
    struct test_output out;
    fill_pages(0, 20);
    arm(0, 20);
    write_to(1);
    dirty_hold(heap + 15 * page, 1);
    cr_assert_eq(test_fork(&out, child, NULL), 0, "%s", out.text);
    dirty_release(heap + 15 * page, 1);
    if (dirty_backend() == DIRTY_UFFD)
        expect(0, 20, true, 1, -1);
    write_to(2);
    unsigned char map[20];
    take(map, 0, 20, true, 20);
    cr_assert(map[1] == (dirty_backend() != DIRTY_UFFD) && map[2] == 1 && map[3] == 0 && map[11] == 0);
}
