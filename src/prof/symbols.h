/* Code addresses to functions, files and lines. See symbols.c. */
#ifndef WEFT_PROF_SYMBOLS_H
#define WEFT_PROF_SYMBOLS_H

#include "os/maps.h"

#define SYMBOLS_INLINED_MAX 16 /* functions inlined into one another at one place that are told apart */

struct symbol {
    const char *func;   /* NULL: not known; file is the module then, and offset the address within it */
    const char *file;   /* absolute where it is known; NULL: not known */
    uint32_t line;      /* 0: not known */
    bool inlined;       /* into the next one */
    uint64_t offset;    /* of the address from the start of func; not for inlined ones */
};

/* The functions at a return address, innermost first, at most SYMBOLS_INLINED_MAX; at least one, and the last is not inlined. The texts stay
 * until maps_end. Between maps_begin(symbols_gone) and maps_end; mallocs, and needs SYMBOLS_STACK_BYTES of stack. */
unsigned symbols_at(const struct maps *t, uintptr_t return_pc, struct symbol *out);

#define SYMBOLS_STACK_BYTES (256u << 10)

/* For maps_begin: drops what was read about a module. Both only on a helper, [FILES] in helper.h. */
void symbols_gone(struct maps_module *m);

#endif
