/* Stacks of what runs, at once: return addresses, innermost first, up to the fiber's entry (which is left out). See walk.c.
 *
 * No lock, no memory, no call into libc or the loader: for probe points and signal handlers. Some 5 ns a frame. */
#ifndef WEFT_PROF_WALK_H
#define WEFT_PROF_WALK_H

#include "base/base.h"
#include "os/arch/arch.h"

struct m;
struct fiber;

#define WALK_MAX 128u /* frames kept, as Go's profstackdepth */

/* Whoever walks says so before, and says when he walks no more: he has no probe listener and no signal under way that would. While nobody uses it
 * nothing is kept, and a walk follows frame pointers. walk_use makes the tables, which takes a millisecond or two, and starts a helper that keeps them
 * up to date. Outside the runtime, as helper_start: both wait. 0, -ENOMEM, -EAGAIN (no thread): then it is not in use. */
int walk_use(void);
void walk_unuse(void);

/* Of the calling machine, inside the runtime: from the caller of this function outwards. Returns how many, at most max. */
uint32_t walk_self(struct m *m, uintptr_t *pc, uint32_t max);

/* walk_self for stacks that come again and again, from the caller of the function outwards that has this frame (of the runtime, so that there is a
 * frame pointer). Something of the caller's is kept for each stack: *mine is where; NULL: nowhere. If there is something already (**mine is not NULL)
 * the stack was not walked, and the result means nothing. What is kept may be forgotten at any call. memo: walk_memo_bytes() of zeroes, used by one
 * thread at a time, not in signal handlers. */
struct walk_memo;
size_t walk_memo_bytes(void);
uint32_t walk_again(struct m *m, struct walk_memo *memo, const uintptr_t *frame, uintptr_t *pc, uint32_t max, void ***mine);

/* Of what a signal has interrupted on m's own thread, in its handler. The first is the address of the instruction + 1, so that all are like return
 * addresses. Of a stack that is not known there is only the first. */
uint32_t walk_signal(struct m *m, const ucontext_t *uc, uintptr_t *pc, uint32_t max);

/* On which stack it was. */
enum walk_where {
    WALK_NOWHERE, /* none that is known: of a coroutine of the host's, say */
    WALK_FIBER,
    WALK_HOST,    /* the own stack of an attached thread of the host */
    WALK_SCHED,   /* the scheduler's: it looks for work, or collects */
    WALK_HANDLER, /* the alternate stack: in a signal handler */
};
enum walk_where walk_where(const struct m *m, const ucontext_t *uc);

/* Of a fiber that is pinned (fiber_pin), by anybody who uses walks. Its first frames are the runtime's, which parked it. Not while why is WAIT_BLOCKING:
 * then it runs. */
uint32_t walk_parked(const struct fiber *f, uintptr_t *pc, uint32_t max);
/* Then, and while it is pinned: from the call of weft_blocking_begin outwards. Should the function that called it have returned since, what is found
 * there is what was left of it. */
uint32_t walk_blocked(const struct m *m, uintptr_t *pc, uint32_t max);

#endif
