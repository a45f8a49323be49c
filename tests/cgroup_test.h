/* What tests of control groups share: a tree that looks like /proc and /sys, and a group of the real kernel's, where one may be made. */
#ifndef CGROUP_TEST_H
#define CGROUP_TEST_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "test.h"

/* ---- a tree ---------------------------------------------------------------------------------------------- */

static char root[64];

static inline void make_root(void)
{
    strcpy(root, "/tmp/weft-cgroup-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

/* The runtime looks there, from its next start on. */
static inline void root_for_weft(void)
{
    char debug[1024];
    const char *others = getenv("WEFT_DEBUG");
    snprintf(debug, sizeof debug, "%s%scgrouproot=%s", others != NULL ? others : "", others != NULL ? "," : "", root);
    setenv("WEFT_DEBUG", debug, 1);
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void remove_root(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes root/path, making its directories. */
static inline void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = 0;
        mkdir(full, 0755);
    }
    FILE *f = fopen(full, "w");
    cr_assert_not_null(f, "%s", full);
    fputs(text, f);
    fclose(f);
}

#define V1_MOUNT "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
#define V2_MOUNT "31 25 0:27 / /sys/fs/cgroup rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n"
#define OTHERS \
    "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n" \
    "29 25 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"

static inline void v2(const char *max)
{
    put("/proc/self/cgroup", "0::/app.slice/one\n");
    put("/proc/self/mountinfo", OTHERS V2_MOUNT);
    put("/sys/fs/cgroup/app.slice/one/cpu.max", max);
    put("/sys/fs/cgroup/app.slice/cpu.max", "100000 100000\n"); /* a parent's: ignored */
}

static inline void v1(const char *quota, const char *period)
{
    put("/proc/self/cgroup", "12:memory:/app\n4:cpu,cpuacct:/app\n1:name=systemd:/\n0::/app\n");
    put("/proc/self/mountinfo", OTHERS V1_MOUNT V2_MOUNT);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", quota);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", period);
}

/* ---- a real group -------------------------------------------------------------------------------------------- */

static char real_dir[512];
static bool real_v2;

static inline bool real_write(const char *file, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", real_dir, file);
    FILE *f = fopen(path, "w");
    if (f == NULL)
        return false;
    bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

/* Microseconds in 100 ms, or "max". */
static inline bool real_quota(const char *us)
{
    char text[64];
    snprintf(text, sizeof text, "%s 100000", us);
    return real_v2 ? real_write("cpu.max", text) : real_write("cpu.cfs_quota_us", strcmp(us, "max") == 0 ? "-1" : us);
}

/* A child of our own group in the hierarchy that has cpu, by the usual mount points. False: none can be made. */
static inline bool real_make(void)
{
    char line[512];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        char *controllers = strchr(line, ':'), *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        real_v2 = strcmp(line, "0") == 0 && controllers[1] == 0;
        if (!real_v2 && strcmp(controllers, ":cpu") != 0 && strcmp(controllers, ":cpu,cpuacct") != 0)
            continue;
        snprintf(real_dir, sizeof real_dir, "/sys/fs/cgroup%s%s%s", real_v2 ? "" : "/", controllers + 1, strcmp(path, "/") == 0 ? "" : path);
        if (real_v2)
            real_write("cgroup.subtree_control", "+cpu"); /* or it is on already */
        size_t n = strlen(real_dir);
        snprintf(real_dir + n, sizeof real_dir - n, "/weft-test-%d", (int)getpid());
        found = mkdir(real_dir, 0755) == 0;
        if (found && !real_quota("max")) {
            rmdir(real_dir);
            found = false;
        }
    }
    if (f != NULL)
        fclose(f);
    return found;
}

/* In a child. */
static inline void real_enter(const char *quota_us)
{
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    if (!real_quota(quota_us) || !real_write("cgroup.procs", pid))
        abort();
}

/* After the child's end. */
static inline void real_remove(void)
{
    for (int i = 0; rmdir(real_dir) != 0 && i < 1000; i++)
        usleep(10000);
}

/* Runs fn in a child, which enters a real group, and expects it to print that. */
static inline void in_real_group(void (*fn)(void *), const char *prints)
{
    static struct test_output out;
    if (!real_make())
        cr_skip_test("no control group can be made here");
    test_fork(&out, fn, NULL);
    real_remove();
    cr_expect_not_null(strstr(out.text, prints), "%s", out.text);
}

#endif
