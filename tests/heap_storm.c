/* Storms: graphs of objects wander through channels between fibers on several processors while collections run, and threads and fibers hammer what
 * libc locks while they are stopped in the middle of it. Each does a fixed amount of work and ends. */
#include "heap_test.h"
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include "base/rng.h"

/* ---- graphs that wander ----------------------------------------------------------------------------------------------- */

/* A tree with a typed spine, conservative leaves and noscan payload; what is in it follows from its number alone. */
struct tree { struct tree *left, *right; void **leaf; uint64_t number; };
#define LEAF_BYTES(number) (24 + (number) * 7 % 300)

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
    return x ^ x >> 29;
}

static struct tree *tree_new(uint64_t number, int depth)
{
    struct tree *t = weft_alloc_typed(WEFT_TYPE(struct tree, left, right, leaf));
    t->number = number;
    size_t bytes = LEAF_BYTES(number);
    unsigned char *payload = weft_alloc_noscan(bytes);
    memset(payload, (int)(mix(number) & 0xff), bytes);
    t->leaf = weft_alloc(40);
    t->leaf[1] = payload;
    t->leaf[3] = (char *)payload + bytes / 2; /* an inner one too */
    if (depth > 0) {
        t->left = tree_new(mix(number), depth - 1);
        t->right = tree_new(mix(number) + 1, depth - 1);
    }
    return t;
}

static void tree_check(const struct tree *t, uint64_t number, int depth)
{
    cr_assert_eq(t->number, number, "a node of tree %lx was freed", (unsigned long)number);
    size_t bytes = LEAF_BYTES(number);
    const unsigned char *payload = t->leaf[1];
    cr_assert(t->leaf[3] == (const char *)payload + bytes / 2);
    for (size_t i = 0; i < bytes; i += 5)
        cr_assert_eq(payload[i], mix(number) & 0xff, "payload of %lx", (unsigned long)number);
    cr_assert((depth > 0) == (t->left != NULL));
    if (depth > 0) {
        tree_check(t->left, mix(number), depth - 1);
        tree_check(t->right, mix(number) + 1, depth - 1);
    }
}

struct parcel { struct tree *tree; uint64_t number; int depth, hops; };

#define STATIONS 12
static weft_chan *station[STATIONS];
static weft_chan *arrived;
static uint64_t seed;

/* Takes parcels, checks them, and sends them on by any of several ways; replaces a part of the tree now and then. */
static void wander(void *arg)
{
    weft_chan *from = arg;
    struct rng rng;
    struct parcel p;
    rng_seed(&rng, seed ^ (uintptr_t)from);
    while (weft_chan_recv(from, &p) == 1) {
        tree_check(p.tree, p.number, p.depth);
        if (p.hops % 4 == 0)
            p.tree->left = tree_new(mix(p.number), p.depth - 1);
        if (rng_below(&rng, 8) == 0)
            weft_gc();
        if (rng_below(&rng, 4) == 0)
            weft_yield();
        if (rng_below(&rng, 16) == 0)
            weft_sleep(50 * WEFT_MICROSECOND);
        if (--p.hops == 0) {
            cr_assert_eq(weft_chan_send(arrived, &p), 0);
            continue;
        }
        uint32_t to = rng_below(&rng, STATIONS);
        weft_case ways[2] = { { WEFT_SEND, station[to], &p, 0 }, { WEFT_SEND, station[(to + 1) % STATIONS], &p, 0 } };
        if (weft_select_until(ways, 2, weft_now() + WEFT_MILLISECOND) < 0)
            cr_assert_eq(weft_chan_send(arrived, &p), 0); /* all full: it has wandered enough */
    }
}

static void *thread_wanders(void *arg)
{
    wander(arg);
    return NULL;
}

static int parcels, hops;
static void migration(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    pthread_t threads[2];
    arrived = weft_chan_make(sizeof(struct parcel), (size_t)parcels);
    for (int i = 0; i < STATIONS; i++)
        station[i] = weft_chan_make(sizeof(struct parcel), (size_t)(i % 3) * 2);
    for (int i = 0; i < STATIONS; i++)
        for (int k = 0; k < 2; k++)
            cr_assert_eq(weft_waitgroup_go(&wg, wander, station[i]), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, thread_wanders, station[i]), 0);
    for (int i = 0; i < parcels; i++) {
        struct parcel p = { NULL, mix((uint64_t)i), 1 + i % 5, hops };
        p.tree = tree_new(p.number, p.depth);
        cr_assert_eq(weft_chan_send(station[i % STATIONS], &p), 0);
        p.tree = NULL;
    }
    for (int i = 0; i < parcels; i++) {
        struct parcel p;
        cr_assert_eq(weft_chan_recv(arrived, &p), 1);
        tree_check(p.tree, p.number, p.depth);
    }
    for (int i = 0; i < STATIONS; i++)
        weft_chan_close(station[i]);
    weft_waitgroup_wait(&wg);
    weft_blocking_begin();
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    weft_blocking_end();
}

static void migrate(int procs, const char *debug, int n, int h)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    bool slow = test_is_slow();
    parcels = slow ? n / 4 : n;
    hops = slow ? h / 4 : h;
    test_run_config(&cfg, migration, NULL);
}

Test(heap_storm, graphs_wander_between_processors)
{
    seed = test_seed();
    for (int procs = 2; procs <= 8; procs *= 2)
        migrate(procs, NULL, 150, 20);
}

Test(heap_storm, graphs_wander_and_each_collection_is_verified)
{
    seed = test_seed();
    for (int procs = 2; procs <= 4; procs *= 2)
        migrate(procs, "gcverify=1,gcpoison=1", 60, 12);
}

Test(heap_storm, graphs_wander_and_every_hundredth_allocation_collects)
{
    seed = test_seed();
    for (int procs = 2; procs <= 8; procs *= 4)
        migrate(procs, "gcstress=100,gcpoison=1", 60, 12);
}

/* Without membarrier(2): entering takes a real fence. */
Test(heap_storm, graphs_wander_on_an_old_kernel)
{
    seed = test_seed();
    migrate(3, "membarrier=0,gcpoison=1", 80, 16);
}

/* ---- stopped inside libc ---------------------------------------------------------------------------------------------------- */

static int stop, running;
static FILE *shared_file;

static bool going_on(void) { return __atomic_load_n(&stop, __ATOMIC_ACQUIRE) == 0; }

static void use_malloc(void)
{
    void *p[32];
    for (int i = 0; i < 32; i++)
        memset(p[i] = malloc((size_t)(i * i * 97 % 5000 + 1)), i, 1);
    for (int i = 0; i < 32; i++)
        p[i] = realloc(p[i], (size_t)(i * 301 % 9000 + 1));
    for (int i = 0; i < 32; i++)
        free(p[i]);
    free(malloc(1 << 20)); /* mapped */
}

static void use_stdio(void)
{
    char line[64], *copy = NULL;
    size_t n = 0;
    fprintf(shared_file, "%d %s %f\n", 17, "words", 3.25);
    fflush(shared_file);
    snprintf(line, sizeof line, "%.12g", 1.0 / 3);
    FILE *m = open_memstream(&copy, &n);
    fputs(line, m);
    fclose(m);
    free(copy);
}

static void use_the_rest(void)
{
    cr_assert_not_null(getenv("PATH"));
    DIR *d = opendir("/");
    while (readdir(d) != NULL)
        ;
    closedir(d);
}

static void *little(void *arg) { return arg; }
static void use_threads(void)
{
    pthread_t t;
    if (pthread_create(&t, NULL, little, NULL) == 0)
        pthread_join(t, NULL);
}

static void hammer(void *arg)
{
    void (*use)(void) = (void (*)(void))(uintptr_t)arg;
    for (int i = 0; going_on(); i++) {
        use();
        if (i % 4 == 0)
            weft_alloc(100 + (size_t)i % 1000);
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_ACQ_REL);
}

static void *hammer_thread(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    hammer(arg);
    return NULL;
}

static void noop(void *obj, void *ctx) { (void)obj, (void)ctx; }

static void stops_in_libc(void *arg)
{
    (void)arg;
    void (*const uses[])(void) = { use_malloc, use_stdio, use_the_rest, use_threads, use_malloc, use_stdio };
    enum { N = sizeof uses / sizeof uses[0] };
    static weft_mem_stats st;
    pthread_t t[N];
    stop = 0;
    running = 2 * N;
    for (int i = 0; i < N; i++) {
        cr_assert_eq(pthread_create(&t[i], NULL, hammer_thread, (void *)(uintptr_t)uses[i]), 0);
        cr_assert_eq(weft_go(hammer, (void *)(uintptr_t)uses[i]), 0);
    }
    int n = test_is_slow() ? 60 : 200;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < 300; k++) /* the stop needs memory of its own for these */
            weft_set_finalizer(weft_alloc(16), noop, NULL);
        weft_gc();
        st.size = sizeof st;
        cr_assert_eq(weft_read_mem_stats(&st), 0);
        if (i % 20 == 0)
            weft_maxprocs(1 + i / 20 % 4);
        if (i % 50 == 0)
            weft_free_os_memory();
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    weft_blocking_begin();
    for (int i = 0; i < N; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    test_until(count_now(&running) == 0);
}

Test(heap_storm, threads_are_stopped_inside_libc)
{
    shared_file = tmpfile();
    cr_assert_not_null(shared_file);
    test_run_each(stops_in_libc, NULL);
    fclose(shared_file);
}

/* ---- a thread that is stopped has what a new one needs ------------------------------------------------------------------------ */

static pthread_mutex_t needed = PTHREAD_MUTEX_INITIALIZER; /* as a lock of the host's malloc would be */
static bool need_it;
static int came, has_it, collected;

/* In place of libc's: the first thing that a thread which is to help in a mark calls. */
int pthread_setname_np(pthread_t thread, const char *name)
{
    (void)thread;
    if (need_it && strcmp(name, "weft-gc") == 0) {
        pthread_mutex_lock(&needed);
        pthread_mutex_unlock(&needed);
        __atomic_fetch_add(&came, 1, __ATOMIC_ACQ_REL);
    }
    return 0;
}

static void *has_what_they_need(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    pthread_mutex_lock(&needed);
    __atomic_store_n(&has_it, 1, __ATOMIC_RELEASE);
    while (count_now(&collected) == 0)
        usleep(1000);
    pthread_mutex_unlock(&needed);
    return arg;
}

static void marks_without_late_helpers(void *arg)
{
    (void)arg;
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, has_what_they_need, NULL), 0);
    test_until(count_now(&has_it) == 1);
    void *much = weft_alloc_noscan(16 << 20); /* a mark that wants helpers */
    for (int i = 0; i < 3; i++)
        weft_gc();
    weft_keep_alive(much);
    __atomic_store_n(&collected, 1, __ATOMIC_RELEASE);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
    test_until(count_now(&came) == 3);
    weft_gc();
}

Test(heap_storm, helpers_that_wait_for_a_stopped_thread_are_not_waited_for)
{
    need_it = true;
    test_run_procs(4, marks_without_late_helpers, NULL);
}
