/* Names of addresses, out of generations that are kept. See names.c. */
#ifndef WEFT_TRACE_NAMES_H
#define WEFT_TRACE_NAMES_H

#include "trace/stream.h"

/* For struct trace_symbols; arg is a struct ring_view, which stays. One caller at a time, in a signal handler at most: no lock, no memory. What was found
 * is remembered: always the same view. */
unsigned names_frames_sigsafe(void *arg, uintptr_t pc, struct trace_frame *out, unsigned max);

#endif
