/* Stacks whose fibers have ended: their memory goes back, that of processors' caches too, and then they are as good as before. */
#include "heap_test.h"
#include "os/vm.h"
#include "sched/stack.h"
#include "waiting.h"
#include <sys/mman.h>
#include <sys/resource.h>

#define KIB ((size_t)1 << 10)
#define PAGE 4096u

static void run(int procs, size_t stack, weft_fn *fn, void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.gc_percent = 100;
    cfg.stack_size = (int64_t)stack;
    cfg.debug = "gcstress=0"; /* cycles come when the test says so */
    test_run_config(&cfg, fn, arg);
}

static weft_mem_stats *stats(void)
{
    static weft_mem_stats s;
    s.size = sizeof s;
    cr_assert_eq(weft_read_mem_stats(&s), 0);
    cr_assert(s.stack_inuse <= s.stack_sys);
    return &s;
}

/* Stacks that hold memory and that no fiber has. */
static long kept(void)
{
    weft_mem_stats *s = stats();
    return (long)((s->stack_sys - s->stack_inuse) / os_page_bytes());
}

/* ---- fibers that wait, so many at a time, having used so much of their stacks ------------------------------------------ */

static weft_chan *gate;
static size_t deep_bytes;
static uintptr_t lowest, highest; /* of the frames of all */
static int waiting;

static w_noinline void use_stack(size_t bytes)
{
    volatile char *here = __builtin_alloca(bytes);
    for (size_t i = 0; i < bytes; i += PAGE / 2)
        here[bytes - 1 - i] = 1; /* from above: as calls do */
}

static void deep_fiber(void *arg)
{
    (void)arg;
    use_stack(deep_bytes);
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), old;
    old = __atomic_load_n(&lowest, __ATOMIC_RELAXED);
    while (here < old && !__atomic_compare_exchange_n(&lowest, &old, here, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    old = __atomic_load_n(&highest, __ATOMIC_RELAXED);
    while (here > old && !__atomic_compare_exchange_n(&highest, &old, here, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    count_up(&waiting);
    weft_chan_recv(gate, NULL);
}

static void wave_begin(int n, size_t bytes)
{
    gate = weft_chan_make(0, 0);
    waiting = 0;
    deep_bytes = bytes;
    lowest = UINTPTR_MAX;
    highest = 0;
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_go(deep_fiber, NULL), 0);
    test_until(count_now(&waiting) == n && receivers(gate) == (size_t)n);
}

static void wave_end(void)
{
    weft_chan_close(gate);
    test_until(weft_num_fibers() == 1);
}

static int many(void) { return test_is_slow() ? 500 : 4000; }

/* ---- on request ------------------------------------------------------------------------------------------------------------- */

static void on_request(void *arg)
{
    (void)arg;
    wave_begin(10, 24 * KIB);
    wave_end();
    weft_free_os_memory();
    long before = test_rss_kib();
    for (int shallow = 0; shallow <= 1; shallow++) {
        int n = many() * (shallow ? 4 : 1);
        wave_begin(n, shallow ? 256 : 24 * KIB);
        long peak = test_rss_kib();
        wave_end();
        cr_assert_geq(kept(), n);
        weft_free_os_memory();
        cr_assert_eq(kept(), 0, "%ld free stacks hold memory", kept());
        cr_assert_leq(stats()->stack_sys, 16 * os_page_bytes(), "only fibers of the runtime have one");
        long after = test_rss_kib();
        if (test_is_slow()) /* a sanitizer keeps something for each */
            continue;
        cr_assert_geq(peak - before, n * (shallow ? 4l : 24l));
        cr_assert_leq(after - before, (peak - before) / 16, "resident memory %ld KiB, with %d fibers %ld more, %ld when they have ended",
                      before, n, peak - before, after - before);
    }
}

Test(stack_free, all_memory_goes_back_on_request)
{
    test_needs_a_kernel();
    run(1, 0, on_request, NULL);
    run(2, 0, on_request, NULL);
}

/* ---- used again ----------------------------------------------------------------------------------------------------------- */

static void again(void *arg)
{
    (void)arg;
    int n = many();
    wave_begin(n, 8 * KIB);
    uintptr_t batch = 2 << 20, lo = lowest - batch, hi = highest + batch; /* a processor has taken some that it has not used */
    wave_end();
    for (int i = 0; i < 3; i++) {
        weft_free_os_memory();
        uint64_t before = stats()->stack_inuse;
        wave_begin(n, 8 * KIB);
        cr_assert(lowest >= lo && highest <= hi, "no new ones while there are some without memory");
        int64_t more = (int64_t)(stats()->stack_inuse - before) / (int64_t)os_page_bytes();
        cr_assert(more >= n && more <= n + 3, "%ld stacks for %d fibers, and perhaps those that mark, sweep and give back", more, n);
        cr_assert_eq(kept(), 0, "those that have no memory do not count");
        wave_end();
        cr_assert_eq(kept(), n, "all of those hold memory again");
    }
}

Test(stack_free, without_memory_they_are_used_again) { run(1, 0, again, NULL); }

struct other { size_t size; int n; };

static void other_fiber(void *arg)
{
    (void)arg;
    use_stack(deep_bytes);
    count_up(&waiting);
    weft_chan_recv(gate, NULL);
}

/* Sizes of which an arena has many slots, and one. */
static void other_sizes(void *arg)
{
    static const struct other others[] = { { 16 << 10, 700 }, { 1 << 20, 100 }, { 64 << 20, 3 }, { 128 << 20, 2 } };
    (void)arg;
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            weft_go_opts o = WEFT_GO_OPTS_INIT;
            o.stack_size = others[i].size;
            gate = weft_chan_make(0, 0);
            waiting = 0;
            deep_bytes = 6 * KIB;
            for (int k = 0; k < others[i].n; k++)
                cr_assert_eq(weft_go_opts_run(other_fiber, NULL, &o), 0);
            test_until(count_now(&waiting) == others[i].n);
            cr_assert_eq(kept(), 0);
            wave_end();
            cr_assert_geq(kept(), others[i].n);
            weft_free_os_memory();
            cr_assert_eq(kept(), 0);
        }
}

Test(stack_free, stacks_of_every_size) { run(1, 0, other_sizes, NULL); }

static int guarded, open_below;
static void look_below(struct fiber *f, void *arg)
{
    char c;
    (void)arg;
    if (load_acq(&f->state) != FIBER_WAITING)
        return;
    cr_assert_eq(os_vm_peek(&c, f->stack_lo, 1), 1);
    *(os_vm_peek(&c, f->stack_lo - 1, 1) == 0 ? &guarded : &open_below) += 1;
}

static void guards(void *arg)
{
    (void)arg;
    wave_begin(many(), 8 * KIB);
    wave_end();
    weft_free_os_memory();
    wave_begin(many(), 8 * KIB);
    guarded = open_below = 0;
    stack_each(0, 1, look_below, NULL);
    cr_assert(guarded >= many() && open_below == 0, "%d have a guard, %d have none", guarded, open_below);
    wave_end();
}

Test(stack_free, their_guards_stay)
{
    test_needs_a_kernel();
    run(1, 0, guards, NULL);
}

/* ---- after cycles ------------------------------------------------------------------------------------------------------------ */

/* All of them fit into a processor's cache. */
static void cached(void *arg)
{
    (void)arg;
    enum { N = 40, DEEP_KIB = 512 };
    weft_gc(); /* the runtime's own fibers have theirs */
    weft_gc();
    test_until(kept() == 0);
    long before = test_rss_kib();
    wave_begin(N, DEEP_KIB * KIB);
    wave_end();
    long peak = test_rss_kib();
    cr_assert_eq(kept(), N);
    weft_gc();
    cr_assert_eq(kept(), N, "until then they were needed");
    weft_gc();
    test_until(kept() == 0);
    if (test_is_slow())
        return;
    cr_assert_geq(peak - before, N * DEEP_KIB);
    long after = test_rss_kib();
    cr_assert_leq(after - before, (peak - before) / 8, "resident memory %ld KiB, with them %ld more, then %ld", before, peak - before, after - before);
}

Test(stack_free, a_processors_cache_gives_back_what_it_did_not_need)
{
    test_needs_a_kernel();
    run(1, 1024 * KIB, cached, NULL);
}

static char *used_at;
static void mark_fiber(void *arg)
{
    (void)arg;
    use_stack(16 * KIB);
    used_at = (char *)__builtin_frame_address(0) - 12 * KIB;
    count_up(&waiting);
}

static bool resident(const char *p)
{
    unsigned char there = 0;
    cr_assert_eq(mincore((void *)w_align_down((uintptr_t)p, os_page_bytes()), 1, &there), 0);
    return there & 1;
}

static void needed(void *arg)
{
    (void)arg;
    char *first = NULL;
    wave_begin(20, 8 * KIB);
    wave_end();
    waiting = 0;
    for (int i = 1; i <= 12; i++) {
        cr_assert_eq(weft_go(mark_fiber, NULL), 0);
        test_until(count_now(&waiting) == i);
        weft_gc();
        if (i < 6) { /* the runtime's own fibers may not have theirs yet */
            first = used_at;
            continue;
        }
        cr_assert_eq(used_at, first, "the warmest comes first");
        test_until(kept() == 1); /* the others go */
        cr_assert(resident(first), "needed between any two of %d cycles", i);
    }
    weft_gc();
    test_until(!resident(first));
}

Test(stack_free, what_is_needed_in_each_cycle_stays)
{
    test_needs_a_kernel();
    run(1, 0, needed, NULL);
}

/* Nor does the collector's look at all stacks bring pages back. */
static void looks(void *arg)
{
    (void)arg;
    struct rusage use[2];
    int n = many();
    wave_begin(n, 256);
    wave_end();
    weft_free_os_memory();
    getrusage(RUSAGE_SELF, &use[0]);
    weft_gc();
    getrusage(RUSAGE_SELF, &use[1]);
#ifndef W_TSAN /* its own faults count, too */
    cr_assert_lt(use[1].ru_minflt - use[0].ru_minflt, n / 2, "%ld page faults with %d stacks", use[1].ru_minflt - use[0].ru_minflt, n);
#endif
}

Test(stack_free, a_collection_does_not_look_at_them)
{
    test_needs_a_kernel();
    run(1, 0, looks, NULL);
}

/* ---- while others look -------------------------------------------------------------------------------------------------------- */

static int over, ended;

static void short_life(void *arg)
{
    use_stack((size_t)(uintptr_t)arg);
    if ((uintptr_t)arg & 1)
        weft_yield();
}

static void spawning_fiber(void *arg)
{
    uintptr_t seed = (uintptr_t)arg;
    while (count_now(&over) == 0) {
        for (int i = 0; i < 100; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            weft_go(short_life, (void *)(256 + (seed >> 33) % (8 * KIB)));
        }
        weft_sleep(20 * WEFT_MICROSECOND);
    }
    count_up(&ended);
}

static void releasing_fiber(void *arg)
{
    (void)arg;
    while (count_now(&over) == 0) {
        weft_free_os_memory();
        weft_yield();
    }
    count_up(&ended);
}

static void storm(void *arg)
{
    int rounds = *(int *)arg, stay = 100;
    size_t room = 1 << 20;
    char *text = malloc(room);
    over = ended = 0;
    wave_begin(stay, 256);
    for (uintptr_t i = 1; i <= 3; i++)
        cr_assert_eq(weft_go(spawning_fiber, (void *)i), 0);
    cr_assert_eq(weft_go(releasing_fiber, NULL), 0);
    for (int r = 0; r < rounds; r++) {
        ssize_t n = weft_stack(text, room, true);
        cr_assert_gt(n, 0);
        int found = 0;
        for (const char *p = text; (p = strstr(p, "\nweft_chan_recv(...)")) != NULL; p++)
            found++;
        if ((size_t)n < room)
            cr_assert_eq(found, stay, "round %d: %d of those that wait are in the dump", r, found);
        stats();
    }
    over = 1;
    test_until(count_now(&ended) == 4);
    wave_end();
    weft_free_os_memory();
    cr_assert_eq(kept(), 0);
    free(text);
}

Test(stack_free, while_fibers_come_and_go_and_stacks_are_dumped)
{
    int rounds = test_is_slow() ? 5 : 30;
    run(4, 0, storm, &rounds);
}
