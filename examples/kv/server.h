/* server.h - connections, listeners and what is counted about them. */
#ifndef KV_SERVER_H
#define KV_SERVER_H

#include "resp.h"

/* A connection: one fiber, which alone touches it, but for what the list needs (under server.clients_lock). */
struct client {
    struct resp_in in;
    struct resp_out out;
    weft_fd *fd;
    int64_t now_ms;   /* of the monotonic clock, taken once per batch of requests */
    uint64_t commands; /* since the batch began */
    bool closing;     /* after the replies that are collected */
    bool over_tcp;

    struct client *prev, *next; /* clients_lock */
    uint64_t id;                /* fixed, as are the next two */
    int64_t since_ms;
    char peer[64];
    char name[64];              /* clients_lock */
};

struct server_options {
    const char *bind;      /* numeric address for TCP; NULL: no TCP */
    int port;              /* 0: any free one, which the ready line tells */
    const char *unix_path; /* NULL: none */
    int max_clients;
    int grace_ms;          /* on SIGTERM: how long connections may take to finish */
    int64_t memory_limit;
};

extern struct server {
    struct server_options options; /* fixed once it runs, as are these */
    int port;
    int64_t start_ms;
    weft_mutex clients_lock;
    struct client *clients; /* with n_clients and stopping: under clients_lock */
    size_t n_clients;       /* read by clients_count */
    bool stopping;
    /* Counters: relaxed, nobody orders anything by them. */
    uint64_t next_id, accepted, rejected, commands, protocol_errors, reply_too_large;
} server;

/* Serves until SIGTERM or SIGINT, which the caller has blocked in all threads. 0, or 1 after a message to stderr. */
int server_run(const struct server_options *options);

size_t clients_count(void); /* without the lock */

/* The counters start again from nothing. */
void server_stats_reset(void);

#endif
