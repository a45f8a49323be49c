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

/* clock.c: the date, as headers have it; until the year 9999. */
#define HTTP_DATE_BYTES 32
void http_date(uint64_t unix_s, char to[HTTP_DATE_BYTES]);

#endif
