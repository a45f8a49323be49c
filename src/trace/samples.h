/* Samples of the CPU profile, in the trace while both run. See samples.c. */
#ifndef WEFT_TRACE_SAMPLES_H
#define WEFT_TRACE_SAMPLES_H

#include "base/base.h"

/* From the first generation on, and after the last; outside the runtime. */
void samples_open(void);
void samples_close(void);
/* By the switcher, before trace_finish: those that were taken in the generation that has ended, from `from` to before `until`, in units. May wait for the profile's helper, some milliseconds. */
void samples_write(uint64_t from, uint64_t until);
void samples_after_fork(void); /* in the child, alone */

#endif
