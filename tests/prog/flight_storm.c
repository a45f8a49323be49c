/* A program that does a little of everything on many fibers, with its flight recorder on, until it is ended by a signal at some moment:
 * flight_storm FILE SIGNAL MICROSECONDS SNAPSHOTS; signal 0: a fault of its own. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <weft.h>

static int to_nothing(void *ctx, const void *data, size_t n) { return (void)ctx, (void)data, (void)n, 0; }

static void leaf(void *arg)
{
    (void)arg;
    weft_yield();
    weft_alloc(100);
}

static void step(weft_chan *c, unsigned x)
{
    uint64_t v = x;
    switch (x >> 28) {
    case 0: weft_sleep(1000 * (x & 255)); break;
    case 1: (void)!weft_go(leaf, NULL); break;
    case 2:
    case 3: {
        WEFT_REGION("region");
        weft_yield();
        break;
    }
    case 4: weft_alloc(x & 65535); break;
    case 5: weft_trace_logf("k", "%u", x); break;
    case 6:
    case 7:
    case 8: weft_chan_try_send(c, &v); break;
    case 9:
        if ((x >> 8 & 255) == 0)
            weft_gc();
        break;
    case 10:
        weft_blocking_begin();
        usleep(50);
        weft_blocking_end();
        break;
    default: (void)!weft_chan_recv_until(c, &v, weft_now() + 100000); break;
    }
}

static void busy(void *arg)
{
    for (unsigned x = (unsigned)weft_fiber_id();;) {
        x = x * 1103515245 + 12345;
        step(arg, x);
    }
}

static void snapshots(void *arg)
{
    (void)arg;
    for (;;) {
        weft_sleep(3 * WEFT_MILLISECOND);
        if (weft_flight_recorder_snapshot(to_nothing, NULL) != 0)
            exit(4);
    }
}

static volatile char *volatile nowhere;

static void *killer(void *arg)
{
    char **argv = arg;
    int sig = atoi(argv[2]);
    usleep((useconds_t)atoi(argv[3]));
    if (sig != 0)
        kill(getpid(), sig); /* any thread gets it */
    else
        *nowhere = 1;
    for (;;)
        pause();
    return NULL;
}

static void app_main(void *arg)
{
    char **argv = arg;
    weft_flight_opts o = WEFT_FLIGHT_OPTS_INIT;
    pthread_t t;
    o.crash_fd = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (weft_flight_recorder_start(&o) != 0)
        exit(3);
    weft_chan *c = weft_chan_make_noscan(sizeof(uint64_t), 4);
    for (int i = 0; i < 20; i++)
        weft_go(busy, c);
    if (atoi(argv[4]) != 0)
        weft_go(snapshots, NULL);
    pthread_create(&t, NULL, killer, argv);
    weft_sleep(100 * WEFT_SECOND);
}

int main(int argc, char **argv)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 3;
    alarm(300); /* where the test was ended, it ends itself */
    return argc != 5 || weft_run(app_main, argv, &cfg) != 0;
}
