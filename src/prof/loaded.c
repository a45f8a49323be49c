/* What lies at an address of this process: mappings from the table of modules, functions and lines from libdw.
 *
 * A mapping is what /proc/self/maps would show of the module's code: whole pages from the start of the segment, with its offset in the file. pprof
 * reckons with nothing else when it looks for symbols in the file itself. Code that lies in no module (made at run time, say) has an address only;
 * frames that are no code (pseudo.h) have a name only. */
#include "prof/loaded.h"
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
#include "prof/pseudo.h"

_Static_assert(SYMBOLS_INLINED_MAX <= PPROF_FRAMES_MAX, "all frames at an address");

static bool module(const struct pprof_symbolizer *s, uintptr_t addr, struct pprof_module *out)
{
    const struct loaded *l = w_containerof(s, struct loaded, symbolizer);
    const struct maps_module *m = maps_find(l->maps, addr);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (unsigned i = 0; m != NULL && i < m->nseg; i++) {
        uintptr_t lo = w_align_down(m->seg[i].lo, page), hi = w_align_up(m->seg[i].hi, page);
        if (!m->seg[i].code || addr < lo || addr >= hi)
            continue;
        *out = (struct pprof_module){ .lo = lo, .hi = hi, .offset = w_align_down(m->seg[i].offset, page), .path = m->path,
                                      .build_id = m->build_id, .build_id_bytes = m->build_id_bytes };
        return true;
    }
    return false;
}

/* symbols_at puts the module where the file is not known. */
static uint32_t frames(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *out)
{
    const struct loaded *l = w_containerof(s, struct loaded, symbolizer);
    if (pseudo_is(return_pc)) {
        *out = (struct pprof_frame){ .func = pseudo_name(return_pc) };
        return out->func != NULL;
    }
    const struct maps_module *m = maps_find(l->maps, return_pc - 1);
    uint32_t n = symbols_at(l->maps, return_pc, l->scratch);
    if (m == NULL || l->scratch[n - 1].func == NULL)
        return 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct symbol *sym = &l->scratch[i];
        out[i] = (struct pprof_frame){ .func = sym->func != NULL ? sym->func : "?", .line = sym->line };
        out[i].file = sym->file != m->path ? sym->file : NULL;
    }
    return n;
}

void loaded_init(struct loaded *l, const struct maps *t, struct symbol scratch[SYMBOLS_INLINED_MAX])
{
    l->symbolizer = (struct pprof_symbolizer){ .module = module, .frames = frames, .program = (uintptr_t)getauxval(AT_ENTRY),
                                               .generation = t->generation };
    l->maps = t;
    l->scratch = scratch;
}
