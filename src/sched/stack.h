/* Stacks of fibers: address space cut into slots, each ending in its fiber's descriptor. See the essay in stack.c. */
#ifndef WEFT_SCHED_STACK_H
#define WEFT_SCHED_STACK_H

#include "sched/sched.h"

#define STACK_MIN_LOG2 14
#define STACK_MAX_LOG2 30

int stack_start(void);
void stack_exclude(void);             /* its tables, half a megabyte, lead to no object: a mark need not read them. Before each gc_start */
void stack_end(void);                 /* unmaps all; nothing may run on them any more */
unsigned stack_log2(size_t bytes);    /* of the smallest slot of at least bytes; 0: out of range */

/* stack_get will be quick: no lock, no system call, no page fault. */
static inline bool stack_at_hand(const struct p *p, unsigned log2)
{
    const struct fiber *f = p == NULL ? NULL : likely(p->free_stacks != NULL) ? p->free_stacks : p->old_stacks;
    return f != NULL && f->stack_log2 == log2;
}

/* A slot's descriptor with stack_lo, stack_hi, stack_log2 and arena set, state FIBER_FREE or FIBER_DEAD; the rest is zero or as the last fiber
 * left it. NULL: no memory. p is the caller's, may be NULL. */
struct fiber *stack_get(struct p *p, unsigned log2);
/* Gives it back; the caller runs on another stack. */
void stack_put(struct p *p, struct fiber *f);
void stack_flush(struct p *p);        /* the processor's cache goes to the shared list */

/* Every descriptor that is bound, and free ones (look at state). They stay mapped, so it may be called at any time; who needs the stack itself
 * to stand still stops the world or pins. part of nparts: for several threads at once. */
void stack_each(unsigned part, unsigned nparts, void (*fn)(struct fiber *f, void *arg), void *arg);

/* Of the i-th arena, slots [from, to), but for those without memory. To stack_arenas. */
void stack_each_slot(uint32_t arena, uint32_t from, uint32_t to, void (*fn)(struct fiber *f, void *arg), void *arg);
uint32_t stack_arenas(void);
/* A bit for each slot of an arena, and a word, for who watches stacks (watch.c); all zero at first. */
struct stack_watch { w_u32 watched; w_u64 *seen; uint32_t nslots; };
struct stack_watch *stack_watch(uint32_t arena);

/* Where they lie: the i-th piece of address space, as far as it was ever used, in slots of 1 << log2 bytes. False: there are no more. At any time. */
struct stack_arena { uintptr_t lo, hi; unsigned log2; };
bool stack_arena(uint32_t i, struct stack_arena *out);
/* Of a slot, whose descriptor lies in memory: no fiber has it. A hint. */
bool stack_slot_free(const struct stack_arena *a, uintptr_t slot);
uintptr_t stack_descriptor(const struct stack_arena *a, uintptr_t slot); /* where it is */

/* The fiber whose slot holds addr; *guard tells whether it is in the guard. NULL: not a stack of ours. Async-signal-safe. */
struct fiber *stack_find(uintptr_t addr, bool *guard);

/* In the stop of each cycle: what was not taken from a processor's cache since the last one leaves it; or all, if that was asked for. */
void stack_caches_turn_stw(void);
void stack_caches_empty(void);        /* asks for it: by whom is inside, so the next stop knows of it */
void stack_release_free(void);        /* the memory of free stacks, but for those in caches, goes back to the system */
/* The same little by little, for stacks that were not needed for some time. due: after each cycle; true: there are some. some: releases a few;
 * 0: no more */
bool stack_release_due(void);
size_t stack_release_some(void);
/* Slots that hold memory, and those of them that no fiber has. Exact in a stop. */
void stack_count(uint64_t *slots, uint64_t *unused);
uint64_t stack_slots(void);

#endif
