/* Fibers in all states, for the gdb script: some wait on a channel, one sleeps, one holds a lock and spins, one waits for the lock, one is locked to its
 * thread, one has not started (one processor, and nobody gives way any more). With an argument it then ends by abort, for a core file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>

static weft_chan *never;
static weft_mutex lock;
static volatile int spinning;
static void *kept[3000];

__attribute__((noinline)) static int deep(int depth, weft_chan *c)
{
    volatile int local = depth * 100;
    if (depth > 0)
        return deep(depth - 1, c) + local;
    weft_chan_recv(c, NULL);
    return local;
}

static void reader(void *c) { spinning += deep(3, c); }

static void sleeper(void *arg)
{
    (void)arg;
    weft_sleep(3600000000000);
    spinning++;
}

static void locker(void *arg)
{
    (void)arg;
    weft_mutex_lock(&lock);
    spinning++;
}

static void wired(void *c)
{
    if (weft_lock_os_thread() == 0)
        weft_chan_recv(c, NULL);
    spinning++;
}

static void unborn(void *arg) { (void)arg; }

/* Here the debugger comes. */
__attribute__((noinline)) static void stands_here(const char *how)
{
    spinning = 1;
    puts("ready");
    fflush(stdout);
    if (how != NULL)
        abort();
    while (spinning != 0)
        usleep(1000);
}

static void program(void *how)
{
    never = weft_chan_make(0, 0);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        kept[i] = i % 3 == 0 ? weft_alloc_noscan(48) : weft_alloc(i % 3 == 1 ? 48 : 1000);
    kept[0] = weft_alloc_noscan(100000);
    weft_mutex_lock(&lock);
    for (int i = 0; i < 5; i++)
        weft_go(reader, never);
    weft_go(sleeper, NULL);
    weft_go(locker, NULL);
    weft_go(wired, never);
    weft_sleep(20000000);
    weft_go(unborn, NULL);
    stands_here(how);
    spinning++; /* no tail call */
}

int main(int argc, char **argv)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 1;
    cfg.gc_percent = WEFT_GC_OFF;
    return weft_run(program, argc > 1 ? argv[1] : NULL, &cfg) != 0;
}
