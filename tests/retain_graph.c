/* Trails, ways and dominators of random heaps, against a model that knows what was made, and reckons by taking away. */
#include "gc/graph.h"
#include "base/rng.h"
#include "sched/mutator.h"
#include "sched/sched.h"
#include "retain_test.h"

enum { NODES = 48, ROOTS = 4, SLOTS = 6 };
struct cons { void *slot[SLOTS]; };
struct typed { uint64_t noise[2]; void *slot[SLOTS]; uint64_t more; };

static void *roots[ROOTS];                /* data of the program */
static uintptr_t *hidden;                 /* complements, in malloc's memory */
static bool edge[NODES][NODES], is_typed[NODES];

static void **slots_of(int i) { void *p = (void *)~hidden[i]; return is_typed[i] ? ((struct typed *)p)->slot : ((struct cons *)p)->slot; }
static unsigned draw(struct rng *r, unsigned n) { return (unsigned)rng_below(r, n); }

/* Objects of several sizes and kinds, references between them, some of which lead into the middle. */
static __attribute__((noinline)) void make(struct rng *r, unsigned density)
{
    memset(edge, 0, sizeof edge);
    memset(roots, 0, sizeof roots);
    for (int i = 0; i < NODES; i++) {
        is_typed[i] = draw(r, 2);
        void *p = is_typed[i] ? weft_alloc_typed(WEFT_TYPE(struct typed, slot[0], slot[1], slot[2], slot[3], slot[4], slot[5]))
                              : weft_alloc(sizeof(struct cons) + 16 * draw(r, 300));
        hidden[i] = ~(uintptr_t)p;
    }
    for (int i = 0; i < NODES; i++) {
        void *last = (void *)~hidden[draw(r, NODES)];
        if (is_typed[i]) /* what lies beside the pointers is none */
            ((struct typed *)~hidden[i])->more = (uintptr_t)last;
        for (int k = 0; k < SLOTS; k++)
            if (draw(r, 100) < density) {
                int to = (int)draw(r, NODES);
                edge[i][to] = true;
                slots_of(i)[k] = (char *)~hidden[to] + (draw(r, 2) ? draw(r, 48) : 0);
            }
    }
    for (int k = 0; k < ROOTS; k++)
        if (draw(r, 3) > 0)
            roots[k] = (void *)~hidden[draw(r, NODES)];
}

/* Numbers in the trail; TRAIL_NONE: it is gone. */
static uint32_t number[NODES];
static int model_of(uint32_t node)
{
    for (int i = 0; i < NODES; i++)
        if (number[i] == node)
            return i;
    return -1;
}

/* What is reached from the trail's roots of the ranks up to `rank`, with object `without` not there. Distances from roots of that rank in dist. */
static void reach(const struct trail *t, int rank, uint32_t without, bool *seen)
{
    uint32_t stack[4096], n = 0;
    memset(seen, 0, t->n * sizeof *seen);
    for (uint32_t i = 0; i < t->nroots; i++) {
        uint32_t r = t->root[i].node;
        int of = t->root[i].caller ? GC_ROOT_KINDS : t->root[i].kind;
        if (of <= rank && r != without && !seen[r]) {
            seen[r] = true;
            stack[n++] = r;
        }
    }
    while (n > 0) {
        uint32_t x = stack[--n];
        for (uint32_t e = t->off[x]; e < t->off[x + 1]; e++)
            if (t->to[e] != without && !seen[t->to[e]]) {
                seen[t->to[e]] = true;
                stack[n++] = t->to[e];
            }
    }
}

static uint64_t bytes_of(const struct trail *t, const bool *seen)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->n; i++)
        sum += seen[i] ? trail_bytes(trail_span(t, i)) : 0;
    return sum;
}

static void check_objects(const struct trail *t)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        char *p = trail_address(t, i);
        cr_assert_eq(trail_find(t, p), i);
        cr_assert_eq(trail_find(t, p + trail_bytes(trail_span(t, i)) - 1), i);
        sum += trail_bytes(trail_span(t, i));
    }
    cr_assert_eq(sum, t->bytes);
}

static void check_edges(const struct trail *t)
{
    for (int i = 0; i < NODES; i++) {
        bool has[NODES] = { 0 };
        if (number[i] == TRAIL_NONE)
            continue;
        for (uint32_t e = t->off[number[i]]; e < t->off[number[i] + 1]; e++) {
            int to = model_of(t->to[e]);
            if (to < 0)
                continue; /* a stale word, perhaps */
            has[to] = true;
            uintptr_t word = ((uintptr_t *)~hidden[i])[t->at[e]], obj = (uintptr_t)trail_address(t, t->to[e]);
            cr_assert(word >= obj && word - obj < trail_bytes(trail_span(t, t->to[e])), "word %u of object %d does not lead to %d", t->at[e], i, to);
        }
        for (int k = 0; k < NODES; k++)
            cr_assert_eq(has[k], edge[i][k], "%d -> %d", i, k);
    }
}

static void check_ways(const struct trail *t)
{
    bool seen[4096], before[4096];
    uint64_t reached[GC_ROOT_KINDS + 1];
    uint32_t *parent = graph_ways(t, TRAIL_NONE, reached);
    cr_assert_not_null(parent);
    for (int rank = 0; rank <= GC_ROOT_KINDS; rank++) {
        memset(before, 0, sizeof before);
        if (rank > 0)
            reach(t, rank - 1, TRAIL_NONE, before);
        reach(t, rank, TRAIL_NONE, seen);
        cr_assert_eq(reached[rank], bytes_of(t, seen) - bytes_of(t, before), "kind %d", rank);
        /* breadth first, by hand: distances from the roots of this rank, through what no rank before it reaches */
        uint32_t dist[4096];
        for (uint32_t i = 0; i < t->n; i++)
            dist[i] = UINT32_MAX;
        for (uint32_t i = 0; i < t->nroots; i++)
            if ((t->root[i].caller ? GC_ROOT_KINDS : t->root[i].kind) == rank)
                dist[t->root[i].node] = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (uint32_t i = 0; i < t->n; i++)
                for (uint32_t e = t->off[i]; dist[i] != UINT32_MAX && e < t->off[i + 1]; e++)
                    if (dist[t->to[e]] > dist[i] + 1) {
                        dist[t->to[e]] = dist[i] + 1;
                        moved = true;
                    }
        }
        for (uint32_t i = 0; i < t->n; i++) {
            if (!seen[i] || before[i])
                continue;
            uint32_t steps = 0, x = i;
            for (; (parent[x] & GRAPH_ROOT) == 0; x = parent[x], steps++)
                cr_assert_lt(steps, t->n);
            const struct trail_root *r = &t->root[parent[x] & ~GRAPH_ROOT];
            cr_assert_eq(r->caller ? GC_ROOT_KINDS : r->kind, rank, "the way begins with the first kind that leads there");
            cr_assert_eq(r->node, x);
            cr_assert_eq(steps, dist[i], "a way of %u steps where %u would do", steps, dist[i]);
        }
    }
    off_free(OFF_PROF, parent);
}

static void check_dominators(const struct trail *t)
{
    bool all[4096], seen[4096];
    uint32_t *dom = off_alloc(OFF_PROF, (t->n + 1) * sizeof *dom);
    struct graph_kept *kept = off_alloc(OFF_PROF, (t->n + 1) * sizeof *kept);
    cr_assert_eq(graph_dominators(t, dom, kept), 0);
    reach(t, GC_ROOT_KINDS, TRAIL_NONE, all);
    cr_assert_eq(kept[t->n].bytes, bytes_of(t, all));
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t lost = 0, deepest = 0;
        cr_assert_eq(dom[i] != TRAIL_NONE, all[i]);
        if (!all[i])
            continue;
        reach(t, GC_ROOT_KINDS, i, seen);
        uint64_t bytes = 0;
        for (uint32_t k = 0; k < t->n; k++)
            if (all[k] && !seen[k]) {
                bytes += trail_bytes(trail_span(t, k));
                lost++;
            }
        cr_assert_eq(kept[i].bytes, bytes, "object %u keeps %lu bytes, not %lu", i, (unsigned long)bytes, (unsigned long)kept[i].bytes);
        cr_assert_eq(kept[i].objects, lost);
        /* its dominator is lost without nobody's help but those that dominate it in turn */
        for (uint32_t k = dom[i]; k != t->n; k = dom[k], deepest++) {
            cr_assert_lt(deepest, t->n);
            reach(t, GC_ROOT_KINDS, k, seen);
            cr_assert(!seen[i], "%u is reached without %u, said to dominate it", i, k);
        }
    }
    off_free(OFF_PROF, dom);
    off_free(OFF_PROF, kept);
}

static void random_heaps(void *seed)
{
    struct rng r;
    rng_seed(&r, *(uint64_t *)seed);
    hidden = calloc(NODES, sizeof *hidden);
    for (int round = 0; round < (test_is_slow() ? 30 : 150); round++) {
        unsigned density = 5 + draw(&r, 45);
        make(&r, density);
        test_wipe_stack();
        struct trail_taken *k;
        struct trail t;
        rt_enter();
        cr_assert_eq(mutator_trail(true, &k), 0);
        cr_assert_eq(trail_finish(k, &t), 0);
        trail_drop(k);
        for (int i = 0; i < NODES; i++) {
            number[i] = trail_find(&t, (void *)~hidden[i]);
            for (int j = 0; j < ROOTS; j++)
                cr_assert(roots[j] != (void *)~hidden[i] || number[i] != TRAIL_NONE, "object %d, which a root leads to, is not there", i);
        }
        cr_assert_lt(t.n, 4096);
        check_objects(&t);
        check_edges(&t);
        check_ways(&t);
        check_dominators(&t);
        trail_free(&t);
        rt_leave(m_self());
    }
    free(hidden);
}

static void random_at(int procs)
{
    uint64_t seed = test_seed();
    test_run_procs(procs, random_heaps, &seed);
}

Test(retain_graph, random_heaps_against_a_model, .timeout = 60) { random_at(1); }
Test(retain_graph, and_with_several_processors, .timeout = 60) { random_at(4); }

/* ---- large ones ------------------------------------------------------------------------------------------------ */

struct link { struct link *next, *back; uint64_t value; };
static struct link *head;
static void **wide;

/* A list of so many that walks by recursion would not end well, linked both ways. */
static void long_list(void *arg)
{
    enum { N = 200000 };
    (void)arg;
    for (int i = 0; i < N; i++) {
        struct link *l = weft_alloc_typed(WEFT_TYPE(struct link, next, back));
        l->next = head;
        if (head != NULL)
            head->back = l;
        head = l;
    }
    struct sink s = { 0 };
    cr_assert_eq(weft_heap_dump(sink_write, &s), 0);
    js_parse(s.text);
    cr_assert_eq(json_number(s.text, "\"struct link\"", "objects"), N);
    cr_assert_eq(json_number(s.text, "\"retained\"", "retained_objects"), N, "the first element keeps all: %s", s.text);
    cr_assert_eq(json_number(s.text, "\"retained\"", "unreached"), 0);
    sink_free(&s);
    struct link *last = head;
    for (int i = 0; i < N - 1; i++)
        last = last->next;
    cr_assert_eq(weft_why_alive(last, sink_write, &s, WEFT_FORM_JSON), 0);
    js_parse(s.text);
    sink_free(&s);
}
Test(retain_graph, a_list_of_two_hundred_thousand, .timeout = 60) { test_run(long_list, NULL); }

/* One large object with references all over, cut by pieces of memory. */
static void one_large_object(void *arg)
{
    enum { N = 300000 };
    (void)arg;
    wide = weft_alloc(N * sizeof *wide);
    for (int i = 0; i < N; i++)
        wide[i] = weft_alloc_noscan(16);
    struct sink s = { 0 };
    cr_assert_eq(weft_heap_dump(sink_write, &s), 0);
    cr_assert_geq(json_number(s.text, "\"heap\"", "references"), N);
    cr_assert_leq(json_number(s.text, "\"heap\"", "references"), N + 100);
    cr_assert_geq(json_number(s.text, "\"retained\"", "retained_objects"), N + 1 - 20); /* some are on the stack, too */
    sink_free(&s);
    for (int i = 0; i < N; i += 29989) {
        char field[40];
        snprintf(field, sizeof field, ", field at %d\n", i * 8);
        cr_assert_eq(weft_why_alive(wide[i], sink_write, &s, WEFT_FORM_TEXT), 0);
        cr_assert(strstr(s.text, field) != NULL && strstr(s.text, "is kept by wide in ") != NULL, "%s", s.text);
        sink_free(&s);
    }
}
Test(retain_graph, one_large_object, .timeout = 60) { test_run_procs(2, one_large_object, NULL); }
