/* The flight recorder; its public side is in include/weft/trace.h. See flight.c. */
#ifndef WEFT_TRACE_FLIGHT_H
#define WEFT_TRACE_FLIGHT_H

/* As in struct sched_guest; before the trace itself ends. */
void flight_end(void);
void flight_after_fork(void);

#endif
