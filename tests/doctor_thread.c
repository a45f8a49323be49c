/* The doctor's detectors of what belongs to a thread: locks of the host's over a wait (W17), addresses of thread-local variables (W18). */
#include "doctor_test.h"
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/atomic.h"

#define NO_TAIL_CALL() __asm__ volatile("" : : "i"(__LINE__))

/* ---- W17: locks of the host ----------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t cache = PTHREAD_MUTEX_INITIALIZER;

NOINLINE static void cache_lock(void)
{
    pthread_mutex_lock(&cache);
    weft_lock_held(&cache, "cache");
    NO_TAIL_CALL();
}
static void cache_unlock(void)
{
    weft_lock_released(&cache);
    pthread_mutex_unlock(&cache);
}

NOINLINE static void waits(void) { weft_sleep(WEFT_MILLISECOND); NO_TAIL_CALL(); }

static void waits_with_lock(void *arg)
{
    (void)arg;
    weft_lock_os_thread(); /* so that what is reported is no undefined behaviour of this test's */
    cache_lock();
    waits();
    waits();
    cache_unlock();
    weft_unlock_os_thread();
}

Test(doctor_thread, wait_with_a_lock_of_the_host)
{
    live(waits_with_lock);
    one_found(WEFT_W17, "waits", "waited (sleep) while it held the lock \"cache\"");
    cr_expect(begins(said.at[0].made, "cache_lock"), "%s", said.at[0].made);
    cr_expect_eq(said.at[0].count, 1, "told of once for each time that it is held");
}

static void nobody(void *arg) { (void)arg; }
NOINLINE static void yields_with_lock(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    weft_lock_held(&cache, "cache");
    while (weft_doctor_count(WEFT_W17) == 0) { /* somebody else wants the processor */
        cr_assert_eq(weft_go(nobody, NULL), 0);
        weft_yield();
    }
    weft_lock_released(&cache);
    weft_unlock_os_thread();
}

static void waits_with_one_of_two(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    weft_lock_held(&cache, "cache");
    weft_lock_held(&cache, "cache");
    weft_lock_released(&cache);
    waits();
    weft_lock_released(&cache);
    waits();
    weft_unlock_os_thread();
}

Test(doctor_thread, wait_with_a_recursive_lock_that_was_given_back_once)
{
    live(waits_with_one_of_two);
    one_found(WEFT_W17, "waits", "waited (sleep)");
}

NOINLINE static void forgets_lock(void *arg) { (void)arg, weft_lock_held(&cache, "cache"); NO_TAIL_CALL(); }
static void ends_with_lock(void *arg)
{
    weft_waitgroup wg = { 0 };
    (void)arg;
    cr_assert_eq(weft_waitgroup_go(&wg, forgets_lock, NULL), 0);
    weft_waitgroup_wait(&wg);
    waits(); /* nobody holds it any more */
}

enum { MANY = 200 }; /* more than are looked at at a time */
static void many_end_with_locks(void *arg)
{
    for (int i = 0; i < MANY; i++)
        ends_with_lock(arg);
    cr_expect_eq(weft_doctor_count(WEFT_W17), MANY);
}

Test(doctor_thread, who_has_ended_holds_nothing)
{
    live(many_end_with_locks);
    one_found(WEFT_W17, "", "ended while");
}

Test(doctor_thread, yield_or_end_with_a_lock_of_the_host)
{
    live_with((weft_config){ .maxprocs = 1 }, yields_with_lock);
    one_found(WEFT_W17, "yields_with_lock", "yielded while it held the lock \"cache\"");
    live(ends_with_lock);
    one_found(WEFT_W17, "", "ended while it held the lock \"cache\"");
    cr_expect(begins(said.at[0].made, "forgets_lock"), "%s", said.at[0].made);
}

static void waits_otherwise(void *arg)
{
    static pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER;
    weft_mutex ours = { 0 };
    (void)arg;
    waits();
    cache_lock();
    weft_lock_held(&cache, "cache"); /* recursive */
    weft_lock_held(&other, "other");
    weft_lock_released(&other);
    weft_lock_released(&cache);
    cache_unlock();
    waits();
    weft_mutex_lock(&ours);
    waits();
    weft_mutex_unlock(&ours);
    weft_lock_released(&other); /* nobody has it */
    weft_lock_held(NULL, NULL);
    waits();
}
static w_u32 holder_is_done;
static void holds_for_long(void *arg)
{
    (void)arg;
    cache_lock();
    while (load_acq(&holder_is_done) == 0) /* acq: rel below */
        ;
    cache_unlock();
}
static void others_wait(void *arg)
{
    weft_waitgroup wg = { 0 };
    (void)arg;
    cr_assert_eq(weft_waitgroup_go(&wg, holds_for_long, NULL), 0);
    for (int i = 0; i < 10; i++)
        waits();
    store_rel(&holder_is_done, 1); /* rel: acq above */
    weft_waitgroup_wait(&wg);
}
static void *host_waits(void *arg)
{
    cache_lock();
    weft_sleep(WEFT_MILLISECOND); /* its own thread sleeps: nobody else has it */
    cache_unlock();
    return arg;
}
static void host_thread(void *arg)
{
    pthread_t t;
    (void)arg;
    cr_assert_eq(pthread_create(&t, NULL, host_waits, NULL), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(doctor_thread, waits_without_a_lock_of_the_host, SIGNALS_AT_ONCE)
{
    live(waits_otherwise), nothing_found("before, after, and with a lock of the runtime's");
    live(others_wait), nothing_found("another fiber");
    live(host_thread), nothing_found("a thread of the host");
    live_with((weft_config){ .doctor = "w17=off" }, waits_with_lock), nothing_found("off");
}

/* ---- W18: thread-local addresses ------------------------------------------------------------------------------------------------------------- */

static __thread int per_thread;
NOINLINE static int *address_of(void) { __asm__ volatile("" ::: "memory"); return &per_thread; }

NOINLINE static void keeps_address(void *arg)
{
    (void)arg;
    int *kept = address_of(), global = 0, *heap = weft_alloc_noscan(sizeof *heap);
    cr_expect_eq(weft_tls_check(kept), 0);
    cr_expect(weft_tls_check(&global) == 0 && weft_tls_check(heap) == 0 && weft_tls_check(NULL) == 0 && weft_tls_check(&said) == 0);
    test_until((waits(), address_of() != kept));
    cr_expect_eq(weft_tls_check(kept), -EXDEV);
    cr_expect_eq(weft_tls_check(address_of()), 0);
    cr_expect_eq(weft_tls_check(&errno), 0);
}

Test(doctor_thread, thread_local_address_on_another_thread)
{
    live_with((weft_config){ .maxprocs = 2, .debug = "migrate=1" }, keeps_address);
    one_found(WEFT_W18, "keeps_address", "uses a thread-local variable of thread");
    live_with((weft_config){ .maxprocs = 2, .debug = "migrate=1", .doctor = "off" }, keeps_address);
    nothing_found("off: the error alone");
    cr_expect_eq(weft_tls_check(&per_thread), -ESRCH);
}

/* ---- life -------------------------------------------------------------------------------------------------------------------------------------- */

static int exit_of_child;

static void forks(void *arg)
{
    (void)arg;
    weft_lock_os_thread();
    cache_lock();
    pid_t pid = fork();
    if (pid == 0) {
        waits(); /* what the parent held is not looked at here */
        weft_doctor_flush();
        _exit(weft_doctor_count(WEFT_W17) != 0);
    }
    cache_unlock();
    weft_unlock_os_thread();
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    exit_of_child = status;
}

Test(doctor_thread, child_of_a_fork_begins_anew, CHILD_GOES_ON)
{
    live(forks);
    cr_expect_eq(exit_of_child, 0);
    nothing_found("neither does the parent");
}
