/* Stacks of what runs, at once: return addresses, innermost first, up to the fiber's entry (which is left out). See walk.c.
 *
 * No lock, no memory, no call into libc or the loader: for probe points and signal handlers. */
#ifndef WEFT_PROF_WALK_H
#define WEFT_PROF_WALK_H

#include "base/base.h"
#include "os/arch/arch.h"

struct m;

#define WALK_MAX 128u /* frames kept, as Go's profstackdepth */

/* Of the calling machine, inside the runtime: from the caller of this function outwards. Returns how many, at most max. */
uint32_t walk_self(struct m *m, uintptr_t *pc, uint32_t max);
/* Of what a signal has interrupted on m's own thread, in its handler. The first is the address of the instruction + 1, so that all are like return
 * addresses. 0: it was on no stack that is known. */
uint32_t walk_signal(struct m *m, const ucontext_t *uc, uintptr_t *pc, uint32_t max);

#endif
