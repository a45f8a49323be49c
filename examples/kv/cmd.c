/* cmd.c - the commands on data. To add a command: a line in cmd_table, and a function that replies once.
 *
 * The dispatcher knows from the table which words are keys. It hashes them and locks their shards before the function
 * runs, so a function never locks, and is atomic. Replies go to a buffer and never wait for the client: nobody sends
 * under a lock.
 *
 * What is stored is allocated; what is replaced or removed is just no longer pointed to. */
#include "cmd.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char wrong_type[] = "WRONGTYPE Operation against a key holding the wrong kind of value";
static const char not_an_int[] = "ERR value is not an integer or out of range";
static const char syntax_error[] = "ERR syntax error";

static void reply_oom(struct client *c) { resp_error(&c->out, "OOM out of memory"); }

static void reply_arity(struct client *c, const char *name)
{
    resp_error(&c->out, "ERR wrong number of arguments for '%s' command", name);
}

static void reply_str(struct client *c, const struct str *s) { resp_bulk_ref(&c->out, s->b, s->n); }

bool cmd_is(struct slice word, const char *lower)
{
    return strlen(lower) == word.n && strncasecmp(word.p, lower, word.n) == 0;
}

static bool get_int(struct client *c, struct slice word, int64_t *out)
{
    if (resp_parse_int(word.p, word.n, out))
        return true;
    resp_error(&c->out, not_an_int);
    return false;
}

/* False: the key holds another kind, which was replied. *e NULL: no such key. */
static bool find(struct client *c, struct slice key, enum kind kind, struct entry **e)
{
    *e = db_find(key, c->now_ms);
    if (!*e || (*e)->kind == kind)
        return true;
    resp_error(&c->out, wrong_type);
    return false;
}

/* ---- connection ---------------------------------------------------------------------------------- */

static void cmd_ping(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc > 2)
        reply_arity(c, "ping");
    else if (argc == 2)
        resp_bulk(&c->out, argv[1].p, argv[1].n);
    else
        resp_simple(&c->out, "PONG");
}

static void cmd_echo(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    resp_bulk(&c->out, argv[1].p, argv[1].n);
}

static void cmd_quit(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    c->closing = true;
    resp_simple(&c->out, "OK");
}

static void cmd_select(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t index;
    if (!get_int(c, argv[1], &index))
        return;
    if (index == 0)
        resp_simple(&c->out, "OK");
    else
        resp_error(&c->out, "ERR DB index is out of range");
}

/* ---- strings ------------------------------------------------------------------------------------- */

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
    if (!find(c, argv[1], KIND_STRING, &e))
        return;
    if (e)
        reply_str(c, e->value);
    else
        resp_nil(&c->out);
}

/* now + amount * unit in *at; false: not a time, which was replied. */
static bool expiry_at(struct client *c, struct slice word, int64_t unit_ms, const char *name, int64_t *at)
{
    int64_t amount;
    if (!get_int(c, word, &amount))
        return false;
    if (!__builtin_mul_overflow(amount, unit_ms, at) && !__builtin_add_overflow(*at, c->now_ms, at))
        return true;
    resp_error(&c->out, "ERR invalid expire time in '%s' command", name);
    return false;
}

static void cmd_set(struct client *c, struct slice *argv, uint32_t argc)
{
    int64_t expires_ms = 0;
    bool nx = false, xx = false;
    for (uint32_t i = 3; i < argc; i++) {
        bool ex = cmd_is(argv[i], "ex"), px = cmd_is(argv[i], "px");
        if ((ex || px) && i + 1 < argc && expires_ms == 0) {
            if (!expiry_at(c, argv[++i], ex ? 1000 : 1, "set", &expires_ms))
                return;
            if (expires_ms <= c->now_ms) {
                resp_error(&c->out, "ERR invalid expire time in 'set' command");
                return;
            }
        } else if (cmd_is(argv[i], "nx") && !xx) {
            nx = true;
        } else if (cmd_is(argv[i], "xx") && !nx) {
            xx = true;
        } else {
            resp_error(&c->out, syntax_error);
            return;
        }
    }
    if ((nx || xx) && (db_find(argv[1], c->now_ms) != NULL) != xx)
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
    if (!find(c, key, KIND_STRING, &e))
        return;
    if (e && !get_int(c, (struct slice){ .p = ((struct str *)e->value)->b, .n = ((struct str *)e->value)->n }, &v))
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
    if (get_int(c, argv[2], &delta))
        add(c, argv[1], delta);
}

static void cmd_decrby(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t delta;
    if (!get_int(c, argv[2], &delta))
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
    if (!find(c, argv[1], KIND_STRING, &e))
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
    if (find(c, argv[1], KIND_STRING, &e))
        resp_int(&c->out, e ? ((struct str *)e->value)->n : 0);
}

/* ---- keys ---------------------------------------------------------------------------------------- */

static void cmd_del(struct client *c, struct slice *argv, uint32_t argc)
{
    int64_t n = 0;
    for (uint32_t i = 1; i < argc; i++) {
        struct entry *e = db_find(argv[i], c->now_ms);
        if (e)
            db_remove(e);
        n += e != NULL;
    }
    resp_int(&c->out, n);
}

static void cmd_exists(struct client *c, struct slice *argv, uint32_t argc)
{
    int64_t n = 0;
    for (uint32_t i = 1; i < argc; i++)
        n += db_find(argv[i], c->now_ms) != NULL;
    resp_int(&c->out, n);
}

static void cmd_expire(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t at;
    if (!expiry_at(c, argv[2], 1000, "expire", &at))
        return;
    struct entry *e = db_find(argv[1], c->now_ms);
    if (e && at <= c->now_ms)
        db_remove(e);
    else if (e)
        db_set_expiry(e, at);
    resp_int(&c->out, e != NULL);
}

/* Milliseconds to live; -2: no such key; -1: for ever. */
static int64_t time_to_live(struct client *c, struct slice key)
{
    struct entry *e = db_find(key, c->now_ms);
    return !e ? -2 : e->expires_ms == 0 ? -1 : e->expires_ms - c->now_ms;
}

static void cmd_ttl(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    int64_t ms = time_to_live(c, argv[1]);
    resp_int(&c->out, ms < 0 ? ms : ms / 1000 + (ms % 1000 >= 500));
}

static void cmd_pttl(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    resp_int(&c->out, time_to_live(c, argv[1]));
}

static void cmd_flushall(struct client *c, struct slice *argv, uint32_t argc)
{
    if (argc > 2 || (argc == 2 && !cmd_is(argv[1], "async") && !cmd_is(argv[1], "sync"))) {
        resp_error(&c->out, syntax_error);
        return;
    }
    db_clear();
    resp_simple(&c->out, "OK");
}

static void cmd_dbsize(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argv, (void)argc;
    resp_int(&c->out, (int64_t)db_count());
}

/* ---- lists --------------------------------------------------------------------------------------- */

static void push(struct client *c, struct slice *argv, uint32_t argc, bool front)
{
    struct entry *e;
    if (!find(c, argv[1], KIND_LIST, &e))
        return;
    struct list *l = e ? e->value : list_make();
    bool ok = l != NULL;
    for (uint32_t i = 2; ok && i < argc; i++) {
        struct str *s = str_make(argv[i].p, argv[i].n);
        ok = s && list_push(l, front, s);
    }
    if (ok && !e) {
        e = db_put(argv[1], c->now_ms);
        if (e) {
            e->value = l;
            e->kind = KIND_LIST;
        }
    }
    if (ok && e)
        resp_int(&c->out, (int64_t)l->count);
    else
        reply_oom(c);
}

static void cmd_lpush(struct client *c, struct slice *argv, uint32_t argc) { push(c, argv, argc, true); }
static void cmd_rpush(struct client *c, struct slice *argv, uint32_t argc) { push(c, argv, argc, false); }

static void pop(struct client *c, struct slice *argv, uint32_t argc, bool front)
{
    struct entry *e;
    int64_t n = 1;
    if (argc > 3) {
        reply_arity(c, front ? "lpop" : "rpop");
        return;
    }
    if (argc == 3 && (!resp_parse_int(argv[2].p, argv[2].n, &n) || n < 0)) {
        resp_error(&c->out, "ERR value is out of range, must be positive");
        return;
    }
    if (!find(c, argv[1], KIND_LIST, &e))
        return;
    if (!e) {
        argc == 3 ? resp_nil_array(&c->out) : resp_nil(&c->out);
        return;
    }
    struct list *l = e->value;
    if ((uint64_t)n > l->count)
        n = (int64_t)l->count;
    if (argc == 3)
        resp_array(&c->out, (size_t)n);
    while (n-- > 0)
        reply_str(c, list_pop(l, front));
    if (l->count == 0)
        db_remove(e);
}

static void cmd_lpop(struct client *c, struct slice *argv, uint32_t argc) { pop(c, argv, argc, true); }
static void cmd_rpop(struct client *c, struct slice *argv, uint32_t argc) { pop(c, argv, argc, false); }

static void cmd_llen(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (find(c, argv[1], KIND_LIST, &e))
        resp_int(&c->out, e ? (int64_t)((struct list *)e->value)->count : 0);
}

static void cmd_lrange(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    int64_t from, to;
    if (!get_int(c, argv[2], &from) || !get_int(c, argv[3], &to) || !find(c, argv[1], KIND_LIST, &e))
        return;
    struct list *l = e ? e->value : NULL;
    int64_t count = l ? (int64_t)l->count : 0;
    from = from < 0 ? (from + count < 0 ? 0 : from + count) : from;
    to = to < 0 ? to + count : to >= count ? count - 1 : to;
    if (from > to || from >= count) {
        resp_array(&c->out, 0);
        return;
    }
    resp_array(&c->out, (size_t)(to - from + 1));
    struct list_cursor at = list_at(l, (size_t)from);
    for (; from <= to; from++)
        reply_str(c, list_next(&at));
}

/* ---- hashes -------------------------------------------------------------------------------------- */

static struct slice field(struct slice word)
{
    word.hash = table_hash(word.p, word.n);
    return word;
}

static void cmd_hset(struct client *c, struct slice *argv, uint32_t argc)
{
    struct entry *e;
    if (argc % 2 != 0) {
        reply_arity(c, "hset");
        return;
    }
    if (!find(c, argv[1], KIND_HASH, &e))
        return;
    struct table *t = e ? e->value : weft_alloc_typed(table_type());
    if (t && !e) {
        e = db_put(argv[1], c->now_ms);
        if (e) {
            e->value = t;
            e->kind = KIND_HASH;
        }
    }
    bool ok = t && e;
    int64_t added = 0;
    for (uint32_t i = 2; ok && i < argc; i += 2) {
        struct str *s = str_make(argv[i + 1].p, argv[i + 1].n);
        struct entry *f = s ? table_put(t, field(argv[i])) : NULL;
        ok = f != NULL;
        if (ok) {
            added += f->value == NULL;
            f->value = s;
        }
    }
    if (e && t && t->count == 0) /* there is no empty hash */
        db_remove(e);
    if (ok)
        resp_int(&c->out, added);
    else
        reply_oom(c);
}

static void cmd_hget(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (!find(c, argv[1], KIND_HASH, &e))
        return;
    struct entry *f = e ? table_find(e->value, field(argv[2])) : NULL;
    if (f)
        reply_str(c, f->value);
    else
        resp_nil(&c->out);
}

static void cmd_hgetall(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (!find(c, argv[1], KIND_HASH, &e))
        return;
    struct table *t = e ? e->value : NULL;
    resp_array(&c->out, t ? 2 * t->count : 0);
    for (size_t i = 0; t && i < table_buckets(t); i++)
        for (struct entry *f = table_bucket(t, i); f; f = f->next) {
            resp_bulk(&c->out, f->key, f->n);
            reply_str(c, f->value);
        }
}

static void cmd_hdel(struct client *c, struct slice *argv, uint32_t argc)
{
    struct entry *e;
    if (!find(c, argv[1], KIND_HASH, &e))
        return;
    int64_t n = 0;
    for (uint32_t i = 2; e && i < argc; i++)
        n += table_remove(e->value, field(argv[i])) != NULL;
    if (e && ((struct table *)e->value)->count == 0)
        db_remove(e);
    resp_int(&c->out, n);
}

static void cmd_hlen(struct client *c, struct slice *argv, uint32_t argc)
{
    (void)argc;
    struct entry *e;
    if (find(c, argv[1], KIND_HASH, &e))
        resp_int(&c->out, e ? (int64_t)((struct table *)e->value)->count : 0);
}

/* ---- the table ----------------------------------------------------------------------------------- */

enum { R = CMD_READ, W = CMD_WRITE, F = CMD_FAST, A = CMD_ADMIN };

const struct cmd cmd_table[] = {
    /* name       function      words flags            keys: first, last, step */
    { "ping",     cmd_ping,     -1, F,                 0, 0, 0 },
    { "echo",     cmd_echo,      2, F,                 0, 0, 0 },
    { "quit",     cmd_quit,     -1, F,                 0, 0, 0 },
    { "select",   cmd_select,    2, F,                 0, 0, 0 },
    { "get",      cmd_get,       2, R | F,             1, 1, 1 },
    { "set",      cmd_set,      -3, W,                 1, 1, 1 },
    { "mget",     cmd_mget,     -2, R | F,             1, -1, 1 },
    { "mset",     cmd_mset,     -3, W,                 1, -1, 2 },
    { "incr",     cmd_incr,      2, W | F,             1, 1, 1 },
    { "decr",     cmd_decr,      2, W | F,             1, 1, 1 },
    { "incrby",   cmd_incrby,    3, W | F,             1, 1, 1 },
    { "decrby",   cmd_decrby,    3, W | F,             1, 1, 1 },
    { "append",   cmd_append,    3, W | F,             1, 1, 1 },
    { "strlen",   cmd_strlen,    2, R | F,             1, 1, 1 },
    { "del",      cmd_del,      -2, W,                 1, -1, 1 },
    { "exists",   cmd_exists,   -2, R | F,             1, -1, 1 },
    { "expire",   cmd_expire,    3, W | F,             1, 1, 1 },
    { "ttl",      cmd_ttl,       2, R | F,             1, 1, 1 },
    { "pttl",     cmd_pttl,      2, R | F,             1, 1, 1 },
    { "lpush",    cmd_lpush,    -3, W | F,             1, 1, 1 },
    { "rpush",    cmd_rpush,    -3, W | F,             1, 1, 1 },
    { "lpop",     cmd_lpop,     -2, W | F,             1, 1, 1 },
    { "rpop",     cmd_rpop,     -2, W | F,             1, 1, 1 },
    { "lrange",   cmd_lrange,    4, R,                 1, 1, 1 },
    { "llen",     cmd_llen,      2, R | F,             1, 1, 1 },
    { "hset",     cmd_hset,     -4, W | F,             1, 1, 1 },
    { "hget",     cmd_hget,      3, R | F,             1, 1, 1 },
    { "hgetall",  cmd_hgetall,   2, R,                 1, 1, 1 },
    { "hdel",     cmd_hdel,     -3, W | F,             1, 1, 1 },
    { "hlen",     cmd_hlen,      2, R | F,             1, 1, 1 },
    { "dbsize",   cmd_dbsize,    1, R | F,             0, 0, 0 },
    { "flushall", cmd_flushall, -1, W | CMD_LOCK_ALL,  0, 0, 0 },
    { "info",     cmd_info,     -1, A,                 0, 0, 0 },
    { "config",   cmd_config,   -2, A,                 0, 0, 0 },
    { "client",   cmd_client,   -2, A,                 0, 0, 0 },
    { "command",  cmd_command,  -1, A,                 0, 0, 0 },
};
const size_t cmd_count = sizeof cmd_table / sizeof cmd_table[0];

/* ---- the dispatcher ------------------------------------------------------------------------------ */

enum { INDEX_SLOTS = 256 }; /* a power of two, well above the number of commands */
static uint8_t index_[INDEX_SLOTS]; /* 1 + place in cmd_table; 0: free */

static uint32_t name_hash(const char *p, size_t n)
{
    uint32_t h = (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        h = h * 31 + ((unsigned char)p[i] | 0x20);
    return h ^ h >> 8;
}

void cmd_init(void)
{
    for (size_t i = 0; i < cmd_count; i++) {
        uint32_t h = name_hash(cmd_table[i].name, strlen(cmd_table[i].name));
        while (index_[h % INDEX_SLOTS])
            h++;
        index_[h % INDEX_SLOTS] = (uint8_t)(i + 1);
    }
}

const struct cmd *cmd_find(struct slice name)
{
    for (uint32_t h = name_hash(name.p, name.n < 32 ? name.n : 0);; h++) {
        uint8_t i = index_[h % INDEX_SLOTS];
        if (i == 0)
            return NULL;
        if (cmd_is(name, cmd_table[i - 1].name))
            return &cmd_table[i - 1];
    }
}

static int at_most(size_t n, size_t max) { return (int)(n < max ? n : max); }

static void reply_unknown(struct client *c, const struct slice *argv, uint32_t argc)
{
    char words[160];
    size_t n = 0;
    for (uint32_t i = 1; i < argc && n < 128; i++) {
        n += (size_t)snprintf(words + n, sizeof words - n, "'%.*s' ", at_most(argv[i].n, 128 - n), argv[i].p);
    }
    words[n] = 0;
    resp_error(&c->out, "ERR unknown command '%.*s', with args beginning with: %s", at_most(argv[0].n, 128), argv[0].p,
               words);
}

/* Hashes the keys and tells which shards they are in. */
static uint64_t shards_of(const struct cmd *cmd, struct slice *argv, uint32_t argc)
{
    uint64_t set = cmd->flags & CMD_LOCK_ALL ? DB_ALL : 0;
    if (cmd->first == 0)
        return set;
    int last = cmd->last < 0 ? (int)argc + cmd->last : cmd->last;
    for (int i = cmd->first; i <= last; i += cmd->step) {
        argv[i].hash = table_hash(argv[i].p, argv[i].n);
        set |= db_shard_bit(argv[i].hash);
    }
    return set;
}

void cmd_run(struct client *c)
{
    struct slice *argv = c->in.args;
    uint32_t argc = c->in.argc;
    const struct cmd *cmd = cmd_find(argv[0]);
    c->commands++;
    if (!cmd) {
        reply_unknown(c, argv, argc);
    } else if (cmd->arity < 0 ? argc < (uint32_t)-cmd->arity : argc != (uint32_t)cmd->arity) {
        reply_arity(c, cmd->name);
    } else {
        uint64_t shards = shards_of(cmd, argv, argc);
        db_lock(shards);
        cmd->run(c, argv, argc);
        db_unlock(shards);
    }
}
