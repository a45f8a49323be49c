/* Cards: which parts of carded spans were stored to, as weft_store says (weft/gc.h). A byte for each CARD_BYTES of the heap, in a table beside it;
 * only those of spans whose shape is carded mean anything. Why no store is missed: [CARDS] in cards.c.
 *
 *      a cycle begins     cards_clear of each carded span, then cards_settle once; then marking
 *      preclean           cards_close of each, cards_settle once, cards_take of each: what was stored to before the close is told,
 *                         or, when more was stored to it meanwhile, by the next one
 *      the final stop     cards_take_stw of each
 *
 * Each span is in one hand at a time. Where cards_concurrent says no, only the last line: what was stored to since the last cycle is told then. */
#ifndef WEFT_GC_CARDS_H
#define WEFT_GC_CARDS_H

#include "gc/heap.h"

#define CARD_BYTES ((size_t)1 << WEFT_CARD_SHIFT_)

int cards_start(void);                    /* reserves the table for heap.base and heap.reserved. 0, -ENOMEM */
void cards_stop(void);                    /* also when it has not started */
void cards_after_fork_child(void);
int cards_commit(size_t from, size_t to); /* the cards of bytes [from, to) of the heap become usable. 0, -ENOMEM */
size_t cards_bytes(size_t heap_bytes);    /* of the table, for so much of the heap */

bool cards_concurrent(void);              /* fixed after the start */
/* [lo, hi): whole pages of a carded span, in all of these. Inside the runtime. */
void cards_clear(uintptr_t lo, uintptr_t hi);
void cards_close(uintptr_t lo, uintptr_t hi);
void cards_settle(void);
/* Calls fn for each run of closed cards, which have been cleared before. fn may read, and may take others. */
typedef void cards_fn(void *arg, uintptr_t lo, uintptr_t hi);
void cards_take(uintptr_t lo, uintptr_t hi, cards_fn *fn, void *arg);
/* The same of closed and marked ones. */
void cards_take_stw(uintptr_t lo, uintptr_t hi, cards_fn *fn, void *arg);

#endif
