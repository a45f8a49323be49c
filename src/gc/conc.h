/* Marking beside the program. See conc.c for the argument; cycle.c decides when. */
#ifndef WEFT_GC_CONC_H
#define WEFT_GC_CONC_H

#include "gc/heap.h"
#include "gc/mark.h"

/* Whether this heap can be marked so: the system tells which pages are written to, and the host who ran. */
bool conc_possible(void);

/* In the first stop of a cycle, caches flushed, everything swept, roots_prepare done. */
void conc_begin_stw(void);

enum conc_step {
    CONC_WORKED,
    CONC_NOTHING, /* others have all the work there is */
    CONC_MARKED,  /* what can be done beside the program is done: the caller alone may end it, in a stop. Told once */
    CONC_OVER,    /* the cycle is over. Told once */
};
/* Does about `most` bytes of it. ends: CONC_MARKED and CONC_OVER may be told. *scanned grows. Inside the runtime, under no lock. */
enum conc_step conc_step(bool ends, uint64_t most, uint64_t *scanned);
/* In the second stop, caches flushed: marks the rest, or all if something has failed, which is counted. */
void conc_end_stw(unsigned nworkers, struct pacer_marked *out);
/* The same, but that nothing of it counts. */
void conc_give_up_stw(void);
/* After either, when the caller is done with the cycle: there is still something to do, the end of which is CONC_OVER. */
void conc_disarm(void);
/* Bytes scanned so far. Any time. */
uint64_t conc_scanned(void);

struct conc_stats {
    uint64_t cycles, given_up; /* marked beside the program; those of them that came to a mark in the stop after all */
    uint64_t written_pages;    /* found, by all of them; those that were left to the stop */
    uint64_t left_pages, rounds;
    uint64_t stop_stack_bytes; /* of stacks, scanned in second stops */
    uint64_t mends, mended;    /* [MEND]: asked for, and made huge pages */
};
void conc_stats(struct conc_stats *out);

void conc_start(void);
void conc_after_fork_child(void); /* gives up what is under way */

#endif
