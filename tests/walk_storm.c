/* Everything at once, while all threads are interrupted a thousand times a second and walk: modules come and go, exceptions are thrown, threads are made, fibers
 * switch, children are forked, and users of walks come and go, too. Nothing hangs, nothing faults.
 *
 * Three seconds; WEFT_STORM=60 makes it a minute. */
#include "test.h"
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "base/atomic.h"
#include "prof/walk.h"
#include "sched/sched.h"

static w_u32 over;
static w_u64 rounds[8], samples, long_ones, cut_ones;
static bool goes_on(unsigned i) { return add_rlx(&rounds[i], 1), load_rlx(&over) == 0; }

/* ---- what samples ------------------------------------------------------------------------------------------- */

static void sampled(int sig, siginfo_t *info, void *uc)
{
    uintptr_t pc[WALK_MAX];
    struct m *m = m_self();
    int err = errno;
    (void)sig, (void)info;
    if (m != NULL) {
        uint32_t n = walk_signal(m, uc, pc, WALK_MAX);
        if (n == 0 || n > WALK_MAX)
            abort();
        for (uint32_t i = 0; i < n; i++)
            if (pc[i] < 4096 || pc[i] >> 47 != 0)
                abort();
        add_rlx(&samples, 1);
        add_rlx(n == 1 ? &cut_ones : &long_ones, 1);
    }
    errno = err;
}

/* A timer for each machine's thread, on its own processor time; made anew for all every 100 ms, as threads come and go. */
static void *sampler(void *arg)
{
    timer_t timer[256];
    unsigned n = 0;
    (void)arg;
    while (goes_on(0)) {
        while (n > 0)
            timer_delete(timer[--n]);
        for (struct m *m = load_acq(&sched.all_m); m != NULL && n < w_countof(timer); m = m->all_next) {
            pid_t tid = m->tid;
            struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF };
            struct itimerspec each = { { 0, 1000000 }, { 0, 1000000 } };
            ev._sigev_un._tid = tid;
            clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | 6); /* the thread's, of pthread_getcpuclockid */
            if (load_acq(&m->dead) == M_ALIVE && timer_create(clock, &ev, &timer[n]) == 0) {
                timer_settime(timer[n], 0, &each, NULL);
                n++;
            }
        }
        usleep(100000);
    }
    while (n > 0)
        timer_delete(timer[--n]);
    return NULL;
}

/* The same by the clock on the wall: threads that wait are hit, too. */
static void *shooter(void *arg)
{
    (void)arg;
    while (goes_on(1)) {
        for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next)
            if (load_acq(&m->dead) == M_ALIVE)
                syscall(SYS_tgkill, getpid(), m->tid, SIGPROF);
        usleep(1000);
    }
    return NULL;
}

static void *user(void *arg)
{
    (void)arg;
    while (goes_on(2)) {
        if (walk_use() == 0)
            usleep(30000);
        walk_unuse();
        usleep(2000);
    }
    return NULL;
}

/* ---- what is sampled -------------------------------------------------------------------------------------------- */

static void spin(void *arg) { for (volatile int i = 0; i < (int)(uintptr_t)arg; i++) {} }

static void *loader(void *arg)
{
    static const char *const mod[] = { TEST_MOD("nofp"), TEST_MOD("nofp_other"), TEST_MOD("caller") };
    (void)arg;
    while (goes_on(3))
        for (unsigned i = 0; i < w_countof(mod); i++) {
            void *so = dlopen(mod[i], i % 2 == 0 ? RTLD_NOW : RTLD_LAZY);
            void (*top)(void (*)(void *), void *, unsigned);
            *(void **)&top = so != NULL ? dlsym(so, "nofp_top") : NULL;
            weft_num_fibers(); /* attaches */
            if (top != NULL)
                top(spin, (void *)2000, i + 3);
            if (so != NULL)
                dlclose(so);
        }
    return NULL;
}

static void *short_life(void *arg)
{
    weft_yield(); /* attaches */
    spin((void *)1000);
    return arg;
}

static void *maker(void *arg)
{
    (void)arg;
    while (goes_on(4)) {
        pthread_t t;
        if (pthread_create(&t, NULL, short_life, NULL) == 0)
            pthread_join(t, NULL);
    }
    return NULL;
}

static int (*mod_throw)(int);

static void thrower(void *arg)
{
    void *pc[32];
    (void)arg;
    while (goes_on(5)) {
        if (mod_throw(6) != 7)
            abort();
        backtrace(pc, 32);
        weft_yield();
    }
}

static weft_chan *ring[2];

static void player(void *arg)
{
    int v;
    while (weft_chan_recv(ring[(uintptr_t)arg], &v) == 1) {
        spin((void *)500);
        v++;
        if (weft_chan_send(ring[1 - (uintptr_t)arg], &v) != 0)
            break;
    }
}

static void child(void *arg) { spin(arg); }

static void spawner(void *arg)
{
    (void)arg;
    while (goes_on(6)) {
        for (int i = 0; i < 20; i++)
            if (weft_go(child, (void *)300) != 0)
                abort();
        weft_sleep(50000);
    }
}

/* ---- ---------------------------------------------------------------------------------------------------------------- */

static void storm_main(void *arg)
{
    pthread_t t[6];
    void *(*fn[])(void *) = { sampler, shooter, user, loader, maker, loader };
    int64_t until = weft_now() + *(int *)arg * WEFT_SECOND;
    weft_waitgroup g = { 0 };
    int v = 0;
    struct sigaction sa = { .sa_sigaction = sampled, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
    sigaction(SIGPROF, &sa, NULL);
    ring[0] = weft_chan_make(sizeof v, 0);
    ring[1] = weft_chan_make(sizeof v, 0);
    for (unsigned i = 0; i < w_countof(t); i++)
        cr_assert_eq(pthread_create(&t[i], NULL, fn[i], NULL), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(weft_waitgroup_go(&g, thrower, NULL), 0);
        cr_assert_eq(weft_waitgroup_go(&g, spawner, NULL), 0);
        cr_assert_eq(weft_waitgroup_go(&g, player, (void *)(uintptr_t)i), 0);
    }
    weft_chan_send(ring[0], &v);
    while (weft_now() < until) {
        weft_sleep(20 * WEFT_MILLISECOND);
        weft_gc();
        pid_t pid = fork();
        if (pid == 0) {
            spin((void *)100000);
#ifndef W_ASAN /* whose malloc a child cannot count on */
            if (mod_throw(2) != 3)
                _exit(1);
#endif
            _exit(0);
        }
        int status = 0;
        weft_blocking_begin();
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        weft_blocking_end();
        cr_assert(pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %#x", status);
    }
    store_rlx(&over, 1);
    weft_chan_close(ring[0]);
    weft_chan_close(ring[1]);
    weft_waitgroup_wait(&g);
    weft_blocking_begin();
    for (unsigned i = 0; i < w_countof(t); i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    signal(SIGPROF, SIG_IGN);
}

Test(walk_storm, neither_hangs_nor_faults, SIGNALS_AT_ONCE)
{
    int seconds = getenv("WEFT_STORM") != NULL ? atoi(getenv("WEFT_STORM")) : 3;
    void *pc[4];
    void *so = dlopen(TEST_MOD("throws"), RTLD_NOW);
    cr_assert_not_null(so, "%s", dlerror());
    *(void **)&mod_throw = dlsym(so, "mod_throw");
    backtrace(pc, 4);
    test_run_procs(2, storm_main, &seconds);
    printf("%lu samples, of which %lu had only one frame; rounds:", load_rlx(&samples), load_rlx(&cut_ones));
    for (unsigned i = 0; i < w_countof(rounds); i++)
        printf(" %lu", load_rlx(&rounds[i]));
    printf("\n");
    cr_assert_gt(load_rlx(&samples), 500u);
    cr_assert_gt(load_rlx(&long_ones), load_rlx(&cut_ones) * 5);
}
