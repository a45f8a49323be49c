/* binary_trees [depth] - how fast is a program that builds and drops trees?
 *
 * The well-known one: a tree of depth + 1 that is dropped, a tree of `depth` that stays, and meanwhile, for
 * each depth from 4 in steps of two, as many trees as make the same number of nodes. One fiber, two pointers a
 * node, two processors for the collector. Counted: wall and CPU time of it all; ns_per_op is wall time over
 * nodes.
 * Peers: Go: &node{}. Boehm: GC_MALLOC, two markers. malloc: free by hand, by a second walk. */
#include "bench_weft.h"

typedef struct node { struct node *left, *right; } node;

static long depth;

static node *make(long d)
{
    node *n = weft_alloc(sizeof(node));
    if (!n)
        abort();
    if (d > 0) {
        n->left = make(d - 1);
        n->right = make(d - 1);
    }
    return n;
}

static long check(const node *n) { return n->left ? 1 + check(n->left) + check(n->right) : 1; }

static void run(void *arg)
{
    enum { MIN = 4 };
    (void)arg;
    long nodes = 0;
    bench_span t = bench_begin();
    nodes += check(make(depth + 1));
    node *stays = make(depth);
    for (long d = MIN; d <= depth; d += 2)
        for (long i = 1L << (depth - d + MIN); i > 0; i--)
            nodes += check(make(d));
    nodes += check(stays);
    bench_report("binary_trees", "weft", (double)nodes, bench_end(t));
}

int main(int argc, char **argv)
{
    depth = bench_arg(argc, argv, 1, 18);
    return bench_run(run);
}
