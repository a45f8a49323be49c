/* Every kind of root, by the public calls, with fibers: what only it holds lives and is whole, and when it lets go the objects are gone. */
#include "heap_test.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/base.h"

/* ---- machine code: a pointer in one register and nowhere else ----------------------------------------------------------- */

/* Each takes ~p, puts p into the register, calls fn(arg) or spins until *stop, and returns p. */
typedef uintptr_t held_by_call(uintptr_t hidden, void (*fn)(void *), void *arg);
typedef uintptr_t held_in_spin(uintptr_t hidden, int *stop);

#if defined(__x86_64__)
#define HELD(reg)                                                                                                           \
    extern held_by_call held_##reg;                                                                                         \
    __asm__(".text\n.type held_" #reg ",@function\nheld_" #reg ":\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n" \
            " push %r15\n sub $8,%rsp\n notq %rdi\n movq %rdi,%" #reg "\n movq %rdx,%rdi\n xorl %edx,%edx\n call *%rsi\n"   \
            " movq %" #reg ",%rax\n add $8,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");
HELD(rbx) HELD(rbp) HELD(r12) HELD(r13) HELD(r14) HELD(r15)
static held_by_call *const by_call[] = { held_rbx, held_rbp, held_r12, held_r13, held_r14, held_r15 };
/* Keeps no register itself, and overwrites what weft_blocking_begin may have left below. */
__asm__(".text\nblocked_here: subq $8,%rsp\n call weft_blocking_begin\n subq $512,%rsp\n movq %rsp,%rdi\n movl $64,%ecx\n xorl %eax,%eax\n rep stosq\n"
        " call blocked_meanwhile\n addq $512,%rsp\n call weft_blocking_end\n addq $8,%rsp\n ret\n");
extern held_in_spin spin_rax, spin_r11, spin_xmm0, spin_xmm15, spin_red_zone, spin_ymm;
__asm__(".text\n"
        "spin_rax: movq %rdi,%rax\n notq %rax\n xorl %edi,%edi\n1: cmpl $0,(%rsi)\n je 1b\n ret\n"
        "spin_r11: movq %rdi,%r11\n notq %r11\n xorl %edi,%edi\n1: cmpl $0,(%rsi)\n je 1b\n movq %r11,%rax\n ret\n"
        "spin_xmm0: notq %rdi\n movq %rdi,%xmm0\n xorl %edi,%edi\n1: cmpl $0,(%rsi)\n je 1b\n movq %xmm0,%rax\n ret\n"
        /* in the upper half */
        "spin_xmm15: notq %rdi\n movq %rdi,%xmm15\n xorl %edi,%edi\n pslldq $8,%xmm15\n1: cmpl $0,(%rsi)\n je 1b\n"
        " psrldq $8,%xmm15\n movq %xmm15,%rax\n pxor %xmm15,%xmm15\n ret\n"
        "spin_red_zone: notq %rdi\n movq %rdi,-120(%rsp)\n xorl %edi,%edi\n1: cmpl $0,(%rsi)\n je 1b\n movq -120(%rsp),%rax\n ret\n"
        "spin_ymm: notq %rdi\n movq %rdi,%xmm1\n xorl %edi,%edi\n vxorps %ymm9,%ymm9,%ymm9\n vinsertf128 $1,%xmm1,%ymm9,%ymm9\n pxor %xmm1,%xmm1\n"
        "1: cmpl $0,(%rsi)\n je 1b\n vextractf128 $1,%ymm9,%xmm1\n movq %xmm1,%rax\n vzeroupper\n ret\n");
static held_in_spin *const in_spin[] = { spin_rax, spin_r11, spin_xmm0, spin_xmm15, spin_red_zone, spin_ymm };
/* Holds it in a register while the page at the second argument cannot be read. */
extern held_in_spin hold_over_fault;
__asm__(".text\nhold_over_fault: movq %rdi,%rax\n notq %rax\n xorl %edi,%edi\n movl (%rsi),%ecx\n ret\n");
static bool can_run(held_in_spin *fn) { return fn != spin_ymm || __builtin_cpu_supports("avx"); }
#elif defined(__aarch64__)
/* Global, since the linker gives all local ones the same place in the table that C goes by. */
#define HELD(reg)                                                                                                           \
    extern held_by_call held_##reg;                                                                                         \
    __asm__(".text\n.globl held_" #reg "\n.type held_" #reg ",%function\nheld_" #reg ":\n stp x29,x30,[sp,#-32]!\n str " #reg ",[sp,#16]\n mvn " #reg ",x0\n" \
            " mov x0,x2\n mov x2,#0\n blr x1\n mov x0," #reg "\n ldr " #reg ",[sp,#16]\n ldp x29,x30,[sp],#32\n ret\n");
HELD(x19) HELD(x20) HELD(x24) HELD(x28)
static held_by_call *const by_call[] = { held_x19, held_x20, held_x24, held_x28 };
__asm__(".text\n.globl blocked_here\n.type blocked_here,%function\nblocked_here: stp x29,x30,[sp,#-16]!\n bl weft_blocking_begin\n sub sp,sp,#512\n mov x0,sp\n mov x1,#64\n"
        "1: str xzr,[x0],#8\n subs x1,x1,#1\n b.ne 1b\n bl blocked_meanwhile\n add sp,sp,#512\n bl weft_blocking_end\n ldp x29,x30,[sp],#16\n ret\n");
extern held_in_spin spin_x3, spin_v16;
__asm__(".text\n.globl spin_x3, spin_v16\n"
        "spin_x3: mvn x3,x0\n mov x0,#0\n1: ldr w2,[x1]\n cbz w2,1b\n mov x0,x3\n ret\n"
        "spin_v16: mvn x0,x0\n movi v16.2d,#0\n mov v16.d[1],x0\n mov x0,#0\n1: ldr w2,[x1]\n cbz w2,1b\n mov x0,v16.d[1]\n ret\n");
static held_in_spin *const in_spin[] = { spin_x3, spin_v16 };
extern held_in_spin hold_over_fault;
__asm__(".text\n.globl hold_over_fault\n.type hold_over_fault,%function\nhold_over_fault: mvn x3,x0\n mov x0,#0\n ldr w2,[x1]\n mov x0,x3\n ret\n");
static bool can_run(held_in_spin *fn) { return fn != NULL; }
#endif

/* ---- the frame of the tests ----------------------------------------------------------------------------------------------- */

/* FIBERS fibers (or threads) each hold something by `hold`, which calls wait_here when nothing else holds it. */
#define FIBERS 40

static struct track tracked;
static weft_chan *gate;      /* closed: go on */
static int waiting, finished;

static void wait_here(void *arg)
{
    (void)arg;
    test_wipe_stack();
    count_up(&waiting);
    cr_assert_eq(weft_chan_recv(gate, NULL), 0);
}

static void expect_waiting(int n)
{
    test_until(count_now(&waiting) == n);
    for (int i = 0; i < 20; i++)
        test_pause(); /* all but surely parked by now; right in any case */
}

static void expect_live(const char *what)
{
    cr_assert_eq(track_live(&tracked), tracked.n, "%s: %zu of %zu objects live", what, track_live(&tracked), tracked.n);
}

/* Stale words hold a few; some per holder at most. */
static void expect_gone(const char *what)
{
    test_wipe_stack();
    weft_gc();
    size_t live = track_live(&tracked);
    cr_assert(live <= tracked.n / 8 + 2, "%s: %zu of %zu objects are still there", what, live, tracked.n);
}

typedef void hold_fn(uint64_t i);
struct holder { hold_fn *hold; uint64_t i; };
static struct holder holders[FIBERS];

static void holder_fiber(void *arg)
{
    struct holder *h = arg;
    h->hold(h->i);
    test_wipe_stack();
    count_up(&finished);
}

static void *holder_thread(void *arg)
{
    cr_assert_eq(weft_attach(), 0);
    holder_fiber(arg);
    return NULL;
}

static void begin(size_t cap)
{
    track_init(&tracked, cap);
    gate = weft_chan_make(0, 0);
    waiting = finished = 0;
}

static void end(const char *what)
{
    test_until(count_now(&finished) == FIBERS);
    expect_gone(what);
    track_free(&tracked);
}

static void in_fibers(void *arg)
{
    hold_fn *hold = *(hold_fn **)arg;
    begin(FIBERS * 200);
    for (uint64_t i = 0; i < FIBERS; i++) {
        holders[i] = (struct holder){ hold, i };
        cr_assert_eq(weft_go(holder_fiber, &holders[i]), 0);
    }
    expect_waiting(FIBERS);
    churn();
    expect_live("held by fibers");
    cr_assert_eq(weft_chan_close(gate), 0);
    end("let go by fibers");
}

static void in_threads(void *arg)
{
    hold_fn *hold = *(hold_fn **)arg;
    pthread_t t[FIBERS];
    begin(FIBERS * 200);
    for (uint64_t i = 0; i < FIBERS; i++) {
        holders[i] = (struct holder){ hold, i };
        cr_assert_eq(pthread_create(&t[i], NULL, holder_thread, &holders[i]), 0);
    }
    expect_waiting(FIBERS);
    churn();
    expect_live("held by threads of the host");
    cr_assert_eq(weft_chan_close(gate), 0);
    test_until(count_now(&finished) == FIBERS);
    weft_blocking_begin();
    for (int i = 0; i < FIBERS; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    end("let go by threads of the host");
}

static void everywhere(hold_fn *hold)
{
    test_run_each(in_fibers, &hold);
    test_run_procs(2, in_threads, &hold);
}

/* ---- stacks and registers of whoever waits ------------------------------------------------------------------------------------ */

static void on_the_stack(uint64_t i)
{
    struct box *volatile b[20];
    for (int k = 0; k < 20; k++)
        b[k] = box_new(&tracked, 100 * i + (uint64_t)k);
    wait_here(NULL);
    for (int k = 0; k < 20; k++)
        box_check(b[k], 100 * i + (uint64_t)k);
}

static void in_a_register(uint64_t i)
{
    held_by_call *fn = by_call[i % (sizeof by_call / sizeof by_call[0])];
    box_check((void *)fn(box_hidden(&tracked, i), wait_here, NULL), i);
}

/* Pointers into the middle; the end of the object is still its own if it does not fill its slot (48 of 48 does: not one past). */
static void by_inner_pointers(uint64_t i)
{
    char *volatile p = (char *)box_new(&tracked, i) + 1 + i % (sizeof(struct box) - 1);
    wait_here(NULL);
    box_check(weft_object_base(p), i);
}

static void check_deferred(void *b)
{
    box_check(b, ((struct box *)b)->pad[0]);
    count_up(&finished);
}

static __attribute__((noinline)) void defer_one(uint64_t i)
{
    struct box *b = box_new(&tracked, i);
    b->pad[0] = i;
    cr_assert_eq(weft_defer(check_deferred, b), 0);
}

static void in_deferred_calls(uint64_t i)
{
    for (uint64_t k = 0; k < 3; k++)
        defer_one(100 * i + k);
    wait_here(NULL);
    __atomic_fetch_sub(&finished, 3, __ATOMIC_ACQ_REL);
}

Test(heap_roots, stacks_of_those_who_wait) { everywhere(on_the_stack); }
Test(heap_roots, callee_saved_registers_of_those_who_wait) { everywhere(in_a_register); }
Test(heap_roots, inner_pointers) { everywhere(by_inner_pointers); }
Test(heap_roots, deferred_calls)
{
    for (int procs = 1; procs <= 2; procs++)
        test_run_procs(procs, in_fibers, &(hold_fn *){ in_deferred_calls });
}

/* ---- threads in user code ------------------------------------------------------------------------------------------------------- */

static int spin_stop;
static held_in_spin *spin_fn;

static void spin_with(uint64_t i)
{
    uintptr_t hidden = box_hidden(&tracked, i);
    test_wipe_stack();
    count_up(&waiting);
    box_check((void *)spin_fn(hidden, &spin_stop), i);
}

/* Three threads and three fibers, in user code till spin_stop. */
static void in_user_code(hold_fn *hold, const char *what)
{
    begin(2000);
    __atomic_store_n(&spin_stop, 0, __ATOMIC_RELEASE);
    pthread_t t[3];
    for (uint64_t i = 0; i < 6; i++) {
        holders[i] = (struct holder){ hold, i };
        if (i < 3)
            cr_assert_eq(pthread_create(&t[i], NULL, holder_thread, &holders[i]), 0);
        else
            cr_assert_eq(weft_go(holder_fiber, &holders[i]), 0);
    }
    test_until(count_now(&waiting) == 6);
    for (int n = 0; n < 5; n++) {
        churn();
        expect_live(what);
    }
    __atomic_store_n(&spin_stop, 1, __ATOMIC_RELEASE);
    test_until(count_now(&finished) == 6);
    weft_blocking_begin();
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    track_free(&tracked);
}

static void in_spins(void *arg)
{
    (void)arg;
    for (size_t k = 0; k < sizeof in_spin / sizeof in_spin[0]; k++) {
        spin_fn = in_spin[k];
        if (can_run(spin_fn))
            in_user_code(spin_with, "in a register of a thread that spins");
    }
}

Test(heap_roots, registers_of_threads_that_spin, SIGNALS_AT_ONCE) { test_run_procs(2, in_spins, NULL); }

/* The host's handler of a fault takes its time, on the alternate stack; meanwhile only what the kernel put there knows the registers of who was
 * interrupted. */
static void handle_slowly(int sig, siginfo_t *info, void *uc)
{
    (void)sig, (void)uc;
    count_up(&waiting);
    while (__atomic_load_n(&spin_stop, __ATOMIC_ACQUIRE) == 0)
        usleep(100);
    if (mprotect((void *)((uintptr_t)info->si_addr & -(uintptr_t)4096), 4096, PROT_READ) != 0)
        abort();
}

static void fault_with(uint64_t i)
{
    int *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(page, MAP_FAILED);
    uintptr_t hidden = box_hidden(&tracked, i);
    test_wipe_stack();
    box_check((void *)hold_over_fault(hidden, page), i);
    munmap(page, 4096);
}

static void in_faults(void *arg)
{
    (void)arg;
    in_user_code(fault_with, "in a register, over a fault that the host handles");
}

Test(heap_roots, registers_of_threads_in_a_handler, SIGNALS_AT_ONCE)
{
    struct sigaction sa = { .sa_sigaction = handle_slowly, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    cr_assert_eq(sigaction(SIGSEGV, &sa, NULL), 0);
    test_run_procs(2, in_faults, NULL);
}

/* In a system call, announced and not, with the pointer on the stack or in a register of who called. */
static int pipe_ends[2];

static void read_pipe(void *arg)
{
    char c;
    test_wipe_stack();
    count_up(&waiting);
    cr_assert_eq(read(pipe_ends[0], &c, 1), 1);
    (void)arg;
}

static void in_a_system_call(uint64_t i)
{
    held_by_call *fn = by_call[i % (sizeof by_call / sizeof by_call[0])];
    struct box *volatile b = box_new(&tracked, 1000 + i);
    box_check((void *)fn(box_hidden(&tracked, i), read_pipe, NULL), i);
    box_check(b, 1000 + i);
}

void blocked_here(void *arg);
__attribute__((used)) void blocked_meanwhile(void);
void blocked_meanwhile(void) { read_pipe(NULL); }

static void between_begin_and_end(uint64_t i)
{
    held_by_call *fn = by_call[i % (sizeof by_call / sizeof by_call[0])];
    struct box *volatile b = box_new(&tracked, 1000 + i);
    box_check((void *)fn(box_hidden(&tracked, i), blocked_here, NULL), i);
    box_check(b, 1000 + i);
}

static void in_kernel(void *arg)
{
    cr_assert_eq(pipe(pipe_ends), 0);
    hold_fn *hold = *(hold_fn **)arg;
    begin(FIBERS * 10);
    pthread_t t[FIBERS / 2];
    for (uint64_t i = 0; i < FIBERS; i++) {
        holders[i] = (struct holder){ hold, i };
        if (i % 2 == 0)
            cr_assert_eq(weft_go(holder_fiber, &holders[i]), 0);
        else
            cr_assert_eq(pthread_create(&t[i / 2], NULL, holder_thread, &holders[i]), 0);
    }
    expect_waiting(FIBERS);
    churn();
    expect_live("held by threads in the kernel");
    for (int i = 0; i < FIBERS; i++)
        cr_assert_eq(write(pipe_ends[1], "x", 1), 1);
    test_until(count_now(&finished) == FIBERS);
    weft_blocking_begin();
    for (int i = 0; i < FIBERS / 2; i++)
        pthread_join(t[i], NULL);
    weft_blocking_end();
    end("let go by threads in the kernel");
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

Test(heap_roots, threads_in_system_calls, SIGNALS_AT_ONCE) { test_run_procs(2, in_kernel, &(hold_fn *){ in_a_system_call }); }
Test(heap_roots, between_blocking_begin_and_end) { test_run_procs(2, in_kernel, &(hold_fn *){ between_begin_and_end }); }

/* ---- what has not started yet, timers ---------------------------------------------------------------------------------------------- */

static void check_and_finish(void *arg)
{
    struct box *b = arg;
    box_check(b, b->pad[0]);
    count_up(&finished);
}

static __attribute__((noinline)) struct box *numbered(uint64_t i)
{
    struct box *b = box_new(&tracked, i);
    b->pad[0] = i;
    return b;
}

static __attribute__((noinline)) void go_with(uint64_t i) { cr_assert_eq(weft_go(check_and_finish, numbered(i)), 0); }

static weft_waitgroup *group;
static __attribute__((noinline)) void group_go_with(uint64_t i) { cr_assert_eq(weft_waitgroup_go(group, check_and_finish, numbered(i)), 0); }

static void not_started(void *arg)
{
    (void)arg;
    begin(10000);
    group = weft_alloc(sizeof *group);
    for (uint64_t i = 0; i < 1000; i++) /* more than a processor's queue holds */
        i % 2 ? go_with(i) : group_go_with(i);
    churn();
    test_until(count_now(&finished) == 1000);
    weft_waitgroup_wait(group);
    expect_gone("arguments of fibers that have ended");
    track_free(&tracked);
}

Test(heap_roots, arguments_of_fibers_that_have_not_started)
{
    test_run_procs(1, not_started, NULL);
    test_run_procs(3, not_started, NULL);
}

static __attribute__((noinline)) void timer_with(uint64_t i)
{
    weft_timer *t = weft_timer_func((int64_t)(20 + i % 7) * WEFT_MILLISECOND, 0, check_and_finish, numbered(i));
    cr_assert_not_null(t);
}

static void timers(void *arg)
{
    (void)arg;
    begin(10000);
    for (uint64_t i = 0; i < 200; i++)
        timer_with(i);
    churn();
    test_until(count_now(&finished) == 200);
    expect_gone("arguments of timers that have run");
    track_free(&tracked);
}

Test(heap_roots, arguments_of_timers)
{
    test_run_procs(1, timers, NULL);
    test_run_procs(2, timers, NULL);
}

/* ---- data of modules, ranges, handles ------------------------------------------------------------------------------------------------- */

#define SLOTS 64
static void *bss[SLOTS];
static void *data[SLOTS] = { &bss[1] };

static __attribute__((noinline)) void fill(void **slot)
{
    for (uint64_t i = 0; i < SLOTS; i++)
        slot[i] = box_new(&tracked, i);
}

static __attribute__((noinline)) void check_filled(void **slot)
{
    for (uint64_t i = 0; i < SLOTS; i++)
        box_check(slot[i], i);
}

static void held_by_slots(void **slot, const char *what)
{
    begin(SLOTS * 2);
    fill(slot);
    churn();
    expect_live(what);
    check_filled(slot);
    memset(slot, 0, SLOTS * sizeof *slot);
    expect_gone(what);
    track_free(&tracked);
}

static void data_of_the_program(void *arg)
{
    (void)arg;
    held_by_slots(bss, ".bss");
    held_by_slots(data, ".data");
}
Test(heap_roots, data_of_the_program) { test_run(data_of_the_program, NULL); }

typedef void **slots_fn(int where);
static slots_fn *mod_slots;

static void *load_holder(void)
{
    void *h = dlopen(TEST_MOD("holder"), RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(h, "%s", dlerror());
    union { void *p; slots_fn *fn; } u = { dlsym(h, "mod_slots") };
    mod_slots = u.fn;
    return h;
}

static void data_of_a_module(void *arg)
{
    (void)arg;
    for (int round = 0; round < 3; round++) { /* loaded while we run, between collections */
        void *h = load_holder();
        held_by_slots(mod_slots(0), ".data of a module");
        held_by_slots(mod_slots(1), ".bss of a module");
        begin(SLOTS * 2);
        fill(mod_slots(1));
        cr_assert_eq(dlclose(h), 0);
        expect_gone("a module that is no longer there");
        track_free(&tracked);
    }
}
Test(heap_roots, data_of_a_module) { test_run(data_of_a_module, NULL); }

static void ranges(void *arg)
{
    (void)arg;
    void **slot = calloc(SLOTS, sizeof *slot);
    cr_assert_eq(weft_root_add(slot, SLOTS * sizeof *slot), 0);
    held_by_slots(slot, "weft_root_add");
    begin(SLOTS * 2);
    fill(slot);
    churn();
    expect_live("weft_root_add");
    cr_assert_eq(weft_root_remove(slot), 0);
    expect_gone("a range that was removed");
    track_free(&tracked);
    free(slot);
}
Test(heap_roots, ranges) { test_run(ranges, NULL); }

static weft_handle handles[1000]; /* numbers, no addresses */
static void handle_roots(void *arg)
{
    (void)arg;
    begin(2000);
    for (uint64_t i = 0; i < 1000; i++)
        cr_assert_neq(handles[i] = weft_handle_new(box_new(&tracked, i)), 0);
    churn();
    expect_live("handles");
    for (uint64_t i = 0; i < 1000; i++) {
        box_check(weft_handle_get(handles[i]), i);
        if (i % 2 == 0)
            cr_assert_eq(weft_handle_free(handles[i]), 0);
    }
    churn();
    for (uint64_t i = 1; i < 1000; i += 2) {
        box_check(weft_handle_get(handles[i]), i);
        cr_assert_eq(weft_handle_free(handles[i]), 0);
        cr_assert_null(weft_handle_get(handles[i]));
    }
    expect_gone("handles that were freed");
    track_free(&tracked);
}
Test(heap_roots, handles) { test_run(handle_roots, NULL); }

/* ---- thread-local variables --------------------------------------------------------------------------------------------------------------- */

static __thread void *tls_bss[SLOTS];
static __thread void *tls_data[SLOTS] = { (void *)1 };
static pthread_key_t key;

/* The accessor may not be inlined: the thread changes at a wait, unless the fiber is locked. */
static __attribute__((noinline)) void **tls_slots(int where) { return where == 0 ? tls_bss : where == 1 ? tls_data : mod_slots(where); }

static void in_thread_locals(uint64_t i)
{
    cr_assert_eq(weft_lock_os_thread(), 0);
    for (int where = 0; where < 4; where++)
        for (uint64_t k = 0; k < 5; k++)
            tls_slots(where)[k] = box_new(&tracked, 1000 * i + 10 * (uint64_t)where + k);
    pthread_setspecific(key, box_new(&tracked, i));
    wait_here(NULL);
    for (int where = 0; where < 4; where++)
        for (uint64_t k = 0; k < 5; k++) {
            box_check(tls_slots(where)[k], 1000 * i + 10 * (uint64_t)where + k);
            tls_slots(where)[k] = NULL;
        }
    box_check(pthread_getspecific(key), i);
    pthread_setspecific(key, NULL);
    weft_unlock_os_thread();
}

Test(heap_roots, thread_local_variables)
{
    load_holder();
    cr_assert_eq(pthread_key_create(&key, NULL), 0);
    hold_fn *hold = in_thread_locals;
    test_run_procs(2, in_fibers, &hold);
    test_run_procs(2, in_threads, &hold);
}

/* The thread-local block of a module that is gone is still known to the threads that have used it, also when another module, with larger blocks, has
 * its number. */
static void *use_tls(void *arg)
{
    (void)arg;
    cr_assert_eq(weft_attach(), 0);
    mod_slots(2)[0] = NULL;
    wait_here(NULL);
    count_up(&finished);
    return NULL;
}

static void stale_blocks(void *arg)
{
    (void)arg;
    for (int round = 0; round < 3; round++) {
        void *h = load_holder();
        begin(1);
        pthread_t t[4];
        for (int i = 0; i < 4; i++)
            cr_assert_eq(pthread_create(&t[i], NULL, use_tls, NULL), 0);
        expect_waiting(4);
        cr_assert_eq(dlclose(h), 0);
        churn();
        void *large = dlopen(TEST_MOD("holder_large"), RTLD_NOW | RTLD_LOCAL);
        cr_assert_not_null(large, "%s", dlerror());
        churn();
        cr_assert_eq(weft_chan_close(gate), 0);
        test_until(count_now(&finished) == 4);
        weft_blocking_begin();
        for (int i = 0; i < 4; i++)
            pthread_join(t[i], NULL);
        weft_blocking_end();
        cr_assert_eq(dlclose(large), 0);
        track_free(&tracked);
    }
}
Test(heap_roots, thread_local_blocks_of_modules_that_are_gone) { test_run_procs(2, stale_blocks, NULL); }
