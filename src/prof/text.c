/* Profiles as text. The columns are those of Go's text/tabwriter with a tab width of 8 and one cell of padding, which tools that read these files
 * have seen for years: a cell is filled up with tabs to a multiple of 8 beyond the widest one of the lines around it that have all columns. */
#include "prof/text.h"
#include <string.h>
#include "base/fmt.h"
#include "base/offheap.h"
#include "prof/pseudo.h"

/* ---- text ------------------------------------------------------------------------------------------------ */

struct text_chunk { struct text_chunk *next; size_t used; char mem[]; };
#define CHUNK_BYTES ((size_t)64 << 10)

void text_put(struct text *t, const char *s, size_t n)
{
    while (n > 0 && !t->nomem) {
        struct text_chunk *c = t->last;
        if (c == NULL || c->used == CHUNK_BYTES - sizeof *c) {
            c = off_alloc(OFF_PROF, CHUNK_BYTES);
            if (c == NULL) {
                t->nomem = true;
                return;
            }
            c->next = NULL;
            c->used = 0;
            if (t->last != NULL)
                t->last->next = c;
            else
                t->first = c;
            t->last = c;
        }
        size_t k = w_min(n, CHUNK_BYTES - sizeof *c - c->used);
        memcpy(c->mem + c->used, s, k);
        c->used += k;
        t->bytes += k;
        s += k;
        n -= k;
    }
}

void text_puts(struct text *t, const char *s) { text_put(t, s, strlen(s)); }

void text_putf(struct text *t, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    size_t n = w_vfmt(line, sizeof line, fmt, ap);
    va_end(ap);
    text_put(t, line, w_min(n, sizeof line - 1));
}

void text_quoted(struct text *t, const char *s)
{
    text_put(t, "\"", 1);
    for (; *s != 0; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            text_putf(t, "\\%c", c);
        else if (c == '\n' || c == '\t' || c == '\r')
            text_putf(t, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
        else if (c < ' ' || c == 0x7f)
            text_putf(t, "\\x%02x", c);
        else
            text_put(t, s, 1);
    }
    text_put(t, "\"", 1);
}

int text_write(const struct text *t, weft_writer *w, void *ctx)
{
    int err = 0;
    for (const struct text_chunk *c = t->first; c != NULL && err == 0; c = c->next)
        err = w(ctx, c->mem, c->used);
    return err;
}

void text_free(struct text *t)
{
    for (struct text_chunk *c = t->first, *next; c != NULL; c = next) {
        next = c->next;
        off_free(OFF_PROF, c);
    }
    *t = (struct text){ 0 };
}

/* ---- what lies at an address --------------------------------------------------------------------------------- */

struct text_place { uintptr_t pc; uint32_t first, n; }; /* of symbols; n 0: not known */
struct text_symbol { const char *func, *file; uint32_t line; uint64_t offset; };

static uint32_t hash_of(uintptr_t pc) { return (uint32_t)((pc * 0x9e3779b97f4a7c15ull) >> 32); }
static struct text_place *place_at(const struct text_places *p, uint32_t i) { return store_at(&p->places, i); }
static uint32_t place_hash(const void *p, uint32_t i) { return hash_of(place_at(p, i)->pc); }
static bool place_same(const void *p, uint32_t i, const void *pc) { return place_at(p, i)->pc == *(const uintptr_t *)pc; }

void text_places_init(struct text_places *p, struct trim *trim)
{
    *p = (struct text_places){ .trim = trim };
    store_init(&p->places, sizeof(struct text_place));
    store_init(&p->symbols, sizeof(struct text_symbol));
}

void text_places_free(struct text_places *p)
{
    store_free(&p->places);
    store_free(&p->symbols);
    table_free(&p->table);
}

/* Asked as a profile's writer asks, so that both know the same. False: no memory. */
static bool place_fill(struct text_places *p, struct text_place *l)
{
    struct symbol *s = p->trim->scratch;
    struct text_symbol *to;
    if (pseudo_name(l->pc) != NULL) {
        to = store_take(&p->symbols, 1, &l->first);
        if (to != NULL)
            *to = (struct text_symbol){ .func = pseudo_name(l->pc), .file = "" };
        l->n = 1;
        return to != NULL;
    }
    uint32_t n = symbols_at(p->trim->maps, l->pc, s), strip = trim_functions(p->trim, l->pc);
    if (n == 0 || s[n - 1].func == NULL)
        return true;
    strip = strip < n ? strip : 0;
    to = store_take(&p->symbols, n - strip, &l->first);
    if (to == NULL)
        return false;
    l->n = n - strip;
    uint64_t offset = s[n - 1].offset != 0 ? s[n - 1].offset - 1 : 0; /* not known of functions in several parts */
    for (uint32_t i = strip; i < n; i++)
        *to++ = (struct text_symbol){ s[i].func != NULL ? s[i].func : "?", s[i].file != NULL ? s[i].file : "?", s[i].line, offset };
    return true;
}

/* NULL: not yet. */
static const struct text_place *known_place(struct text_places *p, uintptr_t pc)
{
    const uint32_t *slot = p->table.room > 0 ? table_find(&p->table, p, hash_of(pc), place_same, &pc) : NULL;
    return slot != NULL && *slot != 0 ? place_at(p, *slot - 1) : NULL;
}

/* NULL: no memory; but what was found once is there. */
static const struct text_place *place(struct text_places *p, uintptr_t pc)
{
    const struct text_place *known = known_place(p, pc);
    if (known != NULL || !table_reserve(&p->table, p, place_hash))
        return known;
    uint32_t *slot = table_find(&p->table, p, hash_of(pc), place_same, &pc), i;
    struct text_place *l = store_take(&p->places, 1, &i);
    if (l == NULL)
        return NULL;
    *l = (struct text_place){ .pc = pc };
    if (!place_fill(p, l))
        return NULL;
    table_fill(&p->table, slot, i);
    return l;
}

/* ---- stacks ----------------------------------------------------------------------------------------------------- */

static size_t digits(uint64_t v) { return v == 0 ? 1 : (67 - (size_t)__builtin_clzll(v)) / 4; }
static size_t pc_width(uintptr_t pc) { return 2 + digits(pc - 1); }
static size_t func_width(const struct text_symbol *s) { return strlen(s->func) + 3 + digits(s->offset); }

static void pad(struct text *t, size_t width, size_t widest)
{
    for (size_t to = w_align_up(widest + 1, 8); width < to; width = w_align_down(width + 8, 8))
        text_put(t, "\t", 1);
}

/* The addresses from i on that are known. */
static uint32_t known_run(struct text_places *p, const uintptr_t *pc, uint32_t i, uint32_t n, size_t *widest_pc, size_t *widest_func)
{
    const struct text_place *l;
    for (; i < n && (l = place(p, pc[i])) != NULL && l->n > 0; i++) {
        *widest_pc = w_max(*widest_pc, pc_width(pc[i]));
        for (uint32_t k = 0; k < l->n; k++)
            *widest_func = w_max(*widest_func, func_width((struct text_symbol *)store_at(&p->symbols, l->first) + k));
    }
    return i;
}

static void put_place(struct text *t, const struct text_places *p, const struct text_place *l, size_t widest_pc, size_t widest_func)
{
    const struct text_symbol *s = store_at(&p->symbols, l->first);
    for (uint32_t k = 0; k < l->n; k++, s++) {
        text_putf(t, "#\t0x%lx", (unsigned long)l->pc - 1);
        pad(t, pc_width(l->pc), widest_pc);
        text_puts(t, s->func);
        text_putf(t, "+0x%lx", (unsigned long)s->offset);
        pad(t, func_width(s), widest_func);
        text_puts(t, s->file);
        text_putf(t, ":%u\n", s->line);
    }
}

void text_stack(struct text *t, struct text_places *p, const uintptr_t *pc, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        size_t widest_pc = 0, widest_func = 0;
        uint32_t end = known_run(p, pc, i, n, &widest_pc, &widest_func);
        for (; i < end; i++)
            put_place(t, p, place(p, pc[i]), widest_pc, widest_func);
        if (i < n) {
            t->nomem |= place(p, pc[i]) == NULL;
            text_putf(t, "#\t0x%lx\n", (unsigned long)pc[i] - 1);
            i++;
        }
    }
    text_put(t, "\n", 1);
}
