/* The CPU profile.
 *
 * Each thread has a timer of the kernel's on its own CPU clock, which sends SIGPROF to that thread; the first one comes after a random part of a period,
 * so that threads that live shorter than one are not missed. The handler walks the stack into the thread's own ring (ring.h); a helper drains the
 * rings and writes (live.c).
 *
 * [SLOTS] A thread that is sampled has a slot: its timer and its ring. The table of slots is address space of its own, and the signal carries the
 * slot's address: so the handler knows ours, on whatever thread, without a look at anything of the thread's, and all others are the host's. Which
 * of ours still counts is told by the number of the timer. Who makes a slot, and who gives it up:
 *
 *      begin      probe thread_here on the thread itself; or, for threads that were there before, whoever starts the profile, and each flush again (a
 *                 timer may have been refused). m->sampled and service->sampled say that it has one; they change under cpu.lock.
 *      end        the same probe: the timer is deleted, and the helper frees the ring once it is empty. Handlers run on the same thread, so none is
 *                 under way. Of a thread that vanished the slot stays till the profile ends.
 *      stop       the helper: timer = 0 in each slot, then it waits until no handler is in it. A handler counts itself (users) and then looks at timer;
 *                 of the two pairs at least one side sees the other, hence seq. A thread may stand still in the handler, in a stop of the world,
 *                 which does not wait for us.
 *
 * The handler of SIGPROF is installed by the first profile and stays until the runtime ends: signals of a timer that was deleted may come late,
 * and must neither reach a handler of the host's nor end the program.
 *
 * The kernel looks at such a timer at its own ticks, some 4 ms apart, and only if the thread runs then. What is missing when a thread ends, or the
 * profile, is owed: the helper adds it to the last sample that the thread had. So the sum is what the threads have used, of short ones as well.
 *
 * Services, the runtime's threads that are no machines, let SIGPROF in only while a profile runs, and a handler of the host's never runs there (send_on): the
 * timer of the process (setitimer) signals whoever runs at that moment. Of one that does not let it in, what is owed stands under its outermost frame.
 *
 * Whose the work is: a sample on a fiber's stack is the fiber's, with its labels. Outermost frames of our own (pseudo.h) say of others what they were
 * for: a collection (marking on the scheduler's stack or in helpers of a stop, fibers of the runtime), the scheduler and the monitor, profilers.
 */
#include "prof/cpu.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/backoff.h"
#include "base/fail.h"
#include "base/fmt.h"
#include "base/lock.h"
#include "base/offheap.h"
#include "base/rng.h"
#include "base/syscall.h"
#include "base/text.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/signal.h"
#include "prof/pseudo.h"
#include "prof/ring.h"
#include "prof/sampler.h"
#include "prof/walk.h"
#include "sched/labels.h"
#include "sched/machine.h"
#include "sched/report.h"
#include "sched/service.h"
#include "sched/world.h"

#define SLOTS_MAX 16384u
#define DRAIN_NS 100000000 /* how long samples lie in a ring, at most */
#define RING_NS 250000000  /* how long the helper may be late before samples are lost */

/* What the handler writes: `length` in words is the ring's. */
struct record {
    uint64_t length;
    int64_t time_ns;
    uint64_t fiber;
    struct labels *labels; /* a reference */
    uint32_t weight, n;
    uint32_t machine;
    int32_t proc;
    uintptr_t pc[];
};
#define WORD sizeof(uint64_t)
#define RECORD_WORDS ((uint32_t)(sizeof(struct record) / WORD))
#define RECORD_MAX_BYTES 4096u
_Static_assert((RECORD_WORDS + WALK_MAX + 1) * WORD <= RECORD_MAX_BYTES, "a record");
_Static_assert(sizeof(struct record) % WORD == 0 && sizeof(uintptr_t) == WORD, "records are words");

struct slot {
    w_u64 timer;          /* the kernel's number + 1; 0: none. seq, see above */
    w_u32 users;          /* handlers in it; seq */
    bool gone;            /* the thread has ended: to be freed. Under cpu.lock */
    int32_t next_free;    /* the same */
    enum pseudo root;     /* of a service: its outermost frame; else PSEUDO_UNKNOWN */
    pid_t tid;            /* fixed likewise, and the next two */
    int64_t first_ns;     /* when the first signal was due, on the thread's clock */
    struct ring ring;     /* what lies behind it in memory is the last sample */
    int64_t end_ns;       /* the thread's clock when it was sampled no more: before gone, or by the helper */
    /* the helper's */
    uint64_t lost_told, ticks; /* ticks: in samples, and lost */
    bool has_last;
} w_aligned(W_CACHELINE);


static struct {
    pthread_mutex_t hook;    /* hooked, slots; in user code */
    bool hooked;
    uint32_t ring_words;     /* fixed while one runs */
    struct slot *slots;      /* SLOTS_MAX; made once in the life of the process, since a handler may look there at any time */
    int64_t look_ns;         /* the helper's: when to look for threads */
    struct lock lock;        /* RANK_LEAF: slots, rng, and `sampled` of machines and services */
    uint32_t used;           /* slots up to there were in use; also read by the helper alone */
    int32_t free;            /* the first free one; -1 */
    bool open;               /* threads may get slots */
    uint32_t refused, refused_max; /* threads without a timer: in this look; the most at a time */
    struct rng rng;
    pthread_mutex_t listen;  /* the listener; taken on the helper while it is in it */
    cpu_sample_fn *listener;
    w_u32 rounds;            /* futex: of the helper */
    void *listener_arg;
} cpu = { .hook = PTHREAD_MUTEX_INITIALIZER, .listen = PTHREAD_MUTEX_INITIALIZER, .lock = LOCK_INIT(RANK_LEAF), .free = -1 };

static struct sampler sampler;

/* ---- the handler ------------------------------------------------------------------------------------------- */

static uintptr_t frame_pointer(const ucontext_t *uc)
{
#if defined(__x86_64__)
    return (uintptr_t)uc->uc_mcontext.gregs[REG_RBP];
#else
    return uc->uc_mcontext.regs[29];
#endif
}

/* Of a thread that is no machine, on a stack that ends below the control block, as libc makes them: our code, which has frame pointers, and what it
 * calls, which may have none; then what looks like a frame is believed as far as it leads to our code. */
static w_no_sanitize uint32_t walk_service(const ucontext_t *uc, uintptr_t *pc, uint32_t max)
{
    uintptr_t lo = arch_uc_sp(uc), hi = arch_thread_pointer(), fp = frame_pointer(uc);
    uint32_t n = 0;
    pc[n++] = arch_uc_pc(uc) + 1;
    while (n < max && fp >= lo && fp % sizeof fp == 0 && fp < hi && hi - fp >= 16) {
        const uintptr_t *frame = (const uintptr_t *)fp;
        if (!text_is_own(frame[1]))
            break;
        pc[n++] = frame[1];
        lo = fp + 16;
        fp = frame[0];
    }
    return n;
}

static enum pseudo service_root(enum service_kind kind)
{
    return kind == SERVICE_GC ? PSEUDO_GC : kind == SERVICE_MONITOR ? PSEUDO_SCHED : PSEUDO_PROF;
}

/* The outermost frame; PSEUDO_NONE: the work is the program's, *f is whose. */
static enum pseudo whose(const struct m *m, const ucontext_t *uc, struct fiber **f)
{
    struct fiber *cur = m->blocking ? m->blocked : m->cur;
    *f = NULL;
    if (m->collects)
        return PSEUDO_GC;
    switch (walk_where(m, uc)) {
    case WALK_HOST:
        *f = (struct fiber *)&m->self;
        return PSEUDO_NONE;
    case WALK_FIBER:
        if (cur == NULL)
            return PSEUDO_SCHED; /* it is just being left */
        if (cur->flags & FIBER_SYSTEM && !(cur->flags & FIBER_THREAD))
            return PSEUDO_GC;
        *f = cur;
        return PSEUDO_NONE;
    case WALK_SCHED:
        return PSEUDO_SCHED;
    case WALK_HANDLER: /* one of the host's, or ours, in which it stands still */
        *f = load_rlx(&sched.stopping) == 0 ? cur : NULL; /* rlx: our own signal told us */
        return *f != NULL ? PSEUDO_NONE : PSEUDO_SCHED;
    case WALK_NOWHERE:
        break;
    }
    return load_rlx(&m->in_runtime) != 0 ? PSEUDO_SCHED : PSEUDO_UNKNOWN; /* rlx: our own thread's */
}

/* A signal of the host's, to the process, has come to a thread of ours. Another takes it; and here none is let in any more, not even ours, or it might
 * come back for ever. The time is told when the thread ends. */
static enum signal_whose send_on(int sig, siginfo_t *info, ucontext_t *uc)
{
    sigaddset(&uc->uc_sigmask, sig);
    sys_call3(SYS_rt_sigqueueinfo, getpid(), sig, info); /* in the handler it is blocked here */
    return SIGNAL_OURS;
}

static void take_sample(struct slot *s, uint32_t weight, const ucontext_t *uc)
{
    struct record *r = (struct record *)ring_reserve(&s->ring, RECORD_WORDS + WALK_MAX + 1);
    if (r == NULL) {
        add_rlx(&s->ring.lost, weight); /* rlx: counter */
        sampler_wake(&sampler);
        return;
    }
    struct m *m = m_self();
    struct fiber *f = NULL;
    enum pseudo root = m != NULL ? whose(m, uc, &f) : s->root != PSEUDO_UNKNOWN ? s->root : PSEUDO_SCHED;
    r->n = m != NULL ? walk_signal(m, uc, r->pc, WALK_MAX) : walk_service(uc, r->pc, WALK_MAX);
    if (root != PSEUDO_NONE)
        r->pc[r->n++] = root;
    r->time_ns = os_now_ns();
    r->weight = weight;
    r->machine = m != NULL ? m->id : 0;
    const struct p *p = m != NULL ? m->p : NULL;
    r->proc = p != NULL ? (int32_t)p->id : -1;
    r->fiber = f != NULL ? f->id : 0;
    r->labels = f != NULL ? labels_ref(f->labels) : NULL;
    ring_commit(&s->ring, RECORD_WORDS + r->n);
    if (ring_is_half_full(&s->ring))
        sampler_wake(&sampler);
}

/* The slot that a signal of ours carries; NULL: it is not ours. */
static struct slot *slot_of(const siginfo_t *info)
{
    uintptr_t at = (uintptr_t)info->si_value.sival_ptr - (uintptr_t)cpu.slots;
    bool ours = info->si_code == SI_TIMER && at < SLOTS_MAX * sizeof(struct slot) && at % sizeof(struct slot) == 0;
    return ours ? info->si_value.sival_ptr : NULL;
}

static pid_t machine_tid(const struct m *m) { return __atomic_load_n(&m->tid, __ATOMIC_RELAXED); } /* rlx: 0, or it does not change while it counts */

/* The one question to a thread. who: 0 nobody is asked; ANSWERING; else the machine. */
#define ANSWERING 1u
#define ANSWER_NS 20000000 /* a thread that does not answer for so long blocks the signal, or is not scheduled */
static struct {
    w_uptr who;  /* rel: publishes the question; acq in answer */
    w_u32 done;  /* futex; rel: publishes the answer; acq in cpu_ask */
    void (*fn)(struct m *m, const ucontext_t *uc, void *arg);
    void *arg;
} question;

static void answer(const ucontext_t *uc)
{
    struct m *m = m_self();
    if (m == NULL || !cas_acq(&question.who, (uintptr_t)m, ANSWERING)) /* acq: sees the question; rel in cpu_ask. Else it comes too late */
        return;
    question.fn(m, uc, question.arg);
    store_rel(&question.done, 1); /* rel: the answer; acq in cpu_ask */
    os_futex_wake(&question.done, 1);
}

int cpu_ask(struct m *m, void (*fn)(struct m *m, const ucontext_t *uc, void *arg), void *arg)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_QUEUE;
    info.si_value.sival_ptr = &question;
    question.fn = fn;
    question.arg = arg;
    store_rlx(&question.done, 0); /* rlx: published by who */
    store_rel(&question.who, (uintptr_t)m); /* rel: the question; acq in answer */
    bool sent = sys_call4(SYS_rt_tgsigqueueinfo, getpid(), machine_tid(m), SIGPROF, &info) == 0;
    int64_t until = os_now_ns() + ANSWER_NS, left;
    while (sent && load_acq(&question.done) == 0 && (left = until - os_now_ns()) > 0) /* acq: rel in answer */
        os_futex_wait(&question.done, 0, left);
    if (cas_acq(&question.who, (uintptr_t)m, 0)) /* nobody has begun to answer, and nobody will */
        return -EAGAIN;
    while (load_acq(&question.done) == 0) /* acq: as above */
        os_futex_wait(&question.done, 0, ANSWER_NS);
    store_rlx(&question.who, 0); /* rlx: only we ask */
    return 0;
}

static enum signal_whose on_signal(int sig, siginfo_t *info, void *uc)
{
    if (info->si_code == SI_QUEUE && info->si_value.sival_ptr == &question) {
        answer(uc);
        return SIGNAL_OURS;
    }
    struct slot *s = slot_of(info);
    if (s == NULL)
        return service_self() == NULL ? SIGNAL_HOSTS : send_on(sig, info, uc);
    uint32_t users = add_seq(&s->users, 1); /* seq: before the look at timer; partner in slots_close */
    bool counts = load_seq(&s->timer) == (uint64_t)(unsigned)info->si_timerid + 1;
    if (counts && users == 0) /* else the host has let the signal in, in a handler of its own, while we were at it */
        take_sample(s, 1 + (uint32_t)info->si_overrun, uc);
    else if (counts)
        add_rlx(&s->ring.lost, 1 + (uint32_t)info->si_overrun); /* rlx: counter */
    sub_acq_rel(&s->users, 1); /* rel: we are done with the ring; acq in slots_close */
    return SIGNAL_OURS;
}

/* ---- slots ---------------------------------------------------------------------------------------------------- */

/* As the kernel wants it: libc's own timer_create keeps more than that. */
static int timer_make(pid_t tid, void *value, uint64_t *timer)
{
    struct sigevent ev;
    int id;
    memset(&ev, 0, sizeof ev);
    ev.sigev_notify = SIGEV_THREAD_ID;
    ev.sigev_signo = SIGPROF;
    ev.sigev_value.sival_ptr = value;
    ev._sigev_un._tid = tid;
    if (fail_now(FAIL_FD))
        return -EAGAIN;
    long err = sys_call3(SYS_timer_create, (clockid_t)(~(unsigned)tid << 3 | 6), &ev, &id); /* its clock: see os/clock.c */
    if (err == 0)
        *timer = (uint64_t)(unsigned)id + 1;
    return (int)err;
}

static void timer_set(uint64_t timer, int64_t first_ns, int64_t period_ns)
{
    struct itimerspec t = { { period_ns / 1000000000, period_ns % 1000000000 }, { first_ns / 1000000000, first_ns % 1000000000 } };
    sys_call4(SYS_timer_settime, timer - 1, 0, &t, NULL);
}

static void timer_drop(struct slot *s)
{
    uint64_t timer = load_rlx(&s->timer); /* rlx: changes under cpu.lock */
    store_seq(&s->timer, 0);
    if (timer != 0)
        sys_call1(SYS_timer_delete, timer - 1);
}

static size_t slot_bytes(void) { return cpu.ring_words * WORD + RECORD_MAX_BYTES; }
static struct record *slot_last(struct slot *s) { return (struct record *)(s->ring.mem + s->ring.words); }

static struct slot *slot_take(void)
{
    struct slot *s = cpu.free >= 0 ? &cpu.slots[cpu.free] : cpu.used < SLOTS_MAX ? &cpu.slots[cpu.used] : NULL;
    uint64_t *mem = s != NULL ? off_map(OFF_PROF, slot_bytes(), 4096) : NULL;
    if (mem == NULL)
        return NULL;
    if (cpu.free >= 0)
        cpu.free = s->next_free;
    else
        cpu.used++;
    s->gone = false;
    s->ring = (struct ring){ .words = cpu.ring_words, .mem = mem };
    s->lost_told = s->ticks = 0;
    s->has_last = false;
    return s;
}

static void slot_free(struct slot *s)
{
    off_unmap(OFF_PROF, s->ring.mem, slot_bytes());
    s->ring.mem = NULL;
    s->next_free = cpu.free;
    cpu.free = (int32_t)(s - cpu.slots);
}

#define SAMPLED_NEVER UINT32_MAX /* the thread is about to end */

/* *sampled: the number of the thread's slot, from 1; 0: none. Under cpu.lock. */
static void slot_begin(w_u32 *sampled, pid_t tid, enum pseudo root)
{
    uint64_t timer = 0;
    if (!cpu.open || load_rlx(sampled) != 0 || tid == 0) /* rlx, and below: under the lock; see service.h */
        return;
    struct slot *s = slot_take();
    if (s == NULL || timer_make(tid, s, &timer) != 0) {
        if (s != NULL)
            slot_free(s);
        cpu.refused++;
        return;
    }
    int64_t first_ns = 1 + (int64_t)(rng_next(&cpu.rng) % (uint64_t)sampler.period_ns);
    s->root = root;
    s->tid = tid;
    s->first_ns = os_thread_cpu_ns(tid) + first_ns;
    store_seq(&s->timer, timer); /* rel: publishes the ring; acq in on_signal */
    timer_set(timer, first_ns, sampler.period_ns);
    store_rlx(sampled, 1 + (uint32_t)(s - cpu.slots));
}

static void slot_end(w_u32 *sampled)
{
    uint32_t n = load_rlx(sampled); /* rlx: under the lock, as below */
    if (n != 0 && n != SAMPLED_NEVER && cpu.open) {
        struct slot *s = &cpu.slots[n - 1];
        timer_drop(s);
        s->end_ns = os_self_cpu_ns();
        s->gone = true;
    }
    store_rlx(sampled, SAMPLED_NEVER);
}

/* On the thread itself. */
static void thread_here(void *arg, enum probe_id id, uintptr_t machine, uintptr_t service, uintptr_t comes)
{
    struct m *m = (struct m *)machine;
    struct service *s = (struct service *)service;
    w_u32 *sampled = m != NULL ? &m->sampled : &s->sampled;
    (void)arg, (void)id;
    lock_take(&cpu.lock);
    if (comes)
        slot_begin(sampled, m != NULL ? machine_tid(m) : (pid_t)load_rlx(&s->tid), m != NULL ? PSEUDO_UNKNOWN : service_root(s->kind)); /* rlx: its own */
    else
        slot_end(sampled);
    lock_drop(&cpu.lock);
}

static void look_at_service(struct service *s, void *arg)
{
    (void)arg;
    slot_begin(&s->sampled, (pid_t)service_tid(s), service_root(s->kind)); /* anew: it may have ended, and its place be another's */
}

/* All that have no slot. Who comes after the probe was listened to tells us himself, or is seen here: the fence orders our listening before our look,
 * and there his being known before his look whether anybody listens. */
static void threads_look(void)
{
    world_fence();
    lock_take(&sched.lock); /* no record of a machine is cleared meanwhile */
    lock_take(&cpu.lock);
    cpu.refused = 0;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: sees the machine; rel in m_publish_locked */
        if (load_acq(&m->dead) == M_ALIVE) /* acq: as above */
            slot_begin(&m->sampled, machine_tid(m), PSEUDO_UNKNOWN);
    services_each(look_at_service, NULL);
    cpu.refused_max = w_max(cpu.refused_max, cpu.refused);
    lock_drop(&cpu.lock);
    lock_drop(&sched.lock);
}

static void unsample_service(struct service *s, void *arg) { (void)arg, store_rlx(&s->sampled, 0); } /* rlx: as above */

/* Nobody is sampled any more. Machines that have ended keep the number of a slot: a record is cleared before it is used again. */
static void slots_close(void)
{
    services_let_in(false);
    lock_take(&sched.lock); /* as in threads_look */
    lock_take(&cpu.lock);
    cpu.open = false;
    for (struct slot *s = cpu.slots; s < cpu.slots + cpu.used; s++) {
        if (load_rlx(&s->timer) != 0) /* rlx: under the lock */
            s->end_ns = os_thread_cpu_ns(s->tid);
        timer_drop(s);
    }
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: as above */
        store_rlx(&m->sampled, 0); /* rlx: under the lock, or alone */
    services_each(unsample_service, NULL);
    lock_drop(&cpu.lock);
    lock_drop(&sched.lock);
    for (struct slot *s = cpu.slots; s < cpu.slots + cpu.used; s++)
        for (unsigned looks = 0; load_seq(&s->users) != 0; looks++) /* seq: after timer = 0; and acq: rel in on_signal */
            backoff(looks);
}

/* ---- draining ---------------------------------------------------------------------------------------------------- */

static void give_away(const struct record *r)
{
    struct cpu_sample c = { r->time_ns, r->fiber, r->machine, r->proc, r->weight, r->n, r->pc };
    pthread_mutex_lock(&cpu.listen);
    if (cpu.listener != NULL)
        cpu.listener(cpu.listener_arg, &c);
    pthread_mutex_unlock(&cpu.listen);
}

void cpu_sample_listen(cpu_sample_fn *fn, void *arg)
{
    pthread_mutex_lock(&cpu.listen);
    cpu.listener = fn;
    cpu.listener_arg = arg;
    pthread_mutex_unlock(&cpu.listen);
}

static bool is_open(void)
{
    lock_take(&cpu.lock);
    bool open = cpu.open;
    lock_drop(&cpu.lock);
    return open;
}

void cpu_samples_now(int64_t patience_ns)
{
    uint32_t seen = load_acq(&cpu.rounds), now = seen; /* acq: rel in cpu_round */
    int64_t deadline = os_now_ns() + patience_ns;
    while (now - seen < 2 && is_open() && os_now_ns() < deadline) { /* the first one may have looked already */
        sampler_wake(&sampler);
        os_futex_wait(&cpu.rounds, now, patience_ns / 4);
        now = load_acq(&cpu.rounds);
    }
}

static void add_record(const struct record *r)
{
    struct pprof_label label[WEFT_LABELS_MAX];
    uint32_t labels = r->labels != NULL ? r->labels->n : 0;
    for (uint32_t i = 0; i < labels; i++)
        label[i] = (struct pprof_label){ .key = r->labels->at[i].key, .text = r->labels->at[i].value };
    live_add(sampler.live, r->pc, r->n, (int64_t[]){ r->weight, r->weight * sampler.period_ns }, label, labels);
}

static void last_drop(struct slot *s)
{
    if (s->has_last)
        labels_unref(slot_last(s)->labels);
    s->has_last = false;
}

static void last_keep(struct slot *s, const struct record *r)
{
    last_drop(s);
    memcpy(slot_last(s), r, sizeof *r + r->n * sizeof r->pc[0]);
    s->has_last = true;
}

/* tell: false: they are dropped. */
static void drain(struct slot *s, bool tell)
{
    const uint64_t *at;
    while ((at = ring_next(&s->ring)) != NULL) {
        const struct record *r = (const struct record *)at;
        if (tell) {
            add_record(r);
            give_away(r);
        }
        s->ticks += r->weight;
        last_keep(s, r); /* its reference goes along */
        ring_done(&s->ring);
    }
}

/* The thread is sampled no more, and its ring is empty. */
static void settle(struct slot *s)
{
    int64_t due = s->end_ns < s->first_ns ? 0 : (s->end_ns - s->first_ns) / sampler.period_ns + 1, owed = due - (int64_t)s->ticks;
    if (owed > 0) {
        struct record *r = slot_last(s);
        if (!s->has_last) {
            *r = (struct record){ .n = 1, .proc = -1 };
            r->pc[0] = s->root;
        }
        s->has_last = true;
        r->weight = (uint32_t)owed;
        add_record(r);
    }
}

static void drain_all(void)
{
    lock_take(&cpu.lock);
    uint32_t used = cpu.used;
    lock_drop(&cpu.lock);
    for (struct slot *s = cpu.slots; s < cpu.slots + used; s++) {
        lock_take(&cpu.lock);
        bool there = s->ring.mem != NULL, gone = s->gone; /* gone: before the last record is looked for */
        lock_drop(&cpu.lock);
        if (!there)
            continue;
        drain(s, true);
        uint64_t lost = load_rlx(&s->ring.lost); /* rlx: counter */
        live_add(sampler.live, NULL, 0, (int64_t[]){ (int64_t)(lost - s->lost_told) }, NULL, 0);
        s->ticks += lost - s->lost_told;
        s->lost_told = lost;
        if (gone) {
            settle(s);
            last_drop(s);
            lock_take(&cpu.lock);
            slot_free(s);
            lock_drop(&cpu.lock);
        }
    }
}

static void slots_free(void)
{
    for (struct slot *s = cpu.slots; s < cpu.slots + cpu.used; s++) {
        store_rlx(&s->timer, 0); /* rlx: nobody else uses them, and below */
        store_rlx(&s->users, 0);
        if (s->ring.mem != NULL) {
            drain(s, false);
            last_drop(s);
            off_unmap(OFF_PROF, s->ring.mem, slot_bytes());
            s->ring.mem = NULL;
        }
    }
    cpu.used = 0;
    cpu.free = -1;
}

/* ---- begin, round, end ---------------------------------------------------------------------------------------------- */

static int hook_locked(void)
{
    if (cpu.hooked)
        return signal_to_front(SIGPROF);
    if (cpu.slots == NULL)
        cpu.slots = off_map(OFF_SCHED, SLOTS_MAX * sizeof(struct slot), 4096);
    int err = cpu.slots == NULL ? -ENOMEM : signal_hook(SIGPROF, on_signal, false);
    cpu.hooked = err == 0;
    return err;
}

int cpu_ask_begin(void)
{
    pthread_mutex_lock(&cpu.hook);
    int err = hook_locked();
    pthread_mutex_unlock(&cpu.hook);
    return err;
}


static uint32_t ring_words(int64_t period_ns)
{
    uint64_t words = (uint64_t)(RING_NS / period_ns) * (RECORD_WORDS + WALK_MAX + 1), size = 1024;
    while (size < words)
        size *= 2;
    return (uint32_t)size;
}

static void cpu_undo(struct sampler *s)
{
    (void)s;
    probe_unlisten(thread_here, NULL);
    slots_close();
    slots_free();
}

static int cpu_begin(struct sampler *s)
{
    int err = cpu_ask_begin();
    if (err != 0)
        return err;
    cpu.ring_words = ring_words(s->period_ns);
    cpu.refused_max = 0;
    cpu.look_ns = 0;
    rng_seed(&cpu.rng, (uint64_t)os_now_ns());
    cpu.open = true;
    services_let_in(true);
    err = probe_listen(1ull << PROBE_thread_here, thread_here, NULL);
    if (err == 0) {
        threads_look();
    } else {
        services_let_in(false);
        cpu.open = false; /* nobody has been told of it */
    }
    return err;
}

static int64_t cpu_round(struct sampler *s, int64_t now_ns)
{
    (void)s;
    drain_all();
    if (now_ns >= cpu.look_ns) {
        cpu_ask_begin(); /* a host that has installed a handler meanwhile gets what is its own, by way of ours */
        threads_look();
        cpu.look_ns = now_ns + 1000000000;
    }
    add_acq_rel(&cpu.rounds, 1); /* rel: they have been given away; acq in cpu_samples_now */
    os_futex_wake(&cpu.rounds, 1 << 30);
    return now_ns + DRAIN_NS;
}

static const char *cpu_end(struct sampler *s)
{
    static char remark[160];
    (void)s;
    probe_unlisten(thread_here, NULL);
    slots_close();
    drain_all();
    for (struct slot *t = cpu.slots; t < cpu.slots + cpu.used; t++)
        if (t->ring.mem != NULL)
            settle(t);
    if (cpu.refused_max == 0)
        return NULL;
    w_fmt(remark, sizeof remark, "weft: up to %u threads at a time were not sampled, for want of timers (RLIMIT_SIGPENDING) or memory",
          cpu.refused_max);
    return remark;
}

static void cpu_freed(struct sampler *s) { (void)s, slots_free(); }

/* Timers are not inherited. Threads are sampled anew, if there is to be one here. */
static void cpu_forked(struct sampler *s)
{
    (void)s;
    lock_init(&cpu.lock, RANK_LEAF);
    cpu.hook = cpu.listen = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    cpu.listener = NULL;
    cpu.open = false;
    probe_unlisten(thread_here, NULL);
    for (uint32_t i = 0; i < cpu.used; i++)
        cpu.slots[i] = (struct slot){ 0 };
    cpu.used = 0;
    cpu.free = -1;
    for (struct m *m = load_acq(&sched.all_m); m != NULL; m = m->all_next) /* acq: as in threads_look */
        store_rlx(&m->sampled, 0); /* rlx: under the lock, or alone */
}

static void cpu_gone(struct sampler *s)
{
    (void)s;
    if (cpu.hooked)
        signal_unhook(SIGPROF);
    cpu.hooked = false;
}

static struct sampler sampler = { .what = "CPU profile", .value = { { "samples", "count" }, { "cpu", "nanoseconds" } },
                                  .period_type = { "cpu", "nanoseconds" }, .hz = 100, .begin = cpu_begin, .undo = cpu_undo, .round = cpu_round,
                                  .end = cpu_end, .freed = cpu_freed, .forked = cpu_forked, .gone = cpu_gone };

static void __attribute__((constructor)) cpu_init(void) { sampler_add(&sampler); }

/* ---- the public side ------------------------------------------------------------------------------------------------ */

static int start(weft_writer *w, void *ctx, const char *path, const weft_cpu_profile_opts *opts)
{
    static const weft_cpu_profile_opts none = WEFT_CPU_PROFILE_OPTS_INIT;
    const weft_cpu_profile_opts *o = opts != NULL ? opts : &none;
    struct sampler_opts checked;
    if (o->size != sizeof *o ||
        sampler_opts(&checked, o->hz, o->flush_ms, o->max_bytes, o->max_ns, o->unlimited, o->closed, o->closed_arg) != 0)
        return -EINVAL;
    return sampler_start(&sampler, &checked, w, ctx, path);
}

int weft_cpu_profile_start(weft_writer *w, void *ctx, const weft_cpu_profile_opts *opts) { return start(w, ctx, NULL, opts); }
int weft_cpu_profile_start_file(const char *path, const weft_cpu_profile_opts *opts) { return start(NULL, NULL, path, opts); }
int weft_cpu_profile_stop(void) { return sampler_stop(&sampler); }
