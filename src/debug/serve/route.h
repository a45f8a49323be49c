/* What is served: one table, in route.c. To add a path: a line there, and a function that answers, in a file of its own part.
 *
 * A function that answers runs on a thread of its request's own (not a thread of the runtime's until it calls weft; it may wait, and call everything that a
 * thread of the host may). By then it is certain that the client may ask, that the method is one that the route takes, and that a heavy job is the
 * only one. It sets status, type and headers, then writes; from the first KiBs on these are sent, while it goes on: a body may be of any size, and who
 * reads slowly makes the writer wait, not memory grow. It returns 0, or a negative errno: then, if nothing was sent so far, the client gets 503 (the
 * runtime does not run, no memory, no thread) or 500 with a sentence; else the connection is cut off. HEAD is answered by the same function, what it
 * writes is counted and dropped. */
#ifndef WEFT_SERVE_ROUTE_H
#define WEFT_SERVE_ROUTE_H

#include <weft/base.h>

enum {
    ROUTE_PREFIX = 1,   /* path ends in '/': also everything below, of which request_rest is the name ("" for itself) */
    ROUTE_HEAVY = 2,    /* one at a time, in the log; not for other sites' pages */
    ROUTE_POST = 4,     /* POST, too, beside GET and HEAD: request_body */
};

struct request;
struct route {
    const char *path;
    unsigned flags;
    int (*handle)(struct request *r);
};
/* The route of a path, the longest prefix last; NULL: none. */
const struct route *route_find(const char *path);

/* ---- the request. Texts are good while it lasts -------------------------------------------------------------------------- */

const char *request_path(const struct request *r);  /* decoded, without the query */
const char *request_rest(const struct request *r);  /* of a prefix route: what comes after it */
const char *request_raw_query(const struct request *r); /* as it came; "" if there is none */
/* The first parameter of that name, decoded; "" if there is none, as Go's FormValue. */
const char *request_query(const struct request *r, const char *name);
/* A header of the request; NULL: it has none. */
const char *request_header(const struct request *r, const char *name);
const void *request_body(const struct request *r, size_t *bytes);
int request_max_seconds(const struct request *r);   /* as the server allows */
bool request_cmdline(const struct request *r);      /* as the server was told */

/* ---- the answer ----------------------------------------------------------------------------------------------------------- */

/* Before the first write. 200 and "text/plain; charset=utf-8" unless set otherwise. Every answer has X-Content-Type-Options: nosniff,
 * Cross-Origin-Resource-Policy: same-origin and Referrer-Policy: no-referrer. A name given twice is sent twice; at most 16, values are copied. */
void request_status(struct request *r, int status);
void request_type(struct request *r, const char *type);
void request_set_header(struct request *r, const char *name, const char *value);
void request_unset_headers(struct request *r, const char *name);

/* A weft_writer; ctx is the request. Waits while the client reads too slowly. 0, -ECANCELED (nobody reads any more, the server or the runtime ends),
 * -ETIMEDOUT (the client is too slow), -ENOMEM. Any thread, one at a time. */
int request_write(void *r, const void *data, size_t n);
int request_puts(struct request *r, const char *text);
int request_printf(struct request *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What is written so far is sent. */
void request_flush(struct request *r);
/* An answer that is only a status and a sentence (a newline is added). Returns 0, for `return request_fail(...)`. If something was sent: -EIO. */
int request_fail(struct request *r, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Waits ns nanoseconds. False: the client has gone, or the server or the runtime ends; end what was begun, write what there is, and return 0. */
bool request_wait(struct request *r, int64_t ns);
bool request_gone(const struct request *r);
/* The end of the runtime is what ends the trace or profile that is being written to this request, and may not be done with that: whoever still calls
 * request_write is refused, and r stays in memory for him. 0; -ESRCH: nothing had been written; or the first error of request_write, from which on
 * something is missing. */
int request_abandon(struct request *r);

/* For a function whose parameters decide: from here on it is a heavy job, as with ROUTE_HEAVY. False: it is not, and the client has been told (409 or
 * 403): return 0. Ends with the request. */
bool request_heavy(struct request *r);
/* Of a job that mostly waits, and holds memory meanwhile: one of a few. As request_heavy. */
bool request_window(struct request *r);

#endif
