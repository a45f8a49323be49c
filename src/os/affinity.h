/* CPUs this process may run on. */
#ifndef WEFT_OS_AFFINITY_H
#define WEFT_OS_AFFINITY_H

/* Number of CPUs in the affinity mask of the calling thread, at least 1; any size of mask. */
int os_cpu_count(void);

#endif
