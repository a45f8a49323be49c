/* Listening and dialling by address.
 *
 * An address becomes a short list of socket addresses: one if it is numeric or a unix path, two for ":port", and what getaddrinfo says for a name.
 * getaddrinfo blocks its thread, takes locks of libc and may want more stack than a fiber has. So it runs on a fiber of its own with a big stack,
 * between weft_blocking_begin and _end, while the caller waits for it, but not beyond its deadline: what they share is counted, and who leaves last
 * frees it. */
#include "base/fail.h"
#include "base/offheap.h"
#include "base/syscall.h"
#include "sched/fd.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>
#include <weft/sync.h>

#define ADDRESSES 16
#define HOST_BYTES 256
#define LOOKUP_STACK (1u << 20)

union address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

struct addresses {
    int n;
    struct { union address a; socklen_t len; } at[ADDRESSES];
};

/* ---- addresses without a name server ----------------------------------------------------------------------------- */

static void add_in(struct addresses *to, struct in_addr ip, uint16_t port)
{
    to->at[to->n].a.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = ip };
    to->at[to->n++].len = sizeof(struct sockaddr_in);
}

static void add_in6(struct addresses *to, struct in6_addr ip, uint16_t port, uint32_t scope)
{
    to->at[to->n].a.in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = ip, .sin6_scope_id = scope };
    to->at[to->n++].len = sizeof(struct sockaddr_in6);
}

/* "unix:" has been read; a name that begins with @ is abstract: its first byte is 0 and it does not end in one. */
static int parse_unix(const char *path, struct addresses *to)
{
    struct sockaddr_un *un = &to->at[0].a.un;
    size_t len = strlen(path);
    if (len == 0 || (len == 1 && path[0] == '@'))
        return -EINVAL;
    if (len >= sizeof un->sun_path)
        return -ENAMETOOLONG;
    *un = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(un->sun_path, path, len);
    if (path[0] == '@')
        un->sun_path[0] = 0;
    to->at[0].len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] != '@'));
    to->n = 1;
    return 0;
}

static int parse_port(const char *s, uint16_t *port)
{
    unsigned n = 0, digits = 0;
    for (; *s >= '0' && *s <= '9' && digits <= 5; s++, digits++)
        n = n * 10 + (unsigned)(*s - '0');
    if (*s != 0 || digits == 0 || n > 65535)
        return -EINVAL;
    *port = (uint16_t)n;
    return 0;
}

/* "fe80::1%eth0" or "%2". */
static int parse_in6(char *host, uint16_t port, struct addresses *to)
{
    struct in6_addr ip;
    uint32_t scope = 0;
    char *percent = strchr(host, '%');
    if (percent != NULL) {
        *percent = 0;
        scope = 0;
        const char *s = percent + 1;
        for (; *s >= '0' && *s <= '9'; s++)
            scope = scope * 10 + (uint32_t)(*s - '0');
        if (*s != 0) {
            int saved = errno;
            scope = if_nametoindex(percent + 1);
            errno = saved;
        }
        if (scope == 0)
            return -EINVAL;
    }
    if (inet_pton(AF_INET6, host, &ip) != 1) /* sets errno for an unknown family only */
        return -EINVAL;
    add_in6(to, ip, port, scope);
    return 0;
}

/* Splits at the last colon: host may be empty, and is in brackets if it holds colons itself. */
static int split(const char *address, char host[HOST_BYTES], bool *bracketed, uint16_t *port)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || parse_port(colon + 1, port) != 0)
        return -EINVAL;
    const char *from = address, *to = colon;
    *bracketed = *from == '[';
    if (*bracketed) {
        if (to - from < 3 || to[-1] != ']')
            return -EINVAL;
        from++;
        to--;
    }
    if (to - from >= HOST_BYTES)
        return -EINVAL;
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = 0;
    return strpbrk(host, "[]") != NULL || (!*bracketed && strchr(host, ':') != NULL) ? -EINVAL : 0;
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

struct lookup {
    w_u32 users;    /* the caller and the fiber */
    weft_sema done;
    int result;
    uint16_t port;
    struct addresses found;
    char host[HOST_BYTES];
};

static void lookup_drop(struct lookup *l)
{
    if (sub_acq_rel(&l->users, 1) == 1) { /* rel: our use of it; acq: the other's */
        rt_enter();
        off_free(OFF_SCHED, l);
        rt_leave(m_self());
    }
}

static int lookup_error(int gai)
{
    switch (gai) {
    case EAI_AGAIN: return -EAGAIN;
    case EAI_MEMORY: return -ENOMEM;
    case EAI_SYSTEM: return errno != 0 ? -errno : -EIO;
    default: return -ENOENT; /* no such name, or none with an address */
    }
}

/* Touches nothing of the heap. One frame, one thread: errno may be used. */
static int getaddrinfo_blocking(struct lookup *l)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *list = NULL;
    int saved = errno;
    int r = getaddrinfo(l->host, NULL, &hints, &list);
    r = r == 0 ? 0 : lookup_error(r);
    for (struct addrinfo *ai = list; ai != NULL && l->found.n < ADDRESSES; ai = ai->ai_next) {
        if (ai->ai_family == AF_INET)
            add_in(&l->found, ((struct sockaddr_in *)(void *)ai->ai_addr)->sin_addr, l->port);
        else if (ai->ai_family == AF_INET6) {
            struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)ai->ai_addr;
            add_in6(&l->found, in6->sin6_addr, l->port, in6->sin6_scope_id);
        }
    }
    if (list != NULL)
        freeaddrinfo(list);
    errno = saved;
    return r;
}

static void lookup_fiber(void *arg)
{
    struct lookup *l = arg;
    weft_blocking_begin();
    int r = getaddrinfo_blocking(l);
    weft_blocking_end();
    l->result = r;
    weft_sema_release(&l->done, 1);
    lookup_drop(l);
}

static int look_up(const char *host, uint16_t port, int64_t deadline, struct addresses *to)
{
    rt_enter();
    struct lookup *l = off_zalloc(OFF_SCHED, sizeof *l);
    rt_leave(m_self());
    if (l == NULL)
        return -ENOMEM;
    store_rlx(&l->users, 2); /* rlx: the start of the fiber publishes it */
    l->port = port;
    memcpy(l->host, host, strlen(host) + 1);
    weft_go_opts opts = WEFT_GO_OPTS_INIT;
    opts.name = "name lookup";
    opts.stack_size = LOOKUP_STACK;
    int r = weft_go_opts_run(lookup_fiber, l, &opts);
    if (r < 0)
        lookup_drop(l); /* for the fiber */
    else
        r = weft_sema_acquire_until(&l->done, deadline);
    if (r == 0) {
        r = l->result;
        *to = l->found;
    }
    lookup_drop(l);
    return r;
}

/* A name stands for one listener: the IPv4 address, if it has one, is what others try too. */
static void in_first(struct addresses *list)
{
    for (int i = 1; i < list->n && list->at[0].a.sa.sa_family != AF_INET; i++) {
        if (list->at[i].a.sa.sa_family == AF_INET) {
            __typeof__(list->at[0]) first = list->at[0];
            list->at[0] = list->at[i];
            list->at[i] = first;
        }
    }
}

static int resolve(const char *address, int64_t deadline, bool listen, struct addresses *to)
{
    char host[HOST_BYTES];
    uint16_t port;
    bool bracketed;
    struct in_addr ip;
    to->n = 0;
    if (strncmp(address, "unix:", 5) == 0)
        return parse_unix(address + 5, to);
    if (split(address, host, &bracketed, &port) != 0)
        return -EINVAL;
    if (bracketed)
        return parse_in6(host, port, to);
    if (host[0] == 0) { /* all, by one socket if there is IPv6; or this host */
        if (listen)
            add_in6(to, in6addr_any, port, 0);
        add_in(to, (struct in_addr){ htonl(listen ? INADDR_ANY : INADDR_LOOPBACK) }, port);
        if (!listen)
            add_in6(to, in6addr_loopback, port, 0);
        return 0;
    }
    if (inet_pton(AF_INET, host, &ip) == 1) {
        add_in(to, ip, port);
        return 0;
    }
    int r = look_up(host, port, deadline, to);
    if (listen)
        in_first(to);
    return r;
}

/* ---- sockets ---------------------------------------------------------------------------------------------------------- */

static int set_option(int fd, int level, int name, int value)
{
    return (int)sys_call6(SYS_setsockopt, fd, level, name, (long)&value, sizeof value, 0);
}

/* One with a socket that epoll does not know yet. */
static int socket_new(int family, struct fd **out)
{
    rt_enter();
    struct fd *f = fd_new();
    rt_leave(m_self());
    if (f == NULL)
        return -ENOMEM;
    int r = fail_now(FAIL_FD) ? -EMFILE : (int)sys_call3(SYS_socket, family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    f->fd = r >= 0 ? r : -1;
    f->flags = family == AF_UNIX ? FD_IS_SOCKET : FD_IS_SOCKET | FD_IS_TCP;
    if (r >= 0 && family != AF_UNIX)
        r = set_option(f->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    *out = f;
    return r < 0 ? r : 0;
}

static int give(struct fd *f, int r, weft_fd **out)
{
    if (r == 0)
        *out = fd_handle(f);
    else if (f != NULL) {
        rt_enter();
        fd_discard(f);
        rt_leave(m_self());
    }
    return r;
}

static int listen_at(const union address *a, socklen_t len, int backlog, weft_fd **out)
{
    struct fd *f = NULL;
    int family = a->sa.sa_family;
    int r = socket_new(family, &f);
    if (r == 0 && family != AF_UNIX)
        r = set_option(f->fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (r == 0 && family == AF_INET6)
        r = set_option(f->fd, IPPROTO_IPV6, IPV6_V6ONLY, memcmp(&a->in6.sin6_addr, &in6addr_any, sizeof in6addr_any) != 0);
    if (r == 0)
        r = (int)sys_call3(SYS_bind, f->fd, a, len);
    if (r == 0)
        r = (int)sys_call2(SYS_listen, f->fd, backlog > 0 ? backlog : SOMAXCONN);
    if (r == 0)
        r = netpoll_add(&f->poll, f->fd, false, fd_tag(f));
    return give(f, r, out);
}

/* The next address is tried where this one is not to be had on this host, as without IPv6. If somebody listens there already, that is the answer:
 * else we would take what is left of the port, and get a part of what is meant for us. */
int weft_listen(const char *address, int backlog, weft_fd **out)
{
    struct addresses list;
    int r = resolve(address, 0, true, &list);
    if (r != 0)
        return r;
    r = -ENOENT;
    for (int i = 0; i < list.n && r != 0 && r != -EADDRINUSE; i++)
        r = listen_at(&list.at[i].a, list.at[i].len, backlog, out);
    return r;
}

/* A port of our own that was free and happened to be the one we dial is connected with itself. */
static bool is_itself(struct fd *f)
{
    union address me, peer;
    socklen_t len = sizeof me, peer_len = sizeof peer;
    return f->flags & FD_IS_TCP && sys_call3(SYS_getsockname, f->fd, &me, &len) == 0 &&
           sys_call3(SYS_getpeername, f->fd, &peer, &peer_len) == 0 && len == peer_len && memcmp(&me, &peer, len) == 0;
}

static int dial_at(const union address *a, socklen_t len, int64_t deadline, weft_fd **out)
{
    struct fd *f = NULL;
    int r = socket_new(a->sa.sa_family, &f);
    if (r == 0) {
        store_rlx(&f->side[FD_WRITE].deadline_ns, deadline); /* rlx: nobody else knows f */
        r = fd_connect_new(f, &a->sa, len);
    }
    if (r == 0 && is_itself(f))
        r = -ECONNREFUSED;
    if (r == 0)
        store_rlx(&f->side[FD_WRITE].deadline_ns, 0); /* rlx: as above */
    return give(f, r, out);
}

int weft_dial(const char *address, int64_t deadline, weft_fd **out)
{
    struct addresses list;
    int r = resolve(address, deadline, false, &list);
    int first_error = -ENOENT;
    if (r != 0)
        return r;
    for (int i = 0; i < list.n; i++) {
        r = dial_at(&list.at[i].a, list.at[i].len, deadline, out);
        if (r == 0 || (deadline != 0 && sched_now_ns() >= deadline))
            return r;
        if (i == 0)
            first_error = r;
    }
    return first_error;
}

int weft_fd_port(const weft_fd *h)
{
    struct fd *f = fd_at(h);
    union address a;
    socklen_t len = sizeof a;
    rt_enter();
    int r = fd_hold(h);
    if (r == 0) {
        r = (int)sys_call3(SYS_getsockname, f->fd, &a, &len);
        if (r == 0)
            r = a.sa.sa_family == AF_INET ? ntohs(a.in.sin_port) : a.sa.sa_family == AF_INET6 ? ntohs(a.in6.sin6_port) : -EAFNOSUPPORT;
        fd_drop(f);
    }
    rt_leave(m_self());
    return r;
}
