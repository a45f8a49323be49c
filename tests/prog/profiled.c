/* A program that profiles itself, for tests that kill it, or look how it ends: profiled kill|exit|main|exec FILE NOTE
 * NOTE is memory that it shares with the test: what its writer has done so far. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <weft.h>
#include "../profiled.h"

static struct note *note;
static int fd;

static int64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int writer(void *ctx, const void *data, size_t n)
{
    static int64_t before;
    int64_t now = cpu_ns();
    __atomic_store_n(&note->pending, n, __ATOMIC_SEQ_CST);
    int err = weft_fd_writer(ctx, data, n);
    __atomic_store_n(&note->cpu_ns, before, __ATOMIC_SEQ_CST);
    before = now;
    __atomic_store_n(&note->bytes, note->bytes + n, __ATOMIC_SEQ_CST);
    __atomic_store_n(&note->pending, 0, __ATOMIC_SEQ_CST);
    return err;
}

static __attribute__((noinline)) void work(int64_t ns)
{
    for (int64_t until = cpu_ns() + ns; cpu_ns() < until;)
        for (volatile int i = 0; i < 10000; i++)
            ;
}

static void worker(void *arg)
{
    weft_set_labels(&(weft_label){ "worker", arg }, 1);
    for (;;) {
        work(1000000);
        weft_yield();
    }
}

static void run(void *mode)
{
    weft_cpu_profile_opts o = { .size = sizeof o, .hz = 1000, .flush_ms = strcmp(mode, "kill") == 0 ? 20 : 1000 };
    int err = weft_cpu_profile_start(writer, (void *)(intptr_t)fd, &o);
    if (err != 0) {
        fprintf(stderr, "start: %s\n", weft_strerror(err));
        exit(3);
    }
    if (strcmp(mode, "kill") == 0) {
        weft_go(worker, "one");
        weft_go(worker, "two");
        for (;;)
            weft_sleep(WEFT_SECOND);
    }
    work(300000000);
    if (strcmp(mode, "exit") == 0)
        exit(0); /* neither stopped nor returned */
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    alarm(300); /* where the test was ended, it ends itself */
    fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int at = open(argv[3], O_RDWR | O_CLOEXEC);
    note = mmap(NULL, sizeof *note, PROT_READ | PROT_WRITE, MAP_SHARED, at, 0);
    if (fd < 0 || note == MAP_FAILED)
        return 2;
    return weft_run(run, argv[1], NULL) != 0;
}
