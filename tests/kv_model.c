/* kv_model - random commands to examples/kv, each reply compared with that of a simple model. The server runs as it
 * is, and again with a collection every few allocations and freed memory poisoned: whatever it forgot to keep
 * reachable shows as a wrong reply.
 *
 * Each of several clients has keys of its own, and a model of its own, and sends pipelines in pieces of random size. They share
 * a counter and a list: nobody sees them shrink, and in the end they hold what all have put in. */
#include "kv_client.h"

enum { KEYS = 24, MAX_ITEMS = 4096, CLIENTS = 4 };

/* ---- the model: linear, and obviously right --------------------------------------------------------- */

struct bytes { char *p; size_t n; };
enum kind { NONE, STRING, LIST, HASH };
struct key {
    enum kind kind;
    bool expires; /* in a thousand seconds or so */
    bool dying;   /* when the batch is over it will have expired; nothing else in the batch is about it */
    struct bytes s;
    struct bytes *items; /* of a list; of a hash: field, value, field, value... */
    size_t n;
};

struct model {
    char prefix[16];
    uint64_t rng;
    long put_in[2], seen[2]; /* of the shared counter, the shared list */
    struct key keys[KEYS];
};

static uint64_t rnd(struct model *m, uint64_t n) /* below n */
{
    m->rng ^= m->rng << 13;
    m->rng ^= m->rng >> 7;
    m->rng ^= m->rng << 17;
    return (m->rng >> 11) % n;
}

static struct bytes bytes_copy(const void *p, size_t n)
{
    struct bytes b = { malloc(n + 1), n };
    memcpy(b.p, p, n);
    b.p[n] = 0;
    return b;
}
static bool bytes_same(struct bytes a, struct bytes b) { return a.n == b.n && memcmp(a.p, b.p, a.n) == 0; }

static void key_clear(struct key *k)
{
    free(k->s.p);
    for (size_t i = 0; i < k->n; i++)
        free(k->items[i].p);
    free(k->items);
    *k = (struct key){ 0 };
}

static void key_string(struct key *k, struct bytes v)
{
    struct bytes copy = bytes_copy(v.p, v.n);
    key_clear(k);
    k->kind = STRING;
    k->s = copy;
}

static void key_insert(struct key *k, size_t at, struct bytes v)
{
    k->items = realloc(k->items, (k->n + 1) * sizeof *k->items);
    memmove(k->items + at + 1, k->items + at, (k->n - at) * sizeof *k->items);
    k->items[at] = bytes_copy(v.p, v.n);
    k->n++;
}

static void key_remove(struct key *k, size_t at)
{
    free(k->items[at].p);
    memmove(k->items + at, k->items + at + 1, (k->n - at - 1) * sizeof *k->items);
    if (--k->n == 0)
        key_clear(k);
}

static size_t key_field(const struct key *k, struct bytes f) /* k->n: none */
{
    size_t i = 0;
    while (i < k->n && !bytes_same(k->items[i], f))
        i += 2;
    return i;
}

static bool key_int(const struct key *k, long long *v)
{
    char *end;
    if (k->kind == NONE)
        return *v = 0, true;
    if (k->s.n == 0 || k->s.n > 18)
        return false;
    *v = strtoll(k->s.p, &end, 10);
    char again[32];
    snprintf(again, sizeof again, "%lld", *v);
    return end == k->s.p + k->s.n && strlen(again) == k->s.n && memcmp(again, k->s.p, k->s.n) == 0;
}

/* ---- a batch: requests, and what is to come back --------------------------------------------------- */

struct expectation {
    enum { EXACT, PAIRS, TTL, GROWS } how; /* PAIRS: in any order; TTL: -1, -2, or in range if text is "+"; GROWS: more than the last of its kind */
    size_t from, n;                 /* in expected */
};

struct batch {
    struct text request, expected;
    struct expectation e[64];
    size_t n;
    bool last; /* nothing may follow */
};

static void ask(struct batch *b, size_t n, const struct bytes *words)
{
    text_printf(&b->request, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        text_printf(&b->request, "$%zu\r\n", words[i].n);
        text_add(&b->request, words[i].p, words[i].n);
        text_add(&b->request, "\r\n", 2);
    }
    b->e[b->n] = (struct expectation){ EXACT, b->expected.n, 0 };
}

/* All is said about the last request. */
static void done(struct batch *b)
{
    b->e[b->n].n = b->expected.n - b->e[b->n].from;
    b->n++;
}

static void bulk(struct batch *b, struct bytes v)
{
    text_printf(&b->expected, "$%zu\r\n", v.n);
    text_add(&b->expected, v.p, v.n);
    text_add(&b->expected, "\r\n", 2);
}
#define want(...) text_printf(&b->expected, __VA_ARGS__)
#define NIL "$-1\r\n"
#define WRONG "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define NOT_INT "-ERR value is not an integer or out of range\r\n"
#define W(s) ((struct bytes){ (char *)(s), strlen(s) })

/* ---- one random command: asked of the server, done to the model ------------------------------------- */

struct op {
    struct model *m;
    struct batch *b;
    size_t i;        /* the key's number */
    struct key *k;
    struct bytes name, v;
    char name_[40];
    char *v_; /* to free */
};

static struct bytes key_name(struct model *m, size_t i, char *to)
{
    return (struct bytes){ to, (size_t)sprintf(to, "%s%zu", m->prefix, i) };
}

static struct bytes random_value(struct model *m)
{
    size_t r = rnd(m, 100), n = r < 70 ? rnd(m, 40) : r < 97 ? rnd(m, 600) : r < 99 ? rnd(m, 40000) : rnd(m, 200000);
    char *p = malloc(n + 32);
    if (rnd(m, 4) == 0) { /* a number, for INCR */
        n = (size_t)sprintf(p, "%lld", (long long)rnd(m, 2000) - 1000);
        return (struct bytes){ p, n };
    }
    for (size_t i = 0; i < n; i++)
        p[i] = (char)rnd(m, 256);
    return (struct bytes){ p, n };
}

static void op_set(struct op *o)
{
    struct batch *b = o->b;
    bool nx = rnd(o->m, 4) == 0, xx = !nx && rnd(o->m, 4) == 0, ex = rnd(o->m, 4) == 0;
    struct bytes w[6] = { W("SET"), o->name, o->v };
    size_t n = 3;
    if (ex)
        w[n++] = rnd(o->m, 2) ? W("EX") : W("ex"), w[n++] = W("1000");
    if (nx || xx)
        w[n++] = nx ? W("NX") : W("XX");
    ask(b, n, w);
    if ((nx && o->k->kind != NONE) || (xx && o->k->kind == NONE)) {
        want(NIL);
        return;
    }
    key_string(o->k, o->v);
    o->k->expires = ex;
    want("+OK\r\n");
}

static void op_get(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 2, (struct bytes[]){ W("GET"), o->name });
    if (o->k->kind == NONE)
        want(NIL);
    else if (o->k->kind != STRING)
        want(WRONG);
    else
        bulk(b, o->k->s);
}

static void op_append(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 3, (struct bytes[]){ W("APPEND"), o->name, o->v });
    if (o->k->kind == NONE)
        key_string(o->k, (struct bytes){ "", 0 });
    if (o->k->kind != STRING) {
        want(WRONG);
        return;
    }
    o->k->s.p = realloc(o->k->s.p, o->k->s.n + o->v.n + 1);
    memcpy(o->k->s.p + o->k->s.n, o->v.p, o->v.n);
    o->k->s.n += o->v.n;
    o->k->s.p[o->k->s.n] = 0;
    want(":%zu\r\n", o->k->s.n);
}

static void op_strlen(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 2, (struct bytes[]){ W("STRLEN"), o->name });
    if (o->k->kind != NONE && o->k->kind != STRING)
        want(WRONG);
    else
        want(":%zu\r\n", o->k->s.n);
}

static void op_incr(struct op *o)
{
    struct batch *b = o->b;
    static const char *const names[] = { "INCR", "DECR", "INCRBY", "DECRBY" };
    size_t which = rnd(o->m, 4);
    long long delta = which < 2 ? 1 : (long long)rnd(o->m, 100000) - 50000, v;
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", delta);
    ask(b, which < 2 ? 2 : 3, (struct bytes[]){ W(names[which]), o->name, W(digits) });
    if (o->k->kind != NONE && o->k->kind != STRING) {
        want(WRONG);
        return;
    }
    if (!key_int(o->k, &v)) {
        want(NOT_INT);
        return;
    }
    bool expires = o->k->expires;
    v += which % 2 ? -delta : delta;
    snprintf(digits, sizeof digits, "%lld", v);
    key_string(o->k, W(digits));
    o->k->expires = expires;
    want(":%lld\r\n", v);
}

static void op_mset(struct op *o)
{
    struct batch *b = o->b;
    char other_[40];
    size_t i = rnd(o->m, KEYS);
    ask(b, 5, (struct bytes[]){ W("MSET"), o->name, o->v, key_name(o->m, i, other_), W("other") });
    key_string(o->k, o->v);
    key_string(&o->m->keys[i], W("other"));
    want("+OK\r\n");
}

static void op_mget(struct op *o)
{
    struct batch *b = o->b;
    char names[4][40];
    struct bytes w[5] = { W("MGET") };
    size_t keys[4];
    for (int i = 0; i < 4; i++)
        w[i + 1] = key_name(o->m, keys[i] = rnd(o->m, KEYS + 4), names[i]);
    ask(b, 5, w);
    want("*4\r\n");
    for (int i = 0; i < 4; i++)
        if (keys[i] < KEYS && o->m->keys[keys[i]].kind == STRING)
            bulk(b, o->m->keys[keys[i]].s);
        else
            want(NIL);
}

static void op_del(struct op *o)
{
    struct batch *b = o->b;
    char other_[40];
    size_t i = rnd(o->m, KEYS);
    ask(b, 3, (struct bytes[]){ W("DEL"), o->name, key_name(o->m, i, other_) });
    int n = o->k->kind != NONE;
    key_clear(o->k);
    n += o->m->keys[i].kind != NONE;
    key_clear(&o->m->keys[i]);
    want(":%d\r\n", n);
}

static void op_exists(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 3, (struct bytes[]){ W("EXISTS"), o->name, o->name });
    want(":%d\r\n", o->k->kind != NONE ? 2 : 0);
}

static void op_expire(struct op *o)
{
    struct batch *b = o->b;
    bool dead = rnd(o->m, 4) == 0;
    ask(b, 3, (struct bytes[]){ W("EXPIRE"), o->name, W(dead ? "-1" : "1000") });
    want(":%d\r\n", o->k->kind != NONE);
    if (dead)
        key_clear(o->k);
    else
        o->k->expires = o->k->kind != NONE;
}

static void op_ttl(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 2, (struct bytes[]){ W("TTL"), o->name });
    b->e[b->n].how = TTL;
    want("%s", o->k->kind == NONE ? ":-2\r\n" : o->k->expires ? "+" : ":-1\r\n");
}

static void op_push(struct op *o)
{
    struct batch *b = o->b;
    bool left = rnd(o->m, 2);
    size_t n = 1 + rnd(o->m, 3);
    struct bytes w[5] = { W(left ? "LPUSH" : "rpush"), o->name, o->v, W("second"), W("") };
    ask(b, 2 + n, w);
    if (o->k->kind != NONE && o->k->kind != LIST) {
        want(WRONG);
        return;
    }
    o->k->kind = LIST;
    for (size_t i = 0; i < n; i++)
        key_insert(o->k, left ? 0 : o->k->n, w[2 + i]);
    want(":%zu\r\n", o->k->n);
}

static void op_pop(struct op *o)
{
    struct batch *b = o->b;
    bool left = rnd(o->m, 2), many = rnd(o->m, 3) == 0;
    ask(b, many ? 3 : 2, (struct bytes[]){ W(left ? "LPOP" : "RPOP"), o->name, W("7") });
    if (o->k->kind != NONE && o->k->kind != LIST) {
        want(WRONG);
        return;
    }
    if (o->k->kind == NONE) {
        want("%s", many ? "*-1\r\n" : NIL);
        return;
    }
    size_t n = !many ? 1 : o->k->n < 7 ? o->k->n : 7;
    if (many)
        want("*%zu\r\n", n);
    while (n-- > 0) {
        size_t at = left ? 0 : o->k->n - 1;
        bulk(b, o->k->items[at]);
        key_remove(o->k, at);
    }
}

static void op_lrange(struct op *o)
{
    struct batch *b = o->b;
    long n = o->k->kind == LIST ? (long)o->k->n : 0;
    long from = (long)rnd(o->m, (uint64_t)n * 2 + 9) - n - 4, to = (long)rnd(o->m, (uint64_t)n * 2 + 9) - n - 4;
    char from_[24], to_[24];
    snprintf(from_, sizeof from_, "%ld", from);
    snprintf(to_, sizeof to_, "%ld", to);
    ask(b, 4, (struct bytes[]){ W("LRANGE"), o->name, W(from_), W(to_) });
    if (o->k->kind != NONE && o->k->kind != LIST) {
        want(WRONG);
        return;
    }
    from = from < 0 ? from + n : from;
    from = from < 0 ? 0 : from;
    to = to < 0 ? to + n : to;
    to = to >= n ? n - 1 : to;
    want("*%ld\r\n", from > to ? 0 : to - from + 1);
    for (; from <= to; from++)
        bulk(b, o->k->items[from]);
}

static void op_len(struct op *o)
{
    struct batch *b = o->b;
    enum kind kind = rnd(o->m, 2) ? LIST : HASH;
    ask(b, 2, (struct bytes[]){ W(kind == LIST ? "LLEN" : "HLEN"), o->name });
    if (o->k->kind != NONE && o->k->kind != kind)
        want(WRONG);
    else
        want(":%zu\r\n", kind == HASH ? o->k->n / 2 : o->k->n);
}

static struct bytes random_field(struct op *o, char *to)
{
    return (struct bytes){ to, (size_t)sprintf(to, "field%d", (int)rnd(o->m, 200)) };
}

static void op_hset(struct op *o)
{
    struct batch *b = o->b;
    char field_[2][40];
    struct bytes w[6] = { W("HSET"), o->name, random_field(o, field_[0]), o->v, random_field(o, field_[1]), W("") };
    ask(b, 6, w);
    if (o->k->kind != NONE && o->k->kind != HASH) {
        want(WRONG);
        return;
    }
    o->k->kind = HASH;
    int added = 0;
    for (int i = 2; i < 6; i += 2) {
        size_t at = key_field(o->k, w[i]);
        if (at < o->k->n) {
            free(o->k->items[at + 1].p);
            o->k->items[at + 1] = bytes_copy(w[i + 1].p, w[i + 1].n);
        } else {
            key_insert(o->k, at, w[i]);
            key_insert(o->k, at + 1, w[i + 1]);
            added++;
        }
    }
    want(":%d\r\n", added);
}

static void op_hget(struct op *o)
{
    struct batch *b = o->b;
    char field_[40];
    struct bytes f = random_field(o, field_);
    ask(b, 3, (struct bytes[]){ W("HGET"), o->name, f });
    if (o->k->kind != NONE && o->k->kind != HASH) {
        want(WRONG);
        return;
    }
    size_t at = key_field(o->k, f);
    if (at < o->k->n)
        bulk(b, o->k->items[at + 1]);
    else
        want(NIL);
}

static void op_hgetall(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 2, (struct bytes[]){ W("HGETALL"), o->name });
    if (o->k->kind != NONE && o->k->kind != HASH) {
        want(WRONG);
        return;
    }
    b->e[b->n].how = PAIRS;
    want("*%zu\r\n", o->k->n);
    for (size_t i = 0; i < o->k->n; i++)
        bulk(b, o->k->items[i]);
}

static void op_hdel(struct op *o)
{
    struct batch *b = o->b;
    char field_[2][40];
    struct bytes w[4] = { W("HDEL"), o->name, random_field(o, field_[0]), random_field(o, field_[1]) };
    ask(b, 4, w);
    if (o->k->kind != NONE && o->k->kind != HASH) {
        want(WRONG);
        return;
    }
    int n = 0;
    for (int i = 2; i < 4; i++) {
        size_t at = key_field(o->k, w[i]);
        if (at >= o->k->n)
            continue;
        free(o->k->items[at].p);
        memmove(o->k->items + at, o->k->items + at + 1, (o->k->n - at - 1) * sizeof *o->k->items);
        o->k->n--;
        key_remove(o->k, at);
        n++;
    }
    want(":%d\r\n", n);
}

static void op_echo(struct op *o)
{
    struct batch *b = o->b;
    ask(b, 2, (struct bytes[]){ W("ECHO"), o->v });
    bulk(b, o->v);
}

/* It is gone when the batch is over, which it therefore ends. */
static void op_die(struct op *o)
{
    struct batch *b = o->b;
    bool set = rnd(o->m, 2);
    if (set)
        ask(b, 5, (struct bytes[]){ W("SET"), o->name, o->v, W("PX"), W("1") });
    else
        ask(b, 3, (struct bytes[]){ W("EXPIRE"), o->name, W("0") });
    want("%s", set ? "+OK\r\n" : o->k->kind != NONE ? ":1\r\n" : ":0\r\n");
    o->k->dying = true;
    b->last = true;
}

/* A reply that is not sent yet keeps what it was asked for, although the key has another value now, and what is sent from where it is has no other
 * owner. */
static void op_replace(struct op *o)
{
    struct batch *b = o->b;
    size_t n = 16 * 1024 + rnd(o->m, 5000);
    struct bytes large = { malloc(n + 1), n }, small = W("small");
    memset(large.p, 'a' + (int)rnd(o->m, 26), n);
    ask(b, 3, (struct bytes[]){ W("SET"), o->name, large });
    want("+OK\r\n");
    done(b);
    ask(b, 2, (struct bytes[]){ W("GET"), o->name });
    bulk(b, large);
    done(b);
    ask(b, 3, (struct bytes[]){ W("SET"), o->name, small });
    want("+OK\r\n");
    key_string(o->k, small);
    free(large.p);
}

static void op_shared(struct op *o)
{
    struct batch *b = o->b;
    bool counter = rnd(o->m, 2);
    if (counter)
        ask(b, 2, (struct bytes[]){ W("INCR"), W("shared counter") });
    else
        ask(b, 3, (struct bytes[]){ W(rnd(o->m, 2) ? "LPUSH" : "RPUSH"), W("shared list"), o->v });
    b->e[b->n].how = GROWS;
    want(counter ? "c" : "l");
    o->m->put_in[!counter]++;
}

static void (*const ops[])(struct op *) = {
    op_set,  op_set,    op_get,  op_get, op_append, op_strlen, op_incr, op_incr, op_mset,    op_mget, op_del, op_exists,
    op_push, op_push,   op_push, op_pop, op_lrange, op_len,    op_hset, op_hset, op_hset,    op_hget, op_hgetall,
    op_hdel, op_expire, op_ttl,  op_echo, op_die, op_shared, op_replace,
};

static void add_random(struct model *m, struct batch *b)
{
    struct op o = { .m = m, .b = b, .i = rnd(m, KEYS) };
    o.k = &m->keys[o.i];
    o.name = key_name(m, o.i, o.name_);
    o.v = random_value(m);
    ops[rnd(m, sizeof ops / sizeof ops[0])](&o);
    done(b);
    free(o.v.p);
}

/* ---- sending and comparing ------------------------------------------------------------------------- */

static int compare_pairs(const void *a, const void *b)
{
    const struct bytes *x = a, *y = b;
    int r = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return r ? r : (x->n > y->n) - (x->n < y->n);
}

/* The elements of an array of bulks, as (field and value) pieces in order. */
static size_t pairs_of(const char *p, size_t n, struct bytes *out)
{
    const char *at = memchr(p, '\n', n) + 1, *end = p + n;
    size_t k = 0;
    while (at < end && k < MAX_ITEMS) {
        const char *from = at;
        for (int i = 0; i < 2; i++)
            at = strchr(at, '\n') + 1 + strtol(at + 1, NULL, 10) + 2;
        out[k++] = (struct bytes){ (char *)from, (size_t)(at - from) };
    }
    qsort(out, k, sizeof *out, compare_pairs);
    return k;
}

static bool same_pairs(const char *a, size_t n, const char *b, size_t m)
{
    static __thread struct bytes x[MAX_ITEMS], y[MAX_ITEMS];
    if (n != m)
        return false;
    size_t k = pairs_of(a, n, x);
    if (k != pairs_of(b, m, y))
        return false;
    for (size_t i = 0; i < k; i++)
        if (!bytes_same(x[i], y[i]))
            return false;
    return true;
}

static bool grows(struct model *m, char which, const char *got)
{
    long *seen = &m->seen[which == 'l'], before = *seen;
    *seen = strtol(got + 1, NULL, 10);
    return got[0] == ':' && *seen > before;
}

static bool as_expected(struct model *m, const struct expectation *e, const char *want, const char *got, size_t n)
{
    if (e->how == GROWS)
        return grows(m, want[0], got);
    if (e->how == PAIRS)
        return same_pairs(want, e->n, got, n);
    if (e->how == TTL && want[0] == '+') {
        long ttl = strtol(got + 1, NULL, 10);
        return got[0] == ':' && ttl > 500 && ttl <= 1000;
    }
    return n == e->n && memcmp(want, got, n) == 0;
}

struct client {
    struct kv *kv;
    int number, batches;
    uint64_t seed;
    long put_in[2]; /* when it has ended */
    char wrong[400]; /* what went wrong; asserting is for the test's own thread */
};

#define CHECK(cl, cond, ...)                                   \
    do {                                                       \
        if (!(cond)) {                                         \
            snprintf(cl->wrong, sizeof cl->wrong, __VA_ARGS__); \
            pthread_exit(NULL);                                \
        }                                                      \
    } while (0)

static void send_in_pieces(struct client *cl, struct model *m, struct conn *c, const struct text *t)
{
    for (size_t at = 0; at < t->n;) {
        size_t n = rnd(m, 8) ? t->n - at : 1 + rnd(m, t->n - at);
        CHECK(cl, conn_send(c, t->p + at, n), "the server is gone");
        at += n;
    }
}

static void run_batch(struct client *cl, struct model *m, struct conn *c, struct batch *b, struct text *got)
{
    text_clear(&b->request);
    text_clear(&b->expected);
    b->n = 0;
    b->last = false;
    for (size_t n = 1 + rnd(m, 32); b->n < n && b->request.n < 60000 && !b->last;)
        add_random(m, b);
    send_in_pieces(cl, m, c, &b->request);
    for (size_t i = 0; i < b->n; i++) {
        text_clear(got);
        CHECK(cl, conn_reply(c, got), "no reply");
        struct expectation *e = &b->e[i];
        const char *want = b->expected.p + e->from;
        CHECK(cl, as_expected(m, e, want, got->p, got->n),
              "client %d, reply %zu of %zu: wanted %.60s (%zu bytes), got %.60s (%zu bytes)", cl->number, i, b->n, want,
              e->n, got->p, got->n);
    }
    if (b->last)
        usleep(3000); /* the clock of the server counts in milliseconds: now it is past */
    for (int i = 0; b->last && i < KEYS; i++)
        if (m->keys[i].dying)
            key_clear(&m->keys[i]);
}

static void *client_main(void *arg)
{
    struct client *cl = arg;
    struct model m = { .rng = cl->seed | 1 };
    struct batch b = { 0 };
    struct text got = { 0 };
    struct conn c;
    snprintf(m.prefix, sizeof m.prefix, "client%d:", cl->number);
    for (int i = 0; i < cl->batches; i++) {
        if (i % 50 == 0) {
            if (i > 0)
                conn_close(&c);
            (rnd(&m, 2) ? conn_tcp : conn_unix)(&c, cl->kv);
            CHECK(cl, c.fd >= 0, "cannot connect");
        }
        run_batch(cl, &m, &c, &b, &got);
    }
    conn_close(&c);
    memcpy(cl->put_in, m.put_in, sizeof cl->put_in);
    for (int i = 0; i < KEYS; i++)
        key_clear(&m.keys[i]);
    text_free(&b.request);
    text_free(&b.expected);
    text_free(&got);
    return NULL;
}

static void expect_shared(struct kv *kv, const struct client *clients)
{
    struct conn c;
    struct text t = { 0 };
    long put_in[2] = { 0 };
    for (int i = 0; i < CLIENTS; i++)
        for (int k = 0; k < 2; k++)
            put_in[k] += clients[i].put_in[k];
    conn_tcp(&c, kv);
    cr_expect(atol(strchr(conn_ask(&c, &t, "GET", "shared counter", NULL), '\n') + 1) == put_in[0], "wanted %ld, got %s", put_in[0], t.p);
    cr_expect(atol(conn_ask(&c, &t, "LLEN", "shared list", NULL) + 1) == put_in[1], "wanted %ld, got %s", put_in[1], t.p);
    conn_close(&c);
    text_free(&t);
}

static void run_clients(const char *debug, const char *procs, int batches)
{
    uint64_t seed = test_seed();
    struct kv kv = kv_start(debug, (const char *[]){ "--procs", procs, NULL });
    struct client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){ .kv = &kv, .number = i, .batches = batches, .seed = (seed + (uint64_t)i) * 0x9e3779b97f4a7c15u };
        pthread_create(&threads[i], NULL, client_main, &clients[i]);
    }
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < CLIENTS; i++)
        cr_expect(clients[i].wrong[0] == 0, "%s", clients[i].wrong);
    expect_shared(&kv, clients);
    cr_expect(kv_stop(&kv, SIGTERM) == 0);
}

Test(kv_model, as_it_is) { run_clients(NULL, "2", 600); }
Test(kv_model, one_processor) { run_clients(NULL, "1", 300); }
Test(kv_model, many_processors) { run_clients(NULL, "8", 300); }
Test(kv_model, gcstress, .timeout = 120) { test_may_take(120); run_clients("gcstress=50,gcpoison=1", "2", 250); }
Test(kv_model, gcstress_one_processor, .timeout = 120) { test_may_take(120); run_clients("gcstress=41,gcpoison=1", "1", 150); }
