/* cmd_strings.c - commands on strings, which count as numbers too. */
#include "cmd.h"

#include <string.h>

/* Makes key a string that expires at expires_ms, whatever it was. False: no memory, which was replied. */
static bool store(struct client *c, struct slice key, const char *p, size_t n, int64_t expires_ms)
{
    struct str *s = str_make(p, n);
    struct entry *e = s ? db_put(key, c->now_ms) : NULL;
    if (!e) {
        reply_oom(c);
        return false;
    }
    e->value = s;
    e->kind = KIND_STRING;
    if (e->expires_ms != expires_ms)
        db_set_expiry(e, expires_ms);
    return true;
}

static void cmd_get(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (!cmd_entry(c, argv[1], KIND_STRING, &e))
        return;
    if (e)
        reply_str(c, e->value);
    else
        resp_nil(&c->out);
}

struct set_options {
    bool nx, xx;
    int64_t unit_ms; /* of the time to live; 0: for ever */
    struct slice amount;
};

static bool set_options(struct set_options *o, const struct slice *words, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        int64_t unit_ms = cmd_is(words[i], "ex") ? 1000 : cmd_is(words[i], "px") ? 1 : 0;
        if (unit_ms > 0 && i + 1 < n && (o->unit_ms == 0 || o->unit_ms == unit_ms)) {
            o->unit_ms = unit_ms;
            o->amount = words[++i];
        } else if (cmd_is(words[i], "nx") && !o->xx) {
            o->nx = true;
        } else if (cmd_is(words[i], "xx") && !o->nx) {
            o->xx = true;
        } else {
            return false;
        }
    }
    return true;
}

static void cmd_set(struct client *c, struct slice *argv, uint32_t argc)
{
    struct set_options o = { 0 };
    int64_t expires_ms = 0;
    if (!set_options(&o, argv + 3, argc - 3))
        reply_syntax(c);
    else if (o.unit_ms > 0 && !cmd_expiry(c, o.amount, o.unit_ms, "set", &expires_ms))
        return;
    else if (o.unit_ms > 0 && expires_ms <= c->now_ms)
        resp_error(&c->out, "ERR invalid expire time in 'set' command");
    else if ((o.nx || o.xx) && (db_find(argv[1], c->now_ms) != NULL) != o.xx)
        resp_nil(&c->out);
    else if (store(c, argv[1], argv[2].p, argv[2].n, expires_ms))
        resp_simple(&c->out, "OK");
}

static void cmd_mget(struct client *c, struct slice *argv, uint32_t argc)
{
    resp_array(&c->out, argc - 1);
    for (uint32_t i = 1; i < argc; i++) {
        struct entry *e = db_find(argv[i], c->now_ms);
        if (e && e->kind == KIND_STRING)
            reply_str(c, e->value);
        else
            resp_nil(&c->out);
    }
}

static void cmd_mset(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc % 2 == 0) {
        reply_arity(c, "mset");
        return;
    }
    for (uint32_t i = 1; i < argc; i += 2)
        if (!store(c, argv[i], argv[i + 1].p, argv[i + 1].n, 0))
            return;
    resp_simple(&c->out, "OK");
}

static void add(struct client *c, struct slice key, int64_t delta)
{
    struct entry *e;
    int64_t v = 0;
    if (!cmd_entry(c, key, KIND_STRING, &e))
        return;
    if (e && !cmd_int(c, (struct slice){ .p = ((struct str *)e->value)->b, .n = ((struct str *)e->value)->n }, &v))
        return;
    if (__builtin_add_overflow(v, delta, &v)) {
        resp_error(&c->out, "ERR increment or decrement would overflow");
        return;
    }
    char digits[20];
    if (store(c, key, digits, resp_print_int(digits, v), e ? e->expires_ms : 0))
        resp_int(&c->out, v);
}

static void cmd_incr(struct client *c, struct slice *argv, uint32_t argc) { (void)argc, add(c, argv[1], 1); }
static void cmd_decr(struct client *c, struct slice *argv, uint32_t argc) { (void)argc, add(c, argv[1], -1); }

static void cmd_incrby(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t delta;
    if (cmd_int(c, argv[2], &delta))
        add(c, argv[1], delta);
}

static void cmd_decrby(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t delta;
    if (!cmd_int(c, argv[2], &delta))
        return;
    if (delta == INT64_MIN)
        resp_error(&c->out, "ERR decrement would overflow");
    else
        add(c, argv[1], -delta);
}

static void cmd_append(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (!cmd_entry(c, argv[1], KIND_STRING, &e))
        return;
    if (!e) {
        if (store(c, argv[1], argv[2].p, argv[2].n, 0))
            resp_int(&c->out, argv[2].n);
        return;
    }
    struct str *s = e->value;
    if ((size_t)s->n + argv[2].n > resp_max_bulk_bytes) {
        resp_error(&c->out, "ERR string exceeds maximum allowed size (proto-max-bulk-len)");
        return;
    }
    s = str_append(s, argv[2].p, argv[2].n);
    if (!s) {
        reply_oom(c);
        return;
    }
    e->value = s;
    resp_int(&c->out, s->n);
}

static void cmd_strlen(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (cmd_entry(c, argv[1], KIND_STRING, &e))
        resp_int(&c->out, e ? ((struct str *)e->value)->n : 0);
}

const struct cmd cmd_strings[] = {
    /* name    function    words flags                 keys: first, last, step */
    { "get",    cmd_get,     2, CMD_READ | CMD_FAST,  1, 1, 1 },
    { "set",    cmd_set,    -3, CMD_WRITE,            1, 1, 1 },
    { "mget",   cmd_mget,   -2, CMD_READ | CMD_FAST,  1, -1, 1 },
    { "mset",   cmd_mset,   -3, CMD_WRITE,            1, -1, 2 },
    { "incr",   cmd_incr,    2, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "decr",   cmd_decr,    2, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "incrby", cmd_incrby,  3, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "decrby", cmd_decrby,  3, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "append", cmd_append,  3, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "strlen", cmd_strlen,  2, CMD_READ | CMD_FAST,  1, 1, 1 },
    { 0 },
};
