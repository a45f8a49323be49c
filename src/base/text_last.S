/* See text_first.S. */
    .text
    .globl base_text_last
    .hidden base_text_last
base_text_last:
    .section .note.GNU-stack, "", %progbits
