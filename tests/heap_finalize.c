/* Finalizers through the public calls, with fibers: order, cycles, resurrection, removal, and what the fiber that runs them may do. */
#include "heap_test.h"
#include <errno.h>

#define MANY 200

static int ran, noted, order[200000];
/* One after the other, so noted has one writer; ran goes up after order is written, for who reads both. */
static void note(void *obj, void *ctx)
{
    (void)obj;
    order[noted++] = (int)(uintptr_t)ctx;
    count_up(&ran);
}

/* Runs with all that the environment may ask for (gcstress and its like). */
static void run(weft_fn *fn)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        ran = noted = 0;
        test_run_procs(procs, fn, NULL);
    }
}

/* ---- order ---------------------------------------------------------------------------------------------------------- */

/* A -> B -> C, each with a finalizer; the number is that of the chain and the place in it. */
static __attribute__((noinline)) void make_chains(int n)
{
    for (int i = 0; i < n; i++) {
        void **a = weft_alloc(64), **b = weft_alloc(64), **c = weft_alloc(64);
        a[0] = b;
        b[0] = c;
        cr_assert_eq(weft_set_finalizer(c, note, (void *)(uintptr_t)(3 * i + 2)), 0);
        cr_assert_eq(weft_set_finalizer(b, note, (void *)(uintptr_t)(3 * i + 1)), 0);
        cr_assert_eq(weft_set_finalizer(a, note, (void *)(uintptr_t)(3 * i)), 0);
        cr_assert_eq(weft_set_finalizer(a, note, NULL), -EEXIST);
    }
}

static void chains(void *arg)
{
    (void)arg;
    static signed char next[MANY];
    memset(next, 0, sizeof next);
    make_chains(MANY);
    for (int round = 0; round < 8 && count_now(&ran) < 3 * MANY; round++) {
        collect();
        for (int i = 0; i < 100; i++)
            weft_yield();
    }
    test_until((collect(), count_now(&ran) >= 3 * MANY - 12)); /* a stale word may hold some chains */
    for (int i = 0; i < count_now(&ran); i++) {
        int chain = order[i] / 3;
        cr_assert_eq(order[i] % 3, next[chain]++, "chain %d: head first, each once", chain);
    }
}
Test(heap_finalize, what_points_comes_before_what_it_points_to) { run(chains); }

static struct track cyclic;
static __attribute__((noinline)) void make_cycles(void)
{
    for (int i = 0; i < MANY; i++) {
        void **a = weft_alloc(64), **b = weft_alloc(64), **self = weft_alloc(64), **reach = weft_alloc(64);
        a[0] = b;
        b[0] = a;
        reach[3] = self;
        weft_set_finalizer(a, note, NULL);
        weft_set_finalizer(b, note, NULL);
        weft_set_finalizer(self, note, reach); /* its ctx reaches the object: bug 1 */
        track_add(&cyclic, a);
        track_add(&cyclic, b);
        track_add(&cyclic, self);
        track_add(&cyclic, reach);
    }
}

static void cycles(void *arg)
{
    (void)arg;
    track_init(&cyclic, 4 * MANY);
    make_cycles();
    churn();
    churn();
    cr_assert_eq(count_now(&ran), 0);
    cr_assert_eq(track_live(&cyclic), cyclic.n);
    track_free(&cyclic);
}
Test(heap_finalize, a_cycle_and_an_object_that_its_ctx_reaches_stay) { run(cycles); }

/* ---- ctx, resurrection, removal ---------------------------------------------------------------------------------------- */

static void check_ctx(void *obj, void *ctx)
{
    box_check(ctx, ((struct box *)obj)->pad[0]);
    box_check(obj, ((struct box *)obj)->pad[0] + 1);
    count_up(&ran);
}

static __attribute__((noinline)) void make_with_ctx(int n)
{
    for (int i = 0; i < n; i++) {
        struct box *b = box_new(NULL, (uint64_t)i + 1);
        b->pad[0] = (uint64_t)i;
        cr_assert_eq(weft_set_finalizer(b, check_ctx, box_new(NULL, (uint64_t)i)), 0);
    }
}

static void ctx(void *arg)
{
    (void)arg;
    make_with_ctx(MANY);
    weft_lock_os_thread(); /* as good as any: nothing of this may depend on which thread collects */
    churn(); /* overwrites what was freed by mistake, while the calls wait */
    weft_unlock_os_thread();
    test_until((churn(), count_now(&ran) >= MANY - 5));
}
Test(heap_finalize, ctx_is_a_root_and_the_object_is_whole) { run(ctx); }

static struct box *saved[MANY];
static int nsaved;
static void save(void *obj, void *c)
{
    (void)c;
    saved[count_now(&nsaved)] = obj; /* finalizers run one after the other */
    count_up(&nsaved);
}

static __attribute__((noinline)) void make_to_save(struct track *t)
{
    for (int i = 0; i < MANY; i++) {
        struct box *b = box_new(t, 7);
        weft_set_finalizer(b, save, NULL);
    }
}

static void resurrection(void *arg)
{
    (void)arg;
    struct track t;
    track_init(&t, 2 * MANY);
    nsaved = 0;
    make_to_save(&t);
    test_until((collect(), count_now(&nsaved) >= MANY - 5));
    int n = count_now(&nsaved);
    churn();
    churn();
    cr_assert(count_now(&nsaved) <= MANY);
    for (int i = 0; i < n; i++) {
        box_check(saved[i], 7);
        if (i % 2 == 0)
            cr_assert_eq(weft_set_finalizer(saved[i], note, (void *)(uintptr_t)i), 0); /* may be armed again */
        saved[i] = NULL;
    }
    test_until((collect(), count_now(&ran) >= n / 2 - 5)); /* those that were, once more */
    cr_assert(count_now(&ran) <= (n + 1) / 2);
    memset(saved, 0, sizeof saved);
    collect();
    test_until((collect(), track_live(&t) <= 2 * 12));
    track_free(&t);
}
Test(heap_finalize, an_object_may_be_kept_and_armed_again) { run(resurrection); }

static __attribute__((noinline)) void make_and_remove(struct track *t)
{
    for (int i = 0; i < MANY; i++) {
        struct box *b = box_new(t, 7);
        cr_assert_eq(weft_set_finalizer(b, note, NULL), 0);
        cr_assert_eq(weft_set_finalizer(b, NULL, NULL), 0);
        cr_assert_eq(weft_set_finalizer(b, NULL, NULL), 0);
        cr_assert_eq(weft_set_finalizer(&b->pad[0], note, NULL), -EINVAL);
    }
    static int global;
    cr_assert_eq(weft_set_finalizer(&global, note, NULL), -EINVAL);
    cr_assert_eq(weft_set_finalizer(NULL, note, NULL), -EINVAL);
}

static void removal(void *arg)
{
    (void)arg;
    struct track t;
    track_init(&t, 2 * MANY);
    make_and_remove(&t);
    collect();
    cr_assert(track_live(&t) <= 10, "%zu live", track_live(&t));
    for (int i = 0; i < 50; i++)
        weft_yield();
    cr_assert_eq(count_now(&ran), 0);
    track_free(&t);
}
Test(heap_finalize, removed_and_refused) { run(removal); }

/* ---- the fiber that runs them ----------------------------------------------------------------------------------------------- */

static int inside, most_inside, blocked;
static weft_chan *gate;

static void one_at_a_time(void *obj, void *c)
{
    (void)obj;
    int n = __atomic_add_fetch(&inside, 1, __ATOMIC_ACQ_REL);
    if (n > most_inside)
        most_inside = n;
    weft_yield();
    if (c != NULL)
        weft_sleep(WEFT_MILLISECOND / 10);
    __atomic_sub_fetch(&inside, 1, __ATOMIC_ACQ_REL);
    count_up(&ran);
}

static __attribute__((noinline)) void make(int n, weft_finalizer *fn, int some)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(weft_set_finalizer(weft_alloc(48), fn, i % 10 == some ? (void *)1 : NULL), 0);
}

static void one_runner(void *arg)
{
    (void)arg;
    most_inside = inside = 0;
    int64_t fibers = weft_num_fibers();
    for (int i = 0; i < 5; i++) {
        make(MANY, one_at_a_time, 3);
        collect();
    }
    test_until((collect(), count_now(&ran) >= 5 * MANY - 10));
    test_until(weft_num_fibers() == fibers); /* it is the runtime's own */
    cr_assert_eq(most_inside, 1);
}
Test(heap_finalize, one_runs_at_a_time) { run(one_runner); }

static void block(void *obj, void *c)
{
    (void)obj, (void)c;
    __atomic_store_n(&blocked, 1, __ATOMIC_RELEASE);
    weft_chan_recv(gate, NULL);
    count_up(&ran);
}

static void blocking(void *arg)
{
    (void)arg;
    blocked = 0;
    gate = weft_chan_make(0, 0);
    make(20, block, -1);
    test_until((collect(), __atomic_load_n(&blocked, __ATOMIC_ACQUIRE) != 0));
    make(MANY, one_at_a_time, -1);
    for (int i = 0; i < 10; i++) { /* all else goes on: collections, allocation, other fibers */
        churn();
        weft_yield();
    }
    cr_assert_eq(count_now(&ran), 0, "those behind it wait");
    cr_assert_eq(weft_chan_close(gate), 0);
    test_until((collect(), count_now(&ran) >= MANY + 20 - 10));
}
Test(heap_finalize, one_that_blocks_delays_only_those_behind_it) { run(blocking); }

static void count_fiber(void *arg) { (void)arg, count_up(&ran); }

static void everything(void *obj, void *c)
{
    (void)obj;
    for (int i = 0; i < 100; i++)
        weft_alloc((size_t)i * 10);
    if (c != NULL)
        weft_gc();
    cr_assert_eq(weft_go(count_fiber, NULL), 0);
    weft_chan *ch = weft_chan_make(sizeof(int), 1);
    int v = 5;
    cr_assert_eq(weft_chan_send(ch, &v), 0);
    cr_assert_eq(weft_chan_recv(ch, &v), 1);
    cr_assert_eq(weft_set_finalizer(weft_alloc(16), note, (void *)2), 0);
}

static void busy_finalizers(void *arg)
{
    (void)arg;
    make(100, everything, 3);
    test_until((collect(), count_now(&ran) >= 2 * 95));
}
Test(heap_finalize, they_may_allocate_collect_and_start_fibers) { run(busy_finalizers); }

/* What ends the calling fiber, or is deferred to its end, is about the finalizer, not about the fiber that runs them all. */
static int deferred_ran;
static void deferred(void *arg) { (void)arg, count_up(&deferred_ran); }

static void ends_itself(void *obj, void *c)
{
    (void)obj;
    cr_assert_eq(weft_defer(deferred, NULL), 0);
    count_up(&ran);
    if (c != NULL)
        weft_exit();
}

static void leaving(void *arg)
{
    (void)arg;
    deferred_ran = 0;
    int64_t fibers = weft_num_fibers();
    make(MANY, ends_itself, 3);
    test_until((collect(), count_now(&ran) >= MANY - 5));
    test_until(count_now(&deferred_ran) == count_now(&ran));
    most_inside = inside = 0;
    make(MANY, one_at_a_time, -1);
    test_until((collect(), count_now(&ran) >= 2 * MANY - 10));
    cr_assert_eq(most_inside, 1);
    test_until(weft_num_fibers() == fibers);
}
Test(heap_finalize, weft_exit_ends_one_finalizer_and_deferred_calls_run_after_it) { run(leaving); }

/* errno and a thread lock are a finalizer's own too. */
static void leaves_traces(void *obj, void *c)
{
    (void)obj, (void)c;
    cr_assert_eq(errno, 0);
    errno = ENOENT;
    count_up(&ran);
}

static void traces(void *arg)
{
    (void)arg;
    make(MANY, leaves_traces, -1);
    test_until((collect(), count_now(&ran) >= MANY - 5));
}
Test(heap_finalize, errno_does_not_pass_from_one_to_the_next) { run(traces); }

/* ---- very many --------------------------------------------------------------------------------------------------------------------- */

#define CROWD 100000
static __attribute__((noinline)) void make_crowd(void)
{
    for (uintptr_t i = 0; i < CROWD; i++)
        cr_assert_eq(weft_set_finalizer(i % 2 ? weft_alloc(i % 5 * 16 + 8) : weft_alloc_noscan(i % 5 * 16 + 8), note, (void *)i), 0);
}

static void crowd(void *arg)
{
    (void)arg;
    static char once[CROWD];
    memset(once, 0, sizeof once);
    make_crowd();
    test_until((collect(), count_now(&ran) >= CROWD - 50));
    int n = count_now(&ran);
    cr_assert(n <= CROWD);
    for (int i = 0; i < n; i++)
        cr_assert_eq(once[order[i]]++, 0, "finalizer %d ran twice", order[i]);
}
Test(heap_finalize, a_hundred_thousand_at_once_each_once) { run(crowd); }

/* Those that wait when the runtime ends do not run, and nothing of them is left for its next life. */
static void leave_them(void *arg)
{
    (void)arg;
    gate = weft_chan_make(0, 0);
    make(10, block, -1);
    make(MANY, note, -1);
    collect();
}

Test(heap_finalize, those_that_wait_at_the_end_do_not_run)
{
    for (int i = 0; i < 3; i++) {
        ran = noted = 0;
        test_run_procs(2, leave_them, NULL);
        cr_assert(ran <= MANY); /* some may have got in before the one that blocks */
    }
    run(one_runner);
}
