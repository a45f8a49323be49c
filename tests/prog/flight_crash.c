/* A program that crashes while its flight recorder runs. Arguments: how; the file for that; if it survives, a file for a snapshot. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>
#include <weft.h>

static int to_nothing(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

static void spin_a_while(void)
{
    for (volatile int i = 0; i < 1000000; i++)
        ;
}

static void echo(void *arg)
{
    weft_chan **c = arg;
    uint64_t v;
    while (weft_chan_recv(c[0], &v) == 1)
        weft_chan_send(c[1], &v);
}

static __attribute__((noinline)) void ping_pong(int rounds)
{
    static weft_chan *c[2];
    uint64_t v = 0;
    if (c[0] == NULL) {
        c[0] = weft_chan_make_noscan(sizeof v, 0);
        c[1] = weft_chan_make_noscan(sizeof v, 0);
        weft_go(echo, c);
    }
    for (int i = 0; i < rounds; i++) {
        weft_chan_send(c[0], &v);
        weft_chan_recv(c[1], &v);
    }
}

static __attribute__((noinline)) int overflow(int n)
{
    volatile char page[4096] = { 0 };
    return n == 0 ? page[0] : overflow(n - 1) + page[0];
}

static volatile char *volatile nowhere;

static void *host_crash(void *arg)
{
    (void)arg;
    *nowhere = 1;
    return NULL;
}

/* With a stack for handlers of the usual size (8 KiB where the kernel takes less than half of that), and nothing below it. */
static void *host_crash_on_little(void *arg)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (getauxval(AT_MINSIGSTKSZ) + 4096 + page - 1) / page * page;
    char *p = mmap(NULL, page + n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack_t ss = { .ss_sp = p + page, .ss_size = n };
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0 || sigaltstack(&ss, NULL) != 0)
        exit(8);
    return host_crash(arg);
}

static void busy(void *arg)
{
    (void)arg;
    for (;;) {
        spin_a_while();
        weft_yield();
        free(malloc(100));
        weft_alloc(1000);
    }
}

static volatile sig_atomic_t survived;
static void host_handler(int sig)
{
    (void)sig;
    survived = 1;
}

static void crash(const char *how)
{
    pthread_t t;
    if (strcmp(how, "segv") == 0)
        *nowhere = 1;
    else if (strcmp(how, "thread") == 0 && pthread_create(&t, NULL, host_crash, NULL) == 0)
        weft_sleep(100 * WEFT_SECOND);
    else if (strcmp(how, "little") == 0 && pthread_create(&t, NULL, host_crash_on_little, NULL) == 0)
        weft_sleep(100 * WEFT_SECOND);
    else if (strcmp(how, "abort") == 0)
        abort();
    else if (strcmp(how, "overflow") == 0)
        overflow(1000000);
    else if (strcmp(how, "raise") == 0)
        raise(SIGFPE);
    else if (strcmp(how, "kill") == 0)
        kill(getpid(), SIGILL);
}

static int to_file(void *ctx, const void *data, size_t n) { return fwrite(data, 1, n, ctx) == n ? 0 : -5; }

/* A host that knows what to do about a fault. */
static void survive(const char *path)
{
    raise(SIGSEGV);
    if (!survived)
        exit(5);
    for (int i = 0; i < 3; i++) {
        ping_pong(100);
        if (weft_flight_recorder_snapshot(to_nothing, NULL) != 0)
            exit(6);
    }
    FILE *f = fopen(path, "w");
    if (weft_flight_recorder_snapshot(to_file, f) != 0)
        exit(7);
    fclose(f);
}

static void app_main(void *arg)
{
    char **argv = arg;
    const char *how = argv[1];
    weft_flight_opts o = WEFT_FLIGHT_OPTS_INIT;
    o.crash_fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool early = strncmp(how, "early-", 6) == 0;
    if (weft_flight_recorder_start(&o) != 0)
        exit(3);
    if (strncmp(how, "busy-", 5) == 0)
        for (int i = 0; i < 4; i++)
            weft_go(busy, NULL);
    for (int i = 0; i < 3 && !early; i++) {
        ping_pong(100);
        weft_gc();
        if (weft_flight_recorder_snapshot(to_nothing, NULL) != 0)
            exit(4);
    }
    WEFT_REGION("the last thing it did");
    ping_pong(50);
    if (strcmp(how, "survive") == 0) {
        survive(argv[3]);
        return;
    }
    crash(early ? how + 6 : strncmp(how, "busy-", 5) == 0 ? how + 5 : how);
}

int main(int argc, char **argv)
{
    (void)argc;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = strcmp(argv[1], "kill") == 0 ? 1 : 2; /* the kernel chooses who gets that signal: so nobody else is in the middle of an event, which would be lost */
    alarm(300); /* where the test was ended, it ends itself */
    if (strcmp(argv[1], "survive") == 0)
        signal(SIGSEGV, host_handler);
    return weft_run(app_main, argv, &cfg);
}
