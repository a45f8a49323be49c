/* fork(2) while collections run: the parent goes on, and a child that executes another program always comes to it. What a child does with the
 * runtime: tests/host/fork_child.c. */
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "sched/sched.h"

extern char **environ;

/* Registered before any other: so in the parent it runs when all locks are held that fork holds, those of off-heap memory among them. */
static int hold_next, held;
static uint64_t collected_meanwhile;
static void hold_locks(void)
{
    if (__atomic_exchange_n(&hold_next, 0, __ATOMIC_ACQ_REL) == 0)
        return;
    weft_stop_stats before, after;
    weft_read_stop_stats(WEFT_STOP_GC, &before);
    __atomic_store_n(&held, 1, __ATOMIC_RELEASE);
    int64_t until = weft_now() + 100 * WEFT_MILLISECOND; /* a collection is wanted by then */
    while (weft_now() < until)
        weft_read_stop_stats(WEFT_STOP_GC, &after);
    collected_meanwhile = after.count - before.count;
}
__attribute__((constructor(101))) static void before_all(void) { pthread_atfork(hold_locks, NULL, NULL); }

static void wait_for(pid_t pid)
{
    int status;
    cr_assert_gt(pid, 0);
    while (waitpid(pid, &status, 0) < 0)
        cr_assert_eq(errno, EINTR);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
}

static void *fork_once(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_attach(), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    wait_for(pid);
    return NULL;
}

static int finalized;
static void count(void *obj, void *ctx) { (void)obj, (void)ctx, __atomic_fetch_add(&finalized, 1, __ATOMIC_RELAXED); }

static __attribute__((noinline)) void make_finalizers(int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_set_finalizer(weft_alloc(32), count, NULL), 0);
}

/* A collector needs memory of its own in the stop, and threads that it has stopped may hold locks of malloc. */
Test(stop_fork, no_stop_begins_while_a_thread_holds_the_locks_of_a_fork)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cr_assert_eq(weft_start(&cfg), 0);
    for (int i = 0; i < 3; i++) {
        make_finalizers(2000);
        __atomic_store_n(&held, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&hold_next, 1, __ATOMIC_RELEASE);
        pthread_t t;
        cr_assert_eq(pthread_create(&t, NULL, fork_once, NULL), 0);
        test_until(__atomic_load_n(&held, __ATOMIC_ACQUIRE) != 0);
        weft_gc();
        pthread_join(t, NULL);
        cr_assert_eq(collected_meanwhile, 0u);
    }
    test_until(__atomic_load_n(&finalized, __ATOMIC_RELAXED) > 5500);
    cr_assert_eq(weft_stop(), 0);
}

/* What off-heap memory does at the end of a thread, in user code and under its locks, comes when the thread is no longer stopped. */
static pthread_key_t early_key;
static int attached_at_the_end = -1;
static void at_the_end(void *arg) { (void)arg, attached_at_the_end = m_self() != NULL; }
__attribute__((constructor(102))) static void make_early_key(void) { pthread_key_create(&early_key, at_the_end); }

static void *end_attached(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    pthread_setspecific(early_key, arg);
    return NULL;
}

Test(stop_fork, a_thread_that_ends_detaches_before_off_heap_memory_cleans_up)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cr_assert_eq(weft_start(&cfg), 0);
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, end_attached, &early_key), 0);
    pthread_join(t, NULL);
    cr_assert_eq(attached_at_the_end, 0);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- exec ------------------------------------------------------------------------------------------------------------ */

static void fork_and_exec(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(9);
    }
    wait_for(pid);
}

static void spawn(void)
{
    char *const argv[] = { (char *)(uintptr_t)"true", NULL };
    pid_t pid;
    cr_assert_eq(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ), 0);
    wait_for(pid);
}

static int rounds, left;
static void run_programs(void *arg)
{
    (void)arg;
    for (int i = 0; i < rounds; i++) {
        weft_alloc(100);
        fork_and_exec();
        spawn();
        cr_assert_eq(system(":"), 0);
        weft_alloc(100);
    }
    __atomic_fetch_sub(&left, 1, __ATOMIC_ACQ_REL);
}

static void *run_programs_on_thread(void *arg) { run_programs(arg); return NULL; }

static void *run_programs_detached(void *arg) /* never calls weft */
{
    (void)arg;
    for (int i = 0; i < rounds; i++)
        fork_and_exec();
    __atomic_fetch_sub(&left, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static void collect_meanwhile(void *arg)
{
    (void)arg;
    pthread_t t[2];
    left = 4;
    rounds = test_is_slow() ? 4 : 15;
    cr_assert_eq(pthread_create(&t[0], NULL, run_programs_on_thread, NULL), 0);
    cr_assert_eq(pthread_create(&t[1], NULL, run_programs_detached, NULL), 0);
    cr_assert_eq(weft_go(run_programs, NULL), 0);
    cr_assert_eq(weft_go(run_programs, NULL), 0);
    while (__atomic_load_n(&left, __ATOMIC_ACQUIRE) != 0) {
        make_finalizers(200);
        weft_gc();
        weft_yield();
    }
    weft_blocking_begin();
    pthread_join(t[0], NULL);
    pthread_join(t[1], NULL);
    weft_blocking_end();
}

/* Not under ThreadSanitizer: it takes locks of its own before a fork, and the stop that a fork makes then waits for a thread that waits for one of those,
 * to which it does not deliver the signal. */
#ifndef W_TSAN
Test(stop_fork, exec_after_fork_in_fibers_and_threads_while_collections_run)
{
    test_run_each(collect_meanwhile, NULL);
}
#endif
