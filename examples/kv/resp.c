/* resp.c - parser and writer. The layout of the read buffer is drawn in resp.h. */
#include "resp.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

size_t resp_max_bulk_bytes = 64u << 20;
size_t resp_max_request_bytes = 256u << 20;
size_t resp_max_reply_bytes = 256u << 20;

/* ---- numbers ------------------------------------------------------------------------------------- */

bool resp_parse_int(const char *p, size_t n, int64_t *out)
{
    bool negative = n > 0 && p[0] == '-';
    size_t i = negative;
    if (n - i == 0 || n - i > 19 || (p[i] == '0' && n != 1))
        return false;
    uint64_t v = 0;
    for (; i < n; i++) {
        unsigned digit = (unsigned char)p[i] - '0';
        if (digit > 9)
            return false;
        v = v * 10 + digit; /* 19 digits fit */
    }
    if (v > (uint64_t)INT64_MAX + negative)
        return false;
    *out = (int64_t)(negative ? -v : v);
    return true;
}

size_t resp_print_int(char *p, int64_t v)
{
    char tmp[20];
    uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
    size_t n = 0, at = 0;
    do
        tmp[n++] = (char)('0' + u % 10);
    while (u /= 10);
    if (v < 0)
        p[at++] = '-';
    while (n)
        p[at++] = tmp[--n];
    return at;
}

/* ---- read buffer --------------------------------------------------------------------------------- */

/* The request that starts at head moves to the start of buf, which may be the old one. Its arguments move along. */
static void in_move(struct resp_in *in, char *buf, size_t cap)
{
    size_t live = in->tail - in->head;
    const char *old = in->buf + in->head;
    memmove(buf, old, live);
    for (uint32_t i = 0; i < in->argc; i++)
        in->args[i].p = buf + (in->args[i].p - old);
    in->buf = buf;
    in->cap = cap;
    in->pos -= in->head;
    in->head = 0;
    in->tail = live;
}

char *resp_in_room(struct resp_in *in, size_t *room)
{
    if (in->argc > 0 && in->want == 0) { /* the last request was answered */
        in->head = in->pos;
        in->argc = 0;
    }
    size_t live = in->tail - in->head;
    if (!in->buf || (live == 0 && in->cap > RESP_KEEP_BYTES)) { /* first use; or one large request is behind us */
        char *buf = weft_alloc_noscan(RESP_BASE_BYTES);
        if (!buf)
            return NULL;
        in->buf = buf;
        in->cap = RESP_BASE_BYTES;
        in->head = in->pos = in->tail = 0;
        in->args = NULL;
        in->args_cap = 0;
    } else if (live == 0) {
        in->head = in->pos = in->tail = 0;
    } else if (in->cap - in->tail < in->cap / 4) {
        size_t cap = live > in->cap / 2 ? in->cap * 2 : in->cap;
        char *buf = cap > in->cap ? weft_alloc_noscan(cap) : in->buf;
        if (!buf)
            return NULL;
        in_move(in, buf, cap);
    }
    *room = in->cap - in->tail;
    return in->buf + in->tail;
}

/* ---- parser -------------------------------------------------------------------------------------- */

/* The line at pos, without its end, and the position after it; 0 if its end has not arrived. */
static int in_line(struct resp_in *in, char **line, size_t *n, size_t *next)
{
    char *from = in->buf + in->pos;
    size_t have = in->tail - in->pos;
    char *nl = memchr(from + in->scanned, '\n', have - in->scanned);
    if (!nl) {
        in->scanned = have;
        return 0;
    }
    in->scanned = 0;
    *line = from;
    *n = (size_t)(nl - from);
    *next = in->pos + *n + 1;
    if (*n > 0 && nl[-1] == '\r')
        --*n;
    return 1;
}

static int in_fail(const char **error, const char *text)
{
    *error = text;
    return -1;
}

static bool in_push(struct resp_in *in, const char *p, size_t n)
{
    if (in->argc == in->args_cap) {
        uint32_t cap = in->args_cap ? in->args_cap * 2 : 16;
        /* Noscan: what the slices point to is kept alive by buf. */
        struct slice *args = weft_alloc_noscan(cap * sizeof *args);
        if (!args)
            return false;
        if (in->argc)
            memcpy(args, in->args, in->argc * sizeof *args);
        in->args = args;
        in->args_cap = cap;
    }
    in->args[in->argc++] = (struct slice){ .p = p, .n = (uint32_t)n };
    return true;
}

static int hex(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : -1;
}

/* One escape of a "quoted" word at p; its length. */
static size_t unescape(const char *p, const char *end, char *out)
{
    if (end - p >= 4 && p[1] == 'x' && hex(p[2]) >= 0 && hex(p[3]) >= 0) {
        *out = (char)(hex(p[2]) * 16 + hex(p[3]));
        return 4;
    }
    static const char from[] = "nrtba", to[] = "\n\r\t\b\a";
    const char *at = p[1] ? strchr(from, p[1]) : NULL;
    *out = at ? to[at - from] : p[1];
    return 2;
}

/* Splits a line into words; "double" quotes know escapes, 'single' ones only \'. Unquoted in place, which only
 * shortens. */
static int in_split(struct resp_in *in, char *p, char *end, const char **error)
{
    for (;;) {
        while (p < end && isspace((unsigned char)*p))
            p++;
        if (p == end)
            return 1;
        char *word = p, *out = p, quote = 0;
        for (; p < end && (quote || !isspace((unsigned char)*p));) {
            if (quote == '"' && *p == '\\' && end - p >= 2)
                p += unescape(p, end, out++);
            else if (quote == '\'' && *p == '\\' && end - p >= 2 && p[1] == '\'')
                *out++ = '\'', p += 2;
            else if (quote && *p == quote) {
                if (p + 1 < end && !isspace((unsigned char)p[1]))
                    return in_fail(error, "Protocol error: unbalanced quotes in request");
                quote = 0;
                p++;
            } else if (!quote && (*p == '"' || *p == '\''))
                quote = *p++;
            else
                *out++ = *p++;
        }
        if (quote)
            return in_fail(error, "Protocol error: unbalanced quotes in request");
        if (!in_push(in, word, (size_t)(out - word)))
            return in_fail(error, "OOM out of memory");
    }
}

/* "*n" or an inline request. 1: a request is complete or announced (want > 0); 0: more bytes. */
static int in_first_line(struct resp_in *in, const char **error)
{
    bool array = in->buf[in->pos] == '*';
    char *line;
    size_t n, next;
    if (!in_line(in, &line, &n, &next)) {
        if (in->scanned > RESP_MAX_LINE)
            return in_fail(error, array ? "Protocol error: too big mbulk count string"
                                        : "Protocol error: too big inline request");
        return 0;
    }
    in->pos = next;
    if (!array)
        return in_split(in, line, line + n, error);
    int64_t count;
    if (!resp_parse_int(line + 1, n - 1, &count) || count > RESP_MAX_ARGS)
        return in_fail(error, "Protocol error: invalid multibulk length");
    in->want = count > 0 ? (uint32_t)count : 0;
    in->bulk = -1;
    return 1;
}

/* "$n". As above. */
static int in_bulk_length(struct resp_in *in, const char **error)
{
    char *line;
    size_t n, next;
    if (in->pos < in->tail && in->buf[in->pos] != '$') {
        unsigned char c = (unsigned char)in->buf[in->pos];
        snprintf(in->error, sizeof in->error, "Protocol error: expected '$', got '%c'", isprint(c) ? c : ' ');
        return in_fail(error, in->error);
    }
    if (!in_line(in, &line, &n, &next)) {
        if (in->scanned > RESP_MAX_LINE)
            return in_fail(error, "Protocol error: too big bulk count string");
        return 0;
    }
    if (!resp_parse_int(line + 1, n - 1, &in->bulk) || in->bulk < 0 || (uint64_t)in->bulk > resp_max_bulk_bytes)
        return in_fail(error, "Protocol error: invalid bulk length");
    in->pos = next;
    return 1;
}

int resp_in_next(struct resp_in *in, const char **error)
{
    if (in->want == 0) { /* what lies in args was answered */
        in->argc = 0;
        for (; in->want == 0 && in->argc == 0;) { /* empty lines and "*0" are passed over in silence */
            in->head = in->pos;
            if (in->pos == in->tail)
                return 0;
            int r = in_first_line(in, error);
            if (r <= 0)
                return r;
        }
    }
    while (in->want > 0) {
        if (in->tail - in->head > resp_max_request_bytes)
            return in_fail(error, "Protocol error: request too big");
        if (in->bulk < 0) {
            int r = in_bulk_length(in, error);
            if (r <= 0)
                return r;
        }
        if (in->tail - in->pos < (size_t)in->bulk + 2)
            return 0;
        if (!in_push(in, in->buf + in->pos, (size_t)in->bulk))
            return in_fail(error, "OOM out of memory");
        in->pos += (size_t)in->bulk + 2;
        in->bulk = -1;
        in->want--;
    }
    return 1;
}

/* ---- replies ------------------------------------------------------------------------------------- */

static void *out_fail(struct resp_out *o, int error)
{
    if (o->error == 0)
        o->error = error;
    return NULL;
}

static char *out_grow(struct resp_out *o, size_t n)
{
    size_t cap = o->cap ? o->cap : RESP_BASE_BYTES;
    if (o->error != 0 || n > resp_max_reply_bytes || o->n > resp_max_reply_bytes - n)
        return out_fail(o, -EMSGSIZE);
    while (cap - o->n < n)
        cap *= 2;
    char *buf = weft_alloc_noscan(cap);
    if (!buf)
        return out_fail(o, -ENOMEM);
    if (o->n)
        memcpy(buf, o->buf, o->n);
    o->buf = buf;
    o->cap = cap;
    return buf + o->n;
}

/* Where the next n bytes go; NULL: there is no room, and error is set. */
static inline char *out_room(struct resp_out *o, size_t n)
{
    return o->cap - o->n >= n ? o->buf + o->n : out_grow(o, n);
}

static void out_line(struct resp_out *o, char type, const char *s, size_t n)
{
    char *p = out_room(o, n + 3);
    if (!p)
        return;
    p[0] = type;
    memcpy(p + 1, s, n);
    memcpy(p + 1 + n, "\r\n", 2);
    o->n += n + 3;
}

static void out_number(struct resp_out *o, char type, int64_t v)
{
    char *p = out_room(o, 24);
    if (!p)
        return;
    size_t n = 1;
    p[0] = type;
    if (v >= 0 && v < 10)
        p[n++] = (char)('0' + v);
    else
        n += resp_print_int(p + 1, v);
    memcpy(p + n, "\r\n", 2);
    o->n += n + 2;
}

void resp_simple(struct resp_out *o, const char *text) { out_line(o, '+', text, strlen(text)); }
void resp_int(struct resp_out *o, int64_t v) { out_number(o, ':', v); }
void resp_array(struct resp_out *o, size_t n) { out_number(o, '*', (int64_t)n); }
void resp_nil(struct resp_out *o) { out_line(o, '$', "-1", 2); }
void resp_nil_array(struct resp_out *o) { out_line(o, '*', "-1", 2); }
void resp_text(struct resp_out *o, const char *s) { resp_bulk(o, s, strlen(s)); }

void resp_error(struct resp_out *o, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (n >= (int)sizeof text)
        n = (int)sizeof text - 1;
    for (int i = 0; i < n; i++) /* words of the client may be quoted in it: the reply stays one line */
        if (text[i] == '\r' || text[i] == '\n')
            text[i] = ' ';
    out_line(o, '-', text, (size_t)n);
}

void resp_bulk(struct resp_out *o, const void *s, size_t n)
{
    char *p = out_room(o, n + 26);
    if (!p)
        return;
    char *at = p;
    *at++ = '$';
    at += resp_print_int(at, (int64_t)n);
    memcpy(at, "\r\n", 2);
    memcpy(at + 2, s, n);
    memcpy(at + 2 + n, "\r\n", 2);
    o->n += (size_t)(at - p) + n + 4;
}

static struct resp_ref *out_ref(struct resp_out *o)
{
    if (o->nrefs == o->refs_cap) {
        uint32_t cap = o->refs_cap ? o->refs_cap * 2 : 16;
        struct resp_ref *refs = weft_alloc_array(WEFT_TYPE(struct resp_ref, p), cap);
        if (!refs)
            return out_fail(o, -ENOMEM);
        if (o->nrefs)
            memcpy(refs, o->refs, o->nrefs * sizeof *refs);
        o->refs = refs;
        o->refs_cap = cap;
    }
    return &o->refs[o->nrefs];
}

void resp_bulk_ref(struct resp_out *o, const char *p, size_t n)
{
    if (n < RESP_REF_MIN_BYTES) {
        resp_bulk(o, p, n);
        return;
    }
    out_number(o, '$', (int64_t)n);
    char *end = out_room(o, 2);
    struct resp_ref *ref = end ? out_ref(o) : NULL;
    if (!ref)
        return;
    *ref = (struct resp_ref){ .p = p, .n = n, .at = o->n };
    o->nrefs++;
    o->ref_bytes += n;
    memcpy(end, "\r\n", 2);
    o->n += 2;
}

/* ---- sending ------------------------------------------------------------------------------------- */

/* 0 or a negative errno. A write that is cut short says why at the next one. */
static int all_sent(ssize_t r, size_t bytes) { return r < 0 ? (int)r : (size_t)r < bytes ? -EPIPE : 0; }

/* The pieces in order: bytes of buf, a string, bytes of buf, a string... */
static int send_pieces(struct resp_out *o, weft_fd *fd)
{
    enum { STRINGS = 16 };
    size_t at = 0;
    for (uint32_t i = 0; i < o->nrefs || at < o->n;) {
        struct iovec iov[2 * STRINGS + 1];
        size_t bytes = 0;
        int k = 0;
        for (; i < o->nrefs && k < 2 * STRINGS; i++) {
            const struct resp_ref *ref = &o->refs[i];
            iov[k++] = (struct iovec){ o->buf + at, ref->at - at };
            iov[k++] = (struct iovec){ (void *)ref->p, ref->n };
            bytes += ref->at - at + ref->n;
            at = ref->at;
        }
        if (i == o->nrefs) {
            iov[k++] = (struct iovec){ o->buf + at, o->n - at };
            bytes += o->n - at;
            at = o->n;
        }
        int r = all_sent(weft_writev(fd, iov, k), bytes);
        if (r < 0)
            return r;
    }
    return 0;
}

int resp_flush(struct resp_out *o, weft_fd *fd)
{
    int r = o->error;
    if (r == 0 && o->n > 0)
        r = o->nrefs == 0 ? all_sent(weft_write(fd, o->buf, o->n), o->n) : send_pieces(o, fd);
    o->n = o->ref_bytes = o->nrefs = 0;
    o->refs_cap = 0;
    o->refs = NULL; /* let the strings go */
    if (o->cap > RESP_KEEP_BYTES) { /* one large reply is behind us */
        o->buf = NULL;
        o->cap = 0;
    }
    return r;
}
