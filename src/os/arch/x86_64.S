/* Stack switching for x86-64, System V ABI: see arch.h. */
    .text

/* struct arch_frame, and back. In between the stack is aligned: 8 at entry, 56 pushed. */
.macro SAVE_FRAME
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
.endm

.macro LOAD_FRAME
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
.endm

    .globl weft_arch_switch
    .hidden weft_arch_switch
    .type weft_arch_switch, @function
    .p2align 4
weft_arch_switch:
    .cfi_startproc
    movq (%rsp), %r8
    SAVE_FRAME
    movl (%rsp), %eax
    movzwl 4(%rsp), %edx
    movq %rsp, (%rdi)
    movq %rsi, %rsp /* what lies there looks the same, so it is described by the same words */
    /* Loading the control words is slow and they are nearly always the same. */
    cmpl (%rsp), %eax
    jne 1f
    cmpw 4(%rsp), %dx
    jne 2f
3:  .cfi_remember_state
    LOAD_FRAME
    /* Where both sides stand at the same call, the processor's return stack is right for the other fiber too; elsewhere a return would be
     * predicted wrongly, and a jump is better. */
    cmpq (%rsp), %r8
    jne 4f
    ret
4:  popq %rcx
    .cfi_adjust_cfa_offset -8 /* the return address is still below the stack pointer */
    jmp *%rcx
    .cfi_restore_state
1:  ldmxcsr (%rsp)
2:  fldcw 4(%rsp)
    jmp 3b
    .cfi_endproc
    .size weft_arch_switch, . - weft_arch_switch

    .globl weft_arch_call_saved
    .hidden weft_arch_call_saved
    .type weft_arch_call_saved, @function
    .p2align 4
weft_arch_call_saved:
    .cfi_startproc
    SAVE_FRAME
    movq %rsp, (%rdi)
    movq %rsi, %rax
    movq %rdx, %rdi
    call *%rax
    LOAD_FRAME
    ret
    .cfi_endproc
    .size weft_arch_call_saved, . - weft_arch_call_saved

/* A public function, which is to have no frame of its own between its caller's and the saved registers: see sched/entry.c. */
    .globl weft_blocking_begin
    .hidden blocking_leave
    .type weft_blocking_begin, @function
    .p2align 4
weft_blocking_begin:
    .cfi_startproc
    SAVE_FRAME
    movq %rsp, %rdi
    call blocking_leave
    LOAD_FRAME
    ret
    .cfi_endproc
    .size weft_blocking_begin, . - weft_blocking_begin

    .globl weft_arch_restart
    .hidden weft_arch_restart
    .type weft_arch_restart, @function
    .p2align 4
weft_arch_restart:
    .cfi_startproc
    .cfi_undefined %rip
    movq %rdi, %rsp
    andq $-16, %rsp
    movq %rsi, %rbx
    jmp weft_arch_entry
    .cfi_endproc
    .size weft_arch_restart, . - weft_arch_restart

    .globl weft_arch_entry
    .hidden weft_arch_entry
    .type weft_arch_entry, @function
    .p2align 4
weft_arch_entry:
    .cfi_startproc
    .cfi_undefined %rip
    xorl %ebp, %ebp
    call *%rbx
    ud2
    .cfi_endproc
    .size weft_arch_entry, . - weft_arch_entry

    .section .note.GNU-stack, "", @progbits
