/* Which frames of a stack are the runtime's own business.
 *
 * A stack that was taken at a probe point begins deep inside the runtime. What a user knows is the call that he wrote, so a stack is to begin
 * with that, or with who wrote it. It is told by names: of the functions on the stack, from the innermost outwards, the first one that is public
 * (weft_...) and those that follow it directly (weft_mutex_lock, inlined into its caller, and the weft_mutex_lock_slow that it calls) are a run; the
 * stack begins with the last function of the run, or with the one behind it. Callbacks of the user's that the runtime calls lie further in than the
 * public function that called them, and so stay.
 *
 * What is known of an address is kept, so that an address is looked up once however many stacks go through it. */
#include "prof/trim.h"
#include <string.h>
#include "os/arch/arch.h"

#define DEEPEST 32u /* the runtime's calls are not nested deeper, sanitizers included */

struct trim_place {
    uintptr_t pc;
    uint16_t public; /* a bit per function at the address, innermost first */
    uint8_t n;       /* functions */
    uint8_t strip;   /* trim_functions */
};
_Static_assert(SYMBOLS_INLINED_MAX <= 16, "public");

static uint32_t hash_of(uintptr_t pc) { return (uint32_t)((pc * 0x9e3779b97f4a7c15ull) >> 32); }
static struct trim_place *place_at(const struct trim *t, uint32_t i) { return store_at(&t->places, i); }
static uint32_t place_hash(const void *t, uint32_t i) { return hash_of(place_at(t, i)->pc); }
static bool place_same(const void *t, uint32_t i, const void *pc) { return place_at(t, i)->pc == *(const uintptr_t *)pc; }

bool trim_is_public(const char *func)
{
    return func != NULL && strncmp(func, "weft_", 5) == 0 && strncmp(func, "weft_arch_", 10) != 0;
}

/* NULL: not yet. */
static struct trim_place *known_place(const struct trim *t, uintptr_t pc)
{
    const uint32_t *slot = t->table.room > 0 ? table_find(&t->table, t, hash_of(pc), place_same, &pc) : NULL;
    return slot != NULL && *slot != 0 ? place_at(t, *slot - 1) : NULL;
}

/* NULL: no memory. */
static struct trim_place *place(struct trim *t, uintptr_t pc)
{
    struct trim_place *known = known_place(t, pc);
    if (known != NULL || !table_reserve(&t->table, t, place_hash))
        return known;
    uint32_t *slot = table_find(&t->table, t, hash_of(pc), place_same, &pc), i;
    struct trim_place *p = store_take(&t->places, 1, &i);
    if (p == NULL)
        return NULL;
    *p = (struct trim_place){ .pc = pc, .n = (uint8_t)symbols_at(t->maps, pc, t->scratch) };
    for (uint32_t k = 0; k < p->n; k++)
        p->public |= (uint16_t)(trim_is_public(t->scratch[k].func) << k);
    table_fill(&t->table, slot, i);
    return p;
}

uint32_t trim_inner(struct trim *t, enum trim_to to, const uintptr_t *pc, uint32_t n)
{
    uint32_t frame = 0, function = 0;
    bool in_run = false;
    for (uint32_t i = 0; i < n && i < DEEPEST; i++) {
        struct trim_place *p = place(t, pc[i]);
        if (p == NULL) {
            t->nomem = true;
            return 0;
        }
        for (uint32_t k = 0; k < p->n; k++) {
            bool public = p->public >> k & 1;
            if (in_run && !public) { /* what follows the run */
                if (to == TRIM_TO_CALLER) {
                    frame = i;
                    function = k;
                }
                known_place(t, pc[frame])->strip = (uint8_t)function;
                return frame;
            }
            if (public) {
                in_run = true;
                frame = i;
                function = k;
            }
        }
    }
    return to == TRIM_TO_CALL ? frame : 0;
}

uint32_t trim_functions(const struct trim *t, uintptr_t pc)
{
    const struct trim_place *p = known_place(t, pc);
    return p != NULL ? p->strip : 0;
}

/* Where every fiber begins: weft_arch_entry, and the function that it calls. */
uint32_t trim_outer(const uintptr_t *pc, uint32_t n)
{
    uintptr_t entry = (uintptr_t)weft_arch_entry;
    bool at_end = n >= 2 && pc[n - 1] > entry && pc[n - 1] <= entry + 64;
    return at_end ? n - 2 : n;
}

static bool module(const struct pprof_symbolizer *s, uintptr_t addr, struct pprof_module *out)
{
    const struct trim *t = w_containerof(s, struct trim, symbolizer);
    return t->loaded.symbolizer.module(&t->loaded.symbolizer, addr, out);
}

static uint32_t frames(const struct pprof_symbolizer *s, uintptr_t return_pc, struct pprof_frame *out)
{
    const struct trim *t = w_containerof(s, struct trim, symbolizer);
    uint32_t n = t->loaded.symbolizer.frames(&t->loaded.symbolizer, return_pc, out), strip = trim_functions(t, return_pc);
    if (strip == 0 || strip >= n)
        return n;
    memmove(out, out + strip, (n - strip) * sizeof *out);
    return n - strip;
}

const struct pprof_symbolizer *trim_symbolizer(struct trim *t)
{
    loaded_init(&t->loaded, t->maps, t->scratch);
    t->symbolizer = t->loaded.symbolizer;
    t->symbolizer.module = module;
    t->symbolizer.frames = frames;
    return &t->symbolizer;
}

void trim_init(struct trim *t, const struct maps *maps)
{
    *t = (struct trim){ .maps = maps };
    store_init(&t->places, sizeof(struct trim_place));
}

void trim_free(struct trim *t)
{
    store_free(&t->places);
    table_free(&t->table);
}
