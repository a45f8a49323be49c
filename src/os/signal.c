/* Signal handlers that share.
 *
 * Ours is called by the kernel and passes on to the one that was there before; or the host has put its own in front later, and that one calls ours. When the runtime
 * ends and the host's is in front, ours stays behind it, idle. So over several lives of the runtime the two may alternate:
 *
 *     kernel -> ours -> host's second -> ours -> host's first
 *
 * It is one function each time, hence `old` is a stack of what was found, and a call that comes from within a call for the same signal passes on one further down. */
#include "os/signal.h"
#include "base/atomic.h"
#include "base/base.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>

#define OLD_MAX 8u

static struct hook {
    W_PTR(void) fn;                 /* signal_fn; NULL: the runtime does not run */
    struct sigaction old[OLD_MAX];  /* the last is the newest */
    w_u32 nold;                     /* rel: publishes old; acq in pass_on */
    bool undisturbed;
} hooks[65];

/* The call of dispatch that this thread is in, if it is in one: the handler it calls may leave it by siglongjmp. Then the next signal finds the same context again at the
 * same place of the alternate stack, but not below this frame. */
static __thread struct { void *uc; uintptr_t frame; unsigned level; } passing __attribute__((tls_model("initial-exec"))); /* nothing is allocated for it in a handler */

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

/* What would have happened without us. */
static void pass_on(int sig, siginfo_t *info, void *uc, unsigned level, enum signal_whose whose)
{
    uint32_t n = load_acq(&hooks[sig].nold); /* acq: sees old; rel in signal_hook */
    struct sigaction none = { .sa_handler = SIG_DFL }, *old = level < n ? &hooks[sig].old[n - 1 - level] : &none, now = *old;
    if (!(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) {
        if (now.sa_handler == SIG_DFL && whose == SIGNAL_HOSTS)
            default_action(sig, info);
        return;
    }
    if (now.sa_flags & (int)SA_RESETHAND)
        *old = none;
    struct sigaction front;
    if (level == 0 && sigaction(sig, NULL, &front) == 0 && is_ours(&front)) /* else a handler of the host's has called us: the mask is its affair */
        block_as_wanted(sig, &now);
    if (now.sa_flags & SA_SIGINFO)
        now.sa_sigaction(sig, info, uc);
    else
        now.sa_handler(sig);
}

static void dispatch(int sig, siginfo_t *info, void *uc)
{
    int err = errno;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    __typeof__(passing) outer = passing;
    unsigned level = outer.uc == uc && here < outer.frame ? outer.level + 1 : 0;
    signal_fn *fn = level == 0 ? (signal_fn *)load_acq(&hooks[sig].fn) : NULL; /* acq: rel in signal_hook */
    enum signal_whose whose = fn != NULL ? fn(sig, info, uc) : SIGNAL_HOSTS;
    if (whose != SIGNAL_OURS) {
        passing.uc = uc;
        passing.frame = here;
        passing.level = level;
        pass_on(sig, info, uc, level, whose);
        passing = outer;
    }
    errno = err;
}

static void remember(struct hook *h, const struct sigaction *found)
{
    uint32_t n = load_rlx(&h->nold); /* rlx: only one thread starts the runtime, or stops the world */
    if (n != 0 && found->sa_sigaction == h->old[n - 1].sa_sigaction && found->sa_flags == h->old[n - 1].sa_flags)
        return;
    if (n == OLD_MAX) {
        memmove(&h->old[0], &h->old[1], (OLD_MAX - 1) * sizeof h->old[0]);
        n--;
    }
    h->old[n] = *found;
    store_rel(&h->nold, n + 1); /* rel: publishes old; acq in pass_on */
}

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
    return sigaction(sig, &sa, NULL) == 0 ? 0 : -errno;
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
    struct sigaction now;
    uint32_t n = load_rlx(&h->nold); /* rlx: as in remember */
    if (n != 0 && sigaction(sig, NULL, &now) == 0 && is_ours(&now)) {
        sigaction(sig, &h->old[n - 1], NULL);
        store_rel(&h->nold, n - 1); /* rel: as above */
    }
    store_rel(&h->fn, NULL);
}
