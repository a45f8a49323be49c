/* weft/serve.h - the debug endpoint: profiles, traces, metrics and a page about the running process, over HTTP. Of the library libweft-debug (pkg-config
 * weft-debug), which needs libmicrohttpd and gnutls. Nothing is served because of linking with it: somebody calls weft_debug_serve.
 *
 * Whoever may read the endpoint learns what the program holds (stacks, types, addresses, labels, the command line if that is switched on), and can make
 * it work (profiles, collections). So it is served on this machine only, or to those who show that they may: see weft_debug_serve.
 *
 *     weft_debug_server *server;
 *     weft_serve_opts opts = WEFT_SERVE_OPTS_INIT;
 *     opts.port = 6060;
 *     if (weft_debug_serve(&opts, &server) == 0) { ... weft_debug_serve_stop(server); }
 *
 * then http://127.0.0.1:6060/debug/ in a browser, or `go tool pprof http://127.0.0.1:6060/debug/pprof/heap`.
 *
 * Contract: Go's package net/http/pprof (paths, parameters, status codes, headers); what differs is said at the end of this header. */
#ifndef WEFT_SERVE_H
#define WEFT_SERVE_H

#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_debug_server weft_debug_server;

typedef struct weft_serve_opts {
    size_t size;               /* sizeof(weft_serve_opts) */
    const char *address;       /* numeric, such as "127.0.0.1", "::1", "0.0.0.0"; NULL: 127.0.0.1 */
    int port;                  /* 0: one that is free; weft_debug_port tells which */
    const char *unix_path;     /* instead of address and port: a socket there, which only this user can open. One that nobody serves any more is
                                  replaced; what is no socket, or another user's, is not touched */
    const char *token;         /* who asks must show it: "Authorization: Bearer TOKEN", or as the password of Basic, with any user. At least 16
                                  bytes, printable, no spaces. Copied; never written anywhere. NULL: none */
    const char *tls_cert, *tls_key; /* files (PEM): TLS. With a token, or: */
    const char *tls_client_ca; /* file (PEM): who asks must show a certificate of this authority */
    bool cmdline;              /* /debug/pprof/cmdline tells the command line, in which secrets may stand */
    int max_seconds;           /* the longest `seconds` that is accepted; 0: 300 */
    int max_connections;       /* at a time, at most 1024; 0: 64. For one more, that which has been idle longest is closed */
    int max_per_address;       /* of them from one address that is not of this machine; 0: half of them */
    int header_ms;             /* within so long a request must have come in; 0: 10000 */
    void (*log)(void *arg, const char *line); /* gets a line when it begins, refuses or ends to serve, and two for each heavy job: who asked for what,
                                  and how it ended. NULL: stderr. On any thread; must not call weft_debug_serve_stop */
    void *log_arg;
    const char **why;          /* out: why weft_debug_serve returned an error, in a sentence, static; "" if it did not. NULL: not wanted */
#ifdef WEFT_SERVE_UNSAFE_DEMO  /* examples/bugs/14 alone, which shows what comes of it. The library has no such thing */
    bool unsafe_demo;          /* any address will do, and everybody may ask */
#define WEFT_SERVE_OPTS_INIT { sizeof(weft_serve_opts), 0, 0, 0, 0, 0, 0, 0, false, 0, 0, 0, 0, 0, 0, 0, false }
#else
#define WEFT_SERVE_OPTS_INIT { sizeof(weft_serve_opts), 0, 0, 0, 0, 0, 0, 0, false, 0, 0, 0, 0, 0, 0, 0 }
#endif
} weft_serve_opts;

/* Serves, on threads of its own, which are no threads of the runtime's: so it answers while every processor is held by a fiber that does not give it up,
 * and during a collection (whoever asks for what only the runtime knows is told when the collection is over). opts NULL: the defaults. At any time: while
 * no runtime runs, what needs one is answered with 503. The runtime may end and start again meanwhile; what is under way then ends early. In the child
 * of a fork nothing is served: its descriptors are closed. Several servers may run at a time.
 *
 * An address that others than this machine can reach is refused unless a token is set, or TLS with tls_client_ca, whatever else is set. (The doctor is
 * told: W14.)
 *   0        *out is the server
 *   -EPERM   refused, as above
 *   -EINVAL  size not set, out NULL, or an option is wrong: opts.why says which
 *   -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, ... what bind(2) says      -EEXIST  at unix_path is something else
 *   -EBUSY   somebody holds a lock (flock) on the folder of unix_path      -EIO  a file of TLS cannot be used
 *   -ENOMEM, -EAGAIN (no thread), -EMFILE */
WEFT_API int weft_debug_serve(const weft_serve_opts *opts, weft_debug_server **out) WEFT_MUST_CHECK;

/* The port it listens at; 0: it has a unix socket. */
WEFT_API int weft_debug_port(const weft_debug_server *server);

/* Ends it: what is under way is cut off, connections are closed, threads joined, everything freed. Waits for calls into the runtime that requests have
 * made (a collection, say). Once. 0, -EINVAL (NULL), -EDEADLK (called by the log function on a thread of the server's). In the child of a fork it frees
 * what can be freed there. */
WEFT_API int weft_debug_serve_stop(weft_debug_server *server);

/* ---- what is served, and to whom --------------------------------------------------------------------------------------
 *
 * /debug/pprof/ and below: as net/http/pprof does, but that
 *   - POST is accepted by /debug/pprof/symbol, as pprof uses it;
 *   - /debug/pprof/cmdline is 403 unless switched on;
 *   - `seconds` above max_seconds is 400;
 *   - a CPU profile is sent in pieces, a gzip member each, about one per second;
 *   - only one heavy job runs at a time (CPU profile, trace, gc=1, goroutineleak, dump of all stacks or the heap): another is 409 and told who runs the
 *     first, and since when. Of profiles of a window (NAME?seconds=N), which mostly wait, eight;
 *   - an answer that fails half-way is cut off, so that its receiver can tell;
 *   - /debug/fgprof?seconds=N is the wall-clock profile (weft_wall_profile_start).
 *
 * Who reads a profile and goes away ends the job. Who reads too slowly (less than 64 KiB/s, on the whole, after half a minute of patience) is cut off.
 *
 * Without a token and client certificates, everybody on this machine may ask, and so can web pages in its browsers. So
 *   - the name in Host must be a number, or localhost: a page whose name has been made to lead here (DNS rebinding) is refused, 403;
 *   - a request for a heavy job that a browser makes for another site's page (Sec-Fetch-Site, Origin) is refused, 403, and so is any that is not a
 *     navigation: another site may have a link to the page, but start nothing, and read nothing (no CORS header is ever sent).
 * A program of another user of this machine may ask: where that matters, use unix_path, or a token. */

WEFT_END_DECLS
#endif
