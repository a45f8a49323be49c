/* Signal handlers that share.
 *
 * Ours is called by the kernel and passes on to the one that was there before; or the host has put its own in front later, and that one calls ours.
 * When the runtime ends and the host's is in front, ours stays behind it, idle. So over several lives of the runtime the two may alternate:
 *
 *     kernel -> ours -> host's second -> ours -> host's first
 *
 * It is one function each time, hence what was found is kept as a chain, and a call that comes from within a call for the same signal passes on to
 * who comes after the one that was called. A host that installs again what is in the chain already means it to be in front; more than eight are not
 * remembered, the oldest is forgotten.
 *
 * [HANDLERS] Handlers read the chain on any thread, at any time, while another thread changes it, and wait for nobody: who changes it may stand
 * still (a fork can lose him altogether), and who reads it may be stopped by him. So the chain is one word: eight numbers of records, the newest
 * lowest, 0 for the end, and above them a count of changes. There are nine records, so one is not in the chain, and only such a one is written. Who
 * reads
 *
 *      the word, a record's fields, the word again
 *
 * and finds the word unchanged has read what was written at once: the record was in the chain all the time. Else he begins anew, at most once for
 * each change. What he holds is a copy, so a handler that has been called may take as long as it likes, or never return. One writer at a time: who
 * starts, stops the world, or ends. */
#include "os/signal.h"
#include "base/atomic.h"
#include "base/base.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>

#define CHAIN_MAX 8u
#define CHAIN_BITS 4u
#define CHAIN_MASK ((1u << CHAIN_BITS) - 1)

/* A handler of the host's. Each field is written once for each number that id gets. */
struct found {
    w_uptr fn;      /* sa_handler or sa_sigaction */
    w_u64 mask;     /* the kernel's 64 signals */
    w_u32 flags;
    w_u32 id;       /* no two have the same */
    w_u32 spent;    /* the id that it had when it was called, if it is for one call only (SA_RESETHAND) */
};

static struct hook {
    W_PTR(void) fn;                     /* signal_fn; NULL: the runtime does not run */
    w_u64 chain;                        /* rel: publishes the records; acq in chain_read */
    struct found found[CHAIN_MAX + 2];  /* 0: the end, as SIG_DFL */
    bool undisturbed;
} hooks[65];

/* The call of dispatch that this thread is in, if it is in one: the handler it calls may leave it by siglongjmp. Then the next signal finds the same
 * context again at the same place of the alternate stack, but not below this frame. Initial-exec: nothing is allocated for it in a handler. */
static __thread struct passing { void *uc; uintptr_t frame; uint32_t called; } passing __attribute__((tls_model("initial-exec")));

static void default_action(int sig, siginfo_t *info)
{
    if (sig == SIGURG || sig == SIGCHLD || sig == SIGWINCH || sig == SIGCONT)
        return;
    /* It happens when the instruction faults again, or the raised signal is unblocked. */
    struct sigaction dfl;
    memset(&dfl, 0, sizeof dfl);
    dfl.sa_handler = SIG_DFL;
    sigaction(sig, &dfl, NULL);
    if (info->si_code <= 0)
        raise(sig);
}

static void dispatch(int sig, siginfo_t *info, void *uc);

static bool is_ours(const struct sigaction *sa)
{
    return (sa->sa_flags & SA_SIGINFO) && sa->sa_sigaction == dispatch;
}

/* What the kernel would have made of the mask for this handler, had it called it. */
static void block_as_wanted(int sig, const struct sigaction *sa)
{
    pthread_sigmask(SIG_BLOCK, &sa->sa_mask, NULL);
    if (sa->sa_flags & SA_NODEFER) {
        sigset_t own;
        sigemptyset(&own);
        sigaddset(&own, sig);
        pthread_sigmask(SIG_UNBLOCK, &own, NULL);
    }
}

/* ---- the chain ---------------------------------------------------------------------------------------------- */

static unsigned chain_first(uint64_t chain) { return chain & CHAIN_MASK; }
static uint32_t chain_records(uint64_t chain) { return (uint32_t)chain; }

/* The kernel's part of a set. */
static uint64_t mask_of(const sigset_t *set)
{
    uint64_t mask;
    memcpy(&mask, set, sizeof mask);
    return mask;
}

static void read_found(struct found *from, struct sigaction *to)
{
    uint64_t mask = load_acq(&from->mask); /* acq, and below: before the second look at the chain; rel in remember */
    memset(to, 0, sizeof *to);
    to->sa_sigaction = (void (*)(int, siginfo_t *, void *))load_acq(&from->fn);
    to->sa_flags = (int)load_acq(&from->flags);
    memcpy(&to->sa_mask, &mask, sizeof mask);
}

/* Who comes after the one with that id. If that has gone meanwhile, its place was in front. */
static unsigned chain_after(struct hook *h, uint64_t chain, uint32_t id)
{
    for (uint32_t rest = chain_records(chain); rest != 0; rest >>= CHAIN_BITS)
        if (load_acq(&h->found[rest & CHAIN_MASK].id) == id) /* acq: as in read_found */
            return rest >> CHAIN_BITS & CHAIN_MASK;
    return chain_first(chain);
}

/* The handler that comes after the one called before (0: the first one), and its id; as SIG_DFL at the end. */
static uint32_t chain_read(struct hook *h, uint32_t before, struct sigaction *to)
{
    for (;;) {
        uint64_t chain = load_acq(&h->chain); /* acq: sees the records; rel in chain_set */
        unsigned i = before == 0 ? chain_first(chain) : chain_after(h, chain, before);
        struct found *f = &h->found[i];
        uint32_t id = load_acq(&f->id); /* acq: as in read_found */
        read_found(f, to);
        if (load_rlx(&h->chain) != chain) /* rlx: after what was read, which is acq */
            continue;
        if (!(to->sa_flags & (int)SA_RESETHAND))
            return id;
        uint32_t spent = load_rlx(&f->spent); /* rlx: only who sets it has the call, and below */
        if (spent == id) {
            *to = (struct sigaction){ .sa_handler = SIG_DFL };
            return id;
        }
        if (cas_rlx(&f->spent, spent, id))
            return id;
    }
}

static void chain_set(struct hook *h, uint32_t records)
{
    uint64_t changes = (load_rlx(&h->chain) >> 32) + 1; /* rlx: one writer, and below */
    store_rel(&h->chain, changes << 32 | records); /* rel: publishes the records; acq in chain_read */
}

static bool has(uint32_t records, unsigned i)
{
    while (records != 0 && (records & CHAIN_MASK) != i)
        records >>= CHAIN_BITS;
    return records != 0;
}

static uint32_t without_fn(struct hook *h, uint32_t records, uintptr_t fn)
{
    uint32_t kept = 0;
    for (unsigned to = 0; records != 0; records >>= CHAIN_BITS)
        if (load_rlx(&h->found[records & CHAIN_MASK].fn) != fn) { /* rlx: one writer, and below */
            kept |= (records & CHAIN_MASK) << to;
            to += CHAIN_BITS;
        }
    return kept;
}

static bool is_spent(struct found *f) { return load_rlx(&f->spent) == load_rlx(&f->id); } /* rlx: it may become so at any time */

static bool is_as_found(struct found *f, const struct sigaction *sa)
{
    return load_rlx(&f->fn) == (uintptr_t)sa->sa_sigaction && load_rlx(&f->flags) == (uint32_t)sa->sa_flags &&
           load_rlx(&f->mask) == mask_of(&sa->sa_mask) && !is_spent(f);
}

/* To the front of the chain. */
static void remember(struct hook *h, const struct sigaction *sa)
{
    uint32_t records = chain_records(load_rlx(&h->chain)); /* rlx: one writer */
    if (records != 0 && is_as_found(&h->found[chain_first(records)], sa))
        return;
    unsigned i = 1;
    while (has(records, i))
        i++;
    struct found *f = &h->found[i];
    store_rel(&f->id, (uint32_t)(load_rlx(&h->chain) >> 32) + 1); /* rel, and below: after i has left the chain; acq in read_found */
    store_rel(&f->fn, (uintptr_t)sa->sa_sigaction);
    store_rel(&f->flags, (uint32_t)sa->sa_flags);
    store_rel(&f->mask, mask_of(&sa->sa_mask));
    chain_set(h, without_fn(h, records, (uintptr_t)sa->sa_sigaction) << CHAIN_BITS | i); /* the oldest of eight goes */
}

/* ---- handlers ------------------------------------------------------------------------------------------------- */

/* What would have happened without us, in a call of dispatch with that frame. before: whom this thread has called already for this signal, who has
 * called us again; 0: nobody. */
static void pass_on(int sig, siginfo_t *info, void *uc, uintptr_t frame, uint32_t before, enum signal_whose whose)
{
    struct sigaction now, front;
    uint32_t called = chain_read(&hooks[sig], before, &now);
    if (!(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) {
        if (now.sa_handler == SIG_DFL && whose == SIGNAL_HOSTS)
            default_action(sig, info);
        return;
    }
    if (before == 0 && sigaction(sig, NULL, &front) == 0 && is_ours(&front)) /* else a handler of the host's has called us: the mask is its affair */
        block_as_wanted(sig, &now);
    struct passing outer = passing;
    passing = (struct passing){ uc, frame, called };
    if (now.sa_flags & SA_SIGINFO)
        now.sa_sigaction(sig, info, uc);
    else
        now.sa_handler(sig);
    passing = outer;
}

static void dispatch(int sig, siginfo_t *info, void *uc)
{
    int err = errno;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uint32_t before = passing.uc == uc && here < passing.frame ? passing.called : 0;
    signal_fn *fn = before == 0 ? (signal_fn *)load_acq(&hooks[sig].fn) : NULL; /* acq: rel in signal_hook */
    enum signal_whose whose = fn != NULL ? fn(sig, info, uc) : SIGNAL_HOSTS;
    if (whose != SIGNAL_OURS)
        pass_on(sig, info, uc, here, before, whose);
    errno = err;
}

/* ---- front and back ------------------------------------------------------------------------------------------- */

int signal_to_front(int sig)
{
    struct sigaction sa, found;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = dispatch;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    (hooks[sig].undisturbed ? sigfillset : sigemptyset)(&sa.sa_mask);
    if (sigaction(sig, NULL, &found) != 0)
        return -errno;
    if (!is_ours(&found)) /* else the host has put back what it had found in an earlier life: what is behind us we know */
        remember(&hooks[sig], &found);
    if (sigaction(sig, &sa, &found) != 0)
        return -errno;
    if (!is_ours(&found)) /* mostly the same; or one that the host has installed meanwhile */
        remember(&hooks[sig], &found);
    return 0;
}

int signal_hook(int sig, signal_fn *fn, bool undisturbed)
{
    if (sig < 1 || sig > 64)
        return -EINVAL;
    store_rel(&hooks[sig].fn, (void *)fn); /* rel: publishes what fn needs; acq in dispatch */
    hooks[sig].undisturbed = undisturbed;
    int err = signal_to_front(sig);
    if (err != 0)
        store_rel(&hooks[sig].fn, NULL);
    return err;
}

void signal_unhook(int sig)
{
    struct hook *h = &hooks[sig];
    struct sigaction now, old = { .sa_handler = SIG_DFL };
    uint32_t records = chain_records(load_rlx(&h->chain)); /* rlx: one writer */
    if (records != 0 && sigaction(sig, NULL, &now) == 0 && is_ours(&now)) {
        struct found *f = &h->found[chain_first(records)];
        if (!is_spent(f))
            read_found(f, &old);
        struct sigaction ignore = { .sa_handler = SIG_IGN };
        if (old.sa_handler == SIG_DFL && !(old.sa_flags & SA_SIGINFO))
            sigaction(sig, &ignore, NULL); /* what is pending of ours goes with it; it would end the program */
        sigaction(sig, &old, NULL);
        chain_set(h, records >> CHAIN_BITS);
    }
    store_rel(&h->fn, NULL);
}
