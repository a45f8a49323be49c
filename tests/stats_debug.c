/* The debug keys of the collector, as a user meets them: gctrace's line, gcstress, gcpoison. */
#include "heap_test.h"
#include "metrics_test.h"
#include <regex.h>
#include <stdio.h>

/* ---- gctrace ------------------------------------------------------------------------------------------------------ */

enum { LINES = 512 };
static char lines[LINES][320];
static int nlines;

static void remember(void *arg, const char *line)
{
    (void)arg;
    int i = __atomic_fetch_add(&nlines, 1, __ATOMIC_RELAXED);
    if (i < LINES)
        snprintf(lines[i], sizeof lines[i], "%s", line);
}

/* The contract's line; a time has at most three decimals, below 10 ms two significant digits. */
#define MS "([0-9]+|[0-9]\\.[0-9]|0\\.[0-9]{2,3})"
static const char line_regex[] = "^gc ([0-9]+) @([0-9]+\\.[0-9]{3})s ([0-9]+)%: " MS "\\+" MS "\\+" MS " ms clock, " MS "\\+" MS "/" MS "/" MS "\\+" MS
                                 " ms cpu, ([0-9]+)->([0-9]+)->([0-9]+) MB, ([0-9]+) MB goal, ([0-9]+) MB stacks, ([0-9]+) MB globals, ([0-9]+) P( \\(forced\\))?$";

static double field(const char *line, const regmatch_t *m) { return m->rm_so < 0 ? -1 : strtod(line + m->rm_so, NULL); }

static void check_lines(int procs, double seconds, bool beside)
{
    regex_t re;
    regmatch_t m[20];
    cr_assert_eq(regcomp(&re, line_regex, REG_EXTENDED), 0);
    int traced = 0, forced = 0;
    double at = 0;
    for (int i = 0; i < nlines && i < LINES; i++) {
        if (strncmp(lines[i], "gc ", 3) != 0)
            continue;
        const char *l = lines[i];
        cr_assert_eq(regexec(&re, l, 20, m, 0), 0, "%s", l);
        double f[20];
        for (int k = 1; k < 19; k++)
            f[k] = field(l, &m[k]);
        traced++;
        forced += m[19].rm_so >= 0;
        cr_assert_eq(f[1], traced, "numbered from 1: %s", l);
        cr_assert(f[2] >= at && f[2] <= seconds + 0.01, "%s", l);
        at = f[2];
        cr_assert(f[3] <= 100 && f[4] + f[5] + f[6] <= seconds * 1000 + 1, "%s", l);
        /* CPU of a stop is wall time by processors; of a mark beside the program, what the markers used of them */
        cr_assert(f[7] >= f[4] * 0.9 - 0.01 && f[7] <= f[4] * procs * 1.1 + 1, "%s", l);
        cr_assert(beside || f[9] >= f[5] * 0.9 - 0.01, "%s", l);
        cr_assert(f[8] + f[9] + f[10] <= f[5] * procs * 1.1 + 1, "%s", l);
        cr_assert(f[12] <= f[13] && f[14] <= f[13] && f[18] == procs, "%s", l);
        cr_assert(f[13] >= 30 || traced < 5, "32 MB are live: %s", l);
    }
    cr_assert(traced >= 8 && forced == 5, "%d lines, %d forced", traced, forced);
    regfree(&re);
}

static int traced_procs;
static uint64_t traced_beside;
static double ran_s;
static void traced(void *arg)
{
    (void)arg;
    int64_t start = weft_now();
    traced_procs = weft_maxprocs(0);
    char *live = weft_alloc_noscan(32 << 20);
    for (int i = 0; i < 40000; i++)
        memset(weft_alloc_noscan(8192), 1, 8192);
    for (int i = 0; i < 5; i++)
        weft_gc();
    weft_keep_alive(live);
    traced_beside = metric_beside();
    ran_s = (double)(weft_now() - start) / 1e9 + 0.5; /* the runtime's start came before ours */
}

Test(stats_debug, gctrace_is_the_contracts_line)
{
    for (int procs = 1; procs <= 4; procs *= 4) {
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.maxprocs = procs;
        cfg.debug = "gctrace=1,gcstress=0";
        cfg.log = remember;
        nlines = 0;
        memset(lines, 0, sizeof lines);
        test_run_config(&cfg, traced, NULL);
        check_lines(procs, ran_s, traced_beside != 0);
    }
}

/* ---- gcstress -------------------------------------------------------------------------------------------------------- */

static weft_mem_stats stats;
static uint32_t cycles(void)
{
    stats.size = sizeof stats;
    cr_assert_eq(weft_read_mem_stats(&stats), 0);
    return stats.num_gc;
}

struct one { void *p; };
static void stressed(void *arg)
{
    uint32_t each = *(uint32_t *)arg, before = cycles();
    for (uint32_t i = 0; i < 100 * each; i++)
        switch (i % 4) {
        case 0: weft_alloc(i % 500); break;
        case 1: weft_alloc_noscan(i % 5000); break;
        case 2: weft_alloc_typed(WEFT_TYPE(struct one, p)); break;
        case 3: weft_alloc(40000); break;
        }
    cr_assert_eq(cycles() - before, 100, "collections in %u allocations", 100 * each);
}

Test(stats_debug, gcstress_collects_every_nth_allocation)
{
    uint32_t each[] = { 1, 7, 100 };
    for (int i = 0; i < 3; i++) {
        char debug[64];
        weft_config cfg = WEFT_CONFIG_INIT;
        cfg.maxprocs = 1;
        cfg.gc_percent = WEFT_GC_OFF; /* no other reason */
        snprintf(debug, sizeof debug, "gc=stw,gcstress=%u", each[i]);
        cfg.debug = debug;
        test_run_config(&cfg, stressed, &each[i]);
    }
}

/* ---- gcpoison --------------------------------------------------------------------------------------------------------- */

Test(stats_debug, gcpoison_reports_a_write_to_freed_memory)
{
    const char *const sizes[] = { "16", "64", "1000", "9000", "50000" };
    static struct test_output out;
    for (int i = 0; i < 5; i++) {
        test_child(&out, (const char *const[]){ TEST_PROG("poison"), sizes[i], NULL }, (const char *const[]){ "WEFT_DEBUG=gcpoison=1,gcstress=0", NULL });
        cr_assert(out.exit_code != 0 && strstr(out.text, "written") != NULL, "%s bytes: exit %d: %s", sizes[i], out.exit_code, out.text);
        const char *said = strstr(out.text, "was written to after it was freed");
        cr_assert(said != NULL && strstr(out.text, "not noticed") == NULL, "%s bytes: %s", sizes[i], out.text);
        cr_assert_not_null(strstr(out.text, "73706f6f"), "it says what was written: %s", out.text);
    }
}
