/* specials finalizer|cleanup|weak [objects] - what do finalizers, cleanups and weak pointers cost?
 *
 * finalizer, cleanup: objects of 32 bytes are allocated, each gets one that counts (ns_per_op, allocation included); then all are dropped, and
 * collected until all have run (run_ns each, the collections included).
 * weak: of so many live objects a weak pointer each is made (ns_per_op), made once more (again_ns), and read (get_ns).
 * Peers: Go: runtime.SetFinalizer, runtime.AddCleanup, weak.Pointer. Two processors. */
#include "bench_weft.h"
#include <stdatomic.h>
#include <string.h>

static long objects;
static const char *what;
static atomic_long ran;

static void finalize(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    atomic_fetch_add_explicit(&ran, 1, memory_order_relaxed);
}

static void clean(void *arg)
{
    (void)arg;
    atomic_fetch_add_explicit(&ran, 1, memory_order_relaxed);
}

static __attribute__((noinline)) void drop(void ***all)
{
    memset(all, 0, (size_t)objects * sizeof *all);
}

static void calls(void)
{
    bool finalizers = strcmp(what, "finalizer") == 0;
    void ***all = weft_alloc((size_t)objects * sizeof *all);
    bench_span t = bench_begin();
    for (long i = 0; i < objects; i++) {
        void **p = all[i] = weft_alloc(32);
        bench_must(finalizers ? weft_set_finalizer(p, finalize, NULL) : weft_add_cleanup(p, clean, NULL, NULL), what);
    }
    t = bench_end(t);
    drop(all);
    bench_span r = bench_begin();
    while (atomic_load(&ran) < objects - 10) { /* so many may be held by words on the stack */
        weft_gc();
        for (int i = 0; i < 1000 && atomic_load(&ran) < objects - 10; i++)
            weft_sleep(100 * WEFT_MICROSECOND);
    }
    r = bench_end(r);
    bench_open("specials", "weft");
    bench_num("ns_per_op", (double)t.wall_ns / (double)objects);
    bench_num("run_ns", (double)r.wall_ns / (double)objects);
    bench_close();
}

static void weak(void)
{
    void **all = weft_alloc((size_t)objects * sizeof *all);
    weft_weak **w = weft_alloc((size_t)objects * sizeof *w);
    long alive = 0;
    for (long i = 0; i < objects; i++)
        all[i] = weft_alloc(32);
    bench_span make = bench_begin();
    for (long i = 0; i < objects; i++)
        w[i] = weft_weak_make(all[i]);
    make = bench_end(make);
    bench_span again = bench_begin();
    for (long i = 0; i < objects; i++)
        alive += weft_weak_make(all[i]) == w[i];
    again = bench_end(again);
    bench_span get = bench_begin();
    for (long i = 0; i < objects; i++)
        alive += weft_weak_get(w[i]) == all[i];
    get = bench_end(get);
    bench_must(alive == 2 * objects ? 0 : -1, "weak pointers");
    bench_open("specials", "weft");
    bench_num("ns_per_op", (double)make.wall_ns / (double)objects);
    bench_num("again_ns", (double)again.wall_ns / (double)objects);
    bench_num("get_ns", (double)get.wall_ns / (double)objects);
    bench_close();
}

static void run(void *arg)
{
    (void)arg;
    if (strcmp(what, "weak") == 0)
        weak();
    else
        calls();
}

int main(int argc, char **argv)
{
    what = argc > 1 ? argv[1] : "finalizer";
    objects = bench_arg(argc, argv, 2, 1000000);
    return bench_run(run);
}
