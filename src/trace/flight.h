/* The flight recorder; its public side is in include/weft/trace.h. See flight.c. */
#ifndef WEFT_TRACE_FLIGHT_H
#define WEFT_TRACE_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

/* The limits of the one that runs. False: none does. Anybody, for show. */
bool flight_limits(int64_t *age_ns, uint64_t *bytes);

/* As in struct sched_guest; before the trace itself ends. */
void flight_end(void);
void flight_after_fork(void);

#endif
