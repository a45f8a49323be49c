/* The CPU profile: what it says is true, of all threads; it keeps its limits, its manners, and what was written. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/offheap.h"
#include "os/clock.h"
#include "pprof_test.h"
#include "prof/cpu.h"
#include "sched/sched.h"
#include "sched/service.h"

static struct sink to;

/* Uses so much CPU time of the calling thread. No two are equal, or the compiler would make them one. */
#define SPINNER(name, turns)                                                   \
    static __attribute__((noinline)) void name(int64_t ns)                     \
    {                                                                          \
        for (int64_t until = os_self_cpu_ns() + ns; os_self_cpu_ns() < until;) \
            for (volatile int i = 0; i < (turns); i++)                         \
                ;                                                              \
    }
SPINNER(spin_a, 1000)
SPINNER(spin_b, 1001)
SPINNER(spin_c, 1002)

#define MS INT64_C(1000000)

static const weft_cpu_profile_opts fast = { .size = sizeof fast, .hz = 1000, .flush_ms = 50 };

static void start(void) { cr_assert_eq(weft_cpu_profile_start(sink_write, &to, &fast), 0); }

static struct pp *stop(void)
{
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    return pp_decode(to.bytes, to.len);
}

/* In ns, of all samples with that function anywhere on the stack, NULL: all; and with that label, NULL: whatever they have. */
static int64_t ns_of(const struct pp *p, const char *func, const char *label)
{
    int64_t ns = 0;
    for (size_t i = 0; i < p->samples; i++) {
        const struct pp_sample *s = &p->sample[i];
        bool in = func == NULL, labelled = label == NULL;
        for (size_t k = 0; k < s->locations; k++)
            for (size_t j = 0; j < s->location[k]->lines; j++)
                in |= func != NULL && strcmp(s->location[k]->line[j].function->name, func) == 0;
        for (size_t k = 0; k < s->labels; k++)
            labelled |= label != NULL && strcmp(s->label[k].text, label) == 0;
        if (in && labelled)
            ns += s->value[1];
    }
    return ns;
}

static int drops(void *ctx, const void *data, size_t n) { (void)ctx, (void)data, (void)n; return 0; }

static bool near(int64_t a, int64_t b, double tolerance) { return a >= b * (1 - tolerance) && a <= b * (1 + tolerance); }

/* ---- truth --------------------------------------------------------------------------------------------------- */

static int64_t used[3];

/* Turns that are long against the kernel's tick, at which it looks at such timers: so a share is off by a tick per turn at most, whatever else runs. */
static void three(void *arg)
{
    (void)arg;
    start();
    for (int i = 0; i < 4; i++) {
        int64_t t0 = os_self_cpu_ns(), t1, t2;
        spin_a(300 * MS);
        t1 = os_self_cpu_ns();
        spin_b(150 * MS);
        t2 = os_self_cpu_ns();
        spin_c(50 * MS);
        used[0] += t1 - t0;
        used[1] += t2 - t1;
        used[2] += os_self_cpu_ns() - t2;
    }
    struct pp *p = stop();
    cr_assert_eq(p->types, 2u);
    cr_assert_str_eq(p->type[0].type, "samples");
    cr_assert_str_eq(p->type[1].type, "cpu");
    cr_assert_str_eq(p->type[1].unit, "nanoseconds");
    cr_assert_str_eq(p->period_type.type, "cpu");
    cr_assert_eq(p->period, 1000000);
    cr_assert_gt(p->time, 1700000000 * INT64_C(1000000000));
    int64_t all = ns_of(p, "three", NULL), sum = used[0] + used[1] + used[2], of[3] = { ns_of(p, "spin_a", NULL), ns_of(p, "spin_b", NULL),
                                                                                        ns_of(p, "spin_c", NULL) };
    cr_expect_geq(p->duration, sum, "duration %ld of %ld", (long)p->duration, (long)sum);
    cr_expect(near(all, sum, 0.02), "%ld us of %ld", (long)all / 1000, (long)sum / 1000);
    for (int i = 0; i < 3; i++) {
        double share = 100.0 * (double)of[i] / (double)all, true_share = 100.0 * (double)used[i] / (double)sum;
        cr_expect(share > true_share - 3 && share < true_share + 3, "%c: %.1f %% and not %.1f %%", 'a' + i, share, true_share);
    }
    cr_expect_eq(ns_of(p, "runtime.lostSamples", NULL), 0);
    for (size_t i = 0; i < p->samples; i++)
        cr_expect_eq(p->sample[i].value[0] * 1000000, p->sample[i].value[1]);
}

Test(prof_cpu, shares_and_their_sum_are_true, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, three, NULL); }

static void labelled(void *arg)
{
    weft_set_labels(&(weft_label){ "tenant", arg }, 1);
    spin_a(*(char *)arg == 'a' ? 400 * MS : 200 * MS);
}

static void two_tenants(void *arg)
{
    weft_waitgroup wg = { 0 };
    (void)arg;
    start();
    weft_waitgroup_go(&wg, labelled, "acme");
    weft_waitgroup_go(&wg, labelled, "other");
    weft_waitgroup_wait(&wg);
    spin_b(200 * MS);
    struct pp *p = stop();
    cr_expect(near(ns_of(p, "spin_a", "acme"), 400 * MS, 0.1), "%ld", (long)ns_of(p, "spin_a", "acme"));
    cr_expect(near(ns_of(p, "spin_a", "other"), 200 * MS, 0.1), "%ld", (long)ns_of(p, "spin_a", "other"));
    cr_expect_eq(ns_of(p, "spin_b", "acme") + ns_of(p, "spin_b", "other"), 0);
    test_until(weft_num_fibers() == 1);
}

Test(prof_cpu, labels_of_the_fiber_are_on_its_samples, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    test_run_procs(2, two_tenants, NULL);
    struct off_stats s;
    off_stats(OFF_PROF, &s);
    cr_assert_eq(s.in_use_bytes, 0u, "%lu bytes are kept", (unsigned long)s.in_use_bytes);
}

static int spin_ms;

static void *host_attached(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_attach(), 0);
    spin_b(spin_ms * MS);
    return NULL;
}

static void *host_stranger(void *arg)
{
    (void)arg;
    spin_c(spin_ms * MS);
    return NULL;
}

static void burns_its_thread(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    spin_a(spin_ms * MS);
}

/* Many are shorter than a tick of the kernel's, at which it looks at their timers. */
static void come_and_go(void *arg)
{
    (void)arg;
    start();
    for (int i = 0; i < 30; i++) {
        weft_waitgroup wg = { 0 };
        pthread_t t[2];
        spin_ms = i % 10 == 0 ? 40 : 3;
        weft_waitgroup_go(&wg, burns_its_thread, NULL);
        pthread_create(&t[0], NULL, host_attached, NULL);
        pthread_create(&t[1], NULL, host_stranger, NULL);
        weft_waitgroup_wait(&wg);
        pthread_join(t[0], NULL);
        pthread_join(t[1], NULL);
    }
    struct pp *p = stop();
    int64_t a = ns_of(p, "spin_a", NULL), b = ns_of(p, "spin_b", NULL), unknown = ns_of(p, "runtime.unknown", NULL);
    cr_expect(a > 110 * MS && b > 110 * MS, "of the long ones their stacks are known: %ld, %ld", (long)a, (long)b);
    cr_expect(near(a + b + unknown, 2 * (120 + 27 * 3) * MS, 0.2), "%ld + %ld + %ld", (long)a, (long)b, (long)unknown); /* to start and end a thread, too */
    cr_expect_eq(ns_of(p, "spin_c", NULL), 0, "strangers are not ours to interrupt");
}

Test(prof_cpu, threads_that_come_and_go, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, come_and_go, NULL); }

static void computes_outside(void *arg)
{
    (void)arg;
    weft_set_labels(&(weft_label){ "who", "blocker" }, 1);
    start();
    weft_blocking_begin();
    spin_b(200 * MS);
    weft_blocking_end();
    struct pp *p = stop();
    cr_expect(near(ns_of(p, "spin_b", "blocker"), 200 * MS, 0.1), "%ld", (long)ns_of(p, "spin_b", "blocker"));
    cr_expect(near(ns_of(p, "computes_outside", "blocker"), 200 * MS, 0.1));
}

Test(prof_cpu, between_blocking_begin_and_end, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, computes_outside, NULL); }

static void *keep[1 << 16];

static void collects(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < w_countof(keep); i++)
        keep[i] = weft_alloc(64);
    start();
    int64_t begun = os_process_cpu_ns();
    test_until(__atomic_load_n(&to.len, __ATOMIC_ACQUIRE) > 0); /* the first piece needs the program's names, which takes its time */
    int64_t t0 = os_process_cpu_ns();
    while (os_process_cpu_ns() - t0 < 1000 * MS)
        weft_gc();
    int64_t spent = os_process_cpu_ns();
    struct pp *p = stop();
    int64_t after = os_process_cpu_ns(); /* the profiler's last work, which it may have counted */
    int64_t gc = ns_of(p, "runtime.gc", NULL), all = ns_of(p, NULL, NULL), own = ns_of(p, "runtime.profiler", NULL);
    cr_expect_gt(gc, (all - own) / 2, "%ld us of %ld are the collector's", (long)gc / 1000, (long)(all - own) / 1000);
    cr_expect(all > (spent - begun) * 0.9 && all < (after - begun) * 1.1, "%ld us of %ld to %ld", (long)all / 1000, (long)(spent - begun) / 1000,
              (long)(after - begun) / 1000); /* helpers of the stops and the monitor, too */
    for (size_t i = 0; i < p->samples; i++)
        for (size_t k = 0; k + 1 < p->sample[i].locations; k++)
            cr_expect(p->sample[i].location[k]->lines == 0 || strncmp(p->sample[i].location[k]->line[0].function->name, "runtime.", 8) != 0,
                      "a frame of the runtime's own is not the outermost in %s", pp_text(&p->sample[i]));
}

Test(prof_cpu, work_of_the_runtime_is_told_apart, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, collects, NULL); }

/* ---- room ------------------------------------------------------------------------------------------------------ */

static w_u32 hold, held;

static void slow_listener(void *arg, const struct cpu_sample *s)
{
    (void)arg;
    cr_assert(s->n > 0 && s->weight > 0 && s->time_ns > 0);
    store_rel(&held, 1);
    while (load_acq(&hold) != 0)
        usleep(1000);
}

/* The helper stands still, so the ring runs full: what is not kept is counted. */
static void overflows(void *arg)
{
    (void)arg;
    store_rel(&hold, 1);
    cpu_sample_listen(slow_listener, NULL);
    cr_assert_eq(weft_cpu_profile_start(sink_write, &to, &(weft_cpu_profile_opts){ .size = sizeof fast, .hz = 10000 }), 0);
    int64_t t0 = os_self_cpu_ns();
    while (load_acq(&held) == 0)
        spin_a(MS);
    spin_a(30000 * MS / 10); /* more signals than the ring has room for, if there are 250 ticks a second */
    int64_t spent = os_self_cpu_ns() - t0;
    store_rel(&hold, 0);
    struct pp *p = stop();
    cpu_sample_listen(NULL, NULL);
    int64_t all = ns_of(p, "spin_a", NULL) + ns_of(p, "runtime.lostSamples", NULL);
    cr_expect(near(all, spent, 0.02), "%ld us of %ld", (long)all / 1000, (long)spent / 1000);
}

Test(prof_cpu, what_finds_no_room_is_counted, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, overflows, NULL); }

/* ---- manners ---------------------------------------------------------------------------------------------------- */

static w_u32 hosts, others;

static void hosts_handler(int sig, siginfo_t *info, void *uc)
{
    (void)uc;
    add_rlx(sig == SIGPROF && info->si_code == SI_KERNEL ? &hosts : &others, 1);
}

static void with_a_timer_of_the_hosts(void *arg)
{
    struct sigaction sa = { .sa_sigaction = hosts_handler, .sa_flags = SA_SIGINFO | SA_RESTART }, now;
    struct itimerval t = { { 0, 10000 }, { 0, 10000 } }, off = { { 0, 0 }, { 0, 0 } };
    (void)arg;
    cr_assert_eq(sigaction(SIGPROF, &sa, NULL), 0);
    int64_t t0 = os_process_cpu_ns();
    cr_assert_eq(setitimer(ITIMER_PROF, &t, NULL), 0);
    start();
    spin_a(1000 * MS);
    int64_t spent = os_process_cpu_ns() - t0;
    uint32_t got = load_rlx(&hosts);
    struct pp *p = stop();
    setitimer(ITIMER_PROF, &off, NULL);
    /* The kernel reckons for that timer in whole ticks, and of two signals that come while no thread gets to run its handler, one vanishes. */
    cr_expect(near((int64_t)got * 10 * MS, spent, 0.5), "the host's timer came %u times in %ld ms", got, (long)(spent / MS));
    cr_expect_eq(load_rlx(&others), 0u, "the host got %u of ours", load_rlx(&others));
    cr_expect(near(ns_of(p, "spin_a", NULL), 1000 * MS, 0.05), "%ld", (long)ns_of(p, "spin_a", NULL));
    raise(SIGPROF);
    cr_expect_eq(load_rlx(&others), 1u, "its own still reach it");
    sigaction(SIGPROF, NULL, &now);
}

Test(prof_cpu, a_host_that_uses_the_signal_keeps_it, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    struct sigaction now;
    test_run_procs(2, with_a_timer_of_the_hosts, NULL);
    cr_assert_eq(sigaction(SIGPROF, NULL, &now), 0);
    cr_assert(now.sa_sigaction == hosts_handler, "its handler is in place again");
}

static int pipe_fds[2];
static w_u32 no_descriptor, on_services;

static void writes_to_a_pipe(int sig)
{
    int err = errno;
    (void)sig;
    if (write(pipe_fds[1], "", 1) < 0 && errno == EBADF)
        add_rlx(&no_descriptor, 1);
    add_rlx(service_self() != NULL ? &on_services : &hosts, 1);
    errno = err;
}

/* Much of the time is that of helpers, where the host's descriptors are not open, and of those that mark. */
static void busy_with_itself(void *arg)
{
    struct sigaction sa = { .sa_handler = writes_to_a_pipe, .sa_flags = SA_RESTART };
    struct itimerval t = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
    weft_profile *all = weft_profile_lookup("goroutine");
    (void)arg;
    cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    cr_assert_eq(sigaction(SIGPROF, &sa, NULL), 0);
    cr_assert_eq(setitimer(ITIMER_PROF, &t, NULL), 0);
    for (int i = 0; load_rlx(&hosts) < 50; i++) {
        to.len = 0;
        if (i % 20 != 0) /* the first ones while there was no profile */
            start();
        weft_gc();
        cr_assert_eq(weft_profile_write(all, drops, NULL, 0), 0);
        spin_a(MS);
        if (i % 20 != 0)
            stop();
    }
    setitimer(ITIMER_PROF, &off, NULL);
    cr_expect_eq(load_rlx(&on_services), 0u, "%u of the host's signals were handled on a thread of the runtime", load_rlx(&on_services));
    cr_expect_eq(load_rlx(&no_descriptor), 0u);
}

Test(prof_cpu, a_handler_of_the_hosts_runs_on_no_thread_of_the_runtime, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    test_run_procs(2, busy_with_itself, NULL);
}

static void installed_later(void *arg)
{
    struct sigaction sa = { .sa_sigaction = hosts_handler, .sa_flags = SA_SIGINFO | SA_RESTART };
    (void)arg;
    start();
    spin_a(20 * MS);
    cr_assert_eq(sigaction(SIGPROF, &sa, NULL), 0);
    spin_b(3000 * MS);
    uint32_t got = load_rlx(&others);
    raise(SIGPROF);
    cr_expect_eq(load_rlx(&others), got + 1, "it still gets its own");
    cr_expect_gt(ns_of(stop(), "spin_b", NULL), 1000 * MS);
}

Test(prof_cpu, a_handler_of_the_hosts_that_passes_nothing_on, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, installed_later, NULL); }

static w_u32 storm_over;

static void storms(void *arg)
{
    (void)arg;
    while (load_acq(&storm_over) == 0) {
        spin_a(MS);
        weft_yield();
    }
}

static void *blocks_the_signal(void *arg)
{
    sigset_t set;
    (void)arg;
    sigemptyset(&set);
    sigaddset(&set, SIGPROF);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    cr_assert_eq(weft_attach(), 0);
    while (load_acq(&storm_over) == 0)
        spin_b(MS);
    return NULL;
}

/* What is pending when it ends must not end the program, which has no handler. */
static void on_and_off(void *arg)
{
    weft_waitgroup wg = { 0 };
    pthread_t t;
    (void)arg;
    pthread_create(&t, NULL, blocks_the_signal, NULL);
    for (int i = 0; i < 4; i++)
        weft_waitgroup_go(&wg, storms, NULL);
    for (int i = 0; i < 60; i++) {
        to.len = 0;
        cr_assert_eq(weft_cpu_profile_start(sink_write, &to, &(weft_cpu_profile_opts){ .size = sizeof fast, .hz = 10000 }), 0);
        spin_c(i % 3 * 4 * MS);
        struct pp *p = stop();
        cr_assert_eq(ns_of(p, "spin_b", NULL), 0);
    }
    store_rel(&storm_over, 1);
    weft_waitgroup_wait(&wg);
    pthread_join(t, NULL);
}

Test(prof_cpu, on_and_off_and_on, SIGNALS_AT_ONCE, .timeout = 180)
{
    test_needs_a_kernel();
    test_may_take(180);
    int threads = test_threads(), fds = test_fds();
    for (int life = 0; life < 2; life++) {
        store_rel(&storm_over, 0);
        test_run_procs(2, on_and_off, NULL);
        test_until(test_threads() == threads);
        cr_assert_eq(test_fds(), fds);
    }
    struct sigaction now;
    cr_assert_eq(sigaction(SIGPROF, NULL, &now), 0);
    cr_assert(now.sa_handler == SIG_DFL);
}

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static int closed_why, closed_err, closed_calls;

static void closed(void *arg, int why, int err)
{
    cr_assert_eq(arg, &closed_why);
    closed_why = why;
    closed_err = err;
    __atomic_store_n(&closed_calls, closed_calls + 1, __ATOMIC_RELEASE); /* rel: with the two above; acq in is_closed */
}

static void refuses(void *arg)
{
    weft_cpu_profile_opts o = fast;
    (void)arg;
    cr_expect_eq(weft_cpu_profile_stop(), -ESRCH);
    cr_expect_eq(weft_cpu_profile_start(NULL, NULL, NULL), -EINVAL);
    cr_expect_eq(weft_cpu_profile_start_file(NULL, NULL), -EINVAL);
#define BAD(field, value)                                                                          \
    do {                                                                                           \
        o = fast;                                                                                  \
        o.field = (value);                                                                         \
        cr_expect_eq(weft_cpu_profile_start(sink_write, &to, &o), -EINVAL, #field);                \
    } while (0)
    BAD(size, 1);
    BAD(hz, -1);
    BAD(hz, 10001);
    BAD(flush_ms, -1);
    BAD(max_bytes, 1000);
    BAD(max_ns, -1);
    cr_expect_eq(weft_cpu_profile_start_file("/nonexistent/file", NULL), -ENOENT);
    start();
    cr_expect_eq(weft_cpu_profile_start(sink_write, NULL, &fast), -EALREADY);
    cr_expect_eq(weft_cpu_profile_stop(), 0);
    cr_expect_eq(weft_cpu_profile_stop(), -ESRCH);
    pp_decode(to.bytes, to.len);
    to.len = 0;
    start();
}

Test(prof_cpu, calls_that_are_refused)
{
    cr_expect_eq(weft_cpu_profile_start(sink_write, &to, NULL), -ESRCH);
    cr_expect_eq(weft_cpu_profile_stop(), -ESRCH);
    for (int life = 0; life < 2; life++) {
        to.len = 0;
        test_run_procs(1, refuses, NULL); /* the second one is stopped by the end of the runtime */
        cr_assert_gt(pp_decode(to.bytes, to.len)->duration, 0);
        cr_expect_eq(weft_cpu_profile_stop(), -ESRCH);
    }
}

static void fails_to_write(void *arg)
{
    weft_cpu_profile_opts o = fast;
    (void)arg;
    o.closed = closed;
    o.closed_arg = &closed_why;
    to.err = -ENOSPC;
    to.fail_at = 2;
    cr_assert_eq(weft_cpu_profile_start(sink_write, &to, &o), 0);
    for (int64_t t0 = os_self_cpu_ns(); to.calls < 3;) {
        spin_a(MS);
        cr_assert_lt(os_self_cpu_ns() - t0, 20000 * MS);
    }
    cr_assert_eq(weft_cpu_profile_stop(), -ENOSPC);
    cr_assert_eq(to.calls, 3u, "nothing follows what has failed");
    cr_assert_eq(closed_calls, 1);
    cr_assert_eq(closed_why, WEFT_PROFILE_ERROR);
    cr_assert_eq(closed_err, -ENOSPC);
    cr_assert_gt(ns_of(pp_decode(to.bytes, to.len), "spin_a", NULL), 0); /* what was written before is a profile */
    to = (struct sink){ 0 };
    start();
    stop();
}

Test(prof_cpu, errors_of_the_writer_are_told, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(1, fails_to_write, NULL); }

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static bool is_closed(void) { return __atomic_load_n(&closed_calls, __ATOMIC_ACQUIRE) != 0; }

/* Till the next piece has come out: labels that gather while the helper is at other things are more than a piece may have, which is then not written. */
static void spin_for_a_piece(void)
{
    unsigned before = __atomic_load_n(&to.calls, __ATOMIC_ACQUIRE);
    for (int64_t t0 = os_self_cpu_ns(); __atomic_load_n(&to.calls, __ATOMIC_ACQUIRE) == before && !is_closed();) {
        spin_a(MS);
        cr_assert_lt(os_self_cpu_ns() - t0, 20000 * MS);
    }
}

enum { LIMIT_MS = 60 };

/* Begins one that ends by itself, and spins till then. How much CPU time it certainly saw: what was used since it ran, and before it may have ended. */
static int64_t spin_till_the_limit(const weft_cpu_profile_opts *o)
{
    int64_t seen = 0, begun = os_now_ns();
    cr_assert_eq(weft_cpu_profile_start(sink_write, &to, o), 0);
    int64_t t0 = os_self_cpu_ns();
    for (int i = 0; !is_closed(); i++) {
        spin_b(MS);
        if (os_now_ns() - begun < LIMIT_MS * MS)
            seen = os_self_cpu_ns() - t0;
        cr_assert_lt(i, 20000);
    }
    return seen;
}

static void too_much(void *arg)
{
    weft_cpu_profile_opts o = { .size = sizeof o, .hz = 10000, .flush_ms = 1, .closed = closed, .closed_arg = &closed_why };
    (void)arg;
    o.max_bytes = 64 << 10;
    cr_assert_eq(weft_cpu_profile_start(sink_write, &to, &o), 0);
    char text[400] = "";
    struct rng r;
    rng_seed(&r, 1);
    for (int i = 0; !is_closed(); i++) {
        for (size_t k = 0; k + 1 < sizeof text; k++)
            text[k] = (char)('!' + rng_below(&r, 90));
        weft_set_labels(&(weft_label){ "noise", text }, 1);
        spin_for_a_piece();
        cr_assert_lt(i, 5000);
    }
    cr_assert_eq(closed_why, WEFT_PROFILE_BYTES);
    cr_assert_leq(to.len, 65536u);
    cr_assert_gt(to.len, 32768u);
    cr_assert_gt(ns_of(pp_decode(to.bytes, to.len), "spin_a", NULL), 0);
    cr_assert_eq(weft_cpu_profile_stop(), 0, "it was closed in order");
    cr_assert_eq(weft_cpu_profile_stop(), -ESRCH);
    o.max_bytes = 0;
    o.max_ns = LIMIT_MS * MS;
    struct pp *p;
    for (;;) { /* on a busy machine the limit may be over before the kernel has looked at our clock, which it does at its ticks */
        closed_calls = 0;
        to = (struct sink){ 0 };
        int64_t seen = spin_till_the_limit(&o);
        cr_assert_eq(closed_why, WEFT_PROFILE_TIME);
        p = pp_decode(to.bytes, to.len);
        cr_assert_geq(p->duration, LIMIT_MS * MS);
        if (seen >= 20 * MS)
            break;
        cr_assert_eq(weft_cpu_profile_stop(), 0);
    }
    cr_assert_gt(ns_of(p, "spin_b", NULL), 0);
    to = (struct sink){ 0 };
    int err; /* without a stop between them: that one has ended, or does so just now */
    test_until((err = weft_cpu_profile_start(sink_write, &to, &fast)) != -EALREADY);
    cr_assert_eq(err, 0);
    stop();
}

Test(prof_cpu, limits_are_kept_and_told, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, too_much, NULL); }

/* ---- files, forks --------------------------------------------------------------------------------------------------- */

static char path[64];

static struct pp *read_back(void)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size);
    cr_assert_eq(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    return pp_decode(bytes, (size_t)st.st_size);
}

static void file_begin(void)
{
    snprintf(path, sizeof path, "/tmp/weft-cpu-%d.pb.gz", (int)getpid());
    cr_assert_eq(weft_cpu_profile_start_file(path, &fast), 0);
}

static void into_a_file(void *arg)
{
    (void)arg;
    int fds = test_fds();
    file_begin();
    cr_assert_eq(test_fds(), fds + 1, "libdw's descriptors are not the host's");
    spin_a(300 * MS);
    cr_assert_eq(weft_cpu_profile_start_file(path, &fast), -EALREADY);
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    cr_assert_eq(test_fds(), fds);
    cr_assert(near(ns_of(read_back(), "spin_a", NULL), 300 * MS, 0.1), "the second start did not touch it");
    unlink(path);
    cr_assert_eq(weft_cpu_profile_start_file("/dev/full", NULL), 0);
    cr_assert_eq(weft_cpu_profile_stop(), -ENOSPC);
}

Test(prof_cpu, into_a_file, SIGNALS_AT_ONCE) { test_needs_a_kernel(); test_run_procs(2, into_a_file, NULL); }

static int in_child(void)
{
    if (weft_cpu_profile_stop() != -ESRCH)
        return 1;
    to.len = 0;
    spin_b(50 * MS);
    if (weft_cpu_profile_start(sink_write, &to, &fast) != 0)
        return 2;
    spin_c(200 * MS);
    if (weft_cpu_profile_stop() != 0)
        return 3;
    struct pp *p = pp_decode(to.bytes, to.len);
    return ns_of(p, "spin_b", NULL) != 0 ? 4 : near(ns_of(p, "spin_c", NULL), 200 * MS, 0.2) ? 0 : 5;
}

static void forks(void *arg)
{
    (void)arg;
    weft_set_labels(&(weft_label){ "who", "forker" }, 1);
    file_begin();
    for (int i = 0; i < 4; i++) {
        spin_a(100 * MS);
        pid_t pid = fork();
        if (pid == 0)
            _exit(in_child());
        int status;
        cr_assert_eq(waitpid(pid, &status, 0), pid);
        cr_assert_eq(status, 0, "%x", status);
    }
    cr_assert_eq(weft_cpu_profile_stop(), 0);
    struct pp *p = read_back();
    unlink(path);
    cr_expect(near(ns_of(p, "spin_a", "forker"), 400 * MS, 0.1), "%ld", (long)ns_of(p, "spin_a", "forker"));
    cr_expect_eq(ns_of(p, "spin_c", NULL), 0, "the child's are its own");
}

Test(prof_cpu, the_child_of_a_fork_has_none_and_may_have_its_own, CHILD_GOES_ON) { test_needs_a_kernel(); test_run_procs(2, forks, NULL); }

static w_u32 forks_over;

static void starts_and_ends(void *arg)
{
    weft_cpu_profile_opts o = fast;
    (void)arg;
    o.closed = closed;
    o.closed_arg = &closed_why;
    o.max_ns = MS;
    while (load_acq(&forks_over) == 0) {
        int err = weft_cpu_profile_start(drops, NULL, &o);
        cr_assert(err == 0 || err == -EALREADY, "%d", err);
        weft_sleep(MS);
    }
}

/* What the profile's helpers have in hand at that moment, and free, is not freed again there. */
static void forks_at_any_moment(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_go(starts_and_ends, NULL), 0);
    for (int i = 0; i < 300; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            weft_set_labels(&(weft_label){ "who", "child" }, 1);
            bool ok = weft_cpu_profile_start(drops, NULL, NULL) == 0 && weft_cpu_profile_stop() == 0;
            _exit(ok && strcmp(weft_label_get("who"), "child") == 0 ? 0 : 1);
        }
        weft_blocking_begin();
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        weft_blocking_end();
        cr_assert_eq(status, 0, "child %d: %x", i, status);
    }
    store_rel(&forks_over, 1);
    test_until(weft_num_fibers() == 1);
}

Test(prof_cpu, a_fork_while_it_starts_and_ends, CHILD_GOES_ON) { test_needs_a_kernel(); test_run_procs(2, forks_at_any_moment, NULL); }

static void deadlocks(void *arg)
{
    (void)arg;
    if (weft_cpu_profile_start_file(path, &fast) != 0)
        _exit(3);
    spin_a(100 * MS);
    weft_chan_recv(weft_chan_make(0, 0), NULL);
}

/* In a child: Criterion has a thread that might wake somebody, as far as the runtime knows. */
static void runs_into_a_deadlock(void *arg)
{
    (void)arg;
    _exit(weft_run(deadlocks, NULL, NULL) == -EDEADLK ? 0 : 1);
}

Test(prof_cpu, a_deadlock_is_found_all_the_same, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    struct test_output out;
    snprintf(path, sizeof path, "/tmp/weft-cpu-%d.pb.gz", (int)getpid());
    cr_assert_eq(test_fork(&out, runs_into_a_deadlock, NULL), 0, "%s", out.text);
    struct pp *p = read_back();
    unlink(path);
    cr_assert_gt(ns_of(p, "spin_a", NULL), 50 * MS); /* and it was written to the end */
}
