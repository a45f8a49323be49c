/* The server: its options, its thread, its connections. See server.c. */
#ifndef WEFT_SERVE_SERVER_H
#define WEFT_SERVE_SERVER_H

#include "debug/serve/address.h"
#include "debug/serve/request.h"
#include <weft/serve.h>

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

const struct settings *server_settings(const weft_debug_server *s);
struct jobs *server_jobs(weft_debug_server *s);
void server_wake(weft_debug_server *s);
void server_log(const weft_debug_server *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
