/* Finding work: see the essay in schedule.c. */
#ifndef WEFT_SCHED_SCHEDULE_H
#define WEFT_SCHED_SCHEDULE_H

#include "sched/sched.h"

/* What m runs next; blocks until there is something. m has a P when it returns. 0: the runtime ends. On the machine's own stack. */
runnable schedule_next(struct m *m);

#endif
