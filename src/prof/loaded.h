/* What lies at an address of this process, for pprof.h. See loaded.c. */
#ifndef WEFT_PROF_LOADED_H
#define WEFT_PROF_LOADED_H

#include "prof/pprof.h"
#include "prof/symbols.h"

struct loaded {
    struct pprof_symbolizer symbolizer;
    const struct maps *maps;
    struct symbol *scratch; /* SYMBOLS_INLINED_MAX */
};

/* Good until maps_end; where symbols_at may be called. */
void loaded_init(struct loaded *l, const struct maps *t, struct symbol scratch[SYMBOLS_INLINED_MAX]);

#endif
