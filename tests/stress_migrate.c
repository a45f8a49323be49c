/* migrate=1: whoever waited or yielded goes on on another thread, unless locked to one; whatever is kept over a switch must bear that. */
#include "stress_programs.h"
#include "waiting.h"

static w_noinline int errno_now(void) { return errno; }
static w_noinline void errno_set(int e) { errno = e; }

static void run_config(int procs, const char *debug, weft_fn *fn, void *arg)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    stress_wrong[0] = 0;
    int err = weft_run(fn, arg, &cfg);
    cr_assert(err == 0 && stress_wrong[0] == 0, "%d processors, %s: %d, %s", procs, debug, err, stress_wrong);
}

/* ---- another thread each time ------------------------------------------------------------------------------ */

static struct { weft_chan *c; weft_mutex m; weft_waitgroup all; } meet_at;

/* Holds when nobody else was about: the call waited or yielded. */
#define moves(call)                       \
    do {                                  \
        long before_ = thread_now();      \
        errno_set(77);                    \
        call;                             \
        expect(thread_now() != before_);  \
        expect(errno_now() == 77);        \
    } while (0)

static void peer(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++)
        moves(weft_yield());
    for (int i = 0, v; i < 20; i++)
        moves(weft_chan_recv(meet_at.c, &v));
}

static void always_moves(void *arg)
{
    (void)arg;
    memset(&meet_at, 0, sizeof meet_at);
    meet_at.c = weft_chan_make(sizeof(int), 0);
    for (int i = 0; i < 20; i++)
        moves(weft_sleep(1000));
    start(&meet_at.all, peer, NULL);
    for (int i = 0; i < 20; i++) {
        while (receivers(meet_at.c) == 0) /* the peer waits: who sends then does not */
            weft_yield();
        expect(weft_chan_send(meet_at.c, &i) == 0);
    }
    weft_waitgroup_wait(&meet_at.all);
}

Test(stress_migrate, a_wake_up_means_another_thread) { run_config(1, "migrate=1", always_moves, NULL); }

static void stays(void *arg)
{
    long here = thread_now();
    (void)arg;
    expect(weft_lock_os_thread() == 0);
    here = thread_now();
    for (int i = 0; i < 20; i++) {
        weft_sleep(1000);
        expect(thread_now() == here);
        weft_yield();
        expect(thread_now() == here);
    }
    weft_unlock_os_thread();
    moves(weft_sleep(1000));
}

Test(stress_migrate, who_is_locked_stays)
{
    run_config(1, "migrate=1", stays, NULL);
    run_config(3, "migrate=1", stays, NULL);
}

/* ---- the programs ---------------------------------------------------------------------------------------------- */

static void all_programs(int procs, const char *debug)
{
    uint64_t seed = test_seed();
    for (size_t k = 0; k < w_countof(programs); k++)
        for (int i = 0; i < (test_is_slow() ? 1 : 5); i++) {
            struct rng r = { seed + (uint64_t)i };
            run_config(procs, debug, programs[k].fn, &r);
        }
}

Test(stress_migrate, programs_on_one_processor) { all_programs(1, "migrate=1"); }
Test(stress_migrate, programs_on_several) { all_programs(3, "migrate=1"); }
Test(stress_migrate, programs_that_collect) { all_programs(2, "migrate=1,gcstress=20"); }

/* And all at once: seeded, moved at each wake-up. */
Test(stress_migrate, programs_in_drawn_order)
{
    char debug[80];
    for (size_t k = 0; k < w_countof(programs); k++)
        for (unsigned seed = 1; seed <= (test_is_slow() ? 3u : 15u); seed++) {
            struct rng r = { seed };
            snprintf(debug, sizeof debug, "migrate=1,schedseed=%u", seed);
            run_config(1, debug, programs[k].fn, &r);
        }
}
