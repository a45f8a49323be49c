/* What sched has to say about stacks, and cannot say itself: a higher layer (src/prof/dump.c) fills this in at start-up of the library.
 * A missing function is skipped: the report then has numbers only. */
#ifndef WEFT_SCHED_REPORT_H
#define WEFT_SCHED_REPORT_H

#include "sched/fiber.h"
#include <ucontext.h>

struct sched_reports {
    /* All fibers, a line at a time. No fiber runs any more; called on a machine's own stack, outside of any stop, inside the runtime. */
    void (*dump_all)(void (*line)(const char *text));
    /* Function and position of a return address, such as "worker at server.c:120". In a process that is about to end: any lock may be held, so it may
     * only do what works then (or nothing: returns false). */
    bool (*describe_pc)(const void *pc, char *buf, size_t n);
    /* m's thread got the stop signal, perhaps by world_interrupt: called in the handler, on the alternate stack; async-signal-safe. */
    void (*interrupted)(struct m *m, const ucontext_t *uc);
    /* The runtime ends: no file stays open, no memory stays taken. */
    void (*end)(void);
};
extern struct sched_reports sched_reports;

/* A line for the host: to its log function, or stderr. Not in a signal handler. */
void sched_log(const char *line);
void sched_logf(const char *fmt, ...) w_printf(1, 2);

#endif
