/* See graph.h.
 *
 * Dominators: Lengauer and Tarjan, "A fast algorithm for finding dominators in a flowgraph" (1979), the simple variant, O(m log n), without
 * recursion. All is by the number that a depth-first walk gives, 0 being the root of roots, so that "before" is "less". Per node: the semidominator
 * is reckoned from its predecessors by the least one on the way up the forest that was linked so far (eval, which shortens the way as it goes);
 * buckets hold the nodes whose semidominator a node is, until what they were linked under is known. What is kept is summed from the last to the
 * first, as a dominator has the lower number. */
#include "gc/graph.h"
#include <errno.h>

/* ---- ways ------------------------------------------------------------------------------------------------- */

struct walk {
    const struct trail *t;
    uint32_t target;
    uint32_t *parent, *queue, head, tail;
};

static void reach(struct walk *w, uint32_t node, uint32_t from)
{
    if (w->parent[node] != TRAIL_NONE)
        return;
    w->parent[node] = from;
    w->queue[w->tail++] = node;
}

static unsigned rank_of(const struct trail_root *r) { return r->caller ? GC_ROOT_KINDS : r->kind; }

/* Of those of the rank, till all is reached that can be, or the target. */
static uint64_t walk_from(struct walk *w, unsigned rank)
{
    const struct trail *t = w->t;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < t->nroots; i++)
        if (rank_of(&t->root[i]) == rank && (rank != GC_ROOT_FINALIZABLE || t->root[i].node != w->target))
            reach(w, t->root[i].node, GRAPH_ROOT | i);
    while (w->head < w->tail && (w->target == TRAIL_NONE || w->parent[w->target] == TRAIL_NONE)) {
        uint32_t node = w->queue[w->head++];
        bytes += trail_bytes(trail_span(t, node));
        for (uint32_t e = t->off[node]; e < t->off[node + 1]; e++)
            reach(w, t->to[e], node);
    }
    return bytes;
}

uint32_t *graph_ways(const struct trail *t, uint32_t target, uint64_t *reached)
{
    struct walk w = { .t = t, .target = target, .parent = trail_array(t->n, sizeof *w.parent), .queue = trail_array(t->n, sizeof *w.queue) };
    if (w.parent == NULL || w.queue == NULL) {
        off_free(OFF_PROF, w.parent);
        off_free(OFF_PROF, w.queue);
        return NULL;
    }
    for (uint32_t i = 0; i < t->n; i++)
        w.parent[i] = TRAIL_NONE;
    for (unsigned rank = 0; rank <= GC_ROOT_KINDS; rank++) {
        uint64_t bytes = walk_from(&w, rank);
        if (reached != NULL)
            reached[rank] = bytes;
    }
    off_free(OFF_PROF, w.queue);
    return w.parent;
}

/* ---- dominators ------------------------------------------------------------------------------------------- */

struct lt {
    const struct trail *t;
    uint32_t m;        /* nodes reached; numbers 0..m */
    uint32_t late;     /* those from here on are reached by nothing but objects with a finalizer */
    uint32_t *number;  /* by object */
    uint32_t *object, *parent, *semi, *label, *above, *dom, *bucket, *next, *stack;
    uint32_t *off, *pred;
};

static bool lt_arrays(struct lt *l)
{
    uint32_t **all[] = { &l->object, &l->parent, &l->semi, &l->label, &l->above, &l->dom, &l->bucket, &l->next, &l->stack };
    bool ok = (l->number = trail_array(l->t->n, sizeof *l->number)) != NULL && (l->off = off_zalloc(OFF_PROF, ((size_t)l->t->n + 3) * 4)) != NULL;
    for (size_t i = 0; i < w_countof(all); i++)
        ok = (*all[i] = trail_array(l->t->n, sizeof(uint32_t))) != NULL && ok;
    return ok;
}

static void lt_free(struct lt *l)
{
    uint32_t *all[] = { l->number, l->object, l->parent, l->semi, l->label, l->above, l->dom, l->bucket, l->next, l->stack, l->off, l->pred };
    for (size_t i = 0; i < w_countof(all); i++)
        off_free(OFF_PROF, all[i]);
}

static uint32_t lt_enter(struct lt *l, uint32_t object, uint32_t parent)
{
    uint32_t v = ++l->m;
    l->number[object] = v;
    l->object[v] = object;
    l->parent[v] = parent;
    l->stack[v] = l->t->off[object]; /* the next reference to follow */
    return v;
}

static void depth_first_from(struct lt *l, uint32_t object)
{
    const struct trail *t = l->t;
    if (l->number[object] != TRAIL_NONE)
        return;
    for (uint32_t v = lt_enter(l, object, 0); v != 0;) {
        if (l->stack[v] == t->off[l->object[v] + 1]) {
            v = l->parent[v];
            continue;
        }
        uint32_t to = t->to[l->stack[v]++];
        if (l->number[to] == TRAIL_NONE)
            v = lt_enter(l, to, v);
    }
}

/* That an object has a finalizer does not keep it from going with what leads to it, only later. So it counts as a root if nothing else leads
 * there. */
static void depth_first(struct lt *l)
{
    const struct trail *t = l->t;
    for (uint32_t i = 0; i < t->n; i++)
        l->number[i] = TRAIL_NONE;
    for (uint32_t r = 0; r < t->nroots; r++)
        if (t->root[r].kind != GC_ROOT_FINALIZABLE)
            depth_first_from(l, t->root[r].node);
    l->late = l->m + 1;
    for (uint32_t r = 0; r < t->nroots; r++)
        if (t->root[r].kind == GC_ROOT_FINALIZABLE)
            depth_first_from(l, t->root[r].node);
}

static bool is_root(const struct lt *l, const struct trail_root *r) { return r->kind != GC_ROOT_FINALIZABLE || l->number[r->node] >= l->late; }

/* Predecessors of v: pred[off[v]] ... pred[off[v + 1] - 1]. */
static bool predecessors(struct lt *l)
{
    const struct trail *t = l->t;
    uint32_t *off = l->off + 1; /* one further: filling moves each to where the next begins */
    for (uint32_t r = 0; r < t->nroots; r++)
        if (is_root(l, &t->root[r]))
            off[l->number[t->root[r].node] + 1]++;
    for (uint32_t v = 1; v <= l->m; v++)
        for (uint32_t e = t->off[l->object[v]]; e < t->off[l->object[v] + 1]; e++)
            off[l->number[t->to[e]] + 1]++;
    uint64_t all = 0;
    for (uint32_t v = 0; v <= l->m + 1; v++) {
        all += off[v];
        off[v] = (uint32_t)all;
    }
    if (all >= UINT32_MAX || (l->pred = trail_array(all, sizeof *l->pred)) == NULL)
        return false;
    for (uint32_t r = 0; r < t->nroots; r++)
        if (is_root(l, &t->root[r]))
            l->pred[off[l->number[t->root[r].node]]++] = 0;
    for (uint32_t v = 1; v <= l->m; v++)
        for (uint32_t e = t->off[l->object[v]]; e < t->off[l->object[v] + 1]; e++)
            l->pred[off[l->number[t->to[e]]]++] = v;
    return true;
}

/* The node of the least semidominator on the way from v up to its root in the forest, that root left out. */
static uint32_t eval(struct lt *l, uint32_t v)
{
    if (l->above[v] == TRAIL_NONE)
        return v;
    uint32_t n = 0;
    for (uint32_t x = v; l->above[l->above[x]] != TRAIL_NONE; x = l->above[x])
        l->stack[n++] = x;
    while (n > 0) { /* from the top down */
        uint32_t x = l->stack[--n], a = l->above[x];
        if (l->semi[l->label[a]] < l->semi[l->label[x]])
            l->label[x] = l->label[a];
        l->above[x] = l->above[a];
    }
    return l->label[v];
}

static void lt_run(struct lt *l)
{
    for (uint32_t v = 0; v <= l->m; v++) {
        l->semi[v] = l->label[v] = v;
        l->above[v] = l->bucket[v] = TRAIL_NONE;
    }
    for (uint32_t w = l->m; w > 0; w--) {
        for (uint32_t e = l->off[w]; e < l->off[w + 1]; e++)
            l->semi[w] = w_min(l->semi[w], l->semi[eval(l, l->pred[e])]);
        l->next[w] = l->bucket[l->semi[w]];
        l->bucket[l->semi[w]] = w;
        l->above[w] = l->parent[w];
        uint32_t p = l->parent[w];
        for (uint32_t v = l->bucket[p]; v != TRAIL_NONE; v = l->next[v]) {
            uint32_t u = eval(l, v);
            l->dom[v] = l->semi[u] < l->semi[v] ? u : p;
        }
        l->bucket[p] = TRAIL_NONE;
    }
    l->dom[0] = 0;
    for (uint32_t w = 1; w <= l->m; w++)
        if (l->dom[w] != l->semi[w])
            l->dom[w] = l->dom[l->dom[w]];
}

static void result(const struct lt *l, uint32_t *dom, struct graph_kept *kept)
{
    const struct trail *t = l->t;
    for (uint32_t i = 0; i <= t->n; i++) {
        dom[i] = TRAIL_NONE;
        kept[i] = (struct graph_kept){ 0 };
    }
    for (uint32_t w = l->m; w > 0; w--) {
        uint32_t object = l->object[w], by = l->dom[w] == 0 ? t->n : l->object[l->dom[w]];
        kept[object].bytes += trail_bytes(trail_span(t, object));
        kept[object].objects++;
        dom[object] = by;
        kept[by].bytes += kept[object].bytes;
        kept[by].objects += kept[object].objects;
    }
}

int graph_dominators(const struct trail *t, uint32_t *dom, struct graph_kept *kept)
{
    struct lt l = { .t = t };
    if (t->n > GRAPH_MOST)
        return -E2BIG;
    bool ok = lt_arrays(&l);
    if (ok) {
        depth_first(&l);
        ok = predecessors(&l);
    }
    if (ok) {
        lt_run(&l);
        result(&l, dom, kept);
    }
    lt_free(&l);
    return ok ? 0 : -ENOMEM;
}
