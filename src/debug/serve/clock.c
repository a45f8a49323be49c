/* The date, by arithmetic. gmtime_r would do, but for the lock of libc's that it takes: a fork does not look after it, so where another thread told the time
 * in that moment, the child would wait for it for ever. */
#include "debug/serve/clock.h"
#include <stdbool.h>
#include <stdio.h>

static bool is_leap(unsigned year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

void http_date(uint64_t unix_s, char to[HTTP_DATE_BYTES])
{
    static const char weekdays[7][4] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" }; /* the first day was a Thursday */
    static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    static const unsigned lengths[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    uint64_t day = unix_s / 86400;
    unsigned second = (unsigned)(unix_s % 86400), year = 1970, month = 0;
    const char *weekday = weekdays[day % 7];
    for (unsigned n; day >= (n = 365 + is_leap(year)); year++)
        day -= n;
    for (unsigned n; day >= (n = lengths[month] + (month == 1 && is_leap(year))); month++)
        day -= n;
    snprintf(to, HTTP_DATE_BYTES, "%s, %02u %s %04u %02u:%02u:%02u GMT", weekday, (unsigned)day + 1, months[month], year, second / 3600, second / 60 % 60,
             second % 60);
}
