/* From saved registers and a stack, or a copy of it, to the return addresses on it. See unwind.c. */
#ifndef WEFT_PROF_UNWIND_H
#define WEFT_PROF_UNWIND_H

#include "base/base.h"
#include "os/arch/arch.h"
#include "os/maps.h"

/* Of a deep stack these are kept, as in Go. */
#define UNWIND_INNER 50u
#define UNWIND_OUTER 50u

#if defined(__x86_64__)
#define UNWIND_REGS 17u /* numbered as in DWARF: 6 rbp, 7 rsp, 16 rip */
#elif defined(__aarch64__)
#define UNWIND_REGS 33u /* x0 to x30, sp, pc */
#endif

struct unwind_from {
    uintptr_t reg[UNWIND_REGS];
    uintptr_t lo, hi;  /* the stack from its pointer up to its end */
    const char *bytes; /* where the bytes of [lo, hi) are: a copy, or lo itself */
    bool exact;        /* interrupted: the innermost address is no return address */
};

struct unwind_trace {
    uint32_t n;        /* of pc */
    uint32_t elided;   /* left out after the first UNWIND_INNER */
    bool cut;          /* hi was not the end of the stack: more frames may follow */
    uintptr_t pc[UNWIND_INNER + UNWIND_OUTER]; /* innermost first, each as if it were a return address */
};

/* What weft_arch_switch left at sp, below hi; the bytes lie where they are. Callable anywhere. */
void unwind_from_frame(struct unwind_from *u, const void *sp, const void *hi);
/* A signal frame; in the handler, or later from a copy. */
void unwind_from_signal(struct unwind_from *u, const ucontext_t *uc, const void *hi);

/* Between maps_begin and maps_end, and within maps_hold. Takes no lock but libunwind's own. */
void unwind_walk(const struct maps *t, bool all_there, const struct unwind_from *u, struct unwind_trace *out);

/* Loads libunwind, once. Between maps_begin and maps_end, not within maps_hold. False: frame pointers will have to do. */
bool unwind_load(void);

#endif
