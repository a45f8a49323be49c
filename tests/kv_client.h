/* kv_client.h - starts examples/kv and talks to it over plain blocking sockets. For the tests kv_*.c. */
#ifndef KV_CLIENT_H
#define KV_CLIENT_H

#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define KV_PROGRAM TEST_BUILD "/examples/kv/kv"
enum { KV_TIMEOUT_MS = 60000 };

struct kv {
    pid_t pid;
    int port;
    FILE *out; /* its standard output, after the ready line */
    char path[64];
};

/* Starts a server on a free port and a unix socket. options: further arguments up to a NULL, or NULL. debug:
 * WEFT_DEBUG, or NULL. */
static inline struct kv kv_start(const char *debug, const char *const *options)
{
    struct kv kv = { 0 };
    int out[2];
    const char *argv[32] = { KV_PROGRAM, "--port", "0", "--unix", kv.path };
    snprintf(kv.path, sizeof kv.path, "/tmp/weft-kv-%d.sock", (int)getpid());
    for (int n = 5; options && *options && n < 31; n++)
        argv[n] = *options++;
    cr_assert(pipe(out) == 0);
    kv.pid = fork();
    if (kv.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves no server behind */
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        if (debug)
            setenv("WEFT_DEBUG", debug, 1);
        test_exec(argv);
        perror(argv[0]);
        _exit(127);
    }
    close(out[1]);
    kv.out = fdopen(out[0], "r");
    char line[256];
    cr_assert(fgets(line, sizeof line, kv.out), "%s did not get ready", KV_PROGRAM);
    cr_assert(sscanf(line, "kv: ready on 127.0.0.1:%d", &kv.port) == 1, "unexpected: %s", line);
    return kv;
}

/* Sends the signal and returns the exit code; -1: it was killed by a signal. */
static inline int kv_stop(struct kv *kv, int sig)
{
    int status;
    kill(kv->pid, sig);
    cr_assert(waitpid(kv->pid, &status, 0) == kv->pid);
    fclose(kv->out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- a connection -------------------------------------------------------------------------------- */

struct text { char *p; size_t n, cap; };

static inline void text_add(struct text *t, const void *p, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        t->cap = (t->n + n + 1) * 2;
        t->p = realloc(t->p, t->cap);
    }
    memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = 0;
}
__attribute__((format(printf, 2, 3))) static inline void text_printf(struct text *t, const char *format, ...)
{
    char b[1024];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(b, sizeof b, format, ap);
    va_end(ap);
    text_add(t, b, (size_t)n);
}
static inline void text_clear(struct text *t) { t->n = 0; }
static inline void text_free(struct text *t) { free(t->p), *t = (struct text){ 0 }; }

struct conn {
    int fd;
    struct text in; /* what has arrived; the first head bytes of it are taken */
    size_t head;
};

static inline void conn_setup(struct conn *c, int fd, struct sockaddr *to, socklen_t n)
{
    struct timeval tv = { KV_TIMEOUT_MS / 1000, 0 };
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    c->in = (struct text){ 0 };
    c->head = 0;
    c->fd = connect(fd, to, n) == 0 ? fd : -1;
    if (c->fd < 0)
        close(fd);
}

/* fd is -1 if there is nobody. */
static inline void conn_tcp(struct conn *c, const struct kv *kv)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)kv->port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    conn_setup(c, fd, (struct sockaddr *)&to, sizeof to);
}
static inline void conn_unix(struct conn *c, const struct kv *kv)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    snprintf(to.sun_path, sizeof to.sun_path, "%s", kv->path);
    conn_setup(c, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&to, sizeof to);
}
static inline void conn_close(struct conn *c)
{
    close(c->fd);
    text_free(&c->in);
}

/* Reads what is there, waiting for it unless flags say MSG_DONTWAIT. False: end, error, or nothing in time. */
static inline bool conn_fill(struct conn *c, int flags)
{
    char b[65536];
    ssize_t n = recv(c->fd, b, sizeof b, flags);
    if (n <= 0)
        return false;
    if (c->head == c->in.n)
        c->head = c->in.n = 0;
    text_add(&c->in, b, (size_t)n);
    return true;
}

/* Sends all, and takes in replies meanwhile, as neither side of a long pipeline must wait for the other. False: the
 * connection broke. */
static inline bool conn_send(struct conn *c, const void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t r = send(c->fd, (const char *)p + at, n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r > 0) {
            at += (size_t)r;
            continue;
        }
        struct pollfd pfd = { .fd = c->fd, .events = POLLIN | POLLOUT };
        if ((r < 0 && errno != EAGAIN) || poll(&pfd, 1, KV_TIMEOUT_MS) <= 0)
            return false;
        if ((pfd.revents & POLLIN) && !conn_fill(c, MSG_DONTWAIT))
            return false;
    }
    return true;
}

/* The next byte, without taking it; -1: end or error. */
static inline int conn_peek(struct conn *c)
{
    if (c->head == c->in.n && !conn_fill(c, 0))
        return -1;
    return (unsigned char)c->in.p[c->head];
}

static inline bool conn_take(struct conn *c, size_t n, struct text *out)
{
    while (n > 0) {
        if (conn_peek(c) < 0)
            return false;
        size_t k = c->in.n - c->head < n ? c->in.n - c->head : n;
        text_add(out, c->in.p + c->head, k);
        c->head += k;
        n -= k;
    }
    return true;
}

static inline bool conn_line(struct conn *c, struct text *out)
{
    int ch;
    while ((ch = conn_peek(c)) >= 0) {
        conn_take(c, 1, out);
        if (ch == '\n')
            return true;
    }
    return false;
}

/* Appends the bytes of one reply to out. False: the connection ended. */
static inline bool conn_reply(struct conn *c, struct text *out)
{
    size_t from = out->n;
    if (!conn_line(c, out))
        return false;
    long n = strtol(out->p + from + 1, NULL, 10);
    char type = out->p[from];
    if (type == '$' && n >= 0)
        return conn_take(c, (size_t)n + 2, out);
    if (type == '*')
        for (; n > 0; n--)
            if (!conn_reply(c, out))
                return false;
    return true;
}

/* A request of words up to a NULL; the reply's bytes, valid until t is used again. */
static inline const char *conn_ask(struct conn *c, struct text *t, ...)
{
    const char *words[64];
    size_t n = 0;
    va_list ap;
    va_start(ap, t);
    while (n < 63 && (words[n] = va_arg(ap, const char *)))
        n++;
    va_end(ap);
    text_clear(t);
    text_printf(t, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        text_printf(t, "$%zu\r\n", strlen(words[i]));
        text_add(t, words[i], strlen(words[i]));
        text_add(t, "\r\n", 2);
    }
    bool sent = conn_send(c, t->p, t->n);
    text_clear(t);
    return sent && conn_reply(c, t) ? t->p : "(connection lost)";
}

#endif
