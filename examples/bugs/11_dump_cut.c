/* Bug 11: a dump of all stacks into a buffer that is too small.
 *
 * What the call promises: weft_stack writes as much text as there is room for, and returns the size of the whole.
 * What the bug assumes:   that 64 KiB are plenty, as they were on the author's machine.
 * What goes wrong:        with ten thousand fibers the text ends in the middle of a frame. What is shown is who came
 *                         first, and the one that everybody waits for is not among them. Nothing says that there would
 *                         be more but the number that was returned, and that was not looked at.
 * Instead:                a buffer of the size that was returned; or weft_stack_write, which needs none, since it
 *                         writes to a file or a socket as it goes. Its last line says "N of N fibers". Or the profile of fibers: with debug 2
 *                         it is the same stream; with debug 0 equal stacks are one sample, so ten thousand fibers take a few hundred bytes,
 *                         and `go tool pprof` shows them.
 * Guarded:                the last line of a text that was cut says so, and how much is missing. */
#include "bug.h"

enum { FIBERS = 10000, SMALL = 65536 };

static weft_chan *data, *never;

static void consumer(void *arg)
{
    (void)arg;
    weft_chan_recv(data, NULL);
}

/* Made last. All wait for it, and it waits for something else. */
__attribute__((noinline)) static void culprit_at_work(void)
{
    weft_chan_recv(never, NULL);
    __asm__ volatile("");
}

static void producer(void *arg)
{
    weft_chan_send(arg, NULL);
    culprit_at_work();
    weft_chan_send(data, NULL);
}

static void jam(void)
{
    weft_chan *ready = weft_chan_make(0, 0);
    data = weft_chan_make(0, 0);
    never = weft_chan_make(0, 0);
    for (int i = 0; i < FIBERS; i++)
        weft_go(consumer, NULL);
    weft_go(producer, ready);
    weft_chan_recv(ready, NULL);
}

/* ---- what a dump shows ------------------------------------------------------------------------------------- */

struct shown { long fibers; bool whole, culprit; };

static bool begins(const char *line, const char *with) { return strncmp(line, with, strlen(with)) == 0; }

/* Line by line: sanitizers have strstr measure all the rest of the text. A fiber is shown when the blank line behind it is. */
static struct shown look(const char *text)
{
    struct shown s = { 0 };
    long part = 0, n = 0, of = -1;
    for (const char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        part += begins(line, "fiber ");
        if (line == end) {
            s.fibers += part;
            part = 0;
        }
        s.culprit |= begins(line, "culprit_at_work(");
        s.whole = end[1] == 0 && sscanf(line, "%ld of %ld fibers\n", &n, &of) == 2 && n == of;
    }
    return s;
}

static void tell(const char *name, const struct shown *s)
{
    char key[32];
    snprintf(key, sizeof key, "%s_fibers", name);
    bug_value(key, (double)s->fibers);
    snprintf(key, sizeof key, "%s_whole", name);
    bug_value(key, s->whole);
    snprintf(key, sizeof key, "%s_culprit", name);
    bug_value(key, s->culprit);
}

static void buggy(void *arg)
{
    static char text[SMALL];
    (void)arg;
    jam();
    ssize_t n = weft_stack(text, sizeof text, true); /* here it happens */
    struct shown s = look(text);
    const char *last = strrchr(text, '\n');
    bool says = strstr(text, "\n... cut here: the whole text has ") != NULL;
    tell("small", &s);
    bug_value("says", says);
    bug_value("shown", (double)s.fibers);
    bug_value("needed", (double)n);
    bug_value("length", (double)strlen(text));
    if (says) {
        bug_say("%ld of %d fibers are shown, and the last line says that the text was cut, and that the whole has %zd bytes", s.fibers, FIBERS + 2, n);
        bug_cell("%ld shown, \"cut here\"", s.fibers);
        return;
    }
    bug_say("%ld of %d fibers are shown, the one they wait for is %s them; the text ends in the middle of a line, \"%.40s\", of %zd bytes", s.fibers,
            FIBERS + 2, s.culprit ? "among" : "not among", last && last[1] ? last + 2 : "", n);
    bug_cell("%ld of %d fibers shown", s.fibers, FIBERS + 2);
}

static int to_file(void *ctx, const void *data, size_t n)
{
    return fwrite(data, 1, n, ctx) == n ? 0 : -EIO;
}

static int to_nowhere(void *ctx, const void *data, size_t n)
{
    (void)data;
    *(size_t *)ctx += n;
    return 0;
}

static char *read_file(FILE *f)
{
    long n = ftell(f);
    char *text = calloc(1, (size_t)n + 1);
    rewind(f);
    if (!text || fread(text, 1, (size_t)n, f) != (size_t)n)
        abort();
    return text;
}

static void fixed(void *arg)
{
    (void)arg;
    jam();
    size_t room = SMALL;
    char *text = malloc(room);
    for (ssize_t n; (n = weft_stack(text, room, true)) >= (ssize_t)room;) { /* meanwhile there may be more: look again */
        room = (size_t)n + (size_t)n / 8 + 1;
        text = realloc(text, room);
    }
    struct shown grown = look(text);
    free(text);
    FILE *f = tmpfile();
    int err = f ? weft_stack_write(to_file, f, true) : -EIO;
    text = f ? read_file(f) : calloc(1, 1);
    struct shown streamed = look(text);
    size_t bytes = strlen(text);
    free(text);
    FILE *g = tmpfile();
    weft_profile *fibers = weft_profile_lookup("goroutine");
    int perr = g ? weft_profile_write(fibers, to_file, g, 2) : -EIO;
    text = g ? read_file(g) : calloc(1, 1);
    struct shown profiled = look(text);
    free(text);
    size_t proto = 0;
    if (perr == 0)
        perr = weft_profile_write(fibers, to_nowhere, &proto, 0);
    tell("grown", &grown);
    tell("streamed", &streamed);
    tell("profiled", &profiled);
    bug_value("err", err ? err : perr);
    bug_value("proto", (double)proto);
    bug_value("shown", (double)streamed.fibers);
    bug_say("%ld of %d fibers in a buffer that grows, %ld as a stream of %zu bytes, %ld in the profile of fibers (debug 2), each with the one they wait "
            "for, and with a last line that says that it is all; for go tool pprof (debug 0) %zu bytes are enough",
            grown.fibers, FIBERS + 2, streamed.fibers, bytes, profiled.fibers, proto);
    bug_cell("%ld of %d fibers shown", streamed.fibers, FIBERS + 2);
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED], *g = &r[GUARDED];
    if (bug_get(b, "needed") <= bug_get(b, "length") || bug_get(b, "length") != SMALL - 1)
        return "the size that was needed was not returned";
    if (bug_get(b, "small_whole") != 0 || bug_get(b, "small_culprit") != 0 || bug_get(b, "small_fibers") > FIBERS / 2)
        return "the small buffer held what matters";
    if (bug_get(f, "grown_fibers") != FIBERS + 2 || bug_get(f, "grown_whole") != 1 || bug_get(f, "grown_culprit") != 1)
        return "the buffer that grew does not hold everything";
    if (bug_get(f, "err") != 0 || bug_get(f, "streamed_fibers") != FIBERS + 2 || bug_get(f, "streamed_whole") != 1 ||
        bug_get(f, "streamed_culprit") != 1)
        return "the stream is not whole";
    if (bug_get(f, "profiled_fibers") != FIBERS + 2 || bug_get(f, "profiled_whole") != 1 || bug_get(f, "profiled_culprit") != 1)
        return "the profile of fibers does not hold everything";
    if (bug_get(f, "proto") <= 0 || bug_get(f, "proto") > SMALL)
        return "the profile for pprof is not small";
    if (bug_get(g, "says") != 1)
        return "guarded, the text does not say that it was cut";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "11",
        .title = "dump cut by a small buffer",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "weft_stack_write(to_fd, &fd, true);   /* or weft_profile_write(weft_profile_lookup(\"goroutine\"), to_fd, &fd, 2) */",
        .code = WEFT_W11,
        .guard = "WEFT_GUARD_STACKS: the last line of a text that was cut says so",
        .verdict = verdict,
        .plots = { { "shown", "fibers shown, of 10002", "", true } },
    };
    return bug_main(argc, argv, &bug);
}
