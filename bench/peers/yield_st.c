/* The question of ../yield.c to State Threads 1.9. It has no yield: st_usleep(0) sleeps in the timer heap for
 * no time, which is how its users yield. One thread; no lock anywhere. */
#include "../bench.h"
#include <st.h>

static long fibers, yields, each;

static void *yielder(void *arg)
{
    (void)arg;
    for (long n = each; n > 0; n--)
        st_usleep(0);
    return NULL;
}

static void run_all(long n)
{
    st_thread_t *t = calloc((size_t)fibers, sizeof *t);
    each = n;
    for (long i = 0; i < fibers; i++)
        t[i] = st_thread_create(yielder, NULL, 1, 0);
    for (long i = 0; i < fibers; i++)
        st_thread_join(t[i], NULL);
    free(t);
}

int main(int argc, char **argv)
{
    fibers = bench_arg(argc, argv, 1, 2);
    yields = bench_arg(argc, argv, 2, 10000000 / fibers);
    if (st_init() != 0)
        return 1;
    run_all(yields / 10);
    bench_span t = bench_begin();
    run_all(yields);
    bench_report("yield", "st", (double)fibers * (double)yields, bench_end(t));
    return 0;
}
