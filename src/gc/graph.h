/* What can be read from a trail: the shortest ways from roots to objects, and who keeps how much. Numbers in, numbers out: anywhere where off-heap
 * memory may be taken. See graph.c. */
#ifndef WEFT_GC_GRAPH_H
#define WEFT_GC_GRAPH_H

#include "gc/trail.h"

#define GRAPH_ROOT ((uint32_t)1 << 31)

/* A walk, breadth first, from all roots of one kind after the other, in the order of enum gc_root_kind, and last those on the caller's own stack. So
 * what a way begins with is the first kind of root that leads to an object at all, and from those the way is a shortest one. By object: which one it
 * was reached from; GRAPH_ROOT and the number of a root; TRAIL_NONE: not. target: it ends when this one is reached, and no finalizer's object counts
 * as a root for itself; TRAIL_NONE: all. reached, which may be NULL: bytes by kind, of what none before it reaches; [GC_ROOT_KINDS] is the caller's
 * stack. To be freed as OFF_PROF. NULL: no memory. */
uint32_t *graph_ways(const struct trail *t, uint32_t target, uint64_t *reached);

/* Of each object, the one through which all ways from the roots to it lead, the last such, which dominates it: without that one it were not there.
 * n: there is none but the roots themselves; TRAIL_NONE: it is not reached at all. And what each keeps: the bytes and the number of all that it
 * dominates, itself included; [n]: all. An object's finalizer counts as a root of it only if nothing else leads there. Room for n + 1 in each. 0,
 * -ENOMEM, -E2BIG: more than GRAPH_MOST objects. */
#define GRAPH_MOST 32000000u /* at some 60 bytes for each while it is reckoned: two gigabytes */
struct graph_kept { uint64_t bytes; uint32_t objects; };
int graph_dominators(const struct trail *t, uint32_t *dom, struct graph_kept *kept);

#endif
