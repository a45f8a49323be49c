/* Which code is the library's own: all of it is one piece, in a program as in the shared library, between two marks that the Makefile links first and
 * last. What the compiler sets apart as cold is not in it; nothing that calls on is. */
#ifndef WEFT_BASE_TEXT_H
#define WEFT_BASE_TEXT_H

#include "base/base.h"

extern const char base_text_first[], base_text_last[];

static inline bool text_is_own(uintptr_t return_pc)
{
    return return_pc > (uintptr_t)base_text_first && return_pc <= (uintptr_t)base_text_last;
}

/* How many frames of a stack, innermost first, are the library's own before the first that is not. */
static inline uint32_t text_own_frames(const uintptr_t *pc, uint32_t n)
{
    uint32_t own = 0;
    while (own < n && text_is_own(pc[own]))
        own++;
    return own;
}

#endif
