/* Stacks of all fibers, as text. See dump.c. */
#ifndef WEFT_PROF_DUMP_H
#define WEFT_PROF_DUMP_H

#include "base/base.h"
#include <weft/sched.h>

/* A line at a time, without its end. For when no fiber can run: the caller is any thread, inside the runtime or not. */
void dump_all_lines(void (*line)(const char *text));

/* Function and position of a return address ("worker at server.c:120"), found by a child process, since in the state that ours is in any lock
 * may be held. Async-signal-safe; takes two seconds at most. False: nothing is known. */
bool dump_describe_pc(const void *pc, char *buf, size_t n);

/* A dump of those fibers that are wanted. From user code; may block. 0, -ESRCH (the runtime does not run), -ENOMEM, or the writer's error. wanted is
 * called on a thread that must not call weft. */
int dump_some(weft_writer *w, void *ctx, bool (*wanted)(uint64_t id, void *arg), void *arg);

#endif
