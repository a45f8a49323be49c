/* A host with little: address space, threads, descriptors, stack, or an mmap that refuses. Each start and each call gives its documented error,
 * or works; what cannot be told by an error ends the program with a line that names the limit. Nothing crashes, nothing hangs. */
#include "host.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* In a child: limits do not rise again. */
static void limit(int what, rlim_t n)
{
    struct rlimit r = { n, n };
    CHECK(setrlimit(what, &r) == 0);
}

/* It worked, or said in one line of the library's what is missing. */
static void expect_clean(int status, const char *what, long arg)
{
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    bool line = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strncmp(said, "weft: ", 6) == 0;
    CHECK(ok || line, "%s %ld: status 0x%x: %s", what, arg, (unsigned)status, said);
}

static int worked;
static void main_fn(void *arg)
{
    struct node *list = NULL;
    for (int i = 0; i < 20000; i++) {
        struct node *p = weft_alloc(1000);
        if (p == NULL)
            break;
        p->next = i % 4 == 0 ? list : NULL;
        if (i % 4 == 0)
            list = p;
    }
    list = NULL;
    weft_gc();
    if (arg != NULL)
        work(20);
    worked = 1;
}

/* 0, or one of the errors that weft_run documents for a want of something. */
static void run_or_refuse(const char *debug)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    cfg.debug = debug;
    int err = weft_run(main_fn, NULL, &cfg);
    CHECK(err == 0 || err == -ENOMEM || err == -EAGAIN || err == -EMFILE, "%d: %s", err, weft_strerror(err));
    CHECK((err == 0) == (worked == 1));
    _exit(0);
}

/* ---- RLIMIT_AS ------------------------------------------------------------------------------------------------- */

static long as_used(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    CHECK(f != NULL && fscanf(f, "%ld", &pages) == 1);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static void with_as(long more)
{
    limit(RLIMIT_AS, (rlim_t)(as_used() + more));
    run_or_refuse(NULL);
}

static void address_space(void)
{
    for (long mib = 0; mib <= 600; mib += mib < 40 ? 2 : 70)
        expect_clean(in_child(with_as, mib << 20), "RLIMIT_AS, MiB more", mib);
}

/* ---- mmap refuses: what vm.overcommit_memory=2 does, at any moment ---------------------------------------------------- */

static void refuse_mmap(void)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_brk, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { sizeof f / sizeof *f, f };
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) != 0)
        _exit(0);
}

static void refuse_at_start(long arg)
{
    (void)arg;
    refuse_mmap();
    run_or_refuse(NULL);
}

static void fiber_fn(void *arg) { weft_waitgroup_done(arg); }

static void refused_main(void *arg)
{
    struct node *list = list_make(10000);
    if (arg != NULL)
        work(20);
    refuse_mmap();
    size_t n = 0;
    struct node *more = NULL, *p;
    while ((p = weft_alloc(sizeof *p + 5000)) != NULL && n < 1000000) { /* till the heap is full, after collections */
        p->next = more;
        more = p;
        n++;
    }
    CHECK(p == NULL && weft_alloc(1 << 20) == NULL && weft_alloc_noscan(SIZE_MAX / 4) == NULL);
    list_check(list, 10000);
    more = NULL;
    weft_gc();
    for (int i = 0; i < 1000; i++)
        weft_alloc(64);
    weft_waitgroup wg = { 0, NULL };
    for (int i = 0; i < 5; i++) { /* if there is no memory for a stack, the program ends, and says so */
        OK(weft_waitgroup_add(&wg, 1));
        int err = weft_go(fiber_fn, &wg);
        CHECK(err == 0 || err == -ENOMEM);
        if (err != 0)
            weft_waitgroup_done(&wg);
    }
    weft_waitgroup_wait(&wg);
    char text[2048];
    ssize_t len = weft_stack(text, sizeof text, true);
    CHECK(len > 0 || len == -ENOMEM || len == -EAGAIN, "%ld", (long)len);
    list_check(list, 10000);
    worked = 1;
}

static void refuse_later(long warm)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    OK(weft_run(refused_main, warm != 0 ? &cfg : NULL, &cfg));
    CHECK(worked);
}

static void mmap_refused(void)
{
    expect_clean(in_child(refuse_at_start, 0), "no mmap from the start", 0);
    for (long warm = 0; warm < 2; warm++)
        expect_clean(in_child(refuse_later, warm), "no mmap later on, warm", warm);
}

/* ---- RLIMIT_NPROC ---------------------------------------------------------------------------------------------------- */

static void become_nobody(void)
{
    if (getuid() == 0) /* no limit holds for root */
        CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(64321, 64321, 64321) == 0);
}

static void no_threads(long n)
{
    become_nobody();
    limit(RLIMIT_NPROC, (rlim_t)n);
    run_or_refuse("gc=auto"); /* whatever the environment asks for: /proc/self of who has changed his id is root's, and userfaultfd needs it */
}

static void *host_calls(void *arg)
{
    (void)arg;
    work(5);
    return NULL;
}

/* From the moment that it runs: fewer threads than processors will do. */
static void late_main(void *arg)
{
    become_nobody();
    limit(RLIMIT_NPROC, 0);
    weft_maxprocs(8);
    for (int i = 0; i < 5; i++)
        work(50);
    weft_blocking_begin(); /* nobody may be there to take over: then the others wait */
    usleep(1000);
    weft_blocking_end();
    char text[2048];
    ssize_t len = weft_stack(text, sizeof text, true);
    CHECK(len > 0 || len == -EAGAIN || len == -ENOMEM, "%ld", (long)len);
    *(int *)arg = 1;
}

static void no_more_threads(long unused)
{
    (void)unused;
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = 2;
    int done = 0;
    OK(weft_run(late_main, &done, &cfg));
    CHECK(done);
}

static void processes(void)
{
    for (long n = 0; n < 6; n++)
        expect_clean(in_child(no_threads, n), "RLIMIT_NPROC", n);
    expect_clean(in_child(no_more_threads, 0), "RLIMIT_NPROC later on", 0);
}

/* ---- RLIMIT_NOFILE ------------------------------------------------------------------------------------------------------ */

static void few_files(long n)
{
    limit(RLIMIT_NOFILE, (rlim_t)n);
    run_or_refuse(NULL);
}

static void no_file_left_main(void *arg)
{
    limit(RLIMIT_NOFILE, 64);
    while (open("/dev/null", O_RDONLY) >= 0) {}
    CHECK(errno == EMFILE);
    work(20);
    weft_fd *f;
    int err = weft_listen("tcp:127.0.0.1:0", 5, &f);
    CHECK(err == -EMFILE || err == -EINVAL, "%d", err);
    char text[2048];
    CHECK(weft_stack(text, sizeof text, true) > 0 && strstr(text, "fiber 1") != NULL); /* without symbols, perhaps */
    CHECK(weft_maxprocs(3) > 0);
    work(20);
    *(int *)arg = 1;
}

static void no_file_left(long unused)
{
    (void)unused;
    int done = 0;
    OK(weft_run(no_file_left_main, &done, NULL));
    CHECK(done);
}

static void files(void)
{
    for (long n = 3; n < 10; n++)
        expect_clean(in_child(few_files, n), "RLIMIT_NOFILE", n);
    expect_clean(in_child(no_file_left, 0), "no descriptor left", 0);
}

/* ---- RLIMIT_STACK -------------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void deep(int n, struct node *list)
{
    char room[512];
    memset(room, n, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");
    if (n > 0)
        deep(n - 1, list_make(3));
    else
        weft_gc();
    list_check(list, 3);
    __asm__ volatile("");
}

/* By the program anew, as the limit is that of the next one: the library's own stacks do not follow it, and the host's are scanned however large
 * they may become. */
static void stack_here(void)
{
    OK(weft_start(NULL));
    deep(100, list_make(3));
    work(20);
    pthread_t t;
    CHECK(pthread_create(&t, NULL, host_calls, NULL) == 0);
    CHECK(pthread_join(t, NULL) == 0);
    OK(weft_stop());
    OK(weft_run(main_fn, &worked, NULL));
}

static void with_stack(long kib)
{
    limit(RLIMIT_STACK, kib < 0 ? RLIM_INFINITY : (rlim_t)kib << 10);
    execl("/proc/self/exe", "limits", "stack_here", (char *)NULL);
    _exit(9);
}

static void stack(void)
{
    static const long kib[] = { 160, 512, 8192, 1 << 20, -1 };
    for (unsigned i = 0; i < sizeof kib / sizeof *kib; i++) {
        int status = in_child(with_stack, kib[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "RLIMIT_STACK %ld KiB: status 0x%x: %s", kib[i], (unsigned)status, said);
    }
}

int main(int argc, char **argv)
{
    static const struct host_case cases[] = {
        { "address_space", address_space }, { "mmap_refused", mmap_refused }, { "processes", processes }, { "files", files }, { "stack", stack }, { "stack_here", stack_here },
    };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
