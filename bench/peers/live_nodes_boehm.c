/* The question of ../live_nodes.c to Boehm's collector: GC_gcollect, GC_MARKERS set by run.sh to the number of
 * processors. The same graph from the same random numbers. GC_gcollect leaves sweeping to later allocations;
 * weft_gc and runtime.GC sweep to the end. */
#define GC_THREADS
#include "../bench.h"
#include <gc.h>

typedef struct node {
    struct node *left, *right, *other;
    uint64_t payload[5];
} node;

static long nodes, collections;
static node *root;

static void build(void)
{
    uint64_t seed = 88172645463325252u;
    size_t n = (size_t)nodes;
    node **at = malloc(n * sizeof *at);
    uint32_t *place = malloc(n * sizeof *place);
    uint32_t *index = malloc(n * sizeof *index);
    if (!at || !place || !index)
        abort();
    for (size_t i = 0; i < n; i++) {
        at[i] = GC_MALLOC(sizeof(node));
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

int main(int argc, char **argv)
{
    nodes = bench_arg(argc, argv, 1, 1 << 23);
    collections = bench_arg(argc, argv, 2, 5);
    if (nodes < 1 || collections < 1 || collections > 100)
        return 2;
    GC_INIT();
    GC_start_mark_threads();
    GC_disable();
    build();
    GC_enable();
    GC_gcollect();
    int64_t ns[100];
    bench_span t = bench_begin();
    for (long i = 0; i < collections; i++) {
        bench_span one = bench_begin();
        GC_gcollect();
        ns[i] = bench_end(one).wall_ns;
    }
    t = bench_end(t);
    bench_open("live_nodes", "boehm");
    bench_num("ns_per_op", (double)t.wall_ns / (double)(nodes * collections));
    bench_num("ops", (double)(nodes * collections));
    bench_num("cpu_s", (double)t.cpu_ns / 1e9 / (double)collections);
    bench_latencies(ns, (size_t)collections);
    bench_close();
    bench_use(root);
    return 0;
}
