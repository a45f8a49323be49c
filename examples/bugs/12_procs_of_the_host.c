/* Bug 12: as many processors as the host has CPUs, in a container that may not use them.
 *
 * What the call promises: weft_maxprocs(n) lets n threads run fibers at once, and ends automatic updates.
 * What the bug assumes:   that a CPU that can be seen can be used. The container's quota says how much CPU time it may
 *                         use in each period of 100 ms, on however many CPUs.
 * What goes wrong:        a burst of work runs on all CPUs, uses up the quota in the first part of the period, and then
 *                         the kernel stops every thread of the program until the next one: also those that have
 *                         nothing to do with it, health checks among them.
 * Instead:                nothing. The default counts the CPUs of the affinity mask and the quota of the control group,
 *                         v1 or v2, and follows both as they change.
 * Guarded:                a number above that default is taken for the default.
 *
 * Measured in a control group of its own, where one can be made and the machine has at least twice the CPUs of the
 * quota. Elsewhere both are simulated, and the program says so: the runtime is told of 8 CPUs, and of a control group
 * that is made of files (WEFT_DEBUG=cpus=8,cgrouproot=...), to compute is to occupy a CPU that is not there for as long,
 * and a second process does what the kernel does: it adds up the time that CPUs are in use, stops the whole program when
 * the quota of a period is used up, and counts in cpu.stat. */
#include "bug.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

enum { QUOTA_CPUS = 2, PERIOD_MS = 100 };
enum { FIBERS = 32, SLICE_US = 200, SLICES = 46, BURSTS = 12, BURST_EVERY_MS = 200, LATEST_S = 8 }; /* 294 ms of CPU time in 200 ms */

/* ---- the control group ---------------------------------------------------------------------------------- */

/* Shared by the program and the process that plays the kernel. */
static struct group {
    bool simulated;
    int busy, procs;                     /* threads that compute, of so many that may */
    int64_t periods, throttled, throttled_us;
    bool over;
} *group;

static char directory[512];

static bool write_text(const char *file, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Where the group of this process can have a child, by the usual mount points. */
static bool parent_directory(char *dir, size_t size, bool *v2)
{
    char line[512];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        *v2 = strcmp(line, "0") == 0;
        if (strcmp(path, "/") == 0)
            *path = 0;
        if (strcmp(controllers, ":cpu") == 0 || strcmp(controllers, ":cpu,cpuacct") == 0)
            found = snprintf(dir, size, "/sys/fs/cgroup/%s%s", controllers + 1, path) < (int)size;
        else if (*v2)
            found = snprintf(dir, size, "/sys/fs/cgroup%s", path) < (int)size && access(dir, W_OK) == 0;
    }
    if (f)
        fclose(f);
    return found;
}

/* A group with the quota, and this process in it. */
static bool enter_group(void)
{
    char parent[400], pid[16];
    bool v2;
    if (!parent_directory(parent, sizeof parent, &v2))
        return false;
    snprintf(directory, sizeof directory, "%s", parent);
    if (v2)
        write_text("cgroup.subtree_control", "+cpu"); /* it may be on already */
    snprintf(directory, sizeof directory, "%s/weft-bug-12-%d", parent, (int)getpid());
    if (mkdir(directory, 0755) != 0)
        return false;
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    bool ok = v2 ? write_text("cpu.max", "200000 100000") : write_text("cpu.cfs_period_us", "100000") && write_text("cpu.cfs_quota_us", "200000");
    if (ok && write_text("cgroup.procs", pid))
        return true;
    rmdir(directory);
    return false;
}

/* cpu.stat of the real one. */
static void read_stat(void)
{
    char path[600], key[64];
    long long v;
    snprintf(path, sizeof path, "%s/cpu.stat", directory);
    FILE *f = fopen(path, "re");
    while (f && fscanf(f, "%63s %lld", key, &v) == 2) {
        if (strcmp(key, "nr_periods") == 0)
            group->periods = v;
        else if (strcmp(key, "nr_throttled") == 0)
            group->throttled = v;
        else if (strcmp(key, "throttled_usec") == 0)
            group->throttled_us = v;
        else if (strcmp(key, "throttled_time") == 0)
            group->throttled_us = v / 1000;
    }
    if (f)
        fclose(f);
}

/* Back to where this process was. */
static void leave_group(void)
{
    char pid[16], own[512];
    snprintf(own, sizeof own, "%s", directory);
    *strrchr(directory, '/') = 0;
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    write_text("cgroup.procs", pid);
    rmdir(own);
}

/* ---- the kernel, simulated ---------------------------------------------------------------------------------- */

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000) + t.tv_nsec / 1000;
}

static void until_us(int64_t end)
{
    for (int64_t left; (left = end - now_us()) > 0;)
        usleep((useconds_t)left);
}

/* CPUs that are in use now. A thread that waits for a real CPU for so long that the runtime lets another one run in its place counts once. */
static int cpus_in_use(void)
{
    int busy = __atomic_load_n(&group->busy, __ATOMIC_RELAXED), procs = __atomic_load_n(&group->procs, __ATOMIC_RELAXED);
    return busy < procs ? busy : procs;
}

static void stop_until(pid_t program, int64_t end)
{
    int64_t start = now_us();
    kill(program, SIGSTOP);
    until_us(end);
    kill(program, SIGCONT);
    group->throttled++;
    group->throttled_us += end - start;
}

/* A tree of files as those by which a program finds its group, and what the kernel says of it. */
static char tree[64];
static int stat_fd;

static bool put_file(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s", tree, path);
    for (char *p = full + strlen(tree) + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = 0;
        mkdir(full, 0755);
    }
    FILE *f = fopen(full, "we");
    bool ok = f && fputs(text, f) >= 0;
    return f && fclose(f) == 0 && ok;
}

/* What there was is overwritten: no number gets shorter. */
static void write_stat(void)
{
    char text[160];
    int n = snprintf(text, sizeof text, "usage_usec 0\nnr_periods %lld\nnr_throttled %lld\nthrottled_usec %lld\n", (long long)group->periods,
                     (long long)group->throttled, (long long)group->throttled_us);
    (void)!pwrite(stat_fd, text, (size_t)n, 0);
}

static bool make_tree(void)
{
    char full[256];
    snprintf(tree, sizeof tree, "/tmp/weft-bug-12-%d", (int)getpid());
    snprintf(full, sizeof full, "%s/sys/fs/cgroup/cpu.stat", tree);
    bool ok = mkdir(tree, 0755) == 0 && put_file("/proc/self/cgroup", "0::/\n") &&
              put_file("/proc/self/mountinfo", "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n") &&
              put_file("/sys/fs/cgroup/cpu.max", "200000 100000\n") && put_file("/sys/fs/cgroup/cpu.stat", "");
    stat_fd = ok ? open(full, O_WRONLY | O_CLOEXEC) : -1;
    if (stat_fd >= 0)
        write_stat();
    return stat_fd >= 0;
}

static void remove_tree(void)
{
    static const char *const parts[] = { "/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup", "/sys/fs", "/sys",
                                         "/proc/self/mountinfo", "/proc/self/cgroup", "/proc/self", "/proc", "" };
    char full[256];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(full, sizeof full, "%s%s", tree, parts[i]);
        remove(full);
    }
    close(stat_fd);
}

/* Looks every millisecond, or as often as it comes to run. */
static void play_kernel(pid_t program)
{
    int64_t period_us = PERIOD_MS * 1000, quota_us = QUOTA_CPUS * period_us;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (!__atomic_load_n(&group->over, __ATOMIC_RELAXED) && getppid() == program) {
        int64_t last = now_us(), end = last + period_us, used_us = 0;
        for (int64_t now; (now = now_us()) < end; last = now) {
            used_us += cpus_in_use() * (now - last);
            if (used_us >= quota_us && end - now > 1000)
                stop_until(program, end);
            else
                until_us(now + 1000 < end ? now + 1000 : end);
        }
        group->periods += used_us > 0;
        write_stat();
    }
    _exit(0);
}

static pid_t start_simulation(void)
{
    pid_t program = getpid(), kernel = fork();
    if (kernel == 0)
        play_kernel(program);
    group->simulated = true;
    return kernel;
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

static struct bug_bystander bystander = { .spins = 100 };

/* Computes for a moment. A simulated CPU lets others have the real one meanwhile: as many of them as the runtime has processors work at once. */
static void slice(void)
{
    int64_t end = now_us() + SLICE_US;
    __atomic_fetch_add(&group->busy, 1, __ATOMIC_RELAXED);
    while (now_us() < end)
        if (group->simulated)
            usleep(20);
    __atomic_fetch_sub(&group->busy, 1, __ATOMIC_RELAXED);
}

static void compute(void *arg)
{
    (void)arg;
    for (int i = 0; i < SLICES; i++) {
        slice();
        weft_yield();
    }
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void bursts(void *arg)
{
    (void)arg;
    bug_value("cpus", weft_num_cpu());
    bug_value("procs", weft_maxprocs(0));
    __atomic_store_n(&group->procs, weft_maxprocs(0), __ATOMIC_RELAXED);
    bug_bystander_start(&bystander);
    int64_t latest = weft_now() + LATEST_S * WEFT_SECOND; /* on a machine that does much else */
    for (int i = 0; i < BURSTS && weft_now() < latest; i++) {
        weft_waitgroup wg = { 0 };
        int64_t next = weft_now() + BURST_EVERY_MS * WEFT_MILLISECOND;
        for (int k = 0; k < FIBERS; k++)
            weft_waitgroup_go(&wg, compute, NULL);
        weft_waitgroup_wait(&wg);
        if (weft_now() < next)
            weft_sleep(next - weft_now());
    }
    bug_bystander_stop(&bystander);
}

static void main_buggy(void *arg)
{
    weft_maxprocs(weft_num_cpu()); /* here it happens */
    bursts(arg);
}

static void measure(weft_fn *main_fn)
{
    group = mmap(NULL, sizeof *group, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cpu_set_t set;
    pid_t kernel = 0;
    bool real = sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 2 * QUOTA_CPUS && enter_group();
    weft_config config = bug_config();
    char debug[128];
    if (!real) {
        if (!make_tree()) {
            fprintf(stderr, "bug 12: %s: %s\n", tree, strerror(errno));
            exit(1);
        }
        kernel = start_simulation();
        snprintf(debug, sizeof debug, "cpus=8,cgrouproot=%s", tree);
        config.debug = debug;
    }
    int r = weft_run(main_fn, NULL, &config);
    __atomic_store_n(&group->over, true, __ATOMIC_RELAXED);
    if (real) {
        read_stat();
        leave_group();
    } else {
        waitpid(kernel, NULL, 0);
        remove_tree();
    }
    qsort(bystander.ns, (size_t)bystander.n, sizeof *bystander.ns, compare);
    double p99 = bystander.n > 0 ? (double)bystander.ns[bystander.n * 99L / 100] / 1e6 : 0;
    bug_value("result", r);
    bug_value("periods", (double)group->periods);
    bug_value("throttled", (double)group->throttled);
    bug_value("throttled_ms", (double)group->throttled_us / 1000);
    bug_value("p99", p99);
    bug_say("%s%.0f CPUs, a quota of %d, %.0f processors: %lld of %lld periods throttled, %.0f ms in all; an unrelated fiber's p99 is %.1f ms",
            real ? "" : "simulated: ", bug_get(bug_result_, "cpus"), QUOTA_CPUS, bug_get(bug_result_, "procs"), (long long)group->throttled,
            (long long)group->periods, (double)group->throttled_us / 1000, p99);
    bug_cell("%lld/%lld throttled, p99 %.1f ms", (long long)group->throttled, (long long)group->periods, p99);
}

static void buggy(void *arg) { (void)arg, measure(main_buggy); }
static void fixed(void *arg) { (void)arg, measure(bursts); }

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "result") != 0 || bug_get(f, "result") != 0)
        return "a run did not end as it should";
    if (bug_get(f, "procs") != QUOTA_CPUS || bug_get(b, "procs") != bug_get(b, "cpus"))
        return "the default number of processors is not that of the quota";
    if (bug_get(b, "throttled") < 0.25 * bug_get(b, "periods"))
        return "more processors than the quota were not throttled";
    if (bug_get(f, "throttled_ms") > 0.2 * bug_get(b, "throttled_ms"))
        return "the default is throttled as much";
    /* What holds it up otherwise is the machine's, and may be long, too. */
    if (bug_get(b, "p99") < PERIOD_MS / 4)
        return "the unrelated fiber is not held up by that";
    if (bug_get(g, "result") != 0 || bug_get(g, "throttled_ms") > 0.2 * bug_get(b, "throttled_ms"))
        return "guarded, it is throttled as much";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "12",
        .title = "processors of the host, not the quota",
        .buggy = buggy,
        .fixed = fixed,
        .own_run = true,
        .instead = "(nothing: leave maxprocs at its default, which is the quota's)",
        .attempts = 3,
        .code = WEFT_W12,
        .guard = "WEFT_GUARD_PROCS: more processors than the quota allows are as many as it allows",
        .verdict = verdict,
        .plots = { { "throttled_ms", "time for which all threads were stopped", "ms", false }, { "p99", "p99 of an unrelated fiber", "ms", false } },
    };
    return bug_main(argc, argv, &bug);
}
