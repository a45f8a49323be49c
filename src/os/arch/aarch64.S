/* Stack switching for aarch64, AAPCS64: see arch.h. */
    .text

/* What unwinders need of it is said along the way: a signal may come between any two. */
.macro SAVE_FRAME
    sub sp, sp, #176
    .cfi_adjust_cfa_offset 176
    stp d8, d9, [sp, #0]
    stp d10, d11, [sp, #16]
    stp d12, d13, [sp, #32]
    stp d14, d15, [sp, #48]
    stp x19, x20, [sp, #64]
    .cfi_rel_offset x19, 64
    .cfi_rel_offset x20, 72
    stp x21, x22, [sp, #80]
    stp x23, x24, [sp, #96]
    stp x25, x26, [sp, #112]
    stp x27, x28, [sp, #128]
    stp x29, x30, [sp, #144]
    .cfi_rel_offset x29, 144
    .cfi_rel_offset x30, 152
    mrs x9, fpcr
    str x9, [sp, #160]
.endm

.macro LOAD_FRAME
    ldp d8, d9, [sp, #0]
    ldp d10, d11, [sp, #16]
    ldp d12, d13, [sp, #32]
    ldp d14, d15, [sp, #48]
    ldp x19, x20, [sp, #64]
    .cfi_restore x19
    .cfi_restore x20
    ldp x21, x22, [sp, #80]
    ldp x23, x24, [sp, #96]
    ldp x25, x26, [sp, #112]
    ldp x27, x28, [sp, #128]
    ldp x29, x30, [sp, #144]
    .cfi_restore x29
    .cfi_restore x30
    add sp, sp, #176
    .cfi_adjust_cfa_offset -176
.endm

    .globl weft_arch_switch
    .hidden weft_arch_switch
    .type weft_arch_switch, %function
    .p2align 4
weft_arch_switch:
    .cfi_startproc
    SAVE_FRAME
    mov x10, sp
    str x10, [x0]
    mov sp, x1 /* what lies there looks the same, so it is described by the same words */
    ldr x10, [sp, #160]
    cmp x9, x10
    b.eq 1f
    msr fpcr, x10
1:  LOAD_FRAME
    ret
    .cfi_endproc
    .size weft_arch_switch, . - weft_arch_switch

    .globl weft_arch_call_saved
    .hidden weft_arch_call_saved
    .type weft_arch_call_saved, %function
    .p2align 4
weft_arch_call_saved:
    .cfi_startproc
    SAVE_FRAME
    mov x10, sp
    str x10, [x0]
    mov x9, x1
    mov x0, x2
    blr x9
    LOAD_FRAME
    ret
    .cfi_endproc
    .size weft_arch_call_saved, . - weft_arch_call_saved

/* A public function, which is to have no frame of its own between its caller's and the saved registers: see sched/entry.c. */
    .globl weft_blocking_begin
    .hidden blocking_leave
    .type weft_blocking_begin, %function
    .p2align 4
weft_blocking_begin:
    .cfi_startproc
    SAVE_FRAME
    mov x0, sp
    bl blocking_leave
    LOAD_FRAME
    ret
    .cfi_endproc
    .size weft_blocking_begin, . - weft_blocking_begin

    .globl weft_arch_restart
    .hidden weft_arch_restart
    .type weft_arch_restart, %function
    .p2align 4
weft_arch_restart:
    .cfi_startproc
    .cfi_undefined x30
    and x0, x0, #-16
    mov sp, x0
    mov x19, x1
    b weft_arch_entry
    .cfi_endproc
    .size weft_arch_restart, . - weft_arch_restart

    .globl weft_arch_entry
    .hidden weft_arch_entry
    .type weft_arch_entry, %function
    .p2align 4
weft_arch_entry:
    .cfi_startproc
    .cfi_undefined x30
    mov x29, #0
    mov x30, #0
    blr x19
    brk #1
    .cfi_endproc
    .size weft_arch_entry, . - weft_arch_entry

    .section .note.GNU-stack, "", %progbits
