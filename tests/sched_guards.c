/* Guards: each bounds what a misuse costs, keeps what is left of the contract, and is off unless asked for. */
#include "test.h"
#include "sched/guard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int guards_on;
static bool on(int which) { return (guards_on & which) != 0; }

static void run_guarded(int guards, const char *debug, weft_fn *fn, void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    guards_on = guards;
    cfg.guards = guards != 0 ? guards : WEFT_GUARD_NONE;
    cfg.debug = debug;
    test_run_config(&cfg, fn, arg);
}

/* ---- weft_gc --------------------------------------------------------------------------------------------------- */

static uint32_t forced_cycles(void)
{
    weft_mem_stats m = { .size = sizeof m };
    cr_assert_eq(weft_read_mem_stats(&m), 0);
    return m.num_forced_gc;
}

static void collect_often(void *arg)
{
    for (int i = 0; i < 300; i++)
        weft_gc();
    *(uint32_t *)arg = forced_cycles();
}

Test(sched_guards, collections_that_are_forced_have_a_share_of_the_time)
{
    uint32_t with = 0, without = 0;
    run_guarded(WEFT_GUARD_GC, NULL, collect_often, &with);
    run_guarded(0, NULL, collect_often, &without);
    cr_expect_eq(without, 300, "%u", without);
    cr_expect_geq(with, 1);
    cr_expect_lt(with, 150, "%u", with);
}

static void collect_until_again(void *arg)
{
    (void)arg;
    weft_gc();
    uint32_t first = forced_cycles();
    cr_expect_eq(first, 1);
    test_until((weft_gc(), forced_cycles()) > first);
}

Test(sched_guards, a_later_call_collects_again) { run_guarded(WEFT_GUARD_GC, NULL, collect_until_again, NULL); }

enum { CHUNKS = 512, CHUNK_BYTES = 64 << 10 };

static void drop(void *arg)
{
    char **chunks = weft_alloc(CHUNKS * sizeof *chunks);
    for (int i = 0; i < CHUNKS; i++)
        memset(chunks[i] = weft_alloc_noscan(CHUNK_BYTES), 1, CHUNK_BYTES);
    weft_mem_stats m = { .size = sizeof m };
    weft_read_mem_stats(&m);
    *(uint64_t *)arg = m.heap_sys - m.heap_released;
    weft_keep_alive(chunks);
}

static void held_after(void *arg)
{
    uint64_t *held = arg; /* before and after */
    weft_waitgroup wg = { 0 };
    weft_waitgroup_go(&wg, drop, held);
    weft_waitgroup_wait(&wg);
    weft_gc();
    weft_mem_stats m = { .size = sizeof m };
    weft_read_mem_stats(&m);
    held[1] = m.heap_sys - m.heap_released;
}

Test(sched_guards, what_a_forced_collection_frees_goes_back)
{
    uint64_t with[2], without[2];
    run_guarded(WEFT_GUARD_GC, NULL, held_after, with);
    run_guarded(0, NULL, held_after, without);
    cr_expect_lt(with[1], with[0] / 4, "%llu of %llu bytes", (unsigned long long)with[1], (unsigned long long)with[0]);
    cr_expect_gt(without[1], without[0] / 2, "it went back without the guard, which is then put to no test");
}

/* ---- weft_read_mem_stats ---------------------------------------------------------------------------------------- */

static uint64_t stops(void)
{
    weft_stop_stats s;
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_MEM_STATS, &s), 0);
    return s.count;
}

static void poll_stats(void *arg)
{
    weft_mem_stats first = { .size = sizeof first }, m = first;
    int64_t began = weft_now();
    uint64_t before = stops();
    cr_assert_eq(weft_read_mem_stats(&first), 0);
    for (int i = 0; i < 2000; i++) {
        cr_assert_not_null(weft_alloc(64));
        cr_assert_eq(weft_read_mem_stats(&m), 0);
        cr_assert_eq(m.mallocs - m.frees, m.heap_objects);
    }
    uint64_t n = stops() - before, windows = (uint64_t)(weft_now() - began) / (WEFT_SECOND / 10);
    *(uint64_t *)arg = n;
    if (on(WEFT_GUARD_STATS)) {
        cr_expect_leq(n, windows + 2, "%llu stops in %llu tenths of a second", (unsigned long long)n, (unsigned long long)windows);
        test_until((weft_read_mem_stats(&m), m.mallocs) >= first.mallocs + 2000); /* they are renewed */
    }
}

Test(sched_guards, statistics_stop_the_world_ten_times_a_second_at_most)
{
    uint64_t with = 0, without = 0;
    run_guarded(WEFT_GUARD_STATS, NULL, poll_stats, &with);
    run_guarded(0, NULL, poll_stats, &without);
    cr_expect_eq(without, 2001);
}

Test(sched_guards, statistics_are_refused_as_ever_while_nothing_runs)
{
    weft_mem_stats m = { .size = sizeof m };
    uint64_t n;
    run_guarded(WEFT_GUARD_STATS, NULL, poll_stats, &n);
    cr_expect_eq(weft_read_mem_stats(&m), -ESRCH);
    m.size = 1;
    cr_expect_eq(weft_read_mem_stats(&m), -EINVAL);
}

/* ---- weft_lock_os_thread ------------------------------------------------------------------------------------------ */

enum { FIBERS = 100 };
static uint32_t locked_now, locked_most;
static int64_t let_in_since;
static uint32_t threads[FIBERS];

static void note_locked(void)
{
    uint32_t n = __atomic_add_fetch(&locked_now, 1, __ATOMIC_SEQ_CST), most = __atomic_load_n(&locked_most, __ATOMIC_SEQ_CST);
    while (n > most && !__atomic_compare_exchange_n(&locked_most, &most, n, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

static void end_locked(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    cr_assert_eq(weft_lock_os_thread(), 0); /* it nests */
    note_locked();
    threads[(uintptr_t)arg] = (uint32_t)syscall(SYS_gettid);
    weft_sleep(WEFT_MILLISECOND);
    __atomic_sub_fetch(&locked_now, 1, __ATOMIC_SEQ_CST);
}

static void unlock_in_time(void *arg)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    note_locked();
    threads[(uintptr_t)arg] = (uint32_t)syscall(SYS_gettid);
    weft_sleep(WEFT_MILLISECOND);
    __atomic_sub_fetch(&locked_now, 1, __ATOMIC_SEQ_CST);
    weft_unlock_os_thread();
    weft_unlock_os_thread(); /* at 0 it does nothing */
}

static void lock_many(weft_fn *fn)
{
    weft_waitgroup wg = { 0 };
    locked_now = locked_most = 0;
    let_in_since = weft_now();
    for (uintptr_t i = 0; i < FIBERS; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, fn, (void *)i), 0);
    weft_waitgroup_wait(&wg);
    uint32_t extra = (uint32_t)((weft_now() - let_in_since) / (10 * WEFT_MILLISECOND));
    cr_expect_leq(locked_most, 16 + extra, "%u at a time, %u turns", locked_most, extra);
}

static void lock_both(void *arg)
{
    (void)arg;
    lock_many(end_locked);
    for (int i = 0; i < FIBERS; i++)
        for (int k = 0; k < i; k++)
            cr_assert_neq(threads[i], threads[k], "a thread was used again");
    lock_many(unlock_in_time);
}

Test(sched_guards, locked_fibers_are_let_in_sixteen_at_a_time)
{
    run_guarded(WEFT_GUARD_THREADS, NULL, lock_both, NULL);
}

static weft_waitgroup all_there;

static void meet_locked(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    weft_waitgroup_done(&all_there);
    weft_waitgroup_wait(&all_there);
}

static void meet(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    weft_waitgroup_add(&all_there, 24);
    for (int i = 0; i < 24; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, meet_locked, NULL), 0);
    weft_waitgroup_wait(&wg);
}

Test(sched_guards, locked_fibers_that_wait_for_one_another_get_on) { run_guarded(WEFT_GUARD_THREADS, NULL, meet, NULL); }

static uint32_t idle_machines(void)
{
    lock_take(&sched.lock);
    uint32_t n = sched.nidle_m;
    lock_drop(&sched.lock);
    return n;
}

static void burn_one(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_waitgroup_go(&wg, end_locked, NULL), 0);
    weft_waitgroup_wait(&wg);
    test_until(idle_machines() >= GUARD_SPARES - 1); /* one may sleep in epoll, for us */
}

Test(sched_guards, threads_are_made_ahead_once_one_was_taken_along) 
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.guards = WEFT_GUARD_THREADS;
    cfg.maxprocs = 1;
    test_run_config(&cfg, burn_one, NULL);
}

static void in_child(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    cr_assert_eq(weft_lock_os_thread(), 0);
    pid_t pid = fork();
    if (pid == 0) {
        weft_unlock_os_thread();
        for (uintptr_t i = 0; i < 40; i++)
            if (weft_waitgroup_go(&wg, unlock_in_time, (void *)i) != 0)
                _exit(1);
        weft_waitgroup_wait(&wg);
        _exit(0);
    }
    weft_unlock_os_thread();
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(status, 0);
}

Test(sched_guards, a_child_of_fork_counts_anew, CHILD_GOES_ON) { run_guarded(WEFT_GUARD_ALL, NULL, in_child, NULL); }

/* ---- profiles ------------------------------------------------------------------------------------------------------- */

static void rate_one(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_set_block_profile_rate(1), 0);
    cr_assert_geq(weft_set_mutex_profile_fraction(1000), 0);
    if (on(WEFT_GUARD_PROFILES)) {
        cr_expect_gt(load_rlx(&sched_waits_one_in), 1);
        cr_expect_geq(load_rlx(&sched_unlocks_one_in), 1000);
    } else {
        cr_expect_eq(load_rlx(&sched_waits_one_in), 1);
        cr_expect_eq(load_rlx(&sched_unlocks_one_in), 1000);
    }
    cr_assert_eq(weft_set_block_profile_rate(0), 0);
    cr_assert_geq(weft_set_mutex_profile_fraction(0), 0);
}

Test(sched_guards, a_rate_is_kept_to_a_budget)
{
    run_guarded(WEFT_GUARD_PROFILES, NULL, rate_one, NULL);
    run_guarded(0, NULL, rate_one, NULL);
}

static int why_closed;
static void closed(void *arg, int why, int err)
{
    (void)arg, (void)err;
    __atomic_store_n(&why_closed, why, __ATOMIC_RELEASE);
}

static void for_ever(void *arg)
{
    (void)arg;
    weft_cpu_profile_opts o = { .size = sizeof o, .max_ns = 20 * WEFT_MILLISECOND, .unlimited = true, .closed = closed };
    cr_assert_eq(weft_cpu_profile_start_file("/dev/null", &o), 0);
    test_until(__atomic_load_n(&why_closed, __ATOMIC_ACQUIRE) == WEFT_PROFILE_TIME);
}

Test(sched_guards, no_profile_is_unlimited) { run_guarded(WEFT_GUARD_PROFILES, NULL, for_ever, NULL); }

/* ---- processors and stacks -------------------------------------------------------------------------------------------- */

static void ask_for_many(void *arg)
{
    int *n = arg;
    n[0] = weft_maxprocs(0);
    weft_maxprocs(6);
    n[1] = weft_maxprocs(0);
    weft_maxprocs(1);
    n[2] = weft_maxprocs(0);
}

Test(sched_guards, no_more_processors_than_the_quota)
{
    int n[3];
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "cpus=8,cpuquota=300";
    cfg.maxprocs = 7;
    cfg.guards = WEFT_GUARD_PROCS;
    test_run_config(&cfg, ask_for_many, n);
    cr_expect(n[0] == 3 && n[1] == 3 && n[2] == 1, "%d %d %d", n[0], n[1], n[2]);
    cfg.guards = WEFT_GUARD_NONE;
    test_run_config(&cfg, ask_for_many, n);
    cr_expect(n[0] == 7 && n[1] == 6 && n[2] == 1, "%d %d %d", n[0], n[1], n[2]);
}

static weft_chan *never;
static void wait_for_ever(void *arg) { weft_chan_recv(never, arg); }

static void cut(void *arg)
{
    (void)arg;
    char text[2048], line[64];
    never = weft_chan_make(0, 0);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(weft_go(wait_for_ever, NULL), 0);
    for (size_t len = sizeof text; len > 0; len = len * 2 / 3) {
        memset(text, 'x', sizeof text);
        ssize_t n = weft_stack(text, len, true);
        cr_assert_gt(n, 2048);
        cr_assert(memchr(text, 0, len) != NULL);
        if (len < sizeof text)
            cr_assert_eq(text[len], 'x');
        size_t said = (size_t)snprintf(line, sizeof line, "... cut here: the whole text has %zd bytes\n", n);
        bool says = strlen(text) >= said && strcmp(text + strlen(text) - said, line) == 0;
        cr_expect_eq(says, on(WEFT_GUARD_STACKS) && len > said, "%zu: %s", len, text);
        cr_expect(!says || strlen(text) == said || text[strlen(text) - said - 1] == '\n', "a line is cut");
    }
    static char whole[1 << 20];
    cr_assert_lt(weft_stack(whole, sizeof whole, true), (ssize_t)sizeof whole);
    cr_expect_null(strstr(whole, "cut here"));
}

Test(sched_guards, a_text_that_is_cut_says_so)
{
    run_guarded(WEFT_GUARD_STACKS, NULL, cut, NULL);
    run_guarded(0, NULL, cut, NULL);
}

/* ---- the setting -------------------------------------------------------------------------------------------------------- */

static void read_guards(void *arg) { *(int64_t *)arg = sched.cfg.guards; }

Test(sched_guards, are_off_unless_asked_for)
{
    int64_t guards = -1;
    weft_config cfg = WEFT_CONFIG_INIT;
    unsetenv("WEFT_DEBUG");
    test_run_config(&cfg, read_guards, &guards);
    cr_expect_eq(guards, 0);
    setenv("WEFT_DEBUG", "guard=1", 1);
    test_run_config(&cfg, read_guards, &guards);
    cr_expect_eq(guards, WEFT_GUARD_ALL);
    cfg.guards = WEFT_GUARD_GC | WEFT_GUARD_STACKS;
    test_run_config(&cfg, read_guards, &guards);
    cr_expect_eq(guards, WEFT_GUARD_GC | WEFT_GUARD_STACKS);
    cfg.guards = WEFT_GUARD_NONE;
    test_run_config(&cfg, read_guards, &guards);
    cr_expect_eq(guards, 0);
    cfg.guards = WEFT_GUARD_ALL + 1;
    cr_expect_eq(weft_run(read_guards, &guards, &cfg), -EINVAL);
}
