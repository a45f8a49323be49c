/* server.c - listeners, connections, the end.
 *
 * A fiber per listener accepts; a fiber per connection reads, runs every request that has arrived, and sends their
 * replies in one write. A client that does not read its replies holds up its own fiber in that write, and so nobody
 * else; what it may pile up is bounded by its read buffer and by one reply more than FLUSH_BYTES, which is bounded too.
 *
 * The end: SIGTERM arrives on a signalfd, which is a descriptor like any other. The listeners are closed, and every
 * connection's socket is shut down for reading: its fiber still gets what the kernel has received, answers it, finds
 * the end of the stream, and leaves. The main fiber waits for the last of them, at most grace_ms. */
#include "server.h"
#include "cmd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 511,
    FLUSH_BYTES = 64 * 1024, /* replies to a long pipeline are sent before they are more than this */
    LINGER_MS = 200,
    LINGER_BYTES = 1 << 20,
};

struct server server;

static weft_waitgroup connections;

static void count(uint64_t *counter, uint64_t n) { __atomic_fetch_add(counter, n, __ATOMIC_RELAXED); }

void server_stats_reset(void)
{
    uint64_t *const counters[] = { &server.accepted, &server.rejected, &server.commands, &server.protocol_errors,
                                   &server.reply_too_large };
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
        __atomic_store_n(counters[i], 0, __ATOMIC_RELAXED);
}

size_t clients_count(void) { return __atomic_load_n(&server.n_clients, __ATOMIC_RELAXED); }

/* ---- a connection -------------------------------------------------------------------------------- */

static void clients_add(struct client *c)
{
    weft_mutex_lock(&server.clients_lock);
    c->next = server.clients;
    if (c->next)
        c->next->prev = c;
    server.clients = c;
    __atomic_fetch_add(&server.n_clients, 1, __ATOMIC_RELAXED); /* read without the lock, too */
    if (server.stopping) /* accepted while the end began */
        shutdown(weft_fd_number(c->fd), SHUT_RD);
    weft_mutex_unlock(&server.clients_lock);
}

static void clients_remove(struct client *c)
{
    weft_mutex_lock(&server.clients_lock);
    *(c->prev ? &c->prev->next : &server.clients) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    __atomic_fetch_sub(&server.n_clients, 1, __ATOMIC_RELAXED);
    weft_mutex_unlock(&server.clients_lock);
}

static bool send_replies(struct client *c)
{
    int r = resp_flush(&c->out, c->fd);
    if (r == -EMSGSIZE)
        count(&server.reply_too_large, 1);
    return r == 0;
}

/* Runs all requests in the read buffer and sends the replies. False: the connection is to end. */
static bool answer(struct client *c)
{
    const char *error;
    int r = 0;
    c->now_ms = weft_now() / WEFT_MILLISECOND;
    while (!c->closing && (r = resp_in_next(&c->in, &error)) > 0) {
        cmd_run(c);
        if (resp_out_bytes(&c->out) < FLUSH_BYTES)
            continue;
        if (!send_replies(c))
            return false;
        c->now_ms = weft_now() / WEFT_MILLISECOND;
    }
    if (r < 0) {
        resp_error(&c->out, "ERR %s", error);
        count(&server.protocol_errors, 1);
        c->closing = true;
    }
    count(&server.commands, c->commands);
    c->commands = 0;
    return send_replies(c) && !c->closing;
}

/* Closing a socket with unread input resets the connection, and the client may never see our last reply. So say that
 * we are done, and let it finish its sentence. */
static void linger(struct client *c)
{
    size_t room, total = 0;
    ssize_t n = 1;
    shutdown(weft_fd_number(c->fd), SHUT_WR);
    weft_fd_set_deadline(c->fd, weft_now() + LINGER_MS * WEFT_MILLISECOND, 0);
    c->in.want = 0;
    while (n > 0 && total < LINGER_BYTES) {
        c->in.argc = 0;
        c->in.head = c->in.pos = c->in.tail;
        char *p = resp_in_room(&c->in, &room);
        n = p ? weft_read(c->fd, p, room) : 0;
        if (n > 0) {
            resp_in_filled(&c->in, (size_t)n);
            total += (size_t)n;
        }
    }
}

static void connection(void *arg)
{
    struct client *c = arg;
    weft_set_name("connection");
    for (bool more = true; more;) {
        size_t room;
        char *p = resp_in_room(&c->in, &room);
        ssize_t n = p ? weft_read(c->fd, p, room) : -ENOMEM;
        if (n <= 0)
            break;
        resp_in_filled(&c->in, (size_t)n);
        more = answer(c);
    }
    if (c->closing)
        linger(c);
    clients_remove(c);
    weft_fd_close(c->fd);
}

/* ---- listeners ----------------------------------------------------------------------------------- */

static void describe_peer(struct client *c, const struct sockaddr_storage *a)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *v4 = (const void *)a;
    const struct sockaddr_in6 *v6 = (const void *)a;
    c->over_tcp = a->ss_family == AF_INET || a->ss_family == AF_INET6;
    if (c->over_tcp)
        inet_ntop(a->ss_family, a->ss_family == AF_INET ? (const void *)&v4->sin_addr : &v6->sin6_addr, ip, sizeof ip);
    if (a->ss_family == AF_INET)
        snprintf(c->peer, sizeof c->peer, "%s:%d", ip, ntohs(v4->sin_port));
    else if (a->ss_family == AF_INET6)
        snprintf(c->peer, sizeof c->peer, "[%s]:%d", ip, ntohs(v6->sin6_port));
    else
        snprintf(c->peer, sizeof c->peer, "unix:0");
}

static void reject(weft_fd *fd, const char *reply)
{
    count(&server.rejected, 1);
    weft_fd_set_deadline(fd, 0, weft_now() + LINGER_MS * WEFT_MILLISECOND);
    (void)weft_write(fd, reply, strlen(reply));
    weft_fd_close(fd);
}

static void start_connection(weft_fd *fd, const struct sockaddr_storage *peer)
{
    count(&server.accepted, 1);
    if (clients_count() >= (size_t)server.options.max_clients) { /* one more or less is no harm */
        reject(fd, "-ERR max number of clients reached\r\n");
        return;
    }
    struct client *c = weft_alloc(sizeof *c);
    if (!c) {
        reject(fd, "-OOM out of memory\r\n");
        return;
    }
    c->fd = fd;
    c->id = __atomic_add_fetch(&server.next_id, 1, __ATOMIC_RELAXED);
    c->since_ms = weft_now() / WEFT_MILLISECOND;
    describe_peer(c, peer);
    if (c->over_tcp)
        setsockopt(weft_fd_number(fd), IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    clients_add(c);
    if (weft_waitgroup_go(&connections, connection, c) < 0) {
        clients_remove(c);
        reject(fd, "-OOM out of memory\r\n");
    }
}

static void acceptor(void *arg)
{
    weft_fd *listener = arg;
    weft_set_name("acceptor");
    for (;;) {
        struct sockaddr_storage peer = { 0 };
        socklen_t n = sizeof peer;
        weft_fd *fd;
        int r = weft_accept(listener, &fd, (struct sockaddr *)&peer, &n);
        if (r == 0)
            start_connection(fd, &peer);
        else if (r == -ECANCELED || r == -EBADF)
            return; /* closed: the server ends */
        else if (r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOBUFS)
            weft_sleep(10 * WEFT_MILLISECOND); /* until somebody leaves; the client waits in the backlog */
    }
}

/* A socket file that a dead server left behind is in the way; that of a living one stays, and what is no socket all the more. */
static bool remove_stale(const char *address, const char *path)
{
    weft_fd *fd;
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int r = weft_dial(address, weft_now() + WEFT_SECOND, &fd);
    if (r == 0)
        weft_fd_close(fd);
    return r == -ECONNREFUSED && unlink(path) == 0;
}

static weft_fd *listen_on(const char *address, const char *path)
{
    weft_fd *fd;
    int r = weft_listen(address, BACKLOG, &fd);
    if (r == -EADDRINUSE && path && remove_stale(address, path))
        r = weft_listen(address, BACKLOG, &fd);
    if (r == 0)
        r = weft_go(acceptor, fd);
    if (r == 0)
        return fd;
    fprintf(stderr, "kv: cannot listen on %s: %s\n", address, weft_strerror(r));
    return NULL;
}

/* ---- the server ---------------------------------------------------------------------------------- */

static weft_fd *tcp_listener, *unix_listener;

static bool open_listeners(const struct server_options *o)
{
    char address[160], ready[512] = "";
    size_t n = 0;
    if (o->bind) {
        snprintf(address, sizeof address, strchr(o->bind, ':') ? "[%s]:%d" : "%s:%d", o->bind, o->port);
        if (!(tcp_listener = listen_on(address, NULL)))
            return false;
        server.port = weft_fd_port(tcp_listener);
        n += (size_t)snprintf(ready, sizeof ready, strchr(o->bind, ':') ? " [%s]:%d" : " %s:%d", o->bind, server.port);
    }
    if (o->unix_path) {
        snprintf(address, sizeof address, "unix:%s", o->unix_path);
        if (!(unix_listener = listen_on(address, o->unix_path)))
            return false;
        snprintf(ready + n, sizeof ready - n, " %s", address);
    }
    printf("kv: ready on%s\n", ready); /* scripts wait for this line */
    fflush(stdout);
    return true;
}

static void wait_for_signal(weft_fd *signals)
{
    struct signalfd_siginfo info;
    if (weft_read_full(signals, &info, sizeof info) == sizeof info)
        printf("kv: signal %u: finishing %zu connections\n", info.ssi_signo, clients_count());
    fflush(stdout);
}

static void finish_connections(int grace_ms)
{
    weft_mutex_lock(&server.clients_lock); /* a listed client's descriptor is open */
    server.stopping = true;
    for (struct client *c = server.clients; c; c = c->next)
        shutdown(weft_fd_number(c->fd), SHUT_RD);
    weft_mutex_unlock(&server.clients_lock);
    if (weft_waitgroup_wait_until(&connections, weft_now() + grace_ms * WEFT_MILLISECOND) < 0)
        printf("kv: %zu connections did not finish in %d ms\n", clients_count(), grace_ms);
}

int server_run(const struct server_options *options)
{
    server.options = *options;
    server.start_ms = weft_now() / WEFT_MILLISECOND;
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    weft_fd *signals;
    int r = weft_fd_open(signalfd(-1, &ending, SFD_NONBLOCK | SFD_CLOEXEC), &signals);
    if (r < 0) {
        fprintf(stderr, "kv: signalfd: %s\n", weft_strerror(r));
        return 1;
    }
    cmd_init();
    if (!open_listeners(options) || weft_go(db_sweeper, NULL) < 0)
        return 1;
    wait_for_signal(signals);
    if (tcp_listener)
        weft_fd_close(tcp_listener);
    if (unix_listener) {
        unlink(options->unix_path);
        weft_fd_close(unix_listener);
    }
    finish_connections(options->grace_ms);
    weft_fd_close(signals);
    printf("kv: bye\n");
    return 0;
}
