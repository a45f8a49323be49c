/* Code addresses to functions, files and lines. See symbols.c. */
#ifndef WEFT_PROF_SYMBOLS_H
#define WEFT_PROF_SYMBOLS_H

#include <string.h>
#include "base/atomic.h"
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

/* The variable that lies at an address, and how far into it the address is. False: not known; *module, if not NULL, is then the path of the module that it
 * is in, or NULL. The same terms. */
bool symbols_data(const struct maps *t, uintptr_t addr, const char **name, uint64_t *offset, const char **module);

/* Of a file or module, for people: its name without the folder. */
static inline const char *symbols_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

#define SYMBOLS_STACK_BYTES (256u << 10)

/* For maps_begin: drops what was read about a module. Both only on a helper, [FILES] in helper.h. */
void symbols_gone(struct maps_module *m);

/* The runtime ends. Drops all that was read, if *kept (then 0) says that something was. Outside the runtime, in no fiber. */
void symbols_end(w_u32 *kept);

#endif
