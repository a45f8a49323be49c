/* Which pages of the heap were written to: concurrent marking learns of the program's stores from here ([CONC], gc/conc.c). See dirty.c.
 *
 * A page of the heap is armed or not. The first write to an armed page ends that; so "not armed" is all that there is to know of a page, and what
 * was never armed, or disarmed, counts as written to. A write that happens before dirty_arm or dirty_take returns may or may not be noted: who arms
 * reads the page afterwards.
 *
 *   DIRTY_UFFD      userfaultfd in asynchronous mode (Linux 6.7): the kernel notes each write by itself, its own ones in system calls too
 *   DIRTY_MPROTECT  write protection and SIGSEGV. A system call that writes into an armed page fails with EFAULT, unless dirty_hold comes before
 *                   it, and a thread that blocks SIGSEGV dies of its first write; so it is never chosen without being asked for
 *   DIRTY_NONE      nothing is noted; arming fails
 *
 * Addresses are multiples of the system's page, in the range given to dirty_start. Results are 0 or a negative errno, and errno is left alone.
 * After an error of dirty_take what it had found and armed again is lost: only a mark in a stop knows better. No memory is taken and no lock of
 * libc, so all of it but starting may be called in a stop; a call is as long as its range, some 10 us for a MiB of small pages, and a stop waits
 * for it. */
#ifndef WEFT_OS_DIRTY_H
#define WEFT_OS_DIRTY_H

#include "base/atomic.h"
#include "base/base.h"

enum dirty_backend { DIRTY_NONE, DIRTY_UFFD, DIRTY_MPROTECT };

/* [lo, hi): the reservation of the heap. any: the best one that works and needs no care, DIRTY_NONE if there is none; `want` is not looked at then.
 * Else that one or an error: -ENOSYS, -EPERM (the system has none, or does not let us), -EMFILE, -ENOMEM. Tried on a page of its own. */
int dirty_start(enum dirty_backend want, bool any, uintptr_t lo, uintptr_t hi);
void dirty_stop(void);
enum dirty_backend dirty_backend(void);
/* What was chosen, and why not the better one: a sentence. "": not started. */
const char *dirty_why(void);

/* These pages have just become usable. An error: they cannot be armed. */
int dirty_committed(uintptr_t lo, uintptr_t hi);
/* Memory outside of the range of dirty_start, mapped: it may be armed, too, till it is unmapped. 0; -ENOSYS: not with this back-end; others. */
int dirty_watch(uintptr_t lo, uintptr_t hi);
/* From the return on the first write to each page is noted. Any thread inside the runtime; not together with another call for the same pages. */
int dirty_arm(uintptr_t lo, uintptr_t hi);
/* Writes cost nothing again. */
int dirty_disarm(uintptr_t lo, uintptr_t hi);

/* A first write to an armed huge page makes small ones of it. Makes huge ones again of those units of OS_HUGE_PAGE in [lo, hi) that are all there
 * and of which nothing is armed, 0.15 ms each, in which page faults of the heap wait: how many. What is huge still costs 1 us. Who calls it, and when:
 * gc/mend.c. -ENOSYS: not with this back-end. It may take 10 ms for one: outside the runtime, where stops do not wait for the caller. */
ptrdiff_t dirty_mend(uintptr_t lo, uintptr_t hi);

struct dirty_range { uintptr_t lo, hi; };
/* The pages of [lo, hi) that are not armed, by address, neighbours as one range; arm: they are now. How many ranges, at most n (not 0). *next: all
 * before it have been looked at; where to go on, hi at the end. An armed page whose memory was given back may be among them. By several threads for
 * different pages. */
ptrdiff_t dirty_take(uintptr_t lo, uintptr_t hi, bool arm, struct dirty_range *out, size_t n, uintptr_t *next);

/* The kernel is about to write to [p, p + bytes) on behalf of a system call that this thread makes: until dirty_release the pages are not armed,
 * whoever arms them. Any address; inside the runtime or not. */
extern w_u32 dirty_holds; /* set: the back-end needs it. Read relaxed: changes while no runtime runs */
void dirty_hold_slow(const void *p, size_t bytes, bool hold);
static inline void dirty_hold(const void *p, size_t bytes)
{
    if (unlikely(load_rlx(&dirty_holds) != 0)) /* rlx: as above */
        dirty_hold_slow(p, bytes, true);
}
static inline void dirty_release(const void *p, size_t bytes)
{
    if (unlikely(load_rlx(&dirty_holds) != 0)) /* rlx: as above */
        dirty_hold_slow(p, bytes, false);
}

/* For the handler of SIGSEGV, at once: true if the fault was a first write to an armed page, by the instruction at pc. The page is not armed any
 * more, and the write is made again when the handler returns. All other signals wait until then. */
bool dirty_fault(uintptr_t addr, uintptr_t pc);

/* In the child of a fork, which has the caller only. In the handler of the fork: what other threads held is free. And before the next call above,
 * where descriptors may be opened: its heap is as it was after dirty_start and dirty_committed, nothing armed; an error: DIRTY_NONE from now on. */
void dirty_forked(void);
int dirty_after_fork_child(void);

#endif
