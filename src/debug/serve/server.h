/* The server: its settings, its thread, its connections. See server.c; conns.c (connections), ask.c (requests, as libmicrohttpd tells of them), serve.c (its life). */
#ifndef WEFT_SERVE_SERVER_H
#define WEFT_SERVE_SERVER_H

#include "debug/serve/address.h"
#include "debug/serve/request.h"
#include <stdbool.h>
#include <weft/serve.h>

#if !__has_include(<microhttpd.h>) || !__has_include(<gnutls/gnutls.h>)
#error libmicrohttpd or gnutls is missing: make deps installs them, make SERVE= builds without libweft-debug
#endif

#define WINDOWS_MAX 8

/* What one heavy job excludes. Only workers take the lock: the server's thread never waits for one that a stop of the world may have caught with it. */
struct jobs {
    pthread_mutex_t lock;
    bool heavy;
    char who[WHO_BYTES];
    int64_t since_ns;
    int windows;
};

struct settings {
    char *token;               /* NULL: none */
    bool tls, client_certs;
    bool open;                 /* neither token nor certificates, and browsers can reach it: names in Host are looked at */
    bool cmdline;
    int max_seconds, max_connections, max_per_address, header_ms;
    void (*log)(void *arg, const char *line);
    void *log_arg;
};

#define ACCEPTS 32                 /* before others have their turn */

enum state { HEADER, WORK, ANSWER }; /* server.c */

struct conn {
    struct conn *next, *prev;  /* [CONNS] */
    weft_debug_server *server;
    int fd;                    /* libmicrohttpd closes it */
    enum state state;
    int64_t since_ns;          /* in this state; in ANSWER: since something was taken */
    struct MHD_Connection *mhd;
    struct request *r;         /* from its first line to the end of its answer */
    bool suspended, watched, local;
    bool cut, half, known;     /* shut down by us; the client has closed its side; its certificate is good */
    struct sockaddr_storage addr;
};

struct weft_debug_server {
    /* fixed while the thread runs */
    struct settings set;
    struct listener listener;
    struct MHD_Daemon *mhd;
    int poll_fd, mhd_fd, wake_fd; /* mhd_fd: -1 when libmicrohttpd closes it, under conns_lock */
    pthread_t thread;
    pid_t pid;
    weft_debug_server *all_next;
    /* the thread's */
    struct conn *conns;        /* [CONNS]; newest first */
    struct conn *adding;       /* libmicrohttpd is being told of it; NULL: it has not kept it */
    int nconns, ncut, nworkers;
    struct request *working;
    bool listening;
    int64_t now_ns, swept_ns, listen_at_ns;
    uint64_t denied;           /* without a token, since the last line about it */
    int64_t denied_ns;
    /* shared */
    w_u32 stopping;
    struct jobs jobs;
    pthread_mutex_t conns_lock;
};

void server_wake(weft_debug_server *s);
void server_log(const weft_debug_server *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void server_own_thread(const weft_debug_server *s); /* the calling thread is one of its own */
bool server_is_mine(const weft_debug_server *s);

/* server.c. What libmicrohttpd is to be started with; 0, or an error and *why a sentence. Then the thread. */
struct tls_files { char *cert, *key, *client_ca; };
int server_prepare(weft_debug_server *s, const struct tls_files *t, const char **why);
int server_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg); /* 0 or errno */
void *server_main(void *arg);

/* conns.c, on the server's thread. */
void conns_ended(weft_debug_server *s, struct conn *c);
bool conns_accept_one(weft_debug_server *s); /* false: there are no more now */
void conns_listen(weft_debug_server *s);
void conns_half_closed(weft_debug_server *s, struct conn *c, uint32_t events);
void conns_cut_closed(weft_debug_server *s);
void conn_state(struct conn *c, enum state state);
void conn_cut(struct conn *c);

/* ask.c: what libmicrohttpd calls for each request. */
struct MHD_Daemon *ask_start_daemon(weft_debug_server *s, const struct tls_files *t);

#endif
