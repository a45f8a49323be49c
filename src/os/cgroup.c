/* Finding the group takes two files. /proc/self/cgroup says which group the process is in, a line per hierarchy:
 *
 *     4:cpu,cpuacct:/app        v1: the hierarchy whose controllers include cpu; wins, if there is one
 *     0::/app                   v2
 *
 * /proc/self/mountinfo says where that hierarchy is mounted and which part of it is visible there (the 4th field; in
 * a container the group's path may start with it, and is then relative to the mount point):
 *
 *     36 25 0:31 /app /sys/fs/cgroup/cpu rw,... - cgroup cgroup rw,cpu,cpuacct */
#include "os/cgroup.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "base/fail.h"
#include "base/fmt.h"
#include "base/offheap.h"
#include "base/syscall.h"

/* ---- reading lines, without malloc or stdio ------------------------------------------------------------ */

struct reader {
    int fd;
    size_t at, len;
    char buf[4096];
};

/* Next byte; -1: end. */
static int next_byte(struct reader *r)
{
    if (r->at == r->len) {
        long n = sys_call3(SYS_read, r->fd, r->buf, sizeof r->buf);
        if (n <= 0)
            return -1;
        r->at = 0;
        r->len = (size_t)n;
    }
    return (unsigned char)r->buf[r->at++];
}

/* A line without its newline; what does not fit is cut (a mount with many overlay layers: the fields we need come
 * first or the line is not ours). False: end of file. */
static bool next_line(struct reader *r, char *line, size_t size)
{
    size_t n = 0;
    int c = next_byte(r);
    if (c < 0)
        return false;
    for (; c >= 0 && c != '\n'; c = next_byte(r))
        if (n < size - 1)
            line[n++] = (char)c;
    line[n] = 0;
    return true;
}

/* What the search needs, for as long as it lasts: too much for a stack whose pages would stay. */
struct search {
    const char *root, *controller;
    struct reader r;
    char path[PATH_MAX];      /* of the group in its hierarchy */
    char dir[2 * PATH_MAX];   /* of the group's files */
    char line[3 * PATH_MAX];
    char name[2 * PATH_MAX];  /* of a file to open */
};

static int open_at(struct search *s, const char *dir, const char *name)
{
    if (w_fmt(s->name, sizeof s->name, "%s%s%s", s->root, dir, name) >= sizeof s->name)
        return -ENOMEM;
    return fail_now(FAIL_FD) ? -EMFILE : (int)sys_call4(SYS_openat, AT_FDCWD, s->name, O_RDONLY | O_CLOEXEC, 0);
}

static bool open_lines(struct search *s, const char *name)
{
    s->r.at = s->r.len = 0;
    s->r.fd = open_at(s, "", name);
    return s->r.fd >= 0;
}

/* ---- finding the group ------------------------------------------------------------------------------------- */

static bool list_has(const char *list, const char *word)
{
    for (size_t n = strlen(word); list != NULL; list = strchr(list, ','), list = list != NULL ? list + 1 : NULL)
        if (strncmp(list, word, n) == 0 && (list[n] == ',' || list[n] == 0))
            return true;
    return false;
}

/* Version 1 or 2, and the group's path in its hierarchy; 0: none. */
static int find_path(struct search *s)
{
    int version = 0;
    if (!open_lines(s, "/proc/self/cgroup"))
        return 0;
    while (version != 1 && next_line(&s->r, s->line, sizeof s->line)) {
        char *controllers = strchr(s->line, ':');
        char *p = controllers != NULL ? strchr(++controllers, ':') : NULL;
        if (p == NULL)
            continue;
        *p++ = 0;
        int v = list_has(controllers, s->controller) ? 1 : strncmp(s->line, "0:", 2) == 0 && *controllers == 0 ? 2 : 0;
        if (v == 0 || w_fmt(s->path, sizeof s->path, "%s", p) >= sizeof s->path)
            continue;
        version = v;
    }
    close(s->r.fd);
    return version;
}

/* mountinfo writes blank, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
    char *to = s;
    for (; *s != 0; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = 0;
}

static char *field(char **rest)
{
    char *f = *rest;
    if (f != NULL && (*rest = strchr(f, ' ')) != NULL)
        *(*rest)++ = 0;
    return f;
}

/* If the line mounts the hierarchy of that version and shows the group: its directory. */
static bool directory_in(struct search *s, int version)
{
    const char *path = s->path;
    char *rest = s->line, *shown = NULL, *point = NULL;
    for (int i = 0; i < 5 && rest != NULL; i++) {
        char *f = field(&rest);
        if (i == 3)
            shown = f;
        if (i == 4)
            point = f;
    }
    char *tail = rest != NULL ? strstr(rest, "- ") : NULL; /* optional fields end in a single hyphen */
    if (tail == NULL)
        return false;
    tail += 2;
    char *type = field(&tail);
    field(&tail); /* source */
    bool right = version == 2 ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && list_has(tail, s->controller);
    if (!right)
        return false;
    unescape(shown);
    unescape(point);
    size_t n = strcmp(shown, "/") == 0 ? 0 : strlen(shown);
    if (strncmp(path, shown, n) != 0 || (path[n] != '/' && path[n] != 0))
        return false;
    return w_fmt(s->dir, sizeof s->dir, "%s%s", point, strcmp(path + n, "/") == 0 ? "" : path + n) < sizeof s->dir;
}

static bool find_directory(struct search *s, int version)
{
    bool found = false;
    if (!open_lines(s, "/proc/self/mountinfo"))
        return false;
    while (!found && next_line(&s->r, s->line, sizeof s->line))
        found = directory_in(s, version);
    close(s->r.fd);
    return found;
}

static int find(struct cgroup *cg, struct search *s)
{
    int version = find_path(s);
    if (version == 0 || !find_directory(s, version))
        return -ENOENT;
    cg->quota_fd = open_at(s, s->dir, version == 1 ? "/cpu.cfs_quota_us" : "/cpu.max");
    if (cg->quota_fd >= 0 && version == 1)
        cg->period_fd = open_at(s, s->dir, "/cpu.cfs_period_us");
    if (cg->quota_fd >= 0 && (version == 2 || cg->period_fd >= 0)) {
        cg->stat_fd = w_max(open_at(s, s->dir, "/cpu.stat"), -1);
        return 0;
    }
    int err = cg->quota_fd < 0 ? cg->quota_fd : cg->period_fd;
    cgroup_close(cg);
    return err;
}

int cgroup_open(struct cgroup *cg, const char *root)
{
    *cg = (struct cgroup){ -1, -1, -1 };
    struct search *s = off_alloc(OFF_SCHED, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->root = root;
    s->controller = "cpu";
    int err = find(cg, s);
    off_free(OFF_SCHED, s);
    return err;
}

void cgroup_close(struct cgroup *cg)
{
    if (cg->quota_fd >= 0)
        close(cg->quota_fd);
    if (cg->period_fd >= 0)
        close(cg->period_fd);
    if (cg->stat_fd >= 0)
        close(cg->stat_fd);
    *cg = (struct cgroup){ -1, -1, -1 };
}

/* ---- the limit ------------------------------------------------------------------------------------------------- */

/* The whole file, as text. */
static bool read_small(int fd, char *buf, size_t size)
{
    long n = sys_call4(SYS_pread64, fd, buf, size - 1, 0);
    if (n <= 0)
        return false;
    buf[n] = 0;
    return true;
}

/* Digits up to a blank, a newline or the end; *s is left behind them. False: something else, or nothing,
 * or too many. */
static bool read_digits(const char **s, int64_t *v)
{
    const char *start = *s;
    *v = 0;
    for (; **s >= '0' && **s <= '9'; ++*s)
        if (__builtin_mul_overflow(*v, 10, v) || __builtin_add_overflow(*v, **s - '0', v))
            return false;
    return *s != start && (**s == ' ' || **s == '\n' || **s == 0);
}

bool cgroup_limit(const struct cgroup *cg, double *cpus)
{
    char buf[64];
    int64_t quota, period;
    const char *s = buf;
    if (cg->quota_fd < 0 || !read_small(cg->quota_fd, buf, sizeof buf) || !read_digits(&s, &quota))
        return false; /* v2 `max` and v1 `-1` end here too */
    if (cg->period_fd >= 0) {
        s = buf;
        if (!read_small(cg->period_fd, buf, sizeof buf))
            return false;
    } else if (*s++ != ' ') {
        return false;
    }
    if (!read_digits(&s, &period) || period == 0)
        return false;
    *cpus = (double)quota / (double)period;
    return true;
}

/* ---- throttling ------------------------------------------------------------------------------------------------ */

/* A line "key value"; v1 counts the time in ns, v2 in us. */
static void stat_line(const char *line, struct cgroup_throttled *out)
{
    static const struct { const char *key; size_t to; uint64_t unit; } keys[] = {
        { "nr_periods ", offsetof(struct cgroup_throttled, periods), 1 },
        { "nr_throttled ", offsetof(struct cgroup_throttled, throttled), 1 },
        { "throttled_time ", offsetof(struct cgroup_throttled, throttled_ns), 1 },
        { "throttled_usec ", offsetof(struct cgroup_throttled, throttled_ns), 1000 },
    };
    for (size_t i = 0; i < w_countof(keys); i++) {
        size_t n = strlen(keys[i].key);
        const char *s = line + n;
        int64_t v;
        if (strncmp(line, keys[i].key, n) == 0 && read_digits(&s, &v))
            *(uint64_t *)(void *)((char *)out + keys[i].to) = (uint64_t)v * keys[i].unit;
    }
}

bool cgroup_throttled(const struct cgroup *cg, struct cgroup_throttled *out)
{
    char buf[2048];
    *out = (struct cgroup_throttled){ 0 };
    if (cg->stat_fd < 0 || !read_small(cg->stat_fd, buf, sizeof buf))
        return false;
    for (const char *line = buf, *end; *line != 0; line = end + 1) {
        stat_line(line, out);
        if ((end = strchr(line, '\n')) == NULL)
            break;
    }
    return strstr(buf, "nr_throttled ") != NULL;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* UINT64_MAX: "max", and what v1 writes for it. */
static int read_bytes(struct search *s, const char *name, uint64_t *bytes)
{
    char buf[64];
    const char *at = buf;
    int64_t v;
    int fd = open_at(s, s->dir, name);
    if (fd < 0)
        return fd;
    bool there = read_small(fd, buf, sizeof buf);
    close(fd);
    *bytes = there && read_digits(&at, &v) && v < INT64_MAX / 2 ? (uint64_t)v : UINT64_MAX;
    return there ? 0 : -ENOENT;
}

int cgroup_memory(const char *root, uint64_t *used, uint64_t *limit)
{
    struct search *s = off_alloc(OFF_SCHED, sizeof *s);
    if (s == NULL)
        return -ENOMEM;
    s->root = root;
    s->controller = "memory";
    int version = find_path(s), err = version != 0 && find_directory(s, version) ? 0 : -ENOENT;
    if (err == 0)
        err = read_bytes(s, version == 1 ? "/memory.usage_in_bytes" : "/memory.current", used);
    if (err == 0)
        err = read_bytes(s, version == 1 ? "/memory.limit_in_bytes" : "/memory.max", limit);
    off_free(OFF_SCHED, s);
    return err;
}

/* ---- the default ------------------------------------------------------------------------------------------------- */

int procs_default(int ncpu, double limit)
{
    if (limit <= 0)
        return ncpu;
    if (limit >= ncpu)
        return ncpu;
    int whole = (int)limit;
    int procs = w_max(whole + (limit > whole), 2);
    return w_min(procs, ncpu);
}
