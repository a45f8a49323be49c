/* A request, from its first line to the end of its answer, and the two threads that share it: the server's ("server", server.c), which alone talks to
 * libmicrohttpd, and its own ("worker"), which runs the function of its route. See request.c. */
#ifndef WEFT_SERVE_REQUEST_H
#define WEFT_SERVE_REQUEST_H

#include "base/atomic.h"
#include "debug/serve/route.h"
#include "debug/serve/uri.h"
#include <pthread.h>
#include <semaphore.h>
#include <weft/serve.h>

#define REQUEST_HEADERS 16
#define RING_BYTES (256u << 10) /* of an answer between the two threads; a power of two */
#define COMMIT_BYTES 2048u     /* an answer that has ended before is sent with its length (as Go does) */
#define WHO_BYTES 320

/* GONE_HURRY: the client has closed its side: what waits (request_wait) comes back, and what there is is sent. GONE_NOW: the runtime ends: likewise, but
 * nobody waits for a client that reads slowly. GONE: nobody reads any more, or the server ends. */
enum { GONE_NOT, GONE_HURRY, GONE_NOW, GONE };

struct header { char *name, *value; };

struct request {
    /* fixed when the worker starts */
    weft_debug_server *server;
    const struct route *route;
    char *raw;                 /* the target as it came, taken apart in place by uri_split */
    char *shown;               /* the target for people: cut, printable */
    struct uri uri;
    bool head, other_site;     /* other_site: a page of another one asks */
    char from[64];             /* who asks */
    struct header *got;        /* the request's */
    size_t ngot;
    char *body;
    size_t body_len;
    /* the worker's, until `committed` or `done` */
    int status;
    struct header sent[REQUEST_HEADERS];
    size_t nsent;
    char params[8][128];       /* what request_query has given out, in turn */
    unsigned next_param;
    /* the worker's, or whoever's who writes for it */
    char *ring;
    uint64_t written;          /* all of the body, also what was not kept (HEAD) */
    int64_t waited_ns, began_ns;
    int write_err;             /* the first that request_write has returned: what follows is missing */
    int failed;                /* the error that ended it; read after done */
    bool is_heavy, is_window;
    /* shared: [RING] */
    w_u64 put, got_out;        /* bytes put into the ring; taken out of it */
    w_u32 committed, done;     /* status and headers stand; all is written */
    w_u32 gone;                /* GONE_* */
    w_u32 abandoned, writing;  /* [ABANDONED] */
    struct request *abandoned_next;
    w_u32 refs;
    sem_t room, wake;
    /* the server's */
    pthread_t thread;
    struct conn *conn;         /* NULL: it is closed, or has its next request */
    struct request *next;      /* of those with a worker */
    bool seen, started, answered, needs_runtime; /* needs_runtime: one ran when it began */
    size_t body_room;
};

struct request *request_new(weft_debug_server *s, const char *target); /* NULL: no memory */
void request_unref(struct request *r);

/* The worker's whole life. */
void request_run(struct request *r);
/* Of the server: makes whoever waits for it come back. */
void request_leave(struct request *r, uint32_t how);
/* Of the server: takes up to n bytes out. 0: there are none now. */
size_t request_take(struct request *r, char *buf, size_t n);
bool request_has(const struct request *r);

#endif
