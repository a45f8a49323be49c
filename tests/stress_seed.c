/* schedseed: the same seed gives the same run, and a sweep of seeds finds no lost wake-up. WEFT_TEST_SEEDS: so many seeds (tools/check.sh has many);
 * WEFT_TEST_SEED=N and WEFT_TEST_PROGRAM=name: only these. */
#include "base/probe.h"
#include "sched/sched.h"
#include "stress_programs.h"
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one run ----------------------------------------------------------------------------------------------- */

#define CHOICES_MAX 400000
#define COLLECTED UINT32_MAX /* no choice: a collection ended, and id finalizers were queued so far */
struct choice { uint32_t among, number; uint64_t id; };
struct trace { size_t n; struct choice at[CHOICES_MAX]; };

static void note(void *arg, enum probe_id id, uintptr_t a, uintptr_t b, uintptr_t c)
{
    struct trace *t = arg;
    if (t->n < CHOICES_MAX)
        t->at[t->n++] = id == PROBE_gc_end ? (struct choice){ COLLECTED, 0, gc_calls_queued(GC_FINALIZER) } : (struct choice){ (uint32_t)a, (uint32_t)b, c };
}

static int run_seed(const struct program *pr, uint64_t seed, const char *more, struct trace *t)
{
    char debug[128];
    struct rng shape;
    weft_config cfg = WEFT_CONFIG_INIT;
    snprintf(debug, sizeof debug, "schedseed=%llu%s", (unsigned long long)seed, more);
    cfg.debug = debug;
    rng_seed(&shape, seed);
    stress_wrong[0] = 0;
    long_nap_ns = WEFT_SECOND;
    if (t != NULL) {
        t->n = 0;
        cr_assert_eq(probe_listen(1ull << PROBE_seed_choice | 1ull << PROBE_gc_end, note, t), 0);
    }
    int err = weft_run(pr->fn, &shape, &cfg);
    if (t != NULL)
        probe_unlisten(note, t);
    return err;
}

/* ---- replay --------------------------------------------------------------------------------------------------- */

static struct trace first, second;

/* To the end, or till a collection kept what the other one did not ([SEED]): then its finalizer comes at another time. True: to the end. */
static bool replays(const struct program *pr, uint64_t seed, const char *more)
{
    bool kept_others = false;
    cr_assert_eq(run_seed(pr, seed, more, &first), 0);
    cr_assert_eq(run_seed(pr, seed, more, &second), 0);
    size_t n = w_min(first.n, second.n), choices = 0;
    for (size_t i = 0; i < n; i++) {
        struct choice *a = &first.at[i], *b = &second.at[i];
        if (a->among == COLLECTED && b->among == COLLECTED) {
            kept_others = kept_others || a->id != b->id;
            continue;
        }
        bool same = memcmp(a, b, sizeof *a) == 0;
        if (kept_others && !same)
            return false;
        choices++;
        cr_assert(same, "%s, seed %lu: choice %zu was %u of %u, fiber %lu; then %u of %u, fiber %lu", pr->name, (unsigned long)seed, i, a->number, a->among,
                  (unsigned long)a->id, b->number, b->among, (unsigned long)b->id);
    }
    cr_assert((first.n == second.n || kept_others) && choices > 20 && n < CHOICES_MAX, "%s, seed %lu: %zu and %zu choices", pr->name, (unsigned long)seed, first.n, second.n);
    return first.n == second.n;
}

/* Of the programs only `memory` has finalizers. */
static void expect_whole(const struct program *pr, bool whole) { cr_expect(whole || strcmp(pr->name, "memory") == 0, "%s", pr->name); }

Test(stress_seed, the_same_seed_makes_the_same_choices)
{
    for (size_t k = 0; k < w_countof(programs); k++)
        for (uint64_t seed = 1; seed <= 12; seed++)
            expect_whole(&programs[k], replays(&programs[k], seed, ""));
}

Test(stress_seed, also_with_collections_at_every_turn)
{
    for (size_t k = 0; k < w_countof(programs); k++)
        expect_whole(&programs[k], replays(&programs[k], 77 + k, ",gcstress=3"));
}

Test(stress_seed, another_seed_makes_others)
{
    for (size_t k = 0; k < w_countof(programs); k++) {
        int same = 0;
        cr_assert_eq(run_seed(&programs[k], 1, "", &first), 0);
        for (uint64_t seed = 2; seed <= 6; seed++) {
            cr_assert_eq(run_seed(&programs[k], seed, "", &second), 0);
            same += first.n == second.n && memcmp(first.at, second.at, first.n * sizeof first.at[0]) == 0;
        }
        cr_expect_eq(same, 0, "%s", programs[k].name);
    }
}

static void one_processor(void *arg)
{
    (void)arg;
    expect(weft_maxprocs(0) == 1);
    expect(weft_maxprocs(4) == 1 && weft_maxprocs(0) == 1);
}

static void a_day(void *arg)
{
    (void)arg;
    int64_t before = weft_now();
    weft_sleep(86400 * WEFT_SECOND); /* does not take one */
    expect(weft_now() - before >= 86400 * WEFT_SECOND && weft_now() - before < 86401 * WEFT_SECOND);
    int64_t until = weft_now() + 10 * WEFT_MILLISECOND;
    while (weft_now() < until) /* and time does not stand still for who only looks */
        ;
}

Test(stress_seed, one_processor_and_time_of_its_own)
{
    const struct program one = { "one", one_processor }, day = { "day", a_day };
    cr_expect_eq(run_seed(&one, 5, "", NULL), 0);
    cr_expect_eq(stress_wrong[0], 0, "%s", stress_wrong);
    int64_t before = weft_now();
    cr_expect_eq(run_seed(&day, 5, "", NULL), 0);
    cr_expect_eq(stress_wrong[0], 0, "%s", stress_wrong);
    cr_expect_lt(weft_now() - before, 3600 * WEFT_SECOND, "outside, it is the system's");
}

/* ---- the sweep ------------------------------------------------------------------------------------------------------ */

/* In a child, where no thread of the test's runner hides a deadlock: fn returns what is wrong, or NULL. */
static void in_child(const char *(*fn)(void *), void *arg)
{
    int status;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        const char *limit = getenv("TEST_CASE_TIMEOUT");
        /* before that of the test, whose process knows no seed: see over */
        alarm(limit != NULL && atoi(limit) > 10 ? (unsigned)atoi(limit) - 5 : 55);
        const char *wrong = fn(arg);
        if (wrong != NULL)
            fprintf(stderr, "%s\n", wrong);
        _exit(wrong != NULL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "see above");
}

static const struct program *swept;
static uint64_t swept_seed;

static void over(int sig)
{
    static char text[160];
    int n = snprintf(text, sizeof text, "stuck: WEFT_TEST_SEED=%llu WEFT_TEST_PROGRAM=%s, behind line %d\n", (unsigned long long)swept_seed, swept->name, stress_line);
    ssize_t written = write(2, text, (size_t)n);
    (void)written;
    signal(sig, SIG_DFL);
    raise(sig);
}

static const char *sweep_seeds(uint64_t from, uint64_t n, const char *more)
{
    static char wrong[512];
    for (swept_seed = from; swept_seed < from + n; swept_seed++) {
        int err = run_seed(swept, swept_seed, more, NULL);
        if (err == 0 && stress_wrong[0] == 0)
            continue;
        snprintf(wrong, sizeof wrong, "WEFT_TEST_SEED=%llu WEFT_TEST_PROGRAM=%s (schedseed=%llu%s): %s", (unsigned long long)swept_seed, swept->name,
                 (unsigned long long)swept_seed, more, err == -EDEADLK ? "a wake-up was lost" : err != 0 ? weft_strerror(err) : stress_wrong);
        return wrong;
    }
    return NULL;
}

static const char *sweep(void *arg)
{
    const char *only = getenv("WEFT_TEST_SEED"), *name = getenv("WEFT_TEST_PROGRAM"), *many = getenv("WEFT_TEST_SEEDS"), *wrong;
    uint64_t n = many != NULL ? strtoull(many, NULL, 0) : test_is_slow() ? 20 : 100, seed = only != NULL ? strtoull(only, NULL, 0) : 0;
    struct sigaction sa = { .sa_handler = over, .sa_flags = SA_ONSTACK };
    swept = arg;
    sigaction(SIGALRM, &sa, NULL);
    if (name != NULL && strcmp(name, swept->name) != 0)
        return NULL;
    if ((wrong = only != NULL ? sweep_seeds(seed, 1, "") : sweep_seeds(1000, n, "")) == NULL)
        wrong = only != NULL ? sweep_seeds(seed, 1, ",gcstress=5") : sweep_seeds(1, n / 8 + 1, ",gcstress=5");
    return wrong;
}

#define SWEEP(name, k) \
    Test(stress_seed, sweep_##name) { in_child(sweep, (void *)(uintptr_t)&programs[k]); }
SWEEP(chan, 0)
SWEEP(select, 1)
SWEEP(locks, 2)
SWEEP(cond, 3)
SWEEP(meet, 4)
SWEEP(time, 5)
SWEEP(threads, 6)
SWEEP(memory, 7)
SWEEP(ctx, 8)
SWEEP(pool, 9)

/* ---- what the sweep is good for: it finds these --------------------------------------------------------------------- */

/* Looks, and then waits: who adds in between finds nobody to wake. */
static struct { weft_mutex m; weft_cond c; bool there; } lost;

static void lost_waker(void *arg)
{
    (void)arg;
    weft_mutex_lock(&lost.m);
    lost.there = true;
    weft_mutex_unlock(&lost.m);
    weft_cond_signal(&lost.c);
}

static void lost_wakeup(void *arg)
{
    (void)arg;
    memset(&lost, 0, sizeof lost);
    expect(weft_go(lost_waker, NULL) == 0);
    weft_mutex_lock(&lost.m);
    bool there = lost.there;
    weft_mutex_unlock(&lost.m);
    weft_maxprocs(0); /* any call into weft */
    weft_mutex_lock(&lost.m);
    if (!there)
        weft_cond_wait(&lost.c, &lost.m);
    weft_mutex_unlock(&lost.m);
}

/* Two locks in two orders. */
static struct { weft_mutex a, b; weft_waitgroup all; } order;

static void one_way(void *arg)
{
    weft_mutex *x = arg == NULL ? &order.a : &order.b, *y = arg == NULL ? &order.b : &order.a;
    weft_mutex_lock(x);
    for (int i = 0; i < 4; i++)
        weft_maxprocs(0); /* any call into weft */
    weft_mutex_lock(y);
    weft_mutex_unlock(y);
    weft_mutex_unlock(x);
}

static void both_orders(void *arg)
{
    (void)arg;
    memset(&order, 0, sizeof order);
    start(&order.all, one_way, NULL);
    start(&order.all, one_way, &order);
    weft_waitgroup_wait(&order.all);
}

/* A count without a lock. */
static struct { weft_waitgroup all; int n; } torn;

static void tear(void *arg)
{
    (void)arg;
    int n = torn.n;
    weft_num_fibers();
    torn.n = n + 1;
}

static void torn_count(void *arg)
{
    (void)arg;
    memset(&torn, 0, sizeof torn);
    for (int i = 0; i < 3; i++)
        start(&torn.all, tear, NULL);
    weft_waitgroup_wait(&torn.all);
    expect(torn.n == 3);
}

static void quiet(void *arg, const char *line) { (void)arg, (void)line; }

static bool fails(weft_fn *fn, uint64_t seed)
{
    char debug[64];
    weft_config cfg = WEFT_CONFIG_INIT;
    struct rng shape = { seed };
    snprintf(debug, sizeof debug, "schedseed=%llu", (unsigned long long)seed);
    cfg.debug = debug;
    cfg.log = quiet;
    stress_wrong[0] = 0;
    return weft_run(fn, &shape, &cfg) == -EDEADLK || stress_wrong[0] != 0;
}

static const char *find(void *arg)
{
    weft_fn *const wrong[] = { lost_wakeup, both_orders, torn_count };
    static char text[128];
    (void)arg;
    for (unsigned k = 0; k < w_countof(wrong); k++) {
        unsigned found = 0, seeds = 60;
        for (unsigned seed = 1; seed <= seeds; seed++) {
            bool f = fails(wrong[k], seed);
            found += f;
            snprintf(text, sizeof text, "program %u, seed %u: only once", k, seed);
            if (fails(wrong[k], seed) != f)
                return text;
        }
        snprintf(text, sizeof text, "program %u: %u of %u seeds", k, found, seeds);
        if (found == 0 || found == seeds)
            return text;
    }
    return NULL;
}

Test(stress_seed, finds_what_goes_wrong_once_in_a_while_and_repeats_it)
{
    test_needs_a_kernel(); /* which tells of deadlocks */
    in_child(find, NULL);
}

/* ---- the monitor ------------------------------------------------------------------------------------------------------ */

/* How often the monitor's thread has gone to sleep; -1: it is not there. */
static long monitor_sleeps(void)
{
    char path[300], line[100];
    long n = -1;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; n < 0 && d != NULL && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
        bool its = f != NULL && fgets(line, sizeof line, f) != NULL && strcmp(line, "Name:\tweft-sysmon\n") == 0;
        while (its && n < 0 && fgets(line, sizeof line, f) != NULL)
            sscanf(line, "voluntary_ctxt_switches: %ld", &n);
        if (f != NULL)
            fclose(f);
    }
    if (d != NULL)
        closedir(d);
    return n;
}

/* It has come to sleep for good if it does not wake up for as long as twenty looks take. */
static void idles(void *arg)
{
    (void)arg;
    weft_gc(); /* without one there is no next one to be due */
    weft_blocking_begin();
    long before = -1, now = monitor_sleeps();
    for (int i = 0; i < 50 && (now < 0 || now != before); i++) { /* at first it has no name yet */
        before = now;
        usleep(200000);
        now = monitor_sleeps();
    }
    weft_blocking_end();
    expect(now > 0 && now == before);
}

Test(stress_seed, an_idle_program_is_left_alone)
{
    const struct program idle = { "idle", idles };
    gc_period_ns = 1; /* the two minutes are over */
    cr_expect_eq(run_seed(&idle, 5, "", NULL), 0);
    cr_expect_str_eq(stress_wrong, "");
}
