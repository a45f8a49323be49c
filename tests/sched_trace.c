/* schedtrace with scheddetail: every line is one of Go's, and what they say of fibers, machines and processors fits together. With a seed, too. */
#include "test.h"
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static char text[4 << 20]; /* the log; written by the monitor only */
static size_t len;

static void remember(void *arg, const char *line)
{
    (void)arg;
    size_t n = strlen(line), at = len;
    if (at + n + 2 > sizeof text)
        return;
    memcpy(text + at, line, n);
    text[at + n] = '\n';
    __atomic_store_n(&len, at + n + 1, __ATOMIC_RELEASE); /* the NUL is there already */
}

static size_t len_now(void) { return __atomic_load_n(&len, __ATOMIC_ACQUIRE); }

static const struct timespec a_moment = { 0, 1000000 };

/* The first round that is whole, from *at on: *at moves to the next. What the lines said before. */
static char round_text[1 << 16];
static bool next_round(size_t *at)
{
    size_t from = *at, end = len_now();
    for (size_t i = from + 1; i + 6 < end; i++)
        if (text[i - 1] == '\n' && memcmp(text + i, "SCHED ", 6) == 0) {
            cr_assert(i - from < sizeof round_text);
            memcpy(round_text, text + from, i - from);
            round_text[i - from] = 0;
            *at = i;
            return true;
        }
    return false;
}

static void run(const char *debug, int procs, weft_fn *fn)
{
    weft_config cfg = WEFT_CONFIG_INIT;
    cfg.maxprocs = procs;
    cfg.debug = debug;
    cfg.log = remember;
    test_run_config(&cfg, fn, NULL);
}

static int count(const char *what)
{
    int n = 0;
    for (const char *at = round_text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

#define ID "([0-9]+|nil)"
static const char *const forms[] = {
    "^SCHED [0-9]+ms: gomaxprocs=[0-9]+ idleprocs=[0-9]+ threads=[0-9]+ spinningthreads=[0-9]+ needspinning=0 idlethreads=[0-9]+ runqueue=[0-9]+ "
    "gcwaiting=[01] nmidlelocked=[0-9]+ stopwait=[0-9]+ sysmonwait=0$",
    "^  P[0-9]+: status=[0134] schedtick=[0-9]+ syscalltick=[0-9]+ m=" ID " runqsize=[0-9]+ gfreecnt=[0-9]+ timerslen=[0-9]+$",
    "^  M[0-9]+: p=" ID " curg=" ID " mallocing=0 throwing=0 preemptoff= locks=[01] dying=0 spinning=(true|false) "
    "blocked=(true|false) lockedg=" ID "$",
    "^  G[0-9]+: status=([12]\\(\\)|3\\(syscall\\)|4\\([a-zA-Z .()]+\\)) m=" ID " lockedm=" ID "$",
};

/* Also in which order they come. */
static void expect_forms(void)
{
    regex_t re[4];
    size_t rounds = 0, kind = 0, lines = 0;
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(regcomp(&re[i], forms[i], REG_EXTENDED | REG_NOSUB), 0);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        size_t is = 0;
        while (is < 4 && regexec(&re[is], line, 0, NULL, 0) != 0)
            is++;
        cr_assert(is < 4, "not Go's: %s", line);
        cr_assert(is == 0 || is >= kind, "out of its place: %s", line);
        kind = is;
        rounds += is == 0;
        lines++;
    }
    cr_expect(rounds >= 3 && lines >= 4 * rounds - 3, "%zu rounds of %zu lines", rounds, lines);
    for (size_t i = 0; i < 4; i++)
        regfree(&re[i]);
}

/* ---- every state ---------------------------------------------------------------------------------------------------- */

static weft_chan *never;
static int go_on;
static uint64_t waiting, locked, blocking, spinning;

static void tell(uint64_t *id) { __atomic_store_n(id, weft_fiber_id(), __ATOMIC_RELEASE); }

static void waits(void *arg)
{
    (void)arg;
    tell(&waiting);
    weft_chan_recv(never, NULL);
}

static void is_locked(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_lock_os_thread(), 0);
    tell(&locked);
    while (!__atomic_load_n(&go_on, __ATOMIC_ACQUIRE))
        weft_sleep(WEFT_SECOND);
    weft_unlock_os_thread();
}

static void blocks(void *arg)
{
    (void)arg;
    tell(&blocking);
    weft_blocking_begin();
    while (!__atomic_load_n(&go_on, __ATOMIC_ACQUIRE))
        nanosleep(&a_moment, NULL);
    weft_blocking_end();
}

static void spins(void *arg)
{
    (void)arg;
    tell(&spinning);
    while (!__atomic_load_n(&go_on, __ATOMIC_ACQUIRE)) {}
}

/* What follows the name of the fiber's line in this round, or nothing. */
static const char *line_of(uint64_t id)
{
    char name[32];
    snprintf(name, sizeof name, "\n  G%lu: ", (unsigned long)id);
    const char *at = strstr(round_text, name);
    return at != NULL ? at + strlen(name) : "";
}

static bool machine_shows(unsigned m, const char *form, uint64_t id)
{
    char name[32], rest[200];
    snprintf(name, sizeof name, "\n  M%u: ", m);
    snprintf(rest, sizeof rest, form, (unsigned long)id);
    const char *at = strstr(round_text, name);
    return at != NULL && strncmp(at + strlen(name), rest, strlen(rest)) == 0;
}

static unsigned processor_has(unsigned p)
{
    char name[32];
    unsigned m = 0;
    snprintf(name, sizeof name, "\n  P%u: ", p);
    const char *at = strstr(round_text, name);
    if (at != NULL)
        sscanf(at + strlen(name), "status=1 schedtick=%*u syscalltick=%*u m=%u ", &m);
    return m;
}

static bool all_is_shown(void)
{
    unsigned m, spinner, p;
    char curg[32];
    if (strstr(line_of(waiting), "status=4(chan receive) m=nil lockedm=nil\n") != line_of(waiting) || strstr(round_text, " nmidlelocked=1 ") == NULL)
        return false;
    if (sscanf(line_of(locked), "status=4(sleep) m=nil lockedm=%u\n", &m) != 1 ||
        !machine_shows(m, "p=nil curg=nil mallocing=0 throwing=0 preemptoff= locks=1 dying=0 spinning=false blocked=true lockedg=%lu\n", locked))
        return false;
    if (sscanf(line_of(blocking), "status=3(syscall) m=%u lockedm=nil\n", &m) != 1 ||
        !machine_shows(m, "p=nil curg=%lu mallocing=0 throwing=0 preemptoff= locks=0 dying=0 spinning=false blocked=false lockedg=nil\n", blocking))
        return false;
    if (sscanf(line_of(spinning), "status=2() m=%u lockedm=nil\n", &spinner) != 1)
        return false;
    for (p = 0; p < 3; p++) { /* its processor and its machine name each other, as long as it has one */
        snprintf(curg, sizeof curg, "p=%u curg=%%lu mallocing=0 ", p);
        if (machine_shows(spinner, curg, spinning))
            break;
    }
    if (p == 3 ? !machine_shows(spinner, "p=nil curg=%lu mallocing=0 ", spinning) : processor_has(p) != spinner)
        return false;
    return count("\n  P") == 3 && count(" timerslen=0\n") < 3; /* the sleeper's is somewhere */
}

static bool some_round_shows_all(void)
{
    static size_t at;
    while (next_round(&at))
        if (all_is_shown())
            return true;
    return false;
}

static void every_state(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    never = weft_chan_make(0, 0);
    cr_assert_eq(weft_waitgroup_go(&wg, waits, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, is_locked, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, blocks, NULL), 0);
    cr_assert_eq(weft_waitgroup_go(&wg, spins, NULL), 0);
    test_until(__atomic_load_n(&waiting, __ATOMIC_ACQUIRE) != 0 && __atomic_load_n(&locked, __ATOMIC_ACQUIRE) != 0 &&
               __atomic_load_n(&blocking, __ATOMIC_ACQUIRE) != 0 && __atomic_load_n(&spinning, __ATOMIC_ACQUIRE) != 0);
    test_until(some_round_shows_all());
    __atomic_store_n(&go_on, 1, __ATOMIC_RELEASE);
    weft_chan_close(never);
    weft_waitgroup_wait(&wg);
}

Test(sched_trace, details_are_gos_lines_and_show_every_state)
{
    run("schedtrace=10,scheddetail=1,gcstress=0", 3, every_state);
    expect_forms();
}

/* ---- with a seed ------------------------------------------------------------------------------------------------------ */

static void yields(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&go_on, __ATOMIC_ACQUIRE))
        weft_yield();
}

/* Seeded time flies while everybody yields: no more is waited for than what the log shows. */
static void seeded(void *arg)
{
    (void)arg;
    weft_waitgroup wg = { 0 };
    for (int i = 0; i < 3; i++)
        cr_assert_eq(weft_waitgroup_go(&wg, yields, NULL), 0);
    size_t at = len_now(); /* rounds of before, of a slow start, do not show them */
    for (int rounds = 0; rounds < 4; rounds += next_round(&at))
        nanosleep(&a_moment, NULL); /* keeps the only processor: the others, started or not, can run */
    cr_expect_eq(count(": status=1() m=nil lockedm=nil\n"), 3, "%s", round_text);
    cr_expect_not_null(strstr(round_text, "\n  G1: status=2() m="), "%s", round_text);
    cr_expect_eq(count("\n  P"), 1);
    __atomic_store_n(&go_on, 1, __ATOMIC_RELEASE);
    weft_waitgroup_wait(&wg);
}

Test(sched_trace, a_seeded_program_is_traced_too)
{
    run("schedtrace=5,scheddetail=1,schedseed=3,gcstress=0", 0, seeded);
    expect_forms();
}
