/* What is known of a sampled object, by the word that gc/sample.c keeps for it. See heap.c. */
#ifndef WEFT_PROF_HEAP_H
#define WEFT_PROF_HEAP_H

#include "os/maps.h"

/* The stack that allocated it: return addresses, innermost first, which stay as long as the runtime lives. Between maps_begin and maps_end. */
uint32_t heap_site(const struct maps *maps, uintptr_t word, const uintptr_t **pc);
uint64_t heap_site_bytes(uintptr_t word); /* of the object, by its class */
/* How many objects one that was sampled stands for, of that size. */
double heap_site_scale(uint64_t bytes);

#endif
