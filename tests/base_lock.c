/* Locks: mutual exclusion, waking, and the checks of order in BUILD=debug. Probe points. The fatal line. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fmt.h"
#include "base/lock.h"
#include "base/probe.h"
#include "os/futex.h"
#include "test.h"

/* ---- exclusion -------------------------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 100000 };
static struct lock guard = LOCK_INIT(RANK_LEAF);
static long counter; /* guard */

static void *count_up(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        lock_take(&guard);
        counter++;
        lock_drop(&guard);
    }
    return arg;
}

Test(lock, counts_right_with_many_threads)
{
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, count_up, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    cr_expect_eq(counter, (long)THREADS * ROUNDS);
    cr_expect_eq(load_rlx(&guard.word), 0u);
}

static w_u32 inside;
static void *take_once(void *arg)
{
    lock_take(&guard);
    store_rel(&inside, load_acq(&inside) + 1);
    lock_drop(&guard);
    return arg;
}

/* The sleepers are really asleep (word 2) before the lock is dropped once: each must pass the wake-up on. */
Test(lock, every_sleeper_is_woken)
{
    pthread_t t[THREADS];
    lock_take(&guard);
    cr_expect(!lock_try(&guard));
    for (int i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, take_once, NULL);
    while (load_rlx(&guard.word) != 2)
        usleep(100);
    usleep(20000); /* most of them sleep by now; the test holds in any case */
    lock_drop(&guard);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    cr_expect_eq(load_acq(&inside), (uint32_t)THREADS);
    cr_expect(lock_try(&guard));
    lock_drop(&guard);
}

/* ---- order (BUILD=debug) ------------------------------------------------------------------------------ */

#ifdef WEFT_CHECKS
static struct lock low = LOCK_INIT(RANK_FD), high = LOCK_INIT(RANK_HEAP);
static struct lock chans[2] = { LOCK_INIT(RANK_CHAN), LOCK_INIT(RANK_CHAN) };

static void wrong_order(void *arg) { (void)arg, lock_take(&high), lock_take(&low); }
static void twice(void *arg) { (void)arg, lock_take(&low), lock_check_take(&low); }
static void not_held(void *arg) { (void)arg, lock_check_held(&low); }
static void drop_free(void *arg) { (void)arg, lock_drop(&low); }
static void wrong_address(void *arg) { (void)arg, lock_take(&chans[1]), lock_take(&chans[0]); }

static void right_order(void *arg)
{
    lock_take(&low);
    lock_take(&chans[0]);
    lock_take(&chans[1]);
    lock_take(&high);
    lock_check_held(&chans[1]);
    lock_drop(&low); /* dropping needs no order */
    lock_drop(&high);
    lock_drop(&chans[0]);
    lock_drop(&chans[1]);
    lock_take(&low);
    lock_drop(&low);
    (void)arg;
}

Test(lock, order_is_checked)
{
    static struct test_output o;
    static const struct { void (*fn)(void *); const char *says; } wrong[] = {
        { wrong_order, "weft: fatal: lock order: rank " },
        { twice, "taken twice" },
        { not_held, "should be held" },
        { drop_free, "does not hold" },
        { wrong_address, "lock order: rank" },
    };
    for (size_t i = 0; i < w_countof(wrong); i++) {
        test_fork(&o, wrong[i].fn, NULL);
        cr_expect_eq(o.term_signal, SIGABRT, "case %zu", i);
        cr_expect_not_null(strstr(o.text, wrong[i].says), "case %zu: %s", i, o.text);
    }
    cr_expect_eq(test_fork(&o, right_order, NULL), 0, "%s", o.text);
}
#endif

/* ---- the fatal line -------------------------------------------------------------------------------------- */

static void die(void *arg) { w_fatal("%s at %p: %d", (const char *)arg, (void *)16, -5); }
static void die_long(void *arg)
{
    static char text[3000];
    memset(text, 'x', sizeof text - 1);
    w_fatal("%s", text);
    (void)arg;
}

Test(fatal, writes_one_line_and_aborts)
{
    static struct test_output o;
    test_fork(&o, die, "span");
    cr_expect_eq(o.term_signal, SIGABRT);
    static const char line[] = "weft: fatal: span at 0x10: -5\n";
    cr_expect_eq(strncmp(o.text, line, strlen(line)), 0, "%s", o.text); /* an emulator may say more */
    test_fork(&o, die_long, NULL);
    cr_expect_eq(o.term_signal, SIGABRT);
    char *end = strchr(o.text, '\n');
    cr_expect(end != NULL && end - o.text > 900 && end - o.text < 1024);
}

/* ---- probes ------------------------------------------------------------------------------------------------- */

struct seen { enum probe_id id; uintptr_t a, b, c; int n; };
static void note(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    struct seen *s = arg;
    *s = (struct seen){ id, a, b, c, s->n + 1 };
}

Test(probe, reaches_those_who_asked)
{
    struct seen x = { 0 }, y = { 0 };
    PROBE(fiber_block, 1, 2, 3);
    cr_assert_eq(probe_listen(1ull << PROBE_fiber_block, note, &x), 0);
    cr_assert_eq(probe_listen(1ull << PROBE_fiber_block | 1ull << PROBE_gc_end, note, &y), 0);
    PROBE(fiber_block, 4, 5, 6);
    PROBE(gc_end, 7, 8, 9);
    PROBE(gc_begin, 0, 0, 0);
    cr_expect(x.n == 1 && x.id == PROBE_fiber_block && x.a == 4 && x.b == 5 && x.c == 6);
    cr_expect(y.n == 2 && y.id == PROBE_gc_end && y.a == 7);
    probe_unlisten(note, &x);
    PROBE(fiber_block, 0, 0, 0);
    cr_expect(x.n == 1 && y.n == 3);
    probe_unlisten(note, &y);
    cr_expect_eq(load_rlx(&probe_mask), 0u);
    int err = 0, got = 0;
    while ((err = probe_listen(1, note, &got)) == 0)
        got++;
    cr_expect(err == -ENOSPC && got == 8);
}

static w_u32 stop;
static void *emit_always(void *arg)
{
    while (load_rlx(&stop) == 0)
        PROBE(gc_sweep, 1, 2, 3);
    return arg;
}
/* The listener's data is poisoned as soon as unlisten is back: a late call would be seen. */
static void check_alive(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    (void)id, (void)a, (void)b, (void)c;
    if (load_acq((w_u32 *)arg) != 1)
        w_fatal("a listener was called after it had left");
}

Test(probe, nobody_is_in_the_listener_after_unlisten)
{
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, emit_always, NULL);
    for (int i = 0; i < 3000; i++) {
        w_u32 alive = { 1 };
        cr_assert_eq(probe_listen(1ull << PROBE_gc_sweep, check_alive, &alive), 0);
        probe_unlisten(check_alive, &alive);
        store_rel(&alive, 0);
    }
    store_rlx(&stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

/* The lock of the listeners, or a listener, is another thread's at the moment of the fork. */
static void *listen_always(void *arg)
{
    struct seen s = { 0 };
    while (load_rlx(&stop) == 0)
        if (probe_listen(1ull << PROBE_gc_begin, note, &s) == 0)
            probe_unlisten(note, &s);
    return arg;
}

Test(probe, children_of_forks_listen)
{
    pthread_t t[2];
    w_u32 alive = { 1 };
    cr_assert_eq(probe_listen(1ull << PROBE_gc_sweep, check_alive, &alive), 0);
    pthread_create(&t[0], NULL, emit_always, NULL);
    pthread_create(&t[1], NULL, listen_always, NULL);
    for (int i = 0; i < 300; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            struct seen s = { 0 };
            alarm(20);
            probe_unlisten(check_alive, &alive);
            int err = probe_listen(1ull << PROBE_gc_end, note, &s);
            PROBE(gc_end, 1, 2, 3);
            probe_unlisten(note, &s);
            _exit(err == 0 && s.n == 1 ? 0 : 1);
        }
        int status;
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert_eq(status, 0, "round %d: status %x", i, (unsigned)status);
    }
    store_rlx(&stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    probe_unlisten(check_alive, &alive);
}

/* ---- futex ---------------------------------------------------------------------------------------------------- */

Test(futex, results_and_errno)
{
    w_u32 word = { 5 };
    errno = 99;
    cr_expect_eq(os_futex_wait(&word, 4, -1), -EAGAIN);
    cr_expect_eq(os_futex_wait(&word, 5, 1000000), -ETIMEDOUT);
    cr_expect_eq(os_futex_wait(&word, 5, 0), -ETIMEDOUT);
    cr_expect_eq(os_futex_wake(&word, 1), 0);
    cr_expect_eq(errno, 99);
}
