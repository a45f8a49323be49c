/* Stacks of what runs, at once. Both ABIs: the frame pointer points to that of the caller, and the return address lies above it. */
#include "prof/walk.h"
#include "sched/sched.h"

static w_no_sanitize uint32_t walk_frames(uintptr_t fp, uintptr_t lo, uintptr_t hi, uintptr_t *pc, uint32_t n, uint32_t max)
{
    while (n < max && fp >= lo && fp % sizeof fp == 0 && fp + 16 <= hi) {
        uintptr_t ret = ((const uintptr_t *)fp)[1];
        if (ret == 0)
            break;
        pc[n++] = ret;
        lo = fp + 16;
        fp = *(const uintptr_t *)fp;
    }
    return n;
}

w_noinline uint32_t walk_self(struct m *m, uintptr_t *pc, uint32_t max)
{
    uintptr_t fp = (uintptr_t)__builtin_frame_address(0), hi = (uintptr_t)m->cur->stack_hi;
    if (fp < (uintptr_t)m->cur->stack_lo || fp >= hi)
        return 0;
    return walk_frames(fp, fp, hi, pc, 0, max);
}

w_no_sanitize uint32_t walk_signal(struct m *m, const ucontext_t *uc, uintptr_t *pc, uint32_t max)
{
    uintptr_t sp = arch_uc_sp(uc), hi = m->cur != NULL ? (uintptr_t)m->cur->stack_hi : 0;
    if (hi == 0 || sp < (uintptr_t)m->cur->stack_lo || sp >= hi || max == 0)
        return 0;
#if defined(__x86_64__)
    uintptr_t fp = (uintptr_t)uc->uc_mcontext.gregs[REG_RBP];
#else
    uintptr_t fp = uc->uc_mcontext.regs[29];
#endif
    pc[0] = arch_uc_pc(uc) + 1;
    return walk_frames(fp, sp, hi, pc, 1, max);
}
