/* bench.h - what the benches and the peers written in C and C++ share: clocks, memory, one JSON line.
 *
 * It knows nothing of weft, so that a peer is measured by exactly the same code. A span is wall time and CPU
 * time of the whole process, threads of a runtime included. Numbers in the line are plain, their unit is in
 * their name. */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct bench_span { int64_t wall_ns, cpu_ns; } bench_span;

static inline int64_t bench_clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline bench_span bench_begin(void)
{
    bench_span s = { bench_clock_ns(CLOCK_MONOTONIC), bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID) };
    return s;
}

static inline bench_span bench_end(bench_span since)
{
    bench_span now = bench_begin();
    now.wall_ns -= since.wall_ns;
    now.cpu_ns -= since.cpu_ns;
    return now;
}

/* Resident now. */
static inline long bench_rss_kib(void)
{
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%ld %ld", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* The most that was ever resident. */
static inline long bench_peak_kib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

static inline long bench_arg(int argc, char **argv, int i, long otherwise)
{
    return i < argc ? atol(argv[i]) : otherwise;
}

/* The compiler must take it that p is used, and that memory has changed. */
static inline void bench_use(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

/* xorshift64*: the same sequence everywhere, also in bench/go. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

static inline int bench_compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static inline int bench_compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static inline double bench_median(double *v, long n)
{
    qsort(v, (size_t)n, sizeof *v, bench_compare_double);
    return v[n / 2];
}

/* ---- the line: bench_open, then bench_num..., then bench_close ------------------------------------- */

static inline void bench_open(const char *bench, const char *impl)
{
    printf("{\"bench\":\"%s\",\"impl\":\"%s\"", bench, impl);
}

static inline void bench_num(const char *name, double value)
{
    if (value == (double)(int64_t)value)
        printf(",\"%s\":%" PRId64, name, (int64_t)value);
    else
        printf(",\"%s\":%.6g", name, value);
}

/* p50, p95, p99 and max of n samples in ns; sorts them. */
static inline void bench_latencies(int64_t *ns, size_t n)
{
    qsort(ns, n, sizeof *ns, bench_compare_i64);
    bench_num("p50_ns", (double)ns[(n - 1) / 2]);
    bench_num("p95_ns", (double)ns[(n - 1) * 95 / 100]);
    bench_num("p99_ns", (double)ns[(n - 1) * 99 / 100]);
    bench_num("max_ns", (double)ns[n - 1]);
}

static inline void bench_close(void)
{
    bench_num("rss_kib", (double)bench_rss_kib());
    bench_num("peak_kib", (double)bench_peak_kib());
    printf("}\n");
    fflush(stdout);
}

/* The whole line for the usual case: ops operations in a span. */
static inline void bench_report(const char *bench, const char *impl, double ops, bench_span s)
{
    bench_open(bench, impl);
    bench_num("ns_per_op", (double)s.wall_ns / ops);
    bench_num("ops", ops);
    bench_num("wall_s", (double)s.wall_ns / 1e9);
    bench_num("cpu_s", (double)s.cpu_ns / 1e9);
    bench_close();
}

#endif
