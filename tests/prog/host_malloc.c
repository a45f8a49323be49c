/* A host with a malloc of its own, which counts, and marks its blocks so that a foreign one passed to free() is noticed.
 * Runs weft hard, and says how often that malloc was called meanwhile. With HOST_JEMALLOC the host's malloc is a jemalloc (linked or
 * preloaded) instead, and its own statistics are looked at.
 * Exit 0: as it should be. */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>

#ifndef HOST_JEMALLOC

#define MARK UINT64_C(0x77656674686f7374)
void *__libc_malloc(size_t n);
void __libc_free(void *p);
static long calls;
static int started;

struct head { uint64_t mark, size; };

void *malloc(size_t n)
{
    struct head *h = __libc_malloc(n + sizeof *h);
    if (h == NULL)
        return NULL;
    *h = (struct head){ MARK, n };
    if (__atomic_load_n(&started, __ATOMIC_RELAXED))
        __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    return h + 1;
}

void free(void *p)
{
    struct head *h = (struct head *)p - 1;
    if (p == NULL)
        return;
    if (h->mark != MARK)
        abort(); /* a block of another malloc */
    h->mark = 0;
    __libc_free(h);
}

void *calloc(size_t n, size_t size)
{
    void *p = malloc(n * size);
    return p != NULL ? memset(p, 0, n * size) : NULL;
}

void *realloc(void *p, size_t n)
{
    void *q = malloc(n);
    if (p != NULL && q != NULL) {
        size_t old = ((struct head *)p - 1)->size;
        memcpy(q, p, old < n ? old : n);
        free(p);
    }
    return q;
}

void *memalign(size_t align, size_t n)
{
    return align <= 16 ? malloc(n) : NULL;
}

void *aligned_alloc(size_t align, size_t n)
{
    return memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    *out = memalign(align, n);
    return *out != NULL ? 0 : ENOMEM;
}

static int verdict(void)
{
    printf("host's malloc: %ld calls\n", calls);
    return calls <= 200 ? 0 : 1; /* what libc takes for threads; a weft that used it would show tens of thousands */
}

#else

static size_t allocated(void)
{
    int (*ctl)(const char *, void *, size_t *, void *, size_t) =
        (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
    if (ctl == NULL) {
        printf("the host's malloc is no jemalloc\n");
        exit(2);
    }
    uint64_t epoch = 1;
    size_t bytes = 0, len = sizeof epoch;
    ctl("epoch", &epoch, &len, &epoch, len);
    len = sizeof bytes;
    ctl("stats.allocated", &bytes, &len, NULL, 0);
    return bytes;
}
static int started;
static size_t before;

static int verdict(void)
{
    size_t after = allocated();
    printf("host's jemalloc: %zu bytes before, %zu after\n", before, after);
    return after < before + (1 << 20) ? 0 : 1;
}

#endif

enum { FIBERS = 20000 };
static void *blocks[FIBERS];
static weft_waitgroup wg;

static void work(void *arg)
{
    size_t i = (size_t)(uintptr_t)arg;
    char *p = (char *)weft_alloc(100);
    weft_yield();
    p[0] = 1;
    blocks[i] = p;
}

static void program(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < FIBERS; i++)
        if (weft_waitgroup_go(&wg, work, (void *)(uintptr_t)i) != 0)
            exit(3);
    weft_waitgroup_wait(&wg);
    for (int i = 0; i < 10; i++)
        weft_gc();
}

int main(void)
{
    char *own = malloc(1000);
    strcpy(own, "the host's");
#ifdef HOST_JEMALLOC
    before = allocated();
#endif
    started = 1;
    int err = weft_run(program, NULL, NULL);
    started = 0;
    if (err != 0 || strcmp(own, "the host's") != 0) {
        printf("weft_run: %s\n", weft_strerror(err));
        return 4;
    }
    free(own);
    return verdict();
}
