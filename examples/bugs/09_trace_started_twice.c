/* Bug 09: a trace is started while one is being made, and the error is not looked at.
 *
 * What the call promises: weft_trace_start writes everything that happens from now on to the writer it is given; or it returns
 *                         -EALREADY, if a trace with this writer is being made already.
 * What the bug assumes:   that it always starts.
 * What goes wrong:        one part of the program traces its first minute. Another part, which has never heard of that, wants to see
 *                         the request that is slow just now, and starts the trace again. Its file stays empty. When it stops "its" trace
 *                         it stops the other one's, which ends too early, and whose own stop stops nothing.
 * Instead:                look at the error, and end the old trace before the new one is started; or, since there may be several at a
 *                         time, give each its own writer, so that none needs to know of the others.
 * Guarded:                what was never written cannot be put right. The doctor sees the stop too many that shows it, and with w09=abort ends the
 *                         program there. */
#include "bug.h"
#include <unistd.h>

struct tracer { const char *path; FILE *file; };

static int to_file(void *ctx, const void *data, size_t n)
{
    struct tracer *t = ctx;
    if (t->file == NULL && (t->file = fopen(t->path, "w")) == NULL)
        return -errno;
    return fwrite(data, 1, n, t->file) == n ? 0 : -EIO;
}

static void finish(struct tracer *t)
{
    weft_trace_stop(to_file, t, NULL);
    if (t->file)
        fclose(t->file);
    t->file = NULL;
}

/* ---- what the program does ----------------------------------------------------------------------------------------- */

static char minute[] = "/tmp/weft-bug09-XXXXXX", slow[] = "/tmp/weft-bug09-XXXXXX"; /* the files */

static void request(const char *name)
{
    weft_task task = weft_task_begin("request", 0);
    weft_task_use(task);
    weft_trace_log("request", name);
    weft_sleep(2 * WEFT_MILLISECOND);
    weft_task_end(task);
    weft_task_use(0);
}

static void make_files(void)
{
    close(mkstemp(minute));
    close(mkstemp(slow));
}

/* ---- what is in a file --------------------------------------------------------------------------------------------- */

struct shown { long bytes; bool whole, early, slow, late; };

static bool has(const char *data, size_t n, const char *text) { return memmem(data, n, text, strlen(text)) != NULL; }

static struct shown look(const char *path)
{
    struct shown s = { 0 };
    FILE *f = fopen(path, "r");
    char *data = malloc(16 << 20);
    size_t n = f && data ? fread(data, 1, 16 << 20, f) : 0;
    s.bytes = (long)n;
    s.whole = n > 16 && memcmp(data, "go 1.26 trace", 13) == 0 && data[n - 1] == 52;
    s.early = has(data, n, "early request");
    s.slow = has(data, n, "slow request");
    s.late = has(data, n, "late request");
    free(data);
    if (f)
        fclose(f);
    unlink(path);
    return s;
}

static void tell(const char *name, const struct shown *s)
{
    const char *keys[] = { "bytes", "whole", "early", "slow", "late" };
    double values[] = { (double)s->bytes, s->whole, s->early, s->slow, s->late };
    char key[32];
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "%s_%s", name, keys[i]);
        bug_value(key, values[i]);
    }
}

/* ---- the bug --------------------------------------------------------------------------------------------------------- */

static struct tracer the_tracer; /* one for the whole program */

static void start_trace(const char *path)
{
    the_tracer.path = path;
    (void)!weft_trace_start(to_file, &the_tracer, NULL); /* here it happens */
}

static void stop_trace(void) { finish(&the_tracer); }

static void buggy(void *arg)
{
    (void)arg;
    make_files();
    start_trace(minute);
    request("early request");
    weft_sleep(WEFT_MILLISECOND);
    start_trace(slow);
    request("slow request");
    stop_trace();
    request("late request");
    stop_trace();
    struct shown m = look(minute), s = look(slow);
    tell("minute", &m);
    tell("slow", &s);
    bug_say("the second trace has %ld bytes; the slow request is %sin the first one, which lacks what came after it: the late request is %sthere",
            s.bytes, m.slow ? "" : "not ", m.late ? "" : "not ");
    bug_cell("%ld bytes in the second", s.bytes);
    bug_value("plot", (double)s.bytes);
}

/* ---- the two ways out -------------------------------------------------------------------------------------------------- */

/* Who comes later is served: the trace before ends here, in order. */
static int restart_trace(const char *path)
{
    int err = weft_trace_start(to_file, &the_tracer, NULL);
    if (err == -EALREADY) {
        finish(&the_tracer);
        the_tracer.path = path;
        err = weft_trace_start(to_file, &the_tracer, NULL);
    }
    return err;
}

static int checked(struct shown *m, struct shown *s)
{
    make_files();
    the_tracer.path = minute;
    int err = weft_trace_start(to_file, &the_tracer, NULL);
    request("early request");
    err = err ? err : restart_trace(slow);
    request("slow request");
    finish(&the_tracer);
    *m = look(minute);
    *s = look(slow);
    return err;
}

/* Each its own; they do not know of each other. */
static int both(struct shown *m, struct shown *s)
{
    strcpy(strrchr(minute, '-'), "-XXXXXX");
    strcpy(strrchr(slow, '-'), "-XXXXXX");
    make_files();
    struct tracer first = { .path = minute }, second = { .path = slow };
    int err = weft_trace_start(to_file, &first, NULL);
    request("early request");
    err = err ? err : weft_trace_start(to_file, &second, NULL);
    request("slow request");
    finish(&second);
    request("late request");
    finish(&first);
    *m = look(minute);
    *s = look(slow);
    return err;
}

static void fixed(void *arg)
{
    struct shown m, s, m2, s2;
    (void)arg;
    bug_value("checked_err", checked(&m, &s));
    tell("checked_minute", &m);
    tell("checked_slow", &s);
    bug_value("both_err", both(&m2, &s2));
    tell("both_minute", &m2);
    tell("both_slow", &s2);
    bug_say("checked, and started anew: the second trace has %ld bytes, and the slow request. Two at a time: %ld bytes, and the first one goes on",
            s.bytes, s2.bytes);
    bug_cell("%ld bytes in the second", s2.bytes);
    bug_value("plot", (double)s2.bytes);
}

static bool good(const struct bug_result *r, const char *file, int early, int slow_one, int late)
{
    const char *keys[] = { "whole", "early", "slow", "late" };
    int want[] = { 1, early, slow_one, late };
    char key[48];
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "%s_%s", file, keys[i]);
        if (bug_get(r, key) != want[i])
            return false;
    }
    return true;
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED];
    if (bug_get(b, "slow_bytes") != 0)
        return "the second trace is not empty";
    if (!good(b, "minute", 1, 1, 0))
        return "the first trace was not cut short by the second one's stop";
    if (bug_get(f, "checked_err") != 0 || !good(f, "checked_minute", 1, 0, 0) || !good(f, "checked_slow", 0, 1, 0))
        return "with the error checked the traces are not what they should be";
    if (bug_get(f, "both_err") != 0 || !good(f, "both_minute", 1, 1, 1) || !good(f, "both_slow", 0, 1, 0))
        return "two traces at a time are not what they should be";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "09",
        .title = "trace started twice, error ignored",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "if (weft_trace_start(to_file, &my_own, NULL) != 0) ...   /* a writer of its own */",
        .code = WEFT_W09,
        .doctor = "w09=abort",
        .guard = "the doctor ends the program (w09=abort) when a stop comes that has no start",
        .verdict = verdict,
        .plots = { { "plot", "bytes in the second trace", "", true } },
    };
    return bug_main(argc, argv, &bug);
}
