/* Whether the running program is traced. See api.c; the public side is include/weft/trace.h. */
#ifndef WEFT_TRACE_API_H
#define WEFT_TRACE_API_H

#include "base/base.h"
#include <weft/base.h>

/* Counted users of the trace: the first one begins it, the last one ends it. In user code of a fiber or a thread of the host; may block.
 * 0, -ESRCH (no runtime), -ENOMEM, -EAGAIN (no thread). */
int trace_use(void);
void trace_unuse(void);
unsigned trace_writers(void); /* that are on; anybody, for show */
/* The generation ends, and has gone to all readers when this returns. Only while the caller uses the trace; the same callers, or a helper's thread.
 * */
void trace_advance(void);

#endif
