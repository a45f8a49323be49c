/* hello - a hundred fibers each build a tree and forget it; a channel brings the results. Nothing is freed by hand. */
#include <stdio.h>
#include <weft.h>

typedef struct tree { struct tree *left, *right; } tree;

static tree *grow(int depth)
{
    tree *t = (tree *)weft_alloc_typed(WEFT_TYPE(tree, left, right));
    if (depth > 0)
        t->left = grow(depth - 1), t->right = grow(depth - 1);
    return t;
}
static long leaves(tree *t) { return t->left ? leaves(t->left) + leaves(t->right) : 1; }

static void worker(void *results)
{
    long n = leaves(grow(14));
    weft_chan_send((weft_chan *)results, &n);
}
static void program(void *arg)
{
    (void)arg;
    long n, sum = 0;
    weft_chan *results = weft_chan_make(sizeof n, 0);
    for (int i = 0; i < 100; i++)
        weft_go(worker, results);
    for (int i = 0; i < 100 && weft_chan_recv(results, &n) == 1; i++)
        sum += n;
    printf("100 fibers grew %ld leaves\n", sum);
}
int main(void) { return weft_run(program, NULL, NULL) != 0; }
