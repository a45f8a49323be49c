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

/* ---- what a trace says of fibers ------------------------------------------------------------------------------- */

enum { RUNNABLE, RUNNING, SYSCALL, WAITING, STATES };
static const char *const live_states[STATES] = { "Runnable", "Running", "Syscall", "Waiting" };

#define LIVE_REASONS 12
struct life {
    uint64_t id;
    int64_t ns[STATES];
    struct { char text[48]; int64_t ns; long n; } why[LIVE_REASONS]; /* WAITING, by reason */
    long starts;
    int state;          /* now; -1: none */
    int64_t since;
    int reason;
};

static struct life *life_of(struct life *lives, size_t n, uint64_t id)
{
    for (size_t i = 0; i < n; i++)
        if (lives[i].id == id)
            return &lives[i];
    return NULL;
}

static int life_reason(struct life *f, const char *text)
{
    int i = 0;
    while (i < LIVE_REASONS - 1 && f->why[i].text[0] != 0 && strcmp(f->why[i].text, text) != 0)
        i++;
    snprintf(f->why[i].text, sizeof f->why[i].text, "%s", text);
    return i;
}

/* Adds up where the fibers with those ids spent their time. Of each, what lies between its first and its last event. */
static __attribute__((unused)) void live_lives(const struct live *l, struct life *lives, size_t n)
{
    char command[200], *row = NULL;
    size_t room = 0;
    if (access(GO_TRACE, X_OK) != 0)
        cr_skip_test("no go tool trace");
    for (size_t i = 0; i < n; i++)
        lives[i].state = -1;
    snprintf(command, sizeof command, "%s -d=parsed %s 2>&1", GO_TRACE, l->path);
    FILE *f = popen(command, "r");
    while (getline(&row, &room, f) > 0) {
        long long time;
        unsigned long id;
        char from[16], to[16], why[48] = "";
        const char *at = strstr(row, "StateTransition ");
        if (at == NULL || sscanf(at, "StateTransition Time=%lld GoID=%lu %15[^-]->%15s Reason=\"%47[^\"]", &time, &id, from, to, why) < 4)
            continue;
        struct life *g = life_of(lives, n, id);
        if (g == NULL)
            continue;
        if (g->state >= 0) {
            g->ns[g->state] += time - g->since;
            if (g->state == WAITING)
                g->why[g->reason].ns += time - g->since;
        }
        g->since = time;
        int was = g->state;
        g->state = -1;
        for (int s = 0; s < STATES; s++)
            if (strcmp(to, live_states[s]) == 0)
                g->state = s;
        if (g->state == WAITING && was == RUNNING) {
            g->reason = life_reason(g, why);
            g->why[g->reason].n++;
        }
        g->starts += g->state == RUNNING && was != RUNNING;
    }
    free(row);
    cr_assert_eq(pclose(f), 0, "%s is refused", l->path);
}

static __attribute__((unused)) int64_t life_waited(const struct life *f, const char *why, long *n)
{
    for (int i = 0; i < LIVE_REASONS; i++)
        if (strcmp(f->why[i].text, why) == 0)
            return *n = f->why[i].n, f->why[i].ns;
    return *n = 0, 0;
}

#endif
