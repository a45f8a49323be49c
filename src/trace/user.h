/* What the runtime itself has to say in a trace, as the program does by weft_trace_log. See user.c. */
#ifndef WEFT_TRACE_USER_H
#define WEFT_TRACE_USER_H

#include "base/base.h"

struct m;
/* A log of the fiber that runs on m, the calling machine, which is inside the runtime; also on a probe. False: no trace is made, m runs none, or the
 * trace does not know that it does. */
bool trace_log_inside(struct m *m, const char *category, const char *message);

#endif
