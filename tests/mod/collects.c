/* A module whose constructor and destructor use the heap, by functions that MOD_COLLECTS gives the address of. */
#include <stdint.h>
#include <stdlib.h>

static struct { void *(*alloc)(size_t); void (*gc)(void); } *heap;

uint64_t *mod_made_when_loaded[64];

__attribute__((constructor)) static void at_load(void)
{
    heap = (void *)strtoul(getenv("MOD_COLLECTS"), NULL, 0);
    for (uint64_t i = 0; i < 64; i++)
        *(mod_made_when_loaded[i] = heap->alloc(48)) = i;
    heap->gc();
}

__attribute__((destructor)) static void at_unload(void)
{
    heap->alloc(48);
    heap->gc();
}
