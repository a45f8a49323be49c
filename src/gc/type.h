/* Shapes: the layouts of objects, each once. */
#ifndef WEFT_GC_TYPE_H
#define WEFT_GC_TYPE_H

#include "gc/central.h"
#include "gc/heap.h"

#define SHAPES_MAX (1u << 17) /* mark.c packs a shape into 17 bits */

/* fixed once made */
struct shape {
    uint32_t words;  /* of an element: the layout repeats */
    uint32_t nptrs;
    uint32_t *ptrs;  /* word offsets of the pointers, rising; NULL for the two basic shapes */
    bool carded;     /* what is stored into its objects is told: [CARDS] */
    struct central central[GC_CLASSES]; /* [0]: large objects */
};

struct weft_type {
    size_t size; /* of an element */
    uint32_t shape;
    uint32_t hash;
    struct weft_type *next; /* same bucket */
    uint32_t *ptrs;         /* as in the shape; kept for comparing */
    uint32_t nptrs;
    bool carded;
    struct type_name *name; /* under the lock of type.c; grows in front */
};
/* As declared; equal layouts may have several. */
struct type_name { struct type_name *next; char s[]; };

extern struct shapes {
    W_PTR(struct shape) *at; /* SHAPES_MAX slots; rel when one is filled, acq in shape_get */
    w_u32 count;
} shapes;

/* Calls fn for each type of that shape that has a name, once for each name. Outside of a stop. */
void types_each_name(uint32_t shape, void (*fn)(void *arg, const char *name), void *arg);

int types_start(void);
void types_stop(void);
static inline struct shape *shape_get(uint32_t i) { return load_acq(&shapes.at[i]); } /* acq: rel in shape_add */

#endif
