/* See held.h.
 *
 * [HELD] The ctx of a finalizer is a root: if it leads to the finalizer's own object, that is never found dead. The same with an object that leads to
 * itself, as what a finalizer's object refers to lives until it has run, and with a circle of several. Nothing reports an error, and memory grows.
 * What is looked for here is proof, at next to no cost for programs in which it does not happen:
 *
 *  1. In some cycles, while somebody listens, finalizers' objects and ctx are marked in a second step. What has a finalizer and is not marked after
 *     the first is kept by finalizers only, or dead. That alone is no fault: B may be the ctx of A's finalizer, or be what A refers to.
 *  2. Is it found so in LOOKS looks in a row, over several cycles, it is looked at once: a walk from its ctx, or else from itself, along all that
 *     the collector would follow. If the walk comes back to the object, that is the proof: nothing the program could do reaches the object (it was not
 *     marked in the first step, in none of those cycles), and its finalizer waits for what cannot be. The walk goes also from an object with a
 *     finalizer to the ctx of that, which stays a root while the object stays.
 *  3. A walk ends after so many objects or words, without a verdict. Of finalizers that were set at one place one is proved; the others are counted.
 *
 * A finalizer that is yet to run might, of course, take a link of the circle away. But what is found dead in one cycle has been run long before
 * LOOKS looks are over; and what is not found dead will not run. */
#include "gc/held.h"
#include <string.h>
#include "base/probe.h"
#include "gc/mark.h"
#include "gc/special.h"
#include "gc/type.h"

#define LOOKS 2u            /* in a row */
#define LOOKED 255u         /* of special.looks: there is a verdict, or none to be had */
#define PROOFS_AT_ONCE 4u
#define WALK_OBJECTS 16384u /* less than a millisecond */
#define WALK_WORDS (1u << 19)
#define WALK_SLOTS (4 * WALK_OBJECTS)

struct node { uint32_t parent, field; struct span *s; uint32_t index; };

/* Mapped for as long as proofs are looked for. */
struct walk {
    struct node node[WALK_OBJECTS];
    uint32_t slot[WALK_SLOTS]; /* number of the node + 1, by address */
    uint32_t n, words;
    bool found;
    struct span *to_span;      /* what is looked for */
    uint32_t to_index, to_parent, to_field;
};

static struct {
    bool looked;
    uint32_t suspects;
    struct gc_held told[PROOFS_AT_ONCE];
    uint32_t n;
} held; /* by who is busy with a cycle, and in its stops */

/* Every second one at first, since a program may have few; then every eighth. */
bool held_due_stw(void)
{
    uint64_t n = gc_cycles_begun();
    held.looked = PROBE_WANTED(finalizer_held) && specials_any_stw() && n % (n <= 16 ? 2 : 8) == 0;
    return held.looked;
}

static void look(void *arg, struct span *s, struct special *e)
{
    (void)arg;
    if (mark_is_set(s, e->index))
        e->looks = 0;
    else if (e->looks != LOOKED)
        held.suspects += ++e->looks >= LOOKS;
}

void held_look_stw(void)
{
    held.suspects = 0;
    specials_each_finalizer_stw(look, NULL);
}

/* ---- the walk -------------------------------------------------------------------------------------------- */

/* False: there is no more room. */
static bool visit(struct walk *w, struct span *s, uint32_t index, uint32_t parent, uint32_t field)
{
    if (s == w->to_span && index == w->to_index) {
        w->found = true;
        w->to_parent = parent;
        w->to_field = field;
        return false;
    }
    if (s->shape == SHAPE_NOSCAN && s->specials == NULL)
        return true;
    uint64_t key = (uint64_t)(s - heap.spans) << 16 | index;
    uint32_t at = (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 40) % WALK_SLOTS;
    for (; w->slot[at] != 0; at = (at + 1) % WALK_SLOTS)
        if (w->node[w->slot[at] - 1].s == s && w->node[w->slot[at] - 1].index == index)
            return true;
    if (w->n == WALK_OBJECTS)
        return false;
    w->node[w->n++] = (struct node){ parent, field, s, index };
    w->slot[at] = w->n;
    return true;
}

/* All that lives is marked by now. */
static bool word(struct walk *w, uintptr_t p, uint32_t parent, uint32_t field)
{
    struct span *s = heap_span_of((void *)p);
    size_t i = s != NULL ? span_index(s, (void *)p) : 0;
    if (s == NULL || i >= s->nobj || !mark_is_set(s, i))
        return true;
    return visit(w, s, (uint32_t)i, parent, field);
}

static w_no_sanitize bool contents(struct walk *w, const struct span *s, uint32_t index, uint32_t self)
{
    const char *obj = span_object(s, index);
    size_t bytes = span_elem(s), elem = 8;
    uint32_t zero = 0, n = 1;
    const uint32_t *ptrs = &zero;
    if (s->shape == SHAPE_NOSCAN)
        return true;
    if (s->shape >= SHAPE_TYPED) {
        const struct shape *sh = shape_get(s->shape);
        elem = (size_t)sh->words * 8;
        ptrs = sh->ptrs;
        n = sh->nptrs;
    }
    for (size_t at = 0; at + elem <= bytes; at += elem)
        for (uint32_t k = 0; k < n; k++) {
            size_t field = at + 8 * (size_t)ptrs[k];
            if (w->words++ == WALK_WORDS || !word(w, *(const uintptr_t *)(obj + field), self, (uint32_t)field))
                return false;
        }
    return true;
}

/* Breadth first, so that the way is a short one. */
static void walk_on(struct walk *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        const struct node x = w->node[i];
        const struct special *e = special_finalizer_stw(x.s, x.index);
        if (!contents(w, x.s, x.index, i) || (e != NULL && !word(w, (uintptr_t)e->finalizer.ctx, i, HELD_CTX)))
            return;
    }
}

static bool walk_from(struct walk *w, struct span *s, const struct special *e, bool ctx)
{
    memset(w->slot, 0, sizeof w->slot);
    w->n = w->words = 0;
    w->found = false;
    w->to_span = s;
    w->to_index = e->index;
    if (ctx ? word(w, (uintptr_t)e->finalizer.ctx, UINT32_MAX, 0) : contents(w, s, e->index, UINT32_MAX))
        walk_on(w);
    return w->found;
}

/* ---- the verdict --------------------------------------------------------------------------------------------- */

static struct gc_held_step step_of(const struct span *s, uint32_t index, uint32_t field)
{
    return (struct gc_held_step){ span_object(s, index), span_elem(s), s->shape, field };
}

static void prove(const struct walk *w, struct span *s, const struct special *e, bool ctx)
{
    struct gc_held *h = &held.told[held.n++];
    *h = (struct gc_held){ .pc = e->finalizer.pc, .by_ctx = ctx };
    uint32_t n = ctx ? 1 : 2, field = w->to_field; /* 2: the object is the first, too */
    for (uint32_t i = w->to_parent; i != UINT32_MAX; i = w->node[i].parent)
        n++;
    h->steps = n;
    h->step[w_min(n, HELD_STEPS) - 1] = step_of(s, e->index, 0);
    for (uint32_t i = w->to_parent; i != UINT32_MAX; i = w->node[i].parent) {
        if (--n - 1 < HELD_STEPS - 1)
            h->step[n - 1] = step_of(w->node[i].s, w->node[i].index, field);
        field = w->node[i].field;
    }
    if (!ctx)
        h->step[0] = step_of(s, e->index, field);
}

static void suspect(void *arg, struct span *s, struct special *e)
{
    struct walk *w = arg;
    if (e->looks < LOOKS || e->looks == LOOKED)
        return;
    for (uint32_t i = 0; i < held.n; i++)
        if (held.told[i].pc == e->finalizer.pc) {
            held.told[i].others++;
            e->looks = LOOKED;
            return;
        }
    if (held.n == PROOFS_AT_ONCE)
        return; /* the next time */
    e->looks = LOOKED;
    bool by_ctx = walk_from(w, s, e, true);
    if (by_ctx || walk_from(w, s, e, false))
        prove(w, s, e, by_ctx);
}

void held_prove_stw(void)
{
    held.n = 0;
    if (!held.looked || held.suspects == 0)
        return;
    size_t bytes = w_align_up(sizeof(struct walk), HEAP_PAGE);
    struct walk *w = off_map(OFF_GC, bytes, HEAP_PAGE);
    if (w == NULL)
        return;
    specials_each_finalizer_stw(suspect, w);
    off_unmap(OFF_GC, w, bytes);
}

void held_tell(void)
{
    for (uint32_t i = 0; i < held.n; i++)
        PROBE(finalizer_held, &held.told[i], 0, 0);
    held.n = 0;
}
