/* Collections that mark beside a program of plain stores: nothing that can be reached is lost, whichever way it went meanwhile; and their stops do not
 * grow with what stays as it is. gcverify looks at each mark. */
#include "heap_test.h"
#include "metrics_test.h"
#include "base/fail.h"
#include "base/rng.h"
#include "gc/conc.h"
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <weft/metrics.h>
#include <weft/sched.h>
#include <weft/sync.h>

#define BESIDE "gc=uffd,gcverify=1"

static void run(int procs, const char *debug, weft_fn *fn)
{
    if (test_marks_beside())
        test_run_debug(procs, debug, fn, NULL);
}

static void all_beside(uint64_t before)
{
    uint64_t cycles = metric_u64("/weft/gc/beside/cycles:gc-cycles");
    cr_assert(cycles > before, "%lu collections, none of them beside the program", (unsigned long)cycles);
    cr_assert_eq(metric_u64("/weft/gc/beside/given-up:gc-cycles"), 0);
}

/* ---- a heap that is rewired all the time ------------------------------------------------------------------------------ */

enum { TABLE = 4096, MOVES = 60000 };
static struct box **table;

/* Takes a box out of one place and puts it into another, by way of a register only; now and then a fresh one. */
static void rewire(void *arg)
{
    struct rng r;
    rng_seed(&r, test_seed() + (uintptr_t)arg);
    size_t half = TABLE / 2, base = (uintptr_t)arg % 2 * half;
    for (int i = 0; i < MOVES; i++) {
        struct box **from = &table[base + rng_next(&r) % half], **to = &table[base + rng_next(&r) % half];
        struct box *b = *from;
        *from = NULL;
        if (b == NULL || i % 16 == 0)
            b = box_new(NULL, 7);
        box_check(b, 7);
        *to = b;
        if (i % 512 == 0)
            weft_yield();
    }
    busy_done();
}

static void rewired(void *arg)
{
    (void)arg;
    table = weft_alloc(TABLE * sizeof *table);
    for (int i = 0; i < TABLE; i++)
        table[i] = box_new(NULL, 7);
    busy_begin(rewire, 2);
    do
        weft_gc();
    while (count_now(&busy_running) != 0);
    for (int i = 0; i < TABLE; i++)
        if (table[i] != NULL)
            box_check(table[i], 7);
    all_beside(0);
    table = NULL;
}
Test(heap_beside, a_table_that_is_rewired, .timeout = 60) { run(1, BESIDE, rewired); }
Test(heap_beside, a_table_that_is_rewired_by_two_processors, .timeout = 60) { run(2, BESIDE, rewired); }
Test(heap_beside, a_table_that_is_rewired_with_small_heaps_at_every_turn, .timeout = 60) { run(2, BESIDE ",gcstress=1000,gcpoison=1", rewired); }

/* ---- into the stack of who waits ------------------------------------------------------------------------------------------ */

enum { CHILDREN = 8, PARENTS = 400 };

static void child(void *place)
{
    for (int i = 0; i < 4; i++)
        weft_yield();
    *(struct box **)place = box_new(NULL, 11);
}

/* What its children find is nowhere but in its own frame, and it does not run till the last one is done. */
static void parent(void *arg)
{
    struct box *volatile found[CHILDREN] = { 0 };
    weft_waitgroup wg = { 0 };
    (void)arg;
    for (int i = 0; i < CHILDREN; i++)
        weft_waitgroup_go(&wg, child, (void *)(uintptr_t)&found[i]);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < CHILDREN; i++)
        box_check(found[i], 11);
    busy_done();
}

static void parents(void *arg)
{
    (void)arg;
    busy_begin(parent, PARENTS);
    do {
        weft_gc();
        weft_yield();
    } while (count_now(&busy_running) != 0);
    all_beside(0);
}
Test(heap_beside, results_written_into_the_frame_of_who_waits, .timeout = 60)
{
    run(1, BESIDE, parents);
    run(2, BESIDE, parents);
}

/* ---- stacks that nobody touches ---------------------------------------------------------------------------------------------- */

static weft_chan *never;

static void holds_one(void *arg)
{
    struct box *b = box_new(NULL, (uintptr_t)arg);
    void *none;
    busy_done();
    weft_chan_recv(never, &none);
    box_check(b, (uintptr_t)arg);
    count_up(&busy_running);
}

static void stays(void *arg)
{
#ifdef W_TSAN /* counts fibers as threads, and knows some 8000 */
    enum { FIBERS = 4000 };
#else
    enum { FIBERS = 100000 };
#endif
    (void)arg;
    never = weft_chan_make(sizeof(void *), 0);
    busy_begin(holds_one, FIBERS);
    test_until(count_now(&busy_running) == 0);
    weft_gc();
    uint64_t before = metric_u64("/weft/gc/beside/stacks:bytes");
    weft_gc();
    uint64_t stop = metric_u64("/weft/gc/beside/stacks:bytes") - before, all = metric_u64("/gc/scan/stack:bytes");
    cr_assert(all > FIBERS * 256ul, "%lu", (unsigned long)all);
    cr_assert(stop < all / 20, "of %lu bytes of stacks %lu were scanned in a stop", (unsigned long)all, (unsigned long)stop);
    weft_chan_close(never);
    test_until(count_now(&busy_running) == FIBERS);
    never = NULL;
    all_beside(0);
}
Test(heap_beside, parked_stacks_cost_the_stop_nothing, .timeout = 60) { run(2, "gc=uffd", stays); }

/* ---- written to by the kernel, by threads of the host, in a child -------------------------------------------------------------- */

static void through_a_pipe(void *arg)
{
    int end[2];
    (void)arg;
    cr_assert_eq(pipe(end), 0);
    struct box **slots = weft_alloc(64 * sizeof *slots);
    for (int round = 0; round < 200; round++) {
        struct box *b = box_new(NULL, 3);
        cr_assert_eq(write(end[1], &b, sizeof b), (ssize_t)sizeof b);
        weft_alloc(64);
        cr_assert_eq(read(end[0], &slots[round % 64], sizeof b), (ssize_t)sizeof b);
        b = NULL;
        if (round % 8 == 0)
            weft_gc();
        for (int i = 0; i < 64 && i <= round; i++)
            box_check(slots[i], 3);
    }
    close(end[0]);
    close(end[1]);
    all_beside(0);
}
Test(heap_beside, what_read_2_writes, .timeout = 60) { run(2, BESIDE, through_a_pipe); }

static void *foreign(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    rewire(arg);
    return NULL;
}

static void with_threads(void *arg)
{
    pthread_t t[2];
    (void)arg;
    table = weft_alloc(TABLE * sizeof *table);
    for (int i = 0; i < TABLE; i++)
        table[i] = box_new(NULL, 7);
    busy_begin(NULL, 0);
    busy_running = 2;
    for (uintptr_t i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, foreign, (void *)i), 0);
    do
        weft_gc();
    while (count_now(&busy_running) != 0);
    weft_blocking_begin();
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    all_beside(0);
    table = NULL;
}
Test(heap_beside, threads_of_the_host, .timeout = 60) { run(2, BESIDE, with_threads); }

/* ---- what it asks of the system ------------------------------------------------------------------------------------------------- */

enum { SPREAD = 100000, CYCLES = 4 }; /* 2000 pages */

static void asks_seldom(void *arg)
{
    static struct box **all;
    (void)arg;
    all = weft_alloc(SPREAD * sizeof *all);
    for (int i = 0; i < SPREAD; i++)
        all[i] = weft_alloc(160);
    uint64_t cycles = metric_u64("/weft/gc/beside/cycles:gc-cycles"), requests = fail_requests(FAIL_DIRTY);
    for (int i = 0; i < CYCLES; i++)
        weft_gc();
    all_beside(cycles);
    requests = fail_requests(FAIL_DIRTY) - requests;
    cr_assert_gt(requests, CYCLES * 2);
    cr_assert_lt(requests, SPREAD * 160 / 8192, "more than one request in a cycle for each four pages"); /* neighbours are asked for at once */
    all = NULL;
}
Test(heap_beside, neighbouring_pages_are_asked_for_at_once, .timeout = 60) { run(2, "gc=uffd,faildirty=1000000000", asks_seldom); }

/* ---- what is counted, and what is not worth it -------------------------------------------------------------------------------------- */

static void globals(void *bytes)
{
    weft_gc();
    *(uint64_t *)bytes = metric_u64("/gc/scan/globals:bytes");
}

/* They are scanned twice, and the next goal depends on what they are. */
Test(heap_beside, globals_are_counted_once)
{
    uint64_t stopped = 0, beside = 0;
    test_run_debug(1, "gc=stw", globals, &stopped);
    if (test_marks_beside()) {
        test_run_debug(1, "gc=uffd", globals, &beside);
        cr_assert(beside > stopped / 2 && beside < stopped / 2 * 3, "%lu bytes, of %lu", (unsigned long)beside, (unsigned long)stopped);
    }
}

enum { TURNS = 20 };

static void churn_beside(size_t live_bytes)
{
    struct box *list = NULL, *b;
    for (size_t n = live_bytes / sizeof *b; n-- != 0; list = b)
        (b = weft_alloc(sizeof *b))->next = list;
    for (size_t n = (live_bytes + (4 << 20)) * TURNS / sizeof *b; n-- != 0;)
        weft_alloc(sizeof *b);
    weft_keep_alive(list);
}

static void small_and_large(void *arg)
{
    (void)arg;
    weft_set_gc_percent(100); /* whatever the environment says */
    churn_beside(0);
    churn_beside(1 << 20);
    cr_assert_gt(metric_u64("/gc/cycles/automatic:gc-cycles"), TURNS);
    cr_assert_eq(metric_u64("/weft/gc/beside/cycles:gc-cycles"), 0);
    churn_beside(16 << 20);
    cr_assert_gt(metric_u64("/weft/gc/beside/cycles:gc-cycles"), TURNS / 4);
}
/* A sanitizer has megabytes of globals, and with them no heap is small. */
#if defined(W_ASAN) || defined(W_TSAN)
#define SMALL_HEAPS .disabled = true
#else
#define SMALL_HEAPS .disabled = false
#endif
Test(heap_beside, small_heaps_are_marked_in_one_stop, .timeout = 60, SMALL_HEAPS) { run(1, "gc=auto,gcstress=0", small_and_large); }

/* ---- huge pages: [MEND] ------------------------------------------------------------------------------------------------------------ */

enum { COLD_BLOCKS = 8, COLD_BYTES = 8 << 20 };
static char **cold[COLD_BLOCKS];

static uint64_t mends(void)
{
    struct conc_stats s;
    conc_stats(&s);
    return s.mends;
}

/* arg: NULL waits until some are mended. */
static void becomes_cold(void *arg)
{
    for (int i = 0; i < COLD_BLOCKS; i++) {
        cold[i] = weft_alloc(COLD_BYTES);
        memset(cold[i], 0, COLD_BYTES);
    }
    for (int i = 0; i < 3; i++)
        weft_gc();
    if (arg == NULL)
        test_until(mends() >= COLD_BLOCKS);
}

Test(heap_beside, what_became_cold_is_mended_between_cycles, .timeout = 60) { run(2, "gc=uffd,gcstress=0", becomes_cold); }

/* The runtime ends, and starts again, while that is under way. */
Test(heap_beside, the_end_comes_while_it_is_mended, .timeout = 60)
{
    for (int i = 0; i < 8 && test_marks_beside(); i++) {
        int end = 0;
        test_run_debug(2, i % 2 == 0 ? "gc=uffd,gcstress=0" : "gc=uffd,gcstress=0,faildirty=20", becomes_cold, &end);
    }
}

/* ---- refused in the middle ---------------------------------------------------------------------------------------------------------- */

static void refused(void *arg)
{
    (void)arg;
    struct box **all = weft_alloc(1000 * sizeof *all);
    for (int i = 0; i < 1000; i++)
        all[i] = box_new(NULL, (uint64_t)i);
    for (int i = 0; i < 20; i++)
        weft_gc();
    for (int i = 0; i < 1000; i++)
        box_check(all[i], (uint64_t)i);
    cr_assert_gt(metric_u64("/weft/gc/beside/given-up:gc-cycles"), 0);
    cr_assert_lt(metric_u64("/weft/gc/beside/given-up:gc-cycles"), metric_u64("/weft/gc/beside/cycles:gc-cycles"), "and then it goes on");
}
Test(heap_beside, what_is_refused_in_the_middle_is_marked_in_a_stop, .timeout = 60) { run(2, BESIDE ",faildirty=40,failrun=5", refused); }
