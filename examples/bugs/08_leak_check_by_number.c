/* Bug 08: looking for leaked fibers by comparing their number with that of the start.
 *
 * What the call promises: weft_num_fibers says how many fibers there are at this moment.
 * What the bug assumes:   that as many are there after the work as before it, unless some were leaked.
 * What goes wrong:        the first number is taken before anything has run. What is made at first use, to stay, is
 *                         missing in it (here a logger and a pool of connections), and at the end it is reported as
 *                         leaked. Somebody raises the number that is tolerated, and from then on real leaks pass; and
 *                         which fibers they are, a number does not say.
 * Instead:                do it once, so that all is warm; then weft_leak_check_begin, and weft_leak_check_end after
 *                         the work. They compare fibers by the place where they were made, wait for those that are
 *                         about to end, and prove each time that a leak would be found.
 * Guarded:                a number cannot be made right. The doctor sees where both were taken, and with w08=abort a test that goes by them fails. */
#include "bug.h"

enum { REQUESTS = 100, CONNECTIONS = 4, FORGOTTEN = 3 };

/* ---- a program that leaks nothing, and a part that does --------------------------------------------------- */

static weft_chan *lines, *queries, *answers;
static weft_once once;

static void logger(void *arg)
{
    int line;
    (void)arg;
    while (weft_chan_recv(lines, &line) == 1)
        ;
}

static void connection(void *arg)
{
    int query;
    (void)arg;
    while (weft_chan_recv(queries, &query) == 1)
        weft_chan_send(answers, &query);
}

static void at_first_use(void *arg)
{
    (void)arg;
    weft_go(logger, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        weft_go(connection, NULL);
}

static void ask(void *arg)
{
    int query = 42;
    (void)arg;
    weft_chan_send(queries, &query);
    weft_chan_recv(answers, &query);
}

/* Three fibers that end, and a line for the log. */
static void request(int number)
{
    weft_waitgroup wg = { 0 };
    weft_once_do(&once, at_first_use, NULL);
    for (int i = 0; i < 3; i++)
        weft_waitgroup_go(&wg, ask, NULL);
    weft_waitgroup_wait(&wg);
    weft_chan_send(lines, &number);
}

static void wait_for_reply(void *arg) { weft_chan_recv(arg, NULL); }

__attribute__((noinline)) static void forget_a_reply(void)
{
    weft_go(wait_for_reply, weft_chan_make(0, 0)); /* nobody will ever send there */
    __asm__ volatile("");
}

static void prepare(void)
{
    lines = weft_chan_make(sizeof(int), 16);
    queries = weft_chan_make(sizeof(int), 0);
    answers = weft_chan_make(sizeof(int), 0);
}

/* ---- the two checks ------------------------------------------------------------------------------------------ */

static void buggy(void *arg)
{
    (void)arg;
    prepare();
    int64_t before = weft_num_fibers(); /* here it happens */
    for (int i = 0; i < REQUESTS; i++)
        request(i);
    int64_t leaked = weft_num_fibers() - before;
    bug_value("reported", (double)leaked);
    bug_say("\"%lld fibers leaked\" by %d requests that leak none: a logger, %d connections, and perhaps one that is just ending",
            (long long)leaked, REQUESTS, CONNECTIONS);
    bug_cell("%lld leaks found, 0 real", (long long)leaked);
}

static char report[8192];
static size_t report_len;

static int into_report(void *ctx, const void *data, size_t n)
{
    (void)ctx;
    if (n > sizeof report - 1 - report_len)
        n = sizeof report - 1 - report_len;
    memcpy(report + report_len, data, n);
    report_len += n;
    return 0;
}

static long check(int forgotten)
{
    weft_leak_check *c;
    if (weft_leak_check_begin(&c) != 0)
        return -1;
    for (int i = 0; i < REQUESTS; i++)
        request(i);
    for (int i = 0; i < forgotten; i++)
        forget_a_reply();
    return (long)weft_leak_check_end(c, (forgotten == 0 ? 10 : 1) * WEFT_SECOND, into_report, NULL); /* who has just answered may still be ending */
}

static void fixed(void *arg)
{
    (void)arg;
    prepare();
    request(0); /* now it is warm */
    long none = check(0), some = check(FORGOTTEN);
    int named = 0;
    for (const char *at = report; (at = strstr(at, "created by forget_a_reply")) != NULL; at++)
        named++;
    bug_value("none", (double)none);
    bug_value("some", (double)some);
    bug_value("named", named);
    bug_say("%ld leaked by %d requests; with %d replies forgotten on purpose: %ld, and the report names the place %d times", none, REQUESTS,
            FORGOTTEN, some, named);
    bug_cell("%ld false, %ld of %d real", none, some, FORGOTTEN);
}

static const char *verdict(const struct bug_result *r)
{
    const struct bug_result *b = &r[BUGGY], *f = &r[FIXED];
    if (bug_get(b, "reported") < 1 + CONNECTIONS)
        return "what first use made was not reported";
    if (bug_get(f, "none") != 0)
        return "the check reports leaks where there are none";
    if (bug_get(f, "some") != FORGOTTEN)
        return "the check does not find the leaks that there are";
    if (bug_get(f, "named") != FORGOTTEN)
        return "the report does not say where the leaked fibers were made";
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct bug bug = {
        .number = "08",
        .title = "leaks told from the number of fibers",
        .buggy = buggy,
        .fixed = fixed,
        .instead = "weft_leak_check_begin(&check); work(); leaked = weft_leak_check_end(check, WEFT_SECOND, to_stderr, NULL);",
        .code = WEFT_W08,
        .doctor = "w08=abort",
        .guard = "the doctor ends the program (w08=abort): a test that goes by such a number fails, and says why",
        .verdict = verdict,
        .plots = { { "reported", "leaks reported, none of them real", "", false } },
    };
    return bug_main(argc, argv, &bug);
}
