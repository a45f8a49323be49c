/* What the dynamic loader has mapped: the writable data of all modules, and the thread-local storage of a thread.
 *
 * [LOADER] Asking the loader takes its lock, which a stopped thread may hold. So it is asked outside of any stop (loader_refresh), and the
 * answer is kept with a fingerprint of the list of modules. In a stop the list is only looked at, without a lock: if a change
 * is under way or the fingerprint has moved, the world has to be started again, the table refreshed, and the world stopped anew.
 *
 * Not every thread is stopped: those of the host that are not attached, and those in code announced as blocking, may unload a module at any time in
 * the stop. What may go is therefore read through the kernel (os_vm_peek), which does not mind: the list itself, modules other than the program and
 * our own, and the blocks of thread-local storage that come and go with modules. */
#ifndef WEFT_OS_LOADER_H
#define WEFT_OS_LOADER_H

#include "base/base.h"

struct loader_range { uintptr_t lo, hi; bool stays; }; /* stays: it cannot be unmapped as long as we run */
typedef void loader_range_fn(void *arg, const void *lo, const void *hi);

/* [p, p + bytes) is runtime data without a pointer of the program: left out of loader_data. Before loader_start; at most 8, forgotten by
 * loader_stop. */
void loader_exclude(const void *p, size_t bytes);
int loader_start(void); /* 0, -ENOMEM */
void loader_stop(void);
/* Asks the loader, if anything has changed. Outside of any stop; by one thread at a time. 0; -ENOMEM: the table is not
 * complete, so nothing may be collected by it. */
int loader_refresh(void);
/* In a stop: is the table up to date? */
bool loader_current_stw(void);
/* The writable data of all modules but a sanitizer's, what becomes read-only after relocation left out. Valid until the next refresh. */
const struct loader_range *loader_data(size_t *n);
/* Calls fn for [lo, hi), or for copies of its pieces; what is not mapped is left out. For what does not stay. */
void loader_read(uintptr_t lo, uintptr_t hi, loader_range_fn *fn, void *arg);
/* In a stop, or for the calling thread: calls fn for the ranges of thread-local storage (also that of pthread_setspecific's first
 * keys) of the thread whose thread pointer is tp, or for copies of them. */
void loader_tls(uintptr_t tp, loader_range_fn *fn, void *arg);
/* Whether that lies in the thread-local storage that is beside the control block of the thread whose thread pointer is tp: the variables of the program
 * and of what was loaded with it. Anybody, at any time after loader_start. */
bool loader_beside(uintptr_t tp, const void *at);

#endif
