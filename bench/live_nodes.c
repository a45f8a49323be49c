/* live_nodes [nodes] [collections] [typed] - how long does a full collection take over a large heap in random order?
 *
 * 2^23 nodes of 64 bytes with three pointers each: a binary tree over a random permutation of them, plus one
 * pointer to any other, so that each step of the mark lands on another page. Built while collection is off;
 * then one collection to warm up, then five are timed. typed: the collector knows where the pointers are; otherwise it looks at each word.
 * Counted: p50_ns is a whole weft_gc; ns_per_op the same over nodes. Two processors.
 * Peers: Go: runtime.GC; Boehm: GC_gcollect with two markers. The same graph, from the same random numbers. */
#include "bench_weft.h"

typedef struct node {
    struct node *left, *right, *other;
    uint64_t payload[5];
} node;

static long nodes, collections;
static int typed;
static const weft_type *type; /* NULL: conservative */
static node *root;

static void build(void)
{
    uint64_t seed = 88172645463325252u;
    size_t n = (size_t)nodes;
    node **at = malloc(n * sizeof *at);          /* in order of allocation */
    uint32_t *place = malloc(n * sizeof *place); /* place in the tree -> index in at */
    uint32_t *index = malloc(n * sizeof *index); /* the inverse */
    if (!at || !place || !index)
        abort();
    for (size_t i = 0; i < n; i++) {
        at[i] = type != NULL ? weft_alloc_typed(type) : weft_alloc(sizeof(node));
        if (!at[i])
            abort();
        place[i] = (uint32_t)i;
    }
    for (size_t i = n - 1; i > 0; i--) {
        size_t j = bench_random(&seed) % (i + 1);
        uint32_t t = place[i];
        place[i] = place[j];
        place[j] = t;
    }
    for (size_t i = 0; i < n; i++)
        index[place[i]] = (uint32_t)i;
    for (size_t i = 0; i < n; i++) {
        size_t k = index[i];
        at[i]->left = 2 * k + 1 < n ? at[place[2 * k + 1]] : NULL;
        at[i]->right = 2 * k + 2 < n ? at[place[2 * k + 2]] : NULL;
        at[i]->other = at[bench_random(&seed) % n];
        at[i]->payload[0] = i;
    }
    root = at[place[0]];
    free(at);
    free(place);
    free(index);
}

static void run(void *arg)
{
    (void)arg;
    weft_set_gc_percent(WEFT_GC_OFF);
    if (typed)
        type = WEFT_TYPE(node, left, right, other);
    build();
    weft_gc();
    int64_t ns[100];
    bench_span t = bench_begin();
    for (long i = 0; i < collections; i++) {
        bench_span one = bench_begin();
        weft_gc();
        ns[i] = bench_end(one).wall_ns;
    }
    t = bench_end(t);
    bench_open("live_nodes", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / (double)(nodes * collections));
    bench_num("ops", (double)(nodes * collections));
    bench_num("cpu_s", (double)t.cpu_ns / 1e9 / (double)collections);
    bench_latencies(ns, (size_t)collections);
    bench_close();
    weft_keep_alive(root);
}

int main(int argc, char **argv)
{
    nodes = bench_arg(argc, argv, 1, 1 << 23);
    collections = bench_arg(argc, argv, 2, 5);
    typed = argc > 3 && strcmp(argv[3], "typed") == 0;
    return nodes < 1 || collections < 1 || collections > 100 ? 2 : bench_run(run);
}
