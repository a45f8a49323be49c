/* trace_event [threads] [events] - what does it cost to tell the trace of something?
 *
 * Each thread emits for itself; another one ends generations when they are due, and a reader counts bytes. Counted: enter, look at the clock, one
 * event, leave (ns_per_op); the two events of a switch between fibers in one enter (switch_ns); the same with a stack of ten addresses, already known
 * (stack_ns). bytes: of the trace, per event. Built with the library's inside, as nothing is hooked to the scheduler here. */
#include "bench.h"
#include <pthread.h>
#include "base/offheap.h"
#include "trace/stream.h"

static long events;
static int threads;
static w_u32 done;
static uint64_t bytes;

static int count(void *ctx, const void *data, size_t n)
{
    (void)ctx;
    bench_use(data);
    bytes += n;
    return 0;
}

static void *pump(void *r)
{
    trace_reader_pump(r);
    return NULL;
}

static void *driver(void *arg)
{
    (void)arg;
    while (load_acq(&done) == 0)
        if (trace_wait_due(1000000)) {
            trace_switch(false);
            trace_finish(NULL);
        }
    return NULL;
}

static void alone(struct trace_emitter *e)
{
    for (long i = 0; i < events; i++)
        if (trace_enter(e)) {
            trace_event(e, HEAP_ALLOC, (uint64_t)i & 0xffff);
            trace_leave(e);
        }
}

static void fiber_switch(struct trace_emitter *e)
{
    for (long i = 0; i < events; i += 2)
        if (trace_enter(e)) {
            trace_event(e, GO_BLOCK, 1, 0);
            trace_event(e, GO_START, 1000 + ((uint64_t)i & 1023), (uint64_t)i & 1023);
            trace_leave(e);
        }
}

static void with_stack(struct trace_emitter *e)
{
    uintptr_t pcs[10];
    for (uintptr_t i = 0; i < 10; i++)
        pcs[i] = 0x555555550000 + i * 1234;
    for (long i = 0; i < events; i += 2)
        if (trace_enter(e)) {
            pcs[0] = 0x555555550000 + ((uintptr_t)i & 62);
            trace_event(e, GO_BLOCK, 1, trace_stack(e, pcs, 10));
            trace_event(e, GO_START, 1000 + ((uint64_t)i & 1023), (uint64_t)i & 1023);
            trace_leave(e);
        }
}

static void (*const kinds[])(struct trace_emitter *) = { alone, fiber_switch, with_stack };
static void (*kind)(struct trace_emitter *);

static void *thread(void *arg)
{
    struct trace_emitter *e = trace_emitter_get((uint64_t)(uintptr_t)arg + 1, false);
    kind(e);
    trace_emitter_put(e);
    return NULL;
}

static bench_span run(int k)
{
    pthread_t t[64];
    kind = kinds[k];
    bench_span s = bench_begin();
    for (int i = 0; i < threads; i++)
        pthread_create(&t[i], NULL, thread, (void *)(uintptr_t)i);
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    return bench_end(s);
}

int main(int argc, char **argv)
{
    pthread_t d, p;
    struct trace_reader *r;
    threads = (int)bench_arg(argc, argv, 1, 1);
    events = bench_arg(argc, argv, 2, 10000000);
    if (threads > 64 || off_init() != 0 || trace_open(NULL) != 0 || trace_reader_open(count, NULL, &r) != 0)
        return 1;
    trace_begin();
    pthread_create(&d, NULL, driver, NULL);
    pthread_create(&p, NULL, pump, r);
    bench_span s[3];
    run(0);
    for (int k = 0; k < 3; k++)
        s[k] = run(k);
    store_rel(&done, 1);
    pthread_join(d, NULL);
    trace_switch(true);
    trace_finish(NULL);
    trace_reader_close(r);
    pthread_join(p, NULL);
    struct trace_reader_stats st = trace_reader_stats(r);
    double n = (double)events * threads;
    bench_open("trace_event", "weft");
    bench_num("ns_per_op", (double)s[0].wall_ns * threads / n);
    bench_num("cpu_ns_per_op", (double)s[0].cpu_ns / n);
    bench_num("switch_ns", (double)s[1].wall_ns * threads / (n / 2));
    bench_num("stack_ns", (double)s[2].wall_ns * threads / (n / 2));
    bench_num("bytes", (double)bytes / ((double)st.generations / (double)(st.generations + st.dropped)) / (4 * n));
    bench_num("generations", (double)st.generations);
    bench_num("dropped", (double)st.dropped);
    bench_close();
    trace_reader_free(r);
    trace_close();
    return 0;
}
