/* bug.h - what the programs 01 to 14 share: running the two modes, measuring, and one form of report.
 *
 * A program describes itself in a struct bug and calls bug_main. Each mode runs in a child process of its own, so
 * that limits, leaked descriptors and settings of one do not reach the other; it leaves what it measured in memory
 * that the parent shares. The verdict looks at counts, and at wide ratios within one pair of runs: the machine may be
 * busy. Where it is a matter of time, a pair that does not convince is run again, up to `attempts`. */
#ifndef BUG_H
#define BUG_H

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <weft.h>

/* ---- what a mode measures ------------------------------------------------------------------------ */

enum { BUG_VALUES = 24, BUG_TEXT = 512, BUG_TIMEOUT_S = 120 };

struct bug_result {
    char text[BUG_TEXT]; /* the symptom in a sentence */
    char cell[64];       /* the same in a few words, for the table */
    struct { char name[32]; double value; } values[BUG_VALUES];
};
static struct bug_result *bug_result_; /* of the mode that runs */

/* Remembers a number for the verdict. */
static inline void bug_value(const char *name, double value)
{
    for (int i = 0; i < BUG_VALUES; i++)
        if (bug_result_->values[i].name[0] == 0 || strcmp(bug_result_->values[i].name, name) == 0) {
            snprintf(bug_result_->values[i].name, sizeof bug_result_->values[i].name, "%.31s", name);
            bug_result_->values[i].value = value;
            return;
        }
}

static inline double bug_get(const struct bug_result *r, const char *name)
{
    for (int i = 0; i < BUG_VALUES; i++)
        if (strcmp(r->values[i].name, name) == 0)
            return r->values[i].value;
    return -1;
}

__attribute__((format(printf, 1, 2))) static inline void bug_say(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(bug_result_->text, sizeof bug_result_->text, format, ap);
    va_end(ap);
}

__attribute__((format(printf, 1, 2))) static inline void bug_cell(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(bug_result_->cell, sizeof bug_result_->cell, format, ap);
    va_end(ap);
}

/* ---- reading /proc ------------------------------------------------------------------------------- */

/* The number after "key:" in a file such as /proc/self/status; 0: no such line. */
static inline long bug_proc(const char *path, const char *key)
{
    char line[256];
    long v = 0;
    size_t n = strlen(key);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && line[n] == ':')
            v = strtol(line + n + 1, NULL, 10);
    if (f)
        fclose(f);
    return v;
}
static inline long bug_threads(void) { return bug_proc("/proc/self/status", "Threads"); }
static inline double bug_rss_mib(void) { return (double)bug_proc("/proc/self/status", "VmRSS") / 1024; }
static inline double bug_peak_mib(void) { return (double)bug_proc("/proc/self/status", "VmHWM") / 1024; }

/* ---- an unrelated fiber: how long it is kept from running ------------------------------------------ */

/* It computes for a moment, sleeps a moment, and notes how long each round took. A round that was held up for long stands for all that would have
 * been done meanwhile: who wants something of this fiber every 200 us waits for what is left of it. So it is noted once for each of them, the first
 * with all of it, the next with 200 us less, and so on; otherwise a stop of 30 ms would be one sample among thousands, and no p99 would show it. */
enum { BUG_SAMPLES = 100000, BUG_SPINS = 20000, BUG_ROUND_NS = 200000 };
struct bug_bystander {
    int spins; /* the moment it computes; 0: BUG_SPINS */
    int64_t ns[BUG_SAMPLES];
    int n;
    bool stop;
    weft_waitgroup done;
};

static inline void bug_bystander_run_(void *arg)
{
    struct bug_bystander *b = arg;
    while (!__atomic_load_n(&b->stop, __ATOMIC_RELAXED) && b->n < BUG_SAMPLES) {
        int64_t start = weft_now();
        for (volatile int i = 0; i < (b->spins ? b->spins : BUG_SPINS); i++)
            ;
        weft_sleep(BUG_ROUND_NS);
        for (int64_t ns = weft_now() - start, whole = ns; (ns == whole || ns > 2 * BUG_ROUND_NS) && b->n < BUG_SAMPLES; ns -= BUG_ROUND_NS)
            b->ns[b->n++] = ns;
    }
}

static inline void bug_bystander_start(struct bug_bystander *b) { weft_waitgroup_go(&b->done, bug_bystander_run_, b); }

static inline int bug_compare_(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static inline void bug_bystander_stop(struct bug_bystander *b)
{
    __atomic_store_n(&b->stop, true, __ATOMIC_RELAXED);
    weft_waitgroup_wait(&b->done);
}

/* After the stop: the time in microseconds below which that many percent of the rounds stayed, in the quietest of some stretches of 50 ms or so: what
 * else runs on the machine comes and goes, the program's own doing is there in all of them. */
static inline double bug_bystander_us(struct bug_bystander *b, int percent)
{
    enum { STRETCHES = 24 };
    int stretch = b->n / STRETCHES;
    int64_t best = INT64_MAX;
    for (int i = 0; stretch > 0 && i < STRETCHES; i++) {
        int64_t *ns = b->ns + i * stretch;
        qsort(ns, (size_t)stretch, sizeof *ns, bug_compare_);
        if (ns[stretch * percent / 100] < best)
            best = ns[stretch * percent / 100];
    }
    return stretch > 0 ? (double)best / 1000 : 0;
}

/* ---- the program --------------------------------------------------------------------------------- */

struct bug {
    const char *number, *title;
    weft_fn *buggy, *fixed;    /* main fibers; or, with own_run, plain functions that call weft_run themselves */
    bool own_run;
    weft_config config;        /* zero: the default */
    const char *instead;       /* the line to write */
    int attempts;              /* 0: one */
    /* NULL, or what did not hold. */
    const char *(*verdict)(const struct bug_result *buggy, const struct bug_result *fixed);
};

static inline int bug_child_(const struct bug *b, weft_fn *mode)
{
    int r = 0;
    if (b->own_run) {
        mode(NULL);
    } else {
        weft_config config = b->config;
        config.size = sizeof config;
        r = weft_run(mode, NULL, &config);
    }
    if (r < 0)
        fprintf(stderr, "bug %s: %s\n", b->number, weft_strerror(r));
    return r < 0;
}

/* Runs a mode in a child. True: it ended as it should. */
static inline bool bug_run_mode_(const struct bug *b, bool fixed, struct bug_result *result)
{
    memset(result, 0, sizeof *result);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        bug_result_ = result;
        alarm(BUG_TIMEOUT_S);
        _exit(bug_child_(b, fixed ? b->fixed : b->buggy));
    }
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return true;
    snprintf(result->text, sizeof result->text, WIFSIGNALED(status) ? "ended by signal %d" : "ended with status %d",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

/* A row for the table of demo.sh, if it asks for one. */
static inline void bug_row_(const struct bug *b, const struct bug_result *r, const char *wrong)
{
    const char *path = getenv("BUG_TABLE");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (!f)
        return;
    fprintf(f, "%s\t%s\t%s\t%s\t%s\n", b->number, b->title, r[0].cell, r[1].cell, wrong ? "FAILED" : "holds");
    fclose(f);
}

static inline void bug_print_(const char *label, const char *text)
{
    printf("  %-8s", label);
    for (; *text; text++) { /* further lines are indented */
        putchar(*text);
        if (*text == '\n')
            printf("  %-8s", "");
    }
    putchar('\n');
}

/* No argument: both modes and the verdict; exit 0 if the bug was seen and the fix holds. "buggy" or "fixed": that
 * mode. */
static inline int bug_main(int argc, char **argv, const struct bug *b)
{
    struct bug_result *r = mmap(NULL, 2 * sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r == MAP_FAILED)
        return 1;
    if (argc == 2 && (strcmp(argv[1], "buggy") == 0 || strcmp(argv[1], "fixed") == 0)) {
        bool ok = bug_run_mode_(b, argv[1][0] == 'f', &r[0]);
        bug_print_(argv[1], r[0].text);
        return !ok;
    }
    if (argc != 1) {
        fprintf(stderr, "usage: %s [buggy | fixed]\n", argv[0]);
        return 2;
    }
    const char *wrong = NULL;
    for (int i = 0; i < (b->attempts > 1 ? b->attempts : 1); i++) {
        wrong = !bug_run_mode_(b, false, &r[0]) ? "the buggy mode did not end as it should"
                : !bug_run_mode_(b, true, &r[1]) ? "the fixed mode did not end as it should"
                                                 : b->verdict(&r[0], &r[1]);
        if (!wrong)
            break;
    }
    printf("bug %s - %s\n", b->number, b->title);
    bug_print_("buggy", r[0].text);
    bug_print_("fixed", r[1].text);
    bug_print_("instead", b->instead);
    bug_row_(b, r, wrong);
    if (wrong)
        printf("bug %s: DID NOT HOLD: %s\n", b->number, wrong);
    else
        printf("bug %s: reproduced, fix holds\n", b->number);
    return wrong != NULL;
}

#endif
