/* Where it listens, and whether it may. See address.c. */
#ifndef WEFT_SERVE_ADDRESS_H
#define WEFT_SERVE_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <weft/serve.h>

struct listener {
    int fd;
    int port;                  /* 0: a unix socket */
    bool local;                /* only this machine can reach it */
    char *path;                /* of a unix socket; NULL */
    dev_t dev;                 /* which it was when it was made: one that has taken its place since is not removed */
    ino_t ino;
};

/* The address that opts ask for is one of this machine only. NULL, or in *why what is wrong with what they ask. */
bool address_is_local(const weft_serve_opts *opts, const char **why);

/* Opens it; its fd is -1, and opts are such that address_is_local finds nothing wrong. 0, or a negative errno, and *why a sentence: it is to be closed
 * all the same. */
int listener_open(struct listener *l, const weft_serve_opts *opts, const char **why);
void listener_close(struct listener *l);

bool peer_is_local(const struct sockaddr *a);
bool peer_same(const struct sockaddr *a, const struct sockaddr *b); /* the same machine */
void peer_name(const struct sockaddr *a, char *out, size_t room);

#endif
