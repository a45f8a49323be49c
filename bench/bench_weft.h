/* bench_weft.h - how a bench runs on weft: with the settings of the environment (WEFT_MAXPROCS comes from
 * run.sh), and a failure is an exit code and never a figure. */
#ifndef BENCH_WEFT_H
#define BENCH_WEFT_H

#include "bench.h"
#include <weft.h>

static inline void bench_must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "bench: %s: %s\n", what, weft_strerror(rc));
        _exit(1);
    }
}

/* For main: runs fn as the main fiber. */
static inline int bench_run(weft_fn *fn)
{
    bench_must(weft_run(fn, NULL, NULL), "weft_run");
    return 0;
}

#endif
