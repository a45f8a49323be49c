/* Frames of all shapes, compiled without frame pointers (see the Makefile): a stack that only unwind tables tell. */
#include <alloca.h>
#include <stdlib.h>
#include <string.h>

#ifdef NOFP_OTHER
#define BIG 5000
#define MORE() do { char room_[200]; room_[0] = (char)n; USE(room_); } while (0)
#else
#define BIG 9000
#define MORE() ((void)0)
#endif

#define FRAME __attribute__((noinline))
#define NO_TAIL_CALL() __asm__ volatile("")
#define USE(p) __asm__ volatile("" : : "r"(p) : "memory")

typedef void callback(void *);

/* In the order in which they call one another. They are public, so calls between them go through the table of procedure linkage. */
void nofp_top(callback *fn, void *arg, unsigned n);
void nofp_alloca(callback *fn, void *arg, unsigned n);
void nofp_aligned(callback *fn, void *arg, unsigned n);
void nofp_big(callback *fn, void *arg, unsigned n);
void nofp_registers(callback *fn, void *arg, unsigned n);
void nofp_no_frame(callback *fn, void *arg, unsigned n);
int nofp_compare(const void *a, const void *b);
long nofp_leaf(long n);

long nofp_leaf(long n)
{
    volatile long x[8] = { n, 1, 2, 3, 4, 5, 6, 7 }; /* in the red zone */
    for (long i = 0; i < n % 16; i++)
        x[i % 8] += x[(i + 3) % 8] ^ n;
    return x[n & 7];
}

/* All registers that are kept over calls, the frame pointer among them, hold something else. */
FRAME void nofp_registers(callback *fn, void *arg, unsigned n)
{
    MORE();
    long a = nofp_leaf(n), b = nofp_leaf(a), c = nofp_leaf(b), d = nofp_leaf(c), e = nofp_leaf(d), f = nofp_leaf(e), g = nofp_leaf(f);
    for (unsigned i = 0; i < n % 3 + 1; i++) {
        a += nofp_leaf(b + i), b ^= nofp_leaf(c), c -= nofp_leaf(d), d += nofp_leaf(e), e ^= nofp_leaf(f), f += nofp_leaf(g), g -= nofp_leaf(a);
#if defined(__x86_64__)
        __asm__ volatile("movq %%rsp, %%rbp" : : : "rbp");
#endif
    }
    if (fn != NULL)
        fn(arg);
    long sum = a + b + c + d + e + f + g;
    USE(sum);
}

/* Called by itself: the frame pointer leads to what is no frame, and what would be a return address is another each time. */
FRAME void nofp_no_frame(callback *fn, void *arg, unsigned n)
{
    unsigned long data[2] = { 0, 1000000 + 64ul * n };
    USE(data);
#if defined(__x86_64__)
    __asm__ volatile("movq %0, %%rbp" : : "r"(data) : "rbp");
#endif
    fn(arg);
    USE(data);
}

FRAME void nofp_big(callback *fn, void *arg, unsigned n)
{
    char room[BIG];
    memset(room, (int)n, 64);
    USE(room);
    nofp_registers(fn, arg, n);
    USE(room);
}

FRAME void nofp_aligned(callback *fn, void *arg, unsigned n)
{
    MORE();
    char room[96] __attribute__((aligned(64)));
    USE(room);
    if (n % 2 == 0)
        nofp_big(fn, arg, n);
    else
        nofp_registers(fn, arg, n);
    USE(room);
}

/* Of a size that is not known before, so its end is told from a register. */
FRAME void nofp_alloca(callback *fn, void *arg, unsigned n)
{
    char *room = alloca(n % 500 + 16);
    room[0] = (char)n;
    USE(room);
    nofp_aligned(fn, arg, n + 1);
    USE(room);
    nofp_aligned(fn, arg, n);
    USE(room);
}

static callback *compare_fn;
static void *compare_arg;

int nofp_compare(const void *a, const void *b)
{
    int x = *(const int *)a - *(const int *)b;
    if (compare_fn != NULL)
        nofp_big(compare_fn, compare_arg, 2);
    return x;
}

/* Recursion, and a call by way of libc. */
FRAME void nofp_top(callback *fn, void *arg, unsigned n)
{
    if (n % 4 != 0) {
        nofp_top(fn, arg, n - 1);
        NO_TAIL_CALL();
        return;
    }
    int v[3] = { (int)n, 3, 1 };
    compare_fn = fn;
    compare_arg = arg;
    qsort(v, 3, sizeof v[0], nofp_compare);
    nofp_alloca(fn, arg, n);
    NO_TAIL_CALL();
}
