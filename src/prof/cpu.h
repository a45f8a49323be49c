/* The CPU profile. See cpu.c. The public calls are in weft/prof.h. */
#ifndef WEFT_PROF_CPU_H
#define WEFT_PROF_CPU_H

#include "base/atomic.h"
#include "base/base.h"
#include <ucontext.h>

/* One sample, as others get it besides the profile: a trace, say. */
struct cpu_sample {
    int64_t time_ns;      /* os_now_ns() when it was taken */
    uint64_t fiber;       /* 0: none */
    uint32_t machine;     /* id; 0: a thread without one */
    int32_t proc;         /* the processor that it had; -1: none */
    uint32_t weight;      /* how many ticks it stands for */
    uint32_t n;
    const uintptr_t *pc;  /* as pprof_add wants them */
};
typedef void cpu_sample_fn(void *arg, const struct cpu_sample *s);

/* Every sample of a profile that runs, some 100 ms after it was taken, on a helper (helper.h). One listener; NULL: none. After the call the one before
 * is not entered again; outside the runtime. */
void cpu_sample_listen(cpu_sample_fn *fn, void *arg);
/* Those that were taken so far have been given to it when this returns, if a profile runs; or so much time has passed. Any thread that may wait. */
void cpu_samples_now(int64_t patience_ns);

struct m;

/* Runs fn(m, uc, arg) in a handler on m's own thread, whatever that is doing, and waits for it. From a helper, one at a time, after cpu_ask_begin, which
 * is for user code (0 or an error), and until the runtime ends. 0; -EAGAIN: it did not answer in time; fn is not called any more. */
int cpu_ask_begin(void);
int cpu_ask(struct m *m, void (*fn)(struct m *m, const ucontext_t *uc, void *arg), void *arg);

#endif
