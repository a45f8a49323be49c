/* What differs between processors: switching stacks, the registers in a signal frame, the thread pointer.
 *
 * A context is the stack pointer of a stack on top of which the callee-saved registers lie, in the order of struct arch_frame;
 * nothing else has to be kept, since every switch is a function call. To add an architecture: NAME.S beside this file and its part below. */
#ifndef WEFT_OS_ARCH_H
#define WEFT_OS_ARCH_H

#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

/* Pushes the callee-saved registers, stores the stack pointer to *save, takes `to` as the stack pointer and pops that stack's. */
void weft_arch_switch(void **save, void *to);
/* Pushes the callee-saved registers, stores the stack pointer to *save, and calls fn(arg) below them; returns when fn does. */
void weft_arch_call_saved(void **save, void (*fn)(void *), void *arg);
/* Drops everything on the stack below top and calls fn there; fn does not return. */
void weft_arch_restart(void *top, void (*fn)(void)) __attribute__((noreturn));
/* The first frame of a fiber: calls the function that arch_stack_init put there. Unwinding ends here. */
void weft_arch_entry(void);

#if defined(__x86_64__)

struct arch_frame {
    uint32_t mxcsr, fpucw; /* control bits that the ABI wants kept */
    uint64_t r15, r14, r13, r12, rbx, rbp, rip;
};
#define ARCH_FP(fr) ((fr)->rbp)
#define ARCH_PC(fr) ((fr)->rip)
#define ARCH_RED_ZONE 128 /* bytes below the stack pointer that a leaf function may use */

static inline void *arch_stack_init(void *top, void (*fn)(void))
{
    struct arch_frame *fr = (struct arch_frame *)top - 1;
    *fr = (struct arch_frame){ .mxcsr = 0x1f80, .fpucw = 0x037f, .rbx = (uint64_t)fn, .rip = (uint64_t)weft_arch_entry };
    return fr;
}

static inline uintptr_t arch_uc_sp(const ucontext_t *uc) { return (uintptr_t)uc->uc_mcontext.gregs[REG_RSP]; }
static inline uintptr_t arch_uc_pc(const ucontext_t *uc) { return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP]; }

/* End of the registers in a signal frame that begins at uc: vector registers included, since compilers move pointers in them. */
static inline const void *arch_uc_end(const ucontext_t *uc)
{
    const char *fp = (const char *)uc->uc_mcontext.fpregs;
    if (fp == NULL)
        return uc + 1;
    uint32_t magic, extended;
    __builtin_memcpy(&magic, fp + 464, sizeof magic); /* struct _fpx_sw_bytes of the kernel */
    __builtin_memcpy(&extended, fp + 468, sizeof extended);
    return fp + (magic == 0x46505853u && extended < 65536 ? extended : 512);
}

static inline uintptr_t arch_thread_pointer(void)
{
    uintptr_t tp;
    __asm__ volatile("movq %%fs:0, %0" : "=r"(tp));
    return tp;
}

/* Reads a thread-local pointer afresh: no compiler may keep it, or its address, over a switch of threads. */
#define ARCH_TLS_LOAD(sym)                                                                            \
    ({ void *tls_;                                                                                    \
       __asm__ volatile("movq " #sym "@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(tls_));     \
       tls_; })

#elif defined(__aarch64__)

struct arch_frame {
    uint64_t d8, d9, d10, d11, d12, d13, d14, d15;
    uint64_t x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29, x30;
    uint64_t fpcr, pad;
};
#define ARCH_FP(fr) ((fr)->x29)
#define ARCH_PC(fr) ((fr)->x30)
#define ARCH_RED_ZONE 0

static inline void *arch_stack_init(void *top, void (*fn)(void))
{
    struct arch_frame *fr = (struct arch_frame *)top - 1;
    *fr = (struct arch_frame){ .x19 = (uint64_t)fn, .x30 = (uint64_t)weft_arch_entry };
    return fr;
}

static inline uintptr_t arch_uc_sp(const ucontext_t *uc) { return (uintptr_t)uc->uc_mcontext.sp; }
static inline uintptr_t arch_uc_pc(const ucontext_t *uc) { return (uintptr_t)uc->uc_mcontext.pc; }

static inline const void *arch_uc_end(const ucontext_t *uc) { return uc + 1; } /* the vector registers lie within */

static inline uintptr_t arch_thread_pointer(void)
{
    uintptr_t tp;
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(tp));
    return tp;
}

#define ARCH_TLS_LOAD(sym)                                                                            \
    ({ void *tls_; uintptr_t tmp_;                                                                    \
       __asm__ volatile("mrs %1, tpidr_el0\n\tadrp %0, :gottprel:" #sym                             \
                        "\n\tldr %0, [%0, #:gottprel_lo12:" #sym "]\n\tldr %0, [%1, %0]"            \
                        : "=&r"(tls_), "=&r"(tmp_));                                                  \
       tls_; })

#else
#error "weft runs on x86-64 and aarch64; to port it, see the first lines of src/os/arch/arch.h"
#endif
#endif
