/* Where the server listens.
 *
 * A unix socket is made so that it is never open to others, not for a moment: its mode is that of the descriptor when bind(2) makes it, and nobody can
 * connect before listen(2). One that is in the way is removed only if it is a socket, this user's, and nobody serves it; that is found out, and the new
 * one made, under a lock (flock) of the folder, so that of two programs that start at once one does not remove the other's. */
#include "debug/serve/address.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

static bool is_loopback_4(uint32_t a) { return ntohl(a) >> 24 == 127; }

static bool is_loopback(const struct sockaddr *a)
{
    const union address *u = (const void *)a;
    if (a->sa_family == AF_INET)
        return is_loopback_4(u->v4.sin_addr.s_addr);
    if (a->sa_family != AF_INET6)
        return a->sa_family == AF_UNIX;
    const struct in6_addr *v6 = &u->v6.sin6_addr;
    uint32_t last;
    memcpy(&last, &v6->s6_addr[12], sizeof last);
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && is_loopback_4(last));
}

/* False: it is no number. *len: of the address. */
static bool address_parse(const weft_serve_opts *opts, union address *out, socklen_t *len)
{
    const char *text = opts->address != NULL ? opts->address : "127.0.0.1";
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons((uint16_t)opts->port);
        *len = sizeof out->v4;
        return true;
    }
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons((uint16_t)opts->port);
    *len = sizeof out->v6;
    return inet_pton(AF_INET6, text, &out->v6.sin6_addr) == 1;
}

bool address_is_local(const weft_serve_opts *opts, const char **why)
{
    union address a;
    socklen_t len;
    *why = NULL;
    if (opts->unix_path != NULL) {
        if (opts->address != NULL || opts->port != 0)
            *why = "both unix_path and an address or port are set: choose one";
        else if (strlen(opts->unix_path) >= sizeof a.local.sun_path || opts->unix_path[0] == 0)
            *why = "unix_path is empty, or longer than the 107 bytes that a socket's name may have";
        return true;
    }
    if (opts->port < 0 || opts->port > 65535)
        *why = "port is not one of 0 to 65535";
    else if (!address_parse(opts, &a, &len))
        *why = "address is no number such as 127.0.0.1 or ::1: names are not looked up";
    return *why == NULL && is_loopback(&a.any);
}

static int open_inet(struct listener *l, const weft_serve_opts *opts, const char **why)
{
    union address a;
    socklen_t len;
    int yes = 1;
    address_parse(opts, &a, &len);
    l->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *why = "no socket can be had";
    if (l->fd < 0)
        return -errno;
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    *why = "the address and port cannot be had: is another program there?";
    if (bind(l->fd, &a.any, len) != 0 || listen(l->fd, BACKLOG) != 0 || getsockname(l->fd, &a.any, &len) != 0)
        return -errno;
    l->port = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
    return 0;
}

/* What is at the path: 0, nothing any more; else why it stays. Under the folder's lock. */
static int remove_stale(const union address *a, const char **why)
{
    struct stat st;
    *why = "nothing can be known of what is at unix_path";
    if (lstat(a->local.sun_path, &st) != 0)
        return errno == ENOENT ? 0 : -errno;
    *why = "at unix_path is something that is no socket, or not this user's: it is not touched";
    if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid())
        return -EEXIST;
    *why = "at unix_path another program serves";
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int err = connect(fd, &a->any, sizeof a->local) == 0 ? 0 : errno;
    close(fd);
    if (err != ECONNREFUSED) /* it was accepted, or would be if there were less to do */
        return -EADDRINUSE;
    return unlink(a->local.sun_path) == 0 ? 0 : -errno;
}

static int bind_unix(struct listener *l, const union address *a, const char **why)
{
    struct stat st;
    int err = remove_stale(a, why);
    if (err != 0)
        return err;
    *why = "no socket can be made at unix_path";
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || fchmod(l->fd, 0600) != 0 || bind(l->fd, &a->any, sizeof a->local) != 0)
        return -errno;
    if (lstat(a->local.sun_path, &st) != 0)
        return -errno;
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    if ((st.st_mode & 077) != 0 || !S_ISSOCK(st.st_mode)) { /* a file system without modes */
        *why = "the socket at unix_path would be open to other users: choose another folder";
        unlink(a->local.sun_path);
        return -EPERM;
    }
    return listen(l->fd, BACKLOG) == 0 ? 0 : -errno;
}

static int open_unix(struct listener *l, const weft_serve_opts *opts, const char **why)
{
    union address a = { .local = { .sun_family = AF_UNIX } };
    char folder[sizeof a.local.sun_path];
    strcpy(a.local.sun_path, opts->unix_path); /* it fits: address_is_local */
    strcpy(folder, opts->unix_path);
    *why = "no memory";
    l->path = strdup(opts->unix_path);
    if (l->path == NULL)
        return -ENOMEM;
    *why = "the folder of unix_path cannot be opened";
    int dir = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
    if (dir < 0)
        return -errno;
    for (int tries = 0; flock(dir, LOCK_EX | LOCK_NB) != 0 && err == 0; tries++) /* others hold it for moments; who holds it longer is no server */
        if (tries < 100)
            usleep(10000);
        else
            err = -EBUSY;
    *why = "somebody holds a lock on the folder of unix_path";
    if (err == 0)
        err = bind_unix(l, &a, why);
    close(dir);
    return err;
}

int listener_open(struct listener *l, const weft_serve_opts *opts, const char **why)
{
    return opts->unix_path != NULL ? open_unix(l, opts, why) : open_inet(l, opts, why);
}

/* The name goes first: as long as it is listened to, nobody takes it for one that nobody serves, and puts his own in its place. */
void listener_close(struct listener *l)
{
    struct stat st;
    if (l->path != NULL && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
        unlink(l->path);
    if (l->fd >= 0)
        close(l->fd);
    free(l->path);
    l->fd = -1;
    l->path = NULL;
}

/* ---- who is at the other end ---------------------------------------------------------------------------------------- */

bool peer_is_local(const struct sockaddr *a) { return is_loopback(a); }

bool peer_same(const struct sockaddr *a, const struct sockaddr *b)
{
    const union address *x = (const void *)a, *y = (const void *)b;
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET)
        return x->v4.sin_addr.s_addr == y->v4.sin_addr.s_addr;
    if (a->sa_family != AF_INET6)
        return false;
    size_t n = IN6_IS_ADDR_V4MAPPED(&x->v6.sin6_addr) ? 16 : 8; /* 8: the network that one customer gets */
    return memcmp(&x->v6.sin6_addr, &y->v6.sin6_addr, n) == 0;
}

void peer_name(const struct sockaddr *a, char *out, size_t room)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    const union address *u = (const void *)a;
    if (a->sa_family == AF_INET && inet_ntop(AF_INET, &u->v4.sin_addr, ip, sizeof ip) != NULL)
        snprintf(out, room, "%s:%u", ip, ntohs(u->v4.sin_port));
    else if (a->sa_family == AF_INET6 && inet_ntop(AF_INET6, &u->v6.sin6_addr, ip, sizeof ip) != NULL)
        snprintf(out, room, "[%s]:%u", ip, ntohs(u->v6.sin6_port));
    else
        snprintf(out, room, "the unix socket");
}
