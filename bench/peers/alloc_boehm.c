/* The question of ../alloc.c to Boehm's collector: GC_MALLOC, or GC_MALLOC_ATOMIC for noscan (which does not
 * zero). Threads of its own, with thread-local free lists as Debian builds it. run.sh sets GC_MARKERS to the
 * number of processors. */
#define GC_THREADS
#include "../bench.h"
#include <gc.h>
#include <pthread.h>

enum { MAX_THREADS = 64 };
static long size, threads, objects, each;
static int noscan;
static struct { void *last; char pad[120]; } kept[MAX_THREADS];

static void *allocate(void *arg)
{
    long thread = (long)(intptr_t)arg;
    for (long i = 0; i < each; i++) {
        void **p = noscan ? GC_MALLOC_ATOMIC((size_t)size) : GC_MALLOC((size_t)size);
        if (!p)
            abort();
        *p = NULL;
        kept[thread].last = p;
        bench_use(p);
    }
    return NULL;
}

static void run_all(long n)
{
    pthread_t t[MAX_THREADS];
    each = n;
    for (long i = 0; i < threads; i++)
        if (pthread_create(&t[i], NULL, allocate, (void *)(intptr_t)i) != 0)
            abort();
    for (long i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
}

int main(int argc, char **argv)
{
    size = bench_arg(argc, argv, 1, 16);
    threads = bench_arg(argc, argv, 2, 1);
    noscan = argc > 3 && strcmp(argv[3], "noscan") == 0;
    objects = bench_arg(argc, argv, 4, 10000000);
    if (threads < 1 || threads > MAX_THREADS)
        return 2;
    GC_INIT();
    GC_start_mark_threads();
    run_all(objects / 10);
    bench_span t = bench_begin();
    run_all(objects);
    bench_report("alloc", "boehm", (double)objects, bench_end(t));
    return 0;
}
