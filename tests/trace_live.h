/* Traces of running programs: files made by weft_trace_start, and what Go's tool says of them. */
#ifndef WEFT_TRACE_LIVE_H
#define WEFT_TRACE_LIVE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "test.h"

#define GO_TRACE TEST_SRC "/build/go/trace"

struct live {
    char path[64];
    FILE *file;
    weft_trace_stats stats;
};

static int live_write(void *ctx, const void *data, size_t n)
{
    struct live *l = ctx;
    return fwrite(data, 1, n, l->file) == n ? 0 : -EIO;
}

static __attribute__((unused)) void live_open(struct live *l)
{
    strcpy(l->path, "/tmp/weft-live-XXXXXX");
    int fd = mkstemp(l->path);
    cr_assert_geq(fd, 0);
    cr_assert_not_null(l->file = fdopen(fd, "w"));
}

static __attribute__((unused)) void live_start(struct live *l)
{
    live_open(l);
    int err = weft_trace_start(live_write, l, NULL);
    cr_assert_eq(err, 0, "%d", err);
}

static __attribute__((unused)) void live_stop(struct live *l)
{
    l->stats = (weft_trace_stats){ .size = sizeof l->stats };
    int err = weft_trace_stop(live_write, l, &l->stats);
    cr_assert_eq(err, 0, "%d", err);
    fclose(l->file);
}

/* The tool accepts the file; it is removed then, and stays if not. Without the tool the test is skipped. */
static __attribute__((unused)) void live_check(struct live *l)
{
    struct test_output *out = malloc(sizeof *out);
    if (access(GO_TRACE, X_OK) != 0)
        cr_skip_test("no go tool trace");
    char command[400];
    snprintf(command, sizeof command, "f=%s; %s -d=parsed $f > $f.txt 2>&1; r=$?; tail -n 30 $f.txt; rm $f.txt; exit $r", l->path, GO_TRACE);
    cr_assert_eq(test_shell(out, command), 0, "%s is refused: %s", l->path, out->text);
    free(out);
    unlink(l->path);
}

/* A part of the tool's output, as a number: of lines that hold text. The file stays. */
static __attribute__((unused)) long live_count(const struct live *l, const char *text)
{
    struct test_output *out = malloc(sizeof *out);
    if (access(GO_TRACE, X_OK) != 0)
        cr_skip_test("no go tool trace");
    char command[600];
    snprintf(command, sizeof command, "%s -d=parsed %s | grep -cE -- '%s'", GO_TRACE, l->path, text);
    test_shell(out, command);
    long n = atol(out->text);
    free(out);
    return n;
}

#endif
