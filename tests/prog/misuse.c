/* Writes traces and profiles of healthy and unhealthy weft programs, for weft-doctor: misuse DIR. The twin of tests/go/misuse.go. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <weft.h>

static const char *dir;

static void must(int rc, const char *what)
{
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", what, weft_strerror(rc));
        exit(1);
    }
}

static void *create(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(fd < 0 ? -errno : 0, path);
    return (void *)(intptr_t)fd;
}

static void traced(const char *name, void (*what)(void))
{
    void *f = create(name);
    must(weft_trace_start(weft_fd_writer, f, NULL), "trace");
    what();
    must(weft_trace_stop(weft_fd_writer, f, NULL), "trace");
    close((int)(intptr_t)f);
}

static void profile(const char *name, const char *file)
{
    void *f = create(file);
    must(weft_profile_write(weft_profile_lookup(name), weft_fd_writer, f, 0), name);
    close((int)(intptr_t)f);
}

static void cpu_profiled(const char *file, void (*what)(void))
{
    weft_cpu_profile_opts opts = WEFT_CPU_PROFILE_OPTS_INIT;
    void *f = create(file);
    opts.hz = 500;
    opts.flush_ms = 100;
    must(weft_cpu_profile_start(weft_fd_writer, f, &opts), "CPU profile");
    what();
    must(weft_cpu_profile_stop(), "CPU profile");
    close((int)(intptr_t)f);
}

/* ---- what the programs do -------------------------------------------------------------------------------------- */

static weft_chan *chan;
static weft_mutex lock;

static void sends(void *arg)
{
    (void)arg;
    for (int i = 0; i < 3000; i++) {
        void *p = weft_alloc(200);
        weft_chan_send(chan, &p);
    }
}

static void receives(void *arg)
{
    void *p;
    (void)arg;
    for (int i = 0; i < 3000; i++)
        weft_chan_recv(chan, &p);
    weft_mutex_lock(&lock);
    weft_mutex_unlock(&lock);
}

/* Work of an ordinary kind: some fibers hand over values, allocate, and lock for a moment. */
static void healthy(void)
{
    weft_waitgroup wg = { 0 };
    chan = weft_chan_make(sizeof(void *), 16);
    for (int i = 0; i < 8; i++) {
        weft_waitgroup_go(&wg, sends, NULL);
        weft_waitgroup_go(&wg, receives, NULL);
    }
    weft_waitgroup_wait(&wg);
    weft_metric m = { .name = "/memory/classes/heap/objects:bytes" };
    for (int i = 0; i < 10; i++) {
        weft_metrics_read(&m, 1);
        weft_sleep(10000000);
    }
}

static void spins(void)
{
    healthy();
    for (int64_t end = weft_now() + 300000000; weft_now() < end;)
        ;
}

static void locked(void *arg)
{
    must(weft_lock_os_thread(), "lock");
    weft_chan_close(arg);
}

static void locked_and_gone(void)
{
    for (int i = 0; i < 100; i++) {
        weft_chan *done = weft_chan_make(0, 0);
        must(weft_go(locked, done), "go");
        weft_chan_recv(done, NULL);
        weft_sleep(1000000);
    }
}

static void collect_always(void)
{
    for (int i = 0; i < 200; i++) {
        weft_alloc(1000);
        weft_gc();
    }
}

static void poll_mem_stats(void)
{
    weft_mem_stats s = { .size = sizeof s };
    for (int64_t end = weft_now() + 300000000; weft_now() < end;)
        must(weft_read_mem_stats(&s), "statistics");
}

static int counted;

static void swallows(void *c)
{
    while (weft_chan_recv(c, NULL) == 1)
        ;
}

static clock_t until; /* by the processor time of all: there are to be samples */

static void contends(void *arg)
{
    weft_chan *c = weft_chan_make(0, 0);
    (void)arg;
    weft_go(swallows, c);
    for (int i = 1; i % 256 != 0 || clock() < until; i++) {
        weft_mutex_lock(&lock);
        counted++;
        weft_mutex_unlock(&lock);
        weft_chan_send(c, NULL);
    }
    weft_chan_close(c);
}

/* Many that wait for each other all the time, with every wait recorded. */
static void contended(void)
{
    weft_waitgroup wg = { 0 };
    int procs = weft_maxprocs(1); /* on several, how much of the time goes into waking each other depends on the machine */
    until = clock() + CLOCKS_PER_SEC;
    must(weft_set_block_profile_rate(1), "block profile");
    weft_set_mutex_profile_fraction(1);
    for (int i = 0; i < 16; i++)
        weft_waitgroup_go(&wg, contends, NULL);
    weft_waitgroup_wait(&wg);
    must(weft_set_block_profile_rate(0), "block profile");
    weft_set_mutex_profile_fraction(0);
    weft_maxprocs(procs);
}

static void holds(void *arg)
{
    (void)arg;
    for (int i = 0; i < 40; i++) {
        weft_mutex_lock(&lock);
        weft_sleep(2000000);
        weft_mutex_unlock(&lock);
    }
}

/* A lock that is held while its holder sleeps. */
static void convoy(void)
{
    weft_waitgroup wg = { 0 };
    weft_set_mutex_profile_fraction(1);
    for (int i = 0; i < 16; i++)
        weft_waitgroup_go(&wg, holds, NULL);
    weft_waitgroup_wait(&wg);
    weft_set_mutex_profile_fraction(0);
}

static void waits(void *c)
{
    weft_chan_recv(c, NULL);
    counted++; /* no tail call: it is to be on the stack */
}

enum { LEAKED = 200 };
static void leaks(void *arg)
{
    weft_chan *c = weft_chan_make(0, 0);
    (void)arg;
    for (int i = 0; i < LEAKED; i++)
        must(weft_go(waits, c), "go");
}

static int to_file(void *f, const void *data, size_t n) { return fwrite(data, 1, n, f) == n ? 0 : -ENOMEM; }

/* Whether so many fibers have the same stack, which they have when all of them wait there. */
static bool are_at_one_place(int n)
{
    char *text, line[32];
    size_t size;
    FILE *f = open_memstream(&text, &size);
    must(f == NULL ? -ENOMEM : weft_profile_write(weft_profile_lookup("goroutine"), to_file, f, 1), "fibers");
    fclose(f);
    snprintf(line, sizeof line, "\n%d @ ", n);
    bool are = strstr(text, line) != NULL;
    free(text);
    return are;
}

/* On a fiber of its own, whose stack is gone then: nobody else is to know the channel. */
static void leak(void)
{
    weft_waitgroup wg = { 0 };
    weft_waitgroup_go(&wg, leaks, NULL);
    weft_waitgroup_wait(&wg);
    while (!are_at_one_place(LEAKED))
        weft_sleep(1000000);
}

static void told_by_the_doctor(void)
{
    healthy();
    for (int i = 1; i <= 4; i *= 2)
        weft_trace_logf("weft.doctor", "W06 statistics that stop the world are polled (%d)", i);
}

static void program(void *arg)
{
    (void)arg;
    healthy();
    traced("healthy.trace", healthy);
    cpu_profiled("healthy_cpu.pb.gz", spins);
    profile("goroutine", "before.pb.gz");
    profile("heap", "heap.pb.gz");
    profile("mutex", "quiet.pb.gz");
    traced("w03.trace", locked_and_gone);
    traced("w04.trace", collect_always);
    traced("w06.trace", poll_mem_stats);
    traced("told.trace", told_by_the_doctor);
    convoy();
    profile("mutex", "convoy.pb.gz");
    cpu_profiled("w10_cpu.pb.gz", contended);
    profile("block", "block.pb.gz");
    leak();
    profile("goroutine", "after.pb.gz");
    profile("goroutineleak", "leak.pb.gz");
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fprintf(stderr, "usage: misuse DIR\n"), 2;
    dir = argv[1];
    return weft_run(program, NULL, NULL) != 0;
}
