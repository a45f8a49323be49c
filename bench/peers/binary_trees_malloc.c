/* The question of ../binary_trees.c to malloc: each tree is freed by a second walk. A yardstick. Built twice,
 * as alloc_malloc.c. */
#include "../bench.h"

#ifndef IMPL
#define IMPL "malloc"
#endif

typedef struct node { struct node *left, *right; } node;

static node *make(long d)
{
    node *n = calloc(1, sizeof(node));
    if (!n)
        abort();
    if (d > 0) {
        n->left = make(d - 1);
        n->right = make(d - 1);
    }
    return n;
}

static long check(const node *n) { return n->left ? 1 + check(n->left) + check(n->right) : 1; }

static void drop(node *n)
{
    if (n->left) {
        drop(n->left);
        drop(n->right);
    }
    free(n);
}

static long make_check_drop(long d)
{
    node *n = make(d);
    long nodes = check(n);
    drop(n);
    return nodes;
}

int main(int argc, char **argv)
{
    enum { MIN = 4 };
    long depth = bench_arg(argc, argv, 1, 18), nodes = 0;
    bench_span t = bench_begin();
    nodes += make_check_drop(depth + 1);
    node *stays = make(depth);
    for (long d = MIN; d <= depth; d += 2)
        for (long i = 1L << (depth - d + MIN); i > 0; i--)
            nodes += make_check_drop(d);
    nodes += check(stays);
    drop(stays);
    bench_report("binary_trees", IMPL, (double)nodes, bench_end(t));
    return 0;
}
