/* Runs out of heap, of address space, or of memory in the middle of a collection, and goes on.
 *   nomem reserve   a small heap_reserve      nomem limit   RLIMIT_AS      nomem cycle   RLIMIT_AS exhausted, then collections
 * Prints "ok" at the end. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <weft.h>

#define CHECK(c, ...) ((c) ? (void)0 : (printf("line %d: %s", __LINE__, #c), printf(" " __VA_ARGS__), puts(""), fflush(stdout), exit(1)))

struct node { struct node *next; uint64_t number; char fill[1000]; };
static struct node *list;
static weft_mem_stats st;

static uint32_t cycles(void)
{
    st.size = sizeof st;
    CHECK(weft_read_mem_stats(&st) == 0);
    return st.num_gc;
}

static __attribute__((noinline)) uint64_t fill_up(void)
{
    uint64_t n = 0;
    struct node *p;
    while ((p = weft_alloc(sizeof *p)) != NULL) {
        p->number = n++;
        p->next = list;
        list = p;
    }
    return n;
}

static __attribute__((noinline)) void check_list(uint64_t n)
{
    for (struct node *p = list; p != NULL; p = p->next)
        CHECK(p->number == --n);
    CHECK(n == 0);
}

static void other(void *arg) { weft_chan_send(arg, &(int){ 5 }); }

/* Whatever needs no new memory of the heap works. */
static void go_on(weft_chan *c)
{
    int v = 0;
    CHECK(weft_go(other, c) == 0);
    CHECK(weft_chan_recv(c, &v) == 1 && v == 5);
    weft_sleep(WEFT_MILLISECOND);
    weft_yield();
}

static __attribute__((noinline)) void drop(void)
{
    list = NULL;
    char junk[8192];
    memset(junk, 0, sizeof junk);
    __asm__ volatile("" : : "r"(junk) : "memory");
}

static void exhaust(void *arg)
{
    (void)arg;
    weft_chan *c = weft_chan_make(sizeof(int), 1);
    go_on(c); /* the first fiber to start maps stacks for many, the runtime's own among them: later ones need no address space */
    for (int round = 0; round < 3; round++) {
        uint64_t n = fill_up();
        CHECK(n > 3000, "only %lu objects", (unsigned long)n);
        uint32_t before = cycles();
        CHECK(weft_alloc(1 << 20) == NULL);
        CHECK(cycles() > before, "NULL without a collection");
        CHECK(weft_alloc(SIZE_MAX) == NULL && weft_alloc(SIZE_MAX / 2) == NULL);
        CHECK(weft_alloc_noscan((size_t)1 << 46) == NULL);
        CHECK(weft_realloc(list, (size_t)1 << 40) == NULL);
        check_list(n);
        go_on(c);
        weft_gc();
        check_list(n);
        drop();
        for (int i = 0; i < 100; i++) { /* a collection is made for it, and finds what was dropped */
            char *p = weft_alloc(100000);
            CHECK(p != NULL && p[0] == 0 && p[99999] == 0);
            memset(p, 1, 100000);
        }
        go_on(c);
    }
}

/* No more address space while cycles want some: for modules, the mark stack, the queue of finalizers, threads. */
static int finalized;
static void count(void *obj, void *ctx) { (void)obj, (void)ctx, finalized++; }

static __attribute__((noinline)) void make_garbage(int n)
{
    for (int i = 0; i < n; i++) {
        struct node *p = weft_alloc(sizeof *p);
        if (p == NULL)
            return;
        p->number = (uint64_t)i;
        (void)weft_set_finalizer(p, count, NULL);
    }
}

static void exhaust_in_cycles(void *arg)
{
    (void)arg;
    go_on(weft_chan_make(sizeof(int), 1)); /* as in exhaust */
    for (uint64_t i = 0; i < 20000; i++) { /* something to mark */
        struct node *p = weft_alloc(sizeof *p);
        CHECK(p != NULL);
        p->number = i;
        p->next = list;
        list = p;
    }
    make_garbage(20000);
    struct rlimit lim = { RLIM_INFINITY, RLIM_INFINITY };
    getrlimit(RLIMIT_AS, &lim);
    lim.rlim_cur = 1; /* nothing more at all */
    CHECK(setrlimit(RLIMIT_AS, &lim) == 0);
    weft_maxprocs(weft_maxprocs(0) + 1); /* wants threads */
    for (int i = 0; i < 20; i++) {
        weft_gc();
        make_garbage(2000);
        weft_yield();
    }
    lim.rlim_cur = lim.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &lim) == 0);
    check_list(20000);
    int64_t until = weft_now() + 10 * WEFT_SECOND;
    while (finalized < 20000 - 200 && weft_now() < until) {
        weft_gc();
        weft_yield();
    }
    CHECK(finalized >= 20000 - 200, "%d finalizers ran", finalized);
    CHECK(weft_alloc(10 << 20) != NULL);
}

int main(int argc, char **argv)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    const char *what = argc > 1 ? argv[1] : "";
    weft_fn *fn = exhaust;
    cfg.maxprocs = argc > 2 ? atoi(argv[2]) : 0;
    if (strcmp(what, "reserve") == 0)
        cfg.heap_reserve = 16 << 20;
    else if (strcmp(what, "limit") == 0) {
        struct rlimit lim = { 300 << 20, 300 << 20 };
        CHECK(setrlimit(RLIMIT_AS, &lim) == 0);
    } else
        fn = exhaust_in_cycles;
    int err = weft_run(fn, NULL, &cfg);
    CHECK(err == 0, "%s", weft_strerror(err));
    puts("ok");
    return 0;
}
