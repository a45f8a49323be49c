/* What is left of a CPU profile when the process is killed, or ends in another way than by the book. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/rng.h"
#include "pprof_test.h"
#include "profiled.h"

#define TOOL TEST_SRC "/build/go/pprof"
#define MS INT64_C(1000000)

static const char *name_of(const char *what, int i)
{
    static char name[4][80];
    static int turn;
    char *s = name[turn++ % 4];
    snprintf(s, sizeof name[0], "/tmp/weft-kill-%d-%d.%s", (int)getpid(), i, what);
    return s;
}

static struct note *note_make(int i)
{
    int fd = open(name_of("note", i), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, 4096), 0);
    struct note *n = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert(n != MAP_FAILED);
    close(fd);
    return n;
}

static pid_t begin(const char *mode, int i)
{
    const char *const argv[] = { TEST_PROG("profiled"), mode, strdup(name_of("pb.gz", i)), strdup(name_of("note", i)), NULL };
    pid_t pid = fork();
    if (pid == 0) {
        test_exec(argv);
        _exit(127);
    }
    return pid;
}

static uint8_t *read_file(int i, size_t *n)
{
    int fd = open(name_of("pb.gz", i), O_RDONLY | O_CLOEXEC);
    struct stat st = { 0 };
    if (fd >= 0)
        fstat(fd, &st);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    *n = fd >= 0 ? (size_t)read(fd, bytes, (size_t)st.st_size) : 0;
    if (fd >= 0)
        close(fd);
    return bytes;
}

static void forget(int i, struct note *n)
{
    munmap(n, 4096);
    unlink(name_of("note", i));
    unlink(name_of("pb.gz", i));
}

static int64_t ns_of(const struct pp *p)
{
    int64_t ns = 0;
    for (size_t i = 0; i < p->samples; i++)
        ns += p->sample[i].value[1];
    return ns;
}

static int viewed;

/* The tool the profile is for reads it, too. */
static void view(int i)
{
    struct test_output out;
    if (access(TOOL, X_OK) != 0)
        return;
    cr_assert_eq(test_child(&out, (const char *const[]){ TOOL, "-top", name_of("pb.gz", i), NULL }, NULL), 0, "%s", out.text);
    cr_assert_not_null(strstr(out.text, "Type: cpu"), "%s", out.text);
    viewed++;
}

/* True: whole. The kernel may have been killed in the middle of its copy, which takes it a microsecond. */
static bool look_at(int i, struct note *n, bool with_tool)
{
    size_t len;
    uint8_t *bytes = read_file(i, &len);
    if (len != n->bytes && len != n->bytes + n->pending)
        return false;
    if (len == 0)
        return true; /* killed before there was a profile */
    struct pp *p = pp_decode(bytes, len);
    int64_t least = n->cpu_ns * 9 / 10 - 60 * MS; /* without the time before the start, and a tick or two per thread */
    cr_expect_geq(ns_of(p), least, "kill %d: %ld ms of at least %ld", i, (long)(ns_of(p) / MS), (long)(least / MS));
    if (with_tool)
        view(i);
    free(bytes);
    return true;
}

enum { KILLS = 100, AT_ONCE = 4 };

Test(prof_kill, a_hundred_times)
{
    test_needs_a_kernel();
    struct rng r;
    pid_t pid[AT_ONCE];
    struct note *n[AT_ONCE];
    int cut = 0;
    rng_seed(&r, test_seed());
    for (int i = 0; i < KILLS; i += AT_ONCE) {
        for (int k = 0; k < AT_ONCE; k++) {
            n[k] = note_make(i + k);
            pid[k] = begin("kill", i + k);
        }
        for (int k = 0; k < AT_ONCE; k++) {
            int status;
            while (k % 2 != 0 && __atomic_load_n(&n[k]->bytes, __ATOMIC_SEQ_CST) == 0) { /* half of them write something, however late they begin */
                cr_assert_eq(waitpid(pid[k], &status, WNOHANG), 0, "%x", status);
                usleep(1000);
            }
            usleep(20000 + rng_below(&r, k == 0 ? 250000 : 60000));
            cr_assert_eq(kill(pid[k], SIGKILL), 0);
            cr_assert_eq(waitpid(pid[k], &status, 0), pid[k]);
            cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%x", status);
            cut += !look_at(i + k, n[k], k == AT_ONCE - 1 && i % 20 == 0);
            forget(i + k, n[k]);
        }
    }
    cr_expect_leq(cut, 1, "%d of %d files were cut in the middle", cut, KILLS);
    cr_expect(viewed > 0 || access(TOOL, X_OK) != 0);
}

static struct pp *ends(const char *mode, int code)
{
    struct note *n = note_make(0);
    pid_t pid = begin(mode, 0);
    int status;
    size_t len;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == code, "%x", status);
    uint8_t *bytes = read_file(0, &len);
    cr_assert_eq(len, n->bytes);
    struct pp *p = pp_decode(bytes, len);
    forget(0, n);
    return p;
}

Test(prof_kill, exit_writes_the_rest, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    int64_t ns = ns_of(ends("exit", 0));
    cr_assert_geq(ns, 280 * MS, "%ld ms", (long)(ns / MS));
}

Test(prof_kill, the_end_of_the_runtime_writes_the_rest, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    int64_t ns = ns_of(ends("main", 0));
    cr_assert_geq(ns, 280 * MS, "%ld ms", (long)(ns / MS));
}
