/* When the process crashes, the last seconds of the trace are what one wants, and nobody is left to ask for them. So the host opens a file beforehand,
 * and the handler of the signal writes there.
 *
 * It may have interrupted anything: malloc, this library, the switcher. It takes no lock and no memory, and waits for nobody without a limit. What is
 * kept it reads by [PEEK]; the generation under way it ends by [TURN], if it can. Then it writes with write(2), nothing else:
 *
 *      header | kept generations | the generation under way
 *
 * Does the latter not follow the former (one is missing in between), the latter goes alone: it has the crash in it. Nothing is symbolised in a handler;
 * but most of what runs now has run before, so names come from the tables of stacks of what is kept (names.c), and otherwise addresses are shown.
 *
 * SIGSEGV and SIGBUS are the runtime's already (it looks for overflows of stacks), which says when one is not (sched_reports.fault). For the others
 * handlers are installed in front of the host's, as long as this is wanted. What is written once is not written again: a process that lives on after
 * such a signal, because a handler of its own sees to that, has had its turn. */
#include "trace/crash.h"
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include "base/atomic.h"
#include "base/base.h"
#include "base/syscall.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/signal.h"
#include "sched/report.h"
#include "trace/names.h"
#include "trace/ring.h"

#define PATIENCE_NS 1000000000 /* for the generation before to be finished, and a tenth of that for the one under way to end */
#define WRITING_NS 10000000000 /* for another thread that is writing */

static const int signals[] = { SIGABRT, SIGILL, SIGFPE };

enum { DISARMED, ARMED, WRITING, WRITTEN };
static struct {
    w_u32 state; /* futex */
    int fd;      /* fixed while armed */
} crash;

static int write_fd(void *ctx, const void *data, size_t n)
{
    (void)ctx;
    for (const char *p = data; n > 0;) {
        long w = sys_call3(SYS_write, crash.fd, (long)p, (long)n);
        if (w == -EINTR)
            continue;
        if (w <= 0)
            return w < 0 ? (int)w : -EIO;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

static int write_header(void)
{
    uint8_t header[TRACE_HEADER_BYTES];
    trace_put_header(header);
    return write_fd(NULL, header, sizeof header);
}

/* The generation `taken` behind what is kept, if it follows that; else alone. */
static void write_with_current(const struct ring_view *v, uint32_t taken)
{
    struct trace_symbols names = { .frames = names_frames_sigsafe, .arg = (void *)v };
    struct trace_buf *bufs = trace_assemble_sigsafe(taken, v != NULL ? &names : NULL);
    uint64_t bytes = 0;
    bool follows = v != NULL && (bufs == NULL || ring_number(v, v->n - 1) + 1 == taken);
    int err = follows ? ring_write(v, write_fd, NULL, &bytes) : write_header();
    for (const struct trace_buf *b = bufs; b != NULL && err == 0; b = b->next)
        err = write_fd(NULL, b->data, b->len);
    trace_bufs_free(bufs);
}

static void save(void)
{
    uint64_t bytes = 0;
    uint32_t taken = trace_take_sigsafe(PATIENCE_NS);
    const struct ring_view *v = ring_peek_sigsafe();
    if (taken != 0) {
        write_with_current(v, taken);
        trace_give_sigsafe();
    } else if (v != NULL)
        (void)ring_write(v, write_fd, NULL, &bytes);
    else
        (void)write_header();
    if (v != NULL)
        ring_unpeek_sigsafe();
}

static void crashed(void)
{
    static __thread bool inside __attribute__((tls_model("initial-exec")));
    if (inside) /* a crash in what is below */
        return;
    inside = true;
    if (cas_acq(&crash.state, ARMED, WRITING)) { /* acq: sees fd; rel in crash_arm */
        save();
        store_rel(&crash.state, WRITTEN); /* rel: it is written; acq below */
        os_futex_wake(&crash.state, INT32_MAX);
    }
    int64_t deadline = os_now_ns() + WRITING_NS; /* another thread's is being written: ours must not end the process under it */
    while (load_acq(&crash.state) == WRITING && os_now_ns() < deadline) /* acq: rel above */
        os_futex_wait(&crash.state, WRITING, 100000000);
    inside = false;
}

static enum signal_whose handler(int sig, siginfo_t *info, void *uc)
{
    (void)sig;
    (void)info;
    (void)uc;
    crashed();
    return SIGNAL_HOSTS;
}

static void unhook(unsigned n)
{
    while (n > 0)
        signal_unhook(signals[--n]);
}

int crash_arm(int fd)
{
    crash.fd = fd;
    for (unsigned i = 0; i < w_countof(signals); i++) {
        int err = signal_hook(signals[i], handler, false);
        if (err != 0) {
            unhook(i);
            return err;
        }
    }
    store_rel(&crash.state, ARMED); /* rel: publishes fd; acq in crashed */
    return 0;
}

void crash_disarm(void)
{
    uint32_t s = load_rlx(&crash.state); /* rlx: only we arm and disarm it */
    if (s == DISARMED)
        return;
    while (!cas_acq(&crash.state, ARMED, DISARMED) && !cas_acq(&crash.state, WRITTEN, DISARMED)) /* acq: rel in crashed */
        os_futex_wait(&crash.state, WRITING, -1);
    unhook(w_countof(signals));
}

void crash_after_fork(void)
{
    if (load_rlx(&crash.state) == DISARMED) /* rlx, and below: nobody else runs */
        return;
    store_rlx(&crash.state, DISARMED);
    unhook(w_countof(signals));
}

static __attribute__((constructor)) void crash_init(void) { sched_reports.fault = crashed; }
