/* What a trace says of each fiber is what the fiber did: how often and how long it waited and for what, how long it ran, with a processor or without.
 * Each looks at the clock around what it does, and that is compared with the trace of the same run. */
#include <pthread.h>
#include "base/atomic.h"
#include "trace_live.h"

#define ROUNDS 10
#define PART (3 * WEFT_MILLISECOND)
#define STUCK_NS (200 * WEFT_MILLISECOND)

enum act { SLEEPS, RECEIVES, SENDS, SELECTS, LOCKS, CONDS, GROUPS, READS, ANNOUNCES, STUCK, SPINS, ACTS };
static const char *const reasons[ACTS] = {
    [SLEEPS] = "sleep", [RECEIVES] = "chan receive", [SENDS] = "chan send", [SELECTS] = "select", [LOCKS] = "sync.Mutex.Lock",
    [CONDS] = "sync.Cond.Wait", [GROUPS] = "sync.WaitGroup.Wait", [READS] = "network",
};

static struct {
    uint64_t id[ACTS];
    int64_t took_ns[ACTS]; /* by their own clocks */
    weft_chan *chan[ACTS], *never;
    weft_mutex m;
    weft_fd *read_end;
    int write_end;
    weft_waitgroup all;
} t;

static void naps(void *arg) { weft_sleep((int64_t)(intptr_t)arg); }

static int64_t clock_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts); /* of weft nothing is called */
    return ts.tv_sec * WEFT_SECOND + ts.tv_nsec;
}

static void spin(int64_t ns)
{
    for (int64_t until = clock_now() + ns; clock_now() < until;)
        ;
}

/* One round of what it waits for. */
static void act_once(enum act a)
{
    int v = 0;
    char byte;
    weft_waitgroup wg = { 0 };
    weft_case cases[] = { { .chan = t.chan[SELECTS], .op = WEFT_RECV, .elem = &v }, { .chan = t.never, .op = WEFT_RECV, .elem = &v } };
    switch (a) {
    case SLEEPS: weft_sleep(PART); break;
    case RECEIVES: weft_chan_recv(t.chan[a], &v); break;
    case SENDS: weft_chan_send(t.chan[a], &v); break;
    case SELECTS: weft_select(cases, 2); break;
    case GROUPS:
        weft_waitgroup_go(&wg, naps, (void *)PART);
        weft_waitgroup_wait(&wg);
        break;
    case READS: cr_assert_eq(weft_read(t.read_end, &byte, 1), 1); break;
    case ANNOUNCES:
        weft_blocking_begin();
        usleep(PART / 1000);
        weft_blocking_end();
        break;
    case STUCK: usleep(STUCK_NS / 1000 / ROUNDS); break;
    default: spin(PART); break;
    }
}

static void acts(void *arg)
{
    enum act a = (enum act)(intptr_t)arg;
    t.id[a] = weft_fiber_id();
    for (int i = 0; i < ROUNDS; i++) {
        int64_t from = weft_now();
        act_once(a);
        t.took_ns[a] += weft_now() - from;
    }
}

/* Gives the fiber of act a what it waits for, each time after PART. */
static void helps(void *arg)
{
    int a = (int)(intptr_t)arg, v = 0;
    for (int i = 0; i < ROUNDS; i++) {
        weft_sleep(PART);
        if (a == RECEIVES || a == SELECTS)
            weft_chan_send(t.chan[a], &v);
        else if (a == SENDS)
            weft_chan_recv(t.chan[a], &v);
        else
            cr_assert_eq(write(t.write_end, "x", 1), 1);
    }
}

/* The fiber that locks finds it locked each time. */
static weft_chan *unlocked;
static void locks(void *arg)
{
    (void)arg;
    t.id[LOCKS] = weft_fiber_id();
    for (int i = 0; i < ROUNDS; i++) {
        int v;
        weft_chan_recv(t.chan[LOCKS], &v);
        int64_t from = weft_now();
        weft_mutex_lock(&t.m);
        t.took_ns[LOCKS] += weft_now() - from;
        weft_mutex_unlock(&t.m);
        weft_chan_send(unlocked, &v);
    }
}
static void holds(void *arg)
{
    (void)arg;
    for (int n = 0, i = 0; n < ROUNDS; n++) {
        weft_mutex_lock(&t.m);
        weft_chan_send(t.chan[LOCKS], &i);
        weft_sleep(PART);
        weft_mutex_unlock(&t.m);
        weft_chan_recv(unlocked, &i);
    }
}

static struct { weft_mutex m; weft_cond c; int given; } cond;
static void conds(void *arg)
{
    (void)arg;
    t.id[CONDS] = weft_fiber_id();
    weft_mutex_lock(&cond.m);
    for (int i = 0; i < ROUNDS; i++) {
        int64_t from = weft_now();
        while (cond.given <= i)
            weft_cond_wait(&cond.c, &cond.m);
        t.took_ns[CONDS] += weft_now() - from;
    }
    weft_mutex_unlock(&cond.m);
}
static void signals(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        weft_sleep(PART);
        weft_mutex_lock(&cond.m);
        cond.given++;
        weft_mutex_unlock(&cond.m);
        weft_cond_signal(&cond.c);
    }
}

/* Keeps processors wanted, so that who is stuck loses his. */
static void busy(void *arg)
{
    w_u32 *over = arg;
    while (load_rlx(over) == 0) {
        spin(PART / 10);
        weft_yield();
    }
}

static struct live l;

static void program(void *arg)
{
    int procs = (int)(intptr_t)arg, fds[2];
    w_u32 over = { 0 };
    weft_waitgroup others = { 0 };
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(weft_fd_open(fds[0], &t.read_end), 0);
    t.write_end = fds[1];
    for (int a = 0; a < ACTS; a++)
        t.chan[a] = weft_chan_make(sizeof(int), 0);
    t.never = weft_chan_make(sizeof(int), 0);
    unlocked = weft_chan_make(sizeof(int), 0);
    live_start(&l);
    for (intptr_t a = 0; a < ACTS; a++)
        weft_waitgroup_go(&t.all, a == LOCKS ? locks : a == CONDS ? conds : acts, (void *)a);
    const int helped[] = { RECEIVES, SENDS, SELECTS, READS };
    for (size_t i = 0; i < w_countof(helped); i++)
        weft_waitgroup_go(&t.all, helps, (void *)(intptr_t)helped[i]);
    weft_waitgroup_go(&t.all, holds, NULL);
    weft_waitgroup_go(&t.all, signals, NULL);
    for (int i = 0; i < procs; i++)
        weft_waitgroup_go(&others, busy, &over);
    weft_waitgroup_wait(&t.all);
    store_rlx(&over, 1);
    weft_waitgroup_wait(&others);
    live_stop(&l);
    weft_fd_close(t.read_end);
    close(fds[1]);
}

static void compare(void)
{
    static struct life lives[ACTS];
    for (int a = 0; a < ACTS; a++)
        lives[a].id = t.id[a];
    live_lives(&l, lives, ACTS);
    for (int a = 0; a < ACTS; a++) {
        const struct life *f = &lives[a];
        double took = (double)t.took_ns[a], runnable = (double)f->ns[RUNNABLE], running = (double)f->ns[RUNNING], syscall = (double)f->ns[SYSCALL];
        long n = 0;
        double waited = reasons[a] != NULL ? (double)life_waited(f, reasons[a], &n) : 0;
        cr_log_info("%-20s took %.2f ms; waited %.2f (%ld), runnable %.2f, running %.2f, syscall %.2f", reasons[a] ? reasons[a] : "", took / 1e6,
                    waited / 1e6, n, runnable / 1e6, running / 1e6, syscall / 1e6);
        /* What it takes is the waiting, the way back to a processor, and what runs; nothing else, and nothing twice. */
        if (reasons[a] != NULL) {
            cr_expect(waited <= took * 1.001, "%s: waited %.0f of %.0f ns", reasons[a], waited, took);
            cr_expect(waited + runnable + running + syscall >= took * 0.98, "%s: %.0f + %.0f + %.0f + %.0f of %.0f ns", reasons[a], waited, runnable,
                      running, syscall, took);
            cr_expect(n > 0 && n <= ROUNDS, "%s: %ld times", reasons[a], n); /* not each time: what it is to wait for may be there */
        } else {
            cr_expect_eq(f->ns[WAITING], 0);
            cr_expect(running + syscall + runnable >= took * 0.98, "%d: %.0f + %.0f + %.0f of %.0f ns", a, running, syscall, runnable, took);
        }
    }
    cr_expect_geq(lives[SLEEPS].ns[WAITING], ROUNDS * PART * 99 / 100);
    cr_expect_eq(lives[SLEEPS].why[0].n, ROUNDS);
    cr_expect_geq(lives[ANNOUNCES].ns[SYSCALL], ROUNDS * PART * 99 / 100);
    cr_expect_geq(lives[SPINS].ns[RUNNING] + lives[SPINS].ns[SYSCALL], ROUNDS * PART * 99 / 100);
    cr_expect_geq(lives[STUCK].ns[RUNNING] + lives[STUCK].ns[SYSCALL], STUCK_NS * 99 / 100);
    unlink(l.path);
}

static void truth(int procs)
{
    test_run_procs(procs, program, (void *)(intptr_t)procs);
    compare();
}

Test(trace_truth, on_one_processor) { truth(1); }
Test(trace_truth, on_two_processors) { truth(2); }
Test(trace_truth, on_four_processors) { truth(4); }
