/* A host for the collector without fibers: one thread with a heap, which is the world, and helpers for parallel marking. For tests of
 * gc alone: #include it once per program. */
#ifndef WEFT_GC_HOST_H
#define WEFT_GC_HOST_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/offheap.h"
#include "gc/gc.h"
#include "gc/heap.h"
#include "os/clock.h"
#include "os/loader.h"
#include "test.h"

static struct {
    struct gc_cache cache;
    unsigned procs;
    const char *stack_base, *stack_top; /* base: set by host_start's caller frame; top: in a stop */
    int64_t stop_ns, stopped_ns;
    int stops, calls_ready[GC_CALLS];
    char last_log[400];
    void (*in_stop)(void);
} th = { .procs = 1 };

static void th_stop(int reason)
{
    (void)reason;
    th.stops++;
    th.stop_ns = os_now_ns();
    if (th.in_stop != NULL)
        th.in_stop();
}
static int64_t th_start(void)
{
    int64_t ns = os_now_ns() - th.stop_ns;
    th.stopped_ns += ns;
    return ns;
}

static uintptr_t th_tp(void)
{
#if defined(__x86_64__)
    uintptr_t tp;
    __asm__("movq %%fs:0, %0" : "=r"(tp));
    return tp;
#else
    uintptr_t tp;
    __asm__("mrs %0, tpidr_el0" : "=r"(tp));
    return tp;
#endif
}

static uintptr_t th_main_tp;
struct th_tls { gc_scan_range_fn *scan; void *marker; };
static void th_tls_range(void *arg, const void *lo, const void *hi)
{
    struct th_tls *t = arg;
    t->scan(t->marker, lo, hi);
}

static void th_scan(unsigned worker, unsigned n, gc_scan_range_fn *scan, void *marker)
{
    (void)n;
    if (worker != 0)
        return;
    scan(marker, th.stack_top, th.stack_base);
    struct th_tls t = { scan, marker };
    loader_tls(th_main_tp, th_tls_range, &t);
}

struct th_work { void (*fn)(void *, unsigned, unsigned); void *arg; unsigned i, n; };
static void *th_helper(void *arg)
{
    struct th_work *w = arg;
    w->fn(w->arg, w->i, w->n);
    return NULL;
}
static void th_parallel(unsigned want, void (*fn)(void *, unsigned, unsigned), void *arg)
{
    pthread_t t[64];
    struct th_work w[64];
    for (unsigned i = 1; i < want; i++) {
        w[i] = (struct th_work){ fn, arg, i, want };
        cr_assert(pthread_create(&t[i], NULL, th_helper, &w[i]) == 0);
    }
    fn(arg, 0, want);
    for (unsigned i = 1; i < want; i++)
        pthread_join(t[i], NULL);
}
static unsigned th_procs(void) { return th.procs; }
static void th_calls(enum gc_call_kind kind) { th.calls_ready[kind]++; }
static void th_sweep(void) { }
static void th_log(const char *line)
{
    strncpy(th.last_log, line, sizeof th.last_log - 1);
    if (getenv("GCTRACE"))
        fprintf(stderr, "%s\n", line);
}

static const struct gc_host th_host = {
    .stop_world = th_stop, .start_world = th_start, .scan_stacks = th_scan, .parallel = th_parallel, .procs = th_procs,
    .calls_ready = th_calls, .sweep_ready = th_sweep, .log = th_log,
};

static struct gc_settings th_settings(void)
{
    return (struct gc_settings){ .gc_percent = 100, .memory_limit = INT64_MAX, .trace = true };
}

/* base: of a frame above which nothing is held. */
static void th_begin(struct gc_settings set, void *base)
{
    th.stack_base = (const char *)base + 1024; /* on aarch64 the address of a frame is its lower end */
    th_main_tp = th_tp();
    cr_assert(off_init() == 0);
    cr_assert(gc_start(&th_host, &set) == 0);
    cr_assert(gc_cache_init(&th.cache) == 0);
}

static void th_end(void)
{
    gc_cache_fini(&th.cache);
    gc_stop_all();
}

/* Registers go to the frame, and the stack is scanned from there. */
static __attribute__((noinline, unused)) void th_collect(enum gc_why why)
{
    jmp_buf regs;
    memset(&regs, 0, sizeof regs); /* setjmp leaves a part as it was, and what was there is scanned */
    __builtin_unwind_init();
    (void)setjmp(regs);
    th.stack_top = (const char *)w_min((uintptr_t)__builtin_frame_address(0), (uintptr_t)&regs);
    gc_collect(why);
    __asm__ volatile("" : : "r"(regs) : "memory");
}

static inline __attribute__((unused)) void *th_alloc(size_t bytes, unsigned shape)
{
    void *p = gc_alloc_fast(&th.cache, bytes, shape);
    if (__builtin_expect(p == NULL, 0)) {
        bool want = false;
        p = gc_alloc_slow(&th.cache, bytes, shape, &want);
        if (want) {
            void *volatile keep = p;
            th_collect(heap.stress ? GC_WHY_STRESS : GC_WHY_HEAP);
            p = keep;
        }
    }
    return p;
}

static inline __attribute__((unused)) void *th_typed(const weft_type *t, size_t n)
{
    bool want = false;
    void *volatile p = gc_alloc_typed(&th.cache, t, n, &want);
    if (want)
        th_collect(heap.stress ? GC_WHY_STRESS : GC_WHY_HEAP);
    return p;
}

/* Runs fn deeper in the stack, so that what it leaves there can be wiped. */
static __attribute__((noinline, unused)) void th_away(void (*fn)(void))
{
    char pad[4096];
    __asm__ volatile("" : : "r"(pad) : "memory");
    fn();
    __asm__ volatile("" : : "r"(pad) : "memory");
}

#endif
