#include "test.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"

__attribute__((noinline)) void test_wipe_stack(void)
{
    char junk[16384];
    memset(junk, 0, sizeof junk);
    __asm__ volatile("" : : "r"(junk) : "memory"); /* somebody might read it */
}

/* ---- child programs ------------------------------------------------------------------------------------ */

static void collect(struct test_output *out, pid_t pid, int fd)
{
    time_t until = time(NULL) + 30;
    bool killed = false;
    out->len = 0;
    for (;;) {
        char buf[4096];
        struct pollfd p = { fd, POLLIN, 0 };
        int left = (int)(until - time(NULL)) * 1000;
        if (!killed && (left <= 0 || poll(&p, 1, left) == 0)) {
            kill(-pid, SIGKILL);
            killed = true;
        }
        ssize_t n = read(fd, buf, sizeof buf);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        size_t room = sizeof out->text - 1 - out->len;
        memcpy(out->text + out->len, buf, (size_t)n < room ? (size_t)n : room);
        out->len += (size_t)n < room ? (size_t)n : room;
    }
    close(fd);
    out->text[out->len] = 0;
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    out->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    out->term_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* In the child: in a process group of its own, so that a time-out ends its children too. */
static pid_t start(int *fd)
{
    int p[2];
    cr_assert_eq(pipe(p), 0);
    fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        setpgid(0, 0);
        dup2(p[1], 1);
        dup2(p[1], 2);
        close(p[0]);
        close(p[1]);
        return 0;
    }
    setpgid(pid, pid);
    close(p[1]);
    *fd = p[0];
    return pid;
}

/* TEST_WRAP: the emulator and its arguments, for programs of ours. */
void test_exec(const char *const argv[])
{
    enum { MAX = 64 };
    const char *list[MAX + 1];
    int n = 0;
    char *wrap = getenv("TEST_WRAP");
    if (wrap != NULL && strncmp(argv[0], TEST_BUILD, strlen(TEST_BUILD)) == 0)
        for (char *w = strtok(strdup(wrap), " "); w != NULL && n < MAX; w = strtok(NULL, " "))
            list[n++] = w;
    while (*argv != NULL && n < MAX)
        list[n++] = *argv++;
    list[n] = NULL;
    execvp(list[0], (char *const *)(uintptr_t)list);
}

int test_child(struct test_output *out, const char *const argv[], const char *const env[])
{
    int fd;
    pid_t pid = start(&fd);
    if (pid == 0) {
        for (; env != NULL && *env != NULL; env++)
            putenv((char *)(uintptr_t)*env);
        test_exec(argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    collect(out, pid, fd);
    cr_assert_neq(out->exit_code, 127, "cannot be run: %s", out->text);
    return out->exit_code;
}

int test_shell(struct test_output *out, const char *command)
{
    const char *const argv[] = { "/bin/sh", "-c", command, NULL };
    return test_child(out, argv, NULL);
}

int test_fork(struct test_output *out, void (*fn)(void *), void *arg)
{
    int fd;
    pid_t pid = start(&fd);
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        fn(arg);
        fflush(NULL);
        _exit(0);
    }
    collect(out, pid, fd);
    return out->exit_code;
}

/* ---- what the process holds ------------------------------------------------------------------------------ */

static int entries(const char *dir)
{
    DIR *d = opendir(dir);
    cr_assert_not_null(d);
    int n = 0;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

#ifdef W_TSAN
static void *no_work(void *arg) { return arg; }
#endif

int test_threads(void)
{
#ifdef W_TSAN
    pthread_t t; /* it starts one of its own along with the first */
    cr_assert_eq(pthread_create(&t, NULL, no_work, NULL), 0);
    pthread_join(t, NULL);
#endif
    return entries("/proc/self/task");
}
int test_fds(void) { return entries("/proc/self/fd") - 1; }

int test_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    cr_assert_not_null(f);
    int n = 0;
    for (int c; (c = getc(f)) != EOF;)
        n += c == '\n';
    fclose(f);
    return n;
}

long test_status(const char *key)
{
    FILE *f = fopen("/proc/self/status", "re");
    cr_assert_not_null(f);
    char line[256];
    long v = -1;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, n) == 0 && line[n] == ':')
            v = strtol(line + n + 1, NULL, 10);
    fclose(f);
    return v;
}

long test_rss_kib(void) { return test_status("VmRSS"); }

/* ---- random tests -------------------------------------------------------------------------------------------- */

uint64_t test_seed(void)
{
    const char *s = getenv("WEFT_TEST_SEED");
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    fprintf(stderr, "WEFT_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

bool test_is_emulated(void)
{
    const char *wrap = getenv("TEST_WRAP");
    return wrap != NULL && wrap[0] != 0;
}

void test_needs_a_kernel(void)
{
    if (test_is_emulated())
        cr_skip_test("the kernel is an emulator");
}

bool test_is_slow(void)
{
#if defined(W_ASAN) || defined(W_TSAN)
    return true;
#else
    return getenv("WEFT_TEST_SLOW") != NULL; /* set by tools/check.sh under emulation */
#endif
}

uint64_t test_stops(void)
{
    uint64_t n = 0;
    for (int i = 0; i < WEFT_STOP_REASONS; i++) {
        weft_stop_stats s;
        cr_assert_eq(weft_read_stop_stats(i, &s), 0);
        n += s.count;
    }
    return n;
}
