/* Where the code of the library begins and ends: this object is linked first, text_last.S last. See base/text.h. */
    .text
    .globl base_text_first
    .hidden base_text_first
base_text_first:
    .section .note.GNU-stack, "", %progbits
