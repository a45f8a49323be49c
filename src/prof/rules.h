/* How to get from a frame to its caller's, at one exact address of code: 32 bits, computed from the tables of the module in which it lies. See rules.c.
 *
 * Whatever computes or reads one takes no lock and no memory, and leaves libc and the loader alone: for signal handlers. */
#ifndef WEFT_PROF_RULES_H
#define WEFT_PROF_RULES_H

#include "base/base.h"
#include "os/arch/arch.h"

/* From the low bits up:
 *
 *   kind   3 bits
 *   ra     2 bits   where the return address is; on x86-64 it always lies at cfa - 8, and these say what is added to a cfa that was loaded: 8 * ra
 *   cfa   15 bits   signed, in words: the frame's end, from sp or fp
 *   fp    12 bits   in words below cfa: where the caller's frame pointer was saved; 0: it is in the register still */
typedef uint32_t rule;

enum rule_kind {
    RULE_NONE,   /* no rule: an empty place of a table */
    RULE_SP,     /* cfa = sp + 8 * cfa */
    RULE_FP,     /* cfa = fp + 8 * cfa */
    RULE_SP_AT,  /* cfa = *(sp + 8 * cfa) + 8 * ra: the caller's sp was saved */
    RULE_FP_AT,  /* cfa = *(fp + 8 * cfa) + 8 * ra */
    RULE_SIGNAL, /* what the kernel returns to after a signal handler: all registers lie on the stack */
    RULE_END,    /* has no caller */
    RULE_OTHER,  /* cfa: enum rule_other */
};
enum rule_ra { RA_REGISTER, RA_ABOVE_FP, RA_INSTEAD_OF_FP }; /* aarch64: x30 still; the word after the saved fp; where fp says, fp being unchanged */
enum rule_other { OTHER_NO_TABLE, OTHER_TOO_HARD, OTHER_NO_MODULE };

#define RULE_FP_IN_PLACE 0xfffu /* of fp: it was saved where fp points to */

static inline enum rule_kind rule_kind(rule r) { return r & 7; }
static inline unsigned rule_ra(rule r) { return r >> 3 & 3; }
static inline intptr_t rule_cfa_bytes(rule r) { return (intptr_t)((int32_t)(r << 12) >> 17) * 8; }
static inline unsigned rule_fp(rule r) { return r >> 20; }
static inline rule rule_other(enum rule_other why) { return RULE_OTHER | (uint32_t)why << 5; }
static inline enum rule_other rule_other_why(rule r) { return r >> 5 & 3; }

/* Where in the signal frame, from the stack pointer of its rule, the registers are. */
#if defined(__x86_64__)
#define RULE_UCONTEXT 0
#else
#define RULE_UCONTEXT 128 /* after siginfo */
#endif

struct rules_module {
    uintptr_t lo, hi;           /* its segments lie in here */
    uintptr_t code_lo, code_hi; /* the executable ones in here */
    uintptr_t data_lo, data_hi; /* the segment with the tables */
    uintptr_t head;             /* .eh_frame_hdr */
    uint32_t count;             /* of its entries; 0: no table */
    bool stays;                 /* cannot be unloaded */
    int32_t *begins;            /* of others: where each RULES_EACH-th entry's code begins, from head */
};
#define RULES_EACH 32u
struct rules_modules {
    unsigned long long adds, subs; /* the loader's counters as of then */
    uint32_t n;
    struct rules_module mod[];     /* by address */
};

/* Of the loader, whose lock they take: on a helper, never inside the runtime. A fork waits for them. NULL: no memory (OFF_PROF). */
bool rules_modules_current(const struct rules_modules *t);
struct rules_modules *rules_modules_new(void);
void rules_modules_free(struct rules_modules *t);

const struct rules_module *rules_module_at(const struct rules_modules *t, uintptr_t addr);
/* At a return address (or at the one before it, if it is none). Never RULE_NONE. Some microseconds. */
rule rules_at(const struct rules_modules *t, uintptr_t return_pc);

#endif
