/* What tests of the doctor share: a host that keeps what it is told. */
#ifndef WEFT_DOCTOR_TEST_H
#define WEFT_DOCTOR_TEST_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "json_test.h"

#define NOINLINE __attribute__((noinline))

struct told { int code; char what[512], cure[512], stack[4096], made[4096]; uint64_t count; int64_t first, last; long thread; };

static struct {
    pthread_mutex_t lock;
    int n;
    struct told at[64];
    char log[1 << 16];
} said = { .lock = PTHREAD_MUTEX_INITIALIZER };

static __attribute__((unused)) void note_finding(void *arg, const weft_finding *f)
{
    (void)arg;
    pthread_mutex_lock(&said.lock);
    if (said.n < 64) {
        struct told *t = &said.at[said.n++];
        t->code = f->code;
        snprintf(t->what, sizeof t->what, "%s", f->what);
        snprintf(t->cure, sizeof t->cure, "%s", f->cure);
        snprintf(t->stack, sizeof t->stack, "%s", f->stack);
        snprintf(t->made, sizeof t->made, "%s", f->made);
        t->count = f->count;
        t->first = f->first;
        t->last = f->last;
    }
    pthread_mutex_unlock(&said.lock);
}

static __attribute__((unused)) void note_line(void *arg, const char *line)
{
    (void)arg;
    pthread_mutex_lock(&said.lock);
    size_t n = strlen(said.log);
    snprintf(said.log + n, sizeof said.log - n, "%s\n", line);
    pthread_mutex_unlock(&said.lock);
}

/* Runs fn under the doctor, findings to note_finding, lines to note_line. modes: as weft_config.doctor; debug keys, NULL. */
static __attribute__((unused)) void doctor_run(weft_fn *fn, void *arg, const char *modes, const char *debug)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.doctor = modes;
    cfg.debug = debug;
    cfg.finding = note_finding;
    cfg.log = note_line;
    test_run_config(&cfg, fn, arg);
}

/* How many of that code were told, and the first of them. */
static __attribute__((unused)) int told_of(int code, const struct told **first)
{
    int n = 0;
    for (int i = said.n - 1; i >= 0; i--)
        if (said.at[i].code == code) {
            n++;
            if (first != NULL)
                *first = &said.at[i];
        }
    return n;
}

static __attribute__((unused)) char *doctor_text(int form)
{
    struct sink s = { 0 };
    int err = weft_doctor_report(sink_write, &s, form);
    cr_assert_eq(err, 0, "%s", weft_strerror(err));
    return s.text;
}

/* ---- one life, one finding ---- */

/* A life of the runtime, whose end tells everything. */
static __attribute__((unused)) void live_with(weft_config c, weft_fn *fn)
{
    memset(said.at, 0, sizeof said.at);
    said.n = 0;
    c.size = sizeof c;
    c.finding = note_finding;
    test_run_config(&c, fn, NULL);
}

static __attribute__((unused)) void live(weft_fn *fn) { live_with((weft_config){ .maxprocs = 2 }, fn); }

static __attribute__((unused)) void nothing_found(const char *which)
{
    cr_expect_eq(said.n, 0, "%s: W%02d: %s", which, said.at[0].code, said.at[0].what);
}

static __attribute__((unused)) bool begins(const char *stack, const char *function)
{
    return strncmp(stack, function, strlen(function)) == 0;
}

/* One finding, with this code, whose stack begins in that function. */
static __attribute__((unused)) void one_found(int code, const char *function, const char *words)
{
    const struct told *t = &said.at[0];
    cr_assert_eq(said.n, 1, "%d findings, the first W%02d: %s", said.n, t->code, t->what);
    cr_expect_eq(t->code, code, "W%02d: %s", t->code, t->what);
    cr_expect(begins(t->stack, function), "not in %s:\n%s", function, t->stack);
    cr_expect_not_null(strstr(t->what, words), "%s", t->what);
    cr_expect_neq(t->cure[0], 0);
}

/* ---- a trace, as Go's reader shows it ---- */

static __attribute__((unused)) int to_file(void *ctx, const void *data, size_t n) { return fwrite(data, 1, n, ctx) == n ? 0 : -EIO; }

/* Logs of the doctor's in the file, each with its stack, into out. False: there is no reader. */
static __attribute__((unused)) bool trace_logs(const char *path, struct test_output *out)
{
    char command[256];
    if (access("build/go/trace", X_OK) != 0) {
        cr_assert(getenv("CI") == NULL || test_is_slow(), "Go's viewer is missing");
        return false;
    }
    snprintf(command, sizeof command, "build/go/trace -d=parsed %s > %s.txt || echo refused; grep -A6 'Category=\"weft.doctor\"' %s.txt | head -80;"
             "rm -f %s.txt", path, path, path, path);
    test_shell(out, command);
    cr_expect_null(strstr(out->text, "refused"), "%s", out->text);
    return true;
}

/* The same of a trace that fn, run under the doctor, writes to its argument, a FILE. Skips the test if there is no reader. */
static __attribute__((unused)) void doctor_traced(struct test_output *out, weft_fn *fn, const char *modes, const char *debug)
{
    char path[] = "/tmp/doctor_XXXXXX";
    FILE *f = fdopen(mkstemp(path), "w");
    cr_assert_not_null(f);
    doctor_run(fn, f, modes, debug);
    fclose(f);
    bool read = trace_logs(path, out);
    unlink(path);
    if (!read)
        cr_skip_test("no Go");
}

#endif
