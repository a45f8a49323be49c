/* Stacks of what runs, at once.
 *
 * Code of the host is mostly compiled without frame pointers, so a walk goes by rules (rules.h): one for each return address, computed from the unwind
 * tables when it is first met and kept in a table, from then on a few nanoseconds. The walk itself is then: find the rule, add to the stack pointer, read
 * two words.
 *
 * [WALK] What must not happen in a signal handler does not happen in a walk: no lock, no memory, no call into libc or the loader, no wait.
 *
 *   rule table   64 Ki words, one per rule: a bijection of the 48 bits of an address gives the place (16 bits) and what is compared (32 bits, in the
 *                word), the other half is the rule. So a word is right or it is another address's, however many write it at a time, and a relaxed
 *                load and store will do.
 *   modules      a sorted table that is never changed once it is published, but replaced. A helper (the keeper) makes it while there are users: it
 *                looks at the loader's counters every 50 ms, and at once when a walk has met code that lies in no module.
 *   replacing    The keeper publishes the new table, waits until every walk that may have begun before is over (below), and then empties the rule table.
 *                A rule that is stored after that is of a walk that began after the publication, hence of the new table; one that was stored before
 *                is gone. And nobody uses the old table any more: it is freed.
 *   over         A walk counts itself in its machine's `reading`, then looks which table is published; the keeper publishes, fences (world_fence: with
 *                membarrier(2), so walks pay nothing), then looks at `reading`. One of the two sees the other. Walks of parked fibers, on threads that
 *                have no machine, count themselves in one counter, by a locked instruction.
 *
 * So what a walk knows is at most 50 ms old: code that was loaded where other code was just before may be walked by the other's rules for so long. That
 * is one reason why a rule is never trusted:
 *
 *   bounds       All that is read of a stack lies between the stack pointer, or a red zone below it, and the stack's end. Frames only go upwards.
 *                Wrong rules give short stacks and wrong addresses, not faults.
 *   no rule      Code without a table (made at run time, or hand-written): the frame pointer is followed, if the word above what it points to is an address
 *                in known code. Else the stack ends there.
 *
 * A signal may come anywhere. In weft_arch_switch: its table (x86_64.S) is exact before, between and after, so either the fiber that is left is walked or the
 * one that comes; the stack is known by its address, as m->cur changes a little earlier. In a handler of the host: what the kernel returns to has a
 * rule of its own, RULE_SIGNAL, that reads the interrupted registers and goes on there, on another stack if it was on the alternate one.
 *
 * How other profilers of this kind hang or fault (gperftools/gperftools, by number of issue), and what is different here:
 *   775, 1210, 1583   The handler's unwinder calls dl_iterate_phdr; the interrupted thread, or another one that waits, holds the loader's lock in
 *                     dlopen, or in a throw, which asks the loader the same. Here no walk asks the loader. Only the keeper does: it is a thread of its own
 *                     with the host's signals blocked, which nobody waits for while he holds a lock.
 *   1188              The handler interrupts the same unwinder, in a call of backtrace(3) by the host, and takes its lock again. Here there is no lock, and a
 *                     walk may be interrupted by another one.
 *   (all of them)     The unwinder follows a pointer from a half-built frame and faults. See bounds.
 */
#include "prof/walk.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include "base/backoff.h"
#include "base/offheap.h"
#include "base/syscall.h"
#include "os/futex.h"
#include "os/vm.h"
#include "prof/helper.h"
#include "prof/rules.h"
#include "sched/report.h"
#include "sched/sched.h"
#include "sched/world.h"

#define RULES_LOG2 16
#define RULES_BYTES (sizeof(w_u64) << RULES_LOG2)
#define KEEPER_NS 50000000
#define KEEPER_PAUSE_NS 1000000 /* so often it looks at most */
#define G0_BYTES_MAX (512u << 10)

struct tables {
    const struct rules_modules *modules;
    w_u64 *rule;
    uint64_t number; /* no two have the same */
};

static struct {
    W_PTR(struct tables) now; /* rel: publishes them; acq in walks. NULL: not in use */
    w_u32 parked;             /* walks of parked fibers under way */
    w_u32 look;               /* futex: the keeper is to look. Set by walks */
    pthread_mutex_t lock;     /* the rest; of the host's kind, for its holders are users that may be stopped */
    uint32_t users;
    struct helper keeper;
    w_u32 stop;
    w_u32 started;            /* futex: 0 not yet, 1 in use, 2 no memory */
    /* the keeper's */
    struct tables *tables;
    uint64_t tables_made;
    w_u64 *rule;
} walk = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- [WALK], the keeper ---------------------------------------------------------------------------------- */

/* Every walk that began before what the caller has just published is over. */
static void walks_over(void)
{
    world_fence();
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees the machine; rel in m_publish_locked */
        while (load_acq(&m->reading) != 0) /* acq: it is done with what it read; rel in walk_end */
            nap();
    while (load_seq(&walk.parked) != 0) /* seq: after the publication; the walk counts itself before it looks what is published */
        nap();
}

static void publish(struct tables *t)
{
    struct tables *old = walk.tables;
    walk.tables = t;
    store_seq(&walk.now, t); /* seq: also a release; before the looks of walks_over */
    walks_over();
    if (old != NULL) {
        rules_modules_free((struct rules_modules *)old->modules);
        off_free(OFF_PROF, old);
    }
}

/* False: no memory; what was there stays. */
static bool tables_renew(void)
{
    struct tables *t = off_alloc(OFF_PROF, sizeof *t);
    struct rules_modules *modules = rules_modules_new();
    if (t == NULL || modules == NULL) {
        rules_modules_free(modules);
        off_free(OFF_PROF, t);
        return false;
    }
    *t = (struct tables){ modules, walk.rule, ++walk.tables_made };
    publish(t);
    os_vm_release(walk.rule, RULES_BYTES, true);
    return true;
}

/* What the child of a fork has inherited was left by a keeper that is no more. */
static bool tables_first(void)
{
    publish(NULL);
    if (walk.rule == NULL)
        walk.rule = off_map(OFF_PROF, RULES_BYTES, os_page_bytes());
    return walk.rule != NULL && tables_renew();
}

static void tables_drop(void)
{
    publish(NULL);
    w_u64 *rule = walk.rule;
    walk.rule = NULL; /* before: a child of a fork takes it over */
    if (rule != NULL)
        off_unmap(OFF_PROF, rule, RULES_BYTES);
}

static void keeper_main(void *arg)
{
    (void)arg;
    bool ok = tables_first();
    store_rel(&walk.started, ok ? 1 : 2); /* rel: publishes nothing but itself; acq in walk_start */
    os_futex_wake(&walk.started, 1);
    while (ok && load_acq(&walk.stop) == 0) { /* acq: nothing; rel in walk_stop */
        os_futex_wait(&walk.look, 0, KEEPER_NS);
        store_rlx(&walk.look, 0); /* rlx: before the counters are read; who has met code that came later sets it again */
        if (!rules_modules_current(walk.tables->modules))
            tables_renew(); /* no memory: next time */
        if (load_rlx(&walk.stop) == 0) /* rlx: looked at again */
            os_futex_wait(&walk.stop, 0, KEEPER_PAUSE_NS);
    }
    tables_drop();
}

static void keeper_poke(void)
{
    store_rel(&walk.look, 1);
    os_futex_wake(&walk.look, 1);
}

static int walk_start(void)
{
    walk.keeper = (struct helper){ .fn = keeper_main };
    store_rlx(&walk.stop, 0); /* rlx: the thread's start publishes them */
    store_rlx(&walk.started, 0);
    int err = helper_start(&walk.keeper);
    if (err != 0)
        return err;
    while (load_acq(&walk.started) == 0) /* acq: rel in keeper_main */
        os_futex_wait(&walk.started, 0, -1);
    if (load_rlx(&walk.started) == 1) /* rlx: as above */
        return 0;
    helper_join(&walk.keeper);
    return -ENOMEM;
}

static void walk_stop(void)
{
    store_rel(&walk.stop, 1); /* rel: acq in keeper_main */
    os_futex_wake(&walk.stop, INT_MAX);
    keeper_poke();
    helper_join(&walk.keeper);
}

int walk_use(void)
{
    pthread_mutex_lock(&walk.lock);
    int err = walk.users == 0 ? walk_start() : 0;
    walk.users += err == 0;
    pthread_mutex_unlock(&walk.lock);
    return err;
}

void walk_unuse(void)
{
    pthread_mutex_lock(&walk.lock);
    if (walk.users != 0 && --walk.users == 0) /* none: the runtime has ended, or we are in the child of a fork */
        walk_stop();
    pthread_mutex_unlock(&walk.lock);
}

static void walk_end_all(void)
{
    pthread_mutex_lock(&walk.lock);
    if (walk.users != 0)
        walk_stop();
    walk.users = 0;
    pthread_mutex_unlock(&walk.lock);
}

/* The keeper is not there. Its tables are left to the next one, for memory is not freed here. */
static void walk_after_fork(void)
{
    if (walk.users != 0)
        munmap(walk.keeper.stack, HELPER_STACK_BYTES);
    walk.users = 0;
    walk.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    store_rlx(&walk.now, NULL); /* rlx: alone */
    store_rlx(&walk.parked, 0);
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: as in walks_over */
        store_rlx(&m->reading, 0);
}

static struct sched_guest walk_guest = { .end = walk_end_all, .after_fork = walk_after_fork };
static void __attribute__((constructor)) walk_init(void) { sched_guest_add(&walk_guest); }

/* ---- rules ------------------------------------------------------------------------------------------------- */

#define ADDRESS_MASK ((UINT64_C(1) << 48) - 1) /* also: what signs return addresses on aarch64 lies above */
#if defined(__x86_64__)
#define ADDRESS_END (UINT64_C(1) << 47) /* of a program's half */
#else
#define ADDRESS_END (UINT64_C(1) << 48)
#endif

/* A walk may interrupt another one of the same machine: it counts on from there. */
static inline const struct tables *walk_begin(struct m *m)
{
    store_rlx(&m->reading, load_rlx(&m->reading) + 1); /* rlx: only we write it. Before the look at what is published: the keeper's fence, or */
    fence_compiler();
    if (unlikely(sched.fenced))
        fence_seq();
    return load_acq(&walk.now); /* acq: rel in publish */
}

static inline void walk_end(struct m *m)
{
    store_rel(&m->reading, load_rlx(&m->reading) - 1); /* rel: we are done reading; acq in walks_over */
}

static w_cold rule rule_miss(const struct tables *t, uintptr_t pc, uint32_t tag, w_u64 *at)
{
    rule r = rules_at(t->modules, pc);
    store_rlx(at, (uint64_t)tag << 32 | r); /* rlx: a word is whole */
    if (r == rule_other(OTHER_NO_MODULE))
        keeper_poke();
    return r;
}

static w_no_sanitize inline rule rule_get(const struct tables *t, uintptr_t pc)
{
    uint64_t h = pc * UINT64_C(0x9e3779b97f4b) & ADDRESS_MASK; /* odd, so no two addresses have the same */
    w_u64 *at = &t->rule[h >> 32];
    uint64_t v = load_rlx(at); /* rlx: as above */
    if (likely((uint32_t)(v >> 32) == (uint32_t)h && (rule)v != 0))
        return (rule)v;
    return rule_miss(t, pc, (uint32_t)h, at);
}

/* ---- stacks -------------------------------------------------------------------------------------------------- */

struct stack { uintptr_t lo, hi; };

static w_no_sanitize bool on_fiber(const struct fiber *f, uintptr_t sp, struct stack *s)
{
    if (f == NULL || sp < (uintptr_t)f->stack_lo || sp >= (uintptr_t)f->stack_hi)
        return false;
    *s = (struct stack){ (uintptr_t)f->stack_lo, (uintptr_t)f->stack_hi };
    return true;
}

static w_no_sanitize bool on_altstack(uintptr_t sp, struct stack *s)
{
    stack_t ss;
    if (sys_call2(SYS_sigaltstack, 0, &ss) != 0 || ss.ss_flags & SS_DISABLE || sp - (uintptr_t)ss.ss_sp >= ss.ss_size)
        return false;
    *s = (struct stack){ (uintptr_t)ss.ss_sp, (uintptr_t)ss.ss_sp + ss.ss_size };
    return true;
}

/* On m's own thread. The fiber that was left last (prev) is still there while the next one, already m->cur, is not; or it is parked in place. */
static w_no_sanitize enum walk_where stack_find(const struct m *m, uintptr_t sp, struct stack *s)
{
    if (likely(on_fiber(m->cur, sp, s)))
        return m->foreign ? WALK_HOST : WALK_FIBER;
    if (m->foreign && on_fiber(&m->self, sp, s))
        return WALK_HOST;
    if ((m->blocking && on_fiber(m->blocked, sp, s)) || on_fiber(m->prev, sp, s))
        return WALK_FIBER;
    if (on_altstack(sp, s))
        return WALK_HANDLER;
    uintptr_t top = (uintptr_t)m->g0_top;
    if (sp < top && top - sp < G0_BYTES_MAX) {
        *s = (struct stack){ top - G0_BYTES_MAX, top };
        return WALK_SCHED;
    }
    *s = (struct stack){ UINTPTR_MAX, sizeof(uintptr_t) }; /* nothing is inside */
    return WALK_NOWHERE;
}

enum walk_where walk_where(const struct m *m, const ucontext_t *uc)
{
    struct stack s;
    return stack_find(m, arch_uc_sp(uc), &s);
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

/* A frame. pc is as if it were a return address. */
struct at {
    uintptr_t pc, sp, fp, lr;
    bool leaf;  /* interrupted: lr (aarch64) counts, and there may be a red zone */
    bool below; /* the frame's stack pointer lies somewhere above sp */
};

static w_no_sanitize inline bool inside(const struct stack *s, uintptr_t addr)
{
    return addr >= s->lo && addr <= s->hi - sizeof(uintptr_t) && addr % sizeof(uintptr_t) == 0;
}

static w_no_sanitize inline uintptr_t word(uintptr_t addr) { return *(const volatile uintptr_t *)addr; }

static w_no_sanitize void at_signal(struct at *a, const ucontext_t *uc)
{
    a->pc = arch_uc_pc(uc) + 1;
    a->sp = arch_uc_sp(uc);
#if defined(__x86_64__)
    a->fp = (uintptr_t)uc->uc_mcontext.gregs[REG_RBP];
    a->lr = 0;
#else
    a->fp = uc->uc_mcontext.regs[29];
    a->lr = uc->uc_mcontext.regs[30];
#endif
    a->leaf = true;
    a->below = false;
}

/* What lies below the stack pointer, but for a red zone, is nobody's. */
static w_no_sanitize void stack_from(struct stack *s, const struct at *a)
{
    s->lo = w_max(s->lo, a->sp - (a->leaf ? ARCH_RED_ZONE : 0));
}

static w_no_sanitize bool code_at(const struct tables *t, uintptr_t pc)
{
    const struct rules_module *m = t != NULL ? rules_module_at(t->modules, pc) : NULL;
    return t == NULL || (m != NULL && pc >= m->code_lo && pc < m->code_hi);
}

/* Both ABIs: the frame pointer points to that of the caller, and the return address lies above it. */
static w_no_sanitize bool step_frame_pointer(const struct tables *t, const struct stack *s, struct at *a)
{
    uintptr_t fp = a->fp;
    if (fp < a->sp || !inside(s, fp) || !inside(s, fp + 8))
        return false;
    uintptr_t ret = word(fp + 8);
#if defined(__aarch64__)
    ret &= ADDRESS_MASK;
#endif
    if (!code_at(t, ret - 1))
        return false;
    a->pc = ret;
    a->fp = word(fp);
    a->sp = fp + 16;
    a->leaf = false;
#if defined(__aarch64__)
    a->below = true; /* the record may lie anywhere in its frame */
#endif
    return true;
}

/* The interrupted registers, of which a handler returns to. */
static w_no_sanitize bool step_signal(const struct m *m, struct stack *s, struct at *a)
{
    uintptr_t uc = a->sp + RULE_UCONTEXT;
    if (m == NULL || a->below || !inside(s, uc) || !inside(s, uc + sizeof(mcontext_t) + offsetof(ucontext_t, uc_mcontext) - 8))
        return false;
    struct at to;
    at_signal(&to, (const ucontext_t *)uc);
    if (to.sp - a->sp >= s->hi - a->sp)
        stack_find(m, to.sp, s); /* nowhere: its address is the last */
    *a = to;
    stack_from(s, a);
    return true;
}

static w_no_sanitize inline bool step_rule(const struct stack *s, struct at *a, rule r)
{
    enum rule_kind kind = rule_kind(r);
    bool by_sp = kind == RULE_SP || kind == RULE_SP_AT;
    uintptr_t cfa = (by_sp ? a->sp : a->fp) + (uintptr_t)rule_cfa_bytes(r), fp = a->fp, ret;
    if (unlikely(by_sp && a->below))
        return false;
    if (unlikely(kind == RULE_SP_AT || kind == RULE_FP_AT)) {
        if (!inside(s, cfa))
            return false;
        cfa = word(cfa) + 8 * rule_ra(r);
    }
    unsigned slot = rule_fp(r);
    uintptr_t slot_at = unlikely(slot == RULE_FP_IN_PLACE) ? a->fp : cfa - 8 * (uintptr_t)slot;
#if defined(__x86_64__)
    if (unlikely(cfa > s->hi || cfa <= a->sp || cfa % 8 != 0) && !(a->leaf && cfa == a->sp && inside(s, cfa - 8))) /* that: popped, not gone yet */
        return false;
    ret = word(cfa - 8); /* inside: the stack pointer is */
    bool saved = slot != 0;
#else
    if (unlikely(cfa > s->hi || cfa < a->sp || cfa % 8 != 0 || (cfa == a->sp && !a->leaf)))
        return false;
    bool saved = slot != 0 && rule_ra(r) != RA_INSTEAD_OF_FP;
    uintptr_t ret_at = slot_at + (rule_ra(r) == RA_ABOVE_FP ? 8 : 0);
    if (rule_ra(r) == RA_REGISTER) {
        if (!a->leaf)
            return false;
        ret = a->lr;
    } else {
        if (!inside(s, ret_at))
            return false;
        ret = word(ret_at);
    }
    ret &= ADDRESS_MASK;
#endif
    if (saved) {
        if (unlikely(!inside(s, slot_at)))
            return false;
        fp = word(slot_at);
    }
    a->pc = ret;
    a->sp = cfa;
    a->fp = fp;
    a->leaf = a->below = false;
    return true;
}

/* The frame at a is not among the n any more or is the last of them. least: so many stay. */
static w_no_sanitize uint32_t walk_from(const struct m *m, const struct tables *t, struct stack s, struct at a, uintptr_t *pc, uint32_t n,
                                        uint32_t least, uint32_t max)
{
    while (n < max) {
        rule r = likely(t != NULL) ? rule_get(t, a.pc) : rule_other(OTHER_NO_TABLE);
        bool ok;
        if (likely(rule_kind(r) < RULE_SIGNAL))
            ok = step_rule(&s, &a, r);
        else if (rule_kind(r) == RULE_SIGNAL)
            ok = step_signal(m, &s, &a);
        else
            ok = rule_kind(r) == RULE_OTHER && rule_other_why(r) != OTHER_TOO_HARD && step_frame_pointer(t, &s, &a);
        if (unlikely(!ok || a.pc - 4096 >= ADDRESS_END - 4096))
            return n;
        uintptr_t entry = a.pc - (uintptr_t)weft_arch_entry;
        if (unlikely(entry < 32) && !a.leaf) /* the first frame of a fiber, called by nobody, and fiber_start before it; at 0: not begun yet */
            return entry != 0 && n > least ? n - 1 : n;
        pc[n++] = a.pc;
    }
    return n;
}

w_noinline w_no_sanitize uint32_t walk_self(struct m *m, uintptr_t *pc, uint32_t max)
{
    struct at a = { .fp = (uintptr_t)__builtin_frame_address(0) };
    struct stack s;
#if defined(__x86_64__)
    __asm__ volatile("leaq 0(%%rip), %0\n\tmovq %%rsp, %1\n\tmovq %%rbp, %2" : "=&r"(a.pc), "=&r"(a.sp), "=&r"(a.fp));
#else
    __asm__ volatile("adr %0, .\n\tmov %1, sp\n\tmov %2, x29" : "=&r"(a.pc), "=&r"(a.sp), "=&r"(a.fp));
    a.pc += 4;
#endif
    if (stack_find(m, a.sp, &s) == WALK_NOWHERE)
        return 0;
    stack_from(&s, &a);
    const struct tables *t = walk_begin(m);
    uint32_t n = walk_from(m, t, s, a, pc, 0, 0, max);
    walk_end(m);
    return n;
}

w_no_sanitize uint32_t walk_signal(struct m *m, const ucontext_t *uc, uintptr_t *pc, uint32_t max)
{
    struct at a;
    struct stack s;
    if (max == 0)
        return 0;
    at_signal(&a, uc);
    pc[0] = w_max(a.pc, (uintptr_t)4096); /* who jumps to NULL: what is below has other meanings in profiles */
    if (a.pc - 4096 >= ADDRESS_END - 4096 || stack_find(m, a.sp, &s) == WALK_NOWHERE)
        return 1;
    stack_from(&s, &a);
    const struct tables *t = walk_begin(m);
    uint32_t n = walk_from(m, t, s, a, pc, 1, 1, max);
    walk_end(m);
    return n;
}

static w_no_sanitize uint32_t walk_saved(const struct fiber *f, const struct arch_frame *fr, uintptr_t sp, uintptr_t *pc, uint32_t max)
{
    struct at a = { .pc = ARCH_PC(fr), .sp = sp, .fp = ARCH_FP(fr) };
    struct stack s = { a.sp, (uintptr_t)f->stack_hi };
    if (max == 0 || a.pc == (uintptr_t)weft_arch_entry)
        return 0;
    pc[0] = a.pc;
    add_seq(&walk.parked, 1); /* seq: before the look at what is published; as in walks_over */
    uint32_t n = walk_from(NULL, load_seq(&walk.now), s, a, pc, 1, 0, max);
    sub_acq_rel(&walk.parked, 1); /* rel: we are done reading; acq in walks_over */
    return n;
}

w_no_sanitize uint32_t walk_parked(const struct fiber *f, uintptr_t *pc, uint32_t max)
{
    return walk_saved(f, f->sp, (uintptr_t)((const struct arch_frame *)f->sp + 1), pc, max);
}

w_no_sanitize uint32_t walk_blocked(const struct m *m, uintptr_t *pc, uint32_t max)
{
    return walk_saved(m->blocked, &m->block_frame, (uintptr_t)m->blocked->sp, pc, max);
}

/* ---- the same stack again ------------------------------------------------------------------------------------------ */

/* A walk depends on nothing but where it begins, the tables, and the words of the stack that it reads; and not on where the stack lies: it adds,
 * compares, and looks whether addresses are inside. So a walk that began at the same distance from the stack's end, by the same tables, and finds the
 * same words (those that point into the stack: at the same distance), has the same result. To compare the words is quick, since all of them can be
 * loaded at once, where a walk must have one before it knows where the next one is. */
#define SEEN_MAX 32u /* of each kind; a stack with more is not kept */
#define SEEN_SETS 16u
#define SEEN_WAYS 4u

struct seen {
    uint64_t tables;     /* their number; 0: empty */
    uintptr_t to_end, pc, fp; /* where it began: distances from the stack pointer, but for pc */
    void *mine;
    uint32_t n, npairs;
    /* All places are distances from the stack pointer. Words; place + 1: it points into the stack, and its distance is kept. */
    struct { uint32_t at; uintptr_t word; } one[SEEN_MAX];
    /* A frame pointer that points into the stack, and above it a return address: nearly all there is in code that keeps frame pointers. */
    struct { uintptr_t at, fp, ret; } pair[SEEN_MAX];
};
struct walk_memo { struct seen seen[SEEN_SETS][SEEN_WAYS]; uint32_t next; };

size_t walk_memo_bytes(void) { return sizeof(struct walk_memo); }

static w_no_sanitize inline bool seen_again(const struct seen *e, uintptr_t sp)
{
    uintptr_t differ = 0;
    for (uint32_t i = 0; i < e->npairs; i++)
        differ |= ((word(sp + e->pair[i].at) - sp) ^ e->pair[i].fp) | (word(sp + e->pair[i].at + 8) ^ e->pair[i].ret);
    for (uint32_t i = 0; i < e->n; i++)
        differ |= word(sp + (e->one[i].at & ~1u)) ^ (e->one[i].word + (sp & -(uintptr_t)(e->one[i].at & 1)));
    return differ == 0;
}

static w_no_sanitize inline void see(struct seen *e, const struct stack *s, uintptr_t sp, uintptr_t at, uintptr_t value)
{
    bool inner = value - sp < s->hi - sp;
    if (e->n < SEEN_MAX) {
        e->one[e->n].at = (uint32_t)(at - sp) | inner;
        e->one[e->n].word = inner ? value - sp : value;
    }
    e->n++;
}

static w_no_sanitize inline void see_pair(struct seen *e, uintptr_t sp, uintptr_t at, uintptr_t fp, uintptr_t ret)
{
    if (e->npairs < SEEN_MAX) {
        e->pair[e->npairs].at = at - sp;
        e->pair[e->npairs].fp = fp - sp;
        e->pair[e->npairs].ret = ret;
    }
    e->npairs++;
}

#if defined(__x86_64__)
/* As walk_from, by the usual rules only: where another is needed, it is not kept. */
static w_no_sanitize uint32_t walk_seeing(const struct tables *t, const struct stack *s, struct at a, uintptr_t *pc, uint32_t max, struct seen *e)
{
    uintptr_t sp = a.sp;
    uint32_t n = 1;
    while (n < max) {
        rule r = rule_get(t, a.pc);
        uintptr_t fp = a.fp;
        if (unlikely((rule_kind(r) != RULE_SP && rule_kind(r) != RULE_FP) || !step_rule(s, &a, r) || a.pc - 4096 >= ADDRESS_END - 4096)) {
            e->n = SEEN_MAX + 1;
            return 0;
        }
        uintptr_t fp_at = rule_fp(r) == RULE_FP_IN_PLACE ? fp : a.sp - 8 * (uintptr_t)rule_fp(r);
        if (rule_fp(r) != 0 && fp_at == a.sp - 16 && a.fp - sp < s->hi - sp) {
            see_pair(e, sp, fp_at, a.fp, a.pc);
        } else {
            see(e, s, sp, a.sp - 8, a.pc);
            if (rule_fp(r) != 0)
                see(e, s, sp, fp_at, a.fp);
        }
        uintptr_t entry = a.pc - (uintptr_t)weft_arch_entry;
        if (entry < 32)
            return entry != 0 ? n - 1 : n;
        pc[n++] = a.pc;
    }
    return n;
}

/* What is kept of a stack that begins like this; else a place for it. */
static w_no_sanitize struct seen *seen_find(struct walk_memo *memo, const struct tables *t, const struct at *a, uintptr_t to_end, bool *again)
{
    struct seen *set = memo->seen[((to_end >> 4) + a->pc) * 0x9e3779b97f4a7c15u >> 58 & (SEEN_SETS - 1)];
    *again = true;
    for (uint32_t i = 0; t != NULL && i < SEEN_WAYS; i++)
        if (set[i].to_end == to_end && set[i].pc == a->pc && set[i].fp == a->fp - a->sp && set[i].tables == t->number && set[i].mine != NULL &&
            seen_again(&set[i], a->sp))
            return &set[i];
    *again = false;
    struct seen *e = &set[memo->next++ % SEEN_WAYS];
    *e = (struct seen){ .to_end = to_end, .pc = a->pc, .fp = a->fp - a->sp }; /* no tables: empty */
    return e;
}

w_noinline w_no_sanitize uint32_t walk_again(struct m *m, struct walk_memo *memo, const uintptr_t *frame, uintptr_t *pc, uint32_t max, void ***mine)
{
    struct at a = { .pc = frame[1], .sp = (uintptr_t)(frame + 2), .fp = frame[0] };
    struct stack s;
    bool again;
    *mine = NULL;
    if (stack_find(m, a.sp, &s) == WALK_NOWHERE)
        return 0;
    stack_from(&s, &a);
    const struct tables *t = walk_begin(m);
    struct seen *e = seen_find(memo, t, &a, s.hi - a.sp, &again);
    uint32_t n = 1;
    *mine = &e->mine;
    if (unlikely(!again)) {
        pc[0] = a.pc;
        n = t != NULL ? walk_seeing(t, &s, a, pc, max, e) : 0;
        if (t == NULL || e->n > SEEN_MAX || e->npairs > SEEN_MAX) {
            *mine = NULL;
            n = walk_from(m, t, s, a, pc, 1, 0, max);
        } else {
            e->tables = t->number;
        }
    }
    walk_end(m);
    return n;
}
#else
w_noinline uint32_t walk_again(struct m *m, struct walk_memo *memo, const uintptr_t *frame, uintptr_t *pc, uint32_t max, void ***mine)
{
    uint32_t n = walk_self(m, pc, max), own = 0;
    (void)memo;
    *mine = NULL;
    while (own < n && pc[own] != (frame[1] & ADDRESS_MASK))
        own++;
    for (uint32_t i = own; i < n; i++)
        pc[i - own] = pc[i];
    return n - own;
}
#endif
