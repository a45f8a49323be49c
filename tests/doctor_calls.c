/* W03, W04, W06, W13: calls that are made too often from one place; and the same calls where they are fine. */
#include "doctor_test.h"

#define MS WEFT_MILLISECOND

/* Runs fn until `ms` have passed. */
struct loop { void (*fn)(void); int ms; };
static void loops(void *arg)
{
    const struct loop *l = arg;
    for (int64_t until = weft_now() + l->ms * MS; weft_now() < until;)
        l->fn();
}

static void expect_one(int code, const char *function, const char *what)
{
    const struct told *t = NULL;
    cr_assert_geq(told_of(code, &t), 1, "%d findings", said.n);
    cr_expect_eq(said.n, told_of(code, NULL), "and nothing else: %s", said.at[0].what);
    size_t n = strlen(function);
    cr_expect(strncmp(t->stack, function, n) == 0 && strncmp(t->stack + n, " at doctor_calls.c:", 19) == 0, "%s", t->stack);
    cr_expect_not_null(strstr(t->what, what), "%s", t->what);
    cr_expect_neq(t->cure[0], 0);
    cr_expect_geq(weft_doctor_count(code), 1);
}

static void expect_none(void) { cr_expect_eq(said.n, 0, "%s\n%s", said.at[0].what, said.at[0].stack); }

/* ---- W03 ---------------------------------------------------------------------------------------------------------------- */

NOINLINE static void needs_the_thread(void) { cr_assert_eq(weft_lock_os_thread(), 0); __asm__ volatile(""); }

static void forgets_to_unlock(void *arg)
{
    (void)arg;
    needs_the_thread();
}

static void unlocks(void *arg)
{
    (void)arg;
    needs_the_thread();
    weft_unlock_os_thread();
}

struct batch { weft_fn *fn; int n; };
NOINLINE static void starts_batch(void *arg)
{
    const struct batch *b = arg;
    for (int i = 0; i < b->n; i += 8) {
        weft_waitgroup wg = { 0 };
        for (int k = 0; k < 8; k++)
            cr_assert_eq(weft_waitgroup_go(&wg, b->fn, NULL), 0);
        weft_waitgroup_wait(&wg);
    }
}

Test(doctor_calls, w03_fibers_end_locked)
{
    doctor_run(starts_batch, &(struct batch){ forgets_to_unlock, 200 }, NULL, NULL);
    expect_one(WEFT_W03, "needs_the_thread", "64 fibers that were locked to their threads here ended locked within ");
    cr_expect_not_null(strstr(said.at[0].made, "starts_batch at doctor_calls.c:"), "%s", said.at[0].made);
    cr_expect_eq(weft_doctor_count(WEFT_W03), 3, "one for each 64");
}

Test(doctor_calls, w03_is_silent_where_they_unlock)
{
    doctor_run(starts_batch, &(struct batch){ unlocks, 2000 }, NULL, NULL);
    expect_none();
}

Test(doctor_calls, w03_is_silent_of_a_few_that_are_got_rid_of)
{
    doctor_run(starts_batch, &(struct batch){ forgets_to_unlock, 48 }, NULL, NULL);
    expect_none();
}

/* ---- W04 ------------------------------------------------------------------------------------------------------------------ */

static char **crowd;
static void lives(void)
{
    crowd = weft_alloc(20000 * sizeof *crowd);
    for (int i = 0; i < 20000; i++)
        crowd[i] = weft_alloc(32);
}

NOINLINE static void collects(void) { weft_gc(); __asm__ volatile(""); }

static void large_heap_collected_in_a_loop(void *arg)
{
    lives();
    loops(arg);
    weft_keep_alive(crowd);
}

Test(doctor_calls, w04_collections_in_a_loop)
{
    doctor_run(large_heap_collected_in_a_loop, &(struct loop){ collects, 2500 }, NULL, NULL);
    expect_one(WEFT_W04, "collects", " collections were forced here within ");
}

static void collects_now_and_then(void)
{
    weft_gc();
    weft_sleep(250 * MS);
}

static bool no_burst; /* they took so long that they were a loop */

static void burst_of_collections(void *arg)
{
    lives();
    int64_t began = weft_now();
    for (int i = 0; i < 12; i++)
        weft_gc();
    no_burst = weft_now() - began > 500 * MS;
    weft_sleep(1200 * MS);
    weft_gc();
    loops(arg);
    weft_keep_alive(crowd);
}

Test(doctor_calls, w04_is_silent_of_bursts_and_of_some_now_and_then)
{
    doctor_run(burst_of_collections, &(struct loop){ collects_now_and_then, 1500 }, NULL, NULL);
    if (no_burst)
        cr_skip_test("twelve collections take more than half a second here");
    expect_none();
}

/* ---- W06 -------------------------------------------------------------------------------------------------------------------- */

NOINLINE static void reads(void)
{
    weft_mem_stats *m = weft_alloc_noscan(sizeof *m);
    m->size = sizeof *m;
    cr_assert_eq(weft_read_mem_stats(m), 0);
}

static void reads_metrics(void)
{
    weft_metric m = { .name = "/memory/classes/heap/objects:bytes" };
    cr_assert_eq(weft_metrics_read(&m, 1), 0);
}

static void reads_now_and_then(void)
{
    reads();
    weft_sleep(100 * MS);
}

Test(doctor_calls, w06_statistics_read_in_a_loop)
{
    doctor_run(loops, &(struct loop){ reads, 2500 }, NULL, NULL);
    expect_one(WEFT_W06, "reads", "weft_read_mem_stats was called here ");
}

static void burst_of_reads(void *arg)
{
    int64_t began = weft_now();
    for (int i = 0; i < 150; i++)
        reads();
    no_burst = weft_now() - began > 500 * MS;
    weft_sleep(1200 * MS);
    reads();
    loops(arg);
}

Test(doctor_calls, w06_is_silent_of_bursts_and_of_some_now_and_then)
{
    doctor_run(burst_of_reads, &(struct loop){ reads_now_and_then, 1200 }, NULL, NULL);
    if (no_burst)
        cr_skip_test("150 readings take more than half a second here");
    expect_none();
}

Test(doctor_calls, w06_is_silent_of_metrics)
{
    doctor_run(loops, &(struct loop){ reads_metrics, 1500 }, NULL, NULL);
    expect_none();
}

static void *host_reads(void *arg)
{
    loops(arg);
    return NULL;
}

static void thread_that_reads(void *arg)
{
    pthread_t t;
    cr_assert_eq(pthread_create(&t, NULL, host_reads, arg), 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
}

Test(doctor_calls, w06_by_a_thread_of_the_host)
{
    doctor_run(thread_that_reads, &(struct loop){ reads, 2500 }, NULL, NULL);
    expect_one(WEFT_W06, "reads", "weft_read_mem_stats was called here ");
    cr_expect_not_null(strstr(said.at[0].stack, "\nhost_reads at doctor_calls.c:"), "%s", said.at[0].stack);
}

/* ---- W13 -------------------------------------------------------------------------------------------------------------------- */

enum { CHUNK = 1 << 20 };

static void fills(void *arg)
{
    int n = *(int *)arg;
    char **chunks = weft_alloc((size_t)n * sizeof *chunks);
    for (int i = 0; i < n; i++)
        chunks[i] = weft_alloc_noscan(CHUNK);
    weft_keep_alive(chunks);
}

enum { THEN_READ = 1, THEN_FREE = 2, THEN_FILL = 4 };
struct peak { int mib, then; };

NOINLINE static void collects_and_reads(const struct peak *p)
{
    weft_gc();
    if (p->then & THEN_READ)
        reads();
    __asm__ volatile("");
}

static void has_a_peak(void *arg)
{
    const struct peak *p = arg;
    int n = p->mib;
    weft_waitgroup wg = { 0 };
    weft_set_memory_limit(INT64_MAX);
    cr_assert_eq(weft_waitgroup_go(&wg, fills, &n), 0); /* its stack is gone afterwards, with the last pointer to the chunks */
    weft_waitgroup_wait(&wg);
    collects_and_reads(p);
    if (p->then & THEN_FREE)
        weft_free_os_memory();
    if (p->then & THEN_FILL)
        fills(&n);
}

static void peak_run(int mib, int then) { doctor_run(has_a_peak, &(struct peak){ mib, then }, NULL, NULL); }

Test(doctor_calls, w13_memory_is_read_right_after_a_collection)
{
    peak_run(256, THEN_READ);
    expect_one(WEFT_W13, "collects_and_reads", "statistics of memory were read: ");
}

Test(doctor_calls, w13_is_silent_if_it_is_given_back_or_used_or_not_read)
{
    peak_run(256, THEN_READ | THEN_FREE);
    peak_run(256, THEN_READ | THEN_FILL);
    peak_run(256, 0);
    peak_run(32, THEN_READ);
    expect_none();
}
