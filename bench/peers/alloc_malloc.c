/* The question of ../alloc.c to an allocator without a collector: calloc, and free of the object before. Built
 * twice: with glibc's malloc, and (-DIMPL, -ljemalloc) with jemalloc's. A yardstick: here the program says what
 * is garbage. */
#include "../bench.h"
#include <pthread.h>

#ifndef IMPL
#define IMPL "malloc"
#endif

enum { MAX_THREADS = 64 };
static long size, threads, objects, each;
static struct { void *last; char pad[120]; } kept[MAX_THREADS];

static void *allocate(void *arg)
{
    long thread = (long)(intptr_t)arg;
    for (long i = 0; i < each; i++) {
        void **p = calloc(1, (size_t)size);
        if (!p)
            abort();
        *p = NULL;
        free(kept[thread].last);
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
    objects = bench_arg(argc, argv, 4, 10000000);
    if (threads < 1 || threads > MAX_THREADS)
        return 2;
    run_all(objects / 10);
    bench_span t = bench_begin();
    run_all(objects);
    bench_report("alloc", IMPL, (double)objects, bench_end(t));
    return 0;
}
