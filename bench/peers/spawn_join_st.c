/* The question of ../spawn_join.c to State Threads: joinable threads with the default stack of 64 KiB (kept in
 * a free list). */
#include "../bench.h"
#include <st.h>

static long batch, fibers;

static void *child(void *arg) { bench_use(arg); return NULL; }

static void run_all(long n)
{
    st_thread_t *t = calloc((size_t)batch, sizeof *t);
    for (long i = 0; i < n; i += batch) {
        for (long j = 0; j < batch; j++)
            if (!(t[j] = st_thread_create(child, NULL, 1, 0)))
                abort();
        for (long j = 0; j < batch; j++)
            st_thread_join(t[j], NULL);
    }
    free(t);
}

int main(int argc, char **argv)
{
    batch = bench_arg(argc, argv, 1, 1);
    fibers = bench_arg(argc, argv, 2, 3000000);
    if (st_init() != 0)
        return 1;
    run_all(fibers / 10);
    bench_span t = bench_begin();
    run_all(fibers);
    bench_report("spawn_join", "st", (double)fibers, bench_end(t));
    return 0;
}
