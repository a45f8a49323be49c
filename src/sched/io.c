/* Reading, writing, accepting, connecting.
 *
 * [IO] Each call takes its turn, tries the system call, and if that would block, waits and tries again. The system call is made outside of the
 * runtime: leaving and entering costs 2 ns, and so a collection does not wait for a copy of a megabyte or for the network stack, which runs
 * the receiver's half of a loopback connection inside our send. The thread keeps its processor meanwhile, unless sysmon finds it there for too long.
 * The reference taken with the turn keeps the number of the descriptor ours. Buffers need no care: their pointers lie on the stack of the caller and
 * on ours.
 *
 * Sockets are called with MSG_DONTWAIT, so that a thread does not block even if somebody has cleared O_NONBLOCK of a shared description.
 *
 * What a read costs. A server that answers one request at a time would pay two calls of recv per request, one of which returns EAGAIN.
 * If a TCP socket gave less than it was asked for, it is empty, and `drained` notes it: the next read waits without that call, as long as no event
 * has come ([POLL]). For other kinds the conclusion is wrong: a unix socket also stops where descriptors were passed, a terminal at the end of a
 * line.
 *
 * [FILE] What epoll refuses (regular files, /dev/null and the like, directories) is never said to be ready, and a call may sleep for as long as a
 * disk or a server takes, where not even a signal gets through. So it is made as between weft_blocking_begin and _end: the processor goes to
 * others, and a collection does not wait.
 *
 * An error after some bytes: the bytes are returned, and the error is kept for the next call in that direction, since the kernel reports most errors
 * once. Deadlines and closing need not be kept: they are still so at the next call, or have been changed on purpose. */
#include "base/fail.h"
#include "base/syscall.h"
#include "os/dirty.h"
#include "sched/fd.h"
#include "sched/reclaim.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <weft/sync.h>

/* One attempt, outside of the runtime: a result, or -EAGAIN to be called again when the direction is ready. */
typedef ssize_t attempt(struct fd *f, void *arg);

static int kept_error(struct fd_side *s)
{
    int r = s->error;
    s->error = 0;
    return r;
}

/* Before each system call: what it will find out need not be told. */
static inline void forget(struct fd *f, enum fd_dir dir)
{
    if (netpoll_forget(&f->poll, dir))
        f->side[dir].drained = false;
}

/* [FILE]. EAGAIN is a result there: nothing will ever say that it is worth trying again. */
static w_noinline ssize_t try_file(struct fd *f, attempt *try, void *arg)
{
    weft_blocking_begin();
    ssize_t r = try(f, arg);
    weft_blocking_end();
    return r;
}

/* What a call reads or writes while it waits. Of what the program gives back meanwhile the doctor tells (gcpoison). */
struct buffers { const struct iovec *iov; int n; };
#define BUFFER(at, bytes) (&(struct buffers){ &(struct iovec){ (void *)(uintptr_t)(at), bytes }, 1 })

/* Inside the runtime. */
static w_cold void tell_buffers(const struct buffers *b, bool used)
{
    for (int i = 0; i < b->n; i++)
        PROBE(buffer_used, b->iov[i].iov_base, b->iov[i].iov_len, used);
}

static w_cold ssize_t tell_end(const struct buffers *b, ssize_t r)
{
    rt_enter();
    tell_buffers(b, false);
    rt_leave(m_self());
    return r;
}

/* b, NULL: none. */
static ssize_t io_do(weft_fd *h, enum fd_dir dir, attempt *try, void *arg, const struct buffers *b)
{
    struct fd *f = fd_at(h);
    struct fd_side *s = &f->side[dir];
    bool told = false;
    rt_enter();
    ssize_t r = fd_begin(h, dir);
    if (unlikely(r < 0)) {
        rt_leave(m_self());
        return r;
    }
    r = unlikely(s->error != 0) ? kept_error(s) : fd_late(f, dir) ? -ETIMEDOUT : 0;
    while (r == 0) {
        forget(f, dir);
        rt_leave(m_self());
        r = unlikely(f->flags & FD_IS_FILE) ? try_file(f, try, arg) : try(f, arg);
        if (r != -EAGAIN || unlikely(f->flags & FD_IS_FILE)) {
            if (likely(fd_end_try(f, dir)))
                return unlikely(told) ? tell_end(b, r) : r;
            rt_enter();
            break;
        }
        rt_enter();
        if (unlikely(sched.cfg.gcpoison != 0) && b != NULL && !told) {
            tell_buffers(b, true);
            told = true;
        }
        r = fd_wait(f, dir);
    }
    fd_end_slow(f, dir);
    if (unlikely(told))
        tell_buffers(b, false);
    rt_leave(m_self());
    return r;
}

/* The result of a call that failed with err (as all errors here, negative) after `done` bytes. */
static ssize_t partial(struct fd_side *s, size_t done, ssize_t err)
{
    if (done == 0 || err == -EAGAIN)
        return err;
    s->error = (int)err;
    return (ssize_t)done;
}

/* What an operation gives that ended by its deadline or by close after `done` bytes. */
static ssize_t or_done(ssize_t r, size_t done)
{
    return r < 0 && done != 0 ? (ssize_t)done : r;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Where the kernel is about to write, or has written: dirty.h. */
static inline void hold(const struct iovec *iov, int n, bool on)
{
    for (int i = 0; unlikely(load_rlx(&dirty_holds) != 0) && i < n; i++) /* rlx: see there */
        dirty_hold_slow(iov[i].iov_base, iov[i].iov_len, on);
}

static size_t length(const struct sockaddr *to, const socklen_t *len) { return to != NULL && len != NULL ? *len : 0; }

static ssize_t sys_recvmsg(struct fd *f, const struct iovec *iov, int n)
{
    ssize_t r;
    hold(iov, n, true);
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
    do {
        r = f->flags & FD_IS_SOCKET ? sys_call3(SYS_recvmsg, f->fd, &msg, MSG_DONTWAIT) : sys_call3(SYS_readv, f->fd, iov, n);
    } while (r == -EINTR);
    hold(iov, n, false);
    return r;
}

static ssize_t sys_recv(struct fd *f, void *buf, size_t n)
{
    ssize_t r;
    dirty_hold(buf, n);
    do {
        r = f->flags & FD_IS_SOCKET ? sys_call6(SYS_recvfrom, f->fd, (long)buf, (long)n, MSG_DONTWAIT, 0, 0)
                                    : sys_call3(SYS_read, f->fd, buf, n);
    } while (r == -EINTR);
    dirty_release(buf, n);
    return r;
}

/* See "What a read costs". */
static bool surely_empty(struct fd *f)
{
    struct fd_side *s = &f->side[FD_READ];
    if (!s->drained)
        return false;
    forget(f, FD_READ);
    return s->drained && netpoll_quiet(&f->poll, FD_READ);
}

static inline void note_short(struct fd *f, ssize_t got, size_t wanted)
{
    f->side[FD_READ].drained = (f->flags & FD_IS_TCP) && got > 0 && (size_t)got < wanted;
}

struct read_op { char *buf; size_t n, done; bool full; };

/* No bytes are wanted: no call, which on an empty socket would wait for what nobody asked for. */
static ssize_t try_read(struct fd *f, void *arg)
{
    struct read_op *op = arg;
    while (op->done < op->n) {
        if (surely_empty(f))
            return -EAGAIN;
        forget(f, FD_READ);
        size_t want = op->n - op->done;
        ssize_t r = sys_recv(f, op->buf + op->done, want);
        note_short(f, r, want);
        if (r < 0)
            return partial(&f->side[FD_READ], op->done, r);
        op->done += (size_t)r;
        if (r == 0 || !op->full)
            break;
    }
    return (ssize_t)op->done;
}

ssize_t weft_read(weft_fd *f, void *buf, size_t n)
{
    struct read_op op = { buf, n, 0, false };
    return io_do(f, FD_READ, try_read, &op, BUFFER(buf, n));
}

ssize_t weft_read_full(weft_fd *f, void *buf, size_t n)
{
    struct read_op op = { buf, n, 0, true };
    ssize_t r = io_do(f, FD_READ, try_read, &op, BUFFER(buf, n));
    return or_done(r, op.done);
}

struct readv_op { const struct iovec *iov; int n; size_t bytes; };

static ssize_t try_readv(struct fd *f, void *arg)
{
    struct readv_op *op = arg;
    if (op->bytes == 0) /* as in try_read */
        return 0;
    if (surely_empty(f))
        return -EAGAIN;
    ssize_t r = sys_recvmsg(f, op->iov, op->n);
    note_short(f, r, op->bytes);
    return r;
}

ssize_t weft_readv(weft_fd *f, const struct iovec *iov, int n)
{
    if (n < 0)
        return -EINVAL;
    struct readv_op op = { iov, w_min(n, IOV_MAX), 0 };
    for (int i = 0; i < op.n; i++)
        op.bytes += iov[i].iov_len;
    return io_do(f, FD_READ, try_readv, &op, &(struct buffers){ iov, op.n });
}

struct recvfrom_op { void *buf; size_t n; int flags; struct sockaddr *from; socklen_t *fromlen; };

static ssize_t try_recvfrom(struct fd *f, void *arg)
{
    struct recvfrom_op *op = arg;
    const struct iovec to[] = { { op->buf, op->n }, { op->from, length(op->from, op->fromlen) }, { op->fromlen, sizeof *op->fromlen } };
    ssize_t r;
    hold(to, 3, true);
    do {
        r = sys_call6(SYS_recvfrom, f->fd, (long)op->buf, (long)op->n, op->flags | MSG_DONTWAIT, (long)op->from, (long)op->fromlen);
    } while (r == -EINTR);
    hold(to, 3, false);
    return r;
}

ssize_t weft_recvfrom(weft_fd *f, void *buf, size_t n, int flags, struct sockaddr *from, socklen_t *fromlen)
{
    struct recvfrom_op op = { buf, n, flags, from, fromlen };
    return io_do(f, FD_READ, try_recvfrom, &op, BUFFER(buf, n));
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static ssize_t sys_send(struct fd *f, const void *buf, size_t n)
{
    ssize_t r;
    do {
        r = f->flags & FD_IS_SOCKET ? sys_call6(SYS_sendto, f->fd, (long)buf, (long)n, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0)
                                    : sys_call3(SYS_write, f->fd, buf, n);
    } while (r == -EINTR);
    return r;
}

static ssize_t sys_sendmsg(struct fd *f, const struct iovec *iov, int n)
{
    ssize_t r;
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
    do {
        r = f->flags & FD_IS_SOCKET ? sys_call3(SYS_sendmsg, f->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) : sys_call3(SYS_writev, f->fd, iov, n);
    } while (r == -EINTR);
    return r;
}

struct write_op { const char *buf; size_t n, done; };

/* At least one call, also for no bytes: an empty datagram is one. */
static ssize_t try_write(struct fd *f, void *arg)
{
    struct write_op *op = arg;
    do {
        ssize_t r = sys_send(f, op->buf + op->done, op->n - op->done);
        if (r < 0)
            return partial(&f->side[FD_WRITE], op->done, r);
        if (r == 0)
            break;
        op->done += (size_t)r;
    } while (op->done < op->n);
    return (ssize_t)op->done;
}

ssize_t weft_write(weft_fd *f, const void *buf, size_t n)
{
    struct write_op op = { buf, n, 0 };
    ssize_t r = io_do(f, FD_WRITE, try_write, &op, BUFFER(buf, n));
    return or_done(r, op.done);
}

struct writev_op { const struct iovec *iov; int n; size_t skip /* bytes of iov[0] */, done; };

#define PART 16

/* What is left, from where the last call stopped: iov itself or the beginning of a copy. */
static ssize_t writev_once(struct fd *f, struct writev_op *op)
{
    if (op->skip == 0)
        return sys_sendmsg(f, op->iov, w_min(op->n, IOV_MAX));
    struct iovec part[PART];
    int n = w_min(op->n, PART);
    memcpy(part, op->iov, (size_t)n * sizeof *part);
    part[0].iov_base = (char *)part[0].iov_base + op->skip;
    part[0].iov_len -= op->skip;
    return sys_sendmsg(f, part, n);
}

static void writev_advance(struct writev_op *op, size_t bytes)
{
    op->done += bytes;
    op->skip += bytes;
    while (op->n > 0 && op->skip >= op->iov->iov_len) {
        op->skip -= op->iov->iov_len;
        op->iov++;
        op->n--;
    }
}

static ssize_t try_writev(struct fd *f, void *arg)
{
    struct writev_op *op = arg;
    while (op->n > 0) {
        int had = op->n;
        ssize_t r = writev_once(f, op);
        if (r < 0)
            return partial(&f->side[FD_WRITE], op->done, r);
        writev_advance(op, (size_t)r);
        if (r == 0 && op->n == had)
            break;
    }
    return (ssize_t)op->done;
}

ssize_t weft_writev(weft_fd *f, const struct iovec *iov, int n)
{
    if (n < 0)
        return -EINVAL;
    struct writev_op op = { iov, n, 0, 0 };
    ssize_t r = io_do(f, FD_WRITE, try_writev, &op, &(struct buffers){ iov, op.n });
    return or_done(r, op.done);
}

struct sendto_op { const void *buf; size_t n; int flags; const struct sockaddr *to; socklen_t tolen; };

static ssize_t try_sendto(struct fd *f, void *arg)
{
    struct sendto_op *op = arg;
    ssize_t r;
    do {
        r = sys_call6(SYS_sendto, f->fd, (long)op->buf, (long)op->n, op->flags | MSG_DONTWAIT | MSG_NOSIGNAL, (long)op->to, op->tolen);
    } while (r == -EINTR);
    return r;
}

ssize_t weft_sendto(weft_fd *f, const void *buf, size_t n, int flags, const struct sockaddr *to, socklen_t tolen)
{
    struct sendto_op op = { buf, n, flags, to, tolen };
    return io_do(f, FD_WRITE, try_sendto, &op, BUFFER(buf, n));
}

/* ---- accepting, connecting ------------------------------------------------------------------------------------------ */

struct accept_op { struct fd *to; struct sockaddr *peer; socklen_t *peerlen; };

/* Errors of the connection that was about to be accepted, not of the listener: the next one may be good. */
static bool is_of_the_peer(ssize_t err)
{
    return err == -ECONNABORTED || err == -EPROTO || err == -ENOPROTOOPT || err == -ENETDOWN || err == -ENETUNREACH || err == -EHOSTDOWN ||
           err == -EHOSTUNREACH || err == -ENONET;
}

static ssize_t try_accept(struct fd *f, void *arg)
{
    struct accept_op *op = arg;
    const struct iovec to[] = { { op->peer, length(op->peer, op->peerlen) }, { op->peerlen, sizeof *op->peerlen } };
    ssize_t r;
    hold(to, 2, true);
    do {
        r = fail_now(FAIL_FD) ? -EMFILE : sys_call4(SYS_accept4, f->fd, op->peer, op->peerlen, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (r == -EINTR || is_of_the_peer(r));
    hold(to, 2, false);
    if (r < 0)
        return r;
    op->to->fd = (int)r;
    op->to->flags = f->flags; /* TCP_NODELAY is inherited too */
    return netpoll_add(&op->to->poll, op->to->fd, false, fd_tag(op->to));
}

static void discard(struct fd *f)
{
    rt_enter();
    fd_discard(f);
    rt_leave(m_self());
}

/* The struct fd is made first, so that a connection once accepted is not lost for want of memory. */
static int accept_once(weft_fd *listener, weft_fd **out, struct sockaddr *peer, socklen_t *peerlen)
{
    rt_enter();
    struct accept_op op = { fd_new(), peer, peerlen };
    rt_leave(m_self());
    if (op.to == NULL)
        return -ENOMEM;
    int r = (int)io_do(listener, FD_READ, try_accept, &op, NULL);
    if (r < 0)
        discard(op.to);
    else
        *out = fd_handle(op.to);
    return r;
}

int weft_accept(weft_fd *listener, weft_fd **out, struct sockaddr *peer, socklen_t *peerlen)
{
    int r = accept_once(listener, out, peer, peerlen);
    return unlikely(reclaim_after(r)) ? accept_once(listener, out, peer, peerlen) : r;
}

struct connect_op { const struct sockaddr *to; socklen_t tolen; bool started; };

/* Nothing tells when there is room in the queue of a unix listener. Between attempts the fiber sleeps. */
static int connect_when_room(struct fd *f, struct connect_op *op)
{
    for (int64_t pause_ns = WEFT_MILLISECOND;; pause_ns = w_min(2 * pause_ns, 16 * WEFT_MILLISECOND)) {
        int r = (int)sys_call3(SYS_connect, f->fd, op->to, op->tolen);
        if (r != -EAGAIN)
            return r;
        if (load_rlx(&f->word) & FD_CLOSED) /* rlx: a value of its own */
            return -ECANCELED;
        if (fd_late(f, FD_WRITE))
            return -ETIMEDOUT;
        weft_sleep(pause_ns);
    }
}

static int connect_result(struct fd *f)
{
    int err = 0;
    socklen_t len = sizeof err;
    long r = sys_call6(SYS_getsockopt, f->fd, SOL_SOCKET, SO_ERROR, (long)&err, (long)&len, 0);
    if (r < 0 || err != 0)
        return r < 0 ? (int)r : -err;
    struct sockaddr_storage peer;
    len = sizeof peer;
    r = sys_call3(SYS_getpeername, f->fd, &peer, &len);
    return r == -ENOTCONN ? -EAGAIN : (int)r; /* a wake-up too many */
}

static bool is_under_way(int r)
{
    return r == -EINPROGRESS || r == -EINTR || r == -EALREADY;
}

static ssize_t try_connect(struct fd *f, void *arg)
{
    struct connect_op *op = arg;
    if (op->started)
        return connect_result(f);
    store_rlx(&f->poll.seen, 0); /* rlx: a socket without a peer counts as hung up; one event of that too late costs a read call now and then */
    int r = connect_when_room(f, op);
    op->started = true;
    return is_under_way(r) ? -EAGAIN : r;
}

int weft_connect(weft_fd *f, const struct sockaddr *to, socklen_t tolen)
{
    struct connect_op op = { to, tolen, false };
    return (int)io_do(f, FD_WRITE, try_connect, &op, NULL);
}

/* In this order, because epoll would report a socket without a peer as hung up. */
int fd_connect_new(struct fd *f, const struct sockaddr *to, socklen_t tolen)
{
    struct connect_op op = { to, tolen, true };
    int r = connect_when_room(f, &op);
    if (r < 0 && !is_under_way(r))
        return r;
    int err = netpoll_add(&f->poll, f->fd, r < 0, fd_tag(f));
    if (err < 0 || r == 0)
        return err;
    return (int)io_do(fd_handle(f), FD_WRITE, try_connect, &op, NULL);
}
