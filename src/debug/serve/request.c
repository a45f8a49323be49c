/* Requests, as the functions of routes see them.
 *
 * [RING] The body of an answer goes from the worker to the server's thread through a ring, without a lock: the worker may be a thread that the runtime
 * stops at any moment, and the server's thread must not wait for a collection. `put` is written by who writes (one at a time: the worker, or the thread of
 * the library's that writes a profile for it, which the worker starts and joins), `got_out` by the server's thread. Each publishes by a release what it has done
 * to the bytes between them. Who finds the ring full waits on `room`; the server's thread posts it after each piece that it takes. Who has put something that
 * is to be sent pokes the server's thread (server_wake); that looks at the rings of all whose connections are suspended, every time it wakes.
 *
 * Nothing is sent before `committed`: until then an answer can become an error (request_fail). After COMMIT_BYTES it is committed, and at the end.
 *
 * Whoever waits here does so at most a tenth of a second at a time, looking whether he still should. */
#include "debug/serve/request.h"
#include "debug/serve/clock.h"
#include "debug/serve/server.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <weft/sched.h>

#define LOOK_NS INT64_C(100000000)
#define PATIENCE_NS INT64_C(30000000000) /* that a writer waits in all, whatever the client does; */
#define SLOWEST_BYTES 65536              /* and a second for so many bytes that it has taken */
#define SEND_AT_BYTES 16384
#define REF_ABANDONED (1u << 16)         /* a reference like others, that is told from them when it is the last */

/* Text for the log: at most room - 1 bytes of it, with '?' for what cannot be printed. */
static void printable(char *out, size_t room, const char *text)
{
    size_t n = 0;
    for (; *text != 0 && n + 1 < room; text++)
        out[n++] = *text > ' ' && *text <= '~' ? *text : '?';
    out[n] = 0;
}

struct request *request_new(weft_debug_server *s, const char *target)
{
    struct request *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->server = s;
    r->status = 200;
    store_rlx(&r->refs, 1); /* rlx: nobody else knows it */
    sem_init(&r->room, 0, 0);
    sem_init(&r->wake, 0, 0);
    size_t n = strlen(target) + 1;
    r->raw = malloc(n);
    r->shown = malloc(200);
    if (r->raw == NULL || r->shown == NULL) {
        request_unref(r);
        return NULL;
    }
    memcpy(r->raw, target, n);
    printable(r->shown, 200, target);
    return r;
}

static void headers_free(struct header *h, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(h[i].name);
        free(h[i].value);
    }
}

void request_unref(struct request *r)
{
    uint32_t left = sub_acq_rel(&r->refs, 1) - 1;
    if (left != 0 && left != REF_ABANDONED)
        return;
    headers_free(r->got, r->ngot);
    headers_free(r->sent, r->nsent);
    free(r->got);
    free(r->raw);
    free(r->shown);
    free(r->body);
    free(r->ring);
    if (left == REF_ABANDONED) { /* a writer may still ask whether it is abandoned */
        r->got = NULL;
        r->raw = r->shown = r->body = r->ring = NULL;
        r->nsent = r->ngot = 0;
        return;
    }
    sem_destroy(&r->room);
    sem_destroy(&r->wake);
    free(r);
}

/* ---- what came -------------------------------------------------------------------------------------------------------- */

const char *request_path(const struct request *r) { return r->uri.path; }
const char *request_rest(const struct request *r) { return r->uri.path + strlen(r->route->path); }
const char *request_raw_query(const struct request *r) { return r->uri.query; }
int request_max_seconds(const struct request *r) { return r->server->set.max_seconds; }
bool request_cmdline(const struct request *r) { return r->server->set.cmdline; }

const char *request_query(const struct request *c, const char *name)
{
    struct request *r = (struct request *)c; /* what has been given out stays for the next seven */
    char *out = r->params[r->next_param++ % (sizeof r->params / sizeof r->params[0])];
    uri_param(r->uri.query, name, out, sizeof r->params[0]);
    return out;
}

const char *request_header(const struct request *r, const char *name)
{
    for (size_t i = 0; i < r->ngot; i++)
        if (strcasecmp(r->got[i].name, name) == 0)
            return r->got[i].value;
    return NULL;
}

const void *request_body(const struct request *r, size_t *bytes)
{
    *bytes = r->body_len;
    return r->body;
}

/* ---- the answer --------------------------------------------------------------------------------------------------------- */

void request_status(struct request *r, int status) { r->status = status; }

void request_unset_headers(struct request *r, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < r->nsent; i++)
        if (strcasecmp(r->sent[i].name, name) == 0)
            headers_free(&r->sent[i], 1);
        else
            r->sent[n++] = r->sent[i];
    r->nsent = n;
}

void request_set_header(struct request *r, const char *name, const char *value)
{
    struct header h = { strdup(name), strdup(value) };
    if (h.name != NULL && h.value != NULL && r->nsent < REQUEST_HEADERS)
        r->sent[r->nsent++] = h;
    else
        headers_free(&h, 1); /* an answer without it is better than none */
}

void request_type(struct request *r, const char *type)
{
    request_unset_headers(r, "Content-Type");
    request_set_header(r, "Content-Type", type);
}

static bool timed_wait(sem_t *sem, int64_t until_ns)
{
    struct timespec t = { until_ns / 1000000000, until_ns % 1000000000 };
    return sem_clockwait(sem, CLOCK_MONOTONIC, &t) == 0; /* or it is time, or a signal came: the caller looks again */
}

bool request_gone(const struct request *r) { return load_acq(&r->gone) != GONE_NOT; } /* acq: as in request_leave */

void request_leave(struct request *r, uint32_t how)
{
    if (load_rlx(&r->gone) < how) /* rlx: written by the server's thread only */
        store_rel(&r->gone, how); /* rel: publishes nothing, for symmetry; acq in request_gone */
    sem_post(&r->wake);
    sem_post(&r->room);
}

bool request_wait(struct request *r, int64_t ns)
{
    int64_t until = now_ns() + ns;
    weft_detach(); /* or each stop of the world would wake it */
    while (!request_gone(r) && now_ns() < until)
        timed_wait(&r->wake, until);
    return !request_gone(r);
}

/* Nobody tells when the runtime has ended, so these are never freed, but for what hangs on them: a KiB or two at most for each life of the runtime that
 * ends in the middle of a job.
 *
 * [ABANDONED] Who writes says so (writing), then looks whether r is abandoned; who abandons says so, then looks whether somebody writes. In one order of
 * all four (seq_cst) one of them sees the other: so when request_abandon has returned nobody is between the two lines of request_write any more, nor comes
 * there again, and ring and server may go. The writer does not wait long: it comes back from wait_for_room. */
static W_PTR(struct request) abandoned;

int request_abandon(struct request *r)
{
    weft_detach(); /* the writer may stand still for as long as the world does, and the end of the runtime is not to wait for us */
    store_seq(&r->abandoned, 1); /* seq: [ABANDONED], goes before the load of writing; acq in wait_for_room */
    sem_post(&r->room);
    while (load_seq(&r->writing) != 0) /* seq: [ABANDONED]; sees that it has ended */
        nanosleep(&(struct timespec){ 0, 100000 }, NULL);
    add_rlx(&r->refs, REF_ABANDONED); /* rlx: the caller has one */
    do
        r->abandoned_next = load_rlx(&abandoned); /* rlx: never followed, but by tools that look for leaks */
    while (!cas_rel(&abandoned, r->abandoned_next, r)); /* rel: likewise */
    return r->written == 0 ? -ESRCH : r->write_err;
}

static void commit(struct request *r)
{
    store_rel(&r->committed, 1); /* rel: publishes status and headers; acq in on_request, ask.c */
}

static size_t in_ring(const struct request *r)
{
    return (size_t)(load_rlx(&r->put) - load_acq(&r->got_out)); /* rlx: the caller's; acq: the bytes taken may be overwritten; rel in request_take */
}

/* Until there is room. */
static int wait_for_room(struct request *r)
{
    while (in_ring(r) == RING_BYTES) {
        if (load_acq(&r->gone) >= GONE_NOW || load_acq(&r->abandoned) != 0) /* acq: as in request_gone; in request_abandon */
            return -ECANCELED;
        int64_t patience = PATIENCE_NS + (int64_t)(r->written / SLOWEST_BYTES) * INT64_C(1000000000);
        if (r->waited_ns > patience)
            return -ETIMEDOUT;
        int64_t from = now_ns();
        timed_wait(&r->room, from + LOOK_NS);
        r->waited_ns += now_ns() - from;
    }
    return 0;
}

static int put(struct request *r, const char *data, size_t n)
{
    while (n > 0) {
        size_t used = in_ring(r), at = (size_t)(load_rlx(&r->put) % RING_BYTES), k = RING_BYTES - used; /* rlx: the caller's */
        if (k == 0) {
            request_flush(r);
            int err = wait_for_room(r);
            if (err != 0)
                return err;
            continue;
        }
        k = k < n ? k : n;
        k = k < RING_BYTES - at ? k : RING_BYTES - at;
        memcpy(r->ring + at, data, k);
        store_rel(&r->put, load_rlx(&r->put) + k); /* rel: publishes the bytes; acq in request_take */
        data += k;
        n -= k;
    }
    return 0;
}

static int write_some(struct request *r, const void *data, size_t n)
{
    r->written += n;
    if (r->head)
        return 0;
    if (r->ring == NULL)
        r->ring = malloc(RING_BYTES);
    int err = r->ring != NULL ? put(r, data, n) : -ENOMEM;
    if (r->written >= COMMIT_BYTES)
        commit(r);
    if (in_ring(r) >= SEND_AT_BYTES)
        request_flush(r);
    r->write_err = r->write_err != 0 ? r->write_err : err;
    return err;
}

int request_write(void *ctx, const void *data, size_t n)
{
    struct request *r = ctx;
    store_seq(&r->writing, 1); /* seq: [ABANDONED], goes before the load of abandoned */
    bool may = load_seq(&r->abandoned) == 0 && load_acq(&r->gone) != GONE; /* seq: likewise; acq: as in request_gone */
    int err = may ? write_some(r, data, n) : -ECANCELED;
    store_seq(&r->writing, 0); /* seq: publishes what was written to who abandons */
    return err;
}

/* The worker's, who may still say that it has failed when another one that wrote for it is abandoned. */
static int worker_write(void *ctx, const void *data, size_t n)
{
    struct request *r = ctx;
    return load_acq(&r->gone) != GONE ? write_some(r, data, n) : -ECANCELED; /* acq: as in request_gone */
}

int request_puts(struct request *r, const char *text) { return request_write(r, text, strlen(text)); }

static int write_formatted(weft_writer *w, struct request *r, const char *fmt, va_list args)
{
    char small[512], *text = small;
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(small, sizeof small, fmt, args);
    if (n >= (int)sizeof small && vasprintf(&text, fmt, again) < 0)
        n = -ENOMEM;
    va_end(again);
    int err = n < 0 ? -ENOMEM : w(r, text, (size_t)n);
    if (n >= (int)sizeof small)
        free(text);
    return err;
}

int request_printf(struct request *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int err = write_formatted(request_write, r, fmt, args);
    va_end(args);
    return err;
}

void request_flush(struct request *r)
{
    if (r->head)
        return;
    commit(r);
    server_wake(r->server);
}

int request_fail(struct request *r, int status, const char *fmt, ...)
{
    va_list args;
    if (load_rlx(&r->committed) != 0) /* rlx: the caller's own */
        return -EIO;
    store_rlx(&r->put, 0); /* rlx: nothing is read before it is committed */
    r->written = 0;
    request_status(r, status);
    request_type(r, "text/plain; charset=utf-8");
    request_unset_headers(r, "Content-Disposition");
    va_start(args, fmt);
    int err = write_formatted(worker_write, r, fmt, args);
    va_end(args);
    return err != 0 ? err : worker_write(r, "\n", 1);
}

/* ---- the server's side ---------------------------------------------------------------------------------------------------- */

bool request_has(const struct request *r) { return load_acq(&r->put) != load_rlx(&r->got_out); } /* acq: as in take; rlx: the caller's */

size_t request_take(struct request *r, char *buf, size_t n)
{
    uint64_t from = load_rlx(&r->got_out), to = load_acq(&r->put); /* rlx: the caller's; acq: sees the bytes; rel in put */
    size_t at = (size_t)(from % RING_BYTES), k = (size_t)(to - from);
    k = k < n ? k : n;
    k = k < RING_BYTES - at ? k : RING_BYTES - at;
    if (k == 0)
        return 0;
    memcpy(buf, r->ring + at, k);
    store_rel(&r->got_out, from + k); /* rel: the bytes may be overwritten; acq in in_ring */
    sem_post(&r->room);
    return k;
}

/* ---- heavy jobs ------------------------------------------------------------------------------------------------------------- */

static bool refuse_other_site(struct request *r)
{
    if (r->other_site)
        request_fail(r, 403, "a page of another site asks for this: it may not start work here. Open the address by itself");
    return r->other_site;
}

bool request_heavy(struct request *r)
{
    struct jobs *j = &r->server->jobs;
    char who[WHO_BYTES];
    if (r->is_heavy)
        return true;
    if (refuse_other_site(r))
        return false;
    pthread_mutex_lock(&j->lock);
    int64_t since = j->since_ns;
    r->is_heavy = !j->heavy;
    memcpy(who, j->who, sizeof who);
    if (r->is_heavy) {
        j->heavy = true;
        j->since_ns = now_ns();
        snprintf(j->who, sizeof j->who, "%s, asked for by %s,", r->shown, r->from);
    }
    pthread_mutex_unlock(&j->lock);
    if (r->is_heavy) {
        server_log(r->server, "%s for %s begins", r->shown, r->from);
        return true;
    }
    request_set_header(r, "Retry-After", "5");
    request_fail(r, 409, "one such job at a time: %s has run for %.1f s. Try again when it is over", who, (double)(now_ns() - since) / 1e9);
    return false;
}

bool request_window(struct request *r)
{
    struct jobs *j = &r->server->jobs;
    if (r->is_window)
        return true;
    if (refuse_other_site(r))
        return false;
    pthread_mutex_lock(&j->lock);
    r->is_window = j->windows < WINDOWS_MAX;
    j->windows += r->is_window;
    pthread_mutex_unlock(&j->lock);
    if (r->is_window) {
        server_log(r->server, "%s for %s begins", r->shown, r->from);
        return true;
    }
    request_set_header(r, "Retry-After", "5");
    request_fail(r, 409, "%d profiles of a time are under way, and more at once are not made. Try again when one of them is over", WINDOWS_MAX);
    return false;
}

static void job_end(struct request *r)
{
    struct jobs *j = &r->server->jobs;
    if (!r->is_heavy && !r->is_window)
        return;
    pthread_mutex_lock(&j->lock);
    if (r->is_heavy)
        j->heavy = false;
    j->windows -= r->is_window;
    pthread_mutex_unlock(&j->lock);
    server_log(r->server, "%s for %s has ended after %.3f s: %d, %llu bytes%s%s", r->shown, r->from, (double)(now_ns() - r->began_ns) / 1e9, r->status,
               (unsigned long long)r->written, r->failed != 0 ? ", cut off: " : request_gone(r) ? ", early" : "",
               r->failed == 0 ? "" : r->failed == -ECANCELED ? "nobody reads it any more" : r->failed == -ETIMEDOUT ? "read too slowly" : weft_strerror(r->failed));
}

/* ---- the worker --------------------------------------------------------------------------------------------------------------- */

static void answer_error(struct request *r, int err)
{
    bool later = err == -ESRCH || err == -ENOMEM || err == -EAGAIN || err == -EMFILE || err == -ENFILE;
    r->failed = request_fail(r, later ? 503 : 500, "%s", weft_strerror(err));
}

void request_run(struct request *r)
{
    r->began_ns = now_ns();
    bool may = !(r->route->flags & ROUTE_HEAVY) || request_heavy(r);
    int err = may ? r->route->handle(r) : 0;
    weft_detach(); /* so that nothing of the runtime's is left to do when the thread ends, and is joined */
    if (err != 0 && load_rlx(&r->committed) == 0 && load_acq(&r->gone) != GONE) /* rlx: its own; acq: as in request_gone */
        answer_error(r, err);
    else
        r->failed = err;
    job_end(r);
    store_rel(&r->done, 1); /* rel: publishes all of it; acq in read_answer, ask.c */
    server_wake(r->server);
}
