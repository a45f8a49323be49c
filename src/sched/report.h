/* What sched has to say about stacks, and cannot say itself: a higher layer (src/prof/dump.c) fills this in at start-up of the library.
 * A missing function is skipped: the report then has numbers only. */
#ifndef WEFT_SCHED_REPORT_H
#define WEFT_SCHED_REPORT_H

#include "base/config.h"
#include "sched/fiber.h"
#include <ucontext.h>

#define SCHED_FINDINGS CONFIG_DOCTOR_CODES

struct sched_reports {
    /* All fibers, a line at a time. No fiber runs any more; called on a machine's own stack, outside of any stop, inside the runtime. */
    void (*dump_all)(void (*line)(const char *text));
    /* Function and position of a return address, such as "worker at server.c:120". In a process that is about to end: any lock may be held, so it may
     * only do what works then (or nothing: returns false). */
    bool (*describe_pc)(const void *pc, char *buf, size_t n);
    /* m's thread got the stop signal, perhaps by world_interrupt: called in the handler, on the alternate stack; async-signal-safe. */
    void (*interrupted)(struct m *m, const ucontext_t *uc);
    void (*watched)(struct m *m, const ucontext_t *uc); /* the same, for another who asks; NULL most of the time.
                                                              Written while others may be in their handlers, so atomically */
    /* SIGSEGV or SIGBUS that is not the runtime's own: it goes to the host, or ends the process, when this returns. In the handler; async-signal-safe. */
    void (*fault)(void);
    /* The calling thread is about to make another: the return addresses on its stack, innermost first; how many, at most max. */
    uint32_t (*maker_stack)(uintptr_t *pc, uint32_t max);
    /* How often what was found, by code, of SCHED_FINDINGS; rlx: counters. */
    const w_u64 *found;
    /* The runtime ends: no file stays open, no memory stays taken. */
    void (*end)(void);
};
extern struct sched_reports sched_reports;

/* What a higher layer has under way, a profile or a trace, over the end of the runtime and a fork. */
struct sched_guest {
    /* The runtime has started and the program not yet: on the thread that started it, outside of it. NULL: nothing. */
    void (*begin)(void);
    /* The runtime ends, no fiber runs any more and nobody of the host's is inside: it ends, too, and what it has is written. On the thread that ends
     * the runtime, outside of it. NULL: nothing. */
    void (*end)(void);
    /* In the child of a fork, alone: threads of its own are no more, and whatever locks they had. Takes no lock, waits for nobody. NULL: nothing. */
    void (*after_fork)(void);
    /* m's thread ends, or is detached, and it or its fiber has been told of (the word `told`): on that thread, under sched.lock, and not in a stop.
     * NULL: nothing. */
    void (*machine_gone)(struct m *m);
    struct sched_guest *next;
};
extern struct sched_guest *sched_guests;
void sched_guest_add(struct sched_guest *g); /* by a constructor */

/* A line for the host: to its log function, or stderr. Not in a signal handler. */
void sched_log(const char *line);
void sched_logf(const char *fmt, ...) w_printf(1, 2);

#endif
