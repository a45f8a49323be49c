/* walk [rounds] - how long does it take to say where a fiber is?
 *
 * Through code without frame pointers, as compilers make it by default. Counted: each further frame of a walk whose rules are known (ns_per_op), a walk of
 * ten frames (ten_ns), what is paid once for each place (miss_ns: in the program, miss_other_ns: in modules that could be unloaded), the stack of a parked
 * fiber (parked_ns). Beside it, each further frame, once they know the way, by libunwind's unw_backtrace (libunwind_ns) and by glibc's backtrace
 * (backtrace_ns). Built with the library's inside, where walks are. */
#include "bench.h"
#include "bench_weft.h"
#include <dlfcn.h>
#include <execinfo.h>
#include "prof/rules.h"
#include "prof/walk.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/switch.h"

#define NEAR 10
#define FAR 60
#define PARKED 10000

static long rounds;
static int (*libunwind)(void **, int);
static void (*way)(void);
static double took_ns;

static void by_walk(void)
{
    uintptr_t pc[WALK_MAX];
    struct m *m = m_self();
    bench_use(walk_self(m, pc, WALK_MAX) + pc);
}

static void by_libunwind(void)
{
    void *pc[WALK_MAX];
    bench_use(libunwind(pc, WALK_MAX) + pc);
}

static void by_backtrace(void)
{
    void *pc[WALK_MAX];
    bench_use(backtrace(pc, WALK_MAX) + pc);
}

static void measure(void)
{
    for (int i = 0; i < 100; i++)
        way();
    bench_span s = bench_begin();
    for (long i = 0; i < rounds; i++)
        way();
    took_ns = (double)bench_end(s).wall_ns / (double)rounds;
}

__attribute__((noinline)) static void left(int depth);
__attribute__((noinline)) static void right(int depth)
{
    volatile int keep = depth;
    if (depth > 0)
        left(depth - 1);
    else
        measure();
    keep++;
}

static void left(int depth)
{
    volatile char room[48];
    room[0] = (char)depth;
    if (depth > 0)
        right(depth - 1);
    else
        measure();
    room[1]++;
}

static double at_depth(void (*fn)(void), int depth)
{
    way = fn;
    left(depth);
    return took_ns;
}

static double per_frame(void (*fn)(void))
{
    double near = at_depth(fn, NEAR);
    return (at_depth(fn, FAR) - near) / (FAR - NEAR);
}

static double miss_ns(const struct rules_modules *t, bool stays)
{
    uint64_t n = 0, sum = 0;
    bench_span s = bench_begin();
    for (uint32_t i = 0; i < t->n; i++)
        for (uintptr_t pc = t->mod[i].code_lo; t->mod[i].stays == stays && pc < t->mod[i].code_hi && n < 20000; pc += 509)
            sum += rules_at(t, pc), n++;
    double ns = (double)bench_end(s).wall_ns / (double)n;
    bench_use((void *)(uintptr_t)sum);
    return ns;
}

static weft_chan *gate;
static void wait_for_gate(void *arg) { weft_chan_recv(arg, NULL); }

struct parked { uint64_t n; };

static void look(struct fiber *f, void *arg)
{
    struct parked *p = arg;
    uintptr_t pc[WALK_MAX];
    if (load_rlx(&f->state) == FIBER_WAITING)
        p->n += walk_parked(f, pc, WALK_MAX) != 0;
}

static void run(void *arg)
{
    (void)arg;
    weft_blocking_begin();
    int err = walk_use();
    weft_blocking_end();
    if (err != 0)
        exit(1);
    void *so = dlopen("libunwind.so.8", RTLD_NOW);
    *(void **)&libunwind = so != NULL ? dlsym(so, "unw_backtrace") : NULL;
    double walk = per_frame(by_walk), ten = at_depth(by_walk, 9);
    rounds = rounds / 20 + 1;
    double other = libunwind != NULL ? per_frame(by_libunwind) : 0, glibc = per_frame(by_backtrace);
    struct rules_modules *t = rules_modules_new();
    double own = miss_ns(t, true), others = miss_ns(t, false);
    gate = weft_chan_make(0, 0);
    for (int i = 0; i < PARKED; i++)
        weft_go(wait_for_gate, gate);
    weft_sleep(100 * WEFT_MILLISECOND);
    struct parked p = { 0 };
    struct m *m = rt_enter(); /* nothing else runs: no fiber has to be pinned */
    bench_span s = bench_begin();
    stack_each(0, 1, look, &p);
    double parked = (double)bench_end(s).wall_ns / (double)p.n;
    rt_leave(m);
    weft_chan_close(gate);
    printf("{\"bench\":\"walk\",\"impl\":\"weft\",\"ns_per_op\":%.2f,\"ten_ns\":%.1f,\"miss_ns\":%.0f,\"miss_other_ns\":%.0f,\"parked_ns\":%.0f,"
           "\"libunwind_ns\":%.1f,\"backtrace_ns\":%.1f}\n", walk, ten, own, others, parked, other, glibc);
    rules_modules_free(t);
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? atol(argv[1]) : 200000;
    return weft_run(run, NULL, NULL) != 0;
}
