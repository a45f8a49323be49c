/* Connections: from accept(2) to their end; which has to go when there are too many. See the essay in server.c, [CONNS]. */
#include "debug/serve/server.h"
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PAUSE_NS INT64_C(100000000)

void conn_state(struct conn *c, enum state state)
{
    c->state = state;
    c->since_ns = c->server->now_ns;
}

/* libmicrohttpd finds it at its end, and closes it, with what hangs on it. */
void conn_cut(struct conn *c)
{
    if (c->cut)
        return;
    c->cut = true;
    c->server->ncut++;
    shutdown(c->fd, SHUT_RDWR);
    if (c->r != NULL && c->r->started)
        request_leave(c->r, GONE);
}

static void unlink_conn(weft_debug_server *s, struct conn *c)
{
    pthread_mutex_lock(&s->conns_lock);
    if (c->next != NULL)
        c->next->prev = c->prev;
    *(c->prev != NULL ? &c->prev->next : &s->conns) = c->next;
    pthread_mutex_unlock(&s->conns_lock);
    free(c);
}

void conns_ended(weft_debug_server *s, struct conn *c)
{
    if (s->adding == c)
        s->adding = NULL;
    if (c->watched)
        epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    shutdown(c->fd, SHUT_WR); /* the other side sees the end even if a child of a fork has the descriptor, too */
    s->nconns--;
    s->ncut -= c->cut;
    unlink_conn(s, c);
}

/* Of those that wait for a request, that which has done so longest; from: of that address only, or NULL. */
static struct conn *idle_longest(weft_debug_server *s, const struct sockaddr *from)
{
    struct conn *found = NULL;
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        if (c->state == HEADER && !c->cut && (from == NULL || peer_same((const void *)&c->addr, from)) && (found == NULL || c->since_ns <= found->since_ns))
            found = c;
    return found;
}

static int of_address(weft_debug_server *s, const struct sockaddr *from)
{
    int n = 0;
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        n += !c->cut && peer_same((const void *)&c->addr, from);
    return n;
}

/* Makes room for one from there. */
static bool make_room(weft_debug_server *s, const struct conn *c)
{
    const struct sockaddr *from = (const void *)&c->addr;
    bool many = !c->local && of_address(s, from) >= s->set.max_per_address;
    if (!many && s->nconns - s->ncut < s->set.max_connections)
        return true;
    struct conn *out = idle_longest(s, many ? from : NULL);
    if (out != NULL)
        conn_cut(out);
    return out != NULL;
}

static void turn_away(weft_debug_server *s, int fd)
{
    static const char sorry[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
                                "Retry-After: 5\r\nConnection: close\r\nContent-Length: 26\r\n\r\ntoo many are being served\n";
    if (!s->set.tls)
        send(fd, sorry, sizeof sorry - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
}

/* Without a descriptor or memory for another: not again for a moment, as it would only be told the same. */
static void listen_pause(weft_debug_server *s)
{
    struct conn *out = idle_longest(s, NULL);
    if (out != NULL)
        conn_cut(out);
    epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, s->listener.fd, NULL);
    s->listening = false;
    s->listen_at_ns = s->now_ns + PAUSE_NS;
}

void conns_listen(weft_debug_server *s)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = &s->listener };
    s->listening = epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->listener.fd, &e) == 0;
    s->listen_at_ns = s->now_ns + PAUSE_NS;
}

/* Under conns_lock: a fork sees the descriptor in the list, or not at all. */
static int accept_locked(weft_debug_server *s, struct conn *c, socklen_t *len)
{
    c->fd = accept4(s->listener.fd, (struct sockaddr *)&c->addr, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (c->fd < 0)
        return -errno;
    c->next = s->conns;
    if (c->next != NULL)
        c->next->prev = c;
    s->conns = c;
    return 0;
}

static void watch(weft_debug_server *s, struct conn *c, int how, uint32_t events)
{
    struct epoll_event e = { .events = events | EPOLLONESHOT, .data.ptr = c };
    c->watched = epoll_ctl(s->poll_fd, how, c->fd, &e) == 0; /* if not, it is found out when something is sent, or takes too long */
}

void conns_half_closed(weft_debug_server *s, struct conn *c, uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP)) {
        conn_cut(c);
        return;
    }
    c->half = true;
    watch(s, c, EPOLL_CTL_MOD, 0); /* errors are told without being asked for */
    if (c->r != NULL && c->r->started)
        request_leave(c->r, GONE_HURRY);
}

/* Those whose client has closed its side, and all that it has sent has been read: there will be no request. */
void conns_cut_closed(weft_debug_server *s)
{
    for (struct conn *c = s->conns; c != NULL; c = c->next) {
        int left = 0;
        if (c->half && c->state == HEADER && !c->cut && ioctl(c->fd, FIONREAD, &left) == 0 && left == 0)
            conn_cut(c);
    }
}

/* False: there are no more now. */
bool conns_accept_one(weft_debug_server *s)
{
    struct conn *c = calloc(1, sizeof *c);
    socklen_t len = sizeof c->addr;
    int yes = 1;
    if (c == NULL) {
        listen_pause(s);
        return false;
    }
    c->server = s;
    pthread_mutex_lock(&s->conns_lock);
    int err = accept_locked(s, c, &len);
    pthread_mutex_unlock(&s->conns_lock);
    if (err != 0) {
        free(c);
        if (err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ENOBUFS)
            listen_pause(s);
        return err == -ECONNABORTED || err == -EINTR;
    }
    conn_state(c, HEADER);
    c->local = peer_is_local((const void *)&c->addr);
    c->cut = true; /* it does not count yet */
    bool room = make_room(s, c);
    c->cut = false;
    if (!room) {
        int fd = c->fd;
        unlink_conn(s, c);
        turn_away(s, fd);
        return true;
    }
    if (s->listener.port != 0)
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    s->adding = c;
    s->nconns++;
    if (MHD_add_connection(s->mhd, c->fd, (struct sockaddr *)&c->addr, len) != MHD_YES && s->adding != NULL) { /* it has closed it, without a word */
        s->nconns--;
        unlink_conn(s, c);
    } else if (s->adding != NULL) {
        watch(s, c, EPOLL_CTL_ADD, EPOLLRDHUP);
    }
    s->adding = NULL;
    return true;
}
