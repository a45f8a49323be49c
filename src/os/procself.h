/* What the kernel says of this process. */
#ifndef WEFT_OS_PROCSELF_H
#define WEFT_OS_PROCSELF_H

#include <stdbool.h>

/* Threads of the process, at least 1; negative errno if it cannot be found out. Opens a file; errno is left alone. */
int os_thread_count(void);

/* As /proc shows it: R runs or waits for a CPU, S sleeps, D sleeps and cannot be woken, ...; 0: not known. */
char os_thread_state(int tid);

/* True if the thread sleeps in the kernel; false if it runs or waits for a CPU, or has ended. */
bool os_thread_sleeps(int tid);

#endif
