/* Settings: from weft_config, else from the environment, else the default. Read once, at start; plain data afterwards.
 * The tables and the rules for adding a setting or a debug key are in config.c. */
#ifndef WEFT_BASE_CONFIG_H
#define WEFT_BASE_CONFIG_H

#include <weft/sched.h>
#include "base/base.h"

enum { DOCTOR_AS_ALL = -1, DOCTOR_OFF, DOCTOR_COUNT, DOCTOR_REPORT, DOCTOR_ABORT }; /* modes */
enum { CONFIG_DOCTOR_CODES = 19, CONFIG_PATH = 128 };

struct config {
    int64_t maxprocs;       /* 0: from affinity and cgroup, and follows them */
    int64_t gc_percent;     /* -1: no collection by growth */
    int64_t memory_limit;   /* bytes; INT64_MAX: none */
    int64_t stack_size;     /* bytes, a power of two */
    int64_t main_stack_size;
    int64_t heap_reserve;   /* bytes; 0: 1 TiB or what is allowed */
    int64_t max_threads;
    int64_t stop_signal;
    int64_t stop_timeout_ms; /* negative: for ever */
    int64_t mem_profile_rate; /* bytes; 0: not given, -1: never */
    int64_t guards;         /* WEFT_GUARD_* */
    void (*log)(void *arg, const char *line); /* NULL: stderr */
    void *log_arg;
    void (*finding)(void *arg, const struct weft_finding *f); /* NULL: the log */
    void *finding_arg;

    /* WEFT_DEBUG */
    int64_t guard;          /* 0, 1: all guards, where none are given */
    int64_t gctrace;        /* 0, 1 */
    int64_t scavtrace;      /* 0, 1 */
    int64_t schedtrace;     /* ms between two lines; 0: none */
    int64_t scheddetail;    /* 0, 1 */
    int64_t gcstress;       /* collect every N allocations; 0: off */
    int64_t gcpoison;       /* 0, 1 */
    int64_t gcverify;       /* 0, 1 */
    int64_t madvdontneed;   /* 1: MADV_DONTNEED; 0: MADV_FREE */
    int64_t membarrier;     /* 0, 1 */
    int64_t gc;             /* CONFIG_GC_* */
    int64_t memprofilerate; /* bytes, for where mem_profile_rate is not given; 0: never */
    int64_t migrate;        /* 0, 1 */
    int64_t schedseed;      /* 0: off */
    int64_t failmem, failthread, failfd, faildirty; /* number of the first request that fails; 0: none does */
    int64_t failrun;        /* how many in a row fail */
    int64_t containermaxprocs; /* 0, 1 */
    int64_t updatemaxprocs; /* 0, 1 */
    int64_t cpus;           /* 0: those of the affinity mask */
    int64_t cpuquota;       /* percent of a CPU; 0: the control group's */
    int64_t slowfiber, slowstop; /* ms; 0: not looked for */
    char cgrouproot[CONFIG_PATH]; /* "": the real one */
    int64_t doctor;         /* DOCTOR_* */
    int64_t doctor_code[CONFIG_DOCTOR_CODES]; /* by code; DOCTOR_AS_ALL: as above */
};

enum { CONFIG_GC_AUTO, CONFIG_GC_UFFD, CONFIG_GC_MPROTECT, CONFIG_GC_STW }; /* the words of gc */
enum { CONFIG_MEM_PROFILE_RATE = 512 << 10 };

/* Reads all settings. cfg may be NULL. 0; or -EINVAL after say() has got a line for each setting that is wrong (its
 * name, its value, what is allowed, and for an unknown key the nearest one). say gets no newline. *out is filled in
 * either case. */
int config_load(const weft_config *cfg, struct config *out, void (*say)(void *arg, const char *line), void *arg);

/* A setting as it was read: its field of weft_config or its key of WEFT_DEBUG, and its value as text. False: there are no more. */
struct config_item { const char *name, *env; /* env: NULL: none */ bool debug, is_default; char value[CONFIG_PATH]; };
bool config_item(const struct config *c, unsigned i, struct config_item *out);

#endif
