/* cmd_hashes.c - commands on hashes. */
#include "cmd.h"

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
    if (!cmd_entry(c, argv[1], KIND_HASH, &e))
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
    if (!cmd_entry(c, argv[1], KIND_HASH, &e))
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
    if (!cmd_entry(c, argv[1], KIND_HASH, &e))
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
    if (!cmd_entry(c, argv[1], KIND_HASH, &e))
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
    if (cmd_entry(c, argv[1], KIND_HASH, &e))
        resp_int(&c->out, e ? (int64_t)((struct table *)e->value)->count : 0);
}

const struct cmd cmd_hashes[] = {
    /* name     function     words flags                 keys: first, last, step */
    { "hset",    cmd_hset,    -4, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "hget",    cmd_hget,     3, CMD_READ | CMD_FAST,  1, 1, 1 },
    { "hgetall", cmd_hgetall,  2, CMD_READ,             1, 1, 1 },
    { "hdel",    cmd_hdel,    -3, CMD_WRITE | CMD_FAST, 1, 1, 1 },
    { "hlen",    cmd_hlen,     2, CMD_READ | CMD_FAST,  1, 1, 1 },
    { 0 },
};
