/* CPUs this process may run on. */
#ifndef WEFT_OS_AFFINITY_H
#define WEFT_OS_AFFINITY_H

#include <stdbool.h>
#include <stdint.h>

/* Number of CPUs in the affinity mask of the calling thread, at least 1; any size of mask. */
int os_cpu_count(void);

/* For another thread of ours, which sleeps and is about to be woken: it runs where it might run before, but not on this CPU. *was: where that was, for
 * os_affinity_back, which comes right after the waking, as where a thread is to run is decided by who wakes it. false: there is no other CPU for it, or the
 * system refuses; nothing has changed. CPUs that its cpuset gets only after that are not used by it. */
struct os_affinity { long bytes; uint64_t mask[128]; };
bool os_affinity_elsewhere(int tid, struct os_affinity *was);
void os_affinity_back(int tid, const struct os_affinity *was);

#endif
