/* The server's thread, connections, and the server's life.
 *
 * One thread of the server's, a stranger to the runtime (it never calls what would attach it, so no stop and no collection holds it up), does all that
 * has to do with connections: accepts, drives libmicrohttpd (which is not thread-safe here, nor needs to be), checks who asks, refuses, sends. What a route answers is
 * made on a thread of the request's own, the worker (request.c), which may wait for the runtime as long as it likes; meanwhile its connection is suspended
 * (libmicrohttpd does not look at it) and watched here for a client that goes away.
 *
 *      accept -> HEADER -> request is complete and may be: WORK (worker starts, suspended) -> first bytes, or the end: ANSWER -> HEADER ...
 *                       -> refused: ANSWER
 *
 * Bounds, whoever asks for whatever:
 *   - connections: for one too many, that which has been in HEADER longest is closed, so a thousand that send a byte a second keep nobody out who sends
 *     a request; if all are at work, the new one gets 503. Likewise per address.
 *   - a request must be complete header_ms after the last one (or the connection) began; 24 KiB of header, BODY_MAX of body.
 *   - in ANSWER something must be taken every STALLED_NS.
 *   - workers: as many as connections; one whose client has gone counts until it has ended.
 *
 * [CONNS] The list of connections is the thread's own, but that a fork must find it whole, to close the descriptors in the child: changes are made under
 * conns_lock, which the handler of the fork takes. Nobody holds it for longer than a system call, and never within weft.
 *
 * The runtime may end while requests are under way. None may hold it up: the thread looks ten times a second, while there are workers, whether it still
 * runs, and makes those come back that began while it did (GONE_NOW).
 *
 * A client that closes its side (FIN) may still read, or may be gone; as in Go, what it asked for is cut short, and sent. If nobody is there, the kernel
 * says so then. */
#include "debug/serve/api.h"
#include "debug/serve/server.h"
#include "debug/serve/access.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <weft/debug.h>
#include <weft/sched.h>

#define CONNECTION_BYTES (24u << 10) /* that libmicrohttpd has for a connection: the header must fit */
#define BODY_MAX (1u << 20)
#define HEADERS_BYTES (16u << 10)  /* of a request, that are kept for its worker */
#define STALLED_NS INT64_C(30000000000)
#define LOOK_MS 100
#define SWEEP_MS 250
#define ACCEPTS 32                 /* before others have their turn */
#define STACK_BYTES (512u << 10)
#define PIECE_BYTES (16u << 10)

enum state { HEADER, WORK, ANSWER };

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
    int poll_fd, mhd_fd, wake_fd;
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

static __thread const weft_debug_server *of_server; /* whose thread this is */

const struct settings *server_settings(const weft_debug_server *s) { return &s->set; }
struct jobs *server_jobs(weft_debug_server *s) { return &s->jobs; }

void server_wake(weft_debug_server *s)
{
    uint64_t one = 1;
    while (write(s->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void server_log(const weft_debug_server *s, const char *fmt, ...)
{
    char line[700];
    va_list args;
    va_start(args, fmt);
    int n = snprintf(line, sizeof line, "weft-debug: ");
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, args);
    va_end(args);
    if (s->set.log != NULL)
        s->set.log(s->set.log_arg, line);
    else
        fprintf(stderr, "%s\n", line);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static struct conn *conn_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i != NULL ? i->socket_context : NULL;
}

static void conn_state(struct conn *c, enum state state)
{
    c->state = state;
    c->since_ns = c->server->now_ns;
}

/* libmicrohttpd finds it at its end, and closes it, with what hangs on it. */
static void conn_cut(struct conn *c)
{
    if (c->cut)
        return;
    c->cut = true;
    c->server->ncut++;
    shutdown(c->fd, SHUT_RDWR);
    if (c->r != NULL && c->r->started)
        request_leave(c->r, GONE);
}

/* ---- answers of the server's own ------------------------------------------------------------------------------------------ */

static void common_headers(struct MHD_Response *response)
{
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
}

static enum MHD_Result send_response(struct conn *c, unsigned status, struct MHD_Response *response)
{
    common_headers(response);
    enum MHD_Result yes = MHD_queue_response(c->mhd, status, response);
    MHD_destroy_response(response);
    c->r->answered = true;
    conn_state(c, ANSWER);
    return yes;
}

/* A sentence, with one more header or two. */
static enum MHD_Result refuse(struct conn *c, unsigned status, const char *text, const char *name, const char *value)
{
    char body[512];
    int n = snprintf(body, sizeof body, "%s\n", text);
    struct MHD_Response *response = MHD_create_response_from_buffer((size_t)n, body, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    if (name != NULL)
        MHD_add_response_header(response, name, value);
    if (status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"weft\"");
    if (status == 413 || status == 401) /* what follows of the request is not read */
        MHD_add_response_header(response, "Connection", "close");
    return send_response(c, status, response);
}

static enum MHD_Result redirect(struct conn *c, const char *to)
{
    char where[1024];
    const char *query = c->r->uri.query;
    if (snprintf(where, sizeof where, "%s%s%s", to, *query != 0 ? "?" : "", query) >= (int)sizeof where)
        return refuse(c, 404, "404 page not found", NULL, NULL);
    return refuse(c, 301, "moved", "Location", where);
}

/* ---- who may ask ------------------------------------------------------------------------------------------------------------ */

static const char *header_of(struct conn *c, const char *name) { return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name); }

/* The client has shown a certificate of the authority, for clients. Once per connection: libmicrohttpd asks for one, and goes on without. */
static bool certificate_good(struct conn *c)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    gnutls_typed_vdata_st purpose = { GNUTLS_DT_KEY_PURPOSE_OID, (void *)GNUTLS_KP_TLS_WWW_CLIENT, 0 };
    unsigned status = 0;
    if (!c->known)
        c->known = i != NULL && i->tls_session != NULL &&
                   gnutls_certificate_verify_peers(i->tls_session, &purpose, 1, &status) == 0 && status == 0;
    return c->known;
}

static void tell_denied(weft_debug_server *s, struct conn *c)
{
    char who[64];
    s->denied++;
    if (s->now_ns - s->denied_ns < INT64_C(1000000000))
        return;
    peer_name((const void *)&c->addr, who, sizeof who);
    server_log(s, "%llu request%s refused, without the right token or certificate; the last from %s", (unsigned long long)s->denied, s->denied == 1 ? "" : "s", who);
    s->denied = 0;
    s->denied_ns = s->now_ns;
}

/* 0: it may; else it has been answered. */
static bool may_ask(weft_debug_server *s, struct conn *c, enum MHD_Result *answer)
{
    if (s->set.client_certs && !certificate_good(c)) {
        tell_denied(s, c);
        *answer = refuse(c, 403, "a client certificate of the right authority is needed", NULL, NULL);
        return false;
    }
    if (s->set.token != NULL && !token_shown(header_of(c, "Authorization"), s->set.token)) {
        tell_denied(s, c);
        *answer = refuse(c, 401, "a token is needed: Authorization: Bearer TOKEN, or TOKEN as the password of Basic", "WWW-Authenticate", "Basic realm=\"weft\"");
        return false;
    }
    if (s->set.open && !host_is_local(header_of(c, "Host"))) {
        *answer = refuse(c, 403, "the name in Host is neither a number nor localhost: without a token only those are answered, lest a web page whose name leads "
                                 "here reads this", NULL, NULL);
        return false;
    }
    return true;
}

static bool method_is_good(const struct route *route, const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || (route->flags & ROUTE_POST && strcmp(method, "POST") == 0);
}

/* The header of a request is here: what can be refused now is. */
static enum MHD_Result request_begins(weft_debug_server *s, struct conn *c, const char *method)
{
    struct request *r = c->r;
    enum MHD_Result answer;
    if (!may_ask(s, c, &answer))
        return answer;
    if (!uri_split(r->raw, &r->uri))
        return refuse(c, 400, "the path cannot be read", NULL, NULL);
    const char *path = r->uri.path;
    if (strcmp(path, "/debug/pprof") == 0)
        return redirect(c, "/debug/pprof/");
    if (strcmp(path, "/") == 0 || strcmp(path, "/debug") == 0)
        return redirect(c, "/debug/");
    r->route = route_find(path);
    if (r->route == NULL)
        return refuse(c, 404, "404 page not found", NULL, NULL);
    if (!method_is_good(r->route, method))
        return refuse(c, 405, "Method Not Allowed", "Allow", r->route->flags & ROUTE_POST ? "GET, HEAD, POST" : "GET, HEAD");
    r->head = strcmp(method, "HEAD") == 0;
    r->other_site = asked_by_other_site(header_of(c, "Sec-Fetch-Site"), header_of(c, "Origin"), header_of(c, "Host"), s->set.tls);
    if (r->other_site && !is_navigation(header_of(c, "Sec-Fetch-Mode")))
        return refuse(c, 403, "a page of another site asks for this", NULL, NULL);
    const char *length = header_of(c, "Content-Length");
    int64_t n = 0;
    if (length != NULL && (!uri_int(length, &n) || n < 0 || n > BODY_MAX))
        return refuse(c, 413, "the request's body may have 1 MiB", NULL, NULL);
    return MHD_YES;
}

/* ---- the way of a request -------------------------------------------------------------------------------------------------- */

static bool take_body(struct request *r, const char *data, size_t n)
{
    if (n > BODY_MAX - r->body_len)
        return false;
    if (!(r->route->flags & ROUTE_POST)) { /* a GET with a body: counted, and dropped */
        r->body_len += n;
        return true;
    }
    if (r->body_len + n > r->body_room) {
        size_t room = (r->body_len + n) * 2;
        char *body = realloc(r->body, room);
        if (body == NULL)
            return false;
        r->body = body;
        r->body_room = room;
    }
    memcpy(r->body + r->body_len, data, n);
    r->body_len += n;
    return true;
}

struct keep { struct request *r; size_t bytes; };

static enum MHD_Result keep_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct keep *k = arg;
    (void)kind;
    size_t n = strlen(name) + (value != NULL ? strlen(value) : 0);
    if (strcasecmp(name, "Authorization") == 0 || strcasecmp(name, "Cookie") == 0 || k->bytes + n > HEADERS_BYTES || k->r->ngot == 64)
        return MHD_YES;
    struct header h = { strdup(name), strdup(value != NULL ? value : "") };
    if (h.name == NULL || h.value == NULL) {
        free(h.name);
        free(h.value);
        return MHD_NO;
    }
    k->bytes += n;
    k->r->got[k->r->ngot++] = h;
    return MHD_YES;
}

static void *worker(void *arg)
{
    struct request *r = arg;
    of_server = r->server;
    pthread_setname_np(pthread_self(), "weft-debug-job");
    request_run(r);
    return NULL;
}

/* All signals stay with the host's threads, but those that a thread gets for what it does itself. (Attaching to the runtime unblocks what that needs.) */
static int thread_start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    sigset_t mask, old;
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);
    if (err != 0)
        return err;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&mask);
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&mask, own[i]);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    err = pthread_create(thread, &attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return err;
}

static void suspend(struct conn *c)
{
    MHD_suspend_connection(c->mhd);
    c->suspended = true;
}

static enum MHD_Result start_worker(weft_debug_server *s, struct conn *c)
{
    struct request *r = c->r;
    struct keep keep = { r, 0 };
    r->got = calloc(64, sizeof *r->got);
    if (r->got == NULL)
        return MHD_NO;
    MHD_get_connection_values(c->mhd, MHD_HEADER_KIND, keep_header, &keep);
    peer_name((const void *)&c->addr, r->from, sizeof r->from);
    r->needs_runtime = weft_running();
    add_rlx(&r->refs, 1); /* rlx: nobody else knows it yet */
    if (s->nworkers >= s->set.max_connections || thread_start(&r->thread, worker, r) != 0) {
        sub_rlx(&r->refs, 1); /* rlx: likewise */
        return refuse(c, 503, "too much is under way, or no thread can be had: try again later", "Retry-After", "5");
    }
    r->started = true;
    r->next = s->working;
    s->working = r;
    s->nworkers++;
    conn_state(c, WORK);
    if (c->half)
        request_leave(r, GONE_HURRY);
    suspend(c);
    return MHD_YES;
}

static void free_reader(void *arg) { request_unref(arg); }

/* Called by libmicrohttpd when it has sent what it had: up to max bytes more. */
static ssize_t read_answer(void *arg, uint64_t at, char *buf, size_t max)
{
    struct request *r = arg;
    struct conn *c = r->conn;
    bool done = load_acq(&r->done) != 0; /* acq: sees all that was put, and whether it has failed; rel in request_run */
    size_t n = request_take(r, buf, max);
    (void)at;
    if (c != NULL)
        c->since_ns = c->server->now_ns;
    if (n > 0)
        return (ssize_t)n;
    if (done)
        return r->failed == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
    if (c == NULL || c->cut)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    suspend(c);
    return 0;
}

/* Status and headers stand. */
static enum MHD_Result answer(struct conn *c, bool done)
{
    struct request *r = c->r;
    struct MHD_Response *response;
    bool whole = done && r->failed == 0 && r->written < COMMIT_BYTES;
    if (done && r->failed != 0 && load_acq(&r->put) == 0) /* acq: as in request_take */
        return MHD_NO; /* nothing to be sent that would be true */
    if (whole && !r->head) {
        response = MHD_create_response_from_buffer((size_t)r->written, r->ring != NULL ? r->ring : "", MHD_RESPMEM_MUST_COPY);
    } else {
        add_rlx(&r->refs, 1); /* rlx: the caller has one */
        response = MHD_create_response_from_callback(whole ? r->written : MHD_SIZE_UNKNOWN, PIECE_BYTES, read_answer, r, free_reader);
        if (response == NULL)
            request_unref(r);
    }
    if (response == NULL)
        return MHD_NO;
    bool typed = false;
    for (size_t i = 0; i < r->nsent; i++) {
        typed = typed || strcasecmp(r->sent[i].name, "Content-Type") == 0;
        MHD_add_response_header(response, r->sent[i].name, r->sent[i].value);
    }
    if (!typed)
        MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    return send_response(c, (unsigned)r->status, response);
}

/* libmicrohttpd: the header is there (the first time), a piece of the body (*n > 0), all is there, or the connection was resumed. MHD_NO closes it. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *mhd, const char *url, const char *method, const char *version, const char *data, size_t *n,
                                  void **context)
{
    weft_debug_server *s = arg;
    struct request *r = *context;
    struct conn *c = conn_of(mhd);
    (void)url, (void)version;
    if (r == NULL || c == NULL)
        return MHD_NO;
    c->mhd = mhd;
    if (!r->seen) {
        r->seen = true;
        return request_begins(s, c, method);
    }
    if (*n > 0) {
        bool good = take_body(r, data, *n);
        *n = 0;
        return good ? MHD_YES : MHD_NO;
    }
    if (!r->started)
        return start_worker(s, c);
    bool done = load_acq(&r->done) != 0; /* acq: as in read_answer */
    if (c->cut)
        return MHD_NO;
    if (done || load_acq(&r->committed) != 0) /* acq: sees status and headers; rel in commit */
        return answer(c, done);
    suspend(c);
    return MHD_YES;
}

/* The first line of a request is here. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *mhd)
{
    struct conn *c = conn_of(mhd);
    struct request *r = c != NULL ? request_new(arg, target) : NULL;
    if (r != NULL) {
        r->conn = c;
        c->r = r;
    }
    return r;
}

static void on_completed(void *arg, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode how)
{
    struct request *r = *context;
    struct conn *c = r != NULL ? r->conn : NULL;
    (void)arg, (void)mhd, (void)how;
    if (r == NULL)
        return;
    *context = NULL;
    if (c != NULL) {
        c->suspended = false;
        c->r = NULL;
        conn_state(c, HEADER);
    }
    r->conn = NULL;
    if (r->started && load_acq(&r->done) == 0) /* acq: as in read_answer */
        request_leave(r, GONE);
    request_unref(r);
}

/* ---- connections ------------------------------------------------------------------------------------------------------------ */

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode what)
{
    weft_debug_server *s = arg;
    struct conn *c = *context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = s->adding;
        return;
    }
    if (c == NULL)
        return;
    (void)mhd;
    if (s->adding == c)
        s->adding = NULL;
    if (c->watched)
        epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    shutdown(c->fd, SHUT_WR); /* the other side sees the end even if a child of a fork has the descriptor, too */
    pthread_mutex_lock(&s->conns_lock);
    if (c->next != NULL)
        c->next->prev = c->prev;
    *(c->prev != NULL ? &c->prev->next : &s->conns) = c->next;
    pthread_mutex_unlock(&s->conns_lock);
    s->nconns--;
    s->ncut -= c->cut;
    free(c);
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
    struct conn *out = NULL;
    bool many = !c->local && of_address(s, from) >= s->set.max_per_address;
    if (!many && s->nconns - s->ncut < s->set.max_connections)
        return true;
    out = idle_longest(s, many ? from : NULL);
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
    s->listen_at_ns = s->now_ns + LOOK_MS * INT64_C(1000000);
}

static void listen_again(weft_debug_server *s)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = &s->listener };
    s->listening = epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->listener.fd, &e) == 0;
    s->listen_at_ns = s->now_ns + LOOK_MS * INT64_C(1000000);
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

static void unlink_conn(weft_debug_server *s, struct conn *c)
{
    pthread_mutex_lock(&s->conns_lock);
    s->conns = c->next; /* it was the newest */
    if (c->next != NULL)
        c->next->prev = NULL;
    pthread_mutex_unlock(&s->conns_lock);
    free(c);
}

static void watch(weft_debug_server *s, struct conn *c, int how, uint32_t events)
{
    struct epoll_event e = { .events = events | EPOLLONESHOT, .data.ptr = c };
    c->watched = epoll_ctl(s->poll_fd, how, c->fd, &e) == 0; /* if not, it is found out when something is sent, or takes too long */
}

static void other_side_closed(weft_debug_server *s, struct conn *c, uint32_t events)
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
static void cut_closed(weft_debug_server *s)
{
    for (struct conn *c = s->conns; c != NULL; c = c->next) {
        int left = 0;
        if (c->half && c->state == HEADER && !c->cut && ioctl(c->fd, FIONREAD, &left) == 0 && left == 0)
            conn_cut(c);
    }
}

/* False: there are no more now. */
static bool accept_one(weft_debug_server *s)
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

/* ---- the thread --------------------------------------------------------------------------------------------------------------- */

static void resume(struct conn *c)
{
    c->suspended = false;
    MHD_resume_connection(c->mhd);
}

static void resume_ready(weft_debug_server *s)
{
    for (struct conn *c = s->conns; c != NULL; c = c->next) {
        if (!c->suspended)
            continue;
        const struct request *r = c->r;
        bool ready = load_acq(&r->done) != 0 || (load_acq(&r->committed) != 0 && (!r->answered || request_has(r))); /* acq: as in on_request */
        if (ready || c->cut)
            resume(c);
    }
}

static void sweep(weft_debug_server *s)
{
    if (s->now_ns - s->swept_ns < SWEEP_MS * INT64_C(1000000))
        return;
    s->swept_ns = s->now_ns;
    for (struct conn *c = s->conns; c != NULL; c = c->next) {
        int64_t for_ns = s->now_ns - c->since_ns;
        if ((c->state == HEADER && for_ns > s->set.header_ms * INT64_C(1000000)) || (c->state == ANSWER && !c->suspended && for_ns > STALLED_NS))
            conn_cut(c);
    }
}

static void look_after_workers(weft_debug_server *s)
{
    bool runs = s->nworkers > 0 && weft_running();
    for (struct request **at = &s->working, *r; (r = *at) != NULL;) {
        if (r->needs_runtime && !runs)
            request_leave(r, GONE_NOW);
        if (load_acq(&r->done) == 0) { /* acq: as in read_answer */
            at = &r->next;
            continue;
        }
        *at = r->next;
        pthread_join(r->thread, NULL); /* it has nothing more to do */
        s->nworkers--;
        request_unref(r);
    }
}

static int sleep_ms(weft_debug_server *s)
{
    MHD_UNSIGNED_LONG_LONG ms;
    int most = s->nworkers > 0 || !s->listening ? LOOK_MS : s->nconns > 0 ? SWEEP_MS : -1;
    if (MHD_get_timeout(s->mhd, &ms) == MHD_YES && (most < 0 || ms < (unsigned)most))
        return (int)ms;
    return most;
}

static void drain(int fd)
{
    uint64_t n;
    while (read(fd, &n, sizeof n) > 0)
        ;
}

static void round_of(weft_debug_server *s)
{
    struct epoll_event e[32];
    int n = epoll_wait(s->poll_fd, e, 32, sleep_ms(s));
    s->now_ns = now_ns();
    bool accepts = false;
    for (int i = 0; i < n; i++) {
        if (e[i].data.ptr == &s->listener)
            accepts = true;
        else if (e[i].data.ptr == &s->wake_fd)
            drain(s->wake_fd);
        else if (e[i].data.ptr != &s->mhd_fd)
            other_side_closed(s, e[i].data.ptr, e[i].events); /* events of one that is freed do not come: it was deleted, in an earlier round */
    }
    for (int i = 0; accepts && i < ACCEPTS && accept_one(s); i++)
        ;
    if (!s->listening && s->now_ns >= s->listen_at_ns)
        listen_again(s);
    look_after_workers(s);
    sweep(s);
    resume_ready(s);
    MHD_run(s->mhd);
    cut_closed(s);
}

/* Everybody comes back, and nothing more is sent. */
static void wind_up(weft_debug_server *s)
{
    if (s->listening)
        epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, s->listener.fd, NULL);
    s->listening = true; /* no time-out for its sake */
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        conn_cut(c);
    for (struct request *r = s->working; r != NULL; r = r->next)
        request_leave(r, GONE);
    while (s->nworkers > 0) {
        struct epoll_event e[32];
        epoll_wait(s->poll_fd, e, 32, LOOK_MS);
        drain(s->wake_fd);
        look_after_workers(s);
    }
    for (struct conn *c = s->conns; c != NULL; c = c->next)
        if (c->suspended)
            resume(c);
    MHD_run(s->mhd);
    MHD_stop_daemon(s->mhd);
}

static void *serve(void *arg)
{
    weft_debug_server *s = arg;
    of_server = s;
    pthread_setname_np(pthread_self(), "weft-debug");
    s->now_ns = now_ns();
    listen_again(s);
    while (load_acq(&s->stopping) == 0) /* acq: for symmetry; rel in weft_debug_serve_stop */
        round_of(s);
    wind_up(s);
    return NULL;
}

/* ---- forks ---------------------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; /* before each conns_lock */
static weft_debug_server *all;

static void fork_begins(void)
{
    pthread_mutex_lock(&all_lock);
    for (weft_debug_server *s = all; s != NULL; s = s->all_next)
        pthread_mutex_lock(&s->conns_lock);
}

static void fork_parent(void)
{
    for (weft_debug_server *s = all; s != NULL; s = s->all_next)
        pthread_mutex_unlock(&s->conns_lock);
    pthread_mutex_unlock(&all_lock);
}

/* No thread serves here. What the parent serves ends when the parent ends it, as nobody else holds its descriptors. */
static void fork_child(void)
{
    for (weft_debug_server *s = all; s != NULL; s = s->all_next) {
        int own[] = { s->listener.fd, s->poll_fd, s->mhd_fd, s->wake_fd };
        for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
            close(own[i]);
        for (struct conn *c = s->conns; c != NULL; c = c->next)
            close(c->fd);
        s->listener.fd = -1;
    }
    all = NULL;
    all_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static void forks_once(void) { pthread_atfork(fork_begins, fork_parent, fork_child); }

static void all_add(weft_debug_server *s)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, forks_once);
    pthread_mutex_lock(&all_lock);
    s->all_next = all;
    all = s;
    pthread_mutex_unlock(&all_lock);
}

static void all_remove(weft_debug_server *s)
{
    pthread_mutex_lock(&all_lock);
    for (weft_debug_server **at = &all; *at != NULL; at = &(*at)->all_next)
        if (*at == s) {
            *at = s->all_next;
            break;
        }
    pthread_mutex_unlock(&all_lock);
}

/* ---- its life --------------------------------------------------------------------------------------------------------------------- */

struct tls_files { char *cert, *key, *client_ca; };

static char *file_text(const char *path)
{
    char *text = NULL;
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (f == NULL && fd >= 0)
        close(fd);
    if (f == NULL || getdelim(&text, &n, 0, f) <= 0) {
        free(text);
        text = NULL;
    }
    if (f != NULL)
        fclose(f);
    return text;
}

static void wipe(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static int tls_read(struct tls_files *t, const weft_serve_opts *o, const char **why)
{
    bool some = o->tls_cert != NULL || o->tls_key != NULL || o->tls_client_ca != NULL;
    *why = "tls_cert and tls_key belong together, and tls_client_ca needs both";
    if (some && (o->tls_cert == NULL || o->tls_key == NULL))
        return -EINVAL;
    *why = "this libmicrohttpd was built without TLS";
    if (some && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return -EIO;
    *why = "tls_cert, tls_key or tls_client_ca cannot be read";
    if (some && ((t->cert = file_text(o->tls_cert)) == NULL || (t->key = file_text(o->tls_key)) == NULL))
        return -EIO;
    if (o->tls_client_ca != NULL && (t->client_ca = file_text(o->tls_client_ca)) == NULL)
        return -EIO;
    return 0;
}

static void tls_wipe(struct tls_files *t)
{
    wipe(t->cert);
    wipe(t->key);
    wipe(t->client_ca);
}

static int range(int value, int zero, int most, const char *text, const char **why)
{
    if (value < 0 || value > most)
        *why = text;
    return value != 0 ? value : zero;
}

static int settings_make(struct settings *set, const weft_serve_opts *o, const char **why)
{
    *why = o->token != NULL ? token_wrong(o->token) : NULL;
    set->max_seconds = range(o->max_seconds, 300, 86400, "max_seconds is not one of 0 to 86400", why);
    set->max_connections = range(o->max_connections, 64, 1024, "max_connections is not one of 0 to 1024", why);
    set->max_per_address = range(o->max_per_address, (set->max_connections + 1) / 2, 1024, "max_per_address is not one of 0 to 1024", why);
    set->header_ms = range(o->header_ms, 10000, 600000, "header_ms is not one of 0 to 600000", why);
    if (*why != NULL)
        return -EINVAL;
    set->tls = o->tls_cert != NULL;
    set->client_certs = o->tls_client_ca != NULL;
    set->cmdline = o->cmdline;
    set->log = o->log;
    set->log_arg = o->log_arg;
    set->token = o->token != NULL ? strdup(o->token) : NULL;
    set->open = o->token == NULL && !set->client_certs && o->unix_path == NULL;
    *why = "no memory";
    return o->token != NULL && set->token == NULL ? -ENOMEM : 0;
}

/* What others can reach shows what the program holds, and lets them make it work. */
static int address_allowed(const weft_debug_server *s, const weft_serve_opts *o, const char **why)
{
    bool local = address_is_local(o, why);
    if (*why != NULL)
        return -EINVAL;
    if (local || s->set.token != NULL || s->set.client_certs)
        return 0;
#ifdef WEFT_SERVE_UNSAFE_DEMO /* an object of examples/bugs/14 alone */
    if (o->unsafe_demo) {
        weft_doctor_note(WEFT_W14, "others than this machine can reach the address, and nobody has to show that he may: they see what the program holds, "
                                   "and make it work");
        return 0;
    }
#endif
    *why = "refused: others than this machine can reach the address, and would see what the program holds and make it work; set a token of at least 16 bytes, or "
           "tls_cert, tls_key and tls_client_ca, or listen at 127.0.0.1 or a unix socket";
    weft_doctor_note(WEFT_W14, *why); /* while no runtime runs, only the log is told */
    return -EPERM;
}

static int daemon_start(weft_debug_server *s, const struct tls_files *t, const char **why)
{
    struct MHD_OptionItem options[8] = { { MHD_OPTION_END, 0, NULL } };
    int n = 0;
    if (s->set.tls) {
        options[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_CERT, 0, t->cert };
        options[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_KEY, 0, t->key };
        options[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" };
        if (t->client_ca != NULL)
            options[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_TRUST, 0, t->client_ca };
    }
    options[n] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
    unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | (s->set.tls ? MHD_USE_TLS : 0);
    s->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_URI_LOG_CALLBACK, on_target, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
                              MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->set.max_connections * 2 + ACCEPTS,
                              MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                              MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    *why = s->set.tls ? "libmicrohttpd cannot start: are tls_cert, tls_key and tls_client_ca what they should be?" : "libmicrohttpd cannot start: memory or descriptors are short";
    if (s->mhd == NULL)
        return s->set.tls ? -EIO : -ENOMEM;
    s->mhd_fd = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return 0;
}

static int poll_start(weft_debug_server *s, const char **why)
{
    struct epoll_event wake = { .events = EPOLLIN, .data.ptr = &s->wake_fd }, mhd = { .events = EPOLLIN, .data.ptr = &s->mhd_fd };
    *why = "descriptors are short";
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->wake_fd < 0 || s->poll_fd < 0 || epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->wake_fd, &wake) != 0 ||
        epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, s->mhd_fd, &mhd) != 0)
        return -errno;
    return 0;
}

static void server_free(weft_debug_server *s)
{
    listener_close(&s->listener, true);
    if (s->poll_fd >= 0)
        close(s->poll_fd);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    wipe(s->set.token);
    free(s);
    api_forget();
}

static int server_start(weft_debug_server *s, const weft_serve_opts *o, const char **why)
{
    struct tls_files t = { NULL, NULL, NULL };
    int err = settings_make(&s->set, o, why);
    if (err == 0)
        err = address_allowed(s, o, why);
    if (err == 0)
        err = tls_read(&t, o, why);
    if (err == 0)
        err = listener_open(&s->listener, o, why);
    if (err == 0)
        err = daemon_start(s, &t, why);
    if (err == 0 && (err = poll_start(s, why)) == 0) {
        all_add(s);
        *why = "no thread can be had";
        err = -thread_start(&s->thread, serve, s);
        if (err != 0)
            all_remove(s);
    }
    if (err != 0 && s->mhd != NULL)
        MHD_stop_daemon(s->mhd);
    tls_wipe(&t);
    return err;
}

static void say_where(const weft_debug_server *s, const weft_serve_opts *o)
{
    const char *who = s->set.client_certs ? "who has a client certificate" : s->set.token != NULL ? "who has the token" : s->listener.port == 0 ? "this user" :
                      s->listener.local ? "everybody on this machine" : "everybody";
    if (o->unix_path != NULL) {
        server_log(s, "serves at %s; %s may ask", o->unix_path, who);
        return;
    }
    const char *address = o->address != NULL ? o->address : "127.0.0.1";
    bool v6 = strchr(address, ':') != NULL;
    server_log(s, "serves http%s://%s%s%s:%d/debug/; %s may ask", s->set.tls ? "s" : "", v6 ? "[" : "", address, v6 ? "]" : "", s->listener.port, who);
}

int weft_debug_serve(const weft_serve_opts *opts, weft_debug_server **out)
{
    weft_serve_opts o = WEFT_SERVE_OPTS_INIT;
    int saved = errno;
    if (opts != NULL && (opts->size == 0 || opts->size > sizeof o))
        return -EINVAL;
    if (opts != NULL)
        memcpy(&o, opts, opts->size);
    const char *why = "out is NULL";
    weft_debug_server *s = out != NULL ? calloc(1, sizeof *s) : NULL;
    int err = out == NULL ? -EINVAL : -ENOMEM;
    if (s != NULL) {
        s->listener.fd = s->poll_fd = s->wake_fd = -1;
        s->pid = getpid();
        pthread_mutex_init(&s->jobs.lock, NULL);
        pthread_mutex_init(&s->conns_lock, NULL);
        err = server_start(s, &o, &why);
        s->set.log = o.log;
        s->set.log_arg = o.log_arg;
        if (err == 0) {
            *out = s;
            say_where(s, &o);
        } else {
            bool ours = err == -EPERM || err == -EINVAL; /* the sentence says all; else the system does */
            server_log(s, "does not serve: %s%s%s", why, ours ? "" : ": ", ours ? "" : weft_strerror(err));
            server_free(s);
        }
    }
    if (o.why != NULL)
        *o.why = err == 0 ? "" : why;
    errno = saved;
    return err;
}

int weft_debug_port(const weft_debug_server *server) { return server != NULL ? server->listener.port : -EINVAL; }

/* A fiber gives its processor away meanwhile: workers may need it to come back. */
static void join(pthread_t thread)
{
    bool fiber = weft_running() && weft_fiber_id() != 0;
    if (fiber)
        weft_blocking_begin();
    pthread_join(thread, NULL);
    if (fiber)
        weft_blocking_end();
}

int weft_debug_serve_stop(weft_debug_server *s)
{
    if (s == NULL)
        return -EINVAL;
    if (of_server == s)
        return -EDEADLK;
    if (s->pid != getpid()) { /* the child of a fork: threads, and what they had, are no more */
        wipe(s->set.token);
        s->set.token = NULL;
        return 0;
    }
    int saved = errno;
    store_rel(&s->stopping, 1); /* rel: publishes nothing, for symmetry; acq in serve */
    server_wake(s);
    join(s->thread);
    all_remove(s);
    server_log(s, "serves no more");
    server_free(s);
    errno = saved;
    return 0;
}
