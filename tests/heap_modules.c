/* Modules come and go while collections run: what their data holds lives, no collection is skipped, and nothing is read that is not there any more.
 * Modules are loaded by fibers, by attached threads, by threads that weft does not know and therefore does not stop, and in code announced as
 * blocking, which is not stopped either. */
#include "heap_test.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPIES 6
#define SLOTS 64

typedef void **slots_fn(int where);

static char paths[COPIES][256];
static int stop, running, rounds;

/* Each worker has files of its own: one file is one module, however often it is opened. */
static void copy_module(const char *to)
{
    static char buf[1 << 20];
    int in = open(TEST_MOD("holder"), O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    cr_assert(in >= 0 && out >= 0);
    ssize_t n;
    while ((n = read(in, buf, sizeof buf)) > 0)
        cr_assert_eq(write(out, buf, (size_t)n), n);
    close(in);
    close(out);
}

static void copies_make(void)
{
    for (int i = 0; i < COPIES; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/tests/mod/.copy-%d-%d.so", TEST_BUILD, (int)getpid(), i);
        copy_module(paths[i]);
    }
}

static void copies_remove(void)
{
    for (int i = 0; i < COPIES; i++)
        unlink(paths[i]);
}

static slots_fn *slots_of(void *h)
{
    union { void *p; slots_fn *fn; } u = { dlsym(h, "mod_slots") };
    return u.fn;
}

/* One that allocates: the module's data is all that holds the objects, while collections go on. */
static void hold_in_module(int k)
{
    void *h = dlopen(paths[k], RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(h, "%s", dlerror());
    slots_fn *slots = slots_of(h);
    int nwhere = weft_fiber_id() != 0 ? 2 : 3; /* a fiber moves between threads: no thread-local variables */
    for (int where = 0; where < nwhere; where++)
        for (uint64_t i = 0; i < SLOTS; i++)
            slots(where)[i] = box_new(NULL, i + (uint64_t)k * 1000);
    test_wipe_stack();
    for (int i = 0; i < 3; i++)
        weft_yield();
    for (int where = 0; where < nwhere; where++)
        for (uint64_t i = 0; i < SLOTS; i++)
            box_check(slots(where)[i], i + (uint64_t)k * 1000);
    cr_assert_eq(dlclose(h), 0);
}

/* One that only loads and unloads. */
static void load(int k)
{
    void *h = dlopen(paths[k], RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(h, "%s", dlerror());
    slots_of(h)(2)[0] = h;
    cr_assert_eq(dlclose(h), 0);
}

static bool going_on(void)
{
    count_up(&rounds);
    return __atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0;
}

static void loading_fiber(void *arg)
{
    do hold_in_module((int)(intptr_t)arg); while (going_on());
    __atomic_fetch_sub(&running, 1, __ATOMIC_ACQ_REL);
}

static void blocking_fiber(void *arg)
{
    do {
        weft_blocking_begin();
        load((int)(intptr_t)arg);
        weft_blocking_end();
        weft_yield();
    } while (going_on());
    __atomic_fetch_sub(&running, 1, __ATOMIC_ACQ_REL);
}

static void *attached_thread(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    loading_fiber(arg);
    return NULL;
}

static void *unknown_thread(void *arg)
{
    do load((int)(intptr_t)arg); while (going_on());
    __atomic_fetch_sub(&running, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static uint32_t cycles(void)
{
    static weft_mem_stats st;
    st.size = sizeof st;
    cr_assert_eq(weft_read_mem_stats(&st), 0);
    return st.num_gc;
}

static void storm(void *arg)
{
    (void)arg;
    pthread_t t[3];
    stop = rounds = 0;
    running = 6;
    cr_assert_eq(weft_go(loading_fiber, (void *)0), 0);
    cr_assert_eq(weft_go(loading_fiber, (void *)1), 0);
    cr_assert_eq(weft_go(blocking_fiber, (void *)2), 0);
    cr_assert_eq(pthread_create(&t[0], NULL, attached_thread, (void *)3), 0);
    cr_assert_eq(pthread_create(&t[1], NULL, unknown_thread, (void *)4), 0);
    cr_assert_eq(pthread_create(&t[2], NULL, unknown_thread, (void *)5), 0);
    int n = test_is_slow() ? 10 : 300;
    for (int i = 0; i < n || count_now(&rounds) < n / 5; i++) {
        uint32_t before = cycles();
        weft_gc();
        cr_assert(cycles() > before, "a collection was skipped");
        weft_yield();
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    weft_blocking_begin();
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    test_until(count_now(&running) == 0);
}

Test(heap_modules, storm_of_loading_during_collections, SIGNALS_AT_ONCE) /* of threads that wait for the loader's lock */
{
    copies_make();
    for (int procs = 1; procs <= 4; procs *= 2)
        test_run_debug(procs, "gcpoison=1", storm, NULL);
    copies_remove();
}

/* A collection in a constructor of a module, and in a destructor. */
static struct { void *(*alloc)(size_t); void (*gc)(void); } heap = { weft_alloc, weft_gc };

static void in_constructor(void *arg)
{
    (void)arg;
    char address[32];
    snprintf(address, sizeof address, "%p", (void *)&heap);
    setenv("MOD_COLLECTS", address, 1);
    for (int i = 0; i < 20; i++) {
        uint32_t before = cycles();
        void *h = dlopen(TEST_MOD("collects"), RTLD_NOW | RTLD_LOCAL);
        cr_assert_not_null(h, "%s", dlerror());
        cr_assert(cycles() > before);
        struct box **b = dlsym(h, "mod_made_when_loaded");
        before = cycles();
        churn();
        for (uint64_t k = 0; k < 64; k++)
            cr_assert_eq(*(uint64_t *)(void *)b[k], k);
        before = cycles();
        cr_assert_eq(dlclose(h), 0);
        cr_assert(cycles() > before);
    }
}

Test(heap_modules, constructors_and_destructors_may_collect)
{
    test_run_procs(1, in_constructor, NULL);
    test_run_procs(2, in_constructor, NULL);
}
