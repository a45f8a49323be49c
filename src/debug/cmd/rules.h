/* From when on weft-doctor says something of a file, and why from there on. It runs in CI: a finding fails a build, so what a sound program may do, or what
 * a busy machine may do to it, is none. Where the library's doctor has a threshold for the same, it is that one: its reasons are in debug/thresholds.h. */
#ifndef WEFT_CMD_RULES_H
#define WEFT_CMD_RULES_H

#include "debug/cmd/report.h"
#include "debug/thresholds.h"

#define R_MS INT64_C(1000000)

/* W03. A thread whose last act is that a fiber ended on it. A runtime keeps threads that have nothing to do; a program may end some on purpose, at its
 * start. From one place, more than six a second for ten seconds, or a burst that no start has. */
#define R_W03_THREADS T_W03_THREADS
#define R_W03_WINDOW_NS T_W03_WINDOW_NS

/* W04. Forced: asked for on the stack, or begun with less than half of the heap that the pacer waits for (which begins at 70 % of it, or later). Ten in a
 * second are no phases of a program, and if they take a tenth of the time they cost what they cost. */
#define R_W04_CYCLES T_W04_CYCLES
#define R_W04_WINDOW_NS T_W04_WINDOW_NS
#define R_W04_SHARE (T_W04_SHARE_PERCENT / 100.0)
#define R_W04_HEAP 0.50

/* W06. Who draws curves reads once in ten seconds, a live page ten times a second. A hundred is a loop, or a handler of requests. */
#define R_W06_READS T_W06_READS
#define R_W06_WINDOW_NS T_W06_WINDOW_NS

/* W15. On a machine that others use too, a fiber waits for a hundred milliseconds now and then. Twenty times, or once for five seconds, is a program that
 * keeps its processors from it. */
#define R_W15_NS (100 * R_MS)
#define R_W15_TIMES 20u
#define R_W15_ALONE_NS (5 * T_SECOND)

/* W16. Marking some million objects in a stop takes tens of milliseconds: that is what this runtime does. A hundred a person notices; but one such stop may
 * be the machine's doing, which had no processor for the thread that stops the world. So three, or a whole second. Or it is not one stop: a program that
 * stands still a fifth of the time, in a hundred stops or more. */
#define R_W16_NS (100 * R_MS)
#define R_W16_TIMES 3u
#define R_W16_ALONE_NS T_SECOND
#define R_W16_SHARE 0.20
#define R_W16_SHARE_TIMES 100u

/* Shares of a CPU profile are counted in samples; fewer than this of one kind say nothing (their error would be a third of them). Half a second of
 * work, at 100 a second, is the least that is judged at all. */
#define R_SAMPLES 10
#define R_SAMPLES_ALL 50

/* W10. Profiles that are always on are to cost a percent, and one that takes a few may be worth it for a while. */
#define R_W10_SHARE (T_W10_PERCENT / 100.0)

/* W04, W06 in a CPU profile: time inside of calls that should be rare. */
#define R_CALLS_SHARE 0.10

/* P01. The pacer allows itself a quarter of the processors, at the default percentage and a heap that grows. */
#define R_P01_SHARE 0.40

/* P02. What a cache or pool makes at first use is some fibers, from one place. Ten more there, and twice as many, is more than that. */
#define R_P02_MORE 10
#define R_P02_TIMES 2

/* P04. A lock that is held while others wait for it, on average a millisecond, which is a system call or two and no critical section; and these waits are a
 * tenth of the time that the profile covers, or ten seconds where it does not say. */
#define R_P04_MEAN_NS R_MS
#define R_P04_SHARE 0.10
#define R_P04_NS (10 * T_SECOND)

/* P05. Samples for which there was no room. */
#define R_P05_SHARE 0.05

void look_trace(struct report *r, const uint8_t *data, size_t n);
struct profile;
/* cut: the file goes on behind p, with bytes that are no whole piece of it. base: NULL, or what to compare with. */
void look_profile(struct report *r, const struct profile *p, const struct profile *base, bool cut);

#endif
