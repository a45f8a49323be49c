/* heap_dump [objects] [rounds] - how long does it take to see what the heap is made of, and who has to wait meanwhile?
 *
 * So many objects of 64 bytes, each with two references to others: a tree, put together in no order. Counted, medians over rounds: gc_stop_ns, how
 * long a collection stops the world; stop_ns, the same of one that weft_heap_dump runs; wall_ns, the dump as a whole; why_ns, weft_why_alive of one
 * object. */
#include "bench_weft.h"

enum { ROUNDS_MAX = 100 };
struct node { struct node *left, *right; uint64_t pad[6]; };
static long objects, rounds;
static struct node *root, *some;

static int count(void *ctx, const void *data, size_t n)
{
    (void)data;
    *(size_t *)ctx += n;
    return 0;
}

static int64_t stopped_ns(void)
{
    weft_stop_stats s;
    weft_read_stop_stats(WEFT_STOP_GC, &s);
    return (int64_t)s.stopped_total_ns;
}

/* Each goes to a place that is found by going left and right at random. */
static void grow(void)
{
    uint64_t state = 88172645463325252u;
    for (long i = 0; i < objects; i++) {
        struct node *n = weft_alloc_typed(WEFT_TYPE(struct node, left, right)), **at = &root;
        for (uint64_t way = bench_random(&state); *at != NULL; way = way >> 1 | way << 63)
            at = way & 1 ? &(*at)->left : &(*at)->right;
        *at = n;
        if (i == objects / 2)
            some = n;
    }
}

static void run(void *arg)
{
    static double gc[ROUNDS_MAX], stop[ROUNDS_MAX], wall[ROUNDS_MAX], why[ROUNDS_MAX];
    size_t bytes = 0;
    (void)arg;
    grow();
    for (long i = 0; i < rounds; i++) {
        int64_t before = stopped_ns();
        weft_gc();
        gc[i] = (double)(stopped_ns() - before);
        before = stopped_ns();
        bytes = 0;
        bench_span s = bench_begin();
        bench_must(weft_heap_dump(count, &bytes), "weft_heap_dump");
        wall[i] = (double)bench_end(s).wall_ns;
        stop[i] = (double)(stopped_ns() - before);
        s = bench_begin();
        bench_must(weft_why_alive(some, count, &bytes, WEFT_FORM_JSON), "weft_why_alive");
        why[i] = (double)bench_end(s).wall_ns;
    }
    bench_open("heap_dump", "weft");
    bench_num("gc_stop_ns", bench_median(gc, rounds));
    bench_num("stop_ns", bench_median(stop, rounds));
    bench_num("wall_ns", bench_median(wall, rounds));
    bench_num("why_ns", bench_median(why, rounds));
    bench_num("bytes", (double)bytes);
    bench_close();
}

int main(int argc, char **argv)
{
    objects = bench_arg(argc, argv, 1, 1000000);
    rounds = bench_arg(argc, argv, 2, 9);
    if (rounds < 1 || rounds > ROUNDS_MAX)
        return 2;
    return bench_run(run);
}
