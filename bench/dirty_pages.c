/* dirty_pages [uffd|mprotect] [MiB] [small|huge] - what does it cost to know which pages were written to?
 *
 * Per round, over memory that has been touched: to arm all of it (arm_us; once more: arm_again_us; in spans of 8 KiB, every other one: span_ns
 * each), to take what was written, if that is none, 1000 or 30000 pages spread over it (take_0_us, ...), and to arm it again at once (rearm_0_us,
 * ...), to disarm (disarm_us). To the program: the first write to a page (first_ns), and the next one to a page as far away (next_ns). Of huge
 * pages also: the first write to each (split_ns), what dependent reads in random order cost before (read_huge_ns), after (read_split_ns) and when
 * they have been made huge again (read_again_ns), which takes collapse_us each. Medians of the rounds. Built with the library's inside: all of it
 * is os/dirty.h. */
#include "bench.h"
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <ucontext.h>
#include "os/dirty.h"
#include "os/signal.h"
#include "os/vm.h"

#define PAGE ((size_t)4096)
#define ROUNDS 5
#define READS 2000000
#define WRITES 20000

static char *at;
static size_t bytes;

static void must(long rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "bench: dirty_pages: %s: error %ld\n", what, -rc);
        exit(1);
    }
}

static enum signal_whose fault(int sig, siginfo_t *info, void *uc)
{
    (void)sig, (void)uc;
    return dirty_fault((uintptr_t)info->si_addr, 0) ? SIGNAL_OURS : SIGNAL_HOSTS;
}

/* ---- one step ------------------------------------------------------------------------------------------------------- */

static double us_since(int64_t t) { return (double)(bench_clock_ns(CLOCK_MONOTONIC) - t) / 1e3; }
static int64_t now(void) { return bench_clock_ns(CLOCK_MONOTONIC); }

static double arm_us(void)
{
    int64_t t = now();
    must(dirty_arm((uintptr_t)at, (uintptr_t)at + bytes), "arm");
    return us_since(t);
}

static double disarm_us(void)
{
    int64_t t = now();
    must(dirty_disarm((uintptr_t)at, (uintptr_t)at + bytes), "disarm");
    return us_since(t);
}

static double span_ns(void)
{
    size_t n = 0;
    int64_t t = now();
    for (size_t i = 0; i < bytes && n < 8192; i += 4 * PAGE, n++)
        must(dirty_arm((uintptr_t)at + i, (uintptr_t)at + i + 2 * PAGE), "arm");
    return us_since(t) * 1e3 / (double)n;
}

static double take_us(bool again)
{
    struct dirty_range out[128];
    int64_t t = now();
    for (uintptr_t lo = (uintptr_t)at, hi = lo + bytes; lo < hi;)
        must(dirty_take(lo, hi, again, out, 128, &lo), "take");
    return us_since(t);
}

static void write_spread(size_t n)
{
    size_t pages = bytes / PAGE;
    for (size_t i = 0; i < n; i++)
        ((volatile char *)at)[i * pages / n * PAGE + 64]++;
}

static double write_ns(size_t n, size_t stride)
{
    n = bytes / stride < n ? bytes / stride : n;
    int64_t t = now();
    for (size_t i = 0; i < n; i++)
        ((volatile char *)at)[i * stride + 64]++;
    return us_since(t) * 1e3 / (double)n;
}

static double read_ns(void)
{
    uint64_t state = 1, sum = 0;
    int64_t t = now();
    for (long i = 0; i < READS; i++)
        sum += *(volatile uint64_t *)(at + (bench_random(&state) + (sum & 1)) % (bytes / 64) * 64 + 8);
    double ns = us_since(t) * 1e3 / READS;
    bench_use((void *)(uintptr_t)sum);
    return ns;
}

static double collapse_us(void)
{
    int64_t t = now();
    os_vm_collapse(at, bytes);
    return us_since(t) / (double)(bytes / OS_HUGE_PAGE);
}

/* ---- rounds ---------------------------------------------------------------------------------------------------------- */

enum figure {
    ARM, ARM_AGAIN, SPAN, DISARM, TAKE_0, TAKE_1000, TAKE_30000, REARM_0, REARM_1000, REARM_30000, FIRST, NEXT, SPLIT, READ_HUGE, READ_SPLIT, READ_AGAIN,
    COLLAPSE, FIGURES
};
static const char *const names[FIGURES] = {
    "arm_us", "arm_again_us", "span_ns", "disarm_us", "take_0_us", "take_1000_us", "take_30000_us", "rearm_0_us", "rearm_1000_us", "rearm_30000_us",
    "first_ns", "next_ns", "split_ns", "read_huge_ns", "read_split_ns", "read_again_ns", "collapse_us",
};

/* Memory that was touched, all of it, and is in huge pages or in small ones. */
static void memory(bool huge)
{
    madvise(at, bytes, MADV_DONTNEED);
    madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    memset(at, 1, bytes);
}

static void round_of(double *f, bool huge)
{
    static const size_t written[] = { 0, 1000, 30000 };
    memory(huge);
    if (huge)
        f[READ_HUGE] = read_ns();
    f[ARM] = arm_us();
    f[ARM_AGAIN] = arm_us();
    f[TAKE_0] = take_us(false);
    f[REARM_0] = take_us(true);
    if (huge) {
        f[SPLIT] = write_ns(bytes / OS_HUGE_PAGE, OS_HUGE_PAGE);
        f[READ_SPLIT] = read_ns();
        disarm_us();
        f[COLLAPSE] = collapse_us();
        f[READ_AGAIN] = read_ns();
        arm_us();
    }
    for (int i = 1; i < 3; i++) {
        write_spread(written[i]);
        f[TAKE_0 + i] = take_us(false);
        f[REARM_0 + i] = take_us(true);
    }
    f[FIRST] = write_ns(WRITES, 3 * PAGE);
    f[NEXT] = write_ns(WRITES, 3 * PAGE);
    f[DISARM] = disarm_us();
    if (!huge)
        f[SPAN] = span_ns();
    disarm_us();
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "uffd";
    enum dirty_backend way = strcmp(name, "mprotect") == 0 ? DIRTY_MPROTECT : DIRTY_UFFD;
    bool huge = argc > 3 && strcmp(argv[3], "huge") == 0;
    double f[FIGURES][ROUNDS], one[FIGURES] = { 0 };
    bytes = (size_t)bench_arg(argc, argv, 2, 512) << 20;
    at = os_vm_reserve(bytes, OS_HUGE_PAGE);
    if (at == NULL || os_vm_commit(at, bytes) != 0)
        return 1;
    must(dirty_start(way, false, (uintptr_t)at, (uintptr_t)at + bytes), "start");
    must(dirty_committed((uintptr_t)at, (uintptr_t)at + bytes), "committed");
    must(signal_hook(SIGSEGV, fault, false), "handler");
    for (int r = 0; r < ROUNDS; r++) {
        round_of(one, huge);
        for (int i = 0; i < FIGURES; i++)
            f[i][r] = one[i];
    }
    bench_open("dirty_pages", "weft");
    for (int i = 0; i < FIGURES; i++)
        if (one[i] > 0)
            bench_num(names[i], bench_median(f[i], ROUNDS));
    bench_close();
    return 0;
}
