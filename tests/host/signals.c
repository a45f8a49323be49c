/* A host with signals of its own: handlers that were there before, or come later and pass nothing on, none of them on the alternate stack. More
 * of this, with a look inside, is in tests/stop_signals.c. */
#include "host.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

static int urgent, faults, ticks, over;

static void on_urgent(int sig) { (void)sig, ADD(urgent, 1); }

/* Needs some stack, of whatever fiber it interrupts. */
static void on_tick(int sig)
{
    char room[4096];
    memset(room, sig, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");
    ADD(ticks, 1);
}

static void install(int sig, void (*fn)(int), int flags)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = fn;
    sa.sa_flags = flags;
    CHECK(sigaction(sig, &sa, NULL) == 0);
}

static void spin(void *arg)
{
    (void)arg;
    while (GET(over) == 0) {}
}

/* ---- the stop signal is the host's from now on ------------------------------------------------------------------ */

static void replaced_main(void *arg)
{
    (void)arg;
    work(5);
    install(SIGURG, on_urgent, 0); /* passes nothing on: the library finds out when a thread does not stop, and puts itself in front again */
    SET(over, 0);
    for (int i = 0; i < 2; i++)
        OK(weft_go(spin, NULL));
    work(5);
    raise(SIGURG);
    UNTIL(GET(urgent) > 0); /* the host's handler still gets what is its own */
    install(SIGURG, SIG_IGN, 0);
    work(5);
    install(SIGURG, SIG_DFL, 0);
    work(5);
    SET(over, 1);
}

static void replaced(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    for (int i = 0; i < 5; i++)
        OK(weft_run(replaced_main, NULL, &cfg));
}

/* ---- a profiler's timer ---------------------------------------------------------------------------------------------- */

static void ticking_main(void *arg)
{
    (void)arg;
    int64_t until = weft_now() + 10 * WEFT_SECOND;
    while (GET(ticks) < 200 && weft_now() < until)
        work(20);
    CHECK(GET(ticks) >= 200, "%d", ticks);
}

static void timer(const struct itimerval *it) { CHECK(setitimer(ITIMER_PROF, it, NULL) == 0); }

static void profiled(void)
{
    static const struct itimerval on = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
    install(SIGPROF, on_tick, SA_RESTART);
    timer(&on);
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    OK(weft_run(ticking_main, NULL, &cfg));
    timer(&off);
}

/* ---- faults ------------------------------------------------------------------------------------------------------------ */

static void on_fault(int sig, siginfo_t *info, void *uc)
{
    (void)sig, (void)info, (void)uc;
    ADD(faults, 1);
    _exit(GET(faults) == 1 && (uintptr_t)info->si_addr == 16 ? 3 : 4);
}

static void fault(void *arg)
{
    *(volatile int *)arg = 1;
}

static void overflow(void *arg)
{
    volatile char room[1024];
    room[0] = *(volatile char *)arg;
    if (room[0] != 1) /* it is 0 */
        overflow((void *)(uintptr_t)&room[0]);
    room[1] = 1;
}

static void install_fault(void *arg)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_fault;
    sa.sa_flags = SA_SIGINFO | (arg != NULL ? SA_ONSTACK : 0);
    CHECK(sigaction(SIGSEGV, &sa, NULL) == 0);
}

static struct { bool later, overflows; } plan;
static void fault_main(void *arg)
{
    (void)arg;
    if (plan.later)
        install_fault(NULL);
    OK(weft_go(plan.overflows ? overflow : fault, plan.overflows ? (void *)"" : (void *)16));
    weft_sleep(5 * WEFT_SECOND);
}

/* A fault of the host's in a fiber comes to its handler, installed before or after the start and not on the alternate stack. An overflow is
 * reported if ours is in front; if the host put its own there without SA_ONSTACK, the kernel has no stack to call it on, and ends the program. */
static void faulting(void)
{
    for (int later = 0; later < 2; later++)
        for (int overflows = 0; overflows < 2; overflows++) {
            fflush(NULL);
            pid_t pid = fork();
            if (pid == 0) {
                alarm(20);
                plan.later = later;
                plan.overflows = overflows;
                if (!later)
                    install_fault(NULL);
                if (overflows)
                    CHECK(freopen("/dev/null", "w", stderr) != NULL);
                OK(weft_run(fault_main, NULL, NULL));
                _exit(0);
            }
            int status;
            CHECK(waitpid(pid, &status, 0) == pid);
            if (!overflows)
                CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3, "later %d: status 0x%x", later, (unsigned)status);
            else
                CHECK(WIFSIGNALED(status) && WTERMSIG(status) == (later ? SIGSEGV : SIGABRT), "later %d: status 0x%x", later, (unsigned)status);
        }
}

/* ---- threads that block everything ----------------------------------------------------------------------------------- */

static int blocked_over;
static void *blocks_all(void *arg)
{
    (void)arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    while (GET(blocked_over) == 0) { /* its first call unblocks the one signal, and its mask is as it was when it leaves */
        work(1);
        for (volatile int i = 0; i < 100000; i++) {}
    }
    OK(weft_detach());
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    CHECK(sigismember(&now, SIGURG) == 1);
    return NULL;
}

static void blocked(void)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.debug = "gc=auto"; /* gc=mprotect, which the environment may ask for, is not for threads that block SIGSEGV */
    OK(weft_start(&cfg));
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&t[i], NULL, blocks_all, NULL) == 0);
    for (int i = 0; i < 20; i++)
        work(10);
    SET(blocked_over, 1);
    weft_blocking_begin();
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    OK(weft_stop());
}

int main(int argc, char **argv)
{
    static const struct host_case cases[] = { { "replaced", replaced }, { "profiled", profiled }, { "faulting", faulting }, { "blocked", blocked } };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
