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

int walk_use(void) { return 0; }
void walk_unuse(void) { }

w_noinline uint32_t walk_self(struct m *m, uintptr_t *pc, uint32_t max)
{
    uintptr_t fp = (uintptr_t)__builtin_frame_address(0), hi = (uintptr_t)m->cur->stack_hi;
    if (fp < (uintptr_t)m->cur->stack_lo || fp >= hi)
        return 0;
    return walk_frames(fp, fp, hi, pc, 0, max);
}

static bool on_stack(const struct fiber *f, uintptr_t sp)
{
    return f != NULL && sp >= (uintptr_t)f->stack_lo && sp < (uintptr_t)f->stack_hi;
}

enum walk_where walk_where(const struct m *m, const ucontext_t *uc)
{
    uintptr_t sp = arch_uc_sp(uc);
    if (on_stack(m->cur, sp))
        return m->foreign ? WALK_HOST : WALK_FIBER;
    if (on_stack(m->prev, sp))
        return WALK_FIBER;
    return m->cur == NULL ? WALK_SCHED : WALK_NOWHERE;
}

w_no_sanitize uint32_t walk_signal(struct m *m, const ucontext_t *uc, uintptr_t *pc, uint32_t max)
{
    uintptr_t sp = arch_uc_sp(uc);
    if (max == 0)
        return 0;
    pc[0] = arch_uc_pc(uc) + 1;
    if (!on_stack(m->cur, sp))
        return 1;
#if defined(__x86_64__)
    uintptr_t fp = (uintptr_t)uc->uc_mcontext.gregs[REG_RBP];
#else
    uintptr_t fp = uc->uc_mcontext.regs[29];
#endif
    return walk_frames(fp, sp, (uintptr_t)m->cur->stack_hi, pc, 1, max);
}

w_no_sanitize uint32_t walk_parked(const struct fiber *f, uintptr_t *pc, uint32_t max)
{
    const struct arch_frame *fr = f->sp;
    if (max == 0)
        return 0;
    pc[0] = ARCH_PC(fr);
    return walk_frames(ARCH_FP(fr), (uintptr_t)(fr + 1), (uintptr_t)f->stack_hi, pc, 1, max);
}
