/* soak - a long random run against the collector.
 *
 * Some mutators, fibers that migrate, fibers locked to their thread and threads of the host, each have a graph of their own in the heap and a
 * shadow of it in malloc's memory: what each object must hold, word by word, and which roots there are. Addresses lie complemented in the shadow,
 * where the collector does not look anyway. A mutator changes both alike: it makes objects of all kinds, links them, moves the only pointer to
 * something from object to object and from root to root, by plain stores and by others, by the kernel (read and readv from a pipe), drops them, and
 * compares: each object that it walks over, and again and again all that the shadow can reach from its roots. A word that is not what the shadow says
 * ends the program, with all that can be said of it (soak_differs).
 *
 * What is dropped is known by the shadow's own search. Some of it is watched further: what a weak pointer still gives must be whole, with all it
 * leads to, and may be taken back; what a finalizer is given must have been dropped and be whole, and may be taken back too; a cleanup may only
 * run for what was dropped. In the end nearly all that was watched must be gone, so that a collector which keeps everything does not pass.
 *
 * Beside the graphs there are parcels (soak.c), small trees whose contents follow from a number, so that whoever gets one can check it: they travel
 * through channels between mutators, as arguments of fibers, and on stacks of fibers that wait, or wait for ever.
 *
 * Now and then a mutator forks; the child checks its graph, goes on for a while with collections of its own, checks again and ends.
 *
 * All that is drawn comes from the seed; what threads do to each other does not, so a seed gives the same mixture, not the same run. */
#ifndef WEFT_SOAK_H
#define WEFT_SOAK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>
#include "base/rng.h"

#define WORLDS 8     /* mutators */
#define ROOTS 40     /* each; kinds by turns */
#define WATCHED 512  /* weak pointers, each */

enum kind { TYPED, CONS, NOSCAN, LARGE, ARRAY, KINDS };
enum { FROZEN = 1, FINALIZER = 2, FINALIZED = 4, CLEANUP = 8, CLEANED = 16, LIVE = 32 };

struct edge { int32_t to; uint32_t off; }; /* to: an index, -1: NULL; off: the pointer is to that byte of it */

/* An object. Word 0 is its id, words that are no slots follow from that. */
struct node {
    uint64_t id;       /* 0: the index is free */
    uintptr_t hidden;  /* its address, complemented */
    struct edge *edge; /* a slot each */
    uint32_t words, slots;
    uint8_t kind, type, flags;
    int16_t weak;      /* index of its weak pointer; -1: none */
    uint32_t seen;     /* check that came to it last */
    uint32_t checked;  /* the same: its words were compared */
};

struct root { uint8_t kind, at; struct edge e; uint64_t name; };


struct world {
    unsigned number;
    const char *what;     /* runs it */
    bool locked;          /* has thread-local roots */
    bool child;           /* of a fork: other fibers are no more */
    struct rng rng;
    struct node *node;
    uint32_t nodes, cap, target, large;
    int32_t *free_index;  /* a stack */
    uint32_t nfree;
    int32_t *todo;        /* of the search */
    uint32_t serial, check;
    struct root root[ROOTS];
    void *volatile *stack;    /* roots in the mutator's own frame */
    void **range;             /* malloc's, and a root by weft_root_add: roots, then weak pointers */
    weft_weak **weak;
    int32_t watched[WATCHED]; /* whose weak pointer it is; -1: none */
    uint32_t nwatched, nfinalizers;
    int pipe[2];
    weft_fd *reader;          /* its end, too */
    uint64_t ops, compared, forks, dead, finalized, cleaned, revived;
};

extern const char *soak_run;    /* how it is run, for messages */
extern bool soak_bare_reads;    /* read(2) writes to objects, and not weft_read only */
extern int soak_over;           /* mutators are to end */

uint64_t soak_cycles(void);   /* begun so far */

#define GET(v) __atomic_load_n(&(v), __ATOMIC_ACQUIRE)
#define SET(v, to) __atomic_store_n(&(v), to, __ATOMIC_RELEASE)
#define ADD(v, n) __atomic_add_fetch(&(v), n, __ATOMIC_ACQ_REL)

/* Ends the program with a line: something else than an object is not as it should be. */
#define MUST(cond, ...) ((cond) ? (void)0 : soak_fails(#cond, __FILE__, __LINE__, ": " __VA_ARGS__))
_Noreturn void soak_fails(const char *cond, const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ---- node.c: objects ------------------------------------------------------------------------------------------------------------------ */

/* From here on an address as any other: the compiler could keep the complement for it. */
static inline void *node_at(const struct node *n)
{
    void *p = (void *)~n->hidden;
    __asm__ volatile("" : "+r"(p));
    return p;
}
void nodes_init(struct world *w, uint32_t target);
/* A new object of that kind, or of any; the caller stores the pointer where it stays. NULL: the shadow is full. */
void *node_new(struct world *w, enum kind kind, int32_t *index);
/* A copy, with the same pointers. NULL: it is too large, or the shadow is full. */
void *node_copy(struct world *w, int32_t of, int32_t *index);
/* Its memory holds what it should. */
void node_compare(struct world *w, int32_t i);
void node_store(struct world *w, int32_t i, uint32_t slot, struct edge e, void *to);
/* What the slot holds, compared; *e: the shadow's. */
void *node_load(struct world *w, int32_t i, uint32_t slot, struct edge *e);
void **node_slot(struct world *w, int32_t i, uint32_t slot);
void nodes_rotate(struct world *w, int32_t i); /* many slots at once, by memmove */
void node_forget(struct world *w, int32_t i);
_Noreturn void soak_differs(struct world *w, int32_t i, const char *what, size_t word, uint64_t is, uint64_t want);

/* ---- root.c: where graphs begin --------------------------------------------------------------------------------------------------------- */

void roots_init(struct world *w);
void roots_end(struct world *w);
bool root_can(struct world *w, const struct root *r);   /* be changed now */
void root_put(struct world *w, struct root *r, struct edge e, void *p); /* is empty */
void *root_take(struct world *w, struct root *r);       /* is then empty; NULL: it was */
void *root_look(struct world *w, struct root *r);       /* may move */
const char *root_kind(const struct root *r);
void roots_before_fork(struct world *w);

/* ---- check.c: all of a graph -------------------------------------------------------------------------------------------------------------- */

void checks_init(struct world *w);
void graph_check(struct world *w);
void node_watch(struct world *w, int32_t i);    /* by a weak pointer */
void node_finalize(struct world *w, int32_t i); /* when it is dropped */
void node_clean(struct world *w, int32_t i);
void wipe_stack(void); /* below the caller */
void graph_end(struct world *w); /* all is dropped */
/* When all have ended: how many objects were watched of those that lived until then, and how many of these are still there. */
void graphs_count(struct world *worlds, uint32_t *watched, uint32_t *left);

#endif
