/* What the kernel says of this process. */
#include "os/procself.h"
#include "base/fail.h"
#include "base/fmt.h"
#include "base/syscall.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

static int read_stat(const char *path, char *buf, size_t n)
{
    long fd = fail_now(FAIL_FD) ? -EMFILE : sys_call4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return (int)fd;
    long got = sys_call3(SYS_read, fd, buf, n - 1);
    sys_call1(SYS_close, fd);
    if (got < 0)
        return (int)got;
    buf[got] = 0;
    return 0;
}

int os_thread_count(void)
{
    char buf[1024];
    int err = read_stat("/proc/self/stat", buf, sizeof buf);
    if (err != 0)
        return err;
    /* Field 20; the second one, the program's name in parentheses, may hold anything. */
    char *at = strrchr(buf, ')');
    for (int field = 2; at != NULL && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? atoi(at) : -EPROTO;
}

char os_thread_state(int tid)
{
    char path[64], buf[256];
    w_fmt(path, sizeof path, "/proc/self/task/%d/stat", tid);
    if (read_stat(path, buf, sizeof buf) != 0)
        return 0;
    const char *at = strrchr(buf, ')');
    return at != NULL && at[1] == ' ' ? at[2] : 0;
}

bool os_thread_sleeps(int tid)
{
    char state = os_thread_state(tid);
    return state == 'S' || state == 'D';
}
