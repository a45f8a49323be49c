/* Requests, as libmicrohttpd tells of them, on the server's thread: who may ask is looked at here, what is refused is answered here, for the rest a worker is
 * started; its answer is handed on. */
#include "debug/serve/server.h"
#include "debug/serve/access.h"
#include "debug/serve/clock.h"
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <weft/sched.h>

#define CONNECTION_BYTES (24u << 10) /* that libmicrohttpd has for a connection: the header must fit */
#define BODY_MAX (1u << 20)
#define HEADERS_BYTES (16u << 10)  /* of a request, that are kept for its worker */
#define PIECE_BYTES (16u << 10)

static struct conn *conn_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i != NULL ? i->socket_context : NULL;
}

/* ---- answers of the server's own ------------------------------------------------------------------------------------------ */

static void common_headers(struct MHD_Response *response)
{
    char date[HTTP_DATE_BYTES];
    http_date((uint64_t)time(NULL), date);
    MHD_add_response_header(response, "Date", date);
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

/* False: it may not, and has been answered. */
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
    if (r->other_site && (!is_navigation(header_of(c, "Sec-Fetch-Mode")) || strcmp(method, "POST") == 0)) /* a form of it is no link */
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
    server_own_thread(r->server);
    pthread_setname_np(pthread_self(), "weft-debug-job");
    request_run(r);
    return NULL;
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
    if (s->nworkers >= s->set.max_connections || server_thread_start(&r->thread, worker, r) != 0) {
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
    if (r == NULL || c == NULL || c->cut) /* cut: nobody reads an answer; and when the server ends, no worker may be started any more */
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

static void on_connection(void *arg, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode what)
{
    weft_debug_server *s = arg;
    (void)mhd;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        *context = s->adding;
    else if (*context != NULL)
        conns_ended(s, *context);
}

/* ---- libmicrohttpd -------------------------------------------------------------------------------------------------------- */

struct MHD_Daemon *ask_start_daemon(weft_debug_server *s, const struct tls_files *t)
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
    flags |= MHD_USE_SUPPRESS_DATE_NO_CLOCK; /* it would take a lock that the child of a fork may find taken: the date is ours (clock.c) */
    return MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_URI_LOG_CALLBACK, on_target, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
                              MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->set.max_connections * 2 + ACCEPTS,
                              MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                              MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
}
