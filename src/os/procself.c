/* What the kernel says of this process. */
#include "os/procself.h"
#include "base/fmt.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_stat(const char *path, char *buf, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, buf, n - 1);
    int err = got < 0 ? -errno : 0;
    close(fd);
    if (err == 0)
        buf[got] = 0;
    return err;
}

int os_thread_count(void)
{
    int saved = errno;
    char buf[1024];
    int err = read_stat("/proc/self/stat", buf, sizeof buf);
    errno = saved;
    if (err != 0)
        return err;
    /* Field 20; the second one, the program's name in parentheses, may hold anything. */
    char *at = strrchr(buf, ')');
    for (int field = 2; at != NULL && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? atoi(at) : -EPROTO;
}

bool os_thread_sleeps(int tid)
{
    int saved = errno;
    char path[64], buf[256];
    w_fmt(path, sizeof path, "/proc/self/task/%d/stat", tid);
    int err = read_stat(path, buf, sizeof buf);
    errno = saved;
    if (err != 0)
        return false;
    const char *at = strrchr(buf, ')');
    return at != NULL && at[1] == ' ' && (at[2] == 'S' || at[2] == 'D');
}
