/* Signals of a host beside ours: its handlers of the same signals are called as if we were not there, system calls go on after a stop, and whatever
 * the host sends to its threads, each stop of the world comes to its end. */
#include "test.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "os/signal.h"
#include "sched/sched.h"

static int calls, second_calls;
static struct sigaction below; /* what the second handler found */

static void count(int sig, siginfo_t *info, void *uc)
{
    (void)sig, (void)info, (void)uc;
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
}

static void count_and_chain(int sig, siginfo_t *info, void *uc)
{
    __atomic_fetch_add(&second_calls, 1, __ATOMIC_RELAXED);
    if (below.sa_flags & SA_SIGINFO)
        below.sa_sigaction(sig, info, uc);
}

static int seen(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
static int seen_second(void) { return __atomic_load_n(&second_calls, __ATOMIC_RELAXED); }

static void install(int sig, void (*fn)(int, siginfo_t *, void *), struct sigaction *old)
{
    struct sigaction sa = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK };
    cr_assert_eq(sigaction(sig, &sa, old), 0);
}

static void assert_installed(int sig, void (*fn)(int, siginfo_t *, void *))
{
    struct sigaction sa;
    cr_assert_eq(sigaction(sig, NULL, &sa), 0);
    cr_assert((sa.sa_flags & SA_SIGINFO) && sa.sa_sigaction == fn, "the handler of signal %d is not the host's", sig);
}

/* Each of n signals is seen before the next one goes out: pending ones melt into one. */
static void assert_each_is_seen(int sig, int n)
{
    for (int i = 0; i < n; i++) {
        int before = seen();
        if (i % 2 == 0)
            pthread_kill(pthread_self(), sig);
        else
            kill(getpid(), sig);
        test_until(seen() > before);
    }
}

static int64_t stops(void)
{
    weft_stop_stats st;
    cr_assert_eq(weft_read_stop_stats(WEFT_STOP_GC, &st), 0);
    return (int64_t)st.count;
}

/* ---- threads that others stop ------------------------------------------------------------------------------------- */

/* A thread of the host that is attached and spins in user code until told to end. */
struct spinner { pthread_t thread; int up, end, tid_ok; void *(*fn)(void *); };

/* ThreadSanitizer keeps a signal back until the thread calls something that it knows. */
static void spin_once(void)
{
#ifdef W_TSAN
    usleep(1);
#endif
}

static void *spin(void *arg)
{
    struct spinner *s = arg;
    cr_assert_eq(weft_attach(), 0);
    spin_once(); /* a signal that comes during a thread's first such call it loses: it makes the place for those put off twice */
    __atomic_store_n(&s->up, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&s->end, __ATOMIC_ACQUIRE) == 0)
        spin_once();
    return NULL;
}

static void spinner_start(struct spinner *s, void *(*fn)(void *))
{
    memset(s, 0, sizeof *s);
    cr_assert_eq(pthread_create(&s->thread, NULL, fn, s), 0);
    test_until(__atomic_load_n(&s->up, __ATOMIC_ACQUIRE) != 0);
}

static void spinner_end(struct spinner *s)
{
    __atomic_store_n(&s->end, 1, __ATOMIC_RELEASE);
    pthread_join(s->thread, NULL);
}

static void start(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cr_assert_eq(weft_start(&cfg), 0);
}

/* ---- chaining ------------------------------------------------------------------------------------------------------ */

Test(stop_signals, a_handler_installed_before_sees_the_hosts_signals_and_comes_back)
{
    install(SIGURG, count, NULL);
    for (int life = 0; life < 2; life++) {
        start();
        struct spinner s;
        spinner_start(&s, spin);
        assert_each_is_seen(SIGURG, 20);
        for (int i = 0; i < 20; i++) {
            int before = seen();
            pthread_kill(s.thread, SIGURG); /* to an attached thread, as a stop does it */
            test_until(seen() > before);
            weft_gc();
        }
        spinner_end(&s);
        cr_assert_eq(weft_stop(), 0);
        assert_installed(SIGURG, count);
        assert_each_is_seen(SIGURG, 4);
    }
}

Test(stop_signals, a_handler_installed_after_the_start_may_chain)
{
    install(SIGURG, count, NULL);
    start();
    install(SIGURG, count_and_chain, &below);
    struct spinner s;
    spinner_start(&s, spin);
    int64_t before = stops();
    for (int i = 0; i < 50; i++)
        weft_gc(); /* the spinner is stopped through the host's handler */
    cr_assert(stops() >= before + 50);
    cr_assert(seen_second() > 0); /* one call may serve several stops in a row */
    assert_each_is_seen(SIGURG, 20);
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
    assert_installed(SIGURG, count_and_chain); /* not ours to remove */
    assert_each_is_seen(SIGURG, 4); /* through what is left of ours */
}

/* The host's second handler chains to ours, and ours is then put in front of it again. */
Test(stop_signals, lives_of_the_runtime_and_handlers_of_the_host_alternate)
{
    install(SIGURG, count, NULL);
    for (int life = 0; life < 4; life++) {
        start();
        struct spinner s;
        spinner_start(&s, spin);
        weft_gc();
        if (life == 1)
            install(SIGURG, count_and_chain, &below);
        int second = seen_second();
        assert_each_is_seen(SIGURG, 6);
        weft_gc();
        cr_assert_eq(life > 0, seen_second() > second);
        spinner_end(&s);
        cr_assert_eq(weft_stop(), 0);
        assert_each_is_seen(SIGURG, 2);
    }
    assert_installed(SIGURG, count_and_chain);
    cr_assert_eq(sigaction(SIGURG, &below, NULL), 0); /* what it found: ours */
    for (int life = 0; life < 2; life++) {
        start();
        assert_each_is_seen(SIGURG, 6);
        cr_assert_eq(weft_stop(), 0);
        assert_installed(SIGURG, count);
    }
}

/* ---- many handlers ---------------------------------------------------------------------------------------------------- */

static struct sigaction below_third;
static void chain_third(int sig, siginfo_t *info, void *uc)
{
    if (below_third.sa_flags & SA_SIGINFO)
        below_third.sa_sigaction(sig, info, uc);
}

/* As two libraries do in one process that each find the other's handler in place of their own. */
Test(stop_signals, two_handlers_that_take_turns_in_front_leave_the_first_where_it_is)
{
    install(SIGURG, count, NULL);
    for (int life = 0; life < 20; life++) {
        start();
        if (life % 2 == 0)
            install(SIGURG, count_and_chain, &below);
        else
            install(SIGURG, chain_third, &below_third);
        assert_each_is_seen(SIGURG, 2);
        cr_assert_eq(weft_stop(), 0);
    }
    start();
    assert_each_is_seen(SIGURG, 2);
    cr_assert_eq(weft_stop(), 0);
}

/* Each of the host's handlers has a mask, and half of them flags, of its own. What is called with those of another was put together of two. The
 * library puts itself in front of one after the other while threads get signals all the time. */
#define HANDLERS 12
static int mixed_up, storm_over;

static void called(int k)
{
#ifdef W_TSAN /* it blocks all signals while it calls a handler */
    (void)k;
#else
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    for (int i = 0; i < HANDLERS; i++)
        if (i != k && sigismember(&now, SIGRTMIN + i))
            __atomic_fetch_add(&mixed_up, 1, __ATOMIC_RELAXED);
#endif
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
}

static void called_with(int k, int sig, siginfo_t *info)
{
    if (info == NULL || info->si_signo != sig)
        __atomic_fetch_add(&mixed_up, 1, __ATOMIC_RELAXED);
    called(k);
}

#define PAIR(k)                                                                   \
    static void plain_##k(int sig) { (void)sig, called(2 * k); }                  \
    static void info_##k(int sig, siginfo_t *info, void *uc) { (void)uc, called_with(2 * k + 1, sig, info); }
PAIR(0) PAIR(1) PAIR(2) PAIR(3) PAIR(4) PAIR(5)
static void (*const plain[])(int) = { plain_0, plain_1, plain_2, plain_3, plain_4, plain_5 };
static void (*const with_info[])(int, siginfo_t *, void *) = { info_0, info_1, info_2, info_3, info_4, info_5 };

static void install_kth(int sig, int k)
{
    struct sigaction sa = { .sa_flags = SA_RESTART };
    if (k % 2 == 0) {
        sa.sa_handler = plain[k / 2];
    } else {
        sa.sa_sigaction = with_info[k / 2];
        sa.sa_flags |= SA_SIGINFO;
    }
    sigaddset(&sa.sa_mask, SIGRTMIN + k);
    cr_assert_eq(sigaction(sig, &sa, NULL), 0);
}

static void *raise_all_the_time(void *arg)
{
    while (__atomic_load_n(&storm_over, __ATOMIC_ACQUIRE) == 0)
        pthread_kill(pthread_self(), SIGURG);
    return arg;
}

Test(stop_signals, handlers_are_called_as_they_were_installed_while_others_come_and_go)
{
    test_needs_a_kernel(); /* an emulator may read an action while another thread sets it */
    pthread_t t[3];
    install_kth(SIGURG, 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, raise_all_the_time, NULL), 0);
    uint64_t r = test_seed();
    for (int i = 0; i < (test_is_slow() ? 30000 : 300000); i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        install_kth(SIGURG, (int)(r >> 33) % HANDLERS);
        cr_assert_eq(signal_to_front(SIGURG), 0);
        if (r >> 60 == 0)
            signal_unhook(SIGURG);
    }
    test_until(seen() > 0);
    __atomic_store_n(&storm_over, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    cr_assert_eq(__atomic_load_n(&mixed_up, __ATOMIC_RELAXED), 0, "%d of %d calls", mixed_up, calls);
}

/* SA_RESETHAND: of the threads that get the signal at once one calls it, and it is not put back. */
#define ONCE_ROUNDS 4000
static pthread_barrier_t round_begins, round_ends;
static void *raise_in_rounds(void *arg)
{
    for (int i = 0; i < ONCE_ROUNDS; i++) {
        pthread_barrier_wait(&round_begins);
        pthread_kill(pthread_self(), SIGURG);
        pthread_barrier_wait(&round_ends);
    }
    return arg;
}

Test(stop_signals, a_handler_for_one_call_is_called_once)
{
    pthread_t t[2];
    pthread_barrier_init(&round_begins, NULL, 3);
    pthread_barrier_init(&round_ends, NULL, 3);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, raise_in_rounds, NULL), 0);
    for (int i = 0; i < ONCE_ROUNDS; i++) {
        struct sigaction sa = { .sa_sigaction = count, .sa_flags = SA_SIGINFO | (int)SA_RESETHAND };
        cr_assert_eq(sigaction(SIGURG, &sa, NULL), 0);
        cr_assert_eq(signal_to_front(SIGURG), 0);
        pthread_barrier_wait(&round_begins);
        pthread_barrier_wait(&round_ends);
        cr_assert_eq(seen(), i + 1);
        signal_unhook(SIGURG);
        cr_assert_eq(sigaction(SIGURG, NULL, &sa), 0);
        cr_assert(sa.sa_handler == SIG_DFL);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

/* ---- floods --------------------------------------------------------------------------------------------------------- */

static void flood(void (*send)(pthread_t))
{
    install(SIGURG, count, NULL);
    start();
    struct spinner s[2];
    spinner_start(&s[0], spin);
    spinner_start(&s[1], spin);
    for (int i = 0; i < 300; i++) {
        send(s[0].thread);
        weft_gc();
        send(s[1].thread);
    }
    spinner_end(&s[0]);
    spinner_end(&s[1]);
    cr_assert_eq(weft_stop(), 0);
    cr_assert(seen() > 0);
}

static void send_kill(pthread_t t) { pthread_kill(t, SIGURG); }
static void send_value(pthread_t t) { pthread_sigqueue(t, SIGURG, (union sigval){ .sival_int = 17 }); }
/* One that is pending swallows what a stop sends: it must stop the thread in its place. */
Test(stop_signals, signals_that_the_host_kills_its_threads_with) { flood(send_kill); }
Test(stop_signals, signals_that_the_host_queues_for_its_threads) { flood(send_value); }

static void *spin_with_pending(void *arg)
{
    struct spinner *s = arg;
    sigset_t set;
    cr_assert_eq(weft_attach(), 0);
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    __atomic_store_n(&s->up, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&s->end, __ATOMIC_ACQUIRE) == 0) {
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        pthread_sigqueue(pthread_self(), SIGURG, (union sigval){ 0 });
        for (volatile int i = 0; i < 20000; i++)
            ;
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
    return NULL;
}

Test(stop_signals, a_stop_whose_signal_melts_into_one_of_the_hosts)
{
    install(SIGURG, count, NULL);
    start();
    struct spinner s;
    spinner_start(&s, spin_with_pending);
    for (int i = 0; i < 300; i++)
        weft_gc();
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- masks -------------------------------------------------------------------------------------------------------------- */

static void *block_all_for_a_while(void *arg)
{
    struct spinner *s = arg;
    sigset_t all, old;
    cr_assert_eq(weft_attach(), 0);
    sigfillset(&all);
    for (int i = 0; i < 20; i++) {
        pthread_sigmask(SIG_SETMASK, &all, &old);
        __atomic_store_n(&s->up, 1, __ATOMIC_RELEASE);
        struct timespec ts = { 0, 2000000 };
        nanosleep(&ts, NULL);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    return NULL;
}

Test(stop_signals, a_stop_waits_for_a_thread_that_blocks_all_signals)
{
    start();
    struct spinner s;
    spinner_start(&s, block_all_for_a_while);
    for (int i = 0; i < 50; i++)
        weft_gc();
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
}

/* It attached with all signals blocked, as a host that has a thread for signals makes its threads. */
static void *blocked_from_birth(void *arg)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    return spin(arg);
}

Test(stop_signals, attaching_unblocks_the_stop_signal)
{
    start();
    struct spinner s;
    spinner_start(&s, blocked_from_birth);
    for (int i = 0; i < 50; i++)
        weft_gc();
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
}

/* A sigwait takes the stop's signal; the thread then computes, and is to be stopped by another one. */
static int taken_by_wait;
static void *wait_for_signals(void *arg)
{
    struct spinner *s = arg;
    sigset_t set;
    int sig;
    cr_assert_eq(weft_attach(), 0);
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    __atomic_store_n(&s->up, 1, __ATOMIC_RELEASE);
    sigwait(&set, &sig);
    __atomic_store_n(&taken_by_wait, 1, __ATOMIC_RELEASE);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    while (__atomic_load_n(&s->end, __ATOMIC_ACQUIRE) == 0)
        spin_once();
    return NULL;
}

Test(stop_signals, a_stop_whose_signal_is_taken_by_sigwait)
{
    start();
    struct spinner s;
    spinner_start(&s, wait_for_signals);
    for (int i = 0; i < 5; i++)
        weft_gc();
    cr_assert_eq(__atomic_load_n(&taken_by_wait, __ATOMIC_ACQUIRE), 1);
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- another signal ------------------------------------------------------------------------------------------------------- */

static void with_signal(int sig)
{
    install(sig, count, NULL);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.stop_signal = sig;
    cr_assert_eq(weft_start(&cfg), 0);
    struct spinner s;
    spinner_start(&s, spin);
    for (int i = 0; i < 30; i++)
        weft_gc();
    int ours = seen();
    for (int i = 0; i < 30; i++) {
        int before = seen();
        pthread_kill(s.thread, sig);
        test_until(seen() > before);
    }
    cr_assert(sig < SIGRTMIN || (ours == 0 && seen() == 30), "real-time signals are told apart exactly: %d, %d", ours, seen());
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
    assert_installed(sig, count);
}

Test(stop_signals, a_real_time_signal_of_choice) { with_signal(SIGRTMIN + 5); }
Test(stop_signals, a_signal_whose_default_would_end_the_program) { with_signal(SIGUSR1); }
Test(stop_signals, no_handler_and_a_default_that_would_end_the_program)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.stop_signal = SIGUSR2;
    cr_assert_eq(weft_start(&cfg), 0);
    struct spinner s;
    spinner_start(&s, spin);
    for (int i = 0; i < 30; i++)
        weft_gc();
    spinner_end(&s);
    cr_assert_eq(weft_stop(), 0);
}

/* ---- faults of the host ------------------------------------------------------------------------------------------------------ */

static __thread sigjmp_buf probe_from;
static __thread volatile int probing;
static char *nobody; /* a page that cannot be read */

static void jump_out(int sig, siginfo_t *info, void *uc)
{
    (void)uc;
    cr_assert(probing && sig == SIGSEGV && info->si_addr == nobody, "signal %d, code %d, at %p, probing %d", sig, info->si_code, info->si_addr, probing);
    count(sig, info, uc);
    siglongjmp(probe_from, 1);
}

/* As a host does that finds out in this way whether memory can be read. */
static __attribute__((noinline)) bool readable(volatile char *p)
{
    probing = 1;
    if (sigsetjmp(probe_from, 1) != 0) {
        probing = 0;
        return false;
    }
    (void)*p;
    probing = 0;
    return true;
}

static void probe_in_fiber(void *arg)
{
    char mine = 0;
    for (int i = 0; i < 50; i++) {
        cr_assert_not(readable(nobody));
        cr_assert(readable(&mine));
        if (i % 10 == 0)
            weft_gc();
        weft_yield();
    }
    weft_waitgroup_done(arg);
}

static void probe_everywhere(int fibers)
{
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < fibers; i++) {
        weft_waitgroup_add(&wg, 1);
        cr_assert_eq(weft_go(probe_in_fiber, &wg), 0);
    }
    for (int i = 0; i < 50; i++)
        cr_assert_not(readable(nobody));
    weft_waitgroup_wait(&wg);
    cr_assert_eq(seen(), 50 * fibers + 50);
    calls = 0;
}

static void page_that_cannot_be_read(void)
{
    nobody = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(nobody, MAP_FAILED);
}

Test(stop_signals, the_hosts_faults_are_the_hosts)
{
    page_that_cannot_be_read();
    install(SIGSEGV, jump_out, NULL);
    for (int life = 0; life < 2; life++) {
        start();
        probe_everywhere(8);
        cr_assert_eq(weft_stop(), 0);
        assert_installed(SIGSEGV, jump_out);
        cr_assert_not(readable(nobody));
        calls = 0;
    }
}

Test(stop_signals, faults_with_a_handler_installed_after_the_start)
{
    page_that_cannot_be_read();
    install(SIGSEGV, jump_out, NULL);
    start();
    install(SIGSEGV, count_and_chain, &below); /* to ours, which passes on to the first one */
    probe_everywhere(8);
    cr_assert_eq(weft_stop(), 0);
    start();
    probe_everywhere(8);
    cr_assert_eq(seen_second(), 2 * 450);
    cr_assert_eq(weft_stop(), 0);
    assert_installed(SIGSEGV, count_and_chain);
}

/* ---- system calls -------------------------------------------------------------------------------------------------------------- */

struct reading { int fd; ssize_t got; int err; bool blocking; weft_waitgroup wg; };

static void read_pipe(void *arg)
{
    struct reading *r = arg;
    char c;
    if (r->blocking)
        weft_blocking_begin();
    errno = 0;
    r->got = read(r->fd, &c, 1);
    r->err = errno;
    if (r->blocking)
        weft_blocking_end();
    weft_waitgroup_done(&r->wg);
}

static void stops_and_reads(void *arg)
{
    int p[2];
    cr_assert_eq(pipe(p), 0);
    struct reading r = { .fd = p[0], .blocking = *(bool *)arg };
    weft_waitgroup_add(&r.wg, 1);
    cr_assert_eq(weft_go(read_pipe, &r), 0);
    for (int i = 0; i < 200; i++) {
        weft_gc();
        weft_yield();
    }
    cr_assert_eq(write(p[1], "x", 1), 1);
    weft_waitgroup_wait(&r.wg);
    cr_assert(r.got == 1 && r.err == 0, "read gave %zd, errno %d", r.got, r.err);
    close(p[0]);
    close(p[1]);
}

Test(stop_signals, a_read_in_a_fiber_is_not_disturbed_by_stops, SIGNALS_AT_ONCE)
{
    for (int procs = 1; procs <= 3; procs += 2) {
        test_run_procs(procs, stops_and_reads, &(bool){ false });
        test_run_procs(procs, stops_and_reads, &(bool){ true });
    }
}

/* Calls that the kernel never restarts: announced as blocking, they are left alone. */
static void sleep_announced(void *arg)
{
    struct reading *r = arg;
    struct timespec ts = { 0, 50000000 };
    weft_blocking_begin();
    r->got = nanosleep(&ts, NULL);
    weft_blocking_end();
    weft_waitgroup_done(&r->wg);
}

static void stops_and_sleeps(void *arg)
{
    (void)arg;
    struct reading r = { .got = -1 };
    weft_waitgroup_add(&r.wg, 1);
    cr_assert_eq(weft_go(sleep_announced, &r), 0);
    while (weft_waitgroup_wait_until(&r.wg, weft_now() + WEFT_MILLISECOND) == -ETIMEDOUT)
        weft_gc();
    cr_assert_eq(r.got, 0);
}

Test(stop_signals, between_blocking_begin_and_end_no_call_is_interrupted) { test_run_procs(2, stops_and_sleeps, NULL); }

/* ---- the alternate stack --------------------------------------------------------------------------------------------------------- */

/* One that the host installs in place of ours stays when the thread detaches. */
Test(stop_signals, the_hosts_alternate_stack_stays)
{
    start();
    static char mine[65536];
    stack_t ss = { .ss_sp = mine, .ss_size = sizeof mine }, now;
    cr_assert_eq(sigaltstack(&ss, NULL), 0);
    weft_gc();
    cr_assert_eq(weft_stop(), 0);
    cr_assert_eq(sigaltstack(NULL, &now), 0);
    cr_assert(now.ss_sp == mine && !(now.ss_flags & SS_DISABLE));
}
