/* Weak pointers. */
#ifndef WEFT_GC_WEAK_H
#define WEFT_GC_WEAK_H

#include "gc/gc.h"

void weak_stop(void);
/* In a stop: the object is dead. */
static inline void weak_clear_stw(weft_weak *w) { store_rlx(&w->hidden, 0); } /* rlx: everybody stands still */

#endif
