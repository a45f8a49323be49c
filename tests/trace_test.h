/* Traces as Go's own tool reads them, and writers to make them with. */
#ifndef WEFT_TRACE_TEST_H
#define WEFT_TRACE_TEST_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/offheap.h"
#include "test.h"
#include "trace/stream.h"

/* ---- a list of lines -------------------------------------------------------------------------------------- */

struct line { uint64_t m; uint32_t gen; char *text; };
struct lines { struct line *at; size_t n, room; };

static __attribute__((unused)) void lines_add(struct lines *l, uint64_t m, uint32_t gen, const char *fmt, ...) w_printf(4, 5);
static void lines_add(struct lines *l, uint64_t m, uint32_t gen, const char *fmt, ...)
{
    va_list ap;
    if (l->n == l->room)
        l->at = realloc(l->at, (l->room = l->room * 2 + 64) * sizeof *l->at);
    l->at[l->n] = (struct line){ m, gen, NULL };
    va_start(ap, fmt);
    cr_assert_geq(vasprintf(&l->at[l->n++].text, fmt, ap), 0);
    va_end(ap);
}

/* ---- a writer that can be slow, or fail --------------------------------------------------------------------- */

struct sink {
    char path[64];
    FILE *file;
    size_t room;      /* bytes until it fails; 0: it never does */
    bool can_stick;
    w_u32 stuck;      /* while this is not 0, the writer waits */
    w_u32 calls;
    struct trace_reader *reader;
    pthread_t thread;
    int result;
    struct trace_reader_stats stats;
};

static int sink_write(void *ctx, const void *data, size_t n)
{
    struct sink *s = ctx;
    add_rlx(&s->calls, 1);
    while (load_acq(&s->stuck) != 0)
        usleep(100);
    if (s->room != 0) {
        if (s->room <= n)
            return fwrite(data, 1, s->room, s->file), -EIO;
        s->room -= n;
    }
    return fwrite(data, 1, n, s->file) == n ? 0 : -EIO;
}

static void *sink_pump(void *arg)
{
    struct sink *s = arg;
    s->result = trace_reader_pump(s->reader);
    return NULL;
}

static __attribute__((unused)) void sink_open(struct sink *s)
{
    strcpy(s->path, "/tmp/weft-trace-XXXXXX");
    int fd = mkstemp(s->path);
    cr_assert_geq(fd, 0);
    s->file = fdopen(fd, "w");
    cr_assert_eq(trace_reader_open(sink_write, s, &s->reader), 0);
    cr_assert_eq(pthread_create(&s->thread, NULL, sink_pump, s), 0);
}

static __attribute__((unused)) void sink_close(struct sink *s)
{
    trace_reader_close(s->reader);
    pthread_join(s->thread, NULL);
    s->stats = trace_reader_stats(s->reader);
    trace_reader_free(s->reader);
    fclose(s->file);
}

/* ---- go tool trace ------------------------------------------------------------------------------------------- */

/* The program behind `go tool trace`; ends the test, as skipped, where there is no Go that knows this version of the format. */
static const char *go_trace(void)
{
    static char path[512];
    if (path[0] == 0) {
        struct test_output *out = malloc(sizeof *out);
        test_shell(out, "v=$(go env GOVERSION 2>/dev/null) || exit 1; v=${v#go1.}; [ \"${v%%.*}\" -ge 26 ] 2>/dev/null && "
            "go tool -n trace 2>/dev/null");
        out->text[strcspn(out->text, "\n")] = 0;
        bool ok = out->exit_code == 0 && strlen(out->text) < sizeof path;
        if (ok)
            strcpy(path, out->text);
        free(out);
        if (!ok || access(path, X_OK) != 0)
            cr_skip_test("no go tool trace of Go 1.26 or newer");
    }
    return path;
}

/* Numbers of the generations in a file, in order. */
static __attribute__((unused)) size_t file_generations(const char *path, uint32_t *out, size_t room)
{
    FILE *f = fopen(path, "r");
    static uint8_t data[64 << 20];
    size_t len = fread(data, 1, sizeof data, f), n = 0;
    cr_assert_lt(len, sizeof data);
    fclose(f);
    const uint8_t *p = data + TRACE_HEADER_BYTES, *end = data + len;
    for (struct trace_batch b; p < end;) {
        if (*p == TRACE_END_OF_GENERATION) {
            p++;
            continue;
        }
        cr_assert(trace_get_batch(&p, end, &b), "%s: no batch at byte %zu", path, (size_t)(p - data));
        p += b.length;
        if (n == 0 || out[n - 1] != b.gen) {
            cr_assert_lt(n, room);
            out[n++] = (uint32_t)b.gen;
        }
    }
    return n;
}

/* One event as text: kind, what follows its time, and for the stack the functions, innermost first: Stack=a,b,c. */
static void normalize(char *s)
{
    char *at;
    if (strncmp(s, "TaskEnd", 7) == 0 && (at = strstr(s, " Parent=")) != NULL)
        *at = 0; /* parent and type are the reader's memory */
    if (strncmp(s, "Range", 5) == 0 && (at = strstr(s, " Scope=")) != NULL)
        *at = 0;
}

/* States that are told anew, and the idling of processors, which other threads may tell, are no events of their own. */
static bool is_event(const char *s)
{
    char from[32], to[32];
    const char *at;
    if (strncmp(s, "Sync", 4) == 0 || strncmp(s, "RangeActive", 11) == 0)
        return false;
    if (strncmp(s, "StateTransition", 15) != 0)
        return true;
    if ((at = strstr(s, "ID=")) == NULL || sscanf(at, "ID=%*u %31[^-]->%31s", from, to) != 2)
        return true;
    bool proc = strstr(s, "ProcID=") != NULL;
    return strcmp(from, to) != 0 && strcmp(from, "Undetermined") != 0 && !(proc && (strcmp(to, "Idle") == 0 || strcmp(from, "NotExist") == 0));
}

/* All events of a file that the tool accepts, else the test fails. gen of a line: number of the Sync before it, from 1. */
static __attribute__((unused)) struct lines go_parse(const char *path)
{
    char command[700], *row = NULL;
    size_t room = 0;
    struct lines all = { 0 };
    bool skip = true, stack = false;
    uint32_t sync = 0;
    snprintf(command, sizeof command, "%s -d=parsed %s 2>&1", go_trace(), path);
    FILE *f = popen(command, "r");
    char *last_rows[3] = { NULL, NULL, NULL };
    for (unsigned nrow = 0; getline(&row, &room, f) > 0; nrow++) {
        row[strcspn(row, "\n")] = 0;
        free(last_rows[nrow % 3]);
        last_rows[nrow % 3] = strdup(row);
        long m;
        int kind = 0, rest = 0;
        if (sscanf(row, "M=%ld P=%*d G=%*d %n%*s Time=%*d%n", &m, &kind, &rest) == 1 && rest > 0) {
            sync += strncmp(row + kind, "Sync", 4) == 0;
            char text[2048];
            snprintf(text, sizeof text, "%.*s%s", (int)strcspn(row + kind, " "), row + kind, row + rest);
            normalize(text);
            skip = !is_event(text);
            stack = false;
            if (!skip)
                lines_add(&all, (uint64_t)m, sync, "%s", text);
        } else if (strcmp(row, "TransitionStack=") == 0 || strcmp(row, "Stack=") == 0) {
            char *t = !skip && all.n > 0 ? all.at[all.n - 1].text : NULL;
            char *had = t != NULL ? strstr(t, " Stack=") : NULL;
            if (had != NULL)
                *had = 0; /* the second one: of the thread that tells */
            stack = !skip;
        } else if (stack && row[0] == '\t' && row[1] != '\t') {
            struct line *l = &all.at[all.n - 1];
            char *old = l->text;
            row[strcspn(row, " ")] = 0;
            bool first = strstr(old, " Stack=") == NULL;
            cr_assert_geq(asprintf(&l->text, "%s%s%s", old, first ? " Stack=" : ",", row + 1), 0);
            free(old);
        }
    }
    int status = pclose(f);
    cr_assert_eq(status, 0, "%s is refused: ... %s / %s / %s", path, last_rows[0] ? last_rows[0] : "", last_rows[1] ? last_rows[1] : "",
        last_rows[2] ? last_rows[2] : "");
    for (int i = 0; i < 3; i++)
        free(last_rows[i]);
    free(row);
    return all;
}

#endif
