/* bug.h - what the programs 01 to 14 share: running the three modes, measuring, and one form of report.
 *
 *     buggy      the misuse, with the runtime as it is by default: the doctor says what it finds
 *     fixed      what to write instead: the doctor finds nothing
 *     guarded    the buggy code once more, with weft's guards on (weft/sched.h, WEFT_GUARD_*): it does no harm; or, where nothing can make it
 *                harmless, the doctor ends it as soon as it finds it (weft/debug.h, mode "abort")
 *
 * A program describes itself in a struct bug and calls bug_main. Each mode runs in a child process of its own, so
 * that limits, leaked descriptors and settings of one do not reach the other; it leaves what it measured in memory
 * that the parent shares, and what the doctor found. The verdict looks at counts, and at wide ratios within one run of the three: the machine may be
 * busy. Where it is a matter of time, a run that does not convince is repeated, up to `attempts`. */
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

enum { BUG_VALUES = 24, BUG_TEXT = 512, BUG_STACK = 2048, BUG_TIMEOUT_S = 120 };

struct bug_result {
    char text[BUG_TEXT]; /* the symptom in a sentence */
    char cell[64];       /* the same in a few words, for the table */
    struct { char name[32]; double value; } values[BUG_VALUES];
    struct bug_finding { int code; char what[BUG_TEXT], cure[BUG_TEXT], stack[BUG_STACK], made[BUG_STACK]; } found; /* code 0: none */
    struct bug_finding other; /* with another code than the program is about */
    bool stopped;        /* the doctor ended it */
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

/* The program itself hardly holds up such a fiber, so what does is the machine, which is busy with other things: its rounds tell nothing then. */
enum { BUG_BUSY_US = 700 };

/* ---- the program --------------------------------------------------------------------------------- */

enum bug_mode { BUGGY, FIXED, GUARDED, BUG_MODES };
static const char *const bug_mode_names_[] = { "buggy", "fixed", "guarded" };
static enum bug_mode bug_mode_; /* of the calling process */
static inline bool bug_guarded(void) { return bug_mode_ == GUARDED; }

struct bug {
    const char *number, *title;
    weft_fn *buggy, *fixed;    /* main fibers; or, with own_run, plain functions that call weft_run with bug_config() themselves */
    bool own_run;
    weft_config config;        /* zero: the default */
    const char *instead;       /* the line to write */
    int attempts;              /* 0: one */
    int code;                  /* WEFT_W..: what the doctor calls it */
    const char *guard;         /* what keeps it from doing harm, in a sentence */
    const char *doctor;        /* modes of the doctor in the guarded run; NULL: the default. With "wNN=abort" it is to be stopped */
    /* NULL, or what did not hold. r[BUGGY], r[FIXED], r[GUARDED]. */
    const char *(*verdict)(const struct bug_result *r);
    /* For the report: which of the values tells the harm, in a few words, and of what. */
    struct bug_plot { const char *value, *name, *unit; bool more_is_better; } plots[3];
};
static const struct bug *bug_;

/* In weft_config.finding: on a thread of the doctor's. */
static inline void bug_found_(void *arg, const weft_finding *f)
{
    struct bug_result *r = arg;
    struct bug_finding *to = f->code == bug_->code ? &r->found : &r->other;
    if (to->code != 0)
        return;
    snprintf(to->what, sizeof to->what, "%s", f->what);
    snprintf(to->cure, sizeof to->cure, "%s", f->cure);
    snprintf(to->stack, sizeof to->stack, "%s", f->stack);
    snprintf(to->made, sizeof to->made, "%s", f->made);
    to->code = f->code;
}

static int bug_shared_; /* the memory of all results */

static inline struct bug_result *bug_map_(void)
{
    void *p = mmap(NULL, BUG_MODES * sizeof(struct bug_result), PROT_READ | PROT_WRITE, MAP_SHARED, bug_shared_, 0);
    return p != MAP_FAILED ? p : NULL;
}

static inline struct bug_result *bug_results_(void)
{
    bug_shared_ = memfd_create("bug", MFD_CLOEXEC);
    return bug_shared_ >= 0 && ftruncate(bug_shared_, BUG_MODES * sizeof(struct bug_result)) == 0 ? bug_map_() : NULL;
}

/* For a mode that executes another program, which then belongs to it: a descriptor to be passed on, and what is done with it there. */
static inline int bug_share(void) { return dup(bug_shared_); }
static inline void bug_join(enum bug_mode mode, int fd)
{
    bug_shared_ = fd;
    bug_mode_ = mode;
    struct bug_result *all = bug_map_();
    if (all == NULL)
        _exit(1);
    bug_result_ = &all[mode];
    close(fd);
}

/* The settings of the mode that runs. */
static inline weft_config bug_config(void)
{
    weft_config config = bug_->config;
    config.size = sizeof config;
    config.finding = bug_found_;
    config.finding_arg = bug_result_;
    if (bug_guarded()) {
        config.guards = WEFT_GUARD_ALL;
        config.doctor = bug_->doctor;
    }
    return config;
}

static inline int bug_child_(weft_fn *mode)
{
    int r = 0;
    if (bug_->own_run) {
        mode(NULL);
    } else {
        weft_config config = bug_config();
        r = weft_run(mode, NULL, &config);
    }
    if (r < 0)
        fprintf(stderr, "bug %s: %s\n", bug_->number, weft_strerror(r));
    return r < 0;
}

/* What is said on stderr by a run that is ended is shown by nobody: the finding says it. */
static inline void bug_quiet_(void)
{
    if (bug_guarded() && bug_->doctor != NULL && freopen("/dev/null", "w", stderr) == NULL)
        _exit(1);
}

/* True: it ended as it should. */
static inline bool bug_ended_well_(enum bug_mode mode, int status, struct bug_result *r)
{
    bool stops = mode == GUARDED && bug_->doctor != NULL;
    r->stopped = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && r->found.code != 0;
    if (r->stopped && stops) {
        snprintf(r->text, sizeof r->text, "stopped by the doctor");
        snprintf(r->cell, sizeof r->cell, "stopped: W%02d", r->found.code);
        return true;
    }
    if (status == 0 && !stops)
        return true;
    snprintf(r->text, sizeof r->text, status == 0 ? "not stopped" : WIFSIGNALED(status) ? "ended by signal %d" : "ended with status %d",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return false;
}

/* Runs a mode in a child. */
static inline bool bug_run_mode_(enum bug_mode mode, struct bug_result *result)
{
    memset(result, 0, sizeof *result);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        bug_result_ = result;
        bug_mode_ = mode;
        alarm(BUG_TIMEOUT_S);
        bug_quiet_();
        _exit(bug_child_(mode == FIXED ? bug_->fixed : bug_->buggy));
    }
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return bug_ended_well_(mode, status, result);
}

static inline const char *bug_verdict_(const struct bug_result *r)
{
    if (r[BUGGY].found.code == 0)
        return "the doctor found nothing in the buggy mode";
    if (r[FIXED].found.code != 0)
        return "the doctor found something in the fixed mode";
    return bug_->verdict(r);
}

/* ---- what is told ---------------------------------------------------------------------------------- */

/* For demo.sh: a file that it names gets a row of its table, another one all that the report is made of, a line "name<tab>text" each. */
static inline FILE *bug_append_(const char *variable)
{
    const char *path = getenv(variable);
    return path ? fopen(path, "ae") : NULL;
}

static inline void bug_row_(const struct bug_result *r, const char *wrong)
{
    FILE *f = bug_append_("BUG_TABLE");
    if (!f)
        return;
    fprintf(f, "%s\t%s\t%s\t%s\t%s\t%s\n", bug_->number, bug_->title, r[BUGGY].cell, r[FIXED].cell, r[GUARDED].cell, wrong ? "FAILED" : "holds");
    fclose(f);
}

static inline void bug_line_(FILE *f, const char *name, const char *text)
{
    fprintf(f, "%s\t", name);
    for (; *text; text++) /* several lines are one here */
        fputs(*text == '\n' ? "\\n" : *text == '\\' ? "\\\\" : (char[]){ *text, 0 }, f);
    fputc('\n', f);
}

static inline void bug_finding_lines_(FILE *f, const struct bug_finding *found)
{
    if (found->code == 0)
        return;
    fprintf(f, "code\tW%02d\n", found->code);
    bug_line_(f, "what", found->what);
    bug_line_(f, "cure", found->cure);
    bug_line_(f, "stack", found->stack);
    bug_line_(f, "made", found->made);
}

static inline void bug_report_(const struct bug_result *r, const char *wrong)
{
    FILE *f = bug_append_("BUG_REPORT");
    if (!f)
        return;
    bug_line_(f, "bug", bug_->number);
    bug_line_(f, "title", bug_->title);
    bug_line_(f, "instead", bug_->instead);
    bug_line_(f, "guard", bug_->guard);
    bug_line_(f, "verdict", wrong ? wrong : "");
    for (const struct bug_plot *p = bug_->plots; p->value; p++) {
        fprintf(f, "plot\t%s\t%s\t%d", p->name, p->unit, p->more_is_better);
        for (int i = 0; i < BUG_MODES; i++)
            fprintf(f, r[i].stopped ? "\t-" : "\t%.6g", bug_get(&r[i], p->value));
        fputc('\n', f);
    }
    for (int i = 0; i < BUG_MODES; i++) {
        bug_line_(f, "mode", bug_mode_names_[i]);
        bug_line_(f, "cell", r[i].cell);
        bug_line_(f, "text", r[i].text);
        bug_finding_lines_(f, &r[i].found);
    }
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

/* The sentence, and the place of the call. */
static inline void bug_print_finding_(const struct bug_finding *f)
{
    char text[2 * BUG_TEXT];
    if (f->code == 0)
        return;
    int line = (int)strcspn(f->stack, "\n");
    snprintf(text, sizeof text, "W%02d: %s%s%.*s", f->code, f->what, line > 0 ? ": " : "", line, f->stack);
    bug_print_("doctor", text);
}

static inline int bug_one_mode_(const char *name, struct bug_result *r)
{
    for (int i = 0; i < BUG_MODES; i++) {
        if (strcmp(name, bug_mode_names_[i]) != 0)
            continue;
        bool ok = bug_run_mode_((enum bug_mode)i, r += i);
        bug_print_(name, r->text);
        bug_print_finding_(&r->found);
        bug_print_finding_(&r->other);
        return !ok;
    }
    return -1;
}

/* No argument: the three modes and the verdict; exit 0 if the bug was seen and found, the fix holds, and so does the guard. "buggy", "fixed" or
 * "guarded": that mode. */
static inline int bug_main(int argc, char **argv, const struct bug *b)
{
    struct bug_result *r = bug_results_();
    if (r == NULL)
        return 1;
    bug_ = b;
    int one = argc == 2 ? bug_one_mode_(argv[1], r) : -1;
    if (one >= 0)
        return one;
    if (argc != 1) {
        fprintf(stderr, "usage: %s [buggy | fixed | guarded]\n", argv[0]);
        return 2;
    }
    const char *wrong = NULL;
    for (int i = 0; i < (b->attempts > 1 ? b->attempts : 1); i++) {
        wrong = !bug_run_mode_(BUGGY, &r[BUGGY]) ? "the buggy mode did not end as it should"
                : !bug_run_mode_(FIXED, &r[FIXED]) ? "the fixed mode did not end as it should"
                : !bug_run_mode_(GUARDED, &r[GUARDED]) ? "the guarded mode did not end as it should"
                                                       : bug_verdict_(r);
        if (!wrong)
            break;
    }
    printf("bug %s - %s\n", b->number, b->title);
    bug_print_("buggy", r[BUGGY].text);
    bug_print_finding_(&r[BUGGY].found);
    bug_print_("fixed", r[FIXED].text);
    bug_print_("guarded", r[GUARDED].text);
    bug_print_("", b->guard);
    bug_print_("instead", b->instead);
    bug_row_(r, wrong);
    bug_report_(r, wrong);
    if (wrong)
        printf("bug %s: DID NOT HOLD: %s\n", b->number, wrong);
    else
        printf("bug %s: reproduced, found, fix and guard hold\n", b->number);
    return wrong != NULL;
}

#endif
