/* Nobody waits for ever because others never stop. On one processor: a fiber in user code that blocks or computes ([HANDOFF]); two fibers that wake
 * each other without end, against the queue, the global queue, timers and descriptors; a fiber that never leaves weft for long. Counts and orderings,
 * no times. */
#include "base/base.h"
#include "sched/sched.h"
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static void set_flag(int *p) { __atomic_store_n(p, 1, __ATOMIC_RELEASE); }
static int flag(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* ---- hand-off ---------------------------------------------------------------------------------------------------- */

#define TICKS 50
static int ticks, released, fds[2], inside, back;

/* What a fiber does that has never heard of weft. Each notes how many ticks there were when it came back. */
static void blocks(void *arg)
{
    char c;
    __atomic_fetch_add(&inside, 1, __ATOMIC_ACQ_REL);
    cr_assert_eq(read(fds[0], &c, 1), 1);
    *(int *)arg = __atomic_load_n(&ticks, __ATOMIC_ACQUIRE);
    __atomic_fetch_add(&back, 1, __ATOMIC_ACQ_REL);
}

static void spins(void *arg)
{
    __atomic_fetch_add(&inside, 1, __ATOMIC_ACQ_REL);
    while (!flag(&released))
        ;
    *(int *)arg = __atomic_load_n(&ticks, __ATOMIC_ACQUIRE);
    __atomic_fetch_add(&back, 1, __ATOMIC_ACQ_REL);
}

static pthread_mutex_t foreign = PTHREAD_MUTEX_INITIALIZER;
static void waits_for_a_mutex(void *arg)
{
    __atomic_fetch_add(&inside, 1, __ATOMIC_ACQ_REL);
    pthread_mutex_lock(&foreign);
    *(int *)arg = __atomic_load_n(&ticks, __ATOMIC_ACQUIRE);
    pthread_mutex_unlock(&foreign);
    __atomic_fetch_add(&back, 1, __ATOMIC_ACQ_REL);
}

static void ticker(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0); /* it holds the mutex */
    pthread_mutex_lock(&foreign);
    int seen[4] = { 0 };
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(weft_go(blocks, &seen[0]), 0);
    cr_assert_eq(weft_go(spins, &seen[1]), 0);
    cr_assert_eq(weft_go(waits_for_a_mutex, &seen[2]), 0);
    cr_assert_eq(weft_go(spins, &seen[3]), 0);
    while (__atomic_load_n(&inside, __ATOMIC_ACQUIRE) < 4)
        weft_yield();
    for (int i = 1; i <= TICKS; i++) {
        weft_sleep(100 * WEFT_MICROSECOND);
        __atomic_store_n(&ticks, i, __ATOMIC_RELEASE);
    }
    set_flag(&released);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    pthread_mutex_unlock(&foreign);
    while (__atomic_load_n(&back, __ATOMIC_ACQUIRE) < 4)
        weft_yield();
    for (int i = 0; i < 4; i++)
        cr_expect_eq(seen[i], TICKS, "fiber %d came back after %d ticks", i, seen[i]);
    close(fds[0]);
    close(fds[1]);
}

Test(sched_fair, fibers_in_user_code_do_not_hold_up_a_ticker)
{
    test_run_procs(1, ticker, NULL);
}

static uint64_t handoffs(void)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < nprocs(); i++)
        n += load_rlx(&sched.allp[i]->handoffs);
    return n;
}

#define ROUNDS 200
static void raise_flag(void *arg) { set_flag(arg); }

static void run_blocking(void *arg)
{
    (void)arg;
    uint64_t taken = 0;
    for (int tried = 0, stood = 0; tried < ROUNDS;) {
        int done = 0;
        cr_assert_eq(weft_go(raise_flag, &done), 0);
        if (flag(&done)) { /* our thread stood still, and the processor was taken from it */
            cr_assert_lt(++stood, ROUNDS, "a fiber runs before the one that made it goes on");
            continue;
        }
        uint64_t before = handoffs();
        weft_blocking_begin();
        while (!flag(&done)) /* the processor has gone to the other one already */
            ;
        weft_blocking_end();
        taken += handoffs() - before;
        tried++;
    }
    cr_expect_lt(taken, ROUNDS / 2, "the monitor had to take the processor away");
}

Test(sched_fair, blocking_begin_gives_the_processor_up_at_once)
{
    test_run_procs(1, run_blocking, NULL);
}

static void in_user_code(void *arg)
{
    (void)arg;
    set_flag(&inside);
    while (!flag(&released))
        ;
}

static void collect_on(void *arg)
{
    (void)arg;
    set_flag(&inside);
    while (!flag(&released))
        weft_gc();
}

static void *calls_in(void *arg)
{
    for (int i = 0; i < 3; i++)
        weft_alloc(16);
    set_flag(arg);
    return NULL;
}

/* main, a fiber that sleeps, and a thread of the host come to their turn. */
static void run_beside(void *arg)
{
    pthread_t t;
    int called = 0;
    cr_assert_eq(weft_go((weft_fn *)arg, NULL), 0);
    while (!flag(&inside))
        weft_yield();
    cr_assert_eq(pthread_create(&t, NULL, calls_in, &called), 0);
    for (int i = 0; i < 3; i++)
        weft_sleep(WEFT_MICROSECOND);
    while (!flag(&called))
        weft_yield();
    set_flag(&released);
    pthread_join(t, NULL);
}

Test(sched_fair, a_fiber_that_spins_does_not_hold_up_threads_of_the_host)
{
    test_run_procs(1, run_beside, (void *)(uintptr_t)in_user_code);
}

Test(sched_fair, a_fiber_that_collects_all_the_time_does_not_hold_up_others)
{
    test_run_procs(1, run_beside, (void *)(uintptr_t)collect_on);
}

static uint32_t ran;

static void run_once(void *arg)
{
    (void)arg;
    __atomic_store_n(&ran, 1, __ATOMIC_RELEASE);
}

/* Nearly all of its time is spent inside of the runtime, where nobody takes the processor away: elements are large, and both calls find what they
 * need. */
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

/* ---- two that wake each other ---------------------------------------------------------------------------------------- */

#define ENOUGH 3000000 /* rounds in which everybody else must have had a turn */

static weft_chan *ping, *pong;
static int wanted, got, rounds;
static bool all_had_a_turn(void) { return __atomic_load_n(&got, __ATOMIC_RELAXED) >= wanted; }

static void one_of_two(void *arg)
{
    (void)arg;
    while (weft_chan_recv(ping, NULL) == 1)
        weft_chan_send(pong, NULL);
}

static void other_of_two(void *arg)
{
    (void)arg;
    for (rounds = 0; rounds < ENOUGH && !all_had_a_turn(); rounds++) {
        weft_chan_send(ping, NULL);
        weft_chan_recv(pong, NULL);
    }
    weft_chan_close(ping);
}

static void in_turn(void) { __atomic_fetch_add(&got, 1, __ATOMIC_RELAXED); }

static void in_the_queue(void *arg)
{
    (void)arg;
    for (int i = 0; i < 100; i++)
        weft_yield();
    in_turn();
}

/* A yield of a locked fiber goes through the global queue. */
static void in_the_global_queue(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    for (int i = 0; i < 20; i++)
        weft_yield();
    in_turn();
    while (!all_had_a_turn() && rounds < ENOUGH)
        weft_yield();
    weft_unlock_os_thread();
}

static void on_a_timer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++)
        weft_sleep(10 * WEFT_MICROSECOND);
    in_turn();
}

static void sleeps_long(void *arg) { (void)arg; weft_sleep(3600 * WEFT_SECOND); }

static void on_a_descriptor(void *arg)
{
    weft_fd *f;
    char c;
    cr_assert_eq(weft_fd_open(*(int *)arg, &f), 0);
    cr_assert_eq(weft_read(f, &c, 1), 1);
    in_turn();
    weft_fd_close(f);
}

static void writes_later(void *arg)
{
    weft_sleep(WEFT_MILLISECOND);
    cr_assert_eq(write(*(int *)arg, "x", 1), 1);
}

struct beside { weft_fn *fn[8]; int count; /* of those that have a turn to get */ };

static void run_two(void *arg)
{
    const struct beside *b = arg;
    int fd[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    ping = weft_chan_make(0, 0);
    pong = weft_chan_make(0, 0);
    wanted = b->count;
    got = 0;
    cr_assert_eq(weft_go(one_of_two, NULL), 0);
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, other_of_two, NULL), 0);
    for (int i = 0; b->fn[i] != NULL; i++)
        cr_assert_eq(weft_go(b->fn[i], b->fn[i] == writes_later ? &fd[1] : &fd[0]), 0);
    weft_waitgroup_wait(&wg);
    cr_expect(all_had_a_turn(), "%d of %d had a turn in %d rounds", got, wanted, rounds);
    close(fd[1]);
}

#define BESIDE(name, n, ...)                                                   \
    Test(sched_fair, two_that_wake_each_other_and_##name)                      \
    {                                                                          \
        struct beside b = { { __VA_ARGS__ }, n };                              \
        test_run_procs(1, run_two, &b);                                        \
    }
BESIDE(the_queue, 1, in_the_queue)
BESIDE(the_queue_with_a_timer_pending, 1, sleeps_long, in_the_queue)
BESIDE(the_global_queue, 1, in_the_global_queue)
BESIDE(both_queues, 2, in_the_global_queue, in_the_queue)
BESIDE(timers, 1, on_a_timer)
BESIDE(descriptors, 1, on_a_descriptor, writes_later)
BESIDE(all_of_them, 4, sleeps_long, on_a_descriptor, writes_later, in_the_queue, in_the_global_queue, on_a_timer)
