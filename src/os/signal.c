/* Signal handlers that share. */
#include "os/signal.h"
#include "base/atomic.h"
#include <errno.h>
#include <string.h>

static struct {
    W_PTR(void) fn;         /* signal_fn; rel: publishes old; acq in dispatch */
    struct sigaction old;
} hooks[65];

/* What would have happened without us. */
static void pass_on(int sig, siginfo_t *info, void *uc)
{
    struct sigaction *old = &hooks[sig].old;
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(sig, info, uc);
    } else if (old->sa_handler == SIG_DFL) {
        if (sig == SIGURG || sig == SIGCHLD || sig == SIGWINCH || sig == SIGCONT)
            return;
        /* The default action happens when the instruction faults again, or the raised signal is unblocked. */
        struct sigaction dfl;
        memset(&dfl, 0, sizeof dfl);
        dfl.sa_handler = SIG_DFL;
        sigaction(sig, &dfl, NULL);
        if (info->si_code <= 0)
            raise(sig);
    } else if (old->sa_handler != SIG_IGN) {
        old->sa_handler(sig);
    }
}

static void dispatch(int sig, siginfo_t *info, void *uc)
{
    int err = errno;
    signal_fn *fn = (signal_fn *)load_acq(&hooks[sig].fn); /* acq: sees old; rel in signal_hook */
    if (fn == NULL || !fn(sig, info, uc))
        pass_on(sig, info, uc);
    errno = err;
}

int signal_hook(int sig, signal_fn *fn)
{
    if (sig < 1 || sig > 64)
        return -EINVAL;
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = dispatch;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigfillset(&sa.sa_mask);
    if (sigaction(sig, NULL, &hooks[sig].old) != 0)
        return -errno;
    store_rel(&hooks[sig].fn, (void *)fn); /* rel: publishes old; acq in dispatch */
    if (sigaction(sig, &sa, NULL) != 0) {
        store_rel(&hooks[sig].fn, NULL);
        return -errno;
    }
    return 0;
}

void signal_unhook(int sig)
{
    struct sigaction now;
    if (sigaction(sig, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == dispatch)
        sigaction(sig, &hooks[sig].old, NULL);
    store_rel(&hooks[sig].fn, NULL);
}
