/* From probe points to events: what the scheduler and the collector do, told to the trace. See hooks.c. */
#ifndef WEFT_TRACE_HOOKS_H
#define WEFT_TRACE_HOOKS_H

#include "trace/buffer.h"
#include "trace/stream.h"

/* Texts of every generation, for trace_open: reasons to wait and to stop. */
extern const char *const hooks_texts[];
extern const unsigned hooks_ntexts;

/* Memory for what is known of fibers and processors. 0, -ENOMEM. After trace_open, before hooks_begin; hooks_close when no generation runs. */
int hooks_open(void);
void hooks_close(void);

/* The first generation. Stops the world for it: inside the runtime, on the big stack (sched_on_big_stack). */
void hooks_begin(void);
/* The generation ends, with the states of all that was not touched in it, and goes to the readers. stop: no other follows. On the switcher's thread,
 * a helper. */
void hooks_switch(bool stop, const struct trace_symbols *symbols);

/* What the fiber that runs on m, the calling machine, has to say itself: like trace_enter, and behind it the reader believes it to run. Inside the
 * runtime. NULL: there is nothing to say it to; then there is no trace_leave. */
struct m;
struct trace_emitter *hooks_enter(struct m *m);
/* The same on a probe, where another listener may have told already that the fiber blocks or ends: only if the reader believes it to run. */
struct trace_emitter *hooks_enter_known(struct m *m);

/* As in struct sched_guest. */
void hooks_machine_gone(struct m *m);
void hooks_after_fork(void);
void hooks_forget_machines(void); /* the runtime has ended, nobody is inside: threads of the host that stay attached are nobody's */

uint64_t hooks_missed(void);      /* fibers that are not in the trace, for want of room, since hooks_begin */

#endif
