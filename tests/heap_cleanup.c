/* Cleanups: when, how often, for which pointers, stopped or not, beside finalizers, and on which fibers. */
#include "heap_test.h"
#include "sched/mutator.h"
#include <errno.h>

enum { MANY = 400, STRAY = 20 }; /* so many may be held by words on stacks that nobody wipes */

static int ran, finalized;
static weft_chan *gate;

static void count(void *arg) { count_up(arg != NULL ? arg : &ran); }
static void run(weft_fn *fn)
{
    for (int procs = 1; procs <= 4; procs *= 2) {
        ran = finalized = 0;
        test_run_procs(procs, fn, NULL);
    }
}

/* ---- when, and how often ------------------------------------------------------------------------------------------------ */

static int per_object[MANY];

static __attribute__((noinline)) void make_several(void)
{
    for (int i = 0; i < MANY; i++) {
        char *p = weft_alloc(64);
        for (int k = 0; k <= i % 5; k++)
            cr_assert_eq(weft_add_cleanup(p + 13 * k, count, &per_object[i], NULL), 0);
    }
}

/* Those of one object run one after the other, on fibers that may have to wait for a processor in between. */
static bool none_is_half_done(void)
{
    for (int i = 0; i < MANY; i++) {
        int n = count_now(&per_object[i]);
        if (n != 0 && n < i % 5 + 1)
            return false;
    }
    return true;
}

static void several(void *arg)
{
    (void)arg;
    memset(per_object, 0, sizeof per_object);
    make_several();
    int done = 0;
    test_until((collect(), done = 0, ({ for (int i = 0; i < MANY; i++) done += count_now(&per_object[i]) == i % 5 + 1; }), done >= MANY - STRAY));
    collect();
    test_until(none_is_half_done());
    collect(); /* and none comes twice */
    test_until(mutator_calls_executed(GC_CLEANUP) == gc_calls_queued(GC_CLEANUP)); /* whatever this one found */
    test_until(none_is_half_done());
    for (int i = 0; i < MANY; i++) {
        int n = count_now(&per_object[i]);
        cr_assert(n == 0 || n == i % 5 + 1, "object %d: %d of %d", i, n, i % 5 + 1);
    }
}
Test(heap_cleanup, any_number_by_any_interior_pointer_each_once) { run(several); }

static void **holders[MANY];

static __attribute__((noinline)) void make_held(void)
{
    for (int i = 0; i < MANY; i++) {
        holders[i] = weft_alloc(16);
        holders[i][0] = weft_alloc(32);
        cr_assert_eq(weft_add_cleanup(holders[i][0], count, NULL, NULL), 0);
    }
}

static void held(void *arg)
{
    (void)arg;
    make_held();
    collect();
    collect();
    weft_yield();
    cr_assert_eq(count_now(&ran), 0, "the objects are reachable");
    for (int i = 0; i < MANY; i++)
        holders[i][0] = NULL;
    test_until((collect(), count_now(&ran) >= MANY - STRAY));
    memset(holders, 0, sizeof holders);
}
Test(heap_cleanup, not_while_the_object_is_reachable) { run(held); }

/* Unlike finalizers. */
static __attribute__((noinline)) void make_cycles(void)
{
    for (int i = 0; i < MANY; i++) {
        void **a = weft_alloc(32), **b = weft_alloc(32);
        a[0] = b;
        b[0] = a;
        cr_assert_eq(weft_add_cleanup(a, count, NULL, NULL), 0);
        cr_assert_eq(weft_add_cleanup(b, count, NULL, NULL), 0);
    }
}

static void cycles(void *arg)
{
    (void)arg;
    make_cycles();
    test_until((collect(), count_now(&ran) >= 2 * (MANY - STRAY)));
}
Test(heap_cleanup, of_objects_that_point_to_each_other) { run(cycles); }

#define CROWD 50000
static __attribute__((noinline)) void make_crowd(int *once)
{
    for (int i = 0; i < CROWD; i++)
        cr_assert_eq(weft_add_cleanup(i % 2 ? weft_alloc((size_t)i % 5 * 16 + 8) : weft_alloc_noscan((size_t)i % 5 * 16 + 8), count, &once[i], NULL), 0);
}

static void crowd(void *arg)
{
    (void)arg;
    static int once[CROWD];
    memset(once, 0, sizeof once);
    make_crowd(once);
    int n;
    test_until((collect(), n = 0, ({ for (int i = 0; i < CROWD; i++) n += count_now(&once[i]) != 0; }), n >= CROWD - 50));
    for (int i = 0; i < CROWD; i++)
        cr_assert(count_now(&once[i]) <= 1, "cleanup %d ran twice", i);
}
Test(heap_cleanup, none_of_very_many_is_lost) { run(crowd); }

/* ---- what the argument may be -------------------------------------------------------------------------------------------- */

static void check_box(void *arg)
{
    struct box *b = arg;
    box_check(b, 7);
    count_up(&ran);
}

static __attribute__((noinline)) void make_with_boxes(void)
{
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_add_cleanup(weft_alloc(32), check_box, box_new(NULL, 7), NULL), 0);
}

static void with_boxes(void *arg)
{
    (void)arg;
    make_with_boxes();
    churn();
    churn();
    test_until((churn(), count_now(&ran) >= MANY - STRAY));
}
Test(heap_cleanup, the_argument_is_a_root_until_it_has_run) { run(with_boxes); }

static void refusals(void *arg)
{
    (void)arg;
    int local;
    char *p = weft_alloc(64), *big = weft_alloc(100000);
    weft_cleanup c = { 1, 2 };
    cr_expect_eq(weft_add_cleanup(NULL, count, NULL, NULL), -EINVAL);
    cr_expect_eq(weft_add_cleanup(p, NULL, NULL, NULL), -EINVAL);
    cr_expect_eq(weft_add_cleanup(&local, count, NULL, NULL), -EINVAL);
    cr_expect_eq(weft_add_cleanup(p, count, p, NULL), -ELOOP);
    cr_expect_eq(weft_add_cleanup(p + 8, count, p + 63, &c), -ELOOP);
    cr_expect_eq(weft_add_cleanup(big, count, big + 99999, NULL), -ELOOP);
    cr_expect(c.id_ == 1 && c.at_ == 2, "nothing was written");
    cr_expect_eq(weft_add_cleanup(big, count, p, &c), 0);
    cr_expect(weft_cleanup_stop(c));
    weft_keep_alive(p);
    weft_keep_alive(big);
}
Test(heap_cleanup, refusals) { run(refusals); }

/* ---- stopping -------------------------------------------------------------------------------------------------------------- */

static int kept[MANY], stopped[MANY];

static __attribute__((noinline)) void make_stopped(void)
{
    for (int i = 0; i < MANY; i++) {
        char *p = weft_alloc(64);
        weft_cleanup c[4];
        for (int k = 0; k < 4; k++)
            cr_assert_eq(weft_add_cleanup(p + k, count, k % 2 ? &kept[i] : &stopped[i], &c[k]), 0);
        cr_assert(weft_cleanup_stop(c[2]));
        cr_assert(weft_cleanup_stop(c[0]));
        cr_assert(!weft_cleanup_stop(c[0]), "stopped already");
        weft_keep_alive(p);
    }
}

static void stops(void *arg)
{
    (void)arg;
    memset(kept, 0, sizeof kept);
    memset(stopped, 0, sizeof stopped);
    make_stopped();
    int n;
    test_until((collect(), n = 0, ({ for (int i = 0; i < MANY; i++) n += count_now(&kept[i]) == 2; }), n >= MANY - STRAY));
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(count_now(&stopped[i]), 0);
    cr_assert(!weft_cleanup_stop((weft_cleanup){ 0, 0 }), "all zero");
}
Test(heap_cleanup, stopped_ones_do_not_run_and_the_others_do) { run(stops); }

static weft_cleanup late[MANY];

static __attribute__((noinline)) void make_late(void)
{
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_add_cleanup(weft_alloc(48), count, NULL, &late[i]), 0);
}

/* The handle keeps nothing; and stopping when it is too late harms nobody who lives at that address by now. */
static void stop_late(void *arg)
{
    (void)arg;
    make_late();
    test_until((collect(), count_now(&ran) >= MANY - STRAY));
    int hit = 0;
    static weft_cleanup anew[MANY];
    void *volatile objects[MANY];
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_add_cleanup(objects[i] = weft_alloc(48), count, NULL, &anew[i]), 0);
    for (int i = 0; i < MANY; i++)
        hit += weft_cleanup_stop(late[i]);
    test_until(count_now(&ran) == MANY - hit); /* each ran or was stopped */
    for (int i = 0; i < MANY; i++)
        cr_assert(weft_cleanup_stop(anew[i]));
    (void)objects[0];
}
Test(heap_cleanup, stopping_after_it_ran_does_nothing) { run(stop_late); }

/* ---- beside a finalizer ------------------------------------------------------------------------------------------------------- */

static void finalize(void *obj, void *ctx)
{
    (void)obj, (void)ctx;
    count_up(&finalized);
}

static void after_finalizer(void *arg)
{
    (void)arg;
    cr_assert(count_now(&finalized) > 0);
    count_up(&ran);
}

static __attribute__((noinline)) void make_both(void)
{
    for (int i = 0; i < MANY; i++) {
        char *p = weft_alloc(64);
        cr_assert_eq(weft_add_cleanup(p, after_finalizer, NULL, NULL), 0);
        cr_assert_eq(weft_set_finalizer(p, finalize, NULL), 0);
        cr_assert_eq(weft_add_cleanup(p, after_finalizer, NULL, NULL), 0);
    }
}

static void both(void *arg)
{
    (void)arg;
    make_both();
    test_until((collect(), count_now(&finalized) >= MANY - STRAY));
    test_until((collect(), count_now(&ran) >= 2 * (MANY - STRAY)));
    int now = count_now(&ran); /* first: both go on */
    cr_assert(now <= 2 * count_now(&finalized), "a cleanup ran before its object's finalizer");
}
Test(heap_cleanup, after_the_finalizer_and_a_second_death) { run(both); }

/* ---- the fibers that run them ---------------------------------------------------------------------------------------------------- */

static void wait_at_gate(void *arg)
{
    (void)arg;
    weft_chan_recv(gate, NULL);
    count_up(&ran);
}

static __attribute__((noinline)) void make_blocked(void)
{
    cr_assert_eq(weft_add_cleanup(weft_alloc(64), wait_at_gate, NULL, NULL), 0);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_add_cleanup(weft_alloc(64), count, NULL, NULL), 0);
}

static void side_by_side(void *arg)
{
    (void)arg;
    gate = weft_chan_make(0, 0);
    make_blocked();
    test_until((collect(), count_now(&ran) >= MANY - STRAY)); /* one blocks, and the others go on */
    weft_chan_close(gate);
}
Test(heap_cleanup, several_run_at_a_time)
{
    ran = 0;
    test_run_procs(8, side_by_side, NULL);
}

static void exits(void *arg)
{
    (void)arg;
    cr_assert_eq(errno, 0);
    errno = ENOENT;
    weft_defer(count, NULL);
    weft_exit();
}

static __attribute__((noinline)) void make_exits(void)
{
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(weft_add_cleanup(weft_alloc(64), i % 2 ? exits : count, NULL, NULL), 0);
}

static void all_exit(void *arg)
{
    (void)arg;
    int64_t fibers = weft_num_fibers();
    make_exits();
    test_until((collect(), count_now(&ran) >= MANY - STRAY));
    test_until(weft_num_fibers() == fibers); /* those of the runtime do not count, but while they run one of these */
}
Test(heap_cleanup, exit_ends_one_alone) { run(all_exit); }

static void leave_them(void *arg)
{
    (void)arg;
    gate = weft_chan_make(0, 0);
    make_blocked();
    collect();
}

Test(heap_cleanup, those_that_wait_at_the_end_do_not_run)
{
    for (int i = 0; i < 3; i++) {
        ran = 0;
        test_run_procs(2, leave_them, NULL);
        cr_assert(ran <= MANY);
    }
    run(several);
}
