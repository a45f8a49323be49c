/* The arithmetic of pacing: how far the heap may grow, when a cycle should start, how marking and the program share the processors, what memory
 * stays.
 * No clock, no lock, no state but what the caller hands in: so tests/gc_pacer.c runs whole programs through it, in no time. Contract: Go's pacer.
 *
 * L, S, G: bytes that the last cycle found in objects, scanned of stacks, scanned of globals.
 *
 *     goal by percent = L + (L + S + G) * percent / 100,  at least 4 MiB * percent / 100
 *     goal by limit   = limit - what is no object's - what exceeds the limit - headroom,  never below L
 *     trigger         = goal - runway, between 0.70 and 0.95 of the way from L to goal (of large heaps: up to 4 MiB before it)
 *
 * The runway is what the program allocates while a cycle marks beside it, at the rates measured in the last ones. A cycle that stops the world needs
 * none: its trigger is its goal, and of the middle part below nothing applies to it. */
#ifndef WEFT_GC_PACE_H
#define WEFT_GC_PACE_H

#include "base/base.h"

#define PACE_NEVER UINT64_MAX
#define PACE_HEAP_MIN ((uint64_t)4 << 20)
#define PACE_UTILIZATION 0.25 /* of the processors, to marking */

/* ---- how far ---------------------------------------------------------------------------------------------- */

/* percent < 0: PACE_NEVER. */
uint64_t pace_percent_goal(int percent, uint64_t live, uint64_t stacks, uint64_t globals);
/* mapped: bytes that the whole runtime has from the system and has not given back; not_objects: those of them that neither hold an object nor are
 * free pages of the heap, which an object may take. */
uint64_t pace_limit_goal(uint64_t limit, uint64_t live, uint64_t not_objects, uint64_t mapped);

/* ---- a cycle beside the program --------------------------------------------------------------------------- */

/* Bytes allocated for a byte scanned, each per CPU second given to it: the largest of the last five cycles, as an error in this direction costs a
 * cycle and in the other one makes allocations wait. */
struct pace_rate { double now, last[4]; };
/* utilization: of the processors, by workers and by allocations that help; idle: by processors that had nothing else to do. */
void pace_rate_add(struct pace_rate *r, uint64_t allocated, uint64_t scanned, double utilization, double idle);
/* Bytes that the program allocates while `work` bytes are scanned with the share of PACE_UTILIZATION. */
uint64_t pace_runway(const struct pace_rate *r, uint64_t work);
/* at_least: no trigger below, unless the goal is. */
uint64_t pace_trigger(uint64_t goal, uint64_t live, uint64_t runway, uint64_t at_least);

/* A quarter of the processors: so many workers, each of which has such a share of one processor. */
struct pace_workers { unsigned n; double share; };
struct pace_workers pace_workers(unsigned procs);

/* A cycle under way. */
struct pace_mark {
    int percent;
    bool limited;             /* the goal is the memory limit's: it does not move, and is not passed */
    uint64_t goal, triggered; /* heap at which it should be over; at which it began */
    uint64_t heap;            /* now */
    uint64_t expected, most;  /* bytes to scan: as much as last time; if all there is lives */
    uint64_t done;            /* of them */
};
/* Bytes that an allocation of one byte has to scan, so that the work is done when the heap has come to its goal. Beyond the expected work the goal
 * moves on in proportion, at most to where the next cycle's would be, unless the limit has set it. (Go lets it move then, too: with GC by percent
 * off a thousandfold.) */
double pace_assist_ratio(const struct pace_mark *m);
/* The heap is larger than the goal allows, which by percent is a tenth more: nobody allocates any more before the mark is over. */
bool pace_outgrown(const struct pace_mark *m);

/* ---- how much of the time --------------------------------------------------------------------------------- */

/* The cap on collecting: a bucket that fills with CPU time of the collector and drains with the program's, of one CPU second per processor. When it
 * is full, the collector has had half of the time for a good while: then the memory limit has to give way. */
struct pace_bucket { uint64_t fill, capacity; };
void pace_bucket_resize(struct pace_bucket *b, unsigned procs);
void pace_bucket_add(struct pace_bucket *b, int64_t gc_ns, int64_t program_ns);
static inline bool pace_bucket_full(const struct pace_bucket *b) { return b->fill == b->capacity; }

/* ---- what stays -------------------------------------------------------------------------------------------- */

/* Bytes of pages the heap may keep: what it used when the last cycle ended, by as much more or less as the goal has moved, and a tenth. */
uint64_t pace_retain(uint64_t in_use, uint64_t goal, uint64_t last_goal);
/* And the whole runtime: 95 % of the limit. */
static inline uint64_t pace_limit_retain(uint64_t limit) { return limit - limit / 20; }
/* How long who worked for worked_ns sleeps, to use one percent of procs processors. */
int64_t pace_scavenge_sleep_ns(int64_t worked_ns, unsigned procs);

#endif
