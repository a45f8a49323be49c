/* The CPU limit of the process's own control group, v1 or v2, for the default number of processors.
 *
 * The group is looked up once, at start; its files stay open and are read again each time. Limits of parent groups
 * are not looked at, and a later move to another group is not noticed (both as in Go). */
#ifndef WEFT_OS_CGROUP_H
#define WEFT_OS_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct cgroup {
    int quota_fd;  /* v1: cpu.cfs_quota_us; v2: cpu.max; -1: no group */
    int period_fd; /* v1: cpu.cfs_period_us; v2: -1 */
    int stat_fd;   /* cpu.stat; -1: none */
};

/* root is put before every path ("" in earnest; tests have a tree of their own). 0; or a negative errno, and then
 * there is no limit: -ENOENT (no group with a CPU controller, or its files are not there), -ENOMEM (a path too long).
 * Blocks on files: at start only. */
int cgroup_open(struct cgroup *cg, const char *root);
void cgroup_close(struct cgroup *cg);

/* True if there is a limit now; *cpus is quota / period. Unreadable or malformed files: no limit. May be called by
 * any thread. */
bool cgroup_limit(const struct cgroup *cg, double *cpus);

/* How often the group had used up its quota, and how long its threads stood still for that, since the group was made. */
struct cgroup_throttled {
    uint64_t periods;       /* with something to run */
    uint64_t throttled;     /* of these, cut short */
    uint64_t throttled_ns;  /* summed over CPUs */
};
/* False: not known. May be called by any thread. */
bool cgroup_throttled(const struct cgroup *cg, struct cgroup_throttled *out);

/* What the kernel counts against the memory limit of the process's own group, and the limit; UINT64_MAX: none. Looked up anew. 0, -ENOENT (no group with
 * that controller), -ENOMEM, -EMFILE. Where off-heap memory may be taken. */
int cgroup_memory(const char *root, uint64_t *used, uint64_t *limit);

/* Default of weft_maxprocs: the CPUs, but no more than the limit, rounded up, and that not below 2. limit <= 0:
 * none. */
int procs_default(int ncpu, double limit);

#endif
