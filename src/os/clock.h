/* Clocks, in nanoseconds. Through the vDSO where it has them; errno is left alone. */
#ifndef WEFT_OS_CLOCK_H
#define WEFT_OS_CLOCK_H

#include <stdint.h>
#include <sys/types.h>

int64_t os_now_ns(void);  /* monotonic: what weft_now() returns */
int64_t os_wall_ns(void); /* since 1970 */
/* CPU time that a thread of this process has used; tid as of gettid(). -ESRCH or -EINVAL: it has ended. */
int64_t os_thread_cpu_ns(pid_t tid);
int64_t os_self_cpu_ns(void);    /* of the calling thread */
int64_t os_process_cpu_ns(void); /* of all threads of the process */

#endif
