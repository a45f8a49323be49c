/* What tests share. A test file tests/<part>_<what>.c is a Criterion program of its own, linked with the library
 * before its internal names are hidden, so a test may look inside (#include "sched/..."). Each Test() runs in a
 * process of its own.
 *
 * Programs for tests lie in tests/prog/ (linked with libweft.a, so as a user would), shared modules in tests/mod/. */
#ifndef WEFT_TEST_H
#define WEFT_TEST_H

#include "base/base.h"
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft.h>

/* Files made by the build: TEST_PROG("overflow"), TEST_MOD("plain"). */
#define TEST_PROG(name) TEST_BUILD "/tests/prog/" name
#define TEST_MOD(name) TEST_BUILD "/tests/mod/" name ".so"

/* An option of tests in which threads that spin, or wait for the kernel, are to be stopped: ThreadSanitizer keeps a signal back until the thread
 * calls something that it knows. */
#ifdef W_TSAN
#define SIGNALS_AT_ONCE .disabled = true
#else
#define SIGNALS_AT_ONCE .disabled = false
#endif

/* An option of tests in which the child of a fork goes on, with memory of malloc or threads of its own. ThreadSanitizer's locks and threads do not come
 * through such a fork: told to let it (die_after_fork=0), it ignores there what the thread or fiber that forked synchronises, and reports as races what
 * others read of it afterwards (world_stop, fiber_take); where the child first calls AnnotateIgnoreSyncEnd() of its runtime, there are none.
 * AddressSanitizer's malloc, which starting a thread needs, has a lock for ever if another thread was inside it at the fork. */
#if defined(W_ASAN) || defined(W_TSAN)
#define CHILD_GOES_ON .disabled = true
#else
#define CHILD_GOES_ON .disabled = false
#endif

/* Runs fn(arg) under weft_run and fails the test unless that returns 0. The config is one with n processors (0: the
 * default), one with debug keys as well, which hold whatever the environment says, or cfg. */
void test_run(weft_fn *fn, void *arg);
void test_run_procs(int n, weft_fn *fn, void *arg);
void test_run_each(weft_fn *fn, void *arg); /* three lives: with 1, 2 and 4 processors */
void test_run_debug(int n, const char *debug, weft_fn *fn, void *arg);
void test_run_config(const weft_config *cfg, weft_fn *fn, void *arg);

/* How long the end of the runtime may wait for threads that have yet to get their turn on a busy machine; test_run_* set it. A test of the time-out has one
 * of its own. */
#define TEST_STOP_MS 30000

/* Waits, yielding or sleeping a little each time, until cond holds; the test fails after ten seconds. */
#define test_until(cond)                                                       \
    do {                                                                       \
        int64_t until_ = weft_now() + 10 * WEFT_SECOND;                        \
        for (;;) { /* the clock first: time that passes after the condition was looked at says nothing */ \
            bool late_ = weft_now() > until_;                                  \
            if (cond)                                                          \
                break;                                                         \
            if (late_)                                                         \
                cr_assert_fail("%s:%d: not within 10 s: %s", __FILE__, __LINE__, #cond);    \
            test_pause();                                                      \
        }                                                                      \
    } while (0)
void test_pause(void); /* of a fiber: weft_sleep of 100 us; of a thread: usleep */

/* Stops of the world so far, for whatever reason. */
uint64_t test_stops(void);

/* Overwrites what dead frames left below the caller's: stale copies of pointers there would keep objects alive. */
void test_wipe_stack(void);

/* ---- child programs ------------------------------------------------------------------------------- */

struct test_output {
    int exit_code;   /* -1: ended by a signal */
    int term_signal; /* 0: none */
    size_t len;      /* of text */
    char text[65536]; /* stdout and stderr, in order, NUL at the end; what is more is dropped */
};
/* Runs argv[0] with the arguments up to a NULL; env: "NAME=value" to add, up to a NULL, or NULL. Killed after 30 s.
 * The test fails if it cannot be started. Returns exit_code. */
int test_child(struct test_output *out, const char *const argv[], const char *const env[]);
void test_exec(const char *const argv[]); /* in a child: becomes the program, if need be in the emulator; returns when it cannot be run */
/* The same with sh -c. */
int test_shell(struct test_output *out, const char *command);
/* Runs fn(arg) in a forked child: for what ends the program. */
int test_fork(struct test_output *out, void (*fn)(void *), void *arg);

/* ---- what the process holds -------------------------------------------------------------------------- */

int test_threads(void);          /* entries of /proc/self/task, where a thread stays for a moment after it was joined: count before the first start,
                                    wait after the last stop */
int test_maps(void);             /* lines of /proc/self/maps */
int test_fds(void);              /* open descriptors */
long test_rss_kib(void);         /* VmRSS */
/* A number from /proc/self/status, such as "VmHWM" or "Threads"; -1: no such line. */
long test_status(const char *key);

/* ---- random tests ------------------------------------------------------------------------------------- */

/* Seed of a random test: WEFT_TEST_SEED, else from the clock. Printed, so that a failure can be repeated. */
uint64_t test_seed(void);

/* For a test that may take more than a minute on a busy machine, beside its .timeout: without this it is ended after one all the same. */
void test_may_take(unsigned seconds);

/* True in a build with a sanitizer, or under emulation: for limits on resources, never to skip what is checked. */
bool test_is_slow(void);

/* The kernel tells what is written to, so that collections can mark beside the program (gc=uffd). Where it does not, this says so. */
bool test_marks_beside(void);

bool test_is_emulated(void);
/* Ends a test, as skipped, where a program's kernel is an emulator: that neither counts the threads of a process (so no deadlock is ever found) nor
 * takes pages back. */
void test_needs_a_kernel(void);

#endif
