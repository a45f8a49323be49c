/* Threads that do what neither fibers nor threads of the host may: take the loader's lock, ask libdw, call libc while the world is stopped. Strangers to
 * the runtime: not attached, so no stop ever stops one. Hence it may hold the pin of a fiber, a lock of the off-heap memory, the loader's lock or
 * libdw's, each of which would stand still with a stopped thread. And it has the stack that libdw needs, which fibers have not.
 *
 * [FILES] A helper has a table of descriptors of its own, in which nothing of the host's is open. So what libdw and libunwind open never shows
 * in the host, does not count against its limit, and a host that has none left gets its dump. What libdw keeps from one time to the next is in memory
 * by then (see symbols.c); only to close it another helper is needed. Where the kernel cannot do that (before 5.9), they share the host's. Whoever
 * calls the host's writer on a helper asks for the host's descriptors (HELPER_HOSTS_FILES), and does not ask for symbols there: libdw would close, by
 * their numbers, what it has opened on another helper, and here they are the host's. */
#ifndef WEFT_PROF_HELPER_H
#define WEFT_PROF_HELPER_H

#include "base/base.h"
#include <pthread.h>

struct helper {
    void (*fn)(void *arg);
    void *arg;
    unsigned flags;
    /* helper.c */
    void *stack;
    pthread_t thread;
};

enum { HELPER_HOSTS_FILES = 1 };
#define HELPER_STACK_BYTES (1u << 20)

/* Starts h->fn(h->arg), with all signals blocked but SIGSEGV, and SIGPROF where profiles count it (service.h). 0, -ENOMEM, -EAGAIN. The caller joins it,
 * once; outside the runtime, as that waits. */
int helper_start(struct helper *h);
void helper_join(struct helper *h);

/* Starts and joins. Outside the runtime: for a fiber, between weft_blocking_begin and _end. */
int helper_run(void (*fn)(void *arg), void *arg);

/* Leaves the runtime, whose end waits as long, and calls fn(arg), in which no stop waits for the caller: for a fiber as between weft_blocking_begin
 * and _end. m: as rt_enter_try gave it to the caller. What fn returns. */
struct m;
int helper_outside(struct m *m, int (*fn)(void *arg), void *arg);

#endif
