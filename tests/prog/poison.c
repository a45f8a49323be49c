/* Writes into an object after it was freed; gcpoison is to say so. argv[1]: bytes of the object. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

static uintptr_t hidden[1000];
static size_t bytes;

static __attribute__((noinline)) void make(void)
{
    for (int i = 0; i < 1000; i++)
        hidden[i] = ~(uintptr_t)weft_alloc(bytes);
}

static __attribute__((noinline)) void wipe(void)
{
    volatile char junk[16384];
    memset((char *)junk, 0, sizeof junk);
}

static void program(void *arg)
{
    (void)arg;
    make();
    wipe();
    weft_gc();
    for (int i = 300; i < 400; i++) /* many: some are used again soon */
        memcpy((char *)~hidden[i] + bytes / 2, "oops", 4);
    puts("written");
    fflush(stdout);
    for (int i = 0; i < 100000; i++)
        weft_alloc(bytes);
    puts("not noticed");
}

int main(int argc, char **argv)
{
    bytes = argc > 1 ? (size_t)atol(argv[1]) : 64;
    return weft_run(program, NULL, NULL);
}
