/* The runner behind mini/criterion/criterion.h: one forked child per test, one after another.
 * Options: --filter SUITE/NAME ('*' matches anything), --timeout SECONDS; --jobs N is accepted and ignored; --list. */
#include "criterion/criterion.h"
#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct mini_test *tests, **last = &tests;
static int failures; /* of the test that runs, in its process; and the next */
static const struct mini_test *running;

void mini_register(struct mini_test *t)
{
    *last = t;
    last = &t->next;
}

void mini_end(int code)
{
    fflush(NULL);
    _exit(code);
}

void mini_skip(const char *why, ...)
{
    va_list ap;
    va_start(ap, why);
    fprintf(stderr, "[SKIP] %s::%s: ", running->suite, running->name);
    vfprintf(stderr, why, ap);
    fputc('\n', stderr);
    va_end(ap);
    mini_end(77);
}

void mini_failed(bool fatal, const char *file, int line, const char *what, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "[----] %s:%d: %s%s%s\n", file, line, what, text[0] != 0 ? ": " : "", text);
    __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
    if (fatal)
        mini_end(1);
}

static struct mini_options options_of(const struct mini_test *t)
{
    struct mini_options o = t->opt;
    for (struct mini_test *s = tests; s != NULL; s = s->next) {
        if (s->name != NULL || strcmp(s->suite, t->suite) != 0)
            continue;
        o.init = o.init != NULL ? o.init : s->opt.init;
        o.fini = o.fini != NULL ? o.fini : s->opt.fini;
        o.signal = o.signal != 0 ? o.signal : s->opt.signal;
        o.exit_code = o.exit_code != 0 ? o.exit_code : s->opt.exit_code;
        o.timeout = o.timeout != 0 ? o.timeout : s->opt.timeout;
        o.disabled = o.disabled || s->opt.disabled;
    }
    return o;
}

static void run_here(const struct mini_test *t, const struct mini_options *o)
{
    setpgid(0, 0);
    running = t;
    if (o->init != NULL)
        o->init();
    t->fn();
    if (o->fini != NULL)
        o->fini();
    mini_end(failures != 0);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Waits till the child ends or the time is over. */
static int wait_for(pid_t pid, double seconds)
{
    int status;
    for (double until = now() + seconds; now() < until;) {
        pid_t r = waitpid(pid, &status, WNOHANG);
        if (r == pid)
            return status;
        if (r < 0 && errno != EINTR)
            return 1 << 8;
        usleep(2000);
    }
    fprintf(stderr, "[----] time is over\n");
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return 1 << 8;
}

static const char *run(const struct mini_test *t, const struct mini_options *o, double timeout)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_here(t, o);
    int status = wait_for(pid, o->timeout > timeout ? o->timeout : timeout);
    kill(-pid, SIGKILL); /* what it left behind */
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == o->signal ? "PASS" : "CRASH";
    if (o->signal != 0)
        return "FAIL";
    if (WEXITSTATUS(status) == 77 && o->exit_code == 0)
        return "SKIP";
    return WEXITSTATUS(status) == o->exit_code ? "PASS" : "FAIL";
}

int main(int argc, char **argv)
{
    const char *filter = "*";
    double timeout = 60;
    bool list = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc)
            filter = argv[++i];
        else if (strcmp(argv[i], "--timeout") == 0 && i + 1 < argc)
            timeout = atof(argv[++i]);
        else if (strcmp(argv[i], "--list") == 0)
            list = true;
    }
    int tested = 0, passing = 0, failing = 0, crashing = 0;
    for (struct mini_test *t = tests; t != NULL; t = t->next) {
        char name[256];
        snprintf(name, sizeof name, "%s/%s", t->suite, t->name != NULL ? t->name : "");
        struct mini_options o = options_of(t);
        if (t->name == NULL || o.disabled || fnmatch(filter, name, 0) != 0)
            continue;
        if (list) {
            puts(name);
            continue;
        }
        double start = now();
        const char *result = run(t, &o, timeout);
        if (strcmp(result, "SKIP") == 0) /* it has said why */
            continue;
        fprintf(stderr, "[%s] %s::%s: (%.2fs)\n", result, t->suite, t->name, now() - start);
        tested++;
        passing += strcmp(result, "PASS") == 0;
        failing += strcmp(result, "FAIL") == 0;
        crashing += strcmp(result, "CRASH") == 0;
    }
    fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: %d\n", tested, passing,
            failing, crashing);
    return failing + crashing != 0;
}
