/* The CPU limit of a control group, on trees made for the purpose, and the default number of processors. */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "os/affinity.h"
#include "os/cgroup.h"
#include "test.h"

static char root[64];

static void make_root(void)
{
    strcpy(root, "/tmp/weft-cgroup-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_root(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes root/path, making its directories. */
static void put(const char *path, const char *text)
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

static void v2(const char *max)
{
    put("/proc/self/cgroup", "0::/app.slice/one\n");
    put("/proc/self/mountinfo", OTHERS V2_MOUNT);
    put("/sys/fs/cgroup/app.slice/one/cpu.max", max);
    put("/sys/fs/cgroup/app.slice/cpu.max", "100000 100000\n"); /* a parent's: ignored */
}

static void v1(const char *quota, const char *period)
{
    put("/proc/self/cgroup", "12:memory:/app\n4:cpu,cpuacct:/app\n1:name=systemd:/\n0::/app\n");
    put("/proc/self/mountinfo", OTHERS V1_MOUNT V2_MOUNT);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", quota);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", period);
}

/* -1: no limit; -2: the group cannot be opened. */
static double limit(void)
{
    struct cgroup cg;
    double cpus = -1;
    if (cgroup_open(&cg, root) != 0)
        return -2;
    if (!cgroup_limit(&cg, &cpus))
        cpus = -1;
    cgroup_close(&cg);
    return cpus;
}

TestSuite(cgroup, .init = make_root, .fini = remove_root);

Test(cgroup, v2_quota)
{
    static const struct { const char *text; double cpus; } cases[] = {
        { "150000 100000\n", 1.5 }, { "max 100000\n", -1 }, { "200001 100000", 2.00001 }, { "50000 100000\n", 0.5 },
        { "", -1 }, { "100000\n", -1 }, { "x 100000\n", -1 },
        { "100000 0\n", -1 }, { "100000 x\n", -1 }, { "-1 100000\n", -1 },
        { "99999999999999999999 100000\n", -1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        v2(cases[i].text);
        cr_expect_float_eq(limit(), cases[i].cpus, 1e-9, "\"%s\": %f", cases[i].text, limit());
    }
}

Test(cgroup, v1_quota_wins_over_v2)
{
    v1("250000\n", "100000\n");
    put("/sys/fs/cgroup/app/cpu.max", "700000 100000\n");
    cr_expect_float_eq(limit(), 2.5, 1e-9);
    v1("-1\n", "100000\n");
    cr_expect_float_eq(limit(), -1, 1e-9);
    v1("100000\n", "junk\n");
    cr_expect_float_eq(limit(), -1, 1e-9);
    v1("100000\n", "0\n");
    cr_expect_float_eq(limit(), -1, 1e-9);
}

/* A controller whose name only contains "cpu" is not the one. */
Test(cgroup, cpuset_is_not_cpu)
{
    put("/proc/self/cgroup", "5:cpuset:/a\n4:cpuacct:/b\n0::/c\n");
    put("/proc/self/mountinfo", "30 25 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" V2_MOUNT);
    put("/sys/fs/cgroup/c/cpu.max", "300000 100000\n");
    cr_expect_float_eq(limit(), 3, 1e-9);
}

/* In a container with a bind mount the group's path starts with the part that is mounted. */
Test(cgroup, path_under_a_mounted_part)
{
    put("/proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n");
    put("/proc/self/mountinfo", "30 25 0:26 /docker/other /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n"
                                "31 25 0:26 /docker/abc /sys/fs/cgroup/my\\040cpu ro master:9 shared:3 "
                                "- cgroup cgroup rw,cpu,cpuacct\n");
    put("/sys/fs/cgroup/my cpu/cpu.cfs_quota_us", "400000\n");
    put("/sys/fs/cgroup/my cpu/cpu.cfs_period_us", "100000\n");
    cr_expect_float_eq(limit(), 4, 1e-9);
}

Test(cgroup, nothing_there)
{
    struct cgroup cg;
    cr_expect_eq(cgroup_open(&cg, root), -ENOENT);
    double cpus;
    cr_expect(!cgroup_limit(&cg, &cpus));
    cgroup_close(&cg);
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", OTHERS);
    cr_expect_eq(cgroup_open(&cg, root), -ENOENT);
    put("/proc/self/mountinfo", V2_MOUNT);
    cr_expect_eq(cgroup_open(&cg, root), -ENOENT, "no cpu.max");
    put("/proc/self/cgroup", "junk\n\n::\n7:cpu\n");
    cr_expect_eq(cgroup_open(&cg, root), -ENOENT);
    cr_expect_eq(test_fds(), test_fds());
}

Test(cgroup, follows_changes_and_leaks_no_descriptor)
{
    struct cgroup cg;
    double cpus;
    int fds = test_fds();
    v2("200000 100000\n");
    cr_assert_eq(cgroup_open(&cg, root), 0);
    cr_expect(cgroup_limit(&cg, &cpus) && cpus == 2);
    v2("350000 100000\n"); /* the same file, written again */
    cr_expect(cgroup_limit(&cg, &cpus) && cpus == 3.5);
    v2("max 100000\n");
    cr_expect(!cgroup_limit(&cg, &cpus));
    cgroup_close(&cg);
    cgroup_close(&cg);
    cr_expect_eq(test_fds(), fds);
}

Test(cgroup, the_real_system_can_be_asked)
{
    struct cgroup cg;
    double cpus = 0;
    if (cgroup_open(&cg, "") == 0 && cgroup_limit(&cg, &cpus))
        cr_expect_gt(cpus, 0);
    cgroup_close(&cg);
}

/* ---- processors ---------------------------------------------------------------------------------------------- */

Test(procs, default_is_cpus_within_the_limit_but_two)
{
    static const struct { int cpus; double limit; int procs; } cases[] = {
        { 8, 0, 8 }, { 8, 0.5, 2 }, { 8, 1, 2 }, { 8, 1.5, 2 }, { 8, 2, 2 }, { 8, 2.00001, 3 }, { 8, 3, 3 },
        { 8, 100, 8 }, { 1, 0.5, 1 }, { 1, 3, 1 }, { 2, 1, 2 }, { 8, 1e18, 8 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_eq(procs_default(cases[i].cpus, cases[i].limit), cases[i].procs, "%d CPUs, limit %f",
                     cases[i].cpus, cases[i].limit);
}

Test(procs, cpus_are_those_of_the_affinity_mask)
{
    cpu_set_t set, one;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_expect_eq(os_cpu_count(), CPU_COUNT(&set));
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &set)) {
            CPU_ZERO(&one);
            CPU_SET(i, &one);
            cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
            cr_expect_eq(os_cpu_count(), 1);
            break;
        }
    }
}
