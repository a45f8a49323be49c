/* What the tests of the endpoint share: a server whose log is kept, and a client that sends what it is told, right or wrong. */
#ifndef WEFT_SERVE_TEST_H
#define WEFT_SERVE_TEST_H

#include "test.h"
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#include <weft/serve.h>

/* ---- the server ------------------------------------------------------------------------------------------------ */

static struct { pthread_mutex_t lock; char text[1 << 16]; size_t n; } serve_said = { .lock = PTHREAD_MUTEX_INITIALIZER };

static inline void serve_log(void *arg, const char *line)
{
    (void)arg;
    pthread_mutex_lock(&serve_said.lock);
    size_t n = strlen(line);
    if (serve_said.n + n + 2 < sizeof serve_said.text) {
        memcpy(serve_said.text + serve_said.n, line, n);
        serve_said.text[serve_said.n + n] = '\n';
        serve_said.text[serve_said.n + n + 1] = 0;
        serve_said.n += n + 1;
    }
    pthread_mutex_unlock(&serve_said.lock);
}

static inline int log_has(const char *text)
{
    pthread_mutex_lock(&serve_said.lock);
    int n = 0;
    for (const char *at = serve_said.text; (at = strstr(at, text)) != NULL; at++)
        n++;
    pthread_mutex_unlock(&serve_said.lock);
    return n;
}

static inline weft_debug_server *serve_begin(weft_serve_opts o)
{
    weft_debug_server *s = NULL;
    const char *why = NULL;
    o.log = serve_log;
    o.why = &why;
    int err = weft_debug_serve(&o, &s);
    cr_assert_eq(err, 0, "%d: %s", err, why);
    return s;
}

static inline weft_serve_opts serve_opts(void)
{
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    return o;
}

/* ---- the client -------------------------------------------------------------------------------------------------- */

static inline int connect_to(int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval t = { 20, 0 };
    cr_assert(fd >= 0, "%s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void send_text(int fd, const char *text) { (void)!send(fd, text, strlen(text), MSG_NOSIGNAL); }

struct answer {
    int status;        /* 0: none */
    char head[4096];
    char *body;        /* with a NUL behind */
    size_t len;
    bool whole;        /* it ended as it should */
};

/* Value of a header; "" if there is none. Good until the next call. */
static inline const char *header(const struct answer *a, const char *name)
{
    static char value[512];
    size_t n = strlen(name);
    for (const char *at = strstr(a->head, "\r\n"); at != NULL && at[2] != 0; at = strstr(at + 2, "\r\n"))
        if (strncasecmp(at + 2, name, n) == 0 && at[2 + n] == ':') {
            snprintf(value, sizeof value, "%.*s", (int)strcspn(at + 4 + n, "\r"), at + 4 + n);
            return value;
        }
    return "";
}

static inline void unchunk(struct answer *a)
{
    char *from = a->body, *to = a->body, *end = a->body + a->len;
    a->whole = false;
    while (from < end) {
        char *data;
        size_t n = strtoul(from, &data, 16);
        data = data + 2 <= end ? data + 2 : end;
        a->whole = n == 0;
        if (n == 0 || (size_t)(end - data) < n)
            break;
        memmove(to, data, n);
        to += n;
        from = data + n + 2;
    }
    a->len = (size_t)(to - a->body);
}

/* Reads to the end of the connection. */
static inline struct answer read_answer(int fd)
{
    struct answer a = { 0 };
    size_t n = 0, room = 1 << 16;
    char *all = malloc(room);
    ssize_t k;
    while ((k = recv(fd, all + n, room - n - 1, 0)) > 0 || (k < 0 && errno == EINTR)) { /* a stop of the world: weft_config.stop_signal */
        if (k < 0)
            continue;
        n += (size_t)k;
        if (room - n < 2)
            all = realloc(all, room *= 2);
    }
    all[n] = 0;
    char *end = strstr(all, "\r\n\r\n");
    if (end != NULL && sscanf(all, "HTTP/1.%*d %d", &a.status) == 1) {
        size_t head = (size_t)(end - all) + 2;
        snprintf(a.head, sizeof a.head, "%.*s", (int)head, all);
        a.len = n - head - 2;
        a.body = malloc(a.len + 1);
        memcpy(a.body, end + 4, a.len);
        if (strcasecmp(header(&a, "Transfer-Encoding"), "chunked") == 0)
            unchunk(&a);
        else
            a.whole = *header(&a, "Content-Length") == 0 || strtoul(header(&a, "Content-Length"), NULL, 10) == a.len;
        a.body[a.len] = 0;
    } else {
        a.body = strdup("");
    }
    free(all);
    return a;
}

/* One request on a connection of its own. more: header lines, each with \r\n. */
static inline struct answer ask_with(int port, const char *method, const char *path, const char *more, const char *body)
{
    char text[1024];
    int fd = connect_to(port);
    cr_assert(fd >= 0, "nobody listens at %d", port);
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\n%s%sConnection: close\r\n", method, path, strstr(more, "Host:") == NULL ? "Host: localhost\r\n" : "", more);
    send_text(fd, text);
    if (body != NULL) {
        snprintf(text, sizeof text, "Content-Length: %zu\r\n\r\n", strlen(body));
        send_text(fd, text);
        send_text(fd, body);
    } else {
        send_text(fd, "\r\n");
    }
    struct answer a = read_answer(fd);
    close(fd);
    return a;
}

static inline struct answer get(int port, const char *path) { return ask_with(port, "GET", path, "", NULL); }

static inline int status_of(int port, const char *path)
{
    struct answer a = get(port, path);
    free(a.body);
    return a.status;
}

#endif
