/* Stacks of what runs are exact, through code without frame pointers, and at any instruction. The truth is what the unwinder of exceptions says, which may be
 * asked here: no module comes or goes meanwhile. */
#include "test.h"
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include "base/rng.h"
#include "os/maps.h"
#include "prof/rules.h"
#include "prof/unwind.h"
#include "prof/walk.h"
#include "sched/sched.h"
#include "sched/stack.h"
#include "sched/switch.h"

#define NOINLINE __attribute__((noinline))
#define NO_TAIL_CALL() __asm__ volatile("")
#define FRAMES 200

/* ThreadSanitizer ends children that start threads, and maps memory of its own; both sanitizers ask the loader when a thread begins. */
#define NO_TSAN SIGNALS_AT_ONCE
#if defined(W_ASAN) || defined(W_TSAN)
#define NO_SANITIZER .disabled = true
#else
#define NO_SANITIZER .disabled = false
#endif

typedef void callback(void *);
static void (*nofp_top)(callback *fn, void *arg, unsigned n);

static void nofp_load(void)
{
    void *so = dlopen(TEST_MOD("nofp"), RTLD_NOW);
    cr_assert_not_null(so, "%s", dlerror());
    *(void **)&nofp_top = dlsym(so, "nofp_top");
    cr_assert_not_null(nofp_top);
}

/* Sanitizers put a frame of theirs in between. */
static int (*libc_backtrace)(void **pc, int n) = backtrace;

__attribute__((constructor)) static void find_backtrace(void)
{
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), *fn = libc != NULL ? dlsym(libc, "backtrace") : NULL;
    if (fn != NULL)
        *(void **)&libc_backtrace = fn;
}

static bool at_entry(uintptr_t pc) { return pc - (uintptr_t)weft_arch_entry < 32; }

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* The first that was wrong. No assertions in a handler: it is told afterwards. */
static struct wrong {
    bool is;
    const char *why;
    enum walk_where where;
    int n, ntruth;
    uintptr_t pc[FRAMES];
    void *truth[FRAMES];
} wrong;

static uintptr_t kernel_returns; /* to where handlers return: what comes next was interrupted, and a walk says so by one more */
static unsigned long samples, shorts, where_count[WALK_HANDLER + 1];

static void be_wrong(const char *why, enum walk_where where, const uintptr_t *pc, int n, void *const *truth, int ntruth)
{
    if (wrong.is)
        return;
    wrong.is = true;
    wrong.why = why;
    wrong.where = where;
    wrong.n = n;
    wrong.ntruth = ntruth;
    memcpy(wrong.pc, pc, (size_t)n * sizeof *pc);
    memcpy(wrong.truth, truth, (size_t)ntruth * sizeof *truth);
}

static void expect_right(void)
{
    if (!wrong.is)
        return;
    for (int i = 0; i < w_max(wrong.n, wrong.ntruth); i++) {
        uintptr_t a = i < wrong.n ? wrong.pc[i] : 0, b = i < wrong.ntruth ? (uintptr_t)wrong.truth[i] : 0;
        Dl_info x = { 0 }, y = { 0 };
        dladdr((void *)(a - 1), &x);
        dladdr((void *)(b - 1), &y);
        fprintf(stderr, "%2d  %#14lx %-28s %#14lx %s\n", i, a, x.dli_sname != NULL ? x.dli_sname : x.dli_fname, b,
                y.dli_sname != NULL ? y.dli_sname : y.dli_fname);
    }
    cr_assert_fail("%s, on stack %d; above: the walk, and the truth", wrong.why, wrong.where);
}

/* pc and truth begin with the same frame, of which the addresses may differ by one. truth goes on to where the thread or the fiber began. */
static void compare(enum walk_where where, const uintptr_t *pc, int n, void *const *truth, int ntruth)
{
    samples++;
    where_count[where]++;
    for (int i = 1; i < n; i++)
        if (i >= ntruth || pc[i] != (uintptr_t)truth[i] + ((uintptr_t)truth[i - 1] == kernel_returns)) {
            be_wrong("another frame", where, pc, n, truth, ntruth);
            return;
        }
    /* What is left out of a fiber's: its entry and the function that it calls. Of the scheduler's: what called it. On a thread that
     * begins or ends: all but the first. */
    bool to_entry = ntruth > 0 && at_entry((uintptr_t)truth[ntruth - 1]);
    int end = to_entry ? w_max(ntruth - 2, 1) : ntruth;
    if (where == WALK_SCHED || where == WALK_NOWHERE || n >= (int)WALK_MAX)
        return;
    if (n > end)
        be_wrong("frames behind the end", where, pc, n, truth, ntruth);
    if (n < end) {
        shorts++;
        be_wrong("short", where, pc, n, truth, ntruth);
    }
}

/* ---- from within ------------------------------------------------------------------------------------------------------ */

static NOINLINE void look(void *arg)
{
    uintptr_t pc[WALK_MAX];
    void *truth[FRAMES];
    struct m *m = rt_enter();
    int n = (int)walk_self(m, pc, WALK_MAX);
    rt_leave(m);
    int ntruth = libc_backtrace(truth, FRAMES);
    bool foreign = m->foreign;
    cr_assert_gt(n, 3);
    compare(foreign ? WALK_HOST : WALK_FIBER, pc, n, truth, ntruth);
    expect_right();
    *(int *)arg += 1;
}

static NOINLINE void deep(void *arg, int n)
{
    if (n == 0)
        nofp_top(look, arg, 4);
    else
        deep(arg, n - 1);
    NO_TAIL_CALL();
}

/* As a profile is begun by a fiber: it waits outside the runtime. The end of the runtime ends it. */
static void use(void)
{
    weft_blocking_begin();
    int err = walk_use();
    weft_blocking_end();
    cr_assert_eq(err, 0);
}

static void self_main(void *arg)
{
    use();
    for (unsigned n = 0; n < 20; n++)
        nofp_top(look, arg, n);
    deep(arg, 20);
    struct m *m = rt_enter();
    uintptr_t pc[8];
    cr_assert_eq(walk_self(m, pc, 1), 1u, "our caller");
    cr_assert_lt(pc[0] - (uintptr_t)self_main, 1000u);
    cr_assert_eq(walk_self(m, pc, 0), 0u);
    cr_assert_eq(walk_self(m, pc, 8), 1u, "the fiber's function is the last");
    rt_leave(m);
}

Test(walk_stack, self)
{
    nofp_load();
    int n = 0;
    test_run_each(self_main, &n);
    cr_assert_gt(n, 100);
    walk_unuse(); /* without effect */
}

/* What was walked before is only known again if something is kept for it. */
static NOINLINE void again(void *arg)
{
    uintptr_t pc[WALK_MAX], self[WALK_MAX];
    struct walk_memo *memo = *(struct walk_memo **)arg;
    struct m *m = rt_enter();
    void **mine = NULL;
    for (int i = 0; i < 3; i++) {
        memset(pc, 0, sizeof pc);
        uint32_t n = walk_again(m, memo, __builtin_frame_address(0), pc, WALK_MAX, &mine), nself = walk_self(m, self, WALK_MAX);
        cr_assert_gt(n, 2u, "%d: %u", i, n);
        cr_assert_eq(n + 1, nself, "%d: %u, %u", i, n, nself); /* which has our own frame */
        cr_assert_eq(memcmp(pc, self + 1, n * sizeof *pc), 0, "%d", i);
        cr_assert(mine == NULL || *mine == NULL);
    }
    for (int i = 0; i < 3 && mine != NULL; i++) {
        walk_again(m, memo, __builtin_frame_address(0), pc, WALK_MAX, &mine);
        cr_assert_not_null(mine);
        cr_assert_eq(*mine, i == 0 ? NULL : arg);
        *mine = arg;
    }
    rt_leave(m);
}

static void again_main(void *arg)
{
    use();
    for (unsigned n = 0; n < 20; n++) { /* stacks come again, too */
        memset(*(void **)arg, 0, walk_memo_bytes());
        nofp_top(again, arg, n);
    }
}

/* Under sanitizers the module's frames are found by registers that no rule has. */
Test(walk_stack, again, NO_SANITIZER)
{
    nofp_load();
    struct walk_memo *memo = malloc(walk_memo_bytes());
    test_run_each(again_main, &memo);
    free(memo);
}

static void on_host(void *arg)
{
    cr_assert_eq(walk_use(), 0);
    nofp_top(look, arg, 6);
    deep(arg, 3);
    walk_unuse();
}

Test(walk_stack, thread_of_the_host)
{
    nofp_load();
    int n = 0;
    weft_config cfg = WEFT_CONFIG_INIT;
    cr_assert_eq(weft_start(&cfg), 0);
    on_host(&n);
    cr_assert_eq(weft_stop(), 0);
    cr_assert_gt(n, 4);
}

/* ---- parked -------------------------------------------------------------------------------------------------------------- */

static weft_chan *gate;

static void wait_for_gate(void *arg)
{
    (void)arg;
    weft_chan_recv(gate, NULL);
}

static void parked_in(void *arg) { nofp_top(wait_for_gate, NULL, (unsigned)(uintptr_t)arg); }

struct find { uint64_t id; struct fiber *f; };

static void find_fiber(struct fiber *f, void *arg)
{
    struct find *w = arg;
    if (load_acq(&f->state) == FIBER_WAITING && f->id == w->id)
        w->f = f;
}

static void unused(struct maps_module *m) { (void)m; }

/* The truth is unwind.c's here. */
static void look_at_parked(uint64_t id)
{
    struct find w = { .id = id };
    test_until((stack_each(0, 1, find_fiber, &w), w.f != NULL));
    const struct maps *t = maps_begin(unused);
    struct unwind_from from;
    struct unwind_trace truth;
    uintptr_t pc[WALK_MAX];
    cr_assert_not_null(t);
    bool by_tables = unwind_load();
    struct m *m = rt_enter();
    cr_assert(fiber_pin(w.f));
    int n = (int)walk_parked(w.f, pc, WALK_MAX);
    unwind_from_frame(&from, w.f->sp, w.f->stack_hi);
    unwind_walk(t, true, &from, &truth);
    fiber_unpin(w.f);
    rt_leave(m);
    maps_end();
    cr_assert_gt(n, 6);
    void *as[FRAMES];
    for (uint32_t i = 0; i < truth.n; i++)
        as[i] = (void *)truth.pc[i];
    if (by_tables)
        compare(WALK_FIBER, pc, n, as, (int)truth.n);
    expect_right();
}

static void parked_main(void *arg)
{
    (void)arg;
    use();
    gate = weft_chan_make(0, 0);
    for (uintptr_t i = 0; i < 8; i++) {
        uint64_t id;
        weft_go_opts opts = WEFT_GO_OPTS_INIT;
        opts.id = &id;
        cr_assert_eq(weft_go_opts_run(parked_in, (void *)i, &opts), 0);
        look_at_parked(id);
    }
    weft_chan_close(gate);
}

Test(walk_stack, parked)
{
    nofp_load();
    test_run(parked_main, NULL);
    cr_assert_eq(samples, 8u);
}

/* ---- modules that come and go --------------------------------------------------------------------------------------------- */

static bool was_exact;

static NOINLINE void look_once(void *arg)
{
    uintptr_t pc[WALK_MAX];
    void *truth[FRAMES];
    (void)arg;
    struct m *m = rt_enter();
    int n = (int)walk_self(m, pc, WALK_MAX);
    rt_leave(m);
    int ntruth = libc_backtrace(truth, FRAMES);
    was_exact = n == ntruth - 2;
    for (int i = 1; i < n && was_exact; i++)
        was_exact = pc[i] == (uintptr_t)truth[i];
}

static void replaced_main(void *arg)
{
    static const char *const mod[] = { TEST_MOD("nofp"), TEST_MOD("nofp_other") };
    void *first = NULL;
    unsigned same = 0;
    use();
    for (unsigned i = 0; i < 20; i++) {
        void *so = dlopen(mod[i % 2], RTLD_NOW), *at = so != NULL ? dlsym(so, "nofp_leaf") : NULL;
        cr_assert_not_null(at, "%s", dlerror());
        *(void **)&nofp_top = dlsym(so, "nofp_top");
        same += i % 2 == 1 && (uintptr_t)at >> 12 == (uintptr_t)first >> 12;
        first = at;
        for (unsigned k = 0; k < 8; k++)
            test_until((nofp_top(look_once, NULL, k), was_exact));
        dlclose(so);
    }
    *(unsigned *)arg = same;
}

Test(walk_stack, another_module_at_the_same_address)
{
    unsigned same = 0;
    test_run(replaced_main, &same);
    if (!test_is_slow())
        cr_assert_gt(same, 0u);
}

/* ---- at every instruction --------------------------------------------------------------------------------------------------- */

static uintptr_t alone;        /* there is no truth; a stack is complete that ends in this function */
static unsigned long thrown, complete;
static volatile bool stepped; /* all of it: threads stop that go on stepping */

static w_no_sanitize void sampled(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    uintptr_t pc[WALK_MAX];
    void *truth[FRAMES];
    struct m *m = m_self();
    int err = errno;
    (void)sig, (void)info;
    kernel_returns = (uintptr_t)__builtin_return_address(0);
#if defined(__x86_64__)
    if (sig == SIGTRAP && (stepped || arch_uc_pc(uc) == (uintptr_t)pthread_create))
        uc->uc_mcontext.gregs[REG_EFL] &= ~0x100ll; /* where libc makes and ends threads, no signal is allowed */
#endif
    if (m == NULL)
        return;
    enum walk_where where = walk_where(m, uc);
    if (alone != 0) {
        int n = (int)walk_signal(m, uc, pc, WALK_MAX);
        thrown++;
        complete += n > 1 && pc[n - 1] - alone < 1000;
        return;
    }
    int n = (int)walk_signal(m, uc, pc, WALK_MAX), ntruth = libc_backtrace(truth, FRAMES), i = 0;
    while (i < ntruth && (uintptr_t)truth[i] != arch_uc_pc(uc))
        i++;
    if (i == ntruth)
        be_wrong("the truth does not come to the signal", where, pc, n, truth, ntruth);
    else
        compare(where, pc, n, truth + i, ntruth - i);
    errno = err;
}

static void handle(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
    struct sigaction sa = { 0 };
    sa.sa_sigaction = fn;
    sa.sa_flags = SA_SIGINFO | flags;
    cr_assert_eq(sigaction(sig, &sa, NULL), 0);
}

#if defined(__x86_64__)
/* A trap behind every instruction of this thread, from the next but one on. */
static inline void step_on(void) { __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp" : : : "cc", "memory"); }
static inline void step_off(void) { __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp" : : : "cc", "memory"); }

static void nothing(void *arg) { (void)arg; }

static void host_handler(int sig, siginfo_t *info, void *uc)
{
    (void)sig, (void)info, (void)uc;
    step_on(); /* the kernel has switched it off for the handler; what it returns to has it still */
    nofp_top(nothing, NULL, 5);
    step_off();
}

static weft_chan *there, *back;

static void partner(void *arg)
{
    int v;
    while (weft_chan_recv(there, &v) == 1)
        weft_chan_send(back, &v);
    *(bool *)arg = true;
}

static void child(void *arg) { ++*(int *)arg; }

/* All that switches: to the next fiber and to the scheduler, to a new fiber, to one that begins where another has ended. */
static void switches(bool *over)
{
    int v = 1, n = 0;
    there = weft_chan_make(sizeof v, 0);
    back = weft_chan_make(sizeof v, 0);
    cr_assert_eq(weft_go(partner, over), 0);
    for (int i = 0; i < 3; i++) {
        step_on(); /* a thread may have been made: see sampled */
        weft_chan_send(there, &v);
        weft_chan_recv(back, &v);
        weft_yield();
        weft_sleep(1000);
    }
    for (int i = 0; i < 4; i++)
        cr_assert_eq(weft_go(child, &n), 0);
    while (n < 4)
        weft_yield();
    weft_chan_close(there);
    while (!*over)
        weft_yield();
}

/* The thread may be one that has signals blocked. */
static void raise_here(int sig)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sig);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(sig);
}

static void step_main(void *arg)
{
    bool warm = false, over = false;
    int n = 0;
    void *truth[4];
    (void)arg;
    use();
    cr_assert_eq(weft_go(child, &n), 0); /* so that there is an arena of stacks: AddressSanitizer marks its memory, of which each instruction is some bytes */
    while (n == 0)
        weft_yield();
    libc_backtrace(truth, 4); /* loads what it needs */
    handle(SIGTRAP, sampled, SA_ONSTACK);
    handle(SIGUSR1, host_handler, 0);
    handle(SIGUSR2, host_handler, SA_ONSTACK);
    nofp_top(nothing, NULL, 5);
    switches(&warm);
    step_off(); /* this was to have the loader bind all functions */
    raise_here(SIGUSR1);
    raise_here(SIGUSR2);
    wrong.is = false;
    memset(where_count, 0, sizeof where_count);
    samples = 0;
    step_on();
    nofp_top(nothing, NULL, 5);
    raise_here(SIGUSR1);
    raise_here(SIGUSR2);
    switches(&over);
    stepped = true;
    step_off();
}

Test(walk_stack, every_instruction, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    nofp_load();
    test_run_procs(1, step_main, NULL);
    printf("%lu samples, of which %lu on fibers, %lu in the scheduler, %lu on the alternate stack, %lu nowhere\n", samples, where_count[WALK_FIBER],
           where_count[WALK_SCHED], where_count[WALK_HANDLER], where_count[WALK_NOWHERE]);
    expect_right();
    cr_assert_gt(where_count[WALK_FIBER], 10000u);
    cr_assert_gt(where_count[WALK_SCHED], 100u);
    cr_assert_gt(where_count[WALK_HANDLER], 1000u);
    cr_assert_leq(where_count[WALK_NOWHERE], 50u, "a thread that begins or ends");
}

/* A walk is interrupted by walks, at each of its instructions; so is backtrace(3), and a throw. (gperftools 1188, 1583) */
static void nested_main(void *arg);

static void nested(void *arg)
{
    uintptr_t pc[WALK_MAX];
    void *truth[FRAMES];
    int (*mod_throw)(int) = arg;
    struct m *m = rt_enter();
    uint32_t n = 0;
    for (int cold = 0; cold < 2; cold++) {
        step_on();
        n = walk_self(m, pc, WALK_MAX);
        step_off();
    }
    rt_leave(m);
    cr_assert_gt(n, 5u);
    step_on();
    int ntruth = libc_backtrace(truth, FRAMES);
    step_off();
    cr_assert_gt(ntruth, (int)n);
    alone = (uintptr_t)nested_main; /* the unwinder faults when it is asked where it puts frames aside */
    step_on();
    int cleaned = mod_throw(2);
    step_off();
    alone = 0;
    cr_assert_eq(cleaned, 3);
}

static void nested_main(void *arg)
{
    void *truth[4];
    use();
    libc_backtrace(truth, 4);
    ((int (*)(int))arg)(3);
    handle(SIGTRAP, sampled, SA_ONSTACK);
    nofp_top(nested, arg, 3);
    stepped = true;
}

Test(walk_stack, interrupted_by_itself_and_in_a_throw, SIGNALS_AT_ONCE)
{
    test_needs_a_kernel();
    test_may_take(300);
    nofp_load();
    void *so = dlopen(TEST_MOD("throws"), RTLD_NOW);
    cr_assert_not_null(so, "%s", dlerror());
    test_run_procs(1, nested_main, dlsym(so, "mod_throw"));
    expect_right();
    printf("%lu samples, %lu in throws, of which %lu complete\n", samples, thrown, complete);
    cr_assert_gt(samples, 5000u);
    cr_assert_gt(thrown, 5000u);
    cr_assert_gt(complete * 1000, thrown * 998);
}
#endif

/* Somebody has the loader's lock, and is interrupted; and others walk meanwhile, new code among what they meet. (gperftools 775, 1210, 1583) */
static volatile bool held, let_go;
static volatile int looked;

static int hold(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)info, (void)size;
    held = true;
    raise(SIGPROF);
    while (!let_go)
        *(volatile unsigned *)arg += 1;
    raise(SIGPROF);
    return 1;
}

static void holder(void *arg)
{
    unsigned spins = 0;
    (void)arg;
    dl_iterate_phdr(hold, &spins);
}

static void on_prof(int sig, siginfo_t *info, void *uc)
{
    uintptr_t pc[WALK_MAX];
    struct m *m = m_self();
    (void)sig, (void)info;
    if (m != NULL && walk_signal(m, uc, pc, WALK_MAX) > 2)
        looked++;
}

static NOINLINE void prof_here(void *arg)
{
    (void)arg;
    raise(SIGPROF);
}

static void loader_main(void *arg)
{
    (void)arg;
    use();
    handle(SIGPROF, on_prof, SA_ONSTACK);
    cr_assert_eq(weft_go(holder, NULL), 0);
    test_until(held);
    for (unsigned i = 0; i < 20; i++)
        nofp_top(prof_here, NULL, i);
    int before = looked;
    let_go = true;
    test_until(looked > before);
}

Test(walk_stack, while_the_loaders_lock_is_held, NO_SANITIZER)
{
    nofp_load();
    test_run_procs(2, loader_main, NULL);
    cr_assert_gt(looked, 20);
}

/* ---- what is broken ------------------------------------------------------------------------------------------------------------ */

/* Registers that fit to nothing, in code of all kinds: walks are short or wrong, but read nothing that is not the stack's. */
static void broken_main(void *arg)
{
    struct rng r = { 0 };
    struct m *m = rt_enter();
    uintptr_t lo = (uintptr_t)m->cur->stack_lo, hi = (uintptr_t)m->cur->stack_hi;
    rt_leave(m);
    use();
    rng_seed(&r, test_seed());
    struct rules_modules *t = rules_modules_new();
    cr_assert_not_null(t);
    memset(__builtin_frame_address(0) - 8192, 0x5a, 4096); /* of dead frames: no addresses at all */
    for (int i = 0; i < 300000; i++) {
        ucontext_t uc;
        uintptr_t pc[WALK_MAX];
        uint64_t x = rng_next(&r);
        const struct rules_module *mod = &t->mod[x % t->n];
        uintptr_t at = mod->code_lo + (x >> 16) % (mod->code_hi - mod->code_lo + 1);
        uintptr_t sp = x & 256 ? lo + (x >> 20) % (hi - lo) : x & 512 ? hi - (x >> 20) % 200 : lo + (x >> 20) % 200;
        uintptr_t fp = x & 1024 ? x >> 8 : x & 2048 ? sp + (x >> 50) : x & 4096 ? hi - (x >> 54) : lo + (x >> 54) - 512;
        memset(&uc, 0, sizeof uc);
#if defined(__x86_64__)
        uc.uc_mcontext.gregs[REG_RSP] = (greg_t)(x & 8192 ? sp & ~7ul : sp);
        uc.uc_mcontext.gregs[REG_RBP] = (greg_t)(x & 8192 ? fp & ~7ul : fp);
        uc.uc_mcontext.gregs[REG_RIP] = (greg_t)(x & 0x4000 ? at : x >> 16);
#else
        uc.uc_mcontext.sp = x & 8192 ? sp & ~7ul : sp;
        uc.uc_mcontext.regs[29] = x & 8192 ? fp & ~7ul : fp;
        uc.uc_mcontext.regs[30] = at;
        uc.uc_mcontext.pc = x & 0x4000 ? at : x >> 16;
#endif
        uint32_t n = walk_signal(m_self(), &uc, pc, WALK_MAX);
        cr_assert(n >= 1 && n <= WALK_MAX);
        for (uint32_t k = 0; k < n; k++)
            cr_assert_geq(pc[k], 4096u);
        *(unsigned *)arg += n > 1;
    }
    rules_modules_free(t);
}

Test(walk_stack, broken)
{
    unsigned some = 0;
    nofp_load();
    test_run_procs(1, broken_main, &some);
    cr_assert_gt(some, 1000u);
}

/* ---- children -------------------------------------------------------------------------------------------------------------------- */

static void forked_main(void *arg)
{
    use();
    nofp_top(look, arg, 3);
    pid_t pid = fork();
    if (pid == 0) {
        cr_assert_eq(test_threads(), 1);
        walk_unuse(); /* as a profile does that has ended with the fork */
        use();
        nofp_top(look, arg, 3);
        weft_blocking_begin();
        walk_unuse();
        weft_blocking_end();
        use();
        nofp_top(look, arg, 2);
        _exit(wrong.is);
    }
    int status = 1;
    weft_blocking_begin();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    weft_blocking_end();
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
    nofp_top(look, arg, 3);
}

Test(walk_stack, in_the_child_of_a_fork, CHILD_GOES_ON)
{
    nofp_load();
    int n = 0;
    test_run(forked_main, &n);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------------- */

static void use_often(void *arg)
{
    (void)arg;
    int maps = 0;
    for (int i = 0; i < 40; i++) {
        if (i == 10)
            maps = test_maps();
        use();
        use();
        weft_blocking_begin();
        walk_unuse();
        weft_blocking_end();
        int n = 0;
        nofp_top(look, &n, 3);
        weft_blocking_begin();
        walk_unuse();
        weft_blocking_end();
    }
    cr_assert_leq(test_maps(), maps + 2);
}

Test(walk_stack, nothing_stays, NO_TSAN)
{
    nofp_load();
    test_run(use_often, NULL); /* what is there from the first time on */
    int threads = test_threads();
    test_run(use_often, NULL);
    test_until(test_threads() <= threads);
}
