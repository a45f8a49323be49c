/* How long fibers that could run waited for a processor, from a generation of the trace. See watch.c. */
#ifndef WEFT_TRACE_WATCH_H
#define WEFT_TRACE_WATCH_H

#include "trace/buffer.h"

struct watch_found { uint64_t fiber, ns; }; /* the longest; fiber 0: nobody waited */

struct watch; /* what is carried over from one generation to the next */
struct watch *watch_new(size_t limit_bytes); /* NULL: no memory. limit: of memory, for one generation */
void watch_free(struct watch *w);
/* The longest wait that ended, or was not over, in this generation; one that began before counts as a whole if the generations come one after the other.
 * 0, or -ENOMEM: it was too large. */
int watch_generation(struct watch *w, uint32_t number, const struct trace_buf *bufs, struct watch_found *out);

#endif
