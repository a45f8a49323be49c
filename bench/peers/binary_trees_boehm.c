/* The question of ../binary_trees.c to Boehm's collector: GC_MALLOC on the main thread, with its thread-local
 * free lists. run.sh sets GC_MARKERS to the number of processors. */
#define GC_THREADS
#include "../bench.h"
#include <gc.h>

typedef struct node { struct node *left, *right; } node;

static node *make(long d)
{
    node *n = GC_MALLOC(sizeof(node));
    if (!n)
        abort();
    if (d > 0) {
        n->left = make(d - 1);
        n->right = make(d - 1);
    }
    return n;
}

static long check(const node *n) { return n->left ? 1 + check(n->left) + check(n->right) : 1; }

int main(int argc, char **argv)
{
    enum { MIN = 4 };
    long depth = bench_arg(argc, argv, 1, 18), nodes = 0;
    GC_INIT();
    GC_start_mark_threads();
    bench_span t = bench_begin();
    nodes += check(make(depth + 1));
    node *stays = make(depth);
    for (long d = MIN; d <= depth; d += 2)
        for (long i = 1L << (depth - d + MIN); i > 0; i--)
            nodes += check(make(d));
    nodes += check(stays);
    bench_report("binary_trees", "boehm", (double)nodes, bench_end(t));
    return 0;
}
