/* Which frames of a stack are the runtime's own business. See trim.c.
 *
 * At write time: where symbols_at may be called, between maps_begin and maps_end. One thread at a time. */
#ifndef WEFT_PROF_TRIM_H
#define WEFT_PROF_TRIM_H

#include "prof/loaded.h"
#include "prof/store.h"
#include "prof/symbols.h"

enum trim_to {
    TRIM_TO_CALL,   /* begins with the public call, the outermost one if several lie in a row */
    TRIM_TO_CALLER, /* begins with what called it */
};

struct trim {
    const struct maps *maps;
    struct store places;
    struct table table;
    bool nomem;             /* some stacks stay as they are */
    struct symbol scratch[SYMBOLS_INLINED_MAX];
    /* trim_symbolizer */
    struct pprof_symbolizer symbolizer;
    struct loaded loaded;
};

void trim_init(struct trim *t, const struct maps *maps);
void trim_free(struct trim *t);

/* How many return addresses in front are to go. */
uint32_t trim_inner(struct trim *t, enum trim_to to, const uintptr_t *pc, uint32_t n);
/* Of the functions inlined at the address, how many of the innermost go with those that trim_inner said were to go. */
uint32_t trim_functions(const struct trim *t, uintptr_t pc);

/* How many are left without those where every fiber begins. Callable anywhere. */
uint32_t trim_outer(const uintptr_t *pc, uint32_t n);

/* What lies at an address of this process, without what trim_functions says. Good as long as t and its maps. */
const struct pprof_symbolizer *trim_symbolizer(struct trim *t);

bool trim_is_public(const char *func); /* by its name; NULL: no */

#endif
