/* The monotonic clock. Not weft_now(), which is the scheduler's: a run with a seed (schedseed) has a time of its own, by which nobody can wait for a client. */
#ifndef WEFT_SERVE_CLOCK_H
#define WEFT_SERVE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

#endif
