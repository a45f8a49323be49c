/* What the flight recorder has, saved in the handler of a signal that is about to end the process. See crash.c. */
#ifndef WEFT_TRACE_CRASH_H
#define WEFT_TRACE_CRASH_H

/* From now on, to fd: on the first such signal. 0, or negative errno; then nothing has changed. One caller at a time; so with the next. */
int crash_arm(int fd);
void crash_disarm(void);
/* In the child of a fork, alone: the file is the parent's. */
void crash_after_fork(void);

#endif
