/* The server's thread, connections, and the server's life.
 *
 * One thread of the server's, a stranger to the runtime (it never calls what would attach it, so no stop and no collection holds it up), does all that
 * has to do with connections: accepts, drives libmicrohttpd (which is not thread-safe here, nor needs to be), checks who asks, refuses, sends. What a route answers is
 * made on a thread of the request's own, the worker (request.c), which may wait for the runtime as long as it likes; meanwhile its connection is suspended
 * (libmicrohttpd does not look at it) and watched here for a client that goes away.
 *
 *      accept -> HEADER -> request is complete and may be: WORK (worker starts, suspended) -> first bytes, or the end: ANSWER -> HEADER ...
 *                       -> refused: ANSWER
 *
 * Bounds, whoever asks for whatever:
 *   - connections: for one too many, that which has been in HEADER longest is closed, so a thousand that send a byte a second keep nobody out who sends
 *     a request; if all are at work, the new one gets 503. Likewise per address.
 *   - a request must be complete header_ms after the last one (or the connection) began; 24 KiB of header, BODY_MAX of body.
 *   - in ANSWER something must be taken every STALLED_NS.
 *   - workers: as many as connections; one whose client has gone counts until it has ended.
 *
 * [CONNS] The list of connections is the thread's own, but that a fork must find it whole, to close the descriptors in the child: changes are made under
 * conns_lock, which the handler of the fork takes. Nobody holds it for longer than a system call, and never within weft.
 *
 * The runtime may end while requests are under way. None may hold it up: the thread looks ten times a second, while there are workers, whether it still
 * runs, and makes those come back that began while it did (GONE_NOW).
 *
 * A client that closes its side (FIN) may still read, or may be gone; as in Go, what it asked for is cut short, and sent. If nobody is there, the kernel
 * says so then. */
#include "debug/serve/server.h"
#include "debug/serve/clock.h"
#include <errno.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <weft/sched.h>

#define STALLED_NS INT64_C(30000000000)
#define LOOK_MS 100
#define SWEEP_MS 250
#define STACK_BYTES (512u << 10)

static __thread const weft_debug_server *of_server; /* whose thread this is */
void server_own_thread(const weft_debug_server *s) { of_server = s; }
bool server_is_mine(const weft_debug_server *s) { return of_server == s; }

void server_wake(weft_debug_server *s)
{
    uint64_t one = 1;
    while (write(s->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void server_log(const weft_debug_server *s, const char *fmt, ...)
{
    char line[700];
    va_list args;
    va_start(args, fmt);
    int n = snprintf(line, sizeof line, "weft-debug: ");
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, args);
    va_end(args);
    if (s->set.log != NULL)
        s->set.log(s->set.log_arg, line);
    else
        fprintf(stderr, "%s\n", line);
}

/* All signals stay with the host's threads, but those that a thread gets for what it does itself. (Attaching to the runtime unblocks what that needs.) */
int server_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    sigset_t mask, old;
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);
    if (err != 0)
        return err;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&mask);
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&mask, own[i]);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    err = pthread_create(thread, &attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return err;
}

/* ---- its beginning ---------------------------------------------------------------------------------------------------------- */

static int poll_start(weft_debug_server *s, const char **why)
{
    struct epoll_event wake = { .events = EPOLLIN, .data.ptr = &s->wake_fd }, mhd = { .events = EPOLLIN, .data.ptr = &s->mhd_fd };
    *why = "descriptors are short";
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->wake_fd < 0 || s->poll_fd < 0 || epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->wake_fd, &wake) != 0 ||
        epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->mhd_fd, &mhd) != 0)
        return -errno;
    return 0;
}

int server_prepare(weft_debug_server *s, const struct tls_files *t, const char **why)
{
    *why = s->set.tls ? "libmicrohttpd cannot start: are tls_cert, tls_key and tls_client_ca what they should be?" :
                        "libmicrohttpd cannot start: memory or descriptors are short";
    s->mhd = ask_start_daemon(s, t);
    if (s->mhd == NULL)
        return s->set.tls ? -EIO : -ENOMEM;
    s->mhd_fd = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return poll_start(s, why);
}

/* ---- the thread --------------------------------------------------------------------------------------------------------------- */

static void resume(struct conn *c)
{
    c->suspended = false;
    MHD_resume_connection(c->mhd);
}

static void resume_ready(weft_debug_server *s)
{
    for (struct conn *c = s->conns; c != NULL; c = c->next) {
        if (!c->suspended)
            continue;
        const struct request *r = c->r;
        bool ready = load_acq(&r->done) != 0 || (load_acq(&r->committed) != 0 && (!r->answered || request_has(r))); /* acq: as in on_request */
        if (ready || c->cut)
            resume(c);
    }
}

static void sweep(weft_debug_server *s)
{
    if (s->now_ns - s->swept_ns < SWEEP_MS * INT64_C(1000000))
        return;
    s->swept_ns = s->now_ns;
    for (struct conn *c = s->conns; c != NULL; c = c->next) {
        int64_t for_ns = s->now_ns - c->since_ns;
        if ((c->state == HEADER && for_ns > s->set.header_ms * INT64_C(1000000)) || (c->state == ANSWER && !c->suspended && for_ns > STALLED_NS))
            conn_cut(c);
    }
}

static void look_after_workers(weft_debug_server *s)
{
    bool runs = s->nworkers > 0 && weft_running();
    for (struct request **at = &s->working, *r; (r = *at) != NULL;) {
        if (r->needs_runtime && !runs)
            request_leave(r, GONE_NOW);
        if (load_acq(&r->done) == 0) { /* acq: as in read_answer */
            at = &r->next;
            continue;
        }
        *at = r->next;
        pthread_join(r->thread, NULL); /* it has nothing more to do */
        s->nworkers--;
        request_unref(r);
    }
}

static int sleep_ms(weft_debug_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms;
    int most = s->nworkers > 0 || !s->listening ? LOOK_MS : s->nconns > 0 ? SWEEP_MS : -1;
    if (MHD_get_timeout(s->mhd, &ms) == MHD_YES && (most < 0 || ms < (unsigned)most))
        return (int)ms;
    return most;
}

static void drain(int fd)
{
    uint64_t n;
    while (read(fd, &n, sizeof n) > 0)
        ;
}

static void round_of(weft_debug_server *s)
{
    struct epoll_event e[32];
    int n = epoll_wait(s->poll_fd, e, 32, sleep_ms(s));
    s->now_ns = now_ns();
    bool accepts = false;
    for (int i = 0; i < n; i++) {
        if (e[i].data.ptr == &s->listener)
            accepts = true;
        else if (e[i].data.ptr == &s->wake_fd)
            drain(s->wake_fd);
        else if (e[i].data.ptr != &s->mhd_fd)
            conns_half_closed(s, e[i].data.ptr, e[i].events); /* events of one that is freed do not come: it was deleted, in an earlier round */
    }
    for (int i = 0; accepts && i < ACCEPTS && conns_accept_one(s); i++)
        ;
    if (!s->listening && s->now_ns >= s->listen_at_ns)
        conns_listen(s);
    look_after_workers(s);
    sweep(s);
    resume_ready(s);
    MHD_run(s->mhd);
    conns_cut_closed(s);
}

/* Everybody comes back, and nothing more is sent. */
static void wind_up(weft_debug_server *s)
{
    if (s->listening)
        epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, s->listener.fd, NULL);
    s->listening = true; /* no time-out for its sake */
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        conn_cut(c);
    for (struct request *r = s->working; r != NULL; r = r->next)
        request_leave(r, GONE);
    while (s->nworkers > 0) {
        struct epoll_event e[32];
        epoll_wait(s->poll_fd, e, 32, LOOK_MS);
        drain(s->wake_fd);
        look_after_workers(s);
    }
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        if (c->suspended)
            resume(c);
    MHD_run(s->mhd);
    pthread_mutex_lock(&s->conns_lock);
    s->mhd_fd = -1; /* its number may be another's at once: the child of a fork is not to close that */
    pthread_mutex_unlock(&s->conns_lock);
    MHD_stop_daemon(s->mhd);
}

void *server_main(void *arg)
{
    weft_debug_server *s = arg;
    server_own_thread(s);
    pthread_setname_np(pthread_self(), "weft-debug");
    s->now_ns = now_ns();
    conns_listen(s);
    while (load_acq(&s->stopping) == 0) /* acq: for symmetry; rel in weft_debug_serve_stop */
        round_of(s);
    wind_up(s);
    return NULL;
}
