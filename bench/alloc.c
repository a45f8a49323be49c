/* alloc size [threads] [scan|noscan] [objects each] - what does an object cost that is dropped at once?
 *
 * Each of `threads` fibers (and there are as many processors) allocates objects of `size` bytes, writes their
 * first word, and keeps only the last. So the time is that of allocation, of zeroing, and of the collector's
 * cycles and sweeping. Counted: one object; ns_per_op is wall time over the objects of one fiber, so with two
 * threads it stays the same if they do not hinder each other.
 * scan: objects the collector must look into (weft_alloc); noscan: it must not (weft_alloc_noscan).
 * Peers: Go: new of a struct whose first word is a pointer, or of bytes. Boehm: GC_MALLOC or GC_MALLOC_ATOMIC
 * (which does not zero) with thread-local free lists. malloc, jemalloc: calloc, and free of the one before:
 * what an allocator costs that is told what is garbage. */
#include "bench_weft.h"

enum { MAX_THREADS = 64 };
static long size, threads, objects;
static int noscan;
static struct { void *last; char pad[120]; } kept[MAX_THREADS];

static void allocate(long thread, long n)
{
    for (long i = 0; i < n; i++) {
        void **p = noscan ? weft_alloc_noscan((size_t)size) : weft_alloc((size_t)size);
        if (!p)
            abort();
        *p = NULL;
        kept[thread].last = p;
        bench_use(p);
    }
}

static void measured(void *arg) { allocate((long)(intptr_t)arg, objects); }
static void warm_up(void *arg) { allocate((long)(intptr_t)arg, objects / 10); }

static void run_all(weft_fn *fn)
{
    static weft_waitgroup wg;
    for (long i = 0; i < threads; i++)
        bench_must(weft_waitgroup_go(&wg, fn, (void *)(intptr_t)i), "weft_waitgroup_go");
    weft_waitgroup_wait(&wg);
}

static void run(void *arg)
{
    (void)arg;
    run_all(warm_up);
    bench_span t = bench_begin();
    run_all(measured);
    bench_report("alloc", "weft", (double)objects, bench_end(t));
}

int main(int argc, char **argv)
{
    size = bench_arg(argc, argv, 1, 16);
    threads = bench_arg(argc, argv, 2, 1);
    noscan = argc > 3 && strcmp(argv[3], "noscan") == 0;
    objects = bench_arg(argc, argv, 4, 10000000);
    return threads < 1 || threads > MAX_THREADS ? 2 : bench_run(run);
}
