/* A million fibers that wait: they are made, parked, woken, and end, under the mappings that a process is allowed by default, and each costs about a
 * page. */
#include "base/base.h"
#include "sched/sched.h"
#include "test.h"
#include <stdio.h>
#include <sys/mman.h>

#define PER_FIBER 4608 /* bytes resident: a page for the stack and the descriptor, and what is kept of it elsewhere */

static weft_chan *gate;
static uint64_t parked, ended, sum;

static void wait_at_gate(void *arg)
{
    __atomic_fetch_add(&parked, 1, __ATOMIC_RELAXED);
    cr_assert_eq(weft_chan_recv(gate, NULL), 0);
    __atomic_fetch_add(&sum, (uintptr_t)arg, __ATOMIC_RELAXED);
    __atomic_fetch_add(&ended, 1, __ATOMIC_RELAXED);
}

/* A number from /proc/meminfo or a file of its own. */
static long number_in(const char *path, const char *format)
{
    char line[256];
    long n = -1;
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, format, &n) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return n;
}

/* Guards cost no mapping of their own. */
static bool light_guards(void)
{
    void *p = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool ok = p != MAP_FAILED && madvise(p, 4096, 102 /* MADV_GUARD_INSTALL */) == 0 && !test_is_emulated();
    munmap(p, 1 << 16);
    return ok;
}

/* Fewer where a page more for each would not fit, or a sanitizer keeps something of its own for each. */
static uint64_t how_many(void)
{
    long free_kib = number_in("/proc/meminfo", "MemAvailable: %ld");
#ifdef W_TSAN
    return 5000; /* it takes fibers for threads, of which it allows 8128 */
#endif
    return test_is_slow() || !light_guards() ? 20000 : free_kib > (8l << 20) ? 1000000 : 100000;
}

static void run_million(void *arg)
{
    uint64_t n = *(uint64_t *)arg;
    gate = weft_chan_make(0, 0);
    __atomic_store_n(&parked, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ended, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&sum, 0, __ATOMIC_RELAXED);
    long before = test_rss_kib();
    for (uint64_t i = 1; i <= n; i++)
        cr_assert_eq(weft_go(wait_at_gate, (void *)(uintptr_t)i), 0);
    cr_expect_eq(weft_num_fibers(), (int64_t)n + 1);
    while (__atomic_load_n(&parked, __ATOMIC_RELAXED) < n)
        weft_sleep(WEFT_MILLISECOND);
    weft_yield();
    long per_fiber = (test_rss_kib() - before) * 1024 / (long)n;
    if (!test_is_slow())
        cr_expect_leq(per_fiber, PER_FIBER, "%ld bytes resident for each fiber", per_fiber);
    long limit = number_in("/proc/sys/vm/max_map_count", "%ld");
#ifndef W_TSAN /* maps something for each */
    if (light_guards())
        cr_expect_lt(test_maps(), w_min(limit, 65530l) / 8, "%d mappings", test_maps());
#else
    (void)limit;
#endif
    weft_chan_close(gate);
    while (__atomic_load_n(&ended, __ATOMIC_RELAXED) < n)
        weft_sleep(WEFT_MILLISECOND);
    cr_expect_eq(__atomic_load_n(&sum, __ATOMIC_RELAXED), n * (n + 1) / 2, "each ended once, with its own argument");
    while (weft_num_fibers() != 1)
        weft_sleep(WEFT_MILLISECOND);
}

Test(sched_million, parked)
{
    uint64_t n = how_many();
    test_run(run_million, &n);
}

/* Again and again with fewer: their stacks and records are used anew. */
static void run_waves(void *arg)
{
    long first = 0;
    for (int i = 0; i < 8; i++) {
        run_million(arg);
        long now = test_rss_kib();
        if (i == 1)
            first = now;
        if (i > 1 && !test_is_slow())
            cr_expect_lt(now, first + first / 4, "%ld KiB resident after %d waves, %ld after two", now, i + 1, first);
    }
}

Test(sched_million, waves)
{
    uint64_t n = test_is_slow() || !light_guards() ? 5000 : 50000;
    test_run(run_waves, &n);
}
