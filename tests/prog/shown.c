/* A program to look at in viewers: shown PROFILE TRACE. Three functions with known shares of its time, on two fibers, which also talk and wait. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <weft.h>

static int to_file(void *ctx, const void *data, size_t n) { return fwrite(data, 1, n, ctx) == n ? 0 : -EIO; }

static int64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

#define WORK(name)                                                                  \
    static __attribute__((noinline)) void name(int64_t ns)                          \
    {                                                                               \
        for (int64_t until = cpu_ns() + ns; cpu_ns() < until;)                      \
            for (volatile int i = 0; i < 20000; i++)                                \
                ;                                                                   \
        __asm__ volatile("# " #name); /* else they are one */                          \
    }
WORK(hot_function)
WORK(warm_function)
WORK(cool_function)

static weft_chan *turns;

static void worker(void *arg)
{
    weft_task task = weft_task_begin("turn", 0);
    weft_task_use(task);
    for (int i = 0; i < 150; i++) {
        weft_with_region("compute", (weft_fn *)(uintptr_t)hot_function, (void *)6000000);
        warm_function(3000000);
        cool_function(1000000);
        weft_sleep(WEFT_MILLISECOND);
        if (i % 50 == 49)
            weft_trace_logf("turns", "worker %s has done %d", (const char *)arg, i + 1);
    }
    weft_task_end(task);
    weft_chan_send(turns, NULL);
}

static void app_main(void *arg)
{
    char **argv = arg;
    FILE *f = fopen(argv[2], "w");
    weft_cpu_profile_opts o = WEFT_CPU_PROFILE_OPTS_INIT;
    o.hz = 500;
    turns = weft_chan_make(0, 0);
    if (f == NULL || weft_cpu_profile_start_file(argv[1], &o) != 0 || weft_trace_start(to_file, f, NULL) != 0)
        exit(1);
    weft_go(worker, "one");
    weft_go(worker, "two");
    weft_chan_recv(turns, NULL);
    weft_chan_recv(turns, NULL);
    if (weft_trace_stop(to_file, f, NULL) != 0 || weft_cpu_profile_stop() != 0 || fclose(f) != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    return argc != 3 || weft_run(app_main, argv, &cfg) != 0;
}
