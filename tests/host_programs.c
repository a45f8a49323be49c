/* Hosts that make life hard for a runtime: each a program of its own in tests/host, a case per test. What is promised is said there, and in
 * include/weft. */
#include "test.h"
#include <stdio.h>
#include <string.h>

static void run(const char *program, const char *what)
{
    static struct test_output out;
    char path[256];
    test_needs_a_kernel(); /* an emulator is a host of its own, with forks, limits and signals that are its own */
    snprintf(path, sizeof path, TEST_BUILD "/tests/host/%s", program);
    const char *const argv[] = { path, what, NULL };
    test_child(&out, argv, NULL);
    cr_assert(out.exit_code == 0 && strstr(out.text, "ok\n") != NULL,
              "%s %s: exit %d, signal %d: %s", program, what, out.exit_code, out.term_signal, out.text);
}

/* A sanitizer has no less need of address space, mappings and system calls than the library. */
#if defined(W_ASAN) || defined(W_TSAN)
#define UNSANITIZED .disabled = true
#else
#define UNSANITIZED .disabled = false
#endif

#define HOST(program, what, ...) Test(host_programs, program##_##what, ##__VA_ARGS__) { run(#program, #what); }

HOST(fork_child, storm, CHILD_GOES_ON)
HOST(fork_child, threads, CHILD_GOES_ON)
HOST(fork_child, stops, CHILD_GOES_ON)
HOST(fork_child, returns, CHILD_GOES_ON)
HOST(fork_child, ends, CHILD_GOES_ON)
HOST(fork_child, inherits, CHILD_GOES_ON)
HOST(fork_child, finalizers, CHILD_GOES_ON)
HOST(fork_child, call_is_last, CHILD_GOES_ON)
HOST(fork_child, another_first, CHILD_GOES_ON)
HOST(fork_child, first_list, UNSANITIZED)
HOST(fork_child, in_log)
HOST(fork_child, while_starting, UNSANITIZED)
HOST(fork_child, at_the_end, UNSANITIZED)
HOST(fork_child, vfork, CHILD_GOES_ON)
HOST(foreign, thousand)
HOST(foreign, bare)
HOST(foreign, parked)
HOST(limits, address_space, UNSANITIZED)
HOST(limits, mmap_refused, UNSANITIZED)
HOST(limits, processes)
HOST(limits, files)
HOST(limits, stack, UNSANITIZED)
HOST(signals, replaced, SIGNALS_AT_ONCE)
HOST(signals, profiled)
HOST(signals, faulting)
HOST(signals, blocked)
HOST(seccomp, each, UNSANITIZED)
HOST(seccomp, all, UNSANITIZED)
HOST(cxx, exceptions)
HOST(cxx, after_stop)
HOST(cxx, while_running)
HOST(cxx, uncaught)
HOST(twice, two_copies)
HOST(loads, by_dlopen, SIGNALS_AT_ONCE)
HOST(lives, other_threads)
HOST(lives, at_once)
HOST(lives, run_anywhere)
