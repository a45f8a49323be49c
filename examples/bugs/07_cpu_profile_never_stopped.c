/* Bug 07: a CPU profile that is started and never stopped.
 *
 * What the call promises: it notes where CPU time goes until somebody stops it.
 * What the bug assumes:   that the process will be there to stop it, and that whoever starts a profile in an incident
 *                         remembers to.
 * What goes wrong:        nobody does. The file of a raw stream grows for ever, by so much an hour. And then the process
 *                         is killed, for want of memory or by an impatient operator: a profile that keeps its samples
 *                         to itself and is written by the stop is lost as a whole.
 * Instead:                start it with limits, which it has unless told otherwise (64 MiB, an hour): it closes itself
 *                         and says so. What it has written is a complete profile after every flush, whoever kills it.
 * Guarded:                limits hold, though they were switched off. */
#include "bug.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

enum { RUN_MS = 2000, LIMIT = 64 << 10 };

/* ---- the server, in a process of its own, to be killed -------------------------------------------------------- */

static char path[64];
static int closed_pipe[2];

__attribute__((noinline)) static void request(long number)
{
    char id[800]; /* of the request, its caller, its caller's caller ... */
    for (size_t n = 0; n + 17 < sizeof id; n += 16)
        snprintf(id + n, 17, "%016lx", (unsigned long)(number += 7) * 0x9e3779b97f4a7c15ul);
    weft_set_labels(&(weft_label){ "request", id }, 1); /* so each sample has its own */
    for (volatile int i = 0; i < 200000; i++)
        ;
}

/* until 0: for ever. */
static void serve(int64_t until)
{
    for (long n = 1; until == 0 || weft_now() < until; n += 1000) {
        request(n);
        weft_yield();
    }
}

static void closed(void *arg, int why, int err)
{
    (void)arg, (void)err;
    char c = (char)why;
    (void)!write(closed_pipe[1], &c, 1);
}

static void raw(void *arg)
{
    (void)arg;
    weft_cpu_profile_opts o = { .size = sizeof o, .hz = 10000, .flush_ms = 100, .max_bytes = LIMIT, .unlimited = true, .closed = closed };
    if (weft_cpu_profile_start_file(path, &o) == 0) /* here it happens: the limit is switched off, and nothing will ever end it */
        serve(0);
}

/* Its server ends in order, and has forgotten it. */
static void raw_at_the_end(void *arg)
{
    (void)arg;
    weft_cpu_profile_opts o = { .size = sizeof o, .hz = 1000, .unlimited = true };
    if (weft_cpu_profile_start_file(path, &o) == 0)
        serve(weft_now() + WEFT_SECOND / 4);
}

static void bounded(void *arg)
{
    (void)arg;
    weft_cpu_profile_opts o = { .size = sizeof o, .hz = 10000, .flush_ms = 100, .max_bytes = LIMIT, .closed = closed };
    if (weft_cpu_profile_start_file(path, &o) == 0)
        serve(0);
}

/* Samples in memory, and the file in one go when it is stopped: as profilers do that need to write a trailer. */
static struct { char *bytes; size_t n; } kept;

static int keep(void *arg, const void *data, size_t n)
{
    (void)arg;
    kept.bytes = realloc(kept.bytes, kept.n + n);
    memcpy(kept.bytes + kept.n, data, n);
    kept.n += n;
    return 0;
}

static void naive(void *arg)
{
    (void)arg;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (weft_cpu_profile_start(keep, NULL, NULL) != 0)
        return;
    serve(0);
    weft_cpu_profile_stop();
    weft_fd_writer((void *)(intptr_t)fd, kept.bytes, kept.n);
}

/* Stopped in order, after a second. */
static void stopped(void *arg)
{
    (void)arg;
    if (weft_cpu_profile_start_file(path, NULL) != 0)
        return;
    for (int64_t until = weft_now() + WEFT_SECOND; weft_now() < until;)
        request(1);
    (void)weft_cpu_profile_stop();
}

/* ---- what is left of it --------------------------------------------------------------------------------------- */

static double file_kib(void)
{
    struct stat st;
    return stat(path, &st) == 0 ? (double)st.st_size / 1024 : 0;
}

static bool file_opens(void)
{
    char command[256];
    snprintf(command, sizeof command, "test -s %s && gzip -dc %s > /dev/null 2>&1", path, path);
    return system(command) == 0;
}

static pid_t start(weft_fn *server)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        weft_config config = bug_config();
        _exit(weft_run(server, NULL, &config) != 0);
    }
    return pid;
}

/* True: the file of a server that ends in order opens. */
static bool opens_after(weft_fn *server)
{
    int status = -1;
    waitpid(start(server), &status, 0);
    return status == 0 && file_opens();
}

/* Growth in KiB per second over the second half. */
static double watch(pid_t pid)
{
    usleep(RUN_MS * 1000 / 2);
    double half = file_kib();
    usleep(RUN_MS * 1000 / 2);
    double all = file_kib();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return (all - half) / (RUN_MS / 2000.0);
}

/* Waits for it to be closed. */
static void buggy_but_guarded(void)
{
    char why = 0;
    pid_t pid = start(raw);
    (void)!read(closed_pipe[0], &why, 1);
    double rate = watch(pid), kib = file_kib();
    bool opens = file_opens(), end = opens_after(raw_at_the_end);
    unlink(path);
    bug_value("growth", rate);
    bug_value("opens", opens && end);
    bug_value("kib", kib);
    bug_value("told", why == WEFT_PROFILE_BYTES);
    bug_say("the limit that was switched off holds: closed with %.0f of %d KiB, and told so; its file %s; what is forgotten is closed in order", kib,
            LIMIT / 1024, opens ? "opens" : "DOES NOT OPEN");
    bug_cell("%.0f KiB, closed and told", kib);
}

static void buggy(void *arg)
{
    (void)arg;
    snprintf(path, sizeof path, "/tmp/weft-bug-07-%d", (int)getpid());
    if (bug_guarded() && pipe(closed_pipe) == 0) {
        buggy_but_guarded();
        return;
    }
    double rate = watch(start(raw)), kib = file_kib();
    bool opens = file_opens();
    watch(start(naive));
    double lost = file_kib();
    opens_after(raw_at_the_end);
    unlink(path);
    bug_value("growth", rate);
    bug_value("opens", opens);
    bug_value("naive", lost);
    bug_say("raw stream without limits: %.0f KiB after %d s and %.0f KiB more each second, %.1f GiB in a week; killed, its file %s\n"
            "written by the stop, for comparison: killed, its file has %.0f bytes", kib, RUN_MS / 1000, rate, rate * 86400 * 7 / 1048576,
            opens ? "opens" : "DOES NOT OPEN", lost * 1024);
    bug_cell("%.0f KiB/s for ever", rate);
}

static void fixed(void *arg)
{
    (void)arg;
    snprintf(path, sizeof path, "/tmp/weft-bug-07-%d", (int)getpid());
    char why = 0;
    (void)!pipe(closed_pipe);
    pid_t pid = start(bounded);
    (void)!read(closed_pipe[0], &why, 1);
    double rate = watch(pid), kib = file_kib();
    bool opens = file_opens();
    bool in_order = opens_after(stopped);
    unlink(path);
    bug_value("growth", rate);
    bug_value("opens", opens);
    bug_value("kib", kib);
    bug_value("told", why == WEFT_PROFILE_BYTES);
    bug_value("in_order", in_order);
    bug_say("bounded: closed at its limit with %.0f of %d KiB, and told so; nothing more each second; its file %s\n"
            "stopped after a second: its file %s", kib, LIMIT / 1024, opens ? "opens" : "DOES NOT OPEN", in_order ? "opens" : "DOES NOT OPEN");
    bug_cell("%.0f KiB, closed and told", kib);
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "growth") <= 0)
        return "the raw stream does not grow";
    if (bug_get(b, "opens") != 1)
        return "the file of the killed process does not open";
    if (bug_get(b, "naive") != 0)
        return "a profile that is written by its stop was written without one";
    if (bug_get(f, "growth") != 0 || bug_get(f, "kib") > LIMIT / 1024 || bug_get(f, "told") != 1)
        return "the bounded profile did not keep to its limit, or did not tell";
    if (bug_get(f, "opens") != 1 || bug_get(f, "in_order") != 1)
        return "the bounded or the stopped profile does not open";
    if (bug_get(g, "growth") != 0 || bug_get(g, "kib") > LIMIT / 1024 || bug_get(g, "told") != 1 || bug_get(g, "opens") != 1)
        return "guarded, the profile did not keep to its limit, or did not tell, or does not open";
    return NULL;
}

int main(int argc, char **argv)
{
    const struct bug b = {
        .number = "07",
        .title = "CPU profile that is never stopped",
        .buggy = buggy,
        .fixed = fixed,
        .own_run = true,
        .instead = "weft_cpu_profile_start_file(path, NULL), which has limits, and weft_cpu_profile_stop()",
        .code = WEFT_W07,
        .guard = "WEFT_GUARD_PROFILES: limits of bytes and time hold although they were switched off",
        .verdict = verdict,
        .plots = { { "growth", "growth of the file", "KiB/s", false } },
    };
    return bug_main(argc, argv, &b);
}
