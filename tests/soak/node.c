/* Objects: how they are laid out, made, written to and compared. */
#include "soak.h"
#include <stdarg.h>
#include <sys/uio.h>
#include <unistd.h>
#include "gc/heap.h"

/* Word w of an object that is no slot: no address, whatever it is. */
static uint64_t pattern(uint64_t id, size_t w)
{
    uint64_t x = (id + w) * UINT64_C(0x9e3779b97f4a7c15);
    return (x ^ x >> 32) | UINT64_C(1) << 63;
}

/* ---- layouts -------------------------------------------------------------------------------------------------------------------- */

#define TYPES 4
static const struct layout { uint32_t words, slots, first, step; } layouts[TYPES] = {
    { 4, 2, 1, 2 }, { 8, 3, 1, 3 }, { 24, 20, 2, 1 }, { 64, 8, 7, 7 }
};
static const weft_type *types[TYPES];

static void make_types(void)
{
    for (int t = 0; t < TYPES; t++) {
        size_t offsets[64];
        for (uint32_t k = 0; k < layouts[t].slots; k++)
            offsets[k] = 8 * (layouts[t].first + (size_t)k * layouts[t].step);
        MUST((types[t] = weft_type_make(8 * layouts[t].words, offsets, layouts[t].slots)) != NULL);
    }
}

static uint32_t slots_of(enum kind kind, int type, uint32_t words)
{
    switch (kind) {
    case NOSCAN: return 0;
    case TYPED: return layouts[type].slots;
    case ARRAY: return words / layouts[type].words * layouts[type].slots;
    default: return words - 1 - (words - 1) / 3; /* two of three words from word 1 on */
    }
}

static uint32_t slot_word(const struct node *n, uint32_t slot)
{
    if (n->kind == TYPED || n->kind == ARRAY) {
        const struct layout *l = &layouts[n->type];
        return slot / l->slots * l->words + l->first + slot % l->slots * l->step;
    }
    return 1 + slot / 2 * 3 + slot % 2;
}

/* ---- the shadow's list -------------------------------------------------------------------------------------------------------------- */

void nodes_init(struct world *w, uint32_t target)
{
    if (types[0] == NULL)
        make_types();
    w->target = target;
    w->cap = 3 * target;
    w->node = calloc(w->cap, sizeof *w->node);
    w->free_index = malloc(w->cap * sizeof *w->free_index);
    w->todo = malloc(w->cap * sizeof *w->todo);
    MUST(w->node != NULL && w->free_index != NULL && w->todo != NULL);
    for (uint32_t i = 0; i < w->cap; i++)
        w->free_index[w->nfree++] = (int32_t)(w->cap - 1 - i);
}

void node_forget(struct world *w, int32_t i)
{
    struct node *n = &w->node[i];
    w->large -= n->kind == LARGE;
    free(n->edge);
    memset(n, 0, sizeof *n);
    w->free_index[w->nfree++] = i;
    w->nodes--;
}

static enum kind some_kind(struct world *w)
{
    uint32_t r = rng_below(&w->rng, 1000);
    return r < 400 ? TYPED : r < 800 ? CONS : r < 980 ? NOSCAN : r < 998 ? ARRAY : w->large < 3 ? LARGE : CONS;
}

/* Kind, type and words are set. */
static void *make(const struct node *n)
{
    switch ((enum kind)n->kind) {
    case TYPED: return weft_alloc_typed(types[n->type]);
    case ARRAY: return weft_alloc_array(types[n->type], n->words / layouts[n->type].words);
    case NOSCAN: return weft_alloc_noscan(8 * (size_t)n->words);
    default: return weft_alloc(8 * (size_t)n->words);
    }
}

static void draw_size(struct world *w, struct node *n)
{
    uint32_t small = rng_below(&w->rng, 10);
    n->type = (uint8_t)rng_below(&w->rng, TYPES);
    switch ((enum kind)n->kind) {
    case TYPED: n->words = layouts[n->type].words; break;
    case ARRAY: n->words = layouts[n->type].words * (1 + rng_below(&w->rng, small != 0 ? 20 : 1200)); break;
    case NOSCAN: n->words = 1 + rng_below(&w->rng, small != 0 ? 40 : 6000); break;
    case LARGE: n->words = 8192 + rng_below(&w->rng, 60000); break;
    default: n->words = 2 + rng_below(&w->rng, small != 0 ? 30 : 2000);
    }
}

static int32_t node_take(struct world *w, uint8_t kind)
{
    int32_t i = w->free_index[--w->nfree];
    struct node *n = &w->node[i];
    n->kind = kind;
    n->weak = -1;
    n->id = UINT64_C(1) << 63 | (uint64_t)w->number << 56 | (uint64_t)++w->serial << 24 | (uint64_t)i;
    w->nodes++;
    w->large += kind == LARGE;
    return i;
}

/* Its slots are empty, in the shadow; its other words get what they must hold. */
static void node_begin(struct node *n, uint64_t *p)
{
    n->hidden = ~(uintptr_t)p;
    n->slots = slots_of(n->kind, n->type, n->words);
    if (n->slots != 0)
        MUST((n->edge = malloc(n->slots * sizeof *n->edge)) != NULL);
    for (uint32_t k = 0; k < n->slots; k++)
        n->edge[k] = (struct edge){ -1, 0 };
    p[0] = n->id;
    for (uint32_t k = 1, s = 0; k < n->words; k++) {
        if (s < n->slots && slot_word(n, s) == k)
            s++;
        else
            p[k] = pattern(n->id, k);
    }
}

void *node_new(struct world *w, enum kind kind, int32_t *index)
{
    if (w->nfree == 0)
        return NULL;
    int32_t i = node_take(w, kind == KINDS ? (uint8_t)some_kind(w) : (uint8_t)kind);
    struct node *n = &w->node[i];
    draw_size(w, n);
    uint64_t *p = make(n);
    MUST(p != NULL, "no memory for an object");
    n->hidden = ~(uintptr_t)p;
    for (uint32_t k = 0; k < n->words; k++)
        if (p[k] != 0)
            soak_differs(w, i, "a new object is not all zero", k, p[k], 0);
    node_begin(n, p);
    *index = i;
    return p;
}

/* The kernel writes: by weft_read, or the host's own read(2), unless that is not to be. */
static void read_pipe(struct world *w, void *to, size_t bytes)
{
    if (soak_bare_reads && rng_below(&w->rng, 2) == 0)
        MUST(read(w->pipe[0], to, bytes) == (ssize_t)bytes);
    else
        MUST(weft_read(w->reader, to, bytes) == (ssize_t)bytes);
}

void *node_copy(struct world *w, int32_t of, int32_t *index)
{
    const struct node *old = &w->node[of];
    size_t bytes = 8 * (size_t)old->words;
    if (w->nfree == 0 || old->kind == LARGE || bytes > 32768)
        return NULL;
    int32_t i = node_take(w, old->kind);
    struct node *n = &w->node[i];
    uint64_t *p = NULL;
    n->type = old->type;
    n->words = old->words;
    switch (rng_below(&w->rng, 3)) {
    case 0:
        MUST((p = make(n)) != NULL);
        memcpy(p, node_at(old), bytes);
        break;
    case 1:
        MUST((p = make(n)) != NULL);
        MUST(write(w->pipe[1], node_at(old), bytes) == (ssize_t)bytes); /* a pipe takes it in one go */
        read_pipe(w, p, bytes);
        break;
    default: /* a typed object becomes a conservative one, which has other slots */
        p = old->kind == TYPED   ? memcpy(make(n), node_at(old), bytes)
            : old->kind == ARRAY ? weft_realloc_array(types[n->type], node_at(old), n->words / layouts[n->type].words)
                                 : weft_realloc(node_at(old), bytes);
        MUST(p != NULL);
    }
    node_begin(n, p);
    if (n->slots != 0)
        memcpy(n->edge, old->edge, n->slots * sizeof *n->edge);
    *index = i;
    return p;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t expected(struct world *w, struct edge e) { return e.to < 0 ? 0 : (uint64_t)node_at(&w->node[e.to]) + e.off; }

void *node_load(struct world *w, int32_t i, uint32_t slot, struct edge *e)
{
    struct node *n = &w->node[i];
    uint32_t word = slot_word(n, slot);
    uint64_t is = ((volatile uint64_t *)node_at(n))[word];
    *e = n->edge[slot];
    if (is != expected(w, *e))
        soak_differs(w, i, "a pointer", word, is, expected(w, *e));
    return (void *)(uintptr_t)is;
}

void node_compare(struct world *w, int32_t i)
{
    struct node *n = &w->node[i];
    const uint64_t *p = node_at(n);
    if (p[0] != n->id)
        soak_differs(w, i, "the first word", 0, p[0], n->id);
    if (weft_object_base(p) != p)
        soak_differs(w, i, "weft_object_base", 0, (uint64_t)weft_object_base(p), (uint64_t)p);
    uint32_t from = 1, to = n->words, s = 0;
    if (n->words > 2048) { /* a part, another one each time */
        from = 1 + rng_below(&w->rng, n->words - 1024);
        to = from + 1024;
    }
    while (s < n->slots && slot_word(n, s) < from)
        s = s + 64 < n->slots && slot_word(n, s + 64) < from ? s + 64 : s + 1;
    for (uint32_t k = from; k < to; k++) {
        bool slot = s < n->slots && slot_word(n, s) == k;
        uint64_t want = slot ? expected(w, n->edge[s]) : pattern(n->id, k);
        if (p[k] != want)
            soak_differs(w, i, slot ? "a pointer" : "contents", k, p[k], want);
        s += slot;
    }
    w->compared++;
}

/* ---- writing: by plain stores, and as whatever else writes to memory ------------------------------------------------------------------------ */

static void by_the_kernel(struct world *w, void **to, void *p, bool scatter)
{
    void *two[2] = { p, p }, *spare = NULL;
    MUST(write(w->pipe[1], two, scatter ? 16 : 8) == (scatter ? 16 : 8));
    two[0] = two[1] = NULL;
    __asm__ volatile("" : : "r"(two) : "memory");
    if (scatter) {
        struct iovec v[2] = { { &spare, 8 }, { to, 8 } };
        bool bare = soak_bare_reads && rng_below(&w->rng, 2) == 0;
        MUST((bare ? readv(w->pipe[0], v, 2) : weft_readv(w->reader, v, 2)) == 16);
        spare = NULL;
        __asm__ volatile("" : : "r"(&spare) : "memory");
    } else
        read_pipe(w, to, 8);
    weft_keep_alive(p); /* what is in a pipe only, nobody holds; from here on the slot does */
}

void **node_slot(struct world *w, int32_t i, uint32_t slot) { return (void **)node_at(&w->node[i]) + slot_word(&w->node[i], slot); }

void node_store(struct world *w, int32_t i, uint32_t slot, struct edge e, void *p)
{
    struct node *n = &w->node[i];
    void **to = node_slot(w, i, slot);
    switch (rng_below(&w->rng, 12)) {
    case 0: by_the_kernel(w, to, p, false); break;
    case 1: by_the_kernel(w, to, p, true); break;
    case 2: memcpy(to, &p, sizeof p); break;
    case 3: (void)__atomic_exchange_n(to, p, __ATOMIC_SEQ_CST); break;
    case 4: /* with its neighbour, which stays */
        if (n->kind == CONS && slot % 2 == 0 && slot + 1 < n->slots) {
            void *both[2] = { p, to[1] };
            memcpy(to, both, sizeof both);
            break;
        } /* fall through */
    default: *(void *volatile *)to = p;
    }
    n->edge[slot] = e;
}

void nodes_rotate(struct world *w, int32_t i)
{
    struct node *n = &w->node[i];
    if (n->kind == NOSCAN || n->slots < 4)
        return;
    /* Only between slots that lie alike: those of one pair, or element, and those of another. */
    uint32_t unit = n->kind == TYPED || n->kind == ARRAY ? layouts[n->type].slots : 2;
    uint32_t units = n->slots / unit, count = 1 + rng_below(&w->rng, units < 64 ? units : 64), from = rng_below(&w->rng, units - count + 1);
    void **p = node_at(n);
    for (uint32_t s = 0; s < unit; s++) {
        uint32_t first = from * unit + s, last = (from + count - 1) * unit + s;
        struct edge e = n->edge[last];
        void *moved = p[slot_word(n, last)];
        for (uint32_t k = last; k != first; k -= unit) {
            memmove(&p[slot_word(n, k)], &p[slot_word(n, k - unit)], 8);
            n->edge[k] = n->edge[k - unit];
        }
        p[slot_word(n, first)] = moved;
        n->edge[first] = e;
    }
}

/* ---- when something is wrong ------------------------------------------------------------------------------------------------------------------ */

const char *soak_run = "";
bool soak_bare_reads = true;

uint64_t soak_cycles(void) { return gc_cycles_begun(); }

static void say_of(const char *what, const void *p)
{
    struct span *s = heap_span_of(p);
    if (s == NULL) {
        fprintf(stderr, "    %s %p lies in no span\n", what, p);
        return;
    }
    size_t i = ((uintptr_t)p - (uintptr_t)span_base(s)) / span_elem(s);
    bool in = i < s->nobj;
    fprintf(stderr, "    %s %p: object %zu of span %p (%zu bytes each, %s), %s, %s, last cycle begun %llu\n", what, p, i, (void *)span_base(s),
            span_elem(s), s->shape == SHAPE_NOSCAN ? "noscan" : s->shape == SHAPE_CONS ? "conservative" : "typed",
            !in ? "behind the last" : bits_get(span_allocs(s), i) ? "allocated" : "FREE",
            in && bits_get(span_marks(s), i) ? "marked" : "not marked", (unsigned long long)soak_cycles());
}

void soak_differs(struct world *w, int32_t i, const char *what, size_t word, uint64_t is, uint64_t want)
{
    static const char *const kinds[] = { "typed", "conservative", "noscan", "large", "array" };
    const struct node *n = &w->node[i];
    fflush(stdout);
    fprintf(stderr, "soak: %s: %s of an object is wrong: is 0x%llx, must be 0x%llx\n", soak_run, what, (unsigned long long)is,
            (unsigned long long)want);
    fprintf(stderr, "    word %zu of %u of object %d (id 0x%llx, %s, type %u, flags %u) of mutator %u, %s%s, operation %llu, check %u\n", word,
            n->words, i, (unsigned long long)n->id, kinds[n->kind], n->type, n->flags, w->number, w->what, w->child ? ", in a child" : "",
            (unsigned long long)w->ops, w->check);
    say_of("it is", node_at(n));
    if ((want >> 48) == 0 && want != 0)
        say_of("must point to", (void *)(uintptr_t)want);
    if ((is >> 48) == 0 && is != 0)
        say_of("points to", (void *)(uintptr_t)is);
    for (uint32_t k = 0, told = 0; k < w->cap && told < 8; k++)
        for (uint32_t s = 0; w->node[k].id != 0 && s < w->node[k].slots; s++)
            if (w->node[k].edge[s].to == i) {
                fprintf(stderr, "    slot %u of object %u (%s) leads to it\n", s, k, kinds[w->node[k].kind]);
                say_of("    that is", node_at(&w->node[k]));
                told++;
            }
    for (int r = 0; r < ROOTS; r++)
        if (w->root[r].e.to == i)
            fprintf(stderr, "    root %d leads to it (%s)\n", r, root_kind(&w->root[r]));
    _exit(1);
}

void soak_fails(const char *cond, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "soak: %s: %s:%d: not %s", soak_run, file, line, cond);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    _exit(1);
}
