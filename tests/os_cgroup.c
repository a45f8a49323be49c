/* The CPU limit of a control group, on trees made for the purpose, and the default number of processors. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cgroup_test.h"
#include "os/affinity.h"
#include "os/cgroup.h"

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

/* ---- throttling */

static bool throttled(struct cgroup_throttled *t)
{
    struct cgroup cg;
    cr_assert_eq(cgroup_open(&cg, root), 0);
    bool known = cgroup_throttled(&cg, t);
    cgroup_close(&cg);
    return known;
}

Test(cgroup, throttled_time_is_in_ns_in_both_versions)
{
    struct cgroup_throttled t;
    int fds = test_fds();
    v2("150000 100000\n");
    cr_expect(!throttled(&t), "no cpu.stat");
    put("/sys/fs/cgroup/app.slice/one/cpu.stat", "usage_usec 17\nuser_usec 9\nsystem_usec 8\nnice_usec 0\ncore_sched.force_idle_usec 0\n"
                                                 "nr_periods 50\nnr_throttled 7\nthrottled_usec 123456\nnr_bursts 1\nburst_usec 2\n");
    cr_expect(throttled(&t));
    cr_expect(t.periods == 50 && t.throttled == 7 && t.throttled_ns == 123456000, "%lu %lu %lu", t.periods, t.throttled, t.throttled_ns);
    v1("250000\n", "100000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.stat", "nr_periods 40\nnr_throttled 6\nthrottled_time 987654321");
    cr_expect(throttled(&t));
    cr_expect(t.periods == 40 && t.throttled == 6 && t.throttled_ns == 987654321, "%lu %lu %lu", t.periods, t.throttled, t.throttled_ns);
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.stat", "usage_usec 17\nnr_periods x\n");
    cr_expect(!throttled(&t));
    put("/sys/fs/cgroup/cpu,cpuacct/app/cpu.stat", "");
    cr_expect(!throttled(&t));
    cr_expect_eq(test_fds(), fds);
}

/* ---- the real system */

static void in_group(void *arg)
{
    struct cgroup cg;
    struct cgroup_throttled t;
    double cpus = -1;
    (void)arg;
    real_enter("250000");
    int err = cgroup_open(&cg, "");
    printf("%d %d ", err, cgroup_limit(&cg, &cpus));
    real_quota("max");
    printf("%.2f %d %d\n", cpus, cgroup_limit(&cg, &cpus), cgroup_throttled(&cg, &t));
}

Test(cgroup, a_real_group) { in_real_group(in_group, "0 1 2.50 0 1\n"); }

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

struct sleeper { int tid; sem_t came, go; };

static void *sleeper_main(void *arg)
{
    struct sleeper *s = arg;
    s->tid = (int)syscall(SYS_gettid);
    for (int i = 0; i < 2; i++) {
        sem_post(&s->came);
        sem_wait(&s->go);
    }
    return NULL;
}

/* A thread keeps away from our CPU while it is woken, and may go everywhere again then; unless it has nowhere else to go. */
Test(procs, a_thread_is_woken_elsewhere)
{
    static struct sleeper s;
    struct os_affinity was;
    cpu_set_t all, set, ours;
    pthread_t t;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&ours);
    CPU_SET(sched_getcpu(), &ours);
    sem_init(&s.came, 0, 0);
    sem_init(&s.go, 0, 0);
    cr_assert_eq(pthread_create(&t, NULL, sleeper_main, &s), 0);
    sem_wait(&s.came);
    cr_assert_eq(sched_setaffinity(0, sizeof ours, &ours), 0); /* so that we stay on it */
    cr_expect_eq(os_affinity_elsewhere(s.tid, &was), CPU_COUNT(&all) > 1);
    sched_getaffinity(s.tid, sizeof set, &set);
    CPU_XOR(&set, &set, &all);
    cr_expect(CPU_EQUAL(&set, &ours) || CPU_COUNT(&all) == 1);
    sem_post(&s.go);
    os_affinity_back(s.tid, &was);
    sched_getaffinity(s.tid, sizeof set, &set);
    cr_expect(CPU_EQUAL(&set, &all));
    sem_wait(&s.came);
    cr_assert_eq(sched_setaffinity(s.tid, sizeof ours, &ours), 0);
    cr_expect(!os_affinity_elsewhere(s.tid, &was), "there is no other");
    sched_getaffinity(s.tid, sizeof set, &set);
    cr_expect(CPU_EQUAL(&set, &ours));
    sem_post(&s.go);
    pthread_join(t, NULL);
}

Test(cgroup, memory_of_the_group)
{
    uint64_t used = 1, most = 1;
    cr_expect_eq(cgroup_memory(root, &used, &most), -ENOENT);
    put("/proc/self/cgroup", "0::/app\n");
    put("/proc/self/mountinfo", V2_MOUNT);
    cr_expect_eq(cgroup_memory(root, &used, &most), -ENOENT, "the first group has no such files");
    put("/sys/fs/cgroup/app/memory.current", "123456\n");
    put("/sys/fs/cgroup/app/memory.max", "max\n");
    cr_expect_eq(cgroup_memory(root, &used, &most), 0);
    cr_expect(used == 123456 && most == UINT64_MAX);
    put("/sys/fs/cgroup/app/memory.max", "1048576\n");
    cr_expect_eq(cgroup_memory(root, &used, &most), 0);
    cr_expect_eq(most, 1048576);
    put("/proc/self/cgroup", "4:cpu,cpuacct:/cpu\n5:memory:/mem\n0::/app\n");
    put("/proc/self/mountinfo", "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" V2_MOUNT);
    put("/sys/fs/cgroup/memory/mem/memory.usage_in_bytes", "777\n");
    put("/sys/fs/cgroup/memory/mem/memory.limit_in_bytes", "9223372036854771712\n");
    cr_expect_eq(cgroup_memory(root, &used, &most), 0);
    cr_expect(used == 777 && most == UINT64_MAX, "v1 has a number for none");
}
