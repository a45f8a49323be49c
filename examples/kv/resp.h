/* resp.h - the Redis protocol, RESP2: requests in, replies out.
 *
 * A request is an array of strings, either "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" or a line of words ("inline"). The parser
 * copies nothing: the arguments are slices of the read buffer, and it goes on where it stopped when the rest of a
 * request arrives, so input that trickles in byte by byte costs no more than input in one piece.
 *
 *      buf          head            pos                tail            cap
 *       | done       | request, args  | not yet parsed   | free          |
 *
 * Replies are collected in one buffer and leave in one write. A large string is not copied into it but remembered as
 * a piece of its own: the pointer keeps it alive, whatever other connections do to the key meanwhile. So a client that asks for
 * the same megabytes a thousand times, and does not read them, costs a thousand pointers. */
#ifndef KV_RESP_H
#define KV_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft.h>

struct slice {
    const char *p;
    uint32_t n;
    uint32_t hash; /* of a key: set by the dispatcher */
};

/* Limits. The first three are Redis's own. */
enum {
    RESP_MAX_ARGS = 1024 * 1024,
    RESP_MAX_LINE = 64 * 1024, /* an inline request, or the digits of a length */
    RESP_BASE_BYTES = 16 * 1024, /* both buffers start with this, */
    RESP_KEEP_BYTES = 128 * 1024, /* keep as much once they needed it, and let go of what is more */
    RESP_REF_MIN_BYTES = 16 * 1024, /* strings from here on are sent from where they are */
};
/* Options of the server: one argument; all arguments together; the part of the replies that is collected before it is sent. */
extern size_t resp_max_bulk_bytes, resp_max_request_bytes, resp_max_reply_bytes;

/* ---- requests ------------------------------------------------------------------------------------ */

struct resp_in {
    char *buf;
    size_t cap, head, pos, tail;
    struct slice *args; /* of the request being parsed: argc are complete, want are to come */
    uint32_t argc, want, args_cap;
    int64_t bulk;       /* length of the argument being read; -1: its "$n" is to come */
    size_t scanned;     /* bytes after pos known to hold no end of line */
    char error[48];
};

/* Where to read more into; *room > 0. NULL: out of memory. */
char *resp_in_room(struct resp_in *in, size_t *room);
static inline void resp_in_filled(struct resp_in *in, size_t n) { in->tail += n; }

/* 1: a request lies in args, argc, until the next call of any function here. 0: more bytes are needed. -1: *error
 * says what is wrong with the input (in Redis's words); nothing after it can be understood. */
int resp_in_next(struct resp_in *in, const char **error);

/* ---- replies ------------------------------------------------------------------------------------- */

struct resp_ref {
    const char *p; /* into a string that never changes: keeps it alive */
    size_t n, at;  /* sent after the first `at` bytes of buf */
};

struct resp_out {
    char *buf;
    size_t n, cap, ref_bytes;
    int error; /* -ENOMEM, or -EMSGSIZE: more than resp_max_reply_bytes. Part of a reply is missing: the connection must end */
    uint32_t nrefs, refs_cap;
    struct resp_ref *refs;
};

void resp_simple(struct resp_out *o, const char *text);                       /* +text */
void resp_error(struct resp_out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
void resp_int(struct resp_out *o, int64_t v);
void resp_bulk(struct resp_out *o, const void *p, size_t n);                  /* copies */
void resp_bulk_ref(struct resp_out *o, const char *p, size_t n);              /* p: heap bytes that never change */
void resp_text(struct resp_out *o, const char *s);                            /* a bulk from a C string */
void resp_nil(struct resp_out *o);
void resp_nil_array(struct resp_out *o);
void resp_array(struct resp_out *o, size_t n);

static inline size_t resp_out_bytes(const struct resp_out *o) { return o->n + o->ref_bytes; }
/* Sends everything. 0 or a negative errno. */
int resp_flush(struct resp_out *o, weft_fd *fd);

/* ---- numbers ------------------------------------------------------------------------------------- */

/* Decimal, as Redis reads it: no sign but "-", no leading zero or blank, in range. */
bool resp_parse_int(const char *p, size_t n, int64_t *out);
/* Decimal digits of v at p (room for 20); their number. */
size_t resp_print_int(char *p, int64_t v);

#endif
