/* weft/debug.h - looking at a process from inside. */
#ifndef WEFT_DEBUG_H
#define WEFT_DEBUG_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

/* Writes one page about where everything is now, as text for people, whose form may change: processors and what runs there, fibers by what they wait for
 * and by who made them, threads, the heap and its goal, the longest stops, memory by part, profiles and traces under way. The world is not
 * stopped; lines that follow each other are of different moments. w is called on the caller's own stack and may do anything. For all stacks see
 * weft_stack_write. May block, does not collect.
 * 0, -EINVAL (w NULL), -ESRCH (runtime not running), -ENOMEM, -EAGAIN (no thread), or w's error: then only a part was written. */
WEFT_API int weft_debug_dump(weft_writer *w, void *ctx);

WEFT_END_DECLS
#endif
