/* A host in a sandbox that refuses system calls: those that are only an advantage are done without, and nothing is lost but speed. Refusals come
 * as EPERM (most sandboxes) or ENOSYS (an old kernel). */
#include "host.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#define CLONE3 435 /* libc knows only ENOSYS of it, and so do sandboxes */

static const struct refused { const char *name; unsigned number; } refusable[] = {
    { "userfaultfd", SYS_userfaultfd }, { "membarrier", SYS_membarrier }, { "perf_event_open", SYS_perf_event_open }, { "timer_create", SYS_timer_create },
    { "process_madvise", SYS_process_madvise }, { "process_vm_readv", SYS_process_vm_readv }, { "epoll_pwait2", SYS_epoll_pwait2 },
    { "sched_getaffinity", SYS_sched_getaffinity }, { "prctl", SYS_prctl }, { "madvise", SYS_madvise }, { "get_robust_list", SYS_get_robust_list },
    { "io_uring_setup", 425 }, { "clone3", CLONE3 }, { "close_range", 436 }, { "pidfd_open", 434 }, { "mincore", SYS_mincore },
    { "sched_setaffinity", SYS_sched_setaffinity },
};
#define N ((int)(sizeof refusable / sizeof *refusable))

/* which < 0: all of them. */
static void refuse(int which, int error)
{
    struct sock_filter f[2 * N + 3];
    unsigned short n = 0;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < N; i++)
        if (which < 0 || which == i) {
            f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refusable[i].number, 0, 1);
            f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)(refusable[i].number == CLONE3 ? ENOSYS : error));
        }
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog prog = { n, f };
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != 0) {
        puts("no seccomp here\nok");
        exit(0);
    }
}

static int over;

static void spin(void *arg)
{
    (void)arg;
    while (GET(over) == 0) {}
}

static void *host_thread(void *arg) /* its stack is found and scanned */
{
    work(10);
    return arg;
}

static void main_fn(void *arg)
{
    (void)arg;
    work(30);
    pthread_t t;
    CHECK(pthread_create(&t, NULL, host_thread, NULL) == 0);
    weft_blocking_begin();
    pthread_join(t, NULL);
    weft_blocking_end();
    OK(weft_go(spin, NULL)); /* a fiber that never calls in is stopped, and starves nobody */
    work(10);
    SET(over, 1);
    int sv[2];
    weft_fd *end[2];
    char c;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv) == 0);
    for (int i = 0; i < 2; i++)
        OK(weft_fd_open(sv[i], &end[i]));
    OK(weft_fd_set_deadline(end[1], weft_now() + 2 * WEFT_MILLISECOND, 0));
    CHECK(weft_read(end[1], &c, 1) == -ETIMEDOUT);
    OK(weft_fd_set_deadline(end[1], 0, 0));
    CHECK(weft_write(end[0], "a", 1) == 1 && weft_read(end[1], &c, 1) == 1);
    char text[8192];
    CHECK(weft_stack(text, sizeof text, true) > 0 && strstr(text, "fiber") != NULL);
    weft_free_os_memory();
    work(10);
}

static void run_refused(int which, int error)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(30);
        refuse(which, error);
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.maxprocs = 2;
        cfg.debug = "gcpoison=1"; /* what was lost is noticed */
        int err = weft_run(main_fn, NULL, &cfg);
        CHECK(err == 0, "without %s (%s): %d", which < 0 ? "any" : refusable[which].name, strerror(error), err);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "without %s (%s): status 0x%x", which < 0 ? "any" : refusable[which].name, strerror(error), (unsigned)status);
}

static void each(void)
{
    for (int i = 0; i < N; i++)
        run_refused(i, i % 2 ? EPERM : ENOSYS);
}

static void all(void)
{
    run_refused(-1, EPERM);
    run_refused(-1, ENOSYS);
}

int main(int argc, char **argv)
{
    static const struct host_case cases[] = { { "each", each }, { "all", all } };
    return host_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
