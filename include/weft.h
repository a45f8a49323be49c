/* weft.h - an embeddable managed runtime for C: a garbage collector and green threads that know each other.
 *
 * Start at weft/sched.h (weft_run, weft_go), weft/gc.h (weft_alloc), weft/sync.h (channels, locks, timers), weft/io.h
 * (descriptors), weft/mem.h, weft/metrics.h (statistics), weft/prof.h (labels, profiles). */
#ifndef WEFT_H
#define WEFT_H

#include <weft/base.h>
#include <weft/debug.h>
#include <weft/gc.h>
#include <weft/io.h>
#include <weft/mem.h>
#include <weft/metrics.h>
#include <weft/prof.h>
#include <weft/sched.h>
#include <weft/sync.h>
#include <weft/trace.h>

#endif
