/* Traces of programs that run, each accepted by go tool trace: whatever the program does, and whenever the trace begins and ends. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include "base/atomic.h"
#include "base/fail.h"
#include "sched/world.h"
#include "stress_programs.h"
#include "metrics_test.h"
#include "trace/buffer.h"
#include "trace_live.h"
#include "waiting.h"

/* ---- starting and stopping --------------------------------------------------------------------------------- */

static void idle(void *arg)
{
    (void)arg;
    struct live l;
    live_start(&l);
    weft_sleep(20 * WEFT_MILLISECOND);
    live_stop(&l);
    cr_expect_geq(live_count(&l, "GoID=1 Running->Waiting Reason=\"sleep\""), 1);
    cr_expect_geq(live_count(&l, "^.weft_sleep @"), 1, "a stack begins with the public call");
    cr_expect_eq(live_count(&l, "probe_emit @"), 0);
    live_check(&l);
}
Test(trace_run, idle_program) { test_run_each(idle, NULL); }

static void errors(void *arg)
{
    (void)arg;
    struct live a, b;
    weft_trace_opts bad = { 1, 0, 0 };
    weft_trace_stats bad_stats = { 0 };
    live_open(&a);
    live_open(&b);
    cr_expect_eq(weft_trace_stop(live_write, &a, NULL), -ENOENT);
    cr_expect_eq(weft_trace_start(NULL, &a, NULL), -EINVAL);
    cr_expect_eq(weft_trace_start(live_write, &a, &bad), -EINVAL);
    cr_expect_eq(weft_trace_start(live_write, &a, NULL), 0);
    cr_expect_eq(weft_trace_start(live_write, &a, NULL), -EALREADY);
    cr_expect_eq(weft_trace_stop(live_write, &b, NULL), -ENOENT);
    cr_expect_eq(weft_trace_stop(live_write, &a, &bad_stats), -EINVAL);
    cr_expect_eq(weft_trace_start(live_write, &b, NULL), 0);
    weft_yield();
    live_stop(&b);
    weft_yield();
    live_stop(&a);
    cr_expect_eq(weft_trace_stop(live_write, &a, NULL), -ENOENT);
    cr_expect_gt(a.stats.generations, b.stats.generations);
    live_check(&a);
    live_check(&b);
}
Test(trace_run, errors_are_told) { test_run(errors, NULL); }

Test(trace_run, without_a_runtime)
{
    struct live l;
    cr_expect_eq(weft_trace_start(live_write, &l, NULL), -ESRCH);
    cr_expect_eq(weft_trace_stop(live_write, &l, NULL), -ESRCH);
}

/* ---- programs that know their outcome ------------------------------------------------------------------------ */

struct whole { const struct program *pr; uint64_t seed; struct live l; };

static void whole(void *arg)
{
    struct whole *w = arg;
    struct rng shape;
    rng_seed(&shape, w->seed);
    live_start(&w->l);
    w->pr->fn(&shape);
    live_stop(&w->l);
}

static void traced(const struct program *pr, uint64_t seed, int procs, const char *debug)
{
    struct whole w = { .pr = pr, .seed = seed };
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    cfg.stop_timeout_ms = TEST_STOP_MS;
    stress_wrong[0] = 0;
    int err = weft_run(whole, &w, &cfg);
    cr_assert(err == 0 && stress_wrong[0] == 0, "%s, seed %lu, %d processors, %s: %d, %s", pr->name, (unsigned long)seed, procs, debug, err,
              stress_wrong);
    live_check(&w.l);
}

static void all_programs(int procs, const char *debug)
{
    for (size_t i = 0; i < w_countof(programs); i++)
        traced(&programs[i], i + 1, procs, debug);
}
Test(trace_run, programs) { all_programs(0, ""); }
Test(trace_run, programs_on_one_processor) { all_programs(1, ""); }
Test(trace_run, programs_on_eight_processors) { all_programs(8, ""); }
Test(trace_run, programs_that_migrate) { all_programs(2, "migrate=1"); }
Test(trace_run, programs_by_seed) { all_programs(1, "schedseed=7"); }
Test(trace_run, programs_without_membarrier) { all_programs(2, "membarrier=0"); }
Test(trace_run, programs_that_collect_all_the_time) { all_programs(2, "gcstress=50"); }

/* ---- while others are at it -------------------------------------------------------------------------------------- */

static struct { w_u32 over; weft_chan *ends; } crowd;

static bool crowd_over(void) { return load_rlx(&crowd.over) != 0; }

/* A trace of what runs at full speed takes Go's tool a minute to read. */
static void pace(unsigned i)
{
    if (i % 16 == 15)
        weft_sleep(100000);
}

static void crowd_end(void *arg)
{
    weft_chan_send(crowd.ends, &(int){ 0 });
    (void)arg;
}

/* Sends and receives with a partner, who ends when the channel is closed. */
static void partner(void *arg)
{
    int v;
    while (weft_chan_recv(arg, &v) == 1)
        ;
    crowd_end(NULL);
}
static void chats(void *arg)
{
    weft_chan *c = weft_chan_make(sizeof(int), (size_t)(intptr_t)arg);
    weft_go(partner, c);
    for (int i = 0; !crowd_over(); i++) {
        weft_chan_send(c, &i);
        pace((unsigned)i);
    }
    weft_chan_close(c);
    crowd_end(NULL);
}

static void nothing(void *arg) { (void)arg; }
static void spawns(void *arg)
{
    weft_waitgroup wg = { 0 };
    while (!crowd_over()) {
        for (int i = 0; i < 20; i++)
            weft_waitgroup_go(&wg, nothing, arg);
        weft_waitgroup_wait(&wg);
        pace(15);
    }
    crowd_end(NULL);
}

static void sleeps(void *arg)
{
    for (uintptr_t i = 0; !crowd_over(); i++)
        weft_sleep((int64_t)(i % 3) * 50000);
    crowd_end(arg);
}

static void yields(void *arg)
{
    for (unsigned i = 0; !crowd_over(); i++) {
        weft_yield();
        pace(i);
    }
    crowd_end(arg);
}

static void blocks(void *arg)
{
    while (!crowd_over()) {
        weft_blocking_begin();
        usleep(200);
        weft_blocking_end();
        usleep(200); /* unannounced: the monitor takes the processor */
        weft_yield();
    }
    crowd_end(arg);
}

static void computes(void *arg)
{
    while (!crowd_over()) {
        for (int64_t until = weft_now() + 12 * WEFT_MILLISECOND; weft_now() < until;)
            weft_num_fibers(); /* inside whenever the monitor comes */
        for (volatile int i = 0; i < 20000000; i++)
            ;
    }
    crowd_end(arg);
}

static void locked(void *arg)
{
    while (!crowd_over()) {
        weft_lock_os_thread();
        weft_yield();
        weft_sleep(20000);
        weft_unlock_os_thread();
        weft_yield();
    }
    weft_lock_os_thread(); /* its thread ends with it */
    crowd_end(arg);
}

static void allocates(void *arg)
{
    void *volatile keep[64];
    for (unsigned i = 0; !crowd_over(); i++) {
        keep[i % 64] = weft_alloc(64 + i % 5 * 1000);
        if (i % 2000 == 0)
            weft_gc();
        pace(i);
    }
    (void)keep;
    crowd_end(arg);
}

static void resizes(void *arg)
{
    int was = weft_maxprocs(0);
    for (int i = 0; !crowd_over(); i++) {
        weft_maxprocs(1 + i % 4);
        weft_mem_stats ms = { .size = sizeof ms };
        weft_read_mem_stats(&ms);
        weft_sleep(300000);
    }
    weft_maxprocs(was);
    crowd_end(arg);
}

static void *host_calls(void *arg)
{
    weft_chan *c = arg;
    for (int i = 0; !crowd_over(); i++) {
        weft_chan_send(c, &i);
        weft_yield();
        usleep(i % 10 == 0 ? 500 : 50);
        if (i % 20 == 0)
            weft_detach();
    }
    return NULL;
}
static void hosts(void *arg)
{
    pthread_t t[2];
    weft_chan *c = weft_chan_make(sizeof(int), 1);
    int v;
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, host_calls, c);
    while (!crowd_over())
        weft_chan_recv_until(c, &v, weft_now() + WEFT_MILLISECOND);
    weft_chan_close(c);
    weft_blocking_begin();
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    crowd_end(arg);
}

static const struct { weft_fn *fn; void *arg; int ends; } members[] = {
    { chats, (void *)0, 2 }, { chats, (void *)3, 2 }, { spawns, NULL, 1 },   { sleeps, NULL, 1 }, { yields, NULL, 1 }, { blocks, NULL, 1 },
    { computes, NULL, 1 },   { locked, NULL, 1 },     { allocates, NULL, 1 }, { resizes, NULL, 1 }, { hosts, NULL, 1 },
};
static int gathered;

/* which: a bit for each of members. */
static void crowd_gather(unsigned which)
{
    store_rlx(&crowd.over, 0);
    crowd.ends = weft_chan_make(sizeof(int), 100);
    gathered = 0;
    for (size_t i = 0; i < w_countof(members); i++)
        if (which >> i & 1) {
            cr_assert_eq(weft_go(members[i].fn, members[i].arg), 0);
            gathered += members[i].ends;
        }
}

static void crowd_leave(void)
{
    store_rlx(&crowd.over, 1);
    for (int v; gathered > 0; gathered--)
        cr_assert_eq(weft_chan_recv(crowd.ends, &v), 1);
}

struct shape { unsigned which; uint64_t seed; int traces, n; struct live l[40]; };

/* Traces of random length begin at random moments, mostly one after the other, some beside one another. */
static void in_the_middle(void *arg)
{
    struct shape *s = arg;
    struct rng r;
    rng_seed(&r, s->seed);
    crowd_gather(s->which);
    for (int i = 0; i < s->traces; i++) {
        weft_sleep(rng_below(&r, 3 * WEFT_MILLISECOND));
        struct live *l = &s->l[s->n++];
        live_start(l);
        weft_sleep(rng_below(&r, 4 * WEFT_MILLISECOND));
        bool two = rng_below(&r, 4) == 0;
        if (two) {
            live_start(&s->l[s->n++]);
            weft_sleep(rng_below(&r, 2 * WEFT_MILLISECOND));
        }
        live_stop(l);
        if (two)
            live_stop(l + 1);
    }
    crowd_leave();
}

static void middle(unsigned which, int traces, int procs, const char *debug)
{
    struct shape s = { .which = which, .seed = which + 1, .traces = traces };
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    test_run_config(&cfg, in_the_middle, &s);
    for (int i = 0; i < s.n; i++)
        live_check(&s.l[i]);
}

Test(trace_run, each_by_itself_in_the_middle, .timeout = 60)
{
    for (size_t i = 0; i < w_countof(members); i++)
        middle(1u << i, 3, 2, "");
}
Test(trace_run, all_together_in_the_middle, .timeout = 60) { middle(~0u, 12, 4, ""); }
Test(trace_run, all_together_migrating, .timeout = 60) { middle(~0u, 6, 2, "migrate=1"); }
Test(trace_run, all_together_without_membarrier, .timeout = 60) { middle(~0u, 6, 2, "membarrier=0"); }

/* ---- random programs ------------------------------------------------------------------------------------------------ */

/* Processors, debug keys, who takes part, when traces begin and end: all drawn. WEFT_TEST_TRACES: so many programs; WEFT_TEST_SEED: the first one. */
Test(trace_run, random_programs, .timeout = 200)
{
    test_may_take(200);
    static const char *const debug[] = { "", "", "migrate=1", "membarrier=0", "gcstress=200", "schedseed=5" };
    const char *many = getenv("WEFT_TEST_TRACES"), *from = getenv("WEFT_TEST_SEED");
    uint64_t first = from != NULL ? strtoull(from, NULL, 0) : 1, n = many != NULL ? strtoull(many, NULL, 0) : 25;
    for (uint64_t seed = first; seed < first + n; seed++) {
        struct rng r;
        struct shape s = { .seed = seed, .traces = 3 };
        weft_config cfg = WEFT_CONFIG_INIT;
        rng_seed(&r, seed);
        s.which = rng_below(&r, 1u << w_countof(members));
        cfg.debug = debug[rng_below(&r, w_countof(debug))];
        cfg.maxprocs = 1 + (int)rng_below(&r, 5);
        if (strstr(cfg.debug, "schedseed") != NULL)
            s.which &= 0x19f; /* by the drawn clock, nobody takes a processor away from who computes */
        cr_log_info("seed %lu: members %x, %d processors, %s", (unsigned long)seed, s.which, cfg.maxprocs, cfg.debug);
        test_run_config(&cfg, in_the_middle, &s);
        for (int i = 0; i < s.n; i++)
            live_check(&s.l[i]);
    }
}

/* ---- a storm, and many that wait --------------------------------------------------------------------------------------- */

static void storm(void *arg)
{
    weft_waitgroup wg = { 0 };
    struct live l;
    live_start(&l);
    for (int k = 0; k < 100; k++) {
        for (int i = 0; i < 1000; i++)
            weft_waitgroup_go(&wg, nothing, arg);
        weft_waitgroup_wait(&wg);
    }
    live_stop(&l);
    cr_expect_eq(l.stats.dropped, 0u);
    cr_expect_geq(live_count(&l, "GoID=[0-9]+ NotExist->Runnable"), 100000);
    cr_expect_geq(live_count(&l, "GoID=[0-9]+ Running->NotExist"), 100000);
    live_check(&l);
}
Test(trace_run, storm_of_short_fibers, .timeout = 100) { test_may_take(100); test_run_procs(2, storm, NULL); }

static void waits(void *arg) { weft_chan_recv(arg, &(int){ 0 }); }

/* Half of them wait when the trace begins, half have not even started. */
static void many(void *arg)
{
#ifdef W_TSAN /* a fiber counts there as a thread, of which it bears so many */
    enum { MANY = 4000 };
#else
    enum { MANY = 20000 };
#endif
    struct live l;
    weft_chan *c = weft_chan_make(sizeof(int), 0);
    (void)arg;
    for (int i = 0; i < MANY; i++) {
        weft_go(waits, c);
        if (i == MANY / 2)
            test_until(receivers(c) >= MANY / 2);
    }
    live_start(&l);
    weft_sleep(WEFT_MILLISECOND);
    weft_chan_close(c);
    while (weft_num_fibers() > 1)
        weft_yield();
    live_stop(&l);
    cr_expect_geq(live_count(&l, "GoID=[0-9]+ Running->NotExist"), MANY);
    cr_expect_geq(live_count(&l, "GoID=[0-9]+ Undetermined->Waiting"), MANY / 2 - 2); /* one may be on its way there */
    live_check(&l);
}
Test(trace_run, begins_among_many_fibers, .timeout = 60) { test_run_procs(2, many, NULL); }

static void ends_with_its_thread(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
}

static void all_at_a_time(weft_fn *fn, int n)
{
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < n; i++)
        weft_waitgroup_go(&wg, fn, NULL);
    weft_waitgroup_wait(&wg);
}

/* What a thread knew of fibers that have ended goes to those that come after it, however much it is. */
static void threads_end(void *arg)
{
    struct live l;
    (void)arg;
    live_start(&l);
    for (int i = 0; i < 5; i++) { /* the first time it is the thread of weft_run, which stays */
        all_at_a_time(ends_with_its_thread, 1);
        all_at_a_time(nothing, 100);
    }
    live_stop(&l);
    cr_expect_geq(live_count(&l, "GoID=[0-9]+ Running->NotExist"), 505);
    live_check(&l);
}
Test(trace_run, threads_that_end) { test_run_procs(1, threads_end, NULL); }

/* With address space for few fibers: those beyond are counted, and the rest is right. */
static bool crowded(uint64_t nth)
{
    enum { MANY = 20000, LEAST = 4096 };
    struct live l;
    live_open(&l);
    fail_arm(FAIL_MEM, nth, 10); /* the table of fibers is tried with half as much each time, ten times */
    int err = weft_trace_start(live_write, &l, NULL);
    fail_disarm();
    if (err == 0) {
        all_at_a_time(nothing, MANY);
        live_stop(&l);
    } else {
        fclose(l.file);
    }
    if (err == 0 && l.stats.fibers_missed != 0) {
        cr_expect_geq(live_count(&l, "GoID=[0-9]+ Running->NotExist"), LEAST - 100);
        live_check(&l);
        return true;
    }
    unlink(l.path);
    return false;
}

static void little_room(void *arg)
{
    (void)arg;
    for (uint64_t nth = 1; nth < 40; nth++)
        if (crowded(nth))
            return;
    cr_assert_fail("the table was never small");
}
Test(trace_run, more_fibers_than_there_is_room_for) { test_run_procs(1, little_room, NULL); }

/* The handler of a crash ends a generation whatever happens then, and the process may live on. */
struct taking { bool collects; uint32_t taken; };
static void take_in_a_stop(void *arg)
{
    struct taking *t = arg;
    world_stop(WEFT_STOP_MEM_STATS, false);
    if (t->collects)
        PROBE(gc_begin, 0, 0, 0);
    t->taken = trace_take_sigsafe(WEFT_SECOND);
    if (t->taken != 0)
        trace_give_sigsafe();
    world_start();
}

static void taken_in_a_stop(void *arg)
{
    struct live a, b;
    struct taking t = { .collects = *(bool *)arg };
    uint64_t beside = metric_beside();
    live_start(&a);
    live_start(&b); /* of which it is the first generation */
    rt_enter();
    sched_on_big_stack(take_in_a_stop, &t);
    rt_leave(m_self());
    weft_gc();
    int stops = 1 + (int)(metric_beside() - beside);
    cr_assert_neq(t.taken, 0u);
    live_stop(&b);
    live_stop(&a);
    cr_expect_eq(a.stats.dropped, 1u);
    cr_expect_eq(live_count(&a, "RangeBegin .*Name=\"stop-the-world \\(GC"), stops);
    live_check(&a);
    live_check(&b);
}
Test(trace_run, generation_taken_in_a_stop) { test_run_each(taken_in_a_stop, &(bool){ false }); }
Test(trace_run, generation_taken_in_a_collection) { test_run_each(taken_in_a_stop, &(bool){ true }); }

/* ---- ends ---------------------------------------------------------------------------------------------------------------- */

static struct live left;
static void leaves_it_on(void *arg)
{
    (void)arg;
    live_start(&left);
    crowd_gather(0x1ff); /* not those that change the number of processors, or call in from outside */
    weft_sleep(3 * WEFT_MILLISECOND);
}
Test(trace_run, end_of_the_runtime_ends_it)
{
    for (int i = 0; i < 3; i++) { /* life after life */
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.maxprocs = 3;
        test_run_config(&cfg, leaves_it_on, NULL);
        store_rlx(&crowd.over, 1);
        fclose(left.file);
        live_check(&left);
    }
}

static int starts_here(void *ctx, const void *data, size_t n) { return (void)data, (void)n, *(int *)ctx += 1, 0; }

static void forks(void *arg)
{
    struct live l;
    (void)arg;
    live_start(&l);
    weft_sleep(100000);
    fflush(l.file);
    pid_t pid = fork();
    if (pid == 0) {
        int calls = 0;
        bool none = weft_trace_stop(live_write, &l, NULL) == -ENOENT;
        bool anew = weft_trace_start(starts_here, &calls, NULL) == 0;
        weft_sleep(1000);
        _exit(none && anew && weft_trace_stop(starts_here, &calls, NULL) == 0 && calls > 0 ? 0 : 1);
    }
    int status;
    weft_blocking_begin();
    waitpid(pid, &status, 0);
    weft_blocking_end();
    cr_expect_eq(status, 0);
    live_stop(&l);
    live_check(&l);
}
Test(trace_run, child_of_a_fork_is_not_traced, CHILD_GOES_ON) { test_run_procs(2, forks, NULL); }

/* ---- writers ------------------------------------------------------------------------------------------------------------- */

struct broken { int calls, fail_at; };
static int breaks(void *ctx, const void *data, size_t n)
{
    struct broken *b = ctx;
    (void)data, (void)n;
    return ++b->calls >= b->fail_at ? -EIO : 0;
}

static void fails(void *arg)
{
    struct broken b = { 0, 2 };
    struct live l;
    weft_trace_stats st = { .size = sizeof st };
    (void)arg;
    live_start(&l);
    cr_assert_eq(weft_trace_start(breaks, &b, NULL), 0);
    weft_sleep(1000);
    cr_expect_eq(weft_trace_stop(breaks, &b, &st), -EIO);
    cr_expect_geq(st.dropped, 1u);
    live_stop(&l);
    cr_expect_eq(l.stats.dropped, 0u);
    live_check(&l);
}
Test(trace_run, writer_that_fails_ends_its_trace_alone) { test_run(fails, NULL); }

struct own { int started, stopped; };
static int ends_itself(void *ctx, const void *data, size_t n)
{
    struct own *o = ctx;
    o->started = weft_trace_start(ends_itself, NULL, NULL);
    o->stopped = weft_trace_stop(ends_itself, o, NULL);
    return (void)data, (void)n, 0;
}

/* Who waits for it would wait for himself. */
static void from_a_writer(void *arg)
{
    struct own o = { 0 };
    (void)arg;
    cr_assert_eq(weft_trace_start(ends_itself, &o, NULL), 0);
    cr_expect_eq(weft_trace_stop(ends_itself, &o, NULL), 0);
    cr_expect_eq(o.started, -EDEADLK);
    cr_expect_eq(o.stopped, -EDEADLK);
}
Test(trace_run, a_writer_cannot_end_its_trace) { test_run(from_a_writer, NULL); }

/* ---- little memory, no threads ---------------------------------------------------------------------------------------------- */

static int refused;
static void refuses(void *arg)
{
    struct live l;
    (void)arg;
    live_open(&l);
    int err = weft_trace_start(live_write, &l, NULL);
    cr_assert(err == 0 || err == -ENOMEM || err == -EAGAIN, "%d", err);
    refused += err != 0;
    weft_yield();
    cr_assert_eq(weft_trace_stop(live_write, &l, NULL), err == 0 ? 0 : -ENOENT);
    fclose(l.file);
    if (err == 0)
        live_check(&l);
    unlink(l.path);
}

/* The Nth request is refused: the trace works, or does not begin and leaves nothing behind. */
static void refuse(const char *what, int from, int to)
{
    refused = 0;
    for (int i = from; i <= to; i++) {
        char debug[40];
        snprintf(debug, sizeof debug, "%s=%d", what, i);
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.debug = debug;
        cfg.maxprocs = 1;
        cfg.stop_timeout_ms = TEST_STOP_MS;
        int err = weft_run(refuses, NULL, &cfg);
        cr_assert(err == 0 || err == -ENOMEM || err == -EAGAIN || err == -EMFILE, "%s: %d", debug, err);
    }
    cr_expect_gt(refused, 0);
}
Test(trace_run, without_memory) { refuse("failmem", 1, 80); }
Test(trace_run, without_threads) { refuse("failthread", 1, 8); }
