/* The check of all of a graph, and what is watched of what has been dropped. */
#include "soak.h"
#include <errno.h>

struct told { void *p; uint64_t id; }; /* p NULL: a cleanup ran; else the object that a finalizer was given */
#define TOLD 64
static weft_chan *told[WORLDS];
static int nobody_asks[WORLDS]; /* any more */

#define INDEX(id) ((id) & 0xffffff)
#define WORLD(id) ((id) >> 56 & 127)

void checks_init(struct world *w)
{
    MUST((told[w->number] = weft_chan_make(sizeof(struct told), TOLD)) != NULL);
    MUST((w->weak = calloc(WATCHED, sizeof *w->weak)) != NULL);
    MUST(weft_root_add(w->weak, WATCHED * sizeof *w->weak) == 0);
    for (int i = 0; i < WATCHED; i++)
        w->watched[i] = -1;
}

/* ---- what is told -------------------------------------------------------------------------------------------------------------- */

/* The mutator takes it in at its next check. */
static void tell(struct told t)
{
    MUST(WORLD(t.id) < WORLDS, "id 0x%llx", (unsigned long long)t.id);
    while (weft_chan_try_send(told[WORLD(t.id)], &t) == -EAGAIN && !GET(nobody_asks[WORLD(t.id)]))
        weft_sleep(WEFT_MILLISECOND);
}

/* ctx: an object that only the finalizer leads to. */
static void finalize(void *obj, void *ctx)
{
    uint64_t id = *(uint64_t *)obj, *named = ctx;
    MUST(named[0] == id && named[1] == ~id, "a finalizer's ctx: 0x%llx 0x%llx, object 0x%llx", (unsigned long long)named[0],
        (unsigned long long)named[1], (unsigned long long)id);
    tell((struct told){ obj, id });
}

static void clean(void *arg)
{
    uint64_t *named = arg;
    MUST(named[0] == ~named[1] && named[0] != 0, "a cleanup's arg: 0x%llx 0x%llx", (unsigned long long)named[0], (unsigned long long)named[1]);
    tell((struct told){ NULL, named[0] });
}

static uint64_t *name(const struct node *n)
{
    uint64_t *named = weft_alloc_noscan(16);
    MUST(named != NULL);
    named[0] = n->id;
    named[1] = ~n->id;
    return named;
}

void node_finalize(struct world *w, int32_t i)
{
    struct node *n = &w->node[i];
    if (w->nfinalizers >= WATCHED || (n->flags & (FINALIZER | FINALIZED)))
        return;
    MUST(weft_set_finalizer(node_at(n), finalize, name(n)) == 0);
    n->flags |= FINALIZER;
    w->nfinalizers++;
}

/* Not beside a finalizer, after which the object may come back. */
void node_clean(struct world *w, int32_t i)
{
    struct node *n = &w->node[i];
    if (n->flags & (FINALIZER | FINALIZED | CLEANUP))
        return;
    MUST(weft_add_cleanup(node_at(n), clean, name(n), NULL) == 0);
    n->flags |= CLEANUP;
}

void node_watch(struct world *w, int32_t i)
{
    struct node *n = &w->node[i];
    uint32_t k = 0;
    if (n->weak >= 0 || (n->flags & FINALIZED) || w->nwatched == WATCHED)
        return;
    while (w->watched[k] >= 0)
        k++;
    MUST((w->weak[k] = weft_weak_make(node_at(n))) != NULL);
    MUST(weft_weak_get(w->weak[k]) == node_at(n));
    w->watched[k] = i;
    w->nwatched++;
    n->weak = (int16_t)k;
}

static void unwatch(struct world *w, uint32_t k)
{
    w->node[w->watched[k]].weak = -1;
    w->watched[k] = -1;
    w->weak[k] = NULL;
    w->nwatched--;
}

/* ---- the check ------------------------------------------------------------------------------------------------------------------- */

static void come_to(struct world *w, int32_t i, uint8_t live, uint32_t *n)
{
    struct node *at = &w->node[i];
    if (at->seen == w->check && (at->flags & live) == live)
        return;
    at->seen = w->check;
    at->flags |= live;
    w->todo[(*n)++] = i;
}

/* All that i leads to is whole. live: LIVE, if it is reachable from now on; else 0. */
static void search(struct world *w, int32_t i, uint8_t live)
{
    uint32_t n = 0;
    come_to(w, i, live, &n);
    while (n != 0) {
        i = w->todo[--n];
        struct node *at = &w->node[i];
        if (at->checked != w->check) {
            at->checked = w->check;
            node_compare(w, i);
        }
        for (uint32_t k = 0; k < at->slots; k++)
            if (at->edge[k].to >= 0)
                come_to(w, at->edge[k].to, live, &n);
    }
}

/* i, dropped, becomes reachable again, if there is an empty root. */
static void revive(struct world *w, int32_t i)
{
    for (int tries = 0; tries < 4; tries++) {
        struct root *r = &w->root[rng_below(&w->rng, ROOTS)];
        if (r->e.to < 0 && root_can(w, r)) {
            root_put(w, r, (struct edge){ i, 0 }, node_at(&w->node[i]));
            search(w, i, LIVE);
            w->revived++;
            return;
        }
    }
}

static void hear(struct world *w, struct told t)
{
    int32_t i = (int32_t)INDEX(t.id);
    struct node *n = &w->node[i];
    MUST((uint32_t)i < w->cap, "id 0x%llx", (unsigned long long)t.id);
    if (n->id != t.id) { /* forgotten, since its cleanup did not matter any more */
        MUST(t.p == NULL, "a finalizer was given object 0x%llx", (unsigned long long)t.id);
        w->cleaned++;
        return;
    }
    if (n->flags & LIVE)
        soak_differs(w, i, t.p == NULL ? "a cleanup ran, reachability" : "a finalizer ran, reachability", 0, 0, 1);
    if (t.p == NULL) {
        n->flags |= CLEANED;
        w->cleaned++;
        return;
    }
    if (t.p != node_at(n) || (n->flags & FINALIZED))
        soak_differs(w, i, "what a finalizer was given", 0, (uint64_t)t.p, (uint64_t)node_at(n));
    n->flags = (uint8_t)((n->flags & ~FINALIZER) | FINALIZED);
    w->nfinalizers--;
    w->finalized++;
    search(w, i, 0);
    if (rng_below(&w->rng, 2) == 0)
        revive(w, i);
}

static void look_at_watched(struct world *w, uint32_t k)
{
    int32_t i = w->watched[k];
    struct node *n = &w->node[i];
    void *p = weft_weak_get(w->weak[k]);
    bool live = (n->flags & LIVE) != 0;
    if (p != NULL && (p != node_at(n) || (n->flags & (FINALIZED | CLEANED))))
        soak_differs(w, i, "a weak pointer", 0, (uint64_t)p, n->flags & (FINALIZED | CLEANED) ? 0 : (uint64_t)node_at(n));
    if (p == NULL) {
        if (live && !(n->flags & FINALIZED))
            soak_differs(w, i, "a weak pointer", 0, 0, (uint64_t)node_at(n));
        unwatch(w, k);
        w->dead += !live;
    } else if (!live) {
        search(w, i, 0);
        if (rng_below(&w->rng, 8) == 0)
            revive(w, i);
    }
    weft_keep_alive(p);
}

void graph_check(struct world *w)
{
    struct told heard[TOLD];
    int n = 0;
    w->check++;
    for (uint32_t i = 0; i < w->cap; i++)
        w->node[i].flags &= (uint8_t)~LIVE;
    for (int r = 0; r < ROOTS; r++)
        if (w->root[r].e.to >= 0)
            search(w, w->root[r].e.to, LIVE);
    while (n < TOLD && weft_chan_try_recv(told[w->number], &heard[n]) == 1)
        n++;
    for (int i = 0; i < n; i++)
        hear(w, heard[i]);
    weft_keep_alive(heard);
    memset(heard, 0, sizeof heard);
    weft_keep_alive(heard);
    for (uint32_t k = 0; k < WATCHED; k++)
        if (w->watched[k] >= 0)
            look_at_watched(w, k);
    for (uint32_t i = 0; i < w->cap; i++) { /* what has a finalizer is whole until that has been told */
        struct node *at = &w->node[i];
        if (at->id != 0 && at->seen != w->check && (at->flags & FINALIZER))
            search(w, (int32_t)i, 0);
    }
    for (uint32_t i = 0; i < w->cap; i++)
        if (w->node[i].id != 0 && w->node[i].seen != w->check)
            node_forget(w, (int32_t)i);
}

/* ---- the end ----------------------------------------------------------------------------------------------------------------------- */

__attribute__((noinline)) void wipe_stack(void)
{
    volatile char below[8192];
    memset((char *)below, 0, sizeof below);
}

/* Each object is taken apart first, so that a stale word on some stack keeps one, and not what that leads to. The last that a search comes to is the
 * first: what leads to it is still there when it is written to. */
void graph_end(struct world *w)
{
    int32_t *order = malloc(w->cap * sizeof *order);
    uint32_t n = 0;
    MUST(order != NULL);
    graph_check(w);
    w->check++;
    for (int r = 0; r < ROOTS; r++)
        if (w->root[r].e.to >= 0 && w->node[w->root[r].e.to].seen != w->check) {
            w->node[w->root[r].e.to].seen = w->check;
            order[n++] = w->root[r].e.to;
        }
    for (uint32_t at = 0; at < n; at++)
        for (uint32_t k = 0; k < w->node[order[at]].slots; k++) {
            int32_t to = w->node[order[at]].edge[k].to;
            if (to >= 0 && w->node[to].seen != w->check) {
                w->node[to].seen = w->check;
                order[n++] = to;
            }
        }
    while (n-- > 0)
        for (uint32_t k = 0; k < w->node[order[n]].slots; k++)
            if (w->node[order[n]].edge[k].to >= 0)
                node_store(w, order[n], k, (struct edge){ -1, 0 }, NULL);
    free(order);
    for (int r = 0; r < ROOTS; r++)
        root_take(w, &w->root[r]);
    SET(nobody_asks[w->number], 1);
}

void graphs_count(struct world *worlds, uint32_t *watched, uint32_t *left)
{
    *watched = *left = 0;
    for (int i = 0; i < 3; i++) { /* finalizers get what they wait for, and what that leads to */
        uint64_t begun = soak_cycles();
        for (int n = 0; n < WORLDS; n++)
            while (weft_chan_try_recv(told[n], NULL) == 1)
                ;
        wipe_stack();
        weft_reclaim();
        weft_gc();
        MUST(soak_cycles() > begun, "weft_gc returned without a collection");
    }
    for (struct world *w = worlds; w < worlds + WORLDS; w++) {
        for (uint32_t k = 0; k < WATCHED; k++)
            if (w->watched[k] >= 0 && (w->node[w->watched[k]].flags & LIVE)) {
                ++*watched;
                *left += weft_weak_get(w->weak[k]) != NULL;
            }
        MUST(weft_root_remove(w->weak) == 0);
    }
}
