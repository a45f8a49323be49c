/* From when on the doctor says something, and why from there on. No false alarm is the first virtue: what a sound program may do now and then, or in a
 * burst, is no finding. Times in nanoseconds. */
#ifndef WEFT_DEBUG_THRESHOLDS_H
#define WEFT_DEBUG_THRESHOLDS_H

#define T_SECOND INT64_C(1000000000)

/* W03. A fiber that ends locked is how a thread is got rid of on purpose, whose state cannot be put back (a namespace, a seccomp filter): a thing of
 * starts and of operations that take longer themselves. A thread costs some 20 us to make. By forgetting it happens for each request. From one place, as
 * many as this in ten seconds are more than six a second for all that time, or a burst that no start has. */
#define T_W03_WINDOW_NS (10 * T_SECOND)
#define T_W03_THREADS 64u

/* W04. Between phases of a program, or in a test between two cases, a forced cycle is fine; cases may be short, and heaps of tests small, so that hundreds
 * in a second cost nothing. What harms is the time that goes into it. So: ten in a second from one place, all over it (six of its eighths), and a tenth of the
 * second spent. The pacer itself spends a quarter at the most, at the default percentage, for a heap that doubles each time. */
#define T_W04_WINDOW_NS T_SECOND
#define T_W04_CYCLES 10u
#define T_W04_SLOTS 6u
#define T_W04_SHARE_PERCENT 10u
#define T_W04_KEPT 100u /* with WEFT_GUARD_GC, which keeps the share below that: calls of which most came in vain */

/* W06. Whoever draws curves reads the statistics once in ten seconds, a live page some ten times a second. A stop of all processors takes some 20 us
 * up to a millisecond. A hundred in a second from one place, all over it, is what a loop does or a handler of requests, no clock. */
#define T_W06_WINDOW_NS T_SECOND
#define T_W06_READS 100u
#define T_W06_SLOTS 6u

#endif
