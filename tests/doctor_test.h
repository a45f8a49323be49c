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
#include "test.h"

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

/* ---- a writer ---- */

struct grown { char *text; size_t n; };
static __attribute__((unused)) int grow_writer(void *ctx, const void *data, size_t n)
{
    struct grown *g = ctx;
    g->text = realloc(g->text, g->n + n + 1);
    cr_assert_not_null(g->text);
    memcpy(g->text + g->n, data, n);
    g->text[g->n += n] = 0;
    return 0;
}

static __attribute__((unused)) char *doctor_text(int form)
{
    struct grown g = { 0 };
    int err = weft_doctor_report(grow_writer, &g, form);
    cr_assert_eq(err, 0, "%s", weft_strerror(err));
    return g.text;
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

/* ---- JSON: whether a text is, and nothing else; by the grammar ---- */

static bool json_value(const char **p);
static void json_space(const char **p) { *p += strspn(*p, " \t\r\n"); }
static bool json_string(const char **p)
{
    if (*(*p)++ != '"')
        return false;
    for (; **p != '"'; (*p)++) {
        if ((unsigned char)**p < ' ')
            return false;
        if (**p == '\\') {
            (*p)++;
            if (**p == 'u') {
                if (strspn(*p + 1, "0123456789abcdefABCDEF") < 4)
                    return false;
                *p += 4;
            } else if (**p == 0 || strchr("\"\\/bfnrt", **p) == NULL) {
                return false;
            }
        }
    }
    (*p)++;
    return true;
}
static bool json_list(const char **p, char end, bool keys)
{
    (*p)++;
    json_space(p);
    if (**p == end)
        return (*p)++, true;
    for (;;) {
        json_space(p);
        if (keys && (!json_string(p) || (json_space(p), *(*p)++ != ':')))
            return false;
        if (!json_value(p))
            return false;
        if (**p == end)
            return (*p)++, true;
        if (*(*p)++ != ',')
            return false;
    }
}
static bool json_value(const char **p)
{
    bool ok = false;
    json_space(p);
    if (**p == '{')
        ok = json_list(p, '}', true);
    else if (**p == '[')
        ok = json_list(p, ']', false);
    else if (**p == '"')
        ok = json_string(p);
    else if (strncmp(*p, "true", 4) == 0 || strncmp(*p, "null", 4) == 0)
        ok = true, *p += 4;
    else if (strncmp(*p, "false", 5) == 0)
        ok = true, *p += 5;
    else {
        size_t n = strspn(*p, "+-.0123456789eE");
        ok = n > 0;
        *p += n;
    }
    json_space(p);
    return ok;
}
static __attribute__((unused)) bool json_is(const char *s) { return json_value(&s) && *s == 0; }

#endif
