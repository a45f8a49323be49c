/* profile_write [stacks] [debug] - how long does it take to write a profile of a hundred thousand different stacks, and how much memory?
 *
 * Each of them was added with its own way through two functions that call one another, 17 deep and more. Counted: a write, from the call to its
 * end (p50 of five), with symbols read before; bytes is what the file holds, uncompressed, and memory_ratio the memory that the process took
 * beyond what it had, at most, over that. debug 1: as text. No peer: Go's profiles of its own keep a map of all stacks under a lock. */
#include "bench_weft.h"
#include <errno.h>

enum { DEPTH = 20, TURNS = 5 };

static weft_profile *profile;

static void right(uint32_t way, int depth);
__attribute__((noinline)) static void left(uint32_t way, int depth)
{
    if (depth == 0)
        bench_must(weft_profile_add(profile, (char *)NULL + 16 + 16ul * way, 0), "weft_profile_add");
    else if (way >> (depth - 1) & 1)
        right(way, depth - 1);
    else
        left(way, depth - 1);
    __asm__ volatile("" : : "i"(1));
}

__attribute__((noinline)) static void right(uint32_t way, int depth)
{
    if (depth == 0)
        bench_must(weft_profile_add(profile, (char *)NULL + 16 + 16ul * way, 0), "weft_profile_add");
    else if (way >> (depth - 1) & 1)
        right(way, depth - 1);
    else
        left(way, depth - 1);
    __asm__ volatile("" : : "i"(2));
}

static int to_file(void *ctx, const void *data, size_t n) { return fwrite(data, 1, n, ctx) == n ? 0 : -EIO; }

static int64_t write_it(weft_profile *p, int debug, const char *path)
{
    FILE *f = fopen(path, "we");
    if (f == NULL)
        abort();
    int64_t t = weft_now();
    bench_must(weft_profile_write(p, to_file, f, debug), "weft_profile_write");
    t = weft_now() - t;
    fclose(f);
    return t;
}

static double file_bytes(const char *path, int debug)
{
    char command[128];
    double n = 0;
    snprintf(command, sizeof command, debug == 0 ? "gzip -dc %s | wc -c" : "wc -c < %s", path);
    FILE *f = popen(command, "r");
    if (f == NULL || fscanf(f, "%lf", &n) != 1)
        abort();
    pclose(f);
    return n;
}

static long stacks;
static int debug;

static void run(void *arg)
{
    int64_t ns[TURNS];
    char path[64];
    (void)arg;
    snprintf(path, sizeof path, "/tmp/weft-profile-write-%d", (int)getpid());
    bench_must(weft_profile_new("stacks", &profile), "weft_profile_new");
    for (uint32_t way = 0; way < 8; way++)
        left(way, DEPTH);
    write_it(profile, debug, path);
    for (uint32_t way = 8; way < (uint32_t)stacks; way++)
        left(way, DEPTH);
    FILE *f = fopen("/proc/self/clear_refs", "we"); /* the peak is what there is now */
    if (f == NULL || fputs("5", f) < 0 || fclose(f) != 0)
        abort();
    long before = bench_rss_kib();
    ns[0] = write_it(profile, debug, path);
    double peak = (double)(bench_peak_kib() - before) * 1024, bytes = file_bytes(path, debug);
    for (int i = 1; i < TURNS; i++)
        ns[i] = write_it(profile, debug, path);
    unlink(path);
    bench_open("profile_write", "weft");
    bench_latencies(ns, TURNS);
    bench_num("ns_per_op", (double)ns[TURNS / 2] / (double)stacks);
    bench_num("bytes", bytes);
    bench_num("memory_ratio", peak / bytes);
    bench_close();
}

int main(int argc, char **argv)
{
    stacks = bench_arg(argc, argv, 1, 100000);
    debug = (int)bench_arg(argc, argv, 2, 0);
    return bench_run(run);
}
